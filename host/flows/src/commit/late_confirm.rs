//! Responders whose initiator has ended before it learned of them.
//!
//! A flow that fails or is killed does not wait for sessions that are still initiating; docs/behaviour.md 4.6 has them told on
//! confirmation. The flow is gone by then, so the host tells them, as the flow would have: what it had sent since its
//! initiation, then the error it ended in. The initiation was the initiator's frame 0, so this begins with its frame 1;
//! if the flow itself sent a frame 1, that one is in the responder's inbox already and this one is ignored.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::wire::session_token;
use maxhost_journal::{Failure, Flush, Frame, FrameBatch, Origin, Outgoing, StartRecord};
use maxhost_model::{ErrorId, ErrorKind, FlowError, FlowRow, Problem, SessionId};
use maxhost_store::{FlowRecord, LateConfirm, MessageOp, Store, StoreError, each_start, is_last_page};
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
use crate::flow::arrival::{Arrival, confirmation};
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
    fn answer(&self, owner: &Arc<IdentityEntry>, session: SessionId, batch: &FrameBatch, noted: bool) {
        if let Some(word) = Word::of(session, batch, noted) {
            self.io.spawn(tell(self.clone(), owner.clone(), word));
        }
    }
}

impl LateConfirms {
    /// A flow has ended without having read these arrivals: they came while it ended. One that is not written yet comes
    /// after the end in the committer's queue; its unit learns that it was not delivered.
    pub fn untaken<'a>(&self, owner: &Arc<IdentityEntry>, row: FlowRow, arrivals: impl Iterator<Item = &'a Arrival>) {
        let is_written =
            |arrival: &&Arrival| arrival.runner.as_ref().is_none_or(|runner| runner.speculation.is_written());
        for arrival in arrivals.filter(is_written) {
            self.answer(owner, row.session(arrival.session), &arrival.batch, false);
        }
    }
}

/// After a start of the host: finds the responders of an identity whose initiator, on this host too, has ended without
/// a word to them, because the host was killed between the two.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn sweep(answers: &LateConfirms, entry: &Arc<IdentityEntry>, rows: &[FlowRow]) -> Result<(), Problem> {
    let notes = Notes::read(&answers.committer.store, entry, None).await.map_err(Problem::from)?;
    for (session, batch) in notes.readable(entry) {
        answers.answer(entry, session, &batch, true);
    }
    if let Some(after) = notes.next {
        answers.io.spawn(answer_the_rest(answers.clone(), entry.clone(), after));
    }
    for rows in rows.chunks(FLOWS) {
        let waiting = responders(&answers.committer.store, rows).await?;
        let initiators: Vec<FlowRow> = waiting.iter().map(|waiting| waiting.initiator.flow()).collect();
        let (initiators, damaged) = readable(&answers.committer.store, &initiators).await?;
        // Of one that is damaged nobody knows whether it has ended.
        let waiting = waiting.into_iter().filter(|waiting| !damaged.contains(&waiting.initiator.flow()));
        for Waiting { responder, token, from, initiator: session } in waiting {
            let Some(owner) = answers.committer.directory.get(&from).filter(|owner| owner.is_held()) else { continue };
            // Rows are numbered by database: one of another identity is not the initiator.
            let lives =
                |flow: &FlowRecord| flow.row == session.flow() && flow.identity == owner.row && flow.state.is_live();
            if !initiators.iter().any(lives) {
                let party = entry.text.clone();
                let word = Word { dead: session, party, confirmed: responder, token, noted: false };
                // Tried again beside the opening, which must not wait: there may be no room before the identity is open.
                if try_to_tell(answers, &owner, &word).await.is_err() {
                    answers.io.spawn(tell(answers.clone(), owner, word));
                }
            }
        }
    }
    Ok(())
}

/// Notes that are read at once, at most.
const NOTES: u32 = 256;
/// Flows that are looked at together.
const FLOWS: usize = 512;

/// A page of what is noted.
struct Notes {
    found: Vec<LateConfirm>,
    /// Behind which note there may be more.
    next: Option<SessionId>,
}

impl Notes {
    async fn read(store: &Store, entry: &IdentityEntry, after: Option<SessionId>) -> Result<Notes, StoreError> {
        let found = store.late_confirms(entry.row, after, NOTES).await?;
        let is_last = is_last_page(NOTES, found.iter().map(|note| note.body.len()));
        let next = found.last().filter(|_| !is_last).map(|last| last.session);
        Ok(Notes { found, next })
    }

    fn readable<'a>(&'a self, entry: &'a IdentityEntry) -> impl Iterator<Item = (SessionId, FrameBatch)> + 'a {
        self.found.iter().filter_map(|note| match FrameBatch::decode(note.body.clone()) {
            Ok(batch) => Some((note.session, batch)),
            Err(error) => {
                tracing::error!(identity = %entry.text, %error, "a late confirmation is damaged");
                None
            }
        })
    }
}

/// Answers what is noted behind the first page, one responder after the other and a page at a time. One that cannot be told now
/// is tried again beside the others.
async fn answer_the_rest(answers: LateConfirms, entry: Arc<IdentityEntry>, after: SessionId) {
    let _under_way = Errand::of(&entry);
    let (mut after, mut tries) = (Some(after), 0);
    while after.is_some() && entry.is_held() && !answers.stopping.is_cancelled() {
        let notes = match Notes::read(&answers.committer.store, &entry, after).await {
            Ok(notes) => notes,
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
        for (session, batch) in notes.readable(&entry) {
            let Some(word) = Word::of(session, &batch, true) else { continue };
            if try_to_tell(&answers, &entry, &word).await.is_err_and(|error| error.is_retriable()) {
                answers.io.spawn(tell(answers.clone(), entry.clone(), word));
            }
        }
        (after, tries) = (notes.next, 0);
    }
}

/// Those of these flows that were started by a peer.
async fn responders(store: &Store, rows: &[FlowRow]) -> Result<Vec<Waiting>, Problem> {
    let mut waiting = Vec::new();
    match each_start(&**store, rows, |row, start| waiting.extend(initiator_of(row, &start))).await {
        Err(StoreError::Corrupt { .. }) => waiting.clear(),
        read => return read.map(|()| waiting).map_err(Problem::from),
    }
    for row in rows {
        match store.starts(&[*row]).await {
            Ok(found) => waiting.extend(found.iter().filter_map(|(row, start)| initiator_of(*row, start))),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(flow = row.0, %error, "the row of a flow is damaged");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(waiting)
}

/// The flows of these rows, and the rows that are damaged. They may be another identity's, and keep nobody from being opened.
async fn readable(store: &Store, rows: &[FlowRow]) -> Result<(Vec<FlowRecord>, Vec<FlowRow>), Problem> {
    match store.flows(rows).await {
        Err(StoreError::Corrupt { .. }) => {}
        read => return read.map(|records| (records, Vec::new())).map_err(Problem::from),
    }
    let (mut records, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match store.flow(*row).await {
            Ok(record) => records.extend(record),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(flow = row.0, %error, "the row of a flow is damaged");
                damaged.push(*row);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((records, damaged))
}

/// A responder and its initiator.
struct Waiting {
    responder: SessionId,
    /// The token of the responder's session.
    token: u64,
    from: String,
    initiator: SessionId,
}

fn initiator_of(row: FlowRow, start: &Bytes) -> Option<Waiting> {
    let start = StartRecord::decode(start).ok()?;
    match start.origin {
        Origin::Peer(initiation) => Some(Waiting {
            responder: row.session(0),
            token: session_token(&start.seed, 0, &initiation.from),
            initiator: SessionId(initiation.from_session),
            from: initiation.from,
        }),
        Origin::Rpc { .. } => None,
    }
}

/// What a responder is told, and by whom.
struct Word {
    /// The session of the initiator that has ended.
    dead: SessionId,
    /// The responder.
    party: Arc<str>,
    /// The session that the responder confirmed, and its token.
    confirmed: SessionId,
    token: u64,
    /// The database notes that the confirmation is to be answered.
    noted: bool,
}

impl Word {
    /// What answers a confirmation that came for this session, if it is one.
    fn of(session: SessionId, batch: &FrameBatch, noted: bool) -> Option<Word> {
        let confirm = confirmation(batch).filter(|_| holds(Rule::LateConfirmationsAreAnswered))?;
        let (party, confirmed, token) = (batch.from.as_str().into(), SessionId(confirm.session), confirm.token);
        Some(Word { dead: session, party, confirmed, token, noted })
    }
}

/// Tells a responder how its initiator has ended. Tried again until it is written, because the responder waits for it.
async fn tell(answers: LateConfirms, owner: Arc<IdentityEntry>, word: Word) {
    let _under_way = Errand::of(&owner);
    let mut tries = 0;
    // Under the claim that is known at each try: the identity may have been claimed anew meanwhile.
    while let Err(error) = try_to_tell(&answers, &owner, &word).await {
        tracing::warn!(identity = %owner.text, %error, "a responder could not be told that its initiator has ended");
        if !error.is_retriable() {
            return;
        }
        let again = answers.clock.monotonic() + backoff(tries);
        tries += 1;
        tokio::select! {
            biased;
            () = answers.stopping.cancelled() => return,
            () = answers.clock.sleep_until(again) => {}
        }
    }
}

async fn try_to_tell(answers: &LateConfirms, owner: &Arc<IdentityEntry>, word: &Word) -> Result<(), StoreError> {
    let _room = answers.room.acquire().await.map_err(|_| StoreError::Closed)?;
    let author = owner.author();
    let Word { dead, ref party, confirmed, token, noted } = *word;
    let record = answers.committer.store.flow(dead.flow()).await?.filter(|record| record.identity == owner.row);
    if record.as_ref().is_some_and(|record| record.state.is_live()) {
        // It finds the confirmation in its inbox.
        return Ok(());
    }
    let end = record.and_then(|record| EndRecord::decode_stored(&record.end?)).unwrap_or_default();
    let error = end.error.as_ref().map(Failure::to_error).unwrap_or_else(|| FlowError {
        error_id: Some(ErrorId(dead.0 as u64)),
        ..FlowError::new(ErrorKind::UnexpectedEnd, "the initiator has ended")
    });
    let held = end.held(dead.index()).iter().map(|payload| Frame::data(payload.clone()));
    // A batch each: together they may be more than a broker takes at once.
    let frames = held.chain([Frame::error(&error)]);
    let outgoing = frames.zip(1..).map(|(frame, seq)| Outgoing::Deliver {
        party: party.clone(),
        session: confirmed,
        seq,
        batch: FrameBatch { from: owner.text.to_string(), frames: vec![frame], token },
    });
    let outgoing = outgoing.collect();
    let mut unit = Unit::default();
    if noted {
        unit.op(MessageOp::AnswerLateConfirm { session: dead });
    }
    unit.last_words(&answers.committer, Flush { outgoing, ..Flush::default() });
    let (told, result) = oneshot::channel();
    unit.submit(&answers.committer, author, move |result| drop(told.send(result)));
    result.await.unwrap_or(Err(StoreError::Closed))
}
