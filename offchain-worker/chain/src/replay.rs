//! The records of a block before it, moved on by the block's events with `poq-core`'s own transitions.

use crate::client::Block;
use crate::commit::{blake2, Network};
use crate::error::Result;
use crate::events::{Emitted, NodeChange, PanelDrawn, PoqEvent, TaskAudited, TaskClosed};
use crate::json::ToJson;
use crate::types::{
    epoch_of, Draw, Ending, KindId, KindParams, Node, NodeId, NodeStatus, Population, Ratio, Refusal,
    SettlementInput, Step, Task, TaskId, TrustState,
};
use crate::view::View;
use poq_core::node::Outcome;
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Why records could not be moved on.
pub(crate) enum Stuck {
    /// The protocol refuses what the event says.
    Refused(String),
    /// The chain does not show all that it takes.
    Unknown(String),
}

impl From<Refusal> for Stuck {
    fn from(refusal: Refusal) -> Stuck {
        Stuck::Refused(refusal.to_string())
    }
}

impl From<poq_core::registry::Error> for Stuck {
    fn from(error: poq_core::registry::Error) -> Stuck {
        Stuck::Refused(error.to_string())
    }
}

/// Records of one kind's tasks and nodes, and of the kind.
#[derive(Clone)]
pub(crate) struct Records {
    network: Network,
    block: Block,
    kind: KindId,
    params: BTreeMap<u32, KindParams>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) population: Option<Population>,
    /// The tasks after the block: they tell what was committed to, which no event does.
    after: BTreeMap<TaskId, Task>,
}

impl Records {
    /// As they are before the block of `after`.
    pub(crate) async fn load(
        (before, after): (&View, &View),
        events: &[Emitted],
        network: Network,
        kind: KindId,
        task: TaskId,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<Records> {
        let mut records = Records {
            network,
            block: after.block(),
            kind,
            params: BTreeMap::new(),
            tasks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            population: before.kind(kind).await?.map(|view| view.kind.population),
            after: BTreeMap::new(),
        };
        let mut tasks = BTreeSet::from([task]);
        for emitted in events {
            match &emitted.event {
                PoqEvent::TaskClosed(e) if e.kind == kind => {
                    tasks.insert(e.task);
                    if let Some(params) = after.params(kind, e.version).await? {
                        records.params.insert(e.version, params);
                    }
                }
                PoqEvent::TaskAudited(e) => {
                    tasks.insert(e.task);
                }
                _ => {}
            }
        }
        for id in tasks {
            records.tasks.extend(before.task(id).await?.map(|view| (id, view.task)));
            records.after.extend(after.task(id).await?.map(|view| (id, view.task)));
        }
        for id in nodes {
            records.nodes.extend(before.node(*id).await?.map(|view| (*id, view.node)));
        }
        Ok(records)
    }

    /// A task as a step of its own found it: with the keeper of that step paid.
    pub(crate) fn task(&self, id: TaskId, events: &[Emitted], at: usize) -> Option<Task> {
        let mut task = self.tasks.get(&id)?.clone();
        let (this, later) = events.get(at..)?.split_first()?;
        let paid = later.iter().filter(|other| other.extrinsic == this.extrinsic).any(|other| {
            matches!(&other.event, PoqEvent::KeeperPaid(e) if e.items.iter().any(|(paid, _)| *paid == id))
        });
        if paid {
            task.pay_keeper(self.block.timestamp_ms);
        }
        Some(task)
    }

    /// What a task's end depends on, if it ends now.
    pub(crate) fn settlement_input(&self, task: &Task) -> Option<SettlementInput> {
        let now = self.block.timestamp_ms;
        let ending = match task.clock().step(now) {
            Step::End(ending) => ending,
            _ => Ending::Consensus,
        };
        let standing = |node| self.nodes.get(&node).map_or((Ratio::ZERO, 0), |node| (node.trust, node.due));
        Some(task.settlement_input(ending, standing, self.population.as_ref()?, now))
    }

    /// What a member of a panel is trusted.
    pub(crate) fn trust(&self, node: NodeId) -> TrustState {
        self.nodes.get(&node).map_or(TrustState::default(), |node| TrustState {
            trust: node.trust,
            gain_average: node.gain_average,
        })
    }

    /// What an event does to them.
    ///
    /// # Errors
    /// Where the protocol refuses it, or the chain does not tell enough.
    pub(crate) fn apply(&mut self, events: &[Emitted], at: usize) -> Result<(), Stuck> {
        let Some(emitted) = events.get(at) else { return Ok(()) };
        match &emitted.event {
            // Of a stake only the sum is compared: which part an amount came from, and what is locked, other tasks decide.
            PoqEvent::Staked(e) => self.with(e.node, |node| {
                node.stake.bonded = node.stake.bonded.saturating_add(e.amount);
            }),
            PoqEvent::StakeWithdrawn(e) => self.with(e.node, |node| {
                node.stake.bonded = node.stake.total().saturating_sub(e.amount);
                node.stake.tranches = Default::default();
            }),
            PoqEvent::Claimed(e) => self.with(e.node, |node| {
                node.claimable = node.claimable.saturating_sub(e.amount);
                node.withdrawn = node.withdrawn.saturating_add(e.amount);
            }),
            PoqEvent::NodeChanged(e) => self.with(e.node, |node| match e.change {
                NodeChange::Draining => node.status = NodeStatus::Draining,
                NodeChange::Resumed => (node.status, node.misses) = (NodeStatus::Active, 0),
                NodeChange::Configured | NodeChange::Deregistered => {}
            }),
            PoqEvent::PanelDrawn(e) => {
                let task = self.task(e.task, events, at);
                self.draw(e, task)?;
            }
            PoqEvent::PanelShort(e) if self.tasks.contains_key(&e.task) => {
                return Err(Stuck::Unknown("a draw with too few evaluators was in the same block".into()));
            }
            PoqEvent::TaskClosed(e) if e.kind == self.kind => {
                let task = self.task(e.task, events, at);
                self.close(e, task)?;
            }
            PoqEvent::TaskAudited(e) => self.audited(e),
            PoqEvent::Collected(e) => {
                self.tasks.remove(&e.task);
            }
            event => self.duty(event)?,
        }
        Ok(())
    }

    fn with(&mut self, node: NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&node) {
            change(node);
        }
    }

    fn finish(&mut self, node: NodeId, outcome: &Outcome, params: &KindParams) -> Result<(), Stuck> {
        let epoch = epoch_of(self.block.timestamp_ms, self.network.epoch_ms);
        let Some(node) = self.nodes.get_mut(&node) else { return Ok(()) };
        node.stake.locked = node.stake.locked.max(outcome.at_risk);
        Ok(node.finish(outcome, params, epoch)?)
    }

    fn draw(&mut self, e: &PanelDrawn, task: Option<Task>) -> Result<(), Stuck> {
        let Network { hash, epoch_ms, .. } = self.network;
        let now = self.block.timestamp_ms;
        if let Some(mut task) = task {
            if e.filled {
                task.vacate();
            } else {
                let draw = Draw { task: e.task, secret: e.secret, openings: e.outputs.clone() };
                task.unseal(&draw, now, epoch_ms, &hash, blake2)?;
            }
            task.seat(e.nodes.iter().copied(), now);
            self.tasks.insert(e.task, task);
        }
        // What a slash weighs from the next epoch on is not compared.
        let params = self.params.values().next_back().cloned().unwrap_or_default();
        for penalty in &e.vacated {
            let outcome = Outcome {
                task: e.task,
                at_risk: penalty.amount,
                payout: 0,
                slashed: penalty.amount,
                missed: true,
                record: None,
                due: 0,
            };
            self.finish(penalty.node, &outcome, &params)?;
        }
        Ok(())
    }

    fn close(&mut self, e: &TaskClosed, task: Option<Task>) -> Result<(), Stuck> {
        let unknown =
            |what: &str| Stuck::Unknown(format!("{what} of task {}, which ended in the same block", e.task));
        let now = self.block.timestamp_ms;
        let params = self.params.get(&e.version).cloned().ok_or_else(|| unknown("the parameters"))?;
        let mut task = task.ok_or_else(|| unknown("the record before the block"))?;
        if let Some(population) = &mut self.population {
            population.absorb(&params, &e.settlement, &e.seed, now);
        }
        // Of other tasks the seats are all that is needed.
        task.panel.iter_mut().zip(&e.panel_nodes).for_each(|(seat, node)| seat.node = *node);
        for (node, outcome) in task.outcomes(e.task, &e.input, &e.settlement) {
            self.finish(node, &outcome, &params)?;
        }
        task.close(&e.settlement, now, self.block.number);
        self.tasks.insert(e.task, task);
        Ok(())
    }

    fn audited(&mut self, e: &TaskAudited) {
        let of_kind = match self.tasks.get_mut(&e.task) {
            Some(task) => {
                task.audited = true;
                task.kind == self.kind
            }
            None => false,
        };
        if let (true, Some(population)) = (of_kind, &mut self.population) {
            population.gain_average = e.audit.gain_average;
        }
        for (node, after) in e.panel_nodes.iter().zip(&e.audit.panel) {
            self.with(*node, |node| (node.trust, node.gain_average) = (after.trust, after.gain_average));
        }
    }

    /// What nodes have done for the tasks.
    fn duty(&mut self, event: &PoqEvent) -> Result<(), Stuck> {
        let Network { hash, epoch_ms, .. } = self.network;
        let now = self.block.timestamp_ms;
        let Records { tasks, after, .. } = self;
        let committed = |id: TaskId, node: NodeId| {
            let task = after.get(&id)?;
            let outputs = task.outputs.iter().map(|slot| (slot.node, slot.commitment));
            let seats = task.panel.iter().map(|seat| (seat.node, seat.commitment));
            outputs.chain(seats).find(|(other, _)| *other == node).map(|(_, commitment)| commitment)
        };
        let commitment = |id, node| {
            committed(id, node)
                .ok_or_else(|| Stuck::Unknown("it was committed to and collected in the same block".into()))
        };
        match event {
            PoqEvent::OutputsCommitted(e) => {
                for (id, node) in &e.items {
                    let Some(task) = tasks.get_mut(id) else { continue };
                    task.commit_output(*node, commitment(*id, *node)?, now, epoch_ms)?;
                }
            }
            PoqEvent::ScoresCommitted(e) => {
                for (id, node) in &e.items {
                    let Some(task) = tasks.get_mut(id) else { continue };
                    task.commit_scores(*node, commitment(*id, *node)?, now)?;
                }
            }
            PoqEvent::Declined(e) => {
                for item in &e.items {
                    let Some(task) = tasks.get_mut(&item.task) else { continue };
                    task.decline(item.node, now, epoch_ms)?;
                }
            }
            PoqEvent::OutputsOpened(e) => {
                for item in &e.items {
                    let Some(task) = tasks.get_mut(&item.task) else { continue };
                    task.open_output(item.task, item.node, &item.opened, now, epoch_ms, &hash, blake2)?;
                }
            }
            PoqEvent::ScoresRevealed(e) => {
                for item in &e.items {
                    let Some(task) = tasks.get_mut(&item.task) else { continue };
                    task.reveal(item, now, &hash, blake2)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What ends and audits of tasks change of a node.
pub(crate) fn standing(node: &Node) -> Value {
    json!({
        "stake": node.stake.total().to_json(),
        "claimable": node.claimable.to_json(),
        "withdrawn": node.withdrawn.to_json(),
        "slashed": node.slashed.to_json(),
        "record": node.record.to_json(),
        "trust": node.trust,
        "gain_average": node.gain_average,
        "due": node.due.to_json(),
        "misses": node.misses,
        "status": node.status.to_json(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{OutputsOpened, Staked};
    use crate::types::{Open, Opened, OutputState, Request, Source, TaskInput, Terms};
    use subxt::utils::{AccountId32, H256};

    fn emitted(event: PoqEvent) -> Vec<Emitted> {
        let block = Block { number: 9, hash: H256::zero(), timestamp_ms: 2_000 };
        vec![Emitted { block, extrinsic: Some(1), index: 1, event }]
    }

    /// A task of node 2 that has delivered, and nothing else.
    fn records(opened: &Opened) -> Records {
        let network = Network::new(H256([1; 32]), AccountId32([2; 32]), 60_000);
        let params = KindParams::default();
        let request = Request {
            kind: 7,
            fee: params.fee_min(1, 3).unwrap(),
            nodes: vec![2],
            outputs: 1,
            panel: 3,
            input: Source::Inline(b"input".to_vec()),
            reference_commitment: [3; 32],
            secret_hash: [4; 32],
            early: false,
        };
        let input = TaskInput { hash: [5; 32], url: String::new(), inline: true };
        let split = params.split(request.fee, 1, 3).unwrap();
        let terms = Terms::new(&params, 1, &split, 3);
        let mut task = Task::new([6; 32].into(), &request, input, terms, params.inference_ms, &[(2, 1)], 500);
        let commitment = network.output(1, 2, &opened.hash, &opened.salt);
        task.commit_output(2, commitment, 1_000, network.epoch_ms).unwrap();
        let [first] = &emitted(PoqEvent::Staked(Staked { node: 1, amount: 1 }))[..] else {
            panic!("one event")
        };
        Records {
            network,
            block: first.block,
            kind: 7,
            params: BTreeMap::new(),
            tasks: BTreeMap::from([(1, task)]),
            nodes: BTreeMap::new(),
            population: Some(Population::new(&params)),
            after: BTreeMap::new(),
        }
    }

    #[test]
    fn what_the_protocol_refuses_is_not_applied() {
        let opened = Opened { hash: [7; 32], salt: [8; 32] };
        let event = |opened| {
            emitted(PoqEvent::OutputsOpened(OutputsOpened { items: vec![Open { task: 1, node: 2, opened }] }))
        };
        let mut records = records(&opened);
        // An event that opens what was not committed to: the chain's own word is not taken for it.
        let wrong = event(Opened { salt: [9; 32], ..opened });
        let refused = records.apply(&wrong, 0);
        assert!(matches!(&refused, Err(Stuck::Refused(why)) if *why == Refusal::Mismatch.to_string()));
        assert_eq!(records.tasks[&1].outputs[0].state, OutputState::Committed);
        assert!(records.apply(&event(opened), 0).is_ok());
        assert_eq!(records.tasks[&1].outputs[0].state, OutputState::Opened);
        // A commitment is in no event; without the record after the block nobody can tell it.
        let items = vec![(1, 2)];
        let committed = emitted(PoqEvent::ScoresCommitted(crate::events::ScoresCommitted { items }));
        assert!(matches!(records.apply(&committed, 0), Err(Stuck::Unknown(_))));
    }
}
