//! The chain: blocks built by the runtime's own `Executive`, their states, the pool, and the clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parity_scale_codec::{Decode, Encode};
use polkadot_sdk::{
    frame_support::{traits::BuildGenesisConfig, weights::Weight},
    frame_system::{self, Phase},
    pallet_balances, pallet_transaction_payment,
    sp_core::{sr25519, storage::ChildInfo, OpaqueMetadata, Pair},
    sp_crypto_hashing::blake2_256,
    sp_inherents::InherentData,
    sp_runtime::{
        generic::Era,
        traits::{Block as _, Header as _},
        transaction_validity::{
            InvalidTransaction, TransactionSource, TransactionValidity, TransactionValidityError,
        },
        ApplyExtrinsicResult, Digest, DispatchError, MultiAddress, MultiSignature,
    },
    sp_timestamp,
};
use poq_runtime::{
    apis::api, AccountId, Balance, Block, BlockNumber, EventRecord, Executive, Hash, Header, Nonce, Runtime,
    RuntimeCall, RuntimeEvent, RuntimeGenesisConfig, SignedPayload, System, TxExtension, UncheckedExtrinsic,
};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};

use crate::{
    config::{Finality, SandboxConfig, Sealing, TimeMode},
    dev,
    pool::{Pool, Pooled, TransactionStatus},
    state::{empty_root, Changes, Removals, StateStore},
    SandboxError,
};

/// The smallest step between two blocks that the runtime accepts, milliseconds (`pallet_timestamp::MinimumPeriod`).
const MINIMUM_PERIOD_MS: u64 = 5;

/// Nonce, references and balances of an account.
pub type AccountInfo = frame_system::AccountInfo<Nonce, pallet_balances::AccountData<Balance>>;

/// What identifies a block, and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Number; genesis is 0.
    pub number: BlockNumber,
    /// Hash of the header.
    pub hash: Hash,
    /// Timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Weight that the block's extrinsics and hooks used.
    pub weight: Weight,
    /// Number of extrinsics, the timestamp among them.
    pub extrinsics: u32,
}

/// What became of an extrinsic that is in a block.
#[derive(Clone, Debug)]
pub struct ExtrinsicReport {
    /// The block it is in.
    pub block: BlockInfo,
    /// Its index in the block.
    pub index: u32,
    /// Its hash.
    pub hash: Hash,
    /// Whether the call succeeded.
    pub result: Result<(), DispatchError>,
    /// Weight used, base weight included.
    pub weight: Weight,
    /// Fee paid, tip included.
    pub fee: Balance,
    /// Everything emitted while it was applied.
    pub events: Vec<RuntimeEvent>,
}

impl ExtrinsicReport {
    /// The report itself if the call succeeded, else its error.
    pub fn ok(self) -> Result<Self, SandboxError> {
        match self.result {
            Ok(()) => Ok(self),
            Err(error) => Err(SandboxError::Dispatch(error)),
        }
    }
}

/// Something that the chain did, for subscribers.
#[derive(Clone, Debug)]
pub(crate) enum ChainEvent {
    NewBest(Arc<Header>),
    Finalized(Arc<Header>),
}

#[derive(Debug)]
pub(crate) struct StoredBlock {
    pub(crate) info: BlockInfo,
    pub(crate) header: Arc<Header>,
    /// The extrinsics as submitted: SCALE with the length in front.
    pub(crate) body: Vec<Vec<u8>>,
    sealed_at: Instant,
}

/// Watchers of an extrinsic that is in a block which is not final yet.
type FinalityWatchers = (BlockNumber, Vec<UnboundedSender<TransactionStatus>>);

/// All that a snapshot holds.
#[derive(Clone)]
struct Data {
    state: StateStore,
    /// By number: there are no forks.
    blocks: Vec<Arc<StoredBlock>>,
    numbers: HashMap<Hash, BlockNumber>,
    /// Where each included extrinsic is.
    included: HashMap<Hash, (BlockNumber, u32)>,
    /// By block, the trie nodes to remove when the state of its parent is given up.
    removals: VecDeque<Arc<Removals>>,
    /// The first block whose state is kept.
    first_state: BlockNumber,
    finalized: BlockNumber,
    pool: Pool,
    awaiting_finality: Vec<FinalityWatchers>,
    /// Manual time: what the clock shows. System time: what is added to the wall clock.
    clock_ms: u64,
}

/// A point to come back to: blocks, states, pool and clock.
#[derive(Clone)]
pub struct Snapshot(Arc<Data>);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot(#{})", self.0.blocks.len() - 1)
    }
}

/// A block that is being built; see [`Sandbox::begin_block`].
pub struct Draft {
    root: Hash,
    number: BlockNumber,
    timestamp_ms: u64,
    changes: Changes,
    body: Vec<Vec<u8>>,
    included: Vec<(Hash, u32)>,
}

impl Draft {
    /// Number that the block will have.
    pub fn number(&self) -> BlockNumber {
        self.number
    }

    /// Its timestamp, milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self) -> u64 {
        self.timestamp_ms
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft(#{}, {} extrinsics)", self.number, self.body.len())
    }
}

/// What an extrinsic did in a block that is being built.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Whether the call succeeded.
    pub result: Result<(), DispatchError>,
    /// Fee paid.
    pub fee: Balance,
    /// Everything emitted while it was applied.
    pub events: Vec<RuntimeEvent>,
}

/// A chain in this process. See the crate's documentation.
pub struct Sandbox {
    config: SandboxConfig,
    data: Data,
    /// What subscribers have not been told yet.
    outbox: Vec<ChainEvent>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("best", &self.best())
            .field("finalized", &self.data.finalized)
            .field("pool", &self.data.pool.len())
            .finish()
    }
}

impl Sandbox {
    /// A chain with the default settings: manual time, instant seal, instant finality.
    pub fn new() -> Result<Self, SandboxError> {
        Self::with_config(SandboxConfig::default())
    }

    /// A chain with these settings.
    pub fn with_config(config: SandboxConfig) -> Result<Self, SandboxError> {
        if config.block_time_ms < MINIMUM_PERIOD_MS {
            return Err(SandboxError::Config(format!(
                "block_time_ms is {}; the runtime wants at least {MINIMUM_PERIOD_MS}",
                config.block_time_ms
            )));
        }
        let mut balances: Vec<(AccountId, Balance)> = poq_runtime::genesis_config_presets::dev_accounts()
            .into_iter()
            .map(|account| (account, poq_runtime::genesis_config_presets::DEV_ENDOWMENT))
            .collect();
        for (account, amount) in &config.endowments {
            match balances.iter_mut().find(|(endowed, _)| endowed == account) {
                Some((_, endowment)) => *endowment = *amount,
                None => balances.push((account.clone(), *amount)),
            }
        }
        let genesis = RuntimeGenesisConfig {
            balances: poq_runtime::BalancesConfig { balances, ..Default::default() },
            sudo: poq_runtime::SudoConfig { key: Some(dev::account_of(&dev::alice())) },
            ..Default::default()
        };
        let mut state = StateStore::default();
        let mut changes = Changes::default();
        state
            .execute(empty_root(), &mut changes, "genesis", || genesis.build())
            .map_err(|error| SandboxError::Genesis(error.to_string()))?;
        let (root, _) = state.commit(empty_root(), changes)?;
        let header = Header::new(0, empty_root(), root, Hash::default(), Digest::default());
        let hash = header.hash();
        let clock_ms = match config.time {
            TimeMode::Manual { start_ms } => start_ms,
            TimeMode::System => 0,
        };
        let block = StoredBlock {
            info: BlockInfo { number: 0, hash, timestamp_ms: 0, weight: Weight::zero(), extrinsics: 0 },
            header: Arc::new(header),
            body: Vec::new(),
            sealed_at: Instant::now(),
        };
        let data = Data {
            state,
            blocks: vec![Arc::new(block)],
            numbers: HashMap::from([(hash, 0)]),
            included: HashMap::new(),
            removals: VecDeque::new(),
            first_state: 0,
            finalized: 0,
            pool: Pool::default(),
            awaiting_finality: Vec::new(),
            clock_ms,
        };
        Ok(Self { config, data, outbox: Vec::new() })
    }

    /// The settings.
    pub fn config(&self) -> &SandboxConfig {
        &self.config
    }

    // ---- time

    /// The timestamp that the next block would carry now, milliseconds since the Unix epoch.
    pub fn clock_ms(&self) -> u64 {
        let best = self.best();
        match self.config.time {
            TimeMode::Manual { .. } if best.number == 0 => self.data.clock_ms,
            TimeMode::Manual { .. } => self.data.clock_ms.max(best.timestamp_ms + self.config.block_time_ms),
            TimeMode::System => {
                (wall_clock_ms() + self.data.clock_ms).max(best.timestamp_ms + MINIMUM_PERIOD_MS)
            }
        }
    }

    /// The best block's timestamp, which is what contracts see as the time; at genesis, the clock.
    pub fn now_ms(&self) -> u64 {
        match self.best() {
            BlockInfo { number: 0, .. } => self.clock_ms(),
            best => best.timestamp_ms,
        }
    }

    /// Moves the clock forward by `ms`, counted from the best block's time or, if that is later, from what the clock shows.
    /// The next block carries the new time; no block is sealed.
    pub fn advance_ms(&mut self, ms: u64) {
        let best = self.best().timestamp_ms;
        self.data.clock_ms = match self.config.time {
            TimeMode::Manual { .. } => self.data.clock_ms.max(best) + ms,
            TimeMode::System => {
                let wall = wall_clock_ms();
                (wall + self.data.clock_ms).max(best) + ms - wall
            }
        };
    }

    /// Moves the clock to `timestamp_ms`; does nothing if it is there already or beyond.
    pub fn advance_to_ms(&mut self, timestamp_ms: u64) {
        let now = match self.config.time {
            TimeMode::Manual { .. } => self.data.clock_ms.max(self.best().timestamp_ms),
            TimeMode::System => self.clock_ms(),
        };
        self.advance_ms(timestamp_ms.saturating_sub(now));
    }

    // ---- blocks

    /// The newest block.
    pub fn best(&self) -> BlockInfo {
        self.best_block().info
    }

    /// The newest block that is final.
    pub fn finalized(&self) -> BlockInfo {
        self.data.blocks[self.data.finalized as usize].info
    }

    /// Hash of block `number`.
    pub fn block_hash(&self, number: BlockNumber) -> Option<Hash> {
        self.data.blocks.get(number as usize).map(|block| block.info.hash)
    }

    /// The block with this hash.
    pub fn block_info(&self, hash: Hash) -> Result<BlockInfo, SandboxError> {
        self.stored(hash).map(|block| block.info)
    }

    /// Header of the block with this hash.
    pub fn header(&self, hash: Hash) -> Result<Header, SandboxError> {
        self.stored(hash).map(|block| (*block.header).clone())
    }

    /// The block with this hash, its extrinsics decoded.
    pub fn block(&self, hash: Hash) -> Result<Block, SandboxError> {
        let stored = self.stored(hash)?;
        let extrinsics = stored
            .body
            .iter()
            .map(|bytes| UncheckedExtrinsic::decode(&mut &bytes[..]))
            .collect::<Result<_, _>>()
            .map_err(|source| SandboxError::Decode { what: "an extrinsic of the block", source })?;
        Ok(Block::new((*stored.header).clone(), extrinsics))
    }

    pub(crate) fn stored(&self, hash: Hash) -> Result<&Arc<StoredBlock>, SandboxError> {
        let number = self.data.numbers.get(&hash).ok_or(SandboxError::UnknownBlock(hash))?;
        Ok(&self.data.blocks[*number as usize])
    }

    pub(crate) fn best_block(&self) -> &Arc<StoredBlock> {
        // There is always the genesis block.
        &self.data.blocks[self.data.blocks.len() - 1]
    }

    pub(crate) fn finalized_block(&self) -> &Arc<StoredBlock> {
        &self.data.blocks[self.data.finalized as usize]
    }

    /// Seals a block with all extrinsics of the pool that are ready and fit, or an empty one.
    pub fn new_block(&mut self) -> Result<BlockInfo, SandboxError> {
        let mut draft = self.begin_block()?;
        for hash in self.data.pool.ready() {
            let Some(pooled) = self.data.pool.get(hash) else { continue };
            match self.apply_in(&mut draft, pooled.extrinsic.clone(), pooled.bytes.clone(), hash) {
                // It stays for the next block where this one is full, or lacks an extrinsic that it builds on.
                Ok(Ok(_))
                | Ok(Err(TransactionValidityError::Invalid(
                    InvalidTransaction::ExhaustsResources | InvalidTransaction::Future,
                ))) => {}
                outcome => {
                    tracing::debug!(?hash, ?outcome, "extrinsic dropped while the block was built");
                    if let Some(dropped) = self.data.pool.take(hash) {
                        dropped.notify(&TransactionStatus::Invalid);
                    }
                }
            }
        }
        self.seal(draft)
    }

    /// Begins a block on top of the best one, as its author does: what goes into it, in which order, is the caller's, and its state
    /// can be read in between. [`Self::seal`] makes it the best one.
    pub fn begin_block(&self) -> Result<Draft, SandboxError> {
        let mut changes = Changes::default();
        let parent = self.best_block();
        let (root, number) = (*parent.header.state_root(), parent.info.number + 1);
        let body = self.open_block(&mut changes)?;
        Ok(Draft { root, number, timestamp_ms: self.clock_ms(), changes, body, included: Vec::new() })
    }

    fn apply_in(
        &self,
        draft: &mut Draft,
        extrinsic: UncheckedExtrinsic,
        bytes: Vec<u8>,
        hash: Hash,
    ) -> Result<ApplyExtrinsicResult, SandboxError> {
        let applied = self.apply(draft.root, &mut draft.changes, extrinsic)?;
        if applied.is_ok() {
            draft.included.push((hash, draft.body.len() as u32));
            draft.body.push(bytes);
        }
        Ok(applied)
    }

    /// Signs `call` for `signer` and puts it into the block, past the pool. A call that fails is an `Ok` with an error in
    /// [`Applied::result`]; an extrinsic that the block does not take (it is full, or nobody pays for it) changes nothing and is
    /// [`SandboxError::InvalidTransaction`].
    pub fn submit_in(
        &self,
        draft: &mut Draft,
        signer: &sr25519::Pair,
        call: RuntimeCall,
    ) -> Result<Applied, SandboxError> {
        let account = dev::account_of(signer);
        let nonce = self.query_in(draft, || System::account_nonce(&account))?;
        let bytes = self.sign_with(signer, call, nonce, 0);
        let extrinsic =
            parity_scale_codec::DecodeAll::decode_all(&mut &bytes[..]).map_err(SandboxError::BadExtrinsic)?;
        let hash = Hash::from(blake2_256(&bytes));
        let index = draft.body.len() as u32;
        let result =
            self.apply_in(draft, extrinsic, bytes, hash)?.map_err(SandboxError::InvalidTransaction)?;
        let events = self.query_in(draft, || {
            System::read_events_no_consensus()
                .filter(|record| record.phase == Phase::ApplyExtrinsic(index))
                .map(|record| record.event)
                .collect::<Vec<_>>()
        })?;
        let fee = events.iter().find_map(|event| match event {
            RuntimeEvent::TransactionPayment(pallet_transaction_payment::Event::TransactionFeePaid {
                actual_fee,
                ..
            }) => Some(*actual_fee),
            _ => None,
        });
        Ok(Applied { result, fee: fee.unwrap_or(0), events })
    }

    /// Runs `f` on the state of the block as it is now. What it writes is thrown away.
    pub fn query_in<R>(&self, draft: &mut Draft, f: impl FnOnce() -> R) -> Result<R, SandboxError> {
        self.data.state.execute_if(draft.root, &mut draft.changes, "query", f, |_| false)
    }

    /// Every key of the child trie with this id (a contract's storage, say) that the block has written to so far, with its value
    /// now.
    pub fn written_in(&self, draft: &mut Draft, child: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        draft.changes.child(child)
    }

    /// Makes a begun block the best one.
    ///
    /// # Errors
    /// Where another block was sealed since it was begun.
    pub fn seal(&mut self, draft: Draft) -> Result<BlockInfo, SandboxError> {
        let Draft { root, number, timestamp_ms, mut changes, body, included } = draft;
        if root != *self.best_block().header.state_root() || number != self.best().number + 1 {
            return Err(SandboxError::State(format!("block #{number} was begun on another block")));
        }
        let state = &mut self.data.state;
        let weight =
            state.execute(root, &mut changes, "System::block_weight", || System::block_weight().total())?;
        let header =
            state.execute(root, &mut changes, "BlockBuilder_finalize_block", Executive::finalize_block)?;
        let (new_root, removals) = state.commit(root, changes)?;
        if new_root != *header.state_root() {
            return Err(SandboxError::State(format!(
                "block #{number} says its state root is {:?}, the state has {new_root:?}",
                header.state_root()
            )));
        }

        let hash = header.hash();
        let info = BlockInfo { number, hash, timestamp_ms, weight, extrinsics: body.len() as u32 };
        let header = Arc::new(header);
        let block = StoredBlock { info, header: header.clone(), body, sealed_at: Instant::now() };
        self.data.blocks.push(Arc::new(block));
        self.data.numbers.insert(hash, number);
        self.data.removals.push_back(Arc::new(removals));
        if let TimeMode::Manual { .. } = self.config.time {
            self.data.clock_ms = timestamp_ms;
        }
        for (extrinsic, index) in included {
            self.data.included.insert(extrinsic, (number, index));
            if let Some(pooled) = self.data.pool.take(extrinsic) {
                pooled.notify(&TransactionStatus::InBlock(hash));
                if !pooled.watchers.is_empty() {
                    self.data.awaiting_finality.push((number, pooled.watchers));
                }
            }
        }
        self.revalidate_pool();
        self.outbox.push(ChainEvent::NewBest(header));
        match self.config.finality {
            Finality::Instant => self.finalize_to(number),
            Finality::Blocks(behind) => self.finalize_to(number.saturating_sub(behind)),
            Finality::Delay(_) | Finality::Manual => {}
        }
        Ok(info)
    }

    /// Seals `count` blocks; returns the last one.
    pub fn new_blocks(&mut self, count: u32) -> Result<BlockInfo, SandboxError> {
        for _ in 0..count {
            self.new_block()?;
        }
        Ok(self.best())
    }

    /// Starts a block on top of the best one: initialises it and applies the inherents, which it returns.
    fn open_block(&self, changes: &mut Changes) -> Result<Vec<Vec<u8>>, SandboxError> {
        let parent = self.best_block();
        let root = *parent.header.state_root();
        let header = Header::new(
            parent.info.number + 1,
            Hash::default(),
            Hash::default(),
            parent.info.hash,
            Digest::default(),
        );
        let state = &self.data.state;
        state.execute(root, changes, "Core_initialize_block", || Executive::initialize_block(&header))?;

        let mut inherents = InherentData::new();
        inherents
            .put_data(sp_timestamp::INHERENT_IDENTIFIER, &sp_timestamp::Timestamp::new(self.clock_ms()))
            .map_err(|error| SandboxError::Inherent(error.to_string()))?;
        let encoded =
            self.execute_api(root, changes, "BlockBuilder_inherent_extrinsics", &inherents.encode())?;
        let extrinsics: Vec<UncheckedExtrinsic> = decode("the inherent extrinsics", &encoded)?;
        let mut body = Vec::with_capacity(extrinsics.len());
        for extrinsic in extrinsics {
            let bytes = extrinsic.encode();
            match self.apply(root, changes, extrinsic)? {
                Ok(Ok(())) => body.push(bytes),
                other => return Err(SandboxError::Inherent(format!("{other:?}"))),
            }
        }
        Ok(body)
    }

    fn apply(
        &self,
        root: Hash,
        changes: &mut Changes,
        extrinsic: UncheckedExtrinsic,
    ) -> Result<ApplyExtrinsicResult, SandboxError> {
        self.data.state.execute_if(
            root,
            changes,
            "BlockBuilder_apply_extrinsic",
            || Executive::apply_extrinsic(extrinsic),
            Result::is_ok,
        )
    }

    /// Makes all blocks up to `number` final. Does nothing if they are.
    pub fn finalize_to(&mut self, number: BlockNumber) {
        let number = number.min(self.best().number);
        while self.data.finalized < number {
            self.data.finalized += 1;
            let block = self.finalized_block().clone();
            let mut waiting = std::mem::take(&mut self.data.awaiting_finality);
            waiting.retain(|(included, watchers)| {
                if *included == block.info.number {
                    for watcher in watchers {
                        let _ = watcher.send(TransactionStatus::Finalized(block.info.hash));
                    }
                }
                *included > block.info.number
            });
            self.data.awaiting_finality = waiting;
            self.outbox.push(ChainEvent::Finalized(block.header.clone()));
        }
        self.prune();
    }

    /// Makes the blocks final that were sealed at least `delay` before `now`.
    pub(crate) fn finalize_older_than(&mut self, now: Instant, delay: std::time::Duration) {
        let mature = self
            .data
            .blocks
            .iter()
            .skip(self.data.finalized as usize + 1)
            .take_while(|block| now.saturating_duration_since(block.sealed_at) >= delay)
            .count();
        if mature > 0 {
            self.finalize_to(self.data.finalized + mature as u32);
        }
    }

    fn prune(&mut self) {
        let keep_from = self.data.finalized.saturating_sub(self.config.history_blocks);
        while self.data.first_state < keep_from {
            if let Some(removals) = self.data.removals.pop_front() {
                self.data.state.remove((*removals).clone());
            }
            self.data.first_state += 1;
        }
    }

    pub(crate) fn take_events(&mut self) -> Vec<ChainEvent> {
        std::mem::take(&mut self.outbox)
    }

    /// Number of trie nodes kept for all readable states, and their size in bytes.
    pub fn state_size(&self) -> (usize, usize) {
        self.data.state.size()
    }

    /// A point to come back to.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::new(self.data.clone()))
    }

    /// Goes back to `snapshot`: later blocks never happened.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        self.data = (*snapshot.0).clone();
        self.outbox.push(ChainEvent::NewBest(self.best_block().header.clone()));
        self.outbox.push(ChainEvent::Finalized(self.finalized_block().header.clone()));
    }

    // ---- extrinsics

    /// Signs `call` for `signer` with the next free nonce, immortal and without a tip; returns the extrinsic's bytes.
    pub fn sign(&self, signer: &sr25519::Pair, call: RuntimeCall) -> Result<Vec<u8>, SandboxError> {
        let nonce = self.next_nonce(&dev::account_of(signer))?;
        Ok(self.sign_with(signer, call, nonce, 0))
    }

    /// Signs `call` for `signer` with this nonce and tip; returns the extrinsic's bytes.
    pub fn sign_with(
        &self,
        signer: &sr25519::Pair,
        call: RuntimeCall,
        nonce: Nonce,
        tip: Balance,
    ) -> Vec<u8> {
        let extension: TxExtension = (
            frame_system::CheckNonZeroSender::new(),
            frame_system::CheckSpecVersion::new(),
            frame_system::CheckTxVersion::new(),
            frame_system::CheckGenesis::new(),
            frame_system::CheckEra::from(Era::Immortal),
            frame_system::CheckNonce::from(nonce),
            frame_system::CheckWeight::new(),
            pallet_transaction_payment::ChargeTransactionPayment::from(tip),
        );
        let genesis = self.data.blocks[0].info.hash;
        let implicit = (
            (),
            poq_runtime::VERSION.spec_version,
            poq_runtime::VERSION.transaction_version,
            genesis,
            genesis,
            (),
            (),
            (),
        );
        let payload = SignedPayload::from_raw(call.clone(), extension.clone(), implicit);
        let signature = payload.using_encoded(|bytes| signer.sign(bytes));
        UncheckedExtrinsic::new_signed(
            call,
            MultiAddress::Id(dev::account_of(signer)),
            MultiSignature::Sr25519(signature),
            extension,
        )
        .encode()
    }

    /// Puts an encoded extrinsic into the pool; with [`Sealing::Instant`] it is in a block when this returns, unless it
    /// waits for an earlier nonce. Returns its hash.
    pub fn submit(&mut self, bytes: Vec<u8>) -> Result<Hash, SandboxError> {
        self.submit_watched(bytes, Vec::new())
    }

    /// As [`Self::submit`], with a channel that tells what becomes of the extrinsic.
    pub fn submit_and_watch(
        &mut self,
        bytes: Vec<u8>,
    ) -> Result<(Hash, UnboundedReceiver<TransactionStatus>), SandboxError> {
        let (sender, receiver) = unbounded_channel();
        Ok((self.submit_watched(bytes, vec![sender])?, receiver))
    }

    fn submit_watched(
        &mut self,
        bytes: Vec<u8>,
        watchers: Vec<UnboundedSender<TransactionStatus>>,
    ) -> Result<Hash, SandboxError> {
        let extrinsic =
            parity_scale_codec::DecodeAll::decode_all(&mut &bytes[..]).map_err(SandboxError::BadExtrinsic)?;
        let hash = Hash::from(blake2_256(&bytes));
        if self.data.pool.get(hash).is_some() {
            return Err(SandboxError::AlreadyInPool(hash));
        }
        let validity = self.validate(&extrinsic)?.map_err(SandboxError::InvalidTransaction)?;
        if let Some(rival) = self.data.pool.conflict(&validity.provides) {
            let (old, new) = (rival.validity.priority, validity.priority);
            if new <= old {
                return Err(SandboxError::TooLowPriority { old, new });
            }
            let rival = rival.hash;
            if let Some(usurped) = self.data.pool.take(rival) {
                usurped.notify(&TransactionStatus::Usurped(hash));
            }
        }
        let sequence = self.data.pool.next_sequence();
        self.data.pool.insert(Pooled { hash, bytes, extrinsic, validity, sequence, watchers });
        let ready = self.data.pool.ready().contains(&hash);
        if let Some(pooled) = self.data.pool.get(hash) {
            pooled.notify(if ready { &TransactionStatus::Ready } else { &TransactionStatus::Future });
        }
        if self.config.sealing == Sealing::Instant {
            self.seal_ready()?;
        }
        Ok(hash)
    }

    /// Seals blocks until no extrinsic of the pool is ready.
    fn seal_ready(&mut self) -> Result<(), SandboxError> {
        loop {
            let before = self.data.pool.len();
            if self.data.pool.ready().is_empty() {
                return Ok(());
            }
            self.new_block()?;
            if self.data.pool.len() == before {
                // An extrinsic that fits in no block would keep this going for ever.
                return Ok(());
            }
        }
    }

    /// What the runtime thinks of `extrinsic` at the best block.
    fn validate(&self, extrinsic: &UncheckedExtrinsic) -> Result<TransactionValidity, SandboxError> {
        let best = self.best_block();
        let extrinsic = extrinsic.clone();
        self.data.state.execute(
            *best.header.state_root(),
            &mut Changes::default(),
            "TaggedTransactionQueue_validate_transaction",
            || Executive::validate_transaction(TransactionSource::External, extrinsic, best.info.hash),
        )
    }

    /// Drops from the pool what the best block made invalid, and renews what the rest requires.
    fn revalidate_pool(&mut self) {
        for mut pooled in self.data.pool.take_all() {
            match self.validate(&pooled.extrinsic) {
                Ok(Ok(validity)) => {
                    let waited = !pooled.validity.requires.is_empty();
                    let ready = validity.requires.is_empty();
                    pooled.validity = validity;
                    if waited && ready {
                        pooled.notify(&TransactionStatus::Ready);
                    }
                    self.data.pool.insert(pooled);
                }
                _ => pooled.notify(&TransactionStatus::Invalid),
            }
        }
    }

    /// The waiting extrinsics, encoded.
    pub fn pending_extrinsics(&self) -> Vec<Vec<u8>> {
        self.data.pool.iter().map(|pooled| pooled.bytes.clone()).collect()
    }

    /// The nonce for the next extrinsic of `account`, those in the pool counted.
    pub fn next_nonce(&self, account: &AccountId) -> Result<Nonce, SandboxError> {
        let nonce = self.account(account)?.nonce;
        Ok(self.data.pool.next_nonce(account, nonce))
    }

    /// Signs and submits `call`, seals a block if it is in none, and reports. A call that fails in its block is an `Ok` with
    /// an error in [`ExtrinsicReport::result`]; see [`ExtrinsicReport::ok`].
    pub fn submit_call(
        &mut self,
        signer: &sr25519::Pair,
        call: RuntimeCall,
    ) -> Result<ExtrinsicReport, SandboxError> {
        let bytes = self.sign(signer, call)?;
        let hash = self.submit(bytes)?;
        if !self.data.included.contains_key(&hash) {
            self.new_block()?;
        }
        self.report(hash)
    }

    /// What became of the included extrinsic `hash`.
    pub fn report(&self, hash: Hash) -> Result<ExtrinsicReport, SandboxError> {
        let (number, index) = *self.data.included.get(&hash).ok_or(SandboxError::NotIncluded(hash))?;
        let block = self.data.blocks[number as usize].info;
        let events: Vec<RuntimeEvent> = self
            .events(block.hash)?
            .into_iter()
            .filter(|record| record.phase == Phase::ApplyExtrinsic(index))
            .map(|record| record.event)
            .collect();
        let mut report =
            ExtrinsicReport { block, index, hash, result: Ok(()), weight: Weight::zero(), fee: 0, events };
        for event in &report.events {
            match event {
                RuntimeEvent::System(frame_system::Event::ExtrinsicSuccess { dispatch_info }) => {
                    report.weight = dispatch_info.weight;
                }
                RuntimeEvent::System(frame_system::Event::ExtrinsicFailed {
                    dispatch_error,
                    dispatch_info,
                }) => {
                    report.result = Err(*dispatch_error);
                    report.weight = dispatch_info.weight;
                }
                RuntimeEvent::TransactionPayment(pallet_transaction_payment::Event::TransactionFeePaid {
                    actual_fee,
                    ..
                }) => report.fee = *actual_fee,
                _ => {}
            }
        }
        Ok(report)
    }

    /// Sets the free balance of `account` to `amount`, by a sudo extrinsic in a block of its own.
    pub fn fund(&mut self, account: &AccountId, amount: Balance) -> Result<BlockInfo, SandboxError> {
        let call = RuntimeCall::Balances(poq_runtime::BalancesCall::force_set_balance {
            who: MultiAddress::Id(account.clone()),
            new_free: amount,
        });
        self.sudo(call).map(|report| report.block)
    }

    /// Dispatches `call` with root rights (signed by Alice).
    pub fn sudo(&mut self, call: RuntimeCall) -> Result<ExtrinsicReport, SandboxError> {
        let call = RuntimeCall::Sudo(poq_runtime::SudoCall::sudo { call: Box::new(call) });
        let report = self.submit_call(&dev::alice(), call)?.ok()?;
        let failed = report.events.iter().find_map(|event| match event {
            RuntimeEvent::Sudo(polkadot_sdk::pallet_sudo::Event::Sudid { sudo_result: Err(error) }) => {
                Some(*error)
            }
            _ => None,
        });
        failed.map_or(Ok(report), |error| Err(SandboxError::Dispatch(error)))
    }

    // ---- state

    /// The state root of `at`, if its state is kept.
    pub(crate) fn state_root(&self, at: Hash) -> Result<Hash, SandboxError> {
        let block = self.stored(at)?;
        let number = block.info.number;
        if number < self.data.first_state {
            return Err(SandboxError::StatePruned { number, hash: at, kept: self.config.history_blocks });
        }
        Ok(*block.header.state_root())
    }

    /// The raw value at `key` in the state of block `at`.
    pub fn storage(&self, at: Hash, key: &[u8]) -> Result<Option<Vec<u8>>, SandboxError> {
        self.data.state.get(self.state_root(at)?, key)
    }

    /// The raw value at `key` of the child trie with this id (a contract's storage, say) in the state of block `at`.
    pub fn child_storage(&self, at: Hash, child: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, SandboxError> {
        self.data.state.get_child(self.state_root(at)?, &ChildInfo::new_default(child), key)
    }

    /// Up to `count` keys with `prefix` that come after `start`, in order, in the state of block `at`; of the child trie
    /// with the id `child`, if that is given.
    pub fn keys(
        &self,
        at: Hash,
        child: Option<&[u8]>,
        prefix: &[u8],
        start: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, SandboxError> {
        self.data.state.keys(self.state_root(at)?, child.map(ChildInfo::new_default), prefix, start, count)
    }

    /// Runs `f` on the state of block `at`, so that it can read through the pallets
    /// (`poq_runtime::Balances::total_issuance()`). What it writes is thrown away.
    pub fn query<R>(&self, at: Hash, f: impl FnOnce() -> R) -> Result<R, SandboxError> {
        self.data.state.execute(self.state_root(at)?, &mut Changes::default(), "query", f)
    }

    /// Runs `f` as part of the next block, after its timestamp is set, and throws that block away.
    pub fn query_next_block<R>(&self, f: impl FnOnce() -> R) -> Result<R, SandboxError> {
        let mut changes = Changes::default();
        self.open_block(&mut changes)?;
        self.data.state.execute(*self.best_block().header.state_root(), &mut changes, "query", f)
    }

    /// Calls a runtime API function (for example `ContractsApi_call`) with SCALE-encoded arguments on the state of block
    /// `at`; returns the SCALE-encoded result.
    pub fn runtime_call(&self, at: Hash, function: &str, arguments: &[u8]) -> Result<Vec<u8>, SandboxError> {
        self.execute_api(self.state_root(at)?, &mut Changes::default(), function, arguments)
    }

    fn execute_api(
        &self,
        root: Hash,
        changes: &mut Changes,
        function: &str,
        arguments: &[u8],
    ) -> Result<Vec<u8>, SandboxError> {
        self.data
            .state
            .execute(root, changes, function, || api::dispatch(function, arguments))?
            .ok_or_else(|| SandboxError::UnknownRuntimeApi(function.to_owned()))
    }

    /// The runtime's metadata in this version (14, 15 or 16), SCALE with the magic prefix; `None` if it has no such version.
    pub fn metadata(&self, version: u32) -> Result<Option<Vec<u8>>, SandboxError> {
        let answer =
            self.runtime_call(self.best().hash, "Metadata_metadata_at_version", &version.encode())?;
        let metadata: Option<OpaqueMetadata> = decode("the runtime's metadata", &answer)?;
        Ok(metadata.map(|metadata| metadata.to_vec()))
    }

    /// Nonce and balances of `account` at the best block.
    pub fn account(&self, account: &AccountId) -> Result<AccountInfo, SandboxError> {
        self.query(self.best().hash, || frame_system::Account::<Runtime>::get(account))
    }

    /// Free balance of `account` at the best block; deposits that pallet-contracts holds are not in it.
    pub fn balance(&self, account: &AccountId) -> Result<Balance, SandboxError> {
        Ok(self.account(account)?.data.free)
    }

    /// All events of block `at`.
    pub fn events(&self, at: Hash) -> Result<Vec<EventRecord>, SandboxError> {
        self.query(at, || System::read_events_no_consensus().map(|record| *record).collect())
    }
}

/// Decodes `bytes` that came out of the runtime.
pub(crate) fn decode<T: Decode>(what: &'static str, mut bytes: &[u8]) -> Result<T, SandboxError> {
    T::decode(&mut bytes).map_err(|source| SandboxError::Decode { what, source })
}

fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
