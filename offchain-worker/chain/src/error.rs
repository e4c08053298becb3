//! What can go wrong, and what a caller should make of it.

use crate::signer::KeysError;
use poq_contract::errors::Error as ContractError;
use poq_core::task::Refusal;
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
        /// What was given, as it may be shown.
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
    /// The contract was made for another chain: its commitments would mean nothing there, and those made here could mean something
    /// there.
    #[error("the contract at {address} was made for the chain of genesis {found:?}, and this is the chain of genesis {expected:?}: it is a copy, or its deployer gave it a wrong genesis; do not use it")]
    WrongNetwork {
        /// The contract.
        address: AccountId32,
        /// This chain's genesis hash.
        expected: H256,
        /// What the contract says.
        found: H256,
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
    /// A staking pool refused a message.
    #[error("{message} was refused by the pool: {error}")]
    PoolRejected {
        /// The message.
        message: &'static str,
        /// Why.
        error: poq_pool_contract::errors::Error,
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
            Error::Rpc { code, message, .. } => refusal(*code, message),
            Error::NoBlock { .. }
            | Error::Outdated { .. }
            | Error::Expired { .. }
            | Error::Overtaken { .. }
            | Error::Unresolved { .. }
            | Error::NotFinal { .. }
            | Error::Pool { stale: true, .. } => Class::Stale,
            Error::Rejected { error, .. } | Error::ConstructorRejected { error } => Class::Rejected(*error),
            Error::Url { .. }
            | Error::WrongChain { .. }
            | Error::Pruned { .. }
            | Error::NoContract
            | Error::ContractAbsent { .. }
            | Error::NotOurContract { .. }
            | Error::WrongNetwork { .. }
            | Error::PoolRejected { .. }
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

    /// Why a task refused an input, where it did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.rejection()? {
            ContractError::Task(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether a node refused to answer because it has too much to do or limits how often it is asked. It has done nothing of what
    /// it was asked for.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Rpc { code, message, .. } if says_busy(*code, message))
    }

    pub(crate) fn decode(what: impl Into<String>, reason: impl std::fmt::Display) -> Error {
        Error::Decode { what: what.into(), reason: reason.to_string() }
    }
}

/// The codes that Substrate's own methods refuse a request with, by what is wrong with it: author 1000, offchain 2000, system and
/// development 3000, state and chain 4000, archive and others above. The node has answered: the same again is refused again.
const SUBSTRATE: std::ops::RangeInclusive<i32> = 1_000..=9_999;

/// Whether a refusal says that the node has too much to do, or that this client asks too often.
pub(crate) fn says_busy(code: i32, message: &str) -> bool {
    // -32005: limit exceeded (EIP-1474, and providers after it); -32006, -32009: too many subscriptions, server is busy
    // (jsonrpsee); -32029 and 429: providers; -32999: Substrate's --rpc-rate-limit; 503: proxies.
    if matches!(code, -32_005 | -32_006 | -32_009 | -32_029 | -32_999 | 429 | 503) {
        return true;
    }
    let message = message.to_lowercase();
    !SUBSTRATE.contains(&code)
        && [
            "rate limit",
            "rate-limit",
            "ratelimit",
            "too many requests",
            "limit exceeded",
            "limit reached",
            "quota",
            "throttl",
            "capacity",
            "is busy",
            "overload",
            "try again",
            "try later",
        ]
        .iter()
        .any(|sign| message.contains(sign))
}

/// What to make of a node's refusal. The default is to ask again: proxies and providers have codes of their own, and a service
/// that ends over one has stopped for good. Only what is known to be the request's own fault is fatal.
fn refusal(code: i32, message: &str) -> Class {
    if says_busy(code, message) {
        return Class::Transient;
    }
    match code {
        // JSON-RPC 2.0: parse error, invalid request, no such method, invalid parameters.
        -32_700 | -32_602..=-32_600 => Class::Fatal,
        // jsonrpsee: request too large, answer too large, batches.
        -32_007 | -32_008 | -32_010 | -32_011 => Class::Fatal,
        // HTTP's codes in a proxy's mouth: the request's or the account's fault, save "request timeout".
        400..=407 | 409..=428 | 430..=499 => Class::Fatal,
        code if SUBSTRATE.contains(&code) => Class::Fatal,
        _ => Class::Transient,
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
        let early = ContractError::Task(Refusal::TooEarly);
        let rejected = Error::Rejected { message: "advance", error: early };
        assert_eq!(rejected.class(), Class::Rejected(early));
        assert_eq!((rejected.rejection(), rejected.refusal()), (Some(early), Some(Refusal::TooEarly)));
        assert!(rejected.to_string().starts_with("advance was refused: it is too early"));
        // What is nested is said, whatever it is nested in.
        let registry = ContractError::Registry(poq_core::registry::Error::Forgotten);
        let rejected = Error::Rejected { message: "draw_panels", error: registry };
        assert_eq!(rejected.refusal(), None);
        assert!(rejected.to_string().contains("sealed earlier"), "{rejected}");
        assert_eq!(Error::Unreachable { attempts: String::new() }.class(), Class::Transient);
        assert_eq!(Error::NoContract.class(), Class::Fatal);
    }

    #[test]
    fn a_refusal_is_fatal_only_where_the_request_is_at_fault() {
        let refused = |code, message: &str| Error::Rpc {
            endpoint: "e".into(),
            method: "m".into(),
            code,
            message: message.into(),
        };
        for (code, message, class, busy) in [
            (-32_603, "Internal error", Class::Transient, false),
            (-32_999, "RPC rate limit exceeded", Class::Transient, true),
            (-32_009, "Server is busy, try again later", Class::Transient, true),
            (-32_005, "daily request count exceeded, request rate limited", Class::Transient, true),
            (-32_006, "Too many subscriptions on the connection", Class::Transient, true),
            (429, "Too Many Requests", Class::Transient, true),
            (-32_097, "You have reached your throughput limit: rate limit", Class::Transient, true),
            (-32_603, "monthly quota used up", Class::Transient, true),
            (503, "Service Unavailable", Class::Transient, true),
            (502, "Bad Gateway", Class::Transient, false),
            (408, "Request Timeout", Class::Transient, false),
            (-32_000, "header not found", Class::Transient, false),
            (-32_001, "whatever", Class::Transient, false),
            (-1, "a provider's own", Class::Transient, false),
            (-32_601, "Method not found", Class::Fatal, false),
            (-32_602, "Invalid params", Class::Fatal, false),
            (-32_600, "Invalid request", Class::Fatal, false),
            (-32_700, "Parse error", Class::Fatal, false),
            (-32_008, "Response is too big", Class::Fatal, false),
            (401, "Unauthorized", Class::Fatal, false),
            (4_003, "Client error: Execution failed", Class::Fatal, false),
            // A pool's refusals are read where calls are sent.
            (1_010, "Invalid Transaction", Class::Fatal, false),
        ] {
            let error = refused(code, message);
            assert_eq!((error.class(), error.is_busy()), (class, busy), "{code} {message}");
        }
    }
}
