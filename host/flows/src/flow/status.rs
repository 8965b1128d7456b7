//! What a flow in memory shows of itself. Only what is committed is shown.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use maxhost_journal::{Millis, Wait};
use maxhost_model::FlowId;
use parking_lot::Mutex;

/// Progress labels kept for clients that attach while the flow is in memory.
const MAX_LABELS: usize = 64;

/// What of the host a flow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// An instance.
    Instance,
    /// Memory for its guest.
    Memory,
}

impl Lack {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Lack::Instance => "instance",
            Lack::Memory => "memory",
        }
    }
}

/// Where there is no room for what a flow sends, and since when.
#[derive(Debug, Clone)]
pub(crate) struct RoomWait {
    /// The stable word: `recipient`, or `broker`.
    pub what: &'static str,
    /// The recipient.
    pub party: Option<Arc<str>>,
    pub since: Millis,
}

/// What the flow does, for people.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    pub waiting: Option<(Wait, Millis)>,
    /// What it lacks to go on, and since when.
    pub lack: Option<(Lack, Millis)>,
    pub labels: VecDeque<(u64, String)>,
    /// These are all labels that the flow ever had.
    pub whole: bool,
}

impl View {
    pub fn label(&self) -> Option<&str> {
        self.labels.back().map(|(_, label)| label.as_str())
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some() || self.lack.is_some()
    }
}

/// How people call the flow.
#[derive(Debug)]
struct FlowName {
    id: FlowId,
    flow: Box<str>,
    client_id: Option<String>,
}

/// The status of one flow in memory.
#[derive(Debug, Default)]
pub(crate) struct Status {
    name: OnceLock<FlowName>,
    view: Mutex<View>,
}

impl Status {
    /// `whole`: the labels it will show are all that the flow ever had.
    pub fn new(whole: bool) -> Status {
        Status { name: OnceLock::new(), view: Mutex::new(View { whole, ..View::default() }) }
    }

    /// Its public id and client id are known now.
    pub fn set_name(&self, id: FlowId, flow: &str, client_id: Option<String>) {
        // A second time it is the same name.
        let _ = self.name.set(FlowName { id, flow: flow.into(), client_id });
    }

    /// Public id, once it is known.
    pub fn id(&self) -> Option<FlowId> {
        self.name.get().map(|name| name.id)
    }

    /// `cordapp/flow`, once it is known.
    pub fn flow(&self) -> &str {
        self.name.get().map_or("", |name| &name.flow)
    }

    pub fn client_id(&self) -> Option<&str> {
        self.name.get()?.client_id.as_deref()
    }

    pub fn show_waiting(&self, wait: Option<(Wait, Millis)>) {
        self.view.lock().waiting = wait;
    }

    pub fn show_lack(&self, lack: Option<(Lack, Millis)>) {
        self.view.lock().lack = lack;
    }

    pub fn show_progress(&self, labels: &[(u64, String)]) {
        let mut view = self.view.lock();
        for label in labels {
            if view.labels.len() == MAX_LABELS {
                view.labels.pop_front();
                view.whole = false;
            }
            view.labels.push_back(label.clone());
        }
    }

    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    pub fn is_waiting(&self) -> bool {
        self.view.lock().is_waiting()
    }

    /// Whether it lacks something of the host, and has no instance meanwhile or soon.
    pub fn lacks_something(&self) -> bool {
        self.view.lock().lack.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_labels_are_kept_and_it_is_known_when_some_are_gone() {
        let status = Status::new(true);
        let labels: Vec<_> = (1..=MAX_LABELS as u64).map(|number| (number, number.to_string())).collect();
        status.show_progress(&labels);
        assert!(status.view().whole);
        status.show_progress(&[(MAX_LABELS as u64 + 1, "one more".to_owned())]);
        let view = status.view();
        assert_eq!((view.whole, view.labels.len(), view.label()), (false, MAX_LABELS, Some("one more")));
        assert_eq!(view.labels.front().map(|(number, _)| *number), Some(2));
    }

    #[test]
    fn a_flow_without_an_instance_waits() {
        let status = Status::new(false);
        assert!(!status.is_waiting());
        status.show_lack(Some((Lack::Instance, 1)));
        assert!(status.is_waiting());
        status.show_lack(None);
        assert!(!status.is_waiting());
    }
}
