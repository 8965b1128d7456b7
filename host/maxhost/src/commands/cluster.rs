//! `maxhost cluster` and `maxhost host`: the hosts that share identities.

use std::future::Future;
use std::time::Duration;

use maxhost_model::Problem;
use maxhost_ownership_zookeeper::{adopt, replace_database, replace_further_database};
use maxhost_pki::NetworkMap;
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};

use crate::cli::{ClusterCommand, HostCommand};
use crate::context::{Context, Outcome};
use crate::{foundation, render};

/// How often what is watched is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Does what was typed.
pub fn execute(context: &Context, command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Status { watch: false } => status(context),
        ClusterCommand::Status { watch: true } => watch(context, cluster, |_, now| text(now)),
        ClusterCommand::Adopt => adopt_cluster(context),
    }
}

/// As [`execute`], of one host.
pub fn execute_host(context: &Context, command: HostCommand) -> Outcome {
    match command {
        HostCommand::List => list(context),
        HostCommand::Drain { name } => drain(context, name, true),
        HostCommand::Undrain { name } => drain(context, name, false),
    }
}

fn status(context: &Context) -> Outcome {
    let client = context.client()?;
    let status = context.block_on(cluster(client))?;
    context.out.object(&status, || text(&status));
    Ok(0)
}

async fn cluster(client: Client) -> Result<Value, Problem> {
    Ok(render::cluster_status(&client.cluster_status(pb::ClusterStatusRequest {}).await?))
}

/// Shows something whenever it has changed, until it is interrupted or the time that `--timeout` gives is over.
///
/// # Errors
/// `timeout`; the first look fails. Later failures are told and it goes on: hosts come and go.
pub fn watch<F: Future<Output = Result<Value, Problem>>>(
    context: &Context,
    look: impl Fn(Client) -> F,
    text: impl Fn(&Value, &Value) -> String,
) -> Outcome {
    let client = context.client()?;
    context.block_on_endless(async {
        let (mut shown, mut failed) = (Value::Null, false);
        loop {
            match look(client.clone()).await {
                Ok(now) => {
                    failed = false;
                    if now != shown {
                        context.out.object(&now, || text(&shown, &now));
                        shown = now;
                    }
                }
                Err(problem) if shown.is_null() => return Err(problem),
                Err(problem) => {
                    if !std::mem::replace(&mut failed, true) {
                        context.out.warn(&problem.message);
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

fn text(status: &Value) -> String {
    let mut lines = Vec::new();
    let hosts = status["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    for host in hosts {
        let cell = |field| render::cell(host, field);
        lines.push(format!(
            "host        {}  {}  {}  {} of {}",
            cell("host"),
            cell("state"),
            roles(host),
            cell("identities"),
            cell("slots")
        ));
    }
    let counts = status["identities"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts.map(|(word, count)| format!("{count} {word}")).collect();
    lines.push(format!("identities  {}", counts.join(", ")));
    for unplaced in status["unplaced"].as_array().into_iter().flatten() {
        lines.push(format!("unplaced    {}: {}", render::cell(unplaced, "identity"), render::cell(unplaced, "reason")));
    }
    lines.push(format!("demand      {}", render::cell(status, "demand")));
    let oldest = match status["oldest_message_ms"].as_u64() {
        Some(ms) => format!("waits for {:.1} s", ms as f64 / 1000.0),
        None => "-".to_owned(),
    };
    lines.push(format!("oldest      {oldest}"));
    lines.push(format!("scheduler   {}", render::cell(status, "scheduler")));
    for part in ["broker", "store", "ownership"] {
        let is_ok = if status[part]["ok"] == true { "ok" } else { "not ok" };
        lines.push(format!("{part:<11} {is_ok}: {}", render::cell(&status[part], "detail")));
    }
    lines.join("\n")
}

fn roles(host: &Value) -> String {
    let roles = host["roles"].as_array().into_iter().flatten().filter_map(Value::as_str);
    roles.collect::<Vec<_>>().join(",")
}

fn list(context: &Context) -> Outcome {
    let client = context.client()?;
    let hosts = context.block_on(client.list_hosts(pb::ListHostsRequest {}))?.hosts;
    let hosts: Vec<Value> = hosts.iter().map(render::cluster_host).collect();
    context.out.list(&hosts, &["HOST", "STATE", "ROLES", "IDENTITIES", "SLOTS", "SINCE"], |host| {
        let cell = |field| render::cell(host, field);
        vec![cell("host"), cell("state"), roles(host), cell("identities"), cell("slots"), cell("since")]
    });
    Ok(0)
}

fn drain(context: &Context, host: String, draining: bool) -> Outcome {
    let client = context.client()?;
    let answer = context.block_on(client.set_draining(pb::SetDrainingRequest { host, draining }))?;
    let host = render::cluster_host(&answer.host.unwrap_or_default());
    context.out.object(&host, || render::lines(&host));
    Ok(0)
}

/// After ZooKeeper was emptied or restored: its claims rise above all that the database has.
fn adopt_cluster(context: &Context) -> Outcome {
    let config = context.config()?;
    let Some(sharing) = config.sharing()? else {
        return Err(foundation::alone());
    };
    let network = NetworkMap::load(&config.network()).map_err(Problem::from)?;
    let id = foundation::cluster_id(&network);
    let generation = context.block_on(async {
        let store = foundation::open_store(&config).await?;
        let known = foundation::known_generation(&store).await;
        let (run, lineages) = (store.run(), store.lineages());
        let noted = match &known {
            Ok(known) => {
                let detail = format!("{}: generation {}", sharing.address, known + 1);
                foundation::note_act(&store, &config, "cluster-adopt", None, detail).await
            }
            Err(_) => Ok(()),
        };
        store.close().await;
        noted?;
        let generation = known? + 1;
        let options = foundation::ownership_options(&config, &sharing, run);
        let adopted = async {
            let cluster = adopt(&options, &id, generation).await?;
            for (place, lineage) in lineages.into_iter().enumerate() {
                match place {
                    0 => replace_database(&options, lineage).await?,
                    _ => replace_further_database(&options, lineage).await?,
                }
            }
            Ok(cluster.generation)
        };
        adopted.await.map_err(|error| foundation::of_ownership(&sharing, error))
    })?;
    let adopted = json!({"folder": sharing.address.to_string(), "generation": generation});
    context.out.object(&adopted, || format!("{} has generation {generation} now", sharing.address));
    context.out.note("start the hosts again: those that run belong to the generation before");
    Ok(0)
}
