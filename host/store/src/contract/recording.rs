//! What is recorded of transactions in any order, again and again.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_ledger::codec;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_ledger::tx::signature::sign;
use maxhost_ledger::tx::{StateRef, TransactionSignature};
use maxhost_ledger::vault::query::{Query, Status, StatusFilter};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_model::SecureHash;

use super::ledger::{cash, id, output, recording};
use super::queries::Random;
use super::{Databases, World, hold_the_committer, submit};
use crate::ledger::{LedgerOp, LedgerReceipt, ListTransactions, Recording};

/// Transactions of a chain: each but the first consumes the first output of the one before.
const CHAIN: u32 = 4;
const CHAINS: u32 = 6;
/// Events of a chain, before all of it is finalised.
const EVENTS: usize = 24;

/// What has become of a transaction, told once more.
#[derive(Debug, Default, Clone)]
struct Told {
    is_there: bool,
    finalised: bool,
    in_flight: bool,
    /// Its outputs that are another's were to be recorded too, or its own.
    all_visible: bool,
    relevant: bool,
    signers: BTreeSet<u8>,
    announced: u32,
}

impl Told {
    fn hear(&mut self, event: TransactionEvent, what: StatesToRecord, signer: u8) {
        match event {
            // Of what is in flight and was refused nothing stays.
            TransactionEvent::Refused if self.in_flight => {
                *self = Told { announced: self.announced, ..Told::default() };
                return;
            }
            TransactionEvent::Refused if !self.is_there => return,
            TransactionEvent::SentToNotary => self.in_flight = !self.finalised,
            TransactionEvent::Finalised => {
                (self.finalised, self.in_flight) = (true, false);
                self.all_visible |= what == StatesToRecord::AllVisible;
                self.relevant |= what != StatesToRecord::None;
            }
            TransactionEvent::Refused | TransactionEvent::Downloaded => {}
        }
        self.is_there = true;
        self.signers.insert(signer);
    }
}

fn signer(byte: u8) -> SigningKey {
    SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).unwrap()
}

/// The transaction with this number as it comes with an event: its first output is one's own, its second another's.
fn event(number: u32, event: TransactionEvent, what: StatesToRecord, by: u8) -> Recording {
    let inputs = if number.is_multiple_of(CHAIN) { vec![] } else { vec![output(number - 1, 0)] };
    let signature = sign(&id(number), &signer(by), 140).unwrap();
    let outputs = vec![cash(7, "GBP", 1), cash(3, "GBP", 2)];
    Recording { event, what, signatures: vec![signature], ..recording(number, &inputs, outputs) }
}

/// However often and in whatever order transactions come down, are sent to the notary, refused and finalised: one that was
/// finalised once has one row, which is verified for ever and has all signatures, exactly one finaliser is told that it has
/// become part of the ledger, and the vault is what the order of the chain would have made.
pub async fn any_order_of_events_keeps_one_verified_row<D: Databases>() {
    let seed = u64::from(std::process::id());
    let mut random = Random(seed);
    let mut world = World::<D>::new().await;
    for chain in 0..CHAINS {
        let numbers = chain * CHAIN..(chain + 1) * CHAIN;
        let mut told: BTreeMap<u32, Told> = numbers.clone().map(|number| (number, Told::default())).collect();
        let kinds = [
            TransactionEvent::Downloaded,
            TransactionEvent::SentToNotary,
            TransactionEvent::Refused,
            TransactionEvent::Finalised,
        ];
        let whats = [StatesToRecord::None, StatesToRecord::OnlyRelevant, StatesToRecord::AllVisible];
        let mut left: Vec<(u32, TransactionEvent, StatesToRecord, u8)> = (0..EVENTS)
            .map(|_| {
                let number = numbers.start + random.below(u64::from(CHAIN)) as u32;
                (number, random.of(&kinds), random.of(&whats), 1 + random.below(3) as u8)
            })
            .collect();
        // In the end all of it is part of the ledger, the last transaction first.
        let last = numbers.clone().rev();
        left.extend(last.map(|number| (number, TransactionEvent::Finalised, StatesToRecord::OnlyRelevant, 1)));
        while !left.is_empty() {
            let some = left.drain(..left.len().min(1 + random.below(4) as usize)).collect::<Vec<_>>();
            // Those of one batch see each other.
            let gate = hold_the_committer(&world.store, world.alice);
            let answers: Vec<_> = some
                .iter()
                .map(|&(number, kind, what, by)| {
                    let op = LedgerOp::Record(Box::new(event(number, kind, what, by)));
                    submit(&world.store, world.alice, None, vec![op.into()])
                })
                .collect();
            drop(gate);
            for ((number, kind, what, by), answer) in some.into_iter().zip(answers) {
                let told = told.get_mut(&number).unwrap();
                told.hear(kind, what, by);
                match answer.await.unwrap().unwrap().ledger.pop() {
                    Some((_, LedgerReceipt::Recorded(announced))) => told.announced += u32::from(announced),
                    other => panic!("seed {seed}: not recorded: {other:?}"),
                }
            }
            if random.below(10) == 0 {
                world = world.reopen().await;
            }
            for (number, told) in &told {
                look_at_the_row(&world, seed, *number, told).await;
            }
        }
        look_at_the_vault(&world, seed, &told).await;
    }
}

async fn look_at_the_row<D: Databases>(world: &World<D>, seed: u64, number: u32, told: &Told) {
    let found = world.store.ledger_transaction(world.alice.identity, &id(number)).await.unwrap();
    assert_eq!(told.announced, u32::from(told.finalised), "seed {seed}: {number}: {told:?}");
    let Some(found) = found else {
        assert!(!told.is_there, "seed {seed}: {number} is gone: {told:?}");
        return;
    };
    assert!(told.is_there, "seed {seed}: {number}: {told:?}");
    let status = match (told.finalised, told.in_flight) {
        (true, _) => TransactionStatus::Verified,
        (false, true) => TransactionStatus::InFlight,
        (false, false) => TransactionStatus::Unverified,
    };
    assert_eq!(found.status, status, "seed {seed}: {number}: {told:?}");
    let signatures: Vec<TransactionSignature> = codec::decode("signatures", &found.signatures).unwrap();
    let by = |signature: &TransactionSignature| (1..4).find(|byte| signer(*byte).public() == signature.by()).unwrap();
    let signers: Vec<u8> = signatures.iter().map(by).collect();
    assert_eq!(signers.len(), told.signers.len(), "seed {seed}: {number}: each once");
    assert_eq!(signers.into_iter().collect::<BTreeSet<_>>(), told.signers, "seed {seed}: {number}");
}

async fn look_at_the_vault<D: Databases>(world: &World<D>, seed: u64, told: &BTreeMap<u32, Told>) {
    let list = ListTransactions { limit: 10_000, ..Default::default() };
    let listed = world.store.ledger_transactions(world.alice.identity, &list).await.unwrap();
    let query = Query { status: StatusFilter::All, limit: 10_000, ..Query::default() };
    let rows = world.all(&query).await.rows;
    for (number, told) in told {
        assert_eq!(listed.iter().filter(|one| one.id == id(*number)).count(), 1, "seed {seed}: {number} has one row");
        let last = number % CHAIN == CHAIN - 1;
        let mut wanted = Vec::new();
        if told.relevant {
            wanted.push((output(*number, 0), if last { Status::Unconsumed } else { Status::Consumed }, true));
        }
        if told.all_visible {
            wanted.push((output(*number, 1), Status::Unconsumed, false));
        }
        let of = rows.iter().filter(|row| row.row.reference.tx == id(*number));
        let found: Vec<_> = of.map(|row| (row.row.reference, row.row.status, row.row.relevant)).collect();
        assert_eq!(found, wanted, "seed {seed}: the states of {number}: {told:?}");
    }
}

/// A database may look up a few small rows in another way than many or large ones; nobody can tell.
pub async fn one_transaction_is_read_as_many_are<D: Databases>() {
    const COUNT: u32 = 40;
    let count = usize::try_from(COUNT).unwrap();
    let world = World::<D>::new().await;
    let (store, alice) = (&world.store, world.alice.identity);
    for number in 1..=COUNT {
        let inputs = if number == 1 { vec![] } else { vec![output(number - 1, 0)] };
        let event = if number % 5 == 0 { TransactionEvent::Downloaded } else { TransactionEvent::Finalised };
        // From nothing to more than what is read beside everything else.
        let body = "body ".repeat(1_000 * usize::try_from(number - 1).unwrap()).into();
        let whole = recording(number, &inputs, vec![cash(10, "GBP", 1)]);
        world.record(Recording { event, body, ..whole }).await;
    }
    let ids: Vec<SecureHash> = (1..=COUNT + 1).map(id).collect();
    let together = store.ledger_bodies(alice, &ids, usize::MAX).await.unwrap();
    assert_eq!(together.len(), count, "the last id is not there");
    let mut singly = Vec::new();
    for id in &ids {
        singly.extend(store.ledger_transaction(alice, id).await.unwrap());
    }
    assert_eq!(singly, together);

    let statuses = store.ledger_statuses(alice, &ids).await.unwrap();
    let states: Vec<StateRef> = (1..=COUNT + 1).map(|number| output(number, 0)).collect();
    let spent = store.spent_by(alice, &states).await.unwrap();
    assert_eq!(statuses.len(), count);
    assert!(spent.len() > count / 2);
    for few in [1, 3] {
        let (mut some_statuses, mut some_spent) = (Vec::new(), Vec::new());
        for (ids, states) in ids.chunks(few).zip(states.chunks(few)) {
            some_statuses.extend(store.ledger_statuses(alice, ids).await.unwrap());
            some_spent.extend(store.spent_by(alice, states).await.unwrap());
        }
        assert_eq!((&some_statuses, &some_spent), (&statuses, &spent));
    }
    assert!(store.ledger_statuses(world.bob.identity, &ids[..2]).await.unwrap().is_empty(), "another's ledger");
    assert!(store.spent_by(world.bob.identity, &states[..2]).await.unwrap().is_empty(), "another's ledger");
}
