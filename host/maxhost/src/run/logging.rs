//! What a running host says: a log on standard error, and with `--json` events on standard output.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use maxhost_flows::options::OperatorEvent;
use maxhost_model::text::{json_line, one_line};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use super::line_queue::{LineQueue, WAITING_BYTES};
use crate::cli::LogFormat;

/// Environment variable with the filter of the log, in the syntax of tracing-subscriber.
const FILTER_VARIABLE: &str = "MAXHOST_LOG";
const DEFAULT_FILTER: &str = "info";

/// The log's lines, once there is a log.
static LOG: OnceLock<LineQueue> = OnceLock::new();

/// Sets up the log.
pub fn start(format: LogFormat, color: bool) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let notice = match format {
        LogFormat::Text => dropped_as_text,
        LogFormat::Json => dropped_as_json,
    };
    let queue = LOG.get_or_init(|| LineQueue::start("log", WAITING_BYTES, std::io::stderr(), notice));
    let json = matches!(format, LogFormat::Json);
    // A line that cannot be written is lost. Telling so on standard error, as the library does unless it is told not to,
    // panics there: whatever had logged the line would end.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || LineWriter { queue, json })
        .with_target(false)
        .log_internal_errors(false);
    // An error means that somebody set up a log before, in a test: that one stays.
    let _already = match format {
        LogFormat::Text => builder.with_ansi(color).fmt_fields(OneLine).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    // The usual hook writes to standard error itself, and waits there for whoever does not read it.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("without a text");
        tracing::error!(at, "a thread panicked: {text}");
    }));
}

/// Waits a moment for the last lines of the log.
pub fn flush(time: Duration) {
    if let Some(queue) = LOG.get() {
        queue.flush(time);
    }
}

fn dropped_as_text(lines: u64) -> Vec<u8> {
    format!("{} WARN nobody read standard error: log lines dropped={lines}\n", now()).into_bytes()
}

fn dropped_as_json(lines: u64) -> Vec<u8> {
    let line = json!({"timestamp": now(), "level": "WARN", "message": "nobody read standard error", "dropped": lines});
    format!("{line}\n").into_bytes()
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Takes one line of the log: the library hands over each as a whole.
struct LineWriter {
    queue: &'static LineQueue,
    json: bool,
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let bytes = if self.json {
            let text = String::from_utf8_lossy(line);
            let mut text = json_line(text.trim_end_matches('\n').to_owned());
            text.push('\n');
            text.into_bytes()
        } else {
            line.to_vec()
        };
        self.queue.push(bytes);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The fields of a line of text, in one line whatever is in them: names, peers' errors and what guests log are others' text.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&one_line(&text))
    }
}

/// Writes events to standard output, if they are wanted there.
#[derive(Clone)]
pub struct Events {
    queue: Option<LineQueue>,
}

impl Events {
    /// With `wanted`, starts the thread that writes.
    pub fn start(wanted: bool) -> Events {
        let queue = || LineQueue::start("events", WAITING_BYTES, std::io::stdout(), dropped_events);
        Events { queue: wanted.then(queue) }
    }

    /// Hands an event over.
    pub fn emit(&self, event: &Value) {
        if let Some(queue) = &self.queue {
            queue.push(line_of(event));
        }
    }

    /// Tells that events were lost before they came here.
    pub fn lost(&self, events: u64) {
        self.emit(&lost(events));
    }

    /// Waits a moment for the last events.
    pub fn flush(&self, time: Duration) {
        if let Some(queue) = &self.queue {
            queue.flush(time);
        }
    }
}

fn dropped_events(events: u64) -> Vec<u8> {
    line_of(&lost(events))
}

fn lost(events: u64) -> Value {
    json!({"event": "events-dropped", "count": events})
}

fn line_of(event: &Value) -> Vec<u8> {
    let mut line = json_line(event.to_string());
    line.push('\n');
    line.into_bytes()
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
