//! What client ids do.

use super::*;
use crate::{ClientOp, Conflict, assert_outcome};

fn remove(user: &str, client_id: &str) -> Vec<Op> {
    vec![ClientOp::Remove { user: user.to_owned(), client_id: client_id.to_owned() }.into()]
}

pub async fn a_client_id_names_one_flow_of_its_user<D: Databases>() {
    let w = World::<D>::new().await;
    let [first, second, third] = [(); 3].map(|()| w.store.next_flow_row());
    let alice = w.alice.identity;
    w.commit(w.alice, vec![start_with_client(first, "order-1", "ann")]).await.unwrap();
    let taken = w.commit(w.alice, vec![start_with_client(second, "order-1", "ann"), log(second, 0)]).await;
    assert_outcome!(taken, Err(StoreError::ClientIdTaken { flow }) if flow == first);
    assert_eq!(w.store.flow(second).await.unwrap(), None);
    w.commit(w.bob, vec![start_with_client(third, "order-1", "ann")]).await.unwrap();

    assert_eq!(w.store.client(alice, "ann", "order-1").await.unwrap(), Some(first));
    assert_eq!(w.store.client(alice, "ann", "order-2").await.unwrap(), None);
    assert_eq!(w.conflict(w.alice, remove("ann", "order-1")).await, Conflict::ClientRunning(first));
    w.commit(w.alice, vec![end_kept(first, 9000)]).await.unwrap();
    let clients = w.store.clients(alice, Some("ann")).await.unwrap();
    assert_eq!((clients.len(), clients[0].state), (1, FlowState::Completed));
    w.commit(w.alice, remove("ann", "order-1")).await.unwrap();
    assert_eq!(w.conflict(w.alice, remove("ann", "order-1")).await, Conflict::ClientUnknown);
    assert_eq!(w.store.flow(first).await.unwrap(), None);
    let again = w.store.next_flow_row();
    w.commit(w.alice, vec![start_with_client(again, "order-1", "ann")]).await.unwrap();
    w.commit(w.alice, vec![end(again)]).await.unwrap();
    assert_eq!(w.store.client(alice, "ann", "order-1").await.unwrap(), None, "not kept: the client id is free again");
}

pub async fn two_users_may_use_the_same_client_id<D: Databases>() {
    let w = World::<D>::new().await;
    let [ann, ben] = [(); 2].map(|()| w.store.next_flow_row());
    let alice = w.alice.identity;
    w.commit(w.alice, vec![start_with_client(ann, "order", "ann"), end_kept(ann, 2000)]).await.unwrap();
    w.commit(w.alice, vec![start_with_client(ben, "order", "ben"), end_kept(ben, 9_000_000)]).await.unwrap();
    assert_eq!(w.store.client(alice, "ann", "order").await.unwrap(), Some(ann));
    assert_eq!(w.store.client(alice, "ben", "order").await.unwrap(), Some(ben));
    let all: Vec<_> = w.store.clients(alice, None).await.unwrap().into_iter().map(|c| (c.user, c.flow)).collect();
    assert_eq!(all, [("ann".to_owned(), ann), ("ben".to_owned(), ben)]);
    assert_eq!(w.store.purge(10).await.unwrap(), 1, "that of Ann was to be kept for no time");
    assert_eq!(w.store.client(alice, "ann", "order").await.unwrap(), None);
    assert_eq!(w.store.client(alice, "ben", "order").await.unwrap(), Some(ben), "and takes nothing of Ben's along");
    assert_eq!(w.conflict(w.alice, remove("ann", "order")).await, Conflict::ClientUnknown);
    w.commit(w.alice, remove("ben", "order")).await.unwrap();
}

pub async fn a_client_id_given_anew_outlives_the_flow_it_named<D: Databases>() {
    let w = World::<D>::new().await;
    let [old, new] = [(); 2].map(|()| w.store.next_flow_row());
    let alice = w.alice.identity;
    // Without a client id of its own the old flow would stay when the client id is removed; it goes with it.
    w.commit(w.alice, vec![start_with_client(old, "order", "ann"), end_kept(old, 2000)]).await.unwrap();
    w.commit(w.alice, remove("ann", "order")).await.unwrap();
    w.commit(w.alice, vec![start_with_client(new, "order", "ann")]).await.unwrap();
    w.store.purge(10).await.unwrap();
    assert_eq!(w.store.client(alice, "ann", "order").await.unwrap(), Some(new));
}
