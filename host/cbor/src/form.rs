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

/// So many keys are remembered without taking memory for them: most types have no more fields.
const FEW: usize = 12;

/// Keys are sorted by their bytes.
pub struct Sorted {
    /// Where the first keys lie.
    few: [(usize, usize); FEW],
    count: usize,
    /// Where all of them lie, if there are more.
    many: Vec<(usize, usize)>,
}

impl Sorted {
    fn keys(&self) -> &[(usize, usize)] {
        if self.count <= FEW { &self.few[..self.count] } else { &self.many }
    }
}

impl Keys for Sorted {
    fn new() -> Sorted {
        Sorted { few: [(0, 0); FEW], count: 0, many: Vec::new() }
    }

    fn add(&mut self, start: usize, end: usize) {
        if self.count < FEW {
            self.few[self.count] = (start, end);
        } else {
            if self.count == FEW {
                self.many.extend_from_slice(&self.few);
            }
            self.many.push((start, end));
        }
        self.count += 1;
    }

    fn finish(self, out: &mut Vec<u8>, base: usize) -> Result<(), Error> {
        let keys = self.keys();
        let key = |out: &[u8], index: usize| {
            let (start, end) = keys[index];
            start..end.min(out.len())
        };
        let sorted = (1..keys.len()).all(|index| out[key(out, index - 1)] < out[key(out, index)]);
        if sorted {
            return Ok(());
        }
        let (mut few, mut many) = ([0; FEW], Vec::new());
        let order: &mut [usize] = match few.get_mut(..keys.len()) {
            Some(few) => few,
            None => {
                many.resize(keys.len(), 0);
                &mut many
            }
        };
        order.iter_mut().enumerate().for_each(|(index, place)| *place = index);
        order.sort_by(|a, b| out[key(out, *a)].cmp(&out[key(out, *b)]));
        if let Some(pair) = order.windows(2).find(|pair| out[key(out, pair[0])] == out[key(out, pair[1])]) {
            let at = keys[pair[0].max(pair[1])].0 - base;
            return Err(Error::NotDeterministic { at, rule: Rule::Duplicate });
        }
        // Written once more in their order behind the entries, and then in their place.
        let (body, end) = (keys.first().map_or(out.len(), |(start, _)| *start), out.len());
        out.reserve(end - body);
        for index in &*order {
            let next = keys.get(index + 1).map_or(end, |(next, _)| *next);
            out.extend_from_within(keys[*index].0..next);
        }
        out.copy_within(end.., body);
        out.truncate(end);
        Ok(())
    }
}
