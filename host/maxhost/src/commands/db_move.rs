//! `maxhost db move`: an identity goes to another database.

use maxhost_model::{Code, Found, IdentityRow, NameQuery, Problem, X500Name};
use maxhost_ownership_zookeeper::hosts_without_database;
use maxhost_store::{Store, StoreError};
use maxhost_store_postgres::{Moved, PostgresOptions, Step, move_identity};
use serde_json::json;

use super::db;
use crate::config::{Config, NamedDatabase};
use crate::context::{Context, Outcome};
use crate::foundation;

/// Hosts of a cluster may run meanwhile: the one that owns the identity is refused its next commit, and the identity is
/// claimed in its new place. A host that is alone must be stopped.
pub fn execute(context: &Context, identity: &str, to: &str) -> Outcome {
    let config = context.config()?;
    let databases = config.databases_on_servers()?;
    let target = Config::find_database(&databases, to)?;
    // Held until the end: a host that is alone never learns that it has lost an identity.
    let _alone = match config.sharing()? {
        Some(_) => None,
        None => Some(db::file_lock(&config)?),
    };
    let (name, moved) = context.block_on(async {
        let store = foundation::open_store(&config).await?;
        let moved = with_store(context, &config, &store, identity, &databases, target).await;
        store.close().await;
        moved
    })?;
    let target = &databases[target];
    let place = target.options.place();
    let detail = match moved {
        Some(rows) => format!("moved to {} ({place}) with {rows} rows", target.name),
        None => format!("lives in {} ({place}) already", target.name),
    };
    let told = json!({"identity": name.as_str(), "ok": true, "detail": detail});
    context.out.object(&told, || format!("{name}: {detail}"));
    Ok(0)
}

async fn with_store(
    context: &Context,
    config: &Config,
    store: &Store,
    identity: &str,
    databases: &[NamedDatabase],
    target: usize,
) -> Result<(X500Name, Option<u64>), Problem> {
    let (_, name) = find_identity(store, identity).await?;
    if let Some(lineage) = store.lineages().get(target).filter(|_| target > 0) {
        check_hosts(config, store, lineage.database, &databases[target]).await?;
    }
    let options: Vec<PostgresOptions> = databases.iter().map(|database| database.options.clone()).collect();
    let told = |step: Step| -> Result<(), StoreError> {
        context.out.note(&match step {
            Step::Closed => "nobody writes for it any more".to_owned(),
            Step::Copied(rows) => format!("{rows} rows are copied"),
            Step::Left => "it has left its former database".to_owned(),
            Step::Opened => "it can be opened in its new one".to_owned(),
        });
        Ok(())
    };
    let moved = move_identity(&options, name.as_str(), target, told).await?;
    let rows = match moved {
        Moved::There(rows) => rows,
        Moved::Unknown => return Err(Problem::new(Code::IdentityNotFound, format!("no database knows {name}"))),
        Moved::Busy => {
            let text = format!("another command is moving {name} at this moment");
            return Err(Problem::new(Code::IdentityMoved, text));
        }
        Moved::OnItsWay(id) => {
            let goal = store.lineages().iter().position(|lineage| lineage.database.to_string() == id);
            let goal = goal.and_then(|place| databases.get(place)).map_or(id, |database| database.name.clone());
            let text = format!("{name} is on its way to {goal}: a move to there was broken off");
            let remedy = format!(
                "run `maxhost db move` with --to {goal} to bring it there, or with the database that it comes from to keep it"
            );
            return Err(Problem::new(Code::IdentityMoved, text).remedy(remedy));
        }
    };
    if rows.is_some() {
        let detail = format!("to {} ({})", databases[target].name, databases[target].options.place());
        foundation::note_act(store, config, "db-move", Some(name.as_str().to_owned()), detail).await?;
    }
    Ok((name, rows))
}

/// The one identity of the database that a name, or a part that fits exactly one, names.
///
/// # Errors
/// None fits, or several do; the database does not answer.
pub(super) async fn find_identity(store: &Store, wanted: &str) -> Result<(IdentityRow, X500Name), Problem> {
    let records = store.identities().await.map_err(Problem::from)?;
    let known = records.iter().filter_map(|record| Some((X500Name::parse(&record.name).ok()?, record.row)));
    let known: Vec<(X500Name, IdentityRow)> = known.collect();
    let names: Vec<X500Name> = known.iter().map(|(name, _)| name.clone()).collect();
    let unknown = || Problem::new(Code::IdentityNotFound, format!("the database knows no identity '{wanted}'"));
    match NameQuery::new(wanted).pick(&names) {
        Found::One(name) => {
            let row = known.iter().find(|(known, _)| *known == name).map(|(_, row)| *row);
            Ok((row.ok_or_else(unknown)?, name))
        }
        Found::Nobody => Err(unknown()),
        Found::Several(names) => {
            let names: Vec<&str> = names.iter().map(X500Name::as_str).collect();
            let text = format!("'{wanted}' fits {}", names.join("; "));
            Err(Problem::new(Code::IdentityAmbiguous, text))
        }
    }
}

/// Every host that could run the identity must be able to reach it in its new place.
async fn check_hosts(config: &Config, store: &Store, id: i64, target: &NamedDatabase) -> Result<(), Problem> {
    let Some(sharing) = config.sharing()? else { return Ok(()) };
    let options = foundation::ownership_options(config, &sharing, store.run());
    let without = hosts_without_database(&options, id).await;
    let without = without.map_err(|error| foundation::of_ownership(&sharing, error))?;
    if without.is_empty() {
        return Ok(());
    }
    let text = format!("these hosts do not have the database {}: {}", target.name, without.join(", "));
    Err(Problem::new(Code::DatabaseUnknown, text))
}
