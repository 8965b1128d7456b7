//! The head of an item (RFC 8949 §3): a major type, and a number in one of five widths.

use alloc::vec::Vec;

/// Major types, the upper three bits of an item's first byte.
pub mod major {
    pub const UNSIGNED: u8 = 0;
    pub const NEGATIVE: u8 = 1;
    pub const BYTES: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const ARRAY: u8 = 4;
    pub const MAP: u8 = 5;
    pub const TAG: u8 = 6;
}

/// First bytes that stand for themselves.
pub mod byte {
    pub const FALSE: u8 = 0xf4;
    pub const TRUE: u8 = 0xf5;
    pub const NULL: u8 = 0xf6;
    pub const UNDEFINED: u8 = 0xf7;
    pub const F16: u8 = 0xf9;
    pub const F32: u8 = 0xfa;
    pub const F64: u8 = 0xfb;
    pub const BREAK: u8 = 0xff;
    /// Tag 2: a byte string that is a big unsigned integer.
    pub const POSITIVE_BIGNUM: u8 = 0xc2;
    /// Tag 3: the same for -1 - n.
    pub const NEGATIVE_BIGNUM: u8 = 0xc3;
}

/// The first byte of an item and the number behind it.
#[derive(Clone, Copy)]
pub struct Head {
    pub first: u8,
    /// `None`: the length is not given, a break ends the item.
    pub value: Option<u64>,
}

impl Head {
    pub fn major(self) -> u8 {
        self.first >> 5
    }
}

/// Appends the shortest head for this number.
pub fn write(major: u8, value: u64, out: &mut Vec<u8>) {
    let first = major << 5;
    if value < 24 {
        out.push(first | value as u8);
    } else if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[first | 24, value]);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(first | 25);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(first | 26);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(first | 27);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Whether a number has no shorter form than the one that this first byte announces.
pub fn is_shortest(first: u8, value: u64) -> bool {
    match first & 0x1f {
        24 => value >= 24,
        25 => value > u64::from(u8::MAX),
        26 => value > u64::from(u16::MAX),
        27 => value > u64::from(u32::MAX),
        _ => true,
    }
}
