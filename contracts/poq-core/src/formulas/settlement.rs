//! What a task's end pays and costs everybody, conserved to the last unit.
//!
//! Of the fee: Σ payouts + keepers + treasury + burned + refund = fee. Of the stakes: what is slashed is burned. Everything
//! rounds down; what rounding leaves of the slots is the requester's.
//!
//! Whoever delivered is paid, and nobody gains from a failure: what evaluators do not earn of their slots is burned, never
//! refunded, and after a delivery an end without a consensus refunds nothing ([`Ending`]).
//!
//! A *gold task* is one whose requester had committed to a reference answer. It is opened after the settlement ([`audit`]) and
//! moves trust, nothing else: scores alone cannot tell an informed majority from colluders who share a number per task.

use super::aggregate::{aggregate, median, Weighted};
use super::cost::inference_cost;
use super::merit::{self, Comparison, Deviation};
use super::trust;
use crate::kind::Population;
use crate::params::{FeeSplit, KindParams, MeritRule, TrustRule};
use crate::task::penalties::{evaluator_penalty, inference_penalty};
use crate::units::{Balance, Millis, Ratio, Score, Signed, SignedBalance};
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How a task ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Ending {
    /// By the panel's scores.
    #[default]
    Consensus,
    /// Nobody delivered: the fee goes back, less the keepers' reserve.
    Undelivered,
    /// A committed output was not opened in time. Those who opened theirs get their share, the rest is burned; where nobody did,
    /// nobody delivered.
    Unopened,
    /// The requester's secret was not shown in time. Those who delivered get their slots, the rest is burned.
    NoSecret,
    /// Too few evaluators could be drawn. Those who delivered get their share, the evaluators' slots go back.
    NoPanel,
    /// Too few evaluators committed or revealed. Those who delivered get their share, the rest is burned.
    BelowQuorum,
    /// Most of the panel could not get the input. Those who delivered get their share, those who said so their gas, the rest is
    /// burned.
    InputUnavailable,
}

/// What an inference node did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Answer {
    /// Nothing.
    Missed,
    /// It said that it could not.
    Declined,
    /// It committed and did not open its output.
    Unopened,
    /// It delivered.
    Delivered {
        /// From assignment to commitment by block timestamps.
        latency_ms: Millis,
    },
}

/// One assigned inference node, as the chain saw it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OutputInput {
    /// What it did.
    pub answer: Answer,
    /// The price it asked for when it was assigned.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub price: Balance,
}

/// What an evaluator did.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Conduct {
    /// Nobody has this seat.
    Vacant,
    /// It never committed.
    Missed,
    /// It committed; the panel was never to reveal, because too few committed.
    Waited,
    /// It committed, and did not reveal.
    Unrevealed,
    /// It revealed what it had committed to: one score per output.
    Revealed(Vec<Score>),
}

/// One seat of the panel, as the chain saw it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EvaluatorInput {
    /// What its member did.
    pub conduct: Conduct,
    /// From its draw to its commitment by block timestamps; 0 where it never committed.
    pub latency_ms: Millis,
    /// Its trust.
    pub trust: Ratio,
    /// What is due to it from earlier tasks ([`merit::spread`]).
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub due: SignedBalance,
}

/// Everything that a task's end depends on, besides the kind's parameters.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SettlementInput {
    /// How it ends, as far as the clock tells.
    pub ending: Ending,
    /// What the requester paid.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub fee: Balance,
    /// What keepers got of it so far.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub keepers: Balance,
    /// Whether the requester got the outputs at once.
    pub early: bool,
    /// Whether the input is on chain, so that nobody can say that it could not be had.
    pub inline: bool,
    /// The inference nodes in order.
    pub outputs: Vec<OutputInput>,
    /// The panel in order.
    pub panel: Vec<EvaluatorInput>,
    /// What the kind remembers.
    pub population: Population,
}

/// What an inference node got, with every number of its formula.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OutputSettlement {
    /// Q: the consensus; `None` where there is none.
    pub quality: Option<Ratio>,
    /// C.
    pub cost: Ratio,
    /// R = α·Q − β·C in signed parts per billion.
    pub net: Signed,
    /// Out of the fee.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub payout: Balance,
    /// Out of the stake at risk, burned.
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
    /// What is due to it after this task.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub due: SignedBalance,
    /// C.
    pub cost: Ratio,
    /// R = α·a − β·C in signed parts per billion.
    pub net: Signed,
    /// Out of the fee.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub payout: Balance,
    /// Out of the stake at risk, burned.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub slashed: Balance,
}

/// What everybody gets.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Settlement {
    /// How the task ended.
    pub ending: Ending,
    /// Per inference node, in the input's order.
    pub outputs: Vec<OutputSettlement>,
    /// Per seat, in the input's order.
    pub panel: Vec<EvaluatorSettlement>,
    /// To the treasury, out of the fee.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub treasury: Balance,
    /// Out of the fee, to nobody: half of the protocol fee, what evaluators and keepers did not earn.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub burned: Balance,
    /// Out of stakes, to nobody.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub slashed: Balance,
    /// Back to the requester.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub refund: Balance,
    /// The consensus of the first output that has one: for the kind's ring. `None` where no output has one.
    pub consensus: Option<Ratio>,
    /// The kind's next x_ref.
    pub reference: Ratio,
    /// How much it counts in what the kind remembers: what of the fee is burned whatever the scores are, half of the protocol fee and
    /// what keepers left of their reserve. What evaluators did not earn is burned, too, but would weigh those tasks more in which
    /// they knew little.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub weight: Balance,
}

/// What becomes of the parts of a fee that nobody earned.
struct Rest {
    /// The share of its slot that a node which delivered gets without a consensus.
    delivered: Ratio,
    /// Whether the inference nodes' and the evaluators' slots go back.
    refunds: (bool, bool),
    /// Whether the protocol's fee is due.
    protocol: bool,
}

/// Ends a task.
///
/// `None` where the fee does not fill the least slots, which a request has checked, or where the payouts would exceed it,
/// which the properties show cannot be.
pub fn settle(params: &KindParams, input: &SettlementInput) -> Option<Settlement> {
    let split = params.split(
        input.fee,
        u8::try_from(input.outputs.len()).ok()?,
        u8::try_from(input.panel.len()).ok()?,
    )?;
    let mut settlement = match input.ending {
        Ending::Consensus => by_scores(params, input, &split),
        ending => Settlement { ending, reference: input.population.reference, ..Settlement::default() },
    };
    if settlement.ending != Ending::Consensus {
        without_consensus(params, input, &split, &mut settlement);
    }
    balance(params, input, &split, settlement)
}

/// Pays the treasury and the requester, and burns the rest.
fn balance(
    params: &KindParams,
    input: &SettlementInput,
    split: &FeeSplit,
    mut settlement: Settlement,
) -> Option<Settlement> {
    let outputs = &settlement.outputs;
    let panel = &settlement.panel;
    let paid = sum(outputs.iter().map(|o| o.payout).chain(panel.iter().map(|e| e.payout)))?;
    settlement.slashed = sum(outputs.iter().map(|o| o.slashed).chain(panel.iter().map(|e| e.slashed)))?;
    let rest = rest(params, settlement.ending, input);
    // What the protocol, the keepers and the slots take; the remainder of the divisions is the requester's.
    let for_outputs = split.inference_slot.checked_mul(outputs.len() as Balance)?;
    let for_panel = split.evaluator_slot.checked_mul(panel.len() as Balance)?;
    let divided =
        split.protocol_fee.checked_add(split.keepers)?.checked_add(for_outputs)?.checked_add(for_panel)?;
    let mut refund = input.fee.checked_sub(divided)?;
    if rest.refunds.0 {
        for (output, settled) in input.outputs.iter().zip(outputs) {
            // Who got an output at once has had something for its share, whatever it was worth.
            let delivered = matches!(output.answer, Answer::Delivered { .. });
            let kept =
                if input.early && delivered { params.delivery_share.of(split.inference_slot) } else { 0 };
            refund = refund.checked_add(split.inference_slot.checked_sub(settled.payout.max(kept))?)?;
        }
    }
    if rest.refunds.1 {
        refund = refund.checked_add(for_panel)?;
    }
    if rest.protocol {
        settlement.treasury = split.protocol_fee >> 1;
    } else {
        refund = refund.checked_add(split.protocol_fee)?;
    }
    settlement.refund = refund;
    settlement.burned = input
        .fee
        .checked_sub(input.keepers)?
        .checked_sub(paid)?
        .checked_sub(settlement.treasury)?
        .checked_sub(refund)?;
    Some(settlement)
}

fn sum(mut amounts: impl Iterator<Item = Balance>) -> Option<Balance> {
    amounts.try_fold(0, |sum: Balance, amount| sum.checked_add(amount))
}

fn rest(params: &KindParams, ending: Ending, input: &SettlementInput) -> Rest {
    let none_delivered = !input.outputs.iter().any(|o| matches!(o.answer, Answer::Delivered { .. }));
    match ending {
        Ending::Consensus => Rest { delivered: Ratio::ZERO, refunds: (true, false), protocol: true },
        Ending::Undelivered | Ending::Unopened | Ending::NoSecret if none_delivered => {
            Rest { delivered: Ratio::ZERO, refunds: (true, true), protocol: false }
        }
        // The requester alone is to blame, and pays.
        Ending::Undelivered | Ending::NoSecret => {
            Rest { delivered: Ratio::ONE, refunds: (false, false), protocol: true }
        }
        Ending::NoPanel => Rest { delivered: params.delivery_share, refunds: (false, true), protocol: true },
        // Nobody judged what was delivered, and a node may be to blame: a whole slot would be worth hiding for.
        Ending::Unopened | Ending::BelowQuorum | Ending::InputUnavailable => {
            Rest { delivered: params.delivery_share, refunds: (false, false), protocol: true }
        }
    }
}

/// Fills in what everybody gets where the scores decide nothing.
fn without_consensus(
    params: &KindParams,
    input: &SettlementInput,
    split: &FeeSplit,
    settlement: &mut Settlement,
) {
    let share = rest(params, settlement.ending, input).delivered;
    let answers: Vec<Answer> = input.outputs.iter().map(|output| output.answer).collect();
    settlement.outputs = answers
        .iter()
        .map(|answer| OutputSettlement {
            payout: match answer {
                Answer::Delivered { .. } => share.of(split.inference_slot),
                _ => 0,
            },
            slashed: inference_penalty(params, split.inference_slot, &answers, *answer),
            ..OutputSettlement::default()
        })
        .collect();
    let no_input = settlement.ending == Ending::InputUnavailable;
    settlement.panel = input
        .panel
        .iter()
        .map(|evaluator| EvaluatorSettlement {
            payout: match &evaluator.conduct {
                Conduct::Revealed(scores) if no_input && has_no_input(scores) => {
                    params.unavailable_share.of(split.evaluator_slot)
                }
                _ => 0,
            },
            due: evaluator.due,
            slashed: evaluator_penalty(params, split.evaluator_slot, &evaluator.conduct),
            ..EvaluatorSettlement::default()
        })
        .collect();
}

/// Whether a reveal says that the input could not be had.
pub fn has_no_input(scores: &[Score]) -> bool {
    scores.first() == Some(&Score::NO_INPUT)
}

/// How the reveals of a panel end its task: whether they say something, and how many say that there was no input.
fn verdict(params: &KindParams, input: &SettlementInput) -> Ending {
    let revealed = |e: &&EvaluatorInput| matches!(e.conduct, Conduct::Revealed(_));
    let all = input.panel.iter().filter(revealed).count();
    let without = input
        .panel
        .iter()
        .filter(|e| matches!(&e.conduct, Conduct::Revealed(scores) if has_no_input(scores)))
        .count();
    let quorum = usize::from(params.quorum_of(u8::try_from(input.panel.len()).unwrap_or(u8::MAX)));
    if !input.inline && without.saturating_mul(2) > all {
        Ending::InputUnavailable
    } else if all.saturating_sub(without) < quorum {
        Ending::BelowQuorum
    } else {
        Ending::Consensus
    }
}

/// The settlement of a panel that reached its quorum, before the fee is balanced.
#[allow(clippy::arithmetic_side_effects)] // counts of at most MAX_PANEL
fn by_scores(params: &KindParams, input: &SettlementInput, split: &FeeSplit) -> Settlement {
    let ending = verdict(params, input);
    let mut settlement =
        Settlement { ending, reference: input.population.reference, ..Settlement::default() };
    if ending != Ending::Consensus {
        return settlement;
    }
    let scored: Vec<Scored<'_>> = input
        .panel
        .iter()
        .map(|e| Scored {
            scores: match &e.conduct {
                Conduct::Revealed(scores) if !has_no_input(scores) => Some(scores),
                _ => None,
            },
            trust: e.trust,
        })
        .collect();
    // What each output's panel says: scores with the evaluator's place.
    let revealed = scored.iter().filter(|e| e.scores.is_some()).count();
    let scores: Vec<Vec<(usize, Weighted)>> =
        (0..input.outputs.len()).map(|output| scores_of(&scored, output)).collect();
    let qualities: Vec<Option<Ratio>> = input
        .outputs
        .iter()
        .zip(&scores)
        .map(|(output, scores)| {
            // Most of those who revealed must have had the output.
            if !matches!(output.answer, Answer::Delivered { .. }) || scores.len() * 2 <= revealed {
                return None;
            }
            let weighted: Vec<Weighted> = scores.iter().map(|(_, w)| *w).collect();
            aggregate(params.aggregation, &weighted)
        })
        .collect();
    let answers: Vec<Answer> = input.outputs.iter().map(|output| output.answer).collect();
    settlement.outputs = input
        .outputs
        .iter()
        .zip(&qualities)
        .map(|(output, quality)| output_of(params, split, output, *quality, &answers))
        .collect();

    // Compare every evaluator with the others, on the outputs that have a consensus.
    let yardsticks: Vec<Option<Yardstick>> =
        qualities.iter().map(|quality| quality.map(|_| Yardstick::Others)).collect();
    let available = yardsticks.iter().flatten().count();
    let mut gains = Vec::with_capacity(input.panel.len());
    for (place, evaluator) in input.panel.iter().enumerate() {
        let comparisons = compare(params, &yardsticks, &scores, place, 1);
        let deviation = merit::deviation(&comparisons, params.tolerance);
        let gain = merit::information_gain(&comparisons, params.tolerance, &input.population.ring.entries)
            .and_then(|gain| over_available(gain, comparisons.len(), available));
        gains.push(gain);
        let mut settled = EvaluatorSettlement {
            deviation: deviation.tolerated,
            gain,
            due: evaluator.due,
            slashed: evaluator_penalty(params, split.evaluator_slot, &evaluator.conduct),
            ..EvaluatorSettlement::default()
        };
        let at_risk = params.evaluator_at_risk(split.evaluator_slot);
        let missed = params.missed_penalty.of(at_risk);
        match &evaluator.conduct {
            Conduct::Revealed(scores) if has_no_input(scores) => settled.slashed = missed,
            // Only who abstained on every output that others could get has missed its duty.
            Conduct::Revealed(_) if comparisons.is_empty() => {
                let abstained = qualities
                    .iter()
                    .zip(&scores)
                    .filter(|(quality, _)| quality.is_some())
                    .all(|(_, scores)| scores.iter().all(|(at, _)| *at != place));
                if abstained && available > 0 {
                    settled.slashed = missed;
                }
            }
            Conduct::Revealed(_) => {
                // Abstaining on some outputs earns in proportion to the others.
                let answered = Ratio::from_fraction(comparisons.len() as u128, available as u128);
                (settled.merit, settled.due) = match (params.merit, gain) {
                    // The gain is a mean over all available outputs already: half of them answered earns half at most.
                    (MeritRule::Information { floor, .. }, Some(gain)) => {
                        let reference = input.population.reference.max(floor);
                        let (merit, due) =
                            merit::spread(gain, reference, evaluator.due, split.evaluator_slot);
                        (merit.min(answered), due)
                    }
                    // The very first tasks of a kind have nothing unrelated to compare with: closeness stands in.
                    _ => (merit::closeness(&deviation).mul(answered), evaluator.due),
                };
                settled.cost = params.evaluator_latency.cost(evaluator.latency_ms);
                settled.net = params.evaluator_weights.net(settled.merit, settled.cost);
                let money = params.evaluator_weights.outcome(settled.net, split.evaluator_slot, missed);
                // Two against one, or nobody can tell who is out.
                let judged = compare(params, &yardsticks, &scores, place, 2);
                if merit::deviation(&judged, params.tolerance).raw > params.outlier_bound {
                    settled.slashed = money.penalty.max(params.outlier_penalty.of(at_risk));
                } else {
                    settled.payout = money.payout;
                    settled.slashed = money.penalty;
                }
            }
            Conduct::Vacant | Conduct::Missed | Conduct::Waited | Conduct::Unrevealed => {}
        }
        settlement.panel.push(settled);
    }
    settlement.consensus = qualities.iter().copied().flatten().next();
    settlement.weight = (split.protocol_fee >> 1).saturating_add(split.keepers.saturating_sub(input.keepers));
    let weight = Ratio::from_fraction(settlement.weight, params.ring_burn);
    settlement.reference = next_reference(params, input.population.reference, &gains, weight);
    settlement
}

/// What an inference node gets for an output with this consensus.
fn output_of(
    params: &KindParams,
    split: &FeeSplit,
    output: &OutputInput,
    quality: Option<Ratio>,
    answers: &[Answer],
) -> OutputSettlement {
    let at_risk = params.inference_at_risk(split.inference_slot);
    let missed = params.missed_penalty.of(at_risk);
    match (quality, output.answer) {
        (Some(quality), Answer::Delivered { latency_ms }) => {
            let cost = inference_cost(
                latency_ms,
                &params.inference_latency,
                params.latency_weight,
                output.price,
                params.price_cap,
                params.price_weight,
            );
            let net = params.inference_weights.net(quality, cost);
            // Never more than what nothing at all costs.
            let money = params.inference_weights.outcome(net, split.inference_slot, missed);
            let short = params.quality_floor.saturating_sub(quality);
            let short = Ratio::from_fraction(u128::from(short.ppb()), u128::from(params.quality_floor.ppb()));
            let bad = params.bad_penalty.mul(short).of(at_risk);
            OutputSettlement {
                quality: Some(quality),
                cost,
                net,
                payout: money.payout,
                slashed: money.penalty.saturating_add(bad).min(missed),
            }
        }
        // Most of the panel could not get it.
        (None, Answer::Delivered { .. }) => {
            OutputSettlement { slashed: missed, ..OutputSettlement::default() }
        }
        (_, answer) => OutputSettlement {
            slashed: inference_penalty(params, split.inference_slot, answers, answer),
            ..OutputSettlement::default()
        },
    }
}

/// What the trust of an evaluator is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TrustState {
    /// Its trust.
    pub trust: Ratio,
    /// Its moving average of information gains in gold tasks, in signed parts per billion; 0 for one that never had a gain
    /// ([`trust::starting_average`] says what it starts from).
    pub gain_average: Signed,
}

/// Everything that the opening of a gold task's reference depends on, besides the kind's parameters.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AuditInput {
    /// The truth of each output, in order; `None` for one that was not opened.
    pub truth: Vec<Option<Ratio>>,
    /// Per seat what its member had revealed, if it had.
    pub scores: Vec<Option<Vec<Score>>>,
    /// Per seat its member's trust as it is now.
    pub panel: Vec<TrustState>,
    /// What the kind remembers now.
    pub population: Population,
}

/// What the opening moves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Audit {
    /// Per seat its member's trust after it.
    pub panel: Vec<TrustState>,
    /// The kind's next average gain.
    pub gain_average: Signed,
}

/// What an opened reference makes of a panel's trust. It takes no money.
pub fn audit(params: &KindParams, input: &AuditInput) -> Audit {
    let scored: Vec<Scored<'_>> = input
        .scores
        .iter()
        .zip(&input.panel)
        .map(|(scores, state)| Scored {
            scores: scores.as_ref().filter(|scores| !has_no_input(scores)),
            trust: state.trust,
        })
        .collect();
    let scores: Vec<Vec<(usize, Weighted)>> =
        (0..input.truth.len()).map(|output| scores_of(&scored, output)).collect();
    let yardsticks: Vec<Option<Yardstick>> =
        input.truth.iter().map(|truth| truth.map(Yardstick::Truth)).collect();
    let available = yardsticks.iter().flatten().count();
    let comparisons: Vec<Vec<Comparison>> =
        (0..input.panel.len()).map(|place| compare(params, &yardsticks, &scores, place, 0)).collect();
    let deviations: Vec<Deviation> =
        comparisons.iter().map(|c| merit::deviation(c, params.tolerance)).collect();
    let compared: Vec<Ratio> = deviations.iter().filter(|d| d.outputs > 0).map(|d| d.tolerated).collect();
    let median_deviation = median(&compared).unwrap_or_default();
    // Gains come before everything that they move, so that nobody's outcome depends on its place in the panel.
    let gains: Vec<Option<Signed>> = comparisons
        .iter()
        .map(|comparisons| {
            let ring = &input.population.ring.entries;
            let gain = merit::information_gain(comparisons, params.tolerance, ring)?;
            over_available(gain, comparisons.len(), available)
        })
        .collect();
    // The majority may be wrong: then those are the standard who know something of the truth, or liars in the majority would
    // pull the standard below zero and keep their trust.
    let informed = matches!(params.trust, TrustRule::Anchored { .. });
    let round = mean_gain(gains.iter().flatten().copied().filter(|gain| !informed || *gain > 0));
    // What evaluators are relative to: the population before this task; in a kind's first task, the task's own mean.
    let standard = match input.population.gain_average {
        0 => round.unwrap_or(0),
        average => average,
    };
    let panel = input
        .panel
        .iter()
        .zip(&deviations)
        .zip(&gains)
        .map(|((state, deviation), gain)| {
            let mut next = *state;
            if deviation.outputs == 0 {
                return next;
            }
            next.trust = match (params.trust, gain) {
                (TrustRule::Multiplicative { eta }, _) => {
                    trust::multiplicative(state.trust, deviation.tolerated, eta, params.trust_floor)
                }
                (TrustRule::Centred { up, down }, _) => trust::centred(
                    state.trust,
                    deviation.tolerated,
                    median_deviation,
                    up,
                    down,
                    params.trust_floor,
                ),
                (TrustRule::RelativeMerit { .. } | TrustRule::Anchored { .. }, None) => state.trust,
                (TrustRule::RelativeMerit { rate } | TrustRule::Anchored { rate }, Some(gain)) => {
                    let start = match state.gain_average {
                        0 => trust::starting_average(state.trust, standard),
                        average => average,
                    };
                    // One that starts where there is nothing to be relative to yet starts later.
                    if start != 0 {
                        next.gain_average = trust::moving_average(start, *gain, rate);
                    }
                    trust::relative_merit(state.trust, next.gain_average, standard, params.trust_floor)
                }
            };
            next
        })
        .collect();
    let gain_average = match (params.trust, round) {
        (TrustRule::RelativeMerit { rate } | TrustRule::Anchored { rate }, Some(round)) => {
            match input.population.gain_average {
                0 => round.max(0),
                average => trust::moving_average(average, round, rate),
            }
        }
        _ => input.population.gain_average,
    };
    Audit { panel, gain_average }
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
/// It rests where as many gain more as gain less: at the population's median, whatever the order of a panel. `weight` is what
/// the task burned, of the price of a ring entry: what costs nothing moves nothing.
fn next_reference(params: &KindParams, reference: Ratio, gains: &[Option<Signed>], weight: Ratio) -> Ratio {
    let MeritRule::Information { step, floor } = params.merit else { return reference };
    let step = step.mul(weight);
    if step == Ratio::ZERO {
        return reference;
    }
    let old = reference.signed();
    let above = gains.iter().flatten().filter(|gain| **gain > old).count();
    let others = gains.iter().flatten().count().saturating_sub(above);
    // A gain on the side that the majority is on.
    let side = if above > others { Signed::MAX } else { Signed::MIN };
    (0..above.abs_diff(others)).fold(reference, |x, _| merit::next_reference(x, side, step, floor))
}

/// A seat's scores, if its member revealed any, and its member's trust.
struct Scored<'a> {
    scores: Option<&'a Vec<Score>>,
    trust: Ratio,
}

fn scores_of(panel: &[Scored<'_>], output: usize) -> Vec<(usize, Weighted)> {
    panel
        .iter()
        .enumerate()
        .filter_map(|(place, evaluator)| {
            let score = evaluator.scores?.get(output)?.quality()?;
            Some((place, Weighted { score, trust: evaluator.trust }))
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

/// An evaluator beside its yardsticks, on the outputs where at least so many others have a score.
fn compare(
    params: &KindParams,
    yardsticks: &[Option<Yardstick>],
    scores: &[Vec<(usize, Weighted)>],
    evaluator: usize,
    others: usize,
) -> Vec<Comparison> {
    yardsticks
        .iter()
        .zip(scores)
        .filter_map(|(yardstick, scores)| {
            let yardstick = (*yardstick)?;
            let own = scores.iter().find(|(place, _)| *place == evaluator)?.1.score;
            if scores.len() <= others {
                return None;
            }
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
