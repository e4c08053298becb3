//! The Proof-of-Quality contract.
//!
//! # Overview
//!
//! Requesters escrow a fee for a task. Inference nodes are drawn, answer off chain and commit to their outputs; then a panel
//! of evaluators is drawn, which commits to quality scores and reveals them; then anyone settles: the linear quality-cost
//! reward of `poq-core` is credited to every node, and what is not earned goes back to the requester. Rewards, refunds and
//! stake are withdrawn by those they belong to. The contract is a shell: every formula, deadline and preimage is
//! `poq-core`'s, which workers and simulator run too.
//!
//! # Error handling
//!
//! A message that returns an error has changed nothing. Repeating a duty with the same content is accepted and does nothing,
//! so that a worker that lost an answer can simply send again. Batched messages skip what is wrong and say so per item.
//!
//! # Storage deposits
//!
//! A task's record is written at its full size by its requester, who gets the deposit back on collecting it; a node's by its
//! owner. Duties, draws and settlements never change a record's size, so no honest role pays for another's storage.
//!
//! # Gas
//!
//! wasmi charges a call for every function that it enters, seven units of fuel per byte, whatever of it runs. So every message and
//! every large helper is a function of its own (`inline(never)`): a commitment does not pay for the settlement's code.
//!
//! # Warning
//!
//! Draws use entropy accumulated from salts that evaluators of earlier tasks revealed, with the block's number and time. A
//! block author can choose between blocks; see `docs/protocol.md`.
#![cfg_attr(not(feature = "std"), no_std, no_main)]
// ink!'s macros generate undocumented items and arithmetic of their own.
#![allow(missing_docs, unreachable_pub, clippy::new_without_default, unexpected_cfgs)]

pub mod errors;
pub mod events;
pub mod types;

pub use self::poq::{Poq, PoqRef};

#[ink::contract]
pub mod poq {
    use crate::errors::{Error, Result};
    use crate::events::*;
    use crate::types::*;
    use ink::env::hash::Blake2x256;
    use ink::prelude::{vec, vec::Vec};
    use ink::storage::{Lazy, Mapping};
    use poq_core::commitment::{self, Hash as Digest};
    use poq_core::draw::{class_of, weight, Pool, Stream};
    use poq_core::merit::RingEntry;
    use poq_core::params::{KindParams, MeritRule};
    use poq_core::phase::{Phase, Step};
    use poq_core::settlement::{
        settle, unsettled_penalty, Conduct, EvaluatorInput, OutputInput, Population, SettlementInput,
    };
    use poq_core::text::token_f1;
    use poq_core::units::{KindId, NodeId, Ratio, Score, TaskId};

    /// The longest unbonding period and archive time: 90 days, in milliseconds.
    const QUARTER_MS: u64 = 90 * 24 * 60 * 60 * 1_000;
    /// How many places of a pool are walked when random picks did not fill a draw.
    const WALK: usize = 16;

    /// The contract's storage. What is not in a mapping is one cell that every message reads and writes: small, and hot.
    #[ink(storage)]
    pub struct Poq {
        /// Sets parameters for future tasks and withdraws the treasury; cannot touch escrow, stakes or claims.
        owner: AccountId,
        /// Who may accept the ownership.
        proposed: Option<AccountId>,
        /// Whether new tasks are refused.
        paused: bool,
        /// Parameters that are not a kind's.
        global: GlobalParams,
        /// What the contract owes.
        liabilities: Liabilities,
        /// The highest node number given.
        last_node: NodeId,
        /// The highest task number given.
        last_task: TaskId,
        /// A hash over every salt revealed so far: the draws' entropy.
        entropy: Digest,
        /// The kinds that exist.
        kind_ids: Lazy<Vec<KindId>>,
        /// What a kind remembers, with its pools.
        kinds: Mapping<KindId, Kind>,
        /// Every version of every kind's parameters, from 1.
        params: Mapping<(KindId, u32), Params>,
        /// The part of nodes that duties touch.
        nodes: Mapping<NodeId, Node>,
        /// The part of nodes that people read.
        infos: Mapping<NodeId, NodeInfo>,
        /// Members of a pool by kind, role, weight class and index.
        members: Mapping<MemberKey, NodeId>,
        /// Open and uncollected tasks.
        tasks: Mapping<TaskId, Task>,
        /// What accounts own.
        accounts: Mapping<AccountId, Account>,
        /// Who may open references.
        auditors: Mapping<AccountId, Auditor>,
    }

    /// Kind, role, weight class and index: a place in a draw's pool.
    type MemberKey = (KindId, Role, u8, u32);
    /// A node's record held in memory.
    type Loaded = (NodeId, Node);

    /// Whether a candidate fits a draw.
    enum Fit {
        Yes,
        /// Only where nobody else is to be had: its model already has half of the panel.
        Spare,
        No,
    }

    impl Poq {
        /// A contract without any task kind; the caller owns it.
        #[ink(constructor)]
        pub fn new(global: GlobalParams) -> Result<Self> {
            Self::check_global(&global)?;
            let env = Self::env;
            let owner = env().caller();
            let entropy =
                blake2(&scale(&(env().account_id(), owner, env().block_timestamp(), env().block_number())));
            Ok(Self {
                owner,
                proposed: None,
                paused: false,
                global,
                liabilities: Liabilities::default(),
                last_node: 0,
                last_task: 0,
                entropy,
                kind_ids: Lazy::default(),
                kinds: Mapping::default(),
                params: Mapping::default(),
                nodes: Mapping::default(),
                infos: Mapping::default(),
                members: Mapping::default(),
                tasks: Mapping::default(),
                accounts: Mapping::default(),
                auditors: Mapping::default(),
            })
        }

        // --- nodes ---------------------------------------------------------------------------------------------------

        /// Registers a node; the caller owns it. The transferred value, which may be zero, is its first stake.
        ///
        /// # Events
        /// `NodeRegistered`, and `Staked` where value came with it.
        ///
        /// # Errors
        /// `NoKind`, `TextTooLong`, `TooMany`.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn register(&mut self, registration: Registration) -> Result<NodeId> {
            let owner = self.env().caller();
            let amount = self.env().transferred_value();
            if registration.model.len() > MAX_TEXT || registration.endpoint.len() > MAX_TEXT {
                return Err(Error::TextTooLong);
            }
            let mut kind = self.kinds.get(registration.kind).ok_or(Error::NoKind)?;
            let params = self.load_params(registration.kind, kind.version)?;
            let mut account = self.accounts.get(owner).unwrap_or_default();
            if account.nodes.len() >= MAX_NODES_PER_OWNER {
                return Err(Error::TooMany);
            }
            let id = self.last_node.checked_add(1).ok_or(Error::Overflow)?;
            self.last_node = id;
            account.nodes.push(id);
            self.accounts.insert(owner, &account);
            self.infos.insert(
                id,
                &NodeInfo {
                    model: registration.model.clone(),
                    endpoint: registration.endpoint,
                    registered_at: self.env().block_timestamp(),
                },
            );
            let inference = registration.role == Role::Inference;
            let mut loaded = [(
                id,
                Node {
                    owner,
                    operator: registration.operator,
                    payee: registration.payee,
                    role: registration.role,
                    kind: registration.kind,
                    status: NodeStatus::Active,
                    model_digest: registration.model_digest,
                    price: if inference { registration.price } else { 0 },
                    free: amount,
                    locked: 0,
                    unbonding: 0,
                    unbonds_at: 0,
                    claimable: 0,
                    withdrawn: 0,
                    slashed: 0,
                    settled: 0,
                    trust: if inference { Ratio::ONE } else { params.trust_initial },
                    gain_average: 0,
                    place: Place::NONE,
                    open: [0; MAX_OPEN],
                },
            )];
            self.liabilities.stakes = add(self.liabilities.stakes, amount)?;
            self.relocate(&mut loaded, 0, &mut kind, &params)?;
            self.kinds.insert(registration.kind, &kind);
            self.save(&loaded);
            self.env().emit_event(NodeRegistered {
                node: id,
                owner,
                operator: registration.operator,
                role: registration.role,
                kind: registration.kind,
                model: registration.model,
                model_digest: registration.model_digest,
            });
            if amount > 0 {
                self.env().emit_event(Staked { node: id, amount });
            }
            Ok(id)
        }

        /// Changes a node's operator, payee, endpoint or price. Open tasks keep the price that they were drawn at.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `TextTooLong`.
        #[ink(message)]
        #[inline(never)]
        pub fn configure(&mut self, node: NodeId, update: NodeUpdate) -> Result<()> {
            let mut record = self.owned(node)?;
            if let Some(endpoint) = update.endpoint {
                if endpoint.len() > MAX_TEXT {
                    return Err(Error::TextTooLong);
                }
                let mut info = self.infos.get(node).ok_or(Error::NoNode)?;
                info.endpoint = endpoint;
                self.infos.insert(node, &info);
            }
            record.operator = update.operator.unwrap_or(record.operator);
            record.payee = update.payee.unwrap_or(record.payee);
            if record.role == Role::Inference {
                record.price = update.price.unwrap_or(record.price);
            }
            self.nodes.insert(node, &record);
            self.changed(node, NodeChange::Configured);
            Ok(())
        }

        /// Adds the transferred value to a node's stake. Anybody may.
        ///
        /// # Events
        /// `Staked`.
        ///
        /// # Errors
        /// `NoNode`, `BadAmount` for nothing.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn stake(&mut self, node: NodeId) -> Result<()> {
            let amount = self.env().transferred_value();
            if amount == 0 {
                return Err(Error::BadAmount);
            }
            let mut record = self.load(node)?;
            record.free = add(record.free, amount)?;
            self.liabilities.stakes = add(self.liabilities.stakes, amount)?;
            self.save_placed(node, record, false)?;
            self.env().emit_event(Staked { node, amount });
            Ok(())
        }

        /// Starts to unbond part of a node's free stake; together with what is already unbonding, it can be withdrawn when
        /// the unbonding period is over from now.
        ///
        /// # Events
        /// `Unstaked`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `BadAmount` above the free stake, `StakeBelowMinimum`.
        #[ink(message)]
        #[inline(never)]
        pub fn unstake(&mut self, node: NodeId, amount: Balance) -> Result<()> {
            let mut record = self.owned(node)?;
            if amount == 0 || amount > record.free {
                return Err(Error::BadAmount);
            }
            record.free = sub(record.free, amount)?;
            record.unbonding = add(record.unbonding, amount)?;
            record.unbonds_at = self.env().block_timestamp().saturating_add(self.global.unbonding_ms);
            let unbonds_at = record.unbonds_at;
            self.save_placed(node, record, true)?;
            self.env().emit_event(Unstaked { node, amount, unbonds_at });
            Ok(())
        }

        /// Pays a node's unbonded stake to its owner.
        ///
        /// # Events
        /// `StakeWithdrawn`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `NothingToWithdraw`, `StillUnbonding`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw_unbonded(&mut self, node: NodeId) -> Result<Balance> {
            let mut record = self.owned(node)?;
            let amount = record.unbonding;
            if amount == 0 {
                return Err(Error::NothingToWithdraw);
            }
            if self.env().block_timestamp() < record.unbonds_at {
                return Err(Error::StillUnbonding);
            }
            record.unbonding = 0;
            self.nodes.insert(node, &record);
            self.liabilities.stakes = sub(self.liabilities.stakes, amount)?;
            self.pay(record.owner, amount)?;
            self.env().emit_event(StakeWithdrawn { node, to: record.owner, amount });
            Ok(amount)
        }

        /// Takes a node out of the draws; it finishes its open duties.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`.
        #[ink(message)]
        #[inline(never)]
        pub fn drain(&mut self, node: NodeId) -> Result<()> {
            self.set_status(node, NodeStatus::Draining, NodeChange::Draining)
        }

        /// Puts a drained node back into the draws.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`.
        #[ink(message)]
        #[inline(never)]
        pub fn resume(&mut self, node: NodeId) -> Result<()> {
            self.set_status(node, NodeStatus::Active, NodeChange::Resumed)
        }

        /// Removes a node that has nothing left: unstake, withdraw and claim first.
        ///
        /// # Events
        /// `NodeChanged`.
        ///
        /// # Errors
        /// `NoNode`, `NotNodeOwner`, `NodeInUse`.
        #[ink(message)]
        #[inline(never)]
        pub fn deregister(&mut self, node: NodeId) -> Result<()> {
            let record = self.owned(node)?;
            let money = [record.free, record.locked, record.unbonding, record.claimable];
            if record.open_count() > 0 || money.iter().any(|amount| *amount > 0) {
                return Err(Error::NodeInUse);
            }
            let mut account = self.accounts.get(record.owner).unwrap_or_default();
            account.nodes.retain(|id| *id != node);
            account.collected = add(account.collected, record.withdrawn)?;
            self.accounts.insert(record.owner, &account);
            // Without stake it is in no pool.
            self.nodes.remove(node);
            self.infos.remove(node);
            self.changed(node, NodeChange::Deregistered);
            Ok(())
        }

        /// Puts nodes where their stake and trust belong under the newest parameters. Anybody may; only needed after a kind's
        /// stake bounds changed, and for nodes that nothing else touches.
        ///
        /// # Errors
        /// `BatchSize`, `NoNode`.
        #[ink(message)]
        #[inline(never)]
        pub fn refresh(&mut self, nodes: Vec<NodeId>) -> Result<()> {
            check_batch(nodes.len())?;
            for node in nodes {
                let record = self.load(node)?;
                self.save_placed(node, record, false)?;
            }
            Ok(())
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
        pub fn claim(&mut self, node: NodeId) -> Result<Balance> {
            let caller = self.env().caller();
            let mut record = self.load(node)?;
            if caller != record.owner && caller != record.payee {
                return Err(Error::NotPayee);
            }
            let amount = record.claimable;
            if amount == 0 {
                return Err(Error::NothingToWithdraw);
            }
            record.claimable = 0;
            record.withdrawn = add(record.withdrawn, amount)?;
            self.nodes.insert(node, &record);
            self.liabilities.claimable = sub(self.liabilities.claimable, amount)?;
            self.pay(record.payee, amount)?;
            self.env().emit_event(Claimed { node, to: record.payee, amount });
            Ok(amount)
        }

        // --- requesters ----------------------------------------------------------------------------------------------

        /// Requests a task: escrows the transferred value as its fee and draws its inference nodes.
        ///
        /// `reference_commitment` is a salted hash of a reference answer, or random bytes where there is none, so that nobody
        /// can tell the two apart.
        ///
        /// # Events
        /// `TaskRequested`.
        ///
        /// # Errors
        /// `Paused`, `NoKind`, `PanelSize`, `FeeTooSmall`, `TextTooLong`, `TooMany`, `TooFewNodes` (a later block draws anew).
        #[ink(message, payable)]
        #[inline(never)]
        pub fn request_task(
            &mut self,
            kind: KindId,
            outputs: u8,
            panel: u8,
            input: TaskInput,
            reference_commitment: Digest,
        ) -> Result<TaskId> {
            let requester = self.env().caller();
            let fee = self.env().transferred_value();
            let now = self.env().block_timestamp();
            if self.paused {
                return Err(Error::Paused);
            }
            if input.url.len() > MAX_TEXT {
                return Err(Error::TextTooLong);
            }
            let record = self.kinds.get(kind).ok_or(Error::NoKind)?;
            let params = self.load_params(kind, record.version)?;
            if outputs == 0
                || outputs > params.outputs_max
                || panel < params.panel_min
                || panel > params.panel_max
            {
                return Err(Error::PanelSize);
            }
            let split = params.split(fee, outputs, panel).ok_or(Error::FeeTooSmall)?;
            let mut account = self.accounts.get(requester).unwrap_or_default();
            if account.tasks.len() >= MAX_TASKS_PER_REQUESTER {
                return Err(Error::TooMany);
            }
            let id = self.last_task.checked_add(1).ok_or(Error::Overflow)?;
            let at_risk = params.inference_at_risk;
            let mut drawn = self
                .draw(kind, Role::Inference, &record.inference, &params, outputs, id, |_, node, _| {
                    let free = node.free >= at_risk && node.price <= split.inference_slot;
                    if free && !is_of(node, &requester) {
                        Fit::Yes
                    } else {
                        Fit::No
                    }
                })
                .ok_or(Error::TooFewNodes)?;
            for (_, node) in drawn.iter_mut() {
                lock(node, id, at_risk)?;
            }
            self.save(&drawn);

            self.last_task = id;
            account.tasks.push(id);
            self.accounts.insert(requester, &account);
            self.liabilities.escrow = add(self.liabilities.escrow, fee)?;
            let deadline = now.saturating_add(params.inference_ms);
            let slot = |(node, record): &Loaded| OutputSlot {
                node: *node,
                price: record.price,
                commitment: [0; 32],
                committed_at: 0,
                quality: Score::UNAVAILABLE,
            };
            let seat = Seat {
                node: 0,
                state: SeatState::Drawn,
                commitment: [0; 32],
                committed_at: 0,
                scores: vec![Score::UNAVAILABLE; usize::from(outputs)],
            };
            self.tasks.insert(
                id,
                &Task {
                    requester,
                    kind,
                    version: record.version,
                    phase: Phase::Inferring,
                    fee,
                    inference_slot: split.inference_slot,
                    evaluator_slot: split.evaluator_slot,
                    inference_at_risk: params.inference_at_risk,
                    evaluator_at_risk: params.evaluator_at_risk,
                    input,
                    reference_commitment,
                    requested_at: now,
                    deadline,
                    fixed_at_block: 0,
                    drawn_at: 0,
                    redrawn: false,
                    draw_ms: params.draw_ms,
                    reveal_ms: params.reveal_ms,
                    audit_ms: params.audit_ms,
                    quorum: params.quorum_of(panel),
                    outputs: drawn.iter().map(slot).collect(),
                    panel: vec![seat; usize::from(panel)],
                    refund: 0,
                    final_block: 0,
                },
            );
            self.env().emit_event(TaskRequested {
                task: id,
                requester,
                kind,
                version: record.version,
                fee,
                nodes: drawn.iter().map(|(node, _)| *node).collect(),
                panel,
                deadline,
            });
            Ok(id)
        }

        /// Pays the refunds of final tasks of one requester and frees their records. The storage deposit goes to the caller.
        /// Only the requester may, until the archive time has passed; then anybody may, and the refund is still the requester's.
        ///
        /// # Events
        /// `Collected` per task.
        ///
        /// # Errors
        /// `BatchSize`, `NoTask`, `NotFinal`, `NotRequester`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn collect(&mut self, tasks: Vec<TaskId>) -> Result<Balance> {
            check_batch(tasks.len())?;
            let caller = self.env().caller();
            let now = self.env().block_timestamp();
            let mut requester: Option<AccountId> = None;
            let mut account = Account::default();
            let mut total: Balance = 0;
            for id in tasks {
                let task = self.tasks.get(id).ok_or(Error::NoTask)?;
                let to = match requester {
                    Some(to) => to,
                    None => {
                        account = self.accounts.get(task.requester).unwrap_or_default();
                        requester = Some(task.requester);
                        task.requester
                    }
                };
                // A final task's deadline is when it became final.
                let archived = now > task.deadline.saturating_add(self.global.archive_ms);
                if task.requester != to || (caller != to && !archived) {
                    return Err(Error::NotRequester);
                }
                if !task.phase.is_final() {
                    return Err(Error::NotFinal);
                }
                self.tasks.remove(id);
                account.tasks.retain(|open| *open != id);
                total = add(total, task.refund)?;
                self.env().emit_event(Collected { task: id, to, amount: task.refund });
            }
            if let Some(to) = requester {
                account.collected = add(account.collected, total)?;
                self.accounts.insert(to, &account);
                self.liabilities.refunds = sub(self.liabilities.refunds, total)?;
                if total > 0 {
                    self.pay(to, total)?;
                }
            }
            Ok(total)
        }

        // --- duties --------------------------------------------------------------------------------------------------

        /// An inference node commits to its output. The same commitment again is accepted and does nothing.
        ///
        /// # Events
        /// `OutputsCommitted`.
        ///
        /// # Errors
        /// `NoTask`, `NotAssigned`, `NotOperator`, `BadCommitment`, `AlreadyCommitted`, `WrongPhase`.
        #[ink(message)]
        #[inline(never)]
        pub fn commit_output(&mut self, task: TaskId, node: NodeId, commitment: Digest) -> Result<()> {
            let item = Commit { task, node, commitment };
            if self.accept_output(&item, &mut Vec::new())? {
                self.env().emit_event(OutputsCommitted { items: vec![(task, node)] });
            }
            Ok(())
        }

        /// Several output commitments of nodes of one operator. Per item the error that kept it out, or nothing.
        ///
        /// # Events
        /// `OutputsCommitted`.
        ///
        /// # Errors
        /// `BatchSize`.
        #[ink(message)]
        #[inline(never)]
        pub fn commit_outputs(&mut self, items: Vec<Commit>) -> Result<Vec<Option<Error>>> {
            check_batch(items.len())?;
            let mut operators = Vec::new();
            let mut accepted = Vec::new();
            let results = items
                .iter()
                .map(|item| match self.accept_output(item, &mut operators) {
                    Ok(new) => {
                        if new {
                            accepted.push((item.task, item.node));
                        }
                        None
                    }
                    Err(error) => Some(error),
                })
                .collect();
            if !accepted.is_empty() {
                self.env().emit_event(OutputsCommitted { items: accepted });
            }
            Ok(results)
        }

        /// A member of the panel commits to its scores. The same commitment again is accepted and does nothing.
        ///
        /// # Events
        /// `ScoresCommitted`.
        ///
        /// # Errors
        /// `NoTask`, `NotAssigned`, `NotOperator`, `BadCommitment`, `AlreadyCommitted`, `WrongPhase`.
        #[ink(message)]
        #[inline(never)]
        pub fn commit_scores(&mut self, task: TaskId, node: NodeId, commitment: Digest) -> Result<()> {
            let item = Commit { task, node, commitment };
            if self.accept_scores(&item, &mut Vec::new())? {
                self.env().emit_event(ScoresCommitted { items: vec![(task, node)] });
            }
            Ok(())
        }

        /// Several score commitments of nodes of one operator. Per item the error that kept it out, or nothing.
        ///
        /// # Events
        /// `ScoresCommitted`.
        ///
        /// # Errors
        /// `BatchSize`.
        #[ink(message)]
        #[inline(never)]
        pub fn commit_scores_batch(&mut self, items: Vec<Commit>) -> Result<Vec<Option<Error>>> {
            check_batch(items.len())?;
            let mut operators = Vec::new();
            let mut accepted = Vec::new();
            let results = items
                .iter()
                .map(|item| match self.accept_scores(item, &mut operators) {
                    Ok(new) => {
                        if new {
                            accepted.push((item.task, item.node));
                        }
                        None
                    }
                    Err(error) => Some(error),
                })
                .collect();
            if !accepted.is_empty() {
                self.env().emit_event(ScoresCommitted { items: accepted });
            }
            Ok(results)
        }

        /// A member of the panel reveals its scores. What does not match its commitment is recorded as a fault, not refused:
        /// otherwise everybody would wait for the deadline.
        ///
        /// # Events
        /// `ScoresRevealed`.
        ///
        /// # Errors
        /// `NoTask`, `NotAssigned`, `NotOperator`, `WrongPhase`, `BadScores`, `NotCommitted`, `AlreadyRevealed`.
        #[ink(message)]
        #[inline(never)]
        pub fn reveal_scores(&mut self, reveal: Reveal) -> Result<()> {
            let revealed = self.accept_reveal(reveal, &mut Vec::new())?;
            self.env().emit_event(ScoresRevealed { items: vec![revealed] });
            Ok(())
        }

        /// Several reveals of nodes of one operator. Per item the error that kept it out, or nothing.
        ///
        /// # Events
        /// `ScoresRevealed`.
        ///
        /// # Errors
        /// `BatchSize`.
        #[ink(message)]
        #[inline(never)]
        pub fn reveal_scores_batch(&mut self, items: Vec<Reveal>) -> Result<Vec<Option<Error>>> {
            check_batch(items.len())?;
            let mut operators = Vec::new();
            let mut accepted = Vec::new();
            let results = items
                .into_iter()
                .map(|item| match self.accept_reveal(item, &mut operators) {
                    Ok(revealed) => {
                        accepted.push(revealed);
                        None
                    }
                    Err(error) => Some(error),
                })
                .collect();
            if !accepted.is_empty() {
                self.env().emit_event(ScoresRevealed { items: accepted });
            }
            Ok(results)
        }

        // --- auditors ------------------------------------------------------------------------------------------------

        /// Adds the transferred value to the caller's bond as an auditor.
        ///
        /// # Events
        /// `AuditorChanged`.
        ///
        /// # Errors
        /// `NotAuditor` where the owner has not appointed it.
        #[ink(message, payable)]
        #[inline(never)]
        pub fn bond(&mut self) -> Result<()> {
            let caller = self.env().caller();
            let auditor = self.load_auditor(&caller)?;
            if !auditor.appointed {
                return Err(Error::NotAuditor);
            }
            self.change_auditor(caller, auditor, BondChange::Added(self.env().transferred_value()))
        }

        /// Gives an auditor its bond back, in two calls: the first resigns, the second pays once the unbonding period is over.
        /// Returns what was paid.
        ///
        /// # Events
        /// `AuditorChanged`.
        ///
        /// # Errors
        /// `NotAuditor`, `StillUnbonding`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw_bond(&mut self) -> Result<Balance> {
            let caller = self.env().caller();
            let mut auditor = self.load_auditor(&caller)?;
            let now = self.env().block_timestamp();
            if auditor.appointed {
                auditor.appointed = false;
                auditor.unbonds_at = now.saturating_add(self.global.unbonding_ms);
                self.change_auditor(caller, auditor, BondChange::None)?;
                return Ok(0);
            }
            if now < auditor.unbonds_at {
                return Err(Error::StillUnbonding);
            }
            self.change_auditor(caller, auditor, BondChange::Paid(auditor.bond))?;
            self.auditors.remove(caller);
            self.pay(caller, auditor.bond)?;
            Ok(auditor.bond)
        }

        /// Settles a gold task by its reference: merit and trust of its panel are measured against token F1 of reference and
        /// outputs. From the last reveal until somebody settles the task, at least the kind's `audit_ms`.
        ///
        /// # Events
        /// `TaskAudited`, `TaskSettled`.
        ///
        /// # Errors
        /// `NotAuditor`, `NoTask`, `TooEarly`, `WrongPhase` where it is final, `BadOpening`.
        #[ink(message)]
        #[inline(never)]
        pub fn settle_audited(&mut self, task: TaskId, opening: Opening) -> Result<()> {
            let caller = self.env().caller();
            let mut auditor = self.load_auditor(&caller)?;
            if !auditor.appointed || auditor.bond < self.global.audit_bond {
                return Err(Error::NotAuditor);
            }
            let record = self.tasks.get(task).ok_or(Error::NoTask)?;
            if record.phase.is_final() {
                return Err(Error::WrongPhase);
            }
            if !record.clock().can_audit(self.env().block_timestamp(), self.env().block_number()) {
                return Err(Error::TooEarly);
            }
            if record.panel.iter().any(|seat| self.nodes.get(seat.node).is_some_and(|n| is_of(&n, &caller))) {
                return Err(Error::NotAuditor);
            }
            let truth = self.truth(task, &record, &caller, &opening)?;
            auditor.audits = auditor.audits.saturating_add(1);
            self.auditors.insert(caller, &auditor);
            self.env().emit_event(TaskAudited { task, auditor: caller, opening });
            self.settle_step(task, record, Some(truth))
        }

        // --- anyone --------------------------------------------------------------------------------------------------

        /// Draws a task's panel, in a later block than the last output commitment.
        ///
        /// # Events
        /// `PanelDrawn`.
        ///
        /// # Errors
        /// `NoTask`, `TooEarly`, `WrongPhase`, `TooFewNodes` (a later block draws anew).
        #[ink(message)]
        #[inline(never)]
        pub fn draw_panel(&mut self, task: TaskId) -> Result<()> {
            self.perform(task, Some(Step::Draw)).map(|_| ())
        }

        /// Settles a task: when all who committed have revealed, or the deadline has passed and a quorum has.
        ///
        /// # Events
        /// `TaskSettled`.
        ///
        /// # Errors
        /// `NoTask`, `TooEarly`, `WrongPhase`.
        #[ink(message)]
        #[inline(never)]
        pub fn settle(&mut self, task: TaskId) -> Result<()> {
            self.perform(task, Some(Step::Settle)).map(|_| ())
        }

        /// Does for every task what is due: draws a panel, settles, releases a panel below quorum, refunds. Per task what was
        /// done, or why nothing was.
        ///
        /// # Events
        /// `PanelDrawn`, `TaskSettled`, `PanelReleased`, `TaskRefunded`.
        ///
        /// # Errors
        /// `BatchSize`; per task `NoTask`, `TooEarly`, `WrongPhase` where it is final, `TooFewNodes`.
        #[ink(message)]
        #[inline(never)]
        pub fn advance(&mut self, tasks: Vec<TaskId>) -> Result<Vec<Result<Step>>> {
            check_batch(tasks.len())?;
            Ok(tasks.into_iter().map(|task| self.perform(task, None)).collect())
        }

        // --- the contract's owner ------------------------------------------------------------------------------------

        /// Creates a kind or gives it new parameters, for future tasks. Returns the new version.
        ///
        /// # Events
        /// `KindSet`.
        ///
        /// # Errors
        /// `NotContractOwner`, `BadParams`.
        #[ink(message)]
        #[inline(never)]
        pub fn set_kind(&mut self, kind: KindId, params: KindParams) -> Result<u32> {
            self.only_owner()?;
            params.validate()?;
            let mut record = match self.kinds.get(kind) {
                Some(record) => record,
                None => {
                    let mut ids = self.kind_ids.get_or_default();
                    ids.push(kind);
                    self.kind_ids.set(&ids);
                    let reference = match params.merit {
                        MeritRule::Information { floor, .. } => floor,
                        MeritRule::Closeness => Ratio::ZERO,
                    };
                    Kind {
                        version: 0,
                        inference: Pool::default(),
                        evaluators: Pool::default(),
                        ring_next: 0,
                        population: Population {
                            ring: vec![RingEntry::default(); RING],
                            reference,
                            gain_average: 0,
                        },
                    }
                }
            };
            record.version = record.version.checked_add(1).ok_or(Error::Overflow)?;
            self.kinds.insert(kind, &record);
            self.params.insert((kind, record.version), &Params(params.clone()));
            self.env().emit_event(KindSet { kind, version: record.version, params });
            Ok(record.version)
        }

        /// Sets the parameters that are not a kind's.
        ///
        /// # Events
        /// `Administered`.
        ///
        /// # Errors
        /// `NotContractOwner`, `BadAmount` for a period of zero or above 90 days.
        #[ink(message)]
        #[inline(never)]
        pub fn set_global(&mut self, global: GlobalParams) -> Result<()> {
            self.only_owner()?;
            Self::check_global(&global)?;
            self.global = global;
            self.administered(Administration::Global(global));
            Ok(())
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

        /// Appoints an auditor, or dismisses one; `slash` is taken from its bond to the treasury.
        ///
        /// # Events
        /// `AuditorChanged`.
        ///
        /// # Errors
        /// `NotContractOwner`, `Overflow` above the bond.
        #[ink(message)]
        #[inline(never)]
        pub fn set_auditor(&mut self, auditor: AccountId, appointed: bool, slash: Balance) -> Result<()> {
            self.only_owner()?;
            let mut record = self.auditors.get(auditor).unwrap_or_default();
            if appointed != record.appointed {
                let until = self.env().block_timestamp().saturating_add(self.global.unbonding_ms);
                record.unbonds_at = if appointed { 0 } else { until };
                record.appointed = appointed;
            }
            self.change_auditor(auditor, record, BondChange::Slashed(slash))
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
        /// the contract has beyond what it owes to others.
        ///
        /// # Events
        /// `TreasuryWithdrawn`.
        ///
        /// # Errors
        /// `NotContractOwner`, `BadAmount` for nothing, `Insolvent`, `TransferFailed`.
        #[ink(message)]
        #[inline(never)]
        pub fn withdraw_treasury(&mut self, to: AccountId, amount: Balance) -> Result<()> {
            self.only_owner()?;
            if amount == 0 {
                return Err(Error::BadAmount);
            }
            let owed_to_others = sub(self.liabilities.total(), self.liabilities.treasury)?;
            let beyond = self.spendable().checked_sub(owed_to_others).ok_or(Error::Insolvent)?;
            if amount > beyond {
                return Err(Error::Insolvent);
            }
            self.liabilities.treasury = self.liabilities.treasury.saturating_sub(amount);
            self.pay(to, amount)?;
            self.env().emit_event(TreasuryWithdrawn { to, amount });
            Ok(())
        }

        // --- queries -------------------------------------------------------------------------------------------------

        /// What the contract is and owes at a glance.
        #[ink(message)]
        #[inline(never)]
        pub fn overview(&self) -> Overview {
            Overview {
                owner: self.owner,
                proposed: self.proposed,
                paused: self.paused,
                global: self.global,
                kinds: self.kind_ids.get_or_default(),
                nodes: self.last_node,
                tasks: self.last_task,
                entropy: self.entropy,
                balance: self.spendable(),
                liabilities: self.liabilities,
            }
        }

        /// A kind with its newest parameters.
        #[ink(message)]
        #[inline(never)]
        pub fn kind(&self, kind: KindId) -> Option<KindView> {
            let record = self.kinds.get(kind)?;
            let Params(params) = self.params.get((kind, record.version))?;
            Some(KindView { kind: record, params })
        }

        /// A version of a kind's parameters.
        #[ink(message)]
        #[inline(never)]
        pub fn params(&self, kind: KindId, version: u32) -> Option<KindParams> {
            self.params.get((kind, version)).map(|Params(params)| params)
        }

        /// A node.
        #[ink(message)]
        #[inline(never)]
        pub fn node(&self, node: NodeId) -> Option<NodeView> {
            Some(NodeView { id: node, node: self.nodes.get(node)?, info: self.infos.get(node)? })
        }

        /// Nodes from a number on, at most twelve.
        #[ink(message)]
        #[inline(never)]
        pub fn nodes(&self, from: NodeId, limit: u32) -> Vec<NodeView> {
            let mut views = Vec::new();
            let mut id = from.max(1);
            while id <= self.last_node && views.len() < limit.min(NODES_PAGE) as usize {
                views.extend(self.node(id));
                id = id.saturating_add(1);
            }
            views
        }

        /// A task, open or uncollected.
        #[ink(message)]
        #[inline(never)]
        pub fn task(&self, task: TaskId) -> Option<TaskView> {
            let record = self.tasks.get(task)?;
            let step = record.clock().step(self.env().block_timestamp(), self.env().block_number());
            Some(TaskView { id: task, task: record, step })
        }

        /// Open and uncollected tasks from a number on: at most six, of at most 200 numbers looked at.
        #[ink(message)]
        #[inline(never)]
        pub fn tasks(&self, from: TaskId, limit: u32) -> Vec<TaskView> {
            let mut views = Vec::new();
            let first = from.max(1);
            let mut id = first;
            while id <= self.last_task
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
            self.nodes
                .get(node)
                .map(|node| node.open.into_iter().filter(|id| *id != 0).collect())
                .unwrap_or_default()
        }

        /// An account's money in the contract. Anybody may ask for any account.
        #[ink(message)]
        #[inline(never)]
        pub fn balances(&self, account: AccountId) -> Balances {
            let record = self.accounts.get(account).unwrap_or_default();
            let mut sums = Balances { withdrawn: record.collected, ..Balances::default() };
            for node in record.nodes.iter().filter_map(|id| self.nodes.get(id)) {
                sums.staked_free = sums.staked_free.saturating_add(node.free);
                sums.staked_locked = sums.staked_locked.saturating_add(node.locked);
                sums.unbonding = sums.unbonding.saturating_add(node.unbonding);
                sums.claimable = sums.claimable.saturating_add(node.claimable);
                sums.withdrawn = sums.withdrawn.saturating_add(node.withdrawn);
                sums.slashed = sums.slashed.saturating_add(node.slashed);
                for task in node.open.iter().filter(|id| **id != 0).filter_map(|id| self.tasks.get(id)) {
                    let slot = match node.role {
                        Role::Inference => task.inference_slot,
                        Role::Evaluator => task.evaluator_slot,
                    };
                    sums.pending = sums.pending.saturating_add(slot);
                }
            }
            for task in record.tasks.iter().filter_map(|id| self.tasks.get(id)) {
                if task.phase.is_final() {
                    sums.claimable = sums.claimable.saturating_add(task.refund);
                } else {
                    sums.pending = sums.pending.saturating_add(task.fee);
                }
            }
            Balances { nodes: record.nodes, tasks: record.tasks, ..sums }
        }

        /// An auditor, appointed or still bonded.
        #[ink(message)]
        #[inline(never)]
        pub fn auditor(&self, account: AccountId) -> Option<Auditor> {
            self.auditors.get(account)
        }

        // --- helpers: duties -----------------------------------------------------------------------------------------

        /// Takes an output commitment. Whether it is new.
        #[inline(never)]
        fn accept_output(&mut self, item: &Commit, operators: &mut Vec<(NodeId, AccountId)>) -> Result<bool> {
            let mut task = self.tasks.get(item.task).ok_or(Error::NoTask)?;
            let now = self.env().block_timestamp();
            let slot =
                task.outputs.iter_mut().find(|slot| slot.node == item.node).ok_or(Error::NotAssigned)?;
            self.only_operator(item.node, operators)?;
            if slot.committed_at > 0 {
                return if slot.commitment == item.commitment {
                    Ok(false)
                } else {
                    Err(Error::AlreadyCommitted)
                };
            }
            if item.commitment == [0; 32] {
                return Err(Error::BadCommitment);
            }
            if task.phase != Phase::Inferring || now > task.deadline {
                return Err(Error::WrongPhase);
            }
            slot.commitment = item.commitment;
            slot.committed_at = now;
            task.fixed_at_block = self.env().block_number();
            if task.outputs.iter().all(|slot| slot.committed_at > 0) {
                task.phase = Phase::Drawing;
                task.deadline = now.saturating_add(task.draw_ms);
            }
            self.tasks.insert(item.task, &task);
            Ok(true)
        }

        /// Takes a commitment to scores. Whether it is new.
        #[inline(never)]
        fn accept_scores(&mut self, item: &Commit, operators: &mut Vec<(NodeId, AccountId)>) -> Result<bool> {
            let mut task = self.tasks.get(item.task).ok_or(Error::NoTask)?;
            let now = self.env().block_timestamp();
            let drawn = !matches!(task.phase, Phase::Inferring | Phase::Drawing);
            let seat = task
                .panel
                .iter_mut()
                .find(|seat| drawn && seat.node == item.node)
                .ok_or(Error::NotAssigned)?;
            self.only_operator(item.node, operators)?;
            if seat.state != SeatState::Drawn {
                return if seat.commitment == item.commitment {
                    Ok(false)
                } else {
                    Err(Error::AlreadyCommitted)
                };
            }
            if item.commitment == [0; 32] {
                return Err(Error::BadCommitment);
            }
            if task.phase != Phase::Scoring || now > task.deadline {
                return Err(Error::WrongPhase);
            }
            seat.commitment = item.commitment;
            seat.committed_at = now;
            seat.state = SeatState::Committed;
            if task.panel.iter().all(|seat| seat.state == SeatState::Committed) {
                task.phase = Phase::Revealing;
                task.deadline = now.saturating_add(task.reveal_ms);
            }
            self.tasks.insert(item.task, &task);
            Ok(true)
        }

        /// Takes a reveal; what does not match is recorded.
        #[inline(never)]
        fn accept_reveal(
            &mut self,
            reveal: Reveal,
            operators: &mut Vec<(NodeId, AccountId)>,
        ) -> Result<Revealed> {
            let mut task = self.tasks.get(reveal.task).ok_or(Error::NoTask)?;
            let now = self.env().block_timestamp();
            let (phase, deadline) = task.clock().at(now);
            let drawn = !matches!(task.phase, Phase::Inferring | Phase::Drawing);
            let outputs = task.outputs.len();
            let seat = task
                .panel
                .iter_mut()
                .find(|seat| drawn && seat.node == reveal.node)
                .ok_or(Error::NotAssigned)?;
            self.only_operator(reveal.node, operators)?;
            match seat.state {
                SeatState::Revealed | SeatState::Mismatched => return Err(Error::AlreadyRevealed),
                SeatState::Drawn => return Err(Error::NotCommitted),
                SeatState::Committed => {}
            }
            if phase != Phase::Revealing || now > deadline {
                return Err(Error::WrongPhase);
            }
            if reveal.scores.len() != outputs {
                return Err(Error::BadScores);
            }
            let contract = self.env().account_id();
            let preimage = commitment::scores(
                contract.as_ref(),
                reveal.task,
                reveal.node,
                &reveal.scores,
                &reveal.report_hash,
                &reveal.salt,
            );
            let matched = blake2(&preimage) == seat.commitment;
            if matched {
                seat.state = SeatState::Revealed;
                seat.scores = reveal.scores.clone();
                self.entropy = blake2(&scale(&(self.entropy, reveal.salt)));
            } else {
                seat.state = SeatState::Mismatched;
            }
            (task.phase, task.deadline) = task.clock().after_reveal(now);
            self.tasks.insert(reveal.task, &task);
            Ok(Revealed {
                task: reveal.task,
                node: reveal.node,
                scores: reveal.scores,
                report_hash: reveal.report_hash,
                salt: reveal.salt,
                matched,
            })
        }

        // --- helpers: steps ------------------------------------------------------------------------------------------

        /// Does what is due with a task; where `only` names a step, that one or none.
        fn perform(&mut self, id: TaskId, only: Option<Step>) -> Result<Step> {
            let task = self.tasks.get(id).ok_or(Error::NoTask)?;
            let step = task.clock().step(self.env().block_timestamp(), self.env().block_number());
            match step {
                Step::Wait { .. } | Step::WaitForBlock => return Err(Error::TooEarly),
                Step::Done => return Err(Error::WrongPhase),
                step if only.is_some_and(|only| only != step) => return Err(Error::WrongPhase),
                Step::Draw => self.draw_step(id, task)?,
                Step::Settle => self.settle_step(id, task, None)?,
                Step::Redraw => self.release_step(id, task)?,
                Step::RefundUndelivered => self.refund_step(id, task, RefundReason::Undelivered)?,
                Step::RefundUndrawn => self.refund_step(id, task, RefundReason::Undrawn)?,
                Step::RefundBelowQuorum => self.refund_step(id, task, RefundReason::BelowQuorum)?,
            }
            Ok(step)
        }

        #[inline(never)]
        fn draw_step(&mut self, id: TaskId, mut task: Task) -> Result<()> {
            let now = self.env().block_timestamp();
            let kind = self.kinds.get(task.kind).ok_or(Error::NoKind)?;
            let params = self.load_params(task.kind, task.version)?;
            let seats = u8::try_from(task.panel.len()).map_err(|_| Error::PanelSize)?;
            // Nobody scores an answer of their own, or one that they asked for; nobody sits on both panels.
            let answering: Vec<AccountId> = task
                .outputs
                .iter()
                .filter_map(|slot| self.nodes.get(slot.node))
                .map(|node| node.owner)
                .collect();
            let at_risk = task.evaluator_at_risk;
            let requester = task.requester;
            let per_model = usize::from((seats / 2).max(1));
            let released: Vec<NodeId> = task.panel.iter().map(|seat| seat.node).collect();
            let mut drawn = self
                .draw(
                    task.kind,
                    Role::Evaluator,
                    &kind.evaluators,
                    &params,
                    seats,
                    id,
                    |candidate, node, chosen| {
                        if node.free < at_risk
                            || released.contains(&candidate)
                            || answering.contains(&node.owner)
                            || is_of(node, &requester)
                        {
                            return Fit::No;
                        }
                        let same = chosen
                            .iter()
                            .filter(|(_, other)| other.model_digest == node.model_digest)
                            .count();
                        if same < per_model {
                            Fit::Yes
                        } else {
                            Fit::Spare
                        }
                    },
                )
                .ok_or(Error::TooFewNodes)?;
            for (seat, (node, record)) in task.panel.iter_mut().zip(drawn.iter_mut()) {
                lock(record, id, at_risk)?;
                seat.node = *node;
            }
            self.save(&drawn);
            task.phase = Phase::Scoring;
            task.drawn_at = now;
            task.deadline = now.saturating_add(params.commit_ms);
            self.tasks.insert(id, &task);
            self.env().emit_event(PanelDrawn {
                task: id,
                nodes: drawn.iter().map(|(node, _)| *node).collect(),
                deadline: task.deadline,
                redrawn: task.redrawn,
            });
            Ok(())
        }

        #[inline(never)]
        fn settle_step(
            &mut self,
            id: TaskId,
            mut task: Task,
            truth: Option<Vec<Option<Ratio>>>,
        ) -> Result<()> {
            let now = self.env().block_timestamp();
            let mut kind = self.kinds.get(task.kind).ok_or(Error::NoKind)?;
            let params = self.load_params(task.kind, task.version)?;
            let output_nodes: Vec<NodeId> = task.outputs.iter().map(|slot| slot.node).collect();
            let panel_nodes: Vec<NodeId> = task.panel.iter().map(|seat| seat.node).collect();
            let mut loaded = Vec::with_capacity(output_nodes.len().saturating_add(panel_nodes.len()));
            for node in output_nodes.iter().chain(&panel_nodes) {
                loaded.push((*node, self.load(*node)?));
            }
            let evaluators = loaded.get(output_nodes.len()..).unwrap_or_default();
            let input = SettlementInput {
                fee: task.fee,
                drawn_at: task.drawn_at,
                outputs: task
                    .outputs
                    .iter()
                    .map(|slot| OutputInput {
                        latency_ms: (slot.committed_at > 0)
                            .then(|| slot.committed_at.saturating_sub(task.requested_at)),
                        price: slot.price,
                    })
                    .collect(),
                panel: task
                    .panel
                    .iter()
                    .zip(evaluators)
                    .map(|(seat, (_, node))| EvaluatorInput {
                        conduct: conduct(seat),
                        committed_at: seat.committed_at,
                        trust: node.trust,
                        gain_average: node.gain_average,
                    })
                    .collect(),
                population: kind.population.clone(),
                truth,
            };
            let settlement = settle(&params, &input).ok_or(Error::Overflow)?;

            let mut credited: Balance = 0;
            let outcomes =
                settlement.outputs.iter().map(|o| (o.payout, o.slashed, task.inference_at_risk, None)).chain(
                    settlement.panel.iter().map(|e| {
                        (e.payout, e.slashed, task.evaluator_at_risk, Some((e.trust, e.gain_average)))
                    }),
                );
            for ((_, node), (payout, slashed, at_risk, standing)) in loaded.iter_mut().zip(outcomes) {
                release(node, id, at_risk, slashed)?;
                node.claimable = add(node.claimable, payout)?;
                node.settled = node.settled.saturating_add(1);
                if let Some((trust, gain_average)) = standing {
                    node.trust = trust;
                    node.gain_average = gain_average;
                }
                credited = add(credited, payout)?;
            }
            if let Some(quality) = settlement.consensus {
                let next = usize::from(kind.ring_next);
                if let Some(entry) = kind.population.ring.get_mut(next) {
                    *entry = RingEntry { settled_at: now, quality };
                }
                let after = next.saturating_add(1).checked_rem(RING).unwrap_or(0);
                kind.ring_next = u8::try_from(after).unwrap_or(0);
            }
            kind.population.reference = settlement.reference;
            kind.population.gain_average = settlement.gain_average;
            for index in 0..loaded.len() {
                self.relocate(&mut loaded, index, &mut kind, &params)?;
            }
            self.save(&loaded);
            self.kinds.insert(task.kind, &kind);

            self.liabilities.escrow = sub(self.liabilities.escrow, task.fee)?;
            self.liabilities.claimable = add(self.liabilities.claimable, credited)?;
            self.liabilities.refunds = add(self.liabilities.refunds, settlement.refund)?;
            self.liabilities.stakes = sub(self.liabilities.stakes, settlement.slashed)?;
            let to_treasury = add(add(settlement.protocol_fee, settlement.forfeited)?, settlement.slashed)?;
            self.liabilities.treasury = add(self.liabilities.treasury, to_treasury)?;
            for (slot, settled) in task.outputs.iter_mut().zip(&settlement.outputs) {
                slot.quality = Score::from(settled.quality);
            }
            self.finish(id, &mut task, Phase::Settled, settlement.refund);
            self.env().emit_event(TaskSettled {
                task: id,
                requester: task.requester,
                kind: task.kind,
                version: task.version,
                output_nodes,
                panel_nodes,
                input,
                settlement,
            });
            Ok(())
        }

        /// What each output of a gold task is worth against its reference, once everything opens what it should.
        #[inline(never)]
        fn truth(
            &self,
            id: TaskId,
            task: &Task,
            auditor: &AccountId,
            opening: &Opening,
        ) -> Result<Vec<Option<Ratio>>> {
            let contract = self.env().account_id();
            let opens = |preimage: &[u8], commitment: &Digest| {
                if blake2(preimage) == *commitment {
                    Ok(())
                } else {
                    Err(Error::BadOpening)
                }
            };
            if !opening.is_bounded(task.outputs.len()) {
                return Err(Error::BadOpening);
            }
            let hash = blake2(&opening.reference);
            let preimage = commitment::reference(contract.as_ref(), auditor.as_ref(), &hash, &opening.salt);
            opens(&preimage, &task.reference_commitment)?;
            let mut truth = Vec::with_capacity(task.outputs.len());
            for (slot, opened) in task.outputs.iter().zip(&opening.outputs) {
                let mut measured = None;
                if let Some((text, salt)) = opened {
                    let preimage = commitment::output(contract.as_ref(), id, slot.node, &blake2(text), salt);
                    opens(&preimage, &slot.commitment)?;
                    measured = Some(token_f1(&opening.reference, text));
                }
                truth.push(measured);
            }
            Ok(truth)
        }

        fn load_auditor(&self, account: &AccountId) -> Result<Auditor> {
            self.auditors.get(account).ok_or(Error::NotAuditor)
        }

        /// Stores an auditor's record with a change of its bond, and says so.
        #[inline(never)]
        fn change_auditor(
            &mut self,
            account: AccountId,
            mut auditor: Auditor,
            change: BondChange,
        ) -> Result<()> {
            let bonds = &mut self.liabilities.bonds;
            match change {
                BondChange::None => {}
                BondChange::Added(amount) => {
                    auditor.bond = add(auditor.bond, amount)?;
                    *bonds = add(*bonds, amount)?;
                }
                BondChange::Slashed(amount) | BondChange::Paid(amount) => {
                    auditor.bond = sub(auditor.bond, amount)?;
                    *bonds = sub(*bonds, amount)?;
                }
            }
            if let BondChange::Slashed(amount) = change {
                self.liabilities.treasury = add(self.liabilities.treasury, amount)?;
            }
            self.auditors.insert(account, &auditor);
            self.env().emit_event(AuditorChanged { account, auditor, change });
            Ok(())
        }

        /// Releases a panel that stayed below its quorum, for a second draw.
        #[inline(never)]
        fn release_step(&mut self, id: TaskId, mut task: Task) -> Result<()> {
            let now = self.env().block_timestamp();
            let mut kind = self.kinds.get(task.kind).ok_or(Error::NoKind)?;
            let params = self.load_params(task.kind, task.version)?;
            let owed = panel_penalties(&params, &task);
            let penalties = self.penalise(id, &owed, &mut kind, &params)?;
            self.kinds.insert(task.kind, &kind);
            let panel = task.panel.clone();
            for seat in task.panel.iter_mut() {
                // The node stays: it is not drawn again.
                seat.state = SeatState::Drawn;
                seat.commitment = [0; 32];
                seat.committed_at = 0;
                seat.scores.iter_mut().for_each(|score| *score = Score::UNAVAILABLE);
            }
            task.phase = Phase::Drawing;
            task.deadline = now.saturating_add(task.draw_ms);
            task.fixed_at_block = self.env().block_number();
            task.redrawn = true;
            self.tasks.insert(id, &task);
            self.env().emit_event(PanelReleased { task: id, panel, penalties });
            Ok(())
        }

        #[inline(never)]
        fn refund_step(&mut self, id: TaskId, mut task: Task, reason: RefundReason) -> Result<()> {
            let mut kind = self.kinds.get(task.kind).ok_or(Error::NoKind)?;
            let params = self.load_params(task.kind, task.version)?;
            let missed = params.missed_penalty.of(task.inference_at_risk);
            let mut owed: Vec<(NodeId, Balance, Balance)> = task
                .outputs
                .iter()
                .map(|slot| {
                    (slot.node, task.inference_at_risk, if slot.committed_at > 0 { 0 } else { missed })
                })
                .collect();
            // In every other case the panel was never drawn, or has been released.
            if reason == RefundReason::BelowQuorum {
                owed.extend(panel_penalties(&params, &task));
            }
            let penalties = self.penalise(id, &owed, &mut kind, &params)?;
            self.kinds.insert(task.kind, &kind);
            self.liabilities.escrow = sub(self.liabilities.escrow, task.fee)?;
            self.liabilities.refunds = add(self.liabilities.refunds, task.fee)?;
            let refund = task.fee;
            self.finish(id, &mut task, Phase::Refunded, refund);
            self.env().emit_event(TaskRefunded {
                task: id,
                requester: task.requester,
                reason,
                refund,
                penalties,
            });
            Ok(())
        }

        /// Unlocks nodes' stake of a task and takes penalties from it: (node, at risk, penalty). Returns those that lost.
        #[inline(never)]
        fn penalise(
            &mut self,
            task: TaskId,
            owed: &[(NodeId, Balance, Balance)],
            kind: &mut Kind,
            params: &KindParams,
        ) -> Result<Vec<Penalty>> {
            let mut penalties = Vec::new();
            let mut loaded = Vec::with_capacity(owed.len());
            for (node, at_risk, amount) in owed {
                let mut record = self.load(*node)?;
                release(&mut record, task, *at_risk, *amount)?;
                self.liabilities.stakes = sub(self.liabilities.stakes, *amount)?;
                self.liabilities.treasury = add(self.liabilities.treasury, *amount)?;
                if *amount > 0 {
                    penalties.push(Penalty { node: *node, amount: *amount });
                }
                loaded.push((*node, record));
            }
            for index in 0..loaded.len() {
                self.relocate(&mut loaded, index, kind, params)?;
            }
            self.save(&loaded);
            Ok(penalties)
        }

        /// Stores a task's end. Its record keeps its size until it is collected.
        #[inline(never)]
        fn finish(&mut self, id: TaskId, task: &mut Task, phase: Phase, refund: Balance) {
            task.phase = phase;
            task.refund = refund;
            task.deadline = self.env().block_timestamp();
            task.final_block = self.env().block_number();
            self.tasks.insert(id, task);
        }

        // --- helpers: the draw ---------------------------------------------------------------------------------------

        /// Draws `count` nodes of different owners that fit; bounded work, whatever the pool's size.
        #[inline(never)]
        #[allow(clippy::too_many_arguments)]
        fn draw(
            &self,
            kind: KindId,
            role: Role,
            pool: &Pool,
            params: &KindParams,
            count: u8,
            task: TaskId,
            fit: impl Fn(NodeId, &Node, &[Loaded]) -> Fit,
        ) -> Option<Vec<Loaded>> {
            let count = usize::from(count);
            let seed = blake2(&scale(&(
                self.entropy,
                task,
                role,
                self.env().block_number(),
                self.env().block_timestamp(),
            )));
            let mut stream = Stream::new(seed);
            let mut chosen: Vec<Loaded> = Vec::with_capacity(count);
            let mut spare: Vec<Loaded> = Vec::new();
            let mut seen: Vec<NodeId> = Vec::new();
            let mut place = (0u8, 0u32);
            let consider = |id: NodeId,
                            threshold: Option<Ratio>,
                            chosen: &mut Vec<Loaded>,
                            spare: &mut Vec<Loaded>,
                            seen: &mut Vec<NodeId>|
             -> Option<()> {
                if seen.contains(&id) {
                    return None;
                }
                let node = self.nodes.get(id)?;
                let heavy = weight(node.bonded(), params.stake_cap, node.trust);
                if threshold.is_some_and(|threshold| heavy <= threshold) {
                    return None;
                }
                seen.push(id);
                let free = node.status == NodeStatus::Active
                    && node.bonded() >= params.stake_min
                    && node.open_count() < MAX_OPEN
                    && chosen.iter().all(|(_, other)| other.owner != node.owner);
                match if free { fit(id, &node, chosen) } else { Fit::No } {
                    Fit::Yes => chosen.push((id, node)),
                    Fit::Spare => spare.push((id, node)),
                    Fit::No => {}
                }
                Some(())
            };
            for _ in 0..count.saturating_mul(4).saturating_add(8) {
                if chosen.len() == count {
                    return Some(chosen);
                }
                let pick = pool.pick(stream.next(blake2))?;
                place = (pick.class, pick.index);
                if let Some(id) = self.members.get((kind, role, pick.class, pick.index)) {
                    consider(id, Some(pick.threshold), &mut chosen, &mut spare, &mut seen);
                }
            }
            // Random picks keep missing the last eligible members of a small pool: walk on from the last one.
            for (class, index) in pool.walk(place.0, place.1, WALK) {
                if chosen.len() == count {
                    break;
                }
                if let Some(id) = self.members.get((kind, role, class, index)) {
                    consider(id, None, &mut chosen, &mut spare, &mut seen);
                }
            }
            for (id, node) in spare {
                if chosen.len() < count && chosen.iter().all(|(_, other)| other.owner != node.owner) {
                    chosen.push((id, node));
                }
            }
            (chosen.len() == count).then_some(chosen)
        }

        /// Puts the node at `index` of `loaded` into the weight class where it belongs now. Another node may move into the
        /// place that it leaves: that one is changed in `loaded` if it is there, else in storage.
        #[inline(never)]
        fn relocate(
            &mut self,
            loaded: &mut [Loaded],
            index: usize,
            kind: &mut Kind,
            params: &KindParams,
        ) -> Result<()> {
            let Some((id, node)) = loaded.get(index) else { return Ok(()) };
            let (id, role, kind_id, old) = (*id, node.role, node.kind, node.place);
            let drawn = node.status == NodeStatus::Active && node.bonded() >= params.stake_min;
            let class =
                if drawn { class_of(weight(node.bonded(), params.stake_cap, node.trust)) } else { None };
            if class == old.class() {
                return Ok(());
            }
            let pool = match role {
                Role::Inference => &mut kind.inference,
                Role::Evaluator => &mut kind.evaluators,
            };
            if let Some(left) = old.class() {
                let count = pool.counts.get_mut(usize::from(left)).ok_or(Error::Overflow)?;
                *count = count.checked_sub(1).ok_or(Error::Overflow)?;
                let last = *count;
                if old.index != last {
                    let moved = self.members.get((kind_id, role, left, last)).ok_or(Error::NoNode)?;
                    self.members.insert((kind_id, role, left, old.index), &moved);
                    match loaded.iter_mut().find(|(other, _)| *other == moved) {
                        Some((_, node)) => node.place.index = old.index,
                        None => {
                            let mut node = self.load(moved)?;
                            node.place.index = old.index;
                            self.nodes.insert(moved, &node);
                        }
                    }
                }
                self.members.remove((kind_id, role, left, last));
            }
            let place = match class {
                None => Place::NONE,
                Some(class) => {
                    let count = pool.counts.get_mut(usize::from(class)).ok_or(Error::Overflow)?;
                    let index = *count;
                    *count = count.checked_add(1).ok_or(Error::Overflow)?;
                    self.members.insert((kind_id, role, class, index), &id);
                    Place { class, index }
                }
            };
            if let Some((_, node)) = loaded.get_mut(index) {
                node.place = place;
            }
            Ok(())
        }

        // --- helpers: records ----------------------------------------------------------------------------------------

        #[inline(never)]
        fn load(&self, node: NodeId) -> Result<Node> {
            self.nodes.get(node).ok_or(Error::NoNode)
        }

        #[inline(never)]
        fn save(&mut self, loaded: &[Loaded]) {
            for (id, node) in loaded {
                self.nodes.insert(id, node);
            }
        }

        /// Stores a node where its stake and trust belong; with `staked`, only if its stake is nothing or at least the minimum.
        #[inline(never)]
        fn save_placed(&mut self, id: NodeId, node: Node, staked: bool) -> Result<()> {
            let mut kind = self.kinds.get(node.kind).ok_or(Error::NoKind)?;
            let params = self.load_params(node.kind, kind.version)?;
            if staked && node.bonded() > 0 && node.bonded() < params.stake_min {
                return Err(Error::StakeBelowMinimum);
            }
            let (kind_id, before) = (node.kind, node.place);
            let mut loaded = [(id, node)];
            self.relocate(&mut loaded, 0, &mut kind, &params)?;
            if loaded.iter().any(|(_, node)| node.place != before) {
                self.kinds.insert(kind_id, &kind);
            }
            self.save(&loaded);
            Ok(())
        }

        #[inline(never)]
        fn load_params(&self, kind: KindId, version: u32) -> Result<KindParams> {
            self.params.get((kind, version)).map(|Params(params)| params).ok_or(Error::NoParams)
        }

        fn owned(&self, node: NodeId) -> Result<Node> {
            let record = self.load(node)?;
            if record.owner != self.env().caller() {
                return Err(Error::NotNodeOwner);
            }
            Ok(record)
        }

        fn set_status(&mut self, node: NodeId, status: NodeStatus, change: NodeChange) -> Result<()> {
            let mut record = self.owned(node)?;
            record.status = status;
            self.save_placed(node, record, false)?;
            self.changed(node, change);
            Ok(())
        }

        #[inline(never)]
        fn administered(&self, what: Administration) {
            self.env().emit_event(Administered { what });
        }

        #[inline(never)]
        fn changed(&self, node: NodeId, change: NodeChange) {
            self.env().emit_event(NodeChanged { node, change });
        }

        /// Checks that the caller operates the node; a batch reads each node once.
        #[inline(never)]
        fn only_operator(&self, node: NodeId, operators: &mut Vec<(NodeId, AccountId)>) -> Result<()> {
            let operator = match operators.iter().find(|(id, _)| *id == node) {
                Some((_, operator)) => *operator,
                None => {
                    let operator = self.load(node)?.operator;
                    operators.push((node, operator));
                    operator
                }
            };
            if operator == self.env().caller() {
                Ok(())
            } else {
                Err(Error::NotOperator)
            }
        }

        fn only_owner(&self) -> Result<()> {
            if self.env().caller() == self.owner {
                Ok(())
            } else {
                Err(Error::NotContractOwner)
            }
        }

        fn check_global(global: &GlobalParams) -> Result<()> {
            let good = |ms: u64| ms > 0 && ms <= QUARTER_MS;
            if good(global.unbonding_ms) && good(global.archive_ms) && global.audit_bond > 0 {
                Ok(())
            } else {
                Err(Error::BadAmount)
            }
        }

        /// What the contract can spend. The pallet's `balance` already leaves out what keeps the account alive and what is held
        /// as storage deposit.
        fn spendable(&self) -> Balance {
            self.env().balance()
        }

        fn pay(&self, to: AccountId, amount: Balance) -> Result<()> {
            self.env().transfer(to, amount).map_err(|_| Error::TransferFailed)
        }
    }

    fn blake2(bytes: &[u8]) -> Digest {
        let mut hash = [0; 32];
        ink::env::hash_bytes::<Blake2x256>(bytes, &mut hash);
        hash
    }

    fn scale(value: &impl ink::scale::Encode) -> Vec<u8> {
        value.encode()
    }

    fn add(a: Balance, b: Balance) -> Result<Balance> {
        a.checked_add(b).ok_or(Error::Overflow)
    }

    fn sub(a: Balance, b: Balance) -> Result<Balance> {
        a.checked_sub(b).ok_or(Error::Overflow)
    }

    fn check_batch(items: usize) -> Result<()> {
        if items == 0 || items > MAX_BATCH {
            Err(Error::BatchSize)
        } else {
            Ok(())
        }
    }

    fn is_of(node: &Node, account: &AccountId) -> bool {
        [node.owner, node.operator, node.payee].contains(account)
    }

    /// Locks a node's stake for a task.
    fn lock(node: &mut Node, task: TaskId, at_risk: Balance) -> Result<()> {
        let slot = node.open.iter_mut().find(|open| **open == 0).ok_or(Error::TooMany)?;
        *slot = task;
        node.free = sub(node.free, at_risk)?;
        node.locked = add(node.locked, at_risk)?;
        Ok(())
    }

    /// Unlocks a node's stake of a task, less what it lost.
    fn release(node: &mut Node, task: TaskId, at_risk: Balance, slashed: Balance) -> Result<()> {
        if let Some(slot) = node.open.iter_mut().find(|open| **open == task) {
            *slot = 0;
        }
        node.locked = sub(node.locked, at_risk)?;
        node.free = add(node.free, sub(at_risk, slashed)?)?;
        node.slashed = add(node.slashed, slashed)?;
        Ok(())
    }

    fn conduct(seat: &Seat) -> Conduct {
        match seat.state {
            SeatState::Drawn => Conduct::Missed,
            SeatState::Committed | SeatState::Mismatched => Conduct::Unrevealed,
            SeatState::Revealed => Conduct::Revealed(seat.scores.clone()),
        }
    }

    /// What the members of a panel that is not settled owe: (node, at risk, penalty).
    fn panel_penalties(params: &KindParams, task: &Task) -> Vec<(NodeId, Balance, Balance)> {
        let revealing = task.phase == Phase::Revealing;
        task.panel
            .iter()
            .map(|seat| {
                let owed = match seat.state {
                    // Nobody could reveal: the quorum of commitments was never there.
                    SeatState::Committed if !revealing => 0,
                    _ => unsettled_penalty(params, &conduct(seat)),
                };
                (seat.node, task.evaluator_at_risk, owed)
            })
            .collect()
    }
}
