//! The chain's state: one store of trie nodes that holds the tries of many blocks.
//!
//! A block's state is a trie root. Blocks share all nodes that did not change, so an old state costs only what later
//! blocks replaced. Nodes are counted: a block's additions count at once, its removals when the block's parent leaves the
//! history.

use std::{
    collections::HashMap,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::Arc,
};

use polkadot_sdk::{
    sp_core::{storage::ChildInfo, Blake2Hasher},
    sp_crypto_hashing::blake2_256,
    sp_externalities::{set_and_run_with_externalities, Extensions},
    sp_runtime::StateVersion,
    sp_state_machine::{
        Backend, Ext, IterArgs, OverlayedChanges, TrieBackend, TrieBackendBuilder, TrieBackendStorage,
    },
    sp_trie::{prefixed_key, PrefixedMemoryDB},
};
use poq_runtime::Hash;

use crate::SandboxError;

type Hasher = Blake2Hasher;
type Prefix<'a> = (&'a [u8], Option<u8>);

/// The runtime's trie layout (`system_version` 1).
pub(crate) const STATE_VERSION: StateVersion = StateVersion::V1;

/// Encoding of a trie without entries.
const EMPTY_NODE: [u8; 1] = [0];

#[derive(Clone)]
struct Node {
    value: Arc<[u8]>,
    references: u32,
}

/// Trie nodes by position and hash.
#[derive(Clone, Default)]
struct Nodes(HashMap<Vec<u8>, Node>);

impl TrieBackendStorage<Hasher> for Nodes {
    fn get(&self, key: &Hash, prefix: Prefix<'_>) -> Result<Option<Vec<u8>>, String> {
        if key.0 == blake2_256(&EMPTY_NODE) {
            return Ok(Some(EMPTY_NODE.to_vec()));
        }
        Ok(self.0.get(&prefixed_key::<Hasher>(key, prefix)).map(|node| node.value.to_vec()))
    }
}

/// Removals that a block's state makes, to be carried out when its parent's state is no longer wanted.
pub(crate) type Removals = Vec<(Vec<u8>, u32)>;

/// The states of all blocks in the history.
#[derive(Clone, Default)]
pub(crate) struct StateStore {
    nodes: Nodes,
}

/// Changes made on top of a state and not committed yet.
#[derive(Default)]
pub(crate) struct Changes {
    overlay: OverlayedChanges<Hasher>,
}

impl Changes {
    /// What has been written to the child trie with this id: each key with its value now.
    pub(crate) fn child(&mut self, id: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let Some((entries, _)) = self.overlay.child_changes_mut(id) else { return Vec::new() };
        entries.map(|(key, entry)| (key.clone(), entry.value().cloned())).collect()
    }
}

/// The root of the empty state.
pub(crate) fn empty_root() -> Hash {
    Hash::from(blake2_256(&EMPTY_NODE))
}

impl StateStore {
    fn backend(&self, root: Hash) -> TrieBackend<&Nodes, Hasher> {
        TrieBackendBuilder::new(&self.nodes, root).build()
    }

    /// Runs `f` with the runtime's storage being the state at `root` plus `changes`, and records what it writes in
    /// `changes`. A panic of the runtime is an error; `function` names the call in it.
    pub(crate) fn execute<R>(
        &self,
        root: Hash,
        changes: &mut Changes,
        function: &str,
        f: impl FnOnce() -> R,
    ) -> Result<R, SandboxError> {
        let backend = self.backend(root);
        let mut extensions = Extensions::default();
        let mut ext = Ext::new(&mut changes.overlay, &backend, Some(&mut extensions));
        let outcome = set_and_run_with_externalities(&mut ext, || catch_unwind(AssertUnwindSafe(f)));
        outcome.map_err(|panic| SandboxError::RuntimePanic {
            function: function.to_owned(),
            message: panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "(no message)".to_owned()),
        })
    }

    /// As [`Self::execute`], keeping the writes only if `keep` approves of the result.
    pub(crate) fn execute_if<R>(
        &self,
        root: Hash,
        changes: &mut Changes,
        function: &str,
        f: impl FnOnce() -> R,
        keep: impl FnOnce(&R) -> bool,
    ) -> Result<R, SandboxError> {
        let depth = changes.overlay.transaction_depth();
        changes.overlay.start_transaction();
        let outcome = self.execute(root, changes, function, f);
        // A panic leaves the runtime's own storage layers open.
        let kept = outcome.as_ref().is_ok_and(keep);
        while changes.overlay.transaction_depth() > depth {
            let closed = if kept {
                changes.overlay.commit_transaction()
            } else {
                changes.overlay.rollback_transaction()
            };
            if closed.is_err() {
                break;
            }
        }
        outcome
    }

    /// Stores `changes` made on top of `root`; returns the new root and what to remove once `root` is out of the history.
    pub(crate) fn commit(
        &mut self,
        root: Hash,
        mut changes: Changes,
    ) -> Result<(Hash, Removals), SandboxError> {
        let drained = changes
            .overlay
            .drain_storage_changes(&self.backend(root), STATE_VERSION)
            .map_err(|error| SandboxError::State(error.to_string()))?;
        let removals = self.insert(drained.transaction);
        Ok((drained.transaction_storage_root, removals))
    }

    fn insert(&mut self, mut transaction: PrefixedMemoryDB<Hasher>) -> Removals {
        let mut removals = Removals::new();
        for (key, (value, count)) in transaction.drain() {
            match u32::try_from(count) {
                Ok(0) => {}
                Ok(added) => {
                    self.nodes
                        .0
                        .entry(key)
                        .or_insert_with(|| Node { value: value.into(), references: 0 })
                        .references += added;
                }
                Err(_) => removals.push((key, count.unsigned_abs())),
            }
        }
        removals
    }

    /// Carries out removals recorded by [`Self::commit`].
    pub(crate) fn remove(&mut self, removals: Removals) {
        for (key, count) in removals {
            if let std::collections::hash_map::Entry::Occupied(mut entry) = self.nodes.0.entry(key) {
                let left = entry.get().references.saturating_sub(count);
                if left == 0 {
                    entry.remove();
                } else {
                    entry.get_mut().references = left;
                }
            }
        }
    }

    /// Number of trie nodes and the bytes of their values.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.nodes.0.len(), self.nodes.0.values().map(|node| node.value.len()).sum())
    }

    /// The value at `key`.
    pub(crate) fn get(&self, root: Hash, key: &[u8]) -> Result<Option<Vec<u8>>, SandboxError> {
        self.backend(root).storage(key).map_err(SandboxError::State)
    }

    /// The value at `key` of the child trie `child`.
    pub(crate) fn get_child(
        &self,
        root: Hash,
        child: &ChildInfo,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, SandboxError> {
        self.backend(root).child_storage(child, key).map_err(SandboxError::State)
    }

    /// Up to `count` keys with `prefix` that come after `start`, in order.
    pub(crate) fn keys(
        &self,
        root: Hash,
        child: Option<ChildInfo>,
        prefix: &[u8],
        start: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, SandboxError> {
        let backend = self.backend(root);
        let mut arguments = IterArgs::default();
        arguments.prefix = Some(prefix);
        arguments.child_info = child;
        arguments.start_at = start;
        arguments.start_at_exclusive = true;
        backend
            .keys(arguments)
            .map_err(SandboxError::State)?
            .take(count)
            .collect::<Result<_, _>>()
            .map_err(SandboxError::State)
    }
}
