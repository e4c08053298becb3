//! What is measured of a simulated network.
//!
//! Money is given in UNIT (10¹² of the chain's smallest). *Pay* is what the chain credits less what it slashes; *profit* is
//! pay less what the work cost off the chain. An attacker is compared with honest nodes of the same role and the same stake
//! in the same network.

use crate::economy::{float, quantise, Economy, Ended};
use crate::population::Role;
use crate::stats::{estimate, spearman, Correlation, Estimate, Moments};
use poq_core::params::UNIT;
use poq_core::units::{Balance, ONE};
use serde::Serialize;

/// An amount in UNIT.
pub fn units(amount: Balance) -> f64 {
    amount as f64 / UNIT as f64
}

/// What the nodes of one role and one honesty got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// How many nodes there are.
    pub nodes: u32,
    /// Their stake at the start, in UNIT.
    pub stake: f64,
    /// Duties done or missed.
    pub duties: u64,
    /// Credited by the chain, in UNIT.
    pub payout: f64,
    /// Taken by the chain, in UNIT.
    pub slashed: f64,
    /// Spent off the chain, in UNIT.
    pub expense: f64,
    /// Pay per duty, in UNIT.
    pub pay: Moments,
    /// R = α · quality − β · cost per duty that has one.
    pub net: Moments,
    /// Their mean trust at the end.
    pub trust: f64,
}

impl Group {
    /// Credited less taken, in UNIT.
    pub fn paid(&self) -> f64 {
        self.payout - self.slashed
    }

    /// Credited less taken and spent, in UNIT.
    pub fn profit(&self) -> f64 {
        self.paid() - self.expense
    }

    fn absorb(&mut self, other: &Group) {
        self.nodes += other.nodes;
        self.stake += other.stake;
        self.duties += other.duties;
        self.payout += other.payout;
        self.slashed += other.slashed;
        self.expense += other.expense;
    }
}

/// What one node got.
#[derive(Clone, Debug)]
pub struct NodeOutcome {
    /// Its role.
    pub role: Role,
    /// Its model's number in the world.
    pub model: usize,
    /// Whether it attacked.
    pub malicious: bool,
    /// Duties done or missed.
    pub duties: u64,
    /// Pay, in UNIT.
    pub paid: f64,
    /// Pay less expense, in UNIT.
    pub profit: f64,
    /// Mean R over the duties that have one.
    pub net: Option<f64>,
    /// An inference node's mean true quality over its delivered answers.
    pub quality: Option<f64>,
    /// An inference node's mean latency over its delivered answers, in milliseconds.
    pub latency_ms: Option<f64>,
    /// An inference node's mean α · true quality − β · cost.
    pub true_net: Option<f64>,
    /// Its trust at the end.
    pub trust: f64,
}

/// Trust at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TrustPoint {
    /// After how many rounds.
    pub round: u64,
    /// The honest evaluators' mean.
    pub honest: f64,
    /// The attackers' mean; 0 where there are none.
    pub malicious: f64,
    /// The share of all evaluators whose trust is one: where it is one, trust weighs nothing.
    pub capped: f64,
}

/// What one replication came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Rounds simulated.
    pub rounds: u64,
    /// Tasks settled.
    pub settled: u64,
    /// Tasks refunded.
    pub refunded: u64,
    /// Tasks that had empty seats filled.
    pub filled: u64,
    /// Requests that found too few nodes.
    pub refused: u64,
    /// Consensus and true quality over all outputs that have both.
    pub consensus: Correlation,
    /// Consensus less true quality.
    pub error: Moments,
    /// Its absolute value.
    pub absolute_error: Moments,
    /// Honest inference nodes, malicious ones, honest evaluators, malicious ones.
    pub groups: [Group; 4],
    /// What an inference node's and an evaluator's slot are worth, in UNIT.
    pub slots: (f64, f64),
    /// What an inference node and an evaluator have at risk, in UNIT.
    pub at_risk: (f64, f64),
    /// By node.
    pub nodes: Vec<NodeOutcome>,
    /// Trust over time.
    pub trust: Vec<TrustPoint>,
}

/// Collects what happens.
#[derive(Debug)]
pub(crate) struct Recorder {
    outcome: Outcome,
    duties: Vec<Duties>,
    points: u64,
    total: u64,
}

#[derive(Clone, Debug, Default)]
struct Duties {
    count: u64,
    payout: Balance,
    slashed: Balance,
    expense: f64,
    net: Moments,
    quality: Moments,
    latency: Moments,
    true_net: Moments,
}

fn group(role: Role, malicious: bool) -> usize {
    usize::from(role == Role::Evaluator) * 2 + usize::from(malicious)
}

/// At how many moments trust is looked at.
const TRUST_POINTS: u64 = 40;

impl Recorder {
    pub(crate) fn new(economy: &Economy<'_>, rounds: u64) -> Recorder {
        let split = economy.fee_split();
        let outcome = Outcome {
            rounds: 0,
            settled: 0,
            refunded: 0,
            filled: 0,
            refused: 0,
            consensus: Correlation::default(),
            error: Moments::default(),
            absolute_error: Moments::default(),
            groups: [Group::default(); 4],
            slots: (units(split.inference_slot), units(split.evaluator_slot)),
            at_risk: (units(economy.inference_at_risk()), units(economy.evaluator_at_risk())),
            nodes: Vec::new(),
            trust: Vec::new(),
        };
        let mut recorder = Recorder {
            outcome,
            duties: vec![Duties::default(); economy.nodes().len()],
            points: 0,
            total: rounds,
        };
        recorder.look_at_trust(economy);
        recorder
    }

    /// Takes in the round that has just ended.
    pub(crate) fn note(&mut self, economy: &Economy<'_>) {
        let round = economy.last_round();
        let out = &mut self.outcome;
        out.rounds += 1;
        match round.ended {
            Some(Ended::Settled) => out.settled += 1,
            Some(Ended::Refunded(_)) => out.refunded += 1,
            Some(Ended::Refused) | None => out.refused += 1,
        }
        out.filled += u64::from(round.filled);
        for entry in &round.entries {
            let node = &economy.nodes()[entry.node as usize];
            let of = &mut out.groups[group(node.role, node.malicious)];
            let pay = units(entry.payout) - units(entry.slashed);
            of.pay.add(pay);
            let duties = &mut self.duties[entry.node as usize];
            duties.count += 1;
            duties.payout += entry.payout;
            duties.slashed += entry.slashed;
            duties.expense += entry.expense / UNIT as f64;
            if let Some(net) = entry.net {
                let net = net as f64 / f64::from(ONE);
                of.net.add(net);
                duties.net.add(net);
            }
        }
        if let Some((_, settlement)) = &round.closed {
            let weights = &economy.params().inference_weights;
            for ((settled, answer), node) in settlement.outputs.iter().zip(&round.answers).zip(&round.outputs)
            {
                let (Some(consensus), Some(answer)) = (settled.quality, answer) else { continue };
                let consensus = float(consensus);
                out.consensus.add(answer.quality, consensus);
                out.error.add(consensus - answer.quality);
                out.absolute_error.add((consensus - answer.quality).abs());
                let duties = &mut self.duties[*node as usize];
                duties.quality.add(answer.quality);
                duties.latency.add(answer.latency_ms);
                let net = weights.net(quantise(answer.quality), settled.cost);
                duties.true_net.add(net as f64 / f64::from(ONE));
            }
        }
        if out.rounds * TRUST_POINTS >= (self.points) * self.total {
            self.look_at_trust(economy);
        }
    }

    fn look_at_trust(&mut self, economy: &Economy<'_>) {
        self.points += 1;
        let mut sums = [(0.0, 0u32); 2];
        let mut capped = 0;
        for (node, standing) in economy.nodes().iter().zip(economy.records()) {
            if node.role == Role::Evaluator {
                let trust = float(standing.trust);
                let (sum, count) = &mut sums[usize::from(node.malicious)];
                *sum += trust;
                *count += 1;
                capped += u32::from(trust >= 1.0);
            }
        }
        let mean = |(sum, count): (f64, u32)| sum / f64::from(count.max(1));
        self.outcome.trust.push(TrustPoint {
            round: self.outcome.rounds,
            honest: mean(sums[0]),
            malicious: mean(sums[1]),
            capped: f64::from(capped) / f64::from((sums[0].1 + sums[1].1).max(1)),
        });
    }

    pub(crate) fn finish(mut self, economy: &Economy<'_>) -> Outcome {
        let out = &mut self.outcome;
        for ((node, standing), duties) in economy.nodes().iter().zip(economy.records()).zip(&self.duties) {
            let of = &mut out.groups[group(node.role, node.malicious)];
            let (payout, slashed) = (units(duties.payout), units(duties.slashed));
            of.nodes += 1;
            of.stake += units(node.stake);
            of.duties += duties.count;
            of.payout += payout;
            of.slashed += slashed;
            of.expense += duties.expense;
            of.trust += float(standing.trust);
            out.nodes.push(NodeOutcome {
                role: node.role,
                model: node.model,
                malicious: node.malicious,
                duties: duties.count,
                paid: payout - slashed,
                profit: payout - slashed - duties.expense,
                net: duties.net.mean(),
                quality: duties.quality.mean(),
                latency_ms: duties.latency.mean(),
                true_net: duties.true_net.mean(),
                trust: float(standing.trust),
            });
        }
        for of in &mut out.groups {
            of.trust /= f64::from(of.nodes.max(1));
        }
        self.outcome
    }
}

/// The stake at risk at which an attack earns as much as honesty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakEven {
    /// The attack earns less whatever the stake: its pay alone does not make up for it.
    Unprofitable,
    /// The attack earns as much as honesty at this many UNIT at risk per task, and less above it.
    At(f64),
    /// No stake deters it: it earns more and is slashed no more than honest nodes.
    Never,
}

impl BreakEven {
    /// From gains without slashing (per staked UNIT) and slashed shares of the stake at risk (per staked UNIT).
    fn of(attacker: (f64, f64), honest: (f64, f64), at_risk: f64) -> BreakEven {
        let (more, more_slashed) = (attacker.0 - honest.0, attacker.1 - honest.1);
        if more <= 0.0 && more_slashed >= 0.0 {
            BreakEven::Unprofitable
        } else if more_slashed > 0.0 {
            BreakEven::At(more / more_slashed)
        } else if more < 0.0 && at_risk * more_slashed > more {
            // Slashed less than honest nodes, which only more at stake than there is would make worth while.
            BreakEven::Unprofitable
        } else {
            BreakEven::Never
        }
    }

    /// As a number of UNIT: 0 for an unprofitable attack, infinite where no stake deters.
    pub fn at_risk(self) -> f64 {
        match self {
            BreakEven::Unprofitable => 0.0,
            BreakEven::At(units) => units,
            BreakEven::Never => f64::INFINITY,
        }
    }
}

impl std::fmt::Display for BreakEven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BreakEven::Unprofitable => f.write_str("unprofitable"),
            BreakEven::At(units) => write!(f, "{units:.2}"),
            BreakEven::Never => f.write_str("never"),
        }
    }
}

impl Outcome {
    /// Honest nodes of a role.
    pub fn honest(&self, role: Role) -> &Group {
        &self.groups[group(role, false)]
    }

    /// Attackers of a role.
    pub fn malicious(&self, role: Role) -> &Group {
        &self.groups[group(role, true)]
    }

    /// What attackers got by `of` relative to honest nodes of the same roles and stake; `None` without attackers, or where
    /// honest nodes got nothing to compare with.
    fn relative(&self, of: impl Fn(&Group) -> f64) -> Option<f64> {
        let (mut got, mut honest) = (0.0, 0.0);
        for role in [Role::Inference, Role::Evaluator] {
            let (good, bad) = (self.honest(role), self.malicious(role));
            if bad.nodes > 0 {
                got += of(bad);
                honest += of(good) / good.stake * bad.stake;
            }
        }
        (honest > 0.0).then(|| got / honest)
    }

    /// The stake at risk at which the attack breaks even with honesty, all else equal; `None` without attackers.
    pub fn break_even(&self) -> Option<BreakEven> {
        let (mut attacker, mut honest, mut at_risk) = ((0.0, 0.0), (0.0, 0.0), None);
        for (role, risk) in [(Role::Inference, self.at_risk.0), (Role::Evaluator, self.at_risk.1)] {
            let (good, bad) = (self.honest(role), self.malicious(role));
            if bad.nodes > 0 && risk > 0.0 {
                let scale = bad.stake / good.stake;
                attacker.0 += bad.payout - bad.expense;
                attacker.1 += bad.slashed / risk;
                honest.0 += (good.payout - good.expense) * scale;
                honest.1 += good.slashed / risk * scale;
                at_risk = Some(risk);
            }
        }
        Some(BreakEven::of(attacker, honest, at_risk?))
    }

    /// Spearman's correlation of inference nodes' mean R with `of`.
    fn rank_agreement(&self, of: impl Fn(&NodeOutcome) -> Option<f64>) -> Option<f64> {
        let (rewards, values): (Vec<f64>, Vec<f64>) = self
            .nodes
            .iter()
            .filter(|node| node.role == Role::Inference)
            .filter_map(|node| Some((node.net?, of(node)?)))
            .unzip();
        spearman(&rewards, &values)
    }
}

/// A number that every replication has, or lacks for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// The share of rounds that settled.
    SettledShare,
    /// The share of rounds that had empty seats filled.
    FilledShare,
    /// Pearson's correlation of consensus and true quality.
    Pearson,
    /// The mean absolute error of the consensus.
    AbsoluteError,
    /// The mean error of the consensus: above zero where it is too good.
    Bias,
    /// Attackers' pay relative to honest nodes of the same stake.
    PayRatio,
    /// Attackers' profit relative to honest nodes of the same stake.
    ProfitRatio,
    /// The attackers' share of all duties of the roles that they attack in.
    SeatShare,
    /// Honest evaluators' mean pay per duty in UNIT.
    EvaluatorPay,
    /// The variance of it, in UNIT².
    EvaluatorPayVariance,
    /// Honest evaluators' mean R.
    EvaluatorNet,
    /// The variance of it.
    EvaluatorNetVariance,
    /// Honest inference nodes' mean pay per duty in UNIT.
    InferencePay,
    /// The variance of it, in UNIT².
    InferencePayVariance,
    /// Honest inference nodes' mean R.
    InferenceNet,
    /// The variance of it.
    InferenceNetVariance,
    /// Attacking nodes' mean pay per duty in UNIT, both roles together.
    AttackerPay,
    /// What is slashed of an honest evaluator per duty, as a share of its stake at risk.
    HonestSlashed,
    /// What is slashed of attackers per duty, as a share of their stake at risk.
    AttackerSlashed,
    /// Honest evaluators' mean trust at the end.
    HonestTrust,
    /// Attacking evaluators' mean trust at the end.
    AttackerTrust,
    /// The share of evaluators at full trust at the end.
    Capped,
    /// Spearman's correlation of inference nodes' mean R with their mean α · true quality − β · cost.
    RankTrueNet,
    /// Spearman's correlation of inference nodes' mean R with their mean true quality per mean latency.
    RankQualityPerTime,
}

impl Metric {
    /// All of them, in the order of the tables' columns.
    pub const ALL: [Metric; 24] = [
        Metric::SettledShare,
        Metric::FilledShare,
        Metric::Pearson,
        Metric::AbsoluteError,
        Metric::Bias,
        Metric::PayRatio,
        Metric::ProfitRatio,
        Metric::SeatShare,
        Metric::EvaluatorPay,
        Metric::EvaluatorPayVariance,
        Metric::EvaluatorNet,
        Metric::EvaluatorNetVariance,
        Metric::InferencePay,
        Metric::InferencePayVariance,
        Metric::InferenceNet,
        Metric::InferenceNetVariance,
        Metric::AttackerPay,
        Metric::HonestSlashed,
        Metric::AttackerSlashed,
        Metric::HonestTrust,
        Metric::AttackerTrust,
        Metric::Capped,
        Metric::RankTrueNet,
        Metric::RankQualityPerTime,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::SettledShare => "settled_share",
            Metric::FilledShare => "filled_share",
            Metric::Pearson => "pearson",
            Metric::AbsoluteError => "absolute_error",
            Metric::Bias => "bias",
            Metric::PayRatio => "pay_ratio",
            Metric::ProfitRatio => "profit_ratio",
            Metric::SeatShare => "seat_share",
            Metric::EvaluatorPay => "evaluator_pay",
            Metric::EvaluatorPayVariance => "evaluator_pay_variance",
            Metric::EvaluatorNet => "evaluator_net",
            Metric::EvaluatorNetVariance => "evaluator_net_variance",
            Metric::InferencePay => "inference_pay",
            Metric::InferencePayVariance => "inference_pay_variance",
            Metric::InferenceNet => "inference_net",
            Metric::InferenceNetVariance => "inference_net_variance",
            Metric::AttackerPay => "attacker_pay",
            Metric::HonestSlashed => "honest_slashed",
            Metric::AttackerSlashed => "attacker_slashed",
            Metric::HonestTrust => "honest_trust",
            Metric::AttackerTrust => "attacker_trust",
            Metric::Capped => "capped",
            Metric::RankTrueNet => "rank_true_net",
            Metric::RankQualityPerTime => "rank_quality_per_time",
        }
    }

    /// Its value in a replication; `None` where there is nothing to measure.
    pub fn of(self, outcome: &Outcome) -> Option<f64> {
        let share = |count: u64| Some(count as f64 / outcome.rounds.max(1) as f64);
        let evaluators = outcome.honest(Role::Evaluator);
        let inference = outcome.honest(Role::Inference);
        let attackers = || {
            let mut both = *outcome.malicious(Role::Inference);
            both.absorb(outcome.malicious(Role::Evaluator));
            both
        };
        let per = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        match self {
            Metric::SettledShare => share(outcome.settled),
            Metric::FilledShare => share(outcome.filled),
            Metric::Pearson => outcome.consensus.pearson(),
            Metric::AbsoluteError => outcome.absolute_error.mean(),
            Metric::Bias => outcome.error.mean(),
            Metric::PayRatio => outcome.relative(Group::paid),
            Metric::ProfitRatio => outcome.relative(Group::profit),
            Metric::SeatShare => {
                let roles = [Role::Inference, Role::Evaluator].into_iter();
                let (bad, all) = roles.filter(|role| outcome.malicious(*role).nodes > 0).fold(
                    (0, 0),
                    |(bad, all), role| {
                        let (b, g) = (outcome.malicious(role).duties, outcome.honest(role).duties);
                        (bad + b, all + b + g)
                    },
                );
                per(bad as f64, all)
            }
            Metric::EvaluatorPay => evaluators.pay.mean(),
            Metric::EvaluatorPayVariance => evaluators.pay.variance(),
            Metric::EvaluatorNet => evaluators.net.mean(),
            Metric::EvaluatorNetVariance => evaluators.net.variance(),
            Metric::InferencePay => inference.pay.mean(),
            Metric::InferencePayVariance => inference.pay.variance(),
            Metric::InferenceNet => inference.net.mean(),
            Metric::InferenceNetVariance => inference.net.variance(),
            Metric::AttackerPay => per(attackers().paid(), attackers().duties),
            Metric::HonestSlashed => per(evaluators.slashed / outcome.at_risk.1, evaluators.duties),
            Metric::AttackerSlashed => {
                let (f, m) = (outcome.malicious(Role::Inference), outcome.malicious(Role::Evaluator));
                per(f.slashed / outcome.at_risk.0 + m.slashed / outcome.at_risk.1, f.duties + m.duties)
            }
            Metric::HonestTrust => (evaluators.nodes > 0).then_some(evaluators.trust),
            Metric::AttackerTrust => {
                let of = outcome.malicious(Role::Evaluator);
                (of.nodes > 0).then_some(of.trust)
            }
            Metric::Capped => outcome.trust.last().map(|point| point.capped),
            Metric::RankTrueNet => outcome.rank_agreement(|node| node.true_net),
            Metric::RankQualityPerTime => {
                outcome.rank_agreement(|node| Some(node.quality? / node.latency_ms?))
            }
        }
    }
}

/// What several replications of one configuration came to.
#[derive(Clone, Debug)]
pub struct Summary {
    estimates: Vec<Option<Estimate>>,
    /// The stake at risk at which the attack breaks even, from all replications together.
    pub break_even: Option<BreakEven>,
}

impl Summary {
    /// Of these replications; at least one.
    pub fn of(outcomes: &[Outcome]) -> Summary {
        let estimates = Metric::ALL
            .iter()
            .map(|metric| estimate(outcomes.iter().filter_map(|outcome| metric.of(outcome))))
            .collect();
        let break_even = outcomes.split_first().and_then(|(first, others)| {
            let mut all = first.clone();
            for outcome in others {
                for (sum, group) in all.groups.iter_mut().zip(&outcome.groups) {
                    sum.absorb(group);
                }
            }
            all.break_even()
        });
        Summary { estimates, break_even }
    }

    /// A metric with its confidence interval; `None` where no replication has it.
    pub fn get(&self, metric: Metric) -> Option<Estimate> {
        let at = Metric::ALL.iter().position(|m| *m == metric)?;
        self.estimates[at]
    }

    /// A metric's mean; not a number where no replication has it.
    pub fn mean(&self, metric: Metric) -> f64 {
        self.get(metric).map_or(f64::NAN, |estimate| estimate.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attack_breaks_even_where_its_gain_is_what_it_is_slashed() {
        let of = |attacker, honest| BreakEven::of(attacker, honest, 1.0);
        assert_eq!(of((0.5, 0.2), (0.8, 0.0)), BreakEven::Unprofitable);
        assert_eq!(of((1.0, 0.25), (0.5, 0.0)), BreakEven::At(2.0));
        assert_eq!(of((1.0, 0.0), (0.5, 0.0)), BreakEven::Never);
        assert_eq!(of((0.5, 0.0), (0.8, 0.1)), BreakEven::Unprofitable);
        assert_eq!(of((0.79, 0.0), (0.8, 0.1)), BreakEven::Never);
    }
}
