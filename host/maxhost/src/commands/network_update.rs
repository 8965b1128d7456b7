//! `maxhost network update`: the parameters of a development network change while it is in use.

use std::time::Duration;

use maxhost_model::{Code, Found, NameQuery, NetworkParameters, NotaryInfo, Party, Problem, SecureHash, X500Name};
use maxhost_pki::NetworkMap;
use maxhost_pki::devnet::DevNetwork;
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::identity::open_development_network;
use super::{manifests, publisher_succession};
use crate::cli::UpdateArgs;
use crate::context::{Context, Outcome};

/// How often a running host is asked whether it has taken a change.
const POLL: Duration = Duration::from_millis(50);
/// The smallest value that the largest message may have, bytes: what hosts say to each other has to fit.
const LEAST_MESSAGE: u64 = 64 << 10;
/// The smallest value that the largest transaction may have, bytes: the code of its contracts counts, and is some hundreds of
/// kilobytes.
const LEAST_TRANSACTION: u64 = 1 << 20;

/// Signs the next parameters, and waits until a running host has them in force.
pub fn execute(context: &Context, args: &UpdateArgs) -> Outcome {
    let config = context.config()?;
    check_size("--max-message-size", args.max_message_size, LEAST_MESSAGE)?;
    check_size("--max-transaction-size", args.max_transaction_size, LEAST_TRANSACTION)?;
    let (before, after) = {
        let mut network = open_development_network(&config)?;
        let parties = NetworkMap::load(&config.network()).map_err(Problem::from)?;
        let missing = || Problem::new(Code::NetworkInvalid, "the network has no parameters yet");
        let before = network.parameters()?.ok_or_else(missing)?;
        let changed = changed(before.clone().into_value(), args, &mut network, &parties)?;
        (before, network.next_parameters(changed)?)
    };
    let hash = after.hash().to_string();
    let is_new = after.hash() != before.hash();
    if is_new && before.max_message_size != after.max_message_size {
        context.out.note("hosts take these parameters when they start: the largest message changes");
    } else {
        let taken = context.block_on(async {
            let client = context.client()?;
            wait_until_in_force(context, &client, &hash).await
        });
        match taken {
            Err(problem) if problem.code == Code::HostUnreachable => {
                context.out.note("no host is running; it takes the parameters when it starts");
            }
            taken => taken?,
        }
    }
    let notaries = after.notaries.iter();
    let notaries: Vec<Value> =
        notaries.map(|one| json!({"name": one.party.name.as_str(), "validating": one.validating})).collect();
    let object = json!({
        "hash": hash,
        "epoch": after.epoch,
        "changed": is_new,
        "notaries": notaries,
        "max_message_size": after.max_message_size,
        "max_transaction_size": after.max_transaction_size,
    });
    context.out.object(&object, || match is_new {
        true => format!("epoch {}: {hash}", after.epoch),
        false => format!("nothing changes: epoch {} says so already", after.epoch),
    });
    Ok(0)
}

/// With less a network could do nothing, not even change its parameters in every host: nobody could be told.
fn check_size(option: &str, given: Option<u64>, least: u64) -> Result<(), Problem> {
    let Some(given) = given.filter(|given| *given < least) else { return Ok(()) };
    let message = format!("{option}: {given} bytes are too few for a network to work with, {least} are the least");
    Err(Problem::new(Code::ArgumentsInvalid, message).remedy(format!("give {least} bytes or more")))
}

fn changed(
    mut parameters: NetworkParameters,
    args: &UpdateArgs,
    network: &mut DevNetwork,
    parties: &NetworkMap,
) -> Result<NetworkParameters, Problem> {
    parameters.max_transaction_size = args.max_transaction_size.unwrap_or(parameters.max_transaction_size);
    parameters.max_message_size = args.max_message_size.unwrap_or(parameters.max_message_size);
    for text in &args.remove_notary {
        let found = NameQuery::new(text).pick(parameters.notaries.iter().map(|one| &one.party.name));
        let name = only(text, found, "is not on the list of notaries")?;
        parameters.notaries.retain(|one| one.party.name != name);
    }
    for text in &args.add_notary {
        let query = NameQuery::new(text);
        let name = only(text, query.pick(&parties.find(&query)), "is no party of the network")?;
        let party = Party::new(name.clone(), network.find(&name)?.key);
        parameters.notaries.push(NotaryInfo { party, validating: args.validating });
    }
    for text in &args.list {
        let (contract, id) = listed(text)?;
        let ids = parameters.whitelisted_contract_implementations.entry(contract).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    for text in &args.unlist {
        let (contract, id) = listed(text)?;
        let whitelist = &mut parameters.whitelisted_contract_implementations;
        if let Some(ids) = whitelist.get_mut(&contract) {
            ids.retain(|one| *one != id);
        }
        whitelist.retain(|_, ids| !ids.is_empty());
    }
    // Those that go make room for those that come.
    for text in &args.unsucceed {
        publisher_succession::unsucceed(&mut parameters, text)?;
    }
    for text in &args.succeed {
        publisher_succession::succeed(&mut parameters, text)?;
    }
    Ok(parameters)
}

/// The only name that a part of one fits.
fn only(text: &str, found: Found, otherwise: &str) -> Result<X500Name, Problem> {
    match found {
        Found::One(name) => Ok(name),
        Found::Several(names) => Err(manifests::several(text, &names)),
        Found::Nobody => Err(Problem::new(Code::PartyNotFound, format!("'{text}' {otherwise}")).detail("name", text)),
    }
}

/// `CONTRACT=ATTACHMENT`.
fn listed(text: &str) -> Result<(String, SecureHash), Problem> {
    let parsed = text.split_once('=').and_then(|(contract, id)| Some((contract, id.parse().ok()?)));
    match parsed {
        Some((contract, id)) if !contract.is_empty() => Ok((contract.to_owned(), id)),
        _ => {
            let message = format!("'{text}' is not CONTRACT=ATTACHMENT, with the id of an attachment in hexadecimal");
            Err(Problem::new(Code::ArgumentsInvalid, message).remedy("look at `maxhost attachment list`"))
        }
    }
}

/// Waits until a running host says that these parameters are in force.
async fn wait_until_in_force(context: &Context, client: &Client, hash: &str) -> Result<(), Problem> {
    let deadline = Instant::now() + context.global.patience();
    loop {
        if client.network_parameters(pb::NetworkParametersRequest {}).await?.hash == hash {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let message = format!("the parameters {hash} are signed, but the host does not have them in force yet");
            return Err(Problem::new(Code::Timeout, message).remedy("look at the host's log"));
        }
        tokio::time::sleep(POLL).await;
    }
}
