//! A draw: nodes of different owners, in proportion to their weights in one epoch, with bounded work.
//!
//! A seat goes to the first pick that lands on a new owner. Drawing again whenever a pick lands on an owner that already has a
//! seat would favour whoever splits a stake over many owners: a large node gives up its second seat to the rest, and those who
//! split are all rest (with 30 % of the weight in dust against sixty equal nodes, 31.0 % of the seats of panels of nine). So a
//! pick that has hit a seated owner is repeated in proportion to the *square* of the weights. Of K picks K(K−1)/2 · p² hit node
//! i twice where p is its share; repeating by p² gives node i that much back, so that it is in the panel with probability
//! K·p + O(p³): its share of the seats, however the others are split.

use super::epoch::Epoch;
use super::pool::{bound, By, Counts};
use super::seed::Stream;
use super::{Account, Error, PoolId, Registered, Registry};
use crate::units::{NodeId, Ratio};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Pools of at most so many members are scanned where picks have left seats empty.
pub const SCAN: u32 = 64;

/// What is to be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// From where.
    pub pool: PoolId,
    /// The epoch in which the task was sealed: the draw reads that one. Where the pool was empty then, as in a new network, it
    /// reads the newest.
    pub sealed: Epoch,
    /// The present epoch: `sealed` or the one after it.
    pub now: Epoch,
    /// The seed.
    pub seed: [u8; 32],
    /// 0 for a draw, 1 for the filling of its empty seats.
    pub round: u8,
    /// How many seats there are.
    pub seats: u8,
    /// Owners that have a seat already.
    pub seated: &'a [Account],
    /// Owners that take no part: those who answered, and who asked.
    pub excluded: &'a [Account],
}

/// Who was drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drawn<N> {
    /// The nodes with their records as loaded, in the order in which they were drawn.
    pub seats: Vec<(NodeId, N)>,
    /// Whether all seats are taken.
    pub full: bool,
}

/// A place that the draw has looked at.
struct Seen<N> {
    class: u8,
    index: u32,
    id: NodeId,
    weight: Ratio,
    owner: Account,
    /// Whether it takes part at all.
    eligible: bool,
    /// Its record, until it gets a seat. Boxed: records are large, and what has been looked at grows.
    node: Option<Box<N>>,
}

/// Draws. `fit` says whether a node can take a seat as it is now (its stake can be locked, it has a duty's slot free), whatever its
/// owner; it is asked once per node.
///
/// At most 4·seats + 8 picks; then, if the pool has at most [`SCAN`] members, an exact scan of them all. The result depends on the
/// epoch, the seed and `fit` alone.
///
/// Accesses: the pool, and two for every place when it is first looked at.
///
/// # Errors
/// `Forgotten` where `sealed` is more than one epoch ago.
pub fn draw<R: Registry>(
    registry: &R,
    draw: &Draw<'_>,
    hash: impl Fn(&[u8]) -> [u8; 32],
    fit: impl Fn(NodeId, &R::Node) -> bool,
) -> Result<Drawn<R::Node>, Error> {
    draw_by(registry, draw, &hash, &fit)
}

/// One copy of the code for all that draw.
#[inline(never)]
fn draw_by<R: Registry>(
    registry: &R,
    draw: &Draw<'_>,
    hash: &dyn Fn(&[u8]) -> [u8; 32],
    fit: Fit<'_, R>,
) -> Result<Drawn<R::Node>, Error> {
    if draw.sealed.saturating_add(1) < draw.now {
        return Err(Error::Forgotten);
    }
    let counts = registry.counts(draw.pool);
    let (epoch, counts) = match counts.at(draw.sealed).ok_or(Error::Forgotten)? {
        sealed if !sealed.is_empty() => (draw.sealed, *sealed),
        _ => (draw.now.saturating_add(1), *counts.latest()),
    };
    let seats = usize::from(draw.seats);
    let mut table = Table {
        registry,
        pool: draw.pool,
        epoch,
        excluded: draw.excluded,
        fit,
        seen: Vec::with_capacity(seats.saturating_mul(2)),
        owners: draw.seated.to_vec(),
        seats: Vec::with_capacity(seats),
    };
    let mut stream = Stream::new(draw.seed, draw.round);
    let mut by = By::Weight;
    for _ in 0..seats.saturating_mul(4).saturating_add(8) {
        if table.seats.len() >= seats {
            break;
        }
        let Some(pick) = counts.pick(stream.next(hash), by) else { break };
        let at = table.look(pick.class, pick.index)?;
        if table.seen.get(at).is_some_and(|seen| seen.eligible && pick.accepts(seen.weight)) {
            by = if table.seat(at) { By::Weight } else { By::Square };
        }
    }
    if table.seats.len() < seats && counts.len() <= SCAN {
        table.scan(&counts, seats, by, &mut || stream.next(hash))?;
    }
    Ok(Drawn { full: table.seats.len() >= seats, seats: table.seats })
}

/// Whether a node can take a seat.
type Fit<'a, R> = &'a dyn Fn(NodeId, &<R as Registry>::Node) -> bool;

/// A draw's state.
struct Table<'a, R: Registry> {
    registry: &'a R,
    pool: PoolId,
    epoch: Epoch,
    excluded: &'a [Account],
    fit: Fit<'a, R>,
    seen: Vec<Seen<R::Node>>,
    owners: Vec<Account>,
    seats: Vec<(NodeId, R::Node)>,
}

impl<R: Registry> Table<'_, R> {
    /// Reads a place unless that was done before. Its position in `seen`.
    fn look(&mut self, class: u8, index: u32) -> Result<usize, Error> {
        if let Some(at) = self.seen.iter().position(|seen| seen.class == class && seen.index == index) {
            return Ok(at);
        }
        let id = *self.registry.member(self.pool, class, index).at(self.epoch).ok_or(Error::Forgotten)?;
        // A node that had no weight may have gone while an epoch still has a place for it.
        let node = self.registry.node(id).map(Box::new);
        let (mut weight, mut owner, mut eligible) = (Ratio::ZERO, Account::default(), false);
        if let Some(node) = &node {
            weight = *node.standing().weight.at(self.epoch).ok_or(Error::Forgotten)?;
            owner = node.owner();
            eligible = weight > Ratio::ZERO && !self.excluded.contains(&owner) && (self.fit)(id, node);
        }
        self.seen.push(Seen { class, index, id, weight: weight.min(bound(class)), owner, eligible, node });
        Ok(self.seen.len().saturating_sub(1))
    }

    /// Gives the node at `at` a seat unless its owner has one. Whether it did.
    fn seat(&mut self, at: usize) -> bool {
        let Some(seen) = self.seen.get_mut(at) else { return false };
        if self.owners.contains(&seen.owner) {
            return false;
        }
        let Some(node) = seen.node.take() else { return false };
        self.owners.push(seen.owner);
        self.seats.push((seen.id, *node));
        true
    }

    /// Goes on as the picks would, for as long as there is anybody: at most two random numbers a seat.
    fn scan(
        &mut self,
        counts: &Counts,
        seats: usize,
        mut by: By,
        random: &mut dyn FnMut() -> u128,
    ) -> Result<(), Error> {
        for (class, index) in counts.places() {
            self.look(class, index)?;
        }
        while self.seats.len() < seats {
            let free = |seen: &Seen<R::Node>| seen.eligible && !self.owners.contains(&seen.owner);
            if !self.seen.iter().any(free) {
                break;
            }
            // A pick among all can hit a seated owner; the one after it is by the square, among the others.
            let part = |seen: &Seen<R::Node>| match by {
                By::Weight if seen.eligible => by.of(seen.weight),
                By::Square if free(seen) => by.of(seen.weight),
                _ => 0,
            };
            let Some(at) = exact(self.seen.iter().map(part), random()) else { break };
            by = if self.seat(at) { By::Weight } else { By::Square };
        }
        Ok(())
    }
}

/// The position that a random number falls on, in proportion to the parts; `None` where all are zero.
// At most 64 parts of at most 10^18: below 2^66.
#[allow(clippy::arithmetic_side_effects)]
fn exact(parts: impl Iterator<Item = u128> + Clone, random: u128) -> Option<usize> {
    let total: u128 = parts.clone().sum();
    let mut rest = random.checked_rem(total)?;
    for (at, part) in parts.enumerate() {
        if rest < part {
            return Some(at);
        }
        rest -= part;
    }
    None
}
