//! The parameters of a task kind. Every change makes a new version; a task keeps the version that it was requested under.

use crate::formulas::aggregate::Aggregation;
use crate::formulas::cost::LatencyRange;
use crate::formulas::reward::RewardWeights;
use crate::units::{Balance, Millis, Ratio, ONE};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The most inference nodes that a task can ask for.
pub const MAX_OUTPUTS: u8 = 4;
/// The most evaluators that a task can ask for.
pub const MAX_PANEL: u8 = 15;
/// The most open tasks that a node can be drawn for at a time.
pub const MAX_OPEN: usize = 16;
/// The shortest that any deadline may be: a hard constant, whatever an owner proposes.
pub const DEADLINE_MIN: Millis = 30_000;
/// The longest that a task may live from its request to the last reveal: a hard constant.
pub const LIFE_MAX: Millis = DAY;
/// A day in milliseconds.
pub const DAY: Millis = 24 * 60 * 60 * 1_000;
/// How many steps of one task a keeper can be paid for; so much is reserved from the fee.
pub const KEEPER_STEPS: u8 = 4;
/// How many missed duties in a row take a node out of the draws: a hard constant.
pub const MISSES_MAX: u8 = 2;

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

/// How an evaluator's trust moves when a gold task's reference is opened; see [`crate::formulas::trust`]. Nothing else moves it.
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
    /// Relative merit, relative to those who gain anything against the truth: what liars in the majority say of themselves
    /// counts for nothing.
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

    /// The share of the fee of every task that had a delivery which goes half to the treasury and half is burned.
    pub protocol_fee: Ratio,
    /// The share of the rest that is split between the inference nodes' slots; the evaluators' slots get what remains.
    pub inference_share: Ratio,
    /// The least slot of an inference node that a fee must fill.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub inference_slot_min: Balance,
    /// The least slot of an evaluator that a fee must fill.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub evaluator_slot_min: Balance,

    /// The largest fee of a task. What a panel decides must not be worth more than what it has at risk: dear tasks use a kind
    /// with more stake.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub fee_max: Balance,
    /// d: the share of its slot that a node which delivered gets where the task ends without a consensus, and that a requester
    /// who asked for the outputs early does not get back.
    pub delivery_share: Ratio,
    /// v: the share of its slot that an evaluator gets for saying, with the majority, that the input could not be had. Small:
    /// it pays the gas and is no reason not to look.
    pub unavailable_share: Ratio,
    /// The most that a step of a task pays to whoever sends it, rising from zero when it is due to this after `draw_ms`. Four
    /// times as much is reserved from every fee; what of it is unused is burned.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub keeper_fee: Balance,
    /// What settlements must burn for one entry of the kind's ring ([`crate::kind::ring`]). Above zero.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub ring_burn: Balance,

    /// A node needs so much stake to be drawn when it registers, stakes, resumes or is refreshed; slashes leave it in the draws
    /// down to a half of it.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub stake_min: Balance,
    /// Stake above this adds no draw weight. At least `stake_min`.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub stake_cap: Balance,
    /// σ of inference nodes: how many times its slot a node has at risk per task, locked from draw to settlement; for one answer at
    /// `fee_max` at most a sixteenth of `stake_min`.
    pub inference_risk: u8,
    /// σ of evaluators: how many times its slot one has at risk per task; at `fee_max` and `panel_min` at most a sixteenth of
    /// `stake_min`.
    pub evaluator_risk: u8,
    /// The share of the stake at risk that a missed duty costs (no commitment, or every output abstained on). Also the most
    /// that a negative net reward costs: answering badly is never dearer than not answering.
    pub missed_penalty: Ratio,
    /// The share of the stake at risk that a commitment costs which is not opened or not revealed. At least the others, so
    /// that hiding never pays; times `inference_risk` at least `delivery_share` of all other slots of the largest task, so that
    /// nodes of one hand do not live on outputs that nobody judges because one of them hides its own.
    pub unrevealed_penalty: Ratio,
    /// The share of the stake at risk that a deviation beyond the outlier bound costs; at most `missed_penalty`, and at most
    /// one slot.
    pub outlier_penalty: Ratio,
    /// The share of the stake at risk that an output of quality zero costs, and declining where others delivered; at most
    /// `missed_penalty`. It falls linearly to nothing at `quality_floor`.
    pub bad_penalty: Ratio,
    /// See `bad_penalty`.
    pub quality_floor: Ratio,
    /// The share of the stake at risk that declining costs where nobody delivered, unless several were asked and all declined.
    pub decline_penalty: Ratio,

    /// From request to the last output commitment.
    pub inference_ms: Millis,
    /// From there until a panel must have been drawn. In its first half every committed output must be opened.
    pub draw_ms: Millis,
    /// From the draw to the last score commitment; again for seats that are filled.
    pub commit_ms: Millis,
    /// From there to the last reveal.
    pub reveal_ms: Millis,
    /// From the settlement: how long an auditor may open a gold task's reference. No task waits for it. Zero where the kind
    /// has no auditors.
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
    /// The stake minimum must be above zero, at most the cap, and light stake must not fall out of the weight classes.
    Stake,
    /// What one task puts at risk, at the largest fee, must be at most a sixteenth of the stake minimum.
    AtRisk,
    /// Penalties must be ordered: unrevealed ≥ missed ≥ outlier, bad and decline; an outlier costs at most one slot; hiding an
    /// output costs at least what the other nodes of the largest task get for theirs unjudged.
    Penalties,
    /// A keeper's fee must be at most what a missed duty costs at the least slots; four of them must cover what declining the
    /// dearest task costs.
    KeeperFee,
    /// The quality floor and the ring's price must be above zero, the largest fee at least the smallest.
    Bounds,
    /// Every duty needs at least 30 seconds, and a task lives a day at most.
    Deadlines,
    /// An epoch must be at least 2·draw_ms + commit_ms.
    Epoch,
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
                "stake_min must be above zero and at most stake_cap, and stake_min * trust_floor / stake_cap at least 2^-15"
            }
            ParamsError::AtRisk => {
                "what one task puts at risk (inference_risk and evaluator_risk times a slot at fee_max) must be at most \
                 stake_min / 16"
            }
            ParamsError::Penalties => {
                "penalties must be ordered: unrevealed >= missed >= outlier, bad and decline; outlier_penalty * evaluator_risk <= \
                 1 and unrevealed_penalty * inference_risk >= delivery_share * (outputs_max - 1)"
            }
            ParamsError::KeeperFee => {
                "keeper_fee must be at most missed_penalty of what a node has at risk at the least slots, and four of them at \
                 least what declining a task of fee_max costs"
            }
            ParamsError::Bounds => "quality_floor and ring_burn must be above zero, and fee_max at least the smallest fee",
            ParamsError::Deadlines => {
                "inference_ms, draw_ms, commit_ms and reveal_ms must be at least 30 seconds and inference_ms + 2 * (draw_ms + \
                 commit_ms) + reveal_ms at most a day; audit_ms at most 30 days"
            }
            ParamsError::Epoch => "2 * draw_ms + commit_ms must be at most the network's epoch_ms",
            ParamsError::PanelSize => "1 <= outputs_max <= 4 and 2 <= panel_min <= panel_max <= 15",
        })
    }
}

impl core::error::Error for ParamsError {}

/// Splits a fee; see [`KindParams::split`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeeSplit {
    /// Of a task that had a delivery: half to the treasury, half burned.
    pub protocol_fee: Balance,
    /// Reserved for keepers; what they do not earn is burned.
    pub keepers: Balance,
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
        const MONTH: Millis = 30 * DAY;
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
            (1..=MAX_OUTPUTS).contains(&self.outputs_max)
                && self.panel_min >= 2
                && self.panel_min <= self.panel_max
                && self.panel_max <= MAX_PANEL,
            ParamsError::PanelSize,
        )?;
        ensure(
            self.stake_min > 0
                && self.stake_min <= self.stake_cap
                && Ratio::from_fraction(self.stake_min, self.stake_cap).mul(self.trust_floor).ppb()
                    >= ONE >> 15,
            ParamsError::Stake,
        )?;
        // One answer and the smallest panel have the largest slots.
        let dearest = self.split_unchecked(self.fee_max, 1, self.panel_min).ok_or(ParamsError::Bounds)?;
        let most = self.stake_min.checked_div(MAX_OPEN as Balance).unwrap_or(0);
        let dearest_risk = self.inference_at_risk(dearest.inference_slot);
        ensure(
            dearest_risk <= most && self.evaluator_at_risk(dearest.evaluator_slot) <= most,
            ParamsError::AtRisk,
        )?;
        let times = |share: Ratio, count: u8| u64::from(share.ppb()).saturating_mul(u64::from(count));
        ensure(
            self.unrevealed_penalty >= self.missed_penalty
                && self.missed_penalty >= self.outlier_penalty
                && self.missed_penalty >= self.bad_penalty
                && self.missed_penalty >= self.decline_penalty
                && times(self.outlier_penalty, self.evaluator_risk) <= u64::from(ONE)
                && times(self.unrevealed_penalty, self.inference_risk)
                    >= times(self.delivery_share, self.outputs_max.saturating_sub(1)),
            ParamsError::Penalties,
        )?;
        let least_risk = self
            .evaluator_at_risk(self.evaluator_slot_min)
            .min(self.inference_at_risk(self.inference_slot_min));
        ensure(
            self.keeper_fee <= self.missed_penalty.of(least_risk)
                && self.keeper_fee.saturating_mul(Balance::from(KEEPER_STEPS))
                    >= self.decline_penalty.of(dearest_risk),
            ParamsError::KeeperFee,
        )?;
        ensure(
            self.quality_floor > Ratio::ZERO
                && self.ring_burn > 0
                && self.split(self.fee_max, self.outputs_max.max(1), self.panel_max.max(1)).is_some(),
            ParamsError::Bounds,
        )?;
        for span in [self.inference_ms, self.draw_ms, self.commit_ms, self.reveal_ms] {
            ensure((DEADLINE_MIN..=DAY).contains(&span), ParamsError::Deadlines)?;
        }
        ensure(self.life_ms() <= LIFE_MAX, ParamsError::Deadlines)?;
        ensure(self.audit_ms <= MONTH, ParamsError::Deadlines)?;
        Ok(())
    }

    /// Checks that a draw's epoch is still known when its panel is filled: the registry remembers the epoch before.
    ///
    /// # Errors
    /// `Epoch`.
    pub fn fits_epoch(&self, epoch_ms: Millis) -> Result<(), ParamsError> {
        if self.draw_ms.saturating_mul(2).saturating_add(self.commit_ms) <= epoch_ms {
            Ok(())
        } else {
            Err(ParamsError::Epoch)
        }
    }

    /// The longest that a task can live, from its request to the last reveal, in milliseconds.
    pub fn life_ms(&self) -> Millis {
        self.draw_ms
            .saturating_add(self.commit_ms)
            .saturating_mul(2)
            .saturating_add(self.inference_ms)
            .saturating_add(self.reveal_ms)
    }

    /// σ · slot: what an inference node has at risk in a task with this slot.
    pub fn inference_at_risk(&self, inference_slot: Balance) -> Balance {
        inference_slot.saturating_mul(Balance::from(self.inference_risk))
    }

    /// σ · slot: what an evaluator has at risk in a task with this slot.
    pub fn evaluator_at_risk(&self, evaluator_slot: Balance) -> Balance {
        evaluator_slot.saturating_mul(Balance::from(self.evaluator_risk))
    }

    /// Splits `fee` between the protocol, the keepers' reserve and the slots of `outputs` inference nodes and `panel`
    /// evaluators. Everything rounds down; what is left over is the requester's. `None` where the fee does not fill the least
    /// slots or is above the largest, or there is nobody to pay.
    pub fn split(&self, fee: Balance, outputs: u8, panel: u8) -> Option<FeeSplit> {
        let split = self.split_unchecked(fee, outputs, panel)?;
        (fee <= self.fee_max
            && split.inference_slot >= self.inference_slot_min
            && split.evaluator_slot >= self.evaluator_slot_min)
            .then_some(split)
    }

    fn split_unchecked(&self, fee: Balance, outputs: u8, panel: u8) -> Option<FeeSplit> {
        let protocol_fee = self.protocol_fee.of(fee);
        let keepers = self.keeper_fee.checked_mul(Balance::from(KEEPER_STEPS))?;
        let net = fee.checked_sub(protocol_fee)?.checked_sub(keepers)?;
        let for_inference = self.inference_share.of(net);
        let inference_slot = for_inference.checked_div(Balance::from(outputs))?;
        let evaluator_slot = net.checked_sub(for_inference)?.checked_div(Balance::from(panel))?;
        Some(FeeSplit { protocol_fee, keepers, inference_slot, evaluator_slot })
    }

    /// The smallest fee that [`KindParams::split`] accepts; `None` where the largest is not enough (a share of zero).
    pub fn fee_min(&self, outputs: u8, panel: u8) -> Option<Balance> {
        self.fee_for(outputs, panel, 0)
    }

    /// The smallest fee that [`KindParams::split`] accepts and that offers each inference node a slot of at least `price`; `None` where
    /// the largest is not enough.
    pub fn fee_for(&self, outputs: u8, panel: u8, price: Balance) -> Option<Balance> {
        let fits =
            |fee: Balance| self.split(fee, outputs, panel).is_some_and(|split| split.inference_slot >= price);
        // Monotone in the fee up to the largest: bisect. 128 steps at most, and only in queries.
        let (mut low, mut high) = (0u128, self.fee_max);
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
    /// The defaults of a network that has no auditors: nothing moves trust, so everybody has all of it and stake alone weighs.
    pub fn without_auditors() -> KindParams {
        KindParams { trust_initial: Ratio::ONE, audit_ms: 0, ..KindParams::default() }
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
            inference_slot_min: UNIT / 20,
            evaluator_slot_min: UNIT / 20,
            fee_max: 10 * UNIT,
            delivery_share: Ratio::from_permille(500),
            unavailable_share: Ratio::from_permille(1),
            keeper_fee: UNIT / 100,
            ring_burn: UNIT,
            stake_min: 200 * UNIT,
            stake_cap: 1_000 * UNIT,
            inference_risk: 2,
            evaluator_risk: 2,
            missed_penalty: Ratio::from_permille(200),
            unrevealed_penalty: Ratio::ONE,
            outlier_penalty: Ratio::from_permille(200),
            bad_penalty: Ratio::from_permille(100),
            quality_floor: Ratio::from_permille(100),
            decline_penalty: Ratio::from_permille(2),
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
