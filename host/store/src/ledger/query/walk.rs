//! Pages that are sorted: states are read in the order of an index, piece by piece, until the page is full.
//!
//! A piece has the states of whole keys, so that it can be sorted by the other keys and by the references. Where one key has
//! more states than a piece may have, they are a vault of their own that is sorted by the other keys. States that lack the
//! field are in no index; the shapes of the vault tell which types have such.

use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::vault::query::{Cursor, Query, SortKey, StatusFilter};
use maxhost_model::IdentityRow;

use super::narrow::Having;
use super::slice::{Alike, Indexed, Slice};
use super::sql::{PageRequest, Source};
use super::sql_value::SqlValue;
use super::{Effort, LEAST_READ, MOST_READ, finds};
use crate::error::StoreError;
use crate::ledger::reader::LedgerReader;
use crate::ledger::record::{VaultRow, VaultShape};
use crate::reader::{PAGE_BYTES, is_last_page};

/// So many shapes of states are told apart at most; of a vault with more, every type may have states that lack a field.
pub(super) const MOST_SHAPES: u32 = 1_024;

/// A page that is being filled.
pub(super) struct Search<'a, R: ?Sized> {
    pub reader: &'a R,
    pub identity: IdentityRow,
    pub query: &'a Query,
    pub as_of: Option<i64>,
    pub now: Timestamp,
    pub effort: Effort,
    /// So many states fill it.
    pub wanted: usize,
    /// What was found, in the order of the query.
    pub rows: Vec<VaultRow>,
    /// Bytes of all of it but the last.
    ahead: usize,
    shapes: Option<Vec<VaultShape>>,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// The page is full, or there are no more.
    Done,
    /// So many states were looked at that another way is better; what was found is right.
    GaveUp,
}

/// States among which a walk goes on.
#[derive(Clone, Copy)]
struct Part<'p> {
    /// Of these types; `None`: of any.
    types: Option<&'p [String]>,
    /// They have the first keys alike.
    alike: &'p [Alike],
    /// Behind this state.
    after: Option<&'p Cursor>,
}

type Walking<'w> = Pin<Box<dyn Future<Output = Result<Walked, StoreError>> + Send + 'w>>;

/// Whether an index has the order that a query begins with.
pub(super) fn is_walked(query: &Query) -> bool {
    query.sort.first().is_some_and(|key| Indexed::of(&key.field).is_some())
}

impl<'a, R: LedgerReader + ?Sized> Search<'a, R> {
    pub(super) fn new(
        reader: &'a R,
        identity: IdentityRow,
        query: &'a Query,
        (as_of, now): (Option<i64>, Timestamp),
        effort: Effort,
    ) -> Search<'a, R> {
        let wanted = query.limit as usize + 1;
        Search { reader, identity, query, as_of, now, effort, wanted, rows: Vec::new(), ahead: 0, shapes: None }
    }

    /// One more than the page has is known, so that it is clear whether there is another.
    fn is_full(&self) -> bool {
        self.rows.len() >= self.wanted || self.ahead >= PAGE_BYTES
    }

    fn add(&mut self, row: VaultRow) {
        if let Some(last) = self.rows.last() {
            self.ahead = self.ahead.saturating_add(last.bytes());
        }
        self.rows.push(row);
    }

    /// Reads states from where they are looked for, until the page is full or there are no more.
    pub(super) async fn read(&mut self, source: Source<'_>, after: Option<&Cursor>) -> Result<(), StoreError> {
        self.read_part(source, &Part { types: self.query.types.as_deref(), alike: &[], after }).await
    }

    async fn read_part(&mut self, source: Source<'_>, part: &Part<'_>) -> Result<(), StoreError> {
        let (query, as_of, now) = (self.query, self.as_of, self.now);
        let mut after = part.after.cloned();
        let missing = u32::try_from(self.wanted.saturating_sub(self.rows.len())).unwrap_or(MOST_READ);
        let mut limit = missing.clamp(LEAST_READ, MOST_READ);
        while !self.is_full() {
            let (types, alike) = (part.types, part.alike);
            let request = PageRequest { query, after: after.as_ref(), as_of, now, limit, types, alike, source };
            let read = self.reader.vault_candidates(self.identity, &request).await?;
            let last = is_last_page(limit, read.iter().map(VaultRow::bytes));
            after = read.last().filter(|_| !last).map(|row| query.cursor_after(&row.row));
            for row in read.into_iter().filter(|row| finds(query, &row.row, as_of)) {
                self.add(row);
            }
            if last {
                break;
            }
            limit = limit.saturating_mul(2).min(MOST_READ);
        }
        Ok(())
    }

    /// Whether the vault has at most so many states of the query's status and types. Which were consumed, or at another
    /// time, no index tells.
    pub(super) async fn has_at_most(&self, most: u32) -> Result<bool, StoreError> {
        let Query { status, types, .. } = self.query;
        if self.as_of.is_some() || *status == StatusFilter::Consumed {
            return Ok(false);
        }
        let counted = most.saturating_add(1);
        Ok(self.reader.count_of_states(self.identity, *status, types.as_deref(), counted).await? <= most)
    }

    /// Fills the page in the order of indexes.
    pub(super) async fn walk(&mut self, after: Option<&Cursor>) -> Result<Walked, StoreError> {
        let mut left = self.effort.walked;
        self.walk_part(Part { types: self.query.types.as_deref(), alike: &[], after }, &mut left).await
    }

    /// Goes through states that have the first keys alike, in the order of the others.
    fn walk_part<'w>(&'w mut self, part: Part<'w>, left: &'w mut u32) -> Walking<'w> {
        Box::pin(async move {
            let Some(key) = self.query.sort.get(part.alike.len()) else {
                return self.read_part(Source::Vault, &part).await.map(|()| Walked::Done);
            };
            let Some(index) = Indexed::of(&key.field) else {
                return self.read_part(Source::Vault, &part).await.map(|()| Walked::Done);
            };
            if let Some(same) = part.alike.iter().find(|alike| alike.is_of(&index)) {
                // It was sorted by before.
                let alike: Vec<Alike> = part.alike.iter().chain([same]).cloned().collect();
                return self.walk_part(Part { alike: &alike, ..part }, left).await;
            }
            let behind = part.after.and_then(|cursor| cursor.after().0.get(part.alike.len()));
            let behind = behind.map(|value| index.key(value));
            let mut begun = behind.is_none();
            // A null is the largest: states that lack the field come first where the largest does.
            for lacking in [key.descending, !key.descending] {
                let here = behind.as_ref().filter(|key| !begun && key.is_none() == lacking);
                if !begun && here.is_none() {
                    continue;
                }
                begun = true;
                let part = Part { after: part.after.filter(|_| here.is_some()), ..part };
                let walked = match lacking {
                    true => self.walk_lacking(part, &index, left).await?,
                    false => self.walk_index(part, &index, key, here.cloned().flatten(), left).await?,
                };
                if walked == Walked::GaveUp {
                    return Ok(Walked::GaveUp);
                }
            }
            Ok(Walked::Done)
        })
    }

    /// The states of a part that are in the index, from a key on.
    async fn walk_index(
        &mut self,
        part: Part<'_>,
        index: &Indexed,
        key: &SortKey,
        from: Option<SqlValue>,
        left: &mut u32,
    ) -> Result<Walked, StoreError> {
        let mut rest = whole(self.query, index, key.descending);
        let mut after = part.after;
        if let Some(from) = from.filter(|from| !begins_behind(&rest, from)) {
            rest.from = Bound::Included(from);
        } else {
            after = None;
        }
        let mut size = u32::try_from(self.wanted).unwrap_or(MOST_READ).clamp(self.effort.piece, MOST_READ);
        while !self.is_full() {
            let next = self.reader.vault_key_at(self.identity, &rest, size).await?;
            let Some(next) = next else {
                self.read_part(Source::Slice(&rest), &Part { after, ..part }).await?;
                break;
            };
            if *left == 0 {
                return Ok(Walked::GaveUp);
            }
            *left = left.saturating_sub(size);
            let here = Bound::Included(next);
            if here == rest.from {
                let one = Slice { to: here.clone(), ..rest.clone() };
                if let Walked::GaveUp = self.walk_key(&one, &Part { after, ..part }, left).await? {
                    return Ok(Walked::GaveUp);
                }
                rest.from = beyond(here);
            } else {
                let piece = Slice { to: beyond(here.clone()), ..rest.clone() };
                self.read_part(Source::Slice(&piece), &Part { after, ..part }).await?;
                rest.from = here;
            }
            after = None;
            size = size.saturating_mul(2).min(MOST_READ);
        }
        Ok(Walked::Done)
    }

    /// The states of one key.
    async fn walk_key(&mut self, one: &Slice, part: &Part<'_>, left: &mut u32) -> Result<Walked, StoreError> {
        let Bound::Included(key) = &one.from else { return Ok(Walked::Done) };
        let many = self.reader.vault_key_at(self.identity, one, self.effort.few).await?.is_some();
        let Some(same) = one.of.alike(key).filter(|_| many) else {
            return self.read_part(Source::Slice(one), part).await.map(|()| Walked::Done);
        };
        let alike: Vec<Alike> = part.alike.iter().cloned().chain([same]).collect();
        self.walk_part(Part { alike: &alike, ..*part }, left).await
    }

    /// The states of a part that are not in the index.
    async fn walk_lacking(&mut self, part: Part<'_>, index: &Indexed, left: &mut u32) -> Result<Walked, StoreError> {
        let Indexed::Field(name) = index else { return Ok(Walked::Done) };
        // Criteria that want the field to be so find none without.
        let wanted = |having: &Having| matches!(having, Having::Field(field) if field.name == *name);
        if self.is_full() || Having::of(self.query).iter().any(wanted) {
            return Ok(Walked::Done);
        }
        let lacking = self.lacking(name).await?;
        let types: Option<Vec<String>> = match (part.types, lacking) {
            (types, None) => types.map(<[String]>::to_vec),
            (None, lacking) => lacking,
            (Some(types), Some(lacking)) => Some(types.iter().filter(|name| lacking.contains(name)).cloned().collect()),
        };
        if types.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Walked::Done);
        }
        let alike: Vec<Alike> = part.alike.iter().cloned().chain([Alike::Lacks { name: name.clone() }]).collect();
        self.walk_part(Part { types: types.as_deref(), alike: &alike, ..part }, left).await
    }

    /// The types of which a state may lack a field; `None`: any type.
    async fn lacking(&mut self, name: &str) -> Result<Option<Vec<String>>, StoreError> {
        let shapes = match self.shapes.take() {
            Some(shapes) => shapes,
            None => self.reader.vault_shapes(self.identity, MOST_SHAPES).await?,
        };
        // None are known of a vault that an older version has filled.
        let known = !shapes.is_empty() && shapes.len() < MOST_SHAPES as usize;
        let lack = shapes.iter().filter(|shape| !shape.has(name)).map(|shape| shape.type_name.clone());
        let mut lacking: Vec<String> = lack.collect();
        lacking.dedup();
        self.shapes = Some(shapes);
        Ok(known.then_some(lacking))
    }
}

/// All of an index that a query's criteria let through.
fn whole(query: &Query, index: &Indexed, descending: bool) -> Slice {
    let (mut low, mut high) = (Bound::Unbounded, Bound::Unbounded);
    for having in Having::of(query) {
        match (having, index) {
            (Having::Recorded { from, to }, Indexed::Recorded) => {
                low = Bound::Included(SqlValue::Integer(from));
                high = Bound::Included(SqlValue::Integer(to));
            }
            (Having::Field(field), Indexed::Field(name)) if field.name == *name => {
                let (least, most) = field.ends();
                low = least.map_or(Bound::Unbounded, |key| Bound::Included(SqlValue::Bytes(key)));
                high = most.map_or(Bound::Unbounded, |key| Bound::Included(SqlValue::Bytes(key)));
            }
            _ => {}
        }
    }
    let (from, to) = if descending { (high, low) } else { (low, high) };
    Slice { of: index.clone(), descending, from, to }
}

/// Whether a slice begins behind a key.
fn begins_behind(slice: &Slice, key: &SqlValue) -> bool {
    match &slice.from {
        Bound::Included(from) | Bound::Excluded(from) if slice.descending => from < key,
        Bound::Included(from) | Bound::Excluded(from) => from > key,
        Bound::Unbounded => false,
    }
}

/// The same end without the key itself.
fn beyond(end: Bound<SqlValue>) -> Bound<SqlValue> {
    match end {
        Bound::Included(key) => Bound::Excluded(key),
        other => other,
    }
}
