//! Where the contract keeps what: every mapping has a key of its own that never changes, whatever the code; and what a message has
//! in hand of it.
//!
//! Messages work on a [`Session`]: it reads each cell once, however many items of a batch touch it, and writes at the end what
//! has changed. So a message that returns an error has written nothing. Cells are held encoded: one reader and one writer for all
//! records instead of one for each, which is what decides the code's size.

use crate::errors::{Error, Result};
use crate::types::*;
use core::cell::RefCell;
use core::marker::PhantomData;
use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use ink::storage::traits::ManualKey;
use ink::storage::{Lazy, Mapping};
use parity_scale_codec::{Decode, Encode};
#[cfg(not(feature = "std"))]
use parity_scale_codec::{Input, Output};
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
        ink::metadata::layout::Layout::Leaf(ink::metadata::layout::LeafLayout::from_key::<Self>(
            (*key).into(),
        ))
    }
}

/// Kind, role, weight class and index: a place in a draw's pool.
pub type MemberKey = (KindId, Role, u8, u32);

/// Declares cells: the type of the root's field, for the layout in the metadata, and what reads and writes it.
macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident / $field:ident: $key:literal, $of:ty => $record:ty;)*) => {$(
        $(#[$doc])*
        pub const $name: Map<$of, $record> = Map::at($key);
        $(#[$doc])*
        pub type $field = Mapping<$of, Cell<$record>, ManualKey<$key>>;
    )*};
}

cells! {
    /// What a kind remembers, with its newest parameters.
    KINDS / Kinds: 0x11, KindId => Kind;
    /// Every version of every kind's parameters, from 1.
    VERSIONS / Versions: 0x12, (KindId, u32) => KindParams;
    /// The part of nodes that duties touch.
    NODES / Nodes: 0x13, NodeId => Node;
    /// The part of nodes that people read.
    INFOS / Infos: 0x14, NodeId => NodeInfo;
    /// How many members a pool's classes have.
    POOLS / Pools: 0x15, PoolId => Ver<Counts>;
    /// Who is where in a pool.
    MEMBERS / Members: 0x16, MemberKey => Ver<NodeId>;
    /// Open and uncollected tasks.
    TASKS / Tasks: 0x17, TaskId => Task;
    /// What accounts own.
    ACCOUNTS / Accounts: 0x18, AccountId => Account;
    /// Who may open references.
    AUDITORS / Auditors: 0x19, AccountId => Auditor;
    /// Announced changes.
    CHANGES / Changes: 0x1a, Lever => Pending<Change>;
}

/// The contract's numbers that duties change.
pub const BOOKS: Map<(), Books> = Map::at(0x1);
/// Its field.
pub type BooksCell = Lazy<Cell<Books>, ManualKey<0x1>>;
/// The kinds that exist.
pub const KIND_IDS: Map<(), Vec<KindId>> = Map::at(0x2);
/// Its field.
pub type KindIds = Lazy<Cell<Vec<KindId>>, ManualKey<0x2>>;
/// The levers with an announced change.
pub const LEVERS: Map<(), Vec<Lever>> = Map::at(0x3);
/// Its field.
pub type Levers = Lazy<Cell<Vec<Lever>>, ManualKey<0x3>>;

/// The first fields of a node's record, owner and operator: what most duties ask of it.
const NODE_ACCOUNTS: Map<NodeId, (AccountId, AccountId)> = Map::at(0x13);

/// Bytes as they are, without a length: a key or a record that is encoded already.
#[cfg(not(feature = "std"))]
struct Raw(Vec<u8>);

#[cfg(not(feature = "std"))]
impl Encode for Raw {
    fn encode_to<T: Output + ?Sized>(&self, out: &mut T) {
        out.write(&self.0);
    }
}

#[cfg(not(feature = "std"))]
impl Decode for Raw {
    fn decode<I: Input>(input: &mut I) -> core::result::Result<Self, parity_scale_codec::Error> {
        let mut bytes = ink::prelude::vec![0; input.remaining_len()?.unwrap_or(0)];
        input.read(&mut bytes)?;
        Ok(Raw(bytes))
    }
}

#[inline(never)]
fn read(key: Vec<u8>) -> Option<Vec<u8>> {
    #[cfg(feature = "std")]
    return crate::native::read(&key);
    #[cfg(not(feature = "std"))]
    ink::env::get_contract_storage::<Raw, Raw>(&Raw(key)).ok().flatten().map(|Raw(bytes)| bytes)
}

#[inline(never)]
fn write(key: Vec<u8>, record: Vec<u8>) {
    #[cfg(feature = "std")]
    crate::native::write(key, record);
    #[cfg(not(feature = "std"))]
    ink::env::set_contract_storage::<Raw, Raw>(&Raw(key), &Raw(record));
}

#[inline(never)]
fn remove(key: Vec<u8>) {
    #[cfg(feature = "std")]
    crate::native::remove(key);
    #[cfg(not(feature = "std"))]
    ink::env::clear_contract_storage::<Raw>(&Raw(key));
}

/// The cells of a kind of record: one each, under the mapping's key and the record's own, as ink! lays a `Mapping` out.
pub struct Map<K, V>(u32, PhantomData<fn(K) -> V>);

impl<K: Encode, V: Encode + Decode> Map<K, V> {
    const fn at(key: u32) -> Self {
        Map(key, PhantomData)
    }

    /// The mapping's own key, with which those of its cells begin.
    pub const fn prefix(&self) -> u32 {
        self.0
    }

    /// The key of a record's cell in the contract's storage.
    pub fn key(&self, key: K) -> Vec<u8> {
        (self.0, key).encode()
    }

    /// The record, if there is one.
    pub fn get(&self, key: K) -> Option<V> {
        read(self.key(key)).and_then(|bytes| V::decode(&mut &bytes[..]).ok())
    }

    /// Writes a record.
    pub fn insert(&self, key: K, record: &V) {
        write(self.key(key), record.encode());
    }

    /// Frees a record's cell.
    pub fn remove(&self, key: K) {
        remove(self.key(key));
    }
}

/// A cell that a message has in hand.
struct Held {
    key: Vec<u8>,
    record: Vec<u8>,
    changed: bool,
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
    cells: RefCell<Vec<Held>>,
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
            cells: RefCell::new(Vec::new()),
        }
    }

    /// Writes what has changed.
    #[inline(never)]
    pub fn finish(self) {
        for held in self.cells.into_inner() {
            if held.changed {
                write(held.key, held.record);
            }
        }
    }

    /// Where the cell of this key is in hand; it is read if it is not.
    #[inline(never)]
    fn find(&self, key: Vec<u8>) -> Option<usize> {
        let mut cells = self.cells.borrow_mut();
        if let Some(at) = cells.iter().position(|held| held.key == key) {
            return Some(at);
        }
        let record = read(key.clone())?;
        cells.push(Held { key, record, changed: false });
        cells.len().checked_sub(1)
    }

    #[inline(never)]
    fn keep(&self, key: Vec<u8>, record: Vec<u8>) {
        let mut cells = self.cells.borrow_mut();
        match cells.iter_mut().find(|held| held.key == key) {
            Some(held) => (held.record, held.changed) = (record, true),
            None => cells.push(Held { key, record, changed: true }),
        }
    }

    /// A record.
    fn get<K: Encode, V: Encode + Decode>(&self, map: Map<K, V>, key: K) -> Option<V> {
        let at = self.find(map.key(key))?;
        let cells = self.cells.borrow();
        let held = cells.get(at)?;
        V::decode(&mut &held.record[..]).ok()
    }

    /// Keeps a record that is to be written.
    fn put<K: Encode, V: Encode + Decode>(&self, map: Map<K, V>, key: K, record: &V) {
        self.keep(map.key(key), record.encode());
    }

    /// The contract's own numbers.
    #[inline(never)]
    pub fn books(&self) -> Books {
        self.get(BOOKS, ()).unwrap_or_default()
    }

    /// Changes them.
    #[inline(never)]
    pub fn set_books(&self, books: &Books) {
        self.put(BOOKS, (), books);
    }

    /// A kind.
    #[inline(never)]
    pub fn kind(&self, kind: KindId) -> Result<Kind> {
        self.get(KINDS, kind).ok_or(Error::NoKind)
    }

    /// Keeps a kind.
    #[inline(never)]
    pub fn set_kind(&self, id: KindId, kind: &Kind) {
        self.put(KINDS, id, kind);
    }

    /// A version of a kind's parameters, beside its newest in `kind`.
    #[inline(never)]
    pub fn version(&self, id: KindId, version: u32) -> Result<KindParams> {
        self.get(VERSIONS, (id, version)).ok_or(Error::NoKind)
    }

    /// A node.
    #[inline(never)]
    pub fn load(&self, node: NodeId) -> Result<Node> {
        self.get(NODES, node).ok_or(Error::NoNode)
    }

    /// A node's owner and operator.
    #[inline(never)]
    pub fn accounts_of(&self, node: NodeId) -> Result<(AccountId, AccountId)> {
        self.get(NODE_ACCOUNTS, node).ok_or(Error::NoNode)
    }

    /// Keeps a node.
    #[inline(never)]
    pub fn save(&self, id: NodeId, node: &Node) {
        self.put(NODES, id, node);
    }

    /// A task.
    #[inline(never)]
    pub fn task(&self, task: TaskId) -> Result<Task> {
        self.get(TASKS, task).ok_or(Error::NoTask)
    }

    /// Keeps a task.
    #[inline(never)]
    pub fn set_task(&self, id: TaskId, task: &Task) {
        self.put(TASKS, id, task);
    }

    /// An account.
    #[inline(never)]
    pub fn account(&self, account: AccountId) -> Account {
        self.get(ACCOUNTS, account).unwrap_or_default()
    }

    /// Keeps an account.
    #[inline(never)]
    pub fn set_account(&self, id: AccountId, account: &Account) {
        self.put(ACCOUNTS, id, account);
    }

    /// Changes the contract's own numbers.
    ///
    /// # Errors
    /// What `change` returns.
    #[inline(never)]
    pub fn book(&self, change: &dyn Fn(&mut Liabilities) -> Result<()>) -> Result<()> {
        let mut books = self.books();
        change(&mut books.liabilities)?;
        self.set_books(&books);
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
        self.set_account(id, &account);
        Ok(())
    }
}

impl Registry for Session {
    type Node = Node;

    #[inline(never)]
    fn counts(&self, pool: PoolId) -> Ver<Counts> {
        self.get(POOLS, pool).unwrap_or_default()
    }

    #[inline(never)]
    fn member(&self, pool: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        self.get(MEMBERS, (pool.kind, pool.role, class, index)).unwrap_or_default()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.load(id).ok()
    }
}

impl RegistryMut for Session {
    fn set_counts(&mut self, pool: PoolId, counts: &Ver<Counts>) {
        self.put(POOLS, pool, counts);
    }

    fn set_member(&mut self, pool: PoolId, class: u8, index: u32, member: &Ver<NodeId>) {
        self.put(MEMBERS, (pool.kind, pool.role, class, index), member);
    }

    fn set_node(&mut self, id: NodeId, node: &Node) {
        self.save(id, node);
    }
}
