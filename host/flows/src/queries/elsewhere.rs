//! What is asked of this host for an identity that another host runs: a command goes through the identity's queue, and the
//! database tells what became of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maxhost_model::{Code, FlowId, Problem};
use maxhost_ownership::Ownedness;
use tokio::time::Instant;

use crate::api::{ApiResult, Caller, Started};
use crate::envelope::{AskedForget, AskedStart};
use crate::host::Host;
use crate::parts::Parts;
use crate::placement::FlowDef;
use crate::random::new_flow_id;
use crate::registry::IdentityEntry;
use crate::relay::commands::{self, Asked};

/// How long it is waited for another host to do what it was asked for. There may be none yet: one has to be started first.
/// Clients wait for 30 s unless they are told otherwise.
const PATIENCE: Duration = Duration::from_secs(25);
/// How soon the database is asked again what became of it; the time doubles up to the longest.
const LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

impl Host {
    /// Whether another host runs an identity or has to, as far as this one knows.
    pub(super) fn runs_elsewhere(&self, entry: &IdentityEntry) -> bool {
        let ownership = &self.parts.ownership;
        let is_others =
            |key| matches!(ownership.owner_of(&key), Ownedness::Owned(owner) if *owner.host != *ownership.host());
        let Some(membership) = &self.parts.membership else { return false };
        !entry.is_held() && (membership.takes_nothing() || entry.key().is_some_and(is_others))
    }

    /// Whether a start that was refused here may be carried out by another host.
    pub(super) fn may_start_elsewhere(&self, problem: &Problem) -> bool {
        problem.code == Code::IdentityDraining && self.parts.membership.is_some() && !self.parts.stopping.is_cancelled()
    }

    /// Has the host that runs the identity start a flow, under an id that this one gives.
    pub(super) async fn start_elsewhere(
        &self,
        caller: &Caller,
        entry: &Arc<IdentityEntry>,
        (def, arguments): (&FlowDef, Bytes),
        client_id: Option<String>,
    ) -> ApiResult<Started> {
        if let Some(known) = self.of_client(caller, entry, client_id.as_deref()).await? {
            return Ok(known);
        }
        let id = new_flow_id(self.parts.store.next_flow_row())?;
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let start = AskedStart {
            flow: def.name.to_string(),
            arguments,
            user: caller.user.clone(),
            client_id: client_id.clone(),
            expires: self.parts.now_millis().saturating_add(patience),
        };
        commands::send(&self.parts.relay, entry, Asked::Start(id, start)).await?;
        let mut looking =
            Looking::begin(id, "was asked for, and it is not known whether a host has started it or will");
        let mut started = std::pin::pin!(self.parts.asked_for.started(&self.parts.store, &self.parts.io, id));
        loop {
            tokio::select! {
                started = &mut started => {
                    let (identity, flow) = (entry.text.to_string(), started?.name);
                    return Ok(Started { flow_id: id, identity, flow, client_id, new: true });
                }
                waited = looking.again(&self.parts) => waited?,
            }
            if let Some(known) = self.of_client(caller, entry, client_id.as_deref()).await? {
                // It may be the one that was asked for.
                return Ok(Started { new: known.flow_id == id, ..known });
            }
        }
    }

    /// Has the host that runs the identity kill a flow. True when it has ended.
    pub(super) async fn kill_elsewhere(&self, entry: &Arc<IdentityEntry>, id: FlowId) -> ApiResult<bool> {
        commands::send(&self.parts.relay, entry, Asked::Kill(id)).await?;
        let mut looking = Looking::begin(id, "is to be killed by another host, and has not ended yet");
        while self.record(id).await?.is_some_and(|record| record.state.is_live()) {
            looking.again(&self.parts).await?;
        }
        Ok(true)
    }

    /// Has the host that runs the identity, or will, forget a flow that has ended, with its client id.
    pub(super) async fn forget_elsewhere(
        &self,
        caller: &Caller,
        entry: &Arc<IdentityEntry>,
        id: FlowId,
        client_id: &str,
    ) -> ApiResult<()> {
        let forget = AskedForget { user: caller.user.clone(), client_id: client_id.to_owned() };
        commands::send(&self.parts.relay, entry, Asked::Forget(id, forget)).await?;
        let mut looking = Looking::begin(id, "is to be forgotten by another host, and is not yet");
        while self.of_client(caller, entry, Some(client_id)).await?.is_some_and(|known| known.flow_id == id) {
            looking.again(&self.parts).await?;
        }
        Ok(())
    }

    /// The flow that a client id stands for, if there is one.
    async fn of_client(
        &self,
        caller: &Caller,
        entry: &IdentityEntry,
        client_id: Option<&str>,
    ) -> ApiResult<Option<Started>> {
        let Some(client_id) = client_id else { return Ok(None) };
        let row = self.parts.store.client(entry.row, &caller.user, client_id).await.map_err(Problem::from)?;
        let Some(row) = row else { return Ok(None) };
        let record = self.parts.store.flow(row).await.map_err(Problem::from)?;
        Ok(record.map(|record| Started {
            flow_id: record.id,
            identity: entry.text.to_string(),
            flow: record.name,
            client_id: Some(client_id.to_owned()),
            new: false,
        }))
    }
}

/// Looking into the database until what another host was asked for shows there.
struct Looking {
    id: FlowId,
    what: &'static str,
    deadline: Instant,
    pause: Duration,
}

impl Looking {
    fn begin(id: FlowId, what: &'static str) -> Looking {
        Looking { id, what, deadline: Instant::now() + PATIENCE, pause: LOOK }
    }

    /// Waits a little.
    ///
    /// # Errors
    /// It has been looked for long enough, or the host stops.
    async fn again(&mut self, parts: &Parts) -> ApiResult<()> {
        let id = self.id;
        if Instant::now() >= self.deadline {
            return Err(Problem::new(Code::Timeout, format!("flow {id} {}", self.what))
                .remedy(format!("look at it with `maxhost flow show {id}`; a start with a client id can be repeated"))
                .detail("flow_id", id.to_string()));
        }
        tokio::select! {
            () = tokio::time::sleep(self.pause) => self.pause = (self.pause * 2).min(LONGEST_LOOK),
            () = parts.stopping.cancelled() => return Err(crate::error::stopping()),
        }
        Ok(())
    }
}
