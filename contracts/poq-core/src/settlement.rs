//! A whole task's settlement: from what the chain knows of it to what everybody gets, conserved to the last unit.
//!
//! Σ payouts + protocol fee + forfeited + refund = fee. Everything rounds down and the remainder is the requester's. What is
//! taken from stakes goes to the treasury, never to another node: that would pay for griefing.
//!
//! A *gold task* is one whose requester had committed to a reference answer, and opened it after the scores were revealed.
//! Evaluators are then compared with the truth (token F1 of reference and output, [`crate::text`]) instead of with each other:
//! scores alone cannot tell an informed majority from colluders who share a number per task. An opening moves merit and trust,
//! never stake, and nothing of what inference nodes get.

use crate::aggregate::{aggregate, median, Weighted};
use crate::cost::inference_cost;
use crate::merit::{self, Comparison, Deviation, RingEntry};
use crate::params::{KindParams, MeritRule, TrustRule};
use crate::trust;
use crate::units::{Balance, Millis, Ratio, Score, Signed};
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// One drawn inference node, as the chain saw it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OutputInput {
    /// From assignment to commitment by block timestamps; `None` where it never committed.
    pub latency_ms: Option<Millis>,
    /// The price it asked for when it was drawn.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub price: Balance,
}

/// What an evaluator did.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Conduct {
    /// It never committed.
    Missed,
    /// It committed, and did not reveal or revealed something else.
    Unrevealed,
    /// It revealed what it had committed to: one score per output.
    Revealed(Vec<Score>),
}

/// One drawn evaluator, as the chain saw it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EvaluatorInput {
    /// What it did.
    pub conduct: Conduct,
    /// When it committed, as a block timestamp; 0 where it never did.
    pub committed_at: Millis,
    /// Its trust before this settlement.
    pub trust: Ratio,
    /// Its moving average of information gains before this settlement, in signed parts per billion; 0 for one that never
    /// had a gain ([`trust::starting_average`] says what it starts from).
    pub gain_average: Signed,
}

/// What a kind remembers between its tasks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Population {
    /// The consensus of the tasks settled last; entries with a time of zero were never written.
    pub ring: Vec<RingEntry>,
    /// x_ref: follows the median information gain.
    pub reference: Ratio,
    /// The population's moving average of information gains, in signed parts per billion; 0 before the first positive one.
    pub gain_average: Signed,
}

/// Everything that a settlement depends on, besides the kind's parameters.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SettlementInput {
    /// What the requester paid.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub fee: Balance,
    /// When the panel was drawn.
    pub drawn_at: Millis,
    /// The inference nodes in the order of their draw.
    pub outputs: Vec<OutputInput>,
    /// The evaluators in the order of their draw.
    pub panel: Vec<EvaluatorInput>,
    /// What the kind remembers.
    pub population: Population,
    /// Of a gold task whose reference was opened: the truth of each output, in the outputs' order, `None` for an output that
    /// the auditor did not open. Evaluators are then compared with the truth instead of with each other.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub truth: Option<Vec<Option<Ratio>>>,
}

/// What an inference node got, with every number of its formula.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OutputSettlement {
    /// Q: the consensus; `None` where the output was not delivered or no more than half of those who revealed had it.
    pub quality: Option<Ratio>,
    /// C.
    pub cost: Ratio,
    /// R = α·Q − β·C in signed parts per billion.
    pub net: Signed,
    /// Out of the fee.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub payout: Balance,
    /// Out of the stake at risk, to the treasury.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub slashed: Balance,
}

/// What an evaluator got, with every number of its formula.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EvaluatorSettlement {
    /// The mean deviation from the others, the tolerance taken off.
    pub deviation: Ratio,
    /// The information gain in signed parts per billion, an output that it abstained on counting as zero; `None` where
    /// there was nothing to compare with.
    pub gain: Option<Signed>,
    /// a: the merit by the kind's rule.
    pub merit: Ratio,
    /// C.
    pub cost: Ratio,
    /// R = α·a − β·C in signed parts per billion.
    pub net: Signed,
    /// Out of the fee.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub payout: Balance,
    /// Out of the stake at risk, to the treasury.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub slashed: Balance,
    /// Its trust after this settlement.
    pub trust: Ratio,
    /// Its moving average of information gains after this settlement.
    pub gain_average: Signed,
}

/// What everybody gets.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Settlement {
    /// Per inference node, in the input's order.
    pub outputs: Vec<OutputSettlement>,
    /// Per evaluator, in the input's order.
    pub panel: Vec<EvaluatorSettlement>,
    /// To the treasury, out of the fee.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub protocol_fee: Balance,
    /// To the treasury, out of stakes.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub slashed: Balance,
    /// To the treasury, out of the fee of a gold task: what the evaluators did not earn of their slots. An auditor, who asked
    /// for the task, must not get back what its opening keeps from others. Zero in every other task.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::units::decimal"))]
    pub forfeited: Balance,
    /// Back to the requester.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub refund: Balance,
    /// The consensus of the first output, in the order of the draw, that has one: the kind's next ring entry. `None` where
    /// no output has one.
    pub consensus: Option<Ratio>,
    /// The kind's next x_ref.
    pub reference: Ratio,
    /// The kind's next average gain.
    pub gain_average: Signed,
}

/// Settles a task whose panel reached its quorum.
///
/// `None` where the fee does not fill the least slots, which a request has checked, or where the payouts would exceed it,
/// which the properties show cannot be.
#[allow(clippy::arithmetic_side_effects)] // counts of at most MAX_PANEL and sums of bounded numbers, see below
pub fn settle(params: &KindParams, input: &SettlementInput) -> Option<Settlement> {
    let split = params.split(
        input.fee,
        u8::try_from(input.outputs.len()).ok()?,
        u8::try_from(input.panel.len()).ok()?,
    )?;
    let mut paid: Balance = 0;
    let mut slashed: Balance = 0;

    // What each output's panel says: scores with the evaluator's place.
    let revealed = input.panel.iter().filter(|e| matches!(e.conduct, Conduct::Revealed(_))).count();
    let scores: Vec<Vec<(usize, Weighted)>> =
        (0..input.outputs.len()).map(|output| scores_of(&input.panel, output)).collect();
    let qualities: Vec<Option<Ratio>> = input
        .outputs
        .iter()
        .zip(&scores)
        .map(|(output, scores)| {
            // Most of those who revealed must have had the output.
            if output.latency_ms.is_none() || scores.len() * 2 <= revealed {
                return None;
            }
            let weighted: Vec<Weighted> = scores.iter().map(|(_, w)| *w).collect();
            aggregate(params.aggregation, &weighted)
        })
        .collect();

    let mut outputs = Vec::with_capacity(input.outputs.len());
    for (output, quality) in input.outputs.iter().zip(&qualities) {
        let settled = match (quality, output.latency_ms) {
            (Some(quality), Some(latency_ms)) => {
                let cost = inference_cost(
                    latency_ms,
                    &params.inference_latency,
                    params.latency_weight,
                    output.price,
                    params.price_cap,
                    params.price_weight,
                );
                let net = params.inference_weights.net(*quality, cost);
                let money =
                    params.inference_weights.outcome(net, split.inference_slot, params.inference_at_risk);
                OutputSettlement {
                    quality: Some(*quality),
                    cost,
                    net,
                    payout: money.payout,
                    slashed: money.penalty,
                }
            }
            _ => OutputSettlement {
                slashed: params.missed_penalty.of(params.inference_at_risk),
                ..OutputSettlement::default()
            },
        };
        paid = paid.checked_add(settled.payout)?;
        slashed = slashed.checked_add(settled.slashed)?;
        outputs.push(settled);
    }

    // Compare every evaluator with the others, on the outputs that have a consensus; in a gold task with the truth, on those
    // of them that were opened.
    let gold = input.truth.is_some();
    let yardsticks: Vec<Option<Yardstick>> = qualities
        .iter()
        .enumerate()
        .map(|(output, quality)| match &input.truth {
            _ if quality.is_none() => None,
            None => Some(Yardstick::Others),
            Some(truth) => truth.get(output).copied().flatten().map(Yardstick::Truth),
        })
        .collect();
    let available = yardsticks.iter().flatten().count();
    let comparisons: Vec<Vec<Comparison>> =
        (0..input.panel.len()).map(|evaluator| compare(params, &yardsticks, &scores, evaluator)).collect();
    let deviations: Vec<Deviation> =
        comparisons.iter().map(|c| merit::deviation(c, params.tolerance)).collect();
    let compared: Vec<Ratio> = deviations.iter().filter(|d| d.outputs > 0).map(|d| d.tolerated).collect();
    let median_deviation = median(&compared).unwrap_or_default();

    // Gains come before everything that they move, so that nobody's outcome depends on its place in the panel.
    let gains: Vec<Option<Signed>> = comparisons
        .iter()
        .map(|comparisons| {
            let gain = merit::information_gain(comparisons, params.tolerance, &input.population.ring)?;
            over_available(gain, comparisons.len(), available)
        })
        .collect();
    // Against the consensus the majority is the population. Against a truth it may be wrong: then those are the standard who know
    // something of it, or liars in the majority would pull the standard below zero and keep their trust.
    let informed = matches!(params.trust, TrustRule::Anchored { .. });
    let round = mean_gain(gains.iter().flatten().copied().filter(|gain| !informed || *gain > 0));
    // What evaluators are relative to: the population before this task; in a kind's first task, the task's own mean.
    let standard = match input.population.gain_average {
        0 => round.unwrap_or(0),
        average => average,
    };

    let mut panel = Vec::with_capacity(input.panel.len());
    let mut forfeited: Balance = 0;
    for (place, (((evaluator, comparisons), deviation), gain)) in
        input.panel.iter().zip(&comparisons).zip(&deviations).zip(&gains).enumerate()
    {
        let mut settled = EvaluatorSettlement {
            deviation: deviation.tolerated,
            gain: *gain,
            trust: evaluator.trust,
            gain_average: evaluator.gain_average,
            ..EvaluatorSettlement::default()
        };
        let missed = params.missed_penalty.of(params.evaluator_at_risk);
        match &evaluator.conduct {
            Conduct::Missed => settled.slashed = missed,
            Conduct::Unrevealed => settled.slashed = params.unrevealed_penalty.of(params.evaluator_at_risk),
            // Nothing to be compared on: no output could be had, nobody else revealed, or the auditor opened none of those that
            // it scored. Only who abstained on every output that the others could get has missed its duty.
            Conduct::Revealed(_) if comparisons.is_empty() => {
                let abstained = qualities
                    .iter()
                    .zip(&scores)
                    .filter(|(quality, _)| quality.is_some())
                    .all(|(_, scores)| scores.iter().all(|(at, _)| *at != place));
                if abstained && qualities.iter().any(Option::is_some) {
                    settled.slashed = missed;
                }
            }
            Conduct::Revealed(_) => {
                // Abstaining on some outputs earns in proportion to the others.
                let answered = Ratio::from_fraction(comparisons.len() as u128, available as u128);
                settled.merit = merit_of(params, deviation, *gain, answered, input.population.reference);
                settled.cost =
                    params.evaluator_latency.cost(evaluator.committed_at.saturating_sub(input.drawn_at));
                settled.net = params.evaluator_weights.net(settled.merit, settled.cost);
                let money = params.evaluator_weights.outcome(settled.net, split.evaluator_slot, missed);
                if gold {
                    // An auditor's word moves merit and trust. It never takes stake.
                    settled.payout = money.payout;
                } else if deviation.raw > params.outlier_bound {
                    settled.slashed = money.penalty.max(params.outlier_penalty.of(params.evaluator_at_risk));
                } else {
                    settled.payout = money.payout;
                    settled.slashed = money.penalty;
                }
                settled.trust = match (params.trust, gain) {
                    // The consensus moves nothing.
                    (TrustRule::Anchored { .. }, _) if !gold => evaluator.trust,
                    (TrustRule::Multiplicative { eta }, _) => {
                        trust::multiplicative(evaluator.trust, deviation.tolerated, eta, params.trust_floor)
                    }
                    (TrustRule::Centred { up, down }, _) => trust::centred(
                        evaluator.trust,
                        deviation.tolerated,
                        median_deviation,
                        up,
                        down,
                        params.trust_floor,
                    ),
                    (TrustRule::RelativeMerit { .. } | TrustRule::Anchored { .. }, None) => evaluator.trust,
                    (TrustRule::RelativeMerit { rate } | TrustRule::Anchored { rate }, Some(gain)) => {
                        let start = match evaluator.gain_average {
                            0 => trust::starting_average(evaluator.trust, standard),
                            average => average,
                        };
                        // One that starts where there is nothing to be relative to yet starts later.
                        if start != 0 {
                            settled.gain_average = trust::moving_average(start, *gain, rate);
                        }
                        trust::relative_merit(
                            evaluator.trust,
                            settled.gain_average,
                            standard,
                            params.trust_floor,
                        )
                    }
                };
            }
        }
        paid = paid.checked_add(settled.payout)?;
        slashed = slashed.checked_add(settled.slashed)?;
        if gold {
            forfeited = forfeited.checked_add(split.evaluator_slot.checked_sub(settled.payout)?)?;
        }
        panel.push(settled);
    }

    let refund = input.fee.checked_sub(split.protocol_fee)?.checked_sub(paid)?.checked_sub(forfeited)?;
    Some(Settlement {
        outputs,
        panel,
        protocol_fee: split.protocol_fee,
        slashed,
        forfeited,
        refund,
        consensus: qualities.iter().copied().flatten().next(),
        // What gains usually are is what they are against the consensus.
        reference: if gold {
            input.population.reference
        } else {
            next_reference(params, input.population.reference, &gains)
        },
        gain_average: match (params.trust, round) {
            (TrustRule::Anchored { .. }, _) if !gold => input.population.gain_average,
            (TrustRule::RelativeMerit { rate } | TrustRule::Anchored { rate }, Some(round)) => {
                match input.population.gain_average {
                    0 => round.max(0),
                    average => trust::moving_average(average, round, rate),
                }
            }
            _ => input.population.gain_average,
        },
    })
}

/// A gain as a mean over the `available` outputs, of which `answered` were compared: the others count as zero, which is
/// what knowing nothing gains on average. Else an evaluator could raise its trust by answering only where it cannot lose.
// A gain is at most 10⁹ in size and there are at most MAX_OUTPUTS outputs.
#[allow(clippy::arithmetic_side_effects)]
fn over_available(gain: Signed, answered: usize, available: usize) -> Option<Signed> {
    let answered = i64::try_from(answered).ok()?;
    (gain * answered).checked_div_euclid(i64::try_from(available).ok()?)
}

/// The mean of the gains of a round, rounded down.
// At most MAX_PANEL gains of at most 10⁹ in size.
#[allow(clippy::arithmetic_side_effects)]
fn mean_gain(gains: impl Iterator<Item = Signed>) -> Option<Signed> {
    let (sum, count) = gains.fold((0, 0), |(sum, count), gain| (sum + gain, count + 1));
    Signed::checked_div_euclid(sum, count)
}

/// The kind's next x_ref: one step per evaluator by which those above it outnumber the others, or the others those above.
/// It rests where as many gain more as gain less: at the population's median, whatever the order of a panel.
fn next_reference(params: &KindParams, reference: Ratio, gains: &[Option<Signed>]) -> Ratio {
    let MeritRule::Information { step, floor } = params.merit else { return reference };
    let old = reference.signed();
    let above = gains.iter().flatten().filter(|gain| **gain > old).count();
    let others = gains.iter().flatten().count().saturating_sub(above);
    // A gain on the side that the majority is on.
    let side = if above > others { Signed::MAX } else { Signed::MIN };
    (0..above.abs_diff(others)).fold(reference, |x, _| merit::next_reference(x, side, step, floor))
}

/// What a panel that stayed below its quorum costs its members: those who did their duty nothing, the others what a
/// settlement would have taken. Also what the nodes of a task that was refunded owe.
pub fn unsettled_penalty(params: &KindParams, conduct: &Conduct) -> Balance {
    match conduct {
        Conduct::Missed => params.missed_penalty.of(params.evaluator_at_risk),
        Conduct::Unrevealed => params.unrevealed_penalty.of(params.evaluator_at_risk),
        Conduct::Revealed(_) => 0,
    }
}

fn scores_of(panel: &[EvaluatorInput], output: usize) -> Vec<(usize, Weighted)> {
    panel
        .iter()
        .enumerate()
        .filter_map(|(place, evaluator)| match &evaluator.conduct {
            Conduct::Revealed(scores) => {
                let score = scores.get(output)?.quality()?;
                Some((place, Weighted { score, trust: evaluator.trust }))
            }
            Conduct::Missed | Conduct::Unrevealed => None,
        })
        .collect()
}

/// What an evaluator's score of an output is measured against.
#[derive(Clone, Copy)]
enum Yardstick {
    /// The consensus of the other evaluators.
    Others,
    /// The truth, of a gold task.
    Truth(Ratio),
}

fn compare(
    params: &KindParams,
    yardsticks: &[Option<Yardstick>],
    scores: &[Vec<(usize, Weighted)>],
    evaluator: usize,
) -> Vec<Comparison> {
    yardsticks
        .iter()
        .zip(scores)
        .filter_map(|(yardstick, scores)| {
            let yardstick = (*yardstick)?;
            let own = scores.iter().find(|(place, _)| *place == evaluator)?.1.score;
            let others = match yardstick {
                Yardstick::Truth(truth) => truth,
                Yardstick::Others => {
                    let others: Vec<Weighted> =
                        scores.iter().filter(|(place, _)| *place != evaluator).map(|(_, w)| *w).collect();
                    aggregate(params.aggregation, &others)?
                }
            };
            Some(Comparison { own, others })
        })
        .collect()
}

fn merit_of(
    params: &KindParams,
    deviation: &Deviation,
    gain: Option<Signed>,
    answered: Ratio,
    reference: Ratio,
) -> Ratio {
    match (params.merit, gain) {
        // The gain is a mean over all available outputs already: half of them answered earns half at most.
        (MeritRule::Information { floor, .. }, Some(gain)) => {
            merit::information(gain, reference.max(floor)).min(answered)
        }
        // The very first tasks of a kind have nothing unrelated to compare with: closeness stands in.
        (MeritRule::Closeness, _) | (MeritRule::Information { .. }, None) => {
            merit::closeness(deviation).mul(answered)
        }
    }
}
