//! Arguments of a flow that is to be started: whether it takes them, and their CBOR.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{Code, Invalid, Problem, cbor_for_exact_integers, cbor_for_schema, json_to_cbor};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::api::{ApiResult, Arguments};
use crate::guests::placement::FlowDef;

/// Arguments of about so many bytes are checked where they are.
const AT_ONCE: usize = 64 << 10;
/// Larger ones that are checked at the same time, in this process: the check makes a tree of values of them.
static TURNS: Semaphore = Semaphore::const_new(2);

/// The arguments in CBOR. Large ones are checked on a thread that may block.
///
/// # Errors
/// `arguments-invalid` if the flow does not take them; `message-too-large` if they have more than `limit` bytes.
pub(super) async fn check(def: &Arc<FlowDef>, arguments: Arguments, limit: usize) -> ApiResult<Bytes> {
    if !is_large(&arguments) {
        return checked(def, arguments, limit);
    }
    let broken = |what: String| Problem::new(Code::Internal, format!("arguments were not checked: {what}"));
    let _turn = TURNS.acquire().await.map_err(|error| broken(error.to_string()))?;
    let def = def.clone();
    let check = tokio::task::spawn_blocking(move || checked(&def, arguments, limit));
    check.await.map_err(|error| broken(error.to_string()))?
}

fn checked(def: &FlowDef, arguments: Arguments, limit: usize) -> ApiResult<Bytes> {
    let refused = |error: Invalid| {
        Problem::new(Code::ArgumentsInvalid, format!("the arguments of {} are refused: {error}", def.name))
    };
    let cbor = match arguments {
        Arguments::Json(json) => {
            def.check_json(&json)?;
            json_to_cbor(&json).map_err(refused)?
        }
        Arguments::Cbor(cbor) => {
            let json = cbor_for_schema(&cbor).map_err(refused)?;
            def.check_cbor(&json, || cbor_for_exact_integers(&cbor).map_err(refused))?;
            cbor
        }
    };
    if cbor.len() > limit {
        let text = format!("the arguments of {} have {} bytes, {limit} are allowed", def.name, cbor.len());
        return Err(Problem::new(Code::MessageTooLarge, text));
    }
    Ok(cbor.into())
}

fn is_large(arguments: &Arguments) -> bool {
    match arguments {
        Arguments::Json(json) => left_of(AT_ONCE, json).is_none(),
        Arguments::Cbor(cbor) => cbor.len() > AT_ONCE,
    }
}

/// What is left of so many bytes behind this JSON, which takes two for a value beside its texts; `None` if it takes more.
fn left_of(bytes: usize, json: &Value) -> Option<usize> {
    let left = bytes.checked_sub(2)?;
    match json {
        Value::String(text) => left.checked_sub(text.len()),
        Value::Array(items) => items.iter().try_fold(left, left_of),
        Value::Object(fields) => {
            fields.iter().try_fold(left, |left, (key, value)| left_of(left.checked_sub(key.len())?, value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(left),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn large_arguments_are_known_by_what_they_take() {
        let json = |json: Value| is_large(&Arguments::Json(json));
        assert!(!json(json!({"peer": "O=Bob, L=New York, C=US", "count": 3, "more": [1, null, true]})));
        assert!(!json(json!("x".repeat(60_000))) && json(json!("x".repeat(70_000))));
        assert!(!json(json!(vec![0; 30_000])) && json(json!(vec![0; 40_000])));
        assert!(
            json(json!({ "x".repeat(70_000): 0 })) && json(json!([[["x".repeat(40_000)]], {"a": "x".repeat(40_000)}]))
        );
        assert!(!is_large(&Arguments::Cbor(vec![0; AT_ONCE])));
        assert!(is_large(&Arguments::Cbor(vec![0; AT_ONCE + 1])));
    }
}
