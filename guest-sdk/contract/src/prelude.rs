//! `use maxhost_contract::prelude::*;` brings all that contracts are usually written with.

pub use alloc::borrow::ToOwned;
pub use alloc::format;
pub use alloc::string::{String, ToString};
pub use alloc::vec;
pub use alloc::vec::Vec;

pub use serde::{Deserialize, Serialize};

pub use crate::{
    AnyParty, LinearId, LinearPointer, Party, PublicKey, Rejection, State, StateRef, StaticPointer, TimeWindow,
    Timestamp, Tx, Verdict, commands, contract, contracts, data, ensure, faults, state,
};
