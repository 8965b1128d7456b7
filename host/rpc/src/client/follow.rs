//! Following a flow to its end, over broken connections and restarts of the host.
//!
//! The cursor of the last event is all that has to be remembered; a start that may have got lost is repeated under its
//! client id, which makes it the same start.

use std::time::Duration;

use maxhost_model::{Code, Problem};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::{Client, flows, unanswered_start};
use crate::proto::v1 as pb;
use crate::proto::v1::flow_event::Event;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a stream may take behind its last event.
const PATIENCE_WITH_END: Duration = Duration::from_secs(1);

/// Where following begins.
#[derive(Debug, Clone)]
pub enum FollowFrom {
    /// Start the flow. Without a client id a start whose answer got lost is not repeated.
    Start(pb::StartFlowRequest),
    /// A flow that was started before, behind this cursor.
    Flow {
        /// The public id of the flow, a UUID.
        flow_id: String,
        /// 0, or the cursor of the last event.
        cursor: u64,
        /// How the result is sent.
        encoding: pb::Encoding,
    },
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub struct FollowOptions {
    /// End of patience with the flow; none: as long as it takes.
    pub deadline: Option<Instant>,
    /// How long the host may be away at a stretch.
    pub patience: Duration,
}

/// What the follower sees.
#[derive(Debug)]
pub enum Observation<'a> {
    /// An event of the flow.
    Event {
        /// What happened.
        event: &'a Event,
        /// Where to go on behind it.
        cursor: u64,
    },
    /// The host is away; following goes on when it is back.
    Lost(&'a Problem),
    /// The host is back.
    Back,
}

enum Position {
    Start(pb::StartFlowRequest),
    Flow { flow_id: String, cursor: u64, encoding: i32 },
}

/// What there was so far, by which it is told whether an error can pass.
#[derive(Default)]
struct Met {
    host: bool,
    stream: bool,
}

/// Counts how long the host has been away.
struct Absence {
    since: Option<Instant>,
    pause: Duration,
}

impl Absence {
    fn over(&mut self) -> bool {
        self.pause = FIRST_PAUSE;
        self.since.take().is_some()
    }
}

impl Client {
    /// Follows a flow to its end and gives it back as it ended. A flow that ended in an error is no failure of this
    /// call.
    ///
    /// # Errors
    /// The start was refused; the flow is unknown; `timeout` when the deadline has passed, `host-unreachable` when the
    /// host was away for longer than the patience: the flow goes on in both cases, and details name it if it is known.
    pub async fn follow(
        &self,
        from: FollowFrom,
        options: FollowOptions,
        mut observe: impl FnMut(Observation<'_>) + Send,
    ) -> Result<pb::Flow, Problem> {
        let mut position = match from {
            FollowFrom::Start(request) => Position::Start(request),
            FollowFrom::Flow { flow_id, cursor, encoding } => {
                Position::Flow { flow_id, cursor, encoding: encoding.into() }
            }
        };
        let mut absence = Absence { since: None, pause: FIRST_PAUSE };
        let mut met = Met::default();
        loop {
            let work = self.follow_once(&mut position, &mut absence, &mut met, &mut observe);
            let outcome = match options.deadline {
                Some(deadline) => timeout_at(deadline, work).await.ok(),
                None => Some(work.await),
            };
            let problem = match outcome.unwrap_or_else(|| Err(out_of_time(&position))) {
                Ok(flow) => return Ok(flow),
                Err(problem) => problem,
            };
            let repeatable = match &position {
                Position::Start(request) => met.host && request.client_id.is_some(),
                Position::Flow { .. } => met.host,
            };
            let away = match problem.code {
                Code::HostUnreachable | Code::HostStopping => true,
                // In the middle of a stream: we were too slow for it, and go on behind our cursor.
                Code::Overloaded => met.stream,
                _ => false,
            };
            if !away || !repeatable {
                return Err(if met.host { named(problem, &position) } else { problem });
            }
            if absence.since.is_none() {
                observe(Observation::Lost(&problem));
            }
            let since = *absence.since.get_or_insert_with(Instant::now);
            if since.elapsed() > options.patience {
                return Err(named(problem, &position));
            }
            let wake = Instant::now() + absence.pause;
            tokio::time::sleep_until(options.deadline.map_or(wake, |deadline| wake.min(deadline))).await;
            absence.pause = (absence.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One stream, from where we are to its end.
    async fn follow_once(
        &self,
        position: &mut Position,
        absence: &mut Absence,
        met: &mut Met,
        observe: &mut (impl FnMut(Observation<'_>) + Send),
    ) -> Result<pb::Flow, Problem> {
        let mut events = self.open(position, met).await?;
        met.stream = true;
        loop {
            let event = events.message().await.map_err(|status| self.problem(&status))?;
            let Some(pb::FlowEvent { cursor: at, event: Some(event) }) = event else {
                return Err(Problem::new(Code::HostUnreachable, "the host ended the stream of events early"));
            };
            if absence.over() {
                observe(Observation::Back);
            }
            observe(Observation::Event { event: &event, cursor: at });
            match (event, &mut *position) {
                (Event::Ended(flow), _) => {
                    read_to_end(&mut events).await;
                    return Ok(flow);
                }
                (Event::Started(started), Position::Start(request)) => {
                    *position = Position::Flow { flow_id: started.flow_id, cursor: at, encoding: request.encoding };
                }
                (_, Position::Flow { cursor, .. }) => *cursor = at,
                (_, Position::Start(_)) => {}
            }
        }
    }

    async fn open(&self, position: &Position, met: &mut Met) -> Result<Streaming<pb::FlowEvent>, Problem> {
        let connecting = tokio::time::timeout(self.timeout, self.connect());
        let channel =
            connecting.await.map_err(|_| Problem::new(Code::Timeout, "no host could be reached in time"))??;
        met.host = true;
        let mut service = flows(channel);
        // Streams carry no deadline of their own: it would end them in the middle.
        let opening = async {
            match position {
                Position::Start(request) => service.start_and_attach(self.logged_in(request.clone())).await,
                Position::Flow { flow_id, cursor, encoding } => {
                    let selector = Some(pb::attach_request::Selector::FlowId(flow_id.clone()));
                    let request = pb::AttachRequest { selector, cursor: *cursor, encoding: *encoding };
                    service.attach(self.logged_in(request)).await
                }
            }
        };
        let opened = tokio::time::timeout(self.timeout, opening).await.map_err(|_| {
            Problem::new(Code::HostUnreachable, format!("the host did not answer within {:?}", self.timeout))
        })?;
        self.answer(opened)
    }
}

/// Takes the end of a stream whose last event is known. HTTP/2 libraries hold it against the peer when frames arrive for a
/// stream that was given up, and break the connection with all its calls after some hundreds of them (h2: 1,024).
async fn read_to_end(events: &mut Streaming<pb::FlowEvent>) {
    // Nothing depends on it any more, however it goes.
    let _ = tokio::time::timeout(PATIENCE_WITH_END, events.message()).await;
}

fn out_of_time(position: &Position) -> Problem {
    match position {
        Position::Flow { .. } => Problem::new(Code::Timeout, "the flow did not end in time; it goes on")
            .remedy("follow it with `maxhost flow watch ID`, or wait longer with --timeout"),
        Position::Start(_) => Problem::new(Code::Timeout, "the host did not answer the start in time"),
    }
}

fn named(problem: Problem, position: &Position) -> Problem {
    match position {
        Position::Flow { flow_id, .. } => problem.detail("flow_id", flow_id.clone()),
        Position::Start(request) => unanswered_start(problem, request.client_id.is_some()),
    }
}
