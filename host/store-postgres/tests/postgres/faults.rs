//! Servers that are killed, stopped, restarted and cut off while a host commits: nothing is lost, nothing doubled, and
//! whoever waits goes on by himself.

use std::time::{Duration, Instant};

use crate::common::*;
use maxhost_model::FlowRow;
use maxhost_postgres_server::Server;
use maxhost_proxy::Proxy;
use maxhost_store::{Author, MessageOp, Op, Store, StoreError, assert_outcome};
use maxhost_store_postgres::{PostgresOptions, PostgresStore};
use sqlx::Connection;

/// A unit that would show if it were written twice, or half: the outbox numbers its rows by itself.
fn step(flow: FlowRow, seq: u32) -> Vec<Op> {
    let message = MessageOp::Outbox { destination: "x".into(), message_id: [1; 16], body: text(&seq.to_string()) };
    vec![log(flow, seq), message.into()]
}

async fn world(options: PostgresOptions) -> (Store, Author, FlowRow) {
    let store = PostgresStore::open(options).await.unwrap();
    let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, identity, 1).await;
    let flow = store.next_flow_row();
    store.commit(alice, vec![start(flow)]).await.unwrap();
    (store, alice, flow)
}

/// Every step is there once, and nothing else.
async fn all_is_there(store: &Store, flow: FlowRow, steps: u32) {
    let journal = store.journal(flow).await.unwrap().unwrap();
    assert_eq!(journal.log.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (0..steps).collect::<Vec<_>>());
    let sent = store.outbox(0, 10_000).await.unwrap();
    let bodies: Vec<_> = sent.iter().map(|row| row.content.body().clone()).collect();
    assert_eq!(bodies, (0..steps).map(|seq| text(&seq.to_string())).collect::<Vec<_>>());
}

/// A server of this test's own, with a database.
fn own_server() -> Server {
    let server = Server::start("").unwrap();
    server.create_database("own").unwrap();
    server
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Hazard 2: the answer to a commit gets lost, and the commit was written or was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_written_once() {
    let database = Database::new().await;
    let proxy = Proxy::to(([127, 0, 0, 1], server().port()).into()).await.unwrap();
    let url = format!("postgres://maxhost@127.0.0.1:{}/{}", proxy.address().port(), database.name);
    let (store, alice, flow) = world(PostgresOptions::new(&url, Some(&server().password_file())).unwrap()).await;
    for seq in 0..60 {
        match seq % 3 {
            0 => proxy.lose_next_answer(),
            1 => proxy.lose_next_question(),
            _ => {}
        }
        store.commit(alice, step(flow, seq)).await.unwrap();
    }
    assert_eq!(proxy.lost(), 40);
    // The books are looked at past the proxy.
    assert_eq!(database.sql("SELECT count(*), count(DISTINCT body) FROM maxhost.outbox"), "60|60");
    all_is_there(&store, flow, 60).await;
    store.close().await;
}

/// The same where a batch is written unit by unit, because one of its units fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_answer_is_lost_is_written_or_told() {
    let database = Database::new().await;
    let proxy = Proxy::to(([127, 0, 0, 1], server().port()).into()).await.unwrap();
    let url = format!("postgres://maxhost@127.0.0.1:{}/{}", proxy.address().port(), database.name);
    let (store, alice, flow) = world(PostgresOptions::new(&url, Some(&server().password_file())).unwrap()).await;
    let mut written = 0;
    for round in 0..12 {
        let gate = hold_the_committer(&store, alice);
        let good = submit(&store, alice, None, step(flow, written));
        let nul = MessageOp::Outbox { destination: "a\0b".into(), message_id: [2; 16], body: text("m") };
        let bad = submit(&store, alice, None, vec![nul.into()]);
        if round % 2 == 0 {
            proxy.lose_next_answer();
        }
        drop(gate);
        match good.await.unwrap() {
            Ok(_) => written += 1,
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
        assert!(bad.await.unwrap().is_err(), "text with NUL is nothing for the database");
    }
    all_is_there(&store, flow, written).await;
    assert!(written >= 6);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_for_a_server_that_is_killed_or_restarted() {
    let server = std::sync::Arc::new(blocking(own_server).await);
    let options = PostgresOptions::new(&server.url("own"), None).unwrap();
    let (store, alice, flow) = world(options).await;
    let faults = {
        let server = server.clone();
        tokio::task::spawn_blocking(move || {
            for round in 0..4 {
                std::thread::sleep(Duration::from_millis(150));
                if round % 2 == 0 {
                    server.kill().unwrap()
                } else {
                    server.stop().unwrap()
                }
                std::thread::sleep(Duration::from_millis(100));
                server.resume().unwrap();
            }
        })
    };
    let mut seq = 0;
    while !faults.is_finished() || seq < 100 {
        store.commit(alice, step(flow, seq)).await.unwrap();
        seq += 1;
    }
    faults.await.unwrap();
    all_is_there(&store, flow, seq).await;
    store.close().await;
}

/// A claim is seen by all before it is on the disk. A server that dies in between may lose it: then whatever was begun under it is
/// refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_the_server_has_lost_lets_nobody_write() {
    let server = std::sync::Arc::new(blocking(own_server).await);
    let store = PostgresStore::open(PostgresOptions::new(&server.url("own"), None).unwrap()).await.unwrap();
    let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
    let mut written = 0;
    for epoch in 1..=6 {
        let alice = claim(&store, identity, epoch).await;
        let (killed, shown) = (server.clone(), format!("SELECT count(*) FROM maxhost.identity WHERE epoch = {epoch}"));
        let is_there = blocking(move || {
            killed.kill().unwrap();
            killed.resume().unwrap();
            killed.sql("own", &shown).unwrap().trim() == "1"
        });
        let is_there = is_there.await;
        let outcome = store.commit(alice, vec![start(store.next_flow_row())]).await;
        match is_there {
            true => drop(outcome.unwrap()),
            false => assert_outcome!(outcome, Err(StoreError::Fenced { .. })),
        }
        written += usize::from(is_there);
        assert_eq!(store.live_flows().await.unwrap().len(), written);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_for_a_server_that_hangs() {
    let server = std::sync::Arc::new(blocking(own_server).await);
    let options = PostgresOptions::new(&server.url("own"), None).unwrap();
    let (store, alice, flow) = world(options).await;
    let answered = |store: &Store| store.last_answers()[0].clone();
    for seq in 0..3 {
        let paused = server.clone();
        blocking(move || paused.pause().unwrap()).await;
        let before = answered(&store);
        let waits = submit(&store, alice, None, step(flow, seq));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let server = server.clone();
        blocking(move || server.unpause().unwrap()).await;
        waits.await.unwrap().unwrap();
        assert_eq!(before.0, "store");
        assert!(answered(&store).1 > before.1, "what is written is an answer");
    }
    all_is_there(&store, flow, 3).await;
    // Nobody writes or reads, and it is known all the same that the server answers.
    let before = answered(&store);
    let known = async {
        while answered(&store).1 <= before.1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.unwrap();
    store.close().await;
}

/// A host that is alone has nobody to tell whether the server answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_asked_each_second_only_where_somebody_wants_to_know() {
    // How many connections have asked nothing but whether the server is there.
    const ASKED: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1'";
    let (alone, shared) = (Database::new().await, Database::new().await);
    let mut options = alone.options();
    options.asks_each_second = false;
    let (store, alice, flow) = world(options).await;
    let (among_others, _, _) = world(shared.options()).await;
    let asks = async {
        while shared.sql(ASKED) != "1" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asks).await.unwrap();
    assert_eq!(among_others.last_answers().len(), 1);
    // The one that does not ask was opened before.
    assert_eq!(alone.sql(ASKED), "0");
    assert!(store.last_answers().is_empty(), "nobody takes what was not asked for an answer that is missing");
    store.commit(alice, step(flow, 0)).await.unwrap();
    all_is_there(&store, flow, 1).await;
    store.close().await;
    among_others.close().await;
}

/// Hazard 30: a server that comes back without what it had committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_went_back_is_noticed_and_left_alone() {
    let database = Database::new().await;
    let (store, alice, flow) = world(database.options()).await;
    store.commit(alice, step(flow, 0)).await.unwrap();
    store.commit(alice, step(flow, 1)).await.unwrap();
    database.sql("UPDATE maxhost.committer SET batch = batch - 1; DELETE FROM maxhost.journal WHERE seq = 1");
    assert_outcome!(store.commit(alice, step(flow, 2)).await, Err(StoreError::WentBack(_)));
    let problem = maxhost_model::Problem::from(store.commit(alice, step(flow, 2)).await.unwrap_err());
    assert_eq!(problem.code.as_str(), "store-went-back");
    assert_eq!(database.sql("SELECT count(*) FROM maxhost.outbox"), "2", "nothing more is written");
    // The next run begins with what there is.
    store.close().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let alice = claim(&store, alice.identity, 2).await;
    store.commit(alice, vec![log(flow, 1)]).await.unwrap();
    store.close().await;
}

/// The rows of one of many identities cannot be written: the others' are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_another_run_took_costs_the_others_nothing() {
    let database = Database::new().await;
    let first = PostgresStore::open(database.options()).await.unwrap();
    let rows = first.register_identities(&["Alice", "Bob"]).await.unwrap();
    let (alice, bob) = (claim(&first, rows[0], 1).await, claim(&first, rows[1], 1).await);
    let (alices, bobs) = (first.next_flow_row(), first.next_flow_row());
    first.commit(alice, vec![start(alices)]).await.unwrap();
    first.commit(bob, vec![start(bobs)]).await.unwrap();

    let second = PostgresStore::open(database.options()).await.unwrap();
    let taken = claim(&second, bob.identity, 2).await;
    let gate = hold_the_committer(&first, alice);
    let unaffected = submit(&first, alice, None, vec![log(alices, 0)]);
    let late = submit(&first, bob, None, vec![log(bobs, 0)]);
    let outdated = submit(&first, alice, None, vec![log(alices, 1), deliver(to(bob), bobs.session(0), 0)]);
    drop(gate);
    unaffected.await.unwrap().unwrap();
    assert_outcome!(late.await.unwrap(), Err(StoreError::Fenced { current, .. }) if current == taken.claim);
    assert_eq!(outdated.await.unwrap().unwrap().outboxed[..], [1], "the relay brings it");
    second.commit(taken, vec![log(bobs, 0)]).await.unwrap();
    assert!(second.next_flow_row() != first.next_flow_row(), "numbers are given out once");
    let journal = second.journal(bobs).await.unwrap().unwrap();
    assert_eq!((journal.log.len(), journal.inbox.len()), (1, 0));
    first.close().await;
    second.close().await;
}

/// Hazard 47: the commit of a row with a lower number is under way while another host's row with a higher one is there. Whoever
/// reads on behind the last row that he was given must find the lower one later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_the_outbox_that_is_written_late_is_not_overlooked() {
    let database = Database::new().await;
    let first = PostgresStore::open(database.options()).await.unwrap();
    let second = PostgresStore::open(database.options()).await.unwrap();
    let rows = first.register_identities(&["Alice", "Bob"]).await.unwrap();
    let (alice, bob) = (claim(&first, rows[0], 1).await, claim(&second, rows[1], 1).await);
    // Alice's messages are numbered and then wait for as long as the gate is there, as if the disk took so long.
    database.sql(&format!(
        "CREATE TABLE public.gate (); \
         CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         WHILE EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = 'gate') LOOP \
         PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$; \
         CREATE TRIGGER wait AFTER INSERT ON maxhost.outbox FOR EACH ROW WHEN (NEW.identity = {}) \
         EXECUTE FUNCTION public.wait()",
        alice.identity.0
    ));
    let message = |n: u8| MessageOp::Outbox { destination: "x".into(), message_id: [n; 16], body: text("m") }.into();
    let late = submit(&first, alice, None, vec![message(1)]);
    let deadline = Instant::now() + Duration::from_secs(15);
    let numbered =
        "SELECT last_value FROM pg_sequences WHERE schemaname = 'maxhost' AND sequencename = 'outbox_id_seq'";
    while database.sql(numbered) != "1" {
        assert!(Instant::now() < deadline, "Alice's message has no number");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    second.commit(bob, vec![message(2)]).await.unwrap();
    // A turn of the first host's relay: it reads all that there is.
    let mut after = 0;
    while let Some(row) = first.outbox_to("x", after, 10).await.unwrap().pop() {
        after = row.id;
    }
    database.sql("DROP TABLE public.gate");
    late.await.unwrap().unwrap();
    let found = first.outbox_to("x", after, 10).await.unwrap();
    assert_eq!(found.iter().map(|row| row.identity).collect::<Vec<_>>(), [alice.identity]);
    let others = second.outbox_to("x", 0, 10).await.unwrap();
    assert_eq!(others.len(), 1);
    assert!(others[0].identity == bob.identity && found[0].id < others[0].id, "the lower number came later");
    first.close().await;
    second.close().await;
}

/// Hazard 11: two hosts that write for many identities at once, and lose and take some of them, never wait in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_never_wait_for_each_other() {
    let database = Database::new().await;
    let names: Vec<String> = (0..20).map(|n| format!("Party {n:02}")).collect();
    let mut hosts = tokio::task::JoinSet::new();
    for host in 0..2_i64 {
        let (options, mut names) = (database.options(), names.clone());
        hosts.spawn(async move {
            let store = PostgresStore::open(options).await.unwrap();
            // Each in an order of its own.
            if host == 1 {
                names.reverse();
            }
            let rows = store.register_identities(&names).await.unwrap();
            let mut refused = 0;
            for round in 0..40_i64 {
                let mut answers = Vec::new();
                for (place, &row) in rows.iter().enumerate() {
                    if (place as i64 + round + host) % 5 != 0 {
                        continue;
                    }
                    let token = maxhost_store::FencingToken { generation: 1, epoch: round * 2 + host + 1 };
                    let request = maxhost_store::ClaimRequest {
                        identity: row,
                        token,
                        key_fp: None,
                        caution: maxhost_store::Caution::None,
                    };
                    if let Ok(claim) = store.claim(request).await {
                        let author = Author { identity: row, claim };
                        let flow = store.next_flow_row();
                        let ops = vec![start(flow), initiate(to(author), store.next_initiation()), end(flow)];
                        answers.push(submit(&store, author, None, ops));
                    }
                }
                for answer in answers {
                    match answer.await.unwrap() {
                        Ok(_) => {}
                        Err(StoreError::Fenced { .. }) => refused += 1,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                store.purge(100).await.unwrap();
            }
            store.close().await;
            refused
        });
    }
    let mut refused = 0;
    while let Some(host) = hosts.join_next().await {
        refused += host.unwrap();
    }
    println!("{refused} units were refused");
    let sql = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{}'", database.name);
    assert_eq!(database.sql(&sql), "0");
}

/// Hazard 7: a claim waits for the row of its identity, and no other claim waits with it. Claims at the same time are one statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_identity_holds_up_no_claim_of_another() {
    let database = Database::new().await;
    let names: Vec<String> = (0..150).map(|n| format!("Party {n:03}")).collect();
    let store = PostgresStore::open(database.options()).await.unwrap();
    let rows = store.register_identities(&names).await.unwrap();
    let of = |row, epoch| {
        let token = maxhost_store::FencingToken { generation: 1, epoch };
        maxhost_store::ClaimRequest { identity: row, token, key_fp: None, caution: maxhost_store::Caution::None }
    };
    // What another host has claimed stays as it is, whatever comes at the same time.
    let other = PostgresStore::open(database.options()).await.unwrap();
    let taken = other.claim(of(rows[3], 9)).await.unwrap();

    let mut locker = sqlx::PgConnection::connect(&server().url(&database.name)).await.unwrap();
    let mut locked = locker.begin().await.unwrap();
    sqlx::query("SELECT FROM maxhost.identity WHERE id = $1 FOR NO KEY UPDATE")
        .bind(rows[7].0)
        .execute(&mut *locked)
        .await
        .unwrap();
    let waits = {
        let (store, request) = (store.clone(), of(rows[7], 5));
        tokio::spawn(async move { store.claim(request).await })
    };
    let others: Vec<_> = rows.iter().copied().filter(|row| *row != rows[7]).collect();
    let claims = others.iter().map(|row| {
        let (store, request) = (store.clone(), of(*row, 5));
        tokio::spawn(async move { store.claim(request).await })
    });
    for (row, claimed) in others.iter().zip(claims.collect::<Vec<_>>()) {
        match claimed.await.unwrap() {
            Ok(claim) => assert_eq!((claim.token.epoch, claim.run), (5, store.run())),
            Err(error) => {
                assert_eq!(*row, rows[3]);
                assert_outcome!(error, StoreError::Fenced { current, .. } if current == taken);
            }
        }
    }
    assert!(!waits.is_finished(), "it waits for the lock");
    locked.rollback().await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap().token.epoch, 5);
    // Claimed once each, and written for at once.
    assert_eq!(database.sql("SELECT count(*) FROM maxhost.identity WHERE unclean = 1 AND epoch = 5"), "149");
    let author = Author { identity: rows[7], claim: store.claim(of(rows[7], 5)).await.unwrap() };
    let flow = store.next_flow_row();
    store.commit(author, vec![start(flow)]).await.unwrap();
    assert_eq!(database.sql(&format!("SELECT unclean FROM maxhost.identity WHERE id = {}", rows[7].0)), "1");
    store.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_free_connections_is_waited_for() {
    let server = blocking(|| {
        let server = Server::start("max_connections = 12\nsuperuser_reserved_connections = 3").unwrap();
        server.create_database("own").unwrap();
        server.sql("postgres", "CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE own TO plain").unwrap();
        server
    })
    .await;
    let options = PostgresOptions::new(&server.url_of("plain", "own"), None).unwrap();
    let (store, alice, flow) = world(options.clone()).await;
    store.commit(alice, step(flow, 0)).await.unwrap();
    // Everybody is thrown out, and others come first.
    let busy: Vec<_> = {
        server
            .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain'")
            .unwrap();
        let mut held = Vec::new();
        let began = Instant::now();
        while held.len() < 9 && began.elapsed() < Duration::from_secs(20) {
            match connect(&server).await {
                Ok(conn) => held.push(conn),
                Err(_) => break,
            }
        }
        held
    };
    let waits = submit(&store, alice, None, step(flow, 1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(busy);
    waits.await.unwrap().unwrap();
    all_is_there(&store, flow, 2).await;
    store.close().await;
}

async fn connect(server: &Server) -> Result<sqlx::PgConnection, sqlx::Error> {
    let path = server.dir().display();
    let url = format!("postgres:///own?host={path}&port={}&user=plain", server.port());
    sqlx::PgConnection::connect(&url).await
}

/// A small file system in memory; gone when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(folder: std::path::PathBuf) -> Option<SmallDisk> {
        std::fs::create_dir(&folder).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=12m,mode=777", "tmpfs"];
        let mounted = std::process::Command::new("mount").args(options).arg(&folder).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(folder))
    }

    fn enlarge(&self) {
        let grown = std::process::Command::new("mount").args(["-o", "remount,size=200m"]).arg(&self.0).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let server = blocking(own_server).await;
    let Some(disk) = SmallDisk::mount(server.dir().join("small")) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    let place = disk.0.join("space");
    std::fs::create_dir(&place).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(server.dir().join("data")).unwrap());
    std::os::unix::fs::chown(&place, Some(owner), None).unwrap();
    let options = PostgresOptions::new(&server.url("own"), None).unwrap();
    let (store, alice, flow) = world(options).await;
    server.sql("own", &format!("CREATE TABLESPACE small LOCATION '{}'", place.display())).unwrap();
    server.sql("own", "ALTER TABLE maxhost.journal SET TABLESPACE small").unwrap();
    let body = |seq: u32| {
        // Nothing that could be compressed.
        let mut state = u64::from(seq) + 1;
        let bytes: Vec<u8> = (0..1 << 20)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        vec![maxhost_store::FlowOp::AppendLog { flow, seq, body: bytes.into() }.into()]
    };
    let (mut seq, mut refused) = (0, 0);
    while refused < 3 {
        match store.commit(alice, body(seq)).await {
            Ok(_) => seq += 1,
            Err(error) => {
                assert_outcome!(&error, StoreError::Full(_));
                assert!(error.is_retriable());
                refused += 1;
            }
        }
        assert!(seq < 100, "the disk is not that large");
    }
    disk.enlarge();
    store.commit(alice, body(seq)).await.unwrap();
    let journal = store.journal(flow).await.unwrap().unwrap();
    assert_eq!(journal.log.len() as u32, seq + 1);
    store.close().await;
    server.stop().unwrap();
    // Before the server's folder goes, in which it lies.
    drop(disk);
}
