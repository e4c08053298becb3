//! Nodes: register, configure, stake, leave.

use crate::errors::{Error, Result};
use crate::events::{emit, NodeChange, NodeChanged, NodeRegistered, Staked, Unstaked};
use crate::money::{add, check_batch};
use crate::poq::Poq;
use crate::storage::{Session, INFOS, NODES};
use crate::types::*;
use ink::codegen::Env;
use ink::prelude::vec::Vec;
use poq_core::registry::place;
use poq_core::units::{Balance, Millis, NodeId, Ratio};

impl Poq {
    /// A node of the caller's.
    pub(crate) fn owned(&self, session: &Session, node: NodeId) -> Result<Node> {
        let record = session.load(node)?;
        if record.owner != self.env().caller() {
            return Err(Error::NotNodeOwner);
        }
        Ok(record)
    }

    /// Gives a node the weight and the place that belong to it under its kind's newest parameters, from the next epoch on. A node that
    /// has a place keeps it down to a half of the least stake, or a small slash would put it out at its next `refresh`, which anybody
    /// can send; `leaving`, and without a place, it needs the whole.
    #[inline(never)]
    fn put_in_place(&self, session: &mut Session, id: NodeId, mut node: Node, leaving: bool) -> Result<()> {
        let kind = session.kind(node.kind)?;
        let weight = match node.standing.place.class() {
            Some(_) if !leaving => node.settled_weight(&kind.params),
            _ => node.weight(&kind.params),
        };
        let pool = PoolId { kind: node.kind, role: node.role };
        let epoch = session.epoch;
        place(session, pool, epoch, id, &mut node, weight)?;
        session.save(id, &node);
        Ok(())
    }

    fn changed(&self, node: NodeId, change: NodeChange) {
        emit(&NodeChanged { node, change });
    }

    #[inline(never)]
    pub(crate) fn register_node(&self, registration: Registration) -> Result<NodeId> {
        let owner = self.env().caller();
        let amount = self.env().transferred_value();
        if registration.model.len() > MAX_TEXT || registration.endpoint.len() > MAX_TEXT {
            return Err(Error::TextTooLong);
        }
        let mut session = self.session();
        let kind = session.kind(registration.kind)?;
        let mut account = session.account(owner);
        if account.nodes.len() >= MAX_NODES_PER_OWNER {
            return Err(Error::TooMany);
        }
        let mut books = session.books();
        let id = books.last_node.checked_add(1).ok_or(Error::Overflow)?;
        books.last_node = id;
        books.liabilities.stakes = add(books.liabilities.stakes, amount)?;
        session.set_books(&books);
        account.nodes.push(id);
        session.set_account(owner, &account);
        INFOS.insert(
            id,
            &NodeInfo {
                model: registration.model.clone(),
                endpoint: registration.endpoint,
                registered_at: session.now,
            },
        );
        let inference = registration.role == Role::Inference;
        let node = Node {
            owner,
            operator: registration.operator,
            payee: registration.payee,
            role: registration.role,
            kind: registration.kind,
            status: NodeStatus::Active,
            model_digest: registration.model_digest,
            price: if inference { registration.price } else { 0 },
            stake: Stake { bonded: amount, ..Stake::default() },
            claimable: 0,
            withdrawn: 0,
            slashed: 0,
            record: Record::default(),
            trust: if inference { Ratio::ONE } else { kind.params.trust_initial },
            gain_average: 0,
            due: 0,
            misses: 0,
            standing: Standing::default(),
            open: [0; MAX_OPEN],
        };
        self.put_in_place(&mut session, id, node, false)?;
        session.finish();
        emit(&NodeRegistered {
            node: id,
            owner,
            operator: registration.operator,
            role: registration.role,
            kind: registration.kind,
            model: registration.model,
            model_digest: registration.model_digest,
        });
        if amount > 0 {
            emit(&Staked { node: id, amount });
        }
        Ok(id)
    }

    #[inline(never)]
    pub(crate) fn configure_node(&self, id: NodeId, update: NodeUpdate) -> Result<()> {
        let session = self.session();
        let mut node = self.owned(&session, id)?;
        if let Some(endpoint) = update.endpoint {
            if endpoint.len() > MAX_TEXT {
                return Err(Error::TextTooLong);
            }
            let mut info = INFOS.get(id).ok_or(Error::NoNode)?;
            info.endpoint = endpoint;
            INFOS.insert(id, &info);
        }
        node.operator = update.operator.unwrap_or(node.operator);
        node.payee = update.payee.unwrap_or(node.payee);
        if node.role == Role::Inference {
            node.price = update.price.unwrap_or(node.price);
        }
        session.save(id, &node);
        session.finish();
        self.changed(id, NodeChange::Configured);
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn stake_node(&self, id: NodeId) -> Result<()> {
        let amount = self.env().transferred_value();
        if amount == 0 {
            return Err(Error::BadAmount);
        }
        let mut session = self.session();
        let mut node = self.owned(&session, id)?;
        node.stake.stake(amount)?;
        session.book(&|owed| {
            owed.stakes = add(owed.stakes, amount)?;
            Ok(())
        })?;
        self.put_in_place(&mut session, id, node, false)?;
        session.finish();
        emit(&Staked { node: id, amount });
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn unstake_node(&self, id: NodeId, amount: Balance) -> Result<Millis> {
        let mut session = self.session();
        let mut node = self.owned(&session, id)?;
        let until = node.stake.unstake(amount, session.now, self.global.0.unbonding_ms)?;
        self.put_in_place(&mut session, id, node, true)?;
        session.finish();
        emit(&Unstaked { node: id, amount, until });
        Ok(until)
    }

    #[inline(never)]
    pub(crate) fn set_status(&self, id: NodeId, status: NodeStatus, change: NodeChange) -> Result<()> {
        let mut session = self.session();
        let mut node = self.owned(&session, id)?;
        node.status = status;
        if status == NodeStatus::Active {
            node.misses = 0;
        }
        self.put_in_place(&mut session, id, node, false)?;
        session.finish();
        self.changed(id, change);
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn refresh_nodes(&self, nodes: Vec<NodeId>) -> Result<()> {
        check_batch(nodes.len())?;
        let mut session = self.session();
        for id in nodes {
            let node = session.load(id)?;
            self.put_in_place(&mut session, id, node, false)?;
        }
        session.finish();
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn remove_node(&self, id: NodeId) -> Result<()> {
        let session = self.session();
        let node = self.owned(&session, id)?;
        let money = node.stake.total().saturating_add(node.stake.locked).saturating_add(node.claimable);
        if node.open_count() > 0 || money > 0 || !node.standing.is_out(session.epoch) {
            return Err(Error::NodeInUse);
        }
        let mut account = session.account(node.owner);
        account.nodes.retain(|other| *other != id);
        account.collected = add(account.collected, node.withdrawn)?;
        session.set_account(node.owner, &account);
        session.finish();
        NODES.remove(id);
        INFOS.remove(id);
        self.changed(id, NodeChange::Deregistered);
        Ok(())
    }
}
