//! The embedded ownership: the contract, and what only it promises.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use async_trait::async_trait;
use maxhost_model::{FencingToken, RunId, SecureHash};
use maxhost_ownership::contract::{Subject, run_all};
use maxhost_ownership::{
    DemandVersion, MemoryOwnership, Ownership, OwnershipError, Permanent, Realm, SessionState, Slept,
};

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

fn alice() -> SecureHash {
    SecureHash::of(b"Alice")
}

fn embedded(epoch: i64) -> FencingToken {
    FencingToken { generation: 0, epoch }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    run_all(&Memory(Realm::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_on_two_threads() {
    run_all(&Memory(Realm::of_generation(3))).await;
}

#[tokio::test]
async fn a_host_that_is_alone_rises_above_what_the_database_has() {
    let host = MemoryOwnership::embedded("alone", RunId(9));
    let claim = host.claim(alice(), embedded(41)).await.unwrap();
    assert_eq!((claim.token, claim.run), (embedded(42), RunId(9)));
    let seen = host.demand_version(alice()).await.unwrap();
    assert_eq!(host.sleep(alice(), seen).await.unwrap(), Slept::Asleep);
    assert_eq!(host.claim(alice(), embedded(0)).await.unwrap().token, embedded(43));
}

#[tokio::test]
async fn a_host_that_is_alone_refuses_the_database_of_a_cluster() {
    let host = MemoryOwnership::embedded("alone", RunId(9));
    for stored in [FencingToken { generation: 1, epoch: 5 }, embedded(i64::MAX)] {
        match host.claim(alice(), stored).await {
            Err(OwnershipError::Permanent(Permanent::Behind { stored: told, .. })) => assert_eq!(told, stored),
            other => panic!("{other:?}"),
        }
    }
    assert!(host.owners().await.unwrap().is_empty());
    assert_eq!(host.demand_version(alice()).await.unwrap(), None::<DemandVersion>);
}

#[tokio::test]
async fn a_host_that_comes_again_owns_nothing_of_its_former_life() {
    let realm = Realm::new();
    let former = realm.join("a");
    former.claim(alice(), FencingToken::UNCLAIMED).await.unwrap();
    let latter = realm.join("a");
    assert_eq!(former.session().borrow().state, SessionState::Lost);
    let refused = former.claim(SecureHash::of(b"Bob"), FencingToken::UNCLAIMED).await.unwrap_err();
    assert!(refused.is_transient(), "{refused:?}");
    latter.claim(alice(), FencingToken::UNCLAIMED).await.unwrap();
    drop(former);
    assert_eq!(latter.owners().await.unwrap().len(), 1, "the former's end is not the latter's");
    assert_eq!(latter.session().borrow().state, SessionState::Connected);
    let other = realm.join("b");
    drop(latter);
    assert!(other.owners().await.unwrap().is_empty());
}
