//! The rules by which nothing is lost, doubled or forgotten between the threads of a host, by name.
//!
//! Each is asked at the one place where it is kept. In a host they all hold; the simulation breaks them one at a time, to
//! see that it finds out.

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A unit names the attempts whose messages its run has read before they were written.
    UnitsNameWhatTheyBuildOn,
    /// A run does not leave before all its units are answered.
    RunsSettleBeforeTheyLeave,
    /// What is in the database and found no room in a flow's memory brings the flow back from its journal.
    WhatWasMissedIsRead,
    /// What was left for a run after it looked last is news for its flow.
    UnreadIsNews,
    /// A message that was not taken before it was written is brought when it is.
    DeclinedIsBrought,
    /// A responder whose initiator has ended is told so when it confirms.
    LateConfirmationsAreAnswered,
    /// A confirmation that a flow has not read when it ends is noted with its end.
    UnreadConfirmationsAreNoted,
    /// A notary decides no request unless what it comes from is written.
    NotariesDecideWhatIsWritten,
    /// A responder that could not be started is started later.
    InitiationsAreTriedAgain,
    /// A transaction is noted as in flight before anybody else has it, and before its notary is asked.
    InFlightIsNoted,
    /// What a flow has left in flight gets a flow that settles it.
    WhatIsInFlightIsSettled,
    /// What its notary has refused is taken back.
    RefusedIsTakenBack,
    /// Flows that wait for the ledger are told of what is recorded.
    RecordedIsTold,
}

/// Whether the rule is kept.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn holds(_rule: Rule) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn holds(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Breaks this rule and no other, for what runs on this thread.
#[cfg(test)]
pub(crate) fn break_only(rule: Option<Rule>) {
    BROKEN.set(rule);
}
