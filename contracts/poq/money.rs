//! Sums that do not overflow, payments out of the contract, and what anybody can take of what is theirs.

use crate::errors::{Error, Result};
use crate::events::{emit, Burned, Claimed, Collected, StakeWithdrawn, TreasuryWithdrawn, Withdrawn};
use crate::poq::Poq;
use crate::storage::TASKS;
use crate::types::*;
use ink::codegen::Env;
use ink::env::hash::Blake2x256;
use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use poq_core::commitment::Hash;
use poq_core::units::{Balance, NodeId, TaskId};

/// What is hashed to the account that burned money goes to. Nobody has its key.
const BURN: &[u8] = b"poq/v2/burn";

/// blake2b-256.
#[inline(never)]
pub fn blake2(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    ink::env::hash_bytes::<Blake2x256>(bytes, &mut hash);
    hash
}

/// a + b.
///
/// # Errors
/// `Overflow`.
pub fn add(a: Balance, b: Balance) -> Result<Balance> {
    a.checked_add(b).ok_or(Error::Overflow)
}

/// a − b.
///
/// # Errors
/// `Overflow`.
pub fn sub(a: Balance, b: Balance) -> Result<Balance> {
    a.checked_sub(b).ok_or(Error::Overflow)
}

/// Checks the size of a batch.
///
/// # Errors
/// `BatchSize`.
pub fn check_batch(items: usize) -> Result<()> {
    if items == 0 || items > MAX_BATCH {
        Err(Error::BatchSize)
    } else {
        Ok(())
    }
}

impl Poq {
    /// What the contract can spend. The pallet's `balance` already leaves out what keeps the account alive and what is held
    /// as storage deposit.
    pub(crate) fn spendable(&self) -> Balance {
        self.env().balance()
    }

    /// Pays out of the contract. A plain transfer: no code of the receiver runs.
    pub(crate) fn pay(&self, to: AccountId, amount: Balance) -> Result<()> {
        self.env().transfer(to, amount).map_err(|_| Error::TransferFailed)
    }

    #[inline(never)]
    pub(crate) fn claim_rewards(&self, id: NodeId) -> Result<Balance> {
        let caller = self.env().caller();
        let session = self.session();
        let mut node = session.load(id)?;
        if caller != node.owner && caller != node.payee {
            return Err(Error::NotPayee);
        }
        let amount = core::mem::take(&mut node.claimable);
        if amount == 0 {
            return Err(Error::NothingToWithdraw);
        }
        node.withdrawn = add(node.withdrawn, amount)?;
        session.save(id, &node);
        session.book(&|owed| {
            owed.claimable = sub(owed.claimable, amount)?;
            Ok(())
        })?;
        session.finish();
        self.pay(node.payee, amount)?;
        emit(&Claimed { node: id, to: node.payee, amount });
        Ok(amount)
    }

    #[inline(never)]
    pub(crate) fn withdraw_stake(&self, id: NodeId) -> Result<Balance> {
        let session = self.session();
        let mut node = self.owned(&session, id)?;
        if node.stake.unbonding() == 0 {
            return Err(Error::NothingToWithdraw);
        }
        let amount = node.stake.withdraw(session.now);
        if amount == 0 {
            return Err(Error::StillUnbonding);
        }
        session.save(id, &node);
        session.book(&|owed| {
            owed.stakes = sub(owed.stakes, amount)?;
            Ok(())
        })?;
        session.finish();
        self.pay(node.owner, amount)?;
        emit(&StakeWithdrawn { node: id, to: node.owner, amount });
        Ok(amount)
    }

    #[inline(never)]
    pub(crate) fn withdraw_credit(&self) -> Result<Balance> {
        let to = self.env().caller();
        let session = self.session();
        let mut account = session.account(to);
        let amount = core::mem::take(&mut account.credit);
        if amount == 0 {
            return Err(Error::NothingToWithdraw);
        }
        account.collected = add(account.collected, amount)?;
        session.set_account(to, &account);
        session.book(&|owed| {
            owed.claimable = sub(owed.claimable, amount)?;
            Ok(())
        })?;
        session.finish();
        self.pay(to, amount)?;
        emit(&Withdrawn { to, amount });
        Ok(amount)
    }

    /// Frees final tasks' records and pays their refunds; what the chain refuses to pay becomes credit.
    #[inline(never)]
    pub(crate) fn collect_tasks(&self, tasks: &[TaskId]) -> Result<Balance> {
        check_batch(tasks.len())?;
        let caller = self.env().caller();
        let session = self.session();
        let mut requester: Option<AccountId> = None;
        let mut account = Account::default();
        let mut total: Balance = 0;
        for id in tasks {
            // Read anew: a number given twice has no task the second time.
            let task = TASKS.get(*id).ok_or(Error::NoTask)?;
            let to = match requester {
                Some(to) => to,
                None => {
                    account = session.account(task.requester);
                    requester = Some(task.requester);
                    task.requester
                }
            };
            // A final task's deadline is when it ended.
            let archived = session.now > task.deadline.saturating_add(self.global.0.archive_ms);
            if task.requester != to || (caller != to && !archived) {
                return Err(Error::NotRequester);
            }
            if !task.phase.is_final() {
                return Err(Error::NotFinal);
            }
            TASKS.remove(*id);
            account.tasks.retain(|open| open != id);
            total = add(total, task.refund)?;
            emit(&Collected { task: *id, to, amount: task.refund });
        }
        let to = requester.ok_or(Error::BatchSize)?;
        let paid = total == 0 || self.pay(to, total).is_ok();
        if paid {
            account.collected = add(account.collected, total)?;
        } else {
            account.credit = add(account.credit, total)?;
        }
        session.set_account(to, &account);
        session.book(&|owed| {
            owed.refunds = sub(owed.refunds, total)?;
            if !paid {
                owed.claimable = add(owed.claimable, total)?;
            }
            Ok(())
        })?;
        session.finish();
        Ok(total)
    }

    #[inline(never)]
    pub(crate) fn pay_treasury(&self, to: AccountId, amount: Balance) -> Result<()> {
        self.only_owner()?;
        if amount == 0 {
            return Err(Error::BadAmount);
        }
        let session = self.session();
        let mut books = session.books();
        let owed = &mut books.liabilities;
        let owed_to_others = sub(owed.total(), owed.treasury)?;
        let beyond = self.spendable().checked_sub(owed_to_others).ok_or(Error::Insolvent)?;
        if amount > beyond {
            return Err(Error::Insolvent);
        }
        owed.treasury = owed.treasury.saturating_sub(amount);
        session.set_books(&books);
        session.finish();
        self.pay(to, amount)?;
        emit(&TreasuryWithdrawn { to, amount });
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn burn_burned(&self) -> Result<Balance> {
        let session = self.session();
        let mut books = session.books();
        let amount = core::mem::take(&mut books.liabilities.burned);
        if amount == 0 {
            return Err(Error::NothingToWithdraw);
        }
        session.set_books(&books);
        session.finish();
        self.pay(blake2(BURN).into(), amount)?;
        emit(&Burned { amount });
        Ok(amount)
    }

    #[inline(never)]
    pub(crate) fn balances_of(&self, id: AccountId) -> Balances {
        let session = self.session();
        let account = session.account(id);
        let mut sums = Balances {
            withdrawn: account.collected,
            claimable: account.credit,
            credit: account.credit,
            ..Balances::default()
        };
        let nodes: Vec<Node> = account.nodes.iter().filter_map(|id| session.load(*id).ok()).collect();
        for node in nodes {
            sums.staked = sums.staked.saturating_add(node.stake.bonded);
            sums.locked = sums.locked.saturating_add(node.stake.locked);
            sums.unbonding = sums.unbonding.saturating_add(node.stake.unbonding());
            sums.withdrawable = sums.withdrawable.saturating_add(node.stake.withdrawable(session.now));
            sums.claimable = sums.claimable.saturating_add(node.claimable);
            sums.withdrawn = sums.withdrawn.saturating_add(node.withdrawn);
            sums.slashed = sums.slashed.saturating_add(node.slashed);
            for task in node.open.iter().filter(|id| **id != 0).filter_map(|id| TASKS.get(*id)) {
                let slot = match node.role {
                    Role::Inference => task.terms.inference_slot,
                    Role::Evaluator => task.terms.evaluator_slot,
                };
                sums.pending = sums.pending.saturating_add(slot);
            }
        }
        for task in account.tasks.iter().filter_map(|id| TASKS.get(*id)) {
            if task.phase.is_final() {
                sums.claimable = sums.claimable.saturating_add(task.refund);
            } else {
                sums.pending = sums.pending.saturating_add(task.fee);
            }
        }
        Balances { nodes: account.nodes, tasks: account.tasks, ..sums }
    }
}
