//! What is read of a notary: the log of its requests, what it has decided, and what has consumed a state.

use maxhost_ledger::notary::{BatchStamp, ConflictKind, Outcome, UniquenessRequest};
use maxhost_ledger::time::TimeWindow;
use maxhost_ledger::tx::StateRef;

use super::ledger::{at, id, output};
use super::{Databases, World};
use crate::ledger::{
    Answered, Conflicting, Consumption, LOGGED_CONFLICTS, LOOKED_AT, LedgerOp, ListRequests, LoggedRequest, NotaryOp,
};

/// A request about a transaction that takes states.
fn takes(number: u32, inputs: &[StateRef]) -> UniquenessRequest {
    UniquenessRequest { id: id(number), inputs: inputs.to_vec(), references: Vec::new(), window: None }
}

/// Which, without bounds.
fn all() -> ListRequests {
    ListRequests { limit: 100, look: LOOKED_AT, ..ListRequests::default() }
}

impl<D: Databases> World<D> {
    /// What the notary has logged: the answers of a page, with the transactions, and whether there may be more.
    async fn logged(&self, list: &ListRequests) -> (Vec<LoggedRequest>, bool) {
        let page = self.store.notary_requests(self.bob.identity, list).await.unwrap();
        assert!(page.rows.windows(2).all(|pair| pair[0].0 > pair[1].0), "newest first: {page:?}");
        (page.rows.into_iter().map(|(_, request)| request).collect(), page.next.is_some())
    }

    async fn answers(&self, list: &ListRequests) -> Vec<(u32, Answered)> {
        let (rows, _) = self.logged(list).await;
        let number = |row: &LoggedRequest| (0..100).find(|number| id(*number) == row.id).unwrap();
        rows.iter().map(|row| (number(row), row.answered.unwrap())).collect()
    }

    /// Decides a request of a caller of this name.
    async fn asked_by(&self, caller: &str, now: u64, request: UniquenessRequest) {
        let requests = vec![(caller.to_owned(), request)];
        self.ledger(self.bob, LedgerOp::Notarise(Box::new(NotaryOp { requests, at: at(now) }))).await;
    }
}

pub async fn requests_are_read_newest_first_with_what_was_answered<D: Databases>() {
    let world = World::<D>::new().await;
    assert_eq!(world.logged(&all()).await, (Vec::new(), false), "no ledger is in use yet");
    let window = |from: u64, until: u64| Some(TimeWindow::between(at(from), at(until)).unwrap());
    let spends = takes(1, &[output(0, 0)]);
    let looks = UniquenessRequest { references: vec![output(0, 0)], ..takes(2, &[output(0, 1)]) };
    let late = UniquenessRequest { window: window(1, 5), ..takes(3, &[output(0, 2)]) };
    let early = UniquenessRequest { window: window(50, 60), ..takes(4, &[output(0, 3)]) };
    world.notarise(10, &[spends.clone(), looks.clone(), late.clone(), early.clone(), spends.clone()]).await;
    world.asked_by("O=Other", 20, spends).await;
    world.asked_by("O=Other", 55, early).await;
    let world = world.reopen().await;
    let first = [
        (1, Answered::Committed),
        (2, Answered::Conflict),
        (3, Answered::TooLate),
        (4, Answered::TooEarly),
        // The same batch, and so the answer of the first time.
        (1, Answered::Committed),
    ];
    let newest = [(4, Answered::Committed), (1, Answered::Repeated)];
    let mut expected = newest.to_vec();
    expected.extend(first.iter().rev());
    assert_eq!(world.answers(&all()).await, expected);

    let (rows, _) = world.logged(&ListRequests { answered: Some(Answered::Conflict), ..all() }).await;
    let stamp = BatchStamp { batch: 1, at: at(10) };
    let conflicts = vec![Conflicting { reference: output(0, 0), kind: ConflictKind::Reference }];
    let caller = "O=Caller".to_owned();
    let conflict = LoggedRequest {
        id: id(2),
        caller,
        states: 2,
        stamp,
        answered: Some(Answered::Conflict),
        conflicting: 1,
        conflicts,
    };
    assert_eq!(rows, [conflict]);
    assert_eq!(world.answers(&ListRequests { caller: Some("O=Other".to_owned()), ..all() }).await, newest);
    assert_eq!(world.answers(&ListRequests { from: Some(at(20)), ..all() }).await, newest);
    assert_eq!(world.answers(&ListRequests { from: Some(at(20)), until: Some(at(55)), ..all() }).await, newest[1..]);
    assert!(world.answers(&ListRequests { until: Some(at(10)), ..all() }).await.is_empty());
    let nobody = ListRequests { caller: Some("O=Nobody".to_owned()), ..all() };
    assert_eq!(world.logged(&nobody).await, (Vec::new(), false));

    let store = &world.store;
    let of = async |number: u32, limit: u32| {
        let found = store.notary_requests_of(world.bob.identity, &id(number), limit).await.unwrap();
        found.iter().map(|(_, request)| (request.stamp.batch, request.answered.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(of(4, 9).await, [(3, Answered::Committed), (1, Answered::TooEarly)]);
    assert_eq!(of(4, 1).await, [(3, Answered::Committed)]);
    assert_eq!(of(1, 9).await.len(), 3);
    assert_eq!(of(2, 9).await, [(1, Answered::Conflict)]);
    assert!(of(9, 9).await.is_empty());
    let outcome = async |number: u32| store.notary_outcome(world.bob.identity, &id(number)).await.unwrap();
    assert_eq!(outcome(1).await, Some(Outcome::Committed(stamp)));
    assert_eq!(outcome(2).await, None, "what conflicts is not kept by itself");
    assert_eq!(outcome(3).await, Some(Outcome::TooLate(at(10))));
    // Another identity has decided nothing.
    assert!(store.notary_requests(world.alice.identity, &all()).await.unwrap().rows.is_empty());
    assert!(store.notary_requests_of(world.alice.identity, &id(1), 9).await.unwrap().is_empty());
}

pub async fn a_log_is_searched_in_bounded_steps<D: Databases>() {
    let world = World::<D>::new().await;
    world.asked_by("O=Rare", 1, takes(1, &[output(0, 1)])).await;
    for number in 2..=7 {
        world.asked_by("O=Often", 1, takes(number, &[output(0, number)])).await;
    }
    let mut list = ListRequests { caller: Some("O=Rare".to_owned()), look: 3, ..all() };
    let mut steps = Vec::new();
    loop {
        let page = world.store.notary_requests(world.bob.identity, &list).await.unwrap();
        steps.push(page.rows.len());
        let Some(next) = page.next else { break };
        assert!(list.before.is_none_or(|before| next < before), "it goes on");
        list.before = Some(next);
    }
    assert_eq!(steps, [0, 0, 1], "three at a time, and all of one moment");
    // Pages of any size have each request once.
    for limit in 1..=8 {
        let (mut list, mut seen) = (ListRequests { limit, ..all() }, Vec::new());
        loop {
            let page = world.store.notary_requests(world.bob.identity, &list).await.unwrap();
            assert!(page.rows.len() <= limit as usize);
            seen.extend(page.rows.iter().map(|(_, request)| request.id));
            let Some(next) = page.next else { break };
            list.before = Some(next);
        }
        let expected: Vec<_> = (1..=7).rev().map(id).collect();
        assert_eq!(seen, expected, "pages of {limit}");
    }
}

pub async fn what_was_consumed_is_told_with_its_consumer<D: Databases>() {
    let world = World::<D>::new().await;
    let many: Vec<StateRef> = (0..40).map(|index| output(0, index)).collect();
    assert!(world.store.notary_consumed(world.bob.identity, &many).await.unwrap().is_empty());
    world.notarise(10, &[takes(1, &many[..30]), takes(2, &many)]).await;
    world.notarise(20, &[takes(3, &many[35..36])]).await;
    let world = world.reopen().await;
    let asked = [many[35], output(9, 0), many[3]];
    let told = |reference: StateRef, number: u32, batch: u64, seconds: u64| {
        let stamp = Some(BatchStamp { batch, at: at(seconds) });
        Consumption { reference, consumed_by: id(number), stamp }
    };
    let found = world.store.notary_consumed(world.bob.identity, &asked).await.unwrap();
    assert_eq!(found, [told(many[35], 3, 2, 20), told(many[3], 1, 1, 10)]);
    assert!(world.store.notary_consumed(world.alice.identity, &asked).await.unwrap().is_empty());
    // Of many conflicts the first are logged, and all of them counted.
    let found = world.store.notary_requests_of(world.bob.identity, &id(2), 9).await.unwrap();
    let (_, request) = &found[0];
    assert_eq!((request.conflicting, request.conflicts.len()), (30, LOGGED_CONFLICTS));
    assert!(request.conflicts.iter().all(|conflict| many[..30].contains(&conflict.reference)));
}
