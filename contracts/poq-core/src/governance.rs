//! What the contract's owner may change, and when: nothing acts before everybody could leave.
//!
//! Every lever is announced, acts `params_delay_ms` later at the earliest, and lapses a week after that. The delay is longer
//! than unbonding, the longest task, a pool's era and a day together, so that whoever does not like what is announced is out
//! with all stake before it acts.

use crate::params::DAY;
use crate::units::{Balance, Millis};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How long an announced change can be enacted once it may: a week.
pub const LAPSE_MS: Millis = 7 * DAY;
/// The longest period of any kind: 90 days.
pub const PERIOD_MAX: Millis = 90 * DAY;
/// What the delay must leave beyond unbonding and the longest task: a pool's era of at most a day, and a day to act in.
pub const LEAVE_MS: Millis = 2 * DAY;

/// Parameters that are not a kind's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GlobalParams {
    /// From unstaking to withdrawal, rounded up to a quarter of it. At least two epochs and the longest task; at most 90 days.
    pub unbonding_ms: Millis,
    /// From a task's end until anyone may collect it for its requester (the refund goes to the requester, the storage
    /// deposit to whoever cleans up). At most 90 days.
    pub archive_ms: Millis,
    /// What an auditor must have bonded to open references; above zero.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub audit_bond: Balance,
    /// How many references an auditor may open in an epoch.
    pub audits_per_epoch: u16,
    /// From the announcement of a change until it can act. At least unbonding, the longest task and two days; at most 90 days.
    pub params_delay_ms: Millis,
}

impl Default for GlobalParams {
    fn default() -> Self {
        GlobalParams {
            unbonding_ms: DAY,
            archive_ms: 30 * DAY,
            audit_bond: 100 * crate::params::UNIT,
            audits_per_epoch: 64,
            params_delay_ms: 4 * DAY,
        }
    }
}

impl GlobalParams {
    /// Whether these hold together, `epoch_ms` being the network's and `life_ms` the longest that a task of any kind lives.
    pub fn is_valid(&self, epoch_ms: Millis, life_ms: Millis) -> bool {
        let least = epoch_ms.saturating_mul(2).saturating_add(life_ms);
        let leave = self.unbonding_ms.saturating_add(life_ms).saturating_add(LEAVE_MS);
        epoch_ms > 0
            && self.unbonding_ms >= least.max(4)
            && (1..=PERIOD_MAX).contains(&self.archive_ms)
            && self.audit_bond > 0
            && self.params_delay_ms >= leave
            && self.params_delay_ms <= PERIOD_MAX
    }
}

/// An announced change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Pending<T> {
    /// What is to be.
    pub change: T,
    /// When it can be enacted, by anybody: a block timestamp.
    pub acts_at: Millis,
}

impl<T> Pending<T> {
    /// Announced at `now`.
    pub fn new(change: T, now: Millis, delay_ms: Millis) -> Pending<T> {
        Pending { change, acts_at: now.saturating_add(delay_ms) }
    }

    /// Whether it can be enacted.
    pub fn is_due(&self, now: Millis) -> bool {
        now >= self.acts_at && !self.has_lapsed(now)
    }

    /// Whether it is too late to enact it: then it is as if it had never been announced.
    pub fn has_lapsed(&self, now: Millis) -> bool {
        now > self.acts_at.saturating_add(LAPSE_MS)
    }
}
