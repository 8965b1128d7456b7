//! The embedded ownership: the contract, and what only it promises.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use async_trait::async_trait;
use maxhost_ownership::contract::{Subject, run_all};
use maxhost_ownership::{MemoryOwnership, Ownership, OwnershipError, Realm, SessionState};

struct Memory(Realm);

#[async_trait]
impl Subject for Memory {
    async fn join(&self, host: &str) -> Arc<dyn Ownership> {
        Arc::new(self.0.join(host))
    }

    async fn disconnect(&self, host: &str) {
        self.0.disconnect(host);
    }

    async fn expire(&self, host: &str) {
        self.0.expire(host);
    }

    async fn reconnect(&self, host: &str) {
        self.0.reconnect(host);
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    run_all(&Memory(Realm::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_on_two_threads() {
    run_all(&Memory(Realm::new())).await;
}

#[tokio::test]
async fn a_host_that_is_alone_owns_what_it_claims() {
    let host = MemoryOwnership::embedded("alone");
    assert_eq!(host.claim("Alice", 41).await.unwrap().epoch, 42);
    assert!(host.release("Alice").await.unwrap());
    assert_eq!(host.claim("Alice", 0).await.unwrap().epoch, 43);
}

#[tokio::test]
async fn a_host_that_comes_again_owns_nothing_of_its_former_life() {
    let realm = Realm::new();
    let former = realm.join("a");
    former.claim("Alice", 0).await.unwrap();
    let latter = realm.join("a");
    assert_eq!(*former.session().borrow(), SessionState::Lost);
    assert!(matches!(former.claim("Bob", 0).await, Err(OwnershipError::Unavailable(_))));
    latter.claim("Alice", 0).await.unwrap();
    drop(former);
    assert_eq!(latter.owners().await.unwrap().len(), 1, "the former's end is not the latter's");
    assert_eq!(*latter.session().borrow(), SessionState::Connected);
    let other = realm.join("b");
    drop(latter);
    assert!(other.owners().await.unwrap().is_empty());
}
