//! `maxhost status`.

use std::time::Duration;

use maxhost_rpc::proto::v1 as pb;

use crate::context::{Context, Outcome};
use crate::render;
use crate::units::{show_duration, show_size};

/// Shows the host at a glance.
pub fn execute(context: &Context) -> Outcome {
    let client = context.client()?;
    let status = context.block_on(client.status(pb::StatusRequest {}))?;
    context.out.object(&render::status(&status), || text(&status));
    Ok(0)
}

fn text(status: &pb::StatusResponse) -> String {
    let counts = |counts: &std::collections::BTreeMap<String, u64>| {
        let shown: Vec<String> =
            counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}")).collect();
        if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
    };
    format!(
        "maxhost     {} up for {}, {} of memory\nidentities  {}\nflows       {}\ninstances   {} in memory",
        status.version,
        show_duration(Duration::from_millis(status.uptime_ms)),
        show_size(status.rss_bytes),
        counts(&status.identities),
        counts(&status.flows),
        status.instances,
    )
}
