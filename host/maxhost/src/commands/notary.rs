//! `maxhost notary`.

use maxhost_rpc::proto::v1 as pb;
use serde_json::json;

use crate::cli::NotaryCommand;
use crate::context::{Context, Outcome};
use crate::render;

/// Does what was typed.
pub fn execute(context: &Context, command: NotaryCommand) -> Outcome {
    let NotaryCommand::Status { identity } = command;
    let client = context.client()?;
    let status = context.block_on(client.notary_status(pb::NotaryStatusRequest { identity }))?;
    let object = json!({
        "validating": status.validating,
        "committed": status.committed,
        "conflicts": status.conflicts,
        "states": status.states,
        "queue": status.queue,
    });
    context.out.object(&object, || render::lines(&object));
    Ok(0)
}
