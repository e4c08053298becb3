//! Why a message is refused.

use poq_core::params::ParamsError;
use poq_core::registry;
use poq_core::task::Refusal;
use poq_core::units::NodeId;

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
    /// Returned if the task refuses the input, with the reason.
    Task(Refusal),
    /// Returned if the registry refuses, with the reason.
    Registry(registry::Error),
    /// Returned if the caller is not the task's requester and the task is not yet open to anybody's cleaning up.
    NotRequester,
    /// Returned if there is no such node.
    NoNode,
    /// Returned if there is no such task: it never was, or has been collected.
    NoTask,
    /// Returned if there is no such task kind.
    NoKind,
    /// Returned if new tasks are paused.
    Paused,
    /// Returned if a text is longer than 256 bytes.
    TextTooLong,
    /// Returned if a batch is empty or has more than 64 items; and for an item of a batch that found no memory left: send it again.
    BatchSize,
    /// Returned if an account has as many nodes or tasks as it may have.
    TooMany,
    /// Returned if the number of inference nodes or evaluators is outside the kind's bounds.
    PanelSize,
    /// Returned if the fee does not fill every slot at its least size, or is above the kind's largest.
    BadFee,
    /// Returned if too few nodes are registered for such a panel, or too few inference nodes could be drawn: too few are staked,
    /// affordable, free and independent of the requester and of each other.
    TooFewNodes,
    /// Returned if a named node cannot take the task: it is no inference node of the kind, asks more than its slot, is draining,
    /// has too little free stake or too many open tasks, or has the owner of another one or of the request.
    NodeUnavailable(NodeId),
    /// Returned if the input is empty or too long.
    BadInput,
    /// Returned if the reference commitment is all zero or was used lately, or the hash of the secret is all zero.
    BadCommitment,
    /// Returned if the transferred value is not the sum of the fees.
    WrongValue,
    /// Returned if the amount is zero or does not fit what is there.
    BadAmount,
    /// Returned if there is nothing to withdraw.
    NothingToWithdraw,
    /// Returned if the unbonding period is not over, or a slash of the bond is announced.
    StillUnbonding,
    /// Returned if such a change is announced already: cancel it first.
    AlreadyPending,
    /// Returned if no such change is announced, or it has lapsed.
    NotPending,
    /// Returned if the change cannot act yet.
    NotDue,
    /// Returned if the account is no contract, or its code cannot be taken.
    BadCode,
    /// Returned if only the contract itself may do this.
    NotItself,
    /// Returned if the node has open duties, stake or rewards.
    NodeInUse,
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
    /// Returned if the caller is no auditor, has bonded too little, owns a node of the task, or has opened as many references in
    /// this epoch as it may.
    NotAuditor,
    /// Returned if the task is not settled by its panel, is audited already, or its time for that is over.
    NotAuditable,
    /// Returned if the opening does not match the task's commitments, has nothing to compare, or is too long.
    BadOpening,
}

/// The result of a message.
pub type Result<T> = core::result::Result<T, Error>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Task(refusal)
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        match error {
            registry::Error::Overflow => Error::Overflow,
            registry::Error::Amount => Error::BadAmount,
            error => Error::Registry(error),
        }
    }
}

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
            match self {
                Error::BadParams(rule) => write!(f, ": {rule}"),
                Error::Registry(error) => write!(f, ": {error}"),
                Error::NodeUnavailable(node) => write!(f, ": node {node}"),
                _ => Ok(()),
            }
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
            Error::Paused => "new tasks are paused; claims, refunds and settlements go on",
            Error::TextTooLong => "a model name, endpoint or input address is longer than 256 bytes",
            Error::BatchSize => {
                "a batch takes 1 to 64 items, of large tasks as many as there is memory for: send the others again"
            }
            Error::TooMany => "the account has as many nodes (32) or uncollected tasks (256) as it may have",
            Error::PanelSize => "the number of outputs or evaluators is outside the kind's bounds",
            Error::Task(refusal) => refusal.explain(),
            Error::Registry(_) => "the registry refuses",
            Error::BadFee => {
                "the fee does not fill every slot, or is above the kind's largest; `poq params show` tells both"
            }
            Error::TooFewNodes => {
                "too few independent nodes with enough stake are there for such a task; ask for fewer, or wait for nodes (who \
                 registers is there from the next epoch on)"
            }
            Error::NodeUnavailable(_) => {
                "a named node cannot take this task: it is no inference node of the kind, asks more than its slot, drains, has too \
                 little free stake or too many open tasks, or shares its owner with another or with the request"
            }
            Error::BadInput => "the input is empty or too long: 256 bytes of address, 2,048 bytes in the request itself",
            Error::BadCommitment => {
                "the reference commitment is all zero or was used before, or the hash of the secret is all zero: use fresh random bytes"
            }
            Error::WrongValue => "the transferred value is not the sum of the requests' fees",
            Error::AlreadyPending => "such a change is announced already; cancel it first",
            Error::NotPending => "no such change is announced, or it has lapsed",
            Error::NotDue => "the announced change cannot act yet; `poq params` tells from when",
            Error::BadCode => "the account is no contract, or the chain does not take its code",
            Error::NotItself => "only the contract itself may do this",
            Error::NotAuditable => "the task is not settled by its panel, is audited already, or its time for that is over",
            Error::BadAmount => "the amount is zero or more than there is",
            Error::NothingToWithdraw => "there is nothing to withdraw",
            Error::StillUnbonding => "the unbonding period is not over",
            Error::NodeInUse => "the node still has open duties, stake or rewards",
            Error::NotFinal => "the task is neither settled nor refunded",
            Error::NotProposed => "the caller has not been proposed as the owner",
            Error::BadParams(_) => "the parameters are refused",
            Error::Insolvent => "the contract does not have that much beyond what it owes",
            Error::TransferFailed => "the chain refused the transfer out of the contract",
            Error::Overflow => "an amount or a counter would overflow",
            Error::NotAuditor => {
                "only an appointed auditor with a full bond may do this, a limited number of times an epoch, and not where it owns a node of \
                 the task"
            }
            Error::BadOpening => {
                "the opening does not match the task's commitments, holds no output, or is longer than 256 bytes of reference \
                 and 2,048 bytes per output"
            }
        }
    }
}
