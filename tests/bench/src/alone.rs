//! One ping-pong(1) at a time against three bare commits, taken in turns in the same run.

use std::collections::BTreeMap;
use std::time::Instant;

use rusqlite::Connection;

use crate::figures::{Goal, Report, percentile};
use crate::setting::{Clients, Outcome, Setting, party};

/// Flows, and triples of commits, that are taken in one go before it is the other's turn.
const TURN: u32 = 20;
/// Bytes of the row that a bare commit inserts: what a log row of a ping has.
const ROW: usize = 220;
/// Bytes that the bare database's log has grown to before anything is measured.
const GROWN: i64 = 16 << 20;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    report.group("ping-pong(1) over gRPC, one at a time, against three bare SQLite commits in turns");
    let installation = setting.small()?;
    let host = installation.start::<&str>(&[])?;
    let scratch = setting.scratch()?;
    let bare = Bare::open(&scratch.path().join("bare.db"))?;
    // One thread does all that the client has to do: handing over between threads of its own is not what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let turns = if setting.quick { 25 } else { 200 };
    let (mut flows, mut commits) = (Vec::new(), Vec::new());
    let commits_a_flow = runtime.block_on(async {
        let clients = Clients::connect(&host).await?;
        let counted = clients.status().await?.counters;
        let (from, arguments) = (party(1), format!(r#"{{"peer":"{}","count":1}}"#, party(2)));
        for turn in 0..turns + 1 {
            for _ in 0..TURN {
                let began = Instant::now();
                let known = clients.run(0, &from, "ping-pong/ping", arguments.clone()).await?;
                let flow = (known - began).as_secs_f64() * 1e3;
                let began = Instant::now();
                bare.commit_thrice()?;
                let three = began.elapsed().as_secs_f64() * 1e3;
                // The first turn warms up.
                if turn > 0 {
                    flows.push(flow);
                    commits.push(three);
                }
            }
        }
        let now = clients.status().await?.counters;
        let commits = |counters: &BTreeMap<String, u64>| counters.get("commits").copied().unwrap_or(0);
        Outcome::Ok((commits(&now) - commits(&counted)) as f64 / f64::from((turns + 1) * TURN))
    })?;
    host.stop()?;
    let (flow, three) = (percentile(&mut flows, 0.5), percentile(&mut commits, 0.5));
    report.add("a flow from StartAndAttach to its end, p50", flow, "ms", Goal::None);
    report.add("the same, p99", percentile(&mut flows, 0.99), "ms", Goal::None);
    report.add("three bare commits (WAL, synchronous=FULL), p50", three, "ms", Goal::None);
    report.add("the same, p99", percentile(&mut commits, 0.99), "ms", Goal::None);
    report.add("commits a flow", commits_a_flow, "", Goal::None);
    report.add("ratio of the p50", flow / three, "×", Goal::AtMost(1.5));
    Ok(())
}

/// SQLite without anything around it, opened as the host opens its database.
struct Bare(Connection);

impl Bare {
    fn open(file: &std::path::Path) -> Outcome<Bare> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "page_size", 4096)?;
        let _mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB)")?;
        // A log that has its size already is overwritten, which syncs faster than one that grows: the host's has it.
        connection.execute("INSERT INTO row (body) VALUES (zeroblob(?1))", [GROWN])?;
        let _pages: i64 = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(1))?;
        Ok(Bare(connection))
    }

    fn commit_thrice(&self) -> rusqlite::Result<()> {
        for _ in 0..3 {
            self.0.prepare_cached("INSERT INTO row (body) VALUES (?1)")?.execute([&[7_u8; ROW][..]])?;
        }
        Ok(())
    }
}
