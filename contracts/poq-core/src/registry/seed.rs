//! What a draw's randomness is made of. Preimages only: the hash function is the caller's.

use crate::commitment::{Hash, Salt};
use crate::units::TaskId;
use alloc::vec::Vec;
use parity_scale_codec::Encode;

const PANEL: &[u8; 14] = b"poq/v2/panel\0\0";
const INFERENCE: &[u8; 14] = b"poq/v2/infrnc\0";

/// Preimage of a panel's seed: a commit and reveal of the requester and every inference node that delivered. `salts` are those
/// inside the outputs' commitments, of all that were committed, in the order of the task's slots.
///
/// One honest party suffices: until its salt (or secret) is out, nobody can tell a panel; once it is, all the others are bound by
/// their commitments, and what the seed is drawn from is an epoch that nobody can change. That is why no committed output may be
/// left out: whoever could leave theirs out would choose between two panels.
pub fn panel_seed(network: &Hash, task: TaskId, secret: &Salt, salts: &[Salt]) -> Vec<u8> {
    (PANEL, network, task, secret, salts).encode()
}

/// Preimage of the seed by which the inference nodes of a request are drawn. The requester can choose it, as it could have named
/// the nodes; nobody else can.
pub fn inference_seed(network: &Hash, task: TaskId, secret_hash: &Hash) -> Vec<u8> {
    (INFERENCE, network, task, secret_hash).encode()
}

/// A stream of random numbers from a seed: number i of round r is the first 16 bytes of hash(seed ‖ r ‖ i), r a byte and i four,
/// the lowest first. Rounds keep apart a draw and the filling of its empty seats.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: Hash,
    round: u8,
    next: u32,
}

impl Stream {
    /// Starts a stream.
    pub fn new(seed: Hash, round: u8) -> Stream {
        Stream { seed, round, next: 0 }
    }

    /// The next number.
    pub fn next(&mut self, hash: impl Fn(&[u8]) -> Hash) -> u128 {
        let mut block = [0u8; 37];
        let bytes = self.seed.into_iter().chain([self.round]).chain(self.next.to_le_bytes());
        block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        self.next = self.next.wrapping_add(1);
        let mut number = [0u8; 16];
        number.iter_mut().zip(hash(&block)).for_each(|(to, from)| *to = from);
        u128::from_le_bytes(number)
    }
}
