//! `use maxhost_sdk::prelude::*;` brings all that flows are usually written with.

pub use std::time::Duration;

pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};

pub use crate::{
    Error, FlowException, FlowInfo, Party, Result, Session, Timestamp, bail, cordapp, debug, ensure, error, flow,
    flow_id, info, initiate, now, our_identity, parties, party, progress, random, receive_all, send_all, send_each,
    sleep, wait_any, warn,
};
