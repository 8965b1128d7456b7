//! Keys: the schemes that sign, keys made of keys, and their bytes.

mod composite;
mod ownership;
mod scheme;
mod signing;

pub use composite::{
    CompositeKey, MAX_COMPOSITE_DEPTH, MAX_COMPOSITE_LEAVES, WeightedKey, from_base58, is_fulfilled_by, leaves,
    to_base58,
};
pub use ownership::{Challenge, KeyQuestion, KeyStatement, SignedKeyStatement};
pub use scheme::{Scheme, check_key, verify};
pub use signing::SigningKey;
