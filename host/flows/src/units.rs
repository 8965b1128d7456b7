//! Commit units: everything a flow has to write at one moment, and what becomes visible once it is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use maxhost_journal::{Flush, Initiation, Outgoing, Parcel};
use maxhost_model::{IdentityRow, SessionId};
use maxhost_store::{CommitUnit, Op, Receipt, RunGuard, StoreError};
use prost::Message;

use crate::core::{Core, Opened};
use crate::directory::IdentityEntry;
use crate::envelope::Envelope;
use crate::mail::Mail;
use crate::port::FlowPort;

/// Something that reaches its recipient once the unit is committed.
enum Route {
    Parcel { op: usize, to: Arc<IdentityEntry>, session: SessionId, seq: u32, parcel: Parcel },
    Initiation { to: Arc<IdentityEntry>, initiation: Initiation },
}

/// Whose unit it is, and the epoch it must be in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author {
    pub row: IdentityRow,
    pub epoch: i64,
}

impl Author {
    /// The identity as this host last knew its epoch.
    pub fn of(entry: &IdentityEntry) -> Author {
        Author { row: entry.row, epoch: entry.epoch.load(Ordering::Acquire) }
    }
}

impl From<&Opened> for Author {
    fn from(opened: &Opened) -> Author {
        Author { row: opened.entry.row, epoch: opened.epoch }
    }
}

/// A unit that is being put together.
#[derive(Default)]
pub(crate) struct Unit {
    ops: Vec<Op>,
    routes: Vec<Route>,
    progress: Vec<(u64, String)>,
    to_broker: bool,
}

impl Unit {
    pub fn op(&mut self, op: Op) {
        self.ops.push(op);
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.progress.is_empty()
    }

    /// Adds what a machine wants written. Recipients on this host get their inbox row in this very unit.
    pub fn flush(&mut self, core: &Core, row: maxhost_model::FlowRow, flush: Flush) {
        if let Some((seq, body)) = flush.segment {
            self.ops.push(Op::AppendLog { flow: row, seq, body });
        }
        self.send(core, flush.outgoing);
        self.progress.extend(flush.progress);
    }

    /// As [`Unit::flush`], for a flow that ends: its log is not needed any more.
    pub fn last_words(&mut self, core: &Core, flush: Flush) {
        self.send(core, flush.outgoing);
        self.progress.extend(flush.progress);
    }

    fn send(&mut self, core: &Core, outgoing: Vec<Outgoing>) {
        for outgoing in outgoing {
            let party = match &outgoing {
                Outgoing::Initiate { party, .. } | Outgoing::Deliver { party, .. } => party,
            };
            match core.directory.get(party).filter(|_| !core.options.always_broker) {
                Some(to) => self.send_here(to, outgoing),
                None => {
                    let envelope = Envelope::of(&outgoing);
                    self.to_broker = true;
                    self.ops.push(Op::Outbox {
                        destination: party.clone(),
                        message_id: envelope.message_id(),
                        body: envelope.encode_to_vec().into(),
                    });
                }
            }
        }
    }

    fn send_here(&mut self, to: Arc<IdentityEntry>, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Initiate { initiation, .. } => self.initiate(to, initiation),
            Outgoing::Deliver { session, seq, parcel, .. } => self.deliver(to, session, seq, parcel),
        }
    }

    pub fn deliver(&mut self, to: Arc<IdentityEntry>, session: SessionId, seq: u32, parcel: Parcel) {
        let op = self.ops.len();
        self.ops.push(Op::Deliver { session, seq, body: parcel.encode_to_vec().into() });
        self.routes.push(Route::Parcel { op, to, session, seq, parcel });
    }

    pub fn initiate(&mut self, to: Arc<IdentityEntry>, initiation: Initiation) {
        self.ops.push(Op::Initiate { to: to.row, body: initiation.encode_to_vec().into() });
        self.routes.push(Route::Initiation { to, initiation });
    }

    /// Sends the unit of a run to the committer. `then` is called on the committer's thread when it is durable, or when
    /// it is not; until it is durable nobody sees anything of it.
    pub fn submit_for(
        self,
        core: &Arc<Core>,
        opened: &Arc<Opened>,
        port: &Arc<FlowPort>,
        then: impl FnOnce(Result<(), &StoreError>) + Send + 'static,
    ) {
        port.submitting();
        let guard = Some(port.guard.clone());
        let port = port.clone();
        let watched = core.clone();
        let progress = self.progress.clone();
        self.submit(core, Author::from(&**opened), guard, move |result| match result {
            Ok(()) => {
                crate::core::Counters::add(&watched.counters.steps);
                if !progress.is_empty() {
                    port.show_progress(&progress);
                }
                for (cursor, label) in progress {
                    watched.watchers.publish(port.row, || crate::api::FlowEvent::Progress { cursor, label });
                }
                then(Ok(()));
                port.committed();
            }
            Err(error) => {
                then(Err(&error));
                port.failed(error);
            }
        });
    }

    /// Sends any unit of an identity to the committer.
    pub fn submit(
        self,
        core: &Arc<Core>,
        author: Author,
        guard: Option<RunGuard>,
        then: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let Unit { ops, routes, to_broker, .. } = self;
        let core_then = core.clone();
        core.store.submit(CommitUnit {
            identity: author.row,
            epoch: author.epoch,
            guard,
            ops,
            done: Box::new(move |result| match result {
                Ok(receipt) => {
                    then(Ok(()));
                    if to_broker {
                        core_then.outbox_bell.notify_one();
                    }
                    route(&core_then, routes, &receipt);
                }
                Err(error) => then(Err(error)),
            }),
        });
    }
}

fn route(core: &Arc<Core>, routes: Vec<Route>, receipt: &Receipt) {
    let mut ids = receipt.initiations.iter();
    for route in routes {
        match route {
            Route::Initiation { to, initiation } => {
                if let Some(&id) = ids.next() {
                    core.tell(&to, Mail::Initiation { id, initiation: Box::new(initiation) });
                }
            }
            Route::Parcel { op, to, session, parcel, .. } if receipt.undelivered.contains(&op) => {
                crate::bounce::undelivered(core, &to, session, &parcel);
            }
            Route::Parcel { to, session, seq, parcel, .. } => core.route_parcel(&to, session, seq, parcel),
        }
    }
}
