//! Putting the contract on a chain.

use crate::client::{At, Block, Client};
use crate::commit::blake2;
use crate::dry_run::{instantiate_args, Code, Deposit};
use crate::error::{Error, Result};
use crate::submit::Submitter;
use crate::types::{GlobalParams, Millis};
use crate::view::decode_return;
use ink::env::{DefaultEnvironment, Environment};
use parity_scale_codec::Encode;
use poq_contract::errors::Error as ContractError;
use poq_contract::PoqRef;
use serde::Deserialize;
use std::path::Path;
use subxt::ext::scale_value::Value;
use subxt::utils::{AccountId32, H256};

/// What a WebAssembly module begins with.
const WASM_MAGIC: &[u8; 4] = b"\0asm";

/// The contract's code.
#[derive(Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The WebAssembly module.
    pub code: Vec<u8>,
    /// Its blake2b-256 hash, by which the chain knows it.
    pub code_hash: H256,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Artifact({} bytes, {:?})", self.code.len(), self.code_hash)
    }
}

/// The parts of a `.contract` or metadata file that matter here.
#[derive(Deserialize)]
struct Bundle {
    source: Source,
}

#[derive(Deserialize)]
struct Source {
    hash: Option<H256>,
    wasm: Option<String>,
}

impl Artifact {
    /// From a WebAssembly module.
    ///
    /// # Errors
    /// `Artifact` where it is none.
    pub fn from_wasm(code: Vec<u8>) -> Result<Artifact> {
        Artifact::checked(code, "the code")
    }

    fn checked(code: Vec<u8>, path: &str) -> Result<Artifact> {
        if !code.starts_with(WASM_MAGIC) {
            return Err(Error::Artifact {
                path: path.to_owned(),
                reason: "it is no WebAssembly module".into(),
            });
        }
        Ok(Artifact { code_hash: H256(blake2(&code)), code })
    }

    /// From a file: a `.contract` bundle, metadata (`.json`) with the `.wasm` of the same name beside it, or a `.wasm`.
    ///
    /// # Errors
    /// `Artifact` where the file cannot be read, or the code does not have the hash that the metadata gives it.
    pub fn load(path: &Path) -> Result<Artifact> {
        let name = path.display().to_string();
        let refuse = |reason: String| Error::Artifact { path: name.clone(), reason };
        let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
        if bytes.starts_with(WASM_MAGIC) {
            return Artifact::checked(bytes, &name);
        }
        let bundle: Bundle = serde_json::from_slice(&bytes).map_err(|e| {
            refuse(format!("it is neither a WebAssembly module nor a contract's bundle or metadata: {e}"))
        })?;
        let code = match bundle.source.wasm {
            Some(text) => hex::decode(text.trim_start_matches("0x"))
                .map_err(|e| refuse(format!("its source.wasm: {e}")))?,
            None => {
                let beside = path.with_extension("wasm");
                std::fs::read(&beside)
                    .map_err(|e| refuse(format!("it holds no code, and {}: {e}", beside.display())))?
            }
        };
        let artifact = Artifact::checked(code, &name)?;
        match bundle.source.hash {
            Some(hash) if hash != artifact.code_hash => Err(refuse(format!(
                "its code hashes to {:?} and not to its source.hash {hash:?}",
                artifact.code_hash
            ))),
            _ => Ok(artifact),
        }
    }
}

/// A deployed contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// Its address.
    pub address: AccountId32,
    /// Its code's hash.
    pub code_hash: H256,
    /// The block that it was instantiated in; the best block where it was already there.
    pub block: Block,
    /// Whether this call instantiated it.
    pub created: bool,
}

/// What a new contract is told, besides the genesis of its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How long an epoch is, in milliseconds; can never be changed.
    pub epoch_ms: Millis,
    /// The parameters that are not a kind's.
    pub global: GlobalParams,
}

/// Selector and arguments of the constructor.
fn constructor(genesis: H256, setup: &Setup) -> Vec<u8> {
    // Only the input is taken from the built instantiation; hash, endowment and salt travel beside it.
    PoqRef::new(genesis.0, setup.epoch_ms, setup.global)
        .code_hash(<DefaultEnvironment as Environment>::Hash::from([0; 32]))
        .endowment(0)
        .salt_bytes([0u8; 0])
        .params()
        .exec_input()
        .encode()
}

/// Where the contract comes to be when `deployer` instantiates it so on the chain of this genesis.
pub fn address_of(
    deployer: &AccountId32,
    genesis: H256,
    code_hash: H256,
    setup: &Setup,
    salt: &[u8],
) -> AccountId32 {
    address(deployer, code_hash, &constructor(genesis, setup), salt)
}

/// pallet-contracts' DefaultAddressGenerator.
fn address(deployer: &AccountId32, code_hash: H256, data: &[u8], salt: &[u8]) -> AccountId32 {
    AccountId32(blake2(&(b"contract_addr_v1", deployer.0, code_hash.0, data, salt).encode()))
}

/// What the deployment is called in errors.
pub(crate) const NAME: &str = "the deployment";

/// The runtime's call with its arguments.
pub(crate) enum Call {
    /// Of code that the chain has.
    Existing(&'static str, (u128, Value, Option<u128>, [u8; 32], Vec<u8>, Vec<u8>)),
    /// With the code.
    Upload(&'static str, (u128, Value, Option<u128>, Vec<u8>, Vec<u8>, Vec<u8>)),
}

/// What a constructor's answer means.
type Answer = fn(&AccountId32, bool, &[u8]) -> Result<()>;

/// A contract to be instantiated.
pub(crate) struct Construction<'a> {
    /// What that is called in errors.
    pub(crate) name: &'static str,
    /// The code.
    pub(crate) artifact: &'a Artifact,
    /// The money that it carries.
    pub(crate) value: u128,
    /// Selector and arguments of the constructor.
    pub(crate) data: Vec<u8>,
    /// What tells several of the same account apart.
    pub(crate) salt: &'a [u8],
    /// What the constructor's answer means.
    pub(crate) answer: Answer,
}

impl<'a> Construction<'a> {
    pub(crate) fn of_poq(
        genesis: H256,
        artifact: &'a Artifact,
        setup: &Setup,
        salt: &'a [u8],
    ) -> Construction<'a> {
        Construction { name: NAME, artifact, value: 0, data: constructor(genesis, setup), salt, answer }
    }

    /// Where it comes to be when `deployer` instantiates it.
    pub(crate) fn address(&self, deployer: &AccountId32) -> AccountId32 {
        address(deployer, self.artifact.code_hash, &self.data, self.salt)
    }
}

fn answer(address: &AccountId32, reverted: bool, data: &[u8]) -> Result<()> {
    let result: std::result::Result<(), ContractError> = decode_return(address, "new", reverted, data)?;
    result.map_err(|error| Error::ConstructorRejected { error })
}

/// An instantiation that a dry run has accepted.
pub(crate) struct Instantiation {
    value: u128,
    code: Code,
    data: Vec<u8>,
    salt: Vec<u8>,
    gas: Value,
    limit: u128,
    /// What it puts down for code and storage.
    pub(crate) deposit: Deposit,
}

impl Instantiation {
    /// Runs the instantiation and forgets it.
    pub(crate) async fn prepare(
        submitter: &Submitter,
        construction: &Construction<'_>,
    ) -> Result<Instantiation> {
        let client = submitter.client();
        let Construction { name, artifact, value, data, salt, answer } = construction;
        let uploaded = client.has_code(artifact.code_hash).await?;
        let code =
            if uploaded { Code::existing(artifact.code_hash) } else { Code::Upload(artifact.code.clone()) };
        let args = instantiate_args(&submitter.account(), *value, &code, data, salt);
        let ran = client.state_call("ContractsApi_instantiate", &args, None).await?;
        let dry = client.executed(&ran, true, None).await?;
        let returned = match dry.result {
            Ok(returned) => returned,
            Err(failure) => {
                // A poor account's dry run ends before the deposit is counted.
                let least = code_deposit(client, &code).await.unwrap_or(0);
                let needed = value.saturating_add(dry.deposit.charge().max(least));
                return Err(submitter.dry_run_refused(name, failure, needed).await);
            }
        };
        let foretold = returned.address.unwrap_or_else(|| construction.address(&submitter.account()));
        answer(&foretold, returned.reverted, &returned.data)?;
        let options = client.options();
        let margin = options.deposit_margin_percent;
        Ok(Instantiation {
            value: *value,
            code,
            data: data.clone(),
            salt: salt.to_vec(),
            gas: dry.gas_required.plus_percent(options.gas_margin_percent).to_value(),
            limit: dry.deposit.limit(margin, client.chain().existential_deposit),
            deposit: dry.deposit,
        })
    }

    pub(crate) fn call(&self) -> Call {
        let Instantiation { value, code, data, salt, gas, limit, .. } = self;
        let (gas, limit, data, salt) = (gas.clone(), Some(*limit), data.clone(), salt.clone());
        match code {
            Code::Existing(hash) => Call::Existing("instantiate", (*value, gas, limit, *hash, data, salt)),
            Code::Upload(code) => {
                Call::Upload("instantiate_with_code", (*value, gas, limit, code.clone(), data, salt))
            }
        }
    }
}

/// The least that code is charged for when it is uploaded: the pallet's deposit for its bytes and its two records.
async fn code_deposit(client: &Client, code: &Code) -> Result<u128> {
    let Code::Upload(code) = code else { return Ok(0) };
    let runtime = client.runtime(client.hash_of(At::Best).await?).await?;
    let per_byte: u128 = runtime.constant("Contracts", "DepositPerByte")?;
    let per_item: u128 = runtime.constant("Contracts", "DepositPerItem")?;
    let bytes = u128::try_from(code.len()).unwrap_or(u128::MAX);
    Ok(per_byte.saturating_mul(bytes).saturating_add(per_item.saturating_mul(2)))
}

/// Uploads the code if the chain does not have it, and instantiates the contract. The submitter's account becomes its owner.
///
/// # Errors
/// `ConstructorRejected`; `Dispatch(Contracts::DuplicateContract)` where the same was deployed before with the same salt;
/// `InsufficientFunds`: code and storage are paid for with a deposit; or as of every call.
pub async fn deploy(
    submitter: &Submitter,
    artifact: &Artifact,
    setup: &Setup,
    salt: &[u8],
) -> Result<Deployed> {
    let genesis = submitter.client().chain().genesis_hash;
    instantiate(submitter, &Construction::of_poq(genesis, artifact, setup, salt)).await
}

/// Instantiates a contract; its code is uploaded if the chain does not have it.
pub(crate) async fn instantiate(submitter: &Submitter, construction: &Construction<'_>) -> Result<Deployed> {
    let Construction { name, artifact, value, .. } = construction;
    let ready = Instantiation::prepare(submitter, construction).await?;
    let needed = value.saturating_add(ready.deposit.charge());
    let (done, uploaded) = match ready.call() {
        Call::Existing(call, args) => (submitter.run(name, ("Contracts", call, args), needed).await?, false),
        Call::Upload(call, args) => (submitter.run(name, ("Contracts", call, args), needed).await?, true),
    };
    // Contracts.Instantiated { deployer, contract }
    let address = done
        .events
        .iter()
        .find(|event| event.is("Contracts", "Instantiated"))
        .and_then(|event| event.fields.get(32..64))
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(AccountId32)
        .ok_or(Error::EventMissing { call: name, block: done.block.number })?;
    tracing::info!(%address, code_hash = ?artifact.code_hash, block = done.block.number, uploaded, "deployed");
    Ok(Deployed { address, code_hash: artifact.code_hash, block: done.block, created: true })
}

/// The contract that this account deployed from this code, with these arguments and this salt; deployed now if it is not
/// there. Doing it again changes nothing: the address is a function of all these.
///
/// # Errors
/// As of [`deploy`].
pub async fn find_or_deploy(
    submitter: &Submitter,
    artifact: &Artifact,
    setup: &Setup,
    salt: &[u8],
) -> Result<Deployed> {
    let client = submitter.client();
    let genesis = client.chain().genesis_hash;
    let address = address_of(&submitter.account(), genesis, artifact.code_hash, setup, salt);
    match client.code_hash_of(&address).await? {
        Some(code_hash) => {
            Ok(Deployed { address, code_hash, block: client.block(At::Best).await?, created: false })
        }
        None => deploy(submitter, artifact, setup, salt).await,
    }
}

/// Whether the contract on the chain is this artifact's. Warns where it is not.
///
/// # Errors
/// `ContractAbsent` where there is none.
pub async fn check_code(client: &Client, artifact: &Artifact) -> Result<bool> {
    let found = client.code_hash().await?;
    let same = found == artifact.code_hash;
    if !same {
        tracing::warn!(
            on_chain = ?found,
            artifact = ?artifact.code_hash,
            "the contract on the chain was built from other code than the artifact here"
        );
    }
    Ok(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasm() -> Vec<u8> {
        [&WASM_MAGIC[..], &[1, 0, 0, 0]].concat()
    }

    #[test]
    fn the_constructor_is_encoded_as_the_contract_reads_it() {
        let global = GlobalParams {
            unbonding_ms: 1,
            archive_ms: 2,
            audit_bond: 3,
            audits_per_epoch: 4,
            params_delay_ms: 5,
        };
        let expected =
            (ink::selector_bytes!("new"), [9u8; 32], 7u64, (1u64, 2u64, 3u128, 4u16, 5u64)).encode();
        assert_eq!(constructor(H256([9; 32]), &Setup { epoch_ms: 7, global }), expected);
    }

    #[test]
    fn an_artifact_is_read_from_each_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let code = wasm();
        let hash = format!("0x{}", hex::encode(blake2(&code)));
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let plain = write("poq.wasm", &code);
        let metadata =
            write("poq.json", format!(r#"{{"source":{{"hash":"{hash}"}},"spec":{{}}}}"#).as_bytes());
        let bundle = format!(r#"{{"source":{{"hash":"{hash}","wasm":"0x{}"}}}}"#, hex::encode(&code));
        let bundle = write("poq.contract", bundle.as_bytes());
        for path in [plain, metadata, bundle] {
            let artifact = Artifact::load(&path).unwrap();
            assert_eq!(artifact.code, code);
            assert_eq!(artifact.code_hash.0, blake2(&code));
        }
    }

    #[test]
    fn a_wrong_artifact_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("poq.contract");
        let wrong =
            format!(r#"{{"source":{{"hash":"0x{}","wasm":"0x{}"}}}}"#, "11".repeat(32), hex::encode(wasm()));
        for text in
            [wrong.as_str(), "", "{}", r#"{"source":{"wasm":"0xzz"}}"#, r#"{"source":{"wasm":"0x00"}}"#]
        {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Artifact::load(&path), Err(Error::Artifact { .. })), "{text}");
        }
        assert!(matches!(Artifact::load(&dir.path().join("none")), Err(Error::Artifact { .. })));
        // Metadata without its code.
        std::fs::write(dir.path().join("lone.json"), r#"{"source":{}}"#).unwrap();
        assert!(matches!(Artifact::load(&dir.path().join("lone.json")), Err(Error::Artifact { .. })));
    }
}
