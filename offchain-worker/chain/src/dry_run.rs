//! The contracts pallet's runtime API: calls and instantiations that are executed and forgotten.
//!
//! The types mirror pallet-contracts' own (`ContractsApi` version 2, the same from stable2409 to today). Only what comes before
//! the events is decoded: the events' type is the runtime's.

use crate::error::{Error, Failure, Result};
use crate::runtime::Runtime;
use parity_scale_codec::{Compact, Decode, Encode, Error as CodecError, Input};
use serde::{Deserialize, Serialize};
use subxt::ext::scale_value::Value;
use subxt::utils::{AccountId32, H256};

/// What a call costs to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Weight {
    /// Computation, in picoseconds on reference hardware.
    pub ref_time: u64,
    /// Storage proof, in bytes.
    pub proof_size: u64,
}

impl Weight {
    /// This much more, in percent.
    pub fn plus_percent(self, percent: u32) -> Weight {
        let add = |part: u64| {
            let more = u128::from(part).saturating_mul(u128::from(percent)).div_ceil(100);
            part.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
        };
        Weight { ref_time: add(self.ref_time), proof_size: add(self.proof_size) }
    }

    pub(crate) fn to_value(self) -> Value {
        Value::named_composite([
            ("ref_time", Value::u128(self.ref_time.into())),
            ("proof_size", Value::u128(self.proof_size.into())),
        ])
    }
}

// On the wire both parts are compact.
impl Encode for Weight {
    fn encode(&self) -> Vec<u8> {
        (Compact(self.ref_time), Compact(self.proof_size)).encode()
    }
}

impl Decode for Weight {
    fn decode<I: Input>(input: &mut I) -> std::result::Result<Self, CodecError> {
        let (ref_time, proof_size) = <(Compact<u64>, Compact<u64>)>::decode(input)?;
        Ok(Weight { ref_time: ref_time.0, proof_size: proof_size.0 })
    }
}

/// What a call's storage costs its caller, in the chain's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Deposit {
    /// The caller gets this back.
    Refund(u128),
    /// The caller puts this down.
    Charge(u128),
}

impl Deposit {
    /// What the caller puts down.
    pub fn charge(self) -> u128 {
        match self {
            Deposit::Charge(amount) => amount,
            Deposit::Refund(_) => 0,
        }
    }

    /// The most that a call may charge, `percent` above what the dry run was charged. Never zero: a record that grows by
    /// a byte between dry run and inclusion must not fail the call.
    pub(crate) fn limit(self, percent: u32, existential_deposit: u128) -> u128 {
        let charge = self.charge();
        let margin = (charge / 100).saturating_mul(u128::from(percent));
        charge.saturating_add(margin).saturating_add(existential_deposit)
    }
}

/// `ReturnFlags::REVERT`.
const REVERT: u32 = 1;

/// How a dry run ended.
#[derive(Clone, Debug)]
pub(crate) struct Executed {
    pub(crate) gas_required: Weight,
    pub(crate) deposit: Deposit,
    pub(crate) debug: String,
    pub(crate) result: std::result::Result<Returned, Failure>,
}

/// What a contract returned.
#[derive(Clone, Debug)]
pub(crate) struct Returned {
    pub(crate) reverted: bool,
    pub(crate) data: Vec<u8>,
    /// Of an instantiation.
    pub(crate) address: Option<AccountId32>,
}

/// Code for an instantiation.
#[derive(Clone, Debug, Encode)]
pub(crate) enum Code {
    Upload(Vec<u8>),
    Existing([u8; 32]),
}

impl Code {
    pub(crate) fn existing(hash: H256) -> Code {
        Code::Existing(hash.0)
    }
}

/// Arguments of `ContractsApi_call`.
pub(crate) fn call_args(origin: &AccountId32, dest: &AccountId32, value: u128, data: &[u8]) -> Vec<u8> {
    (origin.0, dest.0, value, None::<Weight>, None::<u128>, data).encode()
}

/// Arguments of `ContractsApi_instantiate`.
pub(crate) fn instantiate_args(
    origin: &AccountId32,
    value: u128,
    code: &Code,
    data: &[u8],
    salt: &[u8],
) -> Vec<u8> {
    (origin.0, value, None::<Weight>, None::<u128>, code, data, salt).encode()
}

impl Executed {
    /// Decodes the answer of `ContractsApi_call` or, with an address behind the data, of `ContractsApi_instantiate`.
    pub(crate) fn decode(bytes: &[u8], instantiation: bool, runtime: &Runtime) -> Result<Executed> {
        let what = "a dry run's result";
        let broken = |e: CodecError| Error::decode(what, e);
        let mut input = bytes;
        let _consumed = Weight::decode(&mut input).map_err(broken)?;
        let gas_required = Weight::decode(&mut input).map_err(broken)?;
        let deposit = Deposit::decode(&mut input).map_err(broken)?;
        let debug = Vec::<u8>::decode(&mut input).map_err(broken)?;
        let result = match u8::decode(&mut input).map_err(broken)? {
            0 => {
                let flags = u32::decode(&mut input).map_err(broken)?;
                let data = Vec::<u8>::decode(&mut input).map_err(broken)?;
                let address = if instantiation {
                    Some(AccountId32(<[u8; 32]>::decode(&mut input).map_err(broken)?))
                } else {
                    None
                };
                Ok(Returned { reverted: flags & REVERT != 0, data, address })
            }
            1 => Err(runtime.failure(&mut input)?),
            other => return Err(Error::decode(what, format!("{other} is neither Ok nor Err"))),
        };
        Ok(Executed { gas_required, deposit, debug: String::from_utf8_lossy(&debug).into_owned(), result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_compact_and_grow_by_percent() {
        let weight = Weight { ref_time: 1_000_001, proof_size: 3 };
        assert_eq!(Weight::decode(&mut &weight.encode()[..]).unwrap(), weight);
        assert_eq!(weight.encode(), (Compact(1_000_001u64), Compact(3u64)).encode());
        assert_eq!(weight.plus_percent(25), Weight { ref_time: 1_250_002, proof_size: 4 });
        assert_eq!(Weight { ref_time: u64::MAX, proof_size: 0 }.plus_percent(100).ref_time, u64::MAX);
    }

    #[test]
    fn a_deposit_limit_is_above_the_charge() {
        assert_eq!(Deposit::Charge(1_000).limit(10, 1), 1_101);
        assert_eq!(Deposit::Refund(1_000).limit(10, 1), 1);
    }
}
