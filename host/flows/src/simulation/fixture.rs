//! What all worlds share, because it is costly to make: a network, keys, the contract of the sample `cash`, and the
//! components of the sample CorDapps, of which only the descriptors are used.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use maxhost_broker::{EmbeddedBroker, EmbeddedOptions};
use maxhost_cordapps::{Catalogue, DataFiles, InstalledContracts};
use maxhost_model::X500Name;
use maxhost_pki::{DevNetwork, KeyVault, NetworkMap, OpenIdentity};
use maxhost_sandbox::contract::ContractEngine;
use maxhost_sandbox::{Sandbox, SandboxOptions};

use super::{OWNERS, PARTIES};
use crate::guests::placement::CpuProfile;
use crate::ledger::contracts::EngineContracts;
use crate::options::{HostOptions, Passphrase};

/// The contract that judges all money.
const CONTRACT: &str = "cash.contract.wasm";

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

fn make() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<X500Name> = PARTIES.iter().map(|name| X500Name::parse(name).unwrap()).collect();
    let mut made = DevNetwork::create(folder.path(), &maxhost_pki::devnet::Options::default()).unwrap();
    let issued = made.issue_all(&names, &mut |_| {}).unwrap();
    // The first validates, the second does not.
    let notaries: Vec<_> = names[OWNERS..].iter().cloned().zip([true, false]).collect();
    made.set_notaries(&notaries).unwrap();
    let passphrase = std::fs::read_to_string(folder.path().join("keys/passphrase")).unwrap().trim().to_owned();
    let network = Arc::new(NetworkMap::load(&made.layout().network()).unwrap());
    let options = HostOptions::new(folder.path(), Passphrase::new(passphrase.clone()));
    // The samples are not signed.
    let options = HostOptions { development: true, ..options };
    let passphrase = maxhost_pki::Passphrase::new(&passphrase).unwrap();
    let vault = KeyVault::unlock(&folder.path().join("keys"), &passphrase).unwrap();
    let now = std::time::SystemTime::now();
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
