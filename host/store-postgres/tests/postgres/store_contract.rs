//! The suite that every database must pass, on a PostgreSQL server.

use crate::common::Database;

maxhost_store::contract_tests!(Database);
maxhost_store::ledger_contract_tests!(Database);

/// Ledgers in tables that all identities share.
mod shared {
    use async_trait::async_trait;
    use maxhost_store::Store;
    use maxhost_store::contract::{Databases, Settings};
    use maxhost_store_postgres::{Layout, PostgresStore};

    use crate::common::Database;

    struct Shared(Database);

    #[async_trait]
    impl Databases for Shared {
        async fn new() -> Shared {
            Shared(Database::new().await)
        }

        async fn open(&self, settings: &Settings) -> Store {
            let mut options = self.0.options_for(settings);
            options.layout = Layout::Shared;
            PostgresStore::open(options).await.unwrap()
        }
    }

    maxhost_store::ledger_contract_tests!(Shared);
}

/// A database that another one stands beside.
mod first_of_two {
    use async_trait::async_trait;
    use maxhost_store::Store;
    use maxhost_store::contract::{Databases, Settings};
    use maxhost_store_postgres::PostgresStore;

    use crate::common::Database;

    struct Two(Database, Database);

    #[async_trait]
    impl Databases for Two {
        async fn new() -> Two {
            Two(Database::new().await, Database::new().await)
        }

        async fn open(&self, settings: &Settings) -> Store {
            let databases = [&self.0, &self.1].map(|database| database.options_for(settings));
            PostgresStore::open_all(databases.into()).await.unwrap()
        }
    }

    // What is read over all databases, and what names outbox rows; the rest goes to the one as it is.
    maxhost_store::contract_tests! { @family Two, reads:
    heads_are_the_newest_of_each_stream, flows_are_listed_newest_first_in_pages, a_list_reads_what_it_shows,
    live_flows_are_counted_by_identity_and_by_state, the_outbox_is_read_by_destination, the_outbox_is_read_for_senders_that_this_run_holds }
    maxhost_store::contract_tests! { @family Two, messages:
    the_outbox_keeps_messages_until_the_broker_has_them, a_message_that_cannot_be_taken_is_counted_and_put_aside }
    maxhost_store::contract_tests! { @family Two, kept:
    what_is_kept_is_forgotten_in_time_and_beyond_a_number, what_a_lost_broker_had_is_sent_again }
    maxhost_store::contract_tests! { @family Two, identities:
    claims_succeed_and_fail_alone, owners_that_died_are_counted_and_make_claimers_careful, work_of_sleepers_is_found_from_rows }
}
