//! The hashes of commitments: `poq_core::commitment`'s preimages under the chain's blake2b-256.

use poq_core::commitment::{self, Hash, Purpose, Salt};
use poq_core::units::{NodeId, Score, TaskId};
use subxt::utils::AccountId32;

/// blake2b-256, by which blobs are addressed and commitments made.
pub fn blake2(bytes: &[u8]) -> Hash {
    sp_crypto_hashing::blake2_256(bytes)
}

/// An inference node's commitment to its output, whose bytes hash to `output_hash`.
pub fn output(contract: &AccountId32, task: TaskId, node: NodeId, output_hash: &Hash, salt: &Salt) -> Hash {
    blake2(&commitment::output(&contract.0, task, node, output_hash, salt))
}

/// An evaluator's commitment to its scores (one per output, in the task's order) and to its report.
pub fn scores(
    contract: &AccountId32,
    task: TaskId,
    node: NodeId,
    scores: &[Score],
    report_hash: &Hash,
    salt: &Salt,
) -> Hash {
    blake2(&commitment::scores(&contract.0, task, node, scores, report_hash, salt))
}

/// A request's commitment to a reference answer that `auditor` can open.
pub fn reference(contract: &AccountId32, auditor: &AccountId32, reference_hash: &Hash, salt: &Salt) -> Hash {
    blake2(&commitment::reference(&contract.0, &auditor.0, reference_hash, salt))
}

/// The salt of one commitment, derived from a node's own secret.
pub fn salt(secret: &[u8; 32], contract: &AccountId32, task: TaskId, node: NodeId, purpose: Purpose) -> Salt {
    blake2(&commitment::salt(secret, &contract.0, task, node, purpose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blake2_is_blake2b_256() {
        // The hash of nothing, as every implementation of the function prints it.
        assert_eq!(
            hex::encode(blake2(b"")),
            "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
        );
    }

    #[test]
    fn a_commitment_binds_contract_task_node_and_salt() {
        let contract = AccountId32([1; 32]);
        let base = output(&contract, 1, 2, &[3; 32], &[4; 32]);
        assert_ne!(base, output(&AccountId32([2; 32]), 1, 2, &[3; 32], &[4; 32]));
        assert_ne!(base, output(&contract, 2, 2, &[3; 32], &[4; 32]));
        assert_ne!(base, output(&contract, 1, 3, &[3; 32], &[4; 32]));
        assert_ne!(base, output(&contract, 1, 2, &[4; 32], &[4; 32]));
        assert_ne!(base, output(&contract, 1, 2, &[3; 32], &[5; 32]));
    }
}
