//! Connecting, and the calls that several parts make.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use maxhost_ownership::{OwnershipError, Permanent, Transient};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error, SessionInfo, TlsOptions};

use crate::board::{Found, Wish};
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

/// Reads nodes, many at once. Those that are not there are found to be nothing.
pub(crate) async fn read(client: &Client, nodes: Vec<Node>, generation: i64) -> Result<Vec<Found>, Error> {
    let read_one = |node: Node| async move {
        let answer = match client.get_data(&node.path()).await {
            Err(Error::NoNode) => None,
            answer => Some(answer?),
        };
        let (data, stat) = answer.as_ref().map(|(data, stat)| (&data[..], stat)).unzip();
        Ok::<Found, Error>(match node {
            Node::Owner(key) => {
                let owner = data.and_then(nodes::decode::<OwnerData>).zip(stat);
                Found::Owner(
                    key,
                    owner
                        .filter(|(data, _)| Key::of(&data.identity) == key)
                        .map(|(data, stat)| data.owner(generation, stat)),
                )
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
        })
    };
    stream::iter(nodes.into_iter().map(read_one)).buffer_unordered(READS).try_collect().await
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
