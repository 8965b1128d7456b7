//! The latest progress labels of a flow: they stay when the flow has ended, for clients that come then.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;

/// What the labels that are kept take together, bytes, each with [`OVERHEAD`].
pub const KEPT_BYTES: usize = 16 << 10;
/// What a label costs beside its text.
const OVERHEAD: usize = 16;

/// The latest labels of a flow, as many as fit into [`KEPT_BYTES`]. They are numbered without a gap, from 1 on.
#[derive(Debug, Default, Clone)]
pub struct LatestLabels {
    labels: VecDeque<String>,
    bytes: usize,
    /// The number of the last one.
    last: u64,
}

/// Labels as they are stored with a flow's end. Tag numbers are never used again for something else.
#[derive(Clone, PartialEq, Message)]
struct StoredLabels {
    /// The number of the first one.
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(string, repeated, tag = "2")]
    labels: Vec<String>,
}

impl LatestLabels {
    /// Adds the label of this number. If it does not follow on the last one, those before it are forgotten.
    pub fn push(&mut self, number: u64, label: String) {
        if number != self.last.saturating_add(1) {
            self.labels.clear();
            self.bytes = 0;
        }
        self.last = number;
        self.bytes += label.len() + OVERHEAD;
        self.labels.push_back(label);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.labels.pop_front()
        {
            self.bytes -= oldest.len() + OVERHEAD;
        }
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&str> {
        self.labels.back().map(String::as_str)
    }

    /// The stored form; `None` if there is no label.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let first = self.last.checked_sub(self.labels.len() as u64)?.saturating_add(1);
        let stored = StoredLabels { first, labels: self.labels.iter().cloned().collect() };
        (!self.labels.is_empty()).then(|| stored.encode_to_vec().into())
    }

    /// Reads the stored form: each label with its number. What cannot be read has no labels.
    #[must_use]
    pub fn decode(stored: &[u8]) -> Vec<(u64, String)> {
        let StoredLabels { first, labels } = StoredLabels::decode(stored).unwrap_or_default();
        numbered(first, labels).collect()
    }
}

/// Labels with their numbers, whatever number the first one claims to have.
pub(crate) fn numbered(first: u64, labels: Vec<String>) -> impl Iterator<Item = (u64, String)> {
    labels.into_iter().enumerate().map(move |(place, label)| (first.saturating_add(place as u64), label))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_come_back_with_their_numbers() {
        let mut latest = LatestLabels::default();
        assert!(latest.encode().is_none());
        for (number, label) in [(1, "one"), (2, ""), (3, "three")] {
            latest.push(number, label.to_owned());
        }
        assert_eq!(latest.last(), Some("three"));
        let read = LatestLabels::decode(&latest.encode().unwrap());
        assert_eq!(read, [(1, "one".to_owned()), (2, String::new()), (3, "three".to_owned())]);
    }

    #[test]
    fn only_the_latest_are_kept_however_many_there_are() {
        let mut latest = LatestLabels::default();
        (1..=100_000).for_each(|number| latest.push(number, format!("label {number}")));
        let stored = latest.encode().unwrap();
        assert!(stored.len() <= KEPT_BYTES, "{} bytes", stored.len());
        let read = LatestLabels::decode(&stored);
        assert!(read.len() > 500, "{}", read.len());
        assert_eq!(read.last().unwrap(), &(100_000, "label 100000".to_owned()));
        assert!(read.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        latest.push(100_001, "x".repeat(KEPT_BYTES));
        assert!(latest.encode().is_none(), "one that is too long is not kept, and none before it");
    }

    #[test]
    fn a_label_behind_a_gap_is_the_first_that_is_kept() {
        let mut latest = LatestLabels::default();
        latest.push(1, "one".to_owned());
        latest.push(7, "seven".to_owned());
        assert_eq!(LatestLabels::decode(&latest.encode().unwrap()), [(7, "seven".to_owned())]);
    }

    #[test]
    fn what_cannot_be_read_has_no_labels() {
        assert_eq!(LatestLabels::decode(&[0xff; 20]), []);
        let endless = StoredLabels { first: u64::MAX, labels: vec![String::new(); 2] };
        assert_eq!(LatestLabels::decode(&endless.encode_to_vec()).len(), 2);
    }
}
