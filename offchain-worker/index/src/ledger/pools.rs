//! What pools' events do to the books.

use super::apply::{Course, Spot};
use super::books::{add, sub, Member};
use super::{Id, Ledger, PoolBook, PoolEventBox};
use poq_chain::pool::PoolEvent;
use poq_chain::to_account32;

pub(super) fn apply(
    ledger: &mut Ledger,
    course: &mut Course<'_>,
    spot: &Spot,
    pool: Id,
    boxed: &PoolEventBox,
) {
    let event = &*boxed.0;
    if let PoolEvent::PoolCreated(e) = event {
        // Anybody can emit such an event: a pool is who owns the node that it names.
        let owner = ledger.nodes.get(&e.node).map(|book| to_account32(&book.node.owner).0);
        if to_account32(&e.poq) != ledger.network.contract || owner != Some(pool) {
            return;
        }
        let created = (spot.block.number, spot.block.at);
        ledger.pools.entry(pool).or_insert_with(|| PoolBook {
            created,
            node: e.node,
            state: None,
            members: Default::default(),
        });
        course.out.touched.pools.insert(pool);
        let manager = to_account32(&e.manager).0;
        ledger.account(course, spot, manager, |account| add(&mut account.pooled, e.bond));
        course.entry(spot, manager, "pool_bond", e.bond, Some(e.node), None, Some(pool));
        return;
    }
    let Some(book) = ledger.pools.get_mut(&pool) else { return };
    let node = Some(book.node);
    let manager = book.state.as_ref().map(|(read, _)| to_account32(&read.view.manager).0);
    course.out.touched.pools.insert(pool);
    let mut member = |course: &mut Course<'_>, account: Id, change: &dyn Fn(&mut Member)| {
        change(book.members.entry(account).or_default());
        course.out.touched.members.insert((pool, account));
    };
    match event {
        PoolEvent::Deposited(e) => {
            let account = to_account32(&e.account).0;
            member(course, account, &|member| add(&mut member.deposited, e.amount));
            ledger.account(course, spot, account, |book| add(&mut book.pooled, e.amount));
            course.entry(spot, account, "pool_deposit", e.amount, node, None, Some(pool));
        }
        PoolEvent::ExitRequested(e) => {
            let account = to_account32(&e.account).0;
            member(course, account, &|member| add(&mut member.exited, e.value));
            ledger.account(course, spot, account, |_| {});
            course.entry(spot, account, "pool_exit", e.value, node, None, Some(pool));
        }
        PoolEvent::ExitPaid(e) => {
            let account = to_account32(&e.account).0;
            member(course, account, &|member| add(&mut member.paid, e.amount));
            ledger.account(course, spot, account, |book| add(&mut book.unpooled, e.amount));
            course.entry(spot, account, "pool_paid", e.amount, node, None, Some(pool));
        }
        PoolEvent::Transfer(e) => {
            let (from, to) = (e.from.as_ref().map(to_account32), e.to.as_ref().map(to_account32));
            if let Some(from) = from {
                member(course, from.0, &|member| sub(&mut member.shares, e.value));
            }
            if let Some(to) = to {
                member(course, to.0, &|member| add(&mut member.shares, e.value));
            }
            // Minted and burned ones are deposits and exits.
            if let (Some(from), Some(to)) = (from, to) {
                for (account, what) in [(from.0, "shares_out"), (to.0, "shares_in")] {
                    ledger.account(course, spot, account, |_| {});
                    course.entry(spot, account, what, e.value, node, None, Some(pool));
                }
            }
        }
        PoolEvent::BondAdded(e) => {
            if let Some(manager) = manager {
                ledger.account(course, spot, manager, |book| add(&mut book.pooled, e.amount));
                course.entry(spot, manager, "pool_bond", e.amount, node, None, Some(pool));
            }
        }
        PoolEvent::ManagerPaid(e) => {
            let to = to_account32(&e.to).0;
            ledger.account(course, spot, to, |book| add(&mut book.unpooled, e.amount));
            course.entry(spot, to, "pool_manager_paid", e.amount, node, None, Some(pool));
        }
        PoolEvent::Accounted(_) => {
            let active = book.state.as_ref().map_or(0, |(read, _)| read.view.ledger.active);
            let place = (spot.block.number, spot.index, spot.block.at);
            course.out.touched.income.push((pool, place.0, place.1, place.2, boxed.clone(), active));
        }
        // The rest is in what was read after the block.
        _ => {}
    }
}
