//! Who may reach the nodes of a cluster: a user with a password, and TLS in both directions.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use maxhost_model::{FencingToken, SecureHash};
use maxhost_ownership::{Ownership, OwnershipError, Permanent};
use maxhost_ownership_zookeeper::test_servers::{Ensemble, ServerTls};
use maxhost_ownership_zookeeper::{Address, Digest, Tls, ZooKeeperOptions, ZooKeeperOwnership, set_up};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use zeroize::Zeroizing;

use crate::support::{SESSION, run_id};

fn options(address: String) -> ZooKeeperOptions {
    let address = Address { servers: address, folder: "/secured".to_owned() };
    ZooKeeperOptions { session_timeout: SESSION, ..ZooKeeperOptions::new(address, "one", run_id()) }
}

fn user(password: &str) -> Option<Digest> {
    Some(Digest { user: "max".to_owned(), password: Zeroizing::new(password.to_owned()) })
}

async fn works(options: ZooKeeperOptions) {
    let host = ZooKeeperOwnership::join(options).await.unwrap();
    host.claim(SecureHash::of(b"Alice"), FencingToken::UNCLAIMED).await.unwrap();
    host.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_for_their_user_alone() {
    let ensemble = Ensemble::start(1).await;
    let plain = options(ensemble.client_address(0).to_string());
    let with = |digest| ZooKeeperOptions { digest, ..plain.clone() };
    set_up(&with(user("right")), "secured").await.unwrap();
    works(with(user("right"))).await;
    for digest in [user("wrong"), None] {
        match ZooKeeperOwnership::join(with(digest)).await {
            Err(OwnershipError::Permanent(Permanent::Refused { reason, .. })) => {
                assert!(reason.contains("credentials"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key, for a server and for a client.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn server(&self, dir: &Path) -> ServerTls {
        let (certificate, key) = self.issue("server");
        let files = ServerTls { key_and_certificate: dir.join("server.pem"), authority: dir.join("authority.pem") };
        std::fs::write(&files.key_and_certificate, format!("{key}{certificate}")).unwrap();
        std::fs::write(&files.authority, &self.pem).unwrap();
        files
    }

    fn client(&self) -> Option<Tls> {
        let (certificate, key) = self.issue("client");
        Some(Tls { authorities: self.pem.clone(), identity: Some((certificate, Zeroizing::new(key))) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_both_sides_show_who_they_are() {
    static PROVIDER: Once = Once::new();
    // As the program does: two providers are compiled in, and one must be chosen.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let dir = tempfile::tempdir().unwrap();
    let (ours, foreign) = (Authority::new(), Authority::new());
    let ensemble = Ensemble::start_with(1, Some(ours.server(dir.path()))).await;
    let plain = options(ensemble.secure_address(0).to_string());
    let with = |tls| ZooKeeperOptions { tls, digest: user("right"), ..plain.clone() };
    set_up(&with(ours.client()), "secured").await.unwrap();
    works(with(ours.client())).await;
    let nobody = Some(Tls { identity: None, ..ours.client().unwrap() });
    let distrusting = Some(Tls { authorities: foreign.pem.clone(), ..ours.client().unwrap() });
    for tls in [None, nobody, foreign.client(), distrusting] {
        // It is tried again until the session's timeout, because a server may be about to change its certificate.
        let refused = ZooKeeperOptions { session_timeout: Duration::from_secs(2), ..with(tls.clone()) };
        assert!(ZooKeeperOwnership::join(refused).await.is_err(), "{tls:?}");
    }
}
