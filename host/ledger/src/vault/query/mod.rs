//! Queries of a vault: one tree of criteria for queries, feeds, selection and locks; the language in which people write
//! it; order, pages and aggregates (behaviour.md 12.4 to 12.8).

mod aggregate;
mod criteria;
mod evaluate;
mod fields;
mod lexer;
mod page;
mod parser;
mod print;
mod value;
mod whose;

pub use aggregate::{Aggregate, Group, aggregate};
pub use criteria::{Builtin, CompareOp, Criterion, Field, MAX_DEPTH, MAX_EXPRESSION, MAX_LIST, Operand, Set};
pub use evaluate::{Lock, Row, Status, Truth, evaluate, like};
pub use fields::{MAX_FIELD_BYTES, MAX_FIELDS, fields};
pub use page::{Cursor, DEFAULT_LIMIT, MAX_LIMIT, MAX_SORT, Page, Query, SortKey, StatusFilter, page};
pub use parser::parse;
pub use value::{MAX_SORT_KEY, Number, Value};
pub use whose::{
    EXTERNAL_ID, KEY_EXTERNAL_ID, MAX_EXTERNAL_ID, MAX_EXTERNAL_IDS, Relevancy, check_key_external_id, of_external_ids,
    of_key_external_ids,
};

#[cfg(test)]
mod tests;
