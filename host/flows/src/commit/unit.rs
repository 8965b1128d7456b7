//! Commit units: everything a flow has to write at one moment, and what becomes visible once it is written.

use std::sync::Arc;

use maxhost_journal::{Flush, FrameBatch, Initiation, Outgoing};
use maxhost_model::SessionId;
use maxhost_store::{AttemptToken, Author, CommitUnit, FlowOp, MessageOp, Op, Receipt, Recipient, StoreError};
use prost::Message as _;
use smallvec::SmallVec;

use crate::base::counters::Counters;
use crate::commit::committer::Committer;
use crate::delivery::envelope::Envelope;
use crate::delivery::router::{Copy, Route, RoutedMessage};
use crate::flow::running_flow::RunningFlow;
use crate::ledger::waits::Recorded;
use crate::registry::entry::IdentityEntry;

/// A unit that is being put together.
#[derive(Default)]
pub(crate) struct Unit {
    ops: Vec<Op>,
    routes: Vec<Route>,
    progress: Vec<(u64, String)>,
    /// For whom messages go to the outbox.
    to_broker: SmallVec<[Arc<str>; 1]>,
    depends_on: SmallVec<[AttemptToken; 1]>,
}

impl Unit {
    pub fn op(&mut self, op: impl Into<Op>) {
        self.ops.push(op.into());
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.progress.is_empty()
    }

    /// Adds what a machine wants written. Recipients on this host get their inbox row in this very unit.
    pub fn flush(&mut self, committer: &Committer, row: maxhost_model::FlowRow, flush: Flush) {
        if let Some((seq, body)) = flush.segment {
            self.op(FlowOp::AppendLog { flow: row, seq, body });
        }
        self.send(committer, flush.outgoing);
        self.progress.extend(flush.progress);
    }

    /// As [`Unit::flush`], for a flow that ends: its log is not needed any more.
    pub fn last_words(&mut self, committer: &Committer, flush: Flush) {
        self.send(committer, flush.outgoing);
        self.progress.extend(flush.progress);
    }

    fn send(&mut self, committer: &Committer, outgoing: Vec<Outgoing>) {
        for outgoing in outgoing {
            let party = match &outgoing {
                Outgoing::Initiate { party, .. } | Outgoing::Deliver { party, .. } => party,
            };
            match committer.directory.get(party).filter(|to| to.is_held() && !committer.always_broker) {
                Some(to) => self.send_here(committer, to, outgoing),
                None => {
                    let envelope = Envelope::of(&outgoing);
                    self.to_broker.push(party.clone());
                    self.op(MessageOp::Outbox {
                        destination: party.clone(),
                        message_id: envelope.message_id(),
                        body: envelope.encode_to_vec().into(),
                    });
                }
            }
        }
    }

    fn send_here(&mut self, committer: &Committer, to: Arc<IdentityEntry>, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Initiate { initiation, .. } => self.initiate(committer, to, initiation),
            Outgoing::Deliver { session, seq, batch, .. } => self.deliver(to, session, seq, batch),
        }
    }

    pub fn deliver(&mut self, to: Arc<IdentityEntry>, session: SessionId, seq: u32, batch: FrameBatch) {
        let recipient = to.recipient();
        self.deliver_under(recipient, to, session, seq, batch);
    }

    /// As [`Unit::deliver`], to an identity under a claim that is known already. A unit that an identity writes for itself
    /// has one claim for both: with two, of before and after it was claimed anew, the message would leave it again.
    pub fn deliver_under(
        &mut self,
        recipient: Recipient,
        to: Arc<IdentityEntry>,
        session: SessionId,
        seq: u32,
        batch: FrameBatch,
    ) {
        let op = self.ops.len();
        let (body, confirms) = (batch.encode_to_vec().into(), crate::flow::arrival::confirmation(&batch).is_some());
        self.op(MessageOp::Deliver { to: recipient, session, seq, body, confirms });
        self.routes.push(Route::new(to, RoutedMessage::FrameBatch { op, session, seq, batch }));
    }

    pub fn initiate(&mut self, committer: &Committer, to: Arc<IdentityEntry>, initiation: Initiation) {
        let recipient = to.recipient();
        self.initiate_under(committer, recipient, to, initiation);
    }

    /// As [`Unit::initiate`], under a claim that is known already: see [`Unit::deliver_under`].
    pub fn initiate_under(
        &mut self,
        committer: &Committer,
        recipient: Recipient,
        to: Arc<IdentityEntry>,
        initiation: Initiation,
    ) {
        let id = committer.store.next_initiation();
        let op = self.ops.len();
        self.op(MessageOp::Initiate { to: recipient, id, body: initiation.encode_to_vec().into() });
        self.routes.push(Route::new(to, RoutedMessage::Initiation { op, id, initiation }));
    }

    /// The unit builds on messages of these attempts, which may not be written yet.
    pub fn depends_on(&mut self, attempts: SmallVec<[AttemptToken; 1]>) {
        self.depends_on.extend(attempts);
    }

    /// Sends the unit of a run to the committer. `then` is called on the committer's thread when it is durable, or when
    /// it is not; until it is durable nobody sees anything of it.
    pub fn submit_for(
        self,
        committer: &Arc<Committer>,
        author: Author,
        flow: &Arc<RunningFlow>,
        then: impl FnOnce(Result<(), &StoreError>) + Send + 'static,
    ) {
        let speculative = flow.may_speculate() && !committer.store.is_congested_for(author.identity);
        flow.submitting();
        let attempt = Some(flow.attempt.clone());
        let flow = flow.clone();
        let watched = committer.clone();
        let progress = self.progress.clone();
        let then = move |result: Result<(), StoreError>| match result {
            Ok(()) => {
                Counters::add(&watched.counters.steps);
                if !progress.is_empty() {
                    flow.show_progress(&progress);
                }
                for (cursor, label) in progress {
                    watched.watchers.publish(flow.row, || crate::api::FlowEvent::Progress { cursor, label });
                }
                then(Ok(()));
                flow.committed();
            }
            Err(error) => {
                then(Err(&error));
                flow.failed(error);
            }
        };
        self.hand_in(committer, author, attempt, speculative, then);
    }

    /// Sends any unit of an identity to the committer.
    pub fn submit(
        self,
        committer: &Arc<Committer>,
        author: Author,
        then: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.hand_in(committer, author, None, false, then);
    }

    fn hand_in(
        self,
        committer: &Arc<Committer>,
        author: Author,
        attempt: Option<AttemptToken>,
        speculative: bool,
        then: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let Unit { ops, mut routes, mut to_broker, depends_on, .. } = self;
        let copies: SmallVec<[Copy; 2]> = match &attempt {
            Some(attempt) if speculative => routes
                .iter_mut()
                .filter_map(|route| route.copy(&committer.router.flows, &committer.store, author.identity, attempt))
                .collect(),
            _ => SmallVec::new(),
        };
        let written = committer.clone();
        let recorded = Recorded::by(&ops);
        let done = Box::new(move |result: Result<Receipt, StoreError>| match result {
            Ok(receipt) => {
                // The recipients first: others may be waiting for what they will do.
                to_broker.extend(routes.into_iter().filter_map(|route| route.written(&written.router, &receipt)));
                if !to_broker.is_empty() {
                    written.outbox.added(to_broker);
                }
                if !receipt.unread.is_empty()
                    && let Some(owner) = written.directory.by_row(author.identity)
                {
                    written.router.unread(&owner, &receipt.unread);
                }
                written.tell_waiting(author.identity, &recorded);
                then(Ok(()));
            }
            Err(error) => {
                written.waking.note_fenced(&error);
                then(Err(error));
            }
        });
        committer.store.submit(CommitUnit { author, attempt, depends_on, ops, done });
        // Only now, so that what a recipient writes comes after it in the queue.
        copies.into_iter().for_each(|copy| copy.send(&committer.router));
    }
}
