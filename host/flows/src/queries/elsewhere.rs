//! What is asked of this host for an identity that another host runs: a command goes through the identity's queue, and the
//! database tells what became of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maxhost_model::{Code, FlowId, Problem};
use maxhost_ownership::Ownedness;
use maxhost_store::DEATHS_LAST;
use tokio::time::Instant;

use crate::api::{ApiResult, Caller, Started};
use crate::base::random::new_flow_id;
use crate::delivery::envelope::{AskedForget, AskedStart};
use crate::guests::placement::FlowDef;
use crate::host::lifecycle::Host;
use crate::host::parts::Parts;
use crate::registry::entry::IdentityEntry;
use crate::relay::commands::{self, Asked, Sent};

/// How long it is waited for another host to do what it was asked for. There may be none yet: one has to be started first.
/// Clients wait for 30 s unless they are told otherwise.
const PATIENCE: Duration = Duration::from_secs(25);
/// How soon the database is asked again what became of it; the time doubles up to the longest.
const LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How long it is looked at the end why nobody may have done it.
const LAST_LOOK: Duration = Duration::from_secs(2);

impl Host {
    /// Whether another host runs an identity or has to, as far as this one knows.
    pub(super) fn runs_elsewhere(&self, entry: &IdentityEntry) -> bool {
        let ownership = &self.parts.ownership;
        let is_others =
            |key| matches!(ownership.owner_of(&key), Ownedness::Owned(owner) if *owner.host != *ownership.host());
        let Some(membership) = &self.parts.membership else { return false };
        let cannot_run = || entry.problem().is_some_and(|problem| self.is_left_to_others(&problem));
        !entry.is_held() && (membership.takes_nothing() || cannot_run() || entry.key().is_some_and(is_others))
    }

    /// Whether an identity that this host cannot run for this reason may be run by another. That too many hosts died that had it is
    /// in the database, for all of them.
    pub(super) fn is_left_to_others(&self, problem: &Problem) -> bool {
        self.parts.membership.is_some() && problem.code != Code::IdentityUnclean
    }

    /// Whether what was refused here for this reason may be done by another host: the identity is another's or there is no room
    /// for it here, or this host cannot run it.
    pub(super) fn may_be_done_elsewhere(&self, entry: &IdentityEntry, problem: &Problem) -> bool {
        if self.parts.membership.is_none() || self.parts.stopping.is_cancelled() {
            return false;
        }
        match problem.code {
            Code::IdentityDraining | Code::ClockOff => true,
            Code::IdentityQuarantined => entry.problem().is_none_or(|problem| self.is_left_to_others(&problem)),
            _ => false,
        }
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
            // By the time that the host which is asked goes by, too.
            expires: self.parts.relay.shared_millis().saturating_add(patience),
        };
        let what = "was asked for, and it is not known whether a host has started it or will";
        let mut looking = Looking::begin(entry, id, what);
        let mut sending = std::pin::pin!(commands::send(&self.parts.relay, entry, Asked::Start(id, start)));
        let mut started = std::pin::pin!(async {
            self.until_owned(entry).await;
            self.parts.asked_for.started(&self.parts.store, &self.parts.io, id).await
        });
        let mut is_sent = false;
        loop {
            tokio::select! {
                biased;
                // It may be started before the broker has confirmed the command. Then nobody needs the command any more.
                started = &mut started => {
                    let (identity, flow) = (entry.text.to_string(), started?.name);
                    return Ok(Started { flow_id: id, identity, flow, client_id, new: true });
                }
                sent = &mut sending, if !is_sent => {
                    looking.note_sent(sent?);
                    is_sent = true;
                    continue;
                }
                waited = looking.again(&self.parts) => waited?,
            }
            let known = looking.look(self.of_client(caller, entry, client_id.as_deref())).await;
            if let Some(Some(known)) = known {
                // It may be the one that was asked for.
                return Ok(Started { new: known.flow_id == id, ..known });
            }
        }
    }

    /// Waits until somebody owns the identity, as far as this host knows: before that no flow of it is there. No longer than the broker
    /// is not given a start, because what this host knows may be behind.
    async fn until_owned(&self, entry: &IdentityEntry) {
        let Some(key) = entry.key() else { return };
        // From before the look, so that what changes after it is heard.
        let mut changes = self.parts.ownership.changes();
        let owned = async {
            while matches!(self.parts.ownership.owner_of(&key), Ownedness::Free) && changes.next().await.is_some() {}
        };
        let _nobody = tokio::time::timeout(self.parts.relay.start_held, owned).await;
    }

    /// Has the host that runs the identity kill a flow. True when it has ended.
    pub(super) async fn kill_elsewhere(&self, entry: &Arc<IdentityEntry>, id: FlowId) -> ApiResult<bool> {
        let mut looking = Looking::begin(entry, id, "is to be killed by another host, and has not ended yet");
        looking.note_sent(commands::send(&self.parts.relay, entry, Asked::Kill(id)).await?);
        loop {
            let found = looking.look(self.record(id)).await;
            if found.is_some_and(|record| record.is_none_or(|record| !record.state.is_live())) {
                return Ok(true);
            }
            looking.again(&self.parts).await?;
        }
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
        let mut looking = Looking::begin(entry, id, "is to be forgotten by another host, and is not yet");
        looking.note_sent(commands::send(&self.parts.relay, entry, Asked::Forget(id, forget)).await?);
        loop {
            let found = looking.look(self.of_client(caller, entry, Some(client_id))).await;
            if found.is_some_and(|known| known.is_none_or(|known| known.flow_id != id)) {
                return Ok(());
            }
            looking.again(&self.parts).await?;
        }
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

/// Looking into the database until what another host was asked for shows there. Once it was asked, what goes wrong does not tell
/// whether it is done, so nothing but the time ends the looking.
struct Looking {
    entry: Arc<IdentityEntry>,
    id: FlowId,
    what: &'static str,
    deadline: Instant,
    pause: Duration,
    /// What went wrong last.
    trouble: Option<Problem>,
}

impl Looking {
    /// Begins before the other host is asked, so that asking and looking together last no longer than clients wait.
    fn begin(entry: &Arc<IdentityEntry>, id: FlowId, what: &'static str) -> Looking {
        let deadline = Instant::now() + PATIENCE;
        Looking { entry: entry.clone(), id, what, deadline, pause: LOOK, trouble: None }
    }

    fn note_sent(&mut self, sent: Sent) {
        match sent {
            Sent::Taken => {}
            Sent::Unknown(problem) => self.trouble = Some(problem),
        }
    }

    /// What a look finds; `None` if it cannot be had now.
    async fn look<T>(&mut self, look: impl Future<Output = ApiResult<T>>) -> Option<T> {
        match tokio::time::timeout_at(self.deadline, look).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(problem)) => {
                self.trouble = Some(problem);
                None
            }
            Err(_) => None,
        }
    }

    /// It has been looked for long enough.
    async fn over(&self, parts: &Parts) -> Problem {
        let id = self.id;
        let here =
            self.entry.problem().map(|problem| format!("; this host cannot run the identity: {}", problem.message));
        let trouble = self.trouble.as_ref().map(|problem| format!("; {}", problem.message));
        let deaths = self.deaths(parts).await.filter(|deaths| *deaths >= DEATHS_LAST);
        let unclean =
            deaths.map(|deaths| format!("; {deaths} hosts in a row died that had the identity, and none takes it"));
        let unplaced = parts.candidates.unplaced(&self.entry).map(|unplaced| format!("; {}", unplaced.reason));
        let why = [here, trouble, unclean, unplaced].into_iter().flatten().collect::<String>();
        let look = format!("look at it with `maxhost flow show {id}`; a start with a client id can be repeated");
        let remedy = match deaths {
            Some(_) => format!("{look}; hosts try the identity again after `maxhost identity retry`"),
            None => look,
        };
        Problem::new(Code::Timeout, format!("flow {id} {}{why}", self.what))
            .remedy(remedy)
            .detail("flow_id", id.to_string())
    }

    /// How many owners of the identity died while they had it; `None` if that is not known.
    async fn deaths(&self, parts: &Parts) -> Option<u32> {
        let records = tokio::time::timeout(LAST_LOOK, parts.store.identities()).await.ok()?.ok()?;
        records.iter().find(|record| record.row == self.entry.row).map(|record| record.unclean)
    }

    /// Waits a little.
    ///
    /// # Errors
    /// It has been looked for long enough, or the host stops.
    async fn again(&mut self, parts: &Parts) -> ApiResult<()> {
        if Instant::now() >= self.deadline {
            return Err(self.over(parts).await);
        }
        tokio::select! {
            () = tokio::time::sleep(self.pause) => self.pause = (self.pause * 2).min(LONGEST_LOOK),
            () = parts.stopping.cancelled() => return Err(crate::base::error::stopping()),
        }
        Ok(())
    }
}
