//! What holds for every population, attack and set of rules: money is conserved after every round, and nothing depends on
//! threads.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

use poq_core::aggregate::Weighted;
use poq_core::params::UNIT;
use poq_core::{Aggregation, KindParams, MeritRule, Ratio};
use poq_simulator::economy::{Ended, Gold, Requester, Round};
use poq_simulator::measure::Metric;
use poq_simulator::rng::Streams;
use poq_simulator::rules::{AGGREGATIONS, MERITS, TRUSTS};
use poq_simulator::{Attack, Crowd, Economy, Effort, Job, Setting, Spread, World};
use proptest::prelude::*;

fn setting() -> impl Strategy<Value = Setting> {
    let rules = (
        prop::sample::select(AGGREGATIONS.to_vec()),
        prop::sample::select(MERITS.to_vec()),
        prop::sample::select(TRUSTS.to_vec()),
    );
    let sizes = (1u8..=4, 3u8..=15, 2u64..=9);
    let gold = prop_oneof![Just(0.0), 0.0..=1.0];
    let requester = prop::sample::select(vec![
        Requester::Honest,
        Requester::WithholdsSecret,
        Requester::WithholdsInput,
        Requester::WithholdsAll,
    ]);
    (rules, sizes, 0.0..0.5, gold, 0.0..=1.0, 0u64..=1, 2u8..=8, requester).prop_map(
        |(
            (aggregation, merit, trust),
            (outputs, panel, fee),
            fault_rate,
            share,
            abused,
            audit,
            inference_risk,
            requester,
        )| {
            let params = KindParams {
                aggregation: aggregation.1,
                merit: merit.1,
                trust: trust.1,
                audit_ms: audit * 30_000,
                // A sixteenth of the least stake, two slots or eight.
                inference_risk,
                stake_min: 100 * UNIT * u128::from(inference_risk),
                stake_cap: 2_000 * UNIT,
                decline_penalty: Ratio::from_ppb(4_000_000 / u32::from(inference_risk)),
                ..KindParams::without_auditors()
            };
            Setting {
                params,
                outputs,
                panel,
                fee: u128::from(fee) * UNIT + 7,
                block_ms: 1_500,
                fault_rate,
                gold: Gold { share, noise: 0.1, abused },
                requester,
            }
        },
    )
}

fn crowd() -> impl Strategy<Value = Crowd> {
    let attack = prop::option::of(prop::sample::select(Attack::ALL.to_vec()));
    (2u32..=8, 4u32..=40, 50u128..=2_000, attack, 0.0..0.95).prop_map(
        |(inference, evaluators, stake, attack, ratio)| Crowd {
            inference,
            evaluators,
            stake: stake * UNIT,
            attack,
            ratio,
        },
    )
}

/// Σ of what a round moved: what the requester paid is somewhere.
fn check(setting: &Setting, round: &Round) -> Result<(), TestCaseError> {
    let paid: u128 = round.entries.iter().map(|e| e.payout).sum();
    match (&round.closed, round.ended) {
        (Some((_, settlement)), Some(Ended::Settled | Ended::Refunded(_))) => {
            prop_assert_eq!(paid + settlement.treasury + settlement.burned + settlement.refund, setting.fee)
        }
        (None, Some(Ended::Refused)) => prop_assert_eq!(paid, 0),
        other => prop_assert!(false, "a round that is neither: {:?}", other),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Counted here from the accounts themselves, after every round: stakes, rewards, escrow, the requester's purse and the
    /// treasury sum to what there was.
    #[test]
    fn money_is_conserved_in_every_round(setting in setting(), crowd in crowd(), seed in any::<u64>()) {
        const ROUNDS: u64 = 40;
        let world = World::standard(Spread::Wide).unwrap();
        let nodes = crowd.nodes(&world).unwrap();
        let count = nodes.len();
        let mut economy =
            Economy::new(&world, &setting, nodes, crowd.attack, ROUNDS, Streams::new(seed, 0)).unwrap();
        let total = |economy: &Economy<'_>| {
            let ledger = economy.ledger();
            let nodes: u128 = (0..count)
                .map(|node| economy.purse(node as u32))
                .map(|purse| purse.free + purse.locked + purse.claimable)
                .sum();
            nodes + ledger.escrow() + ledger.treasury() + ledger.burned() + ledger.requester()
        };
        let start = total(&economy);
        for _ in 0..ROUNDS {
            let round = economy.round().unwrap().clone();
            check(&setting, &round)?;
            prop_assert_eq!(total(&economy), start);
            prop_assert_eq!(economy.ledger().escrow(), 0);
            for node in 0..count {
                prop_assert_eq!(economy.purse(node as u32).locked, 0);
            }
        }
    }
}

/// Every number of every replication, to the last bit.
fn fingerprint(threads: usize) -> Vec<String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { gold: Gold { share: 0.1, noise: 0.1, abused: 0.1 }, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::Intermittent(0.3), 0.3);
        let effort = Effort { rounds: 300, replications: 6, seed: 99 };
        let outcomes = Job { world: &world, setting, crowd }.outcomes(effort).unwrap();
        outcomes.iter().map(|outcome| format!("{outcome:?}")).collect()
    })
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let one = fingerprint(1);
    assert_eq!(one, fingerprint(4));
    assert_ne!(one[0], one[1], "replications differ in their luck");
}

#[test]
fn another_seed_gives_other_numbers_and_the_same_seed_the_same() {
    let world = World::standard(Spread::Wide).unwrap();
    let run = |seed| {
        let job = Job { world: &world, setting: Setting::default(), crowd: Crowd::default() };
        let effort = Effort { rounds: 200, replications: 1, seed };
        Metric::AbsoluteError.of(&job.outcomes(effort).unwrap()[0]).unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Two configurations under one seed see the same tasks and answers, so that their difference is the rules'.
#[test]
fn the_same_seed_gives_the_same_answers_under_other_rules() {
    let world = World::standard(Spread::Wide).unwrap();
    let answers = |aggregation, attack: Option<Attack>| {
        let mut setting = Setting::default();
        setting.params.aggregation = aggregation;
        setting.fault_rate = 0.0;
        let crowd = attack.map_or(Crowd::default(), |a| Crowd::default().attacked(a, 0.3));
        let nodes = crowd.nodes(&world).unwrap();
        let mut economy =
            Economy::new(&world, &setting, nodes, crowd.attack, 50, Streams::new(5, 0)).unwrap();
        (0..50).map(|_| economy.round().unwrap().answers.clone()).collect::<Vec<_>>()
    };
    let median = answers(Aggregation::Median, None);
    assert_eq!(median, answers(Aggregation::Mean, None));
    assert_eq!(median, answers(Aggregation::Median, Some(Attack::Boosting(0.4))));
}

/// The consensus in a settlement is poq-core's aggregate of what the panel revealed.
#[test]
fn the_consensus_is_the_aggregate_of_the_revealed_scores() {
    use poq_core::settlement::Conduct;
    let world = World::standard(Spread::Wide).unwrap();
    let setting = Setting::default();
    let nodes = Crowd::default().nodes(&world).unwrap();
    let mut economy = Economy::new(&world, &setting, nodes, None, 100, Streams::new(6, 0)).unwrap();
    let mut compared = 0;
    for _ in 0..100 {
        let round = economy.round().unwrap();
        let Some((input, settlement)) = &round.closed else { continue };
        for (output, settled) in settlement.outputs.iter().enumerate() {
            let scores: Vec<Weighted> = input
                .panel
                .iter()
                .filter_map(|e| match &e.conduct {
                    Conduct::Revealed(scores) => {
                        Some(Weighted { score: scores[output].quality()?, trust: e.trust })
                    }
                    _ => None,
                })
                .collect();
            if let Some(quality) = settled.quality {
                assert_eq!(
                    poq_core::aggregate::aggregate(setting.params.aggregation, &scores),
                    Some(quality)
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 150);
}

#[test]
fn settings_that_the_contract_would_refuse_are_refused_in_its_words() {
    let world = World::standard(Spread::Wide).unwrap();
    let refused = |change: fn(&mut Setting)| {
        let mut setting = Setting::default();
        change(&mut setting);
        let job = Job { world: &world, setting, crowd: Crowd::default() };
        job.outcomes(Effort { rounds: 1, replications: 1, seed: 1 }).unwrap_err().to_string()
    };
    assert!(refused(|s| s.panel = 2).contains("must be in [3, 15], not 2"));
    assert!(refused(|s| s.panel = 16).contains("not 16"));
    assert!(refused(|s| s.outputs = 5).contains("[1, 4], not 5"));
    assert!(refused(|s| s.fee = 1_000).contains("too small: the contract wants"));
    assert!(refused(|s| s.fault_rate = 1.0).contains("fault_rate"));
    assert!(refused(|s| s.gold.share = 1.5).contains("gold"));
    assert!(refused(|s| s.params.trust_floor = Ratio::ZERO).contains("trust_floor must be above zero"));
    let information = |s: &mut Setting| {
        s.params.merit = MeritRule::Information { step: Ratio::ZERO, floor: Ratio::ZERO };
    };
    assert!(refused(information).contains("the floor of x_ref"));
}
