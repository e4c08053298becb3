//! The money check: every unit that anybody held before, at the end is somewhere.
//!
//! Three sums, each of which must come out even:
//! - **chain**: what all accounts and the contract hold (storage deposits included) before and after differ by the
//!   transaction fees, as the chain's own events tell them;
//! - **contract**: what went in (stakes and task fees) is what came out (claims, refunds, withdrawn stakes, withdrawn
//!   treasury, withdrawn credit) and what the contract still owes, what is burned among it, and its balance has grown by just that;
//! - **payees**: accounts that do nothing but be paid hold what the contract says they were paid.

use anyhow::Context;
use poq_chain::events::{Burned, Claimed, Collected, StakeWithdrawn, Staked, TreasuryWithdrawn, Withdrawn};
use poq_chain::types::{Liabilities, NodeId, Solvency};
use poq_chain::{to_account32, AccountId32, At, Block, Client, PoqEvent};
use std::collections::BTreeMap;
use std::time::Duration;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::{OnlineClient, SubstrateConfig};

/// How long the last block may take to be final before it is looked at anyway.
const FINALITY: Duration = Duration::from_secs(120);

/// `TransactionPayment.TransactionFeePaid`: the fields of it that matter, by name.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct FeePaid {
    who: AccountId32,
    actual_fee: u128,
    tip: u128,
}

/// What went through the contract, by its own events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flows {
    /// Stakes in.
    pub(super) stakes: u128,
    /// Task fees in.
    pub(super) fees: u128,
    /// Rewards out.
    pub(super) claims: u128,
    /// Refunds out.
    pub(super) refunds: u128,
    /// Stakes out.
    pub(super) unstaked: u128,
    /// Treasury out.
    pub(super) treasury: u128,
    /// Credit out: keepers' fees.
    pub(super) credit: u128,
    /// Burned money out, to an account that nobody has.
    pub(super) gone: u128,
}

impl Flows {
    /// All that went in.
    fn inward(&self) -> u128 {
        self.stakes + self.fees
    }

    /// All that came out.
    fn outward(&self) -> u128 {
        self.claims + self.refunds + self.unstaked + self.treasury + self.credit + self.gone
    }
}

/// Follows every block from its start.
pub(super) struct Ledger {
    plain: OnlineClient<SubstrateConfig>,
    accounts: BTreeMap<[u8; 32], String>,
    before: u128,
    next: u32,
    transaction_fees: u128,
    flows: Flows,
    claimed: BTreeMap<NodeId, u128>,
    paid_to: BTreeMap<[u8; 32], u128>,
    contract: Option<(Client, u128)>,
    endings: Vec<(Block, PoqEvent)>,
}

impl Ledger {
    /// Of these accounts, from the best block on. Nothing of theirs must have been sent and not yet be in a block.
    pub(super) async fn open(
        client: &Client,
        plain: OnlineClient<SubstrateConfig>,
        accounts: impl IntoIterator<Item = (AccountId32, String)>,
    ) -> anyhow::Result<Ledger> {
        let accounts: BTreeMap<_, _> =
            accounts.into_iter().map(|(account, name)| (account.0, name)).collect();
        let start = client.best().await?;
        let before = total(client, accounts.keys(), start).await?;
        Ok(Ledger {
            plain,
            accounts,
            before,
            next: start.number.saturating_add(1),
            transaction_fees: 0,
            flows: Flows::default(),
            claimed: BTreeMap::new(),
            paid_to: BTreeMap::new(),
            contract: None,
            endings: Vec::new(),
        })
    }

    /// From here on the contract is followed too. Nothing but its deployment must have happened to it.
    pub(super) async fn contract(&mut self, client: Client) -> anyhow::Result<()> {
        let solvency = client.view().await?.solvency().await?;
        self.contract = Some((client, surplus(&solvency)?));
        Ok(())
    }

    /// One more account, which came to be with what those before it paid.
    pub(super) fn add(&mut self, account: AccountId32, name: String) {
        self.accounts.insert(account.0, name);
    }

    /// What a node has been paid so far.
    pub(super) fn claimed(&self, node: NodeId) -> u128 {
        self.claimed.get(&node).copied().unwrap_or(0)
    }

    /// How tasks ended, references were opened and panels drawn so far, in the chain's order.
    pub(super) fn endings(&self) -> &[(Block, PoqEvent)] {
        &self.endings
    }

    /// Reads the blocks up to this number.
    pub(super) async fn follow(&mut self, up_to: u32) -> anyhow::Result<()> {
        while self.next <= up_to {
            let number = self.next;
            let what = || format!("block {number} for the money check");
            let at = self.plain.at_block(u64::from(number)).await.with_context(what)?;
            let events = at.events().fetch().await.with_context(what)?;
            for event in events.iter() {
                let event = event.with_context(what)?;
                if (event.pallet_name(), event.event_name()) == ("TransactionPayment", "TransactionFeePaid") {
                    let paid: FeePaid = event.decode_fields_unchecked_as().with_context(what)?;
                    if self.accounts.contains_key(&paid.who.0) {
                        // The fee as it was in the end contains the tip.
                        debug_assert!(paid.tip <= paid.actual_fee);
                        self.transaction_fees += paid.actual_fee;
                    }
                }
            }
            if let Some((client, _)) = &self.contract {
                for emitted in client.events_at(At::Number(number)).await.with_context(what)? {
                    self.note(&emitted.event);
                    if let PoqEvent::TaskClosed(_) | PoqEvent::TaskAudited(_) | PoqEvent::PanelDrawn(_) =
                        emitted.event
                    {
                        self.endings.push((emitted.block, emitted.event));
                    }
                }
            }
            self.next = number + 1;
        }
        Ok(())
    }

    fn note(&mut self, event: &PoqEvent) {
        let flows = &mut self.flows;
        match event {
            PoqEvent::Staked(Staked { amount, .. }) => flows.stakes += amount,
            PoqEvent::TaskRequested(event) => flows.fees += event.fee,
            PoqEvent::StakeWithdrawn(StakeWithdrawn { amount, .. }) => flows.unstaked += amount,
            PoqEvent::Collected(Collected { amount, .. }) => flows.refunds += amount,
            PoqEvent::TreasuryWithdrawn(TreasuryWithdrawn { amount, .. }) => flows.treasury += amount,
            PoqEvent::Withdrawn(Withdrawn { amount, .. }) => flows.credit += amount,
            PoqEvent::Burned(Burned { amount }) => flows.gone += amount,
            PoqEvent::Claimed(Claimed { node, to, amount }) => {
                flows.claims += amount;
                *self.claimed.entry(*node).or_default() += amount;
                *self.paid_to.entry(to_account32(to).0).or_default() += amount;
            }
            _ => {}
        }
    }

    /// Makes the sums, at the best block once it is final. `payees` are the accounts that do nothing but be paid.
    pub(super) async fn close(mut self, client: &Client, payees: &[AccountId32]) -> anyhow::Result<Money> {
        let end = client.best().await?;
        let mut finalized = client.finalized_watch();
        // A chain that does not finalise must not keep the check from being made.
        let _ = tokio::time::timeout(FINALITY, finalized.wait_for(|block| block.number >= end.number)).await;
        self.follow(end.number).await?;

        let (contract, surplus_before) = self.contract.clone().context("the contract was never deployed")?;
        let solvency = contract.view_at(end).await?.solvency().await?;
        let address = contract.contract()?;
        let accounts = self.accounts.keys().chain([&address.0]);
        let after = total(client, accounts, end).await?;
        let mut payee_error = 0i128;
        for payee in payees {
            let held = client.account(payee, end).await?.free;
            let paid = self.paid_to.get(&payee.0).copied().unwrap_or(0);
            payee_error += difference(held, paid)?.abs();
        }
        let owed = solvency.liabilities.total();
        let contract_error = difference(self.flows.inward(), self.flows.outward() + owed)?;
        let balance_error = difference(surplus(&solvency)?, surplus_before)?;
        let chain_error = difference(self.before, after + self.transaction_fees + self.flows.gone)?;
        Ok(Money {
            accounts: self.accounts.len() + 1,
            before: self.before,
            after,
            transaction_fees: self.transaction_fees,
            owed,
            liabilities: solvency.liabilities,
            deposited: self.flows.inward(),
            balances: self.flows.outward() + owed,
            flows: self.flows,
            chain_error,
            contract_error,
            balance_error,
            payee_error,
        })
    }
}

/// What the contract has beyond what it owes. It cannot owe more than it has: that would be found here.
fn surplus(solvency: &Solvency) -> anyhow::Result<u128> {
    let owed = solvency.liabilities.total();
    solvency
        .balance
        .checked_sub(owed)
        .with_context(|| format!("the contract owes {owed} and has {}", solvency.balance))
}

/// Free and held money of all these accounts.
async fn total<'a>(
    client: &Client,
    accounts: impl IntoIterator<Item = &'a [u8; 32]>,
    at: Block,
) -> anyhow::Result<u128> {
    let mut sum = 0u128;
    for account in accounts {
        let info = client.account(&AccountId32(*account), at).await?;
        sum += info.free + info.reserved;
    }
    Ok(sum)
}

fn difference(left: u128, right: u128) -> anyhow::Result<i128> {
    let sign = |amount: u128| i128::try_from(amount).context("an amount beyond 2^127");
    Ok(sign(left)? - sign(right)?)
}

/// The sums.
#[derive(Clone, Debug)]
pub(super) struct Money {
    /// How many accounts were summed, the contract included.
    pub(super) accounts: usize,
    /// What they held before, free and held.
    pub(super) before: u128,
    /// What they hold after, free and held.
    pub(super) after: u128,
    /// What they paid to the chain.
    pub(super) transaction_fees: u128,
    /// What went through the contract.
    pub(super) flows: Flows,
    /// What the contract still owes.
    pub(super) owed: u128,
    /// The same by name.
    pub(super) liabilities: Liabilities,
    /// What went into the contract.
    pub(super) deposited: u128,
    /// What came out of it and what it owes.
    pub(super) balances: u128,
    /// before − after − transaction fees − what was burned and sent away.
    pub(super) chain_error: i128,
    /// deposited − balances.
    pub(super) contract_error: i128,
    /// What the contract has beyond what it owes, after − before.
    pub(super) balance_error: i128,
    /// Sum over the payees of |held − paid|.
    pub(super) payee_error: i128,
}

impl Money {
    /// Zero exactly when every sum comes out even.
    pub(super) fn difference(&self) -> i128 {
        let others = self.chain_error.abs() + self.balance_error.abs() + self.payee_error.abs();
        // With its sign where it is the only one.
        if others == 0 {
            self.contract_error
        } else {
            self.contract_error.abs() + others
        }
    }
}
