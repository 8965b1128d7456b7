//! Recording payments, and selecting and locking what they spend.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::selection::SelectionFailure;
use maxhost_model::{FlowId, FlowRow};
use maxhost_store::ledger::{ClaimOp, Holding, LedgerOp, LedgerReceipt};
use maxhost_store::{Author, FlowOp, FlowState, NewFlow, Op, Store};

use super::filled::{self, Filled, Random, record, state, transaction};
use crate::figures::{Goal, Report, percentile};
use crate::installation::cpu_of;
use crate::setting::{Outcome, Setting};

/// Payers at once, and the states that they share.
const PAYERS: u32 = 64;
const SHARED: u32 = 1_276;

/// What recording a payment costs.
pub struct Cost {
    /// CPU of the process, µs, where many are recorded at once.
    pub cpu: f64,
    /// The median time of one alone, its commit and all, ms.
    pub alone: f64,
}

/// Records payments: one state consumed, one made for the payer and one that is not his.
pub async fn recording(setting: &Setting, vault: &mut Filled) -> Outcome<Cost> {
    let count = if setting.quick { 2_000 } else { 10_000 };
    let mut random = Random(5);
    let mut spent = BTreeSet::new();
    let other = maxhost_tests::contracts::key(2).public().clone();
    let mut payment = |vault: &mut Filled, last: &mut Option<StateRef>| {
        let own = vault.key();
        // A small vault has not states enough: there each payment spends the change of the one before.
        let input = match last.filter(|_| vault.size < 10_000) {
            Some(change) => change,
            None => loop {
                let candidate = vault.unconsumed(&mut random);
                if spent.insert(candidate) {
                    break candidate;
                }
            },
        };
        let number = vault.next;
        vault.next += 1;
        let serial = |index: u32| format!("payment {number} {index}");
        let change = state(&own, serial(0), 1 + random.below(1_000_000), &mut random);
        let paid = state(&other, serial(1), 1 + random.below(1_000_000), &mut random);
        let made = transaction(&own, number, vec![input], vec![change, paid]);
        *last = Some(StateRef::new(made.id, 0));
        record(made)
    };
    let (mut times, mut last) = (Vec::new(), None);
    for _ in 0..count / 20 {
        let op = payment(vault, &mut last);
        let began = Instant::now();
        vault.store.commit(vault.owner, vec![op]).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut busy = Duration::ZERO;
    for _ in 0..count / 100 {
        let ops: Vec<Op> = (0..100).map(|_| payment(vault, &mut last)).collect();
        let before = cpu_of("self");
        vault.store.commit(vault.owner, ops).await?;
        busy += cpu_of("self") - before;
    }
    Ok(Cost { cpu: busy.as_secs_f64() * 1e6 / f64::from(count), alone: percentile(&mut times, 0.5) })
}

fn flow(store: &Store) -> (FlowRow, Op) {
    let row = store.next_flow_row();
    let new = NewFlow {
        row,
        id: FlowId::new(row, 1),
        name: "cash/pay".into(),
        user: None,
        client_id: None,
        started: 0,
        start: bytes::Bytes::from_static(b"start"),
    };
    (row, FlowOp::Start(Box::new(new)).into())
}

fn end(flow: FlowRow) -> Op {
    FlowOp::End { flow, state: FlowState::Completed, finished: 1, keep: None, unconfirmed: Vec::new() }.into()
}

fn claim(flow: FlowRow, number: u64, quantity: u64) -> Op {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id[8..].copy_from_slice(&flow.0.to_be_bytes());
    let until = maxhost_ledger::time::Timestamp::from_nanos(filled::now().nanos() + 3_600_000_000_000);
    let holding = Holding { flow, holder: format!("flow {}", flow.0), claim: id, until };
    LedgerOp::Claim(Box::new(ClaimOp {
        type_name: filled::TYPE.to_owned(),
        token: "GBP".to_owned(),
        issuer: None,
        notary: Some(filled::NOTARY.to_owned()),
        quantity,
        holding,
        now: filled::now(),
        seed: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ flow.0.unsigned_abs(),
    }))
    .into()
}

async fn claimed(store: &Store, author: Author, op: Op) -> Outcome<Result<Vec<StateRef>, SelectionFailure>> {
    match store.commit(author, vec![op]).await?.ledger.pop() {
        Some((_, LedgerReceipt::Claimed(claimed))) => Ok(claimed),
        other => Err(format!("a claim was answered with {other:?}").into()),
    }
}

/// One claim after the other in a large vault, each let go before the next.
pub async fn selecting(setting: &Setting, report: &mut Report, vault: &Filled) -> Outcome {
    let turns = if setting.quick { 300 } else { 2_000 };
    let mut random = Random(9);
    // Amounts that one state covers, and ones that take many.
    for (name, most) in [("one state is enough", 1_000_000), ("a hundred states are needed", 100_000_000)] {
        let mut times = Vec::new();
        for number in 0..turns {
            let (row, start) = flow(&vault.store);
            vault.store.commit(vault.owner, vec![start]).await?;
            let quantity = most / 2 + random.below(most / 2);
            let began = Instant::now();
            claimed(&vault.store, vault.owner, claim(row, number, quantity)).await??;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            vault.store.commit(vault.owner, vec![end(row)]).await?;
        }
        report.add(format!("select and lock, {name}, p50"), percentile(&mut times, 0.5), "ms", Goal::None);
        report.add(format!("select and lock, {name}, p99"), percentile(&mut times, 0.99), "ms", Goal::AtMost(5.0));
    }
    Ok(())
}

/// What a payer has seen.
#[derive(Default)]
struct Seen {
    payments: u32,
    attempts: u32,
    refused: u32,
    times: Vec<f64>,
}

/// Many payers on one vault: each selects, locks, and records the payment with its change.
pub async fn payers(setting: &Setting, report: &mut Report, file: &Path) -> Outcome {
    report.group("64 payers at once on a vault of 1,276 states");
    let (store, author) = filled::open(file).await?;
    let own = maxhost_tests::contracts::key(1).public().clone();
    let mut random = Random(3);
    for number in 0..SHARED {
        let quantity = 1_000 + random.below(1_000);
        let mut one = state(&own, format!("{number}"), quantity, &mut random);
        if let Some(amount) = &mut one.content.amount {
            amount.token = "GBP".to_owned();
        }
        store.commit(author, vec![record(transaction(&own, number, Vec::new(), vec![one]))]).await?;
    }
    let next = Arc::new(AtomicU32::new(SHARED));
    let each = if setting.quick { 20 } else { 100 };
    let mut payers = tokio::task::JoinSet::new();
    let began = Instant::now();
    for payer in 0..PAYERS {
        let (store, next) = (store.clone(), next.clone());
        payers.spawn(async move { pay(&store, author, payer, each, &next).await.map_err(|error| error.to_string()) });
    }
    let mut all = Seen::default();
    while let Some(seen) = payers.join_next().await {
        let seen = seen??;
        all.payments += seen.payments;
        all.attempts += seen.attempts;
        all.refused += seen.refused;
        all.times.extend(seen.times);
    }
    let took = began.elapsed().as_secs_f64();
    report.add("payments that were refused though there was enough", f64::from(all.refused), "", Goal::AtMost(0.0));
    let attempts = f64::from(all.attempts) / f64::from(all.payments);
    report.add("attempts to lock a payment", attempts, "", Goal::AtMost(1.2));
    report.add("payments selected, locked and recorded", f64::from(all.payments) / took, "/s", Goal::None);
    report.add("select and lock, p99", percentile(&mut all.times, 0.99), "ms", Goal::None);
    store.close().await;
    Ok(())
}

async fn pay(store: &Store, author: Author, payer: u32, each: u32, next: &AtomicU32) -> Outcome<Seen> {
    let own = maxhost_tests::contracts::key(1).public().clone();
    let other = maxhost_tests::contracts::key(2).public().clone();
    let mut random = Random(u64::from(payer) + 1_000);
    let mut seen = Seen::default();
    for _ in 0..each {
        let (row, start) = flow(store);
        store.commit(author, vec![start]).await?;
        let quantity = 1 + random.below(200);
        let mut states = None;
        for _ in 0..100 {
            seen.attempts += 1;
            let began = Instant::now();
            let found = claimed(store, author, claim(row, u64::from(payer), quantity)).await?;
            seen.times.push(began.elapsed().as_secs_f64() * 1e3);
            match found {
                Ok(found) => {
                    states = Some(found);
                    break;
                }
                Err(failure) if failure.is_transient() => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(_) => break,
            }
        }
        seen.payments += 1;
        let Some(states) = states else {
            seen.refused += 1;
            store.commit(author, vec![end(row)]).await?;
            continue;
        };
        let number = next.fetch_add(1, Ordering::Relaxed);
        // The quantities of what was locked do not matter here: the change is of the size of one state.
        let mut change = state(&own, format!("{number} change"), 1_000 + random.below(1_000), &mut random);
        if let Some(amount) = &mut change.content.amount {
            amount.token = "GBP".to_owned();
        }
        let paid = state(&other, format!("{number} paid"), quantity, &mut random);
        let payment = transaction(&own, number, states, vec![change, paid]);
        store.commit(author, vec![record(payment), end(row)]).await?;
    }
    Ok(seen)
}
