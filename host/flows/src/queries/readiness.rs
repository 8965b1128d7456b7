//! Whether this host is ready. Orchestrators ask every few seconds, so nothing is listed or counted for it.

use std::time::Duration;

use maxhost_model::{FlowRow, Problem};

use crate::host::lifecycle::Host;

/// A database that does not answer by then is told as one that does not.
const PATIENCE: Duration = Duration::from_secs(3);

impl Host {
    /// Whether this host can answer clients: its database answers. Without the ownership service and the broker clients are told
    /// what is known, and what they ask for waits or is refused for as long; another host could do no more for them.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn ready_for_clients(&self) -> Result<(), String> {
        // A row that nobody has: the shortest question that there is.
        let looked = tokio::time::timeout(PATIENCE, self.parts.store.flow(FlowRow(0))).await;
        match looked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let problem = Problem::from(error);
                Err(format!("store: {} [{}]", problem.message, problem.code))
            }
            Err(_) => Err("store: the database does not answer in time".to_owned()),
        }
    }

    /// Whether this host can do all that it is for: its database answers, and where it shares identities it has a session with the
    /// ownership service and a connection to the broker, was not asked to drain, and does not stand back.
    ///
    /// # Errors
    /// All that is in the way, separated by semicolons.
    pub async fn ready(&self) -> Result<(), String> {
        let mut troubles: Vec<String> = self.ready_for_clients().await.err().into_iter().collect();
        if let Some(membership) = &self.parts.membership {
            let ownership = self.ownership_health();
            troubles.extend((!ownership.ok).then(|| format!("ownership: {}", ownership.detail)));
            troubles.extend(self.parts.broker.trouble().map(|trouble| format!("broker: {trouble}")));
            troubles.extend(membership.is_draining().then(|| "host: it drains, and takes no identities".to_owned()));
            let detail = "runs no identities until it has reached what other hosts reach for a while";
            troubles.extend(membership.stands_back().then(|| format!("host: {detail}")));
        }
        if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
    }
}
