//! Code of CorDapps in a database that several hosts share: offered before a flow is started on it, fetched by a host that
//! goes on with the flow of another.

use std::sync::Arc;

use maxhost_cordapps::{ComponentHash, SharedCode};
use maxhost_model::Problem;
use maxhost_store::{SharedComponents, Store, StoreError};
use tokio::runtime::Handle;

/// The components of a database, for callers that block.
struct CodeInDatabase {
    store: Store,
    runtime: Handle,
}

/// What the hosts on this database have in common; `None` if no other host uses it. Its methods may be called on threads
/// that may block, and on no others.
pub(crate) fn of(store: &Store) -> Option<Arc<dyn SharedCode>> {
    store.components()?;
    Some(Arc::new(CodeInDatabase { store: store.clone(), runtime: Handle::current() }))
}

impl CodeInDatabase {
    fn ask<T: Default>(
        &self,
        question: impl AsyncFnOnce(&dyn SharedComponents) -> Result<T, StoreError>,
    ) -> Result<T, Problem> {
        let Some(components) = self.store.components() else { return Ok(T::default()) };
        self.runtime.block_on(question(components)).map_err(Problem::from)
    }
}

impl SharedCode for CodeInDatabase {
    fn offer(&self, hash: &ComponentHash, bytes: &[u8]) -> Result<(), Problem> {
        self.ask(async |components| match components.use_components(&[*hash]).await?.is_empty() {
            true => components.put_component(hash, bytes.to_vec().into()).await,
            false => Ok(()),
        })
    }

    fn fetch(&self, hash: &ComponentHash) -> Result<Option<Vec<u8>>, Problem> {
        self.ask(async |components| Ok(components.component(hash).await?.map(Vec::from)))
    }
}
