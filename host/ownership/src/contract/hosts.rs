//! What must hold of the hosts of a cluster, of those that drain, and of its scheduler.

use std::sync::Arc;
use std::time::Duration;

use super::{DEADLINE, Subject, in_time, join, state_is, unique};
use crate::ownership::{Ownership, Reach, SessionState};
use crate::roles::Roles;

pub(super) async fn hosts_are_listed(subject: &dyn Subject) {
    let (one, two) = (join(subject).await, join(subject).await);
    in_time(one.offer(7)).await.unwrap();
    let hosts = in_time(two.hosts()).await.unwrap();
    let found = |host: &Arc<dyn Ownership>| hosts.iter().find(|info| *info.name == *host.host()).cloned().unwrap();
    assert_eq!((found(&one).run, found(&one).free_slots), (one.run(), 7));
    assert_eq!((found(&two).run, found(&two).free_slots), (two.run(), 0));
    assert_ne!(one.run(), two.run());
    assert_eq!(found(&one).roles, Roles::BOTH);
    assert_eq!(found(&one).reach, None, "it has not told");
    let known = two.known_hosts().unwrap();
    assert!(known.iter().any(|info| *info.name == *one.host() && info.free_slots == 7), "{known:?}");
    for (missed, stands_back) in [(vec!["broker".to_owned()], true), (Vec::new(), false)] {
        let reach = Reach { missed, stands_back };
        in_time(one.tell_reach(reach.clone())).await.unwrap();
        let hosts = in_time(two.hosts()).await.unwrap();
        let told = hosts.iter().find(|info| *info.name == *one.host()).unwrap();
        assert_eq!((told.reach.as_ref(), told.free_slots), (Some(&reach), 7));
    }
    in_time(one.close()).await;
    assert_eq!(one.known_hosts(), None, "who has left knows of nobody");
    in_time(async {
        while two.hosts().await.unwrap().iter().any(|info| *info.name == *one.host()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(super) async fn a_host_is_asked_to_drain_and_knows_it(subject: &dyn Subject) {
    let (a_name, b_name) = (unique("a"), unique("b"));
    let (a, b) = (subject.join(&a_name).await, subject.join(&b_name).await);
    let (mut a_drains, b_drains) = (a.draining(), b.draining());
    for wish in [true, false, true] {
        assert!(b.set_draining(&a_name, wish).await.unwrap());
        // Asked twice is no error.
        assert!(!b.set_draining(&a_name, wish).await.unwrap());
        tokio::time::timeout(DEADLINE, a_drains.wait_for(|draining| *draining == wish)).await.unwrap().unwrap();
        let hosts = b.hosts().await.unwrap();
        let of = |name: &str| hosts.iter().find(|host| *host.name == *name).unwrap().draining;
        assert_eq!((of(&a_name), of(&b_name)), (wish, false));
    }
    assert!(!*b_drains.borrow());
    // The wish stays while the host is away, and can be taken back meanwhile.
    a.close().await;
    assert!(b.set_draining(&a_name, false).await.unwrap());
    assert!(!b.set_draining(&a_name, false).await.unwrap());
    let back = subject.join(&a_name).await;
    assert!(!*back.draining().borrow());
}

/// Waits until a host knows who is the scheduler.
async fn knows_scheduler(host: &Arc<dyn Ownership>, expected: Option<&str>) {
    let mut scheduler = host.scheduler();
    in_time(scheduler.wait_for(|scheduler| scheduler.as_deref() == expected)).await.unwrap();
}

pub(super) async fn one_host_is_the_scheduler(subject: &dyn Subject) {
    let (one, two) = (join(subject).await, join(subject).await);
    knows_scheduler(&two, None).await;
    let (first, second) = tokio::join!(one.campaign(), two.campaign());
    let is_first = first.unwrap();
    assert_ne!(is_first, second.unwrap(), "of two that try at once one is elected");
    let (elected, other) = if is_first { (&one, &two) } else { (&two, &one) };
    knows_scheduler(elected, Some(elected.host())).await;
    knows_scheduler(other, Some(elected.host())).await;
    assert!(elected.campaign().await.unwrap(), "it stays the scheduler");
    // Who is not the scheduler has nothing to give up.
    other.resign().await.unwrap();
    assert!(!other.campaign().await.unwrap());
    elected.resign().await.unwrap();
    knows_scheduler(other, None).await;
    assert!(other.campaign().await.unwrap());
    knows_scheduler(elected, Some(other.host())).await;
    in_time(other.close()).await;
    knows_scheduler(elected, None).await;
}

pub(super) async fn a_scheduler_whose_session_is_over_makes_room(subject: &dyn Subject) {
    let (name, other) = (unique("scheduler"), join(subject).await);
    let lost = subject.join(&name).await;
    assert!(lost.campaign().await.unwrap());
    knows_scheduler(&other, Some(&name)).await;
    // A short cut changes nothing.
    subject.disconnect(&name).await;
    state_is(&lost, SessionState::Suspended).await;
    assert!(in_time(lost.campaign()).await.is_err());
    assert!(!in_time(other.campaign()).await.unwrap());
    subject.reconnect(&name).await;
    state_is(&lost, SessionState::Connected).await;
    assert!(in_time(lost.campaign()).await.unwrap());
    subject.expire(&name).await;
    knows_scheduler(&other, None).await;
    assert!(in_time(other.campaign()).await.unwrap());
    // It comes back too late, and takes nothing from its successor.
    subject.reconnect(&name).await;
    state_is(&lost, SessionState::Connected).await;
    in_time(lost.resign()).await.unwrap();
    assert!(!in_time(lost.campaign()).await.unwrap());
    knows_scheduler(&lost, Some(other.host())).await;
    in_time(other.resign()).await.unwrap();
    knows_scheduler(&lost, None).await;
}
