//! The same run in the simulator's books: what it says that everybody should have got, from what everybody did.

use poq_chain::{Block, PoqEvent};
use poq_core::KindParams;
use poq_simulator::live::{Book, Purse, Recorded};
use std::collections::BTreeMap;

use poq_chain::types::{NodeId, Penalty, TaskId};

/// The simulator's account of the run beside the chain's.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// What each node got by the simulator's books.
    simulated: BTreeMap<NodeId, Purse>,
    /// What each node got by the chain's events.
    recorded: BTreeMap<NodeId, Purse>,
    /// Tasks of which any number of the end, or of the audit, differs.
    pub(super) differing: Vec<TaskId>,
}

impl Comparison {
    /// Plays the chain's events, in their order, through a book that starts empty: its own trust, ring and purses.
    ///
    /// # Errors
    /// Parameters or a fee that the contract would refuse: not of events that it has emitted.
    pub(super) fn of(params: KindParams, events: &[(Block, PoqEvent)]) -> anyhow::Result<Comparison> {
        let mut book = Book::new(params)?;
        let mut comparison = Comparison::default();
        for (block, event) in events {
            match event {
                PoqEvent::TaskClosed(event) => {
                    let settlement = book.settle(&Recorded {
                        task: event.task,
                        at: block.timestamp_ms,
                        seed: &event.seed,
                        input: &event.input,
                        output_nodes: &event.output_nodes,
                        panel_nodes: &event.panel_nodes,
                    })?;
                    if settlement != event.settlement {
                        comparison.differing.push(event.task);
                    }
                    let outputs = event.settlement.outputs.iter().map(|o| (o.payout, o.slashed));
                    let panel = event.settlement.panel.iter().map(|e| (e.payout, e.slashed));
                    let nodes = event.output_nodes.iter().chain(&event.panel_nodes);
                    // A vacant seat's node is 0.
                    for (node, (payout, slashed)) in
                        nodes.zip(outputs.chain(panel)).filter(|(node, _)| **node != 0)
                    {
                        let purse = comparison.recorded.entry(*node).or_default();
                        purse.settled += 1;
                        purse.earned += payout;
                        purse.slashed += slashed;
                    }
                }
                PoqEvent::TaskAudited(event)
                    if book.audit(&event.input, &event.panel_nodes) != event.audit =>
                {
                    comparison.differing.push(event.task);
                }
                PoqEvent::PanelDrawn(event) => {
                    for Penalty { node, amount } in &event.vacated {
                        book.penalise(*node, *amount);
                        comparison.recorded.entry(*node).or_default().slashed += amount;
                    }
                }
                _ => {}
            }
        }
        comparison.simulated = comparison.recorded.keys().map(|node| (*node, book.purse(*node))).collect();
        Ok(comparison)
    }

    /// What a node got by the simulator's books.
    pub(super) fn simulated(&self, node: NodeId) -> Purse {
        self.simulated.get(&node).copied().unwrap_or_default()
    }

    /// Whether every number of every end, and every purse, is the same.
    pub(super) fn agrees(&self) -> bool {
        self.differing.is_empty() && self.simulated == self.recorded
    }
}
