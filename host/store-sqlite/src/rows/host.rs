//! The rows that a host writes for itself and for no flow: who holds an identity, the audit trail, and what is forgotten in time.

use maxhost_group_commit::Fault;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::Imports;
use maxhost_store::{
    AuditClass, AuditRow, Claim, HostRows, Orphan, ResultRead, UNTAKEN_BYTES, UNTAKEN_ROWS, UNTAKEN_TRIES, Untaken,
    UntakenCount,
};
use rusqlite::{Row, params};

use super::{SqliteRows, claim, fault};

impl HostRows for SqliteRows<'_> {
    fn add_identity(&mut self, name: &str) -> Result<IdentityRow, Fault> {
        self.sql.add_identity.execute([name]).map_err(fault)?;
        let read = |row: &Row<'_>| Ok((IdentityRow(row.get(0)?), claim(row, 1)?));
        let (row, claim) = self.sql.find_identity.query_row([name], read).map_err(fault)?;
        self.claims.insert(row, claim);
        Ok(row)
    }

    fn set_claim(&mut self, identity: IdentityRow, claim: Claim, key_fp: Option<&[u8; 32]>) -> Result<(), Fault> {
        let key_fp = key_fp.map(|key_fp| &key_fp[..]);
        let row = params![identity.0, claim.token.generation, claim.token.epoch, claim.run.0, key_fp];
        self.sql.set_claim.execute(row).map_err(fault)?;
        self.claims.insert(identity, claim);
        Ok(())
    }

    fn set_unclean(&mut self, identity: IdentityRow, unclean: u32) -> Result<(), Fault> {
        self.sql.set_unclean.execute(params![identity.0, unclean]).map(drop).map_err(fault)
    }

    fn expire(&mut self, limit: u32) -> Result<u64, Fault> {
        Ok(self.expire_rows(limit)?)
    }

    fn forget_processed(&mut self, limit: u32) -> Result<u64, Fault> {
        let before = self.lived.now().saturating_sub(self.processed_retention);
        let gone = self.sql.forget_processed.execute(params![before, limit]).map_err(fault)?;
        Ok(gone as u64)
    }

    fn drop_orphans(&mut self, limit: u32) -> Result<Vec<Orphan>, Fault> {
        let before = self.lived.now().saturating_sub(self.processed_retention);
        let read = |row: &Row<'_>| {
            Ok(Orphan { identity: IdentityRow(row.get(0)?), bytes: row.get::<_, i64>(1)?.unsigned_abs() })
        };
        let rows = self.sql.drop_orphans.query_map(params![before, limit, self.run.0], read).map_err(fault)?;
        rows.collect::<Result<_, _>>().map_err(fault)
    }

    fn note_result_read(&mut self, read: &ResultRead) -> Result<(), Fault> {
        self.sql.result_read.execute(params![read.flow.0, read.at]).map(drop).map_err(fault)
    }

    fn note_untaken(&mut self, untaken: &Untaken) -> Result<UntakenCount, Fault> {
        let Untaken { identity, message_id, at, sender, reason, body } = untaken;
        let (id, body) = (&message_id[..], &body[..]);
        self.sql.count_untaken.execute(params![identity.0, id, at, sender, reason]).map_err(fault)?;
        let read = |row: &Row<'_>| row.get::<_, i64>(0);
        let tries = self.sql.untaken_tries.query_row(params![identity.0, id], read).map_err(fault)?.unsigned_abs();
        let most = i64::try_from(UNTAKEN_BYTES).unwrap_or(i64::MAX);
        let is_kept = tries >= UNTAKEN_TRIES
            && self.sql.keep_untaken.execute(params![identity.0, id, body, most]).map_err(fault)? > 0;
        self.sql.forget_untaken.execute(params![identity.0, UNTAKEN_ROWS]).map_err(fault)?;
        Ok(UntakenCount { tries, is_kept })
    }

    fn imports(&mut self, identity: IdentityRow, id: &SecureHash) -> Result<Imports, Fault> {
        let read = |row: &Row<'_>| {
            let (attachments, bytes) = (row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, i64>(2)?.unsigned_abs());
            Ok(Imports { has: row.get(0)?, attachments, bytes })
        };
        self.ledger.imports.query_row(params![identity.0, id.as_bytes()], read).map_err(fault)
    }

    fn add_audit(&mut self, rows: &[AuditRow]) -> Result<(), Fault> {
        let lived = self.lived.now();
        for class in AuditClass::ALL {
            let mut number = self.newest_audit(class)?;
            for row in rows.iter().filter(|row| row.class == class) {
                let values = params![
                    class as i64,
                    number + 1,
                    self.run.0,
                    row.seq,
                    lived,
                    row.at,
                    &*row.host,
                    row.user,
                    row.action,
                    row.identity,
                    row.flow,
                    row.flow_id,
                    row.detail,
                    row.allowed,
                    row.code,
                    row.count,
                    row.token
                ];
                // One that is there already leaves no gap in the numbers.
                number += self.sql.add_audit.execute(values).map_err(fault)? as i64;
            }
        }
        Ok(())
    }

    fn forget_audit(&mut self, limit: u32) -> Result<u64, Fault> {
        let keep = i64::try_from(self.audit.keep.as_millis()).unwrap_or(i64::MAX);
        let old = self.lived.now().saturating_sub(keep);
        let mut gone = 0;
        for class in AuditClass::ALL {
            let most = i64::try_from(self.audit.rows).unwrap_or(i64::MAX);
            let above = self.newest_audit(class)?.saturating_sub(most);
            gone += self.sql.forget_audit.execute(params![class as i64, old, above, limit]).map_err(fault)? as u64;
        }
        Ok(gone)
    }
}

impl SqliteRows<'_> {
    /// The highest number of a row of the audit trail; 0 if there is none.
    fn newest_audit(&mut self, class: AuditClass) -> Result<i64, Fault> {
        let newest: Option<i64> = self.sql.newest_audit.query_row([class as i64], |row| row.get(0)).map_err(fault)?;
        Ok(newest.unwrap_or(0))
    }
}
