//! Extrinsics that wait for a block.

use std::collections::HashSet;

use parity_scale_codec::Encode;
use polkadot_sdk::sp_runtime::transaction_validity::ValidTransaction;
use poq_runtime::{AccountId, Hash, Nonce, UncheckedExtrinsic};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

/// Where a submitted extrinsic is, as `author_submitAndWatchExtrinsic` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TransactionStatus {
    /// It waits for an extrinsic with an earlier nonce.
    Future,
    /// It is ready for the next block.
    Ready,
    /// It is in this block.
    InBlock(Hash),
    /// It is in this block, which is final. The last status.
    Finalized(Hash),
    /// Another extrinsic took its place. The last status.
    Usurped(Hash),
    /// It lost its validity while it waited. The last status.
    Invalid,
    /// It was taken out of the pool. The last status.
    Dropped,
}

/// A waiting extrinsic.
#[derive(Clone)]
pub(crate) struct Pooled {
    pub(crate) hash: Hash,
    /// As submitted: SCALE with the length in front.
    pub(crate) bytes: Vec<u8>,
    pub(crate) extrinsic: UncheckedExtrinsic,
    pub(crate) validity: ValidTransaction,
    /// Order of arrival.
    pub(crate) sequence: u64,
    pub(crate) watchers: Vec<UnboundedSender<TransactionStatus>>,
}

impl Pooled {
    pub(crate) fn notify(&self, status: &TransactionStatus) {
        for watcher in &self.watchers {
            // A watcher that has gone away is no business of the pool's.
            let _ = watcher.send(status.clone());
        }
    }
}

/// All waiting extrinsics.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    waiting: Vec<Pooled>,
    next_sequence: u64,
}

impl Pool {
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pooled> {
        self.waiting.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn get(&self, hash: Hash) -> Option<&Pooled> {
        self.waiting.iter().find(|pooled| pooled.hash == hash)
    }

    /// The extrinsic that provides one of `tags`, for example the same account and nonce.
    pub(crate) fn conflict(&self, tags: &[Vec<u8>]) -> Option<&Pooled> {
        self.waiting.iter().find(|pooled| pooled.validity.provides.iter().any(|tag| tags.contains(tag)))
    }

    pub(crate) fn insert(&mut self, pooled: Pooled) {
        self.waiting.push(pooled);
    }

    pub(crate) fn take(&mut self, hash: Hash) -> Option<Pooled> {
        let index = self.waiting.iter().position(|pooled| pooled.hash == hash)?;
        Some(self.waiting.remove(index))
    }

    pub(crate) fn take_all(&mut self) -> Vec<Pooled> {
        std::mem::take(&mut self.waiting)
    }

    /// Hashes of the extrinsics that the next block can hold, in the order in which they must be applied: what others
    /// require first, then by priority, then by arrival.
    pub(crate) fn ready(&self) -> Vec<Hash> {
        let mut rest: Vec<&Pooled> = self.waiting.iter().collect();
        rest.sort_by_key(|pooled| (std::cmp::Reverse(pooled.validity.priority), pooled.sequence));
        let mut provided: HashSet<&Vec<u8>> = HashSet::new();
        let mut order = Vec::with_capacity(rest.len());
        while let Some(index) =
            rest.iter().position(|pooled| pooled.validity.requires.iter().all(|tag| provided.contains(tag)))
        {
            let pooled = rest.remove(index);
            provided.extend(&pooled.validity.provides);
            order.push(pooled.hash);
        }
        order
    }

    /// The first nonce from `nonce` on that no waiting extrinsic of `account` uses.
    pub(crate) fn next_nonce(&self, account: &AccountId, mut nonce: Nonce) -> Nonce {
        // `CheckNonce` tags an extrinsic with its account and nonce.
        while self.conflict(&[(account, nonce).encode()]).is_some() {
            nonce += 1;
        }
        nonce
    }
}
