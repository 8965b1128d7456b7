//! What a broker says of itself when a connection is opened: its idle timeout, and its product. The library keeps it to itself, so it is
//! read from the bytes on their way (OASIS AMQP 1.0, part 2, sections 2.3 and 2.7.1).

use std::time::Duration;

/// No broker says more before its open frame.
const LONGEST: usize = 64 * 1024;
/// The descriptor of the performative `open`.
const OPEN: u64 = 0x10;
/// Where the idle timeout is among the fields of `open`.
const IDLE_TIMEOUT: usize = 4;

/// Looks at what a broker sends until its open frame is through.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    seen: Vec<u8>,
    found: Option<Told>,
}

/// What the broker has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// How long the broker lets a connection be silent, as it says: it is meant to wait twice as long. `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether it calls itself RabbitMQ.
    pub is_rabbitmq: bool,
}

impl Opening {
    /// Looks at further bytes.
    pub fn see(&mut self, bytes: &[u8]) {
        if self.found.is_some() || self.seen.len() > LONGEST {
            return;
        }
        self.seen.extend_from_slice(bytes);
        if let Some(told) = find(&self.seen) {
            self.found = Some(told);
            self.seen = Vec::new();
        }
    }

    /// What was told; `None` if it was not understood.
    pub fn told(&self) -> Option<Told> {
        self.found
    }
}

fn find(mut bytes: &[u8]) -> Option<Told> {
    loop {
        if bytes.starts_with(b"AMQP") {
            bytes = bytes.get(8..)?;
            continue;
        }
        let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let (offset, kind) = (usize::from(*bytes.get(4)?) * 4, *bytes.get(5)?);
        let frame = bytes.get(..size.max(8))?;
        if kind == 0
            && let Some(body) = frame.get(offset..)
            && !body.is_empty()
        {
            return Some(Told { idle_timeout: idle_timeout(body), is_rabbitmq: is_rabbitmq(body) });
        }
        bytes = &bytes[frame.len()..];
    }
}

fn idle_timeout(body: &[u8]) -> Option<Duration> {
    let mut body = body;
    // A described value: its descriptor, then the list of its fields.
    (take(&mut body, 1)? == [0x00]).then_some(())?;
    (number(&mut body)? == OPEN).then_some(())?;
    let count = match take(&mut body, 1)? {
        [0xc0] => usize::from(*take(&mut body, 2)?.get(1)?),
        [0xd0] => u32::from_be_bytes(take(&mut body, 8)?.get(4..)?.try_into().ok()?) as usize,
        _ => 0,
    };
    for _ in 0..IDLE_TIMEOUT.min(count) {
        skip(&mut body)?;
    }
    let limit = (count > IDLE_TIMEOUT).then(|| number(&mut body)).flatten()?;
    (limit > 0).then(|| Duration::from_millis(limit))
}

/// Whether the property `product` of the frame is `RabbitMQ`; both are texts of less than 256 bytes, with a code and a length.
fn is_rabbitmq(body: &[u8]) -> bool {
    const KEY: &[u8] = b"product";
    const PRODUCT: &[u8] = b"RabbitMQ";
    body.windows(KEY.len() + 2 + PRODUCT.len()).any(|bytes| bytes.starts_with(KEY) && bytes.ends_with(PRODUCT))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// An unsigned number, of whichever width; `None` for null.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let width = match take(bytes, 1)?[0] {
        0x43 | 0x44 => 0,
        0x50 | 0x52 | 0x53 => 1,
        0x60 => 2,
        0x70 => 4,
        0x80 => 8,
        _ => return None,
    };
    Some(take(bytes, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A value of any primitive type: its width is in its code.
fn skip(bytes: &mut &[u8]) -> Option<()> {
    let code = take(bytes, 1)?[0];
    let width = match code >> 4 {
        0x4 => 0,
        0x5 => 1,
        0x6 => 2,
        0x7 => 4,
        0x8 => 8,
        0x9 => 16,
        0xa | 0xc | 0xe => usize::from(take(bytes, 1)?[0]),
        0xb | 0xd | 0xf => u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?) as usize,
        _ => return None,
    };
    take(bytes, width).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
        frame.extend([2, kind, 0, 0]);
        frame.extend(body);
        frame
    }

    fn conversation(fields: &[u8], count: u8) -> Vec<u8> {
        let mut open = vec![0x00, 0x53, 0x10, 0xc0, u8::try_from(fields.len() + 1).unwrap(), count];
        open.extend(fields);
        let sasl = frame(1, &[0x00, 0x53, 0x40, 0xc0, 1, 0]);
        [b"AMQP\x03\x01\x00\x00".as_slice(), &sasl, b"AMQP\x00\x01\x00\x00", &frame(0, &open), b"more"].concat()
    }

    fn told(bytes: &[u8], piece: usize) -> Option<Told> {
        let mut opening = Opening::default();
        bytes.chunks(piece).for_each(|bytes| opening.see(bytes));
        opening.told()
    }

    #[test]
    fn the_idle_timeout_is_found_however_the_bytes_come() {
        // container-id, no hostname, max-frame-size, channel-max, idle-time-out in milliseconds.
        let fields =
            [b"\xa1\x06broker\x40\x70\x00\x02\x00\x00\x60\xff\xff".as_slice(), b"\x70\x00\x00\x07\xd0"].concat();
        let bytes = conversation(&fields, 5);
        for piece in [1, 2, 3, 7, 1000] {
            let expected = Told { idle_timeout: Some(Duration::from_secs(2)), is_rabbitmq: false };
            assert_eq!(told(&bytes, piece), Some(expected), "in pieces of {piece}");
        }
        for (short, count) in
            [(b"\xa1\x01b".as_slice(), 1), (b"\xa1\x01b\x40\x40\x40\x40", 5), (b"\xa1\x01b\x40\x40\x40\x43", 5)]
        {
            assert_eq!(told(&conversation(short, count), 5), Some(Told { idle_timeout: None, is_rabbitmq: false }));
        }
    }

    #[test]
    fn a_rabbitmq_is_known_by_its_product() {
        // Five fields, three that are not set and two lists; then the properties.
        let fields = |properties: &[u8]| {
            let map = [&[0xc1, u8::try_from(properties.len() + 1).unwrap(), 2], properties].concat();
            [b"\xa1\x01b\x40\x40\x40\x40\x40\x40\x40\x40".as_slice(), &map].concat()
        };
        let is_rabbitmq = |properties| told(&conversation(&fields(properties), 10), 3).unwrap().is_rabbitmq;
        assert!(is_rabbitmq(b"\xa3\x07product\xa1\x08RabbitMQ"));
        assert!(!is_rabbitmq(b"\xa3\x07product\xa1\x17apache-activemq-artemis"));
        assert!(!is_rabbitmq(b"\xa3\x04name\xa1\x08RabbitMQ"));
    }

    #[test]
    fn what_is_no_conversation_tells_nothing_and_does_not_grow() {
        let mut opening = Opening::default();
        for _ in 0..1000 {
            opening.see(&[0x7f; 1000]);
        }
        assert_eq!(opening.told(), None);
        assert!(opening.seen.len() <= LONGEST + 1000);
        assert_eq!(told(b"", 1), None);
    }
}
