//! Composite keys: keys with weights, of which enough must sign (behaviour.md 10.12).

use std::collections::BTreeSet;

use der::asn1::BitStringRef;
use der::{Decode, Encode, Sequence};
use maxhost_model::{KeyAlgorithm, PublicKey};

use super::scheme::check_key;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// How deep composite keys may be nested in each other.
pub const MAX_COMPOSITE_DEPTH: usize = 8;

/// How many plain keys a composite key may have in all.
pub const MAX_COMPOSITE_LEAVES: usize = 512;

/// A part of a composite key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedKey {
    /// The key, which may be composite itself.
    pub key: PublicKey,
    /// What its signature counts, at least 1.
    pub weight: u32,
}

/// A key that is fulfilled when keys with enough weight have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompositeKey {
    threshold: u32,
    /// By falling weight, then by the bytes of the key, so that the order of building makes no difference.
    children: Vec<WeightedKey>,
}

/// The key's own bytes, inside of its `SubjectPublicKeyInfo`: the same layout as Corda's.
#[derive(Sequence)]
struct KeyInfo<'a> {
    threshold: u32,
    children: Vec<ChildInfo<'a>>,
}

#[derive(Sequence)]
struct ChildInfo<'a> {
    key: BitStringRef<'a>,
    weight: u32,
}

fn refuse(message: impl Into<String>) -> Refused {
    Refused::new(Rule::CompositeInvalid, message)
}

impl CompositeKey {
    /// Builds a key of these parts. One part alone, with the threshold as its weight, is that part itself. Without a
    /// threshold all parts must sign.
    ///
    /// # Errors
    /// [`Rule::CompositeInvalid`] for no parts, one part with another threshold, a weight of zero, weights beyond 32
    /// bits, a threshold of zero or above all weights, a part given twice, nesting beyond [`MAX_COMPOSITE_DEPTH`], or
    /// more keys than [`MAX_COMPOSITE_LEAVES`]; [`Rule::KeyInvalid`] if a part is no key.
    pub fn build(parts: Vec<WeightedKey>, threshold: Option<u32>) -> Result<PublicKey> {
        let total = total_weight(&parts)?;
        let threshold = threshold.unwrap_or(total);
        if let [only] = parts.as_slice()
            && only.weight == threshold
            && threshold > 0
        {
            check_key(&only.key)?;
            return Ok(only.key.clone());
        }
        let key = CompositeKey::assemble(parts, threshold)?;
        let public = key.to_public_key()?;
        // Reading it back is the check of depth and size that others will make.
        CompositeKey::from_public_key(&public)?;
        Ok(public)
    }

    fn assemble(mut children: Vec<WeightedKey>, threshold: u32) -> Result<CompositeKey> {
        let total = total_weight(&children)?;
        if children.len() < 2 {
            return Err(refuse("a composite key needs two parts or more"));
        }
        if threshold == 0 || threshold > total {
            return Err(refuse(format!("a threshold of {threshold} is not within 1 and the sum of weights, {total}")));
        }
        children.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.key.cmp(&b.key)));
        let distinct: BTreeSet<&PublicKey> = children.iter().map(|child| &child.key).collect();
        if distinct.len() != children.len() {
            return Err(refuse("a part is given twice"));
        }
        Ok(CompositeKey { threshold, children })
    }

    /// Reads a composite key out of its bytes, with all its rules checked down to the last part. Bytes that are not in
    /// the canonical order are refused, so a composite key has one form only.
    ///
    /// # Errors
    /// [`Rule::CompositeInvalid`] or [`Rule::KeyInvalid`], as for [`CompositeKey::build`].
    pub fn from_public_key(key: &PublicKey) -> Result<CompositeKey> {
        let mut leaves = 0;
        CompositeKey::read(key, MAX_COMPOSITE_DEPTH, &mut leaves)
    }

    fn read(key: &PublicKey, depth: usize, leaves: &mut usize) -> Result<CompositeKey> {
        if key.algorithm() != KeyAlgorithm::Composite {
            return Err(refuse(format!("key {key} is not composite")));
        }
        if depth == 0 {
            return Err(refuse(format!("composite keys are nested deeper than {MAX_COMPOSITE_DEPTH}")));
        }
        let info = KeyInfo::from_der(key.raw()).map_err(|error| refuse(format!("malformed: {error}")))?;
        let mut children = Vec::with_capacity(info.children.len());
        for child in &info.children {
            let spki = child.key.as_bytes().ok_or_else(|| refuse("a part is no whole number of bytes"))?;
            let key = PublicKey::from_spki(spki).map_err(|error| refuse(error.to_string()))?;
            if key.algorithm() == KeyAlgorithm::Composite {
                CompositeKey::read(&key, depth - 1, leaves)?;
            } else {
                *leaves += 1;
                if *leaves > MAX_COMPOSITE_LEAVES {
                    return Err(refuse(format!("it has more than {MAX_COMPOSITE_LEAVES} keys")));
                }
                check_key(&key)?;
            }
            children.push(WeightedKey { key, weight: child.weight });
        }
        let given = children.clone();
        let read = CompositeKey::assemble(children, info.threshold)?;
        if read.children != given {
            return Err(refuse("its parts are not in the canonical order"));
        }
        Ok(read)
    }

    fn to_public_key(&self) -> Result<PublicKey> {
        let malformed = |error: der::Error| refuse(error.to_string());
        let mut children = Vec::with_capacity(self.children.len());
        for child in &self.children {
            let key = BitStringRef::from_bytes(child.key.spki()).map_err(malformed)?;
            children.push(ChildInfo { key, weight: child.weight });
        }
        let raw = KeyInfo { threshold: self.threshold, children }.to_der().map_err(malformed)?;
        PublicKey::from_raw(KeyAlgorithm::Composite, &raw).map_err(|error| refuse(error.to_string()))
    }

    /// How much weight must sign.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The parts, by falling weight, then by bytes.
    #[must_use]
    pub fn children(&self) -> &[WeightedKey] {
        &self.children
    }

    fn fulfilled_by(&self, keys: &BTreeSet<&PublicKey>) -> bool {
        let fulfilled = self.children.iter().filter(|child| fulfilled(&child.key, keys));
        // The sum of all weights fits, so that of some does.
        fulfilled.map(|child| child.weight).sum::<u32>() >= self.threshold
    }
}

fn total_weight(parts: &[WeightedKey]) -> Result<u32> {
    parts.iter().try_fold(0_u32, |total, part| {
        if part.weight == 0 {
            return Err(refuse("a part has a weight of zero"));
        }
        total.checked_add(part.weight).ok_or_else(|| refuse("the sum of weights is beyond 32 bits"))
    })
}

fn fulfilled(key: &PublicKey, keys: &BTreeSet<&PublicKey>) -> bool {
    match key.algorithm() {
        KeyAlgorithm::Composite => {
            CompositeKey::from_public_key(key).is_ok_and(|composite| composite.fulfilled_by(keys))
        }
        _ => keys.contains(key),
    }
}

/// Whether these keys, each of which has signed, fulfil what a key asks for: for a plain key that it is one of them, for
/// a composite key that enough weight is. False if one of the keys that signed is composite: such a key signs nothing.
#[must_use]
pub fn is_fulfilled_by(key: &PublicKey, signers: &BTreeSet<&PublicKey>) -> bool {
    let plain = signers.iter().all(|signer| signer.algorithm() != KeyAlgorithm::Composite);
    plain && fulfilled(key, signers)
}

/// The plain keys in a key: itself, or all parts of a composite key however deep; none if a composite key is invalid.
#[must_use]
pub fn leaves(key: &PublicKey) -> BTreeSet<PublicKey> {
    let mut found = BTreeSet::new();
    let mut left = vec![key.clone()];
    while let Some(key) = left.pop() {
        match CompositeKey::from_public_key(&key) {
            Ok(composite) => left.extend(composite.children.into_iter().map(|child| child.key)),
            Err(_) if key.algorithm() == KeyAlgorithm::Composite => {}
            Err(_) => drop(found.insert(key)),
        }
    }
    found
}

/// The text of a key: base 58 of its DER, as Corda prints keys.
#[must_use]
pub fn to_base58(key: &PublicKey) -> String {
    bs58::encode(key.spki()).into_string()
}

/// Reads [`to_base58`].
///
/// # Errors
/// [`Rule::KeyInvalid`] if the text is not base 58, longer than a key can be, or the bytes are no key.
pub fn from_base58(text: &str) -> Result<PublicKey> {
    let refuse = |reason: String| Refused::new(Rule::KeyInvalid, format!("the text is no key: {reason}"));
    // Decoding takes time in the square of the length.
    if text.len() > MAX_BASE58 {
        return Err(refuse(format!("it is longer than {MAX_BASE58} characters")));
    }
    let bytes = bs58::decode(text).into_vec().map_err(|error| refuse(error.to_string()))?;
    let key = PublicKey::from_spki(&bytes).map_err(|error| refuse(error.to_string()))?;
    check_key(&key)?;
    Ok(key)
}

/// The longest text of a key that is read, in characters.
const MAX_BASE58: usize = 8192;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Scheme, SigningKey};

    fn key(byte: u8) -> PublicKey {
        SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).unwrap().public().clone()
    }

    fn part(byte: u8, weight: u32) -> WeightedKey {
        WeightedKey { key: key(byte), weight }
    }

    fn fulfilled(composite: &PublicKey, signers: &[u8]) -> bool {
        let keys: Vec<PublicKey> = signers.iter().map(|byte| key(*byte)).collect();
        is_fulfilled_by(composite, &keys.iter().collect())
    }

    #[test]
    fn enough_weight_fulfils() {
        let of_three = CompositeKey::build(vec![part(1, 1), part(2, 1), part(3, 2)], Some(2)).unwrap();
        assert!(fulfilled(&of_three, &[3]));
        assert!(fulfilled(&of_three, &[1, 2]));
        assert!(fulfilled(&of_three, &[1, 2, 9]));
        assert!(!fulfilled(&of_three, &[1]));
        assert!(!fulfilled(&of_three, &[]));
        let all = CompositeKey::build(vec![part(1, 1), part(2, 1)], None).unwrap();
        assert!(!fulfilled(&all, &[1]));
        assert!(fulfilled(&all, &[1, 2]));
        assert!(!is_fulfilled_by(&all, &[&all, &key(1), &key(2)].into_iter().collect()));
    }

    #[test]
    fn schemes_mix_and_keys_nest() {
        let r1 = SigningKey::from_seed(Scheme::EcdsaSecp256r1, &[5; 32]).unwrap().public().clone();
        let k1 = SigningKey::from_seed(Scheme::EcdsaSecp256k1, &[6; 32]).unwrap().public().clone();
        let inner = CompositeKey::build(
            vec![WeightedKey { key: r1.clone(), weight: 1 }, WeightedKey { key: k1.clone(), weight: 1 }],
            Some(1),
        )
        .unwrap();
        let outer = CompositeKey::build(vec![WeightedKey { key: inner.clone(), weight: 1 }, part(1, 1)], None).unwrap();
        assert!(is_fulfilled_by(&outer, &[&r1, &key(1)].into_iter().collect()));
        assert!(is_fulfilled_by(&outer, &[&k1, &key(1)].into_iter().collect()));
        assert!(!is_fulfilled_by(&outer, &[&r1, &k1].into_iter().collect()));
        assert_eq!(leaves(&outer), [r1, k1, key(1)].into_iter().collect());
        assert_eq!(PublicKey::from_spki(outer.spki()).unwrap(), outer);
        assert_eq!(from_base58(&to_base58(&outer)).unwrap(), outer);
        assert!(from_base58("0OIl").is_err());
        assert!(from_base58(&"1".repeat(MAX_BASE58 + 1)).is_err());
    }

    #[test]
    fn each_rule_is_kept() {
        let rule = |parts, threshold| CompositeKey::build(parts, threshold).unwrap_err().rule();
        assert_eq!(rule(vec![], None), Rule::CompositeInvalid);
        assert_eq!(rule(vec![part(1, 2)], Some(1)), Rule::CompositeInvalid);
        assert_eq!(rule(vec![part(1, 0), part(2, 1)], None), Rule::CompositeInvalid);
        assert_eq!(rule(vec![part(1, 1), part(2, 1)], Some(0)), Rule::CompositeInvalid);
        assert_eq!(rule(vec![part(1, 1), part(2, 1)], Some(3)), Rule::CompositeInvalid);
        assert_eq!(rule(vec![part(1, 1), part(1, 2)], None), Rule::CompositeInvalid);
        assert_eq!(rule(vec![part(1, u32::MAX), part(2, 1)], None), Rule::CompositeInvalid);
        let inner = || CompositeKey::build(vec![part(1, 1), part(2, 1)], None).unwrap();
        let twice = vec![WeightedKey { key: inner(), weight: 1 }, WeightedKey { key: inner(), weight: 2 }];
        assert_eq!(rule(twice, None), Rule::CompositeInvalid);
        assert_eq!(CompositeKey::build(vec![part(1, 3)], Some(3)).unwrap(), key(1));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let mut nested = key(0);
        for level in 0..MAX_COMPOSITE_DEPTH {
            let parts = vec![WeightedKey { key: nested, weight: 1 }, part(level as u8 + 1, 1)];
            nested = CompositeKey::build(parts, None).unwrap();
        }
        let beyond = CompositeKey::build(vec![WeightedKey { key: nested, weight: 1 }, part(99, 1)], None);
        assert_eq!(beyond.unwrap_err().rule(), Rule::CompositeInvalid);

        let keys = |count: usize| -> Vec<WeightedKey> {
            let seed = |i: usize| [[i as u8, (i >> 8) as u8].as_slice(), &[7; 30]].concat();
            let key = |i| SigningKey::from_seed(Scheme::Ed25519, &seed(i)).unwrap().public().clone();
            (0..count).map(|i| WeightedKey { key: key(i), weight: 1 }).collect()
        };
        CompositeKey::build(keys(MAX_COMPOSITE_LEAVES), None).unwrap();
        let beyond = CompositeKey::build(keys(MAX_COMPOSITE_LEAVES + 1), None);
        assert_eq!(beyond.unwrap_err().rule(), Rule::CompositeInvalid);
    }

    proptest! {
        #[test]
        fn the_order_of_building_makes_no_difference(
            weights in proptest::collection::vec(1_u32..9, 2..6), shuffle in any::<u64>(), threshold in 1_u32..6,
        ) {
            let parts: Vec<WeightedKey> = weights.iter().enumerate().map(|(i, w)| part(i as u8, *w)).collect();
            let mut other = parts.clone();
            let length = other.len();
            other.rotate_left((shuffle % length as u64) as usize);
            other.swap(0, (shuffle >> 32) as usize % length);
            let threshold = Some(threshold.min(weights.iter().sum()));
            let (a, b) = (CompositeKey::build(parts, threshold).unwrap(), CompositeKey::build(other, threshold).unwrap());
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(CompositeKey::from_public_key(&a).unwrap().to_public_key().unwrap(), a);
        }

        #[test]
        fn more_signers_never_undo(weights in proptest::collection::vec(1_u32..5, 2..6), threshold in 1_u32..9, signed in any::<u8>(), more in any::<u8>()) {
            let parts: Vec<WeightedKey> = weights.iter().enumerate().map(|(i, w)| part(i as u8, *w)).collect();
            let threshold = threshold.min(weights.iter().sum());
            let composite = CompositeKey::build(parts, Some(threshold)).unwrap();
            let of = |mask: u8| -> Vec<u8> { (0..weights.len() as u8).filter(|i| mask & (1 << i) != 0).collect() };
            let weight: u32 = of(signed).iter().map(|i| weights[*i as usize]).sum();
            prop_assert_eq!(fulfilled(&composite, &of(signed)), weight >= threshold);
            if fulfilled(&composite, &of(signed)) {
                prop_assert!(fulfilled(&composite, &of(signed | more)));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            if let Ok(key) = PublicKey::from_raw(KeyAlgorithm::Composite, &bytes) {
                let _ = CompositeKey::from_public_key(&key);
                let _ = leaves(&key);
            }
        }
    }
}
