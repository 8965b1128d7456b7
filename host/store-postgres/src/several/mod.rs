//! Several databases as one: an identity lives in one of them, and every call for it goes there.
//!
//! All know each identity by its number in the first database, and rows of flows and initiations are numbered by the first
//! alone, so numbers are one identity's and one flow's in all of them, wherever an identity moves. A message between
//! identities of different databases goes through the outbox: its sender's database does not show the recipient as held.
//! Code of CorDapps and the audit trail are in the first database.
//!
//! Where an identity lives is in memory ([`places`]) and may be outdated. That does no harm: a claim is refused by a
//! database that the identity has left, and a unit carries the claim that its work began under.

mod ledger;
mod places;
mod readers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use maxhost_group_commit::{CommitHint, GroupStats};
use maxhost_model::{FlowRow, IdentityRow, Lineage, RunId};
use maxhost_store::ledger::{ImportBounds, Imported, NewAttachment};
use maxhost_store::{
    AuditRow, ClaimRequest, Claimed, CommitQueue, Committer, Conflict, Forgive, Job, KeptMessages, MessageOp, Op,
    ResultRead, SharedComponents, Store, StoreError, Untaken, UntakenCount, outbox_begin, outbox_database,
};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::error::{failed, of_server};
use crate::open::{PostgresStore, Rank};
use crate::options::PostgresOptions;
use crate::persist::persist;
use crate::schema;
use places::Places;

/// Identities that are made known at once.
const CHUNK: usize = 1_000;

/// Several databases, the first of which numbers runs, identities and flows.
pub(crate) struct SeveralDatabases {
    databases: Vec<Arc<PostgresStore>>,
    places: Places,
}

/// Opens several databases as one.
pub(crate) async fn open(mut options: Vec<PostgresOptions>) -> Result<Store, StoreError> {
    if options.is_empty() {
        return Err(StoreError::Closed);
    }
    let first_options = options.remove(0);
    if options.is_empty() {
        return PostgresStore::open(first_options).await;
    }
    let (mut others, mut least_run) = (Vec::with_capacity(options.len()), 1);
    for options in &options {
        let (id, runs) = look(options).await?;
        others.push(id);
        least_run = least_run.max(runs.saturating_add(1));
    }
    let first = PostgresStore::start(first_options.clone(), Rank::First { others, least_run }).await?;
    let (id, run) = (first.lineage().database, first.run);
    let mut databases = vec![Arc::new(first)];
    for options in &options {
        let rank = Rank::Beside { first: id, run, numbers: databases[0].numbers() };
        databases.push(Arc::new(PostgresStore::start(options.clone(), rank).await?));
    }
    let places = Places::start(databases.clone()).await?;
    let store = SeveralDatabases { databases, places };
    store.check_homes(&first_options.place()).await?;
    Ok(Store::new(store))
}

/// The id of a database, and the highest run that has written to it. Its tables are made if there are none.
async fn look(options: &PostgresOptions) -> Result<(i64, i64), StoreError> {
    let place = options.place();
    let of = |error| of_server(&place, error);
    let mut conn = schema::connect(options).await?;
    schema::migrate(options, &mut conn).await?;
    let sql = "SELECT id, (SELECT coalesce(max(run), 0) FROM maxhost.committer) FROM maxhost.database";
    let found = sqlx::query_as(sql).fetch_one(&mut conn).await.map_err(of)?;
    conn.close().await.map_err(of)?;
    Ok(found)
}

/// Whether a database can be what it is opened as. One that has no identities yet becomes one beside the first.
pub(crate) async fn check_rank(conn: &mut PgConnection, rank: &Rank, place: &str) -> Result<(), StoreError> {
    let of = |error| of_server(place, error);
    let unfit = |reason: &str| StoreError::Unfit { place: place.to_owned(), reason: reason.to_owned() };
    let first = match rank {
        Rank::First { others, .. } => {
            let sql = "SELECT home FROM maxhost.database";
            let home: Option<i64> = sqlx::query_scalar(sql).fetch_one(&mut *conn).await.map_err(of)?;
            if home.is_some() {
                return Err(unfit("it stands beside another one, so it cannot be that of store.url"));
            }
            let sql = "SELECT DISTINCT moved_to FROM maxhost.identity WHERE moved_to IS NOT NULL ORDER BY moved_to";
            let named: Vec<String> = sqlx::query_scalar(sql).fetch_all(conn).await.map_err(of)?;
            let is_known = |name: &String| others.iter().any(|other| other.to_string() == *name);
            let unknown: Vec<String> = named.into_iter().filter(|name| !is_known(name)).collect();
            if unknown.is_empty() {
                return Ok(());
            }
            return Err(StoreError::UnknownDatabase { place: place.to_owned(), databases: unknown.join(", ") });
        }
        Rank::Beside { first, .. } => *first,
    };
    sqlx::query(
        "UPDATE maxhost.database SET home = $1 WHERE home IS NULL AND id <> $1 \
         AND NOT EXISTS (SELECT FROM maxhost.identity) AND NOT EXISTS (SELECT FROM maxhost.committer)",
    )
    .bind(first)
    .execute(&mut *conn)
    .await
    .map_err(of)?;
    let sql = "SELECT id, home FROM maxhost.database";
    let (id, home): (i64, Option<i64>) = sqlx::query_as(sql).fetch_one(conn).await.map_err(of)?;
    match home {
        _ if id == first => Err(unfit("it is the one of store.url, or a copy of it")),
        Some(home) if home == first => Ok(()),
        Some(_) => Err(unfit("it stands beside another one than that of store.url")),
        None => Err(unfit("it was used by itself: one that stands beside another begins empty")),
    }
}

impl SeveralDatabases {
    /// The database of an identity, as far as this host knows.
    fn of(&self, identity: IdentityRow) -> &PostgresStore {
        &self.databases[self.place(identity)]
    }

    /// Its place among the databases.
    fn place(&self, identity: IdentityRow) -> usize {
        self.places.of(identity).min(self.databases.len() - 1)
    }

    fn first(&self) -> &PostgresStore {
        &self.databases[0]
    }

    /// In which database each of these flows is, if it is in one. Whoever's flows are all in the first waits for no other.
    async fn locate(&self, rows: &[FlowRow]) -> Result<HashMap<FlowRow, usize>, StoreError> {
        let (found, elsewhere) = self.look_for(rows).await?;
        if !elsewhere {
            return Ok(found);
        }
        // There are rows in a database that their identity has left, or has come to a moment ago.
        self.places.refresh().await?;
        Ok(self.look_for(rows).await?.0)
    }

    /// As [`SeveralDatabases::locate`], and whether some were found only where their identity is not known to live.
    async fn look_for(&self, rows: &[FlowRow]) -> Result<(HashMap<FlowRow, usize>, bool), StoreError> {
        let mut found = HashMap::with_capacity(rows.len());
        let mut elsewhere = false;
        for (place, database) in self.databases.iter().enumerate() {
            let wanted: Vec<i64> = rows.iter().filter(|row| !found.contains_key(*row)).map(|row| row.0).collect();
            if wanted.is_empty() {
                return Ok((found, false));
            }
            for (row, identity) in database.owners(&wanted).await? {
                match self.place(identity) == place {
                    true => drop(found.insert(row, place)),
                    false => elsewhere = true,
                }
            }
        }
        let is_incomplete = found.len() < rows.len();
        Ok((found, elsewhere && is_incomplete))
    }

    /// These flows by where they are; those that are nowhere are left out.
    async fn by_place(&self, rows: &[FlowRow]) -> Result<BTreeMap<usize, Vec<FlowRow>>, StoreError> {
        let mut places: BTreeMap<usize, Vec<FlowRow>> = BTreeMap::new();
        let mut located = self.locate(rows).await?;
        // In the order asked for, each once.
        for row in rows {
            if let Some(place) = located.remove(row) {
                places.entry(place).or_default().push(*row);
            }
        }
        Ok(places)
    }

    /// Refuses databases of different moments: an identity that lives in two of them has been put back in one.
    async fn check_homes(&self, place: &str) -> Result<(), StoreError> {
        for database in &self.databases[1..] {
            let ours: Vec<i64> = database.homes().await?.iter().map(|row| row.0).collect();
            let sql = "SELECT id FROM maxhost.identity WHERE moved_to IS NULL AND id = ANY($1) ORDER BY id";
            let query = || sqlx::query_scalar::<_, i64>(sql).bind(&ours).fetch_all(&self.first().pool);
            let both = persist!(query()).map_err(failed)?;
            // One that was on its way back to the first database has left by now.
            let still = database.homes().await?;
            if let Some(twice) = both.iter().find(|id| still.contains(&IdentityRow(**id))) {
                let reason = format!(
                    "identity {twice} lives in two of them, so one was put back to a moment before it was moved"
                );
                return Err(StoreError::Unfit { place: place.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// What a unit names in its database's own numbers.
    fn localise(ops: &mut [Op], place: usize) {
        for op in ops {
            if let Op::Message(MessageOp::OutboxSent { id, .. }) = op {
                // A row that stayed behind in another database is nobody's: there is no row 0.
                *id = if outbox_database(*id) == place { *id - outbox_begin(place) } else { 0 };
            }
        }
    }
}

impl PostgresStore {
    /// The identities that live in this database.
    pub(crate) async fn homes(&self) -> Result<Vec<IdentityRow>, StoreError> {
        let sql = "SELECT id FROM maxhost.identity WHERE moved_to IS NULL ORDER BY id";
        let found = persist!(sqlx::query_scalar::<_, i64>(sql).fetch_all(&self.pool)).map_err(failed)?;
        Ok(found.into_iter().map(IdentityRow).collect())
    }

    /// A number that is another one after an identity came or went.
    pub(crate) async fn moves(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT moves FROM maxhost.database").fetch_one(&self.pool).await
    }

    /// Whose flows these are, of those that are here.
    async fn owners(&self, rows: &[i64]) -> Result<Vec<(FlowRow, IdentityRow)>, StoreError> {
        let sql = "SELECT id, identity FROM maxhost.flow WHERE id = ANY($1) \
                   UNION ALL SELECT id, identity FROM maxhost.ended WHERE id = ANY($1)";
        let query = || sqlx::query_as::<_, (i64, i64)>(sql).bind(rows).fetch_all(&self.pool);
        let found = persist!(query()).map_err(failed)?;
        Ok(found.into_iter().map(|(row, identity)| (FlowRow(row), IdentityRow(identity))).collect())
    }

    /// Makes identities known that live in another database.
    pub(crate) async fn know(
        &self,
        identities: &[(IdentityRow, String)],
        lives_in: i64,
        place: &str,
    ) -> Result<(), StoreError> {
        for chunk in identities.chunks(CHUNK) {
            let ids: Vec<i64> = chunk.iter().map(|(row, _)| row.0).collect();
            let names: Vec<&str> = chunk.iter().map(|(_, name)| name.as_str()).collect();
            let known = persist!(self.know_chunk(&ids, &names, lives_in)).map_err(failed)?;
            if known != chunk.len() as i64 {
                let reason = "it knows identities by other numbers than the one of store.url".to_owned();
                return Err(StoreError::Unfit { place: place.to_owned(), reason });
            }
        }
        Ok(())
    }

    async fn know_chunk(&self, ids: &[i64], names: &[&str], lives_in: i64) -> Result<i64, sqlx::Error> {
        let sql = "SELECT count(*) FROM maxhost.identity i JOIN unnest($1::int8[], $2::text[]) u (id, name) \
                   ON i.id = u.id AND i.name = u.name COLLATE \"C\"";
        let count = || sqlx::query_scalar::<_, i64>(sql).bind(ids).bind(names).fetch_one(&self.pool);
        let known = count().await?;
        if known == ids.len() as i64 {
            return Ok(known);
        }
        sqlx::query(
            "INSERT INTO maxhost.identity (id, name, moved_to) OVERRIDING SYSTEM VALUE \
             SELECT u.id, u.name, $3 FROM unnest($1::int8[], $2::text[]) u (id, name) ORDER BY u.id ON CONFLICT DO NOTHING",
        )
        .bind(ids)
        .bind(names)
        .bind(lives_in.to_string())
        .execute(&self.pool)
        .await?;
        count().await
    }
}

/// Waits for all and gives the first error, if there is one.
async fn all<T>(
    futures: impl IntoIterator<Item = impl Future<Output = Result<T, StoreError>>>,
) -> Result<Vec<T>, StoreError> {
    join_all(futures).await.into_iter().collect()
}

#[async_trait]
impl Committer for SeveralDatabases {
    fn queue(&self) -> &CommitQueue {
        self.first().queue()
    }

    fn hand_in(&self, mut job: Job) {
        let place = match &mut job {
            Job::Unit(unit) => {
                let place = self.place(unit.author.identity);
                SeveralDatabases::localise(&mut unit.ops, place);
                place
            }
            _ => 0,
        };
        self.databases[place].hand_in(job);
    }

    fn run(&self) -> RunId {
        self.first().run
    }

    fn lineage(&self) -> Lineage {
        self.first().lineage()
    }

    fn lineages(&self) -> Vec<Lineage> {
        self.databases.iter().map(|database| database.lineage()).collect()
    }

    fn last_answers(&self) -> Vec<(String, Instant)> {
        let mut all = self.first().last_answers();
        for database in &self.databases[1..] {
            let id = database.lineage().database;
            all.extend(database.last_answers().into_iter().map(|(part, at)| (format!("{part} {id:016x}"), at)));
        }
        all
    }

    fn server_millis(&self) -> Option<i64> {
        self.first().server_millis()
    }

    fn components(&self) -> Option<&dyn SharedComponents> {
        self.first().components()
    }

    fn kept_messages(&self) -> Option<&dyn KeptMessages> {
        Some(self)
    }

    fn next_flow_row(&self) -> FlowRow {
        self.first().next_flow_row()
    }

    fn next_initiation(&self) -> i64 {
        self.first().next_initiation()
    }

    async fn close(&self) {
        self.places.stop();
        join_all(self.databases.iter().map(|database| database.close())).await;
    }

    async fn register(&self, names: Vec<String>) -> Result<Vec<IdentityRow>, StoreError> {
        let rows = self.first().register(names.clone()).await?;
        let identities: Vec<(IdentityRow, String)> = rows.iter().copied().zip(names).collect();
        let first = self.first().lineage().database;
        let others = self.databases[1..].iter();
        all(others.map(|database| database.know(&identities, first, database.place_name()))).await?;
        Ok(rows)
    }

    async fn claim_all(&self, requests: Vec<ClaimRequest>) -> Result<Claimed, StoreError> {
        let mut claimed = self.claim_where_known(&requests).await?;
        let is_moved =
            |outcome: &Result<_, StoreError>| matches!(outcome, Err(StoreError::Conflict(Conflict::IdentityMoved(_))));
        if !claimed.iter().any(is_moved) {
            return Ok(claimed);
        }
        self.places.refresh().await?;
        let moved: Vec<usize> = (0..claimed.len()).filter(|&index| is_moved(&claimed[index])).collect();
        let again = self.claim_where_known(&moved.iter().map(|&index| requests[index]).collect::<Vec<_>>()).await?;
        for (index, outcome) in moved.into_iter().zip(again) {
            claimed[index] = outcome;
        }
        Ok(claimed)
    }

    async fn forgive(&self, identity: IdentityRow, forgive: Forgive) -> Result<(), StoreError> {
        self.of(identity).forgive(identity, forgive).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        Ok(all(self.databases.iter().map(|database| database.purge(limit))).await?.into_iter().sum())
    }

    async fn note_results_read(&self, reads: Vec<ResultRead>) -> Result<(), StoreError> {
        let rows: Vec<FlowRow> = reads.iter().map(|read| read.flow).collect();
        let places = self.locate(&rows).await?;
        let mut there: BTreeMap<usize, Vec<ResultRead>> = BTreeMap::new();
        for read in reads {
            if let Some(place) = places.get(&read.flow) {
                there.entry(*place).or_default().push(read);
            }
        }
        all(there.into_iter().map(|(place, reads)| self.databases[place].note_results_read(reads))).await.map(drop)
    }

    async fn note_untaken(&self, untaken: Untaken) -> Result<UntakenCount, StoreError> {
        self.of(untaken.identity).note_untaken(untaken).await
    }

    async fn import_attachment(
        &self,
        identity: IdentityRow,
        attachment: NewAttachment,
        bounds: ImportBounds,
    ) -> Result<Imported, StoreError> {
        self.of(identity).import_attachment(identity, attachment, bounds).await
    }

    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<(), StoreError> {
        self.first().append_audit(rows).await
    }

    fn commit_hint_for(&self, identity: IdentityRow) -> CommitHint {
        self.of(identity).commit_hint()
    }

    fn is_congested(&self) -> bool {
        self.databases.iter().any(|database| database.is_congested())
    }

    fn is_congested_for(&self, identity: IdentityRow) -> bool {
        self.of(identity).is_congested()
    }

    fn databases(&self) -> usize {
        self.databases.len()
    }

    fn is_one_database(&self, one: IdentityRow, other: IdentityRow) -> bool {
        self.place(one) == self.place(other)
    }

    /// What is counted is added up; of times those of the database that has committed most.
    fn stats(&self) -> GroupStats {
        let all: Vec<GroupStats> = self.databases.iter().map(|database| database.stats()).collect();
        let busiest = all.iter().max_by_key(|stats| stats.commits).copied().unwrap_or_default();
        let sum = |field: fn(&GroupStats) -> u64| all.iter().map(field).sum();
        let waiting = |field: fn(&GroupStats) -> usize| all.iter().map(field).sum();
        GroupStats {
            commits: sum(|stats| stats.commits),
            failed_commits: sum(|stats| stats.failed_commits),
            units: sum(|stats| stats.units),
            bytes: sum(|stats| stats.bytes),
            refused_units: sum(|stats| stats.refused_units),
            queued_units: waiting(|stats| stats.queued_units),
            queued_bytes: waiting(|stats| stats.queued_bytes),
            ..busiest
        }
    }
}

/// The marker is that of the first database; what is kept is where its sender lives.
#[async_trait]
impl KeptMessages for SeveralDatabases {
    async fn marker(&self) -> Result<i64, StoreError> {
        self.first().marker().await
    }

    async fn next_marker(&self, present: i64) -> Result<Option<i64>, StoreError> {
        self.first().next_marker(present).await
    }

    async fn send_again(&self, marker: i64, limit: u32) -> Result<u64, StoreError> {
        let sending = self.databases.iter().map(|database| database.send_again(marker, limit));
        Ok(all(sending).await?.into_iter().sum())
    }

    async fn forget(&self, marker: i64, after: Duration, newest: u64, limit: u32) -> Result<u64, StoreError> {
        let forgetting = self.databases.iter().map(|database| database.forget(marker, after, newest, limit));
        Ok(all(forgetting).await?.into_iter().sum())
    }
}

impl SeveralDatabases {
    async fn claim_where_known(&self, requests: &[ClaimRequest]) -> Result<Claimed, StoreError> {
        let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, request) in requests.iter().enumerate() {
            places.entry(self.place(request.identity)).or_default().push(index);
        }
        let mut outcomes: Vec<Option<Result<_, StoreError>>> = requests.iter().map(|_| None).collect();
        for (place, indices) in places {
            let here = indices.iter().map(|&index| requests[index]).collect();
            for (index, outcome) in indices.iter().zip(self.databases[place].claim_all(here).await?) {
                outcomes[*index] = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(StoreError::Closed))).collect())
    }
}
