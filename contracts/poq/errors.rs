//! Why a message is refused.

use poq_core::params::ParamsError;

/// Why a message is refused. Nothing has changed when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Error {
    /// Returned if the caller is not the contract's owner.
    NotContractOwner,
    /// Returned if the caller is not the node's owner.
    NotNodeOwner,
    /// Returned if the caller is not the node's operator.
    NotOperator,
    /// Returned if the caller may not claim for the node: only its owner and its payee may.
    NotPayee,
    /// Returned if the caller is not the task's requester and the task is not yet open to anybody's cleaning up.
    NotRequester,
    /// Returned if there is no such node.
    NoNode,
    /// Returned if there is no such task: it never was, or has been collected.
    NoTask,
    /// Returned if there is no such task kind.
    NoKind,
    /// Returned if there is no such version of the kind's parameters.
    NoParams,
    /// Returned if the node is not one of those drawn for the task.
    NotAssigned,
    /// Returned if new tasks are paused.
    Paused,
    /// Returned if a text is longer than 256 bytes.
    TextTooLong,
    /// Returned if a batch is empty or has more than 64 items.
    BatchSize,
    /// Returned if an account has as many nodes or tasks as it may have.
    TooMany,
    /// Returned if the number of inference nodes or evaluators is outside the kind's bounds.
    PanelSize,
    /// Returned if the fee does not fill every slot at its least size.
    FeeTooSmall,
    /// Returned if too few nodes could be drawn: too few are registered, staked, affordable, free and independent of the
    /// requester and of each other. Trying again in a later block draws anew.
    TooFewNodes,
    /// Returned if the amount is zero or does not fit what is there.
    BadAmount,
    /// Returned if the stake would fall between zero and the kind's minimum: unstake all of it, or less.
    StakeBelowMinimum,
    /// Returned if there is nothing to withdraw.
    NothingToWithdraw,
    /// Returned if the unbonding period is not over.
    StillUnbonding,
    /// Returned if the node has open duties, stake or rewards.
    NodeInUse,
    /// Returned if the task is not in the phase that the message is for, or its deadline has passed.
    WrongPhase,
    /// Returned if the message comes before its time: duties are open, or the block is the one of the last commitment.
    TooEarly,
    /// Returned if another commitment of this node is already there. The same commitment again is accepted.
    AlreadyCommitted,
    /// Returned if the node has not committed, so there is nothing to reveal.
    NotCommitted,
    /// Returned if the node has already revealed.
    AlreadyRevealed,
    /// Returned if the commitment is all zero.
    BadCommitment,
    /// Returned if there is not one score per output.
    BadScores,
    /// Returned if the task is not final.
    NotFinal,
    /// Returned if nobody has been proposed as owner, or somebody else has.
    NotProposed,
    /// Returned if the parameters are refused, with the rule that they break.
    BadParams(ParamsError),
    /// Returned if the amount exceeds what the contract has beyond its liabilities.
    Insolvent,
    /// Returned if the chain refused a transfer out of the contract.
    TransferFailed,
    /// Returned if an amount or a counter would overflow. Nobody has that much money.
    Overflow,
    /// Returned if the caller is no auditor, has bonded too little, or has a node of its own on the task's panel.
    NotAuditor,
    /// Returned if the opening does not match the task's commitments, has nothing to compare, or is too long.
    BadOpening,
}

/// The result of a message.
pub type Result<T> = core::result::Result<T, Error>;

impl From<ParamsError> for Error {
    fn from(error: ParamsError) -> Self {
        Error::BadParams(error)
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Texts are for the tools, not for the chain: without `std` only the variant's name would cost code.
        #[cfg(feature = "std")]
        {
            f.write_str(self.explain())?;
            if let Error::BadParams(rule) = self {
                write!(f, ": {rule}")?;
            }
            Ok(())
        }
        #[cfg(not(feature = "std"))]
        {
            let _ = f;
            Ok(())
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "std")]
impl Error {
    /// What was wrong and what to do, in one sentence.
    pub fn explain(&self) -> &'static str {
        match self {
            Error::NotContractOwner => "only the contract's owner may do this",
            Error::NotNodeOwner => "only the node's owner account may do this",
            Error::NotOperator => "only the node's operator account may do its duties; check the key in use",
            Error::NotPayee => "only the node's owner or payee may claim its rewards",
            Error::NotRequester => "only the task's requester may collect it until its archive time has passed",
            Error::NoNode => "there is no node of that number",
            Error::NoTask => "there is no task of that number: it never was, or has been collected",
            Error::NoKind => "there is no task kind of that number; `poq params show` lists them",
            Error::NoParams => "there is no such version of the kind's parameters",
            Error::NotAssigned => "the node was not drawn for this task",
            Error::Paused => "new tasks are paused; claims, refunds and settlements go on",
            Error::TextTooLong => "a model name, endpoint or input address is longer than 256 bytes",
            Error::BatchSize => "a batch takes 1 to 64 items",
            Error::TooMany => "the account has as many nodes (32) or uncollected tasks (256) as it may have",
            Error::PanelSize => "the number of outputs or evaluators is outside the kind's bounds",
            Error::FeeTooSmall => "the fee does not fill every slot; `poq params show` tells the smallest fee",
            Error::TooFewNodes => {
                "too few independent nodes with enough free stake could be drawn; try again in a later block, or wait for nodes"
            }
            Error::BadAmount => "the amount is zero or more than there is",
            Error::StakeBelowMinimum => "the stake that remains would be below the kind's minimum: unstake all or less",
            Error::NothingToWithdraw => "there is nothing to withdraw",
            Error::StillUnbonding => "the unbonding period is not over",
            Error::NodeInUse => "the node still has open duties, stake or rewards",
            Error::WrongPhase => "the task is not in that phase, or the phase's deadline has passed",
            Error::TooEarly => "it is too early: duties are still open, or the panel is drawn in a later block",
            Error::AlreadyCommitted => "the node has already committed to something else in this task",
            Error::NotCommitted => "the node has not committed, so it has nothing to reveal",
            Error::AlreadyRevealed => "the node has already revealed",
            Error::BadCommitment => "a commitment cannot be all zero",
            Error::BadScores => "there must be one score per output",
            Error::NotFinal => "the task is neither settled nor refunded",
            Error::NotProposed => "the caller has not been proposed as the owner",
            Error::BadParams(_) => "the parameters are refused",
            Error::Insolvent => "the contract does not have that much beyond what it owes",
            Error::TransferFailed => "the chain refused the transfer out of the contract",
            Error::Overflow => "an amount or a counter would overflow",
            Error::NotAuditor => {
                "only an appointed auditor with a full bond may do this, and not where a node of its own is on the panel"
            }
            Error::BadOpening => {
                "the opening does not match the task's commitments, holds no output, or is longer than 256 bytes of reference \
                 and 2,048 bytes per output"
            }
        }
    }
}
