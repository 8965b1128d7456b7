//! What names stand for, among what exists for the caller: identities, and client ids.

use std::collections::HashMap;
use std::sync::Arc;

use maxhost_model::text::is_storable;
use maxhost_model::{Code, FlowRow, IdentityRow, Problem};

use crate::api::{ApiResult, Caller};
use crate::base::error::unusable_here;
use crate::host::lifecycle::Host;
use crate::registry::entry::IdentityEntry;

/// Longest client id, characters (docs/behaviour.md 6.1).
const MAX_CLIENT_ID: usize = 512;

impl Host {
    /// The one identity that a name fits among those that exist for the caller.
    pub(super) fn resolve(&self, caller: &Caller, name: &str) -> ApiResult<Arc<IdentityEntry>> {
        caller.about.identity(name);
        let entry = self.find_for(caller, name)?;
        caller.about.identity(&entry.text);
        Ok(entry)
    }

    fn find_for(&self, caller: &Caller, name: &str) -> ApiResult<Arc<IdentityEntry>> {
        let directory = &self.parts.directory;
        if caller.rights.are_all() {
            return directory.resolve(name).map_err(|problem| match (problem.code, &self.parts.membership) {
                // Others may have another copy of its manifest.
                (Code::IdentityQuarantined, Some(_)) => unusable_here(name, &problem),
                _ => problem,
            });
        }
        if let Some(entry) = directory.get(name).filter(|entry| caller.rights.see(&entry.text)) {
            return Ok(entry);
        }
        let mut seen = directory.matching(name);
        seen.retain(|entry| caller.rights.see(&entry.text));
        match seen.as_slice() {
            [entry] => Ok(entry.clone()),
            [] => Err(Problem::new(Code::IdentityNotFound, format!("no identity of this host fits '{name}'"))
                .detail("identity", name)),
            several => {
                let names: Vec<&str> = several.iter().take(10).map(|entry| &*entry.text).collect();
                let text = format!("'{name}' fits several identities: {}", names.join("; "));
                Err(Problem::new(Code::IdentityAmbiguous, text).detail("identity", name))
            }
        }
    }

    /// The identities that a name fits, or without a name all that exist for the caller.
    pub(super) fn entries(&self, caller: &Caller, filter: Option<&str>) -> ApiResult<Vec<Arc<IdentityEntry>>> {
        match filter {
            Some(name) => Ok(vec![self.resolve(caller, name)?]),
            None => {
                let mut all = self.parts.directory.all();
                all.retain(|entry| caller.rights.see(&entry.text));
                Ok(all)
            }
        }
    }

    /// Where the caller has used a client id, and for which flow; `None` if nowhere. An identity must be named if he has used
    /// it for several.
    pub(super) async fn only_use(
        &self,
        caller: &Caller,
        identity: Option<&str>,
        client_id: &str,
    ) -> ApiResult<Option<(Arc<IdentityEntry>, FlowRow)>> {
        let entries = self.entries(caller, identity)?;
        if !can_be_client_id(client_id) {
            return Ok(None);
        }
        let store = &self.parts.store;
        let found: HashMap<IdentityRow, FlowRow> = match &*entries {
            [entry] => {
                let found = store.client(entry.row, &caller.user, client_id).await.map_err(Problem::from)?;
                found.map(|flow| (entry.row, flow)).into_iter().collect()
            }
            _ => store.client_uses(&caller.user, client_id).await.map_err(Problem::from)?.into_iter().collect(),
        };
        let of = |entry: Arc<IdentityEntry>| found.get(&entry.row).map(|flow| (entry.clone(), *flow));
        let mut uses: Vec<(Arc<IdentityEntry>, FlowRow)> = entries.into_iter().filter_map(of).collect();
        if uses.len() > 1 {
            let names: Vec<&str> = uses.iter().take(10).map(|(entry, _)| &*entry.text).collect();
            let more = if uses.len() > 10 { format!(" and {} more", uses.len() - 10) } else { String::new() };
            let text = format!("client id '{client_id}' was used for several identities: {}{more}", names.join("; "));
            return Err(Problem::new(Code::IdentityAmbiguous, text)
                .remedy("name the identity that is meant: --identity NAME")
                .detail("client_id", client_id));
        }
        Ok(uses.pop())
    }
}

/// Whether a start can have this client id.
pub(super) fn can_be_client_id(text: &str) -> bool {
    (1..=MAX_CLIENT_ID).contains(&text.chars().count()) && is_storable(text)
}
