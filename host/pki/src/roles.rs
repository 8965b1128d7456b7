//! What a certificate of a Corda network is for (docs/behaviour.md 8.2).

use crate::error::{PkiError, Result};

/// The role of a certificate, carried in the extension 1.3.6.1.4.1.50530.1.1 as a DER integer. Certificates without the
/// extension are a network's root or stand between the root and the doorman.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CertRole {
    /// Issues node CAs and legal identities.
    DoormanCa = 1,
    /// Signs the network map.
    NetworkMap = 2,
    /// The well-known identity of a service, such as a notary of several nodes.
    ServiceIdentity = 3,
    /// Issues the certificates of one node.
    NodeCa = 4,
    /// Authenticates a node in TLS.
    Tls = 5,
    /// The well-known identity of a legal entity.
    LegalIdentity = 6,
    /// An identity known to those only whom its owner told.
    ConfidentialLegalIdentity = 7,
    /// Signs the network parameters.
    NetworkParameters = 8,
}

/// The extension's object identifier.
pub(crate) const ROLE_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 50530, 1, 1];

impl CertRole {
    /// All roles, in the order of their numbers.
    pub const ALL: [CertRole; 8] = [
        CertRole::DoormanCa,
        CertRole::NetworkMap,
        CertRole::ServiceIdentity,
        CertRole::NodeCa,
        CertRole::Tls,
        CertRole::LegalIdentity,
        CertRole::ConfidentialLegalIdentity,
        CertRole::NetworkParameters,
    ];

    /// The role with this number.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] unless it is 1 to 8.
    pub fn from_number(number: u64) -> Result<CertRole> {
        CertRole::ALL
            .into_iter()
            .find(|role| u64::from(*role as u8) == number)
            .ok_or_else(|| refuse(&format!("there is no certificate role {number}: roles are 1 to 8")))
    }

    /// Reads the content of the extension, a DER integer.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] unless it is one in minimal form, from 1 to 8.
    pub fn from_der(der: &[u8]) -> Result<CertRole> {
        match der {
            [0x02, 0x01, number] if *number < 0x80 => CertRole::from_number(u64::from(*number)),
            [0x02, length, rest @ ..] if usize::from(*length) == rest.len() && !rest.is_empty() => {
                Err(refuse("the certificate role is out of range: roles are 1 to 8"))
            }
            _ => Err(refuse("the certificate role is not a DER integer")),
        }
    }

    /// The content of the extension.
    #[must_use]
    pub fn to_der(self) -> [u8; 3] {
        [0x02, 0x01, self as u8]
    }

    /// Whether a certificate of the parent's role, or of none, may issue one of this role.
    #[must_use]
    pub fn allows_parent(self, parent: Option<CertRole>) -> bool {
        match self {
            CertRole::DoormanCa | CertRole::NetworkMap | CertRole::NetworkParameters => parent.is_none(),
            CertRole::ServiceIdentity | CertRole::NodeCa => parent == Some(CertRole::DoormanCa),
            CertRole::Tls => parent == Some(CertRole::NodeCa),
            CertRole::LegalIdentity => matches!(parent, Some(CertRole::DoormanCa | CertRole::NodeCa)),
            CertRole::ConfidentialLegalIdentity => parent == Some(CertRole::LegalIdentity),
        }
    }

    /// Whether the subject must be that of the issuer: all that a node issues carries the node's own name.
    #[must_use]
    pub fn keeps_name_of(self, parent: Option<CertRole>) -> bool {
        parent == Some(CertRole::NodeCa) || self == CertRole::ConfidentialLegalIdentity
    }

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            CertRole::DoormanCa => "doorman CA",
            CertRole::NetworkMap => "network map",
            CertRole::ServiceIdentity => "service identity",
            CertRole::NodeCa => "node CA",
            CertRole::Tls => "TLS",
            CertRole::LegalIdentity => "legal identity",
            CertRole::ConfidentialLegalIdentity => "confidential legal identity",
            CertRole::NetworkParameters => "network parameters",
        }
    }
}

fn refuse(reason: &str) -> PkiError {
    PkiError::certificate("the certificate", reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn roles_round_trip_and_others_are_refused() {
        for role in CertRole::ALL {
            assert_eq!(CertRole::from_der(&role.to_der()).unwrap(), role);
        }
        for bad in [
            &[2, 1, 0][..],
            &[2, 1, 9],
            &[2, 1, 0xff],
            &[2, 2, 1, 1],
            &[2, 5, 1, 0, 0, 0, 1],
            &[2, 0],
            &[2, 1],
            &[4, 1, 1],
            &[2, 1, 1, 0],
            &[],
        ] {
            assert!(CertRole::from_der(bad).is_err(), "{bad:?}");
        }
        assert!(CertRole::from_number(u64::MAX).is_err());
    }

    #[test]
    fn parents_are_those_of_corda() {
        use CertRole as R;
        let allowed: Vec<(R, Option<R>)> = R::ALL
            .into_iter()
            .flat_map(|role| {
                std::iter::once(None)
                    .chain(R::ALL.map(Some))
                    .filter(move |p| role.allows_parent(*p))
                    .map(move |p| (role, p))
            })
            .collect();
        assert_eq!(
            allowed,
            [
                (R::DoormanCa, None),
                (R::NetworkMap, None),
                (R::ServiceIdentity, Some(R::DoormanCa)),
                (R::NodeCa, Some(R::DoormanCa)),
                (R::Tls, Some(R::NodeCa)),
                (R::LegalIdentity, Some(R::DoormanCa)),
                (R::LegalIdentity, Some(R::NodeCa)),
                (R::ConfidentialLegalIdentity, Some(R::LegalIdentity)),
                (R::NetworkParameters, None),
            ]
        );
    }
}
