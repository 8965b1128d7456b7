//! Carries out a fault and mends it again: waits until whatever it hits is not hit already, strikes, waits, mends.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use maxhost_proxy::Line;
use maxhost_rpc::proto::v1 as pb;
use tokio::sync::Mutex;

use super::deployment::{Deployment, Process};
use super::schedule::{Fault, Kind};

/// The longest that a host may take to give up what it runs while other faults go on.
const DRAINED: Duration = Duration::from_secs(120);
/// How long a host that hung is watched for what it still tries to write.
const WATCHED: Duration = Duration::from_secs(4);
/// Units that were refused because the identity is another's.
const REFUSED: &str = "maxhost_fenced_units_total";

/// What is hit by one fault at a time, and what the faults have shown.
pub struct Faults {
    deployment: Arc<Deployment>,
    nodes: Vec<Mutex<()>>,
    workers: Vec<Mutex<()>>,
    database: Mutex<()>,
    pub tally: Tally,
}

/// What the faults have shown.
#[derive(Default)]
pub struct Tally {
    pub done: AtomicU64,
    /// Units of hosts that hung which the database refused when they came back.
    pub late_commits: AtomicU64,
    /// Questions and answers that got lost on the way to the database.
    pub lost: AtomicU64,
    /// The longest drain, ms.
    pub drain_ms: AtomicU64,
}

impl Faults {
    pub fn new(deployment: Arc<Deployment>) -> Faults {
        let locks = |count: usize| (0..count).map(|_| Mutex::new(())).collect();
        let (nodes, workers) = (locks(deployment.nodes.len()), locks(deployment.workers.len()));
        Faults { deployment, nodes, workers, database: Mutex::new(()), tally: Tally::default() }
    }

    /// The processes that are hit.
    pub fn processes(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.deployment.processes()
    }

    /// Carries it out; returns when it is mended.
    pub async fn carry_out(&self, fault: &Fault) -> Result<(), String> {
        match fault.kind {
            Kind::LeaderKilled | Kind::QuorumLost | Kind::FollowerCut => self.hit_zookeeper(fault).await,
            Kind::BrokerKilled | Kind::BrokerHangs => self.hit_broker(fault).await,
            Kind::DatabaseKilled | Kind::DatabaseHangs => self.hit_database(fault).await?,
            Kind::WorkerKilled | Kind::WorkerHangs | Kind::WorkerCut => self.hit_worker(fault).await?,
            Kind::RollingRestart => self.restart_all().await?,
            _ => self.hit_node(fault).await?,
        }
        self.tally.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn hit_node(&self, fault: &Fault) -> Result<(), String> {
        let index = fault.target % self.nodes.len();
        let _alone = self.nodes[index].lock().await;
        let node = &self.deployment.nodes[index];
        match fault.kind {
            Kind::NodeKilled => return kill_and_start(node, fault.lasts).await,
            Kind::NodeHangs | Kind::NodeStutters => self.hang(node, fault).await,
            Kind::CutFromDatabase => during(fault, |line| node.lines.database.set(line)).await,
            Kind::CutFromBroker => during(fault, |line| node.lines.broker.set(line)).await,
            Kind::CutFromZooKeeper => {
                during(fault, |line| node.lines.zookeeper.iter().for_each(|proxy| proxy.set(line))).await;
            }
            Kind::CommitsLost => self.lose_commits(node, fault).await,
            Kind::Drained => return self.drain(node).await,
            other => return Err(format!("{other:?} hits no Max Node")),
        }
        Ok(())
    }

    async fn hit_worker(&self, fault: &Fault) -> Result<(), String> {
        let index = fault.target % self.workers.len();
        let _alone = self.workers[index].lock().await;
        let worker = &self.deployment.workers[index];
        match fault.kind {
            Kind::WorkerKilled => return kill_and_start(worker, fault.lasts).await,
            Kind::WorkerHangs => self.hang(worker, fault).await,
            _ => during(fault, |line| worker.lines.set_all(line)).await,
        }
        Ok(())
    }

    /// A host that hangs for longer than its session comes back too late: what it still writes is refused, and counted.
    async fn hang(&self, process: &Process, fault: &Fault) {
        let before = process.metric(REFUSED).await.unwrap_or_default();
        process.signal(libc::SIGSTOP);
        tokio::time::sleep(fault.lasts).await;
        process.signal(libc::SIGCONT);
        tokio::time::sleep(WATCHED).await;
        let refused = process.metric(REFUSED).await.unwrap_or(before) - before;
        self.tally.late_commits.fetch_add(refused as u64, Ordering::Relaxed);
    }

    async fn lose_commits(&self, node: &Process, fault: &Fault) {
        let before = node.lines.database.lost();
        let end = Instant::now() + fault.lasts;
        let mut turn = fault.target;
        while Instant::now() < end {
            turn += 1;
            if turn.is_multiple_of(2) {
                node.lines.database.lose_next_answer();
            } else {
                node.lines.database.lose_next_question();
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        self.tally.lost.fetch_add(u64::from(node.lines.database.lost() - before), Ordering::Relaxed);
    }

    async fn drain(&self, node: &Process) -> Result<(), String> {
        let begun = Instant::now();
        self.set_draining(node, true).await?;
        let left = async || {
            let client = self.deployment.client(0)?;
            let hosts = client.list_hosts(pb::ListHostsRequest {}).await.ok()?.hosts;
            hosts.iter().find(|host| host.name == node.name).map(|host| host.identities)
        };
        let mut is_empty = false;
        while !is_empty && begun.elapsed() < DRAINED {
            tokio::time::sleep(Duration::from_millis(100)).await;
            is_empty = left().await == Some(0);
        }
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tally.drain_ms.fetch_max(took, Ordering::Relaxed);
        self.set_draining(node, false).await?;
        if is_empty {
            Ok(())
        } else {
            Err(format!("{} still owns identities {took} ms after it was to drain", node.name))
        }
    }

    async fn set_draining(&self, node: &Process, draining: bool) -> Result<(), String> {
        let request = pb::SetDrainingRequest { host: node.name.clone(), draining };
        let deadline = Instant::now() + DRAINED;
        let mut worker = 0;
        loop {
            worker += 1;
            let answer = match self.deployment.client(worker) {
                Some(client) => client.set_draining(request.clone()).await.map_err(|problem| problem.to_string()),
                None => Err("there is no worker".to_owned()),
            };
            match answer {
                Ok(_) => return Ok(()),
                Err(problem) if Instant::now() >= deadline => return Err(format!("drain of {}: {problem}", node.name)),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn restart_all(&self) -> Result<(), String> {
        for (lock, node) in self.nodes.iter().zip(&self.deployment.nodes) {
            let _alone = lock.lock().await;
            node.stop().await?;
            node.start().await?;
        }
        Ok(())
    }

    async fn hit_zookeeper(&self, fault: &Fault) {
        let mut ensemble = self.deployment.zookeeper.lock().await;
        let leader = ensemble.leader().await;
        let others: Vec<usize> = (0..ensemble.count()).filter(|index| *index != leader).collect();
        let follower = others[fault.target % others.len()];
        match fault.kind {
            Kind::FollowerCut => {
                during(fault, |line| match line {
                    // The connections stay: the follower does not know for a while, and answers its clients.
                    Line::Open => ensemble.set_link(follower, leader, Line::Open),
                    _ => ensemble.set_link(follower, leader, Line::Silent),
                })
                .await;
            }
            kind => {
                let killed = if kind == Kind::LeaderKilled { vec![leader] } else { vec![leader, follower] };
                killed.iter().for_each(|index| ensemble.kill(*index));
                tokio::time::sleep(fault.lasts).await;
                killed.iter().for_each(|index| ensemble.restart(*index));
            }
        }
        // It serves again before the next fault of a server.
        let _serves = ensemble.serves().await;
    }

    async fn hit_broker(&self, fault: &Fault) {
        let mut artemis = self.deployment.artemis.lock().await;
        if fault.kind == Kind::BrokerKilled {
            artemis.kill();
            tokio::time::sleep(fault.lasts).await;
            artemis.restart().await;
        } else {
            artemis.pause();
            tokio::time::sleep(fault.lasts).await;
            artemis.resume();
        }
    }

    async fn hit_database(&self, fault: &Fault) -> Result<(), String> {
        let _alone = self.database.lock().await;
        let postgres = self.deployment.postgres.clone();
        let (kind, lasts) = (fault.kind, fault.lasts);
        let hit = tokio::task::spawn_blocking(move || {
            if kind == Kind::DatabaseKilled {
                postgres.kill()?;
                std::thread::sleep(lasts);
                postgres.resume()
            } else {
                postgres.pause()?;
                std::thread::sleep(lasts);
                postgres.unpause()
            }
        });
        hit.await.map_err(|error| error.to_string())?.map_err(|error| format!("the database server: {error}"))
    }
}

async fn kill_and_start(process: &Arc<Process>, after: Duration) -> Result<(), String> {
    process.kill();
    tokio::time::sleep(after).await;
    process.start().await
}

/// Cuts lines for as long as the fault lasts.
fn during(fault: &Fault, set: impl Fn(Line)) -> impl Future<Output = ()> {
    set(fault.line);
    async move {
        tokio::time::sleep(fault.lasts).await;
        set(Line::Open);
    }
}
