//! Dishonest nodes, for test networks: the simulator's attacks in a worker that is otherwise the honest one.
//!
//! What an attacker decides is [`poq_simulator::live::act`]; this file only tells it what there is to see on the chain.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use poq_chain::types::{Millis, NodeId, Ratio, Score, SeatState, Task, TaskId, TaskView};
use poq_chain::Client;
use poq_core::aggregate::median;
use poq_simulator::live::{act, Plan, Sight};
use poq_simulator::Attack;

use crate::config::AdversaryConfig;
use crate::error::{Error, Result};

/// What a model made of a task's outputs.
type Seen = Vec<Option<f64>>;

/// The dishonest nodes of this worker.
pub(crate) struct Adversary {
    attack: Attack,
    config: AdversaryConfig,
    /// What the first colluder of a panel saw.
    seen: Mutex<HashMap<TaskId, Seen>>,
    /// What the first colluding inference node of a task answered.
    answers: Mutex<HashMap<TaskId, String>>,
}

impl Adversary {
    /// Refuses on any chain that does not call itself a development chain.
    pub(crate) fn new(config: &AdversaryConfig, client: &Client) -> Result<Adversary> {
        let kind = &client.chain().kind;
        if kind != "Development" {
            return Err(Error::Service {
                service: "adversary".into(),
                reason: format!(
                    "the chain {} is of the type `{kind}`: [adversary] is for development chains only; take the section out",
                    client.chain().name
                ),
            });
        }
        let attack =
            config.parse().map_err(|reason| Error::Service { service: "adversary".into(), reason })?;
        tracing::warn!(%attack, nodes = ?config.nodes, "these nodes are dishonest: this is a test network");
        Ok(Adversary { attack, config: config.clone(), seen: Mutex::default(), answers: Mutex::default() })
    }

    fn corrupts(&self, node: NodeId) -> bool {
        self.config.nodes.contains(&node)
    }

    /// What a dishonest evaluator commits to in place of its honest scores; `None` for an honest one. `ring` are the kind's
    /// past consensus values.
    pub(crate) fn scores(
        &self,
        node: NodeId,
        view: &TaskView,
        honest: &[Score],
        ring: &[Ratio],
    ) -> Option<(Plan, Vec<Score>)> {
        if !self.corrupts(node) || !self.attack.evaluators() {
            return None;
        }
        let seen: Seen = honest.iter().map(|score| score.quality().map(Ratio::to_f64)).collect();
        let own: Vec<bool> = view.task.outputs.iter().map(|slot| self.corrupts(slot.node)).collect();
        let ring: Vec<f64> = ring.iter().copied().map(Ratio::to_f64).collect();
        let mut shared = self.seen.lock();
        let first = shared.entry(view.id);
        let known = match &first {
            std::collections::hash_map::Entry::Occupied(known) => Some(known.get().clone()),
            std::collections::hash_map::Entry::Vacant(_) => None,
        };
        let sight = Sight {
            seen: &seen,
            own: &own,
            ring: &ring,
            colluders: view.task.panel.iter().filter(|seat| self.corrupts(seat.node)).count(),
            panel: view.task.panel.len(),
            shared: known.as_deref(),
        };
        let (plan, scores) = act(self.attack, self.config.seed, view.id, node, &sight);
        first.or_insert(seen);
        let scores = match plan.no_input {
            true => vec![Score::NO_INPUT; scores.len()],
            false => scores.into_iter().map(|score| Score::from(score.map(Ratio::from_f64))).collect(),
        };
        Some((plan, scores))
    }

    /// Whether a dishonest evaluator reveals now, later, or never.
    pub(crate) fn reveals(&self, node: NodeId, task: &Task, own: &[Score], now: Millis) -> Option<bool> {
        if !self.corrupts(node) {
            return Some(true);
        }
        match self.attack {
            Attack::NeverReveal => Some(false),
            Attack::RevealIfGood(within) => {
                let others = || task.panel.iter().filter(|seat| seat.node != node);
                let (_, deadline) = task.clock().at(now);
                let nearly_over = now.saturating_add(task.terms.reveal_ms / 4) > deadline;
                // The others of its kind wait too: somebody has to be the first.
                let waiting =
                    others().any(|seat| seat.state == SeatState::Committed && !self.corrupts(seat.node));
                if waiting && !nearly_over {
                    return None;
                }
                Some(distance(task, node, own) < within)
            }
            _ => Some(true),
        }
    }

    /// Whether a dishonest inference node declines whatever it is asked.
    pub(crate) fn declines(&self, node: NodeId) -> bool {
        matches!(self.attack, Attack::Decline) && self.corrupts(node)
    }

    /// Whether a dishonest inference node opens its commitment to nobody.
    pub(crate) fn withholds(&self, node: NodeId) -> bool {
        matches!(self.attack, Attack::WithholdOpening) && self.corrupts(node)
    }

    /// How long a dishonest inference node lets pass at least before it commits, from the request.
    pub(crate) fn delay(&self, node: NodeId) -> Duration {
        match self.attack {
            Attack::SlowDelivery(seconds) if self.corrupts(node) => {
                Duration::try_from_secs_f64(seconds).unwrap_or_default()
            }
            _ => Duration::ZERO,
        }
    }

    /// The share of an honest answer's tokens that a dishonest inference node generates.
    pub(crate) fn effort(&self, node: NodeId) -> f64 {
        match self.attack {
            Attack::ModelSwap(share) if self.corrupts(node) => share,
            _ => 1.0,
        }
    }

    /// The answer that colluding inference nodes share, where one of them has it already.
    pub(crate) fn copied(&self, node: NodeId, task: TaskId) -> Option<String> {
        let copies = matches!(self.attack, Attack::OutputCopying) && self.corrupts(node);
        copies.then(|| self.answers.lock().get(&task).cloned()).flatten()
    }

    /// Shares an answer with the other colluders.
    pub(crate) fn share(&self, node: NodeId, task: TaskId, answer: &str) {
        if matches!(self.attack, Attack::OutputCopying) && self.corrupts(node) {
            self.answers.lock().entry(task).or_insert_with(|| answer.to_owned());
        }
    }
}

/// The mean distance of a node's scores from the median of what the others have revealed.
fn distance(task: &Task, node: NodeId, own: &[Score]) -> f64 {
    let distances: Vec<f64> = own
        .iter()
        .enumerate()
        .filter_map(|(output, score)| {
            let shown: Vec<Ratio> = task
                .panel
                .iter()
                .filter(|seat| seat.node != node && seat.state == SeatState::Revealed)
                .filter_map(|seat| seat.scores.get(output)?.quality())
                .collect();
            Some((score.quality()?.to_f64() - median(&shown)?.to_f64()).abs())
        })
        .collect();
    // Nobody has revealed: nothing speaks against it.
    distances.iter().sum::<f64>() / distances.len().max(1) as f64
}
