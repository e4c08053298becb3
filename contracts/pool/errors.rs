//! Why a pool refused a message.

use poq_core::pool::PoolError;

/// Why a message was refused. A refused message has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Error {
    /// Returned if the caller is not the pool's manager.
    NotManager,
    /// Returned if nobody has been proposed as manager, or somebody else has.
    NotProposed,
    /// Returned if the books refuse, with their reason.
    Pool(PoolError),
    /// Returned if the contract that the node is in refuses, with its reason.
    Poq(poq_contract::errors::Error),
    /// Returned if the contract that the node is in cannot be called, or answers what this pool does not understand.
    NoAnswer,
    /// Returned if the contract that the node is in does not know the node.
    NoNode,
    /// Returned if the chain refused a transfer out of the pool.
    TransferFailed,
}

/// The result of a message.
pub type Result<T> = core::result::Result<T, Error>;

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        Error::Pool(error)
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Texts are for the tools, not for the chain.
        #[cfg(feature = "std")]
        match self {
            Error::NotManager => f.write_str("only the pool's manager may do this"),
            Error::NotProposed => f.write_str("the caller has not been proposed as the pool's manager"),
            Error::Pool(error) => write!(f, "{error}"),
            Error::Poq(error) => write!(f, "the node's contract refuses: {error}"),
            Error::NoAnswer => f.write_str(
                "the node's contract cannot be called or gives an answer that the pool does not understand: is the address that of a \
                 PoQ contract, and was the gas enough?",
            ),
            Error::NoNode => f.write_str("the node's contract does not know the pool's node"),
            Error::TransferFailed => {
                f.write_str("the chain refused the transfer out of the pool: is the amount below what keeps a new account alive?")
            }
        }?;
        #[cfg(not(feature = "std"))]
        let _ = f;
        Ok(())
    }
}

impl core::error::Error for Error {}
