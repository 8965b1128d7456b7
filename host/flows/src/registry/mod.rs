//! The identities that this host knows, whether they are asleep or open. The actor of one that is open is in
//! `identity`.
//!
//! An identity is an [`entry`], which the [`directory`] finds by name, row, key or group. The entry has a mailbox for
//! commands ([`message`]), marks for what no command tells ([`marks`]), which flows in hospital need no new try
//! ([`in_hospital`]), and how long the identity is left to other hosts ([`retry`]). [`timers`] has the alarms of those
//! who sleep, [`oldest`] since when initiations wait for them. [`keys`] opens the keys of one, and [`opened`] is what
//! it is then.

pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod in_hospital;
pub(crate) mod keys;
pub(crate) mod marks;
pub(crate) mod message;
pub(crate) mod oldest;
pub(crate) mod opened;
pub(crate) mod retry;
pub(crate) mod timers;
