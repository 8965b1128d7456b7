//! Verifying chains of certificates up to the network's root (docs/behaviour.md 8.2).

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maxhost_model::{PublicKey, SecureHash, X500Name};
use parking_lot::Mutex;

use crate::certificates::CertificateFields;
use crate::error::{PkiError, Result};
use crate::files;
use crate::keys::verify;
use crate::pem;
use crate::roles::CertRole;

/// Longer chains are refused unread: root, intermediate, doorman, node CA, identity, confidential identity, and room.
const MAX_CHAIN: usize = 8;

/// Signatures that are remembered; with more than that all are checked again.
const REMEMBERED: usize = 8_192;

/// The root certificate of a network: what everything is trusted by.
#[derive(Debug, Clone)]
pub struct TrustRoot {
    der: Vec<u8>,
    fields: CertificateFields,
    seen: Arc<Signatures>,
}

/// Signatures of certificates that were found right. Whether a signature is right depends on nothing but the key and what is signed, so
/// it is so for ever; all else about a certificate, its validity above all, is looked at each time. The upper certificates of a
/// network are the same in every chain, and an identity's own are looked at each time that it is opened. What is wrong is not
/// remembered.
#[derive(Default)]
struct Signatures(Mutex<HashSet<SecureHash>>);

impl fmt::Debug for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signatures").finish_non_exhaustive()
    }
}

impl Signatures {
    /// Whether a certificate is signed with this key.
    fn is_signed_by(&self, certificate: &CertificateFields, key: &PublicKey) -> bool {
        // Each part with its length before it, so that no two certificates come to the same bytes.
        let parts = [key.spki(), &certificate.signed_part, &certificate.signature];
        let text: Vec<u8> = parts
            .iter()
            .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied()))
            .collect();
        let signature = SecureHash::of(&text);
        if certificate.signature_algorithm == key.algorithm() && self.0.lock().contains(&signature) {
            return true;
        }
        let is_right = is_signed_by(certificate, key);
        if is_right {
            let mut seen = self.0.lock();
            if seen.len() >= REMEMBERED {
                seen.clear();
            }
            seen.insert(signature);
        }
        is_right
    }
}

impl TrustRoot {
    /// A root given as DER.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if it is not a self-signed certificate authority without a role.
    pub fn from_der(der: Vec<u8>) -> Result<TrustRoot> {
        let fields = CertificateFields::parse(&der)?;
        let refuse = |reason| Err(PkiError::certificate("the root certificate", reason));
        if fields.authority.is_none() {
            return refuse("is not that of a certificate authority");
        }
        if fields.role.is_some() {
            return refuse("has a role, which a root must not have");
        }
        if fields.issuer != fields.subject || !is_signed_by(&fields, &fields.key) {
            return refuse("is not signed by itself");
        }
        Ok(TrustRoot { der, fields, seen: Arc::default() })
    }

    /// The only certificate in a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`TrustRoot::from_der`].
    pub fn from_pem_file(path: &Path) -> Result<TrustRoot> {
        let of = path.display().to_string();
        let mut certificates = pem::decode(&files::read(path)?, &of)?;
        match (certificates.pop(), certificates.is_empty()) {
            (Some(der), true) => TrustRoot::from_der(der).map_err(|error| in_file(error, path)),
            _ => Err(PkiError::certificate(of, "holds several certificates; one root is expected")),
        }
    }

    /// The root certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// Says in which file a bad certificate lies.
pub(crate) fn in_file(error: PkiError, path: &Path) -> PkiError {
    match error {
        PkiError::Certificate { of, reason } => {
            PkiError::certificate(path.display().to_string(), format!("{of}: {reason}"))
        }
        PkiError::Invalid(invalid) => PkiError::certificate(path.display().to_string(), invalid.to_string()),
        other => other,
    }
}

/// What a verified chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedIdentity {
    /// The subject of the first certificate.
    pub name: X500Name,
    /// Its key.
    pub key: PublicKey,
    /// Its role.
    pub role: CertRole,
    /// When the first certificate of the chain to expire does so.
    pub not_after: SystemTime,
}

/// Verifies a chain of DER certificates, the subject's first, up to the trust root, which may be left out: signatures,
/// validity at the given time, the right to issue, path lengths, roles and their parents, and that all a node issues
/// carries the node's name.
///
/// # Errors
/// [`PkiError::Certificate`] with the first certificate that breaks a rule.
pub fn verify_chain<C: AsRef<[u8]>>(
    chain: &[C],
    trust: &TrustRoot,
    expected: CertRole,
    at: SystemTime,
) -> Result<VerifiedIdentity> {
    let chain = match chain.split_last() {
        Some((last, rest)) if last.as_ref() == trust.der() => rest,
        _ => chain,
    };
    if chain.len() > MAX_CHAIN {
        return Err(PkiError::certificate("the chain", format!("has more than {MAX_CHAIN} certificates")));
    }
    let fields: Vec<CertificateFields> =
        chain.iter().map(|der| CertificateFields::parse(der.as_ref())).collect::<Result<_>>()?;
    let Some(leaf) = fields.first() else {
        return Err(PkiError::certificate("the chain", "holds no certificate below the root"));
    };
    if leaf.role != Some(expected) {
        return Err(PkiError::certificate(leaf.describe(), format!("is not a {} certificate", expected.describe())));
    }

    let now = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    check_validity(&trust.fields, now)?;
    let mut not_after = trust.fields.not_after;
    for (depth, certificate) in fields.iter().enumerate() {
        let issuer = fields.get(depth + 1).unwrap_or(&trust.fields);
        check_validity(certificate, now)?;
        check_issuer(certificate, issuer, depth, &trust.seen)?;
        not_after = not_after.min(certificate.not_after);
    }
    Ok(VerifiedIdentity {
        name: leaf.name()?,
        key: leaf.key.clone(),
        role: expected,
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.max(0).cast_unsigned()),
    })
}

fn check_validity(certificate: &CertificateFields, now: i64) -> Result<()> {
    if now < certificate.not_before {
        return Err(PkiError::certificate(certificate.describe(), "is not valid yet: check this machine's clock"));
    }
    if now > certificate.not_after {
        return Err(PkiError::certificate(certificate.describe(), "has expired"));
    }
    Ok(())
}

/// `depth` is the number of certificates beneath the issuer's, less the last one of the chain.
fn check_issuer(
    certificate: &CertificateFields,
    issuer: &CertificateFields,
    depth: usize,
    seen: &Signatures,
) -> Result<()> {
    let refuse = |reason: String| Err(PkiError::certificate(certificate.describe(), reason));
    let Some(authority) = issuer.authority else {
        return refuse(format!("is issued by {}, which is no certificate authority", issuer.describe()));
    };
    if authority.path_length.is_some_and(|length| depth > length as usize) {
        return refuse(format!("lies deeper beneath {} than that allows", issuer.describe()));
    }
    if certificate.issuer != issuer.subject {
        return refuse(format!("is not issued by {}", issuer.describe()));
    }
    match certificate.role {
        Some(role) if !role.allows_parent(issuer.role) => {
            return refuse(format!("must not be issued by {}", issuer.describe()));
        }
        // Certificates without a role stand between the root and the doorman only.
        None if issuer.role.is_some() => return refuse("has no role".to_owned()),
        Some(role) if role.keeps_name_of(issuer.role) && certificate.name()? != issuer.name()? => {
            return refuse(format!("has another name than its issuer: {}", issuer.describe()));
        }
        _ => {}
    }
    if !seen.is_signed_by(certificate, &issuer.key) {
        return refuse(format!("is not signed by {}", issuer.describe()));
    }
    Ok(())
}

fn is_signed_by(certificate: &CertificateFields, key: &PublicKey) -> bool {
    certificate.signature_algorithm == key.algorithm() && verify(key, &certificate.signed_part, &certificate.signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use maxhost_model::KeyAlgorithm;

    use super::*;
    use crate::authority::CertificateAuthority;
    use crate::keys::PrivateKey;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    struct Network {
        at: SystemTime,
        root: CertificateAuthority,
        doorman: CertificateAuthority,
        node: CertificateAuthority,
        trust: TrustRoot,
    }

    fn name(organisation: &str) -> X500Name {
        X500Name::parse(&format!("O={organisation}, L=London, C=GB")).unwrap()
    }

    fn ed25519() -> PublicKey {
        PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().public().clone()
    }

    fn network() -> Network {
        let at = SystemTime::UNIX_EPOCH + 55 * YEAR;
        let root = CertificateAuthority::new_root(&name("Root"), at).unwrap();
        let doorman = root.issue_authority(&name("Doorman"), CertRole::DoormanCa, at).unwrap();
        let node = doorman.issue_authority(&name("Alice"), CertRole::NodeCa, at).unwrap();
        let trust = TrustRoot::from_der(root.certificate().to_vec()).unwrap();
        Network { at, root, doorman, node, trust }
    }

    fn refusal<C: AsRef<[u8]>>(network: &Network, chain: &[C], role: CertRole) -> String {
        verify_chain(chain, &network.trust, role, network.at).unwrap_err().to_string()
    }

    #[test]
    fn the_chain_of_an_identity_verifies_with_and_without_root() {
        let n = network();
        let key = ed25519();
        let legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, &key, n.at).unwrap();
        let tls = n
            .node
            .issue(&name("Alice"), CertRole::Tls, PrivateKey::generate(KeyAlgorithm::P256).unwrap().public(), n.at)
            .unwrap();
        let upper = [n.node.certificate(), n.doorman.certificate(), n.root.certificate()];
        let chain = [&[&legal[..]], &upper[..]].concat();
        let verified = verify_chain(&chain, &n.trust, CertRole::LegalIdentity, n.at).unwrap();
        assert_eq!((verified.name.clone(), verified.key.clone()), (name("Alice"), key));
        assert!(verified.not_after > n.at + 19 * YEAR && verified.not_after < n.at + 20 * YEAR);
        assert_eq!(verify_chain(&chain[..3], &n.trust, CertRole::LegalIdentity, n.at).unwrap(), verified);
        verify_chain(&[&[&tls[..]], &upper[..]].concat(), &n.trust, CertRole::Tls, n.at).unwrap();
        assert!(refusal(&n, &chain, CertRole::Tls).contains("is not a TLS certificate"));
        // A legal identity may come from the doorman directly.
        let direct = n.doorman.issue(&name("Bob"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        verify_chain(&[&direct[..], n.doorman.certificate()], &n.trust, CertRole::LegalIdentity, n.at).unwrap();
    }

    #[test]
    fn a_confidential_identity_hangs_on_the_legal_one() {
        let n = network();
        let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, key.public(), n.at).unwrap();
        let issuer = CertificateAuthority::restore(legal.clone(), key).unwrap();
        let issue = |subject: &str| {
            issuer.issue(&name(subject), CertRole::ConfidentialLegalIdentity, &ed25519(), n.at).unwrap()
        };
        let upper = [&legal[..], n.node.certificate(), n.doorman.certificate()];
        verify_chain(
            &[&[&issue("Alice")[..]], &upper[..]].concat(),
            &n.trust,
            CertRole::ConfidentialLegalIdentity,
            n.at,
        )
        .unwrap();
        let mallory = issue("Mallory");
        let other = [&[&mallory[..]], &upper[..]].concat();
        assert!(refusal(&n, &other, CertRole::ConfidentialLegalIdentity).contains("another name"));
    }

    /// Spec 7.2: root → (intermediate) → doorman → node CA → legal identity → confidential identity, or without node CA.
    #[test]
    fn every_chain_that_a_network_may_have_verifies() {
        let n = network();
        let intermediate = n.root.issue_intermediate(&name("Intermediate"), n.at);
        let doorman = intermediate.issue_authority(&name("Doorman"), CertRole::DoormanCa, n.at).unwrap();
        let node = doorman.issue_authority(&name("Alice"), CertRole::NodeCa, n.at).unwrap();
        let upper = [doorman.certificate(), intermediate.certificate()];
        for (issuer, between) in [(&node, vec![node.certificate()]), (&doorman, vec![])] {
            let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
            let legal = issuer.issue(&name("Alice"), CertRole::LegalIdentity, key.public(), n.at).unwrap();
            let chain = [&[&legal[..]], &between[..], &upper[..]].concat();
            verify_chain(&chain, &n.trust, CertRole::LegalIdentity, n.at).unwrap();
            let own = CertificateAuthority::restore(legal.clone(), key).unwrap();
            let hidden = own.issue(&name("Alice"), CertRole::ConfidentialLegalIdentity, &ed25519(), n.at).unwrap();
            let chain = [&[&hidden[..]], &chain[..]].concat();
            verify_chain(&chain, &n.trust, CertRole::ConfidentialLegalIdentity, n.at).unwrap();
        }
        let service = doorman.issue(&name("Notary"), CertRole::ServiceIdentity, &ed25519(), n.at).unwrap();
        let chain = [&[&service[..]], &upper[..]].concat();
        verify_chain(&chain, &n.trust, CertRole::ServiceIdentity, n.at).unwrap();
        let map = intermediate.issue(&name("Map"), CertRole::NetworkMap, &ed25519(), n.at).unwrap();
        verify_chain(&[&map[..], intermediate.certificate()], &n.trust, CertRole::NetworkMap, n.at).unwrap();

        // But nobody without a role stands below the doorman.
        let low = n.doorman.issue_intermediate(&name("Low"), n.at);
        let legal = low.with_role(Some(CertRole::DoormanCa));
        let legal = legal.issue(&name("Eve"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let chain = [&legal[..], low.certificate(), n.doorman.certificate()];
        assert!(refusal(&n, &chain, CertRole::LegalIdentity).contains("must not be issued by"));
        let doorman = low.issue_authority(&name("Second"), CertRole::DoormanCa, n.at).unwrap();
        let legal = doorman.issue(&name("Eve"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let chain = [&legal[..], doorman.certificate(), low.certificate(), n.doorman.certificate()];
        assert!(refusal(&n, &chain, CertRole::LegalIdentity).contains("has no role"));
    }

    #[test]
    fn time_is_checked() {
        let n = network();
        let legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let chain = [&legal[..], n.node.certificate(), n.doorman.certificate()];
        let at = |time| verify_chain(&chain, &n.trust, CertRole::LegalIdentity, time);
        assert!(at(n.at - Duration::from_secs(3 * 86_400)).unwrap_err().to_string().contains("not valid yet"));
        at(n.at + 19 * YEAR).unwrap();
        assert!(at(n.at + 21 * YEAR).unwrap_err().to_string().contains("has expired"));
    }

    #[test]
    fn wrong_parents_are_refused_when_issuing_and_when_verifying() {
        let n = network();
        for (authority, role) in [
            (&n.root, CertRole::LegalIdentity),
            (&n.root, CertRole::NodeCa),
            (&n.doorman, CertRole::Tls),
            (&n.doorman, CertRole::NetworkParameters),
            (&n.node, CertRole::NodeCa),
            (&n.node, CertRole::DoormanCa),
        ] {
            assert!(authority.issue(&name("Alice"), role, &ed25519(), n.at).is_err(), "{role:?}");
        }
        // Authorities that do not care: each pretends to be what its certificate is not.
        for (certificate, chain, role) in pretenders(&n) {
            let chain = [&[&certificate[..]], &chain[..]].concat();
            let message = refusal(&n, &chain, role);
            assert!(message.contains("must not be issued by") || message.contains("has no role"), "{message}");
        }
    }

    type Pretender<'a> = (Vec<u8>, Vec<&'a [u8]>, CertRole);

    fn pretenders(n: &Network) -> Vec<Pretender<'_>> {
        let forge = |by: &CertificateAuthority, issue_as: Option<CertRole>, role: CertRole| {
            by.with_role(issue_as).issue(&name("Alice"), role, &ed25519(), n.at).unwrap()
        };
        vec![
            (forge(&n.root, Some(CertRole::NodeCa), CertRole::Tls), vec![], CertRole::Tls),
            (forge(&n.doorman, Some(CertRole::NodeCa), CertRole::Tls), vec![n.doorman.certificate()], CertRole::Tls),
            (
                forge(&n.node, None, CertRole::NetworkParameters),
                vec![n.node.certificate(), n.doorman.certificate()],
                CertRole::NetworkParameters,
            ),
        ]
    }

    #[test]
    fn names_and_signatures_must_fit() {
        let n = network();
        let foreign = n.node.issue(&name("Bob"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let upper = [n.node.certificate(), n.doorman.certificate()];
        assert!(refusal(&n, &[&[&foreign[..]], &upper[..]].concat(), CertRole::LegalIdentity).contains("another name"));

        let mut legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let other = network();
        let chain = [&legal[..], other.node.certificate(), other.doorman.certificate()];
        assert!(refusal(&other, &chain, CertRole::LegalIdentity).contains("is not signed by"));
        let chain = [&legal[..], n.node.certificate(), n.doorman.certificate()];
        assert!(verify_chain(&chain, &other.trust, CertRole::LegalIdentity, n.at).is_err());
        assert!(
            refusal(&n, &[&legal[..], n.doorman.certificate()], CertRole::LegalIdentity).contains("is not issued by")
        );

        let tls = n.node.issue(&name("Alice"), CertRole::Tls, n.node.key().public(), n.at).unwrap();
        assert!(
            refusal(&n, &[&legal[..], &tls, n.doorman.certificate()], CertRole::LegalIdentity)
                .contains("no certificate authority")
        );

        let last = legal.len() - 1;
        legal[last] ^= 1;
        assert!(
            refusal(&n, &[&[&legal[..]], &upper[..]].concat(), CertRole::LegalIdentity).contains("is not signed by")
        );
        assert!(refusal::<&[u8]>(&n, &[], CertRole::Tls).contains("no certificate"));
        assert!(refusal(&n, &vec![legal; 9], CertRole::LegalIdentity).contains("more than 8"));
    }

    #[test]
    fn any_flipped_byte_is_refused_and_none_panics() {
        let n = network();
        let legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        for at in 0..legal.len() {
            let mut altered = legal.clone();
            altered[at] ^= 0x5a;
            let chain = [&altered[..], n.node.certificate(), n.doorman.certificate()];
            assert!(verify_chain(&chain, &n.trust, CertRole::LegalIdentity, n.at).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_signature_that_was_right_once_lets_nothing_else_pass() {
        let n = network();
        let legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let chain = |leaf: &[u8]| [leaf.to_vec(), n.node.certificate().to_vec(), n.doorman.certificate().to_vec()];
        verify_chain(&chain(&legal), &n.trust, CertRole::LegalIdentity, n.at).unwrap();
        assert_eq!(n.trust.seen.0.lock().len(), 3);
        // The same ones again, also for a root that was cloned.
        verify_chain(&chain(&legal), &n.trust.clone(), CertRole::LegalIdentity, n.at).unwrap();
        assert_eq!(n.trust.seen.0.lock().len(), 3);
        let late = n.at + 21 * YEAR;
        assert!(verify_chain(&chain(&legal), &n.trust, CertRole::LegalIdentity, late).is_err(), "it has expired since");
        for at in [legal.len() - 1, legal.len() / 2] {
            let mut altered = legal.clone();
            altered[at] ^= 1;
            assert!(verify_chain(&chain(&altered), &n.trust, CertRole::LegalIdentity, n.at).is_err());
        }
        let other = network();
        assert!(verify_chain(&chain(&legal), &other.trust, CertRole::LegalIdentity, n.at).is_err());
        assert_eq!(n.trust.seen.0.lock().len(), 3, "what is wrong is not remembered");
    }

    #[test]
    fn what_is_remembered_of_signatures_is_bounded() {
        let n = network();
        n.trust.seen.0.lock().extend((0..REMEMBERED).map(|number| SecureHash::of(&number.to_be_bytes())));
        let legal = n.node.issue(&name("Alice"), CertRole::LegalIdentity, &ed25519(), n.at).unwrap();
        let chain = [&legal[..], n.node.certificate(), n.doorman.certificate()];
        verify_chain(&chain, &n.trust, CertRole::LegalIdentity, n.at).unwrap();
        assert_eq!(n.trust.seen.0.lock().len(), 3);
    }

    #[test]
    fn only_a_root_is_a_trust_root() {
        let n = network();
        for der in [n.doorman.certificate(), n.node.certificate()] {
            assert!(TrustRoot::from_der(der.to_vec()).is_err());
        }
        let mut altered = n.root.certificate().to_vec();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        assert!(TrustRoot::from_der(altered).unwrap_err().to_string().contains("not signed by itself"));
    }
}
