//! What each failure costs whom: nobody gains from one of its own making, on the shipped parameters, in every shape of a task.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

use poq_core::params::{KEEPER_STEPS, UNIT};
use poq_core::settlement::Ending;
use poq_core::units::Balance;
use poq_core::KindParams;
use poq_simulator::failures::{markdown, table, Costs, Failure, Who};
use poq_simulator::rules::{RECOMMENDED, UNAUDITED};
use poq_simulator::{Crowd, Effort, Job, Metric, Setting, Spread, Summary, World};

/// What an answer and scoring cost off the chain, as shares of a slot: the lab's assumption ([`World::standard`]).
const ANSWER: f64 = 0.2;
const SCORING: f64 = 0.1;

/// Every number of answers, every size of a panel, the smallest fee, the usual one and the largest.
fn shapes() -> Vec<Setting> {
    let params = KindParams::default();
    let mut shapes = Vec::new();
    for outputs in 1..=params.outputs_max {
        for panel in params.panel_min..=params.panel_max {
            let least = params.fee_min(outputs, panel).unwrap();
            for fee in [least, 10 * UNIT, params.fee_max] {
                shapes.push(Setting { params: params.clone(), outputs, panel, fee, ..Setting::default() });
            }
        }
    }
    shapes
}

fn signed(amount: Balance) -> i128 {
    i128::try_from(amount).unwrap()
}

/// A slot's share, rounded up.
fn share(slot: Balance, share: f64) -> i128 {
    (slot as f64 * share).ceil() as i128
}

fn each(check: impl Fn(&Setting, &dyn Fn(Failure) -> Costs)) {
    for setting in shapes() {
        let all = table(&setting).unwrap();
        check(&setting, &|failure| all.iter().find(|c| c.failure == failure).unwrap().clone());
    }
}

/// Every failure ends as the protocol says.
#[test]
fn failures_end_as_they_should() {
    each(|setting, of| {
        let alone = |otherwise| if setting.outputs == 1 { Ending::Undelivered } else { otherwise };
        for (failure, ending) in [
            (Failure::None, Ending::Consensus),
            (Failure::SecretWithheld, Ending::NoSecret),
            (Failure::InputWithheld, Ending::InputUnavailable),
            (Failure::AllWithheld, Ending::Undelivered),
            (Failure::NodeMisses, alone(Ending::Consensus)),
            (Failure::NodeDeclines, alone(Ending::Consensus)),
            (Failure::NodeHides, Ending::Unopened),
            (Failure::NodeAnswersBadly, Ending::Consensus),
            (Failure::NoPanel, Ending::NoPanel),
            (Failure::EvaluatorHides, Ending::Consensus),
            (Failure::PanelMisses, Ending::BelowQuorum),
            (Failure::PanelHides, Ending::BelowQuorum),
            (Failure::PanelClaimsNoInput, Ending::InputUnavailable),
        ] {
            assert_eq!(of(failure).ending, ending, "{failure:?}");
        }
    });
}

/// All of the fee and of every slash is somewhere.
#[test]
fn everything_that_is_paid_is_somewhere() {
    each(|setting, of| {
        for failure in Failure::ALL.into_iter().filter(|f| *f != Failure::NodesMiss || setting.outputs > 1) {
            let costs = of(failure);
            let (nodes, seats) = match failure.by() {
                Who::Node | Who::Nodes => (costs.culprits, 0),
                Who::Evaluator | Who::Panel => (0, costs.culprits),
                Who::Nobody | Who::Requester => (0, 0),
            };
            let times = |count: usize, gets: Option<i128>| count as i128 * gets.unwrap_or(0);
            let sum = times(costs.culprits, costs.culprit)
                + times(usize::from(setting.outputs) - nodes, costs.node)
                + times(usize::from(setting.panel) - seats, costs.evaluator)
                + costs.treasury
                + costs.burned;
            assert_eq!(sum, costs.requester, "{failure:?}");
        }
    });
}

/// A requester that lets its task fail after a delivery pays at least what an honest one pays, and gets no judgement for it.
#[test]
fn no_failure_after_a_delivery_is_cheaper_for_a_requester_than_honesty() {
    each(|_, of| {
        for failure in [Failure::SecretWithheld, Failure::InputWithheld] {
            assert!(of(failure).cost >= 0, "{failure:?}");
            assert!(of(failure).requester >= of(Failure::None).requester);
        }
    });
}

/// w ≥ N·δ·r: who asks for work and gives nobody anything to work on burns more than it takes from the nodes.
#[test]
fn withholding_everything_costs_a_requester_more_than_it_costs_the_nodes() {
    each(|setting, of| {
        let costs = of(Failure::AllWithheld);
        let lost: i128 = -costs.node.unwrap() * i128::from(setting.outputs);
        assert!(costs.requester >= signed(setting.params.keeper_fee * Balance::from(KEEPER_STEPS)));
        assert!(costs.requester > lost && lost >= 0, "pays {}, nodes lose {lost}", costs.requester);
        // Where one declines and the others say nothing at all, nobody is let off: still less than what is burned.
        let at_risk = setting.params.inference_at_risk(setting.split().unwrap().inference_slot);
        let owed = setting.params.decline_penalty.of(at_risk);
        assert!(costs.requester >= signed(owed) * i128::from(setting.outputs));
    });
}

/// Hiding is dearer than silence, silence at least as dear as answering badly, that at least as dear as declining, and all of them
/// are worse than an answer, what it costs to make counted.
#[test]
fn an_inference_nodes_failures_are_ordered() {
    each(|setting, of| {
        let slot = setting.split().unwrap().inference_slot;
        let gets = |failure| of(failure).culprit.unwrap();
        let honest = of(Failure::NodeMisses).instead_of.unwrap() - share(slot, ANSWER);
        let (hides, misses) = (gets(Failure::NodeHides), gets(Failure::NodeMisses));
        let (declines, badly) = (gets(Failure::NodeDeclines), gets(Failure::NodeAnswersBadly));
        assert!(hides < misses && misses <= badly && badly <= declines);
        assert!(badly < 0 && declines < 0 && honest > 0, "{honest}");
    });
}

/// Who alone was asked and cannot answer says so: it is cheaper than silence and than nonsense. And no node lives on declining.
#[test]
fn who_alone_was_asked_and_cannot_answer_declines() {
    each(|setting, of| {
        if setting.outputs == 1 {
            let gets = |failure| of(failure).culprit.unwrap();
            assert!(gets(Failure::NodeDeclines) > gets(Failure::NodeAnswersBadly));
            assert!(gets(Failure::NodeDeclines) > gets(Failure::NodeMisses));
        }
    });
}

/// Of two nodes in one hand none gains by hiding the other's output, though who opened is paid without being judged.
#[test]
fn two_nodes_in_one_hand_gain_nothing_by_hiding_one_of_two_outputs() {
    each(|setting, of| {
        if setting.outputs == 2 {
            let costs = of(Failure::NodeHides);
            let gained = costs.node.unwrap() - costs.instead_of.unwrap();
            assert!(costs.cost > gained, "gains {gained}, costs {}", costs.cost);
        }
    });
}

/// Nodes without a model must not live on outputs that nobody judges: where all nodes of a task are in one hand, one hides its output
/// and the others are paid for nonsense.
#[test]
fn nodes_without_a_model_do_not_live_on_hidden_outputs() {
    each(|setting, of| {
        let costs = of(Failure::NodeHides);
        let others = i128::from(setting.outputs) - 1;
        let sum = costs.culprit.unwrap() + others * costs.node.unwrap_or(0);
        let (n, k, fee) = (setting.outputs, setting.panel, setting.fee / UNIT);
        assert!(sum <= 0, "{n} nodes, a panel of {k}, {fee} UNIT: they get {sum} for nothing");
    });
}

/// An evaluator's failures: hiding is dearer than silence, silence at least as dear as nonsense, and honest scores earn more than
/// they cost to make.
#[test]
fn an_evaluators_failures_are_ordered() {
    each(|setting, of| {
        let slot = setting.split().unwrap().evaluator_slot;
        let gets = |failure| of(failure).culprit.unwrap();
        let honest = of(Failure::EvaluatorMisses).instead_of.unwrap() - share(slot, SCORING);
        let misses = gets(Failure::EvaluatorMisses);
        assert!(gets(Failure::EvaluatorHides) < misses && misses < 0 && honest > 0);
        for failure in
            [Failure::EvaluatorClaimsNoInput, Failure::EvaluatorAbstains, Failure::EvaluatorIsOutlier]
        {
            assert!((misses..0).contains(&gets(failure)), "{failure:?}: {} of {misses}", gets(failure));
        }
        // An outlier owes one slot at most.
        assert!(-gets(Failure::EvaluatorIsOutlier) <= signed(slot));
    });
}

/// No part of a panel gains by making a task fail, not even together with the requester: nothing that evaluators do not earn goes
/// back to it.
#[test]
fn no_coalition_of_evaluators_and_requester_gains_from_a_failure() {
    each(|setting, of| {
        let slot = setting.split().unwrap().evaluator_slot;
        for failure in [
            Failure::EvaluatorMisses,
            Failure::EvaluatorHides,
            Failure::EvaluatorClaimsNoInput,
            Failure::EvaluatorAbstains,
            Failure::EvaluatorIsOutlier,
            Failure::PanelMisses,
            Failure::PanelHides,
            Failure::PanelClaimsNoInput,
        ] {
            let costs = of(failure);
            // They save the work of scoring.
            let saved = share(slot, SCORING) * costs.culprits as i128;
            let paid_more = costs.requester - of(Failure::None).requester;
            assert!(costs.cost > saved, "{failure:?}");
            assert!(costs.cost + paid_more > saved, "{failure:?}");
        }
    });
}

/// v·S ≤ g: saying that there was no input pays less than what a transaction is worth to a keeper, and less than a hundredth of what
/// looking earns: a panel that does not look lives on nothing.
#[test]
fn a_panel_that_says_that_there_was_no_input_earns_next_to_nothing() {
    each(|setting, of| {
        let costs = of(Failure::PanelClaimsNoInput);
        let (gets, instead_of) = (costs.culprit.unwrap(), costs.instead_of.unwrap());
        assert!(gets >= 0 && gets <= signed(setting.params.keeper_fee));
        assert!(100 * gets < instead_of);
    });
}

/// c ≤ d: what a node gets for a delivery without a consensus covers its work, whoever is to blame.
#[test]
fn whoever_delivered_is_paid_for_its_work() {
    each(|setting, of| {
        let slot = setting.split().unwrap().inference_slot;
        for failure in [
            Failure::SecretWithheld,
            Failure::InputWithheld,
            Failure::NoPanel,
            Failure::PanelMisses,
            Failure::PanelHides,
            Failure::PanelClaimsNoInput,
        ] {
            assert!(of(failure).node.unwrap() > share(slot, ANSWER), "{failure:?}");
        }
        if setting.outputs > 1 {
            assert!(of(Failure::NodeHides).node.unwrap() > share(slot, ANSWER));
        }
    });
}

/// d < q, and d·π·S < (1 − π)·penalty with π the share of tasks that end without a consensus: nodes earn more by a consensus than
/// without, and who delivers nonsense and hopes that nobody judges it loses, in an honest network ten times over.
#[test]
fn answers_earn_more_judged_than_unjudged_and_nonsense_loses() {
    let effort = Effort { rounds: 2_000, replications: 3, seed: 9 };
    for spread in Spread::ALL {
        let world = World::standard(spread).unwrap();
        for rules in [RECOMMENDED, UNAUDITED] {
            let setting = rules.setting();
            let params = setting.params.clone();
            let slot = setting.split().unwrap().inference_slot as f64;
            let job = Job { world: &world, setting, crowd: Crowd::default() };
            let of = Summary::of(&job.outcomes(effort).unwrap());
            let earned = of.mean(Metric::InferencePay) * UNIT as f64 / slot;
            assert!(earned > params.delivery_share.to_f64(), "{earned} of a slot");
            let failed = 1.0 - of.mean(Metric::SettledShare);
            each(|setting, of| {
                let slot = setting.split().unwrap().inference_slot as f64;
                let unjudged = params.delivery_share.to_f64() * slot;
                let judged = -of(Failure::NodeAnswersBadly).culprit.unwrap() as f64;
                assert!(10.0 * failed * unjudged < (1.0 - failed) * judged, "{failed}");
            });
        }
    }
}

/// The table of docs/economics.md is the program's.
#[test]
fn the_documented_table_is_the_programs() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/economics.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let costs = table(&Setting { params: KindParams::default(), ..Setting::default() }).unwrap();
    assert!(
        docs.contains(&markdown(&costs)),
        "the table of `poq simulate failures --markdown` is not in docs/economics.md:\n{}",
        markdown(&costs)
    );
}
