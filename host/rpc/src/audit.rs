//! What the audit trail is told of each call: this layer lies around login and all services, so that none is left out.
//!
//! The services know nothing of it. Who called and what it was about is found in the [`Caller`] that the login put among the
//! request's extensions; how it ended stands in the headers of the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use maxhost_flows::api::audit::AuditEntry;
use maxhost_flows::api::{Caller, HostApi};
use maxhost_flows::{Action, Facts};
use maxhost_model::{Class, Code};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::budget::IMPORT;
use crate::status::to_problem;

/// Who calls without showing who he is. No user can be called so.
const NOBODY: &str = "(nobody)";
/// The action of a login for something that is no method of the API.
const LOGIN: &str = "Login";
/// The code of a call that the caller gave up before it was answered.
const CANCELLED: &str = "cancelled";

/// The methods of the API, and the permission that each needs.
pub(crate) const METHODS: &[(&str, Action)] = &[
    ("/maxhost.v1.FlowService/StartFlow", Action::StartFlow),
    ("/maxhost.v1.FlowService/StartAndAttach", Action::StartFlow),
    ("/maxhost.v1.FlowService/Attach", Action::Attach),
    ("/maxhost.v1.FlowService/GetFlow", Action::GetFlow),
    ("/maxhost.v1.FlowService/ListFlows", Action::ListFlows),
    ("/maxhost.v1.FlowService/KillFlow", Action::KillFlow),
    ("/maxhost.v1.FlowService/RemoveClientId", Action::RemoveClientId),
    ("/maxhost.v1.FlowService/FinishedClientIds", Action::FinishedClientIds),
    ("/maxhost.v1.FlowService/RegisteredFlows", Action::RegisteredFlows),
    ("/maxhost.v1.NetworkService/Parties", Action::Parties),
    ("/maxhost.v1.NetworkService/NodeInfo", Action::NodeInfo),
    ("/maxhost.v1.NetworkService/NetworkParameters", Action::NetworkParameters),
    ("/maxhost.v1.NetworkService/NetworkMapFeed", Action::NetworkMapFeed),
    ("/maxhost.v1.HostService/Status", Action::Status),
    ("/maxhost.v1.HostService/ListIdentities", Action::ListIdentities),
    ("/maxhost.v1.HostService/GetIdentity", Action::GetIdentity),
    ("/maxhost.v1.HostService/ListHosts", Action::ListHosts),
    ("/maxhost.v1.HostService/SetDraining", Action::SetDraining),
    ("/maxhost.v1.HostService/MoveIdentity", Action::MoveIdentity),
    ("/maxhost.v1.HostService/FindIdentities", Action::FindIdentities),
    ("/maxhost.v1.HostService/ClusterStatus", Action::ClusterStatus),
    ("/maxhost.v1.HostService/ListAudit", Action::ListAudit),
    ("/maxhost.v1.VaultService/Query", Action::QueryVault),
    ("/maxhost.v1.VaultService/Count", Action::QueryVault),
    ("/maxhost.v1.VaultService/Sum", Action::QueryVault),
    ("/maxhost.v1.VaultService/Track", Action::QueryVault),
    ("/maxhost.v1.VaultService/Locks", Action::QueryVault),
    ("/maxhost.v1.LedgerService/GetTransaction", Action::ReadLedger),
    ("/maxhost.v1.LedgerService/ListTransactions", Action::ReadLedger),
    ("/maxhost.v1.LedgerService/Examine", Action::ReadLedger),
    ("/maxhost.v1.LedgerService/Graph", Action::ReadLedger),
    ("/maxhost.v1.NotaryService/Status", Action::ReadLedger),
    ("/maxhost.v1.NotaryService/ListRequests", Action::ReadLedger),
    ("/maxhost.v1.NotaryService/GetRequest", Action::ReadLedger),
    ("/maxhost.v1.NotaryService/Consumption", Action::ReadLedger),
    ("/maxhost.v1.AttachmentService/ListAttachments", Action::ReadAttachments),
    ("/maxhost.v1.AttachmentService/GetAttachment", Action::ReadAttachments),
    ("/maxhost.v1.AttachmentService/ExportAttachment", Action::ReadAttachments),
    (IMPORT, Action::ImportAttachment),
    ("/externalscaler.ExternalScaler/IsActive", Action::ClusterStatus),
    ("/externalscaler.ExternalScaler/StreamIsActive", Action::ClusterStatus),
    ("/externalscaler.ExternalScaler/GetMetricSpec", Action::ClusterStatus),
    ("/externalscaler.ExternalScaler/GetMetrics", Action::ClusterStatus),
];

/// Who a request is of, as far as the login has found out. It is among the request's extensions.
#[derive(Default)]
pub(crate) struct Whose(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Whom the request names.
    named: Option<String>,
    /// The id of the token that it shows.
    token: Option<String>,
    /// Who it is.
    caller: Option<Caller>,
}

impl Whose {
    /// The request names this user; whether it is of him is not known.
    pub(crate) fn is_named(&self, user: &str) {
        self.0.lock().named = Some(user.to_owned());
    }

    /// The request shows the token with this id; whether the rest of it is right is not known.
    pub(crate) fn shows_token(&self, id: &str) {
        self.0.lock().token = Some(id.to_owned());
    }

    /// The request is of this caller.
    pub(crate) fn is_of(&self, caller: &Caller) {
        self.0.lock().caller = Some(caller.clone());
    }
}

/// Has each call noted in the audit trail.
#[derive(Clone)]
pub(crate) struct AuditLayer(pub(crate) Arc<dyn HostApi>);

impl<S> Layer<S> for AuditLayer {
    type Service = AuditService<S>;

    fn layer(&self, inner: S) -> AuditService<S> {
        AuditService { api: Arc::clone(&self.0), inner }
    }
}

/// See [`AuditLayer`].
#[derive(Clone)]
pub(crate) struct AuditService<S> {
    api: Arc<dyn HostApi>,
    inner: S,
}

/// A call that is under way, by gRPC or by message. However it ends, it is noted.
pub(crate) struct Open {
    api: Arc<dyn HostApi>,
    at_ms: i64,
    /// `None`: it is for no method of the API.
    action: Option<Action>,
    whose: Arc<Whose>,
    /// The code with which it was answered; the outer one is `None` while it is not answered.
    answered: Option<Option<Code>>,
    /// Whether something is changed by it, if the action is one that changes something.
    changes: bool,
}

impl Open {
    /// A call that begins now.
    pub(crate) fn begin(api: &Arc<dyn HostApi>, action: Option<Action>) -> Open {
        let whose = Arc::<Whose>::default();
        Open { api: Arc::clone(api), at_ms: now_ms(), action, whose, answered: None, changes: true }
    }

    /// What is asked for.
    pub(crate) fn is_for(&mut self, action: Action) {
        self.action = Some(action);
    }

    /// Whose it is.
    pub(crate) fn whose(&self) -> &Whose {
        &self.whose
    }

    /// It was a repetition, and has changed nothing.
    pub(crate) fn changes_nothing(&mut self) {
        self.changes = false;
    }

    /// It was answered, with this code if it failed.
    pub(crate) fn end(mut self, code: Option<Code>) {
        self.answered = Some(code);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Known { named, token, caller } = std::mem::take(&mut *self.whose.0.lock());
        let code = self.answered.flatten();
        let is_login = code.is_some_and(is_of_a_login) && (named.is_some() || token.is_some());
        // Of probes and what is no method only wrong logins are of interest.
        if self.action.is_none() && !is_login {
            return;
        }
        let about = caller.as_ref().map(|caller| caller.about.facts()).unwrap_or_default();
        let facts = Facts { token, ..about };
        let sees_all = caller.as_ref().is_some_and(|caller| caller.rights.are_all());
        let user = caller.map(|caller| caller.user).or(named).unwrap_or_else(|| NOBODY.to_owned());
        self.api.note(AuditEntry {
            at_ms: self.at_ms,
            user,
            action: self.action.map_or(LOGIN, Action::as_str),
            facts,
            allowed: !code.is_some_and(|code| is_refusal(code, sees_all)),
            code: match self.answered {
                Some(code) => code.map(|code| code.to_string()),
                None => Some(CANCELLED.to_owned()),
            },
            changes: self.changes && self.action.is_some_and(Action::changes),
        });
    }
}

/// Whether a code says that the caller may not do so. To a user who does not see everything, what is not his does not exist.
fn is_refusal(code: Code, sees_all: bool) -> bool {
    match code {
        Code::PermissionDenied | Code::ClientIdForeign => true,
        code if is_of_a_login(code) => true,
        code => !sees_all && code.class() == Class::NotFound,
    }
}

/// Whether a code says that a login was refused.
fn is_of_a_login(code: Code) -> bool {
    use Code::{LoginDelayed, TokenExpired, TokenRevoked, TokenUnknown, Unauthenticated};
    matches!(code, Unauthenticated | LoginDelayed | TokenUnknown | TokenExpired | TokenRevoked)
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for AuditService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let action = METHODS.iter().find(|(method, _)| *method == path).map(|(_, action)| *action);
        let open = Open::begin(&self.api, action);
        request.extensions_mut().insert(Arc::clone(&open.whose));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            open.end(answer.as_ref().ok().and_then(code_of));
            answer
        })
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The code of an answer that is a failure from its beginning: then its status is among the headers.
fn code_of(response: &http::Response<Body>) -> Option<Code> {
    let status = Status::from_header_map(response.headers())?;
    (status.code() != tonic::Code::Ok).then(|| to_problem(&status).code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use prost::Message;

    use super::*;
    use crate::proto::FILE_DESCRIPTOR_SET;

    #[test]
    fn every_method_of_the_api_is_known_here() {
        let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let mut methods = BTreeSet::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let known: BTreeSet<String> = METHODS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(known, methods);
        assert_eq!(known.len(), METHODS.len(), "none is there twice");
    }
}
