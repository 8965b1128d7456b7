//! Connecting, and the calls that several parts make.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use maxhost_ownership::{OwnershipError, Permanent, Transient};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error, SessionInfo, Stat, TlsOptions};

use crate::board::{Found, Look, Wish};
use crate::error::of_call;
use crate::nodes::{self, DEMAND, DRAINING, DemandData, HOSTS, HostData, Key, Node, OWNERS, OwnerData, SchedulerData};
use crate::options::ZooKeeperOptions;

/// Reads that are under way at once.
const READS: usize = 256;

/// Connects to the folder of the cluster; `former` is a session to go on with. In a box, so that it is compiled here, once,
/// and not wherever it is awaited.
pub(crate) fn connect<'a>(
    options: &'a ZooKeeperOptions,
    folder: &'a str,
    former: Option<SessionInfo>,
) -> BoxFuture<'a, Result<Client, OwnershipError>> {
    Box::pin(connect_unboxed(options, folder, former))
}

async fn connect_unboxed(
    options: &ZooKeeperOptions,
    folder: &str,
    former: Option<SessionInfo>,
) -> Result<Client, OwnershipError> {
    let mut connector = Client::connector().with_session_timeout(options.session_timeout);
    if let Some(former) = former {
        connector = connector.with_session(former);
    }
    if let Some(digest) = &options.digest {
        connector = connector.with_auth("digest", format!("{}:{}", digest.user, *digest.password).as_bytes());
    }
    let cluster = format!("{}{folder}", options.address.servers);
    let connecting = async {
        match &options.tls {
            None => connector.connect(&cluster).await,
            Some(tls) => {
                let mut files = TlsOptions::new().with_pem_ca(&tls.authorities)?;
                if let Some((certificate, key)) = &tls.identity {
                    files = files.with_pem_identity(certificate, key)?;
                }
                connector.with_tls(files).secure_connect(&cluster).await
            }
        }
    };
    within(options.session_timeout, connecting).await
}

/// Waits for an answer, but no longer than this: without a connection, calls wait until there is one.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, OwnershipError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(of_call),
        Err(_) => Err(Transient::unavailable(format!("no answer within {limit:?}")).into()),
    }
}

/// How nodes are made: for the cluster's user alone, if there is one.
pub(crate) fn create_options(options: &ZooKeeperOptions, mode: CreateMode) -> CreateOptions<'static> {
    mode.with_acls(if options.digest.is_some() { Acls::creator_all() } else { Acls::anyone_all() })
}

/// What `/cluster` says.
pub(crate) async fn cluster(client: &Client, limit: Duration) -> Result<nodes::Cluster, OwnershipError> {
    let missing = |what: &str| {
        let text = format!("{what} in this folder: set the cluster up first, or correct the address");
        OwnershipError::from(Permanent::refused(text))
    };
    match within(limit, async {
        match client.get_data(nodes::CLUSTER).await {
            Err(Error::NoNode) => Ok(None),
            answer => answer.map(Some),
        }
    })
    .await?
    {
        Some((data, _)) => nodes::decode(&data).ok_or_else(|| missing("there is no cluster of ours")),
        None => Err(missing("there is no cluster")),
    }
}

/// Looks at nodes, many at once. Those that are not there are found to be nothing. Where an owner that was thought to be there is
/// not, its demand is read too: the two may have ended together.
pub(crate) async fn look(client: &Client, looks: Vec<Look>, generation: i64) -> Result<Vec<Found>, Error> {
    let look_at = |look: Look| async move {
        match look {
            Look::Gone(node) => Ok([Some(found(node, None, generation)), None]),
            Look::Read(node) => {
                let owned = read_one(client, node, generation).await?;
                let demand = match &owned {
                    Found::Owner(key, None) => Some(read_one(client, Node::Demand(*key), generation).await?),
                    _ => None,
                };
                Ok::<_, Error>([Some(owned), demand])
            }
        }
    };
    let looking = stream::iter(looks.into_iter().map(look_at)).buffer_unordered(READS);
    let all: Vec<[Option<Found>; 2]> = looking.try_collect().await?;
    Ok(all.into_iter().flatten().flatten().collect())
}

/// Reads nodes, many at once. Those that are not there are found to be nothing.
async fn read(client: &Client, nodes: Vec<Node>, generation: i64) -> Result<Vec<Found>, Error> {
    let reading = nodes.into_iter().map(|node| read_one(client, node, generation));
    stream::iter(reading).buffer_unordered(READS).try_collect().await
}

async fn read_one(client: &Client, node: Node, generation: i64) -> Result<Found, Error> {
    let answer = match client.get_data(&node.path()).await {
        Err(Error::NoNode) => None,
        answer => Some(answer?),
    };
    Ok(found(node, answer.as_ref().map(|(data, stat)| (&data[..], stat)), generation))
}

/// What a node says; nothing if it is not there.
fn found(node: Node, content: Option<(&[u8], &Stat)>, generation: i64) -> Found {
    let (data, stat) = content.unzip();
    match node {
        Node::Owner(key) => {
            let owner = data.and_then(nodes::decode::<OwnerData>).zip(stat);
            let owner = owner.filter(|(data, _)| Key::of(&data.identity) == key);
            Found::Owner(key, owner.map(|(data, stat)| data.owner(generation, stat)))
        }
        Node::Demand(key) => {
            let wish = data.zip(stat).and_then(|(data, stat)| {
                let data = DemandData::of_node(data, stat).filter(|data| Key::of(&data.identity) == key)?;
                Some(Wish { data, version: nodes::demand_version(stat) })
            });
            Found::Wish(key, wish)
        }
        Node::Host(name) => {
            let host = data.and_then(nodes::decode::<HostData>).zip(stat);
            Found::Host(name, host.map(|(data, stat)| data.info(stat)))
        }
        Node::Draining(name) => Found::Draining(name, data.is_some()),
        Node::Scheduler => {
            Found::Scheduler(data.and_then(nodes::decode::<SchedulerData>).map(|scheduler| scheduler.host))
        }
    }
}

/// Reads everything that a host keeps a copy of.
pub(crate) async fn read_all(client: &Client, generation: i64) -> Result<Vec<Found>, Error> {
    let mut found = read(client, vec![Node::Scheduler], generation).await?;
    for folder in [HOSTS, OWNERS, DEMAND, DRAINING] {
        let names = match client.list_children(folder).await {
            // Made by whoever first asks a host to drain.
            Err(Error::NoNode) if folder == DRAINING => Vec::new(),
            names => names?,
        };
        let nodes = names.into_iter().filter_map(|name| Node::parse(&format!("{folder}/{name}"))).collect();
        found.extend(read(client, nodes, generation).await?);
    }
    Ok(found)
}
