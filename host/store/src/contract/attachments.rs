//! Attachments: what clients import is kept once and within bounds, and what is kept is listed.

use bytes::Bytes;
use maxhost_model::{IdentityRow, SecureHash};

use super::ledger::at;
use super::{Databases, World};
use crate::ledger::{ImportBounds, Imported, Imports, LedgerOp, ListAttachments, NewAttachment};
use crate::{Author, Conflict, Op, StoreError};

const ROOMY: ImportBounds = ImportBounds { attachments: 1_000, bytes: 1 << 20 };

fn file(text: &str, uploader: &str) -> NewAttachment {
    let body = Bytes::copy_from_slice(text.as_bytes());
    NewAttachment { id: SecureHash::of(&body), body, uploader: uploader.to_owned(), at: at(7) }
}

impl<D: Databases> World<D> {
    async fn import(&self, of: Author, text: &str, bounds: ImportBounds) -> Imported {
        self.store.import_attachment(of.identity, file(text, "rpc:ann"), bounds).await.unwrap()
    }

    async fn ids(&self, of: Author, after: Option<SecureHash>, limit: u32) -> Vec<SecureHash> {
        let list = ListAttachments { after, only: None, limit };
        self.store.attachments(of.identity, &list).await.unwrap().iter().map(|one| one.id).collect()
    }

    async fn uploader(&self, of: Author, text: &str) -> Option<String> {
        let id = SecureHash::of(text.as_bytes());
        let found = self.store.attachment(of.identity, &id).await.unwrap()?;
        assert_eq!((found.id, &found.body[..], found.at), (id, text.as_bytes(), at(7)));
        Some(found.uploader)
    }
}

/// What peers and flows have brought counts for nothing, and stays what it is.
pub async fn what_clients_import_is_kept_once_and_bounded<D: Databases>() {
    let world = World::<D>::new().await;
    let (alice, bob) = (world.alice, world.bob);
    // A ledger that was never in use takes it all the same.
    assert_eq!(world.import(bob, "terms", ROOMY).await, Imported::New);
    let attach: Op = LedgerOp::Attach(Box::new(file("a long file of a peer", "p2p:O=Bob"))).into();
    world.commit(alice, vec![attach]).await.unwrap();
    assert_eq!(world.import(alice, "a long file of a peer", ROOMY).await, Imported::Known);
    assert_eq!(world.uploader(alice, "a long file of a peer").await.as_deref(), Some("p2p:O=Bob"));

    let bounds = ImportBounds { attachments: 3, bytes: 10 };
    assert_eq!(world.import(alice, "12345", bounds).await, Imported::New);
    assert_eq!(world.import(alice, "12345", bounds).await, Imported::Known);
    let kept = Imports { has: false, attachments: 1, bytes: 5 };
    assert_eq!(world.import(alice, "123456", bounds).await, Imported::NoRoom(kept));
    assert_eq!(world.uploader(alice, "123456").await, None, "what was refused is not there");
    assert_eq!(world.import(alice, "1234", bounds).await, Imported::New);
    assert_eq!(world.import(alice, "", bounds).await, Imported::New);
    let kept = Imports { has: false, attachments: 3, bytes: 9 };
    assert_eq!(world.import(alice, "1", bounds).await, Imported::NoRoom(kept));
    assert_eq!(world.import(alice, "1234", bounds).await, Imported::Known, "what is there needs no room");
    assert_eq!(world.import(bob, "1", bounds).await, Imported::New, "each identity has room of its own");

    let nobody = IdentityRow(4_000);
    let refused = world.store.import_attachment(nobody, file("x", "rpc:ann"), ROOMY).await;
    assert!(matches!(refused, Err(StoreError::Conflict(Conflict::IdentityUnknown(who))) if who == nobody));

    let world = world.reopen().await;
    assert_eq!(world.uploader(world.alice, "12345").await.as_deref(), Some("rpc:ann"));
    assert_eq!(world.uploader(world.bob, "terms").await.as_deref(), Some("rpc:ann"));
    assert_eq!(world.ids(world.alice, None, 9).await.len(), 4);
}

/// However many come at once, no more are kept than may be.
pub async fn imports_of_one_moment_are_counted_in_turn<D: Databases>() {
    let world = World::<D>::new().await;
    let bounds = ImportBounds { attachments: 4, bytes: 1_000 };
    let begin = |number: u32| {
        let (store, identity) = (world.store.clone(), world.alice.identity);
        let file = file(&format!("file {number}"), "rpc:ann");
        tokio::spawn(async move { store.import_attachment(identity, file, bounds).await.unwrap() })
    };
    let begun: Vec<_> = (0..12).map(begin).collect();
    let mut imported = Vec::new();
    for one in begun {
        imported.push(one.await.unwrap());
    }
    let new = imported.iter().filter(|one| **one == Imported::New).count();
    let refused = imported.iter().filter(|one| matches!(one, Imported::NoRoom(_))).count();
    assert_eq!((new, refused), (4, 8), "{imported:?}");
    assert_eq!(world.ids(world.alice, None, 100).await.len(), 4);
}

pub async fn attachments_are_listed_in_pages<D: Databases>() {
    let world = World::<D>::new().await;
    let (alice, bob) = (world.alice, world.bob);
    assert!(world.ids(alice, None, 9).await.is_empty(), "no ledger is in use yet");
    let texts = ["\0asm and code", "data", "abc", ""];
    for text in texts {
        assert_eq!(world.import(alice, text, ROOMY).await, Imported::New);
    }
    world.import(bob, "of bob", ROOMY).await;
    let mut expected: Vec<SecureHash> = texts.iter().map(|text| SecureHash::of(text.as_bytes())).collect();
    expected.sort();
    assert_eq!(world.ids(alice, None, 9).await, expected);
    assert_eq!(world.ids(alice, None, 3).await, expected[..3]);
    assert_eq!(world.ids(alice, Some(expected[2]), 3).await, expected[3..]);
    assert!(world.ids(alice, Some(expected[3]), 3).await.is_empty());

    let only = |text: &str| ListAttachments { after: None, only: Some(SecureHash::of(text.as_bytes())), limit: 9 };
    let found = world.store.attachments(alice.identity, &only(texts[0])).await.unwrap();
    let [code] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((code.size, &code.begins[..], code.at), (13, &b"\0asm"[..], at(7)));
    assert_eq!(code.uploader, "rpc:ann");
    let found = world.store.attachments(alice.identity, &only("")).await.unwrap();
    assert_eq!((found[0].size, found[0].begins.is_empty()), (0, true));
    assert!(world.store.attachments(alice.identity, &only("of bob")).await.unwrap().is_empty());
}
