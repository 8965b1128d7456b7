//! Runs every model: each takes a few milliseconds to a few seconds.

#[test]
fn a_run_that_settles_is_woken_by_the_last_answer() {
    maxhost_flows_loom::a_run_that_settles_is_woken_by_the_last_answer();
}

#[test]
fn a_run_may_settle_again() {
    maxhost_flows_loom::a_run_may_settle_again();
}

#[test]
fn a_run_that_waits_sees_signals_and_arrivals() {
    maxhost_flows_loom::a_run_that_waits_sees_signals_and_arrivals();
}

#[test]
fn nothing_is_lost_when_an_inbox_closes() {
    maxhost_flows_loom::nothing_is_lost_when_an_inbox_closes();
}

#[test]
fn a_message_that_runs_ahead_reaches_its_recipient() {
    maxhost_flows_loom::a_message_that_runs_ahead_reaches_its_recipient();
}

#[test]
fn what_is_waited_for_in_the_ledger_is_seen() {
    maxhost_flows_loom::what_is_waited_for_in_the_ledger_is_seen();
}
