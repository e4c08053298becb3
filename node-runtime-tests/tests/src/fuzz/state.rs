//! The contract's storage as a reader of the chain sees it: every cell, decoded, and what a message has changed.

use super::Failure;
use ink::primitives::AccountId;
use parity_scale_codec::{Decode, DecodeAll, Encode};
use poq_contract::storage::{
    MemberKey, ACCOUNTS, AUDITORS, BOOKS, CHANGES, INFOS, KINDS, KIND_IDS, LEVERS, MEMBERS, NODES, POOLS,
    TASKS, VERSIONS,
};
use poq_contract::types::{
    Account, Auditor, Books, Change, Counts, GlobalParams, Kind, Lever, Node, NodeInfo, Pending, PoolId,
    Task, Ver,
};
use poq_core::commitment::Hash;
use poq_core::registry::Registry;
use poq_core::units::{KindId, Millis, NodeId, TaskId};
use poq_core::KindParams;
use std::collections::BTreeMap;

/// A cell's key and what is in it; nothing where it is freed.
pub type Written = (Vec<u8>, Option<Vec<u8>>);

/// The contract's root: what its owner changes.
#[derive(Clone, Debug, PartialEq, Eq, Decode)]
#[allow(missing_docs)] // the contract's own fields
pub struct Root {
    pub layout: u16,
    pub owner: AccountId,
    pub proposed: Option<AccountId>,
    pub paused: bool,
    pub genesis: Hash,
    pub network: Hash,
    pub epoch_ms: Millis,
    pub life_ms: Millis,
    pub global: GlobalParams,
}

/// Records of a kind by their keys.
type Records<K, V> = BTreeMap<K, V>;
/// A record before and after a message, by its key.
pub type Changed<K, V> = Vec<(K, Option<V>, Option<V>)>;

/// A cell that was written: whose it is (the key of its mapping), and how long it was and is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The mapping's key.
    pub map: u32,
    /// The record's key.
    pub key: Vec<u8>,
    /// How long it was; nothing where it was not there.
    pub before: Option<usize>,
    /// How long it is.
    pub after: Option<usize>,
}

macro_rules! state {
    ($($map:ident / $field:ident: $key:ty => $record:ty;)*) => {
        /// Everything that the contract stores.
        #[derive(Clone, Debug, Default)]
        #[allow(missing_docs)] // the contract's own mappings
        pub struct State {
            /// All cells as they are.
            pub cells: BTreeMap<Vec<u8>, Vec<u8>>,
            root: Option<Root>,
            pub books: Books,
            pub kind_ids: Vec<KindId>,
            pub levers: Vec<Lever>,
            $(pub $field: Records<$key, $record>,)*
            /// Announced changes, by their levers' encodings.
            pub changes: Records<Vec<u8>, Pending<Change>>,
        }

        /// What a message has changed.
        #[derive(Clone, Debug, Default)]
        #[allow(missing_docs)]
        pub struct Diff {
            pub root: Option<(Root, Root)>,
            pub books: Option<(Books, Books)>,
            $(pub $field: Changed<$key, $record>,)*
            /// Every cell that was written.
            pub resized: Vec<Resized>,
        }

        impl State {
            fn keep(&mut self, map: u32, mut rest: &[u8], value: Option<&[u8]>, diff: &mut Diff) -> Result<(), Failure> {
                match map {
                    0 => {
                        let root: Root = record("the root", value.unwrap_or_default())?;
                        if let Some(before) = self.root.replace(root.clone()) {
                            diff.root = Some((before, root));
                        }
                    }
                    m if m == BOOKS.prefix() => {
                        let books: Books = record("the books", value.unwrap_or_default())?;
                        diff.books = Some((std::mem::replace(&mut self.books, books), books));
                    }
                    m if m == KIND_IDS.prefix() => self.kind_ids = record("the kinds", value.unwrap_or_default())?,
                    m if m == LEVERS.prefix() => self.levers = record("the levers", value.unwrap_or_default())?,
                    m if m == CHANGES.prefix() => {
                        match value {
                            Some(value) => self.changes.insert(rest.to_vec(), record("a change", value)?),
                            None => self.changes.remove(rest),
                        };
                    }
                    $(m if m == $map.prefix() => {
                        let key = <$key>::decode_all(&mut rest).map_err(|error| Failure::broken(format!("a key: {error}")))?;
                        let now: Option<$record> = value.map(|value| record(stringify!($field), value)).transpose()?;
                        let before = match &now {
                            Some(record) => self.$field.insert(key.clone(), record.clone()),
                            None => self.$field.remove(&key),
                        };
                        diff.$field.push((key, before, now));
                    })*
                    other => return Err(Failure::violation(format!("a cell of no mapping is written: {other:#x}"))),
                }
                Ok(())
            }
        }
    };
}

state! {
    KINDS / kinds: KindId => Kind;
    VERSIONS / versions: (KindId, u32) => KindParams;
    NODES / nodes: NodeId => Node;
    INFOS / infos: NodeId => NodeInfo;
    POOLS / pools: PoolId => Ver<Counts>;
    MEMBERS / members: MemberKey => Ver<NodeId>;
    TASKS / tasks: TaskId => Task;
    ACCOUNTS / accounts: AccountId => Account;
    AUDITORS / auditors: AccountId => Auditor;
}

fn record<T: Decode>(what: &str, mut bytes: &[u8]) -> Result<T, Failure> {
    T::decode_all(&mut bytes).map_err(|error| Failure::violation(format!("{what} does not decode: {error}")))
}

/// Whether cells of this mapping keep their size for as long as they are there.
pub fn is_of_constant_size(map: u32) -> bool {
    [
        BOOKS.prefix(),
        KINDS.prefix(),
        NODES.prefix(),
        POOLS.prefix(),
        MEMBERS.prefix(),
        TASKS.prefix(),
        AUDITORS.prefix(),
    ]
    .contains(&map)
}

impl State {
    /// Takes cells as they are now; what of them is other than before.
    ///
    /// # Errors
    /// A violation where a cell does not decode, or belongs to no mapping.
    pub fn take(&mut self, written: Vec<Written>) -> Result<Diff, Failure> {
        let mut diff = Diff::default();
        for (key, value) in written {
            let before = self.cells.get(&key);
            if before == value.as_ref() {
                continue;
            }
            let (map, rest) = key
                .split_first_chunk::<4>()
                .ok_or_else(|| Failure::violation("a cell's key is shorter than four bytes"))?;
            let map = u32::from_le_bytes(*map);
            diff.resized.push(Resized {
                map,
                key: rest.to_vec(),
                before: before.map(Vec::len),
                after: value.as_ref().map(Vec::len),
            });
            self.keep(map, rest, value.as_deref(), &mut diff)?;
            match value {
                Some(value) => self.cells.insert(key, value),
                None => self.cells.remove(&key),
            };
        }
        Ok(diff)
    }

    /// The root.
    ///
    /// # Errors
    /// Where it has never been written.
    pub fn root(&self) -> Result<&Root, Failure> {
        self.root.as_ref().ok_or_else(|| Failure::broken("the contract has no root"))
    }

    /// A kind's parameters of a version.
    ///
    /// # Errors
    /// Where there is no such version.
    pub fn params(&self, kind: KindId, version: u32) -> Result<&KindParams, Failure> {
        self.versions
            .get(&(kind, version))
            .ok_or_else(|| Failure::violation(format!("kind {kind} has no version {version}")))
    }

    /// What is announced for a lever.
    pub fn announced(&self, lever: &Lever) -> Option<&Pending<Change>> {
        self.changes.get(&lever.encode())
    }
}

impl Registry for State {
    type Node = Node;

    fn counts(&self, pool: PoolId) -> Ver<Counts> {
        self.pools.get(&pool).copied().unwrap_or_default()
    }

    fn member(&self, pool: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        self.members.get(&(pool.kind, pool.role, class, index)).copied().unwrap_or_default()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(&id).cloned()
    }
}
