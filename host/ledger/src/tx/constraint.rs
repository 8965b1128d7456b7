//! Which code may govern a state: constraints, and how they may follow each other (behaviour.md 10.15, 10.16).

use std::collections::{BTreeMap, BTreeSet};

use maxhost_model::{KeyAlgorithm, NetworkParameters, Party, PublicKey, SecureHash};

use super::limits::ContractLimits;
use super::state::{Constraint, ContractId};
use super::succession::KeyInSuccession;
use crate::keys::{CompositeKey, is_fulfilled_by, leaves};
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The most plain keys in the key of a signature constraint.
pub const MAX_CONSTRAINT_KEYS: usize = 20;

/// What is known of an attachment that holds contracts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractAttachment {
    /// SHA-256 of the signed file: what transactions name.
    pub id: SecureHash,
    /// SHA-256 of the component without its signatures.
    pub code_hash: SecureHash,
    /// The names of the contracts in it.
    pub contracts: BTreeSet<String>,
    /// The version of the code.
    pub version: u32,
    /// The keys whose signatures over it verify.
    pub signers: BTreeSet<PublicKey>,
    /// The bytes of the file.
    pub size: u64,
    /// Whether it was installed here, or came with an installed CorDapp, and not merely from a peer.
    pub trusted: bool,
    /// Whether its contracts keep no rule about constraints from input to output.
    pub no_propagation: bool,
}

impl ContractAttachment {
    /// An attachment that holds no contract.
    #[must_use]
    pub fn data(id: SecureHash, size: u64) -> ContractAttachment {
        ContractAttachment {
            id,
            code_hash: id,
            contracts: BTreeSet::new(),
            version: 0,
            signers: BTreeSet::new(),
            size,
            trusted: false,
            no_propagation: false,
        }
    }
}

/// What of the network parameters these rules need.
#[derive(Debug, Clone, Default)]
pub struct LedgerRules {
    /// The largest transaction, in bytes, with all it needs; it must stay below.
    pub max_transaction_size: u64,
    /// The notaries of the network.
    pub notaries: Vec<Party>,
    /// For each contract the attachments that a whitelist constraint accepts.
    pub whitelist: BTreeMap<String, BTreeSet<SecureHash>>,
    /// Lists of keys, oldest first: a publisher's key and its successors, each of which may stand for those before it.
    pub rotations: Vec<Vec<PublicKey>>,
    /// Whether unsigned contracts, and states that accept any code, are allowed.
    pub development: bool,
    /// Whether a state under a hash constraint may move to a signature constraint.
    pub migrate_hash: bool,
    /// What one contract may use over one transaction.
    pub limits: ContractLimits,
}

impl LedgerRules {
    /// What the parameters say; whether the network is one for development is said besides.
    ///
    /// # Errors
    /// As [`LedgerRules::check_rotations`].
    pub fn of(parameters: &NetworkParameters, development: bool) -> Result<LedgerRules> {
        let listed = &parameters.whitelisted_contract_implementations;
        let whitelist = listed.iter().map(|(name, ids)| (name.clone(), ids.iter().copied().collect())).collect();
        let rules = LedgerRules {
            max_transaction_size: parameters.max_transaction_size,
            notaries: parameters.notaries.iter().map(|notary| notary.party.clone()).collect(),
            whitelist,
            rotations: parameters.publisher_successions.clone(),
            development,
            migrate_hash: false,
            limits: ContractLimits::V1,
        };
        rules.check_rotations()?;
        Ok(rules)
    }

    /// Checks that no key is in two lists: it would be unclear whose successor it is.
    ///
    /// # Errors
    /// [`Rule::KeyInvalid`].
    pub fn check_rotations(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        match self.rotations.iter().flatten().find(|key| !seen.insert(*key)) {
            Some(key) => {
                let message = format!("the key {key} is in the rotation lists twice");
                Err(Refused::new(Rule::KeyInvalid, message).detail("key", key))
            }
            None => Ok(()),
        }
    }

    /// The key that stands for all keys of the rotation list of this one; itself if it is in none.
    #[must_use]
    pub fn first_of<'a>(&'a self, key: &'a PublicKey) -> &'a PublicKey {
        let list = self.rotations.iter().find(|list| list.contains(key));
        list.and_then(|list| list.first()).unwrap_or(key)
    }

    /// The contract that stands for all that name keys of one publisher: its publisher's first key in place of a successor. So
    /// states that were made before and after a key was replaced are states of one contract.
    #[must_use]
    pub fn canonical(&self, contract: &ContractId) -> ContractId {
        let publisher = contract.publisher.as_ref().map(|key| self.first_of(key).clone());
        ContractId { publisher, name: contract.name.clone() }
    }

    /// Whether two contracts differ by nothing but which of its publisher's keys they name.
    #[must_use]
    pub fn is_same_contract(&self, one: &ContractId, other: &ContractId) -> bool {
        let publishers = || match (&one.publisher, &other.publisher) {
            (Some(one), Some(other)) => self.first_of(one) == self.first_of(other),
            _ => false,
        };
        one == other || (one.name == other.name && publishers())
    }

    /// Whether two keys are the same but for rotation, also of the parts of composite keys.
    #[must_use]
    pub fn equivalent(&self, one: &PublicKey, other: &PublicKey) -> bool {
        if self.first_of(one) == self.first_of(other) {
            return true;
        }
        let composite = |key: &PublicKey| {
            (key.algorithm() == KeyAlgorithm::Composite).then(|| CompositeKey::from_public_key(key).ok()).flatten()
        };
        let (Some(one), Some(other)) = (composite(one), composite(other)) else { return false };
        if one.threshold() != other.threshold() || one.children().len() != other.children().len() {
            return false;
        }
        // Equivalence is transitive, so taking the first that fits each part cannot go wrong.
        let mut left: Vec<_> = other.children().iter().collect();
        one.children().iter().all(|child| {
            let fits = left.iter().position(|o| o.weight == child.weight && self.equivalent(&child.key, &o.key));
            fits.map(|at| left.remove(at)).is_some()
        })
    }
}

/// Whether an attachment holds this contract: by name, and signed by its publisher or a successor. A contract without a
/// publisher is in unsigned attachments only.
#[must_use]
pub fn holds(attachment: &ContractAttachment, contract: &ContractId, rules: &LedgerRules) -> bool {
    if !attachment.contracts.contains(contract.name.as_str()) {
        return false;
    }
    is_published_by(&attachment.signers, contract, rules)
}

/// Whether these signers of a file have published this contract, or are successors of who has: for who has to tell files apart
/// that hold contracts of one name.
#[must_use]
pub fn is_published_by(signers: &BTreeSet<PublicKey>, contract: &ContractId, rules: &LedgerRules) -> bool {
    match &contract.publisher {
        None => signers.is_empty(),
        Some(publisher) => signed_by(signers, publisher, rules),
    }
}

/// Checks that a constraint may stand in a transaction at all.
///
/// # Errors
/// [`Rule::ConstraintInvalid`] for a key of more than [`MAX_CONSTRAINT_KEYS`], and outside of a development network for
/// one that accepts any code.
pub fn check_allowed(constraint: &Constraint, rules: &LedgerRules) -> Result<()> {
    match constraint {
        Constraint::AlwaysAccept if !rules.development => {
            Err(Refused::new(Rule::ConstraintInvalid, "a constraint that accepts any code is for development networks"))
        }
        Constraint::Signature(key) if leaves(key).len() > MAX_CONSTRAINT_KEYS => {
            let message = format!("the key of a signature constraint has at most {MAX_CONSTRAINT_KEYS} keys");
            Err(Refused::new(Rule::ConstraintInvalid, message))
        }
        _ => Ok(()),
    }
}

/// Checks that an attachment satisfies the constraint of a state of this contract.
///
/// # Errors
/// [`Rule::ConstraintUnsatisfied`], and those of [`check_allowed`].
pub fn check_satisfied(
    constraint: &Constraint,
    contract: &ContractId,
    attachment: &ContractAttachment,
    rules: &LedgerRules,
) -> Result<()> {
    check_allowed(constraint, rules)?;
    let satisfied = match constraint {
        Constraint::AlwaysAccept => true,
        Constraint::Hash(hash) => *hash == attachment.code_hash && attachment.trusted,
        Constraint::Whitelist => {
            rules.whitelist.get(contract.name.as_str()).is_some_and(|listed| listed.contains(&attachment.id))
        }
        Constraint::Signature(key) => signed_by(&attachment.signers, key, rules),
    };
    if satisfied {
        return Ok(());
    }
    let message = format!(
        "the attachment {} does not satisfy the {} constraint of a state of the contract {contract}",
        attachment.id,
        constraint.kind()
    );
    Err(Refused::new(Rule::ConstraintUnsatisfied, message)
        .detail("contract", &contract.name)
        .detail("attachment", attachment.id))
}

/// Whether the signers of an attachment fulfil a key, when each of them may stand for those before it in its rotation
/// list. A key that has been replaced does not stand for its successors: it may have been replaced because it was stolen.
fn signed_by(signers: &BTreeSet<PublicKey>, key: &PublicKey, rules: &LedgerRules) -> bool {
    let mut standing: BTreeSet<&PublicKey> = signers.iter().collect();
    // Most are, and the lists may be long.
    if is_fulfilled_by(key, &standing) {
        return true;
    }
    for list in &rules.rotations {
        let last = list.iter().rposition(|key| signers.contains(key));
        let earlier = last.and_then(|last| list.get(..last)).unwrap_or(&[]);
        standing.extend(earlier.iter().filter(|key| key.algorithm() != KeyAlgorithm::Composite));
    }
    is_fulfilled_by(key, &standing)
}

/// A constraint on one side of a transaction, with its key read.
#[derive(Debug)]
pub struct ReadConstraint<'a> {
    /// The constraint.
    pub constraint: &'a Constraint,
    key: Option<KeyInSuccession>,
}

impl<'a> ReadConstraint<'a> {
    /// Reads it.
    #[must_use]
    pub fn of(constraint: &'a Constraint, rules: &LedgerRules) -> ReadConstraint<'a> {
        let key = match constraint {
            Constraint::Signature(key) => Some(KeyInSuccession::read(key, &rules.rotations)),
            _ => None,
        };
        ReadConstraint { constraint, key }
    }
}

/// Whether an output may have a constraint, given that of an input of the same contract.
///
/// | input \ output | same kind | any code | hash | whitelist | signature |
/// |---|---|---|---|---|---|
/// | any code | yes | | no | no | no |
/// | hash | the same hash | no | | no | if migration is on |
/// | whitelist | yes | no | yes | | if the attachment is signed, and the key covers all its signers |
/// | signature | the same key, or its successor | no | yes | no | |
#[must_use]
pub fn may_follow(
    input: &ReadConstraint<'_>,
    output: &ReadConstraint<'_>,
    attachment: &ContractAttachment,
    rules: &LedgerRules,
) -> bool {
    if let (Some(older), Some(newer)) = (&input.key, &output.key) {
        return newer.takes_place_of(older);
    }
    match (input.constraint, output.constraint) {
        (Constraint::AlwaysAccept, Constraint::AlwaysAccept) | (Constraint::Whitelist, Constraint::Whitelist) => true,
        (Constraint::Hash(one), Constraint::Hash(other)) => one == other,
        (Constraint::Hash(_), Constraint::Signature(_)) => rules.migrate_hash,
        (Constraint::Whitelist | Constraint::Signature(_), Constraint::Hash(_)) => true,
        (Constraint::Whitelist, Constraint::Signature(key)) => {
            !attachment.signers.is_empty() && attachment.signers.is_subset(&leaves(key))
        }
        _ => false,
    }
}

/// The constraint of an output for which none was chosen, by the rules of behaviour.md 10.16.
///
/// # Errors
/// [`Rule::BuilderInvalid`] if the constraints of the inputs do not allow one, or the attachment keeps no rule about
/// constraints, so that the author must choose.
pub fn automatic(
    contract: &ContractId,
    inputs: &[&Constraint],
    attachment: &ContractAttachment,
    rules: &LedgerRules,
) -> Result<Constraint> {
    let refuse = |reason: &str| {
        let message = format!("no constraint can be chosen for an output of the contract {contract}: {reason}");
        Refused::new(Rule::BuilderInvalid, message).detail("contract", &contract.name)
    };
    if attachment.no_propagation {
        return Err(refuse("its contract keeps no rule about constraints, so choose one"));
    }
    let Some(first) = inputs.first() else { return all_signers(contract, attachment, rules) };
    if inputs.iter().all(|constraint| constraint == first) {
        return match first {
            Constraint::Whitelist if !attachment.signers.is_empty() => all_signers(contract, attachment, rules),
            Constraint::Signature(key) => Ok(renewed(key, contract, attachment, rules)),
            same => Ok((*same).clone()),
        };
    }
    if inputs.iter().any(|constraint| matches!(constraint, Constraint::AlwaysAccept)) {
        return Err(refuse("only some of the inputs accept any code"));
    }
    let mut hashes = inputs.iter().filter(|constraint| matches!(constraint, Constraint::Hash(_)));
    if let Some(hash) = hashes.next() {
        return if hashes.all(|other| other == hash) {
            Ok((*hash).clone())
        } else {
            Err(refuse("the inputs are under different hashes"))
        };
    }
    let keys: Vec<(&PublicKey, KeyInSuccession)> = inputs
        .iter()
        .filter_map(|constraint| match constraint {
            Constraint::Signature(key) => Some((key, KeyInSuccession::read(key, &rules.rotations))),
            _ => None,
        })
        .collect();
    if keys.is_empty() {
        return Err(refuse("the inputs have no constraint in common"));
    }
    // The one that has the newest key in each place.
    let newest = keys.iter().find(|(_, newer)| keys.iter().all(|(_, older)| newer.takes_place_of(older)));
    let (key, _) = newest.ok_or_else(|| refuse("the inputs are under different keys"))?;
    if attachment.signers.is_empty() {
        return Err(refuse("an input asks for a signature, and the attachment has none"));
    }
    Ok(renewed(key, contract, attachment, rules))
}

/// The signature constraint of a state whose inputs have this key: that of the attachment's signers, if they are the key's
/// successors, so that what goes on does not ask for a key that was replaced; else the same. A key that was replaced never takes
/// the place of its successor.
fn renewed(key: &PublicKey, contract: &ContractId, attachment: &ContractAttachment, rules: &LedgerRules) -> Constraint {
    let succeeds = |newer: &PublicKey| {
        KeyInSuccession::read(newer, &rules.rotations).takes_place_of(&KeyInSuccession::read(key, &rules.rotations))
    };
    match all_signers(contract, attachment, rules) {
        Ok(Constraint::Signature(newer)) if succeeds(&newer) => Constraint::Signature(newer),
        _ => Constraint::Signature(key.clone()),
    }
}

/// The constraint of a state that is made anew: all signers of the attachment, else the whitelist, else its hash.
fn all_signers(contract: &ContractId, attachment: &ContractAttachment, rules: &LedgerRules) -> Result<Constraint> {
    if !attachment.signers.is_empty() {
        let part = |key: &PublicKey| crate::keys::WeightedKey { key: key.clone(), weight: 1 };
        return CompositeKey::build(attachment.signers.iter().map(part).collect(), None).map(Constraint::Signature);
    }
    let listed = rules.whitelist.get(contract.name.as_str()).is_some_and(|listed| listed.contains(&attachment.id));
    Ok(if listed { Constraint::Whitelist } else { Constraint::Hash(attachment.code_hash) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::strategy::Strategy;

    use super::*;
    use crate::fixtures::{PUBLISHER_KEY, attachment, contract, key, ledger_rules};
    use crate::keys::WeightedKey;

    fn composite(bytes: &[u8]) -> PublicKey {
        let parts = bytes.iter().map(|byte| WeightedKey { key: key(*byte), weight: 1 }).collect();
        CompositeKey::build(parts, None).unwrap()
    }

    fn hash(text: &str) -> Constraint {
        Constraint::Hash(SecureHash::of(text.as_bytes()))
    }

    fn signature(byte: u8) -> Constraint {
        Constraint::Signature(key(byte))
    }

    fn goes_on(input: &Constraint, output: &Constraint, attachment: &ContractAttachment, rules: &LedgerRules) -> bool {
        may_follow(&ReadConstraint::of(input, rules), &ReadConstraint::of(output, rules), attachment, rules)
    }

    #[test]
    fn files_with_contracts_of_one_name_are_told_apart() {
        let (published, unsigned) = (contract(), ContractId { publisher: None, ..contract() });
        let rules = LedgerRules { rotations: vec![vec![key(PUBLISHER_KEY), key(2)]], ..ledger_rules() };
        assert!(is_published_by(&[key(PUBLISHER_KEY)].into(), &published, &rules));
        assert!(is_published_by(&[key(2)].into(), &published, &rules), "a successor has");
        assert!(!is_published_by(&[key(2)].into(), &published, &ledger_rules()));
        assert!(!is_published_by(&[key(1)].into(), &published, &rules));
        assert!(is_published_by(&BTreeSet::new(), &unsigned, &rules));
        assert!(!is_published_by(&[key(PUBLISHER_KEY)].into(), &unsigned, &rules));
    }

    #[test]
    fn the_table_of_transitions() {
        let attachment = attachment();
        let rules = LedgerRules { rotations: vec![vec![key(1), key(2)]], ..ledger_rules() };
        let may = |a: &Constraint, b: &Constraint| goes_on(a, b, &attachment, &rules);
        let any = Constraint::AlwaysAccept;
        let listed = Constraint::Whitelist;
        assert!(may(&any, &any) && !may(&any, &hash("a")) && !may(&any, &listed) && !may(&any, &signature(1)));
        assert!(may(&hash("a"), &hash("a")) && !may(&hash("a"), &hash("b")));
        assert!(!may(&hash("a"), &any) && !may(&hash("a"), &listed) && !may(&hash("a"), &signature(1)));
        assert!(may(&listed, &listed) && may(&listed, &hash("a")) && !may(&listed, &any));
        assert!(may(&listed, &signature(PUBLISHER_KEY)) && !may(&listed, &signature(1)));
        assert!(may(&signature(3), &signature(3)) && !may(&signature(3), &signature(4)));
        assert!(may(&signature(1), &signature(2)) && !may(&signature(2), &signature(1)), "to the successor alone");
        assert!(may(&signature(3), &hash("a")) && !may(&signature(3), &listed) && !may(&signature(3), &any));
        let migrating = LedgerRules { migrate_hash: true, ..rules.clone() };
        assert!(goes_on(&hash("a"), &signature(1), &attachment, &migrating));
        let unsigned = ContractAttachment { signers: BTreeSet::new(), ..attachment.clone() };
        assert!(!goes_on(&listed, &signature(1), &unsigned, &rules));
    }

    #[test]
    fn rotation_reaches_into_composite_keys() {
        let rules = LedgerRules { rotations: vec![vec![key(1), key(2)], vec![key(3), key(4)]], ..ledger_rules() };
        assert!(rules.equivalent(&composite(&[1, 3]), &composite(&[2, 4])));
        assert!(rules.equivalent(&composite(&[1, 3]), &composite(&[4, 1])));
        assert!(!rules.equivalent(&composite(&[1, 3]), &composite(&[1, 2])));
        assert!(!rules.equivalent(&composite(&[1, 5]), &composite(&[2, 6])));
        let twice = LedgerRules { rotations: vec![vec![key(1)], vec![key(2), key(1)]], ..ledger_rules() };
        assert_eq!(twice.check_rotations().unwrap_err().rule(), Rule::KeyInvalid);
    }

    #[test]
    fn each_constraint_asks_for_its_own() {
        let attachment = attachment();
        let rules = ledger_rules();
        let check = |constraint: &Constraint, rules: &LedgerRules| {
            check_satisfied(constraint, &contract(), &attachment, rules).err().map(|refused| refused.rule())
        };
        assert_eq!(check(&signature(PUBLISHER_KEY), &rules), None);
        assert_eq!(check(&signature(1), &rules), Some(Rule::ConstraintUnsatisfied));
        let rotated = LedgerRules { rotations: vec![vec![key(1), key(PUBLISHER_KEY)]], ..rules.clone() };
        assert_eq!(check(&signature(1), &rotated), None);
        let replaced = LedgerRules { rotations: vec![vec![key(PUBLISHER_KEY), key(1)]], ..rules.clone() };
        assert_eq!(check(&signature(1), &replaced), Some(Rule::ConstraintUnsatisfied));
        assert_eq!(check(&Constraint::Hash(attachment.code_hash), &rules), None);
        assert_eq!(check(&Constraint::Hash(attachment.id), &rules), Some(Rule::ConstraintUnsatisfied));
        let foreign = ContractAttachment { trusted: false, ..attachment.clone() };
        assert!(check_satisfied(&Constraint::Hash(attachment.code_hash), &contract(), &foreign, &rules).is_err());
        assert_eq!(check(&Constraint::Whitelist, &rules), Some(Rule::ConstraintUnsatisfied));
        let listing = LedgerRules { whitelist: [("cash".to_owned(), [attachment.id].into())].into(), ..rules.clone() };
        assert_eq!(check(&Constraint::Whitelist, &listing), None);
        assert_eq!(check(&Constraint::AlwaysAccept, &rules), Some(Rule::ConstraintInvalid));
        assert_eq!(check(&Constraint::AlwaysAccept, &LedgerRules { development: true, ..rules.clone() }), None);
        let large = composite(&(1..=21).collect::<Vec<u8>>());
        assert_eq!(check(&Constraint::Signature(large), &rules), Some(Rule::ConstraintInvalid));
    }

    #[test]
    fn a_contract_is_its_publishers() {
        let rules = ledger_rules();
        let attachment = attachment();
        assert!(holds(&attachment, &contract(), &rules));
        let other = ContractId { publisher: Some(key(9)), ..contract() };
        assert!(!holds(&attachment, &other, &rules));
        let rotated = LedgerRules { rotations: vec![vec![key(9), key(PUBLISHER_KEY)]], ..rules.clone() };
        assert!(holds(&attachment, &other, &rotated));
        let unsigned = ContractId { publisher: None, ..contract() };
        assert!(!holds(&attachment, &unsigned, &rules));
        assert!(holds(&ContractAttachment { signers: BTreeSet::new(), ..attachment }, &unsigned, &rules));
    }

    #[test]
    fn what_goes_on_asks_for_the_successor_that_has_signed() {
        let rules = LedgerRules { rotations: vec![vec![key(1), key(2), key(3)]], ..ledger_rules() };
        let by =
            |keys: &[u8]| ContractAttachment { signers: keys.iter().map(|byte| key(*byte)).collect(), ..attachment() };
        let choose = |inputs: &[&Constraint], signers: &[u8]| automatic(&contract(), inputs, &by(signers), &rules).ok();
        assert_eq!(choose(&[&signature(1)], &[2]), Some(signature(2)));
        assert_eq!(choose(&[&signature(1), &signature(2)], &[3]), Some(signature(3)), "of both");
        assert_eq!(choose(&[&signature(2), &signature(1)], &[2]), Some(signature(2)), "whichever is first");
        // Who signs with others too does not bind the state to them.
        assert_eq!(choose(&[&signature(1)], &[2, 9]), Some(signature(1)));
        assert_eq!(choose(&[&signature(9)], &[2]), Some(signature(9)), "of another publisher");
        assert_eq!(choose(&[&signature(2)], &[1]), Some(signature(2)), "who was replaced succeeds nobody");
        let parts = Constraint::Signature(composite(&[1, 9]));
        assert_eq!(choose(&[&parts], &[2, 9]), Some(Constraint::Signature(composite(&[2, 9]))));
    }

    #[test]
    fn contracts_of_one_publisher_are_one_contract() {
        let rules = LedgerRules { rotations: vec![vec![key(1), key(2), key(3)]], ..ledger_rules() };
        let by = |byte| ContractId { publisher: Some(key(byte)), ..contract() };
        let unsigned = ContractId { publisher: None, ..contract() };
        for one in [1, 2, 3] {
            assert_eq!(rules.canonical(&by(one)), by(1));
            assert!([1, 2, 3].iter().all(|other| rules.is_same_contract(&by(one), &by(*other))));
            assert!(!rules.is_same_contract(&by(one), &by(4)) && !rules.is_same_contract(&by(one), &unsigned));
        }
        assert_eq!((rules.canonical(&by(4)), rules.canonical(&unsigned)), (by(4), unsigned.clone()));
        assert!(rules.is_same_contract(&unsigned, &unsigned));
        let named = ContractId { name: crate::tx::Name::new("other").unwrap(), ..by(1) };
        assert!(!rules.is_same_contract(&by(1), &named));
    }

    /// A plain key by its number, or a composite of two.
    fn of_shape((one, other): (u8, Option<u8>)) -> PublicKey {
        match other {
            Some(other) if other != one => composite(&[one, other]),
            _ => key(one),
        }
    }

    /// Lists of some of the keys 0 to 9, each in one of them at most.
    fn lists(order: &[u8], ends: &[usize]) -> Vec<Vec<PublicKey>> {
        let mut left = order;
        let mut lists = Vec::new();
        for end in ends {
            let (list, rest) = left.split_at((*end).min(left.len()));
            lists.push(list.iter().map(|byte| key(*byte)).collect());
            left = rest;
        }
        lists.into_iter().filter(|list: &Vec<PublicKey>| list.len() > 1).collect()
    }

    proptest::proptest! {
        #[test]
        fn succession_is_an_equivalence_and_stands_in_one_direction_only(
            order in proptest::sample::subsequence((0..10_u8).collect::<Vec<_>>(), 0..=10).prop_shuffle(),
            ends in proptest::collection::vec(2..5_usize, 0..4),
            shapes in proptest::array::uniform3((0..10_u8, proptest::option::of(0..10_u8))),
        ) {
            let rules = LedgerRules { rotations: lists(&order, &ends), ..ledger_rules() };
            rules.check_rotations().unwrap();
            let [a, b, c] = shapes.map(of_shape);
            proptest::prop_assert!(rules.equivalent(&a, &a));
            proptest::prop_assert_eq!(rules.equivalent(&a, &b), rules.equivalent(&b, &a));
            proptest::prop_assert!(!rules.equivalent(&a, &b) || !rules.equivalent(&b, &c) || rules.equivalent(&a, &c));
            // A state goes to a successor, however many there were between, and does not come back.
            let attachment = attachment();
            let goes = |from: &PublicKey, to: &PublicKey| {
                let (from, to) = (Constraint::Signature(from.clone()), Constraint::Signature(to.clone()));
                goes_on(&from, &to, &attachment, &rules)
            };
            proptest::prop_assert!(goes(&a, &a));
            proptest::prop_assert!(!(goes(&a, &b) && goes(&b, &a)) || a == b);
            proptest::prop_assert!(!goes(&a, &b) || rules.equivalent(&a, &b));
            proptest::prop_assert!(!goes(&a, &b) || !goes(&b, &c) || goes(&a, &c));
            // Of two different plain keys one may stand for the other, never each for each, and only in one list.
            let stands = |signer: &PublicKey, key: &PublicKey| signed_by(&[signer.clone()].into(), key, &rules);
            let plain = |key: &PublicKey| key.algorithm() != KeyAlgorithm::Composite;
            if plain(&a) && plain(&b) && a != b {
                proptest::prop_assert_eq!(stands(&a, &b) != stands(&b, &a), rules.equivalent(&a, &b));
                proptest::prop_assert_eq!(stands(&b, &a), goes(&a, &b));
                proptest::prop_assert!(!(stands(&a, &b) && stands(&b, &a)));
                let of = |key: &PublicKey| ContractId { publisher: Some(key.clone()), ..contract() };
                proptest::prop_assert_eq!(rules.is_same_contract(&of(&a), &of(&b)), rules.equivalent(&a, &b));
                proptest::prop_assert_eq!(
                    rules.canonical(&of(&a)) == rules.canonical(&of(&b)),
                    rules.is_same_contract(&of(&a), &of(&b))
                );
            }
        }
    }

    #[test]
    fn what_is_chosen_automatically() {
        let signed = attachment();
        let unsigned = ContractAttachment { signers: BTreeSet::new(), ..attachment() };
        let rules = ledger_rules();
        let choose = |inputs: &[&Constraint], attachment: &ContractAttachment| {
            automatic(&contract(), inputs, attachment, &rules).ok()
        };
        let any = Constraint::AlwaysAccept;
        let listed = Constraint::Whitelist;
        let own = signature(PUBLISHER_KEY);
        assert_eq!(choose(&[], &signed), Some(own.clone()));
        assert_eq!(choose(&[], &unsigned), Some(Constraint::Hash(unsigned.code_hash)));
        let listing = LedgerRules { whitelist: [("cash".to_owned(), [unsigned.id].into())].into(), ..rules.clone() };
        assert_eq!(automatic(&contract(), &[], &unsigned, &listing).unwrap(), listed);
        assert_eq!(choose(&[&own, &own], &signed), Some(own.clone()));
        assert_eq!(choose(&[&any, &any], &signed), Some(any.clone()));
        assert_eq!(choose(&[&any, &own], &signed), None);
        assert_eq!(choose(&[&hash("a"), &hash("b")], &signed), None);
        assert_eq!(choose(&[&own, &hash("a"), &listed], &signed), Some(hash("a")));
        assert_eq!(choose(&[&signature(1), &signature(2)], &signed), None);
        assert_eq!(choose(&[&listed], &signed), Some(own.clone()));
        assert_eq!(choose(&[&listed, &own], &signed), Some(own.clone()));
        assert_eq!(choose(&[&listed, &own], &unsigned), None);
        assert_eq!(choose(&[], &ContractAttachment { no_propagation: true, ..signed }), None);
    }
}
