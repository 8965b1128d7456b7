//! The way of a message from a unit to a recipient on this host: ahead of the disk if it may, and when the unit is
//! written in any case.

use std::sync::Arc;

use maxhost_journal::{Initiation, Parcel};
use maxhost_model::SessionId;
use maxhost_store::{Receipt, RunGuard};

use crate::ahead::{Ahead, Runner};
use crate::core::Core;
use crate::directory::IdentityEntry;
use crate::mail::Mail;
use crate::port::{Arrival, FlowPort};

/// What reaches a recipient.
#[derive(Debug, Clone)]
pub(crate) enum Letter {
    /// For a session; `op` is the operation of the unit that writes it.
    Parcel { op: usize, session: SessionId, seq: u32, parcel: Parcel },
    /// Somebody wants a session; `id` is its number in the database.
    Initiation { id: i64, initiation: Initiation },
}

/// A message of a unit that is not written yet.
pub(crate) struct Route {
    to: Arc<IdentityEntry>,
    letter: Letter,
    ahead: Ahead,
    /// A copy is sent ahead.
    copied: bool,
    /// The port at which that of a parcel is left.
    port: Option<Arc<FlowPort>>,
}

/// The copy that runs ahead.
pub(crate) struct Copy {
    to: Arc<IdentityEntry>,
    letter: Letter,
    runner: Runner,
    port: Option<Arc<FlowPort>>,
}

impl Route {
    pub fn new(to: Arc<IdentityEntry>, letter: Letter) -> Route {
        Route { to, letter, ahead: Ahead::default(), copied: false, port: None }
    }

    /// A copy to be sent ahead, if the recipient is in memory. `None`: the message waits until it is written.
    pub fn copy(&mut self, core: &Core, sender: &RunGuard) -> Option<Copy> {
        if let Letter::Parcel { session, .. } = &self.letter {
            self.port = Some(core.ports.get(&session.flow())?.value().clone());
        }
        self.copied = true;
        Some(Copy {
            to: self.to.clone(),
            letter: self.letter.clone(),
            runner: Runner { sender: sender.clone(), ahead: self.ahead.clone(), answer: Some(core.store.announce()) },
            port: self.port.clone(),
        })
    }

    /// The message is in the database. What is not with its recipient is brought to him.
    pub fn written(self, core: &Arc<Core>, receipt: &Receipt) {
        let Route { to, letter, ahead, copied, port } = self;
        let declined = ahead.written() || !copied;
        match letter {
            Letter::Parcel { op, session, parcel, .. } if receipt.undelivered.contains(&op) => {
                crate::bounce::undelivered(core, &to, session, &parcel);
            }
            Letter::Parcel { session, seq, parcel, .. } => {
                // A port that closed may have been left before the message was read; twice is no harm.
                if declined || port.is_some_and(|port| port.is_closed()) {
                    core.route_parcel(&to, session, seq, parcel);
                }
            }
            Letter::Initiation { id, initiation } => {
                if declined {
                    core.tell(&to, Mail::Initiation { id, initiation: Box::new(initiation), offer: None });
                }
            }
        }
    }
}

impl Copy {
    /// Brings it. The sender's unit is in the committer's queue.
    pub fn send(self, core: &Arc<Core>) {
        let Copy { to, letter, runner, port } = self;
        match (letter, port) {
            (Letter::Parcel { session, seq, parcel, .. }, Some(port)) => {
                let ahead = runner.ahead.clone();
                let arrival = Arrival { session: session.index(), seq, parcel, runner: Some(runner) };
                if let Err(arrival) = port.push(arrival)
                    && ahead.decline()
                {
                    core.route_parcel(&to, session, seq, arrival.parcel);
                }
            }
            (Letter::Initiation { id, initiation }, _) => core.offer(&to, id, initiation, runner),
            (Letter::Parcel { .. }, None) => {}
        }
    }
}
