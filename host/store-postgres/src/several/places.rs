//! In which of several databases an identity lives, as this host knows it.
//!
//! One task reads it: now and then the databases are asked whether identities came or went, and whoever finds out that
//! what he knows is outdated asks at once. Readings follow each other, so a later one is never replaced by an earlier one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::IdentityRow;
use maxhost_store::StoreError;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::open::PostgresStore;

/// How often the databases are asked whether identities came or went.
const LOOK: Duration = Duration::from_secs(2);
/// Askers that wait for a reading.
const ASKERS: usize = 256;

type Asker = oneshot::Sender<Result<(), StoreError>>;

/// Identities that live beside the first database, by the place of their database.
type Elsewhere = Arc<RwLock<HashMap<IdentityRow, usize>>>;

pub(super) struct Places {
    elsewhere: Elsewhere,
    askers: mpsc::Sender<Asker>,
    task: AbortHandle,
}

impl Drop for Places {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Places {
    /// Reads where identities live, and follows it.
    pub async fn start(databases: Vec<Arc<PostgresStore>>) -> Result<Places, StoreError> {
        let elsewhere = Elsewhere::default();
        let mut reading = Reading { moves: vec![None; databases.len()], databases, elsewhere: elsewhere.clone() };
        reading.read().await?;
        let (askers, asked) = mpsc::channel(ASKERS);
        let task = tokio::spawn(follow(reading, asked)).abort_handle();
        Ok(Places { elsewhere, askers, task })
    }

    /// Where an identity lives: in the first database, unless something else is known.
    pub fn of(&self, identity: IdentityRow) -> usize {
        self.elsewhere.read().get(&identity).copied().unwrap_or(0)
    }

    /// Reads again where identities live.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (told, answer) = oneshot::channel();
        self.askers.send(told).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

async fn follow(mut reading: Reading, mut asked: mpsc::Receiver<Asker>) {
    loop {
        let asker = tokio::select! {
            asker = asked.recv() => match asker {
                Some(asker) => Some(asker),
                None => return,
            },
            () = tokio::time::sleep(LOOK) => None,
        };
        let Some(asker) = asker else {
            reading.look().await;
            continue;
        };
        // Whoever asks from now on may know of something that this reading does not see.
        let mut askers = vec![asker];
        while let Ok(asker) = asked.try_recv() {
            askers.push(asker);
        }
        let outcome = reading.read().await;
        for asker in askers {
            // Who has gone away needs no answer.
            let _ = asker.send(outcome.clone());
        }
    }
}

struct Reading {
    databases: Vec<Arc<PostgresStore>>,
    /// What each database said about its moves when it was read.
    moves: Vec<Option<i64>>,
    elsewhere: Elsewhere,
}

impl Reading {
    /// Reads those in which something has changed. What cannot be read is read the next time.
    async fn look(&mut self) {
        for place in 1..self.databases.len() {
            match self.databases[place].moves().await {
                Ok(moves) if self.moves[place] == Some(moves) => {}
                Ok(moves) => match self.read_one(place, moves).await {
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "where identities live cannot be read; tried again"),
                },
                Err(error) => tracing::debug!(%error, "where identities live cannot be read; tried again"),
            }
        }
    }

    /// Reads all.
    async fn read(&mut self) -> Result<(), StoreError> {
        for place in 1..self.databases.len() {
            let moves = self.databases[place].moves().await.map_err(crate::error::failed)?;
            self.read_one(place, moves).await?;
        }
        Ok(())
    }

    async fn read_one(&mut self, place: usize, moves: i64) -> Result<(), StoreError> {
        let homes = self.databases[place].homes().await?;
        let mut elsewhere = self.elsewhere.write();
        elsewhere.retain(|_, known| *known != place);
        elsewhere.extend(homes.into_iter().map(|identity| (identity, place)));
        self.moves[place] = Some(moves);
        Ok(())
    }
}
