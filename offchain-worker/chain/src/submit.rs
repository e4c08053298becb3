//! Sending calls, so that each one's outcome is known.
//!
//! A call is dry-run first: what the contract refuses is never sent, and the dry run's gas and deposit (with a margin) become the
//! call's limits. It is signed with a nonce from the account's lane, of which there is one per account and client, and mortal.
//! Then it is followed until it is in a block: by the node's own announcements while they last, else by looking at the
//! account's nonce and for the call's bytes in the blocks since it was signed. So a lost connection, a node that restarts or
//! a fork that loses does not leave a call's outcome unknown.

use crate::client::{At, Block, Client};
use crate::dry_run::{Deposit, Executed, Weight};
use crate::error::{Class, Error, Failure, Result};
use crate::events::PoqEvent;
use crate::messages::Message;
use crate::options::{Confirm, Mortality, Options};
use crate::runtime::{RawEvent, Signed};
use crate::signer::Keys;
use crate::transport::Backoff;
use parity_scale_codec::Decode;
use parking_lot::Mutex;
use poq_contract::errors::Error as ContractError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::utils::{AccountId32, MultiAddress, H256};
use subxt_rpcs::client::{rpc_params, RpcSubscription};
use subxt_rpcs::methods::legacy::TransactionStatus;

/// How long an account's state is left alone between two looks while a call is waited for.
const LOOK: Duration = Duration::from_secs(2);
/// After how long without inclusion a call is handed to the node again, which may have lost its pool.
const RESEND: Duration = Duration::from_secs(12);

/// How long a block is waited for on a chain that may seal only on demand.
const ON_DEMAND: Duration = Duration::from_millis(300);
/// How long a block is waited for on a chain that seals by itself: several slots.
const BY_SLOTS: Duration = Duration::from_secs(30);

/// What differs from [`crate::Options`] for one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// When the call counts as done.
    pub confirm: Option<Confirm>,
    /// For how long it stays valid.
    pub mortality: Option<Mortality>,
    /// How long to wait for it.
    pub inclusion_timeout: Option<Duration>,
    /// How often it is sent again where that cannot do anything twice.
    pub retries: Option<u32>,
}

/// What a call would do.
#[derive(Clone, Debug)]
pub struct DryRun<T> {
    /// What it would return.
    pub value: T,
    /// What it would cost to execute, at the most.
    pub gas: Weight,
    /// What its storage would cost the caller.
    pub deposit: Deposit,
}

/// What a call did.
#[derive(Clone, Debug)]
pub struct Receipt<T> {
    /// What it returned: as its event tells it where it has one, else as the dry run foretold it.
    pub value: T,
    /// The block that it is in.
    pub block: Block,
    /// Its hash.
    pub extrinsic: H256,
    /// The contract's events in it, in order.
    pub events: Vec<PoqEvent>,
    /// The fee that was paid to the chain.
    pub fee: Option<u128>,
    /// The storage deposit as the dry run foretold it.
    pub deposit: Deposit,
}

/// The nonces of one account that are signed and not yet known to be used or lost.
#[derive(Default)]
pub(crate) struct Lane {
    /// Held from reading the next nonce until the pool has the call.
    signing: tokio::sync::Mutex<()>,
    open: Mutex<BTreeSet<u64>>,
}

/// A nonce that is in use for as long as this lives.
struct Lease {
    lane: Arc<Lane>,
    nonce: u64,
}

impl Lease {
    fn take(lane: &Arc<Lane>, pool_next: u64) -> Lease {
        let mut open = lane.open.lock();
        // The pool knows best, except of calls that another endpoint's pool has, or none yet. The smallest that is not open: a
        // nonce that was given back is used before those after it can be.
        let mut nonce = pool_next;
        while open.contains(&nonce) {
            nonce = nonce.saturating_add(1);
        }
        open.insert(nonce);
        Lease { lane: lane.clone(), nonce }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lane.open.lock().remove(&self.nonce);
    }
}

/// Sends calls of one account, one after the other into the pool, any number of them waiting for inclusion. Cloning is cheap; all
/// of one account and client share its nonces.
#[derive(Clone)]
pub struct Submitter {
    client: Client,
    keys: Keys,
    lane: Arc<Lane>,
}

impl std::fmt::Debug for Submitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitter")
            .field("client", &self.client)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// A failed attempt, and whether the call may nevertheless have been or still be executed.
struct Attempt {
    error: Error,
    maybe_executed: bool,
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Attempt {
        Attempt { error, maybe_executed: false }
    }
}

/// Which failed attempts are made again, and after how long.
struct Again {
    call: &'static str,
    /// Whether the call may be made twice.
    idempotent: bool,
    retries: u32,
    backoff: Backoff,
    /// Until when nonces are contended for.
    contend_until: Option<Instant>,
    /// Until when a busy node is asked again.
    busy_until: Option<Instant>,
    crowd: Backoff,
}

impl Again {
    fn new(call: &'static str, idempotent: bool, defaults: &Options, options: SendOptions) -> Again {
        let now = Instant::now();
        let patience = options.inclusion_timeout.unwrap_or(defaults.inclusion_timeout);
        Again {
            call,
            idempotent,
            retries: options.retries.unwrap_or(defaults.send_retries),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
            contend_until: now.checked_add(patience),
            busy_until: now.checked_add(defaults.busy_patience),
            crowd: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
        }
    }

    /// Waits, and gives the error back as `Ok` where the call is to be tried again.
    async fn wait(&mut self, attempt: Attempt) -> Result<Error> {
        let Attempt { error, maybe_executed } = attempt;
        let before = |at: Option<Instant>| at.is_none_or(|at| Instant::now() < at);
        let may = match error.class() {
            Class::Transient | Class::Stale => !maybe_executed || self.idempotent,
            Class::Rejected(_) | Class::Fatal => false,
        };
        if !may {
            return Err(error);
        }
        // Another program with this key had the nonce first: nothing is wrong, and the next nonce may be free.
        let contended = matches!(error, Error::Pool { stale: true, .. } | Error::Overtaken { .. });
        if (contended && before(self.contend_until)) || (error.is_busy() && before(self.busy_until)) {
            tracing::debug!(call = self.call, %error, "trying again");
            self.crowd.wait().await;
            return Ok(error);
        }
        if self.retries == 0 {
            return Err(error);
        }
        self.retries = self.retries.saturating_sub(1);
        tracing::warn!(call = self.call, %error, retries = self.retries, "trying again");
        self.backoff.wait().await;
        Ok(error)
    }
}

/// Where a call is.
struct Included {
    block: Block,
    index: u32,
}

/// An executed call, before its events are read as a message's.
pub(crate) struct Done {
    pub(crate) block: Block,
    pub(crate) extrinsic: H256,
    pub(crate) events: Vec<RawEvent>,
    pub(crate) fee: Option<u128>,
}

impl Submitter {
    pub(crate) fn new(client: Client, keys: Keys, lane: Arc<Lane>) -> Submitter {
        Submitter { client, keys, lane }
    }

    /// The account that signs.
    pub fn account(&self) -> AccountId32 {
        self.keys.account()
    }

    /// The client that it sends through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The keys that it signs with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Runs a message at the best block and forgets it.
    ///
    /// # Errors
    /// `Rejected` where the contract refuses it; `ContractAbsent`; `InsufficientFunds`; `Dispatch`; or where the node cannot
    /// be asked.
    pub async fn dry_run<T: Decode>(&self, message: &Message<T>) -> Result<DryRun<T>> {
        // A contract of another chain gets nothing from here.
        let contract = message.to().unwrap_or(self.client.network().await?.contract);
        let account = self.account();
        let executed =
            self.client.dry_call(&account, &contract, message.value(), message.data(), None).await?;
        let Executed { gas_required, deposit, result, .. } = executed;
        let returned = match result {
            Ok(returned) => returned,
            Err(failure) if failure.is("Contracts", "ContractNotFound") => {
                return Err(self.client.absent(contract))
            }
            Err(failure) => {
                let needed = message.value().saturating_add(deposit.charge());
                return Err(self.dry_run_refused(message.name(), failure, needed).await);
            }
        };
        match message.read(&contract, returned.reverted, &returned.data)? {
            Ok(value) => Ok(DryRun { value, gas: gas_required, deposit }),
            Err(error) => Err(Error::Rejected { message: message.name(), error }),
        }
    }

    /// Sends a message and waits until it is done.
    ///
    /// # Errors
    /// As of [`Submitter::dry_run`], with nothing sent; and where the call was refused by the pool, expired, failed in its
    /// block, or could not be followed to its end.
    pub async fn send<T: Decode + Clone>(&self, message: Message<T>) -> Result<Receipt<T>> {
        self.send_with(message, SendOptions::default()).await
    }

    /// Sends a message with options of its own.
    ///
    /// # Errors
    /// As of [`Submitter::send`].
    pub async fn send_with<T: Decode + Clone>(
        &self,
        message: Message<T>,
        options: SendOptions,
    ) -> Result<Receipt<T>> {
        let defaults = self.client.options();
        let mut again = Again::new(message.name(), message.is_idempotent(), defaults, options);
        let mut gas_margin = defaults.gas_margin_percent;
        let mut deposit_margin = defaults.deposit_margin_percent;
        loop {
            let error = match self.attempt(&message, options, gas_margin, deposit_margin).await {
                Ok(receipt) => return Ok(receipt),
                Err(attempt) => again.wait(attempt).await?,
            };
            if matches!(&error, Error::Outdated { failure, .. } if failure.is_limit()) {
                gas_margin = gas_margin.saturating_mul(2).max(25);
                deposit_margin = deposit_margin.saturating_mul(2).max(10);
            }
        }
    }

    async fn attempt<T: Decode + Clone>(
        &self,
        message: &Message<T>,
        options: SendOptions,
        gas_margin: u32,
        deposit_margin: u32,
    ) -> Result<Receipt<T>, Attempt> {
        let name = message.name();
        let contract = message.to().map_or_else(|| self.client.contract(), Ok)?;
        let mut dry = self.dry_run(message).await;
        if self.client.options().nudge && message.is_early(&answer_of(&dry)) {
            // A dry run sees the best block's number and time; the call itself would run in the next one.
            self.next_block().await?;
            dry = self.dry_run(message).await;
        }
        let dry = dry?;
        let limit = dry.deposit.limit(deposit_margin, self.client.chain().existential_deposit);
        let args = (
            MultiAddress::<AccountId32, ()>::Id(contract),
            message.value(),
            dry.gas.plus_percent(gas_margin).to_value(),
            Some(limit),
            message.data().to_vec(),
        );
        let needed = message.value().saturating_add(dry.deposit.charge());
        let sent = self.execute(name, ("Contracts", "call", args), needed, options).await;
        let done = match sent {
            Ok(done) => done,
            Err(Attempt { error: Error::Dispatch { failure, call }, maybe_executed }) => {
                return Err(Attempt {
                    error: self.in_block_failure(message, call, failure).await,
                    maybe_executed,
                })
            }
            Err(attempt) => return Err(attempt),
        };
        // From here on it has been executed: an error must not send it again.
        let executed = |error: Error| Attempt { error, maybe_executed: true };
        let mut events = Vec::new();
        for raw in &done.events {
            events.extend(crate::client::contract_event(raw, &contract).map_err(executed)?);
        }
        let told = message
            .told(&events)
            .ok_or_else(|| executed(Error::EventMissing { call: name, block: done.block.number }))?;
        tracing::debug!(call = name, block = done.block.number, extrinsic = ?done.extrinsic, "done");
        Ok(Receipt {
            value: told.unwrap_or(dry.value),
            block: done.block,
            extrinsic: done.extrinsic,
            events,
            fee: done.fee,
            deposit: dry.deposit,
        })
    }

    /// Waits for a block newer than the best one. A chain that seals on demand is given something to seal: an empty call, for
    /// its fee.
    ///
    /// # Errors
    /// As of every call.
    pub async fn next_block(&self) -> Result<Block> {
        let before = self.client.best().await?;
        let patience = if self.client.chain().seals_on_demand { ON_DEMAND } else { BY_SLOTS };
        let mut best = self.client.best_watch();
        let newer = best.wait_for(|block| block.number > before.number);
        if let Ok(Ok(block)) = tokio::time::timeout(patience, newer).await {
            return Ok(*block);
        }
        tracing::info!(
            block = before.number,
            "no new block: an empty call is sent so that the chain seals one"
        );
        Ok(self.run("an empty call", ("System", "remark", (Vec::<u8>::new(),)), 0).await?.block)
    }

    /// What a call's failure within its block means: its dry run had succeeded, so the state has changed since.
    async fn in_block_failure<T: Decode>(
        &self,
        message: &Message<T>,
        call: &'static str,
        failure: Failure,
    ) -> Error {
        if failure.is("Contracts", "ContractReverted") {
            // The chain does not say why; the state that it failed in does.
            return match self.dry_run(message).await {
                Err(error @ (Error::Rejected { .. } | Error::PoolRejected { .. })) => error,
                Ok(_) | Err(_) => Error::Outdated { call, failure },
            };
        }
        if failure.is_limit() {
            return Error::Outdated { call, failure };
        }
        Error::Dispatch { call, failure }
    }

    /// Sends money.
    ///
    /// # Errors
    /// `InsufficientFunds`, or as of [`Submitter::send`].
    pub async fn transfer(&self, to: &AccountId32, amount: u128) -> Result<Receipt<()>> {
        let args = (MultiAddress::<AccountId32, ()>::Id(*to), amount);
        let call = ("Balances", "transfer_keep_alive", args);
        let done = self.run("transfer", call, amount).await?;
        Ok(Receipt {
            value: (),
            block: done.block,
            extrinsic: done.extrinsic,
            events: Vec::new(),
            fee: done.fee,
            deposit: Deposit::Charge(0),
        })
    }

    /// Signs, submits and follows one call of the runtime; again where it is sure not to have been and not to be executed.
    pub(crate) async fn run<Args: EncodeAsFields + Clone + Send + Sync>(
        &self,
        name: &'static str,
        call: (&'static str, &'static str, Args),
        needed: u128,
    ) -> Result<Done> {
        let options = SendOptions::default();
        let mut again = Again::new(name, false, self.client.options(), options);
        loop {
            match self.execute(name, call.clone(), needed, options).await {
                Ok(done) => return Ok(done),
                Err(attempt) => again.wait(attempt).await.map(drop)?,
            }
        }
    }

    async fn execute<Args: EncodeAsFields>(
        &self,
        name: &'static str,
        call: (&'static str, &'static str, Args),
        needed: u128,
        options: SendOptions,
    ) -> Result<Done, Attempt> {
        let defaults = self.client.options();
        let mortality = options.mortality.unwrap_or(defaults.mortality);
        let confirm = options.confirm.unwrap_or(defaults.confirm);
        let patience = options.inclusion_timeout.unwrap_or(defaults.inclusion_timeout);
        let deadline = Instant::now().checked_add(patience);

        let turn = self.lane.signing.lock().await;
        let best = self.client.hash_of(At::Best).await?;
        let birth = self.birth(best, mortality).await?;
        let runtime = self.client.runtime(best).await?;
        let next: u64 = self
            .client
            .inner
            .transport
            .read("system_accountNextIndex", rpc_params![self.account().to_string()])
            .await?;
        let lease = Lease::take(&self.lane, next);
        let signed = runtime.sign(name, call, &self.keys, lease.nonce, mortality, birth)?;
        let submission = self.submit(&signed).await;
        let updates = match submission {
            Ok(updates) => Some(updates),
            Err(error) => match self.submission_failed(name, error, needed).await {
                // It may have arrived: follow it like any other.
                Error::Timeout { .. } | Error::Disconnected { .. } => None,
                error => return Err(error.into()),
            },
        };
        drop(turn);
        tracing::debug!(call = name, nonce = signed.nonce, extrinsic = ?signed.hash, "submitted");

        let included = self.follow(name, &signed, updates, confirm, patience, deadline).await?;
        drop(lease);
        self.outcome(name, &signed, included, needed).await
    }

    /// The block that a call's mortality counts from: the last finalized one, whose hash no fork takes back, or the best one where
    /// finality is so far behind that the call would lose much of its life.
    async fn birth(&self, best: H256, mortality: Mortality) -> Result<(u32, H256)> {
        let number = |header: u64| {
            u32::try_from(header).map_err(|_| Error::decode("a block's number", "above 32 bits"))
        };
        let best_number = number(self.client.header(best).await?.number)?;
        let finalized = self.client.hash_of(At::Finalized).await?;
        let final_number = number(self.client.header(finalized).await?.number)?;
        let lag = best_number.saturating_sub(final_number);
        let near = match mortality {
            Mortality::Blocks(blocks) => lag <= blocks / 4,
            // Only where to begin looking for the call: as late as possible, and no later than it can be included.
            Mortality::Immortal => false,
        };
        Ok(if near { (final_number, finalized) } else { (best_number, best) })
    }

    async fn submit(&self, signed: &Signed) -> Result<RpcSubscription<TransactionStatus<H256>>> {
        self.client
            .inner
            .transport
            .subscribe(
                "author_submitAndWatchExtrinsic",
                rpc_params![format!("0x{}", hex::encode(&signed.bytes))],
                "author_unwatchExtrinsic",
            )
            .await
    }

    /// What a refused submission means. `Timeout` and `Disconnected` for what may have been accepted nevertheless.
    async fn submission_failed(&self, call: &'static str, error: Error, needed: u128) -> Error {
        let Error::Rpc { code, message, endpoint, method } = error else { return error };
        // The codes of Substrate's author API.
        match code {
            // Invalid: outdated (nonce used), ancient birth block, future, bad proof; or no money for the fee.
            1010 if message.contains("Inability to pay") => {
                let failure = Failure {
                    pallet: "TransactionPayment".into(),
                    name: "Payment".into(),
                    docs: message.clone(),
                };
                self.no_funds(call, &failure, needed).await.unwrap_or(Error::Pool {
                    call,
                    reason: message,
                    stale: false,
                })
            }
            1010 => {
                // "Bad signature" is also what a call says whose block of birth lost to a fork.
                let stale = ["outdated", "ancient", "future", "bad signature", "BadProof", "Future", "Stale"]
                    .iter()
                    .any(|sign| message.contains(sign));
                Error::Pool { call, reason: message, stale }
            }
            // Already imported: it is in the pool.
            1013 => Error::Disconnected { endpoint, method, reason: message },
            // Temporarily banned, too low a priority (another call has the nonce), a cycle, dropped at once (full pool).
            1011 | 1012 | 1014..=1018 => Error::Pool { call, reason: message, stale: true },
            _ => {
                let error = Error::Rpc { code, message, endpoint, method };
                match (error.is_busy(), error.class(), error) {
                    // Something on the way failed, before or after the node had it.
                    (false, Class::Transient, Error::Rpc { message, endpoint, method, .. }) => {
                        Error::Disconnected { endpoint, method, reason: message }
                    }
                    // A busy node has not read it.
                    (_, _, error) => error,
                }
            }
        }
    }

    /// Waits until a submitted call is in a block that `confirm` accepts.
    async fn follow(
        &self,
        call: &'static str,
        signed: &Signed,
        updates: Option<RpcSubscription<TransactionStatus<H256>>>,
        confirm: Confirm,
        patience: Duration,
        deadline: Option<Instant>,
    ) -> Result<Included, Attempt> {
        let unresolved = || Attempt {
            error: Error::Unresolved { call, extrinsic: signed.hash, after: patience },
            maybe_executed: true,
        };
        let left = |deadline: Option<Instant>| {
            deadline.map_or(Duration::from_secs(3_600), |at| at.saturating_duration_since(Instant::now()))
        };
        // A call that the node may not have got is handed over again as soon as it is clear that no block has it.
        let mut sent = updates.is_some().then(Instant::now);
        // The announcement is the fast way, not the only one: it can be lost with a subscription that began too late or died.
        let mut announcement = updates.map(|updates| Box::pin(announced(updates)));
        let mut hint = match &mut announcement {
            Some(waiting) => {
                let hint = tokio::time::timeout(left(deadline).min(LOOK), waiting).await;
                if hint.is_ok() {
                    announcement = None;
                }
                hint.unwrap_or(Announced::Nothing)
            }
            None => Announced::Nothing,
        };
        let mut best = self.client.best_watch();
        loop {
            // A node that cannot be asked leaves the question open until the deadline.
            let found = match std::mem::replace(&mut hint, Announced::Nothing) {
                Announced::InBlock(hash) => self.locate(signed, hash).await,
                Announced::Nothing => self.look(call, signed).await,
            };
            match found {
                Ok(Found::At(included)) => match self.confirmed(&included, confirm).await {
                    Ok(true) => return Ok(included),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "cannot tell whether the block is final yet"),
                },
                Ok(Found::Never(error)) => return Err(error.into()),
                Ok(Found::NotYet) => {
                    if sent.is_none_or(|at| at.elapsed() >= RESEND) {
                        sent = Some(Instant::now());
                        self.resend(signed).await;
                    }
                }
                Err(error) if error.class() == Class::Fatal => {
                    return Err(Attempt { error, maybe_executed: true })
                }
                Err(error) => tracing::debug!(call, %error, "cannot tell where the call is yet"),
            }
            let pause = left(deadline);
            if pause.is_zero() {
                return Err(unresolved());
            }
            // Whichever comes first: the announcement, or without one a new block, or some time. The sender of blocks lives as
            // long as the client.
            match &mut announcement {
                Some(waiting) => {
                    if let Ok(announced) = tokio::time::timeout(pause.min(LOOK), waiting).await {
                        hint = announced;
                        announcement = None;
                    }
                }
                None => {
                    let _ = tokio::time::timeout(pause.min(LOOK), best.changed()).await;
                }
            }
        }
    }

    /// Hands the call to the node again. Refused where the pool has it or a block did: all the same.
    async fn resend(&self, signed: &Signed) {
        let params = rpc_params![format!("0x{}", hex::encode(&signed.bytes))];
        match self.client.inner.transport.once::<H256>("author_submitExtrinsic", params).await {
            Ok(hash) => tracing::info!(extrinsic = ?hash, "handed to the node again"),
            Err(error) => tracing::debug!(%error, "handed to the node again"),
        }
    }

    /// Looks for a call by the account's nonce, and in the blocks since it was signed.
    async fn look(&self, call: &'static str, signed: &Signed) -> Result<Found> {
        let best = self.client.best().await?;
        let nonce = self.client.account(&self.account(), best).await?.nonce;
        if u64::from(nonce) <= signed.nonce {
            return Ok(match signed.death {
                Some(death) if best.number >= death => {
                    Found::Never(Error::Expired { call, extrinsic: signed.hash })
                }
                _ => Found::NotYet,
            });
        }
        // The nonce has been used, by this call or another. Newest first: a call is mostly found at once.
        for number in (signed.birth.saturating_add(1)..=best.number).rev() {
            let hash = self.client.hash_of(At::Number(number)).await?;
            if let Found::At(included) = self.locate(signed, hash).await? {
                return Ok(Found::At(included));
            }
        }
        Ok(Found::Never(Error::Overtaken { call, extrinsic: signed.hash, nonce: signed.nonce }))
    }

    async fn locate(&self, signed: &Signed, hash: H256) -> Result<Found> {
        let extrinsics = self.client.extrinsics(hash).await?;
        let Some(index) = extrinsics.iter().position(|bytes| *bytes == signed.bytes) else {
            return Ok(Found::NotYet);
        };
        let index =
            u32::try_from(index).map_err(|_| Error::decode("a block", "it has more than 2^32 extrinsics"))?;
        Ok(Found::At(Included { block: self.client.block(At::Hash(hash)).await?, index }))
    }

    async fn confirmed(&self, included: &Included, confirm: Confirm) -> Result<bool> {
        match confirm {
            Confirm::Best => Ok(true),
            Confirm::Finalized => {
                let finalized = self.client.finalized().await?;
                if finalized.number < included.block.number {
                    return Ok(false);
                }
                Ok(self.client.hash_of(At::Number(included.block.number)).await? == included.block.hash)
            }
        }
    }

    /// Reads from a block's events how a call in it ended.
    async fn outcome(
        &self,
        call: &'static str,
        signed: &Signed,
        included: Included,
        needed: u128,
    ) -> Result<Done, Attempt> {
        let Included { block, index } = included;
        self.client.inner.heads.see_live(block);
        // The call is in a block: what fails from here on is reading.
        let executed = |error: Error| Attempt { error, maybe_executed: true };
        let all = self.client.raw_events(block.hash).await.map_err(executed)?;
        let events: Vec<RawEvent> = all.into_iter().filter(|event| event.extrinsic == Some(index)).collect();
        let fee = events
            .iter()
            .find(|event| event.is("TransactionPayment", "TransactionFeePaid"))
            .and_then(|event| <([u8; 32], u128)>::decode(&mut &event.fields[..]).ok())
            .map(|(_, fee)| fee);
        if let Some(failed) = events.iter().find(|event| event.is("System", "ExtrinsicFailed")) {
            let runtime = self.client.runtime(block.hash).await.map_err(executed)?;
            let failure = runtime.failure(&mut &failed.fields[..]).map_err(executed)?;
            // It was included and took no effect but the fee.
            return Err(self.refused(call, failure, needed).await.into());
        }
        if !events.iter().any(|event| event.is("System", "ExtrinsicSuccess")) {
            return Err(executed(Error::EventMissing { call, block: block.number }));
        }
        Ok(Done { block, extrinsic: signed.hash, events, fee })
    }

    /// The error for a call that the chain refuses.
    async fn refused(&self, call: &'static str, failure: Failure, needed: u128) -> Error {
        if failure.is_lack_of_funds() {
            if let Some(error) = self.no_funds(call, &failure, needed).await {
                return error;
            }
        }
        Error::Dispatch { call, failure }
    }

    async fn no_funds(&self, call: &'static str, failure: &Failure, needed: u128) -> Option<Error> {
        let account = self.account();
        let free = self.client.free_balance(&account).await.ok()?;
        Some(Error::InsufficientFunds {
            account,
            call,
            free,
            needed,
            existential_deposit: self.client.chain().existential_deposit,
            reason: failure.to_string(),
        })
    }

    /// The error for a dry run that the chain refuses.
    pub(crate) async fn dry_run_refused(&self, call: &'static str, failure: Failure, needed: u128) -> Error {
        // A dry run gives no limit of its own for the deposit: what it runs into is the end of the account's money.
        if failure.is("Contracts", "StorageDepositLimitExhausted") {
            if let Some(error) = self.no_funds(call, &failure, needed).await {
                return error;
            }
        }
        self.refused(call, failure, needed).await
    }
}

/// What the contract said to a dry run. Errors from elsewhere are no answer: `Overflow` stands for them, which is never early.
fn answer_of<T>(dry: &Result<DryRun<T>>) -> std::result::Result<&T, ContractError> {
    match dry {
        Ok(dry) => Ok(&dry.value),
        Err(error) => Err(error.rejection().unwrap_or(ContractError::Overflow)),
    }
}

enum Found {
    At(Included),
    NotYet,
    /// It is not in the best chain and never will be.
    Never(Error),
}

enum Announced {
    InBlock(H256),
    /// The node says nothing that settles it: look.
    Nothing,
}

/// Waits for the node to announce a block.
async fn announced(mut updates: RpcSubscription<TransactionStatus<H256>>) -> Announced {
    while let Some(Ok(status)) = futures::StreamExt::next(&mut updates).await {
        match status {
            TransactionStatus::InBlock(hash) | TransactionStatus::Finalized(hash) => {
                return Announced::InBlock(hash)
            }
            TransactionStatus::Usurped(_) | TransactionStatus::Dropped | TransactionStatus::Invalid => break,
            TransactionStatus::Future
            | TransactionStatus::Ready
            | TransactionStatus::Broadcast(_)
            | TransactionStatus::Retracted(_)
            | TransactionStatus::FinalityTimeout(_) => {}
        }
    }
    Announced::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Services spawn these.
    #[allow(dead_code)]
    fn sending_can_be_spawned(submitter: &Submitter) {
        fn spawnable<F: std::future::Future + Send>(_: F) {}
        spawnable(submitter.send(crate::messages::claim(1)));
        spawnable(submitter.transfer(&AccountId32([0; 32]), 1));
        spawnable(crate::explain::explain(submitter.client(), 1));
        spawnable(crate::deploy::find_or_deploy(
            submitter,
            &crate::deploy::Artifact { code: Vec::new(), code_hash: H256::zero() },
            &crate::deploy::Setup { epoch_ms: 1, global: Default::default() },
            &[],
        ));
    }

    #[test]
    fn leases_are_given_out_once_and_come_back() {
        let lane = Arc::new(Lane::default());
        let first = Lease::take(&lane, 5);
        let second = Lease::take(&lane, 5);
        assert_eq!((first.nonce, second.nonce), (5, 6));
        // The pool is ahead: calls from elsewhere.
        assert_eq!(Lease::take(&lane, 9).nonce, 9);
        drop(second);
        assert_eq!(Lease::take(&lane, 6).nonce, 6);
        drop(first);
        assert_eq!(Lease::take(&lane, 7).nonce, 7);
    }

    #[test]
    fn a_nonce_that_was_given_back_is_used_before_those_after_it() {
        let lane = Arc::new(Lane::default());
        let first = Lease::take(&lane, 5);
        let second = Lease::take(&lane, 5);
        // The first call was refused before the pool had it: without nonce 5, the second waits for ever.
        drop(first);
        let third = Lease::take(&lane, 5);
        assert_eq!((second.nonce, third.nonce), (6, 5));
        assert_eq!(Lease::take(&lane, 5).nonce, 7);
    }
}
