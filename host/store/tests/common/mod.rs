//! What the tests of the store share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};
use maxhost_store::{
    AttemptToken, CommitUnit, FlowState, Keep, NewFlow, Op, Receipt, SCHEMA_VERSION, Store, StoreError, StoreOptions,
};
use tokio::sync::oneshot;

pub const EPOCH: i64 = 0;

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub alice: IdentityRow,
    pub bob: IdentityRow,
}

impl Fixture {
    pub async fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let rows = store.register_identities(&["Alice", "Bob"]).await.unwrap();
        Fixture { dir, store, alice: rows[0], bob: rows[1] }
    }

    pub async fn reopen(self) -> Fixture {
        self.store.close().await;
        let store = open(self.dir.path()).await;
        Fixture { store, ..self }
    }

    pub async fn start(&self, identity: IdentityRow) -> FlowRow {
        let flow = self.store.next_flow_row();
        self.commit(identity, vec![start(flow)]).await.unwrap();
        flow
    }

    pub async fn commit(&self, identity: IdentityRow, ops: Vec<Op>) -> Result<Receipt, StoreError> {
        self.store.commit(identity, EPOCH, ops).await
    }
}

pub async fn open(dir: &Path) -> Store {
    Store::open(StoreOptions::new(dir.join("host.db"))).await.unwrap()
}

pub fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn new_flow(row: FlowRow) -> NewFlow {
    NewFlow {
        row,
        id: FlowId::new(row, 0xfeed),
        name: Arc::from("ping-pong/ping"),
        user: None,
        client_id: None,
        started: 1000 + row.0,
        start: text("start"),
    }
}

pub fn start(row: FlowRow) -> Op {
    Op::StartFlow(Box::new(new_flow(row)))
}

pub fn start_with_client(row: FlowRow, client_id: &str, user: &str) -> Op {
    let (client_id, user) = (Some(client_id.to_owned()), Some(user.to_owned()));
    Op::StartFlow(Box::new(NewFlow { client_id, user, ..new_flow(row) }))
}

pub fn log(flow: FlowRow, seq: u32) -> Op {
    Op::AppendLog { flow, seq, body: text(&format!("log {seq}")) }
}

pub fn deliver(session: SessionId, seq: u32) -> Op {
    Op::Deliver { session, seq, body: text(&format!("message {seq}")) }
}

pub fn end(flow: FlowRow) -> Op {
    Op::EndFlow { flow, state: FlowState::Completed, finished: 2000, keep: None }
}

pub fn end_kept(flow: FlowRow, expires: i64) -> Op {
    Op::EndFlow { flow, state: FlowState::Completed, finished: 2000, keep: Some(Keep { expires, end: text("end") }) }
}

/// Hands a unit in and gives back where its outcome will be.
pub fn submit(
    store: &Store,
    identity: IdentityRow,
    attempt: Option<&AttemptToken>,
    ops: Vec<Op>,
) -> oneshot::Receiver<Result<Receipt, StoreError>> {
    let (reply, answer) = oneshot::channel();
    let done = Box::new(move |outcome| drop(reply.send(outcome)));
    store.submit(CommitUnit {
        identity,
        epoch: EPOCH,
        attempt: attempt.cloned(),
        depends_on: Default::default(),
        ops,
        done,
    });
    answer
}

/// As [`submit`], for a unit that builds on messages of another attempt.
pub fn submit_after(
    store: &Store,
    identity: IdentityRow,
    attempt: &AttemptToken,
    depends_on: &AttemptToken,
    ops: Vec<Op>,
) -> oneshot::Receiver<Result<Receipt, StoreError>> {
    let (reply, answer) = oneshot::channel();
    let done = Box::new(move |outcome| drop(reply.send(outcome)));
    let (attempt, depends_on) = (Some(attempt.clone()), [depends_on.clone()].into());
    store.submit(CommitUnit { identity, epoch: EPOCH, attempt, depends_on, ops, done });
    answer
}

/// Keeps the committer busy inside a `done` until what is returned is dropped.
pub fn hold_the_committer(store: &Store, identity: IdentityRow) -> mpsc::Sender<()> {
    let (gate, closed) = mpsc::channel::<()>();
    let (reached, at_gate) = mpsc::channel();
    let done = Box::new(move |_| {
        reached.send(()).unwrap();
        let _ = closed.recv();
    });
    store.submit(CommitUnit {
        identity,
        epoch: EPOCH,
        attempt: None,
        depends_on: Default::default(),
        ops: Vec::new(),
        done,
    });
    at_gate.recv().unwrap();
    gate
}

/// Makes the file one of a later version of this program.
pub fn make_newer(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (?1, 'of the future', 1, x'00', 0)",
        [SCHEMA_VERSION + 1],
    )
    .unwrap();
}

/// Asserts the shape of an outcome and shows it if it is another.
#[macro_export]
macro_rules! assert_outcome {
    ($outcome:expr, $pattern:pat $(if $attempt:expr)?) => {
        match $outcome {
            $pattern $(if $attempt)? => {}
            other => panic!("unexpected outcome: {other:?}"),
        }
    };
}
