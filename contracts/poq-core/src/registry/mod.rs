//! The registry of nodes by epochs, and the draw of panels from it.
//!
//! Time is cut into epochs. What an owner does (register, stake, unstake, drain, resume, refresh) takes effect in the next
//! epoch, and a draw reads the epoch in which its task's outputs were sealed: whoever learns the seed of a draw can no longer
//! change what it is taken from. Three versions of everything that a draw reads are kept ([`Ver`]): of the next epoch, of this
//! one and of the one before.
//!
//! | part | what |
//! |---|---|
//! | [`epoch`] | epochs, and values of the last three |
//! | [`pool`] | how many nodes of which weight there are; a pick among them |
//! | [`place`] | where a node is, and what an owner's act and a settlement change |
//! | [`select`] | a draw: picks, then an exact scan of small pools |
//! | [`seed`] | what a draw's randomness is made of |
//! | [`stake`] | a node's stake: bonded, at risk, on its way out |
//!
//! Storage is the caller's ([`Registry`], [`RegistryMut`]): contract, simulator and `explain` share everything else.
//!
//! What holds after every act and settlement:
//! - no value of this epoch or an earlier one has changed;
//! - in every epoch each node has at most one place, and each place below its class's count holds one node;
//! - a pick lands on a node with probability proportional to its weight in that epoch, clipped to its class's bound;
//! - no cell has changed its size or been removed, so nobody pays or gets anybody else's storage deposit: a cell is written
//!   first at the cost of the owner whose node is the first to need it.

pub mod epoch;
pub mod place;
pub mod pool;
pub mod seed;
pub mod select;
pub mod stake;

pub use epoch::{epoch_of, Epoch, Ver};
pub use place::{place, Place, Standing};
pub use pool::{class_of, weight_of, Counts, CLASSES};
pub use seed::{inference_seed, panel_seed, Stream};
pub use select::{draw, Draw, Drawn, SCAN};
pub use stake::{Stake, Tranche, TRANCHES};

use crate::units::{KindId, NodeId};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// An account's 32 bytes; this crate knows no account type.
pub type Account = [u8; 32];

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Role {
    /// Runs a language model and answers.
    Inference,
    /// Scores answers.
    Evaluator,
}

/// The nodes that are drawn together: those of one kind and role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, TypeInfo)]
pub struct PoolId {
    /// The task kind that they serve.
    pub kind: KindId,
    /// What they do.
    pub role: Role,
}

/// A node's record, as far as the registry needs it. Where it is stored, with what else, is the caller's.
pub trait Registered {
    /// Its weight by epochs and its place.
    fn standing(&self) -> &Standing;
    /// The same, to be changed.
    fn standing_mut(&mut self) -> &mut Standing;
    /// Who owns it. One owner has one seat: operators and payees, which anybody can set, do not count.
    fn owner(&self) -> Account;
}

/// What a draw reads.
pub trait Registry {
    /// A node's record, loaded once by a draw and handed back with its seat.
    type Node: Registered;
    /// How many members the pool's classes have; all zero where nothing was ever stored.
    fn counts(&self, pool: PoolId) -> Ver<Counts>;
    /// Who is at a place of a pool; node 0 where nothing was ever stored.
    fn member(&self, pool: PoolId, class: u8, index: u32) -> Ver<NodeId>;
    /// A node; `None` where it does not exist, or no longer.
    fn node(&self, id: NodeId) -> Option<Self::Node>;
}

/// What an owner's act writes.
pub trait RegistryMut: Registry {
    /// Stores the pool's counts.
    fn set_counts(&mut self, pool: PoolId, counts: &Ver<Counts>);
    /// Stores who is at a place.
    fn set_member(&mut self, pool: PoolId, class: u8, index: u32, member: &Ver<NodeId>);
    /// Stores a node that another one's act has moved.
    fn set_node(&mut self, id: NodeId, node: &Self::Node);
}

/// Why the registry refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Error {
    /// The epoch asked for is more than one before the present one.
    Forgotten,
    /// A number does not fit its type: 2³² members of a class, or an amount above 128 bits.
    Overflow,
    /// The amount is zero or more than there is.
    Amount,
    /// A place names a node that does not exist or is not there: a bug, or a foreign storage.
    Inconsistent,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Error::Forgotten => {
                "the registry keeps the present epoch and the one before; the task was sealed earlier"
            }
            Error::Overflow => "a count or an amount does not fit its type",
            Error::Amount => "the amount must be above zero and at most what there is",
            Error::Inconsistent => "the registry names a node that is not where it should be",
        })
    }
}

impl core::error::Error for Error {}
