//! What a commitment commits to. The one place where the preimages are built: contract and workers hash these bytes with
//! blake2b-256.
//!
//! Every preimage starts with its own domain and the *network*: a hash of the chain's genesis block and the contract's
//! account ([`network`]). With task and node behind it, a commitment copied from another node, another task, another
//! deployment or another chain never opens. (The same contract address on a test network must not publish a key's salts.)
//! Scores have some thirty bits of entropy at best: the 32-byte salt is what hides them.

use crate::units::{NodeId, Score, TaskId};
use alloc::vec::Vec;
use parity_scale_codec::Encode;

/// A blake2b-256 hash.
pub type Hash = [u8; 32];
/// The salt that hides what a commitment commits to.
pub type Salt = [u8; 32];

const NETWORK: &[u8; 14] = b"poq/v2/network";
const OUTPUT: &[u8; 14] = b"poq/v2/output\0";
const SCORES: &[u8; 14] = b"poq/v2/scores\0";
const REFERENCE: &[u8; 14] = b"poq/v2/refrnc\0";
const SECRET: &[u8; 14] = b"poq/v2/secret\0";
const DERIVE: &[u8; 14] = b"poq/v2/derive\0";
const SALT: &[u8; 14] = b"poq/v2/salt\0\0\0";

/// Preimage of the network: what every other preimage starts with.
pub fn network(genesis: &Hash, contract: &Hash) -> Vec<u8> {
    (NETWORK, genesis, contract).encode()
}

/// Preimage of an inference node's commitment to its output.
///
/// `output_hash` is the blake2b-256 hash of the output's bytes, under which the blob is stored and served.
pub fn output(network: &Hash, task: TaskId, node: NodeId, output_hash: &Hash, salt: &Salt) -> Vec<u8> {
    (OUTPUT, network, task, node, output_hash, salt).encode()
}

/// Preimage of an evaluator's commitment to its scores, one per output in the task's order, and to its report.
pub fn scores(
    network: &Hash,
    task: TaskId,
    node: NodeId,
    scores: &[Score],
    report_hash: &Hash,
    salt: &Salt,
) -> Vec<u8> {
    (SCORES, network, task, node, scores, report_hash, salt).encode()
}

/// Preimage of the commitment to a reference answer that a request carries (a gold task), `auditor` being the account that can
/// open it. A request without a reference carries random bytes instead, and the account that requests need not be the auditor's,
/// so nobody can tell the two apart.
///
/// `reference_hash` is the blake2b-256 hash of the reference's bytes.
pub fn reference(network: &Hash, auditor: &Hash, reference_hash: &Hash, salt: &Salt) -> Vec<u8> {
    (REFERENCE, network, auditor, reference_hash, salt).encode()
}

/// Preimage of the hash of the requester's secret that a request carries: the requester's part of the seed of its panel.
/// The secret itself is [`request_secret`]'s.
pub fn secret(network: &Hash, requester: &Hash, secret: &Hash) -> Vec<u8> {
    (SECRET, network, requester, secret).encode()
}

/// What a value derived from a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode)]
pub enum Purpose {
    /// The salt of an inference node's output.
    Output,
    /// The salt of an evaluator's scores.
    Scores,
}

/// Preimage of a salt: derived from the node's own secret, so that a node that lost everything but its key can still
/// reveal what it committed to.
pub fn salt(secret: &[u8; 32], network: &Hash, task: TaskId, node: NodeId, purpose: Purpose) -> Vec<u8> {
    (SALT, secret, network, task, node, purpose).encode()
}

/// Preimage of a requester's secret, derived from its key and the request's reference commitment, which is in the task's
/// record and never used twice: a requester that lost everything but its key can still draw its panel. It never leaves the
/// requester's process before the outputs are sealed and that block is final.
pub fn request_secret(key: &[u8; 32], network: &Hash, reference_commitment: &Hash) -> Vec<u8> {
    (DERIVE, key, network, reference_commitment).encode()
}
