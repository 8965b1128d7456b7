//! `maxhost identity`: list, show, add and remove identities.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use maxhost_flows::options::CordappRef;
use maxhost_model::{Code, Problem, X500Name};
use maxhost_pki::devnet::{DevNetwork, Options};
use maxhost_pki::{Layout, Passphrase};
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_sandbox::Inspection;
use maxhost_store::Forgive;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::manifests::Present;
use super::{cluster, cordapp, db_move, identity_publish, manifests};
use crate::cli::IdentityCommand;
use crate::config::Config;
use crate::context::{Context, Outcome};
use crate::files::io_problem;
use crate::{files, foundation, manifest, render};

/// How often a running host is asked whether it has taken a change.
const POLL: Duration = Duration::from_millis(50);

/// Does what was typed.
pub fn execute(context: &Context, command: IdentityCommand) -> Outcome {
    match command {
        IdentityCommand::List { filter, hosts: false } => list(context, filter),
        IdentityCommand::List { filter, hosts: true } => list_with_hosts(context, filter),
        IdentityCommand::Where { name, watch: false } => find_host(context, name),
        IdentityCommand::Where { name, watch: true } => {
            cluster::watch(context, |client| whereabouts(client, name.clone()), |_, now| render::lines(now))
        }
        IdentityCommand::Move { name, to } => move_to(context, name, to),
        IdentityCommand::Retry { name } => retry(context, &name),
        IdentityCommand::Show { name } => show(context, name),
        IdentityCommand::Publish { names, from } => identity_publish::execute(context, &names, from.as_deref()),
        IdentityCommand::New { name, cordapp } => new(context, &name, cordapp),
        IdentityCommand::Remove { name, yes } => remove(context, &name, yes),
    }
}

fn list(context: &Context, filter: Option<String>) -> Outcome {
    let client = context.client()?;
    let identities = context.block_on(client.list_identities(pb::ListIdentitiesRequest { filter }))?.identities;
    let identities: Vec<Value> = identities.iter().map(render::identity).collect();
    context.out.list(&identities, &["NAME", "STATE", "FLOWS", "CORDAPPS", "REASON"], |identity| {
        let cell = |field| render::cell(identity, field);
        vec![cell("name"), cell("state"), cell("flows"), versions_of(identity).join(", "), cell("reason")]
    });
    Ok(0)
}

/// The CorDapps of an identity for people, each with its version.
fn versions_of(identity: &Value) -> Vec<String> {
    let cordapps = identity["cordapps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |cordapp| format!("{} {}", render::cell(cordapp, "name"), render::cell(cordapp, "version"));
    cordapps.iter().map(named).collect()
}

/// By the database, so that it works whatever became of the hosts.
fn retry(context: &Context, name: &str) -> Outcome {
    let config = context.config()?;
    if config.sharing()?.is_none() {
        let text = "this host is alone: it runs an identity however often it ended while it had it";
        return Err(Problem::new(Code::RequestInvalid, text));
    }
    let (name, deaths) = context.block_on(async {
        let store = foundation::open_store(&config).await?;
        let forgiven = async {
            let (row, name) = db_move::find_identity(&store, name).await?;
            let records = store.identities().await.map_err(Problem::from)?;
            let deaths = records.iter().find(|record| record.row == row).map_or(0, |record| record.unclean);
            store.forgive(row, Forgive::Asked).await.map_err(Problem::from)?;
            let detail = format!("after {deaths} deaths");
            foundation::note_act(&store, &config, "identity-retry", Some(name.as_str().to_owned()), detail).await?;
            Ok::<_, Problem>((name, deaths))
        };
        let forgiven = forgiven.await;
        store.close().await;
        forgiven
    })?;
    let told = json!({"identity": name.as_str(), "deaths": deaths});
    context
        .out
        .object(&told, || format!("{name}: hosts try it again, after {deaths} of them in a row died that had it"));
    Ok(0)
}

fn move_to(context: &Context, identity: String, host: String) -> Outcome {
    let client = context.client()?;
    let moved = context.block_on(client.move_identity(pb::MoveIdentityRequest { identity, host }))?;
    let found = render::whereabouts(&moved.identity.unwrap_or_default());
    context.out.object(&found, || render::lines(&found));
    Ok(0)
}

/// As [`list`], with what the cluster knows of each.
fn list_with_hosts(context: &Context, filter: Option<String>) -> Outcome {
    let client = context.client()?;
    let (identities, found) = context.block_on(async {
        let identities = client.list_identities(pb::ListIdentitiesRequest { filter }).await?.identities;
        Ok((identities, client.find_identities(pb::FindIdentitiesRequest { name: None }).await?.identities))
    })?;
    let with_host = |identity: &pb::Identity| {
        let mut shown = render::identity(identity);
        let found = found.iter().find(|found| found.identity == identity.name);
        shown["host"] = found.and_then(|found| found.host.clone()).into();
        if let Some(found) = found.filter(|found| found.host.is_some()) {
            shown["state"] = render::identity_state(found.state()).into();
        }
        shown
    };
    let identities: Vec<Value> = identities.iter().map(with_host).collect();
    context.out.list(&identities, &["NAME", "HOST", "STATE", "FLOWS"], |identity| {
        ["name", "host", "state", "flows"].map(|field| render::cell(identity, field)).into()
    });
    Ok(0)
}

fn find_host(context: &Context, name: String) -> Outcome {
    let client = context.client()?;
    let found = context.block_on(whereabouts(client, name))?;
    context.out.object(&found, || render::lines(&found));
    Ok(0)
}

async fn whereabouts(client: Client, name: String) -> Result<Value, Problem> {
    let found = client.find_identities(pb::FindIdentitiesRequest { name: Some(name) }).await?.identities;
    Ok(found.first().map_or(Value::Null, render::whereabouts))
}

fn show(context: &Context, name: String) -> Outcome {
    let client = context.client()?;
    let answer = context.block_on(client.get_identity(pb::GetIdentityRequest { name }))?;
    let identity = render::identity(&answer.identity.unwrap_or_default());
    context.out.object(&identity, || {
        let mut shown = identity.clone();
        shown["cordapps"] = versions_of(&identity).into();
        render::lines(&shown)
    });
    Ok(0)
}

fn new(context: &Context, name: &str, cordapps: Vec<String>) -> Outcome {
    let config = context.config()?;
    let name = X500Name::parse(name)
        .map_err(|error| Problem::new(Code::NameInvalid, error.to_string()).detail("name", name))?;
    if let Some(obstacle) = name.registration_obstacle() {
        let note = format!("outside of a development network no operator would register this name: {obstacle}");
        context.out.note(&note);
    }
    let present = manifests::present(context, &config)?;
    if let Some(there) = present.iter().find(|present| present.name == name) {
        let message = format!("{name} is in {} already", there.place);
        return Err(Problem::new(Code::IdentityExists, message).detail("manifest", there.place.to_string()));
    }
    let cordapps = if cordapps.is_empty() { cordapps_of(&present) } else { checked(&config, cordapps)? };

    let slug = issue(&config, &name)?;
    let place = manifests::add(context, &config, &name, &slug, &cordapps)?.to_string();

    let hosted = context.block_on(async {
        let client = context.client()?;
        wait_until_shown(context, &client, name.as_str()).await
    });
    let mut object = match hosted {
        Ok(identity) => render::identity(&identity),
        Err(problem) if problem.code == Code::HostUnreachable => {
            context.out.note("no host is running; it takes the identity when it starts");
            json!({"name": name.as_str(), "state": null, "reason": null, "cordapps": [], "flows": 0})
        }
        Err(problem) => return Err(problem),
    };
    object["manifest"] = place.clone().into();
    if object["state"] == "quarantined" {
        let message = format!("{name} is issued, but the host cannot take it: {}", render::cell(&object, "reason"));
        return Err(Problem::new(Code::IdentityQuarantined, message).detail("manifest", place));
    }
    context.out.object(&object, || name.to_string());
    Ok(0)
}

/// What the other identities run: a new one is one of them.
fn cordapps_of(present: &[Present]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for cordapp in present.iter().flat_map(|present| present.spec.cordapps.iter()) {
        let text = cordapp.to_string();
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// The CorDapps that were named, if they are installed: otherwise the host would quarantine the new identity.
fn checked(config: &Config, cordapps: Vec<String>) -> Result<Vec<String>, Problem> {
    let installed = installed(config)?;
    for cordapp in &cordapps {
        let wanted = manifest::cordapp_ref(cordapp)
            .map_err(|message| Problem::new(Code::Usage, format!("--cordapp: {message}")))?;
        if !installed.iter().any(|inspection| fits(&wanted, inspection)) {
            let message = format!("--cordapp: '{cordapp}' is not installed in {}", config.cordapps().display());
            return Err(Problem::new(Code::CordappNotFound, message)
                .remedy("install it with `maxhost cordapp install FILE`, or correct the name")
                .detail("cordapp", cordapp.clone()));
        }
    }
    Ok(cordapps)
}

/// The components of a folder; what cannot be used is passed over, as a host does.
fn installed(config: &Config) -> Result<Vec<Inspection>, Problem> {
    let (folder, code) = (&config.cordapps(), config.code());
    let unreadable = |error| io_problem(Code::FileUnreadable, "read the folder", folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "wasm")
            && let Ok((_, inspection)) = cordapp::inspect(&file, Some(&code))
        {
            found.push(inspection);
        }
    }
    Ok(found)
}

/// Whether a component is what a manifest names; `1.2` means any 1.2.x.
fn fits(wanted: &CordappRef, found: &Inspection) -> bool {
    let version = found.descriptor.version.as_str();
    let right = |wanted: &String| {
        version == wanted || version.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('.'))
    };
    found.descriptor.name == wanted.name
        && wanted.version.as_ref().is_none_or(right)
        && wanted.hash.as_ref().is_none_or(|hash| hex::encode(found.hash) == *hash)
}

/// Issues keys and certificates. Gives the short name, which is that of the folder of the keys.
fn issue(config: &Config, name: &X500Name) -> Result<String, Problem> {
    Ok(open_development_network(config)?.issue(name)?.slug)
}

/// The development network of this installation, to be changed. Nobody else changes it meanwhile.
///
/// # Errors
/// It is none, its folders are missing, it is being changed already, or its passphrase is wrong.
pub fn open_development_network(config: &Config) -> Result<DevNetwork, Problem> {
    let layout = Layout::new(config.root());
    if layout.keys() != config.keys() || layout.network() != config.network() {
        return Err(Problem::new(
            Code::ConfigInvalid,
            "only a development network is issued and changed here: its folders are keys/ and network/ beside maxhost.toml",
        )
        .remedy("get keys, certificates and signed parameters from the network's operator"));
    }
    // What is left of a network would be made whole without what only its folder had, such as the parameters.
    files::look_into(&config.network())?;
    files::look_into(&config.keys())?;
    let passphrase = Passphrase::new(config.passphrase()?.expose())?;
    let options = Options { passphrase: Some(passphrase), ..Options::default() };
    DevNetwork::open(config.root(), &options).map_err(Problem::from)
}

/// Waits until a running host shows an identity, quarantined or not.
async fn wait_until_shown(context: &Context, client: &Client, name: &str) -> Result<pb::Identity, Problem> {
    let deadline = Instant::now() + context.global.patience();
    loop {
        match client.get_identity(pb::GetIdentityRequest { name: name.to_owned() }).await {
            Ok(answer) => return Ok(answer.identity.unwrap_or_default()),
            Err(problem) if problem.code == Code::IdentityNotFound => {}
            Err(problem) => return Err(problem),
        }
        if Instant::now() >= deadline {
            return Err(Problem::new(Code::Timeout, format!("{name} is issued, but the host does not show it yet"))
                .remedy("look at `maxhost identity list` and at the host's log"));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn remove(context: &Context, query: &str, yes: bool) -> Outcome {
    let config = context.config()?;
    let (place, name) = manifests::find(context, &config, query)?;
    if !yes && std::io::stdin().is_terminal() && !confirmed(&name)? {
        context.out.note("nothing was done");
        return Ok(0);
    }
    manifests::remove(context, &config, &place)?;
    let state = context.block_on(async {
        let client = context.client()?;
        wait_until_let_go(context, &client, &name).await
    });
    let state = match state {
        Ok(state) => state,
        Err(problem) if problem.code == Code::HostUnreachable => Value::Null,
        Err(problem) => return Err(problem),
    };
    let object = json!({"name": name, "removed": true, "state": state, "manifest": place.to_string()});
    context.out.object(&object, || format!("{name} is not hosted any more"));
    context.out.note("its keys and its data stay; `maxhost identity new` with the same name brings it back");
    Ok(0)
}

fn confirmed(name: &str) -> Result<bool, Problem> {
    let failed = |error: std::io::Error| Problem::new(Code::Usage, format!("cannot ask: {error}")).remedy("give --yes");
    let mut err = std::io::stderr();
    write!(err, "stop hosting {name}? Its flows stop where they are. [y/N] ").map_err(failed)?;
    err.flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Waits until a running host has let go of an identity, or is about to.
async fn wait_until_let_go(context: &Context, client: &Client, name: &str) -> Result<Value, Problem> {
    let deadline = Instant::now() + context.global.patience();
    loop {
        match client.get_identity(pb::GetIdentityRequest { name: name.to_owned() }).await {
            Err(problem) if problem.code == Code::IdentityNotFound => return Ok(Value::Null),
            Err(problem) => return Err(problem),
            Ok(answer) => {
                let identity = answer.identity.unwrap_or_default();
                if Instant::now() >= deadline {
                    if identity.state() == pb::IdentityState::Draining {
                        return Ok("draining".into());
                    }
                    return Err(Problem::new(
                        Code::Timeout,
                        format!("the manifest is removed, but the host still shows {name}"),
                    ));
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
