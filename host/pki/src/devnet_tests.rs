//! Development networks, the map over them, and the identities in them, as the host uses them together.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;

use maxhost_model::{Code, NameQuery, Problem, PublicKey};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::keys::verify;
use crate::names::tls_host_name;
use crate::network_map::{Changes, NetworkMap};
use crate::parameters::ProvenParameters;

fn name(organisation: &str) -> X500Name {
    X500Name::parse(&format!("O={organisation}, L=London, C=GB")).unwrap()
}

fn names(organisations: &[&str]) -> Vec<X500Name> {
    organisations.iter().map(|organisation| name(organisation)).collect()
}

fn network_of(organisations: &[&str]) -> (tempfile::TempDir, DevNetwork) {
    let dir = tempfile::tempdir().unwrap();
    let mut network = DevNetwork::create(dir.path(), &Options::default()).unwrap();
    let all = names(organisations);
    network.issue_all(&all, &mut |_| {}).unwrap();
    network.set_notaries(&[(all[0].clone(), false)]).unwrap();
    (dir, network)
}

fn open(network: &mut DevNetwork, organisation: &str) -> Result<OpenIdentity> {
    let issued = network.find(&name(organisation))?;
    OpenIdentity::open(network.vault(), &issued.folder, &issued.name, network.trust_root(), SystemTime::now())
}

fn reissue(dir: &Path, organisations: &[&str]) -> Vec<Issued> {
    let mut network = DevNetwork::create(dir, &Options::default()).unwrap();
    network.issue_all(&names(organisations), &mut |_| {}).unwrap()
}

fn alter(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_network_is_made_opened_and_used() {
    let (dir, mut network) = network_of(&["Notary", "Alice", "Bob"]);
    let alice = open(&mut network, "Alice").unwrap();
    let signature = alice.sign(b"deal").unwrap();
    assert!(verify(&alice.party().owning_key, b"deal", &signature));
    assert_eq!(alice.tls_chain().len(), 3);
    assert_ne!(alice.tls_key().public(), alice.key().public());

    let map = NetworkMap::load(&dir.path().join("network")).unwrap();
    assert_eq!((map.len(), map.rejected()), (3, vec![]));
    let party = map.party(&name("Alice")).unwrap().unwrap();
    assert_eq!((party.party, party.notary, party.platform_version), (alice.party().clone(), false, 140));
    assert!(map.party(&name("Notary")).unwrap().unwrap().notary);
    assert_eq!(map.party(&name("Nobody")).unwrap(), None);
    assert_eq!(map.node_info(&name("Bob")).unwrap().unwrap().addresses, ["localhost:10002"]);
    assert_eq!(map.find(&NameQuery::new("o=")), names(&["Alice", "Bob", "Notary"]));
    assert_eq!(map.find(&NameQuery::new("O=Bob, L=London, C=GB")), names(&["Bob"]));
    let parameters = map.parameters();
    assert_eq!((parameters.parameters().notaries.len(), parameters.parameters().epoch), (1, 1));

    let (mut folders, mut seen) = (vec![dir.path().join("keys")], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = std::fs::metadata(&path).unwrap();
            let mode = found.permissions().mode() & 0o777;
            assert_eq!(mode, if found.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
            seen += 1;
            folders.extend(found.is_dir().then_some(path));
        }
    }
    assert!(seen > 15, "{seen}");
    assert!(!dir.path().join("keys/.new/alice").exists());
}

#[test]
fn repeating_changes_nothing_and_adding_goes_on() {
    let (dir, network) = network_of(&["Notary", "Alice"]);
    assert!(matches!(DevNetwork::open(dir.path(), &Options::default()), Err(PkiError::Busy { .. })));
    drop(network);
    let again = reissue(dir.path(), &["Notary", "Alice", "Bob", "Bob"]);
    assert_eq!(again.iter().map(|issued| issued.created).collect::<Vec<_>>(), [false, false, true]);

    let mut network = DevNetwork::open(dir.path(), &Options::default()).unwrap();
    let before = network.parameters().unwrap().unwrap();
    assert_eq!(network.set_notaries(&[(name("Notary"), false)]).unwrap().hash(), before.hash());
    let next = network.set_notaries(&[(name("Notary"), false), (name("Bob"), true)]).unwrap();
    assert_eq!((next.epoch, next.notaries.len()), (2, 2));
    assert!(matches!(network.set_notaries(&[(name("Nobody"), true)]), Err(PkiError::UnknownIdentity { .. })));
    assert_eq!(Problem::from(network.find(&name("Nobody")).unwrap_err()).code, Code::IdentityNotFound);
}

#[test]
fn folders_are_told_apart() {
    let (dir, mut network) = network_of(&["Alice", "Authority", "Passphrase"]);
    let other = X500Name::parse("O=Alice, L=Paris, C=FR").unwrap();
    let third = X500Name::parse("O=ALICE!, L=Paris, C=FR").unwrap();
    assert_eq!(network.issue(&other).unwrap().slug, "alice-2");
    assert_eq!(network.issue(&third).unwrap().slug, "alice-3");
    drop(network);
    let mut network = DevNetwork::open(dir.path(), &Options::default()).unwrap();
    assert_eq!(network.find(&third).unwrap().slug, "alice-3");
    assert_eq!(network.find(&other).unwrap().slug, "alice-2");
    assert_eq!(network.find(&name("Authority")).unwrap().slug, "authority-2");
    assert_eq!(network.find(&name("Passphrase")).unwrap().slug, "passphrase-2");
    assert!(!network.issue(&other).unwrap().created);
}

#[test]
fn an_interruption_at_any_point_is_mended() {
    let (dir, network) = network_of(&["Notary", "Alice", "Bob"]);
    let keys = |network: &[Issued]| network.iter().map(|issued| issued.key.clone()).collect::<Vec<_>>();
    drop(network);
    let all = ["Notary", "Alice", "Bob"];
    let before = keys(&reissue(dir.path(), &all));
    let info = node_info(&dir.path().join("network"), &name("Alice"));

    // Before publishing; while publishing; while writing the keys of Bob; before the certificates were public.
    std::fs::remove_file(&info).unwrap();
    assert_eq!(keys(&reissue(dir.path(), &all)), before);
    std::fs::write(&info, b"").unwrap();
    std::fs::remove_file(dir.path().join("network/parties")).unwrap();
    assert_eq!(keys(&reissue(dir.path(), &all)), before);
    let staging = dir.path().join("keys/.new/bob");
    std::fs::create_dir_all(&staging).unwrap();
    std::fs::write(staging.join("tls.key"), b"half").unwrap();
    std::fs::remove_dir_all(dir.path().join("keys/bob")).unwrap();
    std::fs::remove_file(dir.path().join("network/doorman.pem")).unwrap();
    let after = reissue(dir.path(), &all);
    assert_eq!(keys(&after)[..2], before[..2]);
    assert!(after[2].created && !staging.exists());
    let map = NetworkMap::load(&dir.path().join("network")).unwrap();
    for issued in &after[..2] {
        assert_eq!(map.party(&issued.name).unwrap().unwrap().party.owning_key, issued.key);
    }
}

#[test]
fn a_lost_folder_of_keys_gives_a_new_identity_that_is_published() {
    let (dir, network) = network_of(&["Notary", "Alice"]);
    drop(network);
    std::fs::remove_dir_all(dir.path().join("keys/alice")).unwrap();
    let issued = reissue(dir.path(), &["Alice"]);
    let map = NetworkMap::load(&dir.path().join("network")).unwrap();
    assert_eq!(map.party(&name("Alice")).unwrap().unwrap().party.owning_key, issued[0].key);
}

#[test]
fn foreign_folders_are_left_alone() {
    for (folder, refused) in [("keys", true), ("network", true), ("data", false)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        std::fs::write(dir.path().join(folder).join("mine.txt"), b"mine").unwrap();
        let made = DevNetwork::create(dir.path(), &Options::default());
        assert_eq!(matches!(made, Err(PkiError::FolderInUse { .. })), refused, "{folder}");
        assert_eq!(std::fs::read(dir.path().join(folder).join("mine.txt")).unwrap(), b"mine");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(
        DevNetwork::open(empty.path(), &Options::default()).unwrap_err().to_string().contains("no development network")
    );
}

#[test]
fn another_passphrase_is_refused_and_a_given_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let with = |text: &str| Options { passphrase: Some(Passphrase::new(text).unwrap()), ..Options::default() };
    drop(DevNetwork::create(dir.path(), &with("secret")).unwrap());
    assert!(!dir.path().join("keys/passphrase").exists());
    assert!(matches!(DevNetwork::open(dir.path(), &with("other")), Err(PkiError::WrongPassphrase { .. })));
    DevNetwork::open(dir.path(), &with("secret")).unwrap();
}

#[test]
fn a_failure_in_the_middle_is_told_and_the_next_attempt_goes_on() {
    let (dir, mut network) = network_of(&["Notary"]);
    let infos = dir.path().join("network/node-infos");
    std::fs::rename(&infos, dir.path().join("away")).unwrap();
    let error = network.issue(&name("Alice")).unwrap_err();
    assert_eq!(Problem::from(error).code, Code::DirectoryUnwritable);
    std::fs::rename(dir.path().join("away"), &infos).unwrap();
    network.issue(&name("Alice")).unwrap();
    let map = NetworkMap::load(&dir.path().join("network")).unwrap();
    assert!(map.party(&name("Alice")).unwrap().is_some());
}

#[test]
fn rustls_accepts_the_tls_chain_for_the_host_name_only() {
    let (_dir, mut network) = network_of(&["Notary", "Alice"]);
    let alice = open(&mut network, "Alice").unwrap();
    let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    let root = der(network.trust_root().der());
    let anchors = [webpki::anchor_from_trusted_cert(&root).unwrap()];
    let chain: Vec<CertificateDer<'_>> = alice.tls_chain().iter().map(|bytes| der(bytes)).collect();
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        leaf.verify_for_usage(algorithms, &anchors, &chain[1..], UnixTime::now(), usage, None, None).unwrap();
    }
    let host = |name: String| ServerName::try_from(name).unwrap();
    leaf.verify_is_valid_for_subject_name(&host(tls_host_name(alice.name()))).unwrap();
    assert!(leaf.verify_is_valid_for_subject_name(&host(tls_host_name(&name("Bob")))).is_err());
}

#[test]
fn altered_keys_and_certificates_stop_one_identity_only() {
    let (dir, mut network) = network_of(&["Notary", "Alice", "Bob", "Carol", "Dave"]);
    let keys = dir.path().join("keys");
    alter(&keys.join("alice/identity.key"), 30);
    assert!(matches!(open(&mut network, "Alice"), Err(PkiError::Key { .. })));
    std::fs::copy(keys.join("carol/identity.key"), keys.join("bob/identity.key")).unwrap();
    assert!(matches!(open(&mut network, "Bob"), Err(PkiError::Key { .. })));
    std::fs::copy(keys.join("dave/certificates.pem"), keys.join("carol/certificates.pem")).unwrap();
    let error = open(&mut network, "Carol").unwrap_err();
    assert!(error.to_string().contains("certificates.pem") && error.to_string().contains("O=Dave"), "{error}");
    open(&mut network, "Dave").unwrap();
    std::fs::write(keys.join("dave/certificates.pem"), "nonsense").unwrap();
    assert_eq!(Problem::from(open(&mut network, "Dave").unwrap_err()).code, Code::CertificateInvalid);
    std::fs::remove_file(keys.join("notary/tls.key")).unwrap();
    assert_eq!(Problem::from(open(&mut network, "Notary").unwrap_err()).code, Code::FileNotFound);
}

#[test]
fn the_map_verifies_before_it_answers() {
    let (dir, _network) = network_of(&["Notary", "Alice", "Bob"]);
    let folder = dir.path().join("network");
    let (alice, bob) = (node_info(&folder, &name("Alice")), node_info(&folder, &name("Bob")));

    // The serial lies within what is signed: a byte more, and the signature no longer fits.
    let mut signed: Signed<NodeInfo> = from_cbor(&std::fs::read(&alice).unwrap()).unwrap();
    let mut info = signed.decode_unverified().unwrap().into_value();
    info.serial += 1;
    signed.raw = to_cbor(&info).unwrap();
    std::fs::write(&alice, to_cbor(&signed).unwrap()).unwrap();
    std::fs::copy(&alice, &bob).unwrap();
    std::fs::write(folder.join("node-infos/readme.txt"), "hello").unwrap();

    let map = NetworkMap::load(&folder).unwrap();
    assert!(map.party(&name("Alice")).unwrap_err().to_string().contains("signature"));
    assert_eq!(map.party(&name("Bob")).unwrap(), None);
    let rejected = map.rejected();
    assert_eq!(rejected.len(), 2);
    assert!(rejected.iter().any(|(_, reason)| reason.contains("O=Alice")));

    // A node info of another network does not verify here.
    let (other, _other_network) = network_of(&["Notary", "Alice"]);
    std::fs::copy(node_info(&other.path().join("network"), &name("Alice")), &alice).unwrap();
    let map = NetworkMap::load(&folder).unwrap();
    assert!(map.party(&name("Alice")).unwrap_err().to_string().contains("is not signed by"));
}

#[test]
fn altered_parameters_are_refused() {
    let (dir, _network) = network_of(&["Notary"]);
    let folder = dir.path().join("network");
    let path = folder.join("parameters");
    let good = std::fs::read(&path).unwrap();
    alter(&path, good.len() / 2);
    assert!(NetworkMap::load(&folder).is_err());
    std::fs::write(&path, b"").unwrap();
    assert_eq!(Problem::from(NetworkMap::load(&folder).unwrap_err()).code, Code::NetworkInvalid);
    std::fs::write(&path, good).unwrap();
    // Signed by one who may not sign parameters.
    std::fs::copy(folder.join("doorman.pem"), folder.join("parameters.pem")).unwrap();
    assert!(NetworkMap::load(&folder).unwrap_err().to_string().contains("network parameters"));
}

#[test]
fn refreshing_sees_what_comes_and_goes() {
    let (dir, mut network) = network_of(&["Notary", "Alice"]);
    let folder = dir.path().join("network");
    let map = NetworkMap::load(&folder).unwrap();
    assert_eq!(map.refresh().unwrap(), Changes::default());

    network.issue(&name("Bob")).unwrap();
    assert_eq!(map.refresh().unwrap(), Changes { added: names(&["Bob"]), ..Changes::default() });
    assert!(map.party(&name("Bob")).unwrap().is_some());

    std::fs::remove_file(node_info(&folder, &name("Alice"))).unwrap();
    assert_eq!(map.refresh().unwrap(), Changes { removed: names(&["Alice"]), ..Changes::default() });
    assert_eq!(map.party(&name("Alice")).unwrap(), None);

    let bob = open(&mut network, "Bob").unwrap();
    let newer = sign_node_info(bob.node_identity(), bob.key(), vec!["elsewhere:1".to_owned()], u64::MAX).unwrap();
    files::replace(&node_info(&folder, &name("Bob")), &to_cbor(&newer).unwrap(), files::PUBLIC).unwrap();
    assert_eq!(map.refresh().unwrap(), Changes { modified: names(&["Bob"]), ..Changes::default() });
    assert_eq!(map.party(&name("Bob")).unwrap().unwrap().serial, u64::MAX);
}

#[test]
fn the_index_only_saves_time() {
    let (dir, _network) = network_of(&["Notary", "Alice", "Bob"]);
    let folder = dir.path().join("network");
    let index = folder.join("parties");
    let listed = |map: &NetworkMap| -> Vec<(X500Name, PublicKey)> {
        let all = map.matching(|_| true, |name, error| panic!("{name}: {error}"), || ());
        all.into_iter().map(|verified| (verified.party.name, verified.party.owning_key)).collect()
    };
    let expected = listed(&NetworkMap::load(&folder).unwrap());
    for damage in ["", "nonsense\n"] {
        std::fs::write(&index, damage).unwrap();
        assert_eq!(listed(&NetworkMap::load(&folder).unwrap()), expected);
        assert_eq!(std::fs::read_to_string(&index).unwrap().lines().count(), 4);
    }
    // A key in the index that is not the party's is not believed.
    let text = std::fs::read_to_string(&index).unwrap();
    let key_of = |organisation: &str| {
        let line = text.lines().find(|line| line.contains(organisation)).unwrap();
        line.split(' ').nth(3).unwrap().to_owned()
    };
    let swapped = text.replace(&key_of("O=Alice"), &key_of("O=Bob"));
    std::fs::write(&index, swapped).unwrap();
    let map = NetworkMap::load(&folder).unwrap();
    let alice = map.party(&name("Alice")).unwrap().unwrap();
    assert!(expected.iter().any(|(_, key)| *key == alice.party.owning_key));
    assert_eq!(alice.party.owning_key, expected.iter().find(|(n, _)| *n == name("Alice")).unwrap().1);
    std::fs::write(&index, text.replace(&key_of("O=Alice"), &key_of("O=Bob"))).unwrap();
    assert_eq!(listed(&NetworkMap::load(&folder).unwrap()), expected);
}

#[test]
fn who_asks_for_parties_gets_verified_ones_only() {
    let (dir, mut network) = network_of(&["Notary", "Alice", "Bob"]);
    let folder = dir.path().join("network");
    // Mallory's key under Alice's name: the file is named and formed as it should be, and signed by that key.
    let (other_dir, mut other) = network_of(&["Notary", "Alice"]);
    let forged = std::fs::read(node_info(&other_dir.path().join("network"), &name("Alice"))).unwrap();
    assert_ne!(open(&mut network, "Alice").unwrap().party(), open(&mut other, "Alice").unwrap().party());
    files::replace(&node_info(&folder, &name("Alice")), &forged, files::PUBLIC).unwrap();
    let map = NetworkMap::load(&folder).unwrap();
    let mut left_out = Vec::new();
    let mut between = 0;
    let found = map.matching(|_| true, |name, _| left_out.push(name.clone()), || between += 1);
    assert_eq!(between, 3, "others may go first before each");
    let found: Vec<&X500Name> = found.iter().map(|verified| &verified.party.name).collect();
    assert_eq!(found, [&name("Bob"), &name("Notary")]);
    assert_eq!(left_out, [name("Alice")]);
    let some = map.matching(|name| name.as_str().contains("Bob"), |name, _| panic!("{name}"), || ());
    assert_eq!(some.len(), 1);
}

#[test]
fn two_hundred_identities_are_issued_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut network = DevNetwork::create(dir.path(), &Options::default()).unwrap();
    let names: Vec<X500Name> = (1..=200).map(|number| name(&format!("Party {number:05}"))).collect();
    let mut reported = 0;
    network.issue_all(&names, &mut |_| reported += 1).unwrap();
    assert_eq!(reported, 200);
    assert_eq!(network.find(&names[199]).unwrap().slug, "party-00200");
}

#[test]
fn parameters_in_force_give_way_to_later_ones_of_the_operator() {
    let (dir, network) = network_of(&["Notary"]);
    let folder = dir.path().join("network");
    let map = NetworkMap::load(&folder).unwrap();
    let first = map.parameters();
    assert!(map.newer_parameters().unwrap().is_none());
    let changed = |size| NetworkParameters { max_transaction_size: size, ..first.parameters().clone().into_value() };

    let second = network.next_parameters(changed(1000)).unwrap();
    assert_eq!(second.epoch, 2);
    assert_eq!(network.next_parameters(changed(1000)).unwrap().hash(), second.hash(), "it says nothing new");
    let newer = map.newer_parameters().unwrap().unwrap();
    assert_eq!(map.parameters().hash(), first.hash(), "they are found, and not in force");
    // Whoever has the root believes what proves them.
    let proven = ProvenParameters::verify(newer.proof(), network.trust_root()).unwrap();
    assert_eq!((proven.hash(), newer.hash()), (second.hash(), second.hash()));
    let (early, late) = (ProvenParameters::verify(first.proof(), network.trust_root()).unwrap(), newer.clone());
    map.put_in_force(newer);
    map.put_in_force(early);
    assert_eq!(map.parameters().hash(), late.hash(), "it does not go back");
    assert!(map.newer_parameters().unwrap().is_none());

    let refused = |map: &NetworkMap| map.newer_parameters().unwrap_err().to_string();
    let same_epoch = NetworkParameters { epoch: 2, ..changed(2000) };
    network.set_parameters(same_epoch).unwrap();
    assert!(refused(&map).contains("epoch 2"));
    let larger = NetworkParameters { max_message_size: 5, ..changed(2000) };
    network.next_parameters(larger).unwrap();
    assert!(refused(&map).contains("largest message"));
    let platform = NetworkParameters { minimum_platform_version: 100_000, ..changed(2000) };
    network.next_parameters(platform).unwrap();
    assert!(refused(&map).contains("platform version"));
    assert!(NetworkMap::load(&folder).is_err(), "a host below it does not start");
    alter(&folder.join("parameters"), 60);
    assert!(map.newer_parameters().is_err());
    assert_eq!(map.parameters().hash(), late.hash());
}
