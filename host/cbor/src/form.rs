//! In what the three forms differ.

use alloc::vec::Vec;

use crate::error::{Error, Rule};

/// A way to write values. All of it is known when a guest is compiled, so that it holds the code of its form only.
pub trait Form {
    /// Whether types that know a form for people use it.
    const HUMAN_READABLE: bool;
    /// Whether floats may be written.
    const FLOATS: bool;
    /// What a map's writer remembers of its keys.
    type Keys: Keys;
}

/// The form for the host's own records.
pub struct Compact;

/// The form for data that also exists as JSON.
pub struct Readable;

/// The form for what is hashed and signed.
pub struct Deterministic<const FLOATS: bool>;

impl Form for Compact {
    const HUMAN_READABLE: bool = false;
    const FLOATS: bool = true;
    type Keys = AsGiven;
}

impl Form for Readable {
    const HUMAN_READABLE: bool = true;
    const FLOATS: bool = true;
    type Keys = AsGiven;
}

impl<const FLOATS: bool> Form for Deterministic<FLOATS> {
    const HUMAN_READABLE: bool = false;
    const FLOATS: bool = FLOATS;
    type Keys = Sorted;
}

/// What a map's writer does about the order of its keys.
pub trait Keys {
    fn new() -> Self;

    /// A key lies between these offsets of the output; its value follows.
    fn add(&mut self, start: usize, end: usize);

    /// The map is complete: its last value ends with the output. `base`: offset that errors count from.
    fn finish(self, out: &mut Vec<u8>, base: usize) -> Result<(), Error>;
}

/// Keys stay in the order of the type.
pub struct AsGiven;

impl Keys for AsGiven {
    fn new() -> AsGiven {
        AsGiven
    }

    fn add(&mut self, _start: usize, _end: usize) {}

    fn finish(self, _out: &mut Vec<u8>, _base: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// Keys are sorted by their bytes.
pub struct Sorted {
    keys: Vec<(usize, usize)>,
}

impl Keys for Sorted {
    fn new() -> Sorted {
        Sorted { keys: Vec::new() }
    }

    fn add(&mut self, start: usize, end: usize) {
        self.keys.push((start, end));
    }

    fn finish(self, out: &mut Vec<u8>, base: usize) -> Result<(), Error> {
        let key = |out: &[u8], index: usize| {
            let (start, end) = self.keys[index];
            start..end.min(out.len())
        };
        let sorted = (1..self.keys.len()).all(|index| out[key(out, index - 1)] < out[key(out, index)]);
        if sorted {
            return Ok(());
        }
        let mut order: Vec<usize> = (0..self.keys.len()).collect();
        order.sort_by(|a, b| out[key(out, *a)].cmp(&out[key(out, *b)]));
        if let Some(pair) = order.windows(2).find(|pair| out[key(out, pair[0])] == out[key(out, pair[1])]) {
            let at = self.keys[pair[0].max(pair[1])].0 - base;
            return Err(Error::NotDeterministic { at, rule: Rule::Duplicate });
        }
        let body = self.keys.first().map_or(out.len(), |(start, _)| *start);
        let entries = out.split_off(body);
        for index in order {
            let start = self.keys[index].0 - body;
            let end = self.keys.get(index + 1).map_or(entries.len(), |(next, _)| next - body);
            out.extend_from_slice(&entries[start..end]);
        }
        Ok(())
    }
}
