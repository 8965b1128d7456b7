//! What the host answers to the outside: flows. Identities and the network are in `queries/network.rs`. Each method asks
//! `api/access.rs` whether its caller may.

mod arguments;
mod attach;
mod attachment;
mod audit;
mod cluster;
mod elsewhere;
mod examine;
mod ledger;
mod naming;
mod network;
mod notary;
mod readiness;
mod show;
mod state_views;
mod track;
mod vault_query;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_model::{Code, FlowId, FlowRow, Problem};
use maxhost_store::{ClientOp, FlowFilter as StoreFilter, FlowRecord, FlowState};
use tokio::sync::oneshot;

use self::naming::can_be_client_id;
use crate::api::access::{self, Action, Subject};
use crate::api::{
    self, ApiResult, Arguments, Caller, ClusterHost, ClusterStatus, FinishedClientId, FlowDetail, FlowEvents,
    FlowFilter, FlowPage, FlowPhase, FlowSummary, FlowType, HostApi, HostStatus, IdentityView, NetworkChanges,
    NodeInfoView, ParametersView, PartyView, StartFlow, Started, Whereabouts,
};
use crate::base::error::{no_flow, quarantined, unanswered, unusable_here};
use crate::guests::placement::{CordappSet, FlowDef};
use crate::host::lifecycle::Host;
use crate::registry::entry::IdentityEntry;
use crate::registry::message::{Durable, IdentityCommand, SharedFailure, StartCommand, StartFailure, Ticket};
use crate::reporting::watchers::Watch;

/// Rows read at once for a list.
const LIST_PAGE: u32 = 500;
/// Rows read at once while many of them may not be shown.
const FILTERED_PAGE: u32 = 50;
/// Client ids read at once.
const CLIENT_PAGE: u32 = 1_000;
/// Most flows on one page.
const MAX_PAGE: u32 = 10_000;

impl Host {
    /// Whether the caller may do something with a flow that there is; of one that nobody knows he is told so.
    async fn check_flow(&self, caller: &Caller, action: Action, id: FlowId) -> ApiResult<()> {
        caller.about.flow_id(id);
        if caller.rights.are_all() {
            self.note_flow(caller, id).await;
            return Ok(());
        }
        let subject = |identity: &str, flow: &str, user: Option<&str>| {
            access::check(
                caller,
                action,
                &Subject { identity: Some(identity), flow: Some(flow), flow_id: Some(id), user },
            )
        };
        if let Some(end) = self.parts.outcomes.get(id.row()).filter(|end| end.summary.flow_id == id) {
            return subject(&end.summary.identity, &end.summary.flow, end.origin.strip_prefix("rpc:"));
        }
        let record = self.record(id).await?.ok_or_else(|| no_flow(id))?;
        let identity = self.parts.directory.name_of(record.identity).map(|name| name.to_string()).unwrap_or_default();
        subject(&identity, &record.name, record.user.as_deref())
    }

    /// Notes which flow of which identity a request is about, if there is one.
    async fn note_flow(&self, caller: &Caller, id: FlowId) {
        if let Some(end) = self.parts.outcomes.get(id.row()).filter(|end| end.summary.flow_id == id) {
            caller.about.flow(&end.summary.flow);
            caller.about.identity(&end.summary.identity);
            return;
        }
        let (owner, flow) = match self.parts.running(id) {
            Some(running) if !running.flow().is_empty() => (running.owner, running.flow().to_owned()),
            // What the database does not tell now is missing in the row of the audit trail, and nowhere else.
            _ => match self.record(id).await {
                Ok(Some(record)) => (record.identity, record.name),
                Ok(None) | Err(_) => return,
            },
        };
        caller.about.flow(&flow);
        if let Some(name) = self.parts.directory.name_of(owner) {
            caller.about.identity(&name);
        }
    }

    /// An identity that can be asked for something, here or at another host.
    fn usable(&self, caller: &Caller, name: &str) -> ApiResult<Arc<IdentityEntry>> {
        let entry = self.resolve(caller, name)?;
        self.check_usable(&entry)?;
        Ok(entry)
    }

    /// # Errors
    /// No host can run the identity.
    fn check_usable(&self, entry: &IdentityEntry) -> ApiResult<()> {
        match entry.problem() {
            Some(problem) if !self.is_left_to_others(&problem) => Err(quarantined(&entry.text, &problem)),
            _ => Ok(()),
        }
    }

    fn cordapps_of(&self, entry: &IdentityEntry) -> ApiResult<Arc<CordappSet>> {
        entry.cordapps(&self.parts.catalogue).map_err(|problem| match self.parts.membership {
            Some(_) => unusable_here(&entry.text, &problem),
            None => problem,
        })
    }

    /// A flow that this identity can start, and arguments that fit it.
    async fn startable(
        &self,
        caller: &Caller,
        entry: &IdentityEntry,
        flow: &str,
        arguments: Arguments,
    ) -> ApiResult<(Arc<FlowDef>, Bytes)> {
        self.check_usable(entry)?;
        let def = self.cordapps_of(entry)?.find(flow)?.clone();
        let subject = Subject { identity: Some(&entry.text), flow: Some(&def.name), ..Subject::default() };
        access::check(caller, Action::StartFlow, &subject)?;
        if !def.descriptor.startable {
            return Err(Problem::new(Code::FlowNotStartable, format!("flow {} cannot be started by RPC", def.name)));
        }
        let arguments = arguments::check(&def, arguments, self.parts.journal.message).await?;
        Ok((def, arguments))
    }

    /// A start that cannot be. A client id that is known answers for itself all the same: what later calls say beside
    /// it is ignored (docs/behaviour.md 6.1).
    async fn started_before(
        &self,
        caller: &Caller,
        entry: &IdentityEntry,
        client_id: Option<String>,
        problem: Problem,
    ) -> ApiResult<Started> {
        let Some(id) = &client_id else { return Err(problem) };
        let known = self.parts.store.client(entry.row, &caller.user, id).await.map_err(Problem::from)?;
        let Some(row) = known else { return Err(problem) };
        match self.parts.store.flow(row).await.map_err(Problem::from)? {
            Some(FlowRecord { id: flow_id, name: flow, .. }) => {
                Ok(Started { flow_id, identity: entry.text.to_string(), flow, client_id, new: false })
            }
            None => Err(problem),
        }
    }

    /// Starts a flow, and watches it from before its first moment on if it is new and that is wanted.
    async fn begin(&self, caller: &Caller, request: StartFlow, watched: bool) -> ApiResult<(Started, Option<Watch>)> {
        let StartFlow { identity, flow, arguments, client_id } = request;
        caller.about.identity(&identity);
        caller.about.flow(&flow);
        if let Some(id) = client_id.as_deref().filter(|id| !can_be_client_id(id)) {
            let text = format!("a client id of {} characters, or with a NUL character", id.chars().count());
            return Err(Problem::new(Code::ClientIdInvalid, text));
        }
        access::check_some(caller, Action::StartFlow)?;
        let entry = self.resolve(caller, &identity)?;
        let (def, arguments) = match self.startable(caller, &entry, &flow, arguments).await {
            Ok(startable) => startable,
            Err(problem) if problem.code == Code::PermissionDenied => return Err(problem),
            Err(problem) => {
                return Ok((self.started_before(caller, &entry, client_id, problem).await?, None));
            }
        };
        if self.parts.store.is_congested_for(entry.row) {
            return Err(Problem::new(Code::Overloaded, "more commits wait than the disk takes"));
        }
        if self.runs_elsewhere(&entry) {
            return Ok((self.start_elsewhere(caller, &entry, (&def, arguments), client_id).await?, None));
        }
        let (reply, ticket) = oneshot::channel();
        let (wanted, user) = ((def.clone(), arguments.clone()), caller.user.clone());
        let mail = StartCommand { def, arguments, client_id: client_id.clone(), user, watched, given: None, reply };
        self.parts.waking.tell(&entry, IdentityCommand::Start(Box::new(mail)));
        let mut ticket = match ticket.await.map_err(|_| unanswered(&self.parts.stopping))? {
            Ok(ticket) => ticket,
            Err(problem) if self.may_be_done_elsewhere(&entry, &problem) => {
                let (def, arguments) = wanted;
                return Ok((self.start_elsewhere(caller, &entry, (&def, arguments), client_id).await?, None));
            }
            Err(problem) => return Err(problem),
        };
        let watch = ticket.watch.take();
        let started = self.await_start(caller, &entry, ticket, client_id).await?;
        // Another flow may turn out to have the client id; that one was not watched.
        let watch = watch.filter(|_| started.new);
        Ok((started, watch))
    }

    /// Waits until a start is durable.
    async fn await_start(
        &self,
        caller: &Caller,
        entry: &IdentityEntry,
        ticket: Ticket,
        client_id: Option<String>,
    ) -> ApiResult<Started> {
        let failure = match ticket.durable {
            Durable::Once(durable) => match durable.await {
                Ok(Ok(())) => None,
                Ok(Err(StartFailure::ClientIdTaken(row))) => Some(SharedFailure::ClientIdTaken(row)),
                Ok(Err(StartFailure::Problem(problem))) => Some(SharedFailure::Problem(problem)),
                Err(_) => Some(SharedFailure::Problem(unanswered(&self.parts.stopping))),
            },
            Durable::Shared(mut durable) => {
                let result = durable.wait_for(Option::is_some).await.map(|result| result.clone());
                match result {
                    Ok(Some(Ok(()))) => None,
                    Ok(Some(Err(failure))) => Some(failure),
                    Ok(None) | Err(_) => Some(SharedFailure::Problem(unanswered(&self.parts.stopping))),
                }
            }
        };
        let (flow_id, flow, new, user) = match failure {
            None => (ticket.flow_id, ticket.flow.to_string(), ticket.new, ticket.user),
            Some(SharedFailure::Problem(problem)) => return Err(problem),
            Some(SharedFailure::ClientIdTaken(row)) => {
                let record = self.parts.store.flow(row).await.map_err(Problem::from)?;
                let record = record.ok_or_else(|| {
                    Problem::new(Code::Overloaded, "the client id was removed while it was asked for: try again")
                })?;
                (record.id, record.name, false, record.user.unwrap_or_default())
            }
        };
        if user != caller.user {
            return Err(foreign(&client_id.unwrap_or_default()));
        }
        Ok(Started { flow_id, identity: entry.text.to_string(), flow, client_id, new })
    }

    /// The record of a flow that the database knows under this id.
    async fn record(&self, id: FlowId) -> ApiResult<Option<FlowRecord>> {
        let record = self.parts.store.flow(id.row()).await.map_err(Problem::from)?;
        Ok(record.filter(|record| record.id == id))
    }

    async fn list(&self, caller: &Caller, filter: FlowFilter) -> ApiResult<FlowPage> {
        access::check_some(caller, Action::ListFlows)?;
        let may_see = |summary: &FlowSummary, user: Option<&str>| {
            let (identity, flow) = (Some(summary.identity.as_str()), Some(summary.flow.as_str()));
            let subject = Subject { identity, flow, flow_id: Some(summary.flow_id), user };
            caller.rights.are_all() || caller.rights.allow(&caller.user, Action::ListFlows, &subject)
        };
        let identity = filter.identity.as_deref().map(|name| self.resolve(caller, name)).transpose()?;
        let limit = match filter.limit {
            0 => 100,
            limit => limit.min(MAX_PAGE),
        } as usize;
        let mut before = match &filter.page_token {
            None => None,
            Some(token) => {
                let row = token.parse().map_err(|_| {
                    Problem::new(Code::RequestInvalid, format!("page_token: '{token}' was not sent by this server"))
                })?;
                Some(FlowRow(row))
            }
        };
        // Responders that ended well are remembered in memory only.
        let remembered = self.parts.outcomes.newest(usize::MAX).into_iter();
        let mut remembered: Vec<_> = remembered
            .filter(|detail| detail.origin.starts_with("peer:") && detail.summary.phase == FlowPhase::Completed)
            .filter(|detail| before.is_none_or(|before| detail.summary.flow_id.row() < before))
            .filter(|detail| may_see(&detail.summary, None))
            .map(|detail| detail.summary.clone())
            .filter(|summary| identity.as_ref().is_none_or(|entry| *entry.text == *summary.identity))
            .collect();
        remembered.sort_by_key(|summary| std::cmp::Reverse(summary.flow_id.row()));
        let mut remembered = remembered.into_iter().peekable();
        let fits = |summary: &FlowSummary| {
            (filter.phases.is_empty() || filter.phases.contains(&summary.phase))
                && filter.flow.as_ref().is_none_or(|part| summary.flow.contains(part.as_str()))
        };
        let mut flows = Vec::new();
        // No more rows than will be shown, where all are: each may be large.
        let all_fit = filter.flow.is_none() && caller.rights.are_all();
        let rows = u32::try_from(limit + 1).unwrap_or(LIST_PAGE).min(if all_fit { LIST_PAGE } else { FILTERED_PAGE });
        loop {
            let page = StoreFilter {
                identity: identity.as_ref().map(|entry| entry.row),
                states: states_of(&filter.phases),
                name: None,
                before,
                limit: rows,
                ..StoreFilter::default()
            };
            let records = self.parts.store.list_flows(&page).await.map_err(Problem::from)?;
            let last = records.len() < rows as usize;
            for record in records {
                before = Some(record.row);
                while let Some(summary) = remembered.next_if(|summary| summary.flow_id.row() > record.row) {
                    flows.extend(Some(summary).filter(&fits));
                }
                let summary = self.parts.summary(&record);
                flows.extend(Some(summary).filter(&fits).filter(|summary| may_see(summary, record.user.as_deref())));
            }
            if last {
                flows.extend(remembered.by_ref().filter(&fits));
            }
            if last || flows.len() > limit {
                break;
            }
        }
        let more = flows.len() > limit;
        flows.truncate(limit);
        flows.iter_mut().for_each(shorten);
        let next_page_token = flows.last().filter(|_| more).map(|flow| flow.flow_id.row().0.to_string());
        Ok(FlowPage { flows, next_page_token })
    }
}

/// In a list an error is told in brief; `flow show` has all of it.
fn shorten(summary: &mut FlowSummary) {
    if let Some(api::FlowResult::Error(error)) = &mut summary.result {
        *error = std::mem::replace(error, maxhost_model::FlowError::new(error.kind, "")).brief();
    }
}

fn states_of(phases: &[FlowPhase]) -> Vec<FlowState> {
    let mut states: Vec<FlowState> = phases
        .iter()
        .map(|phase| match phase {
            FlowPhase::Running | FlowPhase::Suspended => FlowState::Live,
            FlowPhase::Paused => FlowState::Paused,
            FlowPhase::Hospital => FlowState::Hospital,
            FlowPhase::Completed => FlowState::Completed,
            FlowPhase::Failed => FlowState::Failed,
            FlowPhase::Killed => FlowState::Killed,
        })
        .collect();
    states.dedup();
    states
}

#[async_trait]
impl HostApi for Host {
    async fn start_flow(&self, caller: &Caller, request: StartFlow) -> ApiResult<Started> {
        let (started, _) = self.begin(caller, request, false).await?;
        caller.about.flow_id(started.flow_id);
        Ok(started)
    }

    async fn start_and_attach(
        &self,
        caller: &Caller,
        request: StartFlow,
    ) -> ApiResult<(Started, ApiResult<FlowEvents>)> {
        let (started, watch) = self.begin(caller, request, true).await?;
        caller.about.flow_id(started.flow_id);
        // The flow is durable already: that its events cannot be had is no failure of its start.
        let events = match watch {
            Some(watch) => Ok(self.follow_new(started.flow_id, watch)),
            None => self.attach_to(started.flow_id, 0).await,
        };
        Ok((started, events))
    }

    async fn attach(&self, caller: &Caller, flow: FlowId, cursor: u64) -> ApiResult<FlowEvents> {
        self.check_flow(caller, Action::Attach, flow).await?;
        self.attach_to(flow, cursor).await
    }

    async fn find_client_id(&self, caller: &Caller, identity: &str, client_id: &str) -> ApiResult<FlowId> {
        let entry = self.resolve(caller, identity)?;
        let unknown = || {
            let text = format!("identity {} has no flow with client id '{client_id}'", entry.text);
            Problem::new(Code::ClientIdNotFound, text)
        };
        if !can_be_client_id(client_id) {
            return Err(unknown());
        }
        let found = self.parts.store.client(entry.row, &caller.user, client_id).await.map_err(Problem::from)?;
        let row = found.ok_or_else(unknown)?;
        let record = self.parts.store.flow(row).await.map_err(Problem::from)?;
        record.map(|record| record.id).ok_or_else(unknown)
    }

    async fn flow(&self, caller: &Caller, flow: FlowId) -> ApiResult<FlowDetail> {
        self.check_flow(caller, Action::GetFlow, flow).await?;
        self.detail(flow).await
    }

    async fn list_flows(&self, caller: &Caller, filter: FlowFilter) -> ApiResult<FlowPage> {
        self.list(caller, filter).await
    }

    async fn kill_flow(&self, caller: &Caller, flow: FlowId) -> ApiResult<bool> {
        self.check_flow(caller, Action::KillFlow, flow).await?;
        // A flow whose first commit is on its way is not in the database yet: looked for in memory first, so that it is
        // found in one of the two.
        let running = self.parts.running(flow);
        let owner = match (self.record(flow).await?, running) {
            (Some(record), _) if record.state.is_live() => record.identity,
            (Some(_), _) => return Ok(false),
            (None, Some(running)) => running.owner,
            // A responder that ended well has no row any more.
            (None, None) if self.parts.outcomes.get(flow.row()).is_some_and(|end| end.summary.flow_id == flow) => {
                return Ok(false);
            }
            (None, None) => return Err(no_flow(flow)),
        };
        let Some(entry) = self.parts.directory.by_row(owner) else {
            return Err(Problem::new(Code::IdentityNotFound, "the flow's identity is not hosted here"));
        };
        if self.runs_elsewhere(&entry) {
            return self.kill_elsewhere(&entry, flow).await;
        }
        // Its identity knows it from before its first commit on, and answers when it has ended.
        let (reply, killed) = oneshot::channel();
        self.parts.waking.tell(&entry, IdentityCommand::Kill { row: flow.row(), reply });
        match killed.await.map_err(|_| unanswered(&self.parts.stopping))? {
            Err(problem) if self.may_be_done_elsewhere(&entry, &problem) => self.kill_elsewhere(&entry, flow).await,
            answer => answer,
        }
    }

    async fn remove_client_id(&self, caller: &Caller, identity: Option<&str>, client_id: &str) -> ApiResult<bool> {
        access::check_some(caller, Action::RemoveClientId)?;
        let Some((entry, row)) = self.only_use(caller, identity, client_id).await? else { return Ok(false) };
        let record = self.parts.store.flow(row).await.map_err(Problem::from)?;
        if let Some(record) = &record {
            let (identity, flow) = (Some(&*entry.text), Some(record.name.as_str()));
            let subject = Subject { identity, flow, flow_id: Some(record.id), user: Some(&caller.user) };
            access::check(caller, Action::RemoveClientId, &subject)?;
        }
        if record.as_ref().is_some_and(|record| record.state.is_live()) {
            let text = format!("the flow of client id '{client_id}' has not ended");
            return Err(Problem::new(Code::ClientIdRunning, text).detail("client_id", client_id));
        }
        // Only the host that holds the identity can write for it, and it may lose it at any moment.
        let is_here = self.parts.membership.is_none() || entry.is_held() || record.is_none();
        let forgotten = match is_here {
            true => {
                let remove = ClientOp::Remove { user: caller.user.clone(), client_id: client_id.to_owned() };
                let removed = self.parts.store.commit(entry.author(), vec![remove.into()]).await;
                removed.map(drop).map_err(Problem::from)
            }
            false => Err(not_held(&entry.text)),
        };
        match (forgotten, record) {
            (Err(problem), Some(record)) if self.may_be_done_elsewhere(&entry, &problem) => {
                self.forget_elsewhere(caller, &entry, record.id, client_id).await?;
            }
            (forgotten, _) => forgotten?,
        }
        self.parts.outcomes.forget(row);
        Ok(true)
    }

    async fn finished_client_ids(&self, caller: &Caller, identity: Option<&str>) -> ApiResult<Vec<FinishedClientId>> {
        access::check_some(caller, Action::FinishedClientIds)?;
        let mut finished = Vec::new();
        for entry in self.entries(caller, identity)? {
            let mut after = String::new();
            loop {
                let page = self.parts.store.clients(entry.row, &caller.user, &after, CLIENT_PAGE);
                let page = page.await.map_err(Problem::from)?;
                let is_last = page.len() < CLIENT_PAGE as usize;
                if let Some(last) = page.last() {
                    after.clone_from(&last.client_id);
                }
                let ended = page.into_iter().filter(|client| !client.state.is_live());
                finished.extend(ended.map(|client| FinishedClientId {
                    identity: entry.text.to_string(),
                    client_id: client.client_id,
                    flow_id: client.id,
                    succeeded: client.state == FlowState::Completed,
                }));
                if is_last {
                    break;
                }
            }
        }
        finished.sort_by(|a, b| (&a.identity, &a.client_id).cmp(&(&b.identity, &b.client_id)));
        Ok(finished)
    }

    async fn flow_types(&self, caller: &Caller, identity: &str) -> ApiResult<Vec<FlowType>> {
        access::check_some(caller, Action::RegisteredFlows)?;
        let entry = self.usable(caller, identity)?;
        let mut types: Vec<FlowType> =
            self.cordapps_of(&entry)?.flows.values().map(|flow| FlowType::from(&**flow)).collect();
        types.retain(|flow| {
            let subject = Subject { identity: Some(&entry.text), flow: Some(&flow.name), ..Subject::default() };
            caller.rights.allow(&caller.user, Action::RegisteredFlows, &subject)
        });
        types.sort_by(|a, b| (!a.startable, &a.name).cmp(&(!b.startable, &b.name)));
        Ok(types)
    }

    async fn identities(&self, caller: &Caller, filter: Option<&str>) -> ApiResult<Vec<IdentityView>> {
        access::check(caller, Action::ListIdentities, &Subject::default())?;
        let mut views = self.identity_views(filter).await?;
        views.retain(|view| caller.rights.see(&view.name));
        Ok(views)
    }

    async fn identity(&self, caller: &Caller, name: &str) -> ApiResult<IdentityView> {
        access::check(caller, Action::GetIdentity, &Subject::default())?;
        caller.about.identity(name);
        if caller.rights.are_all() {
            return self.one_identity(name).await.inspect(|identity| caller.about.identity(&identity.name));
        }
        let entry = self.resolve(caller, name)?;
        self.one_identity(&entry.text).await
    }

    async fn parties(&self, caller: &Caller, query: Option<&str>, exact: bool) -> ApiResult<Vec<PartyView>> {
        access::check(caller, Action::Parties, &Subject::default())?;
        self.party_views(query, exact).await
    }

    async fn network_feed(&self, caller: &Caller) -> ApiResult<(Vec<PartyView>, NetworkChanges)> {
        access::check(caller, Action::NetworkMapFeed, &Subject::default())?;
        self.feed().await
    }

    async fn node_info(&self, caller: &Caller, party: &str) -> ApiResult<NodeInfoView> {
        caller.about.detail(party);
        access::check(caller, Action::NodeInfo, &Subject::default())?;
        self.node_info_view(party)
    }

    async fn network_parameters(&self, caller: &Caller) -> ApiResult<ParametersView> {
        access::check(caller, Action::NetworkParameters, &Subject::default())?;
        Ok(self.parameters_view())
    }

    async fn status(&self, caller: &Caller) -> ApiResult<HostStatus> {
        access::check(caller, Action::Status, &Subject::default())?;
        self.host_status().await
    }

    async fn hosts(&self, caller: &Caller) -> ApiResult<Vec<ClusterHost>> {
        access::check(caller, Action::ListHosts, &Subject::default())?;
        self.cluster_hosts().await
    }

    async fn set_draining(&self, caller: &Caller, host: &str, draining: bool) -> ApiResult<ClusterHost> {
        caller.about.detail(format!("{host}: {}", if draining { "drain" } else { "undrain" }));
        access::check(caller, Action::SetDraining, &Subject::default())?;
        self.ask_to_drain(host, draining).await
    }

    async fn move_identity(&self, caller: &Caller, identity: &str, host: &str) -> ApiResult<Whereabouts> {
        caller.about.identity(identity);
        caller.about.detail(host);
        access::check(caller, Action::MoveIdentity, &Subject::default())?;
        let entry = self.usable(caller, identity)?;
        self.hand_to(&entry, host).await
    }

    async fn whereabouts(&self, caller: &Caller, filter: Option<&str>) -> ApiResult<Vec<Whereabouts>> {
        access::check(caller, Action::FindIdentities, &Subject::default())?;
        let mut found = match filter {
            Some(name) => vec![self.whereabouts_of(&*self.resolve(caller, name)?)],
            None => self.all_whereabouts(),
        };
        found.retain(|found| caller.rights.see(&found.identity));
        Ok(found)
    }

    async fn demand(&self, caller: &Caller) -> ApiResult<u64> {
        access::check(caller, Action::ClusterStatus, &Subject::default())?;
        if self.parts.membership.is_none() {
            let text = "this host is alone: there is no demand for others";
            return Err(Problem::new(Code::RequestInvalid, text)
                .remedy("ask a host that shares its identities with others: docs/operating.md"));
        }
        self.slots_in_demand().await
    }

    async fn cluster_status(&self, caller: &Caller) -> ApiResult<ClusterStatus> {
        access::check(caller, Action::ClusterStatus, &Subject::default())?;
        self.cluster_at_a_glance().await
    }
}

fn not_held(identity: &str) -> Problem {
    Problem::new(Code::IdentityDraining, format!("identity {identity} is not held by this host"))
}

fn foreign(client_id: &str) -> Problem {
    Problem::new(Code::ClientIdForeign, format!("client id '{client_id}' belongs to another user"))
}

/// The problem of a flow that nobody knows.
pub(crate) fn unknown_flow<T>(id: FlowId) -> ApiResult<T> {
    Err(no_flow(id))
}
