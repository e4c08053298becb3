//! A staking pool for one node of the Proof-of-Quality contract.
//!
//! # Overview
//!
//! A *manager* makes the pool with a bond, and with it a node: the pool is the node's owner and its payee, for ever; the manager names
//! the hot key that does the duties. Token holders deposit and get shares, a PSP22 token. What the node earns, less a commission,
//! belongs to bond and shares; what it is slashed takes the bond first. Who exits waits as long as the stake unbonds, at risk until
//! then, and is paid. The books are `poq_core::pool`'s, which says who owns every planck and how each number rounds: this is a shell
//! that moves the money.
//!
//! # Who can do what
//!
//! Nobody can take or hold up what is another's. The manager chooses hot key, endpoint and price, announces terms (commission within
//! what was promised, capacity) at least one exit ahead, and may close the pool, which pays everybody. `advance` and `claim` are
//! anybody's, so that exits go on without the manager.
//!
//! # Error handling
//!
//! A message that returns an error has changed nothing. Each one first takes what the node has for the pool and books what happened to
//! the node, and fails where that fails.
//!
//! # Storage deposits
//!
//! Whoever deposits pays for its own balance, whoever exits for its exits and, the first in an era, for the era's record. The era's last
//! claim gets that one back.
#![cfg_attr(not(feature = "std"), no_std, no_main)]
// ink!'s macros generate undocumented items and arithmetic of their own.
#![allow(missing_docs, unreachable_pub, clippy::new_without_default, unexpected_cfgs)]

pub mod errors;
pub mod events;
pub mod node;
pub mod types;

pub use self::pool::{Pool, PoolRef};

#[ink::contract]
pub mod pool {
    use crate::errors::{Error, Result};
    use crate::events::*;
    use crate::node::{self, PoolsNode};
    use crate::types::*;
    use ink::prelude::{string::String, vec::Vec};
    use ink::storage::{Lazy, Mapping};
    use poq_core::pool::{
        Era, EraId, Exits, Ledger, PoolError, Rules, Seen, Stage, Synced, Terms, SHARE_DECIMALS,
    };
    use poq_core::units::{Millis, NodeId};
    use psp22::{PSP22Data, PSP22Error, PSP22Event, PSP22Metadata, PSP22};

    /// Decimals of the chain's token.
    const CHAIN_DECIMALS: u8 = 12;

    /// The pool's storage.
    #[ink(storage)]
    pub struct Pool {
        /// The contract that the node is in.
        poq: AccountId,
        /// The node's number there.
        node: NodeId,
        /// Who runs the pool.
        manager: AccountId,
        /// Who may accept to run it; the manager itself where there is nobody, so that the record keeps its size.
        proposed: AccountId,
        /// What is promised for ever.
        rules: Cell<Rules>,
        /// The books.
        ledger: Cell<Ledger>,
        /// The shares.
        shares: PSP22Data,
        /// The token's name and symbol.
        token: Lazy<Token>,
        /// Eras with exits that were not claimed.
        eras: Mapping<EraId, Cell<Era>>,
        /// Accounts' exits.
        exits: Mapping<AccountId, Cell<Exits>>,
    }

    impl Pool {
        /// A pool, run by the caller. The transferred value is its bond and its node's first stake.
        ///
        /// # Events
        /// `PoolCreated`.
        ///
        /// # Errors
        /// `Pool(BadRules)` where the era is shorter than the contract's epoch or the exit shorter than its unbonding, `Pool(BadTerms)`,
        /// `Pool(NoAmount)` without a bond, `Poq` where the contract refuses the node, `NoAnswer`.
        #[ink(constructor, payable)]
        pub fn new(
            poq: AccountId,
            node: PoolNode,
            rules: Rules,
            terms: Terms,
            name: Option<String>,
            symbol: Option<String>,
        ) -> Result<Self> {
            let env = Self::env;
            let (manager, bond) = (env().caller(), env().transferred_value());
            let (epoch_ms, unbonding_ms) = node::times(poq)?;
            rules.check(epoch_ms, unbonding_ms)?;
            let ledger = Ledger::new(bond, terms, env().block_timestamp(), &rules)?;
            let node = node::register(poq, node.of(env().account_id()), bond)?.id;
            env().emit_event(PoolCreated { poq, node, manager, bond, rules, terms });
            let mut token = Lazy::new();
            token.set(&Token { name, symbol });
            Ok(Self {
                poq,
                node,
                manager,
                proposed: manager,
                rules: Cell(rules),
                ledger: Cell(ledger),
                shares: PSP22Data::default(),
                token,
                eras: Mapping::default(),
                exits: Mapping::default(),
            })
        }

        // --- holders -------------------------------------------------------------------------------------------------

        /// Deposits the transferred value; returns the shares that it bought.
        ///
        /// # Events
        /// `Deposited`, PSP22's `Transfer`.
        ///
        /// # Errors
        /// `Pool(Closing | NoAmount | WipedOut | OverCapacity | TooLittleBond)`.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn deposit(&mut self) -> Result<Balance> {
            let (account, amount) = (self.env().caller(), self.env().transferred_value());
            self.sync()?;
            let (ledger, shares) =
                self.ledger.0.deposit(self.shares.total_supply(), amount, &self.rules.0)?;
            self.ledger.0 = ledger;
            let moved = self.shares.mint(account, shares).map_err(|_| PoolError::Overflow)?;
            self.emit(moved);
            self.stake_spare()?;
            self.env().emit_event(Deposited { account, amount, shares });
            Ok(shares)
        }

        /// Exits the caller's shares; returns what they are worth, which is the most that will be paid for them, when the era has ended
        /// and its exit time has passed. A closed pool pays at once.
        ///
        /// # Events
        /// `ExitRequested`, PSP22's `Transfer`.
        ///
        /// # Errors
        /// `Pool(NoAmount | NotEnoughShares | TooManyExits)`.
        #[ink(message)]
        #[inline(never)]
        pub fn exit(&mut self, shares: Balance) -> Result<Balance> {
            let account = self.env().caller();
            self.sync()?;
            let number = self.ledger.0.era;
            let (ledger, era, exited) =
                self.ledger.0.exit(self.shares.total_supply(), shares, self.era_or_new(number))?;
            let moved = self.shares.burn(account, shares).map_err(|_| PoolError::NotEnoughShares)?;
            self.ledger.0 = ledger;
            let waits = exited.points > 0;
            if waits {
                let exits = self.exits_of(account).add(number, exited.points)?;
                self.exits.insert(account, &Cell(exits));
                self.eras.insert(number, &Cell(era));
            } else if ledger.stage == Stage::Closed {
                self.pay(account, exited.value)?;
            }
            self.emit(moved);
            let era = if waits { number } else { 0 };
            self.env().emit_event(ExitRequested { account, shares, value: exited.value, era });
            // Where the contract does not unstake now, it is asked again by the next message.
            let _ = self.turn();
            Ok(exited.value)
        }

        /// Pays an account what its exits gave whose eras are paid. Anybody may. Returns how much; 0 where nothing is ready yet.
        ///
        /// # Events
        /// `ExitPaid`.
        ///
        /// # Errors
        /// `TransferFailed` for an amount that would not keep a new account alive.
        #[ink(message)]
        #[inline(never)]
        pub fn claim(&mut self, account: AccountId) -> Result<Balance> {
            self.sync()?;
            let _ = self.turn();
            let mut exits = self.exits_of(account);
            let mut amount: Balance = 0;
            // At most as many as an account can have.
            while let Some((number, points)) = exits.take_ready(self.ledger.0.oldest) {
                let era = self.era_or_new(number);
                let (ledger, left, paid) = self.ledger.0.pay(self.shares.total_supply(), era, points)?;
                self.ledger.0 = ledger;
                match left {
                    Some(era) => {
                        self.eras.insert(number, &Cell(era));
                    }
                    None => self.eras.remove(number),
                }
                amount = amount.checked_add(paid).ok_or(PoolError::Overflow)?;
            }
            if exits.is_empty() {
                self.exits.remove(account);
            } else {
                self.exits.insert(account, &Cell(exits));
            }
            if amount > 0 {
                self.pay(account, amount)?;
                self.env().emit_event(ExitPaid { account, amount });
            }
            Ok(amount)
        }

        // --- anybody -------------------------------------------------------------------------------------------------

        /// Does what is due: books what happened, pays an era that has waited, unstakes for exits or for closing, stakes what is idle,
        /// and removes the node of a closing pool that has nothing left in it. Anybody may.
        ///
        /// # Events
        /// `Accounted`, `EraPaid`, `EraEnded`, `StageChanged`.
        ///
        /// # Errors
        /// `Poq`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn advance(&mut self) -> Result<()> {
            self.sync()?;
            self.turn()?;
            self.stake_spare()?;
            let ledger = self.ledger.0;
            if ledger.stage == Stage::Closing && ledger.staked == 0 && ledger.unbonding == 0 {
                // Refused while a task is open or the draw can still find the node: later, then.
                if self.at().deregister().is_ok() {
                    self.ledger.0 = ledger.closed()?;
                    self.env().emit_event(StageChanged { stage: Stage::Closed });
                }
            }
            Ok(())
        }

        // --- the manager ---------------------------------------------------------------------------------------------

        /// Adds the transferred value to the bond.
        ///
        /// # Events
        /// `BondAdded`.
        ///
        /// # Errors
        /// `NotManager`, `Pool(Closing | NoAmount)`.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn add_bond(&mut self) -> Result<()> {
            self.only_manager()?;
            let amount = self.env().transferred_value();
            self.sync()?;
            self.ledger.0 = self.ledger.0.add_bond(amount)?;
            self.stake_spare()?;
            self.env().emit_event(BondAdded { amount });
            Ok(())
        }

        /// Pays the manager its commission, and the bond once the pool is closed. Returns how much.
        ///
        /// # Events
        /// `ManagerPaid`.
        ///
        /// # Errors
        /// `NotManager`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn collect(&mut self) -> Result<Balance> {
            self.only_manager()?;
            self.sync()?;
            let (ledger, amount) = self.ledger.0.collect()?;
            self.ledger.0 = ledger;
            if amount > 0 {
                self.pay(self.manager, amount)?;
                self.env().emit_event(ManagerPaid { to: self.manager, amount });
            }
            Ok(amount)
        }

        /// Announces terms, in the place of any that were announced and have not begun. Returns when they begin: an era and an exit
        /// time from now.
        ///
        /// # Events
        /// `TermsAnnounced`.
        ///
        /// # Errors
        /// `NotManager`, `Pool(Closing | BadTerms)`.
        #[ink(message)]
        #[inline(never)]
        pub fn announce(&mut self, terms: Terms) -> Result<Millis> {
            self.only_manager()?;
            self.sync()?;
            let (ledger, from) =
                self.ledger.0.announce(terms, self.env().block_timestamp(), &self.rules.0)?;
            self.ledger.0 = ledger;
            self.env().emit_event(TermsAnnounced { terms, from });
            Ok(from)
        }

        /// Changes the node's hot key, endpoint or price.
        ///
        /// # Errors
        /// `NotManager`, `Poq`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn configure(&mut self, update: PoolNodeUpdate) -> Result<()> {
            self.only_manager()?;
            self.at().configure(update.into())
        }

        /// Takes the node out of the draws.
        ///
        /// # Errors
        /// `NotManager`, `Poq`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn drain(&mut self) -> Result<()> {
            self.only_manager()?;
            self.at().drain()
        }

        /// Puts a drained node back into the draws.
        ///
        /// # Errors
        /// `NotManager`, `Pool(Closing)`, `Poq`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn resume(&mut self) -> Result<()> {
            self.only_manager()?;
            if self.ledger.0.stage != Stage::Open {
                return Err(PoolError::Closing.into());
            }
            self.at().resume()
        }

        /// Begins to close the pool: no deposits any more, the node is drained and all stake goes out. When it is back and the node is
        /// removed, shares and bond are paid at once.
        ///
        /// # Events
        /// `StageChanged`.
        ///
        /// # Errors
        /// `NotManager`, `Pool(Closing)`, `Poq`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn close(&mut self) -> Result<()> {
            self.only_manager()?;
            self.sync()?;
            self.ledger.0 = self.ledger.0.close()?;
            self.at().drain()?;
            self.env().emit_event(StageChanged { stage: Stage::Closing });
            let _ = self.turn();
            Ok(())
        }

        /// Proposes another account as manager: with its acceptance it has all that is the manager's, the bond too. Proposing the
        /// manager itself takes a proposal back.
        ///
        /// # Events
        /// `ManagerChanged`.
        ///
        /// # Errors
        /// `NotManager`.
        #[ink(message)]
        #[inline(never)]
        pub fn propose_manager(&mut self, proposed: AccountId) -> Result<()> {
            self.only_manager()?;
            self.proposed = proposed;
            self.manager_changed();
            Ok(())
        }

        /// Accepts to run the pool.
        ///
        /// # Events
        /// `ManagerChanged`.
        ///
        /// # Errors
        /// `NotProposed`.
        #[ink(message)]
        #[inline(never)]
        pub fn accept_management(&mut self) -> Result<()> {
            if self.env().caller() != self.proposed || self.proposed == self.manager {
                return Err(Error::NotProposed);
            }
            self.manager = self.proposed;
            self.manager_changed();
            Ok(())
        }

        // --- queries -------------------------------------------------------------------------------------------------

        /// The pool, with its books as of now.
        ///
        /// # Errors
        /// `NoNode`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn pool(&self) -> Result<PoolView> {
            let ((ledger, _), supply) = (self.peek()?, self.shares.total_supply());
            Ok(PoolView {
                poq: self.poq,
                node: self.node,
                manager: self.manager,
                proposed: (self.proposed != self.manager).then_some(self.proposed),
                token: self.token.get_or_default(),
                rules: self.rules.0,
                ledger,
                supply,
                room: ledger.room(supply, &self.rules.0).unwrap_or_default(),
                wiped_out: ledger.is_wiped_out(supply),
            })
        }

        /// What an account has in the pool, as of now.
        ///
        /// # Errors
        /// `NoNode`, `NoAnswer`.
        #[ink(message)]
        #[inline(never)]
        pub fn member(&self, account: AccountId) -> Result<MemberView> {
            let (ledger, paid) = self.peek()?;
            let shares = self.shares.balance_of(account);
            let mut exits = Vec::new();
            for (number, points) in self.exits_of(account).iter() {
                let era = match paid {
                    Some((era, record)) if era == number => record,
                    _ => self.era_or_new(number),
                };
                let ready = number < ledger.oldest;
                let value = if ready { era.part(points)? } else { ledger.value_of_points(points)? };
                exits.push(ExitView { era: number, value, ready, ends: era.ends });
            }
            Ok(MemberView { shares, value: ledger.value_of(shares, self.shares.total_supply())?, exits })
        }

        // --- helpers -------------------------------------------------------------------------------------------------

        fn at(&self) -> PoolsNode {
            PoolsNode { poq: self.poq, id: self.node }
        }

        /// Takes what the node has for the pool, books what happened to it, and pays the oldest era if its time has come.
        #[inline(never)]
        fn sync(&mut self) -> Result<()> {
            if self.ledger.0.stage != Stage::Closed {
                let node = self.at();
                let holding = node.holding()?;
                let withdrawn = if holding.withdrawable > 0 { node.withdraw()? } else { 0 };
                let claimed = if holding.claimable > 0 { node.claim()? } else { 0 };
                let unbonding = holding.unbonding.checked_sub(withdrawn).ok_or(PoolError::Overflow)?;
                let seen = Seen { staked: holding.bonded, unbonding, withdrawn, claimed };
                let now = self.env().block_timestamp();
                let (ledger, found) =
                    self.ledger.0.sync(self.shares.total_supply(), seen, now, &self.rules.0)?;
                self.ledger.0 = ledger;
                if found != Synced::default() {
                    self.env().emit_event(Accounted {
                        bond_slashed: found.bond_slashed,
                        shares_slashed: found.shares_slashed,
                        exits_slashed: found.exits_slashed,
                        commission: found.commission,
                        bond_earned: found.bond_earned,
                        shares_earned: found.shares_earned,
                        written_off: found.written_off,
                    });
                }
            }
            if let Some((ledger, era)) = self.mature(&self.ledger.0)? {
                let number = self.ledger.0.oldest;
                self.ledger.0 = ledger;
                self.eras.insert(number, &Cell(era));
                self.env().emit_event(EraPaid { era: number, pot: era.pot });
            }
            Ok(())
        }

        /// The books as a sync now would leave them, and the era that it would pay.
        #[inline(never)]
        fn peek(&self) -> Result<(Ledger, Option<(EraId, Era)>)> {
            let mut ledger = self.ledger.0;
            if ledger.stage != Stage::Closed {
                let holding = self.at().holding()?;
                let seen = Seen {
                    staked: holding.bonded,
                    unbonding: holding.unbonding.saturating_sub(holding.withdrawable),
                    withdrawn: holding.withdrawable,
                    claimed: holding.claimable,
                };
                let now = self.env().block_timestamp();
                ledger = ledger.sync(self.shares.total_supply(), seen, now, &self.rules.0)?.0;
            }
            Ok(match self.mature(&ledger)? {
                Some((paid, era)) => (paid, Some((ledger.oldest, era))),
                None => (ledger, None),
            })
        }

        fn mature(&self, ledger: &Ledger) -> Result<Option<(Ledger, Era)>> {
            if !ledger.has_ended_era() {
                return Ok(None);
            }
            Ok(ledger.mature(self.era_or_new(ledger.oldest), self.env().block_timestamp())?)
        }

        /// Unstakes what is due and ends the open era.
        #[inline(never)]
        fn turn(&mut self) -> Result<()> {
            let now = self.env().block_timestamp();
            let number = self.ledger.0.era;
            let open = self.eras.get(number).map(|Cell(era)| era);
            let Some(amount) = self.ledger.0.unstake_due(open.is_some(), now, &self.rules.0)? else {
                return Ok(());
            };
            let ends = if amount > 0 { self.at().unstake(amount)? } else { 0 };
            let (ledger, ended) = self.ledger.0.turn(amount, ends, open, now, &self.rules.0)?;
            self.ledger.0 = ledger;
            if let Some(era) = ended {
                self.eras.insert(number, &Cell(era));
            }
            let (era, ends) = ended.map_or((0, ends), |era| (number, era.ends));
            self.env().emit_event(EraEnded { era, unstaked: amount, ends });
            Ok(())
        }

        /// Stakes what is idle and no exit will need.
        #[inline(never)]
        fn stake_spare(&mut self) -> Result<()> {
            let spare = self.ledger.0.spare()?;
            if spare > 0 {
                self.at().stake(spare)?;
                self.ledger.0 = self.ledger.0.stake(spare)?;
            }
            Ok(())
        }

        fn era_or_new(&self, number: EraId) -> Era {
            self.eras.get(number).map(|Cell(era)| era).unwrap_or_default()
        }

        fn exits_of(&self, account: AccountId) -> Exits {
            self.exits.get(account).map(|Cell(exits)| exits).unwrap_or_default()
        }

        fn pay(&self, to: AccountId, amount: Balance) -> Result<()> {
            self.env().transfer(to, amount).map_err(|_| Error::TransferFailed)
        }

        fn only_manager(&self) -> Result<()> {
            if self.env().caller() == self.manager {
                Ok(())
            } else {
                Err(Error::NotManager)
            }
        }

        fn manager_changed(&self) {
            let proposed = (self.proposed != self.manager).then_some(self.proposed);
            self.env().emit_event(ManagerChanged { manager: self.manager, proposed });
        }

        fn emit(&self, events: Vec<PSP22Event>) {
            for event in events {
                match event {
                    PSP22Event::Transfer(event) => self.env().emit_event(event),
                    PSP22Event::Approval(event) => self.env().emit_event(event),
                }
            }
        }
    }

    // The shares are an ordinary token; none of these touches the books, because a share's worth does not depend on who has it.
    impl PSP22 for Pool {
        #[ink(message)]
        fn total_supply(&self) -> u128 {
            self.shares.total_supply()
        }

        #[ink(message)]
        fn balance_of(&self, owner: AccountId) -> u128 {
            self.shares.balance_of(owner)
        }

        #[ink(message)]
        fn allowance(&self, owner: AccountId, spender: AccountId) -> u128 {
            self.shares.allowance(owner, spender)
        }

        #[ink(message)]
        fn transfer(
            &mut self,
            to: AccountId,
            value: u128,
            _data: Vec<u8>,
        ) -> core::result::Result<(), PSP22Error> {
            let events = self.shares.transfer(self.env().caller(), to, value)?;
            self.emit(events);
            Ok(())
        }

        #[ink(message)]
        fn transfer_from(
            &mut self,
            from: AccountId,
            to: AccountId,
            value: u128,
            _data: Vec<u8>,
        ) -> core::result::Result<(), PSP22Error> {
            let events = self.shares.transfer_from(self.env().caller(), from, to, value)?;
            self.emit(events);
            Ok(())
        }

        #[ink(message)]
        fn approve(&mut self, spender: AccountId, value: u128) -> core::result::Result<(), PSP22Error> {
            let events = self.shares.approve(self.env().caller(), spender, value)?;
            self.emit(events);
            Ok(())
        }

        #[ink(message)]
        fn increase_allowance(
            &mut self,
            spender: AccountId,
            delta_value: u128,
        ) -> core::result::Result<(), PSP22Error> {
            let events = self.shares.increase_allowance(self.env().caller(), spender, delta_value)?;
            self.emit(events);
            Ok(())
        }

        #[ink(message)]
        fn decrease_allowance(
            &mut self,
            spender: AccountId,
            delta_value: u128,
        ) -> core::result::Result<(), PSP22Error> {
            let events = self.shares.decrease_allowance(self.env().caller(), spender, delta_value)?;
            self.emit(events);
            Ok(())
        }
    }

    impl PSP22Metadata for Pool {
        #[ink(message)]
        fn token_name(&self) -> Option<String> {
            self.token.get_or_default().name
        }

        #[ink(message)]
        fn token_symbol(&self) -> Option<String> {
            self.token.get_or_default().symbol
        }

        #[ink(message)]
        fn token_decimals(&self) -> u8 {
            CHAIN_DECIMALS.saturating_add(SHARE_DECIMALS)
        }
    }
}
