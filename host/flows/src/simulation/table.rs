//! A table of a simulated database: a map in memory whose changes can be undone.

use std::collections::BTreeMap;

/// One table, and how its rows were before they were changed.
pub(super) struct Table<K, V> {
    pub rows: BTreeMap<K, V>,
    undo: Vec<(K, Option<V>)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table { rows: BTreeMap::new(), undo: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub fn put(&mut self, key: K, value: V) {
        let before = self.rows.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    pub fn take(&mut self, key: &K) -> Option<V> {
        let before = self.rows.remove(key)?;
        self.undo.push((key.clone(), Some(before.clone())));
        Some(before)
    }

    pub fn take_range(&mut self, range: std::ops::RangeInclusive<K>) {
        let keys: Vec<K> = self.rows.range(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.take(&key);
        }
    }

    /// Adds a row unless there is one.
    pub fn add(&mut self, key: K, value: V) -> bool {
        let is_new = !self.rows.contains_key(&key);
        if is_new {
            self.put(key, value);
        }
        is_new
    }

    pub fn undo_to(&mut self, mark: usize) {
        for (key, before) in self.undo.drain(mark..).rev() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// How many changes could be undone.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// What was changed stays.
    pub fn keep(&mut self) {
        self.undo.clear();
    }
}
