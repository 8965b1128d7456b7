//! What guests get of the machine, and how they share it.
//!
//! A flow needs an instance ([`admission`]) and memory for it ([`memory`]); it gets either only while there is some
//! left. It is polled where [`placement`] says: on the threads for I/O, or, if it computes, on the threads for guests
//! ([`threads`]), which identities share by the time that they take. What is verified or folded on behalf of a guest
//! takes turns on the same threads ([`jobs`]). [`flow_code`] is what is run there: a component, or a flow of the
//! platform.

pub(crate) mod admission;
pub(crate) mod flow_code;
pub(crate) mod jobs;
pub(crate) mod memory;
pub(crate) mod placement;
pub(crate) mod threads;
