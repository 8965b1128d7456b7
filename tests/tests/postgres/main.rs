//! The host on a PostgreSQL server: the main parts of the suites that run on a file, over again; and what there is with a
//! server only. All of it in a program of its own, whose networks have their databases on a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../ledger/accounts.rs"]
mod accounts;
#[path = "../lifecycle/attach.rs"]
mod attach;
#[path = "../lifecycle/attempts.rs"]
mod attempts;
#[path = "../reports/audit.rs"]
mod audit;
#[path = "../ledger/cash.rs"]
mod cash;
#[path = "../ledger/chain.rs"]
mod chain;
#[path = "../lifecycle/client_ids.rs"]
mod client_ids;
mod clocks;
#[path = "../crash.rs"]
mod crash;
#[path = "../flows/damaged.rs"]
mod damaged;
#[path = "../flows/isolation.rs"]
mod isolation;
#[path = "../ledger/keys.rs"]
mod keys;
#[path = "../flows/modes.rs"]
mod modes;
#[path = "../ledger/money.rs"]
mod money;
#[path = "../ledger/notary_change.rs"]
mod notary_change;
#[path = "../ledger/notary_log.rs"]
mod notary_log;
#[path = "../ledger/parameters.rs"]
mod parameters;
#[path = "../ledger/pointers.rs"]
mod pointers;
mod server;
#[path = "../ledger/successors.rs"]
mod successors;
#[path = "../ledger/turns.rs"]
mod turns;
#[path = "../ledger/waits.rs"]
mod waits;
