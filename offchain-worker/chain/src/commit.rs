//! The hashes of commitments: `poq_core::commitment`'s preimages under the chain's blake2b-256.

use poq_core::commitment::{self, Hash, Purpose, Salt};
use poq_core::registry::panel_seed;
use poq_core::units::{Millis, NodeId, Score, TaskId};
use subxt::utils::{AccountId32, H256};

/// blake2b-256, by which blobs are addressed and commitments made.
pub fn blake2(bytes: &[u8]) -> Hash {
    sp_crypto_hashing::blake2_256(bytes)
}

/// A contract on a chain: what every commitment starts with. [`crate::Client::network`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The contract.
    pub contract: AccountId32,
    /// The hash of the chain's genesis and the contract.
    pub hash: Hash,
    /// How long an epoch is, in milliseconds; never changes.
    pub epoch_ms: Millis,
}

impl Network {
    /// Of a contract on the chain of this genesis.
    pub fn new(genesis: H256, contract: AccountId32, epoch_ms: Millis) -> Network {
        Network { contract, hash: blake2(&commitment::network(&genesis.0, &contract.0)), epoch_ms }
    }

    /// An inference node's commitment to its output, whose bytes hash to `output_hash`.
    pub fn output(&self, task: TaskId, node: NodeId, output_hash: &Hash, salt: &Salt) -> Hash {
        blake2(&commitment::output(&self.hash, task, node, output_hash, salt))
    }

    /// An evaluator's commitment to its scores (one per output, in the task's order) and to its report.
    pub fn scores(
        &self,
        task: TaskId,
        node: NodeId,
        scores: &[Score],
        report_hash: &Hash,
        salt: &Salt,
    ) -> Hash {
        blake2(&commitment::scores(&self.hash, task, node, scores, report_hash, salt))
    }

    /// A request's commitment to a reference answer that `auditor` can open.
    pub fn reference(&self, auditor: &AccountId32, reference_hash: &Hash, salt: &Salt) -> Hash {
        blake2(&commitment::reference(&self.hash, &auditor.0, reference_hash, salt))
    }

    /// The hash of a requester's secret that its request carries.
    pub fn secret(&self, requester: &AccountId32, secret: &Hash) -> Hash {
        blake2(&commitment::secret(&self.hash, &requester.0, secret))
    }

    /// A requester's secret, derived from its own key and its request's reference commitment.
    pub fn request_secret(&self, key: &[u8; 32], reference_commitment: &Hash) -> Hash {
        blake2(&commitment::request_secret(key, &self.hash, reference_commitment))
    }

    /// The salt of one commitment, derived from a node's own secret.
    pub fn salt(&self, key: &[u8; 32], task: TaskId, node: NodeId, purpose: Purpose) -> Salt {
        blake2(&commitment::salt(key, &self.hash, task, node, purpose))
    }

    /// The seed of a task's panel. `salts` are those of all the outputs that were committed to, in the order of its slots.
    pub fn panel_seed(&self, task: TaskId, secret: &Hash, salts: &[Salt]) -> Hash {
        blake2(&panel_seed(&self.hash, task, secret, salts))
    }
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
    fn a_commitment_binds_chain_contract_task_node_and_salt() {
        let network = |genesis, contract| Network::new(H256([genesis; 32]), AccountId32([contract; 32]), 1);
        let one = network(1, 1);
        let base = one.output(1, 2, &[3; 32], &[4; 32]);
        assert_ne!(base, network(2, 1).output(1, 2, &[3; 32], &[4; 32]));
        assert_ne!(base, network(1, 2).output(1, 2, &[3; 32], &[4; 32]));
        assert_ne!(base, one.output(2, 2, &[3; 32], &[4; 32]));
        assert_ne!(base, one.output(1, 3, &[3; 32], &[4; 32]));
        assert_ne!(base, one.output(1, 2, &[4; 32], &[4; 32]));
        assert_ne!(base, one.output(1, 2, &[3; 32], &[5; 32]));
        // The same contract address on a test network does not publish a key's secrets.
        assert_ne!(
            one.salt(&[9; 32], 1, 2, Purpose::Output),
            network(2, 1).salt(&[9; 32], 1, 2, Purpose::Output)
        );
        assert_ne!(one.request_secret(&[9; 32], &[1; 32]), network(2, 1).request_secret(&[9; 32], &[1; 32]));
    }
}
