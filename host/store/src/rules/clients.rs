//! The rules of client ids: each user has names of his own, at each identity.

use maxhost_model::IdentityRow;

use crate::conflict::Conflict;
use crate::op::ClientOp;
use crate::rows::Rows;
use crate::rules::{Failed, done, refuse};

pub(super) fn apply<R: Rows>(rows: &mut R, identity: IdentityRow, op: &ClientOp) -> Result<(), Failed> {
    let ClientOp::Remove { user, client_id } = op;
    let flow = rows.client(identity, user, client_id)?.ok_or_else(|| refuse(Conflict::ClientUnknown))?;
    done(rows.drop_ended(identity, flow)?, Conflict::ClientRunning(flow))?;
    rows.remove_client(identity, user, client_id)?;
    Ok(())
}
