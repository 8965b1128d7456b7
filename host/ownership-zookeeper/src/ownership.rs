//! Ownership by ZooKeeper.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use maxhost_model::{Claim, FencingToken, RunId, SecureHash};
use maxhost_ownership::protocol::{ClaimDecision, Held, SleepPlan, decide_claim, plan_sleep};
use maxhost_ownership::{
    Changes, DemandVersion, Demands, HostInfo, Lost, Ownedness, Owner, Ownership, OwnershipError, Permanent, Reach,
    Session, SessionState, Slept, Transient,
};
use tokio::sync::{oneshot, watch};
use zookeeper_client::{CreateMode, Error, MultiWriteError};

use crate::client::{cluster, connect, create_options, within};
use crate::error::of_call;
use crate::file_feed::FileFeed;
use crate::former;
use crate::listeners::{ZooKeeperChanges, ZooKeeperDemands};
use crate::nodes::{self, DemandData, HostData, Key, Node, OwnerData, SchedulerData};
use crate::options::ZooKeeperOptions;
use crate::owner_nodes::{ANY_VERSION, ATTEMPTS, DemandEnd, LetGo, Made, found, made};
use crate::session::{Link, Shared, begin, run};

/// How often it is looked whether a former run of this host is gone.
const LOOK: Duration = Duration::from_millis(100);

/// A host's place in a cluster that a ZooKeeper ensemble keeps. Dropping it is like [`Ownership::close`] without
/// waiting for it.
pub struct ZooKeeperOwnership {
    shared: Arc<Shared>,
}

impl fmt::Debug for ZooKeeperOwnership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperOwnership").field("host", &self.shared.options.host).finish_non_exhaustive()
    }
}

impl Drop for ZooKeeperOwnership {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
    }
}

impl ZooKeeperOwnership {
    /// Joins the cluster: closes the session of this host's former run if `session_file` knows it, waits until that is
    /// gone, and begins a session.
    ///
    /// # Errors
    /// Permanent: there is no cluster in the folder, the servers refuse the host, or another host of this name is
    /// there. Transient: no server can be reached, or there is no quorum.
    pub fn join(options: ZooKeeperOptions) -> BoxFuture<'static, Result<ZooKeeperOwnership, OwnershipError>> {
        Box::pin(async move {
            former::close_noted(&options).await;
            let cluster = wait_for_former(&options).await?;
            let shared = Arc::new(Shared::new(options, cluster));
            let begun = begin(&shared, None).await?;
            tokio::spawn(run(Arc::clone(&shared), begun));
            Ok(ZooKeeperOwnership { shared })
        })
    }

    /// Which cluster it is.
    #[must_use]
    pub fn cluster(&self) -> &nodes::Cluster {
        &self.shared.cluster
    }

    /// Follows the files that the hosts of the cluster share. A host asks for this once: two would take each other's
    /// news.
    #[must_use]
    pub fn files(&self) -> FileFeed {
        FileFeed::new(Arc::clone(&self.shared))
    }

    fn link(&self) -> Result<Arc<Link>, OwnershipError> {
        self.shared.link()
    }

    /// Whether this session surely owns an identity: it has made the node and not asked for its end, and nobody deletes the node of
    /// another session. The transaction by which it is let go checks that the session is there. A copy that says otherwise is
    /// believed, so that what somebody removed by hand is looked at.
    fn is_ours(&self, link: &Link, identity: &SecureHash) -> bool {
        let is_made = link.made.lock().contains(&Key::of(identity));
        let board = self.shared.board.lock();
        is_made && board.owner(identity).is_none_or(|owner| *owner.host == *self.shared.options.host)
    }

    /// Writes what this host tells of itself, unless that is what this session has told last. The next session tells it too, so an
    /// answer that was lost costs nothing.
    async fn tell(&self, link: &Link) -> Result<(), OwnershipError> {
        let path = nodes::host_path(link.client.session_id());
        let data;
        let (number, written) = {
            // The request is on its way when it is made, before it is waited for.
            let _order = self.shared.telling.lock();
            data = self.shared.host_data();
            let Some(number) = link.told.lock().begin(&data) else { return Ok(()) };
            (number, link.client.set_data(&path, &data, None))
        };
        self.shared.call(link, written).await?;
        link.told.lock().is_confirmed(number, data);
        Ok(())
    }

    /// The copy, brought up to everything that the service had when this was called.
    async fn settled(&self, link: &Link) -> Result<(), OwnershipError> {
        // The events of everything before the answer are delivered before it.
        self.shared.call(link, link.client.sync("/")).await?;
        let (reached, reaching) = oneshot::channel();
        let waiting = async {
            link.barriers.send(reached).await.ok()?;
            reaching.await.ok()
        };
        let reached = tokio::time::timeout(link.patience().max(Duration::from_secs(10)), waiting).await;
        self.shared.check(link)?;
        match reached {
            Ok(Some(())) => Ok(()),
            _ => Err(Transient::unavailable("the cluster could not be read in time").into()),
        }
    }
}

/// Waits until no other run of this host is listed.
async fn wait_for_former(options: &ZooKeeperOptions) -> Result<nodes::Cluster, OwnershipError> {
    let client = connect(options, &options.address.folder, None).await?;
    let limit = options.session_timeout;
    let found_cluster = cluster(&client, limit).await?;
    let looking = async {
        loop {
            let mut is_there = false;
            for name in within(limit, client.list_children(nodes::HOSTS)).await? {
                let path = format!("{}/{name}", nodes::HOSTS);
                let data = within(limit, found(client.get_data(&path))).await?;
                let host = data.as_ref().and_then(|(data, _)| nodes::decode::<HostData>(data));
                is_there |= host.is_some_and(|host| host.name == options.host && host.run != options.run);
            }
            if !is_there {
                return Ok::<(), OwnershipError>(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(former::patience(options), looking).await {
        Ok(looked) => looked.map(|()| found_cluster),
        Err(_) => {
            let reason = format!("another host named {} is in the cluster: give each host a name", options.host);
            Err(Permanent::refused(reason).into())
        }
    }
}

#[async_trait]
impl Ownership for ZooKeeperOwnership {
    fn host(&self) -> &str {
        &self.shared.options.host
    }

    fn run(&self) -> RunId {
        self.shared.options.run
    }

    async fn claim(&self, identity: SecureHash, stored: FencingToken) -> Result<Claim, OwnershipError> {
        let link = self.link()?;
        let (key, options) = (Key::of(&identity), &self.shared.options);
        let owner = nodes::encode(&OwnerData { identity, host: options.host.clone(), run: options.run });
        let (demand_path, owner_path) = (key.demand_path(), key.owner_path());
        let paths = (demand_path.as_str(), owner_path.as_str());
        // A copy that is behind costs one more attempt.
        let mut is_demanded = self.shared.board.lock().wish(&identity).is_some();
        for _ in 0..ATTEMPTS {
            // Sent one behind the other and carried out in this order. Only the read decides: a creation whose answer
            // was lost may have happened, and what exists may be another's.
            let asked = match std::mem::take(&mut is_demanded) {
                true => self.shared.make_owner(&link, paths, &owner),
                false => self.shared.make_demand_and_owner(&link, &identity, paths, &owner),
            };
            let (asked, held) = tokio::join!(asked, self.shared.owner(&link, &identity));
            let is_new = match asked? {
                Made::Now => true,
                Made::Before => false,
                // Whoever owns an identity has a demand for it, so it is made first.
                Made::NoDemand => continue,
            };
            match decide_claim(held?, is_new, stored) {
                ClaimDecision::Granted(token) => {
                    link.made.lock().insert(key);
                    return Ok(Claim { token, run: options.run });
                }
                ClaimDecision::Owned(owner) => return Err(Lost::Owned(owner).into()),
                ClaimDecision::Again => {}
                ClaimDecision::Behind(offered) => {
                    self.shared.let_go(&link, &identity, DemandEnd::Stays).await?;
                    return Err(Permanent::Behind { identity, stored, offered }.into());
                }
            }
        }
        Err(Transient::unavailable("owners came and went").into())
    }

    async fn demand_version(&self, identity: SecureHash) -> Result<Option<DemandVersion>, OwnershipError> {
        let link = self.link()?;
        self.shared.version(&link, &identity).await
    }

    async fn sleep(&self, identity: SecureHash, seen: Option<DemandVersion>) -> Result<Slept, OwnershipError> {
        let link = self.link()?;
        let present = if self.is_ours(&link, &identity) {
            self.shared.version(&link, &identity).await?
        } else {
            let (held, present) =
                tokio::join!(self.shared.owner(&link, &identity), self.shared.version(&link, &identity));
            let Held::Ours { .. } = held? else { return Ok(Slept::NotOwner) };
            present?
        };
        let plan = plan_sleep(present, seen);
        let (end, done) = match plan {
            SleepPlan::EndDemand(version) => (DemandEnd::EndsAt(version), Slept::Asleep),
            SleepPlan::KeepDemand { wanted: true } => (DemandEnd::Stays, Slept::Wanted),
            SleepPlan::KeepDemand { wanted: false } => (DemandEnd::Stays, Slept::Asleep),
        };
        match self.shared.let_go(&link, &identity, end).await? {
            LetGo::Done => Ok(done),
            LetGo::NotOwner => Ok(Slept::NotOwner),
            // It was raised in between.
            LetGo::DemandDiffers => match self.shared.let_go(&link, &identity, DemandEnd::Stays).await? {
                LetGo::NotOwner => Ok(Slept::NotOwner),
                LetGo::Done | LetGo::DemandDiffers => Ok(Slept::Wanted),
            },
        }
    }

    async fn hand_over(&self, identity: SecureHash, target: Option<&str>) -> Result<bool, OwnershipError> {
        let link = self.link()?;
        // A demand without a target does not say which demand it is of, so nothing need be read.
        if target.is_none() && self.is_ours(&link, &identity) {
            match self.shared.let_go(&link, &identity, DemandEnd::Becomes(DemandData::new(identity))).await? {
                LetGo::Done => return Ok(true),
                LetGo::NotOwner => return Ok(false),
                // It was removed by hand, and is made below.
                LetGo::DemandDiffers => {}
            }
        }
        let (held, version) = tokio::join!(self.shared.owner(&link, &identity), self.shared.version(&link, &identity));
        let (Held::Ours { .. }, mut version) = (held?, version?) else { return Ok(false) };
        for _ in 0..ATTEMPTS {
            let Some(present) = version else {
                // It was removed by hand.
                self.shared.make_demand(&link, &DemandData::new(identity)).await?;
                version = self.shared.version(&link, &identity).await?;
                continue;
            };
            // Nobody else ends a demand while this session owns the identity, so the present one is the one that is written.
            let data = DemandData::new(identity).with_target(target, present);
            match self.shared.let_go(&link, &identity, DemandEnd::Becomes(data)).await? {
                LetGo::Done => return Ok(true),
                LetGo::NotOwner => return Ok(false),
                LetGo::DemandDiffers => version = self.shared.version(&link, &identity).await?,
            }
        }
        Err(Transient::unavailable("the demand came and went").into())
    }

    async fn owners(&self) -> Result<Vec<Owner>, OwnershipError> {
        let link = self.link()?;
        self.settled(&link).await?;
        Ok(self.shared.board.lock().owners())
    }

    fn owner_of(&self, identity: &SecureHash) -> Ownedness {
        if self.link().is_err() {
            return Ownedness::Unknown;
        }
        let board = self.shared.board.lock();
        match board.owner(identity) {
            _ if !board.complete => Ownedness::Unknown,
            Some(owner) => Ownedness::Owned(owner.clone()),
            None => Ownedness::Free,
        }
    }

    fn changes(&self) -> Box<dyn Changes> {
        Box::new(ZooKeeperChanges::of(&self.shared))
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.shared.session.subscribe()
    }

    async fn demand(&self, identity: SecureHash) -> Result<(), OwnershipError> {
        let link = self.link()?;
        self.shared.raise_demand(&link, &identity, None).await
    }

    async fn demand_with(&self, identity: SecureHash, message: Arc<[u8]>) -> Result<(), OwnershipError> {
        let link = self.link()?;
        self.shared.raise_demand(&link, &identity, Some(&message)).await
    }

    fn demands(&self) -> Box<dyn Demands> {
        Box::new(ZooKeeperDemands::of(&self.shared))
    }

    async fn wanted(&self) -> Result<Vec<SecureHash>, OwnershipError> {
        let link = self.link()?;
        self.settled(&link).await?;
        Ok(self.shared.board.lock().wanted())
    }

    async fn demanded(&self) -> Result<Vec<SecureHash>, OwnershipError> {
        let link = self.link()?;
        self.settled(&link).await?;
        Ok(self.shared.board.lock().demanded())
    }

    async fn offer(&self, free_slots: u32) -> Result<(), OwnershipError> {
        let link = self.link()?;
        if self.shared.slots.swap(free_slots, Ordering::AcqRel) == 0 && free_slots > 0 {
            self.shared.board.lock().round += 1;
        }
        self.tell(&link).await?;
        self.settled(&link).await
    }

    async fn tell_reach(&self, reach: Reach) -> Result<(), OwnershipError> {
        let link = self.link()?;
        *self.shared.reach.lock() = Some(reach);
        self.tell(&link).await
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, OwnershipError> {
        let link = self.link()?;
        self.settled(&link).await?;
        Ok(self.shared.board.lock().hosts())
    }

    fn known_hosts(&self) -> Option<Vec<HostInfo>> {
        self.link().ok()?;
        let board = self.shared.board.lock();
        board.complete.then(|| board.hosts())
    }

    async fn set_draining(&self, host: &str, draining: bool) -> Result<bool, OwnershipError> {
        let link = self.link()?;
        let persistent = create_options(&self.shared.options, CreateMode::Persistent);
        let path = Node::Draining(host.to_owned()).path();
        let is_news = if draining {
            self.shared.call(&link, made(link.client.create(nodes::DRAINING, &[], &persistent))).await?;
            self.shared.call(&link, made(link.client.create(&path, &[], &persistent))).await?
        } else {
            self.shared.call(&link, found(link.client.delete(&path, None))).await?.is_some()
        };
        self.settled(&link).await?;
        Ok(is_news)
    }

    fn draining(&self) -> watch::Receiver<bool> {
        self.shared.draining.subscribe()
    }

    async fn campaign(&self) -> Result<bool, OwnershipError> {
        let link = self.link()?;
        let options = &self.shared.options;
        let data = nodes::encode(&SchedulerData { host: options.host.clone(), run: options.run });
        let ephemeral = create_options(options, CreateMode::Ephemeral);
        // As with claims, only the read decides. Both are carried out in this order.
        let created = made(link.client.create(nodes::SCHEDULER, &data, &ephemeral));
        let read = link.client.check_stat(nodes::SCHEDULER);
        let (created, read) = tokio::join!(self.shared.call(&link, created), self.shared.call(&link, read));
        if let Err(error @ (OwnershipError::Permanent(_) | OwnershipError::Lost(_))) = created {
            return Err(error);
        }
        Ok(read?.is_some_and(|stat| stat.ephemeral_owner == link.client.session_id().0))
    }

    async fn resign(&self) -> Result<(), OwnershipError> {
        let link = self.link()?;
        let read = self.shared.call(&link, link.client.check_stat(nodes::SCHEDULER)).await?;
        if read.is_none_or(|stat| stat.ephemeral_owner != link.client.session_id().0) {
            return Ok(());
        }
        // The node is this session's for as long as the session is there.
        let mut writer = link.client.new_multi_writer();
        writer
            .add_check_version(&nodes::host_path(link.client.session_id()), ANY_VERSION)
            .and_then(|()| writer.add_delete(nodes::SCHEDULER, None))
            .map_err(of_call)?;
        let committed = writer.commit();
        match self.shared.call(&link, async { Ok(committed.await) }).await? {
            Ok(_) | Err(MultiWriteError::OperationFailed { source: Error::NoNode, index: 1 }) => Ok(()),
            Err(MultiWriteError::OperationFailed { index: 0, .. }) => Err(Lost::SessionOver.into()),
            Err(MultiWriteError::OperationFailed { source, .. } | MultiWriteError::RequestFailed { source }) => {
                Err(of_call(source))
            }
        }
    }

    fn scheduler(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.scheduler.subscribe()
    }

    async fn close(&self) {
        self.shared.closing.send_replace(true);
        let closed = |session: &Session| session.state == SessionState::Closed;
        let _ = self.shared.session.subscribe().wait_for(closed).await;
    }
}
