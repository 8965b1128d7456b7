//! What all worlds share, because it is costly to make: a network, keys, the contract of the sample `cash`, and the
//! components of the sample CorDapps, of which only the descriptors are used.
//!
//! What of it ends up in transactions is the same in every process: the keys of the parties, the certificate of the network's
//! root, and the network's parameters. So transactions have the same ids, and whatever is done in their order is done in the
//! same order.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use maxhost_broker::{EmbeddedBroker, EmbeddedOptions};
use maxhost_cordapps::{Catalogue, DataFiles, InstalledContracts};
use maxhost_model::{KeyAlgorithm, NetworkParameters, NotaryInfo, Party, SecureHash, X500Name};
use maxhost_pki::{
    CertRole, CertificateAuthority, DevNetwork, Issued, KeyVault, NetworkMap, OpenIdentity, PrivateKey, Purpose, pem,
};
use maxhost_sandbox::contract::ContractEngine;
use maxhost_sandbox::{Sandbox, SandboxOptions};
use rcgen::string::PrintableString;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyUsagePurpose};

use super::{OWNERS, PARTIES};
use crate::guests::placement::CpuProfile;
use crate::ledger::contracts::EngineContracts;
use crate::options::{HostOptions, Passphrase};

/// The contract that judges all money.
const CONTRACT: &str = "cash.contract.wasm";
/// What all keys that end up in transactions are made of, together with the name of whose they are.
const SEED: &str = "a simulated network";
/// When the network's parameters were changed last, in milliseconds since 1970: some time in 2026.
const CHANGED: u64 = 1_770_000_000_000;
/// Those whom the root of a development network certifies: the file of the certificate, what the key is for, and the name.
const BENEATH_THE_ROOT: [(&str, Purpose, CertRole, &str); 2] = [
    (
        "doorman.pem",
        Purpose::DoormanCa,
        CertRole::DoormanCa,
        "CN=Doorman CA, O=Maxhost Development Network, L=London, C=GB",
    ),
    (
        "parameters.pem",
        Purpose::NetworkParameters,
        CertRole::NetworkParameters,
        "CN=Network Parameters, O=Maxhost Development Network, L=London, C=GB",
    ),
];
/// The files of an identity's certificates, its own first and that of what issues it third.
const CERTIFICATES: &str = "certificates.pem";

pub(super) struct Fixture {
    _folder: tempfile::TempDir,
    pub options: HostOptions,
    pub network: Arc<NetworkMap>,
    pub vault: Arc<KeyVault>,
    pub keys: Vec<Arc<OpenIdentity>>,
    pub catalogue: Arc<Catalogue<CpuProfile>>,
    pub contracts: Arc<EngineContracts>,
    pub broker: Arc<EmbeddedBroker>,
}

pub(super) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(make)
}

/// The key of this name, the same one always: that of RFC 8032 whose seed is a hash.
fn key_of(name: &str) -> PrivateKey {
    // What stands before the seed in PKCS #8 (RFC 8410).
    const HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let seed = SecureHash::of(format!("{SEED}: {name}").as_bytes());
    let pkcs8 = [&HEAD[..], seed.as_bytes()].concat();
    PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, pkcs8.into()).unwrap()
}

/// The root of the network, whose certificate is the same always, as its key signs the same in the same way.
fn root() -> CertificateAuthority {
    let key = key_of("the root");
    let name =
        [(DnType::CountryName, "GB"), (DnType::LocalityName, "London"), (DnType::OrganizationName, "Simulation")];
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in name {
        params.distinguished_name.push(kind, DnValue::PrintableString(PrintableString::try_from(value).unwrap()));
    }
    params.serial_number = Some(1.into());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).unwrap();
    CertificateAuthority::restore(certificate.der().to_vec(), key).unwrap()
}

/// A development network whose root is another than the one that was made with it. All beneath the root keep their keys, which
/// nothing in a transaction tells of.
fn network(folder: &Path) -> DevNetwork {
    let options = maxhost_pki::devnet::Options::default();
    let made = DevNetwork::create(folder, &options).unwrap();
    let (authority, published, root) = (made.layout().authority(), made.layout().network(), root());
    let put = |file: &str, certificate: &[u8]| {
        let text = pem::encode(&[certificate]);
        std::fs::write(authority.join(file), &text).unwrap();
        std::fs::write(published.join(file), &text).unwrap();
    };
    put("root.pem", root.certificate());
    for (file, purpose, role, name) in BENEATH_THE_ROOT {
        let name = X500Name::parse(name).unwrap();
        let key = made.vault().open_key(&authority, purpose, &name).unwrap();
        put(file, &root.issue(&name, role, key.public(), SystemTime::now()).unwrap());
    }
    // Another has the folder to itself.
    drop(made);
    DevNetwork::open(folder, &options).unwrap()
}

/// Gives an identity the key of its name. It is on the map of the network no more, until it is issued again.
fn give_key(made: &DevNetwork, issued: &Issued) {
    let (vault, name) = (made.vault(), &issued.name);
    let path = issued.folder.join(CERTIFICATES);
    let mut certificates = pem::decode(&std::fs::read(&path).unwrap(), CERTIFICATES).unwrap();
    let node_key = vault.open_key(&issued.folder, Purpose::NodeCa, name).unwrap();
    let node = CertificateAuthority::restore(certificates[2].clone(), node_key).unwrap();
    let key = key_of(name.as_str());
    certificates[0] = node.issue(name, CertRole::LegalIdentity, key.public(), SystemTime::now()).unwrap();
    std::fs::write(&path, pem::encode(&certificates)).unwrap();
    let sealed = vault.seal(&key, Purpose::Identity, name).unwrap();
    std::fs::write(issued.folder.join(Purpose::Identity.file_name()), sealed).unwrap();
    let hash = SecureHash::of(name.as_str().as_bytes());
    std::fs::remove_file(made.layout().network().join(format!("node-infos/nodeInfo-{hash}"))).unwrap();
}

/// Issues these identities; the last are the notaries, of which the first validates.
fn issue(made: &mut DevNetwork, names: &[X500Name]) -> Vec<Issued> {
    let issued = made.issue_all(names, &mut |_| {}).unwrap();
    issued.iter().for_each(|issued| give_key(made, issued));
    let issued = made.issue_all(names, &mut |_| {}).unwrap();
    let notaries = issued[OWNERS..].iter().zip([true, false]).map(|(issued, validating)| {
        let party = Party::new(issued.name.clone(), issued.key.clone());
        NotaryInfo { party, validating }
    });
    made.set_parameters(NetworkParameters::initial(notaries.collect(), CHANGED)).unwrap();
    issued
}

fn make() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<X500Name> = PARTIES.iter().map(|name| X500Name::parse(name).unwrap()).collect();
    let mut made = network(folder.path());
    let issued = issue(&mut made, &names);
    let passphrase = std::fs::read_to_string(folder.path().join("keys/passphrase")).unwrap().trim().to_owned();
    let network = Arc::new(NetworkMap::load(&made.layout().network()).unwrap());
    let options = HostOptions::new(folder.path(), Passphrase::new(passphrase.clone()));
    // The samples are not signed.
    let options = HostOptions { development: true, ..options };
    let passphrase = maxhost_pki::Passphrase::new(&passphrase).unwrap();
    let vault = KeyVault::unlock(&folder.path().join("keys"), &passphrase).unwrap();
    let now = SystemTime::now();
    let keys = issued.iter().zip(&names).map(|(issued, name)| {
        Arc::new(OpenIdentity::open(&vault, &issued.folder, name, network.trust_root(), now).unwrap())
    });
    let keys = keys.collect();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cordapps");
    assert!(samples.join("ping-pong.wasm").is_file(), "{} is empty: run `make guests` first", samples.display());
    let sandbox = Sandbox::new(SandboxOptions::new(folder.path().join("code"))).unwrap();
    let catalogue = Catalogue::new(sandbox, samples.clone(), folder.path().join("components"), None);
    catalogue.rescan();
    let contracts = folder.path().join("contracts");
    std::fs::create_dir_all(&contracts).unwrap();
    std::fs::copy(samples.join(CONTRACT), contracts.join(CONTRACT)).unwrap();
    let installed = Arc::new(InstalledContracts::new(ContractEngine::new(None).unwrap(), contracts));
    assert!(installed.rescan(), "the contract of cash cannot be used");
    let contracts = EngineContracts::new(installed, None, DataFiles::new(folder.path().join("attachments")));
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let broker = runtime.block_on(EmbeddedBroker::open(EmbeddedOptions::new(&options.broker))).unwrap();
    // The broker's tasks end with the process.
    std::mem::forget(runtime);
    Fixture {
        _folder: folder,
        options,
        network,
        vault: Arc::new(vault),
        keys,
        catalogue: Arc::new(catalogue),
        contracts: Arc::new(contracts),
        broker: Arc::new(broker),
    }
}
