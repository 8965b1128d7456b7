//! Flows that do what a host must withstand, or that show one of its rules: for tests only.
//!
//! [`attachments`]: files that travel with transactions, and such as nobody should take. [`past_parameters`]: network
//! parameters that nobody should believe. [`observing`]: transactions that others look on at. [`pointers`]: states that point to each other. [`isolation`]: state that must not leak. [`abuse`]: what ends the flow that does it, and nothing else. [`bounds`]: what
//! must not grow.
//! [`determinism`]: what must be the same on replay. [`errors`]: how errors travel between flows. [`sessions`]: how
//! sessions behave. [`sequences`]: that every message comes once, and in order. [`sizes`]: that it comes whatever its
//! size. [`money`]: what somebody tries with money. [`forgery`]: transactions that nobody should accept.
//! [`false_outcomes`]: what nobody should believe that a notary has said. [`false_keys`]: statements about keys that nobody should believe. [`texts`]: what an author may write. [`values`]: values at
//! the edges of JSON and CBOR. [`waits`]: waiting for the ledger.

use maxhost_sdk::prelude::*;

pub mod abuse;
pub mod attachments;
pub mod bounds;
pub mod determinism;
pub mod errors;
pub mod false_keys;
pub mod false_outcomes;
pub mod forgery;
pub mod isolation;
pub mod money;
mod moving;
pub mod observing;
pub mod past_parameters;
pub mod pointers;
pub mod sequences;
pub mod sessions;
pub mod sizes;
pub mod texts;
pub mod values;
pub mod waits;

/// A flow's only argument: with whom.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct With {
    /// The other party.
    pub peer: Party,
}

cordapp! {
    flows: [
        isolation::statics,
        abuse::spin,
        abuse::eat_memory,
        abuse::recurse,
        abuse::panic,
        abuse::flood_log,
        abuse::flood_journal,
        abuse::huge_message,
        abuse::huge_message_sink,
        abuse::sleep_forever,
        abuse::wait_forever,
        abuse::never_answers,
        bounds::throw_large,
        bounds::provoke_large,
        bounds::throws_large,
        bounds::return_large,
        bounds::unused_sessions,
        bounds::is_not_used,
        bounds::labels,
        bounds::flood_progress,
        bounds::hold_memory,
        bounds::hold_and_spin,
        bounds::send_many,
        bounds::looks_late,
        bounds::send_without_pause,
        bounds::looks_at_once,
        bounds::sleep_and_send,
        bounds::sends_back,
        bounds::spin_with_waits,
        bounds::spin_briefly,
        bounds::passed_deadline,
        bounds::answers_at_once,
        bounds::identities,
        determinism::determinism,
        determinism::echo,
        determinism::nondeterministic,
        determinism::talkative,
        errors::throw,
        errors::fail,
        errors::throw_on_start,
        errors::throws_on_start,
        errors::panic_on_start,
        errors::panics_on_start,
        errors::end_on_start,
        errors::ends_on_start,
        errors::provoke,
        errors::provoked,
        errors::relay,
        errors::relays,
        errors::recover,
        errors::unanswered,
        errors::send_then_throw,
        errors::collects,
        sessions::send_only,
        sessions::receives_one,
        sessions::both_send_first,
        sessions::sends_first_too,
        sessions::fan_out,
        sessions::receives_its_part,
        sessions::receive_all_from,
        sessions::answers_with_its_name,
        sessions::same_session_twice,
        sessions::flow_information,
        sessions::has_version_three,
        sessions::premature_close,
        sessions::is_never_reached,
        sessions::double_close,
        sessions::answers_once,
        sessions::wait_any_deadline,
        sessions::answers_late,
        sessions::many_sessions,
        sessions::echoes,
        sessions::sub_flows,
        sessions::answers_outer,
        sessions::inner,
        sessions::answers_inner,
        sessions::peer_leaves,
        sessions::leaves_at_once,
        money::double_spend,
        money::takes_payment,
        money::counterfeit,
        money::takes_counterfeit,
        money::lengthen,
        money::look_for,
        money::reclaim_unseen,
        moving::move_state,
        moving::move_and_spend,
        moving::takes_moved_payment,
        moving::wary,
        moving::move_observed,
        moving::looks_on_at_move,
        observing::pay_observed,
        observing::looks_on,
        observing::report,
        observing::is_reported,
        observing::sketch,
        observing::sees_sketch,
        observing::spend_seen,
        attachments::attach,
        attachments::takes_attachment,
        attachments::read_attachment,
        attachments::keep_attachment,
        attachments::bad_attachment,
        attachments::takes_bad_attachment,
        past_parameters::bad_parameters,
        past_parameters::takes_bad_parameters,
        forgery::bad_transaction,
        forgery::takes_bad_transaction,
        false_outcomes::false_outcome,
        false_outcomes::believes_no_false_outcome,
        pointers::put,
        pointers::takes_post,
        pointers::follow,
        pointers::follow_type,
        false_keys::false_key,
        false_keys::believes_no_false_key,
        false_keys::tell_keys,
        false_keys::is_told_keys,
        false_keys::ask_for_account,
        false_keys::gives_no_account,
        sequences::sequence,
        sequences::counts,
        texts::say,
        texts::says,
        texts::keep,
        texts::count_up,
        sizes::sizes,
        sizes::answers_sizes,
        sizes::find,
        values::reflect,
        values::produce,
        waits::await_commit,
        waits::beside_a_commit,
        waits::await_consumption,
        waits::beside_a_consumption,
    ]
}
