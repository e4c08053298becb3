//! What the pool stores and what its messages take and return.

use ink::prelude::{string::String, vec::Vec};
use ink::primitives::AccountId;
pub use poq_contract::storage::Cell;
use poq_contract::types::{NodeUpdate, Registration, Role};
use poq_core::commitment::Hash;
use poq_core::pool::{EraId, Ledger, Rules};
use poq_core::units::{Balance, KindId, Millis, NodeId};

/// The pool's node as it is registered. The pool itself is its owner and its payee, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct PoolNode {
    /// What it does.
    pub role: Role,
    /// The one task kind that it serves.
    pub kind: KindId,
    /// The hot account that does the duties.
    pub operator: AccountId,
    /// The model's name, for people. At most 256 bytes.
    pub model: String,
    /// The model's digest.
    pub model_digest: Hash,
    /// Where its blobs are served (a URL). At most 256 bytes.
    pub endpoint: String,
    /// What it asks per task; 0 for an evaluator.
    pub price: Balance,
}

impl PoolNode {
    /// The registration of this node by a pool.
    pub fn of(self, pool: AccountId) -> Registration {
        Registration {
            role: self.role,
            kind: self.kind,
            operator: self.operator,
            payee: pool,
            model: self.model,
            model_digest: self.model_digest,
            endpoint: self.endpoint,
            price: self.price,
        }
    }
}

/// What a manager changes about the pool's node; `None` leaves a field as it is. There is no payee: it is the pool.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct PoolNodeUpdate {
    /// The hot account.
    pub operator: Option<AccountId>,
    /// Where its blobs are served.
    pub endpoint: Option<String>,
    /// What it asks per task.
    pub price: Option<Balance>,
}

impl From<PoolNodeUpdate> for NodeUpdate {
    fn from(update: PoolNodeUpdate) -> NodeUpdate {
        NodeUpdate {
            operator: update.operator,
            endpoint: update.endpoint,
            price: update.price,
            ..NodeUpdate::default()
        }
    }
}

/// The token's name and symbol.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct Token {
    /// Its name.
    pub name: Option<String>,
    /// Its symbol.
    pub symbol: Option<String>,
}

/// A pool as queries return it, with books as a sync now would leave them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct PoolView {
    /// The contract that the node is in.
    pub poq: AccountId,
    /// The node's number there.
    pub node: NodeId,
    /// Who runs the pool.
    pub manager: AccountId,
    /// Who may accept to run it.
    pub proposed: Option<AccountId>,
    /// The token's name and symbol.
    pub token: Token,
    /// What is promised for ever.
    pub rules: Rules,
    /// The books.
    pub ledger: Ledger,
    /// Shares that there are.
    pub supply: Balance,
    /// The most that it would take as a deposit now.
    pub room: Balance,
    /// Whether slashes have left next to nothing of the shares.
    pub wiped_out: bool,
}

/// What an account has in a pool, as of now.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct MemberView {
    /// Its shares.
    pub shares: Balance,
    /// What they could be exited for.
    pub value: Balance,
    /// Its exits.
    pub exits: Vec<ExitView>,
}

/// An exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct ExitView {
    /// The era that it belongs to.
    pub era: EraId,
    /// What it is worth now; fixed when it is ready.
    pub value: Balance,
    /// Whether it can be claimed.
    pub ready: bool,
    /// When its era can be paid; 0 while the era is open.
    pub ends: Millis,
}
