//! The nodes of owners and of demands: how they are read, made, and let go of, each in one transaction or as requests that are
//! carried out one behind the other.

use futures::future::BoxFuture;
use maxhost_model::{FencingToken, SecureHash};
use maxhost_ownership::protocol::Held;
use maxhost_ownership::{DemandVersion, Lost, Owner, OwnershipError, Transient};
use zookeeper_client::{CreateMode, Error, MultiWriteError};

use crate::client::{create_options, within};
use crate::error::of_call;
use crate::nodes::{self, DemandData, Key, OwnerData};
use crate::session::{Link, Shared};

/// How often a call is begun anew when nodes come and go under it.
pub(crate) const ATTEMPTS: usize = 8;
/// A check that a node is there, whatever its version.
pub(crate) const ANY_VERSION: i32 = -1;

/// What came of asking for the owner's node.
pub(crate) enum Made {
    /// It was made.
    Now,
    /// It was there, or the answer was lost.
    Before,
    /// There is no demand, and nothing was done.
    NoDemand,
}

/// What becomes of a demand when its identity is let go.
pub(crate) enum DemandEnd {
    Stays,
    EndsAt(DemandVersion),
    Becomes(DemandData),
}

/// What came of letting an identity go.
pub(crate) enum LetGo {
    Done,
    NotOwner,
    DemandDiffers,
}

/// An answer, or none if there is no such node.
pub(crate) async fn found<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
    match call.await {
        Err(Error::NoNode) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Whether a node was made; false if it was there already.
pub(crate) async fn made<T>(call: impl Future<Output = Result<T, Error>>) -> Result<bool, Error> {
    match call.await {
        Err(Error::NodeExists) => Ok(false),
        answer => answer.map(|_| true),
    }
}

enum Raised {
    Done,
    /// The node has another version.
    Differs,
    Gone,
}

async fn raised<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Raised, Error> {
    match call.await {
        Err(Error::BadVersion) => Ok(Raised::Differs),
        Err(Error::NoNode) => Ok(Raised::Gone),
        answer => answer.map(|_| Raised::Done),
    }
}

impl Shared {
    /// Waits for the answer to a request, for as long as answers are waited for.
    pub(crate) async fn call<T>(
        &self,
        link: &Link,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, OwnershipError> {
        let answer = within(link.patience(), call).await;
        // An answer that comes after the session was given up is none.
        self.check(link)?;
        answer
    }

    fn token(&self, created: i64) -> FencingToken {
        FencingToken { generation: self.cluster.generation, epoch: created }
    }

    /// Asks for the owner's node where the copy knows a demand: one transaction looks that the demand is there and makes the node,
    /// which is cheaper than a demand that is made in vain. Sent when this is called.
    pub(crate) fn make_owner<'a>(
        &'a self,
        link: &'a Link,
        (demand_path, owner_path): (&'a str, &'a str),
        owner: &'a [u8],
    ) -> BoxFuture<'a, Result<Made, OwnershipError>> {
        let mut writer = link.client.new_multi_writer();
        let ephemeral = create_options(&self.options, CreateMode::Ephemeral);
        let prepared = writer
            .add_check_version(demand_path, ANY_VERSION)
            .and_then(|()| writer.add_create(owner_path, owner, &ephemeral));
        let committed = prepared.map(|()| writer.commit());
        Box::pin(async move {
            let committed = committed.map_err(of_call)?;
            match self.call(link, async { Ok(committed.await) }).await? {
                Ok(_) => Ok(Made::Now),
                Err(MultiWriteError::OperationFailed { index: 0, .. }) => Ok(Made::NoDemand),
                Err(MultiWriteError::OperationFailed { source: Error::NodeExists, .. }) => Ok(Made::Before),
                Err(MultiWriteError::OperationFailed { source, .. } | MultiWriteError::RequestFailed { source }) => {
                    Err(of_call(source))
                }
            }
        })
    }

    /// The same where it knows none: the demand is made, unless there is one, and then the node. Both are sent when this is called,
    /// one behind the other, and carried out in this order.
    pub(crate) fn make_demand_and_owner<'a>(
        &'a self,
        link: &'a Link,
        identity: &SecureHash,
        (demand_path, owner_path): (&'a str, &'a str),
        owner: &'a [u8],
    ) -> BoxFuture<'a, Result<Made, OwnershipError>> {
        let options = &self.options;
        let demand = nodes::encode(&DemandData::new(*identity));
        let persistent = create_options(options, CreateMode::Persistent);
        let demanded = made(link.client.create(demand_path, &demand, &persistent));
        let created = made(link.client.create(owner_path, owner, &create_options(options, CreateMode::Ephemeral)));
        Box::pin(async move {
            let (demanded, created) = tokio::join!(self.call(link, demanded), self.call(link, created));
            demanded?;
            match created {
                Ok(true) => Ok(Made::Now),
                Err(error @ (OwnershipError::Permanent(_) | OwnershipError::Lost(_))) => Err(error),
                // The read decides.
                Ok(false) | Err(_) => Ok(Made::Before),
            }
        })
    }

    /// Who holds the node of an identity.
    pub(crate) async fn owner(&self, link: &Link, identity: &SecureHash) -> Result<Held, OwnershipError> {
        let path = Key::of(identity).owner_path();
        let answer = self.call(link, found(link.client.get_data(&path))).await?;
        Ok(match answer {
            None => Held::Free,
            Some((_, stat)) if stat.ephemeral_owner == link.client.session_id().0 => {
                Held::Ours { token: self.token(stat.czxid) }
            }
            Some((data, stat)) => match nodes::decode::<OwnerData>(&data) {
                Some(data) => Held::Other(data.owner(self.cluster.generation, &stat)),
                None => {
                    Held::Other(Owner { identity: *identity, host: "unknown".into(), token: self.token(stat.czxid) })
                }
            },
        })
    }

    /// The version of the demand for an identity; `None` if there is none.
    pub(crate) async fn version(
        &self,
        link: &Link,
        identity: &SecureHash,
    ) -> Result<Option<DemandVersion>, OwnershipError> {
        let stat = self.call(link, link.client.check_stat(&Key::of(identity).demand_path())).await?;
        Ok(stat.map(|stat| nodes::demand_version(&stat)))
    }

    /// Deletes the node of an identity that this session owns, together with what becomes of the demand. The session is
    /// checked in the same transaction, so that nothing of a session that is over is carried out.
    pub(crate) async fn let_go(
        &self,
        link: &Link,
        identity: &SecureHash,
        demand: DemandEnd,
    ) -> Result<LetGo, OwnershipError> {
        let key = Key::of(identity);
        // Whatever becomes of it: from here on the node may be gone.
        link.made.lock().remove(&key);
        let mut writer = link.client.new_multi_writer();
        let prepared = (|| -> Result<(), Error> {
            writer.add_check_version(&nodes::host_path(link.client.session_id()), ANY_VERSION)?;
            writer.add_delete(&key.owner_path(), None)?;
            match &demand {
                DemandEnd::Stays => Ok(()),
                DemandEnd::EndsAt(version) => {
                    // A version of ZooKeeper has 32 bits; one that does not fit was never seen.
                    writer.add_delete(&key.demand_path(), Some(i32::try_from(version.bumps).unwrap_or(i32::MAX)))
                }
                DemandEnd::Becomes(data) => writer.add_set_data(&key.demand_path(), &nodes::encode(data), None),
            }
        })();
        prepared.map_err(of_call)?;
        let committed = writer.commit();
        match self.call(link, async { Ok(committed.await) }).await? {
            Ok(_) => Ok(LetGo::Done),
            Err(MultiWriteError::OperationFailed { index: 0, .. }) => Err(Lost::SessionOver.into()),
            Err(MultiWriteError::OperationFailed { index: 1, .. }) => Ok(LetGo::NotOwner),
            Err(MultiWriteError::OperationFailed { source: Error::BadVersion | Error::NoNode, .. }) => {
                Ok(LetGo::DemandDiffers)
            }
            Err(MultiWriteError::OperationFailed { source, .. } | MultiWriteError::RequestFailed { source }) => {
                Err(of_call(source))
            }
        }
    }

    /// Raises the demand that there is, or makes one without a target. What the demand says stays: it is written under the
    /// version that it was read with, because an owner may name a target at any moment. If the copy is of a former demand, which
    /// had that version, too, what is written names that one, so its target is taken for none ([`DemandData::of_node`]).
    /// `message` takes the place of the one that it had.
    pub(crate) async fn raise_demand(
        &self,
        link: &Link,
        identity: &SecureHash,
        message: Option<&[u8]>,
    ) -> Result<(), OwnershipError> {
        let path = Key::of(identity).demand_path();
        // What this host was told of it may be old, and costs nothing.
        let mut seen = self.board.lock().wish(identity);
        let mut is_of_now = false;
        for _ in 0..ATTEMPTS {
            let Some((data, version)) = seen else {
                if self.make_demand(link, &DemandData::new(*identity).with_message(message)).await? {
                    return Ok(());
                }
                (seen, is_of_now) = (self.read_demand(link, identity).await?, true);
                continue;
            };
            let data = nodes::encode(&data.with_message(message));
            match self.call(link, raised(link.client.set_data(&path, &data, Some(version)))).await? {
                Raised::Done => return Ok(()),
                // Somebody else has written it since this was called: that raised it.
                Raised::Differs if is_of_now => return Ok(()),
                Raised::Differs => (seen, is_of_now) = (self.read_demand(link, identity).await?, true),
                Raised::Gone => seen = None,
            }
        }
        Err(Transient::unavailable("the demand came and went").into())
    }

    /// Makes a demand. False if there is one.
    pub(crate) async fn make_demand(&self, link: &Link, data: &DemandData) -> Result<bool, OwnershipError> {
        let (path, data) = (Key::of(&data.identity).demand_path(), nodes::encode(data));
        let persistent = create_options(&self.options, CreateMode::Persistent);
        self.call(link, made(link.client.create(&path, &data, &persistent))).await
    }

    /// What a demand says, and the version of its node. One that cannot be read says nothing but whose it is.
    async fn read_demand(
        &self,
        link: &Link,
        identity: &SecureHash,
    ) -> Result<Option<(DemandData, i32)>, OwnershipError> {
        let path = Key::of(identity).demand_path();
        let answer = self.call(link, found(link.client.get_data(&path))).await?;
        Ok(answer.map(|(data, stat)| {
            (DemandData::of_node(&data, &stat).unwrap_or_else(|| DemandData::new(*identity)), stat.version)
        }))
    }
}
