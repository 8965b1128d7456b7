//! Who may do what: the one place that every method of the host's API asks before it answers.
//!
//! A permission is `ACTION`, or `ACTION.cordapp/flow` for the actions that are about flows; `*` stands for any text in the
//! names, `*` or `ALL` alone for every action. Words for actions are those of the gRPC methods, in any case of letters.
//! Whoever may start a flow may also follow, show, list and kill what he started himself, and forget its client id.
//! A user has identities, too: what belongs to another identity does not exist for him.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use maxhost_model::{Code, FlowId, Problem, X500Name};
use parking_lot::Mutex;

/// Who asks, and what he may.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name of the user.
    pub user: String,
    /// What he may do.
    pub rights: Arc<Rights>,
    /// What his request turned out to be about, for the audit trail. Clones share it.
    pub about: Arc<About>,
}

/// What one request is about, as it is found out while it is answered.
#[derive(Debug, Default)]
pub struct About(Mutex<Facts>);

/// What a request was about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The identity: its full name, or as it was asked for.
    pub identity: Option<String>,
    /// The flow, `cordapp/flow`, or as it was asked for.
    pub flow: Option<String>,
    /// The flow's id.
    pub flow_id: Option<FlowId>,
    /// What else: a host, a party, a transaction.
    pub detail: Option<String>,
    /// The id of the token with which he has logged in.
    pub token: Option<String>,
}

impl About {
    /// What is known so far.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.0.lock().clone()
    }

    /// Notes the identity.
    pub fn identity(&self, name: &str) {
        self.0.lock().identity = Some(name.to_owned());
    }

    /// Notes the flow's name.
    pub fn flow(&self, name: &str) {
        self.0.lock().flow = Some(name.to_owned());
    }

    /// Notes the flow's id.
    pub fn flow_id(&self, id: FlowId) {
        self.0.lock().flow_id = Some(id);
    }

    /// Notes what else it is about.
    pub fn detail(&self, text: impl Into<String>) {
        self.0.lock().detail = Some(text.into());
    }

    fn subject(&self, subject: &Subject<'_>) {
        let mut facts = self.0.lock();
        if let Some(identity) = subject.identity {
            facts.identity = Some(identity.to_owned());
        }
        if let Some(flow) = subject.flow {
            facts.flow = Some(flow.to_owned());
        }
        facts.flow_id = subject.flow_id.or(facts.flow_id);
    }
}

impl Caller {
    /// This user, with a new request.
    #[must_use]
    pub fn new(user: String, rights: Arc<Rights>) -> Caller {
        Caller { user, rights, about: Arc::default() }
    }

    /// Whoever can reach the loopback port of a host without users. He may do everything.
    #[must_use]
    pub fn local() -> Caller {
        static ALL: LazyLock<Arc<Rights>> = LazyLock::new(|| Arc::new(Rights::all()));
        Caller::new("local".to_owned(), Arc::clone(&ALL))
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident, $of_flows:literal;)*) => {
        /// What is asked for: one word for each kind of request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $action,)* }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Action] = &[$(Action::$action),*];

            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Action::$action => stringify!($action),)* }
            }

            /// Whether it is about a flow, so that a permission may name which.
            #[must_use]
            pub fn is_about_flows(self) -> bool {
                match self { $(Action::$action => $of_flows,)* }
            }
        }
    };
}

actions! {
    /// Start a flow.
    StartFlow, true;
    /// Follow a flow's events.
    Attach, true;
    /// See everything about a flow.
    GetFlow, true;
    /// List flows.
    ListFlows, true;
    /// End a flow.
    KillFlow, true;
    /// Forget a finished flow with its client id.
    RemoveClientId, true;
    /// List one's finished flows that have client ids.
    FinishedClientIds, true;
    /// List what an identity can run.
    RegisteredFlows, true;
    /// List the identities.
    ListIdentities, false;
    /// See one identity.
    GetIdentity, false;
    /// List the parties of the network.
    Parties, false;
    /// See what a party published about its node.
    NodeInfo, false;
    /// See the network parameters.
    NetworkParameters, false;
    /// Follow the network map.
    NetworkMapFeed, false;
    /// See the states of a vault, and who holds them.
    QueryVault, false;
    /// See transactions, and what a notary has done.
    ReadLedger, false;
    /// See the attachments of an identity, and read them.
    ReadAttachments, false;
    /// Have a file kept for an identity, so that its flows can attach it.
    ImportAttachment, false;
    /// See the host at a glance.
    Status, false;
    /// List the hosts of the cluster.
    ListHosts, false;
    /// Have a host of the cluster give up what it runs, or take identities again.
    SetDraining, false;
    /// Have an identity handed over to another host of the cluster.
    MoveIdentity, false;
    /// See which hosts run identities.
    FindIdentities, false;
    /// See the cluster at a glance.
    ClusterStatus, false;
    /// See who did what, or was refused it.
    ListAudit, false;
}

impl Action {
    /// Whether it changes something.
    #[must_use]
    pub fn changes(self) -> bool {
        use Action::{ImportAttachment, KillFlow, MoveIdentity, RemoveClientId, SetDraining, StartFlow};
        matches!(self, StartFlow | KillFlow | RemoveClientId | SetDraining | MoveIdentity | ImportAttachment)
    }

    /// Whoever may start a flow may do this with the flows of that kind that he started.
    fn comes_with_starting(self) -> bool {
        use Action::{Attach, FinishedClientIds, GetFlow, KillFlow, ListFlows, RegisteredFlows, RemoveClientId};
        matches!(self, Attach | GetFlow | ListFlows | KillFlow | RemoveClientId | FinishedClientIds | RegisteredFlows)
    }
}

/// A text in which `*` stands for any text, also none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pattern(String);

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

/// One thing that a user may do. Written and read as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permission {
    /// `None`: every action.
    action: Option<Action>,
    /// `None`: every flow, and what is not about flows.
    flow: Option<Pattern>,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.map_or("*", Action::as_str))?;
        match &self.flow {
            Some(flow) => write!(f, ".{}", flow.0),
            None => Ok(()),
        }
    }
}

impl FromStr for Permission {
    type Err = String;

    /// Says what is wrong with a text that is no permission.
    fn from_str(text: &str) -> Result<Permission, String> {
        let (word, flow) = match text.split_once('.') {
            Some((word, flow)) => (word, Some(flow)),
            None => (text, None),
        };
        let action = match word {
            "*" => None,
            word if word.eq_ignore_ascii_case("all") => None,
            word => {
                Some(Action::ALL.iter().copied().find(|action| action.as_str().eq_ignore_ascii_case(word)).ok_or_else(
                    || {
                        let known: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
                        format!("'{text}' is no permission: '{word}' is none of {}", known.join(", "))
                    },
                )?)
            }
        };
        let Some(flow) = flow else { return Ok(Permission { action, flow: None }) };
        if action.is_some_and(|action| !action.is_about_flows()) {
            return Err(format!("'{text}' is no permission: {word} is not about flows, so that none can be named"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '/');
        let parts = flow.split('/').count();
        if !(flow == "*" || parts == 2 && flow.split('/').all(|part| !part.is_empty())) || !flow.chars().all(fits) {
            return Err(format!("'{text}' is no permission: write {word}.cordapp/flow, with * for any text"));
        }
        Ok(Permission { action, flow: Some(Pattern(flow.to_owned())) })
    }
}

impl Permission {
    fn covers(&self, action: Action, flow: Option<&str>) -> bool {
        let fits = match (&self.flow, flow) {
            (None, _) => true,
            (Some(pattern), Some(flow)) => pattern.matches(flow),
            (Some(_), None) => false,
        };
        self.action.is_none_or(|allowed| allowed == action) && fits
    }
}

/// What a user may do, and with which identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rights {
    permissions: Vec<Permission>,
    /// Canonical names, or patterns of them; `None`: all.
    identities: Option<Vec<Pattern>>,
    /// What these must not exceed.
    within: Option<Arc<Rights>>,
}

impl Rights {
    /// The rights of a caller who may do everything.
    #[must_use]
    pub fn all() -> Rights {
        Rights { permissions: vec![Permission { action: None, flow: None }], identities: None, within: None }
    }

    /// These permissions with these identities: X.500 names, or patterns of them with `*`.
    #[must_use]
    pub fn new(permissions: Vec<Permission>, identities: &[String]) -> Rights {
        let pattern = |name: &String| {
            Pattern(X500Name::parse(name).map_or_else(|_| name.clone(), |canonical| canonical.to_string()))
        };
        let all = identities.iter().any(|name| name == "*");
        Rights { permissions, identities: (!all).then(|| identities.iter().map(pattern).collect()), within: None }
    }

    /// Those of these rights that others have as well.
    #[must_use]
    pub fn within(self, others: Arc<Rights>) -> Rights {
        Rights { within: Some(others), ..self }
    }

    /// Whether these rights, and those that they must not exceed, are all so.
    fn all_are(&self, so: impl Fn(&Rights) -> bool) -> bool {
        let mut next = Some(self);
        while let Some(rights) = next {
            if !so(rights) {
                return false;
            }
            next = rights.within.as_deref();
        }
        true
    }

    /// Whether there is nothing that is refused.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.all_are(|r| r.identities.is_none() && r.permissions.iter().any(|p| p.action.is_none() && p.flow.is_none()))
    }

    /// Whether every identity exists for the user.
    #[must_use]
    pub fn see_all(&self) -> bool {
        self.all_are(|rights| rights.identities.is_none())
    }

    /// Whether an identity exists for the user.
    #[must_use]
    pub fn see(&self, identity: &str) -> bool {
        let sees = |known: &Vec<Pattern>| known.iter().any(|pattern| pattern.matches(identity));
        self.all_are(|rights| rights.identities.as_ref().is_none_or(sees))
    }

    /// Whether some flow could be named with which this is allowed.
    fn allow_some(&self, action: Action) -> bool {
        let allows =
            |allowed: Action| allowed == action || allowed == Action::StartFlow && action.comes_with_starting();
        self.all_are(|rights| rights.permissions.iter().any(|permission| permission.action.is_none_or(allows)))
    }

    /// Whether this is allowed with what it is about. `user` is who asks.
    #[must_use]
    pub fn allow(&self, user: &str, action: Action, subject: &Subject<'_>) -> bool {
        if subject.identity.is_some_and(|identity| !self.see(identity)) {
            return false;
        }
        let own = subject.user == Some(user) || action == Action::RegisteredFlows;
        let comes_with_starting = own && subject.flow.is_some() && action.comes_with_starting();
        self.all_are(|rights| {
            let may = |action| rights.permissions.iter().any(|permission| permission.covers(action, subject.flow));
            may(action) || comes_with_starting && may(Action::StartFlow)
        })
    }
}

/// What a request is about, as far as it is about something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// Canonical name of the identity.
    pub identity: Option<&'a str>,
    /// The flow's full name, `cordapp/flow`.
    pub flow: Option<&'a str>,
    /// The flow itself.
    pub flow_id: Option<FlowId>,
    /// Who started it.
    pub user: Option<&'a str>,
}

/// Refuses what a caller may not do.
///
/// # Errors
/// `permission-denied`.
pub(crate) fn check(caller: &Caller, action: Action, subject: &Subject<'_>) -> Result<(), Problem> {
    caller.about.subject(subject);
    if caller.rights.allow(&caller.user, action, subject) { Ok(()) } else { Err(denied(caller, action, subject)) }
}

/// Refuses a caller who may do this with nothing at all; whoever answers leaves out what he may not see.
///
/// # Errors
/// `permission-denied`.
pub(crate) fn check_some(caller: &Caller, action: Action) -> Result<(), Problem> {
    if caller.rights.allow_some(action) { Ok(()) } else { Err(denied(caller, action, &Subject::default())) }
}

fn denied(caller: &Caller, action: Action, subject: &Subject<'_>) -> Problem {
    let flow = subject.flow.map(|flow| format!(".{flow}")).unwrap_or_default();
    let identity = subject.identity.map(|identity| format!(" for {identity}")).unwrap_or_default();
    let text = format!("user {} may not do {}{flow}{identity}", caller.user, action.as_str());
    let problem = Problem::new(Code::PermissionDenied, text).detail("action", action.as_str());
    tracing::warn!(
        user = caller.user,
        action = action.as_str(),
        flow = subject.flow,
        identity = subject.identity,
        "refused"
    );
    problem.detail("user", caller.user.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALICE: &str = "O=Alice, L=London, C=GB";
    const BOB: &str = "O=Bob, L=New York, C=US";

    fn rights(permissions: &[&str], identities: &[&str]) -> Rights {
        let identities: Vec<String> = identities.iter().map(|&name| name.to_owned()).collect();
        Rights::new(permissions.iter().map(|text| text.parse().unwrap()).collect(), &identities)
    }

    fn of<'a>(identity: &'a str, flow: &'a str, user: &'a str) -> Subject<'a> {
        Subject { identity: Some(identity), flow: Some(flow), flow_id: None, user: Some(user) }
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, fits) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*", "a/", true),
            ("a/*", "ab/c", false),
            ("*/pay", "cash/pay", true),
            ("*/pay", "cash/pay-all", false),
            ("c*h/*a*", "cash/pay", true),
            ("c*h/*z*", "cash/pay", false),
            ("*a", "a", true),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).matches(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn permissions_are_read_as_they_are_written() {
        for text in ["*", "StartFlow", "StartFlow.cash/*", "*.cash/pay", "KillFlow.*", "Status"] {
            assert_eq!(text.parse::<Permission>().unwrap().to_string(), text);
        }
        assert_eq!("startflow.a/b".parse::<Permission>().unwrap().to_string(), "StartFlow.a/b");
        assert_eq!("all".parse::<Permission>().unwrap().to_string(), "*");
        for text in [
            "",
            ".",
            "StartFlow.",
            "StartFlow.cash",
            "StartFlow.a/b/c",
            "StartFlow./x",
            "Start",
            "Status.a/b",
            "*.a b/c",
        ] {
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_permission_covers_what_it_says_and_nothing_else() {
        let mine = rights(&["StartFlow.cash/*", "GetFlow"], &[ALICE]);
        assert!(mine.allow("ann", Action::StartFlow, &of(ALICE, "cash/pay", "ann")));
        assert!(!mine.allow("ann", Action::StartFlow, &of(ALICE, "iou/issue", "ann")));
        assert!(!mine.allow("ann", Action::StartFlow, &of(BOB, "cash/pay", "ann")));
        assert!(!mine.allow("ann", Action::Status, &Subject::default()));
        // Everybody's flows may be shown, his own may be killed.
        assert!(mine.allow("ann", Action::GetFlow, &of(ALICE, "iou/issue", "joe")));
        assert!(mine.allow("ann", Action::KillFlow, &of(ALICE, "cash/pay", "ann")));
        assert!(!mine.allow("ann", Action::KillFlow, &of(ALICE, "cash/pay", "joe")));
        assert!(!mine.allow("ann", Action::KillFlow, &of(ALICE, "iou/issue", "ann")));
        assert!(mine.allow_some(Action::ListFlows) && !mine.allow_some(Action::Parties));
        assert!(!mine.are_all() && Rights::all().are_all());
    }

    #[test]
    fn what_is_within_other_rights_never_exceeds_them() {
        let ann = Arc::new(rights(&["StartFlow.iou/*", "QueryVault"], &["O=Alice*"]));
        let narrow = rights(&["StartFlow.iou/issue", "Status"], &["*"]).within(ann.clone());
        assert!(narrow.allow("ann", Action::StartFlow, &of(ALICE, "iou/issue", "ann")));
        assert!(narrow.allow("ann", Action::KillFlow, &of(ALICE, "iou/issue", "ann")), "his own flow of that kind");
        for (action, subject) in [
            (Action::StartFlow, of(ALICE, "iou/settle", "ann")),
            (Action::KillFlow, of(ALICE, "iou/settle", "ann")),
            (Action::StartFlow, of(BOB, "iou/issue", "ann")),
            (Action::QueryVault, Subject { identity: Some(ALICE), ..Subject::default() }),
            (Action::Status, Subject::default()),
        ] {
            assert!(!narrow.allow("ann", action, &subject), "{action:?}");
        }
        assert!(!narrow.allow_some(Action::QueryVault) && !narrow.allow_some(Action::Status));
        assert!(narrow.see(ALICE) && !narrow.see(BOB) && !narrow.see_all() && !narrow.are_all());
        // Nothing is said: they are the same.
        let same = Rights::all().within(ann.clone());
        assert!(same.allow("ann", Action::QueryVault, &Subject { identity: Some(ALICE), ..Subject::default() }));
        assert!(!same.see(BOB) && !same.are_all());
        assert!(Rights::all().within(Arc::new(Rights::all())).are_all());
        let one_identity = rights(&["ALL"], &["O=Bob*"]).within(Arc::new(Rights::all()));
        assert!(one_identity.see(BOB) && !one_identity.see(ALICE) && !one_identity.are_all());
    }

    #[test]
    fn identities_are_named_or_patterns() {
        assert!(rights(&["*"], &["L=London,O=Alice,C=GB"]).see(ALICE));
        assert!(rights(&["*"], &["O=Al*"]).see(ALICE) && !rights(&["*"], &["O=Al*"]).see(BOB));
        assert!(rights(&["*"], &["*"]).are_all() && !rights(&["*"], &[]).see(ALICE));
    }
}
