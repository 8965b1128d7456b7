//! What requests may take, all together and those of one caller: how many there are at once, from their headers on, and what
//! they and their answers hold in memory.
//!
//! Where there are users, nobody can take all: what one of them may have leaves something for the others. Requests to the
//! services that are open to everybody have little room of their own, so that they take none from others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::Extensions;
use maxhost_model::{Code, Problem};
use parking_lot::Mutex;

use crate::connections::{Busy, line_of};

/// Paths of services that tell nothing of the host's work: probes and tools may ask them without a login.
const HEALTH: &str = "/grpc.health.v1.";
const REFLECTION: &str = "/grpc.reflection.";
/// The one method of theirs beside reflection that answers with a stream, and without end.
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The one method of the host whose request is more than one message.
pub(crate) const IMPORT: &str = "/maxhost.v1.AttachmentService/ImportAttachment";
/// Probes at once, and as many streams of such services; and what one address or user may have of them.
const OPEN_AT_ONCE: usize = 256;
const OPEN_OF_ONE: usize = OPEN_AT_ONCE / 4;
/// What one of their requests may bring, bytes.
const OPEN_BYTES: usize = 64 << 10;
/// What all answers with large payloads may hold: 256 MiB.
const ANSWER_BYTES: usize = 256 << 20;
/// Callers that are known at least before those who have nothing under way are forgotten.
const CALLERS: usize = 1_024;

/// What a request asks for. Each kind has places of its own, so that streams that last take none from probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A method of the host, which needs a login where there are users.
    Call,
    /// One whose request is a stream of messages.
    Import,
    /// Whether the host serves.
    Probe,
    /// The same, from now on.
    Watch,
    /// Which methods there are.
    Reflection,
}

impl Kind {
    pub(crate) fn of(path: &str) -> Kind {
        match path {
            WATCH => Kind::Watch,
            IMPORT => Kind::Import,
            _ if path.starts_with(HEALTH) => Kind::Probe,
            _ if path.starts_with(REFLECTION) => Kind::Reflection,
            _ => Kind::Call,
        }
    }

    /// Whether everybody may ask so.
    pub(crate) fn is_open(self) -> bool {
        !matches!(self, Kind::Call | Kind::Import)
    }
}

/// What requests may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests at once.
    pub requests: usize,
    /// Bytes that they hold.
    pub bytes: usize,
    /// Bytes of the largest one.
    pub largest: usize,
}

impl Limits {
    /// A single caller leaves a quarter of the places for others, and of the memory three.
    fn of_one(self) -> Limits {
        let requests = (self.requests - self.requests / 4).max(1);
        Limits { requests, bytes: (self.bytes / 4).max(self.largest), ..self }
    }
}

/// What is taken at present.
#[derive(Debug, Default)]
struct Taken {
    calls: AtomicUsize,
    probes: AtomicUsize,
    streams: AtomicUsize,
    bytes: AtomicUsize,
    answers: AtomicUsize,
}

impl Taken {
    fn count(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Call | Kind::Import => &self.calls,
            Kind::Probe => &self.probes,
            Kind::Watch | Kind::Reflection => &self.streams,
        }
    }

    /// Takes a place; false if there is none.
    fn enter(&self, kind: Kind, most: usize) -> bool {
        let count = self.count(kind);
        let has_room = count.fetch_add(1, Ordering::Relaxed) < most;
        if !has_room {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        has_room
    }

    fn leave(&self, kind: Kind, bytes: usize, answer: usize) {
        self.count(kind).fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if answer > 0 {
            self.answers.fetch_sub(answer, Ordering::Relaxed);
        }
    }
}

/// By whom a request is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A user.
    User(String),
    /// Nobody who has said who he is.
    Address(IpAddr),
}

#[derive(Debug)]
struct Callers {
    taken: HashMap<Owner, Arc<Taken>>,
    /// When there are so many, those who have nothing under way are forgotten.
    full: usize,
}

/// What all requests together may take.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<All>);

#[derive(Debug)]
struct All {
    limits: Limits,
    taken: Taken,
    callers: Mutex<Callers>,
}

/// What one request takes. It is among the request's extensions; whoever works on the request keeps it until the answer.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<All>,
    kind: Kind,
    /// What its caller takes, once he is known. Where there are no users there is nobody to leave something for.
    owner: OnceLock<Arc<Taken>>,
    bytes: AtomicUsize,
    answer: AtomicUsize,
    /// Keeps its connection from being taken for a silent one.
    busy: OnceLock<Busy>,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Budget {
        let callers = Mutex::new(Callers { taken: HashMap::new(), full: CALLERS });
        Budget(Arc::new(All { limits, taken: Taken::default(), callers }))
    }

    /// Bytes of the largest request.
    pub(crate) fn largest(&self) -> usize {
        self.0.limits.largest
    }

    /// Lets a request in whose headers have come.
    ///
    /// # Errors
    /// `overloaded` if there are as many as may be.
    pub(crate) fn admit(&self, path: &str) -> Result<Share, Problem> {
        let kind = Kind::of(path);
        let (most, what) = match kind {
            Kind::Call | Kind::Import => {
                (self.0.limits.requests, "requests at once (limits.rpc_calls, limits.rpc_streams)")
            }
            Kind::Probe => (OPEN_AT_ONCE, "probes at once"),
            Kind::Watch | Kind::Reflection => (OPEN_AT_ONCE, "streams of health and reflection"),
        };
        if !self.0.taken.enter(kind, most) {
            return Err(Problem::new(Code::Overloaded, format!("the host serves no more {what}")));
        }
        Ok(Share {
            all: Arc::clone(&self.0),
            kind,
            owner: OnceLock::new(),
            bytes: AtomicUsize::new(0),
            answer: AtomicUsize::new(0),
            busy: OnceLock::new(),
        })
    }
}

impl All {
    fn taken_by(&self, owner: Owner) -> Arc<Taken> {
        let mut callers = self.callers.lock();
        if callers.taken.len() >= callers.full {
            callers.taken.retain(|_, taken| Arc::strong_count(taken) > 1);
            callers.full = callers.taken.len().saturating_mul(2).max(CALLERS);
        }
        Arc::clone(callers.taken.entry(owner).or_default())
    }
}

impl Share {
    /// What it asks for.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// It is known now by whom the request is.
    ///
    /// # Errors
    /// `overloaded` if he has as many as he may have.
    pub(crate) fn is_of(&self, owner: Owner) -> Result<(), Problem> {
        let taken = self.all.taken_by(owner);
        let most = if self.kind.is_open() { OPEN_OF_ONE } else { self.all.limits.of_one().requests };
        if !taken.enter(self.kind, most) {
            return Err(Problem::new(Code::Overloaded, format!("one caller has no more than {most} requests at once")));
        }
        if let Err(taken) = self.owner.set(taken) {
            taken.leave(self.kind, 0, 0);
        }
        Ok(())
    }

    /// The connection of a request with these extensions is not silent while it is worked on.
    pub(crate) fn keeps_busy(&self, extensions: &Extensions) {
        if let Some(line) = line_of(extensions) {
            let _already = self.busy.set(line.begin());
        }
    }

    /// Counts more bytes of the request.
    ///
    /// # Errors
    /// `overloaded` if there is no room for them; `message-too-large` if nobody sends so much to an open service.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Problem> {
        let limit = self.all.limits.bytes;
        let brought = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let total = self.all.taken.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let of_one =
            self.owner.get().map(|owner| owner.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes));
        if self.kind.is_open() && brought > OPEN_BYTES {
            return Err(Problem::new(Code::MessageTooLarge, format!("{OPEN_BYTES} bytes are enough for a probe")));
        }
        if total > limit {
            return Err(Problem::new(Code::Overloaded, format!("requests hold {limit} bytes already")));
        }
        let limit = self.all.limits.of_one().bytes;
        if of_one.is_some_and(|held| held > limit) {
            return Err(Problem::new(Code::Overloaded, format!("requests of this caller hold {limit} bytes already")));
        }
        Ok(())
    }

    /// Whether bytes of its answer are counted.
    pub(crate) fn has_large_answer(&self) -> bool {
        self.answer.load(Ordering::Relaxed) > 0
    }

    /// Counts bytes of the answer.
    ///
    /// # Errors
    /// `overloaded` if there is no room for them.
    pub(crate) fn take_answer(&self, bytes: usize) -> Result<(), Problem> {
        self.answer.fetch_add(bytes, Ordering::Relaxed);
        let total = self.all.taken.answers.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let of_one =
            self.owner.get().map(|owner| owner.answers.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes));
        // An answer that is larger than what one caller may have is given if nothing else is asked for at the time.
        let may = |held: Option<usize>, limit: usize| held.is_none_or(|held| held <= limit.max(bytes));
        if may(Some(total), ANSWER_BYTES) && may(of_one, ANSWER_BYTES / 4) {
            return Ok(());
        }
        Err(Problem::new(Code::Overloaded, "answers that nobody has read yet hold as many bytes as they may"))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let (bytes, answer) = (*self.bytes.get_mut(), *self.answer.get_mut());
        self.all.taken.leave(self.kind, bytes, answer);
        if let Some(owner) = self.owner.get() {
            owner.leave(self.kind, bytes, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const START: &str = "/maxhost.v1.FlowService/StartFlow";

    fn budget(requests: usize, bytes: usize) -> Budget {
        Budget::new(Limits { requests, bytes, largest: 10 })
    }

    fn user(name: &str) -> Owner {
        Owner::User(name.to_owned())
    }

    /// Calls, probes, streams of open services, bytes of requests and of answers.
    fn held(budget: &Budget) -> [usize; 5] {
        let Taken { calls, probes, streams, bytes, answers } = &budget.0.taken;
        [calls, probes, streams, bytes, answers].map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn what_a_request_held_is_free_when_it_ends() {
        let budget = budget(2, 100);
        let (first, second) = (budget.admit(START).unwrap(), budget.admit(START).unwrap());
        assert_eq!(budget.admit(START).unwrap_err().code, Code::Overloaded);
        first.take(60).unwrap();
        second.take(40).unwrap();
        assert_eq!(second.take(1).unwrap_err().code, Code::Overloaded);
        second.take_answer(1_000).unwrap();
        drop(second);
        budget.admit(START).unwrap().take(40).unwrap();
        assert_eq!(held(&budget), [1, 0, 0, 60, 0]);
        drop(first);
        assert_eq!(held(&budget), [0; 5]);
    }

    #[test]
    fn one_user_leaves_something_for_others() {
        let budget = budget(4, 100);
        let of = |name: &str| {
            let share = budget.admit(START).unwrap();
            share.is_of(user(name)).map(|()| share)
        };
        let ann: Vec<Share> = (0..3).map(|_| of("ann").unwrap()).collect();
        assert_eq!(of("ann").unwrap_err().code, Code::Overloaded);
        ann[0].take(25).unwrap();
        assert_eq!(ann[1].take(1).unwrap_err().code, Code::Overloaded);
        let ben = of("ben").unwrap();
        ben.take(25).unwrap();
        drop(ann);
        assert_eq!(held(&budget), [1, 0, 0, 25, 0]);
        of("ann").unwrap().take(25).unwrap();
        ben.take_answer(ANSWER_BYTES / 2).unwrap();
        assert!(ben.take_answer(1).is_err(), "one caller has a quarter, or one answer");
        of("ann").unwrap().take_answer(ANSWER_BYTES / 4).unwrap();
    }

    #[test]
    fn open_services_take_nothing_from_others() {
        let budget = budget(1, 1 << 20);
        let watches: Vec<Share> = (0..OPEN_AT_ONCE).map(|_| budget.admit(WATCH).unwrap()).collect();
        for path in [WATCH, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] {
            assert_eq!(budget.admit(path).unwrap_err().code, Code::Overloaded, "{path}");
        }
        let check = budget.admit("/grpc.health.v1.Health/Check").unwrap();
        let call = budget.admit(START).unwrap();
        let here = || Owner::Address(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(watches.iter().filter(|watch| watch.is_of(here()).is_ok()).count(), OPEN_OF_ONE);
        check.is_of(here()).unwrap();
        check.take(OPEN_BYTES).unwrap();
        assert_eq!(check.take(1).unwrap_err().code, Code::MessageTooLarge);
        drop((watches, check, call));
        assert_eq!(held(&budget), [0; 5]);
    }

    #[test]
    fn callers_who_have_nothing_under_way_are_forgotten() {
        let budget = budget(10, 100);
        let stays = budget.admit(START).unwrap();
        stays.is_of(user("stays")).unwrap();
        for number in 0..10 * CALLERS {
            budget.admit(START).unwrap().is_of(user(&number.to_string())).unwrap();
        }
        let callers = budget.0.callers.lock();
        assert!(callers.taken.len() <= CALLERS, "{}", callers.taken.len());
        assert!(callers.taken.contains_key(&user("stays")));
    }
}
