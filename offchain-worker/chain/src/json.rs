//! JSON forms of the contract's values: money as decimal strings (JSON's numbers are not exact above 2⁵³), hashes as 0x hex,
//! accounts as SS58 addresses, ratios in parts per billion, times in milliseconds.

use crate::account::{to_account32, InkAccountId};
use crate::client::{Funds, Hold};
use crate::types::{
    Account, Auditor, Balances, BondChange, Clock, Commit, GlobalParams, Kind, KindParams, KindView,
    Liabilities, Node, NodeInfo, NodeStatus, NodeUpdate, NodeView, Opening, OutputSlot, Overview, Penalty,
    Phase, Place, Population, Quote, RefundReason, Registration, Reveal, Role, Score, Seat, SeatState,
    Settlement, SettlementInput, Solvency, Step, Task, TaskInput, TaskView,
};
use poq_contract::errors::Error as ContractError;
use poq_contract::events::{Administration, NodeChange, Revealed};
use poq_core::draw::Pool;
use poq_core::Ratio;
use serde_json::{json, Value};
use subxt::utils::{AccountId32, H256};

/// What has a JSON form.
pub trait ToJson {
    /// The JSON form.
    fn to_json(&self) -> Value;
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToJson::to_json)
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> Value {
        Value::Array(self.iter().map(ToJson::to_json).collect())
    }
}

impl<A: ToJson, B: ToJson> ToJson for (A, B) {
    fn to_json(&self) -> Value {
        Value::Array(vec![self.0.to_json(), self.1.to_json()])
    }
}

impl<T: ToJson, E: ToJson> ToJson for Result<T, E> {
    fn to_json(&self) -> Value {
        match self {
            Ok(value) => json!({ "ok": value.to_json() }),
            Err(error) => json!({ "error": error.to_json() }),
        }
    }
}

impl ToJson for u128 {
    fn to_json(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl ToJson for [u8; 32] {
    fn to_json(&self) -> Value {
        Value::String(format!("0x{}", hex::encode(self)))
    }
}

impl ToJson for H256 {
    fn to_json(&self) -> Value {
        self.0.to_json()
    }
}

impl ToJson for AccountId32 {
    fn to_json(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl ToJson for InkAccountId {
    fn to_json(&self) -> Value {
        to_account32(self).to_json()
    }
}

impl ToJson for [u64; crate::types::MAX_OPEN] {
    fn to_json(&self) -> Value {
        // Free slots are zero.
        json!(self.iter().filter(|task| **task != 0).collect::<Vec<_>>())
    }
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        impl ToJson for $type {
            fn to_json(&self) -> Value {
                json!(self)
            }
        }
    )*};
}

plain!(bool, u8, u16, u32, u64, i64, String);

/// Types of `poq-core`, which have serde's form.
macro_rules! serde {
    ($($type:ty),* $(,)?) => {$(
        impl ToJson for $type {
            fn to_json(&self) -> Value {
                // Numbers, strings, arrays and maps with string keys: nothing that serde_json refuses.
                serde_json::to_value(self).unwrap_or(Value::Null)
            }
        }
    )*};
}

serde!(Ratio, Score, Phase, Step, KindParams, Population, SettlementInput, Settlement, Pool);

/// Names of variants.
macro_rules! named {
    ($($type:ty { $($variant:ident => $name:literal),* $(,)? })*) => {$(
        impl ToJson for $type {
            fn to_json(&self) -> Value {
                let name = match self { $(<$type>::$variant => $name,)* };
                Value::String(name.into())
            }
        }
    )*};
}

named! {
    Role { Inference => "inference", Evaluator => "evaluator" }
    NodeStatus { Active => "active", Draining => "draining" }
    SeatState { Drawn => "drawn", Committed => "committed", Revealed => "revealed", Mismatched => "mismatched" }
    RefundReason { Undelivered => "undelivered", Undrawn => "undrawn", BelowQuorum => "below_quorum" }
    NodeChange { Configured => "configured", Draining => "draining", Resumed => "resumed", Deregistered => "deregistered" }
}

impl ToJson for Administration {
    fn to_json(&self) -> Value {
        match self {
            Administration::Global(params) => json!({ "global": params.to_json() }),
            Administration::Paused(paused) => json!({ "paused": paused }),
            Administration::Proposed(account) => json!({ "proposed": account.to_json() }),
            Administration::Owner(account) => json!({ "owner": account.to_json() }),
        }
    }
}

impl ToJson for BondChange {
    fn to_json(&self) -> Value {
        match self {
            BondChange::None => Value::Null,
            BondChange::Added(amount) => json!({ "added": amount.to_json() }),
            BondChange::Slashed(amount) => json!({ "slashed": amount.to_json() }),
            BondChange::Paid(amount) => json!({ "paid": amount.to_json() }),
        }
    }
}

impl ToJson for Opening {
    fn to_json(&self) -> Value {
        let Opening { reference, salt, outputs } = self;
        let bytes = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let outputs: Vec<Value> = outputs
            .iter()
            .map(|opened| match opened {
                Some((output, salt)) => {
                    json!({ "text": text(output), "bytes": bytes(output), "salt": salt.to_json() })
                }
                None => Value::Null,
            })
            .collect();
        json!({
            "reference": { "text": text(reference), "bytes": bytes(reference), "salt": salt.to_json() },
            "outputs": outputs,
        })
    }
}

impl ToJson for ContractError {
    fn to_json(&self) -> Value {
        json!({ "name": format!("{self:?}"), "explanation": self.to_string() })
    }
}

/// Structs field by field; a field that is added does not compile until it is listed.
macro_rules! fields {
    ($($type:ident { $($field:ident),* $(,)? })*) => {$(
        impl ToJson for $type {
            fn to_json(&self) -> Value {
                let $type { $($field),* } = self;
                json!({ $(stringify!($field): $field.to_json()),* })
            }
        }
    )*};
}

fields! {
    Registration { role, kind, operator, payee, model, model_digest, endpoint, price }
    NodeUpdate { operator, payee, endpoint, price }
    Place { class, index }
    Node {
        owner, operator, payee, role, kind, status, model_digest, price, free, locked, unbonding, unbonds_at, claimable,
        withdrawn, slashed, settled, trust, gain_average, place, open
    }
    NodeInfo { model, endpoint, registered_at }
    NodeView { id, node, info }
    OutputSlot { node, price, commitment, committed_at, quality }
    Seat { node, state, commitment, committed_at, scores }
    TaskInput { hash, url }
    Task {
        requester, kind, version, phase, fee, inference_slot, evaluator_slot, inference_at_risk, evaluator_at_risk, input,
        reference_commitment, requested_at, deadline, fixed_at_block, drawn_at, redrawn, draw_ms, reveal_ms, audit_ms,
        quorum, outputs, panel, refund, final_block
    }
    TaskView { id, task, step }
    Commit { task, node, commitment }
    Reveal { task, node, scores, report_hash, salt }
    Revealed { task, node, scores, report_hash, salt, matched }
    Kind { version, inference, evaluators, ring_next, population }
    KindView { kind, params }
    Account { nodes, tasks, collected }
    Balances { staked_free, staked_locked, unbonding, pending, claimable, withdrawn, slashed, nodes, tasks }
    Liabilities { stakes, escrow, refunds, claimable, bonds, treasury }
    Overview { owner, proposed, paused, global, kinds, nodes, tasks, entropy, balance, liabilities }
    Solvency { balance, liabilities, surplus, solvent }
    GlobalParams { unbonding_ms, archive_ms, audit_bond }
    Auditor { appointed, bond, unbonds_at, audits }
    Penalty { node, amount }
    Hold { reason, amount }
    Funds { free, held, reserved, frozen, spendable, existential_deposit }
    Quote { fee_min, protocol_fee, inference_slot, evaluator_slot }
    Clock {
        phase, deadline, draw_ms, reveal_ms, audit_ms, outputs, delivered, panel, committed, revealed, mismatched, quorum,
        redrawn, fixed_at_block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_text_and_accounts_are_addresses() {
        let quote = Quote { fee_min: u128::MAX, protocol_fee: 1, inference_slot: 2, evaluator_slot: 3 };
        assert_eq!(quote.to_json()["fee_min"], "340282366920938463463374607431768211455");
        let alice = AccountId32([
            0xd4, 0x35, 0x93, 0xc7, 0x15, 0xfd, 0xd3, 0x1c, 0x61, 0x14, 0x1a, 0xbd, 0x04, 0xa9, 0x9f, 0xd6,
            0x82, 0x2c, 0x85, 0x58, 0x85, 0x4c, 0xcd, 0xe3, 0x9a, 0x56, 0x84, 0xe7, 0xa5, 0x6d, 0xa2, 0x7d,
        ]);
        assert_eq!(alice.to_json(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
        assert_eq!(Role::Evaluator.to_json(), "evaluator");
        assert_eq!([7u8; 32].to_json(), format!("0x{}", "07".repeat(32)));
    }
}
