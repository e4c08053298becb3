//! Parameters, and what is announced.

use super::{stored_json, Reads};
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::row;
use poq_chain::types::KindId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A version of a kind's parameters.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KindVersion {
    /// The kind.
    pub kind: u16,
    /// The version.
    pub version: u32,
    /// The block since which it holds.
    pub block: u32,
    /// Its time.
    pub at: u64,
    /// The parameters.
    #[schema(value_type = Object)]
    pub params: Value,
}

/// A kind.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KindInfo {
    /// The kind.
    pub kind: u16,
    /// The newest version of its parameters.
    pub version: u32,
    /// The newest parameters.
    #[schema(value_type = Object)]
    pub params: Value,
    /// x_ref: what evaluators' information gains are measured by.
    pub reference: u32,
    /// The average information gain in tasks with an opened reference, signed.
    pub gain_average: i64,
    /// The consensus values that it remembers.
    #[schema(value_type = Object)]
    pub ring: Value,
    /// Tasks requested.
    pub tasks: u64,
    /// Inference nodes that take part.
    pub inference: u64,
    /// Evaluators that take part.
    pub evaluators: u64,
}

/// A kind with all versions of its parameters.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KindDetail {
    /// The kind.
    pub kind: KindInfo,
    /// Its versions, the newest first.
    pub versions: Vec<KindVersion>,
}

/// What the contract's owner announced.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChangeInfo {
    /// The block of the announcement.
    pub block: u32,
    /// When it was announced.
    pub at: u64,
    /// What it is about: `kind 1`, `global`, `appoint …`, `slash …`, `code`.
    pub lever: String,
    /// The change.
    #[schema(value_type = Object)]
    pub change: Value,
    /// What holds now where that can be told: the kind's newest parameters, or the global ones.
    #[schema(value_type = Object)]
    pub present: Value,
    /// From when anybody can enact it, for a week.
    pub acts_at: u64,
    /// `pending`, `enacted`, `cancelled`, `lapsed`, or `at_once` for one that needed no announcement.
    pub state: String,
    /// When it came to that.
    pub state_at: Option<u64>,
}

/// An auditor.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditorInfo {
    /// Its account.
    pub account: String,
    /// Whether it may open references.
    pub appointed: bool,
    /// Its bond.
    pub bond: String,
    /// When a bond that waits can be withdrawn; 0 where none does.
    pub unbonds_at: u64,
    /// References that it has opened, as of the last event about it.
    pub audits: u32,
}

impl Reads {
    fn kind_info(&self, conn: &mut Conn, kind: KindId) -> Result<KindInfo> {
        let sql = "SELECT version, params FROM kinds WHERE kind = ?1 ORDER BY version DESC LIMIT 1";
        let newest = conn.first(sql, &row![kind])?;
        let newest = newest.ok_or_else(|| Error::Absent(format!("there is no kind {kind}")))?;
        let sql = "SELECT reference, gain_average, ring FROM populations WHERE kind = ?1";
        let remembered = conn.first(sql, &row![kind])?;
        let tasks = conn.first("SELECT COUNT(*) FROM tasks WHERE kind = ?1", &row![kind])?;
        let sql = "SELECT role, COUNT(*) FROM nodes WHERE kind = ?1 AND status = 'active' GROUP BY role";
        let counts = conn.query(sql, &row![kind])?;
        let count = |role: &str| counts.iter().find(|row| row.text(0) == role).map_or(0, |row| row.uint(1));
        Ok(KindInfo {
            kind,
            version: newest.u32(0),
            params: stored_json(&newest, 1),
            reference: remembered.as_ref().map_or(0, |row| row.u32(0)),
            gain_average: remembered.as_ref().map_or(0, |row| row.int(1)),
            ring: remembered.as_ref().map_or(Value::Null, |row| stored_json(row, 2)),
            tasks: tasks.map_or(0, |row| row.uint(0)),
            inference: count("inference"),
            evaluators: count("evaluator"),
        })
    }

    /// Every kind.
    ///
    /// # Errors
    /// `Database`.
    pub fn kinds(&self, conn: &mut Conn) -> Result<Vec<KindInfo>> {
        let rows = conn.query("SELECT DISTINCT kind FROM kinds ORDER BY kind", &[])?;
        let kinds = rows.iter().filter_map(|row| u16::try_from(row.int(0)).ok());
        kinds.map(|kind| self.kind_info(conn, kind)).collect()
    }

    /// A kind with all versions of its parameters.
    ///
    /// # Errors
    /// `Absent`, `Database`.
    pub fn kind_detail(&self, conn: &mut Conn, kind: KindId) -> Result<KindDetail> {
        let info = self.kind_info(conn, kind)?;
        let sql = "SELECT version, block, at, params FROM kinds WHERE kind = ?1 ORDER BY version DESC";
        let versions = conn.query(sql, &row![kind])?;
        let versions = versions.iter().map(|row| KindVersion {
            kind,
            version: row.u32(0),
            block: row.u32(1),
            at: row.uint(2),
            params: stored_json(row, 3),
        });
        Ok(KindDetail { kind: info, versions: versions.collect() })
    }

    /// What was announced, the latest first; only what can still act, where `pending`.
    ///
    /// # Errors
    /// `Database`.
    pub fn changes(&self, conn: &mut Conn, pending: bool) -> Result<Vec<ChangeInfo>> {
        let only = if pending { "WHERE state = 'pending'" } else { "" };
        let sql = format!(
            "SELECT block, at, lever, change, acts_at, state, state_at FROM changes {only} ORDER BY block DESC, idx DESC LIMIT 200"
        );
        let rows = conn.query(&sql, &[])?;
        let now = conn.first("SELECT at FROM tip WHERE id = 1", &[])?.map_or(0, |row| row.uint(0));
        let mut changes = Vec::new();
        for row in rows {
            let (lever, acts_at) = (row.text(2), row.uint(4));
            let lapsed =
                row.text(5) == "pending" && now > acts_at.saturating_add(poq_core::governance::LAPSE_MS);
            if lapsed && pending {
                continue;
            }
            let present = match lever.strip_prefix("kind ").and_then(|kind| kind.parse::<u16>().ok()) {
                Some(kind) => self.kind_info(conn, kind).map_or(Value::Null, |info| info.params),
                None if lever == "global" => {
                    let row = conn.first("SELECT global FROM totals WHERE id = 1", &[])?;
                    row.map_or(Value::Null, |row| stored_json(&row, 0))
                }
                None => Value::Null,
            };
            changes.push(ChangeInfo {
                block: row.u32(0),
                at: row.uint(1),
                lever,
                change: self.localised(stored_json(&row, 3)),
                present,
                acts_at,
                state: if lapsed { "lapsed".into() } else { row.text(5) },
                state_at: row.opt_int(6).and_then(|at| u64::try_from(at).ok()),
            });
        }
        Ok(changes)
    }

    /// Auditors.
    ///
    /// # Errors
    /// `Database`.
    pub fn auditors(&self, conn: &mut Conn) -> Result<Vec<AuditorInfo>> {
        let sql = "SELECT account, appointed, bond, unbonds_at, audits FROM auditors ORDER BY account";
        let rows = conn.query(sql, &[])?;
        let auditors = rows.iter().map(|row| AuditorInfo {
            account: self.shown(&row.text(0)),
            appointed: row.flag(1),
            bond: row.text(2),
            unbonds_at: row.uint(3),
            audits: row.u32(4),
        });
        Ok(auditors.collect())
    }
}
