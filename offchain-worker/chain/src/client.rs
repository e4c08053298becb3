//! The connection to a chain, its blocks and its balances.

use crate::commit::Network;
use crate::dry_run::{call_args, Executed};
use crate::error::{Error, Result};
use crate::events::{Emitted, FinalEvent, PoqEvent, Said};
use crate::options::Options;
use crate::runtime::{contract_emitted, metadata_at_version, metadata_plain, RawEvent, Runtime};
use crate::signer::Keys;
use crate::submit::{Lane, Submitter};
use crate::transport::{Backoff, Transport};
use crate::types::TaskId;
use crate::url::NodeUrls;
use crate::view::View;
use futures::Stream;
use parity_scale_codec::{Decode, Encode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sp_crypto_hashing::{blake2_128, twox_128, twox_64};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use subxt::config::substrate::SubstrateHeader;
use subxt::ext::scale_value::At as _;
use subxt::utils::{AccountId32, H256};
use subxt_rpcs::client::rpc_params;
use subxt_rpcs::methods::legacy::{Bytes, RuntimeVersion};
use subxt_rpcs::RpcClient;
use tokio::sync::watch;

/// A block, as far as the protocol looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: H256,
    /// Its timestamp in milliseconds since the Unix epoch: the clock of every deadline. Zero in the genesis block.
    pub timestamp_ms: u64,
}

/// What the next block will be like, which a call sent now runs in: a chain that seals only on demand has a best block from
/// whenever somebody last sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upcoming {
    /// Its number.
    pub number: u32,
    /// About what its timestamp will be: this machine's time, corrected by how far the chain's latest blocks were from it.
    pub timestamp_ms: u64,
}

/// Which block to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum At {
    /// The best block.
    #[default]
    Best,
    /// The last finalized block.
    Finalized,
    /// The best chain's block of a number.
    Number(u32),
    /// The block of a hash.
    Hash(H256),
}

impl From<H256> for At {
    fn from(hash: H256) -> At {
        At::Hash(hash)
    }
}

impl From<u32> for At {
    fn from(number: u32) -> At {
        At::Number(number)
    }
}

impl From<Block> for At {
    fn from(block: Block) -> At {
        At::Hash(block.hash)
    }
}

/// What a chain says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// The node's name and version.
    pub node: String,
    /// Its genesis hash.
    pub genesis_hash: H256,
    /// What a whole unit of its money is called.
    pub symbol: String,
    /// How many decimals a whole unit has.
    pub decimals: u8,
    /// What an account must hold to exist, in the smallest unit.
    pub existential_deposit: u128,
    /// The prefix of its addresses.
    pub ss58_prefix: u16,
    /// Whether it may produce blocks only when there is something to include: it has no pallet that authors by slots.
    pub seals_on_demand: bool,
    /// What kind of chain the node says it is: `Development`, `Local`, `Live`, or a name of its own.
    pub kind: String,
}

impl ChainInfo {
    /// Whether it calls itself a chain for development or for tests on one's own machines: nobody else's money, and nobody
    /// else who has to reach anything.
    pub fn is_development(&self) -> bool {
        matches!(self.kind.as_str(), "Development" | "Local")
    }
}

/// An account's entry in `System.Account`, in the chain's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Calls included so far.
    pub nonce: u32,
    /// Spendable, save what is frozen and the existential deposit.
    pub free: u128,
    /// Held: storage deposits of contracts, for example.
    pub reserved: u128,
    /// What of the free balance must not fall.
    pub frozen: u128,
}

/// A part of a balance that is held for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The pallet and its reason, as the metadata calls them: `Contracts::CodeUploadDepositReserve`.
    pub reason: String,
    /// In the chain's smallest unit.
    pub amount: u128,
}

/// What of an account's money is where, in the chain's smallest unit.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Funds {
    /// Neither held nor reserved.
    pub free: u128,
    /// Held by reason: storage deposits of contracts, for example.
    pub held: Vec<Hold>,
    /// All that is held, or reserved in the old way without a reason; at least the sum of `held`.
    pub reserved: u128,
    /// What the balance as a whole must not fall below: votes, staking, vesting. What is reserved counts towards it.
    pub frozen: u128,
    /// What can be spent without ending the account: free, less what is frozen beyond the reserved and at least the
    /// existential deposit (pallet-balances' `reducible_balance` with `Preserve`).
    pub spendable: u128,
    /// What an account must hold to exist.
    pub existential_deposit: u128,
}

pub(crate) struct Inner {
    pub(crate) transport: Arc<Transport>,
    pub(crate) options: Options,
    pub(crate) chain: ChainInfo,
    runtimes: Mutex<HashMap<u32, Arc<Runtime>>>,
    pub(crate) heads: Arc<Heads>,
    /// One lane per account: its nonces are given out here and nowhere else in this process.
    lanes: Mutex<HashMap<[u8; 32], Arc<Lane>>>,
    /// The contracts that have said to be of this chain.
    networks: Mutex<HashMap<[u8; 32], Network>>,
    monitor: tokio::task::AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.monitor.abort();
    }
}

/// A connection to a chain, and the contract on it. Cloning is cheap and shares the connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    contract: Option<AccountId32>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint())
            .field("chain", &self.inner.chain.name)
            .field("contract", &self.contract.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl Client {
    /// Connects to the first of `urls` (separated by commas) that answers, and goes on reconnecting for as long as the
    /// client lives.
    ///
    /// # Errors
    /// `Url` for what is no websocket address; `Unreachable` when no endpoint answers within
    /// [`Options::connect_patience`]; `Decode` when it is no chain that this client can read.
    pub async fn connect(urls: &str, contract: Option<AccountId32>, options: Options) -> Result<Client> {
        Client::connect_to(urls.parse()?, contract, options).await
    }

    /// As [`Client::connect`], to addresses that have been read already.
    ///
    /// # Errors
    /// As of [`Client::connect`].
    pub async fn connect_to(
        urls: NodeUrls,
        contract: Option<AccountId32>,
        options: Options,
    ) -> Result<Client> {
        Client::start(Transport::to_urls(urls, &options), contract, options).await
    }

    /// Over a transport that somebody else keeps alive: the in-process chain of the tests.
    ///
    /// # Errors
    /// `Decode` when it is no chain that this client can read.
    pub async fn from_rpc(rpc: RpcClient, contract: Option<AccountId32>, options: Options) -> Result<Client> {
        Client::start(Transport::fixed(rpc, &options), contract, options).await
    }

    async fn start(transport: Transport, contract: Option<AccountId32>, options: Options) -> Result<Client> {
        let transport = Arc::new(transport);
        let started = std::time::Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let genesis_hash = loop {
            match block_hash(&transport, Some(0)).await {
                Err(error)
                    if error.class() == crate::Class::Transient
                        && started.elapsed() < options.connect_patience =>
                {
                    tracing::info!(%error, "waiting for the node");
                    backoff.wait().await;
                }
                result => break result?.ok_or_else(|| Error::NoBlock { block: "0".into() })?,
            }
        };
        let head =
            block_hash(&transport, None).await?.ok_or_else(|| Error::NoBlock { block: "best".into() })?;
        let (version, runtime) = load_runtime(&transport, genesis_hash, head).await?;
        if !runtime.has_pallet("Contracts") {
            return Err(Error::Encode {
                call: "a contract call",
                reason: "the chain has no pallet 'Contracts'".into(),
            });
        }
        let chain = chain_info(&transport, &runtime, genesis_hash).await?;
        let best = read_block(&transport, head).await?;
        let final_hash: H256 = transport.read("chain_getFinalizedHead", rpc_params![]).await?;
        let finalized = read_block(&transport, final_hash).await?;
        let heads = Arc::new(Heads {
            best: watch::Sender::new(best),
            finalized: watch::Sender::new(finalized),
            skew: Skew::default(),
        });
        let monitor = tokio::spawn(monitor(transport.clone(), options.silence, heads.clone())).abort_handle();
        Ok(Client {
            inner: Arc::new(Inner {
                transport,
                options,
                chain,
                runtimes: Mutex::new(HashMap::from([(version, Arc::new(runtime))])),
                heads,
                lanes: Mutex::default(),
                networks: Mutex::default(),
                monitor,
            }),
            contract,
        })
    }

    /// The same connection with another contract.
    pub fn with_contract(&self, contract: AccountId32) -> Client {
        Client { inner: self.inner.clone(), contract: Some(contract) }
    }

    /// The contract's address.
    ///
    /// # Errors
    /// `NoContract` when the client was built without one.
    pub fn contract(&self) -> Result<AccountId32> {
        self.contract.ok_or(Error::NoContract)
    }

    /// What the client was built with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// What the chain says of itself.
    pub fn chain(&self) -> &ChainInfo {
        &self.inner.chain
    }

    /// The node in use: its address as it may be shown (see [`crate::url`]), or `in-process`.
    pub fn endpoint(&self) -> String {
        self.inner.transport.endpoint()
    }

    /// Whether the node's address has a part that is not shown: what [`Client::endpoint`] says cannot be connected to.
    pub fn endpoint_has_secret(&self) -> bool {
        self.inner.transport.has_secret()
    }

    /// Whether a connection is up, as far as anybody has noticed.
    pub fn is_connected(&self) -> bool {
        self.inner.transport.is_connected()
    }

    /// How long ago the node last answered or announced a block.
    pub fn last_heard(&self) -> Duration {
        self.inner.transport.last_heard()
    }

    // ---------------------------------------------------------------------------------------------- blocks

    /// The best block.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn best(&self) -> Result<Block> {
        self.block(At::Best).await
    }

    /// The last finalized block.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn finalized(&self) -> Result<Block> {
        self.block(At::Finalized).await
    }

    /// The block meant by `at`.
    ///
    /// # Errors
    /// `NoBlock` where the node has none; `Pruned` where it no longer has the block's state (its timestamp).
    pub async fn block(&self, at: impl Into<At>) -> Result<Block> {
        let at = at.into();
        let block = read_block(&self.inner.transport, self.hash_of(at).await?).await?;
        if at == At::Best {
            self.inner.heads.see(block);
        }
        Ok(block)
    }

    pub(crate) async fn hash_of(&self, at: At) -> Result<H256> {
        let transport = &self.inner.transport;
        match at {
            At::Hash(hash) => Ok(hash),
            At::Finalized => transport.read("chain_getFinalizedHead", rpc_params![]).await,
            At::Best => {
                block_hash(transport, None).await?.ok_or_else(|| Error::NoBlock { block: "best".into() })
            }
            At::Number(number) => block_hash(transport, Some(number))
                .await?
                .ok_or_else(|| Error::NoBlock { block: number.to_string() }),
        }
    }

    /// A block's header.
    pub(crate) async fn header(&self, hash: H256) -> Result<SubstrateHeader<H256>> {
        read_header(&self.inner.transport, hash).await
    }

    /// What the next block will be like, from what has been heard so far. Decide by this what can be done now:
    /// `task.clock().step(upcoming.timestamp_ms)`.
    pub fn upcoming(&self) -> Upcoming {
        let best = *self.inner.heads.best.borrow();
        Upcoming {
            number: best.number.saturating_add(1),
            timestamp_ms: self.inner.heads.skew.chain_time(wall_clock_ms()).max(best.timestamp_ms),
        }
    }

    /// The best block as it changes. Always holds the newest one that has been heard of.
    pub fn best_watch(&self) -> watch::Receiver<Block> {
        self.inner.heads.best.subscribe()
    }

    /// The last finalized block as it changes.
    pub fn finalized_watch(&self) -> watch::Receiver<Block> {
        self.inner.heads.finalized.subscribe()
    }

    /// Every new best block, beginning with the present one; whoever is slow gets the newest and not those in between.
    /// Goes on across reconnections, and ends only with the client.
    pub fn best_blocks(&self) -> impl Stream<Item = Block> + Send + Unpin + 'static {
        changes(self.best_watch())
    }

    /// Every finalized block from number `from` on, none left out; waits for new ones at the tip. After an error the stream
    /// goes on with the block that failed.
    pub fn finalized_blocks(&self, from: u32) -> impl Stream<Item = Result<Block>> + Send + 'static {
        let client = self.clone();
        async_stream::stream! {
            let mut tip = client.finalized_watch();
            let mut next = from;
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            loop {
                let newest = tip.borrow_and_update().number;
                while next <= newest {
                    match client.block(At::Number(next)).await {
                        Ok(block) => {
                            yield Ok(block);
                            next = next.saturating_add(1);
                            backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
                        }
                        Err(error) => {
                            yield Err(error);
                            backoff.wait().await;
                        }
                    }
                }
                if tip.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// The extrinsics of a block as bytes.
    pub(crate) async fn extrinsics(&self, hash: H256) -> Result<Vec<Vec<u8>>> {
        #[derive(Deserialize)]
        struct Details {
            block: Body,
        }
        #[derive(Deserialize)]
        struct Body {
            extrinsics: Vec<Bytes>,
        }
        let details: Option<Details> = self.inner.transport.read("chain_getBlock", rpc_params![hash]).await?;
        let details = details.ok_or_else(|| Error::NoBlock { block: format!("{hash:?}") })?;
        Ok(details.block.extrinsics.into_iter().map(|bytes| bytes.0).collect())
    }

    // ---------------------------------------------------------------------------------------------- state

    /// A storage value.
    pub(crate) async fn storage(&self, key: &[u8], hash: H256) -> Result<Option<Vec<u8>>> {
        read_storage(&self.inner.transport, key, hash).await
    }

    /// A runtime API's answer.
    pub(crate) async fn state_call(
        &self,
        function: &str,
        args: &[u8],
        hash: Option<H256>,
    ) -> Result<Vec<u8>> {
        state_call(&self.inner.transport, function, args, hash).await
    }

    /// The runtime at a block.
    pub(crate) async fn runtime(&self, hash: H256) -> Result<Arc<Runtime>> {
        let transport = &self.inner.transport;
        let version = runtime_version(transport, hash).await?;
        if let Some(runtime) = self.inner.runtimes.lock().get(&version.spec_version) {
            return Ok(runtime.clone());
        }
        let (spec_version, runtime) = load_runtime(transport, self.inner.chain.genesis_hash, hash).await?;
        tracing::info!(spec_version, "the chain's runtime was upgraded");
        let runtime = Arc::new(runtime);
        self.inner.runtimes.lock().insert(spec_version, runtime.clone());
        Ok(runtime)
    }

    /// An account's balances.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn account(&self, account: &AccountId32, at: impl Into<At>) -> Result<AccountInfo> {
        let hash = self.hash_of(at.into()).await?;
        let key = storage_key("System", "Account", &blake2_128_concat(&account.0));
        let Some(bytes) = self.storage(&key, hash).await? else { return Ok(AccountInfo::default()) };
        // nonce, consumers, providers, sufficients, data { free, reserved, frozen, flags }: the same on every chain with
        // pallet-balances; a chain with another index type is read by its metadata.
        if bytes.len() == 80 {
            let mut input = &bytes[..];
            let broken = |e| Error::decode("System.Account", e);
            let nonce = u32::decode(&mut input).map_err(broken)?;
            let _counters = <[u32; 3]>::decode(&mut input).map_err(broken)?;
            let (free, reserved, frozen) = <(u128, u128, u128)>::decode(&mut input).map_err(broken)?;
            return Ok(AccountInfo { nonce, free, reserved, frozen });
        }
        let value = self.runtime(hash).await?.storage_value("System", "Account", &bytes)?;
        let number = |name: &str| {
            let within = value.at("data").and_then(|data| data.at(name)).or_else(|| value.at(name));
            within.and_then(|v| v.as_u128())
        };
        let missing = |name: &str| Error::decode("System.Account", format!("it has no '{name}'"));
        Ok(AccountInfo {
            nonce: number("nonce").and_then(|n| u32::try_from(n).ok()).ok_or_else(|| missing("nonce"))?,
            free: number("free").ok_or_else(|| missing("free"))?,
            reserved: number("reserved").ok_or_else(|| missing("reserved"))?,
            frozen: number("frozen").or_else(|| number("misc_frozen")).unwrap_or(0),
        })
    }

    /// An account's free balance at the best block.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn free_balance(&self, account: &AccountId32) -> Result<u128> {
        Ok(self.account(account, At::Best).await?.free)
    }

    /// Where an account's money is: free, held, frozen, spendable.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn funds(&self, account: &AccountId32, at: impl Into<At>) -> Result<Funds> {
        let hash = self.hash_of(at.into()).await?;
        let AccountInfo { free, reserved, frozen, .. } = self.account(account, hash).await?;
        let existential_deposit = self.chain().existential_deposit;
        Ok(Funds {
            free,
            held: self.holds(account, hash).await?,
            reserved,
            frozen,
            spendable: spendable(free, reserved, frozen, existential_deposit),
            existential_deposit,
        })
    }

    /// What is held of an account's balance, by reason. Nothing on chains whose pallet-balances knows no holds.
    async fn holds(&self, account: &AccountId32, hash: H256) -> Result<Vec<Hold>> {
        let key = storage_key("Balances", "Holds", &blake2_128_concat(&account.0));
        let Some(bytes) = self.storage(&key, hash).await? else { return Ok(Vec::new()) };
        let value = self.runtime(hash).await?.storage_value("Balances", "Holds", &bytes)?;
        let mut holds = Vec::new();
        collect_holds(&value, &mut holds);
        Ok(holds)
    }

    // ---------------------------------------------------------------------------------------------- the contract

    /// The contract at the best block.
    ///
    /// # Errors
    /// `NoContract`, or where the node cannot be asked.
    pub async fn view(&self) -> Result<View> {
        self.view_at(At::Best).await
    }

    /// The contract at a block.
    ///
    /// # Errors
    /// `NoContract`, `NoBlock`, or where the node cannot be asked.
    pub async fn view_at(&self, at: impl Into<At>) -> Result<View> {
        let contract = self.contract()?;
        let block = self.block(at).await?;
        Ok(View::new(self.clone(), contract, block))
    }

    /// What the contract's commitments start with, once it has said that it is of this chain.
    ///
    /// # Errors
    /// `WrongNetwork` where it was made for another chain; or as of every query.
    pub async fn network(&self) -> Result<Network> {
        let address = self.contract()?;
        if let Some(network) = self.inner.networks.lock().get(&address.0) {
            return Ok(*network);
        }
        let overview = self.view().await?.overview().await?;
        let expected = self.chain().genesis_hash;
        let network = Network::new(expected, address, overview.epoch_ms);
        if (overview.genesis, overview.network) != (expected.0, network.hash) {
            return Err(Error::WrongNetwork { address, expected, found: H256(overview.genesis) });
        }
        self.inner.networks.lock().insert(address.0, network);
        Ok(network)
    }

    /// The hash of the contract's code at the best block.
    ///
    /// # Errors
    /// `ContractAbsent` where there is no contract at the address.
    pub async fn code_hash(&self) -> Result<H256> {
        let contract = self.contract()?;
        self.code_hash_of(&contract).await?.ok_or_else(|| self.absent(contract))
    }

    /// The code hash of the contract at `address`, if there is one.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn code_hash_of(&self, address: &AccountId32) -> Result<Option<H256>> {
        self.code_hash_at(address, At::Best).await
    }

    /// The code hash of the contract that was at `address` in a block, if there was one.
    ///
    /// # Errors
    /// `NoBlock`, `Pruned`, or where the node cannot be asked.
    pub async fn code_hash_at(&self, address: &AccountId32, at: impl Into<At>) -> Result<Option<H256>> {
        let hash = self.hash_of(at.into()).await?;
        let key = storage_key("Contracts", "ContractInfoOf", &twox_64_concat(&address.0));
        let Some(bytes) = self.storage(&key, hash).await? else { return Ok(None) };
        let value = self.runtime(hash).await?.storage_value("Contracts", "ContractInfoOf", &bytes)?;
        let field =
            value.at("code_hash").ok_or_else(|| Error::decode("Contracts.ContractInfoOf", "no code hash"))?;
        let mut code_hash = Vec::with_capacity(32);
        collect_bytes(field, &mut code_hash);
        let code_hash: [u8; 32] = code_hash
            .try_into()
            .map_err(|_| Error::decode("Contracts.ContractInfoOf", "the code hash is not 32 bytes long"))?;
        Ok(Some(H256(code_hash)))
    }

    /// Whether this code has been uploaded to the chain.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn has_code(&self, code_hash: H256) -> Result<bool> {
        let hash = self.hash_of(At::Best).await?;
        // The map's hasher is the identity.
        let key = storage_key("Contracts", "CodeInfoOf", &code_hash.0);
        Ok(self.storage(&key, hash).await?.is_some())
    }

    pub(crate) fn absent(&self, address: AccountId32) -> Error {
        Error::ContractAbsent { address, chain: self.inner.chain.name.clone(), endpoint: self.endpoint() }
    }

    /// A cell of the contract's own storage at a block, as its bytes.
    pub(crate) async fn cell(
        &self,
        contract: &AccountId32,
        key: Vec<u8>,
        at: H256,
    ) -> Result<Option<Vec<u8>>> {
        let args = (contract.0, key).encode();
        let answer = self.state_call("ContractsApi_get_storage", &args, Some(at)).await?;
        // The pallet's ContractAccessError: there is no such contract, or the key is too long.
        let cell: std::result::Result<Option<Vec<u8>>, u8> =
            Decode::decode(&mut &answer[..]).map_err(|e| Error::decode("a contract's storage", e))?;
        cell.map_err(|_| self.absent(*contract))
    }

    /// Runs a call of the contract at a block and forgets it.
    pub(crate) async fn dry_call(
        &self,
        origin: &AccountId32,
        contract: &AccountId32,
        value: u128,
        data: &[u8],
        at: Option<H256>,
    ) -> Result<Executed> {
        let answer =
            self.state_call("ContractsApi_call", &call_args(origin, contract, value, data), at).await?;
        self.executed(&answer, false, at).await
    }

    pub(crate) async fn executed(
        &self,
        answer: &[u8],
        instantiation: bool,
        at: Option<H256>,
    ) -> Result<Executed> {
        // Only a dispatch error needs the metadata; any known version's will do unless the runtime has just changed.
        let runtime = {
            let known = self.inner.runtimes.lock();
            known.values().max_by_key(|runtime| runtime.spec_version).cloned()
        };
        let runtime = match (runtime, at) {
            (Some(runtime), _) => runtime,
            (None, Some(hash)) => self.runtime(hash).await?,
            (None, None) => self.runtime(self.hash_of(At::Best).await?).await?,
        };
        let executed = Executed::decode(answer, instantiation, &runtime)?;
        if !executed.debug.is_empty() {
            tracing::debug!(message = %executed.debug, "the contract's debug output");
        }
        Ok(executed)
    }

    /// A sender for this account. All of one account share one lane of nonces.
    pub fn submitter(&self, keys: Keys) -> Submitter {
        let lane = self.inner.lanes.lock().entry(keys.account().0).or_default().clone();
        Submitter::new(self.clone(), keys, lane)
    }

    // ---------------------------------------------------------------------------------------------- events

    pub(crate) async fn raw_events(&self, hash: H256) -> Result<Vec<RawEvent>> {
        let runtime = self.runtime(hash).await?;
        let bytes = self.storage(&storage_key("System", "Events", &[]), hash).await?.unwrap_or_default();
        runtime.events(bytes)
    }

    /// What the contract said in a block, in order.
    ///
    /// # Errors
    /// `NoBlock`, `Pruned`, or where the node cannot be asked.
    pub async fn events_at(&self, at: impl Into<At>) -> Result<Vec<Emitted>> {
        let contract = self.contract()?;
        let block = self.block(at).await?;
        let mut out = Vec::new();
        for raw in self.raw_events(block.hash).await? {
            if let Some(event) = contract_event(&raw, &contract)? {
                out.push(Emitted { block, extrinsic: raw.extrinsic, index: raw.index, event });
            }
        }
        Ok(out)
    }

    /// What every contract said in a block, in order: this one, its pools, and strangers.
    ///
    /// # Errors
    /// `NoBlock`, `Pruned`, or where the node cannot be asked.
    pub async fn said_at(&self, at: impl Into<At>) -> Result<Vec<Said>> {
        let hash = self.hash_of(at.into()).await?;
        let mut out = Vec::new();
        for raw in self.raw_events(hash).await? {
            if raw.is("Contracts", "ContractEmitted") {
                let (contract, data) = contract_emitted(&raw.fields)?;
                let RawEvent { extrinsic, index, topics, .. } = raw;
                out.push(Said { contract, extrinsic, index, topics, data });
            }
        }
        Ok(out)
    }

    /// What the contract said in the blocks `from..=to` of the best chain, in order. After an error the stream ends.
    pub fn events(&self, from: u32, to: u32) -> impl Stream<Item = Result<Emitted>> + Send + 'static {
        let client = self.clone();
        async_stream::try_stream! {
            for number in from..=to {
                for emitted in client.events_at(At::Number(number)).await? {
                    yield emitted;
                }
            }
        }
    }

    /// The event that made a task final, with every number; the task must not have been collected.
    ///
    /// # Errors
    /// `Rejected(NoTask)` where there is no such task; `NotFinal` where it is not; `Pruned` where the node no longer has
    /// the block's events.
    pub async fn final_event(&self, task: TaskId) -> Result<FinalEvent> {
        let view = self.view().await?;
        let record = view
            .task(task)
            .await?
            .ok_or(Error::Rejected { message: "task", error: crate::ContractError::NoTask })?;
        if !record.task.phase.is_final() {
            return Err(Error::NotFinal { task, phase: format!("{:?}", record.task.phase).to_lowercase() });
        }
        self.final_event_at(task, record.task.final_block).await
    }

    /// The event that made a task final, in a block known from elsewhere.
    ///
    /// # Errors
    /// `NoFinalEvent` where the block does not have it.
    pub async fn final_event_at(&self, task: TaskId, block: u32) -> Result<FinalEvent> {
        for emitted in self.events_at(At::Number(block)).await? {
            let Emitted { block, extrinsic, index, event } = emitted;
            match event {
                PoqEvent::TaskClosed(event) if event.task == task => {
                    return Ok(FinalEvent { block, extrinsic, index, event });
                }
                _ => {}
            }
        }
        Err(Error::NoFinalEvent { task, block })
    }
}

/// This contract's event in a chain's event, if it is one.
pub(crate) fn contract_event(raw: &RawEvent, contract: &AccountId32) -> Result<Option<PoqEvent>> {
    if !raw.is("Contracts", "ContractEmitted") {
        return Ok(None);
    }
    let (emitter, data) = contract_emitted(&raw.fields)?;
    if emitter != *contract {
        return Ok(None);
    }
    PoqEvent::decode(&raw.topics, &data).map(Some)
}

/// The value of a watch, and each later one.
fn changes(mut receiver: watch::Receiver<Block>) -> impl Stream<Item = Block> + Send + Unpin + 'static {
    receiver.mark_changed();
    Box::pin(async_stream::stream! {
        while receiver.changed().await.is_ok() {
            let block = *receiver.borrow_and_update();
            yield block;
        }
    })
}

// -------------------------------------------------------------------------------------------------- RPC

fn hex_of(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

async fn block_hash(transport: &Transport, number: Option<u32>) -> Result<Option<H256>> {
    match number {
        Some(number) => transport.read("chain_getBlockHash", rpc_params![number]).await,
        None => transport.read("chain_getBlockHash", rpc_params![]).await,
    }
}

async fn read_header(transport: &Transport, hash: H256) -> Result<SubstrateHeader<H256>> {
    let header: Option<SubstrateHeader<H256>> = transport.read("chain_getHeader", rpc_params![hash]).await?;
    header.ok_or_else(|| Error::NoBlock { block: format!("{hash:?}") })
}

async fn read_storage(transport: &Transport, key: &[u8], hash: H256) -> Result<Option<Vec<u8>>> {
    let value: Option<Bytes> =
        pruned(transport.read("state_getStorage", rpc_params![hex_of(key), hash]).await, hash)?;
    Ok(value.map(|bytes| bytes.0))
}

async fn state_call(
    transport: &Transport,
    function: &str,
    args: &[u8],
    hash: Option<H256>,
) -> Result<Vec<u8>> {
    let answer: Result<Bytes> = match hash {
        Some(hash) => {
            pruned(transport.read("state_call", rpc_params![function, hex_of(args), hash]).await, hash)
        }
        None => transport.read("state_call", rpc_params![function, hex_of(args)]).await,
    };
    answer.map(|bytes| bytes.0)
}

async fn runtime_version(transport: &Transport, hash: H256) -> Result<RuntimeVersion> {
    pruned(transport.read("state_getRuntimeVersion", rpc_params![hash]).await, hash)
}

/// Nodes say "State already discarded" (code 4003) or "Unknown block: State already discarded" of blocks whose state is gone.
fn pruned<T>(result: Result<T>, hash: H256) -> Result<T> {
    result.map_err(|error| match error {
        Error::Rpc { ref message, .. } if message.contains("State already discarded") => {
            Error::Pruned { block: format!("{hash:?}") }
        }
        Error::Rpc { ref message, .. }
            if message.contains("UnknownBlock") || message.contains("Unknown block") =>
        {
            Error::NoBlock { block: format!("{hash:?}") }
        }
        other => other,
    })
}

async fn read_block(transport: &Transport, hash: H256) -> Result<Block> {
    let header = read_header(transport, hash).await?;
    let number =
        u32::try_from(header.number).map_err(|_| Error::decode("a block's number", "it exceeds 32 bits"))?;
    Ok(Block { number, hash, timestamp_ms: read_timestamp(transport, hash).await? })
}

async fn read_timestamp(transport: &Transport, hash: H256) -> Result<u64> {
    match read_storage(transport, &storage_key("Timestamp", "Now", &[]), hash).await? {
        Some(bytes) => u64::decode(&mut &bytes[..]).map_err(|e| Error::decode("Timestamp.Now", e)),
        None => Ok(0),
    }
}

async fn load_runtime(transport: &Transport, genesis: H256, hash: H256) -> Result<(u32, Runtime)> {
    let version = runtime_version(transport, hash).await?;
    // The newest metadata version that this client reads and the node has; 14 where the node knows no others.
    let versions = match state_call(transport, "Metadata_metadata_versions", &[], Some(hash)).await {
        Ok(bytes) => Vec::<u32>::decode(&mut &bytes[..]).unwrap_or_default(),
        // It has said so, and is not only busy.
        Err(error @ Error::Rpc { .. }) if error.class() == crate::Class::Fatal => Vec::new(),
        Err(error) => return Err(error),
    };
    let metadata = match versions.into_iter().filter(|v| (14..=16).contains(v)).max() {
        Some(newest) => {
            let answer =
                state_call(transport, "Metadata_metadata_at_version", &newest.encode(), Some(hash)).await?;
            metadata_at_version(&answer)?
        }
        None => {
            let answer: Bytes = transport.read("state_getMetadata", rpc_params![hash]).await?;
            metadata_plain(&answer.0)?
        }
    };
    let runtime = Runtime::new(version.spec_version, version.transaction_version, genesis, metadata)?;
    Ok((version.spec_version, runtime))
}

async fn chain_info(transport: &Transport, runtime: &Runtime, genesis_hash: H256) -> Result<ChainInfo> {
    let name: String = transport.read("system_chain", rpc_params![]).await?;
    let node_name: String = transport.read("system_name", rpc_params![]).await?;
    let node_version: String = transport.read("system_version", rpc_params![]).await?;
    let properties: serde_json::Value = transport.read("system_properties", rpc_params![]).await?;
    let kind: serde_json::Value = transport.read("system_chainType", rpc_params![]).await?;
    // Chains with several tokens give arrays; the first is the native one.
    let first = |name: &str| match &properties[name] {
        serde_json::Value::Array(all) => all.first().cloned().unwrap_or_default(),
        one => one.clone(),
    };
    let ss58_prefix = match first("ss58Format").as_u64().and_then(|p| u16::try_from(p).ok()) {
        Some(prefix) => prefix,
        None => runtime.ss58_prefix()?,
    };
    Ok(ChainInfo {
        name,
        node: format!("{node_name} {node_version}"),
        genesis_hash,
        symbol: first("tokenSymbol").as_str().unwrap_or("UNIT").to_owned(),
        // What chains that say nothing have: substrate-contracts-node's 10^12.
        decimals: first("tokenDecimals").as_u64().and_then(|d| u8::try_from(d).ok()).unwrap_or(12),
        existential_deposit: runtime.existential_deposit()?,
        ss58_prefix,
        seals_on_demand: !["Aura", "Babe", "ParachainSystem", "Sassafras"]
            .iter()
            .any(|p| runtime.has_pallet(p)),
        // A chain of its own kind answers with an object.
        kind: kind.as_str().map_or_else(|| kind.to_string(), str::to_owned),
    })
}

// -------------------------------------------------------------------------------------------------- storage keys

/// The key of a storage value, or of a map's entry whose hashed key is `suffix`.
pub(crate) fn storage_key(pallet: &str, entry: &str, suffix: &[u8]) -> Vec<u8> {
    [&twox_128(pallet.as_bytes())[..], &twox_128(entry.as_bytes())[..], suffix].concat()
}

fn blake2_128_concat(key: &[u8]) -> Vec<u8> {
    [&blake2_128(key)[..], key].concat()
}

fn twox_64_concat(key: &[u8]) -> Vec<u8> {
    [&twox_64(key)[..], key].concat()
}

/// All the bytes in a decoded value, however deeply it wraps them.
fn collect_bytes<T>(value: &subxt::ext::scale_value::Value<T>, out: &mut Vec<u8>) {
    use subxt::ext::scale_value::ValueDef;
    match &value.value {
        ValueDef::Composite(composite) => composite.values().for_each(|v| collect_bytes(v, out)),
        _ => out.extend(value.as_u128().and_then(|byte| u8::try_from(byte).ok())),
    }
}

/// What can be spent of a balance that goes on to exist; see [`Funds::spendable`].
fn spendable(free: u128, reserved: u128, frozen: u128, existential_deposit: u128) -> u128 {
    free.saturating_sub(frozen.saturating_sub(reserved).max(existential_deposit))
}

/// All entries `{ id, amount }` in `Balances.Holds`, however deeply wrapped.
fn collect_holds<T>(value: &subxt::ext::scale_value::Value<T>, out: &mut Vec<Hold>) {
    use subxt::ext::scale_value::ValueDef;
    if let (Some(id), Some(amount)) = (value.at("id"), value.at("amount").and_then(|v| v.as_u128())) {
        let mut names = Vec::new();
        let mut inner = Some(id);
        while let Some(ValueDef::Variant(variant)) = inner.map(|value| &value.value) {
            names.push(variant.name.clone());
            inner = variant.values.values().next();
        }
        out.push(Hold { reason: names.join("::"), amount });
    } else if let ValueDef::Composite(composite) = &value.value {
        composite.values().for_each(|v| collect_holds(v, out));
    }
}

// -------------------------------------------------------------------------------------------------- supervision

/// How far the chain's clock is behind this machine's, in milliseconds, as of the last block that was seen to arrive.
#[derive(Default)]
struct Skew(AtomicI64);

impl Skew {
    /// Differences up to this are the block's way here, not another clock.
    const NOISE_MS: i64 = 15_000;

    fn learn(&self, wall_ms: u64, block: Block) {
        let (wall, chain) = (i64::try_from(wall_ms), i64::try_from(block.timestamp_ms));
        if let (Ok(wall), Ok(chain)) = (wall, chain) {
            let behind = wall.saturating_sub(chain);
            let behind = if behind.abs() <= Skew::NOISE_MS { 0 } else { behind };
            self.0.store(behind, Ordering::Relaxed);
        }
    }

    fn chain_time(&self, wall_ms: u64) -> u64 {
        wall_ms.saturating_add_signed(self.0.load(Ordering::Relaxed).saturating_neg())
    }
}

fn wall_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The newest blocks that have been heard of.
pub(crate) struct Heads {
    best: watch::Sender<Block>,
    finalized: watch::Sender<Block>,
    skew: Skew,
}

impl Heads {
    /// A block that somebody has just read: callers who know of it must not be told of older ones afterwards.
    pub(crate) fn see(&self, block: Block) {
        self.best.send_if_modified(|known| {
            let newer = block.number > known.number;
            if newer {
                *known = block;
            }
            newer
        });
    }

    /// A block that one of our own calls has just come to be in.
    pub(crate) fn see_live(&self, block: Block) {
        if block.number > self.best.borrow().number {
            self.skew.learn(wall_clock_ms(), block);
        }
        self.see(block);
    }

    /// Reads the present heads and publishes those that are new. `live` when a head has just been announced.
    async fn refresh(&self, transport: &Transport, live: bool) -> Result<()> {
        let publish = |sender: &watch::Sender<Block>, block: Block| {
            sender.send_if_modified(|known| {
                let new = *known != block;
                *known = block;
                new
            })
        };
        if let Some(hash) = block_hash(transport, None).await? {
            if self.best.borrow().hash != hash {
                let block = read_block(transport, hash).await?;
                if live {
                    self.skew.learn(wall_clock_ms(), block);
                }
                publish(&self.best, block);
            }
        }
        let hash: H256 = transport.read("chain_getFinalizedHead", rpc_params![]).await?;
        if self.finalized.borrow().hash != hash {
            publish(&self.finalized, read_block(transport, hash).await?);
        }
        Ok(())
    }
}

/// Follows the chain's heads, and makes sure that there is somebody at the other end: a connection that has said nothing for
/// `silence` is asked for its health, and given up without an answer.
async fn monitor(transport: Arc<Transport>, silence: Duration, heads: Arc<Heads>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        match follow(&transport, silence, &heads, &mut backoff).await {
            Ok(()) => tracing::debug!("the subscription to heads ended, subscribing again"),
            Err(error) => tracing::warn!(%error, "lost the chain's heads, subscribing again"),
        }
        backoff.wait().await;
    }
}

async fn follow(
    transport: &Transport,
    silence: Duration,
    heads: &Heads,
    backoff: &mut Backoff,
) -> Result<()> {
    let mut new_heads = transport
        .subscribe::<SubstrateHeader<H256>>(
            "chain_subscribeNewHeads",
            rpc_params![],
            "chain_unsubscribeNewHeads",
        )
        .await?;
    let mut final_heads = transport
        .subscribe::<SubstrateHeader<H256>>(
            "chain_subscribeFinalizedHeads",
            rpc_params![],
            "chain_unsubscribeFinalizedHeads",
        )
        .await?;
    let generation = transport.generation();
    // What happened before the subscriptions stood.
    heads.refresh(transport, false).await?;
    *backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let next = tokio::time::timeout(silence, async {
            tokio::select! {
                head = futures::StreamExt::next(&mut new_heads) => head,
                head = futures::StreamExt::next(&mut final_heads) => head,
            }
        });
        match next.await {
            Ok(Some(Ok(_))) => {
                transport.hear();
                heads.refresh(transport, true).await?;
            }
            Ok(Some(Err(error))) => return Err(Error::decode("a head", error)),
            Ok(None) => return Ok(()),
            Err(_) => {
                // A chain that seals only on demand is rightly silent; a node that does not even answer is not.
                if transport.last_heard() >= silence {
                    let health = transport.once::<serde_json::Value>("system_health", rpc_params![]).await;
                    if let Err(error) = health {
                        if let Some(generation) = generation {
                            transport.close(generation, "silent for too long");
                        }
                        return Err(error);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chains_time_goes_on_between_its_blocks() {
        let skew = Skew::default();
        let block = |timestamp_ms| Block { number: 1, hash: H256::zero(), timestamp_ms };
        assert_eq!(skew.chain_time(1_000_000), 1_000_000);
        // A block that took two seconds to arrive is no other clock; one of another year is.
        skew.learn(1_000_000, block(998_000));
        assert_eq!(skew.chain_time(1_005_000), 1_005_000);
        skew.learn(1_000_000, block(500_000));
        assert_eq!(skew.chain_time(1_005_000), 505_000);
        skew.learn(1_000_000, block(1_100_000));
        assert_eq!(skew.chain_time(1_005_000), 1_105_000);
    }

    #[test]
    fn what_is_frozen_beyond_the_reserved_cannot_be_spent() {
        assert_eq!(spendable(100, 0, 0, 1), 99);
        // Freezes cover what is held as well.
        assert_eq!(spendable(100, 0, 60, 1), 40);
        assert_eq!(spendable(100, 50, 60, 1), 90);
        assert_eq!(spendable(100, 80, 60, 1), 99);
        assert_eq!(spendable(100, 0, 200, 1), 0);
        assert_eq!(spendable(0, 0, 0, 1), 0);
    }

    #[test]
    fn storage_keys_are_the_chains() {
        // Well-known keys, as every Substrate chain has them.
        assert_eq!(
            hex::encode(storage_key("System", "Account", &[])),
            "26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9"
        );
        assert_eq!(
            hex::encode(storage_key("System", "Events", &[])),
            "26aa394eea5630e07c48ae0c9558cef780d41e5e16056765bc8461851072c9d7"
        );
        assert_eq!(
            hex::encode(storage_key("Timestamp", "Now", &[])),
            "f0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"
        );
    }
}
