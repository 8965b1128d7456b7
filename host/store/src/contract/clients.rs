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
    let clients = w.store.clients(alice, "ann", "", 10).await.unwrap();
    let record = w.store.flow(first).await.unwrap().unwrap();
    assert_eq!((clients.len(), clients[0].state, clients[0].id), (1, FlowState::Completed, record.id));
    w.commit(w.alice, remove("ann", "order-1")).await.unwrap();
    assert_eq!(w.conflict(w.alice, remove("ann", "order-1")).await, Conflict::ClientUnknown);
    assert_eq!(w.store.flow(first).await.unwrap(), None);
    let again = w.store.next_flow_row();
    w.commit(w.alice, vec![start_with_client(again, "order-1", "ann")]).await.unwrap();
    w.commit(w.alice, vec![end(again)]).await.unwrap();
    assert_eq!(w.store.client(alice, "ann", "order-1").await.unwrap(), None, "not kept: the client id is free again");
}

pub async fn the_uses_of_a_client_id_are_found_over_all_identities<D: Databases>() {
    let w = World::<D>::new().await;
    let [of_alice, of_bob, of_ben, other] = [(); 4].map(|()| w.store.next_flow_row());
    w.commit(w.bob, vec![start_with_client(of_bob, "order", "ann")]).await.unwrap();
    w.commit(w.alice, vec![start_with_client(of_alice, "order", "ann")]).await.unwrap();
    w.commit(w.alice, vec![start_with_client(of_ben, "order", "ben")]).await.unwrap();
    w.commit(w.bob, vec![start_with_client(other, "other", "ann")]).await.unwrap();
    let uses = async |user: &str, client_id: &str| w.store.client_uses(user, client_id).await.unwrap();
    let mut both = [(w.alice.identity, of_alice), (w.bob.identity, of_bob)];
    both.sort_unstable();
    assert_eq!(uses("ann", "order").await, both);
    assert_eq!(uses("ben", "order").await, [(w.alice.identity, of_ben)]);
    assert_eq!(uses("ann", "other").await, [(w.bob.identity, other)]);
    for (user, client_id) in [("ben", "other"), ("zoe", "order"), ("ann", "order-1"), ("", "")] {
        assert_eq!(uses(user, client_id).await, [], "{user} {client_id}");
    }
    w.commit(w.alice, vec![end_kept(of_alice, 9_000)]).await.unwrap();
    assert_eq!(uses("ann", "order").await, both, "an end keeps it");
    w.commit(w.alice, remove("ann", "order")).await.unwrap();
    assert_eq!(uses("ann", "order").await, [(w.bob.identity, of_bob)]);
}

pub async fn two_users_may_use_the_same_client_id<D: Databases>() {
    let w = World::<D>::new().await;
    let [ann, ben] = [(); 2].map(|()| w.store.next_flow_row());
    let alice = w.alice.identity;
    w.commit(w.alice, vec![start_with_client(ann, "order", "ann"), end_kept(ann, 2000)]).await.unwrap();
    w.commit(w.alice, vec![start_with_client(ben, "order", "ben"), end_kept(ben, 9_000_000)]).await.unwrap();
    assert_eq!(w.store.client(alice, "ann", "order").await.unwrap(), Some(ann));
    assert_eq!(w.store.client(alice, "ben", "order").await.unwrap(), Some(ben));
    for (user, flow) in [("ann", ann), ("ben", ben)] {
        let of_user = w.store.clients(alice, user, "", 10).await.unwrap();
        let of_user: Vec<_> = of_user.iter().map(|client| (client.user.as_str(), client.flow)).collect();
        assert_eq!(of_user, [(user, flow)]);
    }
    assert_eq!(w.store.purge(10).await.unwrap(), 1, "that of Ann was to be kept for no time");
    assert_eq!(w.store.client(alice, "ann", "order").await.unwrap(), None);
    assert_eq!(w.store.client(alice, "ben", "order").await.unwrap(), Some(ben), "and takes nothing of Ben's along");
    assert_eq!(w.conflict(w.alice, remove("ann", "order")).await, Conflict::ClientUnknown);
    w.commit(w.alice, remove("ben", "order")).await.unwrap();
}

pub async fn client_ids_are_read_a_page_at_a_time<D: Databases>() {
    let w = World::<D>::new().await;
    // In the order of their bytes; some flows have ended, and some have not.
    let mut flows = Vec::new();
    for (number, client_id) in ["B", "a", "a2", "b", "\u{e9}"].into_iter().enumerate() {
        let flow = w.store.next_flow_row();
        w.commit(w.alice, vec![start_with_client(flow, client_id, "ann")]).await.unwrap();
        if number % 2 == 0 {
            w.commit(w.alice, vec![end_kept(flow, 9_000_000)]).await.unwrap();
        }
        flows.push((client_id.to_owned(), flow, number % 2 == 1));
    }
    for limit in [1, 2, 5, 100] {
        let (mut read, mut after) = (Vec::new(), String::new());
        loop {
            let page = w.store.clients(w.alice.identity, "ann", &after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after.clone_from(&last.client_id);
            for client in page {
                assert_eq!(client.id.row(), client.flow);
                read.push((client.client_id, client.flow, client.state.is_live()));
            }
        }
        assert_eq!(read, flows, "pages of {limit}");
    }
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
