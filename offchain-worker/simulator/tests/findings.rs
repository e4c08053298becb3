//! The findings that hold with wide margins, on small runs: attacks under the recommended rules, and the scenarios.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

use poq_simulator::rules::{RuleSet, RECOMMENDED, RULE_SETS, UNAUDITED};
use poq_simulator::scenario::{self, Finding};
use poq_simulator::{Attack, Crowd, Effort, Job, Metric, Spread, Summary, World};

const EFFORT: Effort = Effort { rounds: 3_000, replications: 4, seed: 20 };

fn attacked(rules: &RuleSet, spread: Spread, attack: Attack, ratio: f64) -> Summary {
    let world = World::standard(spread).unwrap();
    let job =
        Job { world: &world, setting: rules.setting(), crowd: Crowd::default().attacked(attack, ratio) };
    Summary::of(&job.outcomes(EFFORT).unwrap())
}

/// With one task in ten gold, those who distort, do not look or do not reveal earn less than half of honest nodes, at 30 %
/// and at 45 %, and the consensus stays near the truth.
#[test]
fn under_the_recommended_rules_distorting_and_not_looking_earn_less_than_half() {
    for attack in [
        Attack::Noise(0.3),
        Attack::Boosting(0.4),
        Attack::Sabotage(0.4),
        Attack::CopyCat,
        Attack::Constant(0.0),
        Attack::SharedSignal(1.0),
        Attack::NeverReveal,
        Attack::RevealIfGood(0.2),
        Attack::NoShow,
        Attack::Whitewash(0.9),
    ] {
        for ratio in [0.3, 0.45] {
            let of = attacked(&RECOMMENDED, Spread::Wide, attack, ratio);
            let (profit, error) = (of.mean(Metric::ProfitRatio), of.mean(Metric::AbsoluteError));
            println!("{attack} at {ratio}: profit {profit:.3}, error {error:.3}");
            assert!(profit < 0.5 && error < 0.05, "{attack} at {ratio}: profit {profit}, error {error}");
        }
    }
}

/// The rest earns less than honest nodes or little more, and moves the consensus little.
///
/// Exaggeration earns 1.2 to 1.5, by the seed.
#[test]
fn under_the_recommended_rules_clever_attacks_earn_little_more_and_move_little() {
    for (attack, most) in [
        (Attack::Intermittent(0.3), 0.8),
        (Attack::PanelMajority(0.4), 1.0),
        (Attack::BoostOwn(0.4), 0.7),
        (Attack::Selective(0.08), 0.9),
        (Attack::SybilSplit(4.0), 0.9),
        (Attack::SlowScoring(100.0), 1.0),
        (Attack::Exaggerate(0.08), 1.6),
        (Attack::FreeRide, 1.4),
        (Attack::Lazy(0.5), 0.3),
    ] {
        let of = attacked(&RECOMMENDED, Spread::Wide, attack, 0.3);
        let (profit, error) = (of.mean(Metric::ProfitRatio), of.mean(Metric::AbsoluteError));
        println!("{attack}: profit {profit:.3}, error {error:.3}");
        assert!(profit < most && error < 0.05, "{attack}: profit {profit}, error {error}");
    }
}

/// Where quality varies little, evaluators err more than answers differ: attackers get more, the consensus still holds.
#[test]
fn where_quality_varies_little_the_consensus_still_holds_under_the_recommended_rules() {
    for attack in Attack::ALL.into_iter().filter(|attack| attack.evaluators()) {
        let of = attacked(&RECOMMENDED, Spread::Narrow, attack, 0.3);
        let error = of.mean(Metric::AbsoluteError);
        println!("{attack}: profit {:.3}, error {error:.3}", of.mean(Metric::ProfitRatio));
        assert!(error < 0.06, "{attack}: error {error}");
    }
}

/// Without gold tasks, too, who distorts every score or does not look earns less than half of what honesty does, at 30 %, and who
/// looks at every second task little more than half. Paid task by task, merit was never below zero, and they earned 0.43 to 0.86.
#[test]
fn without_gold_tasks_distorting_and_not_looking_earn_less_than_half_at_30_percent() {
    for spread in Spread::ALL {
        for (attack, most) in [
            (Attack::Boosting(0.4), 0.4),
            (Attack::Sabotage(0.4), 0.4),
            (Attack::Constant(0.0), 0.4),
            (Attack::Whitewash(0.9), 0.4),
            (Attack::Noise(0.3), 0.6),
            (Attack::Lazy(0.5), 0.65),
        ] {
            let profit = attacked(&UNAUDITED, spread, attack, 0.3).mean(Metric::ProfitRatio);
            println!("{attack}: profit {profit:.3}");
            assert!(profit < most, "{attack}, {spread:?}: profit {profit}");
        }
    }
}

/// Why gold tasks: a coalition that pushes its own answers gains by it in a network that only looks at scores.
///
/// In the first protocol it took the network over (more than twice the honest profit, an error above 0.2), because scores moved
/// trust and trust the draws. Now only gold moves trust: without any it keeps its share of the seats, and gains by the tasks in which
/// it happens to have the majority of the panel.
#[test]
fn without_gold_tasks_a_coalition_at_45_percent_gains_by_pushing_its_own_answers() {
    let without = attacked(&UNAUDITED, Spread::Wide, Attack::BoostOwn(0.4), 0.45);
    let with = attacked(&RECOMMENDED, Spread::Wide, Attack::BoostOwn(0.4), 0.45);
    let seats = without.mean(Metric::SeatShare);
    assert!((0.4..0.5).contains(&seats), "{seats}");
    assert!(without.mean(Metric::ProfitRatio) > 1.4 && without.mean(Metric::AbsoluteError) > 0.1);
    assert!(with.mean(Metric::ProfitRatio) < 1.0 && with.mean(Metric::AbsoluteError) < 0.08);
}

/// Honest nodes live: nearly everything settles, and they earn most of their slot.
#[test]
fn without_attackers_honest_nodes_earn_under_every_set_of_rules() {
    let world = World::standard(Spread::Wide).unwrap();
    for rules in &RULE_SETS {
        let setting = rules.setting();
        let slot = setting.split().unwrap().evaluator_slot as f64 / poq_core::params::UNIT as f64;
        let job = Job { world: &world, setting, crowd: Crowd::default() };
        let of = Summary::of(&job.outcomes(EFFORT).unwrap());
        assert!(of.mean(Metric::SettledShare) > 0.999, "{}", rules.name);
        assert!(of.mean(Metric::EvaluatorPay) > 0.7 * slot, "{}", rules.name);
        assert!(of.mean(Metric::Bias).abs() < 0.01, "{}", rules.name);
        assert!(of.mean(Metric::RankTrueNet) > 0.9, "{}", rules.name);
    }
}

fn finding(name: &str) -> Finding {
    let scenario = scenario::ALL.into_iter().find(|s| s.name == name).unwrap();
    let finding = scenario.run(EFFORT).unwrap();
    for claim in &finding.claims {
        println!("{} {}: {:?}", claim.reproduced, claim.claim, claim.evidence);
    }
    finding
}

fn verdicts(name: &str) -> Vec<bool> {
    finding(name).claims.iter().map(|claim| claim.reproduced).collect()
}

#[test]
fn good_and_quick_models_earn_most() {
    assert_eq!(verdicts("cost-aware-ranking"), [true, true]);
}

#[test]
fn robust_rules_beat_the_mean() {
    assert_eq!(verdicts("robust-aggregation"), [true; 4]);
}

/// The variance of R falls with K here, because an evaluator is compared with the others only. The risk relative to pay, which
/// rose with K in the first protocol, does not any more: what is at risk is a multiple of the slot.
#[test]
fn larger_panels_pay_less_each_and_do_not_raise_the_variance() {
    assert_eq!(verdicts("panel-size"), [true, false, true, true]);
}

#[test]
fn multiplicative_trust_saturates() {
    let verdicts = verdicts("trust-saturation");
    assert!(verdicts[0], "multiplicative saturates");
    assert!(verdicts[3], "relative merit tells noisy evaluators from honest ones");
}

#[test]
fn signal_and_robustness_complement_each_other() {
    assert_eq!(verdicts("signal-and-robustness"), [true; 3]);
}

/// Without gold tasks merit alone keeps them down, and it is clipped at zero: by information they earn 0.58 of honest pay. In the
/// first protocol scores moved trust too, which took them out of the draws (less than 0.15); with gold tasks that is still so.
#[test]
fn constant_scorers_earn_by_closeness_less_by_information_and_little_where_there_is_gold() {
    let finding = finding("constant-capture");
    let pay = |claim: usize| finding.claims[claim].evidence[0].value.mean;
    assert!(pay(0) > 0.8, "closeness: {}", pay(0));
    assert!(finding.claims[1].reproduced, "nobody's scores capture a network");
    assert!(finding.claims[2].reproduced, "information without gold: {}", pay(2));
    assert!(finding.claims[3].reproduced, "information with gold: {}", pay(3));
}
