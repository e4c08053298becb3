//! The development accounts, the same ones as `subxt_signer::sr25519::dev` has.

use polkadot_sdk::sp_core::{sr25519, Pair};
use polkadot_sdk::sp_keyring::Sr25519Keyring;
use poq_runtime::AccountId;

/// Alice, who is also sudo.
pub fn alice() -> sr25519::Pair {
    Sr25519Keyring::Alice.pair()
}

/// Bob.
pub fn bob() -> sr25519::Pair {
    Sr25519Keyring::Bob.pair()
}

/// Charlie.
pub fn charlie() -> sr25519::Pair {
    Sr25519Keyring::Charlie.pair()
}

/// Dave.
pub fn dave() -> sr25519::Pair {
    Sr25519Keyring::Dave.pair()
}

/// Eve.
pub fn eve() -> sr25519::Pair {
    Sr25519Keyring::Eve.pair()
}

/// Ferdie.
pub fn ferdie() -> sr25519::Pair {
    Sr25519Keyring::Ferdie.pair()
}

/// A key of its own for every `index`, without funds; for tests that need many accounts.
pub fn numbered(index: u64) -> sr25519::Pair {
    let mut seed = [0u8; 32];
    seed[..8].copy_from_slice(b"poq-test");
    seed[8..16].copy_from_slice(&index.to_le_bytes());
    sr25519::Pair::from_seed(&seed)
}

/// The account that `pair` signs for.
pub fn account_of(pair: &sr25519::Pair) -> AccountId {
    AccountId::from(pair.public())
}
