//! Where the contract keeps what: every mapping has a key of its own that never changes, whatever the code; and what a message has
//! in hand of it.
//!
//! Messages work on a [`Session`]: it reads each record once, however many items of a batch touch it, and writes at the end what
//! has changed. So a message that returns an error has written nothing.

use crate::errors::{Error, Result};
use crate::types::*;
use core::cell::RefCell;
use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use ink::storage::traits::ManualKey;
use ink::storage::{Lazy, Mapping};
use poq_core::commitment::Hash;
use poq_core::registry::{epoch_of, Registry, RegistryMut};
use poq_core::units::{Balance, KindId, Millis, NodeId, TaskId};

/// A record of a mapping: a leaf of the storage layout, one cell, whatever is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Cell<T>(
    /// The record.
    pub T,
);

#[cfg(feature = "std")]
impl<T: scale_info::TypeInfo + 'static> ink::storage::traits::StorageLayout for Cell<T> {
    fn layout(key: &ink::primitives::Key) -> ink::metadata::layout::Layout {
        ink::metadata::layout::Layout::Leaf(ink::metadata::layout::LeafLayout::from_key::<Self>((*key).into()))
    }
}

/// Kind, role, weight class and index: a place in a draw's pool.
pub type MemberKey = (KindId, Role, u8, u32);
/// The contract's numbers that duties change.
pub type BooksCell = Lazy<Cell<Books>, ManualKey<0x1>>;
/// The kinds that exist.
pub type KindIds = Lazy<Cell<Vec<KindId>>, ManualKey<0x2>>;
/// The levers with an announced change.
pub type Levers = Lazy<Cell<Vec<Lever>>, ManualKey<0x3>>;
/// What a kind remembers, with its newest parameters.
pub type Kinds = Mapping<KindId, Cell<Kind>, ManualKey<0x11>>;
/// Every version of every kind's parameters, from 1.
pub type Versions = Mapping<(KindId, u32), Cell<KindParams>, ManualKey<0x12>>;
/// The part of nodes that duties touch.
pub type Nodes = Mapping<NodeId, Cell<Node>, ManualKey<0x13>>;
/// The part of nodes that people read.
pub type Infos = Mapping<NodeId, Cell<NodeInfo>, ManualKey<0x14>>;
/// How many members a pool's classes have.
pub type Pools = Mapping<PoolId, Cell<Ver<Counts>>, ManualKey<0x15>>;
/// Who is where in a pool.
pub type Members = Mapping<MemberKey, Cell<Ver<NodeId>>, ManualKey<0x16>>;
/// Open and uncollected tasks.
pub type Tasks = Mapping<TaskId, Cell<Task>, ManualKey<0x17>>;
/// What accounts own.
pub type Accounts = Mapping<AccountId, Cell<Account>, ManualKey<0x18>>;
/// Who may open references.
pub type Auditors = Mapping<AccountId, Cell<Auditor>, ManualKey<0x19>>;
/// Announced changes.
pub type Changes = Mapping<Lever, Cell<Pending<Change>>, ManualKey<0x1a>>;

/// Records that a message has read, and whether they are to be written.
pub struct Cache<K, V>(RefCell<Vec<(K, V, bool)>>);

impl<K: PartialEq + Copy, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Cache(RefCell::new(Vec::new()))
    }

    /// The record, from the cache or else from where `load` finds it.
    fn get(&self, key: K, load: impl FnOnce() -> Option<V>) -> Option<V> {
        if let Some((_, value, _)) = self.0.borrow().iter().find(|(other, _, _)| *other == key) {
            return Some(value.clone());
        }
        let value = load()?;
        self.0.borrow_mut().push((key, value.clone(), false));
        Some(value)
    }

    /// Keeps a record that is to be written.
    fn put(&self, key: K, value: V) {
        let mut items = self.0.borrow_mut();
        match items.iter_mut().find(|(other, _, _)| *other == key) {
            Some(item) => (item.1, item.2) = (value, true),
            None => items.push((key, value, true)),
        }
    }

    fn flush(self, mut store: impl FnMut(K, V)) {
        for (key, value, changed) in self.0.into_inner() {
            if changed {
                store(key, value);
            }
        }
    }
}

/// What a message has in hand.
pub struct Session {
    /// Block timestamp.
    pub now: Millis,
    /// The epoch of that.
    pub epoch: Epoch,
    /// How long an epoch is.
    pub epoch_ms: Millis,
    /// Block number.
    pub block: u32,
    /// What every commitment starts with.
    pub network: Hash,
    books: Cache<(), Books>,
    kinds: Cache<KindId, Kind>,
    versions: Cache<(KindId, u32), KindParams>,
    nodes: Cache<NodeId, Node>,
    pools: Cache<PoolId, Ver<Counts>>,
    members: Cache<MemberKey, Ver<NodeId>>,
    accounts: Cache<AccountId, Account>,
}

impl Session {
    /// Nothing in hand yet.
    #[inline(never)]
    pub fn new(now: Millis, block: u32, epoch_ms: Millis, network: Hash) -> Session {
        Session {
            now,
            epoch: epoch_of(now, epoch_ms),
            epoch_ms,
            block,
            network,
            books: Cache::new(),
            kinds: Cache::new(),
            versions: Cache::new(),
            nodes: Cache::new(),
            pools: Cache::new(),
            members: Cache::new(),
            accounts: Cache::new(),
        }
    }

    /// Writes what has changed.
    #[inline(never)]
    pub fn finish(self) {
        self.books.flush(|(), value| BooksCell::new().set(&Cell(value)));
        self.kinds.flush(|key, value| {
            Kinds::new().insert(key, &Cell(value));
        });
        self.nodes.flush(|key, value| {
            Nodes::new().insert(key, &Cell(value));
        });
        self.pools.flush(|key, value| {
            Pools::new().insert(key, &Cell(value));
        });
        self.members.flush(|key, value| {
            Members::new().insert(key, &Cell(value));
        });
        self.accounts.flush(|key, value| {
            Accounts::new().insert(key, &Cell(value));
        });
    }

    /// The contract's own numbers.
    #[inline(never)]
    pub fn books(&self) -> Books {
        self.books.get((), || Some(BooksCell::new().get().map(|Cell(books)| books).unwrap_or_default())).unwrap_or_default()
    }

    /// Changes them.
    pub fn set_books(&self, books: Books) {
        self.books.put((), books);
    }

    /// A kind.
    #[inline(never)]
    pub fn kind(&self, kind: KindId) -> Result<Kind> {
        self.kinds.get(kind, || Kinds::new().get(kind).map(|Cell(kind)| kind)).ok_or(Error::NoKind)
    }

    /// Keeps a kind.
    pub fn set_kind(&self, id: KindId, kind: Kind) {
        self.kinds.put(id, kind);
    }

    /// A version of a kind's parameters; the newest is in the kind's own cell.
    #[inline(never)]
    pub fn params(&self, id: KindId, version: u32) -> Result<KindParams> {
        let kind = self.kind(id)?;
        if kind.version == version {
            return Ok(kind.params);
        }
        let load = || Versions::new().get((id, version)).map(|Cell(params)| params);
        self.versions.get((id, version), load).ok_or(Error::NoKind)
    }

    /// A node.
    #[inline(never)]
    pub fn load(&self, node: NodeId) -> Result<Node> {
        self.nodes.get(node, || Nodes::new().get(node).map(|Cell(node)| node)).ok_or(Error::NoNode)
    }

    /// Keeps a node.
    #[inline(never)]
    pub fn save(&self, id: NodeId, node: &Node) {
        self.nodes.put(id, node.clone());
    }

    /// An account.
    #[inline(never)]
    pub fn account(&self, account: AccountId) -> Account {
        self.accounts
            .get(account, || Some(Accounts::new().get(account).map(|Cell(account)| account).unwrap_or_default()))
            .unwrap_or_default()
    }

    /// Keeps an account.
    pub fn set_account(&self, id: AccountId, account: Account) {
        self.accounts.put(id, account);
    }

    /// Changes the contract's own numbers.
    ///
    /// # Errors
    /// What `change` returns.
    pub fn book(&self, change: impl FnOnce(&mut Liabilities) -> Result<()>) -> Result<()> {
        let mut books = self.books();
        change(&mut books.liabilities)?;
        self.set_books(books);
        Ok(())
    }

    /// Credits an account.
    ///
    /// # Errors
    /// `Overflow`.
    #[inline(never)]
    pub fn credit(&self, id: AccountId, amount: Balance) -> Result<()> {
        let mut account = self.account(id);
        account.credit = account.credit.checked_add(amount).ok_or(Error::Overflow)?;
        self.set_account(id, account);
        Ok(())
    }
}

impl Registry for Session {
    type Node = Node;

    #[inline(never)]
    fn counts(&self, pool: PoolId) -> Ver<Counts> {
        let load = || Some(Pools::new().get(pool).map(|Cell(counts)| counts).unwrap_or_default());
        self.pools.get(pool, load).unwrap_or_default()
    }

    #[inline(never)]
    fn member(&self, pool: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        let key = (pool.kind, pool.role, class, index);
        let load = || Some(Members::new().get(key).map(|Cell(member)| member).unwrap_or_default());
        self.members.get(key, load).unwrap_or_default()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.load(id).ok()
    }
}

impl RegistryMut for Session {
    fn set_counts(&mut self, pool: PoolId, counts: &Ver<Counts>) {
        self.pools.put(pool, *counts);
    }

    fn set_member(&mut self, pool: PoolId, class: u8, index: u32, member: &Ver<NodeId>) {
        self.members.put((pool.kind, pool.role, class, index), *member);
    }

    fn set_node(&mut self, id: NodeId, node: &Node) {
        self.save(id, node);
    }
}
