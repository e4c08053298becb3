//! The pool that one of the nodes belongs to: its manager puts in a bond, a token holder as much again, and what the node earns is
//! theirs.

use super::cast::{Actor, Player, KIND};
use super::report::even;
use super::{global_params, EPOCH};
use crate::cli::amount::Unit;
use anyhow::Context;
use poq_chain::deploy::Artifact;
use poq_chain::pool::{self, MemberView, NewPool, PoolNode, Rules, Stage, Terms, Token};
use poq_chain::types::{Millis, Ratio};
use poq_chain::{to_ink, AccountId32, At, Client};

/// The demonstration's pool.
pub(super) struct Pool {
    /// Its contract.
    pub(super) address: AccountId32,
    bond: u128,
    deposited: u128,
    /// What its account holds beyond its books: the existential deposit.
    surplus: u128,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Fruits {
    /// What the manager put in.
    pub(super) bond: u128,
    /// What the holder put in.
    pub(super) deposited: u128,
    /// The manager's commission.
    pub(super) commission: u128,
    /// What became of the bond's part of the node's income.
    pub(super) managers: u128,
    /// What the holder's shares gained, vested or not.
    pub(super) holders: u128,
    /// What has been paid to manager and holder, once the pool is closed.
    pub(super) paid: Option<(u128, u128)>,
    /// What its account holds beyond its books, after − before.
    pub(super) error: i128,
}

impl Pool {
    /// Makes the pool of a player's node, with half of its stake as bond, and has the holder deposit the other half.
    pub(super) async fn found(
        client: &Client,
        player: &mut Player,
        holder: &Actor,
        artifact: &Artifact,
        digest: [u8; 32],
    ) -> anyhow::Result<Pool> {
        let manager = client.submitter(player.owner.keys.clone());
        let bond = player.stake / 2;
        let deposited = player.stake - bond;
        let new = NewPool {
            poq: client.contract()?,
            node: PoolNode {
                role: player.role,
                kind: KIND,
                operator: to_ink(&player.operator.account()),
                model: player.model.into(),
                model_digest: digest,
                endpoint: player.endpoint(),
                price: player.price,
            },
            rules: Rules {
                commission_max: Ratio::from_permille(100),
                first_loss: Ratio::from_permille(50),
                era_ms: EPOCH.as_millis() as Millis,
                exit_ms: global_params().unbonding_ms,
            },
            terms: Terms { commission: Ratio::from_permille(50), capacity: player.stake * 2 },
            bond,
            token: Token {
                name: Some("Shares of the demonstration's pool".into()),
                symbol: Some("sDEMO".into()),
            },
        };
        let address = new.create(&manager, artifact, b"demo").await.context("the pool")?.address;
        client.submitter(holder.keys.clone()).send(pool::deposit(&address, deposited)).await?;
        let view = client.view().await?;
        let state = view.pool(&address).await?;
        player.id = state.node;
        let held = client.account(&address, At::Best).await?.free;
        let surplus = held.checked_sub(state.ledger.cash).context("the pool has less than its books say")?;
        Ok(Pool { address, bond, deposited, surplus })
    }

    /// Has the pool take what its node has earned.
    pub(super) async fn harvest(&self, client: &Client, anybody: &Actor) -> anyhow::Result<()> {
        client.submitter(anybody.keys.clone()).send(pool::advance(&self.address)).await?;
        Ok(())
    }

    /// What came of it so far, the pool being open or on its way to be closed.
    pub(super) async fn fruits(&self, client: &Client) -> anyhow::Result<Fruits> {
        let ledger = client.view().await?.pool(&self.address).await?.ledger;
        Ok(Fruits {
            bond: self.bond,
            deposited: self.deposited,
            commission: ledger.fees,
            managers: ledger.bond.saturating_sub(self.bond),
            holders: (ledger.active + ledger.vesting + ledger.exiting).saturating_sub(self.deposited),
            paid: None,
            error: 0,
        })
    }

    /// Begins to close it: its stake goes out with its next era.
    pub(super) async fn close(&self, client: &Client, player: &Player) -> anyhow::Result<()> {
        client.submitter(player.owner.keys.clone()).send(pool::close(&self.address)).await?;
        Ok(())
    }

    /// Does what is due in a pool that is being closed; returns from when there is more to do, `None` where it is closed.
    pub(super) async fn wind_up(&self, client: &Client, player: &Player) -> anyhow::Result<Option<Millis>> {
        client.submitter(player.owner.keys.clone()).send(pool::advance(&self.address)).await?;
        let view = client.view().await?;
        if view.pool(&self.address).await?.ledger.stage == Stage::Closed {
            return Ok(None);
        }
        let node = view.node(player.id).await?.context("the pool's node is gone")?;
        let back = node.node.stake.tranches.iter().map(|tranche| tranche.until).max();
        let era = view.block().timestamp_ms.saturating_add(EPOCH.as_millis() as Millis);
        Ok(Some(back.unwrap_or(era)))
    }

    /// Pays everybody out of it, once it is closed. Returns what manager and holder got.
    pub(super) async fn pay_out(
        &self,
        client: &Client,
        player: &Player,
        holder: &Actor,
    ) -> anyhow::Result<(u128, u128)> {
        let manager = client.submitter(player.owner.keys.clone());
        let submitter = client.submitter(holder.keys.clone());
        let MemberView { shares, .. } =
            client.view().await?.pool_member(&self.address, &holder.account()).await?;
        let paid = submitter.send(pool::exit(&self.address, shares)).await?.value;
        let collected = manager.send(pool::collect(&self.address)).await?.value;
        Ok((collected, paid))
    }

    /// What its account holds beyond its books now, less what it held at the start.
    pub(super) async fn error(&self, client: &Client) -> anyhow::Result<i128> {
        let end = client.best().await?;
        let cash = client.view_at(end).await?.pool(&self.address).await?.ledger.cash;
        let held = client.account(&self.address, end).await?.free;
        let sign = |amount: u128| i128::try_from(amount).context("an amount beyond 2^127");
        Ok(sign(held)? - sign(cash)? - sign(self.surplus)?)
    }
}

impl Fruits {
    /// For people, as lines.
    pub(super) fn lines(&self, unit: &Unit) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("POOL", String::new()),
            ("manager's bond", unit.show(self.bond)),
            ("deposited by a holder", unit.show(self.deposited)),
            ("manager's commission", unit.show(self.commission)),
            ("bond's part of the income", unit.show(self.managers)),
            ("shares' part, which vests over an era", unit.show(self.holders)),
        ];
        if let Some((manager, holder)) = self.paid {
            lines.push(("closed: the manager was paid", unit.show(manager)));
            lines.push(("closed: the holder was paid", unit.show(holder)));
        }
        lines.push(("its account holds what its books say, but for", even(self.error)));
        lines
    }
}
