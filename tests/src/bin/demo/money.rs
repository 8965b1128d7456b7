//! The part of the demonstration that is about ledgers.

use std::path::Path;
use std::time::Duration;

use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};

use crate::{BOB, CAROL, Host, Outcome, expect, patience, result, run, run_of, say, start};

/// Payments that run when the host is killed.
const PAYMENTS: usize = 20;
/// What each of them pays.
const EACH: i64 = 10;
/// How often the host is killed at most until that was between the notary's commit and a payer's record.
const KILLS: usize = 20;
/// The currency.
const GBP: &str = "GBP";

/// Money is issued, paid and traded; the host is killed between what the notary commits and what the payer records; and the
/// same money is offered to two.
pub async fn demo(host: &mut Host, client: &Client, target: &Path, folder: &Path) -> Outcome<()> {
    say("7. Money on the ledger: Alice issues 1000 GBP and pays 400 to Bob.");
    run(client, "cash/issue", json!({"quantity": 1000, "currency": GBP})).await?;
    run(client, "cash/pay", json!({"to": BOB, "quantity": 400, "currency": GBP})).await?;
    vaults(client, [600, 400, 0]).await?;

    say("8. Bob issues a bond and sells it to Alice for 250: asset against money, in one transaction that both sign.");
    run_of(client, "Bob", "trade/issue", json!({"asset": "bond-1"})).await?;
    let terms = json!({"buyer": "Alice", "asset": "bond-1", "price": 250, "currency": GBP});
    run_of(client, "Bob", "trade/sell", terms).await?;
    vaults(client, [350, 650, 0]).await?;
    let bonds = query(client, "Alice", "trade/Asset").await?;
    expect("the assets of Alice", &json!(bonds.len()), &json!(1))?;
    say("   The bond is in Alice's vault now.");

    say(&format!("9. {PAYMENTS} payments at once, and kill -9 in the middle of them."));
    let lost = payments_over_kills(host, client, target, folder).await?;
    say(&format!(
        "   All of them are final, also the {lost} that the notary had signed and somebody had not recorded yet."
    ));
    let paid = i64::try_from(PAYMENTS)? * EACH;
    vaults(client, [350, 650, paid]).await?;

    say("10. Carol offers the same money to Alice and to Bob.");
    let twice = json!({"to": ["O=Alice, L=London, C=GB", BOB], "quantity": EACH, "currency": GBP});
    let ended = run_of(client, "Carol", "hostile/double-spend", twice).await?;
    expect("the second of the two", &ended["second"]["exception"], &json!("notary/conflict"))?;
    vaults(client, [350 + EACH, 650, paid - EACH]).await?;
    say("   The first payment is final; the notary has refused the second, and nothing of it is left.");

    say("11. What the notary says.");
    let status = client.notary_status(pb::NotaryStatusRequest { identity: "Notary".to_owned() }).await?;
    say(&format!("   {} transactions committed, {} refused as a conflict.", status.committed, status.conflicts));
    expect("the conflicts", &json!(status.conflicts), &json!(1))
}

/// Pays Carol many times at once and kills the host until that hit the moment between commit and record; then sees all
/// payments through. Returns how many payments it was that hung there.
async fn payments_over_kills(host: &mut Host, client: &Client, target: &Path, folder: &Path) -> Outcome<u64> {
    for _ in 0..PAYMENTS {
        run(client, "cash/issue", json!({"quantity": EACH, "currency": GBP})).await?;
    }
    let mut payments = Vec::new();
    for number in 0..PAYMENTS {
        let client = client.clone();
        payments.push(tokio::spawn(async move {
            let pay = json!({"to": CAROL, "quantity": EACH, "currency": GBP});
            let from = start("Alice", "cash/pay", &pay, Some(format!("demo-pay-{number}")));
            result(client.follow(from, patience(), |_| {}).await?)
        }));
    }
    let mut hanging = 0;
    for kill in 0..KILLS {
        // Each time in the middle of whatever they do.
        tokio::time::sleep(Duration::from_millis(20 + 7 * u64::try_from(kill)?)).await;
        host.kill()?;
        hanging = hanging.max(signed_and_not_recorded(folder)?);
        *host = Host::start(target, folder)?;
        if hanging > 0 || payments.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    for payment in payments {
        payment.await??;
    }
    Ok(hanging)
}

/// Transactions that the notary has committed and that their payer has not recorded, in a copy of the database as the kill
/// left it.
fn signed_and_not_recorded(folder: &Path) -> Outcome<u64> {
    let copy = folder.join("after-the-kill");
    std::fs::create_dir_all(&copy)?;
    for file in ["maxhost.db", "maxhost.db-wal"] {
        std::fs::copy(folder.join("data").join(file), copy.join(file))?;
    }
    let database = rusqlite::Connection::open(copy.join("maxhost.db"))?;
    let count = "SELECT count(*) FROM notary_tx n WHERE n.batch IS NOT NULL \
                 AND EXISTS (SELECT 1 FROM ledger_tx t WHERE t.id = n.id AND t.status = 1)";
    let counted = database.query_row(count, [], |row| row.get::<_, i64>(0))?;
    drop(database);
    std::fs::remove_dir_all(&copy)?;
    Ok(u64::try_from(counted)?)
}

async fn query(client: &Client, identity: &str, state_type: &str) -> Outcome<Vec<pb::VaultState>> {
    let request = pb::VaultQueryRequest {
        identity: identity.to_owned(),
        types: vec![state_type.to_owned()],
        ..pb::VaultQueryRequest::default()
    };
    Ok(client.query(request).await?.states)
}

/// Shows the money of Alice, Bob and Carol, each as his own vault adds it up.
async fn vaults(client: &Client, expected: [i64; 3]) -> Outcome<()> {
    let mut shown = Vec::new();
    for (identity, expected) in ["Alice", "Bob", "Carol"].into_iter().zip(expected) {
        let query = pb::VaultQueryRequest {
            identity: identity.to_owned(),
            types: vec!["cash/Cash".to_owned()],
            ..pb::VaultQueryRequest::default()
        };
        let request = pb::VaultSumRequest { query: Some(query), field: "quantity".to_owned(), by: None };
        let sums = client.sum(request).await?.sums;
        let sum: Value = sums.first().map_or(Ok(Value::Null), |sum| serde_json::from_str(&sum.sum))?;
        expect(&format!("the money of {identity}"), &json!(sum.as_i64().unwrap_or(0)), &json!(expected))?;
        shown.push(format!("{identity} {expected}"));
    }
    say(&format!("   Vaults, GBP: {}.", shown.join(", ")));
    Ok(())
}
