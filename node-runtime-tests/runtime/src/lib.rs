//! Runtime of the development chain: `pallet-contracts` and what it needs, with the settings of
//! substrate-contracts-node 0.42.
//!
//! A contract built, priced and deployed against this runtime meets the same deposits, limits, weights and call
//! encodings on a substrate-contracts-node. The pallet indices are that node's for the same reason; pallets that no
//! contract can notice (authorship, assets, revive) are left out.
//!
//! The crate compiles twice: natively (`std`, for the in-process sandbox and for the node's types) and to
//! `wasm32v1-none` (`scripts/build-runtime.sh`). It does not use substrate-wasm-builder.

#![cfg_attr(not(feature = "std"), no_std)]
// The FRAME macros recurse once per pallet and generate items without documentation.
#![recursion_limit = "256"]
#![allow(missing_docs)]

extern crate alloc;

// The FRAME macros name it bare, and only `std` has it in its prelude.
#[cfg(not(feature = "std"))]
use alloc::vec::Vec;

use polkadot_sdk::*;

use sp_runtime::{
    generic,
    traits::{BlakeTwo256, IdentifyAccount, Verify},
    MultiAddress, MultiSignature,
};
use sp_version::RuntimeVersion;

pub mod apis;
pub mod configs;
pub mod genesis_config_presets;

pub use frame_system::Call as SystemCall;
pub use pallet_balances::Call as BalancesCall;
pub use pallet_contracts::Call as ContractsCall;
pub use pallet_sudo::Call as SudoCall;
pub use pallet_timestamp::Call as TimestampCall;
pub use pallet_utility::Call as UtilityCall;

/// Number of a block.
pub type BlockNumber = u32;
/// Signature of an extrinsic: sr25519, ed25519 or ECDSA.
pub type Signature = MultiSignature;
/// Account: the 32-byte public key, or the hash of one.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// Amount of money in the smallest unit; [`UNIT`] is one token.
pub type Balance = u128;
/// Number of extrinsics that an account has signed.
pub type Nonce = u32;
/// Hash of a block, an extrinsic or a contract's code (blake2-256).
pub type Hash = sp_core::H256;
/// Address format of extrinsics.
pub type Address = MultiAddress<AccountId, ()>;
/// Block header.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// Block.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// Block with its justifications.
pub type SignedBlock = generic::SignedBlock<Block>;
/// What a signed extrinsic carries beside its call, in the order of substrate-contracts-node 0.42.
pub type TxExtension = (
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    frame_system::CheckNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
);
/// Extrinsic as it travels: signature not yet checked.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// What an extrinsic's signature covers.
pub type SignedPayload = generic::SignedPayload<RuntimeCall, TxExtension>;
/// Dispatches blocks and extrinsics to the pallets.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;
/// Event of a block with the phase it was emitted in.
pub type EventRecord = frame_system::EventRecord<RuntimeEvent, Hash>;

/// One thousandth of a token.
pub const MILLIUNIT: Balance = 1_000_000_000;
/// One token, in the smallest unit.
pub const UNIT: Balance = 1_000 * MILLIUNIT;
/// Smallest balance an account can have.
pub const EXISTENTIAL_DEPOSIT: Balance = MILLIUNIT;

/// Types for code that must not know the runtime's calls (the node).
pub mod opaque {
    #[cfg(not(feature = "std"))]
    use alloc::vec::Vec;

    use polkadot_sdk::*;

    use sp_runtime::{generic, impl_opaque_keys, traits::BlakeTwo256};

    pub use sp_runtime::OpaqueExtrinsic as UncheckedExtrinsic;

    /// Block header.
    pub type Header = generic::Header<super::BlockNumber, BlakeTwo256>;
    /// Block whose extrinsics are bytes.
    pub type Block = generic::Block<Header, UncheckedExtrinsic>;

    impl_opaque_keys! {
        /// No session keys: blocks are sealed by hand, nobody takes turns.
        pub struct SessionKeys {}
    }
}

/// The runtime's version. `transaction_version` changes whenever a call's encoding does.
#[sp_version::runtime_version]
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: alloc::borrow::Cow::Borrowed("poq-dev"),
    impl_name: alloc::borrow::Cow::Borrowed("poq-dev"),
    authoring_version: 1,
    spec_version: 100,
    impl_version: 1,
    apis: apis::RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

#[frame_support::runtime]
mod runtime {
    use polkadot_sdk::*;

    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    pub struct Runtime;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;
    #[runtime::pallet_index(1)]
    pub type RandomnessCollectiveFlip = pallet_insecure_randomness_collective_flip;
    #[runtime::pallet_index(2)]
    pub type Utility = pallet_utility;
    #[runtime::pallet_index(3)]
    pub type Timestamp = pallet_timestamp;
    #[runtime::pallet_index(4)]
    pub type Balances = pallet_balances;
    // 5 is substrate-contracts-node's authorship pallet.
    #[runtime::pallet_index(6)]
    pub type TransactionPayment = pallet_transaction_payment;
    #[runtime::pallet_index(7)]
    pub type Sudo = pallet_sudo;
    #[runtime::pallet_index(8)]
    pub type Contracts = pallet_contracts;
}
