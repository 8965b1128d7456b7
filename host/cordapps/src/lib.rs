//! The catalogue of CorDapps: which components are installed, what an identity's choice of them can run, and the code
//! that live flows need whatever is installed now.
//!
//! A component is found in two ways. An identity names it by name and version ([`CordappRef`]), which is looked up among
//! the installed files ([`Catalogue::set`]). A flow names it by the SHA-256 of its bytes, which is looked up among the
//! kept components ([`Catalogue::by_hash`]): a copy of each component that was ever installed, until
//! [`Catalogue::remove_unnamed`] finds that no live flow names it.

mod catalogue;
mod contracts;
mod cordapp;
mod data_files;
mod kept;
mod numbers;
mod reference;
mod schema;
mod set;
mod shared;

pub use catalogue::Catalogue;
pub use contracts::InstalledContracts;
pub use cordapp::{Cordapp, FlowDef};
pub use data_files::DataFiles;
pub use kept::KEEP_UNNAMED;
pub use reference::CordappRef;
pub use set::CordappSet;
pub use shared::SharedCode;

/// What the names of installed contracts end with; those of components with flows end with `.wasm` alone.
pub const CONTRACT_SUFFIX: &str = ".contract.wasm";

/// SHA-256 of a component's bytes: what flows and constraints name it by.
pub type ComponentHash = [u8; 32];
