//! What a commitment commits to. The one place where the preimages are built: contract and workers hash these bytes with
//! blake2b-256.
//!
//! Every preimage starts with its own domain, and binds the contract, the task and the node, so a commitment copied from
//! another node, another task or another deployment never opens. Scores have some thirty bits of entropy at best: the
//! 32-byte salt is what hides them.

use crate::units::{NodeId, Score, TaskId};
use alloc::vec::Vec;
use parity_scale_codec::Encode;

/// A blake2b-256 hash.
pub type Hash = [u8; 32];
/// The salt that hides what a commitment commits to.
pub type Salt = [u8; 32];

const OUTPUT: &[u8; 14] = b"poq/v1/output\0";
const SCORES: &[u8; 14] = b"poq/v1/scores\0";
const REFERENCE: &[u8; 14] = b"poq/v1/refrnc\0";
const SALT: &[u8; 14] = b"poq/v1/salt\0\0\0";

/// Preimage of an inference node's commitment to its output.
///
/// `output_hash` is the blake2b-256 hash of the output's bytes, under which the blob is stored and served.
pub fn output(contract: &Hash, task: TaskId, node: NodeId, output_hash: &Hash, salt: &Salt) -> Vec<u8> {
    (OUTPUT, contract, task, node, output_hash, salt).encode()
}

/// Preimage of an evaluator's commitment to its scores, one per output in the task's order, and to its report.
pub fn scores(
    contract: &Hash,
    task: TaskId,
    node: NodeId,
    scores: &[Score],
    report_hash: &Hash,
    salt: &Salt,
) -> Vec<u8> {
    (SCORES, contract, task, node, scores, report_hash, salt).encode()
}

/// Preimage of the commitment to a reference answer that a request carries (a gold task), `auditor` being the account that can
/// open it. A request without a reference carries random bytes instead, and the account that requests need not be the auditor's,
/// so nobody can tell the two apart.
///
/// `reference_hash` is the blake2b-256 hash of the reference's bytes.
pub fn reference(contract: &Hash, auditor: &Hash, reference_hash: &Hash, salt: &Salt) -> Vec<u8> {
    (REFERENCE, contract, auditor, reference_hash, salt).encode()
}

/// Which commitment a salt is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode)]
pub enum Purpose {
    /// An inference node's output.
    Output,
    /// An evaluator's scores.
    Scores,
}

/// Preimage of a salt: derived from the node's own secret, so that a node that lost everything but its key can still
/// reveal what it committed to.
pub fn salt(secret: &[u8; 32], contract: &Hash, task: TaskId, node: NodeId, purpose: Purpose) -> Vec<u8> {
    (SALT, secret, contract, task, node, purpose).encode()
}
