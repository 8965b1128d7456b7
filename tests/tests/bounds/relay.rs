//! The way through the broker: nothing spins, nobody starves, nobody is deceived.

use std::fs;
use std::time::Duration;

use maxhost_model::FlowId;
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use prost::Message;
use serde_json::json;

/// Computing time that a process has used.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap()).sum();
    // SAFETY: asks for a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

fn rows(network: &Network, table: &str) -> i64 {
    let count = |row: &rusqlite::Row<'_>| row.get(0);
    network.database().query_row(&format!("SELECT count(*) FROM {table}"), [], count).unwrap()
}

async fn ping(host: &Host, from: &str, to: &str) {
    assert_eq!(host.run(from, "ping", json!({"peer": to, "count": 3})).await.result(), json!({"rounds": 3}));
}

/// Leaves 300 messages in the outbox, as if the broker had been away.
fn leave_in_outbox(network: &Network, sender: &str, destination: &str) {
    let insert = "WITH RECURSIVE series(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series LIMIT 300) \
                  INSERT INTO outbox (id, identity, destination, message_id, body) \
                  SELECT (SELECT coalesce(max(id), 1000000) FROM outbox) + value, \
                  (SELECT id FROM identity WHERE name = ?1), ?2, randomblob(16), x'0a0142' FROM series";
    let database = network.database();
    database.execute(insert, [sender, destination]).unwrap();
    database.execute("UPDATE meta SET value = 2000000 WHERE key = 'outbox'", []).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_identity_that_was_removed_cost_nothing_and_are_sent_when_it_is_back() {
    let network = Network::new().settings(&["flows.always_broker=true", "flows.linger=50ms"]);
    let host = network.run();
    ping(&host, ALICE, BOB).await;
    host.stop();
    leave_in_outbox(&network, CAROL, BOB);
    // Their sender is removed before the host starts.
    let manifest = network.path("identities/carol.toml");
    let saved = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();

    let host = network.run();
    // Others are not held up by them.
    ping(&host, ALICE, BOB).await;
    ping(&host, BOB, ALICE).await;
    let before = cpu_time(host.pid());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = cpu_time(host.pid()) - before;
    assert!(used < Duration::from_millis(600), "{used:?} of computing in 3 s with nothing to do");
    assert_eq!(rows(&network, "outbox"), 300);

    fs::write(&manifest, saved).unwrap();
    eventually("they are sent", async || match rows(&network, "outbox") {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    })
    .await;
    ping(&host, ALICE, BOB).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_destination_that_takes_none_hold_up_no_others() {
    let network = Network::new().settings(&["flows.always_broker=true", "flows.linger=50ms"]);
    network.run().stop();
    // The oldest of all, and more than one turn, for somebody whom the network does not know.
    leave_in_outbox(&network, ALICE, "O=Nobody, L=Nowhere, C=FR");
    let host = network.run();
    ping(&host, ALICE, BOB).await;
    ping(&host, BOB, ALICE).await;
    let before = cpu_time(host.pid());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = cpu_time(host.pid()) - before;
    assert!(used < Duration::from_millis(600), "{used:?} of computing in 3 s with nothing to do");
    assert_eq!(rows(&network, "outbox"), 300, "they are kept");
    let told = network.log_lines(&["messages could not be sent", "O=Nobody"]);
    assert!((1..5).contains(&told.len()), "{told:#?}");
    host.stop();
}

/// What lies in a queue of the broker, as a sender that knows the format would write it.
#[derive(Clone, PartialEq, Message)]
struct Sealed {
    #[prost(bytes = "vec", tag = "14")]
    envelope: Vec<u8>,
    #[prost(bytes = "vec", tag = "15")]
    signature: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(string, tag = "1")]
    to: String,
    #[prost(message, optional, tag = "2")]
    initiation: Option<Initiation>,
    #[prost(message, optional, tag = "3")]
    frames: Option<Addressed>,
    #[prost(message, optional, tag = "4")]
    command: Option<Command>,
}

/// What one host asks of another that runs the identity.
#[derive(Clone, PartialEq, Message)]
struct Command {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(bytes = "vec", tag = "2")]
    flow_id: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    start: Option<AskedStart>,
}

#[derive(Clone, PartialEq, Message)]
struct AskedStart {
    #[prost(string, tag = "1")]
    flow: String,
    #[prost(bytes = "vec", tag = "2")]
    arguments: Vec<u8>,
    #[prost(string, tag = "3")]
    user: String,
    #[prost(string, optional, tag = "4")]
    client_id: Option<String>,
    #[prost(uint64, tag = "5")]
    expires: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Initiation {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(int64, tag = "2")]
    from_session: i64,
    #[prost(string, tag = "3")]
    protocol: String,
    #[prost(uint32, tag = "4")]
    version: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Addressed {
    #[prost(int64, tag = "1")]
    session: i64,
    #[prost(uint32, tag = "2")]
    seq: u32,
    #[prost(message, optional, tag = "3")]
    batch: Option<maxhost_journal::FrameBatch>,
}

/// The queue of an identity, by what the broker's file knows once the identity has got a message.
fn queues(network: &Network) -> Vec<String> {
    let broker = rusqlite::Connection::open(network.path("data/broker.db")).unwrap();
    let mut names = broker.prepare("SELECT name FROM queue").unwrap();
    names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Puts messages into every queue, while no host runs: whoever can reach a broker can do this.
fn put_into_all_queues(network: &Network, messages: &[([u8; 16], Vec<u8>)]) {
    let broker = rusqlite::Connection::open(network.path("data/broker.db")).unwrap();
    for (id, body) in messages {
        let insert = "INSERT INTO message (seq, queue, id, body) \
                      SELECT (SELECT coalesce(max(seq), 0) FROM message) + row_number() OVER (), id, ?1, ?2 FROM queue";
        broker.execute(insert, rusqlite::params![id, body]).unwrap();
    }
}

/// Signs as Carol, who is a member of the network like any other.
fn signed_by_carol(network: &Network, envelope: &Envelope) -> Vec<u8> {
    signed_by(network, CAROL, "carol", envelope)
}

/// Signs as an identity whose keys are in this folder.
fn signed_by(network: &Network, name: &str, folder: &str, envelope: &Envelope) -> Vec<u8> {
    let passphrase = fs::read_to_string(network.path("keys/passphrase")).unwrap();
    let passphrase = maxhost_pki::Passphrase::new(passphrase.trim_end()).unwrap();
    let vault = maxhost_pki::KeyVault::unlock(&network.path("keys"), &passphrase).unwrap();
    let map = maxhost_pki::NetworkMap::load(&network.path("network")).unwrap();
    let (name, now) = (name.parse().unwrap(), std::time::SystemTime::now());
    let keys = network.path(&format!("keys/{folder}"));
    let signer = maxhost_pki::OpenIdentity::open(&vault, &keys, &name, map.trust_root(), now).unwrap();
    let envelope = envelope.encode_to_vec();
    let network_id = maxhost_model::SecureHash::of(map.trust_root().der());
    let signed = [&b"maxhost message 1"[..], network_id.as_bytes(), blake3::hash(&envelope).as_bytes()].concat();
    Sealed { envelope, signature: signer.sign(&signed).unwrap() }.encode_to_vec()
}

/// The id of a message for a session.
fn id_of(envelope: &Envelope) -> [u8; 16] {
    let frames = envelope.frames.as_ref().unwrap();
    let batch = frames.batch.as_ref().unwrap();
    let mut hash = blake3::Hasher::new();
    for text in [&envelope.to, &batch.from] {
        hash.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    }
    hash.update(b"frames").update(&frames.session.to_be_bytes());
    hash.update(&batch.token.to_be_bytes()).update(&frames.seq.to_be_bytes());
    hash.finalize().as_bytes()[..16].try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_message_is_refused_told_and_holds_up_nothing() {
    let network = Network::new().settings(&["flows.always_broker=true", "flows.linger=50ms"]);
    let host = network.run();
    // Both have a queue now, and Alice has a flow that waits for Bob.
    ping(&host, ALICE, BOB).await;
    let waiting = host.start(ALICE, "wait-forever", json!({"peer": BOB})).await;
    host.until_waits(&waiting, "receive").await;
    eventually("Bob's responder waits too", async || match host.flows(Some(BOB), Some("never-answers")).await.len() {
        1 => Ok(()),
        others => Err(format!("{others}")),
    })
    .await;
    let (row, from_session): (i64, i64) = network
        .database()
        .query_row("SELECT id, id << 16 FROM flow WHERE name LIKE '%wait-forever'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let inbox = |network: &Network| -> i64 {
        let sql = "SELECT count(*) FROM journal WHERE flow = ?1 AND stream >= 0";
        network.database().query_row(sql, [row], |row| row.get(0)).unwrap()
    };
    // Nothing true is under way any more once the responder's confirmation of the session has been stored.
    eventually("the confirmation is stored", async || match inbox(&network) {
        1 => Ok(()),
        others => Err(others.to_string()),
    })
    .await;
    host.kill_9();
    assert_eq!(queues(&network).len(), 2, "{:?}", queues(&network));

    let initiation = |from: &str| Envelope {
        to: ALICE.to_owned(),
        initiation: Some(Initiation {
            from: from.to_owned(),
            from_session: 77 << 16,
            protocol: "ping-pong/ping".to_owned(),
            version: 1,
        }),
        ..Envelope::default()
    };
    // The next frame that Bob would send, for the session that can be guessed.
    let frame = |from: &str| Envelope {
        to: ALICE.to_owned(),
        frames: Some(Addressed {
            session: from_session,
            seq: 1,
            batch: Some(maxhost_journal::FrameBatch {
                from: from.to_owned(),
                frames: vec![maxhost_journal::Frame::data(b"\x01".to_vec().into())],
                token: 0,
            }),
        }),
        ..Envelope::default()
    };
    let sealed = |envelope: &Envelope, signature: Vec<u8>| {
        Sealed { envelope: envelope.encode_to_vec(), signature }.encode_to_vec()
    };
    let forged = [
        b"not a message at all".to_vec(),
        initiation(BOB).encode_to_vec(),
        sealed(&initiation(BOB), Vec::new()),
        sealed(&initiation(BOB), vec![7; 64]),
        // It claims to be from the very identity whose queue it is in.
        sealed(&initiation(ALICE), vec![7; 64]),
        sealed(&initiation("O=Nobody, L=Nowhere, C=FR"), vec![7; 64]),
        sealed(&frame(BOB), vec![7; 64]),
        // Carol signs what is not hers to say: under an id that is not that of the message, and for another's session.
        signed_by_carol(&network, &initiation(CAROL)),
    ];
    let mut forged: Vec<([u8; 16], Vec<u8>)> = (0..).map(|number| [number; 16]).zip(forged).collect();
    forged.push((id_of(&frame(CAROL)), signed_by_carol(&network, &frame(CAROL))));
    put_into_all_queues(&network, &forged);
    let (inbox_before, initiations) = (inbox(&network), rows(&network, "initiation"));

    let host = network.run();
    eventually("all are refused", async || match network.log_lines(&["message-refused"]).len() {
        refused if refused == forged.len() * 2 => Ok(()),
        refused => Err(format!("{refused} of {}", forged.len() * 2)),
    })
    .await;
    let causes = [("unreadable", 4), ("unsigned", 2), ("forged", 6), ("unknown-sender", 2)];
    for (cause, times) in causes.into_iter().chain([("wrong-id", 1), ("no-such-session", 1), ("misdirected", 2)]) {
        let told = network.log_lines(&["message-refused", &format!("cause=\"{cause}\"")]);
        assert_eq!(told.len(), times, "{cause}: {told:#?}");
    }
    let trail = network.cli(&["audit", "list", "--user", "(broker)", "--limit", "1000"]).ok().objects();
    assert_eq!(trail.len(), forged.len() * 2, "{trail:#?}");
    assert!(trail.iter().all(|row| row["action"] == "message-refused" && row["allowed"] == false), "{trail:#?}");
    assert_eq!(trail.iter().filter(|row| row["code"] == "forged" && row["identity"] == ALICE).count(), 3, "{trail:#?}");
    assert_eq!((inbox(&network), rows(&network, "initiation")), (inbox_before, initiations), "nothing is stored");
    // They are gone from the queues, and true messages pass.
    ping(&host, BOB, ALICE).await;
    ping(&host, ALICE, BOB).await;
    assert_eq!(host.state(&waiting).await, "suspended");
    assert!(host.kill(&waiting).await);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_can_never_be_taken_is_put_aside_and_holds_up_nothing() {
    let network = Network::new().settings(&["flows.always_broker=true", "flows.linger=50ms"]);
    let host = network.run();
    ping(&host, ALICE, BOB).await;
    let kept = host.start_as("kept", BOB, "ping", json!({"peer": ALICE, "count": 1})).await.unwrap();
    assert_eq!(host.end(&kept.flow_id).await.result(), json!({"rounds": 1}));
    host.stop();
    // The row of a flow that has ended is damaged, and Alice has a message for a session of that flow.
    let flow = kept.flow_id.parse::<FlowId>().unwrap().row();
    let database = network.database();
    assert_eq!(database.execute("UPDATE ended SET tag = x'00' WHERE id = ?1", [flow.0]).unwrap(), 1);
    let envelope = Envelope {
        to: BOB.to_owned(),
        frames: Some(Addressed {
            session: flow.session(0).0,
            seq: 7,
            batch: Some(maxhost_journal::FrameBatch {
                from: ALICE.to_owned(),
                frames: vec![maxhost_journal::Frame::data(b"\x01".to_vec().into())],
                token: 0,
            }),
        }),
        ..Envelope::default()
    };
    let insert = "INSERT INTO outbox (id, identity, destination, message_id, body) VALUES (1000000, \
                  (SELECT id FROM identity WHERE name = ?1), ?2, ?3, ?4)";
    let message_id = id_of(&envelope);
    database.execute(insert, rusqlite::params![ALICE, BOB, message_id, envelope.encode_to_vec()]).unwrap();
    database.execute("UPDATE meta SET value = 2000000 WHERE key = 'outbox'", []).unwrap();
    drop(database);

    let host = network.run();
    let told = eventually("it is put aside", async || {
        let rows = network.cli(&["audit", "list", "--user", "(broker)"]).ok().objects();
        let told: Vec<_> = rows.into_iter().filter(|row| row["action"] == "message-put-aside").collect();
        if told.is_empty() { Err("not yet".to_owned()) } else { Ok(told) }
    })
    .await;
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((&told[0]["code"], &told[0]["identity"]), (&json!("journal-corrupt"), &json!(BOB)), "{told:#?}");
    let detail = told[0]["detail"].as_str().unwrap();
    let shown = format!("{:032x}, kept", u128::from_be_bytes(message_id));
    assert!(detail.starts_with(&shown) && detail.contains(ALICE), "{detail}");
    let sql = "SELECT tries, sender, reason, length(body) > 0 FROM untaken WHERE message_id = ?1";
    let row: (i64, String, String, bool) = network
        .database()
        .query_row(sql, [&message_id[..]], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap();
    assert_eq!((row.0, &*row.1, row.3), (5, ALICE, true));
    assert!(row.2.contains("journal-corrupt"), "{}", row.2);
    // Its queue goes on, also what comes behind it.
    ping(&host, ALICE, BOB).await;
    ping(&host, BOB, ALICE).await;
    assert_eq!(network.log_lines(&["message-put-aside"]).len(), 1);
    host.stop();
}

/// A start of Alice that another of her hosts has asked for, as it lies in her queue: the id of the message, and the message.
fn asked_start(network: &Network, client_id: &str, row: i64, asked: Duration) -> ([u8; 16], Vec<u8>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let arguments = maxhost_cbor::to_vec(&json!({"beats": 1, "interval_ms": 1})).unwrap();
    let start = AskedStart {
        flow: "heartbeat/beat".to_owned(),
        arguments,
        user: "local".to_owned(),
        client_id: Some(client_id.to_owned()),
        expires: (now - asked).as_millis() as u64,
    };
    let flow_id = FlowId::new(maxhost_model::FlowRow(row), 7).to_bytes().to_vec();
    let mut id = blake3::Hasher::new();
    for text in [ALICE, ALICE] {
        id.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    }
    id.update(b"start").update(&flow_id);
    let command = Command { from: ALICE.to_owned(), flow_id, start: Some(start) };
    let envelope = Envelope { to: ALICE.to_owned(), command: Some(command), ..Envelope::default() };
    (id.finalize().as_bytes()[..16].try_into().unwrap(), signed_by(network, ALICE, "alice", &envelope))
}

/// Whoever has the broker can keep a copy of what was in it, and put it there again when nobody remembers it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_start_begins_nothing_once_it_may_be_forgotten_that_it_was_taken() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let network = Network::new().settings(&["flows.always_broker=true", "flows.linger=50ms"]);
    let host = network.run();
    ping(&host, ALICE, BOB).await;
    host.stop();
    let last: i64 = network
        .database()
        .query_row("SELECT max(id) FROM (SELECT id FROM flow UNION ALL SELECT id FROM ended)", [], |row| row.get(0))
        .unwrap();
    // In Bob's queue they are refused as well: they are not for him.
    let [old, late] = [("old", 1, DAY * 6 + DAY / 24), ("late", 2, DAY * 5)]
        .map(|(client_id, number, asked)| asked_start(&network, client_id, last + number, asked));
    put_into_all_queues(&network, &[old, late.clone()]);
    let host = network.run();
    eventually("all but one are refused", async || match network.log_lines(&["message-refused"]).len() {
        3 => Ok(()),
        refused => Err(format!("{refused} of 3")),
    })
    .await;
    assert_eq!(network.log_lines(&["message-refused", "cause=\"expired\""]).len(), 1);
    let started = async || {
        let flows = host.flows(Some(ALICE), Some("beat")).await;
        flows.into_iter().filter_map(|flow| flow.client_id).collect::<Vec<String>>()
    };
    eventually("the other is started", async || match started().await {
        flows if flows == ["late"] => Ok(()),
        flows => Err(format!("{flows:?}")),
    })
    .await;
    let trail = network.cli(&["audit", "list", "--user", "(broker)"]).ok().objects();
    assert!(trail.iter().any(|row| row["code"] == "expired" && row["identity"] == ALICE), "{trail:#?}");
    // While it is remembered that it was taken, a copy of it begins nothing, also when its flow is forgotten.
    eventually("it has ended and is forgotten", async || match network.cli(&["flow", "forget", "late"]) {
        answer if answer.exit == 0 => Ok(()),
        answer => Err(answer.to_string()),
    })
    .await;
    assert!(started().await.is_empty());
    host.stop();
    put_into_all_queues(&network, &[late]);
    let host = network.run();
    eventually("it is refused at Bob's", async || match network.log_lines(&["message-refused"]).len() {
        4 => Ok(()),
        refused => Err(format!("{refused} of 4")),
    })
    .await;
    ping(&host, BOB, ALICE).await;
    assert!(host.flows(Some(ALICE), Some("beat")).await.is_empty());
    host.stop();
}
