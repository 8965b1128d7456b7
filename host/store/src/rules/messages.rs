//! The rules of messages. A message is always in an outbox, in the broker or in an inbox: what cannot be written to its
//! recipient in this unit, because this run does not hold the recipient, becomes an outbox row of the same unit.

use bytes::Bytes;
use maxhost_group_commit::Failure;
use maxhost_model::{IdentityRow, SessionId};
use smallvec::SmallVec;

use crate::backlog::Waiting;
use crate::claim::Recipient;
use crate::conflict::Conflict;
use crate::error::StoreError;
use crate::op::{MessageOp, Op};
use crate::record::OutboxContent;
use crate::rows::Rows;
use crate::rules::{Failed, done, refuse};
use crate::unit::Receipt;

/// Whether there is room for all messages of a unit, whatever becomes of them.
pub(super) fn admit<R: Rows>(rows: &mut R, author: IdentityRow, ops: &[Op]) -> Result<(), Failed> {
    let mut inbound: SmallVec<[(IdentityRow, Waiting); 2]> = SmallVec::new();
    let mut outbound = Waiting::default();
    for op in ops {
        let Op::Message(op) = op else { continue };
        let (to, body) = match op {
            MessageOp::Deliver { to, body, .. } | MessageOp::Initiate { to, body, .. } => (Some(to), body),
            MessageOp::Outbox { body, .. } => (None, body),
            _ => continue,
        };
        let waiting = match to {
            Some(to) if is_held(rows, to)? => match inbound.iter().position(|(identity, _)| *identity == to.identity) {
                Some(place) => &mut inbound[place].1,
                None => {
                    inbound.push((to.identity, Waiting::default()));
                    let last = inbound.len() - 1;
                    &mut inbound[last].1
                }
            },
            _ => &mut outbound,
        };
        waiting.messages += 1;
        waiting.bytes += body.len() as u64;
    }
    for (identity, waiting) in inbound {
        rows.backlog().admit_inbound(identity, waiting).map_err(Failure::Unit)?;
    }
    if outbound != Waiting::default() {
        rows.backlog().admit_outbound(author, outbound).map_err(Failure::Unit)?;
    }
    Ok(())
}

/// Whether this run holds the recipient under the claim that the sender knew.
fn is_held<R: Rows>(rows: &mut R, to: &Recipient) -> Result<bool, Failed> {
    match rows.claim(to.identity)? {
        Some(current) => Ok(current == to.claim && current.run == rows.run()),
        None => Err(refuse(Conflict::IdentityUnknown(to.identity))),
    }
}

pub(super) fn apply<R: Rows>(
    rows: &mut R,
    identity: IdentityRow,
    index: usize,
    op: &MessageOp,
    receipt: &mut Receipt,
) -> Result<(), Failed> {
    match op {
        MessageOp::Deliver { to, session, seq, body, confirms } => {
            if !is_held(rows, to)? {
                receipt.outboxed.push(index);
                let content = OutboxContent::Delivery { session: *session, seq: *seq, body: body.clone() };
                return leave_for_relay(rows, identity, to, content);
            }
            if rows.live_flow(session.flow())? == Some(to.identity) {
                return deliver(rows, to.identity, *session, *seq, body);
            }
            receipt.undelivered.push(index);
            if *confirms && rows.add_late_confirm(to.identity, *session, body)? {
                rows.backlog().initiated(to.identity, body.len() as u64);
            }
            Ok(())
        }
        MessageOp::Initiate { to, id, body } => {
            if !is_held(rows, to)? {
                receipt.outboxed.push(index);
                return leave_for_relay(rows, identity, to, OutboxContent::Initiation { body: body.clone() });
            }
            let new = rows.observe_initiation(*id);
            done(rows.add_initiation(to.identity, *id, body, new)?, Conflict::InitiationExists(*id))?;
            rows.backlog().initiated(to.identity, body.len() as u64);
            Ok(())
        }
        MessageOp::TakeInitiation { id } => {
            let bytes = rows.take_initiation(identity, *id)?;
            let bytes = bytes.ok_or_else(|| refuse(Conflict::InitiationGone(*id)))?;
            rows.backlog().initiation_taken(identity, bytes);
            Ok(())
        }
        MessageOp::AnswerLateConfirm { session } => {
            let bytes = rows.take_late_confirm(identity, *session)?;
            let bytes = bytes.ok_or_else(|| refuse(Conflict::LateConfirmGone(*session)))?;
            rows.backlog().initiation_taken(identity, bytes);
            Ok(())
        }
        MessageOp::Outbox { destination, message_id, body } => {
            let content = OutboxContent::Message { message_id: *message_id, body: body.clone() };
            leave(rows, identity, destination, content)
        }
        MessageOp::OutboxSent { id, marker } => {
            if let Some(bytes) = rows.take_outbox(identity, *id, *marker)? {
                rows.backlog().sent(identity, bytes);
            }
            Ok(())
        }
        MessageOp::Arrived { message_id } => match rows.add_processed(identity, message_id)? {
            true => Ok(()),
            false => Err(Failure::Unit(StoreError::Duplicate)),
        },
    }
}

fn deliver<R: Rows>(rows: &mut R, to: IdentityRow, session: SessionId, seq: u32, body: &Bytes) -> Result<(), Failed> {
    // A message that is there already is the same message.
    if rows.add_message(session, seq, body)?
        && let Some(waiting) = rows.backlog().delivered(to, session.flow(), body.len() as u64)
    {
        rows.note_waiting(session.flow(), waiting)?;
    }
    Ok(())
}

/// The recipient is another run's, or nobody's: the relay brings it the message.
fn leave_for_relay<R: Rows>(
    rows: &mut R,
    sender: IdentityRow,
    to: &Recipient,
    content: OutboxContent,
) -> Result<(), Failed> {
    let recipient = rows.identity(to.identity)?.ok_or_else(|| refuse(Conflict::IdentityUnknown(to.identity)))?;
    leave(rows, sender, &recipient.name, content)
}

fn leave<R: Rows>(rows: &mut R, sender: IdentityRow, destination: &str, content: OutboxContent) -> Result<(), Failed> {
    rows.add_outbox(sender, destination, &content)?;
    rows.backlog().left_for_broker(sender, content.body().len() as u64);
    Ok(())
}
