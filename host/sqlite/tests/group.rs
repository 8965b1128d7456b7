//! The committer's loop, with the smallest of writers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maxhost_group_commit::{Bounds, Failure, Fault, FaultKind, Queue, Stats};
use maxhost_sqlite::{SqliteError, Tuning, WalLimits, Writer, open_writer, run};
use rusqlite::{Connection, Statement};

type Outcome = Result<u32, FaultKind>;

/// Writes these numbers, or does something worse.
struct Unit {
    numbers: Vec<i64>,
    then: Then,
    reply: Sender<Outcome>,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Succeed,
    Fail,
    /// Keeps its numbers back if it may, and fails where they are written.
    FailWhenWritten,
    BreakTheBatch,
    Panic,
}

struct Numbers<'c> {
    insert: Statement<'c>,
    batches: u32,
    singly: bool,
    /// Numbers that are kept back cannot be written.
    spoiled: u64,
}

/// An error of one unit.
struct Error(FaultKind);

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error(fault.kind)
    }
}

impl Writer for Numbers<'_> {
    type Unit = Unit;
    type Receipt = u32;
    type Error = Error;

    fn begin(&mut self, singly: bool) -> Result<(), Fault> {
        self.singly = singly;
        Ok(())
    }

    fn apply(&mut self, unit: &Unit, _again: bool) -> Result<u32, Failure<Error>> {
        for number in &unit.numbers {
            self.insert.execute([number]).map_err(SqliteError::from)?;
        }
        match unit.then {
            Then::Succeed => Ok(self.batches),
            Then::FailWhenWritten if !self.singly => {
                self.spoiled += 1;
                Ok(self.batches)
            }
            Then::Fail | Then::FailWhenWritten => Err(Failure::Unit(Error(FaultKind::Other))),
            Then::BreakTheBatch => Err(Failure::Transaction(Fault::new(FaultKind::Io, "on purpose"))),
            Then::Panic => panic!("on purpose"),
        }
    }

    fn unwritten(&self) -> u64 {
        self.spoiled
    }

    fn seal(&mut self) -> Result<(), Fault> {
        match self.spoiled {
            0 => Ok(()),
            _ => Err(Fault::new(FaultKind::Corrupt, "on purpose")),
        }
    }

    fn ended(&mut self, committed: bool) {
        self.batches += u32::from(committed);
        self.spoiled = 0;
    }

    fn finish(unit: Unit, outcome: Result<u32, Error>) {
        let _ = unit.reply.send(outcome.map_err(|Error(kind)| kind));
    }

    fn closed() -> Error {
        Error(FaultKind::Busy)
    }
}

struct Committer {
    dir: tempfile::TempDir,
    queue: Arc<Queue<Unit>>,
    stats: Arc<Stats>,
    thread: JoinHandle<()>,
}

impl Committer {
    fn new(limits: WalLimits) -> Committer {
        let dir = tempfile::tempdir().unwrap();
        let conn = open_writer(&path(dir.path()), &Tuning::default()).unwrap();
        conn.execute_batch("CREATE TABLE number (n INTEGER PRIMARY KEY, filler BLOB)").unwrap();
        let queue = Arc::new(Queue::new(Bounds::default()));
        let stats = Arc::new(Stats::default());
        let thread = {
            let (queue, stats) = (Arc::clone(&queue), Arc::clone(&stats));
            std::thread::spawn(move || {
                let insert = conn.prepare("INSERT INTO number VALUES (?1, zeroblob(3000))").unwrap();
                run(&conn, &mut Numbers { insert, batches: 0, singly: false, spoiled: 0 }, &queue, limits, &stats)
                    .unwrap();
            })
        };
        Committer { dir, queue, stats, thread }
    }

    fn push(&self, numbers: impl IntoIterator<Item = i64>, then: Then) -> Receiver<Outcome> {
        let (reply, answer) = channel();
        let unit = Unit { numbers: numbers.into_iter().collect(), then, reply };
        assert!(self.queue.push(unit, 100).is_ok());
        answer
    }

    /// Units that are sure to be in one batch, behind an empty one: they come while the committer is held up with that.
    fn push_together(&self, units: Vec<(Vec<i64>, Then)>) -> Vec<Outcome> {
        let lock = self.write_lock();
        let first = self.push([], Then::Succeed);
        wait_until(|| self.queue.depth().0 == 0);
        let answers: Vec<_> = units.into_iter().map(|(numbers, then)| self.push(numbers, then)).collect();
        drop(lock);
        // What becomes of the batch becomes of it.
        let _ = first.recv_timeout(DEADLINE).unwrap();
        answers.into_iter().map(|answer| answer.recv_timeout(DEADLINE).unwrap()).collect()
    }

    /// Keeps the committer waiting for the file's lock, with whatever it has taken.
    fn write_lock(&self) -> Connection {
        let conn = Connection::open(path(self.dir.path())).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        conn
    }

    fn numbers(&self) -> Vec<i64> {
        let conn = Connection::open(path(self.dir.path())).unwrap();
        let mut sql = conn.prepare("SELECT n FROM number ORDER BY n").unwrap();
        sql.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.dir.path().join("numbers.db-wal")).map_or(0, |file| file.len())
    }

    fn close(self) -> tempfile::TempDir {
        self.queue.close();
        self.thread.join().unwrap();
        self.dir
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("numbers.db")
}

const DEADLINE: Duration = Duration::from_secs(30);

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn one_batch_is_one_commit() {
    let committer = Committer::new(WalLimits::default());
    let outcomes = committer.push_together((0..50).map(|n| (vec![n], Then::Succeed)).collect());
    assert!(outcomes.iter().all(|outcome| *outcome == Ok(0)), "all in the first batch: {outcomes:?}");
    let stats = committer.stats.view(committer.queue.depth());
    assert_eq!((stats.commits, stats.units, stats.bytes), (1, 51, 5100));
    assert_eq!(committer.numbers().len(), 50);
}

#[test]
fn units_that_fail_halfway_are_undone_alone() {
    let committer = Committer::new(WalLimits::default());
    let outcomes = committer.push_together(vec![
        (vec![1, 2], Then::Succeed),
        (vec![], Then::Fail),
        (vec![3, 4], Then::Fail),
        (vec![5, 1], Then::Succeed),
        (vec![6], Then::Succeed),
        (vec![7], Then::Fail),
        (vec![3], Then::Succeed),
    ]);
    let (other, taken) = (Err(FaultKind::Other), Err(FaultKind::Constraint));
    assert_eq!(outcomes, [Ok(0), other, other, taken, Ok(0), other, Ok(0)]);
    assert_eq!(committer.numbers(), [1, 2, 3, 6]);
    let stats = committer.stats.view(committer.queue.depth());
    assert_eq!((stats.commits, stats.refused_units, stats.failed_commits), (1, 4, 0));
}

/// What was kept back belongs to somebody too: only his unit fails.
#[test]
fn a_unit_that_cannot_be_written_in_the_end_fails_alone() {
    let committer = Committer::new(WalLimits::default());
    let outcomes = committer.push_together(vec![
        (vec![1], Then::Succeed),
        (vec![2], Then::FailWhenWritten),
        (vec![3], Then::Succeed),
    ]);
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert_eq!(outcomes[1], Err(FaultKind::Other));
    committer.push([5], Then::Succeed).recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(committer.numbers(), [1, 3, 5]);
    committer.close();
}

#[test]
fn a_broken_transaction_takes_its_batch_and_no_other() {
    let committer = Committer::new(WalLimits::default());
    for then in [Then::BreakTheBatch, Then::Panic] {
        let outcomes =
            committer.push_together(vec![(vec![1], Then::Succeed), (vec![2], then), (vec![3], Then::Succeed)]);
        let kind = if then == Then::Panic { FaultKind::Other } else { FaultKind::Io };
        assert_eq!(outcomes, [Err(kind); 3]);
        assert!(committer.numbers().is_empty());
    }
    let next = committer.push([4], Then::Succeed);
    assert!(next.recv_timeout(DEADLINE).unwrap().is_ok());
    assert_eq!(committer.numbers(), [4]);
}

#[test]
fn closing_commits_what_waits() {
    let committer = Committer::new(WalLimits::default());
    let lock = committer.write_lock();
    let answers: Vec<_> = (0..20).map(|n| committer.push([n], Then::Succeed)).collect();
    committer.queue.close();
    drop(lock);
    for answer in answers {
        assert!(answer.recv_timeout(DEADLINE).unwrap().is_ok());
    }
    let dir = committer.close();
    assert_eq!(std::fs::metadata(dir.path().join("numbers.db-wal")).map_or(0, |file| file.len()), 0);
}

#[test]
fn idle_moments_work_off_the_log() {
    let limits = WalLimits { idle: Duration::from_millis(1), idle_pages: 2, ..WalLimits::default() };
    let committer = Committer::new(limits);
    committer.push(0..100, Then::Succeed).recv_timeout(DEADLINE).unwrap().unwrap();
    let stats = || committer.stats.view(committer.queue.depth());
    wait_until(|| stats().checkpoints == 1);
    let copied = Connection::open(path(committer.dir.path())).unwrap();
    let log: (i64, i64) =
        copied.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!(log.0, log.1, "every page is in the database file");
    committer.push([1000], Then::Succeed).recv_timeout(DEADLINE).unwrap().unwrap();
    // The log was started anew.
    wait_until(|| stats().log_pages < 10);
}

#[test]
fn readers_without_a_gap_do_not_let_the_log_grow_for_ever() {
    let limits = WalLimits { busy_pages: 50, longest_pages: 200, ..WalLimits::default() };
    let committer = Committer::new(limits);
    committer.push([-1], Then::Succeed).recv_timeout(DEADLINE).unwrap().unwrap();
    // Two readers whose transactions overlap: at every moment one of them is in the middle of one.
    let file = path(committer.dir.path());
    let begin = |conn: &Connection| {
        conn.execute_batch("BEGIN; SELECT count(*) FROM number;").unwrap();
        let _: i64 = conn.query_row("SELECT max(n) FROM number", [], |row| row.get(0)).unwrap();
    };
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reading = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let [mut old, mut new] = [(); 2].map(|()| Connection::open(&file).unwrap());
            begin(&old);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                begin(&new);
                std::thread::sleep(Duration::from_millis(1));
                old.execute_batch("COMMIT").unwrap();
                std::mem::swap(&mut old, &mut new);
            }
        })
    };
    for n in 0..2000 {
        committer.push([n], Then::Succeed).recv_timeout(DEADLINE).unwrap().unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    reading.join().unwrap();
    // 2,000 commits of at least one page of 8 KiB would be 16 MB.
    assert!(committer.wal_bytes() < 8 << 20, "the log has {} bytes", committer.wal_bytes());
}

#[test]
fn room_is_made_behind_the_log_and_means_nothing_after_a_crash() {
    let limits = WalLimits { ahead_bytes: 1 << 20, ..WalLimits::default() };
    let committer = Committer::new(limits);
    wait_until(|| committer.wal_bytes() >= 1 << 20);
    for n in 0..300 {
        committer.push([n], Then::Succeed).recv_timeout(DEADLINE).unwrap().unwrap();
        if n % 100 == 0 {
            // The files as a power cut at this moment would leave them: the log, and zeros behind it.
            let crashed = tempfile::tempdir().unwrap();
            for file in ["numbers.db", "numbers.db-wal"] {
                std::fs::copy(committer.dir.path().join(file), crashed.path().join(file)).unwrap();
            }
            let conn = open_writer(&path(crashed.path()), &Tuning::default()).unwrap();
            let found: i64 = conn.query_row("SELECT count(*) FROM number", [], |row| row.get(0)).unwrap();
            assert_eq!(found, n + 1);
        }
    }
    let stats = committer.stats.view(committer.queue.depth());
    wait_until(|| committer.wal_bytes() >= stats.log_pages * 8192 + (1 << 20));
    let dir = committer.close();
    assert_eq!(std::fs::metadata(dir.path().join("numbers.db-wal")).map_or(0, |file| file.len()), 0);
}

#[test]
fn what_comes_while_a_batch_is_applied_goes_along() {
    let committer = Committer::new(WalLimits::default());
    let lock = committer.write_lock();
    let first = committer.push([1], Then::Succeed);
    wait_until(|| committer.queue.depth().0 == 0);
    // The committer has taken the first unit and waits for the file.
    let along: Vec<_> = [(2, Then::Succeed), (3, Then::Fail), (4, Then::Succeed)]
        .map(|(number, then)| committer.push([number], then))
        .into();
    drop(lock);
    assert_eq!(first.recv_timeout(DEADLINE).unwrap(), Ok(0));
    let along: Vec<_> = along.into_iter().map(|answer| answer.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(along, [Ok(0), Err(FaultKind::Other), Ok(0)], "in the first commit, and the one that fails alone");
    assert_eq!(committer.numbers(), [1, 2, 4]);
    assert_eq!(committer.stats.view(committer.queue.depth()).commits, 1);
}
