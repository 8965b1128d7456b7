//! A host that is stopped within a commit, when the database has compared its claims and has not committed yet: whoever claims
//! the identity meanwhile waits until the commit is written, or takes the identity without it. Nothing is lost or doubled.

use maxhost_tests::{ALICE, BOB, Host, eventually};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::{result, signal, start};

const DATABASE: &str = "stopped";

/// Notes every claim, and every row of a journal (a flow's log is stream -1) with the epoch under which it is written. While
/// the gate is closed, one write of the flow named in `plan` is held up before it is committed; which one, a sequence counts,
/// because what a transaction writes is gone with it. A batch is one statement; if that fails, it is done again in a
/// transaction of several.
const NOTES: &str = "
    CREATE SCHEMA test;
    CREATE TABLE test.gate (closed boolean);
    CREATE TABLE test.plan (flow bigint, held_up bigint);
    CREATE SEQUENCE test.writes;
    CREATE SEQUENCE test.held;
    CREATE TABLE test.claim (n bigserial, identity bigint, epoch bigint, owner bigint);
    CREATE TABLE test.written (flow bigint, stream integer, seq bigint, epoch bigint);
    CREATE FUNCTION test.claimed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO test.claim (identity, epoch, owner) VALUES (NEW.id, NEW.epoch, NEW.owner); RETURN NULL; END $$;
    CREATE FUNCTION test.written() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE held_up bigint; n bigint; BEGIN
        INSERT INTO test.written SELECT NEW.flow, NEW.stream, NEW.seq, i.epoch
            FROM maxhost.flow f JOIN maxhost.identity i ON i.id = f.identity WHERE f.id = NEW.flow;
        SELECT p.held_up INTO held_up FROM test.plan p WHERE p.flow = NEW.flow;
        IF held_up IS NULL OR NEW.stream <> -1 THEN RETURN NULL; END IF;
        n := nextval('test.writes');
        IF n < held_up THEN RAISE EXCEPTION 'not in this statement'; END IF;
        IF n > held_up THEN RETURN NULL; END IF;
        PERFORM setval('test.held', NEW.seq + 1);
        WHILE EXISTS (SELECT FROM test.gate) LOOP PERFORM pg_sleep(0.02); END LOOP;
        RETURN NULL; END $$;
    CREATE TRIGGER test AFTER UPDATE ON maxhost.identity FOR EACH ROW
        WHEN (OLD.epoch <> NEW.epoch OR OLD.owner IS DISTINCT FROM NEW.owner) EXECUTE FUNCTION test.claimed();
    CREATE TRIGGER test AFTER INSERT ON maxhost.journal FOR EACH ROW EXECUTE FUNCTION test.written()";

/// How the commit is made that the host is stopped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// In one statement: the database carries it out to its end, whatever becomes of the host.
    Statement,
    /// In a transaction of several, which cannot end without the host.
    Transaction,
}

fn sql(cluster: &Cluster<'_>, sql: &str) -> String {
    cluster.servers.postgres.sql(DATABASE, sql).unwrap()
}

/// Waits until the database answers so.
async fn until(cluster: &Cluster<'_>, what: &str, question: &str, answer: &str) {
    eventually(what, async || {
        let found = sql(cluster, question);
        if found == answer { Ok(()) } else { Err(found) }
    })
    .await;
}

const EPOCH: &str = "SELECT epoch FROM maxhost.identity WHERE name LIKE 'O=Alice%'";

/// Stops the host that runs Alice within a commit of a flow of hers, and lets another one take over.
async fn stop_within(cluster: &Cluster<'_>, hosts: [&Host; 2], commit: Commit) {
    let arguments = json!({"beats": 60, "interval_ms": 100});
    let beat = start(&hosts, ALICE, "beat", arguments).await;
    let ping = start(&hosts, ALICE, "ping", json!({"peer": BOB, "count": 40})).await;
    let name = cluster.until_owned("max-a", "Alice", |owner| owner.is_some()).await.unwrap();
    let (stopped, other, asked) =
        if name == "max-a" { (hosts[0], hosts[1], "max-b") } else { (hosts[1], hosts[0], "max-a") };
    let flow = sql(
        cluster,
        "SELECT max(f.id) FROM maxhost.flow f JOIN maxhost.identity i ON i.id = f.identity \
         WHERE i.name LIKE 'O=Alice%' AND f.name LIKE '%beat'",
    );
    let epoch = sql(cluster, EPOCH);
    let held_up = if commit == Commit::Statement { 1 } else { 2 };
    sql(
        cluster,
        &format!(
            "INSERT INTO test.gate VALUES (true); SELECT setval('test.writes', 1, false), setval('test.held', 1, false); \
             INSERT INTO test.plan VALUES ({flow}, {held_up})"
        ),
    );
    until(cluster, "a write is held up", "SELECT is_called FROM test.held", "t").await;
    signal(stopped, libc::SIGSTOP);
    // The claims were compared: the row of the identity is locked, and whoever claims it waits.
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND query LIKE '%FROM maxhost.identity WHERE id = %FOR NO KEY UPDATE%'";
    until(cluster, "the claim of the other host waits", waits, "t").await;
    assert_eq!(sql(cluster, EPOCH), epoch, "nobody claims it beside the commit");
    sql(cluster, "DELETE FROM test.gate");
    until(cluster, "the other host has it", &format!("SELECT ({EPOCH}) > {epoch}"), "t").await;
    signal(stopped, libc::SIGCONT);

    assert_eq!(result(other, &beat).await, json!({"beats": 60}), "{commit:?}");
    assert_eq!(result(other, &ping).await, json!({"rounds": 40}), "{commit:?}");
    // What was held up was written by the host that was stopped, or by the one that took over; and once.
    let held = format!(
        "SELECT count(*), count(*) FILTER (WHERE epoch = {epoch}) FROM test.written \
         WHERE flow = {flow} AND stream = -1 AND seq = (SELECT last_value - 1 FROM test.held)"
    );
    assert_eq!(sql(cluster, &held), if commit == Commit::Statement { "1|1" } else { "1|0" }, "{commit:?}");
    sql(cluster, "DELETE FROM test.plan");
    eventually("the host that was stopped is in the cluster", async || {
        let hosts = cluster.ask(asked, &["host", "list"]);
        let up = hosts.iter().filter(|host| host["state"] == "up").count();
        if up == 2 { Ok(()) } else { Err(format!("{hosts:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_stopped_within_a_commit_is_waited_for_or_loses_it() {
    let Some(servers) = WellServers::take().await else { return };
    let cluster = Cluster::new(&servers, 0, DATABASE, "/maxhost/stopped");
    let a = cluster.run("max-a");
    let b = cluster.run("max-b");
    sql(&cluster, NOTES);
    for commit in [Commit::Statement, Commit::Transaction] {
        stop_within(&cluster, [&a, &b], commit).await;
    }
    // An epoch had one owner, and they rose; what each wrote follows what the one before had written. A log has no gap; a row
    // of a session may have several frames, and its number is that of the first.
    let doubled = "SELECT count(*) FROM (SELECT FROM test.claim WHERE owner IS NOT NULL \
                   GROUP BY identity, epoch HAVING count(DISTINCT owner) > 1) d";
    assert_eq!(sql(&cluster, doubled), "0");
    let fell = "SELECT count(*) FROM (SELECT epoch, lag(epoch) OVER (PARTITION BY identity ORDER BY n) AS former \
                FROM test.claim) c WHERE epoch < former";
    assert_eq!(sql(&cluster, fell), "0");
    let out_of_order = "SELECT count(*) FROM (SELECT stream, seq, epoch, \
                        lag(seq) OVER w AS seq_before, lag(epoch) OVER w AS epoch_before FROM test.written \
                        WINDOW w AS (PARTITION BY flow, stream ORDER BY seq)) j \
                        WHERE seq = seq_before OR stream = -1 AND seq > seq_before + 1 OR epoch < epoch_before";
    assert_eq!(sql(&cluster, out_of_order), "0");
    assert_ne!(sql(&cluster, "SELECT count(*) FROM test.written"), "0");
    drop((a, b));
}
