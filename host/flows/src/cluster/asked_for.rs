//! Flows that other hosts were asked to start, until the database has them.
//!
//! Nobody tells a host that another one has started a flow for it, so it looks. All flows that are waited for are looked for in
//! one question: its cost does not rise with their number as the cost of one question each would, so it can be asked often.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::{FlowId, FlowRow, Problem};
use maxhost_store::{FlowRecord, Store, StoreError};
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

type Told = oneshot::Sender<Result<FlowRecord, Problem>>;

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
    /// The record of a flow, as soon as there is one: a database that does not answer may do so soon. Giving up waiting ends the
    /// search for it.
    ///
    /// # Errors
    /// The row is damaged; the host stops.
    pub async fn started(self: &Arc<AskedFor>, store: &Store, io: &Spawner, id: FlowId) -> Result<FlowRecord, Problem> {
        let (told, answer) = oneshot::channel();
        let begins = {
            let mut waiting = self.0.lock();
            waiting.flows.insert(id, told);
            waiting.newest = Some(Instant::now());
            !std::mem::replace(&mut waiting.is_looked, true)
        };
        if begins {
            io.spawn(look(Search(self.clone()), store.clone()));
        }
        answer.await.map_err(|_| crate::base::error::stopping())?
    }

    /// What is still waited for; nothing if nobody need look any more.
    fn wanted(&self) -> Vec<FlowId> {
        let mut waiting = self.0.lock();
        waiting.flows.retain(|_, told| !told.is_closed());
        waiting.is_looked = !waiting.flows.is_empty();
        waiting.flows.keys().copied().collect()
    }

    fn tell(&self, id: FlowId, found: Result<FlowRecord, Problem>) {
        let told = self.0.lock().flows.remove(&id);
        // Who has given up meanwhile need not know.
        if let Some(told) = told {
            let _ = told.send(found);
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

/// The search. If it ends by a defect, whoever asks next begins another, for all that is waited for.
struct Search(Arc<AskedFor>);

impl Drop for Search {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.lock().is_looked = false;
        }
    }
}

/// Looks until nothing is waited for.
async fn look(search: Search, store: Store) {
    let asked = &search.0;
    let find = |rows: Vec<FlowRow>| {
        let store = store.clone();
        async move { store.flows(&rows).await }
    };
    loop {
        tokio::time::sleep(asked.pause()).await;
        let wanted = asked.wanted();
        if wanted.is_empty() {
            return;
        }
        for ids in wanted.chunks(AT_ONCE) {
            look_once(asked, ids, &find).await;
        }
    }
}

/// Looks for these flows with one question, or, if one of them is damaged, with one each: it keeps nobody from the others.
async fn look_once<F>(asked: &AskedFor, ids: &[FlowId], find: &impl Fn(Vec<FlowRow>) -> F)
where
    F: Future<Output = Result<Vec<FlowRecord>, StoreError>>,
{
    let mut questions = vec![ids];
    while let Some(ids) = questions.pop() {
        match find(ids.iter().map(|id| id.row()).collect()).await {
            // A row of another id is another flow's.
            Ok(found) => {
                let of_these = found.into_iter().filter(|record| ids.contains(&record.id));
                of_these.for_each(|record| asked.tell(record.id, Ok(record)));
            }
            Err(error @ StoreError::Corrupt { .. }) => match ids {
                [id] => asked.tell(*id, Err(error.into())),
                _ => questions.extend(ids.chunks(1)),
            },
            Err(error) => tracing::debug!(%error, "flows that were asked for cannot be looked for; tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::future::ready;

    use bytes::Bytes;
    use futures::FutureExt;
    use maxhost_model::{Code, IdentityRow};
    use maxhost_store::FlowState;

    use super::*;

    fn record(id: FlowId) -> FlowRecord {
        FlowRecord {
            row: id.row(),
            id,
            identity: IdentityRow(1),
            state: FlowState::Live,
            name: "app/flow".to_owned(),
            user: None,
            client_id: None,
            started: 0,
            finished: None,
            expires: None,
            attempts: 0,
            reason: None,
            revision: 0,
            result_read: None,
            start: Bytes::new(),
            end: None,
            labels: None,
        }
    }

    fn wait_for(asked: &AskedFor, id: FlowId) -> oneshot::Receiver<Result<FlowRecord, Problem>> {
        let (told, answer) = oneshot::channel();
        asked.0.lock().flows.insert(id, told);
        answer
    }

    #[test]
    fn a_flow_whose_row_is_damaged_is_told_so_and_keeps_nobody_from_the_others() {
        let asked = AskedFor::default();
        let ids: Vec<FlowId> = (1..=4).map(|row| FlowId::new(FlowRow(row), 7)).collect();
        let mut answers: Vec<_> = ids.iter().map(|id| wait_for(&asked, *id)).collect();
        let find = |rows: Vec<FlowRow>| {
            if rows.contains(&ids[1].row()) {
                return ready(Err(StoreError::Corrupt { table: "flow", key: "2".to_owned() }));
            }
            // The third is not there yet, and the row of the fourth is another flow's.
            let of = |row: &FlowRow| match row.0 {
                3 => None,
                4 => Some(record(FlowId::new(*row, 8))),
                _ => Some(record(FlowId::new(*row, 7))),
            };
            ready(Ok(rows.iter().filter_map(of).collect()))
        };
        look_once(&asked, &ids, &find).now_or_never().unwrap();
        let mut told = answers.iter_mut().map(|answer| answer.now_or_never().map(Result::unwrap));
        assert_eq!(told.next().unwrap().unwrap().unwrap().id, ids[0]);
        assert_eq!(told.next().unwrap().unwrap().unwrap_err().code, Code::JournalCorrupt);
        assert!(told.all(|answer| answer.is_none()), "they are waited for");
        assert_eq!(asked.wanted().len(), 2);
    }

    #[tokio::test]
    async fn whoever_asks_after_a_search_that_ended_by_a_defect_begins_another() {
        let asked = Arc::<AskedFor>::default();
        let _answer = wait_for(&asked, FlowId::new(FlowRow(1), 7));
        asked.0.lock().is_looked = true;
        let search = Search(asked.clone());
        let defect = tokio::spawn(async move {
            let _search = search;
            panic!("a defect");
        });
        assert!(defect.await.unwrap_err().is_panic());
        assert!(!asked.0.lock().is_looked);
    }
}
