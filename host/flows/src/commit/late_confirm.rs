//! Responders whose initiator has ended before it learned of them.
//!
//! A flow that fails or is killed does not wait for sessions that are still initiating; docs/behaviour.md 4.6 has them told on
//! confirmation. The flow is gone by then, so the host tells them, as the flow would have: what it had sent since its
//! initiation, then the error it ended in. The initiation was the initiator's frame 0, so this begins with its frame 1;
//! if the flow itself sent a frame 1, that one is in the responder's inbox already and this one is ignored.
//!
//! The database notes each of them in the very unit that makes it one: that of the confirmation if the flow has ended by then,
//! that of the flow's end if the confirmation lies in its inbox. So whoever dies in between, the note is answered by whoever
//! opens the identity next.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Failure, Flush, Frame, FrameBatch, Outgoing};
use maxhost_model::{ErrorId, ErrorKind, FlowError, Problem, SessionId};
use maxhost_store::{LateConfirm, MessageOp, StoreError, is_last_page};
use prost::Message as _;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::rules::{Rule, holds};
use crate::base::spawner::Spawner;
use crate::base::trouble::backoff;
use crate::commit::committer::Committer;
use crate::commit::outcomes::EndRecord;
use crate::commit::unit::Unit;
use crate::delivery::router::AnswersLateConfirms;
use crate::flow::arrival::confirmation;
use crate::registry::entry::{Errand, IdentityEntry};

/// What answers late confirmations. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct LateConfirms {
    pub committer: Arc<Committer>,
    pub io: Spawner,
    pub clock: Arc<dyn Clock>,
    pub stopping: CancellationToken,
    /// Whoever tells a responder reads what the initiator had sent, and keeps it until it is written: [`AT_ONCE`] do.
    pub room: Arc<Semaphore>,
}

/// So many responders are told at once: each may have two of the network's largest messages in memory.
pub(crate) const AT_ONCE: usize = 4;

impl AnswersLateConfirms for LateConfirms {
    fn undelivered(&self, owner: &Arc<IdentityEntry>, session: SessionId, batch: &FrameBatch) {
        if let Some(responder) = Responder::of(batch) {
            self.answer(owner, Note { session, responder: Some(responder) });
        }
    }

    fn unread(&self, owner: &Arc<IdentityEntry>, session: SessionId, body: &Bytes) {
        self.answer(owner, Note::read(owner, session, body));
    }
}

impl LateConfirms {
    fn answer(&self, owner: &Arc<IdentityEntry>, note: Note) {
        if holds(Rule::LateConfirmationsAreAnswered) {
            self.io.spawn(tell(self.clone(), owner.clone(), note));
        }
    }
}

/// When an identity was claimed: answers what is noted for it. Nothing waits for the answers.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn sweep(answers: &LateConfirms, entry: &Arc<IdentityEntry>) -> Result<(), Problem> {
    let page = Page::read(answers, entry, None).await.map_err(Problem::from)?;
    for found in &page.found {
        answers.unread(entry, found.session, &found.body);
    }
    if let Some(after) = page.next {
        answers.io.spawn(answer_the_rest(answers.clone(), entry.clone(), after));
    }
    Ok(())
}

/// Notes that are read at once, at most.
const NOTES: u32 = 256;

/// A page of what is noted.
struct Page {
    found: Vec<LateConfirm>,
    /// Behind which note there may be more.
    next: Option<SessionId>,
}

impl Page {
    async fn read(answers: &LateConfirms, entry: &IdentityEntry, after: Option<SessionId>) -> Result<Page, StoreError> {
        let found = answers.committer.store.late_confirms(entry.row, after, NOTES).await?;
        let is_last = is_last_page(NOTES, found.iter().map(|note| note.body.len()));
        let next = found.last().filter(|_| !is_last).map(|last| last.session);
        Ok(Page { found, next })
    }
}

/// Answers what is noted behind the first page, one responder after the other and a page at a time. One that cannot be told now
/// is tried again beside the others.
async fn answer_the_rest(answers: LateConfirms, entry: Arc<IdentityEntry>, after: SessionId) {
    let _under_way = Errand::of(&entry);
    let (mut after, mut tries) = (Some(after), 0);
    while after.is_some() && entry.is_held() && !answers.stopping.is_cancelled() {
        let page = match Page::read(&answers, &entry, after).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(identity = %entry.text, %error, "late confirmations cannot be read; tried again");
                let again = answers.clock.monotonic() + backoff(tries);
                tries += 1;
                tokio::select! {
                    biased;
                    () = answers.stopping.cancelled() => return,
                    () = answers.clock.sleep_until(again) => continue,
                }
            }
        };
        for found in &page.found {
            let note = Note::read(&entry, found.session, &found.body);
            if try_to_tell(&answers, &entry, &note).await.is_err_and(|error| error.is_retriable()) {
                answers.answer(&entry, note);
            }
        }
        (after, tries) = (page.next, 0);
    }
}

/// What the database notes: somebody has answered the initiation of a session whose flow has ended.
struct Note {
    /// The session of the initiator.
    session: SessionId,
    /// Who waits for an answer. `None`: nobody, so the note only goes. It was no confirmation but a rejection, or it is damaged.
    responder: Option<Responder>,
}

impl Note {
    fn read(owner: &IdentityEntry, session: SessionId, body: &Bytes) -> Note {
        let batch = FrameBatch::decode(body.clone());
        let batch = batch.inspect_err(|error| {
            tracing::error!(identity = %owner.text, %error, "a late confirmation is damaged; its responder is not told");
        });
        Note { session, responder: batch.ok().as_ref().and_then(Responder::of) }
    }
}

/// A responder that is told.
struct Responder {
    party: Arc<str>,
    /// Its side of the session, and the token of that.
    session: SessionId,
    token: u64,
}

impl Responder {
    /// Who has sent a batch, if it is a confirmation.
    fn of(batch: &FrameBatch) -> Option<Responder> {
        let confirm = confirmation(batch)?;
        Some(Responder { party: batch.from.as_str().into(), session: SessionId(confirm.session), token: confirm.token })
    }
}

/// Tells a responder how its initiator has ended. Tried again until it is written, because the responder waits for it.
async fn tell(answers: LateConfirms, owner: Arc<IdentityEntry>, note: Note) {
    let _under_way = Errand::of(&owner);
    let mut tries = 0;
    // Under the claim that is known at each try: the identity may have been claimed anew meanwhile.
    while let Err(error) = try_to_tell(&answers, &owner, &note).await {
        if !error.is_retriable() {
            tracing::debug!(identity = %owner.text, %error, "a note of a late confirmation is left to others");
            return;
        }
        tracing::warn!(identity = %owner.text, %error, "a responder could not be told that its initiator has ended");
        let again = answers.clock.monotonic() + backoff(tries);
        tries += 1;
        tokio::select! {
            biased;
            () = answers.stopping.cancelled() => return,
            () = answers.clock.sleep_until(again) => {}
        }
    }
}

async fn try_to_tell(answers: &LateConfirms, owner: &Arc<IdentityEntry>, note: &Note) -> Result<(), StoreError> {
    let _room = answers.room.acquire().await.map_err(|_| StoreError::Closed)?;
    let author = owner.author();
    let mut unit = Unit::default();
    unit.op(MessageOp::AnswerLateConfirm { session: note.session });
    if let Some(responder) = &note.responder {
        let outgoing = last_words(answers, owner, note.session, responder).await?;
        unit.last_words(&answers.committer, Flush { outgoing, ..Flush::default() });
    }
    let (told, result) = oneshot::channel();
    unit.submit(&answers.committer, author, move |result| drop(told.send(result)));
    result.await.unwrap_or(Err(StoreError::Closed))
}

/// What a flow that has ended would have sent to a responder.
async fn last_words(
    answers: &LateConfirms,
    owner: &IdentityEntry,
    dead: SessionId,
    responder: &Responder,
) -> Result<Vec<Outgoing>, StoreError> {
    let record = answers.committer.store.flow(dead.flow()).await?.filter(|record| record.identity == owner.row);
    let end = record.and_then(|record| EndRecord::decode_stored(&record.end?)).unwrap_or_default();
    let error = end.error.as_ref().map(Failure::to_error).unwrap_or_else(|| FlowError {
        error_id: Some(ErrorId(dead.0 as u64)),
        ..FlowError::new(ErrorKind::UnexpectedEnd, "the initiator has ended")
    });
    let held = end.held(dead.index()).iter().map(|payload| Frame::data(payload.clone()));
    // A batch each: together they may be more than a broker takes at once.
    let frames = held.chain([Frame::error(&error)]);
    let outgoing = frames.zip(1..).map(|(frame, seq)| Outgoing::Deliver {
        party: responder.party.clone(),
        session: responder.session,
        seq,
        batch: FrameBatch { from: owner.text.to_string(), frames: vec![frame], token: responder.token },
    });
    Ok(outgoing.collect())
}
