//! What a host stands on, opened as its settings say: the database, and, where identities are shared, the ownership service
//! and the broker.

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::Broker;
use maxhost_broker_amqp::{AmqpBroker, AmqpOptions, Credentials};
use maxhost_flows::options::{Cluster, ENVELOPE_BYTES};
use maxhost_model::{Code, Lineage, Problem, RunId, SecureHash};
use maxhost_ownership::{Ownership, OwnershipError};
use maxhost_ownership_zookeeper::{
    FileFeed, SharedFiles, ZooKeeperOptions, ZooKeeperOwnership, enter_database, enter_further_database, set_up,
};
use maxhost_pki::NetworkMap;
use maxhost_store::{AuditClass, AuditRow, Store};
use maxhost_store_postgres::{PostgresOptions, PostgresStore};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};

use crate::config::cluster::{BrokerAccess, IdentitySource, Sharing};
use crate::config::{Config, Database};

/// The file in the data folder in which a session with the ownership service is noted.
const SESSION_FILE: &str = "session";

/// What to do where a folder of the ownership service is that of another database, or of a later state of this one.
const OF_ANOTHER_DATABASE: &str = "all hosts of a cluster have one store.url: correct it, or give these hosts a folder of \
    their own in ownership.url; after a database was restored run `maxhost db restored`, and where it was replaced for good, \
    `maxhost cluster adopt`";

/// What was opened.
pub struct Foundation {
    /// The database.
    pub store: Store,
    /// What hosts share identities by.
    pub cluster: Option<Cluster>,
    /// The manifests and keys that they share, if this host takes them from there.
    pub files: Option<FileFeed>,
}

/// Opens all of it. A host that is alone has no cluster.
///
/// # Errors
/// The settings do not go together, a server cannot be reached or refuses the host, or what is there belongs to another
/// network or cluster.
pub async fn open(config: &Config) -> Result<Foundation, Problem> {
    // Looked at before anything is opened.
    let sharing = config.sharing()?;
    // What a host reaches is told to others, by those that run flows (docs/cluster.md, rule 29).
    let tells_others = sharing.is_some() && config.roles().flows;
    let store = open_database(config, tells_others).await?;
    let Some(sharing) = sharing else { return Ok(Foundation { store, cluster: None, files: None }) };
    match join(config, &sharing, &store).await {
        Ok((cluster, files)) => Ok(Foundation { store, cluster: Some(cluster), files }),
        Err(problem) => {
            store.close().await;
            Err(problem)
        }
    }
}

/// The database alone, or the databases.
///
/// # Errors
/// It cannot be opened.
pub async fn open_store(config: &Config) -> Result<Store, Problem> {
    open_database(config, false).await
}

async fn open_database(config: &Config, asks_each_second: bool) -> Result<Store, Problem> {
    match config.database() {
        Database::File(path) => {
            let (quotas, audit) = (config.quotas(), config.audit());
            SqliteStore::open(SqliteOptions { quotas, audit, ..SqliteOptions::new(path) }).await
        }
        Database::Server(_) => {
            let databases = config.databases_on_servers()?;
            let mut options: Vec<PostgresOptions> = databases.into_iter().map(|database| database.options).collect();
            options.iter_mut().for_each(|options| options.asks_each_second = asks_each_second);
            PostgresStore::open_all(options).await
        }
    }
    .map_err(Problem::from)
}

/// Notes in the audit trail what somebody did with the database by a command, instead of by a host, and with which identity
/// if it was one. The run of this store must be its own.
///
/// # Errors
/// The database does not take it.
pub async fn note_act(
    store: &Store,
    config: &Config,
    action: &str,
    identity: Option<String>,
    detail: String,
) -> Result<(), Problem> {
    // SAFETY: a plain system call without arguments, which cannot fail.
    let user = unsafe { libc::getuid() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let row = AuditRow {
        seq: 1,
        class: AuditClass::Change,
        at: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        host: config.host_name().into(),
        user: format!("(uid {user})"),
        action: action.to_owned(),
        identity,
        flow: None,
        flow_id: None,
        detail: Some(detail),
        token: None,
        allowed: true,
        code: None,
        count: 1,
    };
    store.append_audit(vec![row.cut()]).await.map_err(Problem::from)
}

async fn join(config: &Config, sharing: &Sharing, store: &Store) -> Result<(Cluster, Option<FileFeed>), Problem> {
    let network = NetworkMap::load(&config.network()).map_err(Problem::from)?;
    let largest = usize::try_from(network.parameters().parameters().max_message_size).unwrap_or(usize::MAX);
    let ownership = join_ownership(config, sharing, store, &cluster_id(&network)).await?;
    match open_broker(sharing, largest.saturating_add(ENVELOPE_BYTES)).await {
        Ok(broker) => {
            let files = (config.identity_source() == IdentitySource::Ownership).then(|| ownership.files());
            let cluster = Cluster {
                ownership: Arc::new(ownership),
                broker,
                slots: sharing.slots,
                schedules: config.roles().rpc,
                session_timeout: sharing.session_timeout,
                balancing: config.balancing(),
            };
            Ok((cluster, files))
        }
        Err(problem) => {
            ownership.close().await;
            Err(problem)
        }
    }
}

/// How the ensemble is joined.
pub fn ownership_options(config: &Config, sharing: &Sharing, run: maxhost_model::RunId) -> ZooKeeperOptions {
    ZooKeeperOptions {
        roles: config.roles(),
        labels: config.host_labels(),
        session_timeout: sharing.session_timeout,
        digest: sharing.digest.clone(),
        tls: sharing.tls.clone(),
        session_file: Some(config.data().join(SESSION_FILE)),
        ..ZooKeeperOptions::new(sharing.address.clone(), config.host_name(), run)
    }
}

/// A cluster is that of one network: its root certificate names it, so that hosts of two networks that were given one folder
/// find out.
pub fn cluster_id(network: &NetworkMap) -> String {
    hex::encode(&SecureHash::of(network.trust_root().der()).as_bytes()[..16])
}

/// The highest generation of a claim that the database shows; 0 if it never knew a cluster.
///
/// # Errors
/// The database does not answer.
pub async fn known_generation(store: &Store) -> Result<i64, Problem> {
    let records = store.identities().await.map_err(Problem::from)?;
    Ok(records.iter().map(|record| record.claim.token.generation).max().unwrap_or(0))
}

async fn join_ownership(
    config: &Config,
    sharing: &Sharing,
    store: &Store,
    id: &str,
) -> Result<ZooKeeperOwnership, Problem> {
    let lineages = store.lineages();
    let (ours, further) = lineages.split_first().map_or((store.lineage(), &lineages[..]), |(ours, rest)| (*ours, rest));
    let databases = further.iter().map(|lineage| lineage.database).collect();
    let options = ZooKeeperOptions { databases, ..ownership_options(config, sharing, store.run()) };
    let known = known_generation(store).await?;
    if known == 0 {
        // The first host of a new cluster makes its nodes; whoever is second finds them.
        match set_up(&options, id).await {
            Ok(_) => tracing::info!(folder = %sharing.address, "set up a new cluster"),
            Err(error @ OwnershipError::Transient(_)) => return Err(of_ownership(sharing, error)),
            Err(error) => tracing::debug!(%error, "no new cluster was set up"),
        }
    }
    let ownership = ZooKeeperOwnership::join(options.clone()).await.map_err(|error| match error {
        // A database that knows a cluster, and a service that does not.
        OwnershipError::Permanent(_) if known > 0 => of_ownership(sharing, error)
            .remedy("correct ownership.url; if ZooKeeper was emptied or restored, run `maxhost cluster adopt`"),
        error => of_ownership(sharing, error),
    })?;
    let found = ownership.cluster().clone();
    let database = if found.id == id && found.generation >= known {
        enter_databases(&options, ours, further).await
    } else {
        Ok(())
    };
    let refused = if found.id != id {
        let text = format!("{} is the folder of hosts of another network", sharing.address);
        Some(
            Problem::new(Code::OwnershipRefused, text).remedy("give each network a folder of its own in ownership.url"),
        )
    } else if found.generation < known {
        let text = format!(
            "{} has a cluster of generation {}, and the database was used with generation {known}",
            sharing.address, found.generation
        );
        let remedy = "correct ownership.url; if ZooKeeper was emptied or restored, run `maxhost cluster adopt`";
        Some(Problem::new(Code::OwnershipRefused, text).remedy(remedy))
    } else {
        database.err().map(|error| {
            let problem = of_ownership(sharing, error);
            match problem.code {
                Code::OwnershipRefused => problem.remedy(OF_ANOTHER_DATABASE),
                _ => problem,
            }
        })
    };
    match refused {
        Some(problem) => {
            ownership.close().await;
            Err(problem)
        }
        None => Ok(ownership),
    }
}

async fn enter_databases(
    options: &ZooKeeperOptions,
    first: Lineage,
    further: &[Lineage],
) -> Result<(), OwnershipError> {
    enter_database(options, first).await?;
    for lineage in further {
        enter_further_database(options, *lineage).await?;
    }
    Ok(())
}

/// Connects to the files that hosts share, for a command. The host need not run, and no cluster need be set up.
///
/// # Errors
/// `config-invalid` if this host is alone; the folder is that of another network, or the service cannot be reached.
pub async fn open_shared_files(config: &Config) -> Result<(SharedFiles, Sharing), Problem> {
    let Some(sharing) = config.sharing()? else {
        return Err(alone());
    };
    let network = NetworkMap::load(&config.network()).map_err(Problem::from)?;
    let options = ownership_options(config, &sharing, RunId(1));
    match SharedFiles::open(options, &cluster_id(&network)).await {
        Ok(files) => Ok((files, sharing)),
        Err(error) => Err(of_ownership(&sharing, error)),
    }
}

/// What whoever asks for something that only hosts of a cluster have is told.
pub fn alone() -> Problem {
    Problem::new(Code::ConfigInvalid, "this host is alone: ownership.url is not set").remedy(
        "name the ZooKeeper that the hosts share in ownership.url, or with --config the configuration of a host that does",
    )
}

/// A failure of the ownership service, with its address.
pub fn of_ownership(sharing: &Sharing, error: OwnershipError) -> Problem {
    let problem = Problem::from(error);
    let message = format!("{}: {}", sharing.address, problem.message);
    Problem { message, ..problem }
}

/// Whoever sends a message raises the demand for its recipient, who is opened within this time unless something is wrong.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

/// Connects to the broker, for messages of up to so many bytes.
///
/// # Errors
/// It cannot be reached, or would lose messages.
pub async fn open_broker(sharing: &Sharing, largest: usize) -> Result<Arc<dyn Broker>, Problem> {
    let BrokerAccess { address, password, tls, management } = &sharing.broker;
    let mut options = AmqpOptions::new(address.clone());
    options.max_message_bytes = largest;
    options.session_timeout = Some(sharing.session_timeout);
    options.notice_after = NOTICE_AFTER;
    if let (Some(user), Some(password)) = (&address.user, password) {
        options.credentials = Some(Credentials::new(user.clone(), password.as_str()));
    }
    options.tls = tls.clone();
    options.management = management.clone();
    Ok(Arc::new(AmqpBroker::open(options).await.map_err(Problem::from)?))
}
