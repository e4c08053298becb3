//! Reading finalised blocks into the index.
//!
//! Only finalised blocks are read, so nothing that was read is undone by a chain that works. What a development chain does (it starts
//! again from the same genesis), and what a node does that was led astray, is found out all the same: before and after every batch the
//! last block that was read must still be the chain's. Where it is not, everything after the last common block is forgotten.
//!
//! **What it takes of the node.** Events are state of their block. A node keeps the state of the last 256 finalised blocks unless it was
//! told otherwise: an index that keeps up needs no more, one that begins later than that needs an archive node once. Besides events,
//! what no event tells is read of the same blocks: the contract's first parameters in the block of its birth, a node's payee, operator,
//! price and endpoint where it is registered or configured, a pool's books where it says something.

use crate::db::{Target, Workers};
use crate::error::{Error, Result};
use crate::ledger::{Birth, Block, Body, Fact, Facts, Id, PoolRead};
use crate::store::{Identity, Store};
use futures::StreamExt;
use poq_chain::events::NodeChange;
use poq_chain::pool::PoolEvent;
use poq_chain::types::NodeId;
use poq_chain::{to_account32, AccountId32, At, Client, PoqEvent, Said};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How blocks are read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many blocks are asked for at a time.
    pub concurrency: usize,
    /// How many blocks are written at a time.
    pub batch: u32,
    /// How long to wait after a failure that may pass.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { concurrency: 16, batch: 512, patience: Duration::from_secs(3) }
    }
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last block that was read.
    pub block: Block,
    /// The last finalised block that is known.
    pub head: u32,
    /// Events written since the start.
    pub events: u64,
}

/// Who reads a contract's finalised blocks into its index.
pub struct Follower {
    client: Client,
    contract: AccountId32,
    store: Workers<Store>,
    picker: Picker,
    options: Options,
    events: u64,
}

impl Follower {
    /// Opens the index of the client's contract.
    ///
    /// # Errors
    /// `NoContract`, and those of [`Store::open`].
    pub async fn open(client: Client, target: &Target, options: Options) -> Result<Follower> {
        let contract = client.contract()?;
        let identity = Identity::of(client.chain(), contract);
        let target = target.clone();
        let make = move || Store::open(&target, &identity);
        let store = Workers::start("poq-index", 1, make).await?;
        let picker = store.run(|store| Ok(Picker::of(store))).await?;
        Ok(Follower { client, contract, store, picker, options, events: 0 })
    }

    /// The index that it writes.
    pub fn store(&self) -> &Workers<Store> {
        &self.store
    }

    /// Reads up to the last finalised block, and returns it.
    ///
    /// # Errors
    /// `Pruned` where the node no longer has what is to be read, `Chain`, `Database`.
    pub async fn once(&mut self, told: &mut impl FnMut(Progress)) -> Result<Block> {
        let head: Block = self.client.finalized().await?.into();
        self.undo_what_is_gone(head).await?;
        let from = match self.store.run(|store| Ok(store.tip())).await? {
            Some(tip) => tip.number.saturating_add(1),
            None => self.begin(head).await?,
        };
        let mut first = from;
        while first <= head.number {
            let last = first.saturating_add(self.options.batch.saturating_sub(1)).min(head.number);
            let tip = self.batch(first, last).await?;
            told(Progress { block: tip, head: head.number, events: self.events });
            first = last.saturating_add(1);
        }
        self.heard(Some(head), None).await?;
        self.store.run(|store| Ok(store.tip())).await.map(|tip| tip.unwrap_or(head))
    }

    /// Reads every finalised block as it comes, until what goes wrong will not pass.
    ///
    /// # Errors
    /// As of [`Follower::once`], where trying again would not help.
    pub async fn follow(&mut self, mut told: impl FnMut(Progress)) -> Result<()> {
        let mut finalized = self.client.finalized_watch();
        loop {
            finalized.borrow_and_update();
            match self.once(&mut told).await {
                Ok(_) => {
                    // Says that the chain is there, where nothing happens for long.
                    let quiet = tokio::time::timeout(Duration::from_secs(10), finalized.changed()).await;
                    if matches!(quiet, Ok(Err(_))) {
                        return Ok(());
                    }
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "trying again");
                    // The database itself may be what is away.
                    let _ = self.heard(None, Some(error.to_string())).await;
                    tokio::time::sleep(self.options.patience).await;
                }
                Err(error) => {
                    let _ = self.heard(None, Some(error.to_string())).await;
                    return Err(error);
                }
            }
        }
    }

    async fn heard(&self, head: Option<Block>, error: Option<String>) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let head = head.map(|head| (head.number, head.at));
        self.store.run(move |store| store.heard(now, head, error.as_deref())).await
    }

    /// The hash of the chain's block of a number; `None` where there is none yet.
    async fn hash_at(&self, number: u32) -> Result<Option<poq_chain::H256>> {
        match self.client.block(At::Number(number)).await {
            Ok(block) => Ok(Some(block.hash)),
            Err(poq_chain::Error::NoBlock { .. }) => Ok(None),
            // Its state is gone; that it is there has been said before.
            Err(poq_chain::Error::Pruned { block }) => Ok(hash_in(&block)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a stored block is still the chain's.
    async fn is_there(&self, block: Block) -> Result<bool> {
        Ok(self.hash_at(block.number).await? == Some(block.hash))
    }

    /// Forgets what is no longer on the chain.
    async fn undo_what_is_gone(&mut self, head: Block) -> Result<()> {
        let Some(tip) = self.store.run(|store| Ok(store.tip())).await? else { return Ok(()) };
        if tip.number <= head.number {
            if self.is_there(tip).await? {
                return Ok(());
            }
        } else {
            // Either the node has not come as far as this index, or its chain is another one.
            let known = self.store.run(move |store| store.stored_block(head.number)).await?;
            let same = match known {
                Some(known) => self.is_there(known).await?,
                None => true,
            };
            if same {
                return Err(Error::Behind { head: head.number, tip: tip.number });
            }
        }
        // Backwards over the blocks in which something happened, to the last that is still there.
        let mut below = tip.number.min(head.number);
        let mut common = None;
        while let Some(block) = self.store.run(move |store| store.stored_block(below)).await? {
            if self.is_there(block).await? {
                common = Some(block);
                break;
            }
            let Some(next) = block.number.checked_sub(1) else { break };
            below = next;
        }
        match common {
            Some(common) => tracing::warn!(
                from = common.number.saturating_add(1),
                to = tip.number,
                "the chain is another one since: forgetting what was read of the old one"
            ),
            None => tracing::warn!("the chain began anew: forgetting what was read of the old one"),
        }
        self.picker = self
            .store
            .run(move |store| {
                store.undo_to(common)?;
                Ok(Picker::of(store))
            })
            .await?;
        Ok(())
    }

    /// Writes down the contract's birth; its block's number.
    async fn begin(&mut self, head: Block) -> Result<u32> {
        let has = |number: u32| {
            let (client, contract) = (self.client.clone(), self.contract);
            async move {
                match client.code_hash_at(&contract, At::Number(number)).await {
                    Ok(code) => Ok(code.is_some()),
                    Err(poq_chain::Error::Pruned { .. }) => Err(Error::Pruned { block: number }),
                    Err(error) => Err(error.into()),
                }
            }
        };
        if !has(head.number).await? {
            let (address, chain) = (self.contract, self.client.chain().name.clone());
            let endpoint = self.client.endpoint();
            return Err(poq_chain::Error::ContractAbsent { address, chain, endpoint }.into());
        }
        // It is there in `present` and not in `absent`: a contract does not go and come back.
        let (mut absent, mut present) = (0u32, head.number);
        while present.saturating_sub(absent) > 1 {
            let middle = absent.saturating_add(present.saturating_sub(absent) >> 1);
            if has(middle).await? {
                present = middle;
            } else {
                absent = middle;
            }
        }
        let view = self.client.view_at(At::Number(present)).await?;
        let birth = Birth {
            block: view.block().into(),
            contract: self.contract,
            genesis: self.client.chain().genesis_hash,
            overview: view.overview().await?,
        };
        tracing::info!(block = present, "the contract was made");
        self.picker = self
            .store
            .run(move |store| {
                store.begin(&birth)?;
                Ok(Picker::of(store))
            })
            .await?;
        Ok(present)
    }

    /// Reads and writes a batch of blocks; the last one.
    async fn batch(&mut self, first: u32, last: u32) -> Result<Block> {
        let (client, contract) = (&self.client, self.contract);
        let mut blocks = futures::stream::iter(first..=last)
            .map(|number| read(client, contract, number))
            .buffered(self.options.concurrency.max(1));
        let mut facts = Vec::new();
        let mut tip = None;
        while let Some(read) = blocks.next().await {
            let read = read?;
            tip = Some(read.block);
            let picked = self.picker.pick(&self.contract, &read.said);
            if picked.is_empty() {
                continue;
            }
            let pools = pools_of(client, contract, read.block, &picked).await?;
            facts.push(Facts { block: read.block, events: picked, nodes: read.nodes, pools });
        }
        drop(blocks);
        let Some(tip) = tip else { return Err(Error::Invalid(format!("no block from {first} to {last}"))) };
        // All of one chain: its last block is still there, and with it those before.
        if !self.is_there(tip).await? {
            return Err(Error::Chain(poq_chain::Error::NoBlock { block: format!("{:?}", tip.hash) }));
        }
        let events: usize = facts.iter().map(|facts| facts.events.len()).sum();
        self.store.run(move |store| store.append(&facts, tip)).await?;
        self.events = self.events.saturating_add(events as u64);
        Ok(tip)
    }
}

/// The hash in a message about a block, where it has one.
fn hash_in(block: &str) -> Option<poq_chain::H256> {
    crate::store::hash_of(block).map(poq_chain::H256)
}

/// A block as it was read.
struct Read {
    block: Block,
    said: Vec<Said>,
    nodes: BTreeMap<NodeId, poq_chain::types::NodeView>,
}

async fn read(client: &Client, contract: AccountId32, number: u32) -> Result<Read> {
    let pruned = |error| match error {
        poq_chain::Error::Pruned { .. } => Error::Pruned { block: number },
        error => Error::Chain(error),
    };
    let block = client.block(At::Number(number)).await.map_err(pruned)?;
    let said = client.said_at(block.hash).await.map_err(pruned)?;
    let mut nodes = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for said in said.iter().filter(|said| said.contract == contract) {
        match PoqEvent::decode(&said.topics, &said.data) {
            Ok(PoqEvent::NodeRegistered(e)) => {
                wanted.insert(e.node);
            }
            Ok(PoqEvent::NodeChanged(e)) if e.change == NodeChange::Configured => {
                wanted.insert(e.node);
            }
            _ => {}
        }
    }
    if !wanted.is_empty() {
        let view = client.view_at(block.hash).await.map_err(pruned)?;
        for id in wanted {
            nodes.extend(view.node(id).await.map_err(pruned)?.map(|view| (id, view)));
        }
    }
    Ok(Read { block: block.into(), said, nodes })
}

/// The pools that say something in a block, as they are after it.
async fn pools_of(
    client: &Client,
    contract: AccountId32,
    block: Block,
    events: &[Fact],
) -> Result<BTreeMap<Id, PoolRead>> {
    let pools: BTreeSet<Id> =
        events.iter().filter(|fact| fact.contract != contract).map(|fact| fact.contract.0).collect();
    let mut reads = BTreeMap::new();
    if pools.is_empty() {
        return Ok(reads);
    }
    let view = client.view_at(block.hash).await?;
    for id in pools {
        let pool = AccountId32(id);
        match view.pool(&pool).await {
            Ok(state) if to_account32(&state.poq) == contract => {
                let code = client.code_hash_at(&pool, block.hash).await?.map_or([0; 32], |hash| hash.0);
                reads.insert(id, PoolRead { code, view: state });
            }
            // It emits what pools emit, and is none.
            Ok(_)
            | Err(poq_chain::Error::NotOurContract { .. } | poq_chain::Error::ContractAbsent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(reads)
}

/// Which events belong to the history: the contract's, and those of the pools that own a node of it.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    pools: BTreeSet<Id>,
    owners: HashMap<NodeId, Id>,
}

impl Picker {
    fn of(store: &mut Store) -> Picker {
        let Some(ledger) = store.ledger() else { return Picker::default() };
        Picker {
            pools: ledger.pools.keys().copied().collect(),
            owners: ledger.nodes.iter().map(|(id, book)| (*id, to_account32(&book.node.owner).0)).collect(),
        }
    }

    /// The events that belong to the history, of a block's.
    pub fn pick(&mut self, poq: &AccountId32, said: &[Said]) -> Vec<Fact> {
        let mut picked = Vec::new();
        for said in said {
            let ours = said.contract == *poq || self.pools.contains(&said.contract.0);
            if !ours && !self.is_born(poq, said) {
                continue;
            }
            let place = (said.extrinsic, said.index);
            let fact = Fact::decode(poq, said.contract, place, said.topics.clone(), said.data.clone());
            if let Body::Core(PoqEvent::NodeRegistered(e)) = &fact.body {
                self.owners.insert(e.node, to_account32(&e.owner).0);
            }
            picked.push(fact);
        }
        picked
    }

    /// Whether a strange contract says that it is a new pool, and owns the node that it names.
    fn is_born(&mut self, poq: &AccountId32, said: &Said) -> bool {
        let born = match PoolEvent::decode(&said.topics, &said.data) {
            Ok(Some(PoolEvent::PoolCreated(e))) => {
                to_account32(&e.poq) == *poq && self.owners.get(&e.node) == Some(&said.contract.0)
            }
            _ => false,
        };
        if born {
            self.pools.insert(said.contract.0);
        }
        born
    }
}
