//! The host on a PostgreSQL server: the main parts of the suites that run on a file, over again; and what there is with a
//! server only. All of it in a program of its own, whose networks have their databases on a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../lifecycle/attach.rs"]
mod attach;
#[path = "../lifecycle/attempts.rs"]
mod attempts;
#[path = "../reports/audit.rs"]
mod audit;
#[path = "../chain.rs"]
mod chain;
#[path = "../lifecycle/client_ids.rs"]
mod client_ids;
mod clocks;
#[path = "../crash.rs"]
mod crash;
#[path = "../delivery/damaged.rs"]
mod damaged;
#[path = "../isolation.rs"]
mod isolation;
#[path = "../key_accounts.rs"]
mod key_accounts;
#[path = "../ledger.rs"]
mod ledger;
#[path = "../ledger_keys.rs"]
mod ledger_keys;
#[path = "../modes.rs"]
mod modes;
#[path = "../money.rs"]
mod money;
#[path = "../notary_change.rs"]
mod notary_change;
#[path = "../notary_log.rs"]
mod notary_log;
mod server;
