//! What the contract's owner may do: announce changes, appoint and dismiss auditors, pause new tasks. And what auditors do.

use crate::errors::{Error, Result};
use crate::events::*;
use crate::money::{add, blake2, sub};
use crate::poq::Poq;
use crate::storage::{Cell, Session, AUDITORS, CHANGES, KINDS, KIND_IDS, LEVERS, VERSIONS};
use crate::tasks::older_params;
use crate::types::*;
use ink::codegen::Env;
use ink::env::call::{build_call, ExecutionInput, Selector};
use ink::env::{CallFlags, DefaultEnvironment};
use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use poq_core::commitment;
use poq_core::formulas::settlement::{audit, TrustState};
use poq_core::text::token_f1;
use poq_core::units::{Balance, KindId, Millis, Ratio, TaskId};

/// The selector of [`Poq::migrate`], which new code answers to.
const MIGRATE: [u8; 4] = ink::selector_bytes!("migrate");

impl Poq {
    pub(crate) fn only_owner(&self) -> Result<()> {
        if self.env().caller() == self.owner {
            Ok(())
        } else {
            Err(Error::NotContractOwner)
        }
    }

    pub(crate) fn administered(&self, what: Administration) {
        emit(&Administered { what });
    }

    // --- changes -------------------------------------------------------------------------------------------------

    /// Whether a change acts at once: nobody has anything in the contract yet, or the kind has no parameters yet.
    fn is_first(&self, session: &Session, change: &Change) -> bool {
        match change {
            Change::Code(_) => false,
            Change::Kind(kind, _) if session.kind(*kind).is_err() => true,
            _ => session.books().last_node == 0,
        }
    }

    #[inline(never)]
    pub(crate) fn announce(&mut self, change: Change) -> Result<Millis> {
        self.only_owner()?;
        let session = self.session();
        self.check(&change)?;
        let now = session.now;
        if let Change::SlashAuditor(account, _) = &change {
            // While the bond waits, or it could be held up for ever by announcing again and again.
            if now >= self.load_auditor(account)?.unbonds_at {
                return Err(Error::BadAmount);
            }
        }
        if self.is_first(&session, &change) {
            self.apply(change)?;
            return Ok(now);
        }
        // The longer of both, or a short delay could be had by announcing it.
        let delay = match &change {
            Change::Global(global) => self.global.0.params_delay_ms.max(global.params_delay_ms),
            _ => self.global.0.params_delay_ms,
        };
        let lever = change.lever();
        let mut levers = LEVERS.get(()).unwrap_or_default();
        // What has lapsed makes room.
        levers.retain(|other| {
            let lapsed = CHANGES.get(*other).is_none_or(|pending| pending.has_lapsed(now));
            if lapsed {
                CHANGES.remove(*other);
            }
            !lapsed
        });
        if levers.contains(&lever) {
            return Err(Error::AlreadyPending);
        }
        if levers.len() >= MAX_PENDING {
            return Err(Error::TooMany);
        }
        let pending = Pending::new(change, now, delay);
        let acts_at = pending.acts_at;
        levers.push(lever);
        LEVERS.insert((), &levers);
        CHANGES.insert(lever, &pending);
        emit(&Proposed { change: pending.change, acts_at });
        Ok(acts_at)
    }

    /// Takes an announced change off the list.
    fn take_off(&self, lever: Lever) -> Result<Pending<Change>> {
        let pending = CHANGES.get(lever).ok_or(Error::NotPending)?;
        CHANGES.remove(lever);
        let mut levers = LEVERS.get(()).unwrap_or_default();
        levers.retain(|other| *other != lever);
        LEVERS.insert((), &levers);
        Ok(pending)
    }

    /// Takes an announced change that can act off the list.
    #[inline(never)]
    pub(crate) fn due_change(&self, lever: Lever) -> Result<Change> {
        let pending = self.take_off(lever)?;
        let now = self.env().block_timestamp();
        if pending.has_lapsed(now) {
            return Err(Error::NotPending);
        }
        if !pending.is_due(now) {
            return Err(Error::NotDue);
        }
        // What held when it was announced may not hold any more.
        self.check(&pending.change)?;
        Ok(pending.change)
    }

    #[inline(never)]
    pub(crate) fn cancel_change(&self, lever: Lever) -> Result<()> {
        self.only_owner()?;
        self.take_off(lever)?;
        emit(&Cancelled { lever });
        Ok(())
    }

    pub(crate) fn announced(&self) -> Vec<Pending<Change>> {
        let levers = LEVERS.get(()).unwrap_or_default();
        levers.into_iter().filter_map(|lever| CHANGES.get(lever)).collect()
    }

    /// Whether a change could act.
    #[inline(never)]
    fn check(&self, change: &Change) -> Result<()> {
        match change {
            Change::Kind(_, params) => {
                params.validate()?;
                params.fits_epoch(self.epoch_ms)?;
                // Who unstakes stays at risk for longer than any task lives.
                let life = self.life_ms.max(params.life_ms());
                if !self.global.0.is_valid(self.epoch_ms, life) {
                    return Err(Error::BadAmount);
                }
                Ok(())
            }
            Change::Global(global) if !global.is_valid(self.epoch_ms, self.life_ms) => Err(Error::BadAmount),
            Change::SlashAuditor(account, amount) => {
                let auditor = self.load_auditor(account)?;
                let waits = auditor.unbonds_at > 0;
                if *amount == 0 || *amount > auditor.bond || !waits {
                    return Err(Error::BadAmount);
                }
                Ok(())
            }
            Change::Global(_) | Change::Appoint(_) | Change::Code(_) => Ok(()),
        }
    }

    #[inline(never)]
    pub(crate) fn apply(&mut self, change: Change) -> Result<()> {
        match &change {
            Change::Kind(kind, params) => self.set_kind(*kind, params)?,
            Change::Global(global) => self.global = Cell(*global),
            Change::Appoint(account) => {
                let mut auditor = AUDITORS.get(*account).unwrap_or_default();
                auditor.appointed = true;
                self.save_auditor(*account, auditor, BondChange::None);
            }
            Change::SlashAuditor(account, amount) => {
                let mut auditor = self.load_auditor(account)?;
                auditor.bond = sub(auditor.bond, *amount)?;
                let session = self.session();
                session.book(&|owed| {
                    owed.bonds = sub(owed.bonds, *amount)?;
                    owed.burned = add(owed.burned, *amount)?;
                    Ok(())
                })?;
                session.finish();
                self.save_auditor(*account, auditor, BondChange::Slashed(*amount));
            }
            // Not here: the root is written after this message.
            Change::Code(_) => return Err(Error::BadCode),
        }
        emit(&Enacted { change });
        Ok(())
    }

    fn set_kind(&mut self, id: KindId, params: &KindParams) -> Result<()> {
        let mut kind = match KINDS.get(id) {
            Some(kind) => kind,
            None => {
                let mut ids = KIND_IDS.get(()).unwrap_or_default();
                ids.push(id);
                KIND_IDS.insert((), &ids);
                Kind { version: 0, params: params.clone(), population: Population::new(params) }
            }
        };
        kind.version = kind.version.checked_add(1).ok_or(Error::Overflow)?;
        kind.params.clone_from(params);
        self.life_ms = self.life_ms.max(params.life_ms());
        let version = kind.version;
        KINDS.insert(id, &kind);
        VERSIONS.insert((id, version), params);
        emit(&KindSet { kind: id, version, params: params.clone() });
        Ok(())
    }

    /// Runs other code from now on, and lets it bring the storage to its layout, all in this message.
    #[inline(never)]
    pub(crate) fn replace_code(&self) -> Result<()> {
        let change = self.due_change(Lever::Code)?;
        let Change::Code(hash) = change else { return Err(Error::BadCode) };
        self.env().set_code_hash(&hash.into()).map_err(|_| Error::BadCode)?;
        let migrated = build_call::<DefaultEnvironment>()
            .call(self.env().account_id())
            .call_flags(CallFlags::ALLOW_REENTRY)
            .exec_input(ExecutionInput::new(Selector::new(MIGRATE)))
            .returns::<Result<()>>()
            .try_invoke();
        match migrated {
            Ok(Ok(Ok(()))) => {
                emit(&Enacted { change });
                Ok(())
            }
            _ => Err(Error::BadCode),
        }
    }

    // --- auditors ------------------------------------------------------------------------------------------------

    pub(crate) fn load_auditor(&self, account: &AccountId) -> Result<Auditor> {
        AUDITORS.get(*account).ok_or(Error::NotAuditor)
    }

    #[inline(never)]
    fn save_auditor(&self, account: AccountId, auditor: Auditor, change: BondChange) {
        AUDITORS.insert(account, &auditor);
        emit(&AuditorChanged { account, auditor, change });
    }

    /// An auditor's own act: its first bond after an appointment is its consent.
    #[inline(never)]
    pub(crate) fn add_bond(&self) -> Result<()> {
        let caller = self.env().caller();
        let mut auditor = self.load_auditor(&caller)?;
        // A bond that waits to be withdrawn is withdrawn first.
        if !auditor.appointed || auditor.unbonds_at > 0 {
            return Err(Error::NotAuditor);
        }
        let amount = self.env().transferred_value();
        auditor.bond = add(auditor.bond, amount)?;
        let session = self.session();
        session.book(&|owed| {
            owed.bonds = add(owed.bonds, amount)?;
            Ok(())
        })?;
        session.finish();
        self.save_auditor(caller, auditor, BondChange::Added(amount));
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn take_bond(&self) -> Result<Balance> {
        let caller = self.env().caller();
        let mut auditor = self.load_auditor(&caller)?;
        let now = self.env().block_timestamp();
        if auditor.unbonds_at == 0 {
            self.release_auditor(&mut auditor, now);
            self.save_auditor(caller, auditor, BondChange::None);
            return Ok(0);
        }
        let announced = CHANGES.get(Lever::SlashAuditor(caller));
        let slash = announced.is_some_and(|pending| !pending.has_lapsed(now));
        if now < auditor.unbonds_at || slash {
            return Err(Error::StillUnbonding);
        }
        let amount = core::mem::take(&mut auditor.bond);
        let session = self.session();
        session.book(&|owed| {
            owed.bonds = sub(owed.bonds, amount)?;
            Ok(())
        })?;
        session.finish();
        auditor.unbonds_at = 0;
        self.save_auditor(caller, auditor, BondChange::Paid(amount));
        if !auditor.appointed {
            AUDITORS.remove(caller);
        }
        if amount > 0 {
            self.pay(caller, amount)?;
        }
        Ok(amount)
    }

    /// Starts the one wait for an auditor's bond; nothing starts it again.
    fn release_auditor(&self, auditor: &mut Auditor, now: Millis) {
        auditor.appointed = false;
        if auditor.unbonds_at == 0 {
            auditor.unbonds_at = now.saturating_add(self.global.0.unbonding_ms).max(1);
        }
    }

    #[inline(never)]
    pub(crate) fn dismiss(&self, account: AccountId) -> Result<()> {
        self.only_owner()?;
        let mut auditor = self.load_auditor(&account)?;
        let now = self.env().block_timestamp();
        self.release_auditor(&mut auditor, now);
        self.save_auditor(account, auditor, BondChange::None);
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn audit_task(&self, id: TaskId, opening: Opening) -> Result<()> {
        let caller = self.env().caller();
        let session = self.session();
        let mut auditor = self.load_auditor(&caller)?;
        if auditor.epoch != session.epoch {
            (auditor.epoch, auditor.audits_in_epoch) = (session.epoch, 0);
        }
        if !auditor.appointed
            || auditor.unbonds_at > 0
            || auditor.bond < self.global.0.audit_bond
            || auditor.audits_in_epoch >= self.global.0.audits_per_epoch
        {
            return Err(Error::NotAuditor);
        }
        let mut task = session.task(id)?;
        if !task.can_audit(session.now) {
            return Err(Error::NotAuditable);
        }
        let members: Vec<_> = task.panel.iter().map(|seat| seat.node).filter(|node| *node != 0).collect();
        // Only owners count: operators and payees are set without being asked.
        for node in task.outputs.iter().map(|slot| slot.node).chain(members.iter().copied()) {
            if session.accounts_of(node).is_ok_and(|(owner, _)| owner == caller) {
                return Err(Error::NotAuditor);
            }
        }
        let truth = self.truth(&session, &task, &caller, &opening)?;
        let mut kind = session.kind(task.kind)?;
        let older = older_params(&session, &task, &kind)?;
        let params = older.as_ref().unwrap_or(&kind.params);
        let state = |node| {
            session.load(node).map_or(TrustState::default(), |node| TrustState {
                trust: node.trust,
                gain_average: node.gain_average,
            })
        };
        let input = task.audit_input(truth, state, &kind.population);
        let audited = audit(params, &input);
        for (seat, after) in task.panel.iter().zip(&audited.panel) {
            // Who has left since has no trust to move.
            if let (true, Ok(mut node)) = (seat.node != 0, session.load(seat.node)) {
                node.trust = after.trust;
                node.gain_average = after.gain_average;
                let weight = node.settled_weight(&kind.params);
                node.standing.reweigh(session.epoch, weight);
                session.save(seat.node, &node);
            }
        }
        kind.population.gain_average = audited.gain_average;
        session.set_kind(task.kind, &kind);
        task.audited = true;
        let panel_nodes = task.panel.iter().map(|seat| seat.node).collect();
        session.set_task(id, &task);
        session.finish();
        auditor.audits = auditor.audits.saturating_add(1);
        auditor.audits_in_epoch = auditor.audits_in_epoch.saturating_add(1);
        AUDITORS.insert(caller, &auditor);
        emit(&TaskAudited { task: id, auditor: caller, opening, panel_nodes, input, audit: audited });
        Ok(())
    }

    /// What each output of a gold task is worth against its reference, once everything opens what it should.
    #[inline(never)]
    fn truth(
        &self,
        session: &Session,
        task: &Task,
        auditor: &AccountId,
        opening: &Opening,
    ) -> Result<Vec<Option<Ratio>>> {
        if !opening.is_bounded(task.outputs.len()) {
            return Err(Error::BadOpening);
        }
        let hash = blake2(&opening.reference);
        let preimage = commitment::reference(&session.network, auditor.as_ref(), &hash, &opening.salt);
        if blake2(&preimage) != task.reference_commitment {
            return Err(Error::BadOpening);
        }
        let mut truth = Vec::with_capacity(task.outputs.len());
        for (slot, opened) in task.outputs.iter().zip(&opening.outputs) {
            let delivered = slot.state == OutputState::Opened;
            truth.push(match opened {
                Some(text) if delivered && blake2(text) == slot.hash => {
                    Some(token_f1(&opening.reference, text))
                }
                // All that were delivered, or an auditor would choose.
                None if !delivered => None,
                _ => return Err(Error::BadOpening),
            });
        }
        Ok(truth)
    }
}
