//! Tokens where several workers answer for hosts that come and go.

use std::fs;

use maxhost_tests::{ALICE, BOB, cli, eventually};
use serde_json::{Value, json};

use crate::cluster::{Cluster, WellServers};

const WORKERS: [&str; 2] = ["rpc-1", "rpc-2"];

/// Adds a user to the file that all workers read.
fn add_user(cluster: &Cluster<'_>, name: &str, password: &str, words: &[&str]) {
    let mut command = cluster.command("rpc-1", &["user", "add", name]);
    command.args(words);
    let _user = cli::answer(command, Some(&format!("{password}\n"))).ok();
}

/// Makes a token and keeps it in a file; gives its id.
fn token(cluster: &Cluster<'_>, file: &str, words: &[&str]) -> String {
    let path = cluster.network.path(file).display().to_string();
    let command = cluster.command("rpc-1", &[&["token", "new", "--file", &path], words].concat());
    cli::answer(command, None).ok().object()["id"].as_str().unwrap().to_owned()
}

/// What a worker answers to whoever has the token in this file.
fn with_token(cluster: &Cluster<'_>, worker: &str, file: &str, words: &[&str]) -> cli::Answer {
    let mut command = cluster.command(worker, words);
    command.env("MAXHOST_TOKEN_FILE", cluster.network.path(file));
    cli::answer(command, None)
}

fn with_password(cluster: &Cluster<'_>, worker: &str, (user, password): (&str, &str), words: &[&str]) -> cli::Answer {
    let mut command = cluster.command(worker, words);
    command.env("MAXHOST_USER", user).env("MAXHOST_PASSWORD", password);
    cli::answer(command, None)
}

/// A start under a client id, by whoever has the token in this file. No host may be there yet: under its client id it is the same
/// start whenever it is repeated.
async fn start(
    cluster: &Cluster<'_>,
    worker: &str,
    file: &str,
    (client_id, identity): (&str, &str),
    beats: u32,
) -> Value {
    let arguments = json!({"beats": beats, "interval_ms": 100}).to_string();
    let words = ["flow", "start", "--identity", identity, "--client-id", client_id, "heartbeat/beat", &arguments];
    eventually(&format!("{client_id} starts"), async || {
        let answer = with_token(cluster, worker, file, &words);
        if answer.exit == 0 { Ok(answer.object()) } else { Err(answer.error().to_string()) }
    })
    .await
}

/// Waits until a flow has ended, and gives what the worker shows of it then.
async fn ended(cluster: &Cluster<'_>, worker: &str, file: &str, flow: &str) -> Value {
    eventually(&format!("{flow} ends"), async || {
        let answer = with_token(cluster, worker, file, &["flow", "show", flow]);
        if answer.exit != 0 {
            return Err(answer.error().to_string());
        }
        let shown = answer.object();
        assert!(shown["state"] != "failed" && shown["state"] != "killed", "{shown}");
        if shown["result"].is_null() { Err(shown.to_string()) } else { Ok(shown) }
    })
    .await
}

/// A token is its user at every worker, whichever host runs what it starts, and at none any more when it is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_at_every_worker_whichever_host_runs_what_it_starts() {
    let Some(servers) = WellServers::take().await else { return };
    let mut cluster = Cluster::new(&servers, 0, "tokens", "/maxhost/tokens");
    cluster.more = format!("[rpc.users]\nfile = \"{}\"\n", cluster.network.path("users.toml").display());
    WORKERS.iter().for_each(|worker| drop(cluster.configure(worker)));
    add_user(&cluster, "ann", "secret", &["--permission", "StartFlow.heartbeat/*", "--permission", "Status"]);
    add_user(&cluster, "eve", "other", &["--permission", "StartFlow.heartbeat/*"]);
    add_user(&cluster, "operator", "boss", &["--permission", "ALL"]);
    let whole = token(&cluster, "whole", &["--user", "ann"]);
    let narrow =
        token(&cluster, "narrow", &["--user", "ann", "--permission", "StartFlow.*/beat", "--identity", "Alice"]);
    token(&cluster, "eves", &["--user", "eve"]);
    let _workers = WORKERS.map(|worker| cluster.run_as(worker, "rpc"));
    let first = cluster.run_as("max-1", "flows");

    // Each worker knows whose a token is, and how far it reaches.
    fs::write(cluster.network.path("forged"), format!("mht_{whole}_{}\n", "0".repeat(64))).unwrap();
    for worker in WORKERS {
        cli::answer(cluster.command(worker, &["status"]), None).fails(4, "unauthenticated");
        let _status = with_token(&cluster, worker, "whole", &["status"]).ok();
        with_token(&cluster, worker, "narrow", &["status"]).fails(4, "permission-denied");
        with_token(&cluster, worker, "forged", &["status"]).fails(4, "token-unknown");
        let words = ["flow", "start", "--identity", BOB, "heartbeat/beat", "{\"beats\": 1, \"interval_ms\": 1}"];
        with_token(&cluster, worker, "narrow", &words).fails(3, "identity-not-found");
    }

    // A flow that one worker started for the token is its user's at the other, by another token of his, and by no other user's.
    let begun = start(&cluster, "rpc-1", "narrow", ("order", ALICE), 60).await;
    let flow = begun["flow_id"].as_str().unwrap();
    let again = start(&cluster, "rpc-2", "whole", ("order", ALICE), 60).await;
    assert_eq!((&begun["new"], &again["new"], &again["flow_id"]), (&json!(true), &json!(false), &begun["flow_id"]));
    let eves = start(&cluster, "rpc-2", "eves", ("order", ALICE), 1).await;
    assert!(eves["new"] == true && eves["flow_id"] != begun["flow_id"], "{eves}");
    with_token(&cluster, "rpc-1", "eves", &["flow", "show", flow]).fails(4, "permission-denied");

    // The host that runs it dies: the next one goes on with it, and the token's user is told the result.
    first.kill_9();
    let _second = cluster.run_as("max-2", "flows");
    let shown = ended(&cluster, "rpc-2", "whole", flow).await;
    assert_eq!(shown["result"], json!({"beats": 60}), "{shown}");

    // Revoked, it lets nobody in at either worker. What it has started goes on, and is its user's.
    let begun = start(&cluster, "rpc-2", "narrow", ("late", ALICE), 40).await;
    let late = begun["flow_id"].as_str().unwrap();
    let _revoked = cli::answer(cluster.command("rpc-1", &["token", "revoke", &narrow]), None).ok();
    for worker in WORKERS {
        eventually(&format!("{worker} knows that it is revoked"), async || {
            let answer = with_token(&cluster, worker, "narrow", &["flow", "show", late]);
            let is_refused = answer.exit != 0 && answer.error()["code"] == "token-revoked";
            if is_refused { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
    let shown = ended(&cluster, "rpc-1", "whole", late).await;
    assert_eq!(shown["result"], json!({"beats": 40}), "{shown}");

    // The trail, which all share, says by which token and at which worker.
    eventually("the starts are in the trail", async || {
        let answer = with_password(&cluster, "rpc-1", ("operator", "boss"), &["audit", "list", "--since", "1h"]);
        let rows = answer.ok().objects();
        let has = |worker: &str, token: &str| {
            rows.iter().any(|row| {
                row["host"] == worker && row["token"] == token && row["user"] == "ann" && row["action"] == "StartFlow"
            })
        };
        match has("rpc-1", &narrow) && has("rpc-2", &narrow) && has("rpc-2", &whole) {
            true => Ok(()),
            false => Err(format!("{rows:#?}")),
        }
    })
    .await;
}
