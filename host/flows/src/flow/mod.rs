//! One flow in memory, as all others see it. How it is run is in `activation`, and what its guest may ask in `calls`.
//!
//! A message comes as an [`arrival`] and is left in the flow's [`inbox`]. If it runs ahead of the disk
//! ([`speculation`]), it brings along what it builds on, and its recipient takes or declines it ([`offer`]).
//! [`commit_tracker`] knows what became of the units of a run, [`signals`] what a run is asked to do, [`status`] what
//! it shows of itself. [`running_flow`] puts these together. [`deadlines`] are the times at which flows that wait have
//! to be looked at.

pub(crate) mod arrival;
pub(crate) mod commit_tracker;
pub(crate) mod deadlines;
pub(crate) mod inbox;
pub(crate) mod offer;
pub(crate) mod running_flow;
pub(crate) mod signals;
pub(crate) mod speculation;
pub(crate) mod status;
