//! A runtime version's metadata: what calls, events and errors are called and how they are encoded.

use crate::error::{Error, Failure, Result};
use crate::options::Mortality;
use crate::signer::Keys;
use parity_scale_codec::{Compact, Decode, DecodeAll};
use subxt::client::OfflineClientAtBlock;
use subxt::config::substrate::{SpecVersionForRange, SubstrateConfig};
use subxt::config::DefaultExtrinsicParamsBuilder;
use subxt::events::Phase;
use subxt::ext::frame_metadata::RuntimeMetadataPrefixed;
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::ext::scale_value::{scale::decode_as_type, Composite, Value, ValueDef};
use subxt::utils::{AccountId32, H256};
use subxt::{Metadata, OfflineClient};

/// The longest mortality in blocks.
const MAX_PERIOD: u32 = 1 << 12;

/// One runtime version of the chain.
pub(crate) struct Runtime {
    pub(crate) spec_version: u32,
    client: OfflineClientAtBlock<SubstrateConfig>,
}

/// A signed call, ready to be sent as often as needed: the pool takes it once.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: H256,
    pub(crate) nonce: u64,
    /// The block that its mortality counts from.
    pub(crate) birth: u32,
    /// The last block that may include it.
    pub(crate) death: Option<u32>,
}

/// An event of a block, as far as this crate looks at it.
pub(crate) struct RawEvent {
    /// The extrinsic that it happened in; none for the block's own work.
    pub(crate) extrinsic: Option<u32>,
    /// Its place among the block's events.
    pub(crate) index: u32,
    pub(crate) pallet: String,
    pub(crate) name: String,
    pub(crate) fields: Vec<u8>,
    pub(crate) topics: Vec<H256>,
}

impl RawEvent {
    pub(crate) fn is(&self, pallet: &str, name: &str) -> bool {
        self.pallet == pallet && self.name == name
    }
}

impl Runtime {
    /// From the answer of `Metadata_metadata_at_version` or `state_getMetadata`.
    pub(crate) fn new(
        spec_version: u32,
        transaction_version: u32,
        genesis: H256,
        metadata: RuntimeMetadataPrefixed,
    ) -> Result<Runtime> {
        let metadata = Metadata::try_from(metadata).map_err(|e| Error::decode("the chain's metadata", e))?;
        let config = SubstrateConfig::builder()
            .set_genesis_hash(genesis)
            .set_metadata_for_spec_versions([(spec_version, metadata.arc())])
            .set_spec_version_for_block_ranges([SpecVersionForRange {
                block_range: 0..u64::MAX,
                spec_version,
                transaction_version,
            }])
            .build();
        let client = OfflineClient::new_with_config(config)
            .at_block(0u64)
            .map_err(|e| Error::decode("the chain's metadata", e))?;
        Ok(Runtime { spec_version, client })
    }

    /// Encodes and signs a call. Mortality counts from block `birth` with hash `birth_hash`.
    pub(crate) fn sign<Args: EncodeAsFields>(
        &self,
        name: &'static str,
        call: (&'static str, &'static str, Args),
        keys: &Keys,
        nonce: u64,
        mortality: Mortality,
        (birth, birth_hash): (u32, H256),
    ) -> Result<Signed> {
        let encode = |reason: String| Error::Encode { call: name, reason };
        let params = DefaultExtrinsicParamsBuilder::<SubstrateConfig>::new().nonce(nonce);
        let (params, death) = match mortality {
            Mortality::Immortal => (params.immortal(), None),
            Mortality::Blocks(blocks) => {
                // Longer eras round their first block down; up to this length it is `birth` itself.
                let period = blocks.clamp(4, MAX_PERIOD).next_power_of_two();
                let death = birth.saturating_add(period).saturating_sub(1);
                (params.mortal_from_unchecked(period.into(), birth.into(), birth_hash), Some(death))
            }
        };
        let payload = subxt::tx::dynamic(call.0, call.1, call.2);
        let mut signable = self
            .client
            .tx()
            .create_signable_offline(&payload, params.build())
            .map_err(|e| encode(e.to_string()))?;
        let signed = signable.sign(keys.signer()).map_err(|e| encode(e.to_string()))?;
        Ok(Signed { bytes: signed.encoded().to_vec(), hash: signed.hash(), nonce, birth, death })
    }

    /// Takes a block's events apart.
    pub(crate) fn events(&self, bytes: Vec<u8>) -> Result<Vec<RawEvent>> {
        let events = self.client.events().from_bytes(bytes);
        let mut out = Vec::new();
        for event in events.iter() {
            let event = event.map_err(|e| Error::decode("a block's events", e))?;
            out.push(RawEvent {
                extrinsic: match event.phase() {
                    Phase::ApplyExtrinsic(index) => Some(index),
                    Phase::Finalization | Phase::Initialization => None,
                },
                index: event.index(),
                pallet: event.pallet_name().to_owned(),
                name: event.event_name().to_owned(),
                fields: event.field_bytes().to_vec(),
                topics: event.topics().to_vec(),
            });
        }
        Ok(out)
    }

    /// Decodes a dispatch error from the front of `bytes`; what follows it is left alone.
    pub(crate) fn failure(&self, bytes: &mut &[u8]) -> Result<Failure> {
        let metadata = self.client.metadata_ref();
        let type_id = metadata
            .dispatch_error_ty()
            .ok_or_else(|| Error::decode("a dispatch error", "the metadata has no such type"))?;
        let value = decode_as_type(bytes, type_id, metadata.types())
            .map_err(|e| Error::decode("a dispatch error", e))?;
        let ValueDef::Variant(variant) = value.value else {
            return Err(Error::decode("a dispatch error", "it is not an enum"));
        };
        if variant.name == "Module" {
            if let Some((index, error)) = module_error(&variant.values) {
                if let Some(pallet) = metadata.pallet_by_error_index(index) {
                    let found = pallet.error_variant_by_index(error);
                    return Ok(Failure {
                        pallet: pallet.name().to_owned(),
                        name: found.map_or_else(|| format!("error {error}"), |v| v.name.clone()),
                        docs: found.map_or_else(String::new, |v| v.docs.join(" ").trim().to_owned()),
                    });
                }
                return Ok(Failure {
                    pallet: format!("pallet {index}"),
                    name: format!("error {error}"),
                    docs: String::new(),
                });
            }
        }
        // Token(FundsUnavailable), Arithmetic(Overflow), …
        let inner = variant.values.values().next().and_then(|v| match &v.value {
            ValueDef::Variant(inner) => Some(inner.name.clone()),
            _ => None,
        });
        Ok(match inner {
            Some(name) => Failure { pallet: variant.name, name, docs: String::new() },
            None => Failure { pallet: "Dispatch".into(), name: variant.name, docs: String::new() },
        })
    }

    /// The existential deposit, from the metadata's constants.
    pub(crate) fn existential_deposit(&self) -> Result<u128> {
        self.constant("Balances", "ExistentialDeposit")
    }

    /// The network's address prefix.
    pub(crate) fn ss58_prefix(&self) -> Result<u16> {
        // A u8 in the oldest runtimes, a u16 since.
        self.constant::<u16>("System", "SS58Prefix")
            .or_else(|_| self.constant::<u8>("System", "SS58Prefix").map(u16::from))
    }

    pub(crate) fn constant<T: Decode>(&self, pallet: &str, name: &str) -> Result<T> {
        let what = || format!("the constant {pallet}.{name}");
        let bytes = self
            .client
            .metadata_ref()
            .pallet_by_name(pallet)
            .and_then(|p| p.constant_by_name(name))
            .ok_or_else(|| Error::decode(what(), "the chain has none"))?
            .value();
        T::decode_all(&mut &bytes[..]).map_err(|e| Error::decode(what(), e))
    }

    /// Decodes a storage value by name, in the metadata's terms.
    pub(crate) fn storage_value(&self, pallet: &str, entry: &str, bytes: &[u8]) -> Result<Value<u32>> {
        let what = || format!("{pallet}.{entry}");
        let metadata = self.client.metadata_ref();
        let type_id = metadata
            .pallet_by_name(pallet)
            .and_then(|p| p.storage())
            .and_then(|s| s.entry_by_name(entry))
            .ok_or_else(|| Error::decode(what(), "the chain has no such storage"))?
            .value_ty();
        decode_as_type(&mut &bytes[..], type_id, metadata.types()).map_err(|e| Error::decode(what(), e))
    }

    /// Whether the chain has a pallet of this name.
    pub(crate) fn has_pallet(&self, name: &str) -> bool {
        self.client.metadata_ref().pallet_by_name(name).is_some()
    }
}

/// Pallet index and error index of a `Module` error.
fn module_error(values: &Composite<u32>) -> Option<(u8, u8)> {
    // Module(ModuleError { index, error: [u8; 4] })
    let inner = match values {
        Composite::Unnamed(one) => match &one.first()?.value {
            ValueDef::Composite(inner) => inner,
            _ => return None,
        },
        Composite::Named(_) => values,
    };
    let mut fields = inner.values();
    let index = u8::try_from(fields.next()?.as_u128()?).ok()?;
    let error = match &fields.next()?.value {
        ValueDef::Composite(bytes) => u8::try_from(bytes.values().next()?.as_u128()?).ok()?,
        ValueDef::Primitive(_) => return None,
        _ => return None,
    };
    Some((index, error))
}

/// `Contracts.ContractEmitted { contract, data }`.
pub(crate) fn contract_emitted(fields: &[u8]) -> Result<(AccountId32, Vec<u8>)> {
    let (contract, data) = <([u8; 32], Vec<u8>)>::decode_all(&mut &fields[..])
        .map_err(|e| Error::decode("Contracts.ContractEmitted", e))?;
    Ok((AccountId32(contract), data))
}

/// Metadata as the runtime API returns it: an optional, length-prefixed blob.
pub(crate) fn metadata_at_version(bytes: &[u8]) -> Result<RuntimeMetadataPrefixed> {
    let answer = Option::<(Compact<u32>, RuntimeMetadataPrefixed)>::decode(&mut &bytes[..])
        .map_err(|e| Error::decode("the chain's metadata", e))?;
    answer
        .map(|(_, metadata)| metadata)
        .ok_or_else(|| Error::decode("the chain's metadata", "the node has none"))
}

/// Metadata as `state_getMetadata` returns it.
pub(crate) fn metadata_plain(bytes: &[u8]) -> Result<RuntimeMetadataPrefixed> {
    RuntimeMetadataPrefixed::decode(&mut &bytes[..]).map_err(|e| Error::decode("the chain's metadata", e))
}
