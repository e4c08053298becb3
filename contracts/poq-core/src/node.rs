//! A node's record, and what duties and settlements do to it.

use crate::commitment::Hash;
use crate::params::{KindParams, MAX_OPEN, MISSES_MAX};
use crate::registry::{weight_of, Account, Epoch, Error, Registered, Role, Stake, Standing};
use crate::units::{AccountId, Balance, KindId, Ratio, Signed, SignedBalance, TaskId};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// Whether a node takes part in draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub enum NodeStatus {
    /// Drawn while its stake is at least the kind's minimum.
    Active,
    /// Finishes its open duties and is drawn no more from the next epoch on, until it resumes.
    Draining,
}

/// What a node has done so far, weighed by what its tasks burned of their fees: a record cannot be had for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode, TypeInfo)]
pub struct Record {
    /// Tasks that ended with this node in them.
    pub tasks: u32,
    /// What those that were settled burned.
    pub burned: Balance,
    /// The same times the quality of its output, or its merit: the mean is `earned / burned`.
    pub earned: Balance,
}

/// The part of a node that duties and settlements touch. Of constant size, so that no duty costs or returns a storage
/// deposit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
// ink!'s accounts describe themselves only where metadata is made.
#[cfg_attr(feature = "std", derive(TypeInfo))]
pub struct Node {
    /// The cold account: stakes, unstakes, claims, configures.
    pub owner: AccountId,
    /// The hot account: duties only.
    pub operator: AccountId,
    /// The account that rewards are paid to.
    pub payee: AccountId,
    /// What it does.
    pub role: Role,
    /// The task kind that it serves.
    pub kind: KindId,
    /// Whether it takes part in draws.
    pub status: NodeStatus,
    /// Its model's digest, as it says itself.
    pub model_digest: Hash,
    /// What it asks per task.
    pub price: Balance,
    /// Its stake.
    pub stake: Stake,
    /// Rewards credited and not yet withdrawn.
    pub claimable: Balance,
    /// Rewards withdrawn so far.
    pub withdrawn: Balance,
    /// Stake slashed so far.
    pub slashed: Balance,
    /// What it has done.
    pub record: Record,
    /// Its trust; one for inference nodes.
    pub trust: Ratio,
    /// Its moving average of information gains in gold tasks, in signed parts per billion.
    pub gain_average: Signed,
    /// What its scores have earned and no task has paid yet; below zero what is held back
    /// ([`crate::formulas::merit::spread`]). Nobody owes it: it is what later tasks can pay out of their fees.
    pub due: SignedBalance,
    /// Duties missed in a row.
    pub misses: u8,
    /// Its weight by epochs and its place in the draw's pool.
    pub standing: Standing,
    /// The tasks that it has open duties or stake in; 0 for a free slot.
    pub open: [TaskId; MAX_OPEN],
}

impl Registered for Node {
    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }

    fn owner(&self) -> Account {
        *self.owner.as_ref()
    }
}

/// How a task ended for one of its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The task.
    pub task: TaskId,
    /// What it had at risk.
    pub at_risk: Balance,
    /// What it gets.
    pub payout: Balance,
    /// What it loses of the stake at risk.
    pub slashed: Balance,
    /// Whether it missed its duty.
    pub missed: bool,
    /// What goes on its record: what the task burned, and the quality of its output or its merit.
    pub record: Option<(Balance, Ratio)>,
    /// What it adds to what is due to an evaluator.
    pub due: SignedBalance,
}

impl Node {
    /// How many open tasks it has.
    pub fn open_count(&self) -> usize {
        self.open.iter().filter(|task| **task != 0).count()
    }

    /// Whether another task can put so much at risk.
    pub fn can_take(&self, at_risk: Balance) -> bool {
        self.open_count() < MAX_OPEN && self.stake.lockable() >= at_risk
    }

    /// The weight that belongs to it under these parameters when its owner acts.
    pub fn weight(&self, params: &KindParams) -> Ratio {
        self.weight_from(params, params.stake_min)
    }

    /// The weight that belongs to it after a slash or a settlement: it stays in the draws down to a half of the minimum, or
    /// whoever stakes no more than that would be thrown out by the first small loss.
    pub fn settled_weight(&self, params: &KindParams) -> Ratio {
        self.weight_from(params, params.stake_min >> 1)
    }

    fn weight_from(&self, params: &KindParams, least: Balance) -> Ratio {
        let active = self.status == NodeStatus::Active;
        weight_of(active, self.stake.bonded, self.trust, least.max(1), params.stake_cap)
    }

    /// Takes on a task's duty and puts stake at risk for it.
    ///
    /// # Errors
    /// `Amount` where it has no slot or no stake left.
    pub fn take(&mut self, task: TaskId, at_risk: Balance) -> Result<(), Error> {
        let slot = self.open.iter_mut().find(|open| **open == 0).ok_or(Error::Amount)?;
        self.stake.lock(at_risk)?;
        *slot = task;
        Ok(())
    }

    /// Ends a task's duty. `params` are the kind's newest, whatever the task ran under: they decide what the node weighs from the
    /// next epoch on. Two missed duties in a row take it out of the draws.
    ///
    /// # Errors
    /// `Amount` where less was at risk, `Overflow`.
    pub fn finish(&mut self, outcome: &Outcome, params: &KindParams, now: Epoch) -> Result<(), Error> {
        let overflow = |sum: Option<Balance>| sum.ok_or(Error::Overflow);
        self.stake.release(outcome.at_risk, outcome.slashed)?;
        self.claimable = overflow(self.claimable.checked_add(outcome.payout))?;
        self.slashed = overflow(self.slashed.checked_add(outcome.slashed))?;
        if let Some(slot) = self.open.iter_mut().find(|open| **open == outcome.task) {
            *slot = 0;
        }
        self.record.tasks = self.record.tasks.saturating_add(1);
        if let Some((burned, value)) = outcome.record {
            self.record.burned = self.record.burned.saturating_add(burned);
            self.record.earned = self.record.earned.saturating_add(value.of(burned));
        }
        self.due = self.due.saturating_add(outcome.due);
        self.misses = if outcome.missed { self.misses.saturating_add(1) } else { 0 };
        if self.misses >= MISSES_MAX {
            self.status = NodeStatus::Draining;
        }
        self.standing.reweigh(now, self.settled_weight(params));
        Ok(())
    }
}

/// What a pool needs to know of its node. This layout never changes: pools outlive the contract's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode, TypeInfo)]
pub struct Holding {
    /// Stake that counts in draws.
    pub bonded: Balance,
    /// Stake on its way out, ripe or not.
    pub unbonding: Balance,
    /// What of it can be withdrawn now.
    pub withdrawable: Balance,
    /// Rewards credited and not yet claimed.
    pub claimable: Balance,
}
