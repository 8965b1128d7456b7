//! The host as a whole. What clients may ask of it is in `queries`.
//!
//! [`parts`] puts it together, and [`lifecycle`] starts it, takes over what changes in its folders, and stops it.
//! [`hosting`] takes identities in, puts them into quarantine and lets them go; [`readmission`] says when those in
//! quarantine are looked at again. [`housekeeping`] removes what nobody needs. On a host of several, [`supervisor`]
//! follows the ownership service, and with it run [`balancing`], [`draining`], the [`scheduler`] and [`standing_back`].

pub(crate) mod balancing;
pub(crate) mod draining;
pub(crate) mod hosting;
pub(crate) mod housekeeping;
pub(crate) mod lifecycle;
pub(crate) mod parts;
pub(crate) mod readmission;
pub(crate) mod scheduler;
pub(crate) mod standing_back;
pub(crate) mod supervisor;
