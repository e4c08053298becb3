//! What can go wrong.

use polkadot_sdk::sp_runtime::{
    transaction_validity::{InvalidTransaction, TransactionValidityError},
    DispatchError,
};
use poq_runtime::{AccountId, BlockNumber, Hash, RuntimeError};

/// Why the sandbox refused to do something.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A block that the chain does not have.
    #[error("there is no block {0:?} on this chain")]
    UnknownBlock(Hash),
    /// A block whose state is no longer kept.
    #[error(
        "the state of block #{number} ({hash:?}) is no longer kept: only the last {kept} blocks before the \
         finalized one have readable state; raise `SandboxConfig::history_blocks`"
    )]
    StatePruned {
        /// The block's number.
        number: BlockNumber,
        /// The block's hash.
        hash: Hash,
        /// How many old states are kept.
        kept: u32,
    },
    /// Bytes that are not an extrinsic of this runtime.
    #[error("the submitted bytes are not an extrinsic of this runtime: {0}")]
    BadExtrinsic(parity_scale_codec::Error),
    /// An extrinsic that the pool refused.
    #[error("the extrinsic is not valid now: {}", describe(.0))]
    InvalidTransaction(TransactionValidityError),
    /// The same extrinsic is waiting in the pool.
    #[error("the extrinsic {0:?} is already in the pool")]
    AlreadyInPool(Hash),
    /// Another extrinsic with the same account and nonce, and at least the same priority, is waiting.
    #[error(
        "priority is too low: ({old} vs {new}); another extrinsic with the same nonce waits in the pool, raise the tip to \
         replace it"
    )]
    TooLowPriority {
        /// Priority of the extrinsic that is in the pool.
        old: u64,
        /// Priority of the refused one.
        new: u64,
    },
    /// An extrinsic that waits in the pool where a result was wanted.
    #[error("the extrinsic {0:?} was accepted but is in no block yet: its nonce leaves a gap or the block was full")]
    NotIncluded(Hash),
    /// A signature could not be made.
    #[error("cannot sign: the extrinsic's implicit data is not available: {}", describe(.0))]
    Signing(TransactionValidityError),
    /// A runtime API that the runtime does not have.
    #[error("the runtime has no API function `{0}`")]
    UnknownRuntimeApi(String),
    /// The runtime panicked; with a sound runtime this means arguments that do not decode.
    #[error("the runtime panicked in `{function}`: {message}")]
    RuntimePanic {
        /// What was called.
        function: String,
        /// What it said.
        message: String,
    },
    /// Something that came from the runtime does not decode.
    #[error("cannot decode {what}: {source}")]
    Decode {
        /// What it was thought to be.
        what: &'static str,
        /// Why it is not.
        source: parity_scale_codec::Error,
    },
    /// The state trie is damaged or asked for at a wrong root.
    #[error("cannot read the state: {0}")]
    State(String),
    /// The genesis state could not be built.
    #[error("cannot build the genesis state: {0}")]
    Genesis(String),
    /// A mandatory extrinsic (the timestamp) failed, so that no block can be built.
    #[error("the inherent extrinsics were refused: {0}")]
    Inherent(String),
    /// A dry run showed that the call would fail.
    #[error("the dry run failed: {}", describe_dispatch(.error, .debug))]
    DryRun {
        /// What the pallet answered.
        error: DispatchError,
        /// The contract's debug messages.
        debug: String,
    },
    /// The contract reverted in the dry run.
    #[error("the contract {contract} reverted with 0x{}", hex::encode(.data))]
    Reverted {
        /// The contract.
        contract: AccountId,
        /// What it returned (SCALE, with the language error around it).
        data: Vec<u8>,
    },
    /// An extrinsic was included and failed.
    #[error("the extrinsic failed in its block: {}", describe_dispatch(.0, ""))]
    Dispatch(DispatchError),
    /// The RPC server could not be started.
    #[error("cannot serve the RPC on {address}: {source}")]
    Serve {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Settings that contradict each other.
    #[error("bad sandbox settings: {0}")]
    Config(String),
    /// The operating system refused a thread.
    #[error("cannot start the sandbox's clock thread: {0}")]
    Thread(std::io::Error),
}

impl SandboxError {
    /// The reason for which the pool refused an extrinsic, if that is what this is.
    pub fn invalid_transaction(&self) -> Option<&InvalidTransaction> {
        match self {
            Self::InvalidTransaction(TransactionValidityError::Invalid(reason)) => Some(reason),
            _ => None,
        }
    }
}

fn describe(error: &TransactionValidityError) -> &'static str {
    match error {
        TransactionValidityError::Invalid(reason) => (*reason).into(),
        TransactionValidityError::Unknown(reason) => (*reason).into(),
    }
}

/// The name of a dispatch error, for example `Contracts::ContractReverted` or `Token(FundsUnavailable)`. An error that came
/// out of an event or a dry run carries only numbers.
pub fn dispatch_error_name(error: &DispatchError) -> String {
    match (error, RuntimeError::from_dispatch_error(*error)) {
        // The runtime's error prints as `Contracts(ContractReverted)`.
        (DispatchError::Module(_), Some(known)) => {
            format!("{known:?}").trim_end_matches(')').replacen('(', "::", 1)
        }
        _ => format!("{error:?}"),
    }
}

fn describe_dispatch(error: &DispatchError, debug: &str) -> String {
    let mut text = dispatch_error_name(error);
    if !debug.is_empty() {
        text.push_str("; debug messages: ");
        text.push_str(debug);
    }
    text
}
