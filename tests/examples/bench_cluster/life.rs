//! Many identities over three hosts: idle, waking, taken over from a host that dies and from one that is drained, and from no host
//! at all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{eventually, flows};
use serde_json::json;
use tokio::task::JoinSet;

use super::deployment::Deployment;
use super::figures::{Goal, Report, percentile};
use super::{party, usage};

/// How long idle hosts are looked at.
const IDLE: Duration = Duration::from_secs(30);
/// Identities that are woken, one after the other.
const WOKEN: u32 = 200;
/// Starts from no host.
const ZEROES: u32 = 3;
/// Between two steps of each identity that runs, ms.
const BEAT: u64 = 1_000;
/// Starts at the same time.
const AT_ONCE: usize = 32;

/// Notes when identities are claimed, and every step of their flows.
const NOTES: &str = "
    CREATE SCHEMA IF NOT EXISTS bench;
    CREATE UNLOGGED TABLE bench.claim (at timestamptz, identity bigint, owner bigint);
    CREATE UNLOGGED TABLE bench.step (at timestamptz, flow bigint);
    CREATE FUNCTION bench.claimed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO bench.claim VALUES (clock_timestamp(), NEW.id, NEW.owner); RETURN NULL; END $$;
    CREATE FUNCTION bench.stepped() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO bench.step VALUES (clock_timestamp(), NEW.flow); RETURN NULL; END $$;
    CREATE TRIGGER bench AFTER UPDATE ON maxhost.identity FOR EACH ROW
        WHEN (OLD.owner IS DISTINCT FROM NEW.owner) EXECUTE FUNCTION bench.claimed();
    CREATE TRIGGER bench AFTER INSERT ON maxhost.journal FOR EACH ROW EXECUTE FUNCTION bench.stepped()";

pub async fn measure(deployment: &Deployment, identities: u32, is_wanted: &impl Fn(&str) -> bool, report: &mut Report) {
    until_asleep(deployment).await;
    if is_wanted("idle") {
        idle(deployment, report).await;
    }
    if is_wanted("wake") {
        wake(deployment, report).await;
    }
    if is_wanted("zero") {
        from_zero(deployment, report).await;
    }
    if is_wanted("failover") || is_wanted("drain") {
        let client = deployment.client(0).unwrap();
        run_all(&client, identities, report).await;
        deployment.sql(NOTES).await.unwrap();
        if is_wanted("failover") {
            failover(deployment, report).await;
        }
        if is_wanted("drain") {
            drain(deployment, &client, report).await;
        }
        // The server may take hosts that write meanwhile, and this, for a deadlock.
        eventually("the notes are gone", async || deployment.sql("DROP SCHEMA IF EXISTS bench CASCADE").await).await;
    }
}

async fn until_asleep(deployment: &Deployment) {
    let client = deployment.client(0).unwrap();
    eventually("all are asleep", async || {
        let status = client.cluster_status(pb::ClusterStatusRequest {}).await.map_err(|problem| problem.to_string())?;
        let is_quiet = status.demand == Some(0) && status.identities.get("owned") == Some(&0);
        if is_quiet { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

async fn idle(deployment: &Deployment, report: &mut Report) {
    report.group("idle hosts, all identities registered and asleep");
    // Whatever a start leaves behind comes to rest, and memory that is free goes back.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let pids: Vec<(String, u32)> =
        deployment.processes().map(|process| (process.name.clone(), process.pid().unwrap())).collect();
    let before: Vec<Duration> = pids.iter().map(|(_, pid)| usage::cpu(*pid)).collect();
    tokio::time::sleep(IDLE).await;
    let (postgres, broker) = (deployment.postgres.port(), deployment.artemis.lock().await.address().port());
    let zookeeper = deployment.zookeeper.lock().await;
    let of_zookeeper: Vec<u16> = (0..zookeeper.count()).map(|index| zookeeper.client_address(index).port()).collect();
    let ports: Vec<u16> = [postgres, broker].into_iter().chain(of_zookeeper.iter().copied()).collect();
    for ((name, pid), before) in pids.iter().zip(before) {
        let share = (usage::cpu(*pid) - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        report.add(format!("{name}: CPU, of one core"), share, "%", Goal::AtMost(1.0));
        report.add(format!("{name}: resident memory"), usage::resident(*pid) as f64 / 1e6, "MB", Goal::AtMost(150.0));
        let connections = usage::connections(*pid, &ports);
        report.add(
            format!("{name}: connections to the database"),
            connections[&postgres] as f64,
            "",
            Goal::AtMost(8.0),
        );
        report.add(format!("{name}: connections to the broker"), connections[&broker] as f64, "", Goal::None);
        let sessions: usize = of_zookeeper.iter().map(|port| connections[port]).sum();
        report.add(format!("{name}: connections to ZooKeeper"), sessions as f64, "", Goal::AtMost(1.0));
    }
}

/// Starts a flow that ends at once; returns when the start is durable.
async fn touch(client: &Client, identity: &str) {
    let request = flows::request(identity, "heartbeat/beat", &json!({"beats": 0, "interval_ms": 0}));
    client.start_flow(request).await.unwrap();
}

async fn wake(deployment: &Deployment, report: &mut Report) {
    report.group("an identity that sleeps, woken by way of an RPC worker, the hosts warm");
    let client = deployment.client(0).unwrap();
    // Connections, and the code of the CorDapp at each host, are warm; the identities are not.
    for number in 1..=30 {
        touch(&client, &party(number)).await;
    }
    let mut times = Vec::new();
    for number in 31..=30 + WOKEN.min(60) {
        let began = Instant::now();
        touch(&client, &party(number)).await;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report.add("asleep to a durable flow, p50", percentile(&mut times, 0.5), "ms", Goal::AtMost(15.0));
    report.add("the same, p99", percentile(&mut times, 0.99), "ms", Goal::AtMost(50.0));
    until_asleep(deployment).await;
}

async fn from_zero(deployment: &Deployment, report: &mut Report) {
    report.group("from no host");
    for node in &deployment.nodes {
        node.stop().await.unwrap();
    }
    let (client, node) = (deployment.client(0).unwrap(), &deployment.nodes[0]);
    let mut times = Vec::new();
    for number in 1..=ZEROES {
        let began = Instant::now();
        let (_, started) = tokio::join!(
            async {
                touch(&client, &party(50 + number)).await;
                times.push(began.elapsed().as_secs_f64());
            },
            node.start()
        );
        started.unwrap();
        until_asleep(deployment).await;
        node.stop().await.unwrap();
    }
    let goal = Goal::AtMost(1.5);
    report.add(
        "asked of a worker, to a durable flow, start of a Max Node included",
        percentile(&mut times, 0.5),
        "s",
        goal,
    );
    for node in &deployment.nodes {
        node.start().await.unwrap();
    }
}

/// One flow of each identity that makes a step in a second, so that all are run.
async fn run_all(client: &Client, identities: u32, report: &mut Report) {
    report.group("all identities woken by way of an RPC worker, 32 at once, for a flow that goes on");
    let (mut starting, mut times, began) = (JoinSet::new(), Vec::new(), Instant::now());
    for number in 1..=identities {
        if starting.len() >= AT_ONCE {
            times.extend(starting.join_next().await.map(Result::unwrap));
        }
        let client = client.clone();
        starting.spawn(async move {
            let arguments = json!({"beats": 1_000_000, "interval_ms": BEAT});
            let request = flows::request(&party(number), "heartbeat/beat", &arguments);
            let request = pb::StartFlowRequest { client_id: Some(format!("beat-{number}")), ..request };
            let began = Instant::now();
            // Under its client id it is the same start whenever it is repeated.
            while let Err(problem) = client.start_flow(request.clone()).await {
                eprintln!("{} after {:?}: {problem}", party(number), began.elapsed());
            }
            began.elapsed().as_secs_f64()
        });
    }
    while let Some(time) = starting.join_next().await {
        times.push(time.unwrap());
    }
    report.add("identities a second", f64::from(identities) / began.elapsed().as_secs_f64(), "/s", Goal::None);
    tell(report, "asleep to a durable flow", &mut times, Goal::None);
}

/// Which run owns each identity.
async fn owners(deployment: &Deployment) -> BTreeMap<i64, i64> {
    let sql = "SELECT id || ' ' || owner FROM maxhost.identity WHERE owner IS NOT NULL";
    let rows = deployment.sql(sql).await.unwrap();
    rows.lines()
        .map(|row| row.split_once(' ').unwrap())
        .map(|(id, owner)| (id.parse().unwrap(), owner.parse().unwrap()))
        .collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// For each identity, what a statement tells of it, in seconds since 1970.
async fn moments(deployment: &Deployment, sql: &str) -> BTreeMap<i64, f64> {
    let rows = deployment.sql(sql).await.unwrap();
    rows.lines()
        .map(|row| row.split_once(' ').unwrap())
        .map(|(id, at)| (id.parse().unwrap(), at.parse().unwrap()))
        .collect()
}

/// Waits until each of these is owned by another run than it was.
async fn until_taken(deployment: &Deployment, were: &BTreeMap<i64, i64>) {
    eventually("all are taken over", async || {
        let are = owners(deployment).await;
        let left = were.iter().filter(|(id, owner)| are.get(id).is_none_or(|now| now == *owner)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
    // Each makes its next step.
    tokio::time::sleep(Duration::from_millis(3 * BEAT)).await;
}

/// The first step of each identity under a new owner.
const FIRST_STEPS: &str = "
    SELECT f.identity || ' ' || extract(epoch FROM min(s.at)) FROM bench.step s JOIN maxhost.flow f ON f.id = s.flow
    JOIN (SELECT identity, min(at) AS at FROM bench.claim WHERE owner IS NOT NULL GROUP BY identity) c
        ON c.identity = f.identity AND s.at > c.at
    GROUP BY f.identity";

fn tell(report: &mut Report, what: &str, times: &mut [f64], goal: Goal) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        report.add(format!("{what}, {name}"), percentile(times, share), "s", Goal::None);
    }
    report.add(format!("{what}, the last"), percentile(times, 1.0), "s", goal);
}

async fn failover(deployment: &Deployment, report: &mut Report) {
    report.group("a host of three dies (SIGKILL); session timeout 6 s, each identity makes a step in a second");
    let node = &deployment.nodes[2];
    let before = owners(deployment).await;
    let killed = now();
    node.kill();
    // Whoever still has its run as the owner in the database after it died was its.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lost = of_the_dead(deployment, &before).await;
    until_taken(deployment, &lost).await;
    let claims =
        moments(deployment, "SELECT identity || ' ' || extract(epoch FROM min(at)) FROM bench.claim GROUP BY identity")
            .await;
    let steps = moments(deployment, FIRST_STEPS).await;
    report.add("identities that it ran", lost.len() as f64, "", Goal::None);
    let mut after = |moments: &BTreeMap<i64, f64>, what: &str, goal: Goal| {
        let mut times: Vec<f64> = lost.keys().map(|id| moments[id] - killed).collect();
        tell(report, what, &mut times, goal);
    };
    after(&claims, "from the kill until another host owns it", Goal::None);
    after(&steps, "from the kill until its next step", Goal::AtMost(8.0));
    deployment.sql("TRUNCATE bench.claim, bench.step").await.unwrap();
    node.start().await.unwrap();
}

/// The identities of the run that makes no more steps.
async fn of_the_dead(deployment: &Deployment, before: &BTreeMap<i64, i64>) -> BTreeMap<i64, i64> {
    let sql = "SELECT DISTINCT i.id || ' ' || i.owner FROM maxhost.identity i JOIN maxhost.flow f ON f.identity = i.id
               JOIN bench.step s ON s.flow = f.id WHERE s.at > clock_timestamp() - interval '0.5 s'";
    let stepping = deployment.sql(sql).await.unwrap();
    let alive: std::collections::BTreeSet<i64> =
        stepping.lines().filter_map(|row| row.split_once(' ')?.1.parse().ok()).collect();
    before.iter().filter(|(_, owner)| !alive.contains(owner)).map(|(id, owner)| (*id, *owner)).collect()
}

async fn drain(deployment: &Deployment, client: &Client, report: &mut Report) {
    report.group("a host of three is drained, each identity makes a step in a second");
    let hosts = client.list_hosts(pb::ListHostsRequest {}).await.unwrap().hosts;
    // The one that has the most.
    let drained = hosts.iter().max_by_key(|host| host.identities).unwrap().name.clone();
    let before = owners(deployment).await;
    let began = now();
    client.set_draining(pb::SetDrainingRequest { host: drained, draining: true }).await.unwrap();
    eventually("it has given all up", async || {
        let hosts = client.list_hosts(pb::ListHostsRequest {}).await.map_err(|problem| problem.to_string())?.hosts;
        let left: Vec<u64> =
            hosts.iter().filter(|host| host.state() == pb::HostState::Draining).map(|host| host.identities).collect();
        if left == [0] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    eventually("all are taken over", async || {
        let (left, are) = (before.len(), owners(deployment).await.len());
        if are >= left { Ok(()) } else { Err(format!("{are} of {left}")) }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(3 * BEAT)).await;
    let released = moments(
        deployment,
        "SELECT identity || ' ' || extract(epoch FROM min(at)) FROM bench.claim WHERE owner IS NULL GROUP BY identity",
    )
    .await;
    let claimed =
        moments(deployment, "SELECT identity || ' ' || extract(epoch FROM min(at)) FROM bench.claim WHERE owner IS NOT NULL GROUP BY identity").await;
    let steps = moments(deployment, FIRST_STEPS).await;
    report.add("identities that it ran", claimed.len() as f64, "", Goal::None);
    let mut away: Vec<f64> = claimed.iter().filter_map(|(id, at)| Some(at - released.get(id)?)).collect();
    tell(report, "without an owner", &mut away, Goal::AtMost(1.0));
    let mut whole: Vec<f64> = steps.values().map(|at| at - began).collect();
    tell(report, "from the command until its next step elsewhere", &mut whole, Goal::None);
}
