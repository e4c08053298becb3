//! A panel drawn again from the contract's registry as it was at a block.

use crate::commit::blake2;
use crate::error::Result;
use crate::types::{Balance, Counts, Node, NodeId, PoolId, Ver};
use crate::view::View;
use poq_contract::storage::{Cell, Members, Pools};
use poq_core::registry::{self, Draw, Drawn, Registry};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Draws as the contract draws, with the cells that the contract reads. Whoever cannot put `at_risk` at risk takes no part.
///
/// # Errors
/// Where the node cannot be asked. Within: what the registry refuses.
pub(crate) async fn redraw(
    view: &View,
    draw: &Draw<'_>,
    at_risk: Balance,
) -> Result<std::result::Result<Drawn<Node>, registry::Error>> {
    let counts = view.cell::<Pools>(draw.pool).await?.map(|Cell(counts)| counts).unwrap_or_default();
    let mut known = Known { counts, ..Known::default() };
    loop {
        let drawn = registry::draw(&known, draw, blake2, |_, node| node.can_take(at_risk));
        let missing = known.missing.take();
        if missing.is_empty() {
            return Ok(drawn);
        }
        // A draw looks at a bounded number of places, and at nothing that depends on what it does not know yet for long.
        for cell in missing {
            match cell {
                Wanted::Member(class, index) => {
                    let key = (draw.pool.kind, draw.pool.role, class, index);
                    let member = view.cell::<Members>(key).await?.map(|Cell(member)| member);
                    known.members.insert((class, index), member.unwrap_or_default());
                }
                Wanted::Node(id) => {
                    known.nodes.insert(id, view.node(id).await?.map(|view| view.node));
                }
            }
        }
    }
}

/// What a draw has asked for and nobody has fetched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Member(u8, u32),
    Node(NodeId),
}

/// The cells of one pool that are fetched, and those that are wanted.
#[derive(Default)]
struct Known {
    counts: Ver<Counts>,
    members: BTreeMap<(u8, u32), Ver<NodeId>>,
    nodes: BTreeMap<NodeId, Option<Node>>,
    missing: RefCell<BTreeSet<Wanted>>,
}

impl Registry for Known {
    type Node = Node;

    fn counts(&self, _: PoolId) -> Ver<Counts> {
        self.counts
    }

    fn member(&self, _: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        self.members.get(&(class, index)).copied().unwrap_or_else(|| {
            self.missing.borrow_mut().insert(Wanted::Member(class, index));
            Ver::default()
        })
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        let known = self.nodes.get(&id).cloned();
        if known.is_none() && id != 0 {
            self.missing.borrow_mut().insert(Wanted::Node(id));
        }
        known.flatten()
    }
}
