//! JSON forms of the contract's values: money as decimal strings (JSON's numbers are not exact above 2⁵³), hashes as 0x hex,
//! accounts as SS58 addresses, ratios in parts per billion, times in milliseconds.

use crate::account::{to_account32, InkAccountId};
use crate::client::{Funds, Hold};
use crate::types::{
    Account, Audit, AuditInput, Auditor, Balances, BondChange, Change, Clock, Commit, Counts, Decline,
    DeclineReason, Draw, Ending, GlobalParams, Holding, Kind, KindParams, KindView, Lever, Liabilities, Node,
    NodeInfo, NodeStatus, NodeUpdate, NodeView, Open, Opened, Opening, OutputSlot, OutputState, Overview,
    Penalty, Pending, Phase, Population, Quote, Record, Registration, Request, Reveal, Role, Score, Seat,
    SeatState, Settlement, SettlementInput, Solvency, Source, Stake, Standing, Step, Task, TaskInput,
    TaskView, Terms, TrustState,
};
use poq_contract::errors::Error as ContractError;
use poq_contract::events::{Administration, NodeChange};
use poq_core::pool::{Ledger, PoolError, Rules, Stage};
use poq_core::Ratio;
use poq_pool_contract::types::{ExitView, MemberView, PoolView, Token};
use serde_json::{json, Value};
use subxt::utils::{AccountId32, H256};

/// What has a JSON form.
pub trait ToJson {
    /// The JSON form.
    fn to_json(&self) -> Value;

    /// The JSON form of a list of these.
    fn list_to_json(list: &[Self]) -> Value
    where
        Self: Sized,
    {
        Value::Array(list.iter().map(ToJson::to_json).collect())
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToJson::to_json)
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> Value {
        T::list_to_json(self)
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

/// A list of bytes is their hex.
impl ToJson for u8 {
    fn to_json(&self) -> Value {
        json!(self)
    }

    fn list_to_json(list: &[u8]) -> Value {
        Value::String(format!("0x{}", hex::encode(list)))
    }
}

impl ToJson for i128 {
    fn to_json(&self) -> Value {
        Value::String(self.to_string())
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

plain!(bool, u16, u32, u64, i64, String);

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

serde!(
    Ratio,
    Score,
    Role,
    Phase,
    Step,
    Ending,
    KindParams,
    GlobalParams,
    Population,
    Stake,
    Standing,
    Counts,
    SettlementInput,
    Settlement,
    AuditInput,
    Audit,
    TrustState,
);

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
    NodeStatus { Active => "active", Draining => "draining" }
    OutputState {
        Assigned => "assigned", Declined => "declined", Committed => "committed", Opened => "opened"
    }
    SeatState { Drawn => "drawn", Committed => "committed", Revealed => "revealed" }
    DeclineReason {
        InputUnavailable => "input_unavailable", TooLong => "too_long", TooLate => "too_late", Other => "other"
    }
    NodeChange { Configured => "configured", Draining => "draining", Resumed => "resumed", Deregistered => "deregistered" }
}

impl ToJson for Administration {
    fn to_json(&self) -> Value {
        match self {
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
        let text =
            |bytes: &Vec<u8>| json!({ "text": String::from_utf8_lossy(bytes), "bytes": bytes.to_json() });
        json!({
            "reference": text(reference),
            "salt": salt.to_json(),
            "outputs": outputs.iter().map(|output| output.as_ref().map(text)).collect::<Vec<_>>(),
        })
    }
}

impl ToJson for Source {
    fn to_json(&self) -> Value {
        match self {
            Source::Url { hash, url } => json!({ "hash": hash.to_json(), "url": url }),
            Source::Inline(data) => json!({ "inline": data.to_json() }),
        }
    }
}

impl ToJson for Change {
    fn to_json(&self) -> Value {
        match self {
            Change::Kind(kind, params) => json!({ "kind": kind, "params": params.to_json() }),
            Change::Global(params) => json!({ "global": params.to_json() }),
            Change::Appoint(account) => json!({ "appoint": account.to_json() }),
            Change::SlashAuditor(account, amount) => {
                json!({ "slash_auditor": account.to_json(), "amount": amount.to_json() })
            }
            Change::Code(hash) => json!({ "code": hash.to_json() }),
        }
    }
}

impl ToJson for Lever {
    fn to_json(&self) -> Value {
        match self {
            Lever::Kind(kind) => json!({ "kind": kind }),
            Lever::Global => json!("global"),
            Lever::Appoint(account) => json!({ "appoint": account.to_json() }),
            Lever::SlashAuditor(account) => json!({ "slash_auditor": account.to_json() }),
            Lever::Code => json!("code"),
        }
    }
}

impl ToJson for Pending<Change> {
    fn to_json(&self) -> Value {
        json!({ "change": self.change.to_json(), "acts_at": self.acts_at })
    }
}

impl ToJson for ContractError {
    fn to_json(&self) -> Value {
        json!({ "name": format!("{self:?}"), "explanation": self.to_string() })
    }
}

impl ToJson for PoolError {
    fn to_json(&self) -> Value {
        json!({ "name": format!("{self:?}"), "explanation": self.to_string() })
    }
}

impl ToJson for Stage {
    fn to_json(&self) -> Value {
        Value::String(format!("{self:?}").to_lowercase())
    }
}

impl ToJson for poq_core::pool::Terms {
    fn to_json(&self) -> Value {
        json!({ "commission": self.commission.to_json(), "capacity": self.capacity.to_json() })
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
    Record { tasks, burned, earned }
    Node {
        owner, operator, payee, role, kind, status, model_digest, price, stake, claimable, withdrawn, slashed, record,
        trust, gain_average, due, misses, standing, open
    }
    NodeInfo { model, endpoint, registered_at }
    PoolView { poq, node, manager, proposed, token, rules, ledger, supply, room, wiped_out }
    MemberView { shares, value, exits }
    ExitView { era, value, ready, ends }
    Token { name, symbol }
    Rules { commission_max, first_loss, era_ms, exit_ms }
    Ledger {
        stage, cash, staked, unbonding, bond, fees, active, vesting, exiting, due, points, synced_at, vests_at, era, era_from,
        oldest, terms, next, next_from
    }
    NodeView { id, node, info }
    Holding { bonded, unbonding, withdrawable, claimable }
    Request { kind, fee, nodes, outputs, panel, input, reference_commitment, secret_hash, early }
    OutputSlot { node, price, state, commitment, committed_at, hash, salt, quality }
    Seat { node, state, drawn_at, commitment, committed_at, scores }
    TaskInput { hash, url, inline }
    Terms {
        version, inference_slot, evaluator_slot, inference_at_risk, evaluator_at_risk, keeper_fee, draw_ms, commit_ms,
        reveal_ms, audit_ms, quorum
    }
    Task {
        requester, kind, terms, phase, ending, fee, keepers, keeper_steps, input, reference_commitment, secret_hash, early,
        requested_at, deadline, sealed_epoch, seed, short, filled, outputs, panel, audited, refund, final_block
    }
    TaskView { id, task, step }
    Commit { task, node, commitment }
    Decline { task, node, reason }
    Opened { hash, salt }
    Open { task, node, opened }
    Draw { task, secret, openings }
    Reveal { task, node, scores, report_hash, salt }
    Kind { version, params, population }
    KindView { kind, inference, evaluators }
    Account { nodes, tasks, credit, collected, references, next_reference }
    Balances {
        staked, locked, unbonding, withdrawable, pending, claimable, withdrawn, slashed, credit, nodes, tasks
    }
    Liabilities { stakes, escrow, refunds, claimable, bonds, treasury, burned }
    Overview {
        owner, proposed, paused, genesis, network, epoch_ms, global, kinds, nodes, tasks, layout, balance, liabilities
    }
    Solvency { balance, liabilities, surplus, solvent }
    Auditor { appointed, bond, unbonds_at, audits, epoch, audits_in_epoch }
    Penalty { node, amount }
    Hold { reason, amount }
    Funds { free, held, reserved, frozen, spendable, existential_deposit }
    Quote { fee_min, fee_max, protocol_fee, keepers, inference_slot, evaluator_slot }
    Clock {
        phase, deadline, draw_ms, reveal_ms, outputs, declined, delivered, opened, short, filled, committed, revealed, quorum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_text_and_accounts_are_addresses() {
        let quote = Quote {
            fee_min: u128::MAX,
            fee_max: 4,
            protocol_fee: 1,
            keepers: 5,
            inference_slot: 2,
            evaluator_slot: 3,
        };
        assert_eq!(quote.to_json()["fee_min"], "340282366920938463463374607431768211455");
        let alice = AccountId32([
            0xd4, 0x35, 0x93, 0xc7, 0x15, 0xfd, 0xd3, 0x1c, 0x61, 0x14, 0x1a, 0xbd, 0x04, 0xa9, 0x9f, 0xd6,
            0x82, 0x2c, 0x85, 0x58, 0x85, 0x4c, 0xcd, 0xe3, 0x9a, 0x56, 0x84, 0xe7, 0xa5, 0x6d, 0xa2, 0x7d,
        ]);
        assert_eq!(alice.to_json(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
        assert_eq!(Role::Evaluator.to_json(), "evaluator");
        assert_eq!(vec![7u8, 8].to_json(), "0x0708");
        assert_eq!(vec![7u32, 8].to_json(), json!([7, 8]));
        assert_eq!([7u8; 32].to_json(), format!("0x{}", "07".repeat(32)));
    }
}
