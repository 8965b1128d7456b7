//! The audit trail: who did what, or was refused it. Rows of it are written beside all else, are about no identity's work,
//! and go in time and above a number.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maxhost_model::text::is_storable;

use crate::error::StoreError;

/// Longest text of a row, bytes. [`AuditRow::cut`] shortens what is longer.
pub const AUDIT_TEXT_BYTES: usize = 256;

/// What a row is about. Each class has numbers and a bound of its own, so that a flood of one pushes out nothing of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i64)]
pub enum AuditClass {
    /// What somebody may read, and what was refused.
    Look = 0,
    /// What changes something, and was allowed.
    Change = 1,
}

impl AuditClass {
    /// Both of them.
    pub const ALL: [AuditClass; 2] = [AuditClass::Look, AuditClass::Change];

    /// The class of a number, as it is stored.
    #[must_use]
    pub fn of(number: i64) -> Option<AuditClass> {
        AuditClass::ALL.into_iter().find(|class| *class as i64 == number)
    }
}

/// A row of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Rises within a run; a row that is handed in again with the same number is there once.
    pub seq: i64,
    /// Which bound it counts in.
    pub class: AuditClass,
    /// When it happened, ms since 1970.
    pub at: i64,
    /// The host that saw it.
    pub host: Arc<str>,
    /// Who it was.
    pub user: String,
    /// What he did or wanted.
    pub action: String,
    /// The identity that it was about.
    pub identity: Option<String>,
    /// The flow, `cordapp/flow`.
    pub flow: Option<String>,
    /// The flow's public id.
    pub flow_id: Option<String>,
    /// What else it was about: a host, a party, a transaction.
    pub detail: Option<String>,
    /// The id of the token that was shown.
    pub token: Option<String>,
    /// Whether he may do so.
    pub allowed: bool,
    /// The code with which it failed or was refused.
    pub code: Option<String>,
    /// How many calls this row stands for.
    pub count: i64,
}

impl AuditRow {
    /// Cuts all texts to [`AUDIT_TEXT_BYTES`].
    #[must_use]
    pub fn cut(mut self) -> AuditRow {
        cut_text(&mut self.user);
        cut_text(&mut self.action);
        let AuditRow { identity, flow, flow_id, detail, token, code, .. } = &mut self;
        for text in [identity, flow, flow_id, detail, token, code] {
            text.iter_mut().for_each(cut_text);
        }
        self
    }

    /// Bytes it holds in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let optional = [&self.identity, &self.flow, &self.flow_id, &self.detail, &self.token, &self.code];
        let texts = optional.into_iter().flatten().map(String::len).sum::<usize>();
        std::mem::size_of::<AuditRow>() + self.user.len() + self.action.len() + texts
    }
}

/// Cuts a text to [`AUDIT_TEXT_BYTES`], with a mark at its end. What not every database can hold is replaced.
pub(crate) fn cut_text(text: &mut String) {
    const MARK: char = '\u{2026}';
    if !is_storable(text) {
        *text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > AUDIT_TEXT_BYTES {
        let most = AUDIT_TEXT_BYTES - MARK.len_utf8();
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push(MARK);
    }
}

/// For how long rows are kept, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditBounds {
    /// How long, in the time that hosts run, so that a wrong wall clock takes nothing away that is young.
    pub keep: Duration,
    /// How many of each class; the oldest go first.
    pub rows: u64,
}

impl Default for AuditBounds {
    fn default() -> AuditBounds {
        AuditBounds { keep: Duration::from_secs(90 * 24 * 3600), rows: 500_000 }
    }
}

/// The place of a row in the order of the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditPlace {
    /// When it happened, ms since 1970.
    pub at: i64,
    /// Its class.
    pub class: AuditClass,
    /// Its number within the class.
    pub number: i64,
}

/// Which rows are read, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only of this user.
    pub user: Option<String>,
    /// Only about this identity.
    pub identity: Option<String>,
    /// Only what happened then or later, ms since 1970.
    pub since: Option<i64>,
    /// Only what comes behind this place, so older ones.
    pub before: Option<AuditPlace>,
    /// At most so many.
    pub limit: u32,
}

impl AuditFilter {
    /// The place below which rows are read: time, class and number; above all places that there are if none was named.
    #[must_use]
    pub fn below(&self) -> (i64, i64, i64) {
        self.before.map_or((i64::MAX, i64::MAX, i64::MAX), |place| (place.at, place.class as i64, place.number))
    }
}

/// Reads the trail.
#[async_trait]
pub trait AuditReader: Send + Sync {
    /// Rows of the trail with their places, newest first.
    ///
    /// # Errors
    /// The retriable ones, [`StoreError::Corrupt`] for a row that cannot be read, and [`StoreError::Closed`].
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<(AuditPlace, AuditRow)>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character_and_marked() {
        for c in ["a", "\u{e9}", "\u{20ac}", "\u{1f600}"] {
            let mut text = c.repeat(AUDIT_TEXT_BYTES + 1);
            cut_text(&mut text);
            assert!(text.len() <= AUDIT_TEXT_BYTES && text.len() > AUDIT_TEXT_BYTES - 8, "{}", text.len());
            assert!(text.starts_with(c) && text.ends_with('\u{2026}'));
        }
        let mut short = "a\0b".to_owned();
        cut_text(&mut short);
        assert_eq!(short, "a\u{fffd}b");
    }
}
