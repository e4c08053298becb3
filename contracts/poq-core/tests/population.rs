//! What the rules do to a population of evaluators over many tasks: seeded simulations of the real settlement, with
//! margins wide enough for any seed.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

mod common;

use common::{blake2, Rng};
use poq_core::formulas::settlement::{
    audit, Answer, AuditInput, Conduct, Ending, EvaluatorInput, OutputInput, TrustState,
};
use poq_core::kind::Population;
use poq_core::params::UNIT;
use poq_core::units::Millis;
use poq_core::{settle, Aggregation, KindParams, MeritRule, Ratio, Score, SettlementInput, TrustRule};

/// One task in so many is gold: only those move trust.
const GOLD: usize = 10;

fn quantise(x: f64) -> Ratio {
    Ratio::from_f64(x)
}

/// How an evaluator scores.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Behaviour {
    /// The true quality plus noise of this standard deviation.
    Honest(f64),
    /// The same number whatever the output: the best there is, the usual quality.
    Constant(f64),
    /// Honest, but abstains on outputs that look ordinary, where an information gain cannot be large.
    Choosy(f64),
    /// Sees as the honest do, knows every value that it will be compared with, and reports what gains most against them.
    Foreseeing(f64),
}

struct World {
    params: KindParams,
    behaviours: Vec<Behaviour>,
    outputs: usize,
    panel: usize,
    fee: u128,
    tasks: usize,
    seed: u64,
}

#[derive(Default)]
struct Outcome {
    /// What an evaluator earned less what it lost, in units of an evaluator's slot.
    pay: Vec<f64>,
    /// The same per task that it sat in.
    pay_per_task: Vec<f64>,
    trust: Vec<f64>,
    /// The lowest mean trust that the honest ever had after the first tenth.
    lowest_honest_trust: f64,
    /// The share of gains above x_ref in the second half.
    above_reference: f64,
    /// Mean absolute error of the consensus over the second half.
    error: f64,
}

const MEAN: f64 = 0.65;
const SPREAD: f64 = 0.18;
const SECOND: Millis = 1_000;

impl World {
    fn run(&self) -> Outcome {
        let mut rng = Rng(self.seed);
        let count = self.behaviours.len();
        let newcomer = TrustState { trust: self.params.trust_initial, gain_average: 0 };
        let mut states = vec![newcomer; count];
        let mut dues = vec![0; count];
        let mut population = Population::new(&self.params);
        let mut out = Outcome { pay: vec![0.0; count], lowest_honest_trust: 1.0, ..Outcome::default() };
        let mut seats = vec![0u32; count];
        let (mut gains, mut above) = (0u32, 0u32);
        let fee = self.fee;
        let slot =
            self.params.split(fee, self.outputs as u8, self.panel as u8).unwrap().evaluator_slot as f64;
        let (mut errors, mut measured) = (0.0, 0u32);
        for task in 0..self.tasks {
            let settled_at = (task as u64 + 1) * 60 * SECOND;
            let known: Vec<f64> = population
                .ring
                .entries
                .iter()
                .filter(|e| e.settled_at > 0)
                .map(|e| float(e.quality))
                .collect();
            let truth: Vec<f64> =
                (0..self.outputs).map(|_| (MEAN + SPREAD * rng.normal()).clamp(0.0, 1.0)).collect();
            let trust: Vec<Ratio> = states.iter().map(|state| state.trust).collect();
            let members = draw(&mut rng, &trust, self.panel);
            let panel: Vec<EvaluatorInput> = members
                .iter()
                .map(|m| EvaluatorInput {
                    conduct: Conduct::Revealed(
                        truth.iter().map(|q| score(&mut rng, self.behaviours[*m], *q, &known)).collect(),
                    ),
                    latency_ms: 5 * SECOND,
                    trust: trust[*m],
                    due: dues[*m],
                })
                .collect();
            let input = SettlementInput {
                ending: Ending::Consensus,
                fee,
                keepers: 0,
                early: false,
                inline: false,
                outputs: vec![
                    OutputInput { answer: Answer::Delivered { latency_ms: 5 * SECOND }, price: 0 };
                    self.outputs
                ],
                panel,
                population: population.clone(),
            };
            let settled = settle(&self.params, &input).unwrap();
            for (m, e) in members.iter().zip(&settled.panel) {
                seats[*m] += 1;
                dues[*m] = e.due;
                if let (Some(gain), true) = (e.gain, task * 2 > self.tasks) {
                    gains += 1;
                    above += u32::from(gain > population.reference.signed());
                }
                out.pay[*m] += (e.payout as f64 - e.slashed as f64) / slot;
            }
            if task * 2 > self.tasks {
                for (o, q) in settled.outputs.iter().zip(&truth) {
                    if let Some(quality) = o.quality {
                        errors += (float(quality) - q).abs();
                        measured += 1;
                    }
                }
            }
            population.absorb(&self.params, &settled, &blake2(&task.to_le_bytes()), settled_at);
            if task % GOLD == 0 {
                let opened = AuditInput {
                    truth: truth.iter().map(|q| Some(quantise(*q))).collect(),
                    scores: input
                        .panel
                        .iter()
                        .map(|e| match &e.conduct {
                            Conduct::Revealed(scores) => Some(scores.clone()),
                            _ => None,
                        })
                        .collect(),
                    panel: members.iter().map(|m| states[*m]).collect(),
                    population: population.clone(),
                };
                let moved = audit(&self.params, &opened);
                members.iter().zip(moved.panel).for_each(|(m, state)| states[*m] = state);
                population.gain_average = moved.gain_average;
            }
            if task * 10 > self.tasks {
                let now: Vec<f64> = states.iter().map(|state| float(state.trust)).collect();
                out.lowest_honest_trust = out.lowest_honest_trust.min(self.mean(&now, honest));
            }
        }
        out.trust = states.iter().map(|state| float(state.trust)).collect();
        out.pay_per_task = out.pay.iter().zip(&seats).map(|(pay, n)| pay / f64::from((*n).max(1))).collect();
        out.above_reference = f64::from(above) / f64::from(gains.max(1));
        out.error = errors / f64::from(measured.max(1));
        out
    }

    /// The mean of `values` over the evaluators that behave as `which` says.
    fn mean(&self, values: &[f64], which: fn(&Behaviour) -> bool) -> f64 {
        let of: Vec<f64> =
            self.behaviours.iter().zip(values).filter(|(b, _)| which(b)).map(|(_, v)| *v).collect();
        of.iter().sum::<f64>() / of.len() as f64
    }
}

fn honest(b: &Behaviour) -> bool {
    *b == Behaviour::Honest(0.08)
}

fn others(b: &Behaviour) -> bool {
    !honest(b)
}

fn float(ratio: Ratio) -> f64 {
    f64::from(ratio.ppb()) / 1e9
}

fn score(rng: &mut Rng, behaviour: Behaviour, truth: f64, known: &[f64]) -> Score {
    match behaviour {
        Behaviour::Honest(noise) => Score::of(quantise(truth + noise * rng.normal())),
        Behaviour::Constant(value) => Score::of(quantise(value)),
        Behaviour::Choosy(noise) => {
            let seen = truth + noise * rng.normal();
            if (seen - MEAN).abs() < 0.5 * SPREAD {
                Score::UNAVAILABLE
            } else {
                Score::of(quantise(seen))
            }
        }
        Behaviour::Foreseeing(noise) => {
            let seen = truth + noise * rng.normal();
            let away = |x: f64, from: &[f64]| {
                from.iter().map(|q| (x - q).abs()).sum::<f64>() / from.len().max(1) as f64
            };
            // The panel's consensus is as likely to be here as there: eleven quantiles of a normal distribution.
            let quantiles = [-1.73, -1.1, -0.75, -0.47, -0.23, 0.0, 0.23, 0.47, 0.75, 1.1, 1.73];
            let consensus: Vec<f64> = quantiles.iter().map(|z| seen + z * noise).collect();
            let gain = |x: &f64| away(*x, known) - away(*x, &consensus);
            let grid = (0..=100).map(|i| f64::from(i) / 100.0);
            Score::of(quantise(grid.max_by(|a, b| gain(a).total_cmp(&gain(b))).unwrap_or(seen)))
        }
    }
}

/// A panel without repetition, drawn in proportion to trust.
fn draw(rng: &mut Rng, trust: &[Ratio], panel: usize) -> Vec<usize> {
    let mut members: Vec<usize> = Vec::new();
    while members.len() < panel {
        let at = (rng.next() % trust.len() as u64) as usize;
        if !members.contains(&at) && rng.uniform() * 1e9 < f64::from(trust[at].ppb()) {
            members.push(at);
        }
    }
    members
}

fn population(honest: usize, others: usize, behaviour: Behaviour) -> Vec<Behaviour> {
    let mut all = vec![Behaviour::Honest(0.08); honest];
    all.extend(vec![behaviour; others]);
    all
}

fn world(params: KindParams, behaviours: Vec<Behaviour>) -> World {
    World { params, behaviours, outputs: 2, panel: 5, fee: 10 * UNIT, tasks: 3_000, seed: 42 }
}

/// The information rule with trust that gold tasks move, a newcomer trusted a fifth.
fn informed() -> KindParams {
    KindParams {
        trust: TrustRule::RelativeMerit { rate: Ratio::from_permille(50) },
        trust_initial: Ratio::from_permille(200),
        ..KindParams::default()
    }
}

fn closeness() -> KindParams {
    KindParams {
        aggregation: Aggregation::TrustWeightedMedian,
        merit: MeritRule::Closeness,
        trust: TrustRule::Centred { up: Ratio::from_permille(100), down: Ratio::from_permille(500) },
        trust_initial: Ratio::from_permille(500),
        ..informed()
    }
}

/// Under closeness 30 % who always say the usual quality earn as much a task as the honest do; under the information rule they earn
/// little a task and are hardly ever drawn.
#[test]
fn a_constant_score_earns_next_to_nothing_by_information_and_the_most_by_closeness() {
    for outputs in [1, 2, 4] {
        let with = |params| {
            let world = World { outputs, ..world(params, population(42, 18, Behaviour::Constant(MEAN))) };
            let outcome = world.run();
            let relative = |values: &[f64]| world.mean(values, others) / world.mean(values, honest);
            (relative(&outcome.pay), relative(&outcome.pay_per_task), outcome.error)
        };
        let (pay, per_task, error) = with(informed());
        println!("information, {outputs} outputs: pay {pay:.3}, per task {per_task:.3}, error {error:.3}");
        assert!(pay < 0.05 && per_task < 0.3 && error < 0.05);
        let (pay, per_task, error) = with(closeness());
        println!("closeness, {outputs} outputs: pay {pay:.3}, per task {per_task:.3}, error {error:.3}");
        // A constant earns as much as an honest score; only the truth keeps those who give one out of the panels.
        assert!(per_task > 0.8 && pay < 1.0 && error < 0.06);
    }
}

/// Against the whole ring, and a ring as wide as what is compared with it, knowing it is worth little.
#[test]
fn foreseeing_what_one_is_compared_with_earns_little() {
    for outputs in [1, 2, 4] {
        let world = World { outputs, ..world(informed(), population(42, 18, Behaviour::Foreseeing(0.08))) };
        let outcome = world.run();
        let relative = world.mean(&outcome.pay, others) / world.mean(&outcome.pay, honest);
        println!("{outputs} outputs: pay {relative:.3}, error {:.3}", outcome.error);
        assert!(relative < 1.4 && outcome.error < 0.06);
    }
}

#[test]
fn abstaining_on_ordinary_outputs_does_not_pay() {
    for outputs in [1, 2, 4] {
        for params in [informed(), closeness()] {
            let world = World { outputs, ..world(params, population(42, 18, Behaviour::Choosy(0.08))) };
            let outcome = world.run();
            let relative = world.mean(&outcome.pay, others) / world.mean(&outcome.pay, honest);
            println!("{outputs} outputs: pay {relative:.3}, trust {:.3}", world.mean(&outcome.trust, others));
            assert!(relative < 0.9);
        }
    }
}

/// The papers' rule pushes everybody whose deviation is below one half up to the cap, noise or not, after which the
/// trust-weighted mean is the plain mean. The centred rule and relative merit tell the two apart.
#[test]
fn the_multiplicative_rule_saturates_and_the_others_do_not() {
    let with = |trust| {
        let params = KindParams { aggregation: Aggregation::TrustWeightedMedian, trust, ..informed() };
        let world = World { tasks: 15_000, ..world(params, population(42, 18, Behaviour::Honest(0.3))) };
        let outcome = world.run();
        let (good, noisy) = (world.mean(&outcome.trust, honest), world.mean(&outcome.trust, others));
        println!("{trust:?}: {good:.3} {noisy:.3}");
        (outcome, good, noisy)
    };
    let (_, good, noisy) = with(TrustRule::Multiplicative { eta: Ratio::from_permille(100) });
    assert!(good > 0.95 && noisy > 0.9);
    for rule in [
        TrustRule::Centred { up: Ratio::from_permille(200), down: Ratio::from_permille(300) },
        TrustRule::RelativeMerit { rate: Ratio::from_permille(50) },
    ] {
        let (outcome, good, noisy) = with(rule);
        assert!(noisy < 0.7 * good, "{rule:?}: {good} {noisy}");
        assert!(outcome.trust.iter().any(|w| *w < 1.0));
    }
}

/// Newcomers start from their initial trust, not from the floor, in a kind's first tasks too.
#[test]
fn honest_newcomers_keep_their_trust() {
    for seed in 0..5 {
        let world =
            World { seed, tasks: 600, ..world(informed(), population(60, 0, Behaviour::Honest(0.0))) };
        let outcome = world.run();
        println!("{:.3}, at last {:.3}", outcome.lowest_honest_trust, world.mean(&outcome.trust, honest));
        // A newcomer's is 0.2, and it rises with the few gold tasks that it has seen.
        assert!(outcome.lowest_honest_trust >= 0.2);
        assert!(world.mean(&outcome.trust, honest) > 0.3);
    }
}

/// Little merit in one task costs less than what the good tasks earn, at the smallest fee that a kind takes.
#[test]
fn an_honest_evaluator_earns_at_the_least_fee() {
    let params = informed();
    let fee = params.fee_min(1, 5).unwrap();
    let world = World { fee, outputs: 1, ..world(params, population(42, 18, Behaviour::Constant(0.5))) };
    let outcome = world.run();
    println!("{:.3}", world.mean(&outcome.pay_per_task, honest));
    assert!(world.mean(&outcome.pay_per_task, honest) > 0.4);
}

#[test]
fn the_reference_is_the_median_gain() {
    for outputs in [1, 3] {
        let outcome =
            World { outputs, ..world(informed(), population(42, 18, Behaviour::Honest(0.2))) }.run();
        println!("{:.3}", outcome.above_reference);
        assert!((0.42..0.58).contains(&outcome.above_reference));
    }
}
