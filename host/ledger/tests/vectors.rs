//! Signatures against published vectors: RFC 8032, RFC 6979, and those of Project Wycheproof, which hold the malformed
//! ones that libraries got wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

use maxhost_ledger::keys::{Scheme, SigningKey, check_key, verify};
use maxhost_model::{KeyAlgorithm, PublicKey};
use wycheproof::TestResult;

fn bytes(hex_text: &str) -> Vec<u8> {
    hex::decode(hex_text).unwrap()
}

#[test]
fn ed25519_signs_as_rfc_8032_says() {
    for (seed, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let key = SigningKey::from_seed(Scheme::Ed25519, &bytes(seed)).unwrap();
        assert_eq!(key.public().raw(), bytes(public));
        assert_eq!(key.sign(&bytes(message)), bytes(signature));
        assert!(verify(key.public(), &bytes(message), &bytes(signature)));
    }
}

#[test]
fn secp256r1_signs_as_rfc_6979_says() {
    // Appendix A.2.5, SHA-256. The RFC's s is the upper of the two, which is refused here; the lower is n - s.
    let key = SigningKey::from_seed(
        Scheme::EcdsaSecp256r1,
        &bytes("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"),
    )
    .unwrap();
    let r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
    let upper = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
    let lower = "0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9";
    assert_eq!(key.sign(b"sample"), bytes(&format!("{r}{lower}")));
    assert!(verify(key.public(), b"sample", &bytes(&format!("{r}{lower}"))));
    assert!(!verify(key.public(), b"sample", &bytes(&format!("{r}{upper}"))));
}

#[test]
fn secp256k1_signs_as_the_known_vector_says() {
    // The vector that implementations of RFC 6979 over this curve share.
    let mut seed = [0; 32];
    seed[31] = 1;
    let key = SigningKey::from_seed(Scheme::EcdsaSecp256k1, &seed).unwrap();
    let expected = "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8\
                    2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5";
    assert_eq!(key.sign(b"Satoshi Nakamoto"), bytes(expected));
}

#[test]
fn wycheproof_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let (mut valid, mut refused) = (0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_raw(KeyAlgorithm::Ed25519, &group.key.pk).unwrap();
        for test in &group.tests {
            let verdict = verify(&key, &test.msg, &test.sig);
            match test.result {
                TestResult::Valid => assert!(verdict, "{}: {}", test.tc_id, test.comment),
                _ => assert!(!verdict, "{}: {}", test.tc_id, test.comment),
            }
            if verdict { valid += 1 } else { refused += 1 }
        }
    }
    assert!(valid > 50 && refused > 40, "{valid} {refused}");
}

fn wycheproof_ecdsa(name: wycheproof::ecdsa::TestName, algorithm: KeyAlgorithm, half_order: &str) {
    let set = wycheproof::ecdsa::TestSet::load(name).unwrap();
    let half_order = bytes(half_order);
    let (mut valid, mut refused) = (0, 0);
    for group in &set.test_groups {
        let Ok(key) = PublicKey::from_raw(algorithm, &group.key.key) else { continue };
        for test in &group.tests {
            let verdict = verify(&key, &test.msg, &test.sig);
            let low = test.sig.len() == 64 && test.sig[32..] <= half_order[..];
            match test.result {
                TestResult::Valid if low => assert!(verdict, "{}: {}", test.tc_id, test.comment),
                _ => assert!(!verdict, "{}: {}", test.tc_id, test.comment),
            }
            if verdict { valid += 1 } else { refused += 1 }
        }
    }
    assert!(valid > 60 && refused > 100, "{valid} {refused}");
}

#[test]
fn wycheproof_secp256r1() {
    wycheproof_ecdsa(
        wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363,
        KeyAlgorithm::P256,
        "7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8",
    );
}

#[test]
fn wycheproof_secp256k1() {
    wycheproof_ecdsa(
        wycheproof::ecdsa::TestName::EcdsaSecp256k1Sha256P1363,
        KeyAlgorithm::Secp256k1,
        "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0",
    );
}

#[test]
fn wycheproof_rsa() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    for name in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256] {
        let set = TestSet::load(name).unwrap();
        let (mut valid, mut refused) = (0, 0);
        for group in &set.test_groups {
            let key = PublicKey::from_raw(KeyAlgorithm::Rsa, &group.asn_key).unwrap();
            for test in &group.tests {
                let verdict = verify(&key, &test.msg, &test.sig);
                match test.result {
                    TestResult::Valid => assert!(verdict, "{}: {}", test.tc_id, test.comment),
                    // Signatures whose padding lacks a NULL; taken by some, refused here.
                    TestResult::Acceptable => assert!(!verdict, "{}: {}", test.tc_id, test.comment),
                    TestResult::Invalid => assert!(!verdict, "{}: {}", test.tc_id, test.comment),
                }
                if verdict { valid += 1 } else { refused += 1 }
            }
        }
        assert!(valid > 5 && refused > 100, "{valid} {refused}");
    }
}

#[test]
fn weak_keys_and_points_off_the_curve_are_no_keys() {
    let ed = |text: &str| PublicKey::from_raw(KeyAlgorithm::Ed25519, &bytes(text)).unwrap();
    for weak in [
        // The neutral point, and points of order 2, 4 and 8.
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        // y = 3 written as p + 3, a second form; and y = 2, which is no point.
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert!(check_key(&ed(weak)).is_err(), "{weak}");
        assert!(!verify(&ed(weak), b"", &[0; 64]));
    }
    let mut point = vec![4; 65];
    point[64] = 5;
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Secp256k1] {
        assert!(check_key(&PublicKey::from_raw(algorithm, &point).unwrap()).is_err());
    }
    assert!(check_key(&PublicKey::from_raw(KeyAlgorithm::Rsa, &[1, 2, 3]).unwrap()).is_err());
}
