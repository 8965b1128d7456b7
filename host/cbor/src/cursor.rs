//! Bytes, read from front to back. Nothing in here trusts a length.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::head::{Head, byte, major};

pub struct Cursor<'de> {
    pub bytes: &'de [u8],
    /// Never beyond the end of `bytes`.
    pub at: usize,
}

impl<'de> Cursor<'de> {
    #[cold]
    fn truncated(&self) -> Error {
        Error::Truncated { at: self.bytes.len() }
    }

    pub fn peek(&self) -> Result<u8, Error> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.truncated())
    }

    pub fn take(&mut self, length: u64) -> Result<&'de [u8], Error> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| self.truncated())?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N as u64)?.try_into().map_err(|_| self.truncated())
    }

    pub fn head(&mut self) -> Result<Head, Error> {
        let at = self.at;
        let first = self.peek()?;
        self.at += 1;
        let value = match first & 0x1f {
            small @ 0..=23 => Some(u64::from(small)),
            24 => Some(u64::from(u8::from_be_bytes(self.array()?))),
            25 => Some(u64::from(u16::from_be_bytes(self.array()?))),
            26 => Some(u64::from(u32::from_be_bytes(self.array()?))),
            27 => Some(u64::from_be_bytes(self.array()?)),
            31 if matches!(first >> 5, major::BYTES | major::TEXT | major::ARRAY | major::MAP) => None,
            _ => return Err(Error::Malformed { at }),
        };
        Ok(Head { first, value })
    }

    /// Passes over the tags before the next item, and gives the item's first byte. A tag only adds meaning; big integers
    /// alone need theirs.
    pub fn peek_untagged(&mut self) -> Result<u8, Error> {
        loop {
            let first = self.peek()?;
            if first >> 5 != major::TAG || matches!(first, byte::POSITIVE_BIGNUM | byte::NEGATIVE_BIGNUM) {
                return Ok(first);
            }
            self.head()?;
        }
    }

    /// The bytes of a text or byte string whose head was read; in one piece or in chunks.
    pub fn string(&mut self, head: Head) -> Result<Cow<'de, [u8]>, Error> {
        if let Some(length) = head.value {
            return self.take(length).map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        while self.peek()? != byte::BREAK {
            let at = self.at;
            let chunk = self.head()?;
            match chunk.value {
                Some(length) if chunk.major() == head.major() => whole.extend_from_slice(self.take(length)?),
                _ => return Err(Error::Malformed { at }),
            }
        }
        self.at += 1;
        Ok(Cow::Owned(whole))
    }

    pub fn text(&mut self, head: Head) -> Result<Cow<'de, str>, Error> {
        let at = self.at;
        match self.string(head)? {
            Cow::Borrowed(bytes) => core::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Error::NotUtf8 { at }),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Error::NotUtf8 { at }),
        }
    }
}
