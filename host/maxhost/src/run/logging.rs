//! What a running host says: a log on standard error, and with `--json` events on standard output.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use maxhost_flows::options::OperatorEvent;
use serde_json::Value;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Environment variable with the filter of the log, in the syntax of tracing-subscriber.
const FILTER_VARIABLE: &str = "MAXHOST_LOG";
const DEFAULT_FILTER: &str = "info";
/// Events that may wait for a slow reader. Then they are dropped: a host never waits for whoever reads its output.
const WAITING_EVENTS: usize = 4_096;

/// Sets up the log.
pub fn start(format: LogFormat, color: bool) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // A line that cannot be written, because the disk is full for one, is lost. Telling so on standard error, as the library
    // does unless it is told not to, panics there: whatever had logged the line would end.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false);
    // An error means that somebody set up a log before, in a test: that one stays.
    let _already = match format {
        LogFormat::Text => builder.with_ansi(color).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
}

/// Writes events to standard output, if they are wanted there.
#[derive(Clone)]
pub struct Events {
    sender: Option<SyncSender<String>>,
}

impl Events {
    /// With `wanted`, starts the thread that writes.
    pub fn start(wanted: bool) -> Events {
        if !wanted {
            return Events { sender: None };
        }
        let (sender, receiver) = sync_channel(WAITING_EVENTS);
        let writer = std::thread::Builder::new().name("events".to_owned()).spawn(move || write_all(&receiver));
        Events { sender: writer.is_ok().then_some(sender) }
    }

    /// Hands an event over.
    pub fn emit(&self, event: &Value) {
        let Some(sender) = &self.sender else { return };
        match sender.try_send(event.to_string()) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => tracing::debug!("nobody reads the events; one is dropped"),
        }
    }
}

fn write_all(events: &Receiver<String>) {
    for event in events {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{event}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Logs what an operator cares about and nobody has logged yet. True if it belongs among the events too.
///
/// Flows that start and end well are no news, and there may be thousands a second: they are for debugging.
pub fn log(event: &OperatorEvent) -> bool {
    match event {
        OperatorEvent::IdentityAdded { identity } => tracing::debug!(identity, "identity hosted"),
        OperatorEvent::IdentityOpened { identity } => tracing::debug!(identity, "identity woke up"),
        OperatorEvent::IdentityClosed { identity } => tracing::debug!(identity, "identity went to sleep"),
        OperatorEvent::IdentityRemoved { identity } => tracing::info!(identity, "identity removed"),
        // The engine logs these where they happen: events may be lost when they come too fast, these lines must not be.
        OperatorEvent::IdentityQuarantined { .. } | OperatorEvent::FlowHospitalised { .. } => {}
        OperatorEvent::FlowStarted { identity, flow_id, flow } => {
            tracing::debug!(identity, flow_id, flow, "flow started");
            return false;
        }
        OperatorEvent::FlowEnded { identity, flow_id, flow, state, error: None } => {
            tracing::debug!(identity, flow_id, flow, state, "flow ended");
            return false;
        }
        OperatorEvent::FlowEnded { identity, flow_id, flow, state, error: Some(error) } => {
            tracing::info!(identity, flow_id, flow, state, error, "flow ended in an error");
        }
        other => tracing::info!(event = ?other, "event"),
    }
    true
}
