//! What must hold whatever happens: looked at while it runs, and when the load pauses and all faults are mended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maxhost_rpc::proto::v1 as pb;
use serde_json::Value;

use super::deployment::Deployment;
use super::load::Load;
use super::orders;

/// The longest that anything may take once all faults are mended.
const WELL: Duration = Duration::from_secs(120);

/// Notes every change of a claim in the database itself, so that none is missed.
const NOTE_CLAIMS: &str = "
    CREATE SCHEMA chaos;
    CREATE TABLE chaos.claim (
        number bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), identity bigint NOT NULL,
        generation bigint NOT NULL, epoch bigint NOT NULL, owner bigint,
        old_generation bigint NOT NULL, old_epoch bigint NOT NULL, old_owner bigint);
    CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO chaos.claim (identity, generation, epoch, owner, old_generation, old_epoch, old_owner)
        VALUES (NEW.id, NEW.generation, NEW.epoch, NEW.owner, OLD.generation, OLD.epoch, OLD.owner);
        RETURN NULL; END $$;
    CREATE TRIGGER chaos AFTER UPDATE ON maxhost.identity FOR EACH ROW
        WHEN ((OLD.generation, OLD.epoch, OLD.owner) IS DISTINCT FROM (NEW.generation, NEW.epoch, NEW.owner))
        EXECUTE FUNCTION chaos.note()";
/// Claims that fell, epochs that were given twice, and owners that came without a higher claim. None may be there.
const BAD_CLAIMS: &str = "
    SELECT coalesce(string_agg(bad, '; '), '') FROM (
        SELECT format('identity %s: (%s,%s,%s) after (%s,%s,%s)', identity, generation, epoch, owner, old_generation,
                      old_epoch, old_owner) AS bad
        FROM chaos.claim WHERE (generation, epoch) < (old_generation, old_epoch)
            OR ((generation, epoch) = (old_generation, old_epoch) AND owner IS NOT NULL)
        UNION ALL
        SELECT format('identity %s: two owners of (%s,%s)', identity, generation, epoch)
        FROM chaos.claim WHERE owner IS NOT NULL
        GROUP BY identity, generation, epoch HAVING count(DISTINCT owner) > 1) found";
/// Everything that somebody still has to do something about.
const LEFT: &str = "
    SELECT concat_ws(' ',
        (SELECT 'flows: ' || string_agg(f.id || ' ' || f.name || ' state ' || f.state || coalesce(' ' || f.reason, ''), ', ')
         FROM (SELECT * FROM maxhost.flow ORDER BY id LIMIT 10) f HAVING count(*) > 0),
        (SELECT 'outbox: ' || count(*) FROM maxhost.outbox HAVING count(*) > 0),
        (SELECT 'initiations: ' || count(*) FROM maxhost.initiation HAVING count(*) > 0),
        (SELECT 'late confirmations: ' || count(*) FROM maxhost.late_confirm HAVING count(*) > 0))";

/// Begins to note claims. The hosts have made their tables.
pub async fn note_claims(deployment: &Deployment) -> Result<(), String> {
    deployment.sql(NOTE_CLAIMS).await.map(drop)
}

/// How often identities were claimed.
pub async fn claims(deployment: &Deployment) -> Result<u64, String> {
    let counted = deployment.sql("SELECT count(*) FROM chaos.claim WHERE owner IS NOT NULL").await?;
    counted.parse().map_err(|_| format!("{counted} claims"))
}

/// What can be asked at any time.
pub fn while_it_runs(deployment: &Deployment, load: &Load) -> Result<(), String> {
    for process in deployment.processes() {
        if process.has_ended() {
            return Err(format!("{} has ended by itself", process.name));
        }
    }
    let wrong: Vec<String> = load.books().wrong.iter().take(10).cloned().collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Waits until everything has ended that was started, and looks at all that is left. The load pauses, and no fault is on.
pub async fn when_mended(deployment: &Arc<Deployment>, load: &Load, asked_again: usize) -> Result<(), String> {
    until("all flows end", async || {
        let books = load.books();
        let under_way: Vec<String> = books
            .under_way
            .iter()
            .take(10)
            .map(|(name, (since, id))| format!("{name} {id:?} for {:?}", since.elapsed()))
            .collect();
        if under_way.is_empty() { Ok(()) } else { Err(format!("{} under way: {under_way:?}", books.under_way.len())) }
    })
    .await?;
    until("nothing is left in the database", async || match deployment.sql(LEFT).await?.as_str() {
        "" => Ok(()),
        left => Err(left.to_owned()),
    })
    .await?;
    until("every host is well", async || hosts_are_well(deployment).await).await?;
    until("no message waits", async || {
        let status = client(deployment)?.cluster_status(pb::ClusterStatusRequest {}).await;
        match status.map_err(|problem| problem.to_string())?.oldest_message_ms {
            None => Ok(()),
            Some(ms) => Err(format!("one waits for {ms} ms")),
        }
    })
    .await?;
    match deployment.sql(BAD_CLAIMS).await?.as_str() {
        "" => {}
        bad => return Err(format!("claims do not rise: {bad}")),
    }
    each_ended_once(deployment, load).await?;
    money_is_there(deployment, load).await?;
    for (number, (order, id)) in load.sample(asked_again).into_iter().enumerate() {
        load.start_again(&order, number as u64, &id).await;
    }
    while_it_runs(deployment, load)
}

/// Waits until all identities sleep: nobody owns one, and nobody wants one.
pub async fn all_sleep(deployment: &Arc<Deployment>) -> Result<(), String> {
    until("all identities sleep", async || {
        let status = client(deployment)?.cluster_status(pb::ClusterStatusRequest {}).await;
        let status = status.map_err(|problem| problem.to_string())?;
        let owned = status.identities.get("owned").copied();
        if status.demand == Some(0) && owned == Some(0) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await
}

fn client(deployment: &Deployment) -> Result<maxhost_rpc::Client, String> {
    deployment.client(0).ok_or_else(|| "no worker runs".to_owned())
}

async fn hosts_are_well(deployment: &Deployment) -> Result<(), String> {
    let hosts =
        client(deployment)?.list_hosts(pb::ListHostsRequest {}).await.map_err(|problem| problem.to_string())?.hosts;
    for process in deployment.processes() {
        let is_up = |host: &pb::ClusterHost| host.name == process.name && host.state() == pb::HostState::Up;
        if !hosts.iter().any(is_up) {
            return Err(format!("{} is not up in {hosts:?}", process.name));
        }
        match process.get("/readyz").await {
            Some((200, _)) => {}
            other => return Err(format!("{} is not ready: {other:?}", process.name)),
        }
    }
    Ok(())
}

/// A client id has one flow, and that has one end.
async fn each_ended_once(deployment: &Deployment, load: &Load) -> Result<(), String> {
    let known = load.books().ended.len().to_string();
    let sql = "SELECT count(*) || ' ' || count(DISTINCT client_id) || ' ' || (SELECT count(*) FROM maxhost.client)
               FROM maxhost.ended WHERE client_id IS NOT NULL";
    let counted = deployment.sql(sql).await?;
    if counted == format!("{known} {known} {known}") {
        return Ok(());
    }
    Err(format!("{known} flows are known to have ended; ends, names of ends, names in the database: {counted}"))
}

/// Each vault has what its payments say, so the sum over all is what was issued.
async fn money_is_there(deployment: &Deployment, load: &Load) -> Result<(), String> {
    let expected = load.books().money.clone();
    for (number, expected) in expected {
        let query = pb::VaultQueryRequest {
            identity: orders::party(number),
            types: vec!["cash/Cash".to_owned()],
            ..pb::VaultQueryRequest::default()
        };
        let request = pb::VaultSumRequest { query: Some(query), field: "quantity".to_owned(), by: None };
        let sums = client(deployment)?.sum(request).await.map_err(|problem| problem.to_string())?.sums;
        let sum = sums.first().and_then(|sum| serde_json::from_str::<Value>(&sum.sum).ok()).unwrap_or_default();
        let sum = sum.as_i64().unwrap_or(0);
        if sum != expected {
            return Err(format!("{} has {sum} {} and must have {expected}", orders::party(number), orders::CURRENCY));
        }
    }
    Ok(())
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + WELL;
    loop {
        match look().await {
            Ok(()) => return Ok(()),
            Err(seen) if Instant::now() >= deadline => {
                return Err(format!(
                    "{} s after all faults are mended it is not so that {what}: {seen}",
                    WELL.as_secs()
                ));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
