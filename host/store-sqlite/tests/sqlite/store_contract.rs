//! The suite that every database must pass, on SQLite.

use crate::common::File;

maxhost_store::contract_tests!(File);
maxhost_store::ledger_contract_tests!(File);
