//! The way of a message from a unit to a recipient on this host: ahead of the disk if it may, and when the unit is
//! written in any case.

use std::sync::Arc;

use maxhost_journal::{FrameBatch, Initiation};
use maxhost_model::SessionId;
use maxhost_store::{AttemptToken, Receipt};

use crate::core::Core;
use crate::message::IdentityCommand;
use crate::offer::Runner;
use crate::registry::IdentityEntry;
use crate::rules::{Rule, holds};
use crate::running_flow::{Arrival, RunningFlow};
use crate::speculation::Speculation;

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
    /// The port at which that of a batch is left.
    port: Option<Arc<RunningFlow>>,
}

/// The copy that runs ahead.
pub(crate) struct Copy {
    to: Arc<IdentityEntry>,
    message: RoutedMessage,
    runner: Runner,
    port: Option<Arc<RunningFlow>>,
}

impl Route {
    pub fn new(to: Arc<IdentityEntry>, message: RoutedMessage) -> Route {
        Route { to, message, speculation: Speculation::default(), copied: false, port: None }
    }

    /// A copy to be sent ahead, if the recipient is in memory. `None`: the message waits until it is written.
    pub fn copy(&mut self, core: &Core, sender: &AttemptToken) -> Option<Copy> {
        if let RoutedMessage::FrameBatch { session, .. } = &self.message {
            self.port = Some(core.ports.get(&session.flow())?.value().clone());
        }
        self.copied = true;
        Some(Copy {
            to: self.to.clone(),
            message: self.message.clone(),
            runner: Runner {
                sender: sender.clone(),
                speculation: self.speculation.clone(),
                answer: Some(core.store.commit_hint()),
            },
            port: self.port.clone(),
        })
    }

    /// The message is in the database. What is not with its recipient is brought to him. Otherwise returns for whom the
    /// relay has to bring it: this host does not hold the recipient any more.
    pub fn written(self, core: &Arc<Core>, receipt: &Receipt) -> Option<Arc<str>> {
        let Route { to, message, speculation, copied, port } = self;
        let declined = (speculation.written() && holds(Rule::DeclinedIsBrought)) || !copied;
        let (RoutedMessage::FrameBatch { op, .. } | RoutedMessage::Initiation { op, .. }) = &message;
        if receipt.outboxed.contains(op) {
            return Some(to.text.clone());
        }
        match message {
            RoutedMessage::FrameBatch { op, session, batch, .. } if receipt.undelivered.contains(&op) => {
                crate::late_confirm::noted(core, &to, session, &batch);
            }
            RoutedMessage::FrameBatch { session, seq, batch, .. } => {
                // A port that closed may have been left before the message was read; twice is no harm.
                if declined || port.is_some_and(|port| port.is_closed()) {
                    core.route_batch(&to, session, seq, batch);
                }
            }
            RoutedMessage::Initiation { id, initiation, .. } => {
                if declined {
                    core.tell(&to, IdentityCommand::Initiation { id, initiation: Box::new(initiation), offer: None });
                }
            }
        }
        None
    }
}

impl Copy {
    /// Brings it. The sender's unit is in the committer's queue.
    pub fn send(self, core: &Arc<Core>) {
        let Copy { to, message, runner, port } = self;
        match (message, port) {
            (RoutedMessage::FrameBatch { session, seq, batch, .. }, Some(port)) => {
                let speculation = runner.speculation.clone();
                let arrival = Arrival { session: session.index(), seq, batch, runner: Some(runner) };
                if let Err(arrival) = port.push(arrival)
                    && speculation.decline()
                {
                    core.route_batch(&to, session, seq, arrival.batch);
                }
            }
            (RoutedMessage::Initiation { id, initiation, .. }, _) => core.offer(&to, id, initiation, runner),
            (RoutedMessage::FrameBatch { .. }, None) => {}
        }
    }
}
