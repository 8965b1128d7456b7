//! Identities that live in different databases, and their way from one to another.

use crate::common::ledger::{at, cash, id, output, recording};
use crate::common::*;
use maxhost_ledger::notary::UniquenessRequest;
use maxhost_model::IdentityRow;
use maxhost_store::ledger::{LedgerOp, NotaryOp};
use maxhost_store::{
    Caution, ClaimRequest, Conflict, FencingToken, FlowFilter, FlowState, MessageOp, OutboxContent, Store, StoreError,
    outbox_begin,
};
use maxhost_store_postgres::{Moved, PostgresOptions, PostgresStore, Step, move_identity};

/// What an identity has: tables of the common schema, and of its ledger.
const TABLES: [&str; 9] =
    ["flow", "ended", "initiation", "late_confirm", "client", "outbox", "sent", "processed", "untaken"];
const LEDGER: [&str; 14] = [
    "ledger_tx",
    "ledger_spent",
    "vault_change",
    "vault_state",
    "vault_field",
    "notary_state",
    "notary_tx",
    "notary_request",
    "notary",
    "attachment",
    "ledger_key",
    "key_external_id",
    "network_parameters",
    "vault_shape",
];

struct Two {
    first: Database,
    second: Database,
    options: Vec<PostgresOptions>,
}

impl Two {
    async fn new() -> Two {
        let (first, second) = (Database::new().await, Database::new().await);
        let options = vec![first.options(), second.options()];
        Two { first, second, options }
    }

    async fn open(&self) -> Store {
        PostgresStore::open_all(self.options.clone()).await.unwrap()
    }

    async fn move_to(&self, name: &str, place: usize) -> Result<Moved, StoreError> {
        move_identity(&self.options, name, place, |_| Ok(())).await
    }

    /// A move that is broken off after this step.
    async fn break_off(&self, name: &str, place: usize, after: impl Fn(Step) -> bool) {
        let told = |step| if after(step) { Err(StoreError::Closed) } else { Ok(()) };
        assert!(matches!(move_identity(&self.options, name, place, told).await, Err(StoreError::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_is_left_out() {
    let database = Database::new().await;
    PostgresStore::open(database.options()).await.unwrap().close().await;
    let sql = "SELECT string_agg(c.table_name, ' ' ORDER BY c.table_name) FROM information_schema.columns c \
               JOIN information_schema.tables t USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE' \
               AND c.table_schema = 'maxhost' AND c.column_name = 'identity' AND c.data_type = 'bigint'";
    let mut known: Vec<&str> = TABLES.into_iter().chain(LEDGER).collect();
    known.sort_unstable();
    assert_eq!(database.sql(sql).trim(), known.join(" "));
}

/// Everything that a database has of an identity, but for numbers that it has given itself, and times that go by how long
/// hosts have run on it.
fn dump(database: &Database, identity: IdentityRow) -> Vec<String> {
    let rows = |table: String, condition: String| {
        let own = match table.rsplit('.').next().unwrap() {
            "outbox" => "id,lived",
            "sent" => "number,at",
            "processed" => "at",
            "ended" => "forget_at",
            "notary_request" => "number",
            _ => "",
        };
        let sql = format!(
            "SELECT coalesce(string_agg(row::text, E'\\n' ORDER BY row::text), '') FROM \
             (SELECT to_jsonb(t) - '{{{own}}}'::text[] AS row FROM {table} t WHERE {condition}) rows"
        );
        format!("{table}: {}", database.sql(&sql))
    };
    let id = identity.0;
    let of_identity = format!("identity = {id}");
    let journal = format!("flow IN (SELECT id FROM maxhost.flow WHERE {of_identity})");
    std::iter::once(rows("maxhost.journal".to_owned(), journal))
        .chain(TABLES.iter().map(|table| rows(format!("maxhost.{table}"), of_identity.clone())))
        .chain(LEDGER.iter().map(|table| rows(format!("maxhost_i{id}.{table}"), of_identity.clone())))
        .collect()
}

fn request(identity: IdentityRow, epoch: i64) -> ClaimRequest {
    ClaimRequest { identity, token: FencingToken { generation: 0, epoch }, key_fp: None, caution: Caution::None }
}

async fn is_closed(store: &Store, identity: IdentityRow) -> bool {
    let claimed = store.claim(request(identity, 50)).await;
    matches!(claimed, Err(StoreError::Conflict(Conflict::IdentityMoved(_))))
}

fn outbox(destination: &str, tag: u8) -> maxhost_store::Op {
    MessageOp::Outbox { destination: destination.into(), message_id: [tag; 16], body: text("out") }.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_takes_all_it_has_to_another_database_however_often_it_is_broken_off() {
    let two = Two::new().await;
    two.open().await.close().await;
    // Hosts have run on the first for longer.
    two.first.sql("UPDATE maxhost.database SET lived = lived + 2000000000");
    let store = two.open().await;
    let rows = store.register_identities(&["Alice", "Bob"]).await.unwrap();
    let (alice, bob) = (claim(&store, rows[0], 1).await, claim(&store, rows[1], 1).await);
    let (lives, ended) = (store.next_flow_row(), store.next_flow_row());
    let issue = LedgerOp::Record(Box::new(recording(1, &[], vec![cash(10, "GBP", 1)])));
    let spends = UniquenessRequest { id: id(7), inputs: vec![output(8, 0)], references: vec![], window: None };
    let notarise = NotaryOp { requests: vec![("O=Caller".to_owned(), spends)], at: at(5) };
    let notarise = LedgerOp::Notarise(Box::new(notarise));
    for ops in [
        vec![start_with_client(lives, "mine", "ann"), log(lives, 0), log(lives, 1)],
        vec![deliver(to(alice), lives.session(0), 0), deliver(to(alice), lives.session(0), 1)],
        vec![start(ended), end_kept(ended, 9_000_000)],
        vec![initiate(to(alice), store.next_initiation()), MessageOp::Arrived { message_id: [9; 16] }.into()],
        vec![outbox("Zoe", 1), outbox("Zoe", 2)],
        vec![issue.into()],
        vec![notarise.into()],
    ] {
        store.commit(alice, ops).await.unwrap();
    }
    // A message that the broker has, and that is kept.
    store.commit(alice, vec![outbox("Yan", 3)]).await.unwrap();
    let confirmed = store.outbox_to("Yan", 0, 1).await.unwrap()[0].id;
    store.commit(alice, vec![MessageOp::OutboxSent { id: confirmed, marker: Some(4) }.into()]).await.unwrap();
    assert_eq!(two.first.sql("SELECT count(*) FROM maxhost.sent"), "1");
    let bobs = store.next_flow_row();
    store.commit(bob, vec![start(bobs)]).await.unwrap();
    let before = dump(&two.first, rows[0]);
    assert!(store.is_one_database(rows[0], rows[1]));

    // From the first step on nobody writes for it, and nobody can claim it, wherever the move is broken off.
    two.break_off("Alice", 1, |step| step == Step::Closed).await;
    assert!(matches!(store.commit(alice, vec![log(lives, 2)]).await, Err(StoreError::Fenced { .. })));
    assert!(is_closed(&store, rows[0]).await);
    two.break_off("Alice", 1, |step| matches!(step, Step::Copied(_))).await;
    assert!(is_closed(&store, rows[0]).await);
    two.break_off("Alice", 1, |step| step == Step::Left).await;
    assert!(is_closed(&store, rows[0]).await);
    let Moved::There(Some(_)) = two.move_to("Alice", 1).await.unwrap() else { panic!("it was moved") };
    assert_eq!(two.move_to("Alice", 1).await.unwrap(), Moved::There(None));
    assert_eq!(two.move_to("Nobody", 1).await.unwrap(), Moved::Unknown);
    assert_eq!(dump(&two.second, rows[0]), before);
    let times = "SELECT bool_and(forget_at < 2000000000) AND (SELECT bool_and(at < 2000000000) FROM maxhost.processed) \
                 FROM maxhost.ended";
    assert_eq!((two.first.sql(times), two.second.sql(times)), ("f".to_owned(), "t".to_owned()));

    // A host that ran meanwhile finds it there.
    let alice = claim(&store, rows[0], 2).await;
    assert!(!store.is_one_database(rows[0], rows[1]));
    store.commit(alice, vec![log(lives, 2)]).await.unwrap();
    let journal = store.journal(lives).await.unwrap().unwrap();
    assert_eq!((journal.log.len(), journal.inbox.len()), (3, 2));
    assert_eq!(store.heads(&[bobs, lives]).await.unwrap()[1].last.as_ref().unwrap().0, 2);
    assert_eq!(store.client(rows[0], "ann", "mine").await.unwrap(), Some(lives));
    let listed = store.list_flows(&FlowFilter { limit: 2, ..FlowFilter::default() }).await.unwrap();
    assert_eq!(listed.iter().map(|flow| flow.row).collect::<Vec<_>>(), [bobs, ended]);
    let live: Vec<_> = store.live_flows().await.unwrap().iter().map(|flow| flow.row).collect();
    assert_eq!(live, [lives, bobs]);
    // What it has left behind is counted no more.
    assert_eq!(store.live_counts(&rows).await.unwrap(), [(rows[0], 1), (rows[1], 1)]);
    assert_eq!(store.live_states().await.unwrap(), [(FlowState::Live, 2)]);
    assert_eq!(store.newest_change(rows[0]).await.unwrap(), 1);
    assert_eq!(store.initiations(rows[0], 0, 10).await.unwrap().len(), 1);
    let again = store.commit(alice, vec![MessageOp::Arrived { message_id: [9; 16] }.into()]).await;
    assert!(matches!(again, Err(StoreError::Duplicate)));

    // Its outbox has come along; a number of the database that it has left names nothing here.
    assert_eq!(store.outbox_destinations("", 10).await.unwrap().len(), 1);
    let waiting = store.outbox_to("Zoe", outbox_begin(1), 10).await.unwrap();
    assert_eq!(waiting.len(), 2);
    let stale = waiting[0].id - outbox_begin(1);
    store.commit(alice, vec![MessageOp::OutboxSent { id: stale, marker: None }.into()]).await.unwrap();
    store.commit(alice, vec![MessageOp::OutboxSent { id: waiting[0].id, marker: None }.into()]).await.unwrap();
    assert_eq!(store.outbox_to("Zoe", outbox_begin(1), 10).await.unwrap(), waiting[1..]);

    // Who writes to it from another database leaves the message for the relay.
    let receipt = store.commit(bob, vec![deliver(to(alice), lives.session(0), 2)]).await.unwrap();
    assert_eq!(receipt.outboxed[..], [0]);
    let left = store.outbox_to("Alice", outbox_begin(0), 10).await.unwrap();
    assert!(matches!(left[0].content, OutboxContent::Delivery { seq: 2, .. }), "{left:?}");

    // What it has left behind is removed after a while.
    two.first.sql("UPDATE maxhost.identity SET left_at = left_at - 1000000000 WHERE left_at IS NOT NULL");
    while store.purge(3).await.unwrap() > 0 {}
    let remains = dump(&two.first, rows[0]);
    assert!(remains.iter().all(|table| table.ends_with(": ")), "{remains:?}");
    assert_eq!(store.journal(lives).await.unwrap().unwrap().log.len(), 3);
    assert_eq!(two.first.sql("SELECT count(*) FROM maxhost.flow"), "1", "Bob's is still there");

    // And back, with what it has done meanwhile.
    let before = dump(&two.second, rows[0]);
    let Moved::There(Some(_)) = two.move_to("Alice", 0).await.unwrap() else { panic!("it was moved") };
    assert_eq!(dump(&two.first, rows[0]), before);
    let alice = claim(&store, rows[0], 3).await;
    store.commit(alice, vec![log(lives, 3), deliver(to(bob), bobs.session(0), 0)]).await.unwrap();
    assert_eq!(store.journal(bobs).await.unwrap().unwrap().inbox.len(), 1, "they are in one database again");

    // A move that was begun can be called off until it has left.
    two.break_off("Alice", 1, |step| matches!(step, Step::Copied(_))).await;
    assert!(is_closed(&store, rows[0]).await);
    assert_eq!(two.move_to("Alice", 0).await.unwrap(), Moved::There(None));
    let alice = claim(&store, rows[0], 4).await;
    store.commit(alice, vec![log(lives, 4)]).await.unwrap();
    // What was copied then is not what counts now.
    two.move_to("Alice", 1).await.unwrap();
    claim(&store, rows[0], 5).await;
    assert_eq!(store.journal(lives).await.unwrap().unwrap().log.len(), 5);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_do_not_go_together_are_refused() {
    let two = Two::new().await;
    let open = async |places: &[&Database]| {
        PostgresStore::open_all(places.iter().map(|database| database.options()).collect()).await
    };
    let unfit = |opened: Result<Store, StoreError>| {
        let Err(StoreError::Unfit { reason, .. }) = opened else { panic!("refused: {opened:?}") };
        reason
    };
    // One that was used by itself, and one twice.
    let alone = Database::new().await;
    open(&[&alone]).await.unwrap().close().await;
    assert!(unfit(open(&[&two.first, &alone]).await).contains("begins empty"));
    assert!(unfit(open(&[&two.first, &two.first]).await).contains("copy"));
    // What stands beside one is nobody else's.
    let store = two.open().await;
    let rows = store.register_identities(&["Alice"]).await.unwrap();
    store.close().await;
    assert!(unfit(open(&[&two.second]).await).contains("store.url"));
    assert!(unfit(open(&[&alone, &two.second]).await).contains("another one"));
    open(&[&two.first]).await.unwrap().close().await;
    // Without it nobody starts who would need it.
    two.move_to("Alice", 1).await.unwrap();
    let refused = open(&[&two.first]).await;
    let id = two.second.sql("SELECT id FROM maxhost.database");
    assert!(matches!(&refused, Err(StoreError::UnknownDatabase { databases, .. }) if *databases == id), "{refused:?}");
    // Another move than the one that was begun.
    let third = Database::new().await;
    let mut options = two.options.clone();
    options.push(third.options());
    PostgresStore::open_all(options.clone()).await.unwrap().close().await;
    let broken = move_identity(&options, "Alice", 2, |_| Err(StoreError::Closed)).await;
    assert!(matches!(broken, Err(StoreError::Closed)));
    let on_its_way = Moved::OnItsWay(third.sql("SELECT id FROM maxhost.database"));
    assert_eq!(move_identity(&options, "Alice", 0, |_| Ok(())).await.unwrap(), on_its_way);
    assert!(matches!(move_identity(&options, "Alice", 2, |_| Ok(())).await.unwrap(), Moved::There(Some(_))));
    // One that was put back to a moment before the move has an identity that lives elsewhere.
    two.first.sql("UPDATE maxhost.identity SET moved_to = NULL");
    assert!(unfit(PostgresStore::open_all(options).await).contains(&format!("identity {} lives in two", rows[0].0)));
}
