//! Strategies for everything that a settlement takes: valid parameters of every rule, and arbitrary inputs.
#![allow(dead_code)] // every test binary uses its own part

use poq_core::aggregate::Weighted;
use poq_core::cost::LatencyRange;
use poq_core::formulas::settlement::{Answer, Conduct, Ending, EvaluatorInput, OutputInput};
use poq_core::kind::ring::RING;
use poq_core::kind::{Population, Ring};
use poq_core::merit::RingEntry;
use poq_core::params::{DAY, DEADLINE_MIN, KEEPER_STEPS, MAX_OPEN};
use poq_core::reward::RewardWeights;
use poq_core::units::{Millis, ONE};
use poq_core::{Aggregation, KindParams, MeritRule, Ratio, Score, SettlementInput, TrustRule};
use proptest::prelude::*;

/// More money than any chain has, with room for sums of it.
pub(crate) const MUCH: u128 = 1 << 112;

/// A ratio: anywhere, and often where rounding and clipping happen.
pub(crate) fn ratio() -> impl Strategy<Value = Ratio> {
    prop_oneof![
        4 => 0..=ONE,
        2 => (0..=1_000u32).prop_map(|permille| permille * 1_000_000),
        1 => 0..=3u32,
        1 => (ONE - 3)..=ONE,
    ]
    .prop_map(Ratio::from_ppb)
}

/// A ratio in the given range of parts per billion.
pub(crate) fn ratio_in(range: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Ratio> {
    range.prop_map(Ratio::from_ppb)
}

/// An amount of any order of magnitude up to [`MUCH`].
pub(crate) fn money() -> impl Strategy<Value = u128> {
    (0u32..=112).prop_flat_map(|bits| 0..=(1u128 << bits))
}

pub(crate) fn aggregation() -> impl Strategy<Value = Aggregation> {
    prop_oneof![
        Just(Aggregation::Mean),
        Just(Aggregation::Median),
        (0..ONE / 2).prop_map(|trim| Aggregation::TrimmedMean { trim: Ratio::from_ppb(trim) }),
        Just(Aggregation::TrustWeightedMean),
        Just(Aggregation::TrustWeightedMedian),
    ]
}

pub(crate) fn merit_rule() -> impl Strategy<Value = MeritRule> {
    prop_oneof![
        Just(MeritRule::Closeness),
        (ratio(), ratio_in(1..=ONE)).prop_map(|(step, floor)| MeritRule::Information { step, floor }),
    ]
}

pub(crate) fn trust_rule() -> impl Strategy<Value = TrustRule> {
    prop_oneof![
        ratio().prop_map(|eta| TrustRule::Multiplicative { eta }),
        (ratio(), ratio()).prop_map(|(a, b)| TrustRule::Centred { up: a.min(b), down: a.max(b) }),
        ratio().prop_map(|rate| TrustRule::RelativeMerit { rate }),
        ratio().prop_map(|rate| TrustRule::Anchored { rate }),
    ]
}

pub(crate) fn reward_weights() -> impl Strategy<Value = RewardWeights> {
    (ratio_in(1..=ONE), ratio()).prop_map(|(alpha, beta)| RewardWeights { alpha, beta })
}

pub(crate) fn latency_range() -> impl Strategy<Value = LatencyRange> {
    (0..100_000u64, prop_oneof![1..200_000u64, 1..(1u64 << 62)])
        .prop_map(|(min_ms, span)| LatencyRange { min_ms, max_ms: min_ms + span })
}

prop_compose! {
    fn rules()(
        aggregation in aggregation(),
        merit in merit_rule(),
        trust in trust_rule(),
        (trust_floor, trust_initial) in (ratio_in(1..=ONE), ratio_in(1..=ONE)),
        tolerance in ratio(),
        outlier_bound in ratio(),
    ) -> KindParams {
        KindParams {
            aggregation,
            merit,
            trust,
            trust_initial: trust_initial.max(trust_floor),
            trust_floor: trust_initial.min(trust_floor),
            tolerance,
            outlier_bound,
            ..KindParams::without_auditors()
        }
    }
}

prop_compose! {
    fn money_rules()(
        base in rules(),
        inference_weights in reward_weights(),
        evaluator_weights in reward_weights(),
        inference_latency in latency_range(),
        evaluator_latency in latency_range(),
        (latency_weight, price_weight) in (ratio(), ratio()),
        price_cap in money().prop_map(|m| m + 1),
        protocol_fee in ratio_in(0..=900_000_000),
        inference_share in ratio_in(1_000_000..=999_000_000),
        inference_slot_min in 1..1_000_000_000_000_000u128,
        evaluator_slot_min in 1..1_000_000_000_000_000u128,
    ) -> KindParams {
        KindParams {
            inference_weights,
            evaluator_weights,
            inference_latency,
            evaluator_latency,
            latency_weight,
            price_weight: price_weight.min(latency_weight.complement()),
            price_cap,
            protocol_fee,
            inference_share,
            inference_slot_min,
            evaluator_slot_min,
            ..base
        }
    }
}

prop_compose! {
    /// Valid parameters of a kind, over all rules.
    pub(crate) fn kind_params()(
        base in money_rules(),
        (more, inference_risk, evaluator_risk) in (money(), 0u8..=9, 0u8..=9),
        (above_min, above_cap) in (money(), 0..1u128 << 10),
        (missed_penalty, unrevealed) in (ratio(), ratio()),
        (outlier, bad, decline) in (ratio(), ratio(), ratio()),
        (delivery_share, unavailable_share) in (ratio(), ratio()),
        quality_floor in ratio_in(1..=ONE),
        (keeper, ring_burn) in (ratio(), money()),
        deadlines in prop::array::uniform4(DEADLINE_MIN..=DAY / 6),
        audit_ms in 0u64..=2_592_000_000,
        quorum in ratio(),
        outputs_max in 1u8..=4,
        (a, b) in (2u8..=15, 2u8..=15),
        rubric_hash in any::<[u8; 32]>(),
    ) -> KindParams {
        // A slandered evaluator loses one slot at most.
        let one_slot = Ratio::from_fraction(1, u128::from(evaluator_risk.max(1)));
        let mut params = KindParams {
            inference_risk,
            evaluator_risk,
            missed_penalty,
            unrevealed_penalty: unrevealed.max(missed_penalty),
            outlier_penalty: outlier.min(missed_penalty).min(one_slot),
            bad_penalty: bad.min(missed_penalty),
            decline_penalty: Ratio::ZERO,
            keeper_fee: 0,
            delivery_share,
            unavailable_share,
            quality_floor,
            ring_burn: ring_burn + 1,
            inference_ms: deadlines[0],
            draw_ms: deadlines[1],
            commit_ms: deadlines[2],
            reveal_ms: deadlines[3],
            audit_ms,
            quorum,
            outputs_max,
            panel_min: a.min(b),
            panel_max: a.max(b),
            rubric_hash,
            fee_max: u128::MAX >> 8,
            ..base
        };
        // Hiding one output of the largest task costs what the others are paid unjudged.
        let others = u128::from(outputs_max.max(2) - 1);
        let hidden = u128::from(params.unrevealed_penalty.ppb()) * u128::from(inference_risk);
        params.delivery_share = delivery_share.min(Ratio::from_fraction(hidden / others, u128::from(ONE)));
        let least_risk = params
            .evaluator_at_risk(params.evaluator_slot_min)
            .min(params.inference_at_risk(params.inference_slot_min));
        params.keeper_fee = keeper.of(params.missed_penalty.of(least_risk));
        // Enough for every task that is made of these, with room for `more`.
        let least = params.fee_min(4, 15).expect("the shares are above zero");
        params.fee_max = least + more;
        let (answer, scores) = params
            .split(params.fee_max, 1, 2)
            .map_or((0, 0), |split| (split.inference_slot, split.evaluator_slot));
        let dearest_risk = params.inference_at_risk(answer);
        let covered = Ratio::from_fraction(params.keeper_fee * u128::from(KEEPER_STEPS), dearest_risk.max(1));
        params.decline_penalty = decline.min(missed_penalty).min(covered);
        let most = dearest_risk.max(params.evaluator_at_risk(scores)) + 1;
        params.stake_min = most * MAX_OPEN as u128 + above_min;
        params.stake_cap = params.stake_min + above_cap;
        params.trust_floor = params.trust_floor.max(Ratio::from_ppb(ONE >> 10));
        params.trust_initial = params.trust_initial.max(params.trust_floor);
        params
    }
}

pub(crate) fn score() -> impl Strategy<Value = Score> {
    prop_oneof![9 => ratio().prop_map(Score::of), 1 => Just(Score::UNAVAILABLE)]
}

pub(crate) fn conduct(outputs: usize) -> impl Strategy<Value = Conduct> {
    prop_oneof![
        1 => Just(Conduct::Missed),
        1 => Just(Conduct::Unrevealed),
        1 => Just(Conduct::Vacant),
        1 => Just(Conduct::Revealed(vec![Score::NO_INPUT; outputs])),
        8 => prop::collection::vec(score(), outputs).prop_map(Conduct::Revealed),
    ]
}

fn output() -> impl Strategy<Value = OutputInput> {
    let answer = prop_oneof![
        1 => Just(Answer::Missed),
        1 => Just(Answer::Declined),
        8 => (0..200_000u64).prop_map(|latency_ms| Answer::Delivered { latency_ms }),
        1 => any::<u64>().prop_map(|latency_ms| Answer::Delivered { latency_ms }),
    ];
    (answer, money()).prop_map(|(answer, price)| OutputInput { answer, price })
}

const NOW: Millis = 1_700_000_000_000;

fn evaluator(outputs: usize, floor: Ratio) -> impl Strategy<Value = EvaluatorInput> {
    let due = prop_oneof![3 => -1_000_000_000_000_000i128..1_000_000_000_000_000, 1 => any::<i128>()];
    (conduct(outputs), 0..200_000u64, ratio(), due).prop_map(move |(conduct, late, trust, due)| {
        let latency_ms = if conduct == Conduct::Missed { 0 } else { late };
        EvaluatorInput { conduct, latency_ms, trust: trust.max(floor), due }
    })
}

pub(crate) fn population() -> impl Strategy<Value = Population> {
    let billion = i64::from(ONE);
    let entry = (prop_oneof![Just(0), NOW - 100_000..NOW + 300_000], ratio())
        .prop_map(|(settled_at, quality)| RingEntry { settled_at, quality });
    let average = prop_oneof![1 => Just(0), 4 => -billion..=billion];
    (prop::collection::vec(entry, RING), ratio(), average)
        .prop_map(|(entries, reference, gain_average)| {
            let mut ring = Ring::default();
            ring.entries.iter_mut().zip(entries).for_each(|(to, from)| *to = from);
            Population { ring, reference, gain_average }
        })
        .boxed()
}

/// Any task that such parameters allow: a fee that fills the slots, arbitrary conduct of everybody.
pub(crate) fn task(params: &KindParams) -> impl Strategy<Value = SettlementInput> {
    let params = params.clone();
    (1u8..=4, 2u8..=15).prop_flat_map(move |(n, k)| {
        let least = params.fee_min(n, k).expect("the shares of these parameters are above zero");
        (
            least..=params.fee_max,
            prop::collection::vec(output(), usize::from(n)),
            prop::collection::vec(evaluator(usize::from(n), params.trust_floor), usize::from(k)),
            population(),
            any::<[bool; 2]>(),
        )
            .prop_map(|(fee, outputs, panel, population, [early, inline])| SettlementInput {
                ending: Ending::Consensus,
                fee,
                keepers: 0,
                early,
                inline,
                outputs,
                panel,
                population,
            })
    })
}

/// Parameters with a task of theirs.
pub(crate) fn case() -> impl Strategy<Value = (KindParams, SettlementInput)> {
    // Boxed: the trees of values that can shrink are large, and a test's stack is not.
    kind_params().boxed().prop_flat_map(|params| {
        let input = task(&params).boxed();
        (Just(params), input)
    })
}

/// Scores with trust, at least one.
pub(crate) fn weighted(most: usize) -> impl Strategy<Value = Vec<Weighted>> {
    prop::collection::vec((ratio(), ratio()).prop_map(|(score, trust)| Weighted { score, trust }), 1..=most)
}

/// A small deterministic generator for simulations: splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box-Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let u = 1.0 - self.uniform();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// blake2b-256.
pub(crate) fn blake2(bytes: &[u8]) -> [u8; 32] {
    use blake2::digest::consts::U32;
    use blake2::Digest;
    blake2::Blake2b::<U32>::digest(bytes).into()
}
