//! Which faults come when: drawn from a seed, before anything runs.

use std::fmt;
use std::time::Duration;

use maxhost_proxy::Line;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL of a Max Node.
    NodeKilled,
    /// SIGKILL of an RPC worker.
    WorkerKilled,
    /// SIGSTOP of a Max Node for longer than its session lasts, then SIGCONT.
    NodeHangs,
    /// SIGSTOP of a Max Node for less than that.
    NodeStutters,
    /// SIGSTOP of an RPC worker for longer than its session lasts.
    WorkerHangs,
    /// ZooKeeper's leader is killed.
    LeaderKilled,
    /// Two of ZooKeeper's three servers are killed.
    QuorumLost,
    /// A ZooKeeper server is cut off from the one that leads, and keeps its clients.
    FollowerCut,
    /// The broker is killed.
    BrokerKilled,
    /// SIGSTOP of the broker.
    BrokerHangs,
    /// All processes of the database server are killed.
    DatabaseKilled,
    /// SIGSTOP of all of them.
    DatabaseHangs,
    /// A Max Node cannot reach the database.
    CutFromDatabase,
    /// A Max Node cannot reach the broker.
    CutFromBroker,
    /// A Max Node cannot reach ZooKeeper.
    CutFromZooKeeper,
    /// An RPC worker can reach none of the three.
    WorkerCut,
    /// Questions or answers between a Max Node and the database get lost just after they were sent.
    CommitsLost,
    /// A Max Node is drained, and takes identities again.
    Drained,
    /// All Max Nodes are stopped in order and started again, one after the other.
    RollingRestart,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 19] = [
        Kind::NodeKilled,
        Kind::WorkerKilled,
        Kind::NodeHangs,
        Kind::NodeStutters,
        Kind::WorkerHangs,
        Kind::LeaderKilled,
        Kind::QuorumLost,
        Kind::FollowerCut,
        Kind::BrokerKilled,
        Kind::BrokerHangs,
        Kind::DatabaseKilled,
        Kind::DatabaseHangs,
        Kind::CutFromDatabase,
        Kind::CutFromBroker,
        Kind::CutFromZooKeeper,
        Kind::WorkerCut,
        Kind::CommitsLost,
        Kind::Drained,
        Kind::RollingRestart,
    ];

    /// The word for it on the command line.
    pub fn word(self) -> String {
        let mut word = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !word.is_empty() {
                word.push('-');
            }
            word.push(letter.to_ascii_lowercase());
        }
        word
    }

    /// How long it lasts, in ms, from and to.
    fn lasts(self) -> (u64, u64) {
        match self {
            Kind::NodeHangs | Kind::WorkerHangs => (8_000, 12_000),
            Kind::NodeStutters => (500, 4_000),
            Kind::QuorumLost | Kind::CutFromDatabase | Kind::CutFromBroker | Kind::CutFromZooKeeper => (1_000, 14_000),
            Kind::FollowerCut => (4_000, 15_000),
            Kind::DatabaseHangs | Kind::BrokerHangs => (1_000, 9_000),
            Kind::CommitsLost => (1_000, 3_000),
            Kind::Drained | Kind::RollingRestart => (0, 0),
            _ => (0, 6_000),
        }
    }
}

/// A fault of the schedule.
#[derive(Debug, Clone)]
pub struct Fault {
    /// From 1.
    pub number: usize,
    pub kind: Kind,
    /// Which of those that it may hit; taken modulo their number.
    pub target: usize,
    /// How a connection is cut.
    pub line: Line,
    /// After the one before.
    pub gap: Duration,
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {:.1} s", self.kind.word(), self.target, self.lasts.as_secs_f64())?;
        match (self.kind, self.line) {
            (Kind::CutFromDatabase | Kind::CutFromBroker | Kind::CutFromZooKeeper | Kind::WorkerCut, Line::Silent) => {
                write!(f, ", silent)")
            }
            _ => write!(f, ")"),
        }
    }
}

/// So many faults of these kinds. Each kind comes as often as any other, give or take one.
pub fn draw(seed: u64, count: usize, kinds: &[Kind]) -> Vec<Fault> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut deck: Vec<Kind> = Vec::new();
    let mut faults = Vec::new();
    for number in 1..=count {
        if deck.is_empty() {
            deck = kinds.to_vec();
            deck.shuffle(&mut rng);
        }
        let Some(kind) = deck.pop() else { break };
        let (from, to) = kind.lasts();
        faults.push(Fault {
            number,
            kind,
            target: rng.random_range(0..6),
            line: if rng.random() { Line::Cut } else { Line::Silent },
            gap: Duration::from_millis(rng.random_range(200..3_000)),
            lasts: Duration::from_millis(rng.random_range(from..=to)),
        });
    }
    faults
}
