//! Maps whose changes can be taken back.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// A map whose changes since the last mark can be undone.
#[derive(Debug)]
pub(crate) struct UndoMap<K, V> {
    map: BTreeMap<K, V>,
    undo: Vec<(K, Option<V>)>,
}

impl<K, V> Default for UndoMap<K, V> {
    fn default() -> UndoMap<K, V> {
        UndoMap { map: BTreeMap::new(), undo: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> UndoMap<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        let before = self.map.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let before = self.map.remove(key)?;
        self.undo.push((key.clone(), Some(before.clone())));
        Some(before)
    }

    /// To be changed.
    pub(crate) fn change(&mut self, key: &K) -> Option<&mut V> {
        let value = self.map.get_mut(key)?;
        self.undo.push((key.clone(), Some(value.clone())));
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter()
    }

    pub(crate) fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        self.map.range(keys)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn mark(&mut self) {
        self.undo.clear();
    }

    pub(crate) fn undo(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
    }

    pub(crate) fn clear(&mut self) {
        self.map.clear();
        self.undo.clear();
    }
}
