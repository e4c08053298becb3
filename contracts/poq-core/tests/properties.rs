//! Invariants that the arithmetic alone can show, for arbitrary valid parameters and arbitrary inputs.
//!
//! What needs a population of evaluators over time is in `population.rs`, exact numbers are in `vectors.rs`.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

mod common;

use common::*;
use parity_scale_codec::{Decode, DecodeAll, Encode};
use poq_core::aggregate::{aggregate, median, Weighted};
use poq_core::cost::inference_cost;
use poq_core::draw::{class_of, weight, Pool, Stream, CLASSES};
use poq_core::merit::{self, Comparison, RingEntry};
use poq_core::phase::{Clock, Phase, Step};
use poq_core::settlement::{unsettled_penalty, Conduct};
use poq_core::units::ONE;
use poq_core::{commitment, settle, trust};
use poq_core::{Aggregation, KindParams, MeritRule, ParamsError, Ratio, Score, SettlementInput, TrustRule};
use proptest::prelude::*;
use proptest::sample::Index;

/// a · b in 256 bits, as (high, low).
fn wide(a: u128, b: u128) -> (u128, u128) {
    let mask = u128::from(u64::MAX);
    let (ah, al, bh, bl) = (a >> 64, a & mask, b >> 64, b & mask);
    let low = al * bl;
    let (m1, m2) = (ah * bl, al * bh);
    let middle = (low >> 64) + (m1 & mask) + (m2 & mask);
    (ah * bh + (m1 >> 64) + (m2 >> 64) + (middle >> 64), (middle << 64) | (low & mask))
}

fn permute<T: Clone>(items: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|i| items[*i].clone()).collect()
}

fn revealed(input: &SettlementInput) -> usize {
    input.panel.iter().filter(|e| matches!(e.conduct, Conduct::Revealed(_))).count()
}

// ---- units

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_share_of_an_amount_is_exact_and_rounds_down(share in ratio(), amount in any::<u128>()) {
        let part = share.of(amount);
        let exact = wide(amount, u128::from(share.ppb()));
        prop_assert!(wide(part, u128::from(ONE)) <= exact);
        if let Some(next) = part.checked_add(1) {
            prop_assert!(wide(next, u128::from(ONE)) > exact);
        }
        prop_assert!(part <= amount);
    }

    #[test]
    fn a_fraction_is_exact_and_rounds_down(a in any::<u128>(), b in any::<u128>(), shift in 0u32..128) {
        let (part, whole) = (a.min(b) >> shift, (a.max(b) >> shift).max(1));
        let ppb = u128::from(Ratio::from_fraction(part, whole).ppb());
        let scaled = wide(part, u128::from(ONE));
        prop_assert!(wide(whole, ppb) <= scaled);
        prop_assert!(ppb == u128::from(ONE) || wide(whole, ppb + 1) > scaled);
    }

    #[test]
    fn so_many_billionths_of_a_whole_are_so_many_parts_per_billion(ratio in ratio(), shift in 0u32..=98) {
        let (part, whole) = (u128::from(ratio.ppb()) << shift, u128::from(ONE) << shift);
        prop_assert_eq!(Ratio::from_fraction(part, whole), ratio);
        prop_assert_eq!(Ratio::from_fraction(part.saturating_sub(1), whole).ppb(), ratio.ppb().saturating_sub(1));
    }

    #[test]
    fn a_fraction_just_below_one_is_below_one(whole in 2..u128::MAX) {
        prop_assert_eq!(Ratio::from_fraction(whole - 1, whole) < Ratio::ONE, true);
        prop_assert_eq!(Ratio::from_fraction(whole, whole), Ratio::ONE);
        prop_assert_eq!(Ratio::from_fraction(whole, whole - 1), Ratio::ONE);
    }

    #[test]
    fn products_of_ratios_round_down(a in ratio(), b in ratio()) {
        let exact = u64::from(a.ppb()) * u64::from(b.ppb());
        prop_assert_eq!(u64::from(a.mul(b).ppb()), exact / u64::from(ONE));
        prop_assert_eq!(a.mul(Ratio::ONE), a);
        prop_assert_eq!(a.saturating_add(a.complement()), Ratio::ONE);
        prop_assert_eq!(a.abs_diff(b).signed(), (a.signed() - b.signed()).abs());
        prop_assert_eq!(a.saturating_sub(b).signed(), (a.signed() - b.signed()).max(0));
        prop_assert_eq!(a.saturating_add(b).signed(), (a.signed() + b.signed()).min(i64::from(ONE)));
    }

    #[test]
    fn clipping_a_signed_number(x in any::<i64>()) {
        prop_assert_eq!(Ratio::clip(x).signed(), x.clamp(0, i64::from(ONE)));
    }

    #[test]
    fn only_ratios_and_scores_in_range_decode(raw in prop_oneof![any::<u32>(), ONE - 2..ONE + 3, u32::MAX - 2..=u32::MAX]) {
        let bytes = raw.encode();
        let ratio = Ratio::decode_all(&mut &bytes[..]);
        prop_assert_eq!(ratio.is_ok(), raw <= ONE);
        if let Ok(ratio) = ratio {
            prop_assert_eq!(ratio.ppb(), raw);
        }
        let score = Score::decode_all(&mut &bytes[..]);
        prop_assert_eq!(score.is_ok(), raw <= ONE || raw == u32::MAX);
        if let Ok(score) = score {
            prop_assert_eq!(score.quality().map(Ratio::ppb), (raw <= ONE).then_some(raw));
            prop_assert_eq!(score.encode(), bytes);
        }
    }

    #[test]
    fn a_score_is_four_bytes_and_comes_back(score in score()) {
        prop_assert_eq!(score.encode().len(), 4);
        prop_assert_eq!(Score::decode(&mut &score.encode()[..]), Ok(score));
        prop_assert_eq!(Score::from(score.quality()), score);
    }
}

#[test]
fn nothing_out_of_nothing() {
    assert_eq!(Ratio::from_fraction(0, 0), Ratio::ZERO);
    assert_eq!(Ratio::from_fraction(1, 0), Ratio::ONE);
    assert_eq!(Ratio::from_ppb(u32::MAX), Ratio::ONE);
    assert_eq!(Ratio::from_permille(1_001), Ratio::ONE);
    assert_eq!(Ratio::from_permille(250).ppb(), 250_000_000);
    assert!(Ratio::try_from(ONE + 1).is_err());
    assert_eq!(Score::default(), Score::UNAVAILABLE);
    assert_eq!(format!("{} {:?}", Ratio::from_ppb(1), Score::UNAVAILABLE), "0.000000001 unavailable");
}

// ---- aggregation

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_consensus_does_not_depend_on_the_order(
        rule in aggregation(),
        (scores, shuffled) in weighted(15).prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
    ) {
        prop_assert_eq!(aggregate(rule, &scores), aggregate(rule, &shuffled));
    }

    #[test]
    fn a_consensus_is_between_the_scores(rule in aggregation(), scores in weighted(40)) {
        let consensus = aggregate(rule, &scores).unwrap();
        prop_assert!(scores.iter().any(|w| w.score <= consensus));
        prop_assert!(scores.iter().any(|w| w.score >= consensus));
    }

    #[test]
    fn a_consensus_rises_with_every_score(rule in aggregation(), scores in weighted(15), who in any::<Index>(), up in ratio()) {
        let before = aggregate(rule, &scores).unwrap();
        let mut raised = scores.clone();
        let at = who.index(raised.len());
        raised[at].score = raised[at].score.saturating_add(up);
        prop_assert!(aggregate(rule, &raised).unwrap() >= before);
    }

    #[test]
    fn unweighted_rules_ignore_trust(scores in weighted(15), trim in 0..ONE / 2) {
        let distrusted: Vec<Weighted> =
            scores.iter().map(|w| Weighted { score: w.score, trust: Ratio::ZERO }).collect();
        for rule in [Aggregation::Mean, Aggregation::Median, Aggregation::TrimmedMean { trim: Ratio::from_ppb(trim) }] {
            prop_assert_eq!(aggregate(rule, &scores), aggregate(rule, &distrusted));
        }
        // With no trust at all the weighted rules are their unweighted forms.
        prop_assert_eq!(
            aggregate(Aggregation::TrustWeightedMean, &distrusted),
            aggregate(Aggregation::Mean, &scores)
        );
        prop_assert_eq!(
            aggregate(Aggregation::TrustWeightedMedian, &distrusted),
            aggregate(Aggregation::Median, &scores)
        );
    }

    #[test]
    fn whom_nobody_trusts_has_no_say_under_the_weighted_rules(scores in weighted(15), extra in weighted(15)) {
        prop_assume!(scores.iter().any(|w| w.trust > Ratio::ZERO));
        let mut with = scores.clone();
        with.extend(extra.iter().map(|w| Weighted { score: w.score, trust: Ratio::ZERO }));
        for rule in [Aggregation::TrustWeightedMean, Aggregation::TrustWeightedMedian] {
            prop_assert_eq!(aggregate(rule, &scores), aggregate(rule, &with));
        }
    }

    #[test]
    fn with_equal_trust_the_weighted_rules_are_the_plain_ones(scores in weighted(15), trust in ratio_in(1..=ONE)) {
        let equal: Vec<Weighted> = scores.iter().map(|w| Weighted { score: w.score, trust }).collect();
        prop_assert_eq!(aggregate(Aggregation::TrustWeightedMean, &equal), aggregate(Aggregation::Mean, &equal));
        prop_assert_eq!(aggregate(Aggregation::TrustWeightedMedian, &equal), aggregate(Aggregation::Median, &equal));
    }

    #[test]
    fn a_minority_by_number_cannot_move_the_median_out_of_the_honest_range(honest in weighted(8), bad in weighted(7)) {
        let mut scores = honest.clone();
        scores.extend(bad.iter().take(honest.len() - 1));
        let consensus = aggregate(Aggregation::Median, &scores).unwrap();
        prop_assert!(honest.iter().map(|w| w.score).min().unwrap() <= consensus);
        prop_assert!(honest.iter().map(|w| w.score).max().unwrap() >= consensus);
    }

    #[test]
    fn a_minority_by_trust_cannot_move_the_weighted_median_out_of_the_honest_range(
        honest in weighted(6),
        bad in weighted(12),
    ) {
        let sum = |scores: &[Weighted]| scores.iter().map(|w| u64::from(w.trust.ppb())).sum::<u64>();
        let trusted = sum(&honest);
        prop_assume!(trusted > 0);
        let mut scores = honest.clone();
        // As many of the bad ones as together have less trust than the honest: there may be more of them.
        let mut weight = 0;
        for w in &bad {
            weight += u64::from(w.trust.ppb());
            if weight >= trusted {
                break;
            }
            scores.push(*w);
        }
        let voice = |w: &&Weighted| w.trust > Ratio::ZERO;
        let consensus = aggregate(Aggregation::TrustWeightedMedian, &scores).unwrap();
        prop_assert!(honest.iter().filter(voice).map(|w| w.score).min().unwrap() <= consensus);
        prop_assert!(honest.iter().filter(voice).map(|w| w.score).max().unwrap() >= consensus);
    }

    #[test]
    fn a_trimmed_mean_ignores_as_many_outliers_as_it_trims(
        honest in weighted(15),
        trim in 0..ONE / 2,
        bad in prop::collection::vec(ratio(), 0..=15),
    ) {
        let rule = Aggregation::TrimmedMean { trim: Ratio::from_ppb(trim) };
        // floor(trim · K) of the K scores may be anything.
        let most = (0..=bad.len())
            .rev()
            .find(|b| *b as u64 <= u64::from(trim) * (honest.len() + b) as u64 / u64::from(ONE))
            .unwrap();
        let mut scores = honest.clone();
        scores.extend(bad.iter().take(most).map(|score| Weighted { score: *score, trust: Ratio::ONE }));
        let consensus = aggregate(rule, &scores).unwrap();
        prop_assert!(honest.iter().map(|w| w.score).min().unwrap() <= consensus);
        prop_assert!(honest.iter().map(|w| w.score).max().unwrap() >= consensus);
    }

    #[test]
    fn a_trimmed_mean_is_the_mean_of_the_middle(scores in weighted(15), trim in 0..ONE / 2) {
        let mut sorted: Vec<u64> = scores.iter().map(|w| u64::from(w.score.ppb())).collect();
        sorted.sort_unstable();
        let drop = (u64::from(trim) * sorted.len() as u64 / u64::from(ONE)) as usize;
        let middle = &sorted[drop..sorted.len() - drop];
        let mean = middle.iter().sum::<u64>() / middle.len() as u64;
        let rule = Aggregation::TrimmedMean { trim: Ratio::from_ppb(trim) };
        prop_assert_eq!(u64::from(aggregate(rule, &scores).unwrap().ppb()), mean);
    }

    /// Parameters forbid it, but nothing breaks.
    #[test]
    fn trimming_everything_leaves_the_middle(scores in weighted(15), trim in ONE / 2..=ONE) {
        let rule = Aggregation::TrimmedMean { trim: Ratio::from_ppb(trim) };
        prop_assert_eq!(aggregate(rule, &scores), aggregate(Aggregation::Median, &scores));
    }

    #[test]
    fn the_median_is_in_the_middle(values in prop::collection::vec(ratio(), 1..60)) {
        let m = median(&values).unwrap();
        let below = values.iter().filter(|v| **v < m).count();
        let above = values.iter().filter(|v| **v > m).count();
        prop_assert!(below * 2 <= values.len() && above * 2 <= values.len());
        if values.len() % 2 == 1 {
            prop_assert!(values.contains(&m));
        }
    }
}

#[test]
fn no_scores_no_consensus() {
    assert_eq!(aggregate(Aggregation::Mean, &[]), None);
    assert_eq!(median(&[]), None);
}

/// The breakdown point of one half is the medians' own: one liar of three moves the mean out of the honest range.
#[test]
fn a_mean_has_no_breakdown_point() {
    let score = |permille| Weighted { score: Ratio::from_permille(permille), trust: Ratio::ONE };
    let scores = [score(800), score(820), score(0)];
    for rule in [Aggregation::Mean, Aggregation::TrustWeightedMean] {
        assert!(aggregate(rule, &scores).unwrap() < Ratio::from_permille(800));
    }
    assert_eq!(aggregate(Aggregation::Median, &scores), Some(Ratio::from_permille(800)));
}

// ---- cost and reward

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_cost_is_a_ratio_that_rises_with_latency_and_price(
        range in latency_range(),
        (a, b) in (any::<u64>(), 0..400_000u64),
        (wl, wp) in (ratio(), ratio()),
        (price, more) in (money(), money()),
        cap in money(),
    ) {
        let cap = cap + 1;
        let wp = wp.min(wl.complement());
        let cost = |latency, price| inference_cost(latency, &range, wl, price, cap, wp);
        prop_assert!(cost(a.min(b), price) <= cost(a.max(b), price));
        prop_assert!(cost(a, price) <= cost(a, price + more));
        prop_assert!(cost(u64::MAX, u128::MAX) <= wl.saturating_add(wp));
        prop_assert_eq!(cost(u64::MAX, u128::MAX), wl.saturating_add(wp));
        prop_assert_eq!(cost(range.min_ms, 0), Ratio::ZERO);
        prop_assert_eq!(range.cost(range.max_ms), Ratio::ONE);
        prop_assert!(range.cost(range.max_ms - 1) < Ratio::ONE);
    }

    #[test]
    fn a_net_reward_is_in_range_and_rises_with_quality_and_falls_with_cost(
        weights in reward_weights(),
        (q, c, up) in (ratio(), ratio(), ratio()),
    ) {
        let net = weights.net(q, c);
        prop_assert!((-weights.beta.signed()..=weights.alpha.signed()).contains(&net));
        prop_assert!(weights.net(q.saturating_add(up), c) >= net);
        prop_assert!(weights.net(q, c.saturating_add(up)) <= net);
        prop_assert_eq!(weights.net(Ratio::ONE, Ratio::ZERO), weights.alpha.signed());
        prop_assert_eq!(weights.net(Ratio::ZERO, Ratio::ONE), -weights.beta.signed());
        // floor(α·q − β·c), exactly.
        let exact = i128::from(weights.alpha.ppb()) * i128::from(q.ppb()) - i128::from(weights.beta.ppb()) * i128::from(c.ppb());
        prop_assert_eq!(i128::from(net), exact.div_euclid(i128::from(ONE)));
    }

    #[test]
    fn money_follows_the_net_reward(weights in reward_weights(), (slot, cap) in (any::<u128>(), any::<u128>()), (a, b) in (ratio(), ratio()), (q, c) in (ratio(), ratio())) {
        let of = |net| weights.outcome(net, slot, cap);
        let net = weights.net(q, c);
        let got = of(net);
        prop_assert!(got.payout <= slot && got.penalty <= cap);
        prop_assert!(got.payout == 0 || got.penalty == 0);
        prop_assert!(net >= 0 || got.payout == 0);
        prop_assert!(net < 0 || got.penalty == 0);
        let other = weights.net(a, b);
        let (low, high) = (of(net.min(other)), of(net.max(other)));
        prop_assert!(low.payout <= high.payout && low.penalty >= high.penalty);
        prop_assert_eq!(of(weights.alpha.signed()).payout, slot);
        if weights.beta > Ratio::ZERO {
            prop_assert_eq!(of(-weights.beta.signed()).penalty, cap);
        }
    }
}

// ---- parameters

/// Everything that a fee, valid parameters and a number of nodes may be, shares of zero and one included.
fn any_split() -> impl Strategy<Value = (KindParams, u8, u8)> {
    (kind_params(), ratio(), ratio(), money(), money(), 1u8..=4, 2u8..=15).prop_map(
        |(params, p, i, a, b, n, k)| {
            let params = KindParams {
                protocol_fee: p,
                inference_share: i,
                inference_slot_min: a + 1,
                evaluator_slot_min: b + 1,
                ..params
            };
            (params, n, k)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn generated_parameters_are_valid_and_survive_the_wire(params in kind_params()) {
        prop_assert_eq!(params.validate(), Ok(()));
        prop_assert_eq!(KindParams::decode_all(&mut &params.encode()[..]), Ok(params));
    }

    #[test]
    fn a_split_never_exceeds_the_fee_and_fills_the_least_slots((params, n, k) in any_split(), fee in any::<u128>()) {
        if let Some(split) = params.split(fee, n, k) {
            let slots = split.inference_slot * u128::from(n) + split.evaluator_slot * u128::from(k);
            prop_assert!(split.protocol_fee + slots <= fee);
            // What is left over is rounding: less than one unit per slot.
            prop_assert!(fee - split.protocol_fee - slots < u128::from(n) + u128::from(k));
            prop_assert!(split.inference_slot >= params.inference_slot_min);
            prop_assert!(split.evaluator_slot >= params.evaluator_slot_min);
        }
    }

    #[test]
    fn the_least_fee_is_the_least_that_splits((params, n, k) in any_split(), fee in any::<u128>()) {
        match params.fee_min(n, k) {
            Some(least) => {
                prop_assert!(params.split(least, n, k).is_some());
                prop_assert!(least == 0 || params.split(least - 1, n, k).is_none());
                prop_assert_eq!(params.split(fee, n, k).is_some(), fee >= least);
            }
            None => prop_assert!(params.split(fee, n, k).is_none() && params.split(u128::MAX, n, k).is_none()),
        }
    }

    #[test]
    fn a_quorum_is_a_share_rounded_up_and_at_least_two(params in kind_params(), panel in 2u8..=15) {
        let quorum = params.quorum_of(panel);
        prop_assert!((2..=panel).contains(&quorum));
        let share = u64::from(params.quorum.ppb()) * u64::from(panel);
        prop_assert!(u64::from(quorum) * u64::from(ONE) >= share);
        prop_assert!(quorum == 2 || u64::from(quorum - 1) * u64::from(ONE) < share);
    }
}

#[test]
fn nobody_to_pay_is_no_split() {
    let params = KindParams::default();
    assert!(params.split(u128::MAX, 0, 5).is_none());
    assert!(params.split(u128::MAX, 1, 0).is_none());
}

#[test]
fn every_rule_of_validation_is_enforced() {
    type Break = fn(&mut KindParams);
    let breaks: &[(ParamsError, Break)] = &[
        (ParamsError::Trim, |p| p.aggregation = Aggregation::TrimmedMean { trim: Ratio::from_permille(500) }),
        (ParamsError::ReferenceFloor, |p| {
            p.merit = MeritRule::Information { step: Ratio::ONE, floor: Ratio::ZERO }
        }),
        (ParamsError::TrustRates, |p| {
            p.trust = TrustRule::Centred { up: Ratio::from_permille(2), down: Ratio::from_permille(1) }
        }),
        (ParamsError::TrustFloor, |p| p.trust_floor = Ratio::ZERO),
        (ParamsError::TrustFloor, |p| p.trust_floor = p.trust_initial.saturating_add(Ratio::from_ppb(1))),
        (ParamsError::Alpha, |p| p.inference_weights.alpha = Ratio::ZERO),
        (ParamsError::Alpha, |p| p.evaluator_weights.alpha = Ratio::ZERO),
        (ParamsError::LatencyRange, |p| p.inference_latency.max_ms = p.inference_latency.min_ms),
        (ParamsError::LatencyRange, |p| p.evaluator_latency.max_ms = p.evaluator_latency.min_ms),
        (ParamsError::CostWeights, |p| {
            p.price_weight = p.latency_weight.complement().saturating_add(Ratio::from_ppb(1))
        }),
        (ParamsError::PriceCap, |p| p.price_cap = 0),
        (ParamsError::SlotMin, |p| p.inference_slot_min = 0),
        (ParamsError::SlotMin, |p| p.evaluator_slot_min = 0),
        (ParamsError::Stake, |p| p.stake_cap = p.stake_min - 1),
        (ParamsError::Stake, |p| p.inference_at_risk = p.stake_min + 1),
        (ParamsError::Stake, |p| p.evaluator_at_risk = p.stake_min + 1),
        (ParamsError::Stake, |p| (p.stake_min, p.inference_at_risk, p.evaluator_at_risk) = (0, 0, 0)),
        (ParamsError::Penalties, |p| {
            (p.unrevealed_penalty, p.outlier_penalty) = (Ratio::from_permille(499), Ratio::from_permille(500))
        }),
        (ParamsError::Penalties, |p| {
            p.outlier_penalty = Ratio::ZERO;
            (p.unrevealed_penalty, p.missed_penalty) = (Ratio::from_permille(99), Ratio::from_permille(100));
        }),
        (ParamsError::Deadlines, |p| p.inference_ms = 999),
        (ParamsError::Deadlines, |p| p.draw_ms = 0),
        (ParamsError::Deadlines, |p| p.commit_ms = 2_592_000_001),
        (ParamsError::Deadlines, |p| p.reveal_ms = u64::MAX),
        (ParamsError::PanelSize, |p| p.outputs_max = 0),
        (ParamsError::PanelSize, |p| p.outputs_max = 5),
        (ParamsError::PanelSize, |p| p.panel_min = 1),
        (ParamsError::PanelSize, |p| p.panel_max = 16),
        (ParamsError::PanelSize, |p| (p.panel_min, p.panel_max) = (6, 5)),
    ];
    assert_eq!(KindParams::default().validate(), Ok(()));
    for (number, (error, broken)) in breaks.iter().enumerate() {
        let mut params = KindParams::default();
        broken(&mut params);
        assert_eq!(params.validate(), Err(*error), "case {number}");
        assert!(!error.to_string().is_empty());
    }
}

// ---- settlement

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_unit_of_the_fee_goes_somewhere((params, input) in case()) {
        let s = settle(&params, &input).expect("the fee fills the slots");
        let split = params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap();
        let to_nodes: u128 =
            s.outputs.iter().map(|o| o.payout).chain(s.panel.iter().map(|e| e.payout)).sum();
        prop_assert_eq!(to_nodes + s.protocol_fee + s.forfeited + s.refund, input.fee);
        // What an opening keeps from evaluators is never the requester's.
        let unearned = split.evaluator_slot * s.panel.len() as u128 - s.panel.iter().map(|e| e.payout).sum::<u128>();
        prop_assert_eq!(s.forfeited, if input.truth.is_some() { unearned } else { 0 });
        prop_assert_eq!(s.protocol_fee, split.protocol_fee);
        prop_assert_eq!(s.protocol_fee, params.protocol_fee.of(input.fee));
        for o in &s.outputs {
            prop_assert!(o.payout <= split.inference_slot);
            prop_assert!(o.slashed <= params.inference_at_risk);
            prop_assert!(o.payout == 0 || o.slashed == 0);
        }
        for e in &s.panel {
            prop_assert!(e.payout <= split.evaluator_slot);
            prop_assert!(e.slashed <= params.evaluator_at_risk);
            prop_assert!(e.payout == 0 || e.slashed == 0);
        }
        let slashed: u128 = s.outputs.iter().map(|o| o.slashed).chain(s.panel.iter().map(|e| e.slashed)).sum();
        prop_assert_eq!(s.slashed, slashed);
        let at_risk = params.inference_at_risk * s.outputs.len() as u128
            + params.evaluator_at_risk * s.panel.len() as u128;
        prop_assert!(slashed <= at_risk);
    }

    #[test]
    fn everything_settled_is_in_range((params, input) in case()) {
        let billion = i64::from(ONE);
        let s = settle(&params, &input).unwrap();
        prop_assert_eq!((s.outputs.len(), s.panel.len()), (input.outputs.len(), input.panel.len()));
        for o in &s.outputs {
            prop_assert!(o.net >= -params.inference_weights.beta.signed() && o.net <= params.inference_weights.alpha.signed());
        }
        for e in &s.panel {
            prop_assert!(e.trust >= params.trust_floor && e.trust <= Ratio::ONE);
            prop_assert!(e.net >= -params.evaluator_weights.beta.signed() && e.net <= params.evaluator_weights.alpha.signed());
            prop_assert!(e.gain.unwrap_or(0).abs() <= billion);
            prop_assert!(e.gain_average.abs() <= billion);
        }
        prop_assert!(s.gain_average.abs() <= billion);
        if let MeritRule::Information { floor, .. } = params.merit {
            prop_assert!(s.reference >= floor.min(input.population.reference));
        } else {
            prop_assert_eq!(s.reference, input.population.reference);
        }
        // What the kind remembers of the task is one output's consensus.
        prop_assert_eq!(s.consensus, s.outputs.iter().find_map(|o| o.quality));
    }

    #[test]
    fn settling_the_same_twice_gives_the_same((params, input) in case()) {
        let s = settle(&params, &input);
        prop_assert_eq!(&s, &settle(&params, &input));
        let s = s.unwrap();
        prop_assert_eq!(poq_core::Settlement::decode_all(&mut &s.encode()[..]), Ok(s));
        prop_assert_eq!(SettlementInput::decode_all(&mut &input.encode()[..]), Ok(input));
    }

    #[test]
    fn nobodys_outcome_depends_on_its_place_in_the_panel(
        ((params, input), order) in case().prop_flat_map(|(params, input)| {
            let order: Vec<usize> = (0..input.panel.len()).collect();
            (Just((params, input)), Just(order).prop_shuffle())
        }),
    ) {
        let before = settle(&params, &input).unwrap();
        let shuffled = SettlementInput { panel: permute(&input.panel, &order), ..input };
        let after = settle(&params, &shuffled).unwrap();
        prop_assert_eq!(&after.panel, &permute(&before.panel, &order));
        prop_assert_eq!(poq_core::Settlement { panel: before.panel.clone(), ..after }, before);
    }

    #[test]
    fn nobodys_outcome_depends_on_the_order_of_the_outputs(
        ((params, input), order) in case().prop_flat_map(|(params, input)| {
            let order: Vec<usize> = (0..input.outputs.len()).collect();
            (Just((params, input)), Just(order).prop_shuffle())
        }),
    ) {
        let before = settle(&params, &input).unwrap();
        let mut shuffled = input.clone();
        shuffled.outputs = permute(&input.outputs, &order);
        for evaluator in &mut shuffled.panel {
            if let Conduct::Revealed(scores) = &mut evaluator.conduct {
                *scores = permute(scores, &order);
            }
        }
        shuffled.truth = input.truth.as_ref().map(|truth| permute(truth, &order));
        let after = settle(&params, &shuffled).unwrap();
        prop_assert_eq!(&after.outputs, &permute(&before.outputs, &order));
        // The first output that has a consensus is another one now.
        let (outputs, consensus) = (before.outputs.clone(), before.consensus);
        prop_assert_eq!(poq_core::Settlement { outputs, consensus, ..after }, before);
    }

    #[test]
    fn better_scores_never_lower_a_nodes_payout((params, input) in case(), which in any::<Index>(), up in ratio()) {
        let at = which.index(input.outputs.len());
        let before = settle(&params, &input).unwrap();
        let mut better = input.clone();
        for evaluator in &mut better.panel {
            if let Conduct::Revealed(scores) = &mut evaluator.conduct {
                scores[at] = Score::from(scores[at].quality().map(|q| q.saturating_add(up)));
            }
        }
        let after = settle(&params, &better).unwrap();
        prop_assert!(after.outputs[at].payout >= before.outputs[at].payout);
        prop_assert!(after.outputs[at].slashed <= before.outputs[at].slashed);
        for (other, settled) in after.outputs.iter().enumerate().filter(|(o, _)| *o != at) {
            prop_assert_eq!(settled, &before.outputs[other]);
        }
    }

    #[test]
    fn cost_never_raises_a_nodes_payout_and_is_nobody_elses_business(
        (params, input) in case(),
        which in any::<Index>(),
        late in 0..100_000u64,
        dear in money(),
    ) {
        let at = which.index(input.outputs.len());
        let before = settle(&params, &input).unwrap();
        let mut costly = input.clone();
        costly.outputs[at].latency_ms = costly.outputs[at].latency_ms.map(|l| l.saturating_add(late));
        costly.outputs[at].price += dear;
        let after = settle(&params, &costly).unwrap();
        prop_assert!(after.outputs[at].payout <= before.outputs[at].payout);
        prop_assert!(after.outputs[at].slashed >= before.outputs[at].slashed);
        prop_assert!(after.outputs[at].cost >= before.outputs[at].cost);
        prop_assert_eq!(&after.panel, &before.panel);
        for (other, settled) in after.outputs.iter().enumerate().filter(|(o, _)| *o != at) {
            prop_assert_eq!(settled, &before.outputs[other]);
        }
    }

    #[test]
    fn committing_later_never_raises_an_evaluators_payout((params, input) in case(), which in any::<Index>(), late in 0..100_000u64) {
        let at = which.index(input.panel.len());
        let before = settle(&params, &input).unwrap();
        let mut later = input.clone();
        later.panel[at].committed_at += late;
        let after = settle(&params, &later).unwrap();
        prop_assert!(after.panel[at].payout <= before.panel[at].payout);
        prop_assert!(after.panel[at].slashed >= before.panel[at].slashed);
        prop_assert_eq!(after.panel[at].trust, before.panel[at].trust);
        for (other, settled) in after.panel.iter().enumerate().filter(|(o, _)| *o != at) {
            prop_assert_eq!(settled, &before.panel[other]);
        }
    }

    /// A kind that was never settled, or whose floor was raised since: no division by next to nothing.
    #[test]
    fn a_reference_below_its_floor_counts_as_the_floor((params, input) in case(), below in ratio()) {
        if let MeritRule::Information { floor, .. } = params.merit {
            let with = |reference| {
                let mut input = input.clone();
                input.population.reference = reference;
                settle(&params, &input).unwrap().panel
            };
            prop_assert_eq!(with(below.min(floor)), with(floor));
        }
    }

    /// Leave one out: an evaluator is compared with a consensus that it has no part in.
    #[test]
    fn an_evaluators_own_trust_moves_nothing_that_it_is_measured_by((params, input) in case(), which in any::<Index>(), trust in ratio()) {
        let at = which.index(input.panel.len());
        let before = settle(&params, &input).unwrap();
        let mut other = input.clone();
        other.panel[at].trust = trust.max(params.trust_floor);
        let after = settle(&params, &other).unwrap();
        let (a, b) = (&after.panel[at], &before.panel[at]);
        prop_assert_eq!((a.deviation, a.gain, a.merit, a.payout, a.slashed), (b.deviation, b.gain, b.merit, b.payout, b.slashed));
    }

    #[test]
    fn hiding_a_score_never_costs_less_than_showing_it((params, input) in case()) {
        let unrevealed = params.unrevealed_penalty.of(params.evaluator_at_risk);
        let missed = params.missed_penalty.of(params.evaluator_at_risk);
        let s = settle(&params, &input).unwrap();
        for (e, settled) in input.panel.iter().zip(&s.panel) {
            match e.conduct {
                Conduct::Missed => prop_assert_eq!((settled.payout, settled.slashed), (0, missed)),
                Conduct::Unrevealed => prop_assert_eq!((settled.payout, settled.slashed), (0, unrevealed)),
                Conduct::Revealed(_) => {
                    prop_assert!(settled.slashed <= unrevealed);
                    // Nor does an answer cost more than none, unless it is an outlier.
                    let outlier = params.outlier_penalty.of(params.evaluator_at_risk);
                    prop_assert!(settled.slashed <= missed || settled.slashed == outlier);
                }
            }
            if !matches!(e.conduct, Conduct::Revealed(_)) {
                prop_assert_eq!((settled.trust, settled.gain_average), (e.trust, e.gain_average));
                prop_assert_eq!((settled.gain, settled.merit, settled.net), (None, Ratio::ZERO, 0));
            }
            prop_assert_eq!(
                unsettled_penalty(&params, &e.conduct),
                match e.conduct { Conduct::Missed => missed, Conduct::Unrevealed => unrevealed, Conduct::Revealed(_) => 0 }
            );
        }
    }

    /// Whoever is further from the others than the bound, with no tolerance, is paid nothing and slashed, by what its net
    /// reward costs anyway if that is more; the others get what their net reward comes to.
    #[test]
    fn outliers_are_slashed_and_the_others_are_not((params, input) in case()) {
        let s = settle(&params, &input).unwrap();
        let slot = params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap().evaluator_slot;
        let said = |m: usize, f: usize| match &input.panel[m].conduct {
            Conduct::Revealed(scores) => scores[f].quality(),
            _ => None,
        };
        for (m, settled) in s.panel.iter().enumerate() {
            let comparisons: Vec<Comparison> = (0..input.outputs.len()).filter(|f| s.outputs[*f].quality.is_some()).filter_map(|f| {
                if let Some(truth) = &input.truth {
                    return Some(Comparison { own: said(m, f)?, others: truth[f]? });
                }
                let others: Vec<Weighted> = (0..input.panel.len()).filter(|o| *o != m).filter_map(|o| {
                    Some(Weighted { score: said(o, f)?, trust: input.panel[o].trust })
                }).collect();
                Some(Comparison { own: said(m, f)?, others: aggregate(params.aggregation, &others)? })
            }).collect();
            let d = merit::deviation(&comparisons, params.tolerance);
            prop_assert_eq!(settled.deviation, d.tolerated);
            if comparisons.is_empty() {
                prop_assert_eq!(settled.payout, 0);
                // One who reveals alone has nobody to be compared with, and is not to blame.
                if matches!(input.panel[m].conduct, Conduct::Revealed(_)) && revealed(&input) == 1 {
                    prop_assert_eq!(settled.slashed, 0);
                }
                continue;
            }
            let missed = params.missed_penalty.of(params.evaluator_at_risk);
            let money = params.evaluator_weights.outcome(settled.net, slot, missed);
            if input.truth.is_some() {
                prop_assert_eq!((settled.payout, settled.slashed), (money.payout, 0));
            } else if d.raw > params.outlier_bound {
                let outlier = params.outlier_penalty.of(params.evaluator_at_risk);
                prop_assert_eq!((settled.payout, settled.slashed), (0, outlier.max(money.penalty)));
            } else {
                prop_assert_eq!((settled.payout, settled.slashed), (money.payout, money.penalty));
            }
        }
    }

    #[test]
    fn an_output_counts_where_more_than_half_of_the_revealing_panel_had_it((params, input) in case()) {
        let s = settle(&params, &input).unwrap();
        for (at, (output, settled)) in input.outputs.iter().zip(&s.outputs).enumerate() {
            let scores: Vec<Weighted> = input.panel.iter().filter_map(|e| match &e.conduct {
                Conduct::Revealed(scores) => {
                    Some(Weighted { score: scores[at].quality()?, trust: e.trust })
                }
                _ => None,
            }).collect();
            let counts = output.latency_ms.is_some() && scores.len() * 2 > revealed(&input);
            prop_assert_eq!(settled.quality, if counts { aggregate(params.aggregation, &scores) } else { None });
            if !counts {
                prop_assert_eq!(settled.payout, 0);
                prop_assert_eq!(settled.slashed, params.missed_penalty.of(params.inference_at_risk));
            }
        }
    }

    /// Abstaining instead of answering never raises the merit: under closeness whatever the answer, under information unless
    /// the answer would have been worse than knowing nothing.
    #[test]
    fn abstaining_never_raises_the_merit((params, mut input) in case(), which in any::<Index>(), output in any::<Index>()) {
        input.truth = None;
        let at = which.index(input.panel.len());
        let f = output.index(input.outputs.len());
        // Everything else available, so that this one abstention changes no output's consensus into none.
        for output in &mut input.outputs {
            output.latency_ms = output.latency_ms.or(Some(5_000));
        }
        for evaluator in &mut input.panel {
            let filled = |scores: &[Score]| {
                let or_half = |s: &Score| Score::of(s.quality().unwrap_or(Ratio::from_permille(500)));
                Conduct::Revealed(scores.iter().map(or_half).collect())
            };
            evaluator.conduct = match &evaluator.conduct {
                Conduct::Revealed(scores) => filled(scores),
                _ => filled(&vec![Score::UNAVAILABLE; input.outputs.len()]),
            };
        }
        prop_assume!(input.panel.len() > 2);
        let before = settle(&params, &input).unwrap();
        let mut abstaining = input.clone();
        if let Conduct::Revealed(scores) = &mut abstaining.panel[at].conduct {
            scores[f] = Score::UNAVAILABLE;
        }
        let after = settle(&params, &abstaining).unwrap();
        prop_assert_eq!(after.consensus.is_some(), before.consensus.is_some());
        let (a, b) = (&after.panel[at], &before.panel[at]);
        let by_information = matches!(params.merit, MeritRule::Information { .. }) && b.gain.is_some();
        if by_information {
            // The others' consensus is the same with and without it, hence so are its gains on the other outputs; the mean
            // rises only if the gain on this one was negative, which its score alone, settled alone, shows.
            let alone = |keep: usize| {
                let mut one = input.clone();
                for evaluator in &mut one.panel {
                    if let Conduct::Revealed(scores) = &mut evaluator.conduct {
                        *scores = vec![scores[keep]];
                    }
                }
                one.outputs = vec![one.outputs[keep].clone()];
                one.fee = MUCH;
                settle(&params, &one).unwrap().panel[at].gain.unwrap()
            };
            let rise = a.gain.unwrap_or(0) > b.gain.unwrap_or(0).max(0);
            if input.outputs.len() > 1 && alone(f) >= 0 {
                prop_assert!(!rise, "{a:?} {b:?}");
                prop_assert!(a.merit <= b.merit.saturating_add(Ratio::from_ppb(1)), "{a:?} {b:?}");
            }
        } else {
            // One part per billion for the rounding of two means.
            prop_assert!(a.merit <= b.merit.saturating_add(Ratio::from_ppb(1)), "{a:?} {b:?}");
        }
        if input.outputs.len() == 1 {
            prop_assert_eq!(a.payout, 0);
            prop_assert_eq!(a.slashed, params.missed_penalty.of(params.evaluator_at_risk));
        }
    }

    #[test]
    fn what_nobody_could_get_costs_only_the_node((params, mut input) in case()) {
        for evaluator in &mut input.panel {
            if let Conduct::Revealed(scores) = &mut evaluator.conduct {
                scores.fill(Score::UNAVAILABLE);
            }
        }
        let s = settle(&params, &input).unwrap();
        prop_assert_eq!(s.consensus, None);
        prop_assert_eq!(s.refund + s.forfeited, input.fee - s.protocol_fee);
        for (e, settled) in input.panel.iter().zip(&s.panel) {
            prop_assert_eq!(settled.slashed, unsettled_penalty(&params, &e.conduct));
            prop_assert_eq!(settled.trust, e.trust);
        }
        for settled in &s.outputs {
            prop_assert_eq!(settled.slashed, params.missed_penalty.of(params.inference_at_risk));
        }
        prop_assert_eq!((s.reference, s.gain_average), (input.population.reference, input.population.gain_average));
    }

    #[test]
    fn a_fee_that_does_not_fill_the_slots_is_not_settled((params, input) in case()) {
        let least = params.fee_min(input.outputs.len() as u8, input.panel.len() as u8).unwrap();
        let with = |fee| settle(&params, &SettlementInput { fee, ..input.clone() });
        prop_assert!(with(least).is_some());
        prop_assert!(with(least - 1).is_none());
    }

    /// Auditors lower merit and trust. They never touch stake, nor what inference nodes get.
    #[test]
    fn an_opening_takes_no_stake_and_changes_no_answers_pay((params, input) in case(), truth in prop::collection::vec(prop::option::of(ratio()), 4)) {
        let unopened = SettlementInput { truth: None, ..input.clone() };
        let opened = SettlementInput { truth: Some(truth[..input.outputs.len()].to_vec()), ..input.clone() };
        let (before, after) = (settle(&params, &unopened).unwrap(), settle(&params, &opened).unwrap());
        prop_assert_eq!(&after.outputs, &before.outputs);
        prop_assert_eq!(after.consensus, before.consensus);
        prop_assert_eq!(after.reference, input.population.reference);
        for ((e, a), b) in input.panel.iter().zip(&after.panel).zip(&before.panel) {
            prop_assert!(a.slashed <= b.slashed);
            if matches!(e.conduct, Conduct::Revealed(_)) {
                prop_assert!(a.slashed == 0 || (a.slashed == b.slashed && a.deviation == Ratio::ZERO));
            } else {
                prop_assert_eq!(a.slashed, b.slashed);
            }
        }
        // The requester gains nothing from opening either.
        prop_assert!(after.refund <= before.refund);
    }

    /// Under the anchored rule what evaluators say of each other moves nobody's trust. A truth moves it by merit relative to those
    /// who know something of it: with one who does, no majority of others keeps its trust, and nobody below zero counts.
    #[test]
    fn anchored_trust_is_moved_by_openings_alone((params, input) in case(), rate in ratio()) {
        let params = KindParams { trust: TrustRule::Anchored { rate }, ..params };
        let s = settle(&params, &input).unwrap();
        if input.truth.is_some() {
            prop_assert!(s.gain_average >= input.population.gain_average.min(0));
            let positive: Vec<i64> = s.panel.iter().filter_map(|e| e.gain).filter(|gain| *gain > 0).collect();
            let round = positive.iter().sum::<i64>().checked_div_euclid(positive.len() as i64);
            let expected = match (round, input.population.gain_average) {
                (None, average) => average,
                (Some(round), 0) => round,
                (Some(round), average) => trust::moving_average(average, round, rate),
            };
            prop_assert_eq!(s.gain_average, expected);
        } else {
            prop_assert_eq!(s.gain_average, input.population.gain_average);
            for (e, settled) in input.panel.iter().zip(&s.panel) {
                prop_assert_eq!((settled.trust, settled.gain_average), (e.trust, e.gain_average));
            }
        }
    }

    /// Fewer than half of the panel, whatever they say, cannot move a node's quality out of what the others say.
    #[test]
    fn a_minority_cannot_move_a_settled_median((params, input) in case(), lies in prop::collection::vec(ratio(), 7)) {
        let params = KindParams { aggregation: Aggregation::Median, ..params };
        let mut attacked = input.clone();
        let honest = input.panel.len() / 2 + 1;
        for evaluator in &mut attacked.panel {
            evaluator.conduct = match &evaluator.conduct {
                Conduct::Revealed(scores) => Conduct::Revealed(
                    scores.iter().map(|s| Score::of(s.quality().unwrap_or(Ratio::ONE))).collect(),
                ),
                _ => Conduct::Revealed(vec![Score::of(Ratio::from_permille(700)); input.outputs.len()]),
            };
        }
        for (evaluator, lie) in attacked.panel[honest..].iter_mut().zip(&lies) {
            evaluator.conduct = Conduct::Revealed(vec![Score::of(*lie); input.outputs.len()]);
        }
        let s = settle(&params, &attacked).unwrap();
        for (at, settled) in s.outputs.iter().enumerate() {
            let said: Vec<Ratio> = attacked.panel[..honest].iter().filter_map(|e| match &e.conduct {
                Conduct::Revealed(scores) => scores[at].quality(),
                _ => None,
            }).collect();
            if let Some(quality) = settled.quality {
                prop_assert!(said.iter().min().unwrap() <= &quality && &quality <= said.iter().max().unwrap());
            } else {
                prop_assert!(attacked.outputs[at].latency_ms.is_none());
            }
        }
    }
}

// ---- merit

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A score that does not depend on the output has exchangeable distances to this task's consensus and to another's, so
    /// this antisymmetry is what makes its expected gain zero, tolerance and all.
    #[test]
    fn swapping_this_task_and_the_other_negates_the_gain(own in ratio(), here in ratio(), there in ratio(), tolerance in ratio()) {
        let gain = |here, there| {
            let ring = [RingEntry { settled_at: 2, quality: there }; merit::RING_MIN];
            merit::information_gain(&[Comparison { own, others: here }], tolerance, &ring).unwrap()
        };
        prop_assert_eq!(gain(here, there), -gain(there, here));
        prop_assert!(gain(here, there).abs() <= here.abs_diff(there).signed());
    }

    #[test]
    fn gains_and_deviations_are_means(
        pairs in prop::collection::vec((ratio(), ratio()), 1..=4),
        tolerance in ratio(),
        unrelated in prop::collection::vec(ratio(), merit::RING_MIN..=16),
    ) {
        let comparisons: Vec<Comparison> =
            pairs.iter().map(|(own, others)| Comparison { own: *own, others: *others }).collect();
        let d = merit::deviation(&comparisons, tolerance);
        prop_assert_eq!(d.outputs as usize, pairs.len());
        prop_assert!(d.tolerated <= d.raw);
        prop_assert!(d.raw <= d.tolerated.saturating_add(tolerance));
        prop_assert_eq!(merit::closeness(&d), d.tolerated.complement());
        let raw: u64 = pairs.iter().map(|(a, b)| u64::from(a.abs_diff(*b).ppb())).sum();
        prop_assert_eq!(u64::from(d.raw.ppb()), raw / pairs.len() as u64);
        let ring: Vec<RingEntry> = unrelated.iter().map(|q| RingEntry { settled_at: 9, quality: *q }).collect();
        let gain = merit::information_gain(&comparisons, tolerance, &ring).unwrap();
        let far = |a: Ratio, b: Ratio| a.abs_diff(b).saturating_sub(tolerance).signed();
        let exact: i64 = pairs
            .iter()
            .map(|(own, others)| {
                unrelated.iter().map(|q| far(*own, *q)).sum::<i64>() / unrelated.len() as i64 - far(*own, *others)
            })
            .sum::<i64>()
            .div_euclid(pairs.len() as i64);
        prop_assert_eq!(gain, exact);
    }

    #[test]
    fn only_written_entries_count_and_a_few_there_must_be(
        own in ratio(), others in ratio(), written in prop::collection::vec(ratio(), 0..8), empty in 0..8usize,
    ) {
        let mut ring = vec![RingEntry { settled_at: 0, quality: Ratio::ONE }; empty];
        ring.extend(written.iter().map(|q| RingEntry { settled_at: 1, quality: *q }));
        let gain = |ring: &[RingEntry]| merit::information_gain(&[Comparison { own, others }], Ratio::ZERO, ring);
        prop_assert_eq!(gain(&ring), gain(&ring[empty..]));
        prop_assert_eq!(gain(&ring).is_some(), written.len() >= merit::RING_MIN);
    }

    #[test]
    fn merit_rises_with_the_gain_up_to_the_reference(gain in -i64::from(ONE)..=i64::from(ONE), more in 0..1_000_000_000i64, reference in ratio_in(1..=ONE)) {
        let m = merit::information(gain, reference);
        prop_assert_eq!(m == Ratio::ZERO, i128::from(gain) * i128::from(ONE) < i128::from(reference.ppb()));
        prop_assert_eq!(m == Ratio::ONE, gain >= reference.signed());
        prop_assert!(merit::information(gain + more, reference) >= m);
    }

    #[test]
    fn the_reference_moves_towards_the_gain_and_not_below_its_floor(
        reference in ratio(), gain in -i64::from(ONE)..=i64::from(ONE), step in ratio(), floor in ratio_in(1..=ONE),
    ) {
        let next = merit::next_reference(reference, gain, step, floor);
        prop_assert!(next >= floor);
        // Not above it is below it.
        prop_assert!(merit::next_reference(reference, reference.signed(), step, floor) <= reference.max(floor));
        if gain > reference.signed() {
            prop_assert!(next > reference || reference == Ratio::ONE);
        } else {
            prop_assert!(next <= reference.max(floor));
            prop_assert!(next < reference || next == floor || reference == Ratio::ZERO);
        }
    }
}

#[test]
fn nothing_compared_has_no_merit() {
    let none = merit::deviation(&[], Ratio::ZERO);
    assert_eq!(none, merit::Deviation::default());
    assert_eq!(merit::closeness(&none), Ratio::ZERO);
    let ring = [RingEntry { settled_at: 1, quality: Ratio::ONE }];
    assert_eq!(merit::information_gain(&[], Ratio::ZERO, &ring.repeat(9)), None);
}

// ---- trust

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn trust_stays_between_the_floor_and_one(
        w in ratio(), (d, m) in (ratio(), ratio()), (up, down) in (ratio(), ratio()), floor in ratio_in(1..=ONE),
        (own, population) in (-i64::from(ONE)..=i64::from(ONE), -i64::from(ONE)..=i64::from(ONE)),
    ) {
        let w = w.max(floor);
        for next in [
            trust::multiplicative(w, d, up, floor),
            trust::centred(w, d, m, up, down, floor),
            trust::relative_merit(w, own, population, floor),
        ] {
            prop_assert!(next >= floor && next <= Ratio::ONE);
        }
    }

    #[test]
    fn trust_falls_with_the_deviation_and_rises_with_the_gain(
        w in ratio(), (d, e, m) in (ratio(), ratio(), ratio()), (up, down) in (ratio(), ratio()),
        (a, b) in (-i64::from(ONE)..=i64::from(ONE), -i64::from(ONE)..=i64::from(ONE)), population in 1..=i64::from(ONE),
    ) {
        let floor = Ratio::from_ppb(1);
        let (near, far) = (d.min(e), d.max(e));
        prop_assert!(trust::multiplicative(w, near, up, floor) >= trust::multiplicative(w, far, up, floor));
        prop_assert!(trust::centred(w, near, m, up, down, floor) >= trust::centred(w, far, m, up, down, floor));
        prop_assert!(trust::relative_merit(w, a.max(b), population, floor) >= trust::relative_merit(w, a.min(b), population, floor));
    }

    /// The multiplicative rule's break-even is one half whatever the others do; the centred rule's is the round's median.
    #[test]
    fn break_even(
        w in ratio_in(10_000_000..=900_000_000),
        eta in ratio_in(10_000_000..=ONE),
        m in ratio_in(100_000_000..=900_000_000),
    ) {
        let floor = Ratio::from_ppb(1);
        let off = Ratio::from_permille(10);
        let half = Ratio::from_permille(500);
        prop_assert_eq!(trust::multiplicative(w, half, eta, floor), w);
        prop_assert!(trust::multiplicative(w, half.saturating_sub(off), eta, floor) > w);
        prop_assert!(trust::multiplicative(w, half.saturating_add(off), eta, floor) < w);
        prop_assert_eq!(trust::centred(w, m, m, eta, eta, floor), w);
        prop_assert!(trust::centred(w, m.saturating_sub(off), m, eta, eta, floor) > w);
        prop_assert!(trust::centred(w, m.saturating_add(off), m, eta, eta, floor) < w);
        // Each direction has its own rate.
        prop_assert_eq!(trust::centred(w, m.saturating_sub(off), m, Ratio::ZERO, eta, floor), w);
        prop_assert_eq!(trust::centred(w, m.saturating_add(off), m, eta, Ratio::ZERO, floor), w);
    }

    #[test]
    fn a_moving_average_moves_towards_the_gain(average in -i64::from(ONE)..=i64::from(ONE), gain in -i64::from(ONE)..=i64::from(ONE), rate in ratio()) {
        let next = trust::moving_average(average, gain, rate);
        prop_assert!(next >= average.min(gain) && next <= average.max(gain));
        prop_assert_eq!(trust::moving_average(average, gain, Ratio::ZERO), average);
        prop_assert_eq!(trust::moving_average(average, gain, Ratio::ONE), gain);
        let billion = i64::from(ONE);
        prop_assert_eq!(trust::moving_average(i64::MAX, i64::MIN, rate), trust::moving_average(billion, -billion, rate));
    }

    #[test]
    fn a_newcomer_starts_where_its_trust_is(w in ratio_in(1..=ONE), population in 1_000_000..=i64::from(ONE), floor in ratio_in(1..=ONE)) {
        let w = w.max(floor);
        let start = trust::starting_average(w, population);
        // Rounded down twice: by 1 ppb of gain, which is up to a thousand of trust here.
        let at = trust::relative_merit(w, start, population, floor);
        prop_assert!(at <= w && w.abs_diff(at).ppb() <= 1_001);
        prop_assert_eq!(trust::starting_average(w, -population), 0);
    }

    #[test]
    fn where_the_population_gains_nothing_trust_stays(w in ratio(), own in any::<i64>(), population in i64::MIN..=0) {
        prop_assert_eq!(trust::relative_merit(w, own, population, Ratio::from_ppb(1)), w.max(Ratio::from_ppb(1)));
    }
}

// ---- draw

fn pool() -> impl Strategy<Value = Pool> {
    prop::collection::vec(
        prop_oneof![2 => Just(0u32), 2 => 0..4u32, 1 => 0..1_000u32, 1 => any::<u32>()],
        CLASSES,
    )
    .prop_map(|counts| Pool { counts: counts.try_into().expect("as many as there are classes") })
}

fn bound(class: u8) -> u32 {
    ONE >> class
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_weight_is_within_its_class(w in ratio_in(1..=ONE)) {
        let class = class_of(w).unwrap();
        prop_assert!(usize::from(class) < CLASSES);
        prop_assert!(w.ppb() <= bound(class));
        // In every class but the last at least half of the picks are accepted.
        prop_assert!(usize::from(class) == CLASSES - 1 || w.ppb() > bound(class + 1));
    }

    /// Every random number below the pool's total is a different (member, threshold), and every threshold below the class's
    /// bound occurs: a member of weight w is accepted for exactly w of them. That is exact proportionality.
    #[test]
    fn picks_are_one_to_one(pool in pool(), random in any::<u128>(), edge in prop::option::of(0..CLASSES), off in 0..3u128) {
        let span = |c: usize| u128::from(pool.counts[c]) * u128::from(bound(c as u8));
        let total: u128 = (0..CLASSES).map(span).sum();
        // Anywhere, or where one class ends and the next begins.
        let random = edge.map_or(random, |c| ((0..=c).map(span).sum::<u128>() + off).saturating_sub(1));
        match pool.pick(random) {
            None => prop_assert!(total == 0 && pool.is_empty()),
            Some(pick) => {
                let class = usize::from(pick.class);
                prop_assert!(pick.index < pool.counts[class]);
                prop_assert!(pick.threshold.ppb() < bound(pick.class));
                let before: u128 = (0..class).map(span).sum();
                let number = before
                    + u128::from(pick.index) * u128::from(bound(pick.class))
                    + u128::from(pick.threshold.ppb());
                prop_assert_eq!(number, random % total);
            }
        }
    }

    #[test]
    fn a_walk_visits_every_member_once(
        counts in prop::collection::vec(prop_oneof![Just(0u32), 0..6u32], CLASSES),
        (class, index) in (0..CLASSES as u8, 0..8u32),
        limit in 0..200usize,
    ) {
        let pool = Pool { counts: counts.try_into().unwrap() };
        let walk = pool.walk(class, index, limit);
        prop_assert_eq!(walk.len(), limit.min(pool.len() as usize));
        prop_assert!(walk.iter().all(|(c, i)| *i < pool.counts[usize::from(*c)]));
        let mut seen = walk.clone();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), walk.len());
        if limit > 0 && index < pool.counts[usize::from(class)] {
            prop_assert_eq!(walk[0], (class, index));
        }
    }

    #[test]
    fn a_draw_weight_is_capped_stake_times_trust(stake in money(), cap in money(), trust in ratio()) {
        let cap = cap + 1;
        let w = weight(stake, cap, trust);
        prop_assert!(w <= trust);
        prop_assert_eq!(weight(cap, cap, trust), trust);
        prop_assert_eq!(weight(cap + stake, cap, trust), trust);
        prop_assert!(weight(stake + cap / 7, cap, trust) >= w);
    }
}

#[test]
fn the_lightest_and_the_heaviest_class() {
    assert_eq!(class_of(Ratio::ZERO), None);
    assert_eq!(class_of(Ratio::ONE), Some(0));
    assert_eq!(class_of(Ratio::from_permille(500)), Some(1));
    assert_eq!(class_of(Ratio::from_ppb(500_000_001)), Some(0));
    assert_eq!(class_of(Ratio::from_ppb(1)), Some(15));
    assert_eq!(Pool::default().pick(7), None);
    assert!(Pool::default().is_empty());
    assert_eq!(Pool::default().len(), 0);
    assert!(Pool::default().walk(3, 4, 10).is_empty());
    // A class that does not exist is where the walk wraps, not where it ends.
    assert_eq!(Pool { counts: [1; CLASSES] }.walk(200, 0, 1), vec![(0, 0)]);
}

fn blake2(bytes: &[u8]) -> [u8; 32] {
    use blake2::digest::consts::U32;
    use blake2::Digest;
    blake2::Blake2b::<U32>::digest(bytes).into()
}

/// Three members of three classes are drawn in proportion to their weights (chi-square of 30,000 draws of a fixed stream).
#[test]
fn draws_are_proportional_to_weights() {
    let weights = [Ratio::from_permille(1_000), Ratio::from_permille(300), Ratio::from_ppb(77_123_456)];
    let mut pool = Pool::default();
    for w in weights {
        pool.counts[usize::from(class_of(w).unwrap())] += 1;
    }
    let mut stream = Stream::new([7; 32]);
    let mut drawn = [0u32; 3];
    let total = 30_000;
    while drawn.iter().sum::<u32>() < total {
        let pick = pool.pick(stream.next(blake2)).unwrap();
        let member = weights.iter().position(|w| class_of(*w) == Some(pick.class)).unwrap();
        if weights[member] > pick.threshold {
            drawn[member] += 1;
        }
    }
    let sum: f64 = weights.iter().map(|w| f64::from(w.ppb())).sum();
    let chi_square: f64 = weights
        .iter()
        .zip(drawn)
        .map(|(w, n)| {
            let expected = f64::from(total) * f64::from(w.ppb()) / sum;
            (f64::from(n) - expected).powi(2) / expected
        })
        .sum();
    // Two degrees of freedom: above 13.8 once in a thousand streams, and this one is fixed.
    assert!(chi_square < 13.8, "{drawn:?}: chi-square {chi_square}");
}

#[test]
fn a_stream_numbers_its_blocks() {
    let mut stream = Stream::new([9; 32]);
    for i in 0u32..300 {
        let mut block = vec![9u8; 32];
        block.extend(i.to_le_bytes());
        let mut first = [0u8; 16];
        first.copy_from_slice(&blake2(&block)[..16]);
        assert_eq!(stream.next(blake2), u128::from_le_bytes(first));
    }
}

// ---- phases

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Inferring),
        Just(Phase::Drawing),
        Just(Phase::Scoring),
        Just(Phase::Revealing),
        Just(Phase::Auditing),
        Just(Phase::Settled),
        Just(Phase::Refunded),
    ]
}

prop_compose! {
    fn clock()(
        phase in phase(),
        deadline in 0..1u64 << 60,
        (draw_ms, reveal_ms) in (1_000..2_592_000_000u64, 1_000..2_592_000_000u64),
        audit_ms in prop_oneof![Just(0u64), 1..2_592_000_000u64],
        (outputs, delivered) in (1u8..=4, 0u8..=4),
        (panel, committed, revealed, mismatched) in (2u8..=15, 0u8..=15, 0u8..=15, 0u8..=15),
        quorum in 2u8..=15,
        redrawn in any::<bool>(),
        fixed_at_block in 0..u32::MAX,
    ) -> Clock {
        let committed = committed.min(panel);
        let revealed = revealed.min(committed);
        Clock {
            phase, deadline, draw_ms, reveal_ms, audit_ms, outputs,
            delivered: delivered.min(outputs),
            panel, committed, revealed,
            mismatched: mismatched.min(committed - revealed),
            quorum: quorum.min(panel),
            redrawn, fixed_at_block,
        }
    }
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Inferring => 0,
        Phase::Drawing => 1,
        Phase::Scoring => 2,
        Phase::Revealing => 3,
        Phase::Auditing => 4,
        Phase::Settled | Phase::Refunded => 5,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_state_is_stuck(clock in clock(), later in 0..1u64 << 60) {
        let past = clock.deadline + clock.draw_ms.max(clock.reveal_ms).max(clock.audit_ms) + 1;
        let step = clock.step(past + later, clock.fixed_at_block + 1);
        prop_assert!(!matches!(step, Step::Wait { .. } | Step::WaitForBlock), "{step:?}");
        prop_assert_eq!(step == Step::Done, clock.phase.is_final());
        // Not even in the same block for ever: once the deadline has passed a task leaves without a panel.
        let waits = matches!(clock.step(past + later, 0), Step::Wait { .. } | Step::WaitForBlock);
        prop_assert!(!waits);
    }

    #[test]
    fn phases_only_go_forward_in_time(clock in clock(), a in 0..1u64 << 61, b in 0..1u64 << 61) {
        let (before, after) = (clock.at(a.min(b)), clock.at(a.max(b)));
        prop_assert!(rank(before.0) <= rank(after.0));
        prop_assert!(before.1 <= after.1);
    }

    #[test]
    fn what_is_final_stays(clock in clock(), now in any::<u64>(), block in any::<u32>()) {
        for phase in [Phase::Settled, Phase::Refunded] {
            let clock = Clock { phase, ..clock };
            prop_assert!(phase.is_final());
            prop_assert_eq!(clock.step(now, block), Step::Done);
            prop_assert_eq!(clock.at(now), (phase, clock.deadline));
        }
    }

    #[test]
    fn a_wait_ends_when_it_says(clock in clock(), now in 0..1u64 << 61, block in any::<u32>()) {
        if let Step::Wait { until } = clock.step(now, block) {
            prop_assert!(until >= now);
            prop_assert_eq!(clock.step(until, block), Step::Wait { until });
            let next = clock.step(until + 1, block);
            prop_assert_ne!(next, Step::Wait { until });
        }
    }

    #[test]
    fn every_step_has_its_reason(clock in clock(), now in 0..1u64 << 61, block in any::<u32>()) {
        let (phase, deadline) = clock.at(now);
        let late = now > deadline;
        let answered = clock.revealed + clock.mismatched;
        match clock.step(now, block) {
            Step::Wait { until } => prop_assert!(!late && until == deadline && phase != Phase::Drawing),
            Step::WaitForBlock => prop_assert!(phase == Phase::Drawing && block <= clock.fixed_at_block),
            Step::Draw => prop_assert!(phase == Phase::Drawing && !late && block > clock.fixed_at_block
                && (clock.phase == Phase::Drawing || clock.delivered > 0)),
            Step::Settle if phase == Phase::Auditing => prop_assert!(late),
            Step::Settle => prop_assert!(phase == Phase::Revealing && clock.revealed >= clock.quorum
                && (late || answered >= clock.committed)),
            Step::Redraw => prop_assert!(!clock.redrawn),
            Step::RefundBelowQuorum => prop_assert!(clock.redrawn),
            Step::RefundUndelivered => prop_assert!(clock.phase == Phase::Inferring && clock.delivered == 0 && late),
            Step::RefundUndrawn => prop_assert!(phase == Phase::Drawing && late),
            Step::Done => prop_assert!(clock.phase.is_final()),
        }
        if matches!(clock.step(now, block), Step::Redraw | Step::RefundBelowQuorum) {
            prop_assert!(clock.revealed < clock.quorum);
            prop_assert!(late || (phase == Phase::Revealing && answered >= clock.committed));
            prop_assert!(phase == Phase::Revealing || (phase == Phase::Scoring && clock.committed < clock.quorum));
        }
    }

    /// The other direction: whoever has delivered, committed and revealed in time and number gets its settlement.
    #[test]
    fn a_quorum_of_reveals_settles(clock in clock(), late in 1..1_000_000u64) {
        let clock = Clock { phase: Phase::Revealing, revealed: clock.quorum, committed: clock.panel, mismatched: 0, ..clock };
        let audited = Clock { audit_ms: clock.audit_ms.max(1), ..clock };
        let until = clock.deadline + audited.audit_ms;
        prop_assert_eq!(audited.at(clock.deadline + late), (Phase::Auditing, until));
        prop_assert_eq!(audited.step(until + 1, 0), Step::Settle);
        prop_assert!(audited.can_audit(clock.deadline + late, 0));
        let clock = Clock { audit_ms: 0, ..clock };
        prop_assert_eq!(clock.step(clock.deadline + late, 0), Step::Settle);
        let all = Clock { revealed: clock.panel, ..clock };
        prop_assert_eq!(all.step(0, 0), Step::Settle);
        let scoring = Clock { phase: Phase::Scoring, committed: clock.quorum, ..clock };
        prop_assert_eq!(scoring.at(clock.deadline), (Phase::Scoring, clock.deadline));
        prop_assert_eq!(scoring.at(clock.deadline + 1), (Phase::Revealing, clock.deadline + clock.reveal_ms));
    }
}

#[test]
fn the_steps_of_a_task() {
    let clock = Clock {
        phase: Phase::Inferring,
        deadline: 1_000,
        draw_ms: 100,
        reveal_ms: 50,
        audit_ms: 0,
        outputs: 2,
        delivered: 0,
        panel: 5,
        committed: 0,
        revealed: 0,
        mismatched: 0,
        quorum: 3,
        redrawn: false,
        fixed_at_block: 7,
    };
    let in_phase = |phase| Clock { phase, ..clock };
    // Inferring.
    assert_eq!(clock.step(1_000, 9), Step::Wait { until: 1_000 });
    assert_eq!(clock.step(1_001, 9), Step::RefundUndelivered);
    let one = Clock { delivered: 1, ..clock };
    assert_eq!(one.step(1_000, 9), Step::Wait { until: 1_000 });
    assert_eq!(one.at(1_001), (Phase::Drawing, 1_100));
    assert_eq!(one.step(1_001, 7), Step::WaitForBlock);
    assert_eq!(one.step(1_001, 8), Step::Draw);
    assert_eq!(one.step(1_101, 8), Step::RefundUndrawn);
    // Drawing.
    assert_eq!(in_phase(Phase::Drawing).step(1_000, 7), Step::WaitForBlock);
    assert_eq!(in_phase(Phase::Drawing).step(1_000, 8), Step::Draw);
    assert_eq!(in_phase(Phase::Drawing).step(1_001, 8), Step::RefundUndrawn);
    // Scoring.
    let scoring = Clock { committed: 2, ..in_phase(Phase::Scoring) };
    assert_eq!(scoring.step(1_000, 0), Step::Wait { until: 1_000 });
    assert_eq!(scoring.step(1_001, 0), Step::Redraw);
    assert_eq!(Clock { redrawn: true, ..scoring }.step(1_001, 0), Step::RefundBelowQuorum);
    let enough = Clock { committed: 3, ..scoring };
    assert_eq!(enough.step(1_001, 0), Step::Wait { until: 1_050 });
    assert_eq!(enough.step(1_051, 0), Step::Redraw);
    assert_eq!(Clock { revealed: 3, ..enough }.step(1_001, 0), Step::Settle);
    // Revealing.
    let revealing = Clock { committed: 5, revealed: 3, mismatched: 1, ..in_phase(Phase::Revealing) };
    assert_eq!(revealing.step(1_000, 0), Step::Wait { until: 1_000 });
    assert_eq!(revealing.step(1_001, 0), Step::Settle);
    assert_eq!(Clock { mismatched: 2, ..revealing }.step(5, 0), Step::Settle);
    assert_eq!(Clock { revealed: 2, mismatched: 3, ..revealing }.step(5, 0), Step::Redraw);
    assert_eq!(
        Clock { revealed: 2, mismatched: 3, redrawn: true, ..revealing }.step(5, 0),
        Step::RefundBelowQuorum
    );
    // Auditing: from the last reveal, or from the deadline with a quorum; not below a quorum.
    let audited = Clock { audit_ms: 30, ..revealing };
    assert_eq!(audited.after_reveal(900), (Phase::Revealing, 1_000));
    let last = Clock { mismatched: 2, ..audited };
    assert_eq!(last.after_reveal(900), (Phase::Auditing, 930));
    assert_eq!(Clock { revealed: 2, mismatched: 3, ..audited }.after_reveal(900), (Phase::Revealing, 1_000));
    assert_eq!(Clock { audit_ms: 0, ..last }.after_reveal(900), (Phase::Revealing, 1_000));
    assert!(!audited.can_audit(1_000, 0));
    assert_eq!(audited.at(1_001), (Phase::Auditing, 1_030));
    assert_eq!(audited.step(1_030, 0), Step::Wait { until: 1_030 });
    assert!(audited.can_audit(1_030, 0));
    assert_eq!(audited.step(1_031, 0), Step::Settle);
    assert!(audited.can_audit(1_031, 0));
    let auditing = Clock { phase: Phase::Auditing, deadline: 930, ..last };
    assert_eq!(auditing.step(930, 0), Step::Wait { until: 930 });
    assert_eq!(auditing.step(931, 0), Step::Settle);
    // Final.
    assert_eq!(in_phase(Phase::Settled).step(u64::MAX, u32::MAX), Step::Done);
    assert_eq!(in_phase(Phase::Refunded).step(0, 0), Step::Done);
    assert!(!Phase::Revealing.is_final());
}

// ---- commitments

type Opening = ([u8; 32], u64, u32, Vec<Score>, [u8; 32], [u8; 32]);

/// Two openings that agree in some of their parts.
fn openings() -> impl Strategy<Value = (Opening, Opening)> {
    let hash = || prop_oneof![Just([0u8; 32]), Just([1u8; 32]), any::<[u8; 32]>()];
    let opening = move || {
        (
            hash(),
            1..4u64,
            1..4u32,
            prop::collection::vec(prop_oneof![Just(Score::UNAVAILABLE), score()], 0..=4),
            hash(),
            hash(),
        )
    };
    (opening(), opening(), any::<[bool; 6]>()).prop_map(|(a, b, same)| {
        let mut b = b;
        if same[0] {
            b.0 = a.0;
        }
        if same[1] {
            b.1 = a.1;
        }
        if same[2] {
            b.2 = a.2;
        }
        if same[3] {
            b.3.clone_from(&a.3);
        }
        if same[4] {
            b.4 = a.4;
        }
        if same[5] {
            b.5 = a.5;
        }
        (a, b)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_commitment_binds_everything((a, b) in openings()) {
        let scores = |o: &Opening| commitment::scores(&o.0, o.1, o.2, &o.3, &o.4, &o.5);
        prop_assert_eq!(scores(&a) == scores(&b), a == b);
        let output = |o: &Opening| commitment::output(&o.0, o.1, o.2, &o.4, &o.5);
        prop_assert_eq!(output(&a) == output(&b), (a.0, a.1, a.2, a.4, a.5) == (b.0, b.1, b.2, b.4, b.5));
        let reference = |o: &Opening| commitment::reference(&o.0, &o.4, &o.5, &o.0);
        prop_assert_eq!(reference(&a) == reference(&b), (a.0, a.4, a.5) == (b.0, b.4, b.5));
        for purpose in [commitment::Purpose::Output, commitment::Purpose::Scores] {
            let salt = |o: &Opening| commitment::salt(&o.4, &o.0, o.1, o.2, purpose);
            prop_assert_eq!(salt(&a) == salt(&b), (a.0, a.1, a.2, a.4) == (b.0, b.1, b.2, b.4));
        }
        // No two kinds of commitment have a preimage in common, whatever they commit to.
        let salt = |purpose| commitment::salt(&b.4, &b.0, b.1, b.2, purpose);
        let all = [
            scores(&a),
            output(&b),
            reference(&b),
            salt(commitment::Purpose::Output),
            salt(commitment::Purpose::Scores),
        ];
        for (i, x) in all.iter().enumerate() {
            for y in &all[..i] {
                prop_assert_ne!(x, y);
            }
        }
    }
}
