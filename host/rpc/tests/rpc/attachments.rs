//! Files that come and go in pieces: whole, or not at all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{Served, eventually, options, serve};
use futures::{Stream, StreamExt, stream};
use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::export_attachment_response::Part as Came;
use maxhost_rpc::proto::v1::import_attachment_request::Part;
use maxhost_rpc::{Client, RpcOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// By when something has happened that comes at once, or never.
const DEADLINE: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3_600);

/// Nothing ends by itself within the time of a test.
fn patient() -> RpcOptions {
    RpcOptions { call_timeout: NEVER, request_silence: NEVER, ..options() }
}

fn announced(id: &str, bytes: usize) -> pb::ImportAttachmentRequest {
    let file = pb::ImportedFile { identity: "Alice".to_owned(), id: id.to_owned(), bytes: bytes as u64 };
    pb::ImportAttachmentRequest { part: Some(Part::File(file)) }
}

fn chunk(bytes: &[u8]) -> pb::ImportAttachmentRequest {
    pb::ImportAttachmentRequest { part: Some(Part::Chunk(bytes.to_vec())) }
}

/// A file in pieces of so many bytes.
fn parts(id: &str, file: &[u8], size: usize) -> Vec<pb::ImportAttachmentRequest> {
    std::iter::once(announced(id, file.len())).chain(file.chunks(size).map(chunk)).collect()
}

async fn import(
    client: &Client,
    parts: impl Stream<Item = pb::ImportAttachmentRequest> + Send + 'static,
) -> Result<bool, Problem> {
    let answer = timeout(DEADLINE, client.import_attachment(parts)).await.expect("it is answered");
    answer.map(|answer| answer.new)
}

/// The code with which a request is refused that never ends.
async fn refused(client: &Client, parts: Vec<pb::ImportAttachmentRequest>) -> Code {
    import(client, stream::iter(parts).chain(stream::pending())).await.unwrap_err().code
}

async fn export(client: &Client, id: &str) -> Result<(pb::Attachment, Vec<u8>), Problem> {
    let request = pb::ExportAttachmentRequest { identity: "Alice".to_owned(), id: id.to_owned() };
    let mut stream = client.export_attachment(request).await?;
    let Some(Came::Attachment(about)) = client.next_part(&mut stream).await?.and_then(|message| message.part) else {
        panic!("the first message says what it is");
    };
    let mut bytes = Vec::new();
    while let Some(message) = client.next_part(&mut stream).await? {
        let Some(Came::Chunk(chunk)) = message.part else { panic!("a piece") };
        bytes.extend(chunk);
    }
    Ok((about, bytes))
}

fn nothing_is_kept(served: &Served) {
    assert!(served.host.imported.lock().is_empty());
}

#[tokio::test]
async fn a_file_comes_and_goes_whole() {
    let served = serve(options()).await;
    let client = served.client();
    for (id, size, piece) in [("aa", 0, 1), ("bb", 1, 1), ("cc", 3_000_000, 200_000), ("dd", 262_144, 262_144)] {
        let file: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        assert!(import(&client, stream::iter(parts(id, &file, piece))).await.unwrap());
        assert!(!import(&client, stream::iter(parts(id, &file, piece))).await.unwrap(), "it is there");
        let (about, exported) = export(&client, id).await.unwrap();
        assert_eq!((about.id.as_str(), about.bytes, exported == file), (id, size as u64, true));
        assert_eq!((about.source.as_str(), about.kept.unwrap().seconds), ("rpc:local", 1));
    }
    assert_eq!(export(&client, "zz").await.unwrap_err().code, Code::AttachmentNotFound);
    let list = |limit, cursor: Option<&str>| {
        client.list_attachments(pb::ListAttachmentsRequest {
            identity: "Alice".to_owned(),
            limit,
            cursor: cursor.map(str::to_owned),
        })
    };
    let ids =
        |page: &pb::ListAttachmentsResponse| page.attachments.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    let first = list(3, None).await.unwrap();
    assert_eq!((ids(&first), first.cursor.as_deref()), (vec!["aa".into(), "bb".into(), "cc".into()], Some("cc")));
    let last = list(3, Some("cc")).await.unwrap();
    assert_eq!((ids(&last), last.cursor), (vec!["dd".to_owned()], None));
    assert_eq!(ids(&list(0, None).await.unwrap()).len(), 4, "200 are many");
}

/// Who brings what cannot be is told before he has brought all of it.
#[tokio::test]
async fn what_cannot_be_imported_is_refused_while_it_comes() {
    let served = serve(patient()).await;
    let client = served.client();
    let empty = pb::ImportAttachmentRequest { part: None };
    for (parts, code) in [
        (vec![announced("aa", 10_000_000)], Code::AttachmentTooLarge),
        (vec![chunk(b"x")], Code::RequestInvalid),
        (vec![empty.clone()], Code::RequestInvalid),
        (vec![announced("", 1)], Code::RequestInvalid),
        (vec![announced("aa", 3), chunk(b"12"), announced("aa", 3)], Code::RequestInvalid),
        (vec![announced("aa", 3), chunk(b"12"), empty], Code::RequestInvalid),
        (vec![announced("aa", 3), chunk(b"12"), chunk(b"34")], Code::RequestInvalid),
        (vec![announced("aa", 9_000_000), chunk(&vec![0; 400_000])], Code::MessageTooLarge),
    ] {
        let shown = format!("{:?}", parts.first());
        assert_eq!(refused(&client, parts).await, code, "{shown}");
    }
    for parts in [vec![], vec![announced("aa", 3)], vec![announced("aa", 3), chunk(b"12")]] {
        let ended = import(&client, stream::iter(parts)).await;
        assert_eq!(ended.unwrap_err().code, Code::RequestInvalid, "less than was announced");
    }
    nothing_is_kept(&served);
}

#[tokio::test]
async fn of_an_import_that_breaks_off_nothing_stays() {
    let served = serve(patient()).await;
    let client = served.client();
    let broken_off = tokio::spawn(async move {
        let parts = vec![announced("aa", 300_000), chunk(&[7; 100_000]), chunk(&[7; 100_000])];
        import(&client, stream::iter(parts).chain(stream::pending())).await
    });
    eventually("it has begun", || served.host.announced.load(Ordering::SeqCst) == 1).await;
    broken_off.abort();
    eventually("it is noted", || !served.host.noted.lock().is_empty()).await;
    let noted = served.host.noted.lock().remove(0);
    assert_eq!((noted.action, noted.facts.identity.as_deref()), ("ImportAttachment", Some("Alice")));
    assert!(noted.code.is_some(), "{noted:?}");
    nothing_is_kept(&served);
}

#[tokio::test]
async fn an_import_that_stalls_is_given_up() {
    let served = serve(RpcOptions { request_silence: Duration::from_millis(100), ..patient() }).await;
    let client = served.client();
    for parts in [vec![], vec![announced("aa", 10)], vec![announced("aa", 10), chunk(b"12")]] {
        assert_eq!(refused(&client, parts).await, Code::Timeout);
    }
    nothing_is_kept(&served);
}

#[tokio::test]
async fn imports_are_bounded_in_number_and_in_bytes() {
    let served = serve(RpcOptions { max_request_bytes: 1_000_000, ..patient() }).await;
    let client = served.client();
    // What is held counts from its first byte, for all together.
    let pieces = (0..20).map(|_| chunk(&[7; 100_000]));
    let large = std::iter::once(announced("aa", 9_000_000)).chain(pieces).collect();
    assert_eq!(refused(&client, large).await, Code::Overloaded);

    let mut held = JoinSet::new();
    for _ in 0..9 {
        let client = served.client();
        held.spawn(async move { client.import_attachment(stream::pending()).await });
    }
    let refused = timeout(DEADLINE, held.join_next()).await.expect("one is one too many").unwrap().unwrap();
    assert_eq!(refused.unwrap_err().code, Code::Overloaded);
    held.shutdown().await;
    eventually("their places are free", || served.host.noted.lock().len() == 10).await;
    assert!(import(&client, stream::iter(parts("aa", b"small", 5))).await.unwrap());
}
