//! `maxhost ledger`: the transactions of an identity.

use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};

use crate::cli::LedgerCommand;
use crate::context::{Context, Outcome};
use crate::render;

/// Does what was typed.
pub fn execute(context: &Context, command: LedgerCommand) -> Outcome {
    let client = context.client()?;
    match command {
        LedgerCommand::Show { id, identity } => {
            let request = pb::GetTransactionRequest { identity, id, encoding: pb::Encoding::Json.into() };
            let shown = transaction(&context.block_on(client.get_transaction(request))?);
            context.out.object(&shown, || render::lines(&shown));
        }
        LedgerCommand::List { identity, limit, cursor } => {
            let request = pb::ListTransactionsRequest { identity, limit, cursor };
            let answer = context.block_on(client.list_transactions(request))?;
            let mut listed: Vec<Value> = answer.transactions.iter().map(summary).collect();
            if context.out.is_json() {
                listed.extend(answer.cursor.map(|cursor| json!({ "cursor": cursor })));
                context.out.list(&listed, &[], |_| Vec::new());
                return Ok(0);
            }
            context.out.list(&listed, &["ID", "STATUS", "RECORDED"], |one| {
                vec![render::cell(one, "id"), render::cell(one, "status"), render::cell(one, "recorded")]
            });
            if let Some(cursor) = answer.cursor {
                context.out.note(&format!("there are more: --cursor {cursor}"));
            }
        }
        LedgerCommand::Graph { id, identity, limit } => {
            let nodes = context.block_on(client.graph(pb::LedgerGraphRequest { identity, id, limit }))?.nodes;
            let nodes: Vec<Value> = nodes
                .iter()
                .map(|node| json!({ "id": node.id, "status": node.status, "depth": node.depth, "parents": node.parents }))
                .collect();
            context.out.list(&nodes, &["DEPTH", "ID", "STATUS"], |node| {
                vec![render::plain(&node["depth"]), render::cell(node, "id"), render::cell(node, "status")]
            });
        }
    }
    Ok(0)
}

fn summary(summary: &pb::TransactionSummary) -> Value {
    json!({ "id": summary.id, "status": summary.status, "recorded": render::time(summary.recorded) })
}

fn transaction(shown: &pb::GetTransactionResponse) -> Value {
    let about = shown.summary.clone().unwrap_or_default();
    let outputs = shown.outputs.iter().map(|output| {
        json!({
            "type": output.r#type,
            "state": output.state.as_ref().map_or(Value::Null, render::payload),
            "notary": output.notary,
            "constraint": output.constraint,
            "encumbrance": output.encumbrance,
        })
    });
    let commands = shown.commands.iter().map(|command| {
        json!({ "type": command.r#type, "value": command.value.as_ref().map_or(Value::Null, render::payload), "signers": command.signers })
    });
    let signatures = shown.signatures.iter().map(|signature| json!({ "by": signature.by, "key": signature.key }));
    json!({
        "id": about.id,
        "status": about.status,
        "recorded": render::time(about.recorded),
        "inputs": shown.inputs,
        "references": shown.references,
        "outputs": outputs.collect::<Vec<_>>(),
        "commands": commands.collect::<Vec<_>>(),
        "attachments": shown.attachments,
        "time_window": shown.time_window.as_ref().map(|window| json!({ "from": window.from, "until": window.until })),
        "notary": shown.notary,
        "signatures": signatures.collect::<Vec<_>>(),
    })
}
