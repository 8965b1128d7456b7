//! What a host knows of the other hosts that it shares identities with, and what it decides by that. The parts of
//! `host` carry it out.
//!
//! [`host_rules`] holds what a manifest says of hosts against the hosts that there are, and [`candidates`] says by it
//! who should run an identity. [`turns`] is when this host looks at a demand, [`membership`] what its threads tell the
//! supervisor. [`balance`] decides which identities to give to others, [`reach`] whether this host is cut off alone.
//! [`asked_for`] looks for flows that other hosts were asked to start, and [`shared_code`] brings the code of CorDapps
//! from host to host.

pub(crate) mod asked_for;
pub(crate) mod balance;
pub(crate) mod candidates;
pub(crate) mod host_rules;
pub(crate) mod membership;
pub(crate) mod reach;
pub(crate) mod shared_code;
pub(crate) mod turns;
