//! `maxhost network`: what the host knows of the network.

use maxhost_rpc::proto::v1 as pb;
use serde_json::Value;

use super::network_update;
use crate::cli::NetworkCommand;
use crate::context::{Context, Outcome};
use crate::render;

/// Shows what the host knows of the network.
pub fn execute(context: &Context, command: NetworkCommand) -> Outcome {
    let client = context.client()?;
    match command {
        NetworkCommand::Parties { filter, exact } => {
            let request = pb::PartiesRequest { query: filter, exact };
            let parties = context.block_on(client.parties(request))?.parties;
            let parties: Vec<Value> = parties.iter().map(render::party).collect();
            context.out.list(&parties, &["NAME", "NOTARY", "HERE", "OWNING KEY"], |party| {
                let yes = |field: &str| if party[field] == true { "yes" } else { "" }.to_owned();
                vec![render::cell(party, "name"), yes("notary"), yes("local"), render::cell(party, "owning_key")]
            });
        }
        NetworkCommand::Parameters => {
            let parameters = context.block_on(client.network_parameters(pb::NetworkParametersRequest {}))?;
            let parameters = render::parameters(&parameters);
            context.out.object(&parameters, || render::lines(&parameters));
        }
        NetworkCommand::Update(args) => return network_update::execute(context, &args),
    }
    Ok(0)
}
