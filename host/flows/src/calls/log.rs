//! What a guest says: log lines, which leave no trace in the journal and are said once, and progress labels.

use maxhost_model::{FlowError, cut_text};
use maxhost_sandbox::{CallResult, GuestLogLevel};

use super::{FlowCalls, Stop};

/// Bytes of one log line.
const MAX_LOG_LINE: usize = 8 * 1024;

/// What one run has logged.
#[derive(Debug, Default)]
pub(super) struct Logged {
    lines: u32,
    bytes: u64,
}

impl FlowCalls {
    pub(super) fn log_line(&mut self, level: GuestLogLevel, message: String) -> CallResult<()> {
        self.logged.lines = self.logged.lines.saturating_add(1);
        self.logged.bytes = self.logged.bytes.saturating_add(message.len() as u64);
        let (logged, limits) = (&self.logged, &self.services);
        if logged.lines > limits.log_lines || logged.bytes > limits.log_bytes {
            let text = format!(
                "the flow has logged {} lines and {} bytes; {} lines and {} bytes are allowed",
                logged.lines, logged.bytes, limits.log_lines, limits.log_bytes
            );
            return self.stop(Stop::Over(FlowError::limit("log", text)));
        }
        if self.shadow || self.machine.is_catching_up() {
            return Ok(());
        }
        let line = cut_text(message, MAX_LOG_LINE);
        let (flow, id, identity) = (&**self.code.name(), self.flow.id(), &*self.opened.entry.text);
        match level {
            GuestLogLevel::Debug => tracing::debug!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
            GuestLogLevel::Info => tracing::info!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
            GuestLogLevel::Warn => tracing::warn!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
            GuestLogLevel::Error => tracing::error!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
        }
        Ok(())
    }

    pub(super) async fn label(&mut self, label: String) -> CallResult<()> {
        if let Err(error) = self.machine.progress(label) {
            return self.stop(Stop::Over(error));
        }
        self.flush_if_due().await
    }
}
