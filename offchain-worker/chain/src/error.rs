//! What can go wrong, and what a caller should make of it.

use crate::signer::KeysError;
use poq_contract::errors::Error as ContractError;
use std::time::Duration;
use subxt::utils::{AccountId32, H256};

/// What a caller should make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The connection or the node: try again later, unchanged.
    Transient,
    /// The world has moved on since the decision was made: read the state again and decide again.
    Stale,
    /// The contract says no.
    Rejected(ContractError),
    /// Nothing that waiting helps with: somebody has to do something.
    Fatal,
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a caller and the contract.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint is not a websocket URL.
    #[error("'{url}' is not a node's address ({reason}); give ws://HOST:PORT or wss://HOST, several of them separated by commas")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No endpoint could be connected to.
    #[error("no node could be reached: {attempts}. Is it running, and is its RPC port open? (`scripts/devnet.sh` starts a local one)")]
    Unreachable {
        /// Every endpoint with the reason.
        attempts: String,
    },
    /// An endpoint serves another chain than the one first connected to.
    #[error("{url} serves another chain (genesis {found:?}) than the one this client started on (genesis {expected:?}); restart against one chain only")]
    WrongChain {
        /// The endpoint.
        url: String,
        /// The first chain's genesis hash.
        expected: H256,
        /// This one's.
        found: H256,
    },
    /// A node did not answer in time.
    #[error("the node {endpoint} did not answer {method} within {after:?}")]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection was lost during a request.
    #[error("the connection to {endpoint} was lost during {method}: {reason}")]
    Disconnected {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// What the transport said.
        reason: String,
    },
    /// The node refused a request.
    #[error("the node {endpoint} refused {method}: {message} (code {code})")]
    Rpc {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// The JSON-RPC error code.
        code: i32,
        /// What the node said.
        message: String,
    },
    /// There is no such block on the node.
    #[error("the node knows no block {block}: it is not there yet, or it is of a fork that lost")]
    NoBlock {
        /// Number or hash.
        block: String,
    },
    /// The node no longer has the state of a block.
    #[error("the node no longer has the state of block {block}; ask a node that runs with `--state-pruning archive`")]
    Pruned {
        /// Number or hash.
        block: String,
    },
    /// The client was built without a contract.
    #[error("no contract address is configured; set it, or deploy one with `poq deploy`")]
    NoContract,
    /// There is no contract at the address.
    #[error("there is no contract at {address} on {chain} ({endpoint}): another chain, or a development chain that lost its state on a restart; `poq deploy` puts it back")]
    ContractAbsent {
        /// The address.
        address: AccountId32,
        /// The chain's name.
        chain: String,
        /// The endpoint.
        endpoint: String,
    },
    /// What is at the address does not speak this contract's interface.
    #[error("the contract at {address} does not answer {message} as this version's contract does ({reason}); compare its code hash with contracts/artifacts/poq.json")]
    NotOurContract {
        /// The address.
        address: AccountId32,
        /// The message.
        message: &'static str,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The contract refused a message.
    #[error("{message} was refused: {error}")]
    Rejected {
        /// The message.
        message: &'static str,
        /// Why.
        error: ContractError,
    },
    /// A constructor refused.
    #[error("the contract's constructor refused: {error}")]
    ConstructorRejected {
        /// Why.
        error: ContractError,
    },
    /// An account lacks money for what it is to pay.
    #[error(
        "{account} cannot pay for {call}: it has {free} free and needs {needed} more or less (fees, deposits and value) on \
         top of the existential deposit of {existential_deposit} (all in the chain's smallest unit); {reason}. Send it money"
    )]
    InsufficientFunds {
        /// The account.
        account: AccountId32,
        /// The call.
        call: &'static str,
        /// Its free balance.
        free: u128,
        /// What the call carries and deposits, where known.
        needed: u128,
        /// What must remain.
        existential_deposit: u128,
        /// What the chain said.
        reason: String,
    },
    /// The chain refused a call, outside the contract.
    #[error("the chain refused {call}: {failure}")]
    Dispatch {
        /// The call.
        call: &'static str,
        /// Why.
        failure: Failure,
    },
    /// A call ran out of the gas or the deposit that its dry run had asked for, because the state had changed in between.
    #[error("{call} was included but the state had changed since its dry run: {failure}; nothing of it took effect")]
    Outdated {
        /// The call.
        call: &'static str,
        /// Why.
        failure: Failure,
    },
    /// The pool refused a call.
    #[error("the node's transaction pool refused {call}: {reason}")]
    Pool {
        /// The call.
        call: &'static str,
        /// What the pool said.
        reason: String,
        /// Whether signing anew can help.
        stale: bool,
    },
    /// A signed call died before it was included.
    #[error("{call} ({extrinsic:?}) was not included before it expired; it never will be")]
    Expired {
        /// The call.
        call: &'static str,
        /// Its hash.
        extrinsic: H256,
    },
    /// A signed call's nonce was used by another one.
    #[error("{call} ({extrinsic:?}) was overtaken by another call with its nonce {nonce}; do two programs use this key?")]
    Overtaken {
        /// The call.
        call: &'static str,
        /// Its hash.
        extrinsic: H256,
        /// Its nonce.
        nonce: u64,
    },
    /// Nobody knows whether a call was or will be included.
    #[error("{call} ({extrinsic:?}) was not seen in a block within {after:?}; it may still be included: read the state before you send it again")]
    Unresolved {
        /// The call.
        call: &'static str,
        /// Its hash.
        extrinsic: H256,
        /// How long was waited.
        after: Duration,
    },
    /// A call succeeded without the event that it must emit.
    #[error("{call} succeeded in block {block} without its event; is the contract another version's?")]
    EventMissing {
        /// The call.
        call: &'static str,
        /// The block's number.
        block: u32,
    },
    /// A task has no final event, because it is not final.
    #[error("task {task} is not final yet: it is {phase}")]
    NotFinal {
        /// The task.
        task: u64,
        /// Its phase.
        phase: String,
    },
    /// A final event is not where it should be.
    #[error("block {block} has no final event of task {task}")]
    NoFinalEvent {
        /// The task.
        task: u64,
        /// The block's number.
        block: u32,
    },
    /// Something from the chain could not be decoded.
    #[error("{what} could not be decoded: {reason}")]
    Decode {
        /// What it was.
        what: String,
        /// Why.
        reason: String,
    },
    /// Something for the chain could not be encoded: the runtime lacks a pallet, a call or an extension.
    #[error("{call} could not be encoded for this chain ({reason}); it needs pallet-contracts, as substrate-contracts-node and poq-node have it")]
    Encode {
        /// What it was.
        call: &'static str,
        /// Why.
        reason: String,
    },
    /// A contract's artifact could not be read.
    #[error("{path}: {reason}; `scripts/build-contract.sh` builds it")]
    Artifact {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key file could not be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Error {
    /// What to make of it.
    pub fn class(&self) -> Class {
        match self {
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::Disconnected { .. } => {
                Class::Transient
            }
            // "Internal error": the node's own trouble, not the request's.
            Error::Rpc { code, .. } if *code == -32603 => Class::Transient,
            Error::NoBlock { .. }
            | Error::Outdated { .. }
            | Error::Expired { .. }
            | Error::Overtaken { .. }
            | Error::Unresolved { .. }
            | Error::NotFinal { .. }
            | Error::Pool { stale: true, .. } => Class::Stale,
            Error::Rejected { error, .. } | Error::ConstructorRejected { error } => Class::Rejected(*error),
            Error::Rpc { .. }
            | Error::Url { .. }
            | Error::WrongChain { .. }
            | Error::Pruned { .. }
            | Error::NoContract
            | Error::ContractAbsent { .. }
            | Error::NotOurContract { .. }
            | Error::InsufficientFunds { .. }
            | Error::Dispatch { .. }
            | Error::Pool { stale: false, .. }
            | Error::EventMissing { .. }
            | Error::NoFinalEvent { .. }
            | Error::Decode { .. }
            | Error::Encode { .. }
            | Error::Artifact { .. }
            | Error::Keys(_) => Class::Fatal,
        }
    }

    /// The contract's reason, where it is one.
    pub fn rejection(&self) -> Option<ContractError> {
        match self.class() {
            Class::Rejected(error) => Some(error),
            Class::Transient | Class::Stale | Class::Fatal => None,
        }
    }

    pub(crate) fn decode(what: impl Into<String>, reason: impl std::fmt::Display) -> Error {
        Error::Decode { what: what.into(), reason: reason.to_string() }
    }
}

/// Why the chain refused a call, in the metadata's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The pallet, or `Token`, `Arithmetic`, … where no pallet said it.
    pub pallet: String,
    /// The error's name.
    pub name: String,
    /// What the metadata says of it.
    pub docs: String,
}

impl Failure {
    /// Whether it is this pallet's error of this name.
    pub fn is(&self, pallet: &str, name: &str) -> bool {
        self.pallet == pallet && self.name == name
    }

    /// Whether it says that an account lacks money.
    pub fn is_lack_of_funds(&self) -> bool {
        matches!(
            (self.pallet.as_str(), self.name.as_str()),
            ("Contracts", "StorageDepositNotEnoughFunds" | "TransferFailed")
                | ("Token", "FundsUnavailable" | "OnlyProvider" | "BelowMinimum" | "NotExpendable")
                | ("Balances", "InsufficientBalance" | "ExistentialDeposit" | "Expendability")
        )
    }

    /// Whether it says that the limits set by the dry run were too low.
    pub fn is_limit(&self) -> bool {
        self.pallet == "Contracts"
            && matches!(self.name.as_str(), "OutOfGas" | "StorageDepositLimitExhausted")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.pallet, self.name)?;
        if !self.docs.is_empty() {
            write!(f, " ({})", self.docs)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_tell_what_to_do() {
        let rejected = Error::Rejected { message: "settle", error: ContractError::TooEarly };
        assert_eq!(rejected.class(), Class::Rejected(ContractError::TooEarly));
        assert_eq!(rejected.rejection(), Some(ContractError::TooEarly));
        assert!(rejected.to_string().starts_with("settle was refused: it is too early"));
        assert_eq!(Error::Unreachable { attempts: String::new() }.class(), Class::Transient);
        assert_eq!(Error::NoContract.class(), Class::Fatal);
        let internal =
            Error::Rpc { endpoint: "e".into(), method: "m".into(), code: -32603, message: "x".into() };
        assert_eq!(internal.class(), Class::Transient);
    }
}
