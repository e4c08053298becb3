//! The same run in the simulator's books: what it says that everybody should have got, from what everybody did.

use poq_chain::{Block, PoqEvent};
use poq_core::KindParams;
use poq_simulator::live::{Book, Purse, Recorded};
use std::collections::BTreeMap;

use poq_chain::types::{NodeId, TaskId};

/// The simulator's account of the run beside the chain's.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// What each node got by the simulator's books.
    simulated: BTreeMap<NodeId, Purse>,
    /// What each node got by the chain's events.
    recorded: BTreeMap<NodeId, Purse>,
    /// Tasks of which any number of the settlement differs.
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
                PoqEvent::TaskSettled(event) => {
                    let settlement = book.settle(&Recorded::of(
                        event.task,
                        block.timestamp_ms,
                        &event.input,
                        &event.output_nodes,
                        &event.panel_nodes,
                    ))?;
                    if settlement != event.settlement {
                        comparison.differing.push(event.task);
                    }
                    let outputs = event.settlement.outputs.iter().map(|o| (o.payout, o.slashed));
                    let panel = event.settlement.panel.iter().map(|e| (e.payout, e.slashed));
                    let nodes = event.output_nodes.iter().chain(&event.panel_nodes);
                    for (node, (payout, slashed)) in nodes.zip(outputs.chain(panel)) {
                        let purse = comparison.recorded.entry(*node).or_default();
                        purse.settled += 1;
                        purse.earned += payout;
                        purse.slashed += slashed;
                    }
                }
                PoqEvent::TaskRefunded(event) => comparison.penalise(&mut book, &event.penalties),
                PoqEvent::PanelReleased(event) => comparison.penalise(&mut book, &event.penalties),
                _ => {}
            }
        }
        comparison.simulated = comparison.recorded.keys().map(|node| (*node, book.purse(*node))).collect();
        Ok(comparison)
    }

    fn penalise(&mut self, book: &mut Book, penalties: &[poq_chain::types::Penalty]) {
        for penalty in penalties {
            book.penalise(penalty.node, penalty.amount);
            self.recorded.entry(penalty.node).or_default().slashed += penalty.amount;
        }
    }

    /// What a node got by the simulator's books.
    pub(super) fn simulated(&self, node: NodeId) -> Purse {
        self.simulated.get(&node).copied().unwrap_or_default()
    }

    /// Whether every number of every settlement, and every purse, is the same.
    pub(super) fn agrees(&self) -> bool {
        self.differing.is_empty() && self.simulated == self.recorded
    }
}
