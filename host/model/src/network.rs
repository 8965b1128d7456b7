//! What a network agrees on, and what a node says of itself (docs/behaviour.md 9).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::hash::SecureHash;
use crate::invalid::Invalid;
use crate::octets;
use crate::party::{KeyAlgorithm, Party, PublicKey};
use crate::x500::X500Name;

/// The platform version that this host implements: that of Corda 4.12.
pub const PLATFORM_VERSION: u32 = 140;

/// The largest message, if the parameters do not say otherwise: 10 MiB.
pub const DEFAULT_MAX_MESSAGE_SIZE: u64 = 10 * 1024 * 1024;

/// The largest transaction, if the parameters do not say otherwise: 10 MiB.
pub const DEFAULT_MAX_TRANSACTION_SIZE: u64 = 10 * 1024 * 1024;

/// After how long a silent node may be taken off the map: 30 days.
pub const DEFAULT_EVENT_HORIZON_MS: u64 = 30 * 24 * 3600 * 1000;

/// The most keys that the successions of publishers' keys have in all.
pub const MAX_SUCCESSION_KEYS: usize = 1_000;

/// An identity with what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Name and key.
    pub party: Party,
    /// DER certificates, that of the identity first, up to but without the network's root.
    pub certificates: Vec<Certificate>,
}

/// The DER of one certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Certificate(#[serde(with = "octets")] pub Vec<u8>);

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", SecureHash::of(&self.0))
    }
}

/// What a node says of itself, signed by every identity in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Where peers reach it, `host:port`; at least one.
    pub addresses: Vec<String>,
    /// Who it is; at least one, the first is the default.
    pub identities: Vec<NodeIdentity>,
    /// The platform version it implements, at least 1.
    pub platform_version: u32,
    /// The newer replaces the older: milliseconds since the Unix epoch at the time of signing.
    pub serial: u64,
}

impl NodeInfo {
    /// Checks the rules of docs/behaviour.md 9.1 that need no keys.
    ///
    /// # Errors
    /// [`Invalid::NodeInfo`] with the field.
    pub fn validate(&self) -> Result<(), Invalid> {
        let refuse = |field, reason: &str| Err(Invalid::NodeInfo { field, reason: reason.to_owned() });
        if self.addresses.is_empty() {
            return refuse("addresses", "at least one is needed");
        }
        if self.identities.is_empty() {
            return refuse("identities", "at least one is needed");
        }
        if self.platform_version == 0 {
            return refuse("platform_version", "must be greater than 0");
        }
        let keys: BTreeSet<&PublicKey> = self.identities.iter().map(|identity| &identity.party.owning_key).collect();
        if keys.len() != self.identities.len() {
            return refuse("identities", "an identity is given twice");
        }
        Ok(())
    }

    /// The default identity.
    #[must_use]
    pub fn default_identity(&self) -> Option<&Party> {
        self.identities.first().map(|identity| &identity.party)
    }
}

/// A notary that the network trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotaryInfo {
    /// The notary's service identity, or that of its only node.
    pub party: Party,
    /// Whether it verifies what it notarises.
    pub validating: bool,
}

/// What all members of a network agree on. Its hash is over the bytes as they were built: keep an
/// [`Encoded`](crate::signed::Encoded).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkParameters {
    /// Nodes below it do not start.
    pub minimum_platform_version: u32,
    /// The notaries.
    pub notaries: Vec<NotaryInfo>,
    /// The largest message between nodes, in bytes.
    pub max_message_size: u64,
    /// The largest transaction with all its attachments, in bytes.
    pub max_transaction_size: u64,
    /// When they were last changed, in milliseconds since the Unix epoch.
    pub modified_time_ms: u64,
    /// Counts changes, from 1.
    pub epoch: u32,
    /// For each contract the attachments that may be used with it, for states that ask for this list.
    pub whitelisted_contract_implementations: BTreeMap<String, Vec<SecureHash>>,
    /// After how long a silent node may be taken off the map, in milliseconds.
    pub event_horizon_ms: u64,
    /// Who must have signed the code of a package and of all beneath it.
    pub package_ownership: BTreeMap<String, PublicKey>,
    /// The longest time between backups that recovery can bridge, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_maximum_backup_interval_ms: Option<u64>,
    /// The same for confidential identities, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidential_identity_minimum_backup_interval_ms: Option<u64>,
    /// Successions: for each publisher whose key was replaced its keys, oldest first. Each may stand for those before it. Without
    /// any nothing is written, so parameters of before keep their bytes and their hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publisher_successions: Vec<Vec<PublicKey>>,
}

impl NetworkParameters {
    /// The first parameters of a network with these notaries, and defaults for all else.
    #[must_use]
    pub fn initial(notaries: Vec<NotaryInfo>, modified_time_ms: u64) -> NetworkParameters {
        NetworkParameters {
            minimum_platform_version: PLATFORM_VERSION,
            notaries,
            max_message_size: DEFAULT_MAX_MESSAGE_SIZE,
            max_transaction_size: DEFAULT_MAX_TRANSACTION_SIZE,
            modified_time_ms,
            epoch: 1,
            whitelisted_contract_implementations: BTreeMap::new(),
            event_horizon_ms: DEFAULT_EVENT_HORIZON_MS,
            package_ownership: BTreeMap::new(),
            recovery_maximum_backup_interval_ms: None,
            confidential_identity_minimum_backup_interval_ms: None,
            publisher_successions: Vec::new(),
        }
    }

    /// Checks the rules of docs/behaviour.md 9.2.
    ///
    /// # Errors
    /// [`Invalid::Parameters`] with the field.
    pub fn validate(&self) -> Result<(), Invalid> {
        for (field, value) in [
            ("minimum_platform_version", u64::from(self.minimum_platform_version)),
            ("max_message_size", self.max_message_size),
            ("max_transaction_size", self.max_transaction_size),
            ("epoch", u64::from(self.epoch)),
        ] {
            if value == 0 {
                return Err(Invalid::Parameters { field, reason: "must be greater than 0".to_owned() });
            }
        }
        self.validate_notaries()?;
        self.validate_packages()?;
        self.validate_successions()
    }

    fn validate_notaries(&self) -> Result<(), Invalid> {
        let mut keys: BTreeSet<&PublicKey> = BTreeSet::new();
        let mut names: BTreeSet<&X500Name> = BTreeSet::new();
        for notary in &self.notaries {
            if !keys.insert(&notary.party.owning_key) | !names.insert(&notary.party.name) {
                let reason = format!("{} is given twice", notary.party.name);
                return Err(Invalid::Parameters { field: "notaries", reason });
            }
        }
        Ok(())
    }

    fn validate_packages(&self) -> Result<(), Invalid> {
        let refuse = |reason: String| Err(Invalid::Parameters { field: "package_ownership", reason });
        for package in self.package_ownership.keys() {
            if !is_package_name(package) {
                return refuse(format!("'{}' is no package name", crate::invalid::excerpt(package)));
            }
            let beneath = format!("{package}.");
            if let Some(inner) = self.package_ownership.keys().find(|other| other.starts_with(&beneath)) {
                return refuse(format!("{inner} lies within {package}, which has an owner already"));
            }
        }
        Ok(())
    }

    /// A key in two successions, or twice in one, would have two successors, or itself as one.
    fn validate_successions(&self) -> Result<(), Invalid> {
        let refuse = |reason: String| Err(Invalid::Parameters { field: "publisher_successions", reason });
        let mut seen: BTreeSet<&PublicKey> = BTreeSet::new();
        for succession in &self.publisher_successions {
            if succession.len() < 2 {
                return refuse("a succession has two keys or more".to_owned());
            }
            for key in succession {
                if key.algorithm() == KeyAlgorithm::Composite {
                    return refuse(format!("{key} is a composite key: its parts have successors, and it has none"));
                }
                if !seen.insert(key) {
                    return refuse(format!("the key {key} is given twice"));
                }
            }
        }
        if seen.len() > MAX_SUCCESSION_KEYS {
            return refuse(format!("{} keys are given, and {MAX_SUCCESSION_KEYS} are allowed", seen.len()));
        }
        Ok(())
    }

    /// Whether this party is a notary of the network.
    #[must_use]
    pub fn is_notary(&self, party: &Party) -> bool {
        self.notaries.iter().any(|notary| notary.party == *party)
    }
}

/// Identifiers joined by dots, as in `com.example.trade`.
fn is_package_name(name: &str) -> bool {
    name.split('.').all(|part| {
        let mut chars = part.chars();
        chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::signed::{Encoded, Signed};
    use crate::{from_cbor, to_cbor};

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_raw(KeyAlgorithm::Ed25519, &[byte; 32]).unwrap()
    }

    fn notary(name: &str, byte: u8) -> NotaryInfo {
        NotaryInfo { party: Party::new(name.parse().unwrap(), key(byte)), validating: false }
    }

    fn parameters() -> NetworkParameters {
        NetworkParameters::initial(vec![notary("O=Notary, L=Zurich, C=CH", 1)], 1_700_000_000_000)
    }

    #[test]
    fn initial_parameters_are_valid_and_round_trip() {
        let encoded = Encoded::new(parameters()).unwrap();
        encoded.validate().unwrap();
        let back = Encoded::<NetworkParameters>::decode(encoded.bytes()).unwrap();
        assert_eq!(*back, *encoded);
        assert_eq!(back.hash(), encoded.hash());
        assert!(back.is_notary(&back.notaries[0].party));
    }

    #[test]
    fn each_rule_is_checked() {
        let broken = |change: fn(&mut NetworkParameters)| {
            let mut parameters = parameters();
            change(&mut parameters);
            parameters.validate().unwrap_err().to_string()
        };
        assert!(broken(|p| p.minimum_platform_version = 0).contains("minimum_platform_version"));
        assert!(broken(|p| p.max_message_size = 0).contains("max_message_size"));
        assert!(broken(|p| p.max_transaction_size = 0).contains("max_transaction_size"));
        assert!(broken(|p| p.epoch = 0).contains("epoch"));
        assert!(broken(|p| p.notaries.push(notary("O=Other, L=Oslo, C=NO", 1))).contains("twice"));
        assert!(broken(|p| p.notaries.push(notary("O=Notary, L=Zurich, C=CH", 2))).contains("twice"));
        assert!(broken(|p| drop(p.package_ownership.insert("com..x".into(), key(3)))).contains("no package name"));
        let overlap = broken(|p| {
            p.package_ownership.insert("com.example".into(), key(3));
            p.package_ownership.insert("com.example.trade".into(), key(4));
        });
        assert!(overlap.contains("lies within"));
        let mut apart = parameters();
        apart.package_ownership.insert("com.exam".into(), key(3));
        apart.package_ownership.insert("com.example".into(), key(4));
        apart.validate().unwrap();
    }

    #[test]
    fn successions_of_publishers_are_checked() {
        let with = |successions: Vec<Vec<PublicKey>>| {
            let parameters = NetworkParameters { publisher_successions: successions, ..parameters() };
            parameters.validate().map_err(|invalid| invalid.to_string())
        };
        with(vec![vec![key(3), key(4), key(5)], vec![key(6), key(7)]]).unwrap();
        let refused = |successions| with(successions).unwrap_err();
        assert!(refused(vec![vec![key(3), key(4)], vec![key(4), key(5)]]).contains("twice"), "in two lists");
        assert!(refused(vec![vec![key(3), key(4), key(3)]]).contains("twice"), "its own successor");
        assert!(refused(vec![vec![key(3)]]).contains("two keys or more"));
        assert!(refused(vec![vec![]]).contains("two keys or more"));
        let composite = PublicKey::from_raw(KeyAlgorithm::Composite, &[0x30, 0x00]).unwrap();
        assert!(refused(vec![vec![key(3), composite]]).contains("composite"));

        let many = |count: usize| -> Vec<PublicKey> {
            let raw = |number: usize| {
                let mut raw = [0; 32];
                raw[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
                raw
            };
            (0..count).map(|number| PublicKey::from_raw(KeyAlgorithm::Ed25519, &raw(number)).unwrap()).collect()
        };
        with(vec![many(MAX_SUCCESSION_KEYS)]).unwrap();
        assert!(refused(vec![many(MAX_SUCCESSION_KEYS + 1)]).contains("are allowed"));
    }

    /// What parameters had before there were successions, as it was written then.
    #[derive(Serialize, Deserialize)]
    struct Before {
        minimum_platform_version: u32,
        notaries: Vec<NotaryInfo>,
        max_message_size: u64,
        max_transaction_size: u64,
        modified_time_ms: u64,
        epoch: u32,
        whitelisted_contract_implementations: BTreeMap<String, Vec<SecureHash>>,
        event_horizon_ms: u64,
        package_ownership: BTreeMap<String, PublicKey>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery_maximum_backup_interval_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confidential_identity_minimum_backup_interval_ms: Option<u64>,
    }

    #[test]
    fn parameters_without_successions_have_the_bytes_and_the_hash_of_before() {
        let NetworkParameters {
            minimum_platform_version,
            notaries,
            max_message_size,
            max_transaction_size,
            modified_time_ms,
            epoch,
            whitelisted_contract_implementations,
            event_horizon_ms,
            package_ownership,
            ..
        } = parameters();
        let before = to_cbor(&Before {
            minimum_platform_version,
            notaries,
            max_message_size,
            max_transaction_size,
            modified_time_ms,
            epoch,
            whitelisted_contract_implementations,
            event_horizon_ms,
            package_ownership,
            recovery_maximum_backup_interval_ms: Some(1),
            confidential_identity_minimum_backup_interval_ms: None,
        })
        .unwrap();
        let read = Encoded::<NetworkParameters>::decode(&before).unwrap();
        assert_eq!(read.publisher_successions, Vec::<Vec<PublicKey>>::new());
        let again = Encoded::new(read.clone().into_value()).unwrap();
        assert_eq!((again.bytes(), again.hash()), (&before[..], SecureHash::of(&before)));

        let succession = vec![vec![key(3), key(4)]];
        let with = NetworkParameters { publisher_successions: succession, ..read.into_value() };
        let encoded = Encoded::new(with.clone()).unwrap();
        assert_ne!(encoded.hash(), again.hash());
        assert_eq!(*Encoded::<NetworkParameters>::decode(encoded.bytes()).unwrap(), with);
    }

    #[test]
    fn node_infos_are_checked() {
        let identity = NodeIdentity {
            party: notary("O=Alice, L=London, C=GB", 9).party,
            certificates: vec![Certificate(vec![1, 2])],
        };
        let info = NodeInfo {
            addresses: vec!["localhost:1".into()],
            identities: vec![identity.clone()],
            platform_version: 1,
            serial: 1,
        };
        info.validate().unwrap();
        assert_eq!(info.default_identity().unwrap().name.organisation(), "Alice");
        assert!(NodeInfo { addresses: vec![], ..info.clone() }.validate().is_err());
        assert!(NodeInfo { identities: vec![], ..info.clone() }.validate().is_err());
        assert!(NodeInfo { platform_version: 0, ..info.clone() }.validate().is_err());
        assert!(NodeInfo { identities: vec![identity.clone(), identity], ..info.clone() }.validate().is_err());

        let signed = Signed::<NodeInfo>::new(to_cbor(&info).unwrap(), vec![]);
        let back: Signed<NodeInfo> = from_cbor(&to_cbor(&signed).unwrap()).unwrap();
        assert_eq!(*back.decode_unverified().unwrap(), info);
        assert_eq!(back.hash(), signed.hash());
    }
}
