//! Flows that other hosts were asked to start, until the database has them.
//!
//! Nobody tells a host that another one has started a flow for it, so it looks. All flows that are waited for are looked for in
//! one question: its cost does not rise with their number as the cost of one question each would, so it can be asked often.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::{FlowId, FlowRow, Problem};
use maxhost_store::{FlowRecord, Store};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::base::spawner::Spawner;

/// The shortest pause between two looks, and before the first: no start is done sooner.
const SHORTEST_PAUSE: Duration = Duration::from_millis(3);
/// The same while one flow alone is waited for: then there is little to do beside.
const SHORTEST_OF_ONE: Duration = Duration::from_millis(1);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The pause is this part of the time that the newest of the flows has been waited for: who waits for long waits a little
/// longer, and costs little.
const PART: u32 = 12;
/// Flows in one question.
const AT_ONCE: usize = 500;

type Told = oneshot::Sender<FlowRecord>;

/// The flows that are waited for. Each has a client that waits, so there are no more than requests may be under way.
#[derive(Default)]
pub(crate) struct AskedFor(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    flows: HashMap<FlowId, Told>,
    /// When the newest of them was added.
    newest: Option<Instant>,
    /// Somebody looks for them.
    is_looked: bool,
}

impl AskedFor {
    /// The record of a flow, as soon as there is one and it can be read: a database that does not answer may do so soon. Giving
    /// up waiting ends the search for it.
    ///
    /// # Errors
    /// The host stops.
    pub async fn started(self: &Arc<AskedFor>, store: &Store, io: &Spawner, id: FlowId) -> Result<FlowRecord, Problem> {
        let (told, answer) = oneshot::channel();
        let begins = {
            let mut waiting = self.0.lock();
            waiting.flows.insert(id, told);
            waiting.newest = Some(Instant::now());
            !std::mem::replace(&mut waiting.is_looked, true)
        };
        if begins {
            io.spawn(look(self.clone(), store.clone()));
        }
        answer.await.map_err(|_| crate::base::error::stopping())
    }

    /// What is still waited for; nothing if nobody need look any more.
    fn wanted(&self) -> Vec<FlowId> {
        let mut waiting = self.0.lock();
        waiting.flows.retain(|_, told| !told.is_closed());
        waiting.is_looked = !waiting.flows.is_empty();
        waiting.flows.keys().copied().collect()
    }

    fn tell(&self, record: FlowRecord) {
        let told = self.0.lock().flows.remove(&record.id);
        // Who has given up meanwhile need not know.
        if let Some(told) = told {
            let _ = told.send(record);
        }
    }

    fn pause(&self) -> Duration {
        let (newest, flows) = {
            let waiting = self.0.lock();
            (waiting.newest, waiting.flows.len())
        };
        let waited = newest.map_or(Duration::MAX, |newest| newest.elapsed());
        let shortest = if flows > 1 { SHORTEST_PAUSE } else { SHORTEST_OF_ONE };
        (waited / PART).clamp(shortest, LONGEST_PAUSE)
    }
}

/// Looks until nothing is waited for.
async fn look(asked: Arc<AskedFor>, store: Store) {
    loop {
        tokio::time::sleep(asked.pause()).await;
        let wanted = asked.wanted();
        if wanted.is_empty() {
            return;
        }
        for ids in wanted.chunks(AT_ONCE) {
            let rows: Vec<FlowRow> = ids.iter().map(|id| id.row()).collect();
            match store.flows(&rows).await {
                // A row of another id is another flow's.
                Ok(records) => {
                    records.into_iter().filter(|record| ids.contains(&record.id)).for_each(|record| asked.tell(record))
                }
                Err(error) => tracing::debug!(%error, "flows that were asked for cannot be looked for; tried again"),
            }
        }
    }
}
