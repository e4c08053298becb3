//! Invariants that the arithmetic alone can show, for arbitrary valid parameters and arbitrary inputs.
//!
//! What needs a population of evaluators over time is in `population.rs`, exact numbers are in `vectors.rs`.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

mod common;

use common::*;
use parity_scale_codec::{Decode, DecodeAll, Encode};
use poq_core::aggregate::{aggregate, median, Weighted};
use poq_core::cost::inference_cost;
use poq_core::formulas::settlement::{audit, has_no_input, Answer, AuditInput, Conduct, Ending, TrustState};
use poq_core::merit::{self, Comparison, RingEntry};
use poq_core::params::{KEEPER_STEPS, UNIT};
use poq_core::task::penalties::{evaluator_penalty, inference_penalty};
use poq_core::task::{Clock, Phase, Step};
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

/// What a member of the panel says of the outputs; nothing where it says that there was no input.
fn said(conduct: &Conduct) -> Option<&Vec<Score>> {
    match conduct {
        Conduct::Revealed(scores) if !has_no_input(scores) => Some(scores),
        _ => None,
    }
}

fn inference_slot(params: &KindParams, input: &SettlementInput) -> u128 {
    params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap().inference_slot
}

fn scoring(input: &SettlementInput) -> usize {
    input.panel.iter().filter(|e| said(&e.conduct).is_some()).count()
}

/// A task whose panel says something of it: with a quorum that had the input.
fn scored() -> impl Strategy<Value = (KindParams, SettlementInput)> {
    case().prop_map(|(params, mut input)| {
        let outputs = input.outputs.len();
        for evaluator in &mut input.panel {
            let scores = said(&evaluator.conduct).cloned();
            evaluator.conduct = match scores {
                None if evaluator.conduct == Conduct::Vacant || has_no_inputs(&evaluator.conduct) => {
                    Conduct::Revealed(vec![Score::of(Ratio::from_permille(400)); outputs])
                }
                None => evaluator.conduct.clone(),
                Some(scores) => Conduct::Revealed(scores),
            };
        }
        // The others fill up the quorum.
        let quorum = usize::from(params.quorum_of(input.panel.len() as u8));
        for evaluator in input.panel.iter_mut().take(quorum) {
            if said(&evaluator.conduct).is_none() {
                evaluator.conduct = Conduct::Revealed(vec![Score::of(Ratio::from_permille(300)); outputs]);
            }
        }
        (params, input)
    })
}

fn has_no_inputs(conduct: &Conduct) -> bool {
    matches!(conduct, Conduct::Revealed(scores) if has_no_input(scores))
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Consensus),
        1 => Just(Ending::Undelivered),
        1 => Just(Ending::Unopened),
        1 => Just(Ending::NoSecret),
        1 => Just(Ending::NoPanel),
        1 => Just(Ending::BelowQuorum),
    ]
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
        prop_assert_eq!(score.is_ok(), raw <= ONE || raw >= u32::MAX - 1);
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
            let whole = split.protocol_fee + split.keepers + slots;
            prop_assert_eq!(split.keepers, params.keeper_fee * u128::from(KEEPER_STEPS));
            prop_assert!(whole <= fee && fee <= params.fee_max);
            // What is left over is rounding: less than one unit per slot.
            prop_assert!(fee - whole < u128::from(n) + u128::from(k));
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
                prop_assert_eq!(params.split(fee, n, k).is_some(), (least..=params.fee_max).contains(&fee));
            }
            None => prop_assert!(params.split(fee, n, k).is_none() && params.split(params.fee_max, n, k).is_none()),
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
    assert!(params.split(params.fee_max, 0, 5).is_none());
    assert!(params.split(params.fee_max, 1, 0).is_none());
    assert!(params.split(params.fee_max, 1, 5).is_some());
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
        (ParamsError::Stake, |p| p.stake_min = 0),
        (ParamsError::Stake, |p| p.stake_cap = p.stake_min * 2_000),
        (ParamsError::AtRisk, |p| p.inference_risk = 3),
        (ParamsError::AtRisk, |p| p.evaluator_risk = 10),
        (ParamsError::AtRisk, |p| p.fee_max *= 2),
        (ParamsError::Penalties, |p| p.unrevealed_penalty = Ratio::from_permille(199)),
        (ParamsError::Penalties, |p| p.outlier_penalty = Ratio::from_permille(201)),
        (ParamsError::Penalties, |p| p.bad_penalty = Ratio::from_permille(201)),
        (ParamsError::Penalties, |p| p.decline_penalty = Ratio::from_permille(201)),
        // Three others at half a slot each, and two slots at risk.
        (ParamsError::Penalties, |p| p.unrevealed_penalty = Ratio::from_permille(749)),
        (ParamsError::Penalties, |p| p.delivery_share = Ratio::from_permille(667)),
        (ParamsError::Penalties, |p| p.inference_risk = 1),
        (ParamsError::Penalties, |p| {
            (p.missed_penalty, p.outlier_penalty) = (Ratio::ONE, Ratio::from_permille(501))
        }),
        (ParamsError::KeeperFee, |p| p.keeper_fee *= 3),
        (ParamsError::KeeperFee, |p| p.decline_penalty = Ratio::from_permille(4)),
        (ParamsError::KeeperFee, |p| (p.inference_slot_min, p.keeper_fee) = (UNIT / 50, UNIT / 100)),
        (ParamsError::Bounds, |p| p.quality_floor = Ratio::ZERO),
        (ParamsError::Bounds, |p| p.ring_burn = 0),
        (ParamsError::Bounds, |p| p.fee_max = p.fee_min(4, 15).unwrap() - 1),
        (ParamsError::Deadlines, |p| p.inference_ms = 29_999),
        (ParamsError::Deadlines, |p| p.draw_ms = 0),
        (ParamsError::Deadlines, |p| p.commit_ms = 86_400_001),
        (ParamsError::Deadlines, |p| p.reveal_ms = 86_400_000),
        (ParamsError::Deadlines, |p| p.draw_ms = 43_200_000),
        (ParamsError::Deadlines, |p| p.audit_ms = 2_592_000_001),
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

    /// However a task ends.
    #[test]
    fn every_unit_of_the_fee_goes_somewhere((params, input) in case(), ending in ending(), keepers in ratio()) {
        let split = params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap();
        let input = SettlementInput { ending, keepers: keepers.of(split.keepers), ..input };
        let s = settle(&params, &input).expect("the fee fills the slots");
        let to_nodes: u128 =
            s.outputs.iter().map(|o| o.payout).chain(s.panel.iter().map(|e| e.payout)).sum();
        prop_assert_eq!(to_nodes + input.keepers + s.treasury + s.burned + s.refund, input.fee);
        prop_assert_eq!(ending == Ending::Consensus || ending == s.ending, true);
        prop_assert_eq!(split.protocol_fee, params.protocol_fee.of(input.fee));
        let at_risk = params.evaluator_at_risk(split.evaluator_slot);
        for o in &s.outputs {
            prop_assert!(o.payout <= split.inference_slot);
            prop_assert!(o.slashed <= params.inference_at_risk(split.inference_slot));
        }
        for e in &s.panel {
            prop_assert!(e.payout <= split.evaluator_slot);
            prop_assert!(e.slashed <= at_risk);
            prop_assert!(e.payout == 0 || e.slashed == 0);
        }
        let slashed: u128 = s.outputs.iter().map(|o| o.slashed).chain(s.panel.iter().map(|e| e.slashed)).sum();
        prop_assert_eq!(s.slashed, slashed);
        // Nobody profits from a failure: evaluators' slots go back only where there were no evaluators, or nothing to score.
        let delivered = input.outputs.iter().any(|o| matches!(o.answer, Answer::Delivered { .. }));
        let divided = split.protocol_fee + split.keepers
            + split.inference_slot * s.outputs.len() as u128 + split.evaluator_slot * s.panel.len() as u128;
        let rounding = input.fee - divided;
        match s.ending {
            Ending::Consensus => {
                let paid: u128 = s.outputs.iter().map(|o| o.payout).sum();
                let most = split.inference_slot * s.outputs.len() as u128 - paid + rounding;
                prop_assert!(s.refund <= most);
                prop_assert!(input.early || s.refund == most);
            }
            Ending::Undelivered | Ending::Unopened | Ending::NoSecret if !delivered => {
                prop_assert_eq!(s.refund, input.fee - split.keepers)
            }
            Ending::NoPanel => {
                prop_assert_eq!(s.refund, split.evaluator_slot * s.panel.len() as u128 + rounding)
            }
            _ => prop_assert_eq!(s.refund, rounding),
        }
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
            prop_assert!(e.net >= -params.evaluator_weights.beta.signed() && e.net <= params.evaluator_weights.alpha.signed());
            prop_assert!(e.gain.unwrap_or(0).abs() <= billion);
        }
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
                if !has_no_input(scores) {
                    scores[at] = Score::from(scores[at].quality().map(|q| q.saturating_add(up)));
                }
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
        if let Answer::Delivered { latency_ms } = &mut costly.outputs[at].answer {
            *latency_ms = latency_ms.saturating_add(late);
        }
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
        later.panel[at].latency_ms += late;
        let after = settle(&params, &later).unwrap();
        prop_assert!(after.panel[at].payout <= before.panel[at].payout);
        prop_assert!(after.panel[at].slashed >= before.panel[at].slashed);
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
        let s = settle(&params, &input).unwrap();
        let slot = params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap().evaluator_slot;
        let at_risk = params.evaluator_at_risk(slot);
        let unrevealed = params.unrevealed_penalty.of(at_risk);
        let missed = params.missed_penalty.of(at_risk);
        for (e, settled) in input.panel.iter().zip(&s.panel) {
            match e.conduct {
                Conduct::Vacant | Conduct::Waited => prop_assert_eq!((settled.payout, settled.slashed), (0, 0)),
                Conduct::Missed => prop_assert_eq!((settled.payout, settled.slashed), (0, missed)),
                Conduct::Unrevealed => prop_assert_eq!((settled.payout, settled.slashed), (0, unrevealed)),
                // Nor does an answer cost more than none, an outlier's neither.
                Conduct::Revealed(_) => prop_assert!(settled.slashed <= missed && missed <= unrevealed),
            }
            if !matches!(e.conduct, Conduct::Revealed(_)) {
                prop_assert_eq!((settled.gain, settled.merit, settled.net), (None, Ratio::ZERO, 0));
                prop_assert_eq!(settled.slashed, evaluator_penalty(&params, slot, &e.conduct));
            }
        }
    }

    /// Whoever is further from two others or more than the bound, with no tolerance, is paid nothing and slashed, by what its net
    /// reward costs anyway if that is more; the others get what their net reward comes to.
    #[test]
    fn outliers_are_slashed_and_the_others_are_not((params, input) in scored()) {
        let s = settle(&params, &input).unwrap();
        prop_assert_eq!(s.ending, Ending::Consensus);
        let slot = params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap().evaluator_slot;
        let at_risk = params.evaluator_at_risk(slot);
        let score = |m: usize, f: usize| said(&input.panel[m].conduct)?[f].quality();
        for (m, settled) in s.panel.iter().enumerate() {
            let compared = |least: usize| -> Vec<Comparison> {
                (0..input.outputs.len()).filter(|f| s.outputs[*f].quality.is_some()).filter_map(|f| {
                    let others: Vec<Weighted> = (0..input.panel.len()).filter(|o| *o != m).filter_map(|o| {
                        Some(Weighted { score: score(o, f)?, trust: input.panel[o].trust })
                    }).collect();
                    let own = score(m, f)?;
                    (others.len() >= least).then_some(())?;
                    Some(Comparison { own, others: aggregate(params.aggregation, &others)? })
                }).collect()
            };
            let d = merit::deviation(&compared(1), params.tolerance);
            prop_assert_eq!(settled.deviation, d.tolerated);
            if d.outputs == 0 {
                prop_assert_eq!(settled.payout, 0);
                continue;
            }
            let missed = params.missed_penalty.of(at_risk);
            let money = params.evaluator_weights.outcome(settled.net, slot, missed);
            if merit::deviation(&compared(2), params.tolerance).raw > params.outlier_bound {
                let outlier = params.outlier_penalty.of(at_risk);
                prop_assert_eq!((settled.payout, settled.slashed), (0, outlier.max(money.penalty)));
            } else {
                prop_assert_eq!((settled.payout, settled.slashed), (money.payout, money.penalty));
            }
        }
    }

    #[test]
    fn an_output_counts_where_more_than_half_of_the_scoring_panel_had_it((params, input) in scored()) {
        let s = settle(&params, &input).unwrap();
        let answers: Vec<Answer> = input.outputs.iter().map(|o| o.answer).collect();
        let slot = inference_slot(&params, &input);
        for (at, (output, settled)) in input.outputs.iter().zip(&s.outputs).enumerate() {
            let scores: Vec<Weighted> = input.panel.iter().filter_map(|e| {
                Some(Weighted { score: said(&e.conduct)?[at].quality()?, trust: e.trust })
            }).collect();
            let delivered = matches!(output.answer, Answer::Delivered { .. });
            let counts = delivered && scores.len() * 2 > scoring(&input);
            prop_assert_eq!(settled.quality, if counts { aggregate(params.aggregation, &scores) } else { None });
            if !counts {
                let owed = if delivered {
                    params.missed_penalty.of(params.inference_at_risk(slot))
                } else {
                    inference_penalty(&params, slot, &answers, output.answer)
                };
                prop_assert_eq!((settled.payout, settled.slashed), (0, owed));
            }
        }
    }

    /// Abstaining instead of answering never raises the merit: under closeness whatever the answer, under information unless
    /// the answer would have been worse than knowing nothing.
    #[test]
    fn abstaining_never_raises_the_merit((params, mut input) in case(), which in any::<Index>(), output in any::<Index>()) {
        let at = which.index(input.panel.len());
        let f = output.index(input.outputs.len());
        // Everything else available, so that this one abstention changes no output's consensus into none.
        for output in &mut input.outputs {
            if !matches!(output.answer, Answer::Delivered { .. }) {
                output.answer = Answer::Delivered { latency_ms: 5_000 };
            }
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
                one.fee = params.fee_max;
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
            let slot = params.split(input.fee, 1, input.panel.len() as u8).unwrap().evaluator_slot;
            prop_assert_eq!(a.slashed, params.missed_penalty.of(params.evaluator_at_risk(slot)));
        }
    }

    #[test]
    fn what_nobody_could_get_costs_only_the_node((params, mut input) in scored()) {
        for evaluator in &mut input.panel {
            if let Conduct::Revealed(scores) = &mut evaluator.conduct {
                scores.fill(Score::UNAVAILABLE);
            }
        }
        let s = settle(&params, &input).unwrap();
        let slot = params.split(input.fee, input.outputs.len() as u8, input.panel.len() as u8).unwrap().evaluator_slot;
        prop_assert_eq!(s.consensus, None);
        for (e, settled) in input.panel.iter().zip(&s.panel) {
            prop_assert_eq!(settled.slashed, evaluator_penalty(&params, slot, &e.conduct));
            prop_assert_eq!(settled.payout, 0);
        }
        for (output, settled) in input.outputs.iter().zip(&s.outputs) {
            if matches!(output.answer, Answer::Delivered { .. }) {
                let risk = params.inference_at_risk(inference_slot(&params, &input));
                prop_assert_eq!(settled.slashed, params.missed_penalty.of(risk));
            }
        }
        prop_assert_eq!(s.reference, input.population.reference);
    }

    #[test]
    fn a_fee_that_does_not_fill_the_slots_is_not_settled((params, input) in case()) {
        let least = params.fee_min(input.outputs.len() as u8, input.panel.len() as u8).unwrap();
        let with = |fee| settle(&params, &SettlementInput { fee, ..input.clone() });
        prop_assert!(with(least).is_some());
        prop_assert!(with(least - 1).is_none());
    }

    /// An opening moves trust within its bounds, by the truth alone: what the order of the panel is does not matter, and who said
    /// nothing keeps what it had. Under the anchored rule the population's average follows those who know something.
    #[test]
    fn an_opening_moves_trust_alone(
        (params, input) in case(),
        truth in prop::collection::vec(prop::option::of(ratio()), 4),
        averages in prop::collection::vec(-i64::from(ONE)..=i64::from(ONE), 15),
    ) {
        let audit_input = AuditInput {
            truth: truth[..input.outputs.len()].to_vec(),
            scores: input.panel.iter().map(|e| said(&e.conduct).cloned()).collect(),
            panel: input.panel.iter().zip(&averages).map(|(e, average)| TrustState { trust: e.trust, gain_average: *average }).collect(),
            population: input.population.clone(),
        };
        let moved = audit(&params, &audit_input);
        prop_assert_eq!(moved.panel.len(), input.panel.len());
        for ((after, before), scores) in moved.panel.iter().zip(&audit_input.panel).zip(&audit_input.scores) {
            prop_assert!(after.trust <= Ratio::ONE && after.trust >= params.trust_floor);
            prop_assert!(after.gain_average.abs() <= i64::from(ONE));
            let judged = scores.as_ref().is_some_and(|scores| {
                scores.iter().zip(&audit_input.truth).any(|(score, truth)| score.quality().is_some() && truth.is_some())
            });
            if !judged {
                prop_assert_eq!(after, before);
            }
        }
        if !matches!(params.trust, TrustRule::RelativeMerit { .. }) {
            prop_assert!(moved.gain_average >= input.population.gain_average.min(0));
        }
        let reversed = AuditInput {
            scores: audit_input.scores.iter().rev().cloned().collect(),
            panel: audit_input.panel.iter().rev().copied().collect(),
            ..audit_input
        };
        let back: Vec<TrustState> = audit(&params, &reversed).panel.into_iter().rev().collect();
        prop_assert_eq!(back, moved.panel);
    }

    /// Fewer than half of the panel, whatever they say, cannot move a node's quality out of what the others say.
    #[test]
    fn a_minority_cannot_move_a_settled_median((params, input) in case(), lies in prop::collection::vec(ratio(), 7)) {
        let params = KindParams { aggregation: Aggregation::Median, ..params };
        let mut attacked = input.clone();
        let honest = input.panel.len() / 2 + 1;
        for evaluator in &mut attacked.panel {
            evaluator.conduct = match &evaluator.conduct {
                Conduct::Revealed(scores) if !has_no_input(scores) => Conduct::Revealed(
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
                let delivered = matches!(attacked.outputs[at].answer, Answer::Delivered { .. });
                prop_assert!(!delivered);
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
    fn merit_rises_with_the_gain_and_with_what_is_due(
        gain in -i64::from(ONE)..=i64::from(ONE), more in 0..1_000_000_000i64, reference in ratio_in(1..=ONE),
        slot in 1..1_000_000_000_000_000u128, due in -10_000_000_000_000_000i128..10_000_000_000_000_000,
        earned in 0..10_000_000_000_000_000i128,
    ) {
        let (m, after) = merit::spread(gain, reference, due, slot);
        let better = merit::spread(gain + more, reference, due, slot);
        let richer = merit::spread(gain, reference, due + earned, slot);
        prop_assert!(better.0 >= m && better.1 >= after && richer.0 >= m && richer.1 >= after);
        // A task earns two slots at most either way, and of what is due two slots at most go.
        let two = 2 * slot as i128;
        prop_assert!((after - due).abs() <= 2 * two);
        prop_assert!(m.of(slot) as i128 <= ((due + two) / 8).max(0));
    }

    /// However long and whatever it earns: sixteen of the largest slots are the most that can be due or held back.
    #[test]
    fn what_is_due_is_bounded(
        tasks in prop::collection::vec((-i64::from(ONE)..=i64::from(ONE), ratio_in(1..=ONE), 1..1_000_000_000_000u128), 1..200),
    ) {
        let most = 16 * tasks.iter().map(|(_, _, slot)| *slot as i128).max().unwrap();
        let mut due = 0i128;
        for (gain, reference, slot) in tasks {
            due = merit::spread(gain, reference, due, slot).1;
            prop_assert!((-most..=most).contains(&due), "{due} of {most}");
        }
    }

    /// What is due is money: who earns in tasks of the least slots is not paid by it in dear ones.
    #[test]
    fn cheap_tasks_earn_nothing_dear(
        cheap in prop::collection::vec(0..=i64::from(ONE), 1..100), dear in prop::collection::vec(-i64::from(ONE)..=0, 1..100),
    ) {
        let (mut due, mut paid) = (0, 0);
        let mut task = |gain: i64, slot: u128| {
            let (merit, after) = merit::spread(gain, Ratio::from_permille(100), due, slot);
            due = after;
            merit.of(slot)
        };
        for gain in &cheap {
            task(*gain, 1_000_000);
        }
        for gain in &dear {
            paid += task(*gain, 1_000_000_000);
        }
        prop_assert!(paid <= 16 * 1_000_000);
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

// ---- phases

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Inferring),
        Just(Phase::Drawing),
        Just(Phase::Scoring),
        Just(Phase::Revealing),
        Just(Phase::Settled),
        Just(Phase::Refunded),
    ]
}

prop_compose! {
    fn clock()(
        phase in phase(),
        deadline in (1u64 << 40)..1u64 << 60,
        (draw_ms, reveal_ms) in (30_000..86_400_000u64, 30_000..86_400_000u64),
        (outputs, delivered, declined, opened) in (1u8..=4, 0u8..=4, 0u8..=4, 0u8..=4),
        (panel, committed, revealed) in (2u8..=15, 0u8..=15, 0u8..=15),
        quorum in 2u8..=15,
        (short, filled) in any::<(bool, bool)>(),
    ) -> Clock {
        let committed = committed.min(panel);
        let delivered = delivered.min(outputs);
        Clock {
            phase, deadline, draw_ms, reveal_ms, outputs, delivered,
            declined: declined.min(outputs - delivered),
            opened: opened.min(delivered),
            committed,
            revealed: revealed.min(committed),
            quorum: quorum.min(panel),
            short, filled,
        }
    }
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Inferring => 0,
        Phase::Drawing => 1,
        Phase::Scoring => 2,
        Phase::Revealing => 3,
        Phase::Settled | Phase::Refunded => 4,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Past every deadline anybody can end a task: nothing but `Fill` comes back, and only once.
    #[test]
    fn no_state_is_stuck(clock in clock(), later in 0..1u64 << 60) {
        let past = clock.deadline + clock.draw_ms + clock.reveal_ms + 1 + later;
        let step = clock.step(past);
        prop_assert!(matches!(step, Step::Settle | Step::End(_) | Step::Done), "{step:?}");
        prop_assert_eq!(step == Step::Done, clock.phase.is_final());
    }

    #[test]
    fn phases_only_go_forward_in_time(clock in clock(), a in 0..1u64 << 61, b in 0..1u64 << 61) {
        let (before, after) = (clock.at(a.min(b)), clock.at(a.max(b)));
        prop_assert!(rank(before.0) <= rank(after.0));
        prop_assert!(before.1 <= after.1);
    }

    #[test]
    fn what_is_final_stays(clock in clock(), now in any::<u64>()) {
        for phase in [Phase::Settled, Phase::Refunded] {
            let clock = Clock { phase, ..clock };
            prop_assert!(phase.is_final());
            prop_assert_eq!(clock.step(now), Step::Done);
            prop_assert_eq!(clock.at(now), (phase, clock.deadline));
        }
    }

    #[test]
    fn a_wait_ends_when_it_says(clock in clock(), now in 0..1u64 << 61) {
        if let Step::Wait { until } | Step::Draw { until } = clock.step(now) {
            prop_assert!(until >= now);
            prop_assert_eq!(clock.step(until), clock.step(now));
            prop_assert_ne!(clock.step(until + 1), clock.step(now));
        }
    }

    #[test]
    fn every_step_has_its_reason(clock in clock(), now in 0..1u64 << 61) {
        let (phase, deadline) = clock.at(now);
        let late = now > deadline;
        let half = clock.half_time(deadline);
        match clock.step(now) {
            Step::Wait { until } => prop_assert!(!late && until == deadline && phase != Phase::Drawing),
            Step::Draw { until } => prop_assert!(phase == Phase::Drawing && now <= until
                && (until == half || clock.opened == clock.delivered)),
            Step::Fill => prop_assert!(phase == Phase::Scoring && late && !clock.filled && clock.committed < clock.quorum),
            Step::Settle => prop_assert!(phase == Phase::Revealing && clock.revealed >= clock.quorum
                && (late || clock.revealed >= clock.committed)),
            Step::End(Ending::Undelivered) => {
                prop_assert!(phase == Phase::Inferring && (late || clock.declined == clock.outputs))
            }
            Step::End(Ending::Unopened) => {
                prop_assert!(phase == Phase::Drawing && now > half && clock.opened < clock.delivered)
            }
            Step::End(Ending::NoSecret) => prop_assert!(phase == Phase::Drawing && late && !clock.short),
            Step::End(Ending::NoPanel) => prop_assert!(phase == Phase::Drawing && late && clock.short),
            Step::End(Ending::BelowQuorum) => prop_assert!(
                (phase == Phase::Scoring && late && clock.committed < clock.quorum)
                    || (phase == Phase::Revealing && clock.revealed < clock.quorum
                        && (late || clock.revealed >= clock.committed))
            ),
            Step::End(other) => prop_assert!(false, "{other:?} is the scores' to say"),
            Step::Done => prop_assert!(clock.phase.is_final()),
        }
    }

    /// The other direction: whoever has delivered, committed and revealed in time and number gets its settlement.
    #[test]
    fn a_quorum_of_reveals_settles(clock in clock(), late in 1..1_000_000u64) {
        let clock = Clock { phase: Phase::Revealing, revealed: clock.quorum, committed: 15, ..clock };
        prop_assert_eq!(clock.step(clock.deadline + late), Step::Settle);
        let all = Clock { revealed: 15, ..clock };
        prop_assert_eq!(all.step(0), Step::Settle);
        let scoring = Clock { phase: Phase::Scoring, committed: clock.quorum, ..clock };
        prop_assert_eq!(scoring.at(clock.deadline), (Phase::Scoring, clock.deadline));
        prop_assert_eq!(scoring.at(clock.deadline + 1), (Phase::Revealing, clock.deadline + clock.reveal_ms));
    }

    /// A keeper's fee is nothing when a step falls due and never falls while it waits.
    #[test]
    fn a_keepers_fee_rises(clock in clock(), fee in 0..1u128 << 90, now in 0..1u64 << 61, more in 0..1u64 << 40) {
        let paid = clock.keeper_fee(fee, now);
        prop_assert!(paid <= fee);
        if matches!(clock.step(now), Step::Wait { .. } | Step::Done) {
            prop_assert_eq!(paid, 0);
        }
        if clock.step(now) == clock.step(now + more) {
            prop_assert!(clock.keeper_fee(fee, now + more) >= paid);
        }
        let due = clock.due_since(now);
        let drawing = matches!(clock.step(now), Step::Draw { .. });
        prop_assert!(due <= now || drawing);
    }
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
        let secret = |o: &Opening| commitment::secret(&o.0, &o.4, &o.5);
        prop_assert_eq!(secret(&a) == secret(&b), (a.0, a.4, a.5) == (b.0, b.4, b.5));
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
            secret(&b),
            commitment::request_secret(&b.0, &b.4, &b.5),
            commitment::network(&b.0, &b.4),
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
