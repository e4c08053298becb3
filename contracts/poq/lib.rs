//! The Proof-of-Quality contract.
//!
//! # Overview
//!
//! Requesters escrow a fee for a task. Inference nodes, named or drawn, answer off chain and commit to their outputs; when these are
//! sealed, a panel of evaluators is drawn from a seed that requester and inference nodes committed to beforehand; it commits to
//! quality scores and reveals them, and the last reveal settles: the linear reward of `poq-core` is credited to every node, and
//! what evaluators do not earn is burned. Rewards, refunds and stake are withdrawn by those they belong to.
//!
//! The contract is a shell. What a task's record is and what moves it on, every formula, deadline and preimage, the registry and its
//! draws are `poq-core`'s, which workers and simulator run too. Here: storage, transfers, events.
//!
//! | file | what |
//! |---|---|
//! | `lib.rs` | the storage's root and every message |
//! | [`nodes`] | register, configure, stake, leave |
//! | [`tasks`] | requests, duties, draws, steps |
//! | [`money`] | claims, collects, withdrawals, the treasury |
//! | [`governance`] | announced changes, auditors, other code |
//! | [`storage`] | keys, and what a message has in hand |
//!
//! # Error handling
//!
//! A message that returns an error has changed nothing. Repeating a duty with the same content is accepted and does nothing,
//! so that a worker that lost an answer can simply send again. Batches (1 to 64 items) skip what is wrong and say so per item; a
//! batch none of whose items is accepted is refused with the first item's error. Items of large tasks for which there is no memory left
//! say `BatchSize`: send them again ([`memory`]). ink! reads 16 KiB of a call: 64 items of every kind fit in but draws with four openings
//! each (48), and requests with long addresses or inputs.
//!
//! # Storage deposits
//!
//! A task's record is written at its full size by its requester, who gets the deposit back on collecting it; a node's by its
//! owner. Duties, draws and settlements never change a record's size, so no honest role pays for another's storage.
//!
//! # Gas
//!
//! wasmi charges a call for every function that it enters, seven units of fuel per byte, whatever of it runs. So every message and
//! every large helper is a function of its own (`inline(never)`): a commitment does not pay for the settlement's code. Messages that
//! change nothing of the contract's own cell take `&self`: ink! writes that cell after every `&mut self`. Their entry in the
//! metadata says all the same that they change something (`contract-metadata` sees to it by [`CHANGES_STATE`]).
//! Copying memory is most of what is executed: `copy.rs` does it by words, and batches of sixteen cost a quarter less for it.
//!
//! # Upgrades
//!
//! The root's layout never changes: what later code adds goes into cells of its own. Every mapping has a key of its own
//! ([`storage`]). `set_code` runs announced code and lets it `migrate` in the same message.
// What is announced and what is called is decoded once and used at once: a box would only cost gas.
#![allow(clippy::large_enum_variant)]
#![cfg_attr(not(feature = "std"), no_std, no_main)]
// ink!'s macros generate undocumented items and arithmetic of their own.
#![allow(missing_docs, unreachable_pub, clippy::new_without_default, unexpected_cfgs)]

#[cfg(target_arch = "wasm32")]
mod copy;
pub mod errors;
pub mod events;
pub mod governance;
mod memory;
pub mod money;
pub mod mutant;
#[cfg(feature = "std")]
pub mod native;
pub mod nodes;
pub mod storage;
pub mod tasks;
pub mod types;

pub use self::poq::{Poq, PoqRef};

/// Messages that change something although they take `&self`: they write cells of their own.
pub const CHANGES_STATE: [&str; 28] = [
    "register",
    "configure",
    "stake",
    "unstake",
    "withdraw_unbonded",
    "drain",
    "resume",
    "deregister",
    "refresh",
    "claim",
    "request_tasks",
    "collect",
    "withdraw",
    "commit_outputs",
    "decline",
    "open_outputs",
    "draw_panels",
    "commit_scores",
    "reveal_scores",
    "advance",
    "bond",
    "withdraw_bond",
    "open_reference",
    "cancel",
    "set_code",
    "dismiss_auditor",
    "withdraw_treasury",
    "burn",
];

#[ink::contract]
pub mod poq {
    use crate::errors::{Error, Result};
    use crate::events::*;
    use crate::money::blake2;
    use crate::storage::*;
    use crate::types::*;
    use ink::prelude::vec::Vec;
    use poq_core::commitment::{self, Hash as Digest};
    use poq_core::registry::Registry;
    use poq_core::units::{KindId, Millis, NodeId, TaskId};

    /// The contract's storage. The root is what only its owner changes; the rest is in cells of its own.
    #[ink(storage)]
    pub struct Poq {
        /// The layout of all of it.
        pub(crate) layout: u16,
        /// Announces changes and withdraws the treasury; cannot touch escrow, stakes or claims.
        pub(crate) owner: AccountId,
        /// Who may accept the ownership.
        pub(crate) proposed: Option<AccountId>,
        /// Whether new tasks are refused.
        pub(crate) paused: bool,
        /// The genesis hash of the chain that this contract is for.
        pub(crate) genesis: Digest,
        /// What every commitment starts with.
        pub(crate) network: Digest,
        /// How long an epoch is; never changes.
        pub(crate) epoch_ms: Millis,
        /// The longest that a task of any version of any kind lives.
        pub(crate) life_ms: Millis,
        /// Parameters that are not a kind's.
        pub(crate) global: Cell<GlobalParams>,
        books: BooksCell,
        kind_ids: KindIds,
        levers: Levers,
        kinds: Kinds,
        versions: Versions,
        nodes: Nodes,
        infos: Infos,
        pools: Pools,
        members: Members,
        tasks: Tasks,
        accounts: Accounts,
        auditors: Auditors,
        changes: Changes,
    }

    impl Poq {
        /// A contract without any task kind; the caller owns it. `genesis` is the hash of the chain's first block, which clients
        /// check; epochs of `epoch_ms` milliseconds are for ever.
        #[ink(constructor)]
        pub fn new(genesis: Digest, epoch_ms: Millis, global: GlobalParams) -> Result<Self> {
            if !global.is_valid(epoch_ms, 0) {
                return Err(Error::BadAmount);
            }
            let me: [u8; 32] = *Self::env().account_id().as_ref();
            Ok(Self {
                layout: LAYOUT,
                owner: Self::env().caller(),
                proposed: None,
                paused: false,
                genesis,
                network: blake2(&commitment::network(&genesis, &me)),
                epoch_ms,
                life_ms: 0,
                global: Cell(global),
                books: Default::default(),
                kind_ids: Default::default(),
                levers: Default::default(),
                kinds: Default::default(),
                versions: Default::default(),
                nodes: Default::default(),
                infos: Default::default(),
                pools: Default::default(),
                members: Default::default(),
                tasks: Default::default(),
                accounts: Default::default(),
                auditors: Default::default(),
                changes: Default::default(),
            })
        }

        /// What a message works on.
        pub(crate) fn session(&self) -> Session {
            Session::new(self.env().block_timestamp(), self.env().block_number(), self.epoch_ms, self.network)
        }

        // --- nodes ---------------------------------------------------------------------------------------------------

        /// Registers a node; the caller owns it. The transferred value, which may be zero, is its first stake. It is drawn from
        /// the next epoch on.
        ///
        /// # Events
        /// `NodeRegistered`, and `Staked` where value came with it.
        ///
        /// # Errors
        /// `NoKind`, `TextTooLong`, `TooMany`.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn register(&self, registration: Registration) -> Result<NodeId> {
            self.register_node(registration)
        }

        /// Changes a node's operator, payee, endpoint or price. Open tasks keep the price that they were assigned at.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `TextTooLong`.
        #[ink(message)]
        #[inline(never)]
        pub fn configure(&self, node: NodeId, update: NodeUpdate) -> Result<()> {
            self.configure_node(node, update)
        }

        /// Adds the transferred value to a node's stake: its owner only, so that nobody else can hold up an exit. It weighs from
        /// the next epoch on.
        ///
        /// # Events
        /// `Staked`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `BadAmount` for nothing.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn stake(&self, node: NodeId) -> Result<()> {
            self.stake_node(node)
        }

        /// Sends any part of a node's bonded stake on its way out. Returns when it can be withdrawn: after the unbonding period,
        /// rounded up to a quarter of it. Later calls do not move it. Until then it stays at risk for what is drawn meanwhile.
        ///
        /// # Events
        /// `Unstaked`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `BadAmount` for nothing or more than is bonded.
        #[ink(message)]
        #[inline(never)]
        pub fn unstake(&self, node: NodeId, amount: Balance) -> Result<Millis> {
            self.unstake_node(node, amount)
        }

        /// Pays what of a node's stake has unbonded to its owner.
        ///
        /// # Events
        /// `StakeWithdrawn`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `NothingToWithdraw`, `StillUnbonding`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw_unbonded(&self, node: NodeId) -> Result<Balance> {
            self.withdraw_stake(node)
        }

        /// Takes a node out of the draws from the next epoch on; it finishes its duties.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`.
        #[ink(message)]
        #[inline(never)]
        pub fn drain(&self, node: NodeId) -> Result<()> {
            self.set_status(node, NodeStatus::Draining, NodeChange::Draining)
        }

        /// Puts a node back into the draws from the next epoch on, whether it was drained or has missed two duties in a row.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`.
        #[ink(message)]
        #[inline(never)]
        pub fn resume(&self, node: NodeId) -> Result<()> {
            self.set_status(node, NodeStatus::Active, NodeChange::Resumed)
        }

        /// Removes a node that has nothing left: unstake, withdraw and claim first. Two epochs after its last stake has left the
        /// draws at the earliest.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `NodeInUse`.
        #[ink(message)]
        #[inline(never)]
        pub fn deregister(&self, node: NodeId) -> Result<()> {
            self.remove_node(node)
        }

        /// Puts nodes where their stake and trust belong under the newest parameters. Anybody may; needed where trust or parameters
        /// have made a node heavier than its class, or lighter.
        ///
        /// # Errors
        /// `BatchSize`, `NoNode`.
        #[ink(message)]
        #[inline(never)]
        pub fn refresh(&self, nodes: Vec<NodeId>) -> Result<()> {
            self.refresh_nodes(nodes)
        }

        /// Pays a node's rewards to its payee. Its owner and its payee may.
        ///
        /// # Events
        /// `Claimed`.
        ///
        /// # Errors
        /// `NoNode`, `NotPayee`, `NothingToWithdraw`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn claim(&self, node: NodeId) -> Result<Balance> {
            self.claim_rewards(node)
        }

        // --- requesters ----------------------------------------------------------------------------------------------

        /// Requests tasks, all or none: escrows the transferred value, which must be the sum of their fees, and assigns their
        /// inference nodes.
        ///
        /// # Events
        /// `TaskRequested` per task.
        ///
        /// # Errors
        /// `BatchSize`, `Paused`, `NoKind`, `PanelSize`, `BadFee`, `WrongValue`, `BadInput`, `BadCommitment`, `TooMany`, `TooFewNodes`,
        /// `NodeUnavailable`.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn request_tasks(&self, requests: Vec<Request>) -> Result<Vec<TaskId>> {
            self.request_all(requests)
        }

        /// Pays the refunds of final tasks of one requester and frees their records. The storage deposit goes to the caller.
        /// Only the requester may, until the archive time has passed; then anybody may, and the refund is still the requester's: its
        /// credit, where the chain cannot pay it (too little for an account that is gone).
        ///
        /// # Events
        /// `Collected` per task.
        ///
        /// # Errors
        /// `BatchSize`, `NoTask`, `NotFinal`, `NotRequester`.
        #[ink(message)]
        #[inline(never)]
        pub fn collect(&self, tasks: Vec<TaskId>) -> Result<Balance> {
            self.collect_tasks(&tasks)
        }

        /// Pays the caller's credit: what it has earned as a keeper, and refunds that could not be paid.
        ///
        /// # Events
        /// `Withdrawn`.
        ///
        /// # Errors
        /// `NothingToWithdraw`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw(&self) -> Result<Balance> {
            self.withdraw_credit()
        }

        // --- duties --------------------------------------------------------------------------------------------------

        /// Inference nodes of one operator commit to their outputs. Per item the error that kept it out, or nothing.
        ///
        /// # Events
        /// `OutputsCommitted`.
        ///
        /// # Errors
        /// `BatchSize`; per item `NoTask`, `NotOperator`, `Task`.
        #[ink(message)]
        #[inline(never)]
        pub fn commit_outputs(&self, items: Vec<Commit>) -> Result<Vec<Option<Error>>> {
            self.take_commits(&items, true)
        }

        /// Inference nodes of one operator say that they will not deliver. It counts only where nobody does.
        ///
        /// # Events
        /// `Declined`.
        ///
        /// # Errors
        /// `BatchSize`; per item `NoTask`, `NotOperator`, `Task`.
        #[ink(message)]
        #[inline(never)]
        pub fn decline(&self, items: Vec<Decline>) -> Result<Vec<Option<Error>>> {
            self.take_declines(&items)
        }

        /// Opens outputs' commitments, by anybody, in the first half of the time for the draw: their hashes and salts, not the
        /// outputs. Only needed where the requester does not draw.
        ///
        /// # Events
        /// `OutputsOpened`.
        ///
        /// # Errors
        /// `BatchSize`; per item `NoTask`, `Task`.
        #[ink(message)]
        #[inline(never)]
        pub fn open_outputs(&self, items: Vec<Open>) -> Result<Vec<Option<Error>>> {
            self.take_openings(&items)
        }

        /// Shows requesters' secrets and draws panels, by anybody who has secret and openings. Per item whether there was a panel;
        /// where too few nodes can take a seat now, it can be tried again until the deadline.
        ///
        /// # Events
        /// `PanelDrawn` or `PanelShort` per task, `KeeperPaid`.
        ///
        /// # Errors
        /// `BatchSize`; per item `NoTask`, `Task`, `Registry`.
        #[ink(message)]
        #[inline(never)]
        pub fn draw_panels(&self, draws: Vec<Draw>) -> Result<Vec<Result<bool>>> {
            self.draw_all(draws)
        }

        /// Members of panels, of one operator, commit to their scores. Per item the error that kept it out, or nothing.
        ///
        /// # Events
        /// `ScoresCommitted`.
        ///
        /// # Errors
        /// `BatchSize`; per item `NoTask`, `NotOperator`, `Task`.
        #[ink(message)]
        #[inline(never)]
        pub fn commit_scores(&self, items: Vec<Commit>) -> Result<Vec<Option<Error>>> {
            self.take_commits(&items, false)
        }

        /// Reveals scores, by anybody: what does not match its commitment is refused. The last reveal of a task settles it. Reveals of
        /// one task cost least one after the other.
        ///
        /// # Events
        /// `ScoresRevealed`, `TaskClosed` per task that ends.
        ///
        /// # Errors
        /// `BatchSize`; per item `NoTask`, `Task`.
        #[ink(message)]
        #[inline(never)]
        pub fn reveal_scores(&self, items: Vec<Reveal>) -> Result<Vec<Option<Error>>> {
            self.take_reveals(items)
        }

        /// Does for every task what is due: fills empty seats, settles, ends. Per task what was done, or why nothing was.
        ///
        /// # Events
        /// `PanelDrawn`, `TaskClosed`, `KeeperPaid`.
        ///
        /// # Errors
        /// `BatchSize`; per task `NoTask`, `Task`.
        #[ink(message)]
        #[inline(never)]
        pub fn advance(&self, tasks: Vec<TaskId>) -> Result<Vec<Result<Step>>> {
            self.advance_all(tasks)
        }

        // --- auditors ------------------------------------------------------------------------------------------------

        /// Adds the transferred value to the caller's bond as an auditor.
        ///
        /// # Events
        /// `AuditorChanged`.
        ///
        /// # Errors
        /// `NotAuditor` where it is not appointed, or an older bond waits to be withdrawn.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn bond(&self) -> Result<()> {
            self.add_bond()
        }

        /// Gives an auditor its bond back, in two calls: the first resigns, the second pays once the unbonding period is over, and no
        /// slash of it is announced. Returns what was paid.
        ///
        /// # Events
        /// `AuditorChanged`.
        ///
        /// # Errors
        /// `NotAuditor`, `StillUnbonding`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw_bond(&self) -> Result<Balance> {
            self.take_bond()
        }

        /// Opens a settled task's reference: the trust of its panel is measured against token F1 of reference and outputs. Nothing
        /// else moves.
        ///
        /// # Events
        /// `TaskAudited`.
        ///
        /// # Errors
        /// `NotAuditor`, `NoTask`, `NotAuditable`, `BadOpening`.
        #[ink(message)]
        #[inline(never)]
        pub fn open_reference(&self, task: TaskId, opening: Opening) -> Result<()> {
            self.audit_task(task, opening)
        }

        // --- the contract's owner ------------------------------------------------------------------------------------

        /// Announces a change. Returns when it can be enacted: at once, and done, while no node is registered or the kind is new.
        ///
        /// # Events
        /// `Proposed`, or `Enacted`.
        ///
        /// # Errors
        /// `NotContractOwner`, `AlreadyPending`, `TooMany`, `BadParams`, `BadAmount`, `NotAuditor`; `BadCode` for code, which is
        /// announced by `propose_code`.
        #[ink(message)]
        #[inline(never)]
        pub fn propose(&mut self, change: Change) -> Result<Millis> {
            if matches!(change, Change::Code(_)) {
                return Err(Error::BadCode);
            }
            self.announce(change)
        }

        /// Announces that the contract will run the code of this live contract, which everybody can look at and try.
        ///
        /// # Events
        /// `Proposed`.
        ///
        /// # Errors
        /// `NotContractOwner`, `AlreadyPending`, `TooMany`, `BadCode` where the account is no contract.
        #[ink(message)]
        #[inline(never)]
        pub fn propose_code(&mut self, instance: AccountId) -> Result<Millis> {
            let hash = self.env().code_hash(&instance).map_err(|_| Error::BadCode)?;
            self.announce(Change::Code(hash.into()))
        }

        /// Makes an announced change act, by anybody.
        ///
        /// # Events
        /// `Enacted`, and what the change says.
        ///
        /// # Errors
        /// `NotPending`, `NotDue`, `BadParams`, `BadAmount`; `BadCode` for code: `set_code` does that.
        #[ink(message)]
        #[inline(never)]
        pub fn enact(&mut self, lever: Lever) -> Result<()> {
            if lever == Lever::Code {
                return Err(Error::BadCode);
            }
            let change = self.due_change(lever)?;
            self.apply(change)
        }

        /// Runs the announced code from now on, by anybody, and lets it migrate the storage.
        ///
        /// # Events
        /// `Enacted`.
        ///
        /// # Errors
        /// `NotPending`, `NotDue`, `BadCode` where the chain does not take it or it does not migrate.
        // `&self`: this code must not write the root after the other has migrated it.
        #[ink(message)]
        #[inline(never)]
        pub fn set_code(&self) -> Result<()> {
            self.replace_code()
        }

        /// Brings the storage to this code's layout. Only the contract itself may call it, when it changes its code.
        ///
        /// # Errors
        /// `NotItself`.
        #[ink(message)]
        #[inline(never)]
        pub fn migrate(&mut self) -> Result<()> {
            if self.env().caller() != self.env().account_id() {
                return Err(Error::NotItself);
            }
            self.layout = LAYOUT;
            Ok(())
        }

        /// Withdraws an announcement.
        ///
        /// # Events
        /// `Cancelled`.
        ///
        /// # Errors
        /// `NotContractOwner`, `NotPending`.
        #[ink(message)]
        #[inline(never)]
        pub fn cancel(&self, lever: Lever) -> Result<()> {
            self.cancel_change(lever)
        }

        /// Refuses or accepts new tasks. Never touches claims, refunds or settlements.
        ///
        /// # Events
        /// `Administered`.
        ///
        /// # Errors
        /// `NotContractOwner`.
        #[ink(message)]
        #[inline(never)]
        pub fn set_paused(&mut self, paused: bool) -> Result<()> {
            self.only_owner()?;
            self.paused = paused;
            self.administered(Administration::Paused(paused));
            Ok(())
        }

        /// Dismisses an auditor at once. Its bond is its own again after the unbonding period; a slash is announced as any change.
        ///
        /// # Events
        /// `AuditorChanged`.
        ///
        /// # Errors
        /// `NotContractOwner`, `NotAuditor`.
        #[ink(message)]
        #[inline(never)]
        pub fn dismiss_auditor(&self, auditor: AccountId) -> Result<()> {
            self.dismiss(auditor)
        }

        /// Proposes another owner, who becomes it by accepting.
        ///
        /// # Events
        /// `Administered`.
        ///
        /// # Errors
        /// `NotContractOwner`.
        #[ink(message)]
        #[inline(never)]
        pub fn propose_owner(&mut self, proposed: AccountId) -> Result<()> {
            self.only_owner()?;
            self.proposed = Some(proposed);
            self.administered(Administration::Proposed(proposed));
            Ok(())
        }

        /// The proposed owner accepts.
        ///
        /// # Events
        /// `Administered`.
        ///
        /// # Errors
        /// `NotProposed`.
        #[ink(message)]
        #[inline(never)]
        pub fn accept_ownership(&mut self) -> Result<()> {
            let caller = self.env().caller();
            if self.proposed != Some(caller) {
                return Err(Error::NotProposed);
            }
            self.owner = caller;
            self.proposed = None;
            self.administered(Administration::Owner(caller));
            Ok(())
        }

        /// Pays out of the treasury, or out of money that somebody sent to the contract without a message. Never more than
        /// the contract has beyond what it owes to others, and never what is burned.
        ///
        /// # Events
        /// `TreasuryWithdrawn`.
        ///
        /// # Errors
        /// `NotContractOwner`, `BadAmount` for nothing, `Insolvent`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw_treasury(&self, to: AccountId, amount: Balance) -> Result<()> {
            self.pay_treasury(to, amount)
        }

        /// Sends what is burned to an account that nobody has, by anybody, so that no later code can give it to somebody.
        ///
        /// # Events
        /// `Burned`.
        ///
        /// # Errors
        /// `NothingToWithdraw`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn burn(&self) -> Result<Balance> {
            self.burn_burned()
        }

        // --- queries -------------------------------------------------------------------------------------------------

        /// What the contract is and owes at a glance.
        #[ink(message)]
        #[inline(never)]
        pub fn overview(&self) -> Overview {
            let books = self.session().books();
            Overview {
                owner: self.owner,
                proposed: self.proposed,
                paused: self.paused,
                genesis: self.genesis,
                network: self.network,
                epoch_ms: self.epoch_ms,
                global: self.global.0,
                kinds: KIND_IDS.get(()).unwrap_or_default(),
                nodes: books.last_node,
                tasks: books.last_task,
                layout: self.layout,
                balance: self.spendable(),
                liabilities: books.liabilities,
            }
        }

        /// A kind with its newest parameters and the sizes of its pools.
        #[ink(message)]
        #[inline(never)]
        pub fn kind(&self, kind: KindId) -> Option<KindView> {
            let session = self.session();
            let record = session.kind(kind).ok()?;
            let counts = |role| *session.counts(PoolId { kind, role }).latest();
            Some(KindView {
                kind: record,
                inference: counts(Role::Inference),
                evaluators: counts(Role::Evaluator),
            })
        }

        /// A version of a kind's parameters.
        #[ink(message)]
        #[inline(never)]
        pub fn params(&self, kind: KindId, version: u32) -> Option<KindParams> {
            VERSIONS.get((kind, version))
        }

        /// A node.
        #[ink(message)]
        #[inline(never)]
        pub fn node(&self, node: NodeId) -> Option<NodeView> {
            Some(NodeView { id: node, node: NODES.get(node)?, info: INFOS.get(node)? })
        }

        /// What a pool needs to know of its node; the layout of the answer never changes.
        #[ink(message)]
        #[inline(never)]
        pub fn holding(&self, node: NodeId) -> Option<Holding> {
            let record = NODES.get(node)?;
            Some(Holding {
                bonded: record.stake.bonded,
                unbonding: record.stake.unbonding(),
                withdrawable: record.stake.withdrawable(self.env().block_timestamp()),
                claimable: record.claimable,
            })
        }

        /// Nodes from a number on, at most twelve.
        #[ink(message)]
        #[inline(never)]
        pub fn nodes(&self, from: NodeId, limit: u32) -> Vec<NodeView> {
            let last = self.session().books().last_node;
            let mut views = Vec::new();
            let mut id = from.max(1);
            while id <= last && views.len() < limit.min(NODES_PAGE) as usize {
                views.extend(self.node(id));
                id = id.saturating_add(1);
            }
            views
        }

        /// A task, open or uncollected.
        #[ink(message)]
        #[inline(never)]
        pub fn task(&self, task: TaskId) -> Option<TaskView> {
            let record = TASKS.get(task)?;
            let step = record.clock().step(self.env().block_timestamp());
            Some(TaskView { id: task, task: record, step })
        }

        /// Open and uncollected tasks from a number on: at most four, of at most 200 numbers looked at.
        #[ink(message)]
        #[inline(never)]
        pub fn tasks(&self, from: TaskId, limit: u32) -> Vec<TaskView> {
            let last = self.session().books().last_task;
            let mut views = Vec::new();
            let first = from.max(1);
            let mut id = first;
            while id <= last
                && id < first.saturating_add(TASKS_SCAN)
                && views.len() < limit.min(TASKS_PAGE) as usize
            {
                views.extend(self.task(id));
                id = id.saturating_add(1);
            }
            views
        }

        /// The open tasks of a node.
        #[ink(message)]
        #[inline(never)]
        pub fn duties(&self, node: NodeId) -> Vec<TaskId> {
            NODES
                .get(node)
                .map(|node| node.open.into_iter().filter(|id| *id != 0).collect())
                .unwrap_or_default()
        }

        /// An account's money in the contract. Anybody may ask for any account.
        #[ink(message)]
        #[inline(never)]
        pub fn balances(&self, account: AccountId) -> Balances {
            self.balances_of(account)
        }

        /// An auditor, appointed or still bonded.
        #[ink(message)]
        #[inline(never)]
        pub fn auditor(&self, account: AccountId) -> Option<Auditor> {
            self.load_auditor(&account).ok()
        }

        /// What is announced.
        #[ink(message)]
        #[inline(never)]
        pub fn pending(&self) -> Vec<Pending<Change>> {
            self.announced()
        }
    }
}
