//! Where in a JSON value something is: a pointer (RFC 6901), made only when it is shown.

use std::fmt;

/// A place in a JSON value. Each level knows the one that it lies in.
#[derive(Clone, Copy)]
pub(crate) enum JsonPath<'a> {
    /// The value itself.
    Root,
    /// An element of an array.
    Element(&'a JsonPath<'a>, usize),
    /// A field of an object.
    Field(&'a JsonPath<'a>, &'a str),
}

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonPath::Root => Ok(()),
            JsonPath::Element(outer, index) => write!(f, "{outer}/{index}"),
            JsonPath::Field(outer, name) => {
                let name = crate::invalid::excerpt(name);
                write!(f, "{outer}/{}", name.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}
