//! `maxhost audit`: who did what, or was refused it.

use jiff::Timestamp;
use maxhost_model::{Code, Problem};
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};

use crate::cli::{AuditCommand, AuditListArgs};
use crate::context::{Context, Outcome};
use crate::{render, units};

/// Rows that are asked for at once.
const PAGE: u32 = 1_000;
/// The columns of the list for people.
const HEADER: [&str; 9] = ["AT", "HOST", "USER", "ACTION", "ALLOWED", "CODE", "IDENTITY", "FLOW", "FLOW ID"];

/// Does what was typed.
pub fn execute(context: &Context, command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::List(args) => list(context, args),
    }
}

fn list(context: &Context, args: AuditListArgs) -> Outcome {
    let since = args.since.as_deref().map(|text| time_or_ago("--since", text)).transpose()?;
    let AuditListArgs { of_user: user, identity, limit, .. } = args;
    let request = pb::ListAuditRequest { user, identity, since, limit: 0, cursor: None };
    let client = context.client()?;
    let (rows, has_more) = context.block_on(read(client, request, limit))?;
    context.out.list(&rows, &HEADER, |row| {
        let cell = |field| render::cell(row, field);
        let allowed = if row["allowed"] == true { "yes" } else { "no" }.to_owned();
        let cells = ["at", "host", "user", "action"].map(cell).into_iter().chain([allowed]);
        cells.chain(["code", "identity", "flow", "flow_id"].map(cell)).collect()
    });
    if has_more {
        context.out.note("there are more: name a higher --limit, or --since, --user, --identity");
    }
    Ok(0)
}

/// So many rows, page by page, and whether there are more.
async fn read(client: Client, mut request: pb::ListAuditRequest, limit: u32) -> Result<(Vec<Value>, bool), Problem> {
    let mut rows = Vec::new();
    loop {
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if left == 0 {
            return Ok((rows, request.cursor.is_some()));
        }
        request.limit = left.min(PAGE);
        let answer = client.list_audit(request.clone()).await?;
        rows.extend(answer.rows.iter().map(row));
        request.cursor = answer.cursor;
        if request.cursor.is_none() {
            return Ok((rows, false));
        }
    }
}

fn row(row: &pb::AuditRow) -> Value {
    json!({
        "at": render::time(row.at),
        "host": row.host,
        "user": row.user,
        "action": row.action,
        "identity": row.identity,
        "flow": row.flow,
        "flow_id": row.flow_id,
        "detail": row.detail,
        "token": row.token,
        "allowed": row.allowed,
        "code": row.code,
        "count": row.count,
    })
}

/// A time that an option has: RFC 3339, or so long ago.
pub(super) fn time_or_ago(option: &str, text: &str) -> Result<prost_types::Timestamp, Problem> {
    let ago = |time: std::time::Duration| Timestamp::now().checked_sub(time).ok();
    let at = text.parse::<Timestamp>().ok().or_else(|| units::duration(text).ok().and_then(ago));
    let at = at.ok_or_else(|| {
        Problem::new(Code::Usage, format!("{option}: '{text}' is neither a time nor how long ago it was"))
            .remedy("write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 1h or 30m")
    })?;
    let whole_ms = at.as_millisecond();
    Ok(prost_types::Timestamp {
        seconds: whole_ms.div_euclid(1_000),
        nanos: (whole_ms.rem_euclid(1_000) as i32) * 1_000_000,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn since(text: &str) -> Result<prost_types::Timestamp, Problem> {
        time_or_ago("--since", text)
    }

    #[test]
    fn a_time_is_written_in_either_way() {
        assert_eq!(since("1970-01-01T00:00:01.5Z").unwrap(), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(since("1970-01-01T01:00:00+01:00").unwrap(), prost_types::Timestamp { seconds: 0, nanos: 0 });
        let now = Timestamp::now().as_second();
        assert!((now - 3_600 - since("1h").unwrap().seconds).abs() <= 1);
        for text in ["", "yesterday", "5", "-1h", "2026-01-31"] {
            assert_eq!(since(text).unwrap_err().code, Code::Usage, "{text}");
        }
    }
}
