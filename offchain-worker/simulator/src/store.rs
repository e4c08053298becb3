//! What the contract stores, in memory: nodes' records and the registry's cells. It decides nothing.

use crate::population;
use poq_core::node::NodeStatus;
use poq_core::registry::{
    place, Account, Counts, Epoch, PoolId, Registry, RegistryMut, Stake, Standing, Ver,
};
use poq_core::units::{AccountId, Balance, KindId, NodeId, Ratio};
use poq_core::{KindParams, Node, Role};
use std::collections::HashMap;

/// The only kind.
pub(crate) const KIND: KindId = 1;

/// An account of the simulated network: its number, and what it is for.
pub(crate) fn account(purpose: u8, number: u32) -> AccountId {
    let mut bytes = [0; 32];
    bytes[0] = purpose;
    bytes[1..5].copy_from_slice(&number.to_le_bytes());
    AccountId::from(bytes)
}

/// Nodes and pools. A node's number is its index plus one: zero is no node.
#[derive(Debug, Default)]
pub(crate) struct Store {
    nodes: Vec<Node>,
    pools: HashMap<PoolId, Ver<Counts>>,
    members: HashMap<(PoolId, u8, u32), Ver<NodeId>>,
}

/// The registry's number of a simulated node.
pub(crate) fn id_of(index: u32) -> NodeId {
    index + 1
}

/// The simulated node of a number.
pub(crate) fn index_of(id: NodeId) -> u32 {
    id.saturating_sub(1)
}

impl Store {
    /// A node by its index.
    pub(crate) fn get(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Registers a node with its stake: it counts from the next epoch on, as everything that an owner does.
    pub(crate) fn register(&mut self, of: &population::Node, params: &KindParams, now: Epoch) {
        let owner = account(1, of.owner);
        self.nodes.push(Node {
            owner,
            operator: owner,
            payee: owner,
            role: of.role,
            kind: KIND,
            status: NodeStatus::Active,
            model_digest: [of.model as u8; 32],
            price: of.price,
            stake: Stake { bonded: of.stake, ..Stake::default() },
            claimable: 0,
            withdrawn: 0,
            slashed: 0,
            record: Default::default(),
            trust: newcomers_trust(of.role, params),
            gain_average: 0,
            due: 0,
            misses: 0,
            standing: Standing::default(),
            open: Default::default(),
        });
        self.refresh(self.nodes.len() as u32 - 1, params, now);
    }

    /// What a node's owner does after every change of its weight: puts it where that belongs, from the next epoch on. One that
    /// two missed duties had taken out of the draws comes back.
    pub(crate) fn refresh(&mut self, index: u32, params: &KindParams, now: Epoch) {
        let mut node = self.nodes[index as usize].clone();
        if node.status == NodeStatus::Draining {
            node.status = NodeStatus::Active;
            node.misses = 0;
        }
        let weight = match node.standing.place.class() {
            Some(_) => node.settled_weight(params),
            None => node.weight(params),
        };
        if node.standing.is_stale(weight) {
            let pool = PoolId { kind: KIND, role: node.role };
            // Its cells are all here, and classes hold 2³² members.
            let _ = place(self, pool, now, id_of(index), &mut node, weight);
        }
        self.nodes[index as usize] = node;
    }

    /// What an owner does to its node in `now`: it counts from the next epoch on.
    pub(crate) fn act(
        &mut self,
        index: u32,
        params: &KindParams,
        now: Epoch,
        change: impl FnOnce(&mut Node),
    ) {
        let mut node = self.nodes[index as usize].clone();
        change(&mut node);
        let weight = node.weight(params);
        let pool = PoolId { kind: KIND, role: node.role };
        // As in `refresh`.
        let _ = place(self, pool, now, id_of(index), &mut node, weight);
        self.nodes[index as usize] = node;
    }

    /// What all nodes own: stakes, at risk or not, and rewards.
    pub(crate) fn owned(&self) -> Balance {
        self.nodes.iter().map(|node| node.stake.total() + node.claimable).sum()
    }
}

/// The trust that a node starts with.
pub(crate) fn newcomers_trust(role: Role, params: &KindParams) -> Ratio {
    match role {
        Role::Inference => Ratio::ONE,
        Role::Evaluator => params.trust_initial,
    }
}

/// The bytes of an account.
pub(crate) fn bytes(account: &AccountId) -> Account {
    *account.as_ref()
}

impl Registry for Store {
    type Node = Node;

    fn counts(&self, pool: PoolId) -> Ver<Counts> {
        self.pools.get(&pool).copied().unwrap_or_default()
    }

    fn member(&self, pool: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        self.members.get(&(pool, class, index)).copied().unwrap_or_default()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(index_of(id) as usize).cloned()
    }
}

impl RegistryMut for Store {
    fn set_counts(&mut self, pool: PoolId, counts: &Ver<Counts>) {
        self.pools.insert(pool, *counts);
    }

    fn set_member(&mut self, pool: PoolId, class: u8, index: u32, member: &Ver<NodeId>) {
        self.members.insert((pool, class, index), *member);
    }

    fn set_node(&mut self, id: NodeId, node: &Node) {
        if let Some(stored) = self.nodes.get_mut(index_of(id) as usize) {
            *stored = node.clone();
        }
    }
}
