//! Who can be drawn for a task now, or take one that names it, at which fee: the contract's own conditions, looked at from outside
//! before anything is paid.

use crate::cli::amount::Unit;
use crate::cli::exit::{Coded, Exit};
use crate::cli::node::role_name;
use poq_chain::types::{
    Balance, Epoch, KindId, KindParams, NodeId, NodeStatus, NodeView, Ratio, Role, MAX_OPEN,
};
use poq_chain::{to_ink, AccountId32, InkAccountId};
use poq_core::params::FeeSplit;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

/// Why a node is not drawn. A node counts under the first of these that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Filter {
    /// It drains.
    Draining,
    /// Its stake is below the kind's minimum.
    Stake,
    /// It is drawn from the next epoch on.
    New,
    /// It has as many open tasks as it may have.
    Open,
    /// Too much of its stake is at risk already.
    Locked,
    /// The requester owns it.
    Own,
    /// It asks more than the slot.
    Price,
    /// Another node of its owner fits, and one owner has one seat.
    Owner,
}

impl Filter {
    const ALL: [Filter; 8] = [
        Filter::Draining,
        Filter::Stake,
        Filter::New,
        Filter::Open,
        Filter::Locked,
        Filter::Own,
        Filter::Price,
        Filter::Owner,
    ];

    fn name(self) -> &'static str {
        match self {
            Filter::Draining => "draining",
            Filter::Stake => "stake",
            Filter::New => "next_epoch",
            Filter::Open => "open_tasks",
            Filter::Locked => "stake_at_risk",
            Filter::Own => "own_nodes",
            Filter::Price => "price",
            Filter::Owner => "same_owner",
        }
    }
}

/// How many nodes of a role there are, and what becomes of them.
pub(super) struct Supply {
    role: Role,
    wanted: u8,
    registered: usize,
    filtered: BTreeMap<Filter, usize>,
    /// How many can sit beside each other: one per owner.
    fit: usize,
    /// The slot that is offered.
    slot: Balance,
    /// The lowest price among those that only the price keeps out.
    cheapest: Option<Balance>,
}

/// The nodes of a kind, as a requester finds them.
pub(super) struct Market<'a> {
    pub(super) kind: KindId,
    pub(super) params: &'a KindParams,
    pub(super) nodes: Vec<NodeView>,
    pub(super) requester: AccountId32,
    /// The present epoch.
    pub(super) epoch: Epoch,
    /// The inference nodes that the request names; none where they are drawn.
    pub(super) named: Vec<NodeId>,
}

impl Market<'_> {
    /// Why a node is not drawn, or cannot take a task that names it, whatever the fee. `settled` says whether the pool has anybody
    /// in this epoch: where it has not, whoever joins the next one is drawn already.
    fn filter(&self, view: &NodeView, settled: bool, at_risk: Balance) -> Option<Filter> {
        let node = &view.node;
        let weighs = |weight: Option<&Ratio>| weight.is_some_and(|weight| *weight > Ratio::ZERO);
        let next = weighs(Some(node.standing.weight.latest()));
        let now = weighs(node.standing.weight.at(self.epoch));
        // Whoever is to be in the draws can be named at once.
        let waits = settled && (node.role == Role::Evaluator || self.named.is_empty());
        if node.status != NodeStatus::Active && !next {
            Some(Filter::Draining)
        } else if !next {
            Some(Filter::Stake)
        } else if waits && !now {
            Some(Filter::New)
        } else if node.open_count() >= MAX_OPEN {
            Some(Filter::Open)
        } else if !node.can_take(at_risk) {
            Some(Filter::Locked)
        } else if node.owner == to_ink(&self.requester) {
            Some(Filter::Own)
        } else {
            None
        }
    }

    /// Whether a role's pool has anybody in this epoch.
    fn is_settled(&self, role: Role) -> bool {
        let now = |view: &NodeView| view.node.standing.weight.at(self.epoch).copied().unwrap_or_default();
        self.of_role(role).any(|view| now(view) > Ratio::ZERO)
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = &NodeView> {
        let asked = move |view: &&NodeView| {
            role == Role::Evaluator || self.named.is_empty() || self.named.contains(&view.id)
        };
        self.nodes
            .iter()
            .filter(move |view| view.node.role == role && view.node.kind == self.kind)
            .filter(asked)
    }

    /// The lowest price of each owner whose node can be drawn for a slot of that price, in rising order.
    fn prices(&self) -> Vec<Balance> {
        let settled = self.is_settled(Role::Inference);
        let can = |view: &&NodeView| {
            let slot = view.node.price.max(self.params.inference_slot_min);
            self.filter(view, settled, self.params.inference_at_risk(slot)).is_none()
        };
        let mut cheapest: BTreeMap<[u8; 32], Balance> = BTreeMap::new();
        for view in self.of_role(Role::Inference).filter(can) {
            let owner: [u8; 32] = *view.node.owner.as_ref();
            let price = cheapest.entry(owner).or_insert(view.node.price);
            *price = view.node.price.min(*price);
        }
        let mut prices: Vec<Balance> = cheapest.into_values().collect();
        prices.sort_unstable();
        prices
    }

    /// Fees at which enough nodes can be drawn, rising: the least one, and those at which one more owner fits each. The least
    /// that the kind takes where too few can be drawn at any.
    pub(super) fn fees(&self, outputs: u8, panel: u8) -> Vec<Balance> {
        let prices = self.prices();
        let enough = usize::from(outputs).saturating_sub(1);
        let mut fees: Vec<Balance> = prices
            .get(enough..)
            .unwrap_or_default()
            .iter()
            .filter_map(|price| self.params.fee_for(outputs, panel, *price))
            .collect();
        fees.dedup();
        if fees.is_empty() {
            fees.extend(self.params.fee_min(outputs, panel));
        }
        fees
    }

    /// What can be drawn of a role now, at a fee that is split so.
    pub(super) fn supply(&self, role: Role, wanted: u8, split: &FeeSplit) -> Supply {
        let (slot, at_risk) = match role {
            Role::Inference => (split.inference_slot, self.params.inference_at_risk(split.inference_slot)),
            Role::Evaluator => (split.evaluator_slot, self.params.evaluator_at_risk(split.evaluator_slot)),
        };
        let mut supply =
            Supply { role, wanted, registered: 0, filtered: BTreeMap::new(), fit: 0, slot, cheapest: None };
        let settled = self.is_settled(role);
        let mut owners: Vec<InkAccountId> = Vec::new();
        for view in self.of_role(role) {
            supply.registered = supply.registered.saturating_add(1);
            let price = view.node.price;
            let dear = role == Role::Inference && price > slot;
            let filter = match self.filter(view, settled, at_risk) {
                None if dear => {
                    supply.cheapest = Some(supply.cheapest.map_or(price, |least| least.min(price)));
                    Some(Filter::Price)
                }
                None if owners.contains(&view.node.owner) => Some(Filter::Owner),
                other => other,
            };
            match filter {
                Some(filter) => {
                    let count = supply.filtered.entry(filter).or_default();
                    *count = count.saturating_add(1);
                }
                None => owners.push(view.node.owner),
            }
        }
        supply.fit = owners.len();
        supply
    }

    /// The error for a draw that cannot be filled, or was not.
    pub(super) fn too_few(&self, outputs: &Supply, panel: &Supply, unit: &Unit, drawn: bool) -> Coded {
        let needed_fee = outputs.cheapest_fee(self, panel.wanted).map_or_else(String::new, |fee| {
            format!("\nA fee of {} would do: --fee {}.", unit.show(fee), unit.number(fee))
        });
        let head = match (outputs.enough() && panel.enough(), drawn) {
            (true, true) => {
                "too few independent nodes were drawn, though enough fit: try again, which draws anew"
            }
            _ => "too few independent nodes can be drawn now",
        };
        let text = format!(
            "{head} (kind {}):\n{}\n{}{needed_fee}",
            self.kind,
            outputs.text(self.params, unit),
            panel.text(self.params, unit),
        );
        let details = json!({ "inference": outputs.json(), "evaluators": panel.json() });
        Coded { exit: Exit::Refused, code: "too_few_nodes", text, details: Some(details) }
    }
}

impl Supply {
    pub(super) fn enough(&self) -> bool {
        self.fit >= usize::from(self.wanted)
    }

    /// The least fee at which enough nodes would fit, where only the price keeps them out.
    fn cheapest_fee(&self, market: &Market<'_>, panel: u8) -> Option<Balance> {
        if self.enough() || !self.filtered.contains_key(&Filter::Price) {
            return None;
        }
        let price = *market.prices().get(usize::from(self.wanted).saturating_sub(1))?;
        market.params.fee_for(self.wanted, panel, price)
    }

    /// In words, with what each condition is.
    pub(super) fn text(&self, params: &KindParams, unit: &Unit) -> String {
        let mut parts = Vec::new();
        for filter in Filter::ALL {
            let Some(count) = self.filtered.get(&filter) else { continue };
            parts.push(match filter {
                Filter::Draining => format!("{count} draining"),
                Filter::Stake => format!("{count} with less stake than {}", unit.show(params.stake_min)),
                Filter::New => format!("{count} from the next epoch on"),
                Filter::Open => format!("{count} with {MAX_OPEN} open tasks"),
                Filter::Locked => format!("{count} with too much of the stake at risk"),
                Filter::Own => format!("{count} your own"),
                Filter::Price => format!(
                    "{count} asking more than the slot of {} (from {})",
                    unit.show(self.slot),
                    self.cheapest.map_or_else(|| "nothing".into(), |price| unit.show(price)),
                ),
                Filter::Owner => format!("{count} of an owner who fits with another node"),
            });
        }
        let parts = if parts.is_empty() { String::new() } else { format!("; {}", parts.join("; ")) };
        format!(
            "  {}: {} wanted, {} registered, {} can be drawn{parts}",
            role_name(self.role),
            self.wanted,
            self.registered,
            self.fit
        )
    }

    fn json(&self) -> Value {
        let filtered: Map<String, Value> = Filter::ALL
            .into_iter()
            .map(|filter| (filter.name().to_owned(), json!(self.filtered.get(&filter).copied().unwrap_or(0))))
            .collect();
        json!({
            "wanted": self.wanted,
            "registered": self.registered,
            "can_be_drawn": self.fit,
            "filtered": filtered,
            "slot": self.slot.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use poq_chain::types::{Node, NodeInfo, Place, Record, Stake, Standing, Ver};

    const UNIT: u128 = 1_000_000_000_000;

    fn node(id: u32, role: Role, owner: u8, price: u128) -> NodeView {
        NodeView {
            id,
            node: Node {
                owner: [owner; 32].into(),
                operator: [owner; 32].into(),
                payee: [owner; 32].into(),
                role,
                kind: 1,
                status: NodeStatus::Active,
                model_digest: [owner; 32],
                price,
                stake: Stake { bonded: 200 * UNIT, ..Stake::default() },
                claimable: 0,
                withdrawn: 0,
                slashed: 0,
                record: Record::default(),
                trust: Ratio::ONE,
                gain_average: 0,
                due: 0,
                misses: 0,
                standing: Standing { weight: Ver::new(Ratio::ONE), place: Place { class: 0, index: 0 } },
                open: [0; MAX_OPEN],
            },
            info: NodeInfo { model: "m".into(), endpoint: "http://h:1".into(), registered_at: 0 },
        }
    }

    fn market(params: &KindParams, nodes: Vec<NodeView>) -> Market<'_> {
        Market { kind: 1, params, nodes, requester: AccountId32([99; 32]), epoch: 7, named: Vec::new() }
    }

    /// A fee whose inference slot is this.
    fn slot(inference_slot: u128) -> FeeSplit {
        FeeSplit { protocol_fee: 0, keepers: 0, inference_slot, evaluator_slot: UNIT }
    }

    #[test]
    fn the_least_fee_fits_the_cheapest_nodes_and_not_a_unit_less() {
        let params = KindParams::default();
        let inference = |owner, price| node(u32::from(owner), Role::Inference, owner, price);
        let market = market(
            &params,
            vec![inference(1, UNIT / 2), inference(2, UNIT / 4), inference(3, UNIT), inference(4, 0)],
        );
        for outputs in 1..=4u8 {
            let price = [0, UNIT / 4, UNIT / 2, UNIT][usize::from(outputs) - 1];
            let fee = market.fees(outputs, 3)[0];
            assert!(params.split(fee, outputs, 3).unwrap().inference_slot >= price);
            let less = params.split(fee - 1, outputs, 3);
            assert!(less.is_none_or(|split| split.inference_slot < price), "{outputs}");
        }
        // Later fees let one more owner in each.
        assert_eq!(market.fees(1, 3).len(), 4);
        assert!(market.fees(1, 3).windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn every_condition_is_counted_once() {
        let params = KindParams::default();
        let mut nodes: Vec<NodeView> =
            (1..=10).map(|owner| node(u32::from(owner), Role::Inference, owner, 0)).collect();
        nodes[0].node.status = NodeStatus::Draining;
        nodes[0].node.standing = Standing::default();
        nodes[1].node.standing = Standing::default();
        nodes[2].node.open = [7; MAX_OPEN];
        nodes[3].node.stake.locked = 200 * UNIT;
        nodes[4].node.owner = [99; 32].into();
        // Whom anybody can name as its payee is not one's own.
        nodes[5].node.payee = [99; 32].into();
        nodes[5].node.price = UNIT;
        nodes[6].node.owner = [8; 32].into();
        nodes[9].node.standing.weight = Ver::default();
        nodes[9].node.standing.weight.set(7, Ratio::ONE);
        nodes.push(node(11, Role::Evaluator, 10, 0));
        let mut other = node(12, Role::Inference, 11, 0);
        other.node.kind = 2;
        nodes.push(other);
        let mut market = market(&params, nodes);
        let supply = market.supply(Role::Inference, 4, &slot(UNIT / 100));
        assert_eq!((supply.registered, supply.fit, supply.enough()), (10, 2, false));
        for filter in Filter::ALL {
            assert_eq!(supply.filtered.get(&filter), Some(&1), "{filter:?}");
        }
        let panel = market.supply(Role::Evaluator, 3, &slot(0));
        assert_eq!((panel.registered, panel.fit), (1, 1));
        let error = market.too_few(&supply, &panel, &Unit::default(), false);
        for says in [
            "4 wanted, 10 registered, 2 can be drawn",
            "1 draining",
            "less stake than 200 UNIT",
            "1 from the next epoch on",
            "16 open tasks",
            "1 your own",
            "more than the slot of 0.01 UNIT (from 1 UNIT)",
            "3 wanted, 1 registered, 1 can be drawn",
        ] {
            assert!(error.text.contains(says), "{says}: {}", error.text);
        }
        // Named, nobody has to wait for the next epoch, and nobody else counts.
        market.named = vec![10, 6];
        let supply = market.supply(Role::Inference, 2, &slot(UNIT));
        assert_eq!((supply.registered, supply.fit), (2, 2));
    }

    /// The first nodes of a kind are drawn in the epoch that they register in.
    #[test]
    fn a_new_pool_is_drawn_from_at_once() {
        let params = KindParams::default();
        let mut new = node(1, Role::Inference, 1, 0);
        new.node.standing.weight = Ver::default();
        new.node.standing.weight.set(7, Ratio::ONE);
        let market = market(&params, vec![new]);
        assert!(market.supply(Role::Inference, 1, &slot(0)).enough());
    }

    #[test]
    fn a_fee_that_would_do_is_named() {
        let params = KindParams::default();
        let nodes = vec![node(1, Role::Inference, 1, UNIT / 2)];
        let market = market(&params, nodes);
        let supply = market.supply(Role::Inference, 1, &slot(UNIT / 100));
        let panel = market.supply(Role::Evaluator, 3, &slot(0));
        let fee = market.fees(1, 3)[0];
        let text = market.too_few(&supply, &panel, &Unit::default(), false).text;
        assert!(text.contains(&format!("--fee {}", Unit::default().number(fee))), "{text}");
    }
}
