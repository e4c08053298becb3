//! Dishonest workers on the real contract, and the same run in the simulator's books: they agree to the last unit.

use std::time::Duration;

use poq_chain::types::{Ending, KindParams, NodeStatus, OutputState, Phase, SeatState, TrustRule};
use poq_chain::{messages, PoqEvent};
use poq_core::Ratio;
use poq_sandbox::SandboxConfig;
use poq_simulator::live::{Book, Recorded};
use poq_worker::config::AdversaryConfig;
use poq_worker::{Worker, WorkerHandle};

use crate::support::{Net, Node, Scripts, PATIENCE};

fn params() -> KindParams {
    KindParams { panel_min: 5, panel_max: 5, outputs_max: 3, ..KindParams::without_auditors() }
}

/// Two inference nodes and four evaluators that are honest, and one evaluator that is not (or, with `answering`, two dishonest
/// inference nodes beside one honest one). A fifth of the evaluators: what the rules are made to stand.
struct Lab {
    net: Net,
    honest: Vec<Node>,
    dishonest: Vec<Node>,
    workers: Vec<WorkerHandle>,
    _scripts: Scripts,
}

impl Lab {
    async fn start(attack: &str, answering: bool) -> Lab {
        let net = Net::with_params(params()).await;
        let scripts = Scripts::new();
        let (honest, dishonest) = if answering {
            (net.scripted(1, 5, "//honest").await, net.scripted(2, 0, "//dishonest").await)
        } else {
            (net.scripted(2, 4, "//honest").await, net.scripted(0, 1, "//dishonest").await)
        };
        let mut workers = vec![net.work("honest", &honest, &scripts).await];
        let mut config = net.config("dishonest", &dishonest);
        config.keeper.enabled = false;
        config.adversary = Some(AdversaryConfig {
            attack: attack.into(),
            nodes: dishonest.iter().map(|node| node.id).collect(),
            seed: 7,
        });
        let worker = Worker::start(config, net.deps(&dishonest, scripts.models()).await).await.unwrap();
        worker.ready(PATIENCE).await.unwrap();
        workers.push(worker);
        Lab { net, honest, dishonest, workers, _scripts: scripts }
    }

    /// Asks, and lets time pass where only dishonest nodes are waited for. How it ended.
    async fn round(&self, question: &str, outputs: u8) -> Ending {
        let id = self.net.ask(question, outputs, 5).await;
        let begun = std::time::Instant::now();
        loop {
            let task = self.net.task(id).await.task;
            if task.phase.is_final() {
                return task.ending;
            }
            let honest = |node: u32| self.honest.iter().any(|honest| honest.id == node);
            let answered =
                task.outputs.iter().filter(|slot| honest(slot.node)).all(|slot| slot.committed_at > 0);
            let seats = || task.panel.iter().filter(|seat| honest(seat.node));
            let done = match task.phase {
                Phase::Inferring => answered && task.outputs.iter().any(|slot| !honest(slot.node)),
                Phase::Drawing => {
                    task.outputs.iter().any(|slot| slot.state == OutputState::Committed && !honest(slot.node))
                }
                Phase::Scoring => seats().all(|seat| seat.state == SeatState::Committed),
                Phase::Revealing => seats().all(|seat| seat.state == SeatState::Revealed),
                _ => false,
            };
            // Half a second for those who would act by themselves.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let again = self.net.task(id).await.task;
            if done && again.phase == task.phase && again.clock() == task.clock() {
                self.net.chain.advance_ms(10_000).unwrap();
            }
            assert!(begun.elapsed() < PATIENCE, "{again:#?}");
        }
    }

    /// Two duties missed in a row take a node out of the draws; its owner puts it back.
    async fn resume(&self) {
        for node in &self.dishonest {
            if self.net.node(node.id).await.node.status == NodeStatus::Draining {
                let owner = self.net.client.submitter(node.owner.clone());
                owner.send(messages::resume(node.id)).await.unwrap();
            }
        }
    }

    /// Plays the run through the simulator's books and compares every number; returns what an honest and a dishonest node got
    /// per task on average, less what they lost.
    async fn compare(self, role_is_evaluator: bool) -> (i128, i128) {
        let mut book = Book::new(params()).unwrap();
        let mut settled = 0;
        for emitted in self.net.emitted().await {
            match &emitted.event {
                PoqEvent::TaskClosed(event) => {
                    let recorded = Recorded {
                        task: event.task,
                        at: emitted.block.timestamp_ms,
                        seed: &event.seed,
                        input: &event.input,
                        output_nodes: &event.output_nodes,
                        panel_nodes: &event.panel_nodes,
                    };
                    let settlement = book.settle(&recorded).unwrap();
                    assert_eq!(settlement, event.settlement, "task {}", event.task);
                    settled += 1;
                }
                PoqEvent::PanelDrawn(event) => {
                    event.vacated.iter().for_each(|penalty| book.penalise(penalty.node, penalty.amount));
                }
                _ => {}
            }
        }
        assert!(settled > 0);
        let mut means = [(0i128, 0i128); 2];
        for (side, nodes) in [&self.honest, &self.dishonest].into_iter().enumerate() {
            for node in nodes {
                let on_chain = self.net.node(node.id).await.node;
                let purse = book.purse(node.id);
                assert_eq!(on_chain.claimable + on_chain.withdrawn, purse.earned, "node {}", node.id);
                assert_eq!(on_chain.slashed, purse.slashed, "node {}", node.id);
                if let Some(trust) = book.trust(node.id) {
                    assert_eq!(on_chain.trust, trust, "node {}", node.id);
                }
                if (node.role == poq_chain::types::Role::Evaluator) == role_is_evaluator {
                    means[side].0 += purse.earned as i128 - purse.slashed as i128;
                    means[side].1 += i128::from(purse.settled);
                }
            }
        }
        let owed = self.net.client.view().await.unwrap().liabilities().await.unwrap();
        assert_eq!((owed.treasury, owed.burned), (book.treasury(), book.burned()));
        for worker in self.workers {
            worker.shutdown();
            worker.wait().await.unwrap();
        }
        let [honest, dishonest] = means.map(|(net, tasks)| net / tasks.max(1));
        println!("per task: honest {honest}, dishonest {dishonest}");
        (honest, dishonest)
    }
}

async fn lab(attack: &str, rounds: usize) -> (i128, i128) {
    let lab = Lab::start(attack, false).await;
    for round in 0..rounds {
        let ending = lab.round(&format!("Question {round} under {attack}?"), 2).await;
        assert_eq!(ending, Ending::Consensus);
        lab.resume().await;
    }
    lab.compare(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn boosters_earn_less_than_honest_evaluators() {
    let (honest, dishonest) = lab("boosting=0.5", 8).await;
    assert!(dishonest < honest, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn constant_scorers_earn_less_than_honest_evaluators() {
    // The first tasks of a kind have nothing to tell a constant from a score by.
    let (honest, dishonest) = lab("constant", 14).await;
    assert!(dishonest < honest, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_never_reveal_lose_their_stake_at_risk() {
    let (honest, dishonest) = lab("never-reveal", 2).await;
    assert!(honest > 0);
    let (params, fee) = (params(), 10 * poq_core::params::UNIT);
    let slot = params.split(fee, 2, 5).unwrap().evaluator_slot;
    let lost = params.unrevealed_penalty.of(params.evaluator_at_risk(slot));
    assert_eq!(dishonest, -(lost as i128), "all that is at risk, every time");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_reveal_only_what_looks_good_do_not_gain() {
    let (honest, dishonest) = lab("reveal-if-good=0.05", 5).await;
    assert!(dishonest < honest, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_inference_nodes_are_paid_less() {
    let lab = Lab::start("slow-delivery=45", true).await;
    for round in 0..4 {
        lab.round(&format!("How slow is number {round}?"), 2).await;
    }
    let (honest, dishonest) = lab.compare(false).await;
    assert!(dishonest < honest, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_that_there_is_no_input_are_slashed_by_those_who_have_it() {
    let (honest, dishonest) = lab("claim-no-input", 2).await;
    assert!(honest > 0 && dishonest < 0, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_withholds_its_opening_ends_the_task_and_pays_for_it() {
    let lab = Lab::start("withhold-opening", true).await;
    let ending = lab.round("Who opens?", 3).await;
    assert_eq!(ending, Ending::Unopened);
    // Whoever opened has its whole slot.
    let (honest, dishonest) = lab.compare(false).await;
    assert!(honest > 0 && dishonest < 0, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_declines_what_others_deliver_is_slashed() {
    let lab = Lab::start("decline", true).await;
    let ending = lab.round("Who delivers?", 3).await;
    assert_eq!(ending, Ending::Consensus);
    let (honest, dishonest) = lab.compare(false).await;
    assert!(honest > 0 && dishonest < 0, "{dishonest} against {honest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dishonest_nodes_run_on_development_chains_only() {
    let config = SandboxConfig { chain_type: "Live", ..SandboxConfig::default() };
    let net = Net::on(config, params()).await;
    let nodes = net.scripted(0, 1, "//dishonest").await;
    let scripts = Scripts::new();
    let mut config = net.config("dishonest", &nodes);
    config.adversary =
        Some(AdversaryConfig { attack: "boosting".into(), nodes: [nodes[0].id].into(), seed: 1 });
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    let error = worker.wait().await.unwrap_err().to_string();
    assert!(error.contains("Live") && error.contains("development chains only"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_that_there_is_not_is_refused_with_those_that_there_are() {
    let net = Net::start().await;
    let nodes = net.scripted(0, 1, "//dishonest").await;
    let scripts = Scripts::new();
    for (attack, corrupt, word) in
        [("bosting", nodes[0].id, "there are: noise"), ("noise", 99, "does not run")]
    {
        let mut config = net.config("dishonest", &nodes);
        config.adversary = Some(AdversaryConfig { attack: attack.into(), nodes: [corrupt].into(), seed: 1 });
        let deps = net.deps(&nodes, scripts.models()).await;
        let error = Worker::start(config, deps).await.err().unwrap().to_string();
        assert!(error.contains("adversary") && error.contains(word), "{error}");
    }
}

/// The rule that only openings move, live: nobody's trust moves without one.
#[tokio::test(flavor = "multi_thread")]
async fn anchored_trust_stays_where_nothing_is_audited() {
    let rate = Ratio::from_permille(500);
    let params = KindParams { trust: TrustRule::Anchored { rate }, ..KindParams::without_auditors() };
    let net = Net::with_params(params.clone()).await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    for round in 0..5 {
        let id = net.ask(&format!("Question {round}?"), 1, 3).await;
        net.settled(id).await;
    }
    for node in &nodes[1..] {
        assert_eq!(net.node(node.id).await.node.trust, params.trust_initial);
    }
    worker.shutdown();
    worker.wait().await.unwrap();
}
