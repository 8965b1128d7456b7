//! `maxhost db`: the database without a host.

use maxhost_model::{Code, Problem};
use maxhost_store::DataLock;
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;

use super::{db_move, doctor};
use crate::cli::DbCommand;
use crate::config::{Config, Database};
use crate::context::{Context, Outcome};
use crate::foundation;

/// Looks at the database, or brings its tables up to date.
pub fn execute(context: &Context, command: DbCommand) -> Outcome {
    match command {
        DbCommand::Check => doctor::check_database(context),
        DbCommand::Migrate => migrate(context),
        DbCommand::Move { identity, to } => db_move::execute(context, &identity, &to),
        DbCommand::Restored => restored(context),
    }
}

/// Hosts may go on using a database on a server meanwhile; a file is one host's alone.
fn migrate(context: &Context) -> Outcome {
    let config = context.config()?;
    let (before, after) = match config.database() {
        Database::Server(_) => {
            let databases = config.databases_on_servers()?;
            context.block_on(async move {
                let (mut before, mut after) = (i64::MAX, 0);
                for database in databases {
                    let (was, is) = maxhost_store_postgres::migrate(&database.options).await.map_err(Problem::from)?;
                    (before, after) = (before.min(was), is);
                }
                Ok((before, after))
            })?
        }
        Database::File(path) => {
            let lock = file_lock(&config)?;
            let version = |found: Option<maxhost_store_sqlite::Examination>| found.map_or(0, |found| found.version);
            let look = || maxhost_store_sqlite::examine(path, std::time::Duration::ZERO).map_err(Problem::from);
            let before = version(look()?);
            context.block_on(async move {
                let store = SqliteStore::open(SqliteOptions::new(path)).await.map_err(Problem::from)?;
                store.close().await;
                Ok(())
            })?;
            let after = version(look()?);
            drop(lock);
            (before, after)
        }
    };
    let detail = match before == after {
        true => format!("the schema has version {after} already"),
        false => format!("the schema had version {before}, and has version {after} now"),
    };
    // The tables are those of all identities.
    let told = json!({"identity": null, "ok": true, "detail": detail, "before": before, "after": after});
    context.out.object(&told, || detail.clone());
    Ok(0)
}

/// A file has its marks in itself: there is nothing to be done for one.
fn restored(context: &Context) -> Outcome {
    let config = context.config()?;
    let Database::Server(url) = config.database() else {
        let text = "the database is a file: put it back as docs/operating.md says, there is nothing more to be done";
        return Err(Problem::new(Code::Usage, text));
    };
    let options = config.postgres(url)?;
    let incarnation = context.block_on(async {
        let incarnation = maxhost_store_postgres::begin_incarnation(&options).await.map_err(Problem::from)?;
        let store = foundation::open_store(&config).await?;
        let noted =
            foundation::note_act(&store, &config, "db-restored", None, format!("incarnation {incarnation}")).await;
        store.close().await;
        noted.map(|()| incarnation)
    })?;
    let told = json!({"incarnation": incarnation});
    context.out.object(&told, || format!("this is incarnation {incarnation} of the database now"));
    Ok(0)
}

pub(super) fn file_lock(config: &Config) -> Result<DataLock, Problem> {
    crate::files::create_private_dir(&config.data())?;
    DataLock::acquire(&config.data()).map_err(Problem::from)
}
