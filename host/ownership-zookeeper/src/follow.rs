//! Following what happens in the cluster: one recursive watch a host, however many identities there are.
//!
//! An event says only that a node changed, or that it was deleted. Marks of changed nodes are collected, and the nodes are read in
//! bundles, so a storm of events costs memory for the nodes that there are and not for the events. What was deleted is not read:
//! all hosts follow all identities, so each read less is one less for each host. Events that fall into a time
//! without a connection are lost (ZOOKEEPER-4698), so everything is read again after each. The watch is set anew before
//! that, because the library (0.11.2) does not give persistent watches to the server that it connects to.
//!
//! A node that changes while others are being read need not wait for their answers: several bundles are under way at once. Their
//! answers are taken over in the order in which they were asked for. What was changed again after it was read is marked again by
//! then, so whatever is taken over late is read once more.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use maxhost_ownership::Change;
use tokio::sync::{mpsc, oneshot};
use zookeeper_client as zk;
use zookeeper_client::{AddWatchMode, EventType, PersistentWatcher};

use crate::board::Dirty;
use crate::client::{look, read_all, within};
use crate::session::{Link, Shared};

/// Nodes that are read in one bundle.
const BUNDLE: usize = 512;
/// Bundles that are under way at once.
const BUNDLES: usize = 8;
/// How soon a failed read is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// Everything is read within this time, or it is tried again.
const READ_ALL: Duration = Duration::from_secs(60);

/// Brings the board up to date until the session is over.
pub(crate) async fn follow(
    shared: &Shared,
    link: &Link,
    mut watcher: PersistentWatcher,
    mut barriers: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let (mut dirty, mut looking) = (Dirty::default(), FuturesOrdered::new());
    let mut connected = true;
    loop {
        let complete = shared.board.lock().complete;
        tokio::select! {
            // Events first: a barrier stands behind all that have come.
            biased;
            event = watcher.changed() => match (event.event_type, event.session_state) {
                (EventType::Session, zk::SessionState::SyncConnected) => connected = true,
                (EventType::Session, state) if state.is_terminated() => return,
                (EventType::Session, _) => {
                    connected = false;
                    dirty.clear();
                    looking = FuturesOrdered::new();
                    shared.board.lock().clear();
                    shared.changed();
                }
                _ => {
                    shared.file_marks.mark(&event.path);
                    dirty.mark(&event.path, event.event_type == EventType::NodeDeleted);
                }
            },
            () = std::future::ready(()), if connected && !complete => {
                // All that has come until now is older than what is read here. That a node was deleted must not be believed
                // after it: the event that it is there again may go to the former watch.
                dirty.clear();
                let reading = async {
                    let fresh = link.client.watch("/", AddWatchMode::PersistentRecursive).await?;
                    Ok((fresh, read_all(&link.client, shared.cluster.generation).await?))
                };
                match within(READ_ALL, reading).await {
                    Ok((fresh, everything)) => {
                        watcher = fresh;
                        // What was asked for before is older.
                        looking = FuturesOrdered::new();
                        shared.board.lock().replace(everything);
                        let _ = shared.changes.send(Change::Missed);
                        shared.file_marks.mark_all();
                        shared.changed();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the cluster could not be read; tried again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
            () = std::future::ready(()), if connected && !dirty.is_empty() && looking.len() < BUNDLES => {
                let looks = dirty.take(BUNDLE);
                looking.push_back(within(link.patience(), look(&link.client, looks, shared.cluster.generation)));
            }
            Some(looked) = looking.next() => match looked {
                Ok(found) => {
                    let mut changes = Vec::new();
                    {
                        let mut board = shared.board.lock();
                        found.into_iter().for_each(|found| board.put(found, &mut changes));
                    }
                    // Nobody need listen.
                    changes.into_iter().for_each(|change| drop(shared.changes.send(change)));
                    shared.changed();
                }
                Err(error) => {
                    tracing::debug!(%error, "changed nodes could not be read; everything is read again");
                    dirty.clear();
                    looking = FuturesOrdered::new();
                    shared.board.lock().clear();
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(barrier) = barriers.recv(), if connected && complete && dirty.is_empty() && looking.is_empty() => {
                let _ = barrier.send(());
            }
        }
    }
}
