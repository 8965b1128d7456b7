//! Opening the database: its committer and its readers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_model::{FlowRow, IdentityRow, Lineage};
use maxhost_store::ledger::{ImportBounds, Imported, NewAttachment};
use maxhost_store::{
    AuditBounds, AuditRow, Backlog, ClaimRequest, Claimed, CommitQueue, Committer, Forgive, KeptMessages, ResultRead,
    RunId, SharedComponents, Store, StoreError, Untaken, UntakenCount,
};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::answers::{self, Answers};
use crate::batch::{Batch, Claims};
use crate::claiming::{self, Asked, Claimer};
use crate::clock::{self, HostClock};
use crate::committer::PostgresRows;
use crate::durability;
use crate::error::of_server;
use crate::lived::{self, Lived};
use crate::numbers::Numbers;
use crate::options::{Layout, PostgresOptions};
use crate::persist::PATIENCE;
use crate::schema;
use crate::session::Session;
use crate::several;

/// What a database is among those of a host.
pub(crate) enum Rank {
    /// The first one, or the only one.
    First {
        /// The ids of those beside it.
        others: Vec<i64>,
        /// The run has this number or a higher one.
        least_run: i64,
    },
    /// One beside it: what it shares with the first one.
    Beside {
        /// The id of the first one.
        first: i64,
        /// Runs are numbered by the first one.
        run: RunId,
        /// So are flows and initiations.
        numbers: Arc<Numbers>,
    },
}

/// A database on a PostgreSQL server.
pub struct PostgresStore {
    queue: CommitQueue,
    pub(crate) pool: PgPool,
    pub(crate) run: RunId,
    lineage: Lineage,
    /// The server and the database, for people.
    place: String,
    pub(crate) layout: Layout,
    /// Where claims are asked for.
    pub(crate) claiming: mpsc::Sender<Asked>,
    claiming_task: AbortHandle,
    pub(crate) lived: Arc<Lived>,
    pub(crate) processed_retention: i64,
    pub(crate) audit: AuditBounds,
    numbers: Arc<Numbers>,
    pub(crate) clock: Arc<HostClock>,
    /// Only the first of several databases gives out numbers.
    numbers_task: Option<AbortHandle>,
    watch_task: AbortHandle,
    answers: Arc<Answers>,
    asking_task: Option<AbortHandle>,
    stopping: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("run", &self.run).finish_non_exhaustive()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.numbers_task.iter().for_each(AbortHandle::abort);
        self.watch_task.abort();
        self.asking_task.iter().for_each(AbortHandle::abort);
        self.claiming_task.abort();
        // The thread commits what waits and ends; nobody is left to wait for it.
        self.stopping.store(true, Ordering::Release);
        self.queue.jobs.close();
    }
}

impl PostgresStore {
    /// Connects, migrates the schema if it must be, and starts the committer.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if no server answers for [`PostgresOptions::patience`], [`StoreError::Denied`],
    /// [`StoreError::MayLose`], [`StoreError::ClockOff`], [`StoreError::Incompatible`], [`StoreError::UnknownDatabase`],
    /// [`StoreError::Unfit`], and whatever else keeps the database from being used.
    pub fn open(options: PostgresOptions) -> BoxFuture<'static, Result<Store, StoreError>> {
        Box::pin(async move {
            PostgresStore::start(options, Rank::First { others: Vec::new(), least_run: 1 }).await.map(Store::new)
        })
    }

    /// Opens the first of these databases, and the others as those that stand beside it: an identity lives in one of them,
    /// and all calls for it go there. With one this is [`PostgresStore::open`].
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub fn open_all(databases: Vec<PostgresOptions>) -> BoxFuture<'static, Result<Store, StoreError>> {
        Box::pin(async move { several::open(databases).await })
    }

    pub(crate) async fn start(options: PostgresOptions, rank: Rank) -> Result<PostgresStore, StoreError> {
        let place = options.place();
        let of = |error| of_server(&place, error);
        let mut conn = schema::connect(&options).await?;
        let risks = durability::check(&mut conn, &place, options.allow_loss).await?;
        let clock = Arc::new(HostClock::new(place.clone(), options.max_clock_offset));
        clock.look(&mut conn).await?;
        schema::migrate(&options, &mut conn).await?;
        let layout = check_layout(&mut conn, options.layout, &place).await?;
        several::check_rank(&mut conn, &rank, &place).await?;
        let run = match &rank {
            Rank::First { least_run, .. } => begin_run(&mut conn, *least_run).await.map_err(of)?,
            Rank::Beside { run, .. } => {
                let sql = "INSERT INTO maxhost.committer (run, seen) SELECT $1, lived FROM maxhost.database";
                sqlx::query(sql).bind(run.0).execute(&mut conn).await.map_err(of)?;
                *run
            }
        };
        let lineage = lineage(&mut conn).await.map_err(of)?;
        let lived = Arc::new(Lived::new(lived::touch(&mut conn).await.map_err(of)?));
        conn.close().await.map_err(of)?;

        let pool = PgPoolOptions::new()
            .max_connections(options.readers.max(2))
            .acquire_timeout(PATIENCE)
            // The committer says when the server is away, once for all.
            .acquire_slow_threshold(PATIENCE)
            .test_before_acquire(false)
            .connect_lazy_with(options.reading());
        let (numbers, numbers_task) = match rank {
            Rank::First { .. } => {
                let numbers = Arc::new(Numbers::new());
                numbers.refill(&pool).await.map_err(of)?;
                let (kept, pool) = (Arc::clone(&numbers), pool.clone());
                let task = tokio::spawn(async move { kept.keep(&pool).await }).abort_handle();
                (numbers, Some(task))
            }
            Rank::Beside { numbers, .. } => (numbers, None),
        };
        let watching = watch(pool.clone(), Arc::clone(&clock), place.clone(), options.look_every, risks);
        let watch_task = tokio::spawn(watching).abort_handle();
        let answers = Arc::new(Answers::new());
        let asking = || tokio::spawn(answers::ask(options.reading(), Arc::clone(&answers))).abort_handle();
        let asking_task = options.asks_each_second.then(asking);

        let queue = CommitQueue::new(options.bounds.clone());
        let (claims, stopping) = (Claims::default(), Arc::new(AtomicBool::new(false)));
        let (started, starting) = oneshot::channel();
        let thread = {
            let (queue, numbers, lived) = (queue.clone(), Arc::clone(&numbers), Arc::clone(&lived));
            let (claims, stopping) = (Arc::clone(&claims), Arc::clone(&stopping));
            let (committing, quotas, layout) = (options.committing(), options.quotas, layout);
            let (place, answers) = (place.clone(), Arc::clone(&answers));
            std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
                let session = match Session::new(committing, place, stopping, answers) {
                    Ok(session) => session,
                    Err(fault) => return drop(started.send(Err(fault))),
                };
                let batch = Batch::new(session, layout, run, claims, Backlog::new(quotas));
                let mut rows = PostgresRows::new(batch, numbers, lived);
                if started.send(Ok(())).is_ok() {
                    maxhost_group_commit::run(&mut rows, &queue.jobs, &queue.stats);
                }
            })
        }
        .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?;
        starting.await.map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))??;
        let (claiming, asked) = mpsc::channel(claiming::WAITING);
        let claimer = Arc::new(Claimer::new(pool.clone(), run, layout, claims));
        let claiming_task = tokio::spawn(claimer.run(asked)).abort_handle();
        Ok(PostgresStore {
            queue,
            pool,
            run,
            lineage,
            place,
            layout,
            claiming,
            claiming_task,
            lived,
            processed_retention: i64::try_from(options.processed_retention.as_millis()).unwrap_or(i64::MAX),
            audit: options.audit,
            numbers,
            clock,
            numbers_task,
            watch_task,
            answers,
            asking_task,
            stopping,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(crate) fn place_name(&self) -> &str {
        &self.place
    }

    pub(crate) fn numbers(&self) -> Arc<Numbers> {
        Arc::clone(&self.numbers)
    }
}

/// Looks again and again at what may have changed since the start: how safe the server is, and the clocks.
async fn watch(pool: PgPool, clock: Arc<HostClock>, place: String, every: Duration, mut known: Vec<String>) {
    loop {
        tokio::time::sleep(every).await;
        let looked = async {
            let mut conn = pool.acquire().await?;
            Ok::<_, sqlx::Error>((clock::measure(&mut conn).await?, durability::risks(&mut conn).await?))
        };
        // That the server is away is said by the committer.
        let Ok((measured, risks)) = looked.await else { continue };
        clock.note(measured);
        durability::tell(&place, &known, &risks);
        known = risks;
    }
}

/// The layout is recorded by the first start, and is the same for ever.
async fn check_layout(conn: &mut PgConnection, wanted: Layout, place: &str) -> Result<Layout, StoreError> {
    let schemas: bool =
        sqlx::query_scalar("UPDATE maxhost.database SET schemas = coalesce(schemas, $1) RETURNING schemas")
            .bind(wanted == Layout::Schemas)
            .fetch_one(conn)
            .await
            .map_err(|error| of_server(place, error))?;
    let found = if schemas { Layout::Schemas } else { Layout::Shared };
    if found == wanted {
        return Ok(found);
    }
    let source = Fault::new(
        FaultKind::CannotOpen,
        format!("its layout is {found}, and store.layout says {wanted}: the layout of a database cannot be changed"),
    );
    Err(StoreError::Denied { place: place.to_owned(), source })
}

/// Which database it is. Its timeline is the first eight digits of the name of the file that it writes to; servers that do
/// not have such files, or do not tell, have none.
async fn lineage(conn: &mut PgConnection) -> Result<Lineage, sqlx::Error> {
    let (database, incarnation) =
        sqlx::query_as("SELECT id, incarnation FROM maxhost.database").fetch_one(&mut *conn).await?;
    let file = sqlx::query_scalar::<_, String>("SELECT pg_walfile_name(pg_current_wal_lsn())").fetch_one(conn).await;
    let timeline = match file {
        Ok(name) => name.get(..8).and_then(|digits| i64::from_str_radix(digits, 16).ok()).unwrap_or(0),
        Err(sqlx::Error::Database(error)) => {
            tracing::debug!(%error, "the server does not tell its timeline");
            0
        }
        Err(error) => return Err(error),
    };
    Ok(Lineage { database, incarnation, timeline })
}

/// A number for this run, not below `least`, and the row by which it finds out what became of its commits.
async fn begin_run(conn: &mut PgConnection, least: i64) -> Result<RunId, sqlx::Error> {
    sqlx::query_scalar(
        "WITH run AS (UPDATE maxhost.number SET next = greatest(next, $1) + 1 WHERE kind = 'run' RETURNING next - 1 AS run) \
         INSERT INTO maxhost.committer (run, seen) SELECT run, lived FROM run, maxhost.database RETURNING run",
    )
    .bind(least)
    .fetch_one(conn)
    .await
    .map(RunId)
}

#[async_trait]
impl Committer for PostgresStore {
    fn queue(&self) -> &CommitQueue {
        &self.queue
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn lineage(&self) -> Lineage {
        self.lineage
    }

    fn last_answers(&self) -> Vec<(String, Instant)> {
        // One that is not asked may have had nothing to answer.
        self.asking_task.iter().map(|_| ("store".to_owned(), self.answers.last())).collect()
    }

    fn server_millis(&self) -> Option<i64> {
        self.clock.server_millis()
    }

    fn components(&self) -> Option<&dyn SharedComponents> {
        Some(self)
    }

    fn kept_messages(&self) -> Option<&dyn KeptMessages> {
        Some(self)
    }

    fn next_flow_row(&self) -> FlowRow {
        self.numbers.next_flow_row()
    }

    fn next_initiation(&self) -> i64 {
        self.numbers.next_initiation()
    }

    async fn register(&self, names: Vec<String>) -> Result<Vec<IdentityRow>, StoreError> {
        self.register_names(names).await
    }

    async fn claim_all(&self, requests: Vec<ClaimRequest>) -> Result<Claimed, StoreError> {
        self.claim_identities(requests).await
    }

    async fn forgive(&self, identity: IdentityRow, forgive: Forgive) -> Result<(), StoreError> {
        self.forgive_owners(identity, forgive).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.purge_rows(limit).await
    }

    async fn note_results_read(&self, reads: Vec<ResultRead>) -> Result<(), StoreError> {
        self.write_results_read(&reads).await
    }

    async fn note_untaken(&self, untaken: Untaken) -> Result<UntakenCount, StoreError> {
        self.count_untaken(&untaken).await
    }

    async fn import_attachment(
        &self,
        identity: IdentityRow,
        attachment: NewAttachment,
        bounds: ImportBounds,
    ) -> Result<Imported, StoreError> {
        self.keep_import(identity, &attachment, bounds).await
    }

    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<(), StoreError> {
        self.append_audit_rows(&rows).await
    }

    async fn close(&self) {
        self.stopping.store(true, Ordering::Release);
        self.numbers_task.iter().for_each(AbortHandle::abort);
        self.watch_task.abort();
        self.asking_task.iter().for_each(AbortHandle::abort);
        self.claiming_task.abort();
        self.queue.jobs.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err())
        {
            tracing::error!("the committer ended with a defect");
        }
        self.pool.close().await;
    }
}
