//! Contracts: dry runs, and extrinsics with the gas that the dry run asked for.

use parity_scale_codec::Encode;
use polkadot_sdk::{
    frame_support::weights::Weight,
    pallet_contracts::{
        self, CodeUploadResult, ContractExecResult as PalletExecResult,
        ContractInstantiateResult as PalletInstantiateResult, Determinism, StorageDeposit,
    },
    sp_core::sr25519,
    sp_crypto_hashing::{twox_128, twox_64},
    sp_runtime::MultiAddress,
};
use poq_runtime::{AccountId, Balance, ContractsCall, EventRecord, Hash, RuntimeCall, RuntimeEvent};

use crate::{
    chain::{decode, Draft, ExtrinsicReport, Sandbox},
    dev, SandboxError,
};

/// Code to instantiate: a blob, or the hash of one that is on the chain.
pub type Code = pallet_contracts::Code<Hash>;
/// What a dry-run call shows: gas, deposit, debug messages, events and the contract's answer.
pub type ContractExecResult = PalletExecResult<Balance, EventRecord>;
/// What a dry-run instantiation shows.
pub type ContractInstantiateResult = PalletInstantiateResult<AccountId, Balance, EventRecord>;

/// Topics and data of a contract's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractEvent {
    /// Indexed fields; ink! 5 puts the event's signature first.
    pub topics: Vec<Hash>,
    /// All fields, SCALE.
    pub data: Vec<u8>,
}

/// A contract that was just put on the chain.
#[derive(Clone, Debug)]
pub struct Instantiated {
    /// Its account.
    pub address: AccountId,
    /// The dry run before it.
    pub dry: ContractInstantiateResult,
    /// The extrinsic.
    pub report: ExtrinsicReport,
}

/// A call that is in a block.
#[derive(Clone, Debug)]
pub struct Called {
    /// The dry run before it; the contract's answer is `dry.result`.
    pub dry: ContractExecResult,
    /// The extrinsic.
    pub report: ExtrinsicReport,
}

impl Called {
    /// What the contract returned: for ink! 5, SCALE of `Result<T, LangError>`.
    pub fn data(&self) -> &[u8] {
        self.dry.result.as_ref().map_or(&[], |value| &value.data)
    }
}

/// Ten per cent above what the dry run used: extrinsics that come between may make the same call dearer.
fn with_margin(gas: Weight) -> Weight {
    gas.saturating_add(gas / 10)
}

impl Sandbox {
    /// What a call would do as part of the next block. Gas `None`: all that a block has. Deposit limit `None`: what `origin`
    /// can pay, but at most the pallet's default of about 107 UNIT.
    pub fn dry_call(
        &self,
        origin: &AccountId,
        contract: &AccountId,
        value: Balance,
        gas: Option<Weight>,
        deposit_limit: Option<Balance>,
        data: Vec<u8>,
    ) -> Result<ContractExecResult, SandboxError> {
        self.dry("ContractsApi_call", &(origin, contract, value, gas, deposit_limit, data))
    }

    /// What a call would do as the next one of a block that is being built.
    pub fn dry_call_in(
        &self,
        draft: &mut Draft,
        origin: &AccountId,
        contract: &AccountId,
        value: Balance,
        data: Vec<u8>,
    ) -> Result<ContractExecResult, SandboxError> {
        const CALL: &str = "ContractsApi_call";
        let arguments = (origin, contract, value, None::<Weight>, None::<Balance>, data).encode();
        let answer = self
            .query_in(draft, || poq_runtime::apis::api::dispatch(CALL, &arguments))?
            .ok_or_else(|| SandboxError::UnknownRuntimeApi(CALL.to_owned()))?;
        decode(CALL, &answer)
    }

    /// The id of the child trie that a contract's storage is in; `None` where there is no contract at the account.
    pub fn storage_id(&self, contract: &AccountId) -> Result<Option<Vec<u8>>, SandboxError> {
        // `ContractInfoOf` is private to the pallet; its records begin with the id.
        let key = [
            &twox_128(b"Contracts")[..],
            &twox_128(b"ContractInfoOf"),
            &twox_64(contract.as_ref()),
            contract.as_ref(),
        ]
        .concat();
        let record = self.storage(self.best().hash, &key)?;
        record.map(|record| decode("the contract's record", &record)).transpose()
    }

    /// What an instantiation would do as part of the next block.
    #[allow(clippy::too_many_arguments)] // the runtime API's own arguments
    pub fn dry_instantiate(
        &self,
        origin: &AccountId,
        value: Balance,
        gas: Option<Weight>,
        deposit_limit: Option<Balance>,
        code: Code,
        data: Vec<u8>,
        salt: Vec<u8>,
    ) -> Result<ContractInstantiateResult, SandboxError> {
        self.dry("ContractsApi_instantiate", &(origin, value, gas, deposit_limit, code, data, salt))
    }

    /// What an upload would do as part of the next block.
    pub fn dry_upload(
        &self,
        origin: &AccountId,
        code: Vec<u8>,
        deposit_limit: Option<Balance>,
    ) -> Result<CodeUploadResult<Hash, Balance>, SandboxError> {
        self.dry("ContractsApi_upload_code", &(origin, code, deposit_limit, Determinism::Enforced))
    }

    fn dry<R: parity_scale_codec::Decode>(
        &self,
        function: &'static str,
        arguments: &impl Encode,
    ) -> Result<R, SandboxError> {
        let arguments = arguments.encode();
        let answer = self
            .query_next_block(|| poq_runtime::apis::api::dispatch(function, &arguments))?
            .ok_or_else(|| SandboxError::UnknownRuntimeApi(function.to_owned()))?;
        decode(function, &answer)
    }

    /// Uploads code; returns its hash.
    pub fn upload_code(
        &mut self,
        signer: &sr25519::Pair,
        code: Vec<u8>,
    ) -> Result<(Hash, ExtrinsicReport), SandboxError> {
        let uploaded = self
            .dry_upload(&dev::account_of(signer), code.clone(), None)?
            .map_err(|error| SandboxError::DryRun { error, debug: String::new() })?;
        let call = ContractsCall::upload_code {
            code,
            storage_deposit_limit: None,
            determinism: Determinism::Enforced,
        };
        let report = self.submit_call(signer, RuntimeCall::Contracts(call))?.ok()?;
        Ok((uploaded.code_hash, report))
    }

    /// Instantiates a contract: dry run for the gas, then the signed extrinsic. A constructor that reverts is
    /// [`SandboxError::DryRun`] and nothing is sent.
    pub fn instantiate(
        &mut self,
        signer: &sr25519::Pair,
        value: Balance,
        code: Code,
        data: Vec<u8>,
        salt: Vec<u8>,
    ) -> Result<Instantiated, SandboxError> {
        let dry = self.dry_instantiate(
            &dev::account_of(signer),
            value,
            None,
            None,
            code.clone(),
            data.clone(),
            salt.clone(),
        )?;
        let instantiated = match &dry.result {
            Ok(instantiated) => instantiated.clone(),
            Err(error) => return Err(dry_run_error(*error, &dry.debug_message)),
        };
        let address = instantiated.account_id;
        if instantiated.result.did_revert() {
            return Err(SandboxError::Reverted { contract: address, data: instantiated.result.data });
        }
        let gas_limit = with_margin(dry.gas_required);
        let call = match code {
            Code::Upload(code) => ContractsCall::instantiate_with_code {
                value,
                gas_limit,
                storage_deposit_limit: None,
                code,
                data,
                salt,
            },
            Code::Existing(code_hash) => ContractsCall::instantiate {
                value,
                gas_limit,
                storage_deposit_limit: None,
                code_hash,
                data,
                salt,
            },
        };
        let report = self.submit_call(signer, RuntimeCall::Contracts(call))?.ok()?;
        Ok(Instantiated { address, dry, report })
    }

    /// Calls a contract: dry run for the gas, then the signed extrinsic. A call that fails or reverts in the dry run is
    /// [`SandboxError::DryRun`] or [`SandboxError::Reverted`] and nothing is sent.
    pub fn call(
        &mut self,
        signer: &sr25519::Pair,
        contract: &AccountId,
        value: Balance,
        data: Vec<u8>,
    ) -> Result<Called, SandboxError> {
        let dry = self.dry_call(&dev::account_of(signer), contract, value, None, None, data.clone())?;
        match &dry.result {
            Ok(answer) if answer.did_revert() => {
                return Err(SandboxError::Reverted { contract: contract.clone(), data: answer.data.clone() });
            }
            Ok(_) => {}
            Err(error) => return Err(dry_run_error(*error, &dry.debug_message)),
        }
        let gas_limit = with_margin(dry.gas_required);
        let report = self.call_with(signer, contract, value, gas_limit, None, data)?.ok()?;
        Ok(Called { dry, report })
    }

    /// Calls a contract without a dry run. A revert is `ContractReverted` in [`ExtrinsicReport::result`].
    pub fn call_with(
        &mut self,
        signer: &sr25519::Pair,
        contract: &AccountId,
        value: Balance,
        gas_limit: Weight,
        deposit_limit: Option<Balance>,
        data: Vec<u8>,
    ) -> Result<ExtrinsicReport, SandboxError> {
        self.submit_call(signer, call_of(contract, value, gas_limit, deposit_limit, data))
    }

    /// The events that `contract` emitted in block `at`, in order.
    pub fn contract_events(
        &self,
        at: Hash,
        contract: &AccountId,
    ) -> Result<Vec<ContractEvent>, SandboxError> {
        Ok(self
            .events(at)?
            .into_iter()
            .filter_map(|record| match record.event {
                RuntimeEvent::Contracts(pallet_contracts::Event::ContractEmitted {
                    contract: emitter,
                    data,
                }) if emitter == *contract => Some(ContractEvent { topics: record.topics, data }),
                _ => None,
            })
            .collect())
    }
}

/// The call that runs a contract's message.
pub fn call_of(
    contract: &AccountId,
    value: Balance,
    gas_limit: Weight,
    deposit_limit: Option<Balance>,
    data: Vec<u8>,
) -> RuntimeCall {
    RuntimeCall::Contracts(ContractsCall::call {
        dest: MultiAddress::Id(contract.clone()),
        value,
        gas_limit,
        storage_deposit_limit: deposit_limit.map(Into::into),
        data,
    })
}

/// What `deposit` moves out of the caller's account: negative for a refund.
pub fn signed_deposit(deposit: &StorageDeposit<Balance>) -> i128 {
    match deposit {
        StorageDeposit::Charge(amount) => i128::try_from(*amount).unwrap_or(i128::MAX),
        StorageDeposit::Refund(amount) => -i128::try_from(*amount).unwrap_or(i128::MAX),
    }
}

fn dry_run_error(error: polkadot_sdk::sp_runtime::DispatchError, debug: &[u8]) -> SandboxError {
    SandboxError::DryRun { error, debug: String::from_utf8_lossy(debug).into_owned() }
}
