//! Whether bytes are CBOR at all, whatever they mean.

use crate::Limits;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::head::{Head, byte, major};

/// Whether `bytes` are one well-formed value (RFC 8949 §5.3.1) with texts that are UTF-8, of any type.
///
/// # Errors
/// What is wrong, and where; [`Error::TooDeep`] and [`Error::TooLarge`] at the limits. A tag counts as no level.
pub fn check_well_formed(bytes: &[u8], limits: Limits) -> Result<(), Error> {
    if bytes.len() > limits.size {
        return Err(Error::TooLarge { limit: limits.size });
    }
    let mut cursor = Cursor { bytes, at: 0 };
    item(&mut cursor, 0, limits.depth)?;
    match bytes.len() - cursor.at {
        0 => Ok(()),
        count => Err(Error::Trailing { at: cursor.at, count }),
    }
}

/// Reads one item. `depth`: how many arrays and maps it lies in.
fn item(cursor: &mut Cursor<'_>, depth: u16, limit: u16) -> Result<(), Error> {
    let mut at = cursor.at;
    let mut head = cursor.head()?;
    while head.major() == major::TAG {
        at = cursor.at;
        head = cursor.head()?;
    }
    match head.major() {
        major::BYTES => cursor.string(head).map(|_| ()),
        major::TEXT => cursor.text(head).map(|_| ()),
        major::ARRAY | major::MAP if depth >= limit => Err(Error::TooDeep { at, limit }),
        major::ARRAY => items(cursor, head, 1, depth + 1, limit),
        major::MAP => items(cursor, head, 2, depth + 1, limit),
        // A simple value below 32 in two bytes (RFC 8949 §3.3).
        7 if head.first & 0x1f == 24 && head.value.is_some_and(|value| value < 32) => Err(Error::Malformed { at }),
        _ => Ok(()),
    }
}

/// The items of an array, or of a map, where one entry is two.
fn items(cursor: &mut Cursor<'_>, head: Head, each: u8, depth: u16, limit: u16) -> Result<(), Error> {
    let mut left = head.value;
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(left) => *left -= 1,
            None if cursor.peek()? == byte::BREAK => {
                cursor.at += 1;
                return Ok(());
            }
            None => {}
        }
        for _ in 0..each {
            item(cursor, depth, limit)?;
        }
    }
}
