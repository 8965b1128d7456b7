//! The way of a message from a unit to a recipient on this host: ahead of the disk if it may, and when the unit is
//! written in any case.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use maxhost_journal::{FrameBatch, Initiation};
use maxhost_model::{IdentityRow, SessionId};
use maxhost_store::{AttemptToken, Receipt, Store};

use crate::base::rules::{Rule, holds};
use crate::delivery::waking::Waking;
use crate::flow::offer::Runner;
use crate::flow::running_flow::{Arrival, RunningFlow, RunningFlows};
use crate::flow::speculation::Speculation;
use crate::registry::entry::IdentityEntry;
use crate::registry::message::IdentityCommand;

/// Whoever answers confirmations that come for flows which have ended.
pub(crate) trait AnswersLateConfirms: Send + Sync {
    /// A batch came for a flow of `owner` that has ended. If it is a confirmation, the unit that brought it has noted it.
    fn undelivered(&self, owner: &Arc<IdentityEntry>, session: SessionId, batch: &FrameBatch);

    /// A flow of `owner` has ended, and this first message of a session was in its inbox. The unit of its end has noted it.
    fn unread(&self, owner: &Arc<IdentityEntry>, session: SessionId, body: &Bytes);
}

/// What knows where a message goes on this host.
pub(crate) struct Router {
    pub flows: Arc<RunningFlows>,
    pub waking: Arc<Waking>,
    late_confirms: OnceLock<Weak<dyn AnswersLateConfirms>>,
}

impl Router {
    pub fn new(flows: Arc<RunningFlows>, waking: Arc<Waking>) -> Router {
        Router { flows, waking, late_confirms: OnceLock::new() }
    }

    /// From now on this one answers late confirmations. Only the first counts.
    pub fn set_late_confirms(&self, answers: Weak<dyn AnswersLateConfirms>) {
        let _ = self.late_confirms.set(answers);
    }

    /// Who answers late confirmations. Without one the host is gone; what is noted is answered after its next start.
    fn late_confirms(&self) -> Option<Arc<dyn AnswersLateConfirms>> {
        self.late_confirms.get().and_then(Weak::upgrade)
    }

    /// A unit of this identity has ended a flow, and in the inbox of that were these messages.
    pub fn unread(&self, owner: &Arc<IdentityEntry>, messages: &[(SessionId, Bytes)]) {
        if let Some(answers) = self.late_confirms() {
            messages.iter().for_each(|(session, body)| answers.unread(owner, *session, body));
        }
    }

    /// Brings a batch that is in the database to the flow it is for. If the flow has ended meanwhile, the unit of its end has
    /// seen to what it had not read.
    fn bring(&self, to: &Arc<IdentityEntry>, session: SessionId, seq: u32, batch: FrameBatch) {
        let row = session.flow();
        let arrival = Arrival { session: session.index(), seq, batch, runner: None };
        let taken = self.flows.get(row).is_some_and(|flow| flow.push(arrival).is_ok());
        if !taken {
            self.waking.tell(to, IdentityCommand::News(row));
        }
    }
}

/// What reaches a recipient.
#[derive(Debug, Clone)]
pub(crate) enum RoutedMessage {
    /// For a session; `op` is the operation of the unit that writes it.
    FrameBatch { op: usize, session: SessionId, seq: u32, batch: FrameBatch },
    /// Somebody wants a session; `op` is the operation that writes it, `id` its number in the database.
    Initiation { op: usize, id: i64, initiation: Initiation },
}

/// A message of a unit that is not written yet.
pub(crate) struct Route {
    to: Arc<IdentityEntry>,
    message: RoutedMessage,
    speculation: Speculation,
    /// A copy is sent ahead.
    copied: bool,
    /// The running flow with which that of a batch is left.
    flow: Option<Arc<RunningFlow>>,
}

/// The copy that runs ahead.
pub(crate) struct Copy {
    to: Arc<IdentityEntry>,
    message: RoutedMessage,
    runner: Runner,
    flow: Option<Arc<RunningFlow>>,
}

impl Route {
    pub fn new(to: Arc<IdentityEntry>, message: RoutedMessage) -> Route {
        Route { to, message, speculation: Speculation::default(), copied: false, flow: None }
    }

    /// A copy to be sent ahead by the author of the unit, if the recipient is in memory. `None`: the message waits until it
    /// is written. What goes to another database never runs ahead: units there do not wait for those here.
    pub fn copy(
        &mut self,
        flows: &RunningFlows,
        store: &Store,
        author: IdentityRow,
        sender: &AttemptToken,
    ) -> Option<Copy> {
        if !store.is_one_database(author, self.to.row) {
            return None;
        }
        if let RoutedMessage::FrameBatch { session, .. } = &self.message {
            self.flow = Some(flows.get(session.flow())?);
        }
        self.copied = true;
        Some(Copy {
            to: self.to.clone(),
            message: self.message.clone(),
            runner: Runner {
                sender: sender.clone(),
                speculation: self.speculation.clone(),
                answer: Some(store.commit_hint_for(self.to.row)),
            },
            flow: self.flow.clone(),
        })
    }

    /// The message is in the database. What is not with its recipient is brought to him. Otherwise returns for whom the
    /// relay has to bring it: this host does not hold the recipient any more.
    pub fn written(self, router: &Router, receipt: &Receipt) -> Option<Arc<str>> {
        let Route { to, message, speculation, copied, flow } = self;
        let declined = (speculation.written() && holds(Rule::DeclinedIsBrought)) || !copied;
        let (RoutedMessage::FrameBatch { op, .. } | RoutedMessage::Initiation { op, .. }) = &message;
        if receipt.outboxed.contains(op) {
            return Some(to.text.clone());
        }
        match message {
            RoutedMessage::FrameBatch { op, session, batch, .. } if receipt.undelivered.contains(&op) => {
                if let Some(answers) = router.late_confirms() {
                    answers.undelivered(&to, session, &batch);
                }
            }
            RoutedMessage::FrameBatch { session, seq, batch, .. } => {
                // A flow that closed may have been left before the message was read; twice is no harm.
                if declined || flow.is_some_and(|flow| flow.is_closed()) {
                    router.bring(&to, session, seq, batch);
                }
            }
            RoutedMessage::Initiation { id, initiation, .. } => {
                if declined {
                    router
                        .waking
                        .tell(&to, IdentityCommand::Initiation { id, initiation: Box::new(initiation), offer: None });
                }
            }
        }
        None
    }
}

impl Copy {
    /// Brings it. The sender's unit is in the committer's queue.
    pub fn send(self, router: &Router) {
        let Copy { to, message, runner, flow } = self;
        match (message, flow) {
            (RoutedMessage::FrameBatch { session, seq, batch, .. }, Some(flow)) => {
                let speculation = runner.speculation.clone();
                let arrival = Arrival { session: session.index(), seq, batch, runner: Some(runner) };
                if let Err(arrival) = flow.push(arrival)
                    && speculation.decline()
                {
                    router.bring(&to, session, seq, arrival.batch);
                }
            }
            (RoutedMessage::Initiation { id, initiation, .. }, _) => router.waking.offer(&to, id, initiation, runner),
            (RoutedMessage::FrameBatch { .. }, None) => {}
        }
    }
}
