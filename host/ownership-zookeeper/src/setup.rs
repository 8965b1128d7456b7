//! Setting a cluster up, and taking one over after its ZooKeeper was wiped or restored.

use maxhost_model::Lineage;
use maxhost_ownership::{OwnershipError, Permanent};
use zookeeper_client::{Client, CreateMode, CreateOptions, Error, Stat};

use crate::client::{cluster, connect, create_options, within};
use crate::nodes::{self, Cluster, HostData};
use crate::options::ZooKeeperOptions;

/// Makes the nodes of a new cluster of generation 1, named `id`.
///
/// # Errors
/// Permanent if there is a cluster already; transient if no server can be reached.
pub async fn set_up(options: &ZooKeeperOptions, id: &str) -> Result<Cluster, OwnershipError> {
    let new = Cluster { id: id.to_owned(), generation: 1 };
    if !make(options, &new).await? {
        let reason = format!("there is a cluster in {} already", options.address);
        return Err(Permanent::refused(reason).into());
    }
    Ok(new)
}

/// Makes the claims of a cluster rise above everything that its databases have, after its ZooKeeper was wiped or
/// restored: `generation` is above the highest one in them. Hosts must be started anew after this.
///
/// # Errors
/// Permanent if the folder has another cluster, or one of this generation or a higher one.
pub async fn adopt(options: &ZooKeeperOptions, id: &str, generation: i64) -> Result<Cluster, OwnershipError> {
    let raised = Cluster { id: id.to_owned(), generation };
    if make(options, &raised).await? {
        return Ok(raised);
    }
    let client = connect(options, &options.address.folder, None).await?;
    let limit = options.session_timeout;
    let present = cluster(&client, limit).await?;
    if present.id != raised.id || present.generation >= generation {
        let reason = format!("it has cluster {} of generation {}", present.id, present.generation);
        return Err(Permanent::refused(reason).into());
    }
    within(limit, client.set_data(nodes::CLUSTER, &nodes::encode(&raised), None)).await?;
    Ok(raised)
}

/// Which cluster is in the folder, and how many hosts are in it; `None` if there is none. Changes nothing.
///
/// # Errors
/// Permanent if the servers refuse the host, or what is there is not ours; transient if no server can be reached.
pub async fn look(options: &ZooKeeperOptions) -> Result<Option<(Cluster, usize)>, OwnershipError> {
    let limit = options.session_timeout;
    let client = connect(options, &options.address.folder, None).await?;
    let is_there = within(limit, client.check_stat(nodes::CLUSTER)).await?.is_some();
    if !is_there {
        return Ok(None);
    }
    let found = cluster(&client, limit).await?;
    let hosts = within(limit, client.list_children(nodes::HOSTS)).await?;
    Ok(Some((found, hosts.len())))
}

/// Looks whether `ours` is the database of the cluster, and of no earlier moment than others have seen it. The first host of
/// a cluster names it; from then on the folder is for hosts on that database alone, because two hosts that own the same
/// identity in turns must find what the other has written.
///
/// # Errors
/// Permanent if the cluster has another database, or has seen this one in a later state; transient if no server can be
/// reached.
pub async fn enter_database(options: &ZooKeeperOptions, ours: Lineage) -> Result<(), OwnershipError> {
    enter(options, nodes::DATABASE, ours).await
}

/// As [`enter_database`], for one that stands beside the first one.
///
/// # Errors
/// As [`enter_database`].
pub async fn enter_further_database(options: &ZooKeeperOptions, ours: Lineage) -> Result<(), OwnershipError> {
    enter(options, &nodes::further_database(ours.database), ours).await
}

async fn enter(options: &ZooKeeperOptions, node: &str, ours: Lineage) -> Result<(), OwnershipError> {
    let client = connect(options, &options.address.folder, None).await?;
    let persistent = create_options(options, CreateMode::Persistent);
    loop {
        let (seen, stat) = match within(options.session_timeout, found(&client, node)).await? {
            Some(there) => there,
            None => match within(options.session_timeout, created(&client, node, &persistent, ours)).await? {
                true => return Ok(()),
                false => continue,
            },
        };
        let Some(seen) = nodes::decode::<Lineage>(&seen) else {
            return Err(Permanent::refused("what it says about its database is not ours").into());
        };
        if seen.database != ours.database {
            return Err(Permanent::refused("it is the folder of hosts on another database").into());
        }
        if let Some(what) = ours.behind(&seen) {
            let reason = format!("the database has gone back: its hosts have seen a later {what} of it");
            return Err(Permanent::refused(reason).into());
        }
        let latest = ours.latest(&seen);
        if latest == seen {
            return Ok(());
        }
        let change = client.set_data(node, &nodes::encode(&latest), Some(stat.version));
        let changed = within(options.session_timeout, async {
            match change.await {
                Err(Error::BadVersion | Error::NoNode) => Ok(false),
                changed => changed.map(|_| true),
            }
        });
        if changed.await? {
            return Ok(());
        }
    }
}

/// Makes `ours` the database of the cluster, whatever it was before. No host may be in the cluster.
///
/// # Errors
/// As [`enter_database`].
pub async fn replace_database(options: &ZooKeeperOptions, ours: Lineage) -> Result<(), OwnershipError> {
    replace(options, nodes::DATABASE, ours).await
}

/// As [`replace_database`], for one that stands beside the first one.
///
/// # Errors
/// As [`enter_database`].
pub async fn replace_further_database(options: &ZooKeeperOptions, ours: Lineage) -> Result<(), OwnershipError> {
    replace(options, &nodes::further_database(ours.database), ours).await
}

/// The hosts of the cluster that do not have this database beside the first one.
///
/// # Errors
/// Transient if no server can be reached.
pub async fn hosts_without_database(options: &ZooKeeperOptions, id: i64) -> Result<Vec<String>, OwnershipError> {
    let client = connect(options, &options.address.folder, None).await?;
    let read = async {
        let mut without = Vec::new();
        for session in client.list_children(nodes::HOSTS).await? {
            match client.get_data(&format!("{}/{session}", nodes::HOSTS)).await {
                Ok((data, _)) => {
                    let host = nodes::decode::<HostData>(&data);
                    without.extend(host.filter(|host| !host.databases.contains(&id)).map(|host| host.name));
                }
                // It has left meanwhile.
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
        without.sort_unstable();
        Ok(without)
    };
    within(options.session_timeout, read).await
}

async fn replace(options: &ZooKeeperOptions, node: &str, ours: Lineage) -> Result<(), OwnershipError> {
    let client = connect(options, &options.address.folder, None).await?;
    within(options.session_timeout, async {
        match client.delete(node, None).await {
            Err(Error::NoNode) => Ok(()),
            deleted => deleted,
        }
    })
    .await?;
    enter(options, node, ours).await
}

async fn found(client: &Client, node: &str) -> Result<Option<(Vec<u8>, Stat)>, Error> {
    match client.get_data(node).await {
        Err(Error::NoNode) => Ok(None),
        found => found.map(Some),
    }
}

/// False if another host was faster.
async fn created(client: &Client, node: &str, persistent: &CreateOptions<'_>, ours: Lineage) -> Result<bool, Error> {
    match client.create(node, &nodes::encode(&ours), persistent).await {
        Err(Error::NodeExists) => Ok(false),
        created => created.map(|_| true),
    }
}

/// Makes the nodes of a cluster; false if there is one. `/cluster` comes last, so that a cluster which has it is whole.
async fn make(options: &ZooKeeperOptions, new: &Cluster) -> Result<bool, OwnershipError> {
    let limit = options.session_timeout;
    let persistent = create_options(options, CreateMode::Persistent);
    let client = connect(options, "", None).await?;
    within(limit, client.mkdir(&options.address.folder, &persistent)).await?;
    drop(client);
    let client: Client = connect(options, &options.address.folder, None).await?;
    for folder in [nodes::HOSTS, nodes::OWNERS, nodes::DEMAND, nodes::DATABASES, nodes::DRAINING] {
        within(limit, client.mkdir(folder, &persistent)).await?;
    }
    within(limit, async {
        match client.create(nodes::CLUSTER, &nodes::encode(new), &persistent).await {
            Err(Error::NodeExists) => Ok(false),
            created => created.map(|_| true),
        }
    })
    .await
}
