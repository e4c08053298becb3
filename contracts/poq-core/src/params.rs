//! The parameters of a task kind. Every change makes a new version; a task keeps the version that it was requested under.

use crate::aggregate::Aggregation;
use crate::cost::LatencyRange;
use crate::reward::RewardWeights;
use crate::units::{Balance, Millis, Ratio, ONE};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The most inference nodes that a task can ask for.
pub const MAX_OUTPUTS: u8 = 4;
/// The most evaluators that a task can ask for.
pub const MAX_PANEL: u8 = 15;

/// How an evaluator's merit is measured; see [`crate::merit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum MeritRule {
    /// One minus the mean deviation from the others (arXiv 2512.16317, leave one out).
    Closeness,
    /// Nearer to this task's consensus than to unrelated ones (multi-task peer prediction).
    Information {
        /// How fast x_ref follows the population's median gain, per evaluator and task.
        step: Ratio,
        /// x_ref never falls below this; above zero.
        floor: Ratio,
    },
}

/// How an evaluator's trust moves; see [`crate::trust`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum TrustRule {
    /// The papers' rule (arXiv 2601.21189), which saturates.
    Multiplicative {
        /// The rate η.
        eta: Ratio,
    },
    /// Against the round's median deviation.
    Centred {
        /// The rate upwards.
        up: Ratio,
        /// The rate downwards; at least the rate upwards.
        down: Ratio,
    },
    /// An evaluator's average information gain relative to the population's.
    RelativeMerit {
        /// The rate of the moving averages.
        rate: Ratio,
    },
    /// Relative merit that only gold tasks move ([`crate::settlement`]), relative to those who gain anything against the truth:
    /// what a colluding majority says of itself counts for nothing.
    Anchored {
        /// The rate of the moving averages, per gold task.
        rate: Ratio,
    },
}

/// The parameters of a task kind.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KindParams {
    /// How scores become a consensus.
    pub aggregation: Aggregation,
    /// How an evaluator's merit is measured.
    pub merit: MeritRule,
    /// How an evaluator's trust moves.
    pub trust: TrustRule,
    /// The trust of a new evaluator.
    pub trust_initial: Ratio,
    /// Trust never falls below this; above zero.
    pub trust_floor: Ratio,
    /// Deviations up to this are no deviation: what the same model's scores differ by between devices.
    pub tolerance: Ratio,
    /// A mean deviation above this is slashed, over-scoring and under-scoring alike.
    pub outlier_bound: Ratio,

    /// α and β of inference nodes.
    pub inference_weights: RewardWeights,
    /// α and β of evaluators.
    pub evaluator_weights: RewardWeights,
    /// Latencies of an output's commitment, from assignment.
    pub inference_latency: LatencyRange,
    /// Latencies of a score's commitment, from the draw of the panel.
    pub evaluator_latency: LatencyRange,
    /// ω_latency: the share of latency in an inference node's cost.
    pub latency_weight: Ratio,
    /// ω_price: the share of its asked price in an inference node's cost.
    pub price_weight: Ratio,
    /// The price at which the price part of the cost is one. Above zero.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub price_cap: Balance,

    /// The share of every settled task's fee that goes to the treasury.
    pub protocol_fee: Ratio,
    /// The share of the rest that is split between the inference nodes' slots; the evaluators' slots get what remains.
    pub inference_share: Ratio,
    /// The least slot of an inference node that a fee must fill.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub inference_slot_min: Balance,
    /// The least slot of an evaluator that a fee must fill.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub evaluator_slot_min: Balance,

    /// A node with less stake than this is not drawn.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub stake_min: Balance,
    /// Stake above this adds no draw weight. At least `stake_min`.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub stake_cap: Balance,
    /// What an inference node has at risk per task, locked from draw to settlement; also the cap of its penalty.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub inference_at_risk: Balance,
    /// What an evaluator has at risk per task, locked from draw to settlement.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub evaluator_at_risk: Balance,
    /// The share of the stake at risk that a missed duty costs (no commitment, or every output abstained on). Also the
    /// most that an evaluator's negative net reward costs: were answering with little merit dearer than not answering,
    /// or than hiding the answer, evaluators would rather do that.
    pub missed_penalty: Ratio,
    /// The share of the stake at risk that a commitment costs which is not revealed or does not match. At least
    /// `outlier_penalty`, so that hiding a bad score never pays.
    pub unrevealed_penalty: Ratio,
    /// The share of the stake at risk that a deviation beyond the outlier bound costs.
    pub outlier_penalty: Ratio,

    /// From request to the last output commitment.
    pub inference_ms: Millis,
    /// From there until a panel must have been drawn.
    pub draw_ms: Millis,
    /// From the draw to the last score commitment.
    pub commit_ms: Millis,
    /// From there to the last reveal.
    pub reveal_ms: Millis,
    /// From the last reveal: how long an auditor has to open a gold task's reference before anybody can settle the task. Zero
    /// where the kind has no auditors.
    #[cfg_attr(feature = "serde", serde(default))]
    pub audit_ms: Millis,
    /// The share of the panel that must reveal for a settlement; at least two evaluators whatever it says.
    pub quorum: Ratio,
    /// The most inference nodes of one task; at most [`MAX_OUTPUTS`].
    pub outputs_max: u8,
    /// The fewest evaluators of one task; at least 2.
    pub panel_min: u8,
    /// The most evaluators of one task; at most [`MAX_PANEL`].
    pub panel_max: u8,
    /// Hash of the rubric that evaluators score by; all zero where the kind prescribes none.
    pub rubric_hash: [u8; 32],
}

/// Why parameters are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ParamsError {
    /// A trim must be below one half.
    Trim,
    /// x_ref's floor must be above zero.
    ReferenceFloor,
    /// The rate downwards must be at least the rate upwards.
    TrustRates,
    /// The trust floor must be above zero and at most the initial trust.
    TrustFloor,
    /// α must be above zero.
    Alpha,
    /// A latency range must end after it starts.
    LatencyRange,
    /// ω_latency and ω_price must sum to at most one.
    CostWeights,
    /// The price cap must be above zero.
    PriceCap,
    /// The least slots must be above zero.
    SlotMin,
    /// The stake minimum must be above zero, at most the cap, and cover what one task puts at risk.
    Stake,
    /// The penalty of an unrevealed commitment must be at least that of an outlier and of a missed duty.
    Penalties,
    /// Every duty needs at least a second and at most 30 days, an audit at most 30 days.
    Deadlines,
    /// 1 ≤ outputs_max ≤ 4 and 2 ≤ panel_min ≤ panel_max ≤ 15.
    PanelSize,
}

impl core::fmt::Display for ParamsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ParamsError::Trim => "aggregation: a trim must be below one half",
            ParamsError::ReferenceFloor => "merit: the floor of x_ref must be above zero",
            ParamsError::TrustRates => "trust: the rate downwards must be at least the rate upwards",
            ParamsError::TrustFloor => "trust_floor must be above zero and at most trust_initial",
            ParamsError::Alpha => "alpha must be above zero for both roles",
            ParamsError::LatencyRange => "a latency range's max_ms must be above its min_ms",
            ParamsError::CostWeights => "latency_weight + price_weight must be at most one",
            ParamsError::PriceCap => "price_cap must be above zero",
            ParamsError::SlotMin => "inference_slot_min and evaluator_slot_min must be above zero",
            ParamsError::Stake => {
                "stake_min must be above zero, at most stake_cap, and at least what one task puts at risk"
            }
            ParamsError::Penalties => {
                "unrevealed_penalty must be at least outlier_penalty and at least missed_penalty"
            }
            ParamsError::Deadlines => {
                "inference_ms, draw_ms, commit_ms and reveal_ms must be 1 second to 30 days, audit_ms at most 30 days"
            }
            ParamsError::PanelSize => "1 <= outputs_max <= 4 and 2 <= panel_min <= panel_max <= 15",
        })
    }
}

impl core::error::Error for ParamsError {}

/// Splits a fee; see [`KindParams::split`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeeSplit {
    /// Goes to the treasury when the task is settled.
    pub protocol_fee: Balance,
    /// The most that one inference node can earn.
    pub inference_slot: Balance,
    /// The most that one evaluator can earn.
    pub evaluator_slot: Balance,
}

impl KindParams {
    /// Checks what the arithmetic relies on.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ParamsError> {
        const SECOND: Millis = 1_000;
        const MONTH: Millis = 30 * 24 * 60 * 60 * 1_000;
        let ensure = |ok: bool, error: ParamsError| if ok { Ok(()) } else { Err(error) };
        if let Aggregation::TrimmedMean { trim } = self.aggregation {
            ensure(trim < Ratio::from_permille(500), ParamsError::Trim)?;
        }
        if let MeritRule::Information { floor, .. } = self.merit {
            ensure(floor > Ratio::ZERO, ParamsError::ReferenceFloor)?;
        }
        if let TrustRule::Centred { up, down } = self.trust {
            ensure(down >= up, ParamsError::TrustRates)?;
        }
        ensure(
            self.trust_floor > Ratio::ZERO && self.trust_floor <= self.trust_initial,
            ParamsError::TrustFloor,
        )?;
        ensure(
            self.inference_weights.alpha > Ratio::ZERO && self.evaluator_weights.alpha > Ratio::ZERO,
            ParamsError::Alpha,
        )?;
        for range in [&self.inference_latency, &self.evaluator_latency] {
            ensure(range.min_ms < range.max_ms, ParamsError::LatencyRange)?;
        }
        ensure(
            self.latency_weight.ppb().saturating_add(self.price_weight.ppb()) <= ONE,
            ParamsError::CostWeights,
        )?;
        ensure(self.price_cap > 0, ParamsError::PriceCap)?;
        ensure(self.inference_slot_min > 0 && self.evaluator_slot_min > 0, ParamsError::SlotMin)?;
        ensure(
            self.stake_min > 0
                && self.stake_min <= self.stake_cap
                && self.stake_min >= self.inference_at_risk.max(self.evaluator_at_risk),
            ParamsError::Stake,
        )?;
        ensure(
            self.unrevealed_penalty >= self.outlier_penalty && self.unrevealed_penalty >= self.missed_penalty,
            ParamsError::Penalties,
        )?;
        for span in [self.inference_ms, self.draw_ms, self.commit_ms, self.reveal_ms] {
            ensure((SECOND..=MONTH).contains(&span), ParamsError::Deadlines)?;
        }
        ensure(self.audit_ms <= MONTH, ParamsError::Deadlines)?;
        ensure(
            (1..=MAX_OUTPUTS).contains(&self.outputs_max)
                && self.panel_min >= 2
                && self.panel_min <= self.panel_max
                && self.panel_max <= MAX_PANEL,
            ParamsError::PanelSize,
        )
    }

    /// Splits `fee` between the treasury and the slots of `outputs` inference nodes and `panel` evaluators. Everything
    /// rounds down; what is left over is the requester's. `None` where the fee does not fill the least slots, or there is
    /// nobody to pay.
    pub fn split(&self, fee: Balance, outputs: u8, panel: u8) -> Option<FeeSplit> {
        let protocol_fee = self.protocol_fee.of(fee);
        let net = fee.checked_sub(protocol_fee)?;
        let for_inference = self.inference_share.of(net);
        let inference_slot = for_inference.checked_div(Balance::from(outputs))?;
        let evaluator_slot = net.checked_sub(for_inference)?.checked_div(Balance::from(panel))?;
        (inference_slot >= self.inference_slot_min && evaluator_slot >= self.evaluator_slot_min)
            .then_some(FeeSplit { protocol_fee, inference_slot, evaluator_slot })
    }

    /// The smallest fee that [`KindParams::split`] accepts; `None` where no fee of 128 bits is enough (a share of zero).
    pub fn fee_min(&self, outputs: u8, panel: u8) -> Option<Balance> {
        let fits = |fee: Balance| self.split(fee, outputs, panel).is_some();
        // Monotone in the fee: bisect. 128 steps at most, and only in queries.
        let (mut low, mut high) = (0u128, u128::MAX);
        if !fits(high) {
            return None;
        }
        while low < high {
            let middle = low.midpoint(high);
            if fits(middle) {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        Some(low)
    }

    /// How many evaluators out of `panel` must reveal for a settlement: the quorum's share rounded up, at least 2.
    pub fn quorum_of(&self, panel: u8) -> u8 {
        let share = u64::from(self.quorum.ppb()).saturating_mul(u64::from(panel)).div_ceil(u64::from(ONE));
        u8::try_from(share).unwrap_or(u8::MAX).max(2)
    }
}

/// One UNIT of a chain with twelve decimals, as `substrate-contracts-node` has.
pub const UNIT: Balance = 1_000_000_000_000;

impl KindParams {
    /// The defaults of a network that has no auditors: trust is merit relative to the population's, and no task waits for an
    /// opening. A newcomer is trusted a fifth, so that a new name is worth less than an old one.
    pub fn without_auditors() -> KindParams {
        KindParams {
            trust: TrustRule::RelativeMerit { rate: Ratio::from_permille(50) },
            trust_initial: Ratio::from_permille(200),
            audit_ms: 0,
            ..KindParams::default()
        }
    }
}

impl Default for KindParams {
    /// The shipped defaults, in a chain of twelve decimals: the plain median, the information rule, trust anchored to gold
    /// tasks (docs/economics.md has what each is good for). One task in ten should be gold; without any the rules hold, but
    /// nobody's trust moves.
    fn default() -> KindParams {
        KindParams {
            aggregation: Aggregation::Median,
            merit: MeritRule::Information { step: Ratio::from_permille(20), floor: Ratio::from_permille(10) },
            trust: TrustRule::Anchored { rate: Ratio::from_permille(50) },
            trust_initial: Ratio::from_permille(50),
            trust_floor: Ratio::from_permille(50),
            tolerance: Ratio::from_permille(10),
            outlier_bound: Ratio::from_permille(600),
            inference_weights: RewardWeights { alpha: Ratio::ONE, beta: Ratio::from_permille(300) },
            evaluator_weights: RewardWeights { alpha: Ratio::ONE, beta: Ratio::from_permille(100) },
            inference_latency: LatencyRange { min_ms: 1_000, max_ms: 60_000 },
            evaluator_latency: LatencyRange { min_ms: 1_000, max_ms: 60_000 },
            latency_weight: Ratio::from_permille(700),
            price_weight: Ratio::from_permille(300),
            price_cap: UNIT,
            protocol_fee: Ratio::from_permille(20),
            inference_share: Ratio::from_permille(600),
            inference_slot_min: UNIT / 100,
            evaluator_slot_min: UNIT / 100,
            stake_min: 10 * UNIT,
            stake_cap: 1_000 * UNIT,
            inference_at_risk: UNIT,
            evaluator_at_risk: UNIT,
            missed_penalty: Ratio::from_permille(100),
            unrevealed_penalty: Ratio::ONE,
            outlier_penalty: Ratio::from_permille(500),
            inference_ms: 120_000,
            draw_ms: 120_000,
            commit_ms: 120_000,
            reveal_ms: 60_000,
            audit_ms: 60_000,
            quorum: Ratio::from_permille(600),
            outputs_max: MAX_OUTPUTS,
            panel_min: 3,
            panel_max: MAX_PANEL,
            rubric_hash: [0; 32],
        }
    }
}
