//! Brokers that a host must not use, and lines that only the right ones may use.

use std::path::Path;

use maxhost_broker::{Broker, BrokerError, Permanent};
use maxhost_broker_amqp::test_servers::{Artemis, free_port};
use maxhost_broker_amqp::{Address, AmqpBroker, AmqpOptions, Tls};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use zeroize::Zeroizing;

use crate::support::{CREDIT, message, open, queue, reason, receive, send};

#[tokio::test]
async fn a_broker_that_does_not_keep_what_it_confirms_is_refused() {
    if Artemis::is_missing() {
        return;
    }
    let edits = [
        ("<persistence-enabled>true<", "<persistence-enabled>false<", "<persistence-enabled>true"),
        (
            "<journal-sync-non-transactional>true<",
            "<journal-sync-non-transactional>false<",
            "<journal-sync-non-transactional>true",
        ),
        // Everything else is found in the settings of addresses; `checks` has a test of each.
        ("<address-full-policy>PAGE<", "<address-full-policy>DROP<", "<address-full-policy>PAGE"),
    ];
    for (right, wrong, remedy) in edits {
        let artemis = Artemis::start_with(&move |xml| xml.replace(right, wrong)).await;
        let reason = reason(AmqpBroker::open(artemis.options()).await);
        assert!(reason.contains(remedy), "{wrong}: {reason}");
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

    /// A certificate for 127.0.0.1 and its key.
    fn issue(&self, name: &str) -> (String, Zeroizing<String>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), Zeroizing::new(key.serialize_pem()))
    }

    /// The files that a broker listens with.
    fn write(&self, dir: &Path) {
        let (certificate, key) = self.issue("broker");
        std::fs::write(dir.join("broker.pem"), format!("{}{certificate}", *key)).unwrap();
        std::fs::write(dir.join("authority.pem"), &self.pem).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_both_sides_show_who_they_are() {
    if Artemis::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ours, foreign) = (Authority::new(), Authority::new());
    ours.write(dir.path());
    let port = free_port();
    let files = dir.path().display().to_string();
    let artemis = Artemis::start_with(&move |xml| {
        let acceptor = format!(
            "<acceptor name=\"amqps\">tcp://127.0.0.1:{port}?protocols=AMQP;amqpIdleTimeout=4000;sslEnabled=true;\
             keyStoreType=PEM;keyStorePath={files}/broker.pem;trustStoreType=PEM;trustStorePath={files}/authority.pem;\
             needClientAuth=true</acceptor></acceptors>"
        );
        xml.replace("</acceptors>", &acceptor)
    })
    .await;
    let with = |tls: Tls| AmqpOptions {
        address: Address::parse(&format!("amqps://127.0.0.1:{port}")).unwrap(),
        tls: Some(tls),
        ..artemis.options()
    };
    let shown = |by: &Authority| Tls { authorities: ours.pem.clone(), identity: Some(by.issue("host")) };
    let broker = open(with(shown(&ours))).await;
    send(&broker, &queue("encrypted"), message(0)).await;
    let mut consumer = broker.consume(&queue("encrypted"), CREDIT).await.unwrap();
    receive(&mut *consumer, 0..1).await;
    broker.close().await;
    // The broker is not the one that the host trusts.
    let distrusted = Tls { authorities: foreign.pem.clone(), ..shown(&ours) };
    let told = reason(AmqpBroker::open(with(distrusted)).await);
    assert!(told.contains("certificate is not trusted"), "{told}");
    // The host shows nothing, or what the broker does not trust.
    for tls in [Tls { identity: None, ..shown(&ours) }, shown(&foreign)] {
        let told = reason(AmqpBroker::open(with(tls)).await);
        assert!(told.contains("the host's certificate"), "{told}");
    }
    // The password counts as it does without TLS.
    let anonymous = AmqpOptions { credentials: None, ..with(shown(&ours)) };
    let told = reason(AmqpBroker::open(anonymous).await);
    assert!(told.contains("user and password"), "{told}");
    // What cannot be read is no reason to try again.
    let garbled = Tls { authorities: "garbled".to_owned(), identity: None };
    match AmqpBroker::open(with(garbled)).await {
        Err(BrokerError::Permanent(Permanent::Refused { reason })) => assert!(reason.contains("PEM"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
