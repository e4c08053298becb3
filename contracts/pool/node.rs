//! The pool's node, in the contract that it is in.

use crate::errors::{Error, Result};
use ink::codegen::TraitCallBuilder;
use ink::env::call::FromAccountId;
use ink::primitives::{AccountId, MessageResult};
use poq_contract::types::{NodeUpdate, Registration};
use poq_contract::PoqRef;
use poq_core::node::Holding;
use poq_core::units::{Balance, Millis, NodeId};

/// What a call gives: the chain's answer, the dispatcher's, the contract's.
type Answer<T> = ink::env::Result<MessageResult<T>>;

/// A node of a contract.
#[derive(Clone, Copy)]
pub struct PoolsNode {
    /// The contract.
    pub poq: AccountId,
    /// The node's number.
    pub id: NodeId,
}

/// The contract at an address.
fn contract(poq: AccountId) -> PoqRef {
    PoqRef::from_account_id(poq)
}

fn answered<T>(answer: Answer<T>) -> Result<T> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        _ => Err(Error::NoAnswer),
    }
}

fn accepted<T>(answer: Answer<poq_contract::errors::Result<T>>) -> Result<T> {
    answered(answer)?.map_err(Error::Poq)
}

/// How long an epoch and an unbonding of the contract are.
#[inline(never)]
pub fn times(poq: AccountId) -> Result<(Millis, Millis)> {
    let overview = answered(contract(poq).call().overview().try_invoke())?;
    Ok((overview.epoch_ms, overview.global.unbonding_ms))
}

/// Registers a node of the caller's with its first stake.
#[inline(never)]
pub fn register(poq: AccountId, registration: Registration, stake: Balance) -> Result<PoolsNode> {
    let id = accepted(contract(poq).call_mut().register(registration).transferred_value(stake).try_invoke())?;
    Ok(PoolsNode { poq, id })
}

impl PoolsNode {
    /// What it has.
    #[inline(never)]
    pub fn holding(self) -> Result<Holding> {
        answered(contract(self.poq).call().holding(self.id).try_invoke())?.ok_or(Error::NoNode)
    }

    /// Takes what has unbonded.
    #[inline(never)]
    pub fn withdraw(self) -> Result<Balance> {
        accepted(contract(self.poq).call_mut().withdraw_unbonded(self.id).try_invoke())
    }

    /// Takes its rewards.
    #[inline(never)]
    pub fn claim(self) -> Result<Balance> {
        accepted(contract(self.poq).call_mut().claim(self.id).try_invoke())
    }

    /// Adds to its stake.
    #[inline(never)]
    pub fn stake(self, amount: Balance) -> Result<()> {
        accepted(contract(self.poq).call_mut().stake(self.id).transferred_value(amount).try_invoke())
    }

    /// Starts to unbond stake; returns when it can be taken.
    #[inline(never)]
    pub fn unstake(self, amount: Balance) -> Result<Millis> {
        accepted(contract(self.poq).call_mut().unstake(self.id, amount).try_invoke())
    }

    /// Changes what its registration said.
    #[inline(never)]
    pub fn configure(self, update: NodeUpdate) -> Result<()> {
        accepted(contract(self.poq).call_mut().configure(self.id, update).try_invoke())
    }

    /// Takes it out of the draws.
    #[inline(never)]
    pub fn drain(self) -> Result<()> {
        accepted(contract(self.poq).call_mut().drain(self.id).try_invoke())
    }

    /// Puts it back into them.
    #[inline(never)]
    pub fn resume(self) -> Result<()> {
        accepted(contract(self.poq).call_mut().resume(self.id).try_invoke())
    }

    /// Removes it, which the contract only does when nothing can be credited to it or taken from it any more.
    #[inline(never)]
    pub fn deregister(self) -> Result<()> {
        accepted(contract(self.poq).call_mut().deregister(self.id).try_invoke())
    }
}
