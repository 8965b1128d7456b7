//! `maxhost ledger`: the transactions of an identity.

use std::collections::{BTreeMap, BTreeSet};

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
            context.out.object(&shown, || shown_tree(&shown));
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
        LedgerCommand::WhyInvalid { id, identity } => {
            let answer = context.block_on(client.examine(pb::ExamineRequest { identity, id }))?;
            let examined = examination(&answer);
            context.out.object(&examined, || examined_tree(&answer));
        }
        LedgerCommand::Graph { id, identity, limit } => {
            let found = context.block_on(client.graph(pb::LedgerGraphRequest { identity, id, limit }))?.nodes;
            let shown: BTreeSet<&String> = found.iter().map(|node| &node.id).collect();
            let has_more = found.iter().flat_map(|node| &node.parents).any(|parent| !shown.contains(parent));
            let nodes: Vec<Value> = found
                .iter()
                .map(|node| json!({ "id": node.id, "status": node.status, "depth": node.depth, "parents": node.parents }))
                .collect();
            context.out.list(&nodes, &["DEPTH", "ID", "STATUS"], |node| {
                vec![render::plain(&node["depth"]), render::cell(node, "id"), render::cell(node, "status")]
            });
            if has_more {
                context.out.note("there are more: name a higher --limit");
            }
        }
    }
    Ok(0)
}

fn summary(summary: &pb::TransactionSummary) -> Value {
    json!({ "id": summary.id, "status": summary.status, "recorded": render::time(summary.recorded) })
}

fn examination(answer: &pb::ExamineResponse) -> Value {
    let about = answer.summary.clone().unwrap_or_default();
    let checks = answer.checks.iter().map(|check| {
        json!({
            "what": check.what,
            "subject": check.subject,
            "ok": check.code.is_none(),
            "code": check.code,
            "message": check.code.as_ref().map(|_| &check.message),
            "details": check.details.iter().collect::<BTreeMap<_, _>>(),
        })
    });
    json!({
        "id": about.id,
        "status": about.status,
        "valid": answer.valid,
        "checks": checks.collect::<Vec<_>>(),
    })
}

/// What was checked, each on a line below the transaction; what is wrong says so in a line of its own.
fn examined_tree(answer: &pb::ExamineResponse) -> String {
    let about = answer.summary.clone().unwrap_or_default();
    let verdict = if answer.valid { "valid: nothing is wrong with it" } else { "not valid" };
    let branches = answer.checks.iter().map(|check| {
        let word = if check.code.is_none() { "ok" } else { "wrong" };
        let wrong = check.code.iter().map(|code| format!("{} [{code}]", render::printable(&check.message)));
        (format!("{} {}: {word}", check.what, render::printable(&check.subject)), wrong.collect())
    });
    tree(&format!("{} ({}) is {verdict}", about.id, about.status), branches.collect())
}

/// A transaction with its parts below it, those of one kind together; kinds of which there are none are left out.
fn shown_tree(shown: &Value) -> String {
    let list = |field: &str| shown[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = |field: &str| list(field).iter().map(render::plain).collect::<Vec<_>>();
    let outputs = list("outputs").iter().enumerate().map(|(index, output)| {
        let (kind, state) = (render::cell(output, "type"), render::cell(output, "state"));
        let held = output["encumbrance"].as_u64().map(|other| format!(", spent with output {other} only"));
        format!("{index} {kind} {state}{}", held.unwrap_or_default())
    });
    let commands = list("commands").iter().map(|command| {
        let value = Some(&command["value"]).filter(|value| !value.is_null()).map(|_| render::cell(command, "value"));
        let signers: Vec<String> = command["signers"].as_array().into_iter().flatten().map(render::plain).collect();
        format!(
            "{} {}signed by {}",
            render::cell(command, "type"),
            value.map_or_else(String::new, |value| value + " "),
            signers.join("; ")
        )
    });
    let signatures = list("signatures").iter().map(|one| match one["by"].as_str() {
        Some(by) => format!("{} (key {})", render::printable(by), render::cell(one, "key")),
        None => format!("key {}", render::cell(one, "key")),
    });
    let kinds = [
        ("inputs", lines("inputs")),
        ("references", lines("references")),
        ("outputs", outputs.collect()),
        ("commands", commands.collect()),
        ("attachments", lines("attachments")),
        ("signatures", signatures.collect()),
    ];
    let mut branches = vec![(format!("recorded {}", render::cell(shown, "recorded")), Vec::new())];
    if !shown["notary"].is_null() {
        branches.push((format!("notary {}", render::cell(shown, "notary")), Vec::new()));
    }
    if !shown["new_notary"].is_null() {
        branches.push((format!("new notary {}", render::cell(shown, "new_notary")), Vec::new()));
    }
    if !shown["time_window"].is_null() {
        branches.push((format!("time-window {}", render::plain(&shown["time_window"])), Vec::new()));
    }
    branches.extend(kinds.into_iter().filter(|(_, of)| !of.is_empty()).map(|(kind, of)| (kind.to_owned(), of)));
    tree(&format!("{} ({})", render::cell(shown, "id"), render::cell(shown, "status")), branches)
}

/// A root with branches, and leaves on these.
fn tree(root: &str, branches: Vec<(String, Vec<String>)>) -> String {
    let mut text = root.to_owned();
    let sign = |is_last: bool| if is_last { "└─" } else { "├─" };
    let last = branches.len().saturating_sub(1);
    for (index, (branch, leaves)) in branches.iter().enumerate() {
        text.push_str(&format!("\n{} {branch}", sign(index == last)));
        let below = if index == last { "  " } else { "│ " };
        let last_leaf = leaves.len().saturating_sub(1);
        for (leaf, line) in leaves.iter().enumerate() {
            text.push_str(&format!("\n{below} {} {line}", sign(leaf == last_leaf)));
        }
    }
    text
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
        "new_notary": shown.new_notary,
        "signatures": signatures.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_branches_and_leaves() {
        let branches =
            vec![("one".to_owned(), vec!["a".to_owned(), "b".to_owned()]), ("two".to_owned(), vec!["c".to_owned()])];
        assert_eq!(tree("root", branches), "root\n├─ one\n│  ├─ a\n│  └─ b\n└─ two\n   └─ c");
    }
}
