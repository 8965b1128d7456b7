//! Types of states, what the vault learns of them, and sets of commands.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{AnyParty, Hash, LinearId, PublicKey, Rejection, Target, Timestamp};

/// A type of states; [`#[state]`](crate::state) writes it.
pub trait State: Serialize + DeserializeOwned + Clone + PartialEq {
    /// The contract that governs it.
    const CONTRACT: &'static str;
    /// Its name.
    const NAME: &'static str;
    /// Counts changes of it, from 1.
    const VERSION: u32;
    /// What is told of each state besides its fields.
    const ATTRIBUTES: &'static [Attribute];

    /// Its fields and their types, a line each: its SHA-256 identifies the schema.
    fn schema() -> String;

    /// The fields whose text is a time.
    fn times() -> &'static [&'static str];

    /// What the vault learns of it.
    fn describe(&self) -> Description;

    /// What its resolved pointers lead to.
    fn pointers(&self) -> Vec<Target>;

    /// What stays the same from version to version.
    fn linear_id(&self) -> Option<LinearId> {
        None
    }

    /// The names of the fields in which two states differ.
    fn differing_fields(&self, other: &Self) -> Vec<&'static str>;
}

/// The commands of a contract; [`#[commands]`](crate::commands) writes it.
pub trait CommandSet: Sized {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// The name of this one.
    fn name(&self) -> &'static str;

    /// Its data.
    ///
    /// # Errors
    /// Data that have no deterministic form.
    fn encode(&self) -> Result<Vec<u8>, maxhost_cbor::Error>;

    /// The command of this name.
    ///
    /// # Errors
    /// `tx/unknown-command`, `tx/command-malformed`.
    fn decode(name: &str, data: &[u8]) -> Result<Self, Rejection>;
}

/// The refusal of a command that the contract does not have.
#[must_use]
pub fn no_such_command(name: &str) -> Rejection {
    Rejection::with_text("tx/unknown-command", format!("the contract has no command {name}"))
}

/// An amount of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FungibleAmount {
    /// In the smallest unit; 63 bits.
    pub quantity: u64,
    /// Which token.
    pub token: String,
    /// Who owes it.
    pub issuer: Option<AnyParty>,
}

/// Something that is to be done about a state at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The moment at which it is due.
    pub at: Timestamp,
    /// The flow, as `cordapp/flow`; it is given the reference of the state.
    pub flow: String,
}

/// What the vault learns of a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Those whom it concerns.
    pub participants: Vec<AnyParty>,
    /// Who may spend it.
    pub owner: Option<AnyParty>,
    /// What stays the same from version to version.
    pub linear_id: Option<LinearId>,
    /// What the thing is called elsewhere.
    pub external_id: Option<String>,
    /// How much it is worth.
    pub amount: Option<FungibleAmount>,
    /// What is to be done next.
    pub next_activity: Option<Activity>,
    /// What can be asked for besides its fields.
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

/// An attribute that a type of states declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: AttributeKind,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeKind {
    /// True or false.
    Truth,
    /// An integer of 64 bits.
    Number,
    /// Texts of any length.
    Text,
    /// Bytes of any length.
    Bytes,
    /// A point in time.
    Time,
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// True or false.
    Truth(bool),
    /// An integer, not below zero.
    Unsigned(u64),
    /// An integer.
    Signed(i64),
    /// A text of any length.
    Text(String),
    /// Bytes of any length.
    Bytes(Vec<u8>),
    /// A point in time.
    Time(Timestamp),
}

/// What can be the value of an attribute: types of fields marked `#[query]`.
pub trait IntoAttribute {
    /// What its values are.
    const KIND: AttributeKind;

    /// The value; none if there is none.
    fn attribute(&self) -> Option<AttributeValue>;
}

macro_rules! attributes {
    ($($type:ty: $kind:ident, $self:ident => $value:expr;)*) => { $(
        impl IntoAttribute for $type {
            const KIND: AttributeKind = AttributeKind::$kind;

            fn attribute(&self) -> Option<AttributeValue> {
                let $self = self;
                Some($value)
            }
        }
    )* };
}

attributes! {
    bool: Truth, value => AttributeValue::Truth(*value);
    u8: Number, value => AttributeValue::Unsigned(u64::from(*value));
    u16: Number, value => AttributeValue::Unsigned(u64::from(*value));
    u32: Number, value => AttributeValue::Unsigned(u64::from(*value));
    u64: Number, value => AttributeValue::Unsigned(*value);
    i8: Number, value => AttributeValue::Signed(i64::from(*value));
    i16: Number, value => AttributeValue::Signed(i64::from(*value));
    i32: Number, value => AttributeValue::Signed(i64::from(*value));
    i64: Number, value => AttributeValue::Signed(*value);
    String: Text, value => AttributeValue::Text(value.clone());
    Timestamp: Time, value => AttributeValue::Time(*value);
    LinearId: Text, value => AttributeValue::Text(format!("{value}"));
    crate::Party: Text, value => AttributeValue::Text(value.name.clone());
    PublicKey: Bytes, value => AttributeValue::Bytes(value.spki().to_vec());
    Hash: Bytes, value => AttributeValue::Bytes(value.0.to_vec());
}

impl IntoAttribute for AnyParty {
    const KIND: AttributeKind = AttributeKind::Text;

    fn attribute(&self) -> Option<AttributeValue> {
        self.name.clone().map(AttributeValue::Text)
    }
}

impl<T: IntoAttribute> IntoAttribute for Option<T> {
    const KIND: AttributeKind = T::KIND;

    fn attribute(&self) -> Option<AttributeValue> {
        self.as_ref().and_then(T::attribute)
    }
}
