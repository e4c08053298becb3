//! The index as its one writer has it: what is stored, and the books that follow from it, in memory.

use crate::db::schema::{self, BLOCKS, EVENTS, FOLLOWER, READS, TIP};
use crate::db::{Access, Cell, Conn, Row, Target};
use crate::error::{Error, Result};
use crate::ledger::{Birth, Block, Body, Fact, Facts, Ledger, Out, PoolRead};
use crate::row;
use crate::rows::{address, block_row, hex, written, Rows};
use parity_scale_codec::{DecodeAll, Encode};
use poq_chain::types::{NodeView, Overview};
use poq_chain::{AccountId32, ChainInfo, H256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// How many events are decoded and applied between two writes, when the books are made anew.
const PAGE: usize = 5_000;

/// Whose history an index is, and how its money and addresses are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The chain's genesis.
    pub genesis: H256,
    /// The contract.
    #[serde(with = "account")]
    pub contract: AccountId32,
    /// The chain's name.
    pub chain: String,
    /// What a whole unit of its money is called.
    pub symbol: String,
    /// How many decimals that has.
    pub decimals: u8,
    /// The prefix of its addresses.
    pub ss58_prefix: u16,
}

mod account {
    use super::{AccountId32, FromStr};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(account: &AccountId32, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(account)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<AccountId32, D::Error> {
        AccountId32::from_str(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl Identity {
    /// Of a contract on a chain.
    pub fn of(chain: &ChainInfo, contract: AccountId32) -> Identity {
        Identity {
            genesis: chain.genesis_hash,
            contract,
            chain: chain.name.clone(),
            symbol: chain.symbol.clone(),
            decimals: chain.decimals,
            ss58_prefix: chain.ss58_prefix,
        }
    }

    fn shown(&self) -> String {
        format!("contract {} on the chain of genesis {:?}", self.contract, self.genesis)
    }

    /// Whose history a database has.
    ///
    /// # Errors
    /// `Empty` where it has none; `Database`.
    pub fn read(conn: &mut Conn, database: &str) -> Result<Identity> {
        schema::check(conn, database)?;
        let text = schema::meta(conn, "network")?.unwrap_or_default();
        serde_json::from_str(&text).map_err(|error| Error::Database {
            what: "reading whose history this is".into(),
            reason: error.to_string(),
        })
    }
}

/// The index, open for writing.
pub struct Store {
    conn: Conn,
    identity: Identity,
    ledger: Option<Ledger>,
    tip: Option<Block>,
}

impl Store {
    /// Opens the index of a contract, and makes it where there is none. What follows from the events is made anew where this version
    /// derives other things than the one that wrote it.
    ///
    /// # Errors
    /// `OtherNetwork` where it is another's, `Layout`, `Open`, `Database`.
    pub fn open(target: &Target, identity: &Identity) -> Result<Store> {
        let mut conn = Conn::open(target, Access::Write)?;
        let anew = schema::prepare(&mut conn)?;
        match schema::meta(&mut conn, "network")? {
            None => {
                let text = serde_json::to_string(identity).unwrap_or_default();
                schema::set_meta(&mut conn, "network", &text)?;
            }
            Some(text) => {
                let found: Option<Identity> = serde_json::from_str(&text).ok();
                let same = found
                    .as_ref()
                    .is_some_and(|f| (f.genesis, f.contract) == (identity.genesis, identity.contract));
                if !same {
                    return Err(Error::OtherNetwork {
                        found: found.map_or(text, |found| found.shown()),
                        expected: identity.shown(),
                    });
                }
            }
        }
        let mut store = Store { conn, identity: identity.clone(), ledger: None, tip: None };
        store.tip = store.stored_tip()?;
        if anew {
            tracing::info!("deriving everything anew from the stored events");
            store.rebuild()?;
        } else {
            store.load(false)?;
        }
        Ok(store)
    }

    /// The last block that was read.
    pub fn tip(&self) -> Option<Block> {
        self.tip
    }

    /// The books after it; `None` before the contract's birth is stored.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// Whose history it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The connection, for reading what was written.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    fn stored_tip(&mut self) -> Result<Option<Block>> {
        let row = self.conn.first("SELECT number, hash, at FROM tip WHERE id = 1", &[])?;
        row.map(|row| block_of(&row)).transpose()
    }

    /// Writes down where the history begins.
    ///
    /// # Errors
    /// `Database`.
    pub fn begin(&mut self, birth: &Birth) -> Result<()> {
        self.conn.transaction(|conn| {
            let key = birth.contract.to_string();
            conn.write(&BLOCKS, &[block_row(&birth.block)])?;
            conn.write(&READS, &[row![birth.block.number, "birth", key, birth.overview.encode()]])
        })?;
        self.ledger = Some(Ledger::new(birth));
        Ok(())
    }

    /// Writes down what blocks say. `tip` is the last block that was read: blocks without events are not written down.
    ///
    /// # Errors
    /// `Contended` where somebody else has written meanwhile: nothing is written then; `Database`.
    pub fn append(&mut self, blocks: &[Facts], tip: Block) -> Result<()> {
        let Some(ledger) = &mut self.ledger else {
            return Err(Error::Invalid("the contract's birth is not stored yet".into()));
        };
        let before = ledger.clone_if_small();
        let mut out = Out::default();
        blocks.iter().for_each(|facts| ledger.apply(facts, &mut out));
        for finding in &out.strange {
            tracing::warn!(
                block = finding.block,
                event = finding.index,
                task = finding.task,
                "{} ({}): expected {}, found {}",
                finding.what,
                finding.check,
                finding.expected,
                finding.found
            );
        }
        let expected = self.tip;
        let ledger = &*ledger;
        let written = self.conn.transaction(|conn| {
            claim(conn, expected, tip)?;
            raw(conn, blocks)?;
            derived(conn, ledger, &out)
        });
        match written {
            Ok(()) => {
                self.tip = Some(tip);
                if let Some(ledger) = &mut self.ledger {
                    ledger.forget(tip.at);
                }
                Ok(())
            }
            Err(error) => {
                // The books are ahead of what is stored.
                match before {
                    Some(before) => self.ledger = Some(before),
                    None => self.load(false)?,
                }
                Err(error)
            }
        }
    }

    /// The newest stored block, at most `below`, for finding out since when the chain is another one.
    ///
    /// # Errors
    /// `Database`.
    pub fn stored_block(&mut self, below: u32) -> Result<Option<Block>> {
        let sql = "SELECT number, hash, at FROM blocks WHERE number <= ?1 ORDER BY number DESC LIMIT 1";
        self.conn.first(sql, &row![below])?.map(|row| block_of(&row)).transpose()
    }

    /// Forgets everything after a block that is still on the chain, and derives the rest anew. All, where the block is `None`.
    ///
    /// # Errors
    /// `Database`.
    pub fn undo_to(&mut self, block: Option<Block>) -> Result<()> {
        let last = block.map_or(-1, |block| i64::from(block.number));
        self.conn.transaction(|conn| {
            for table in ["blocks", "events", "reads"] {
                let column = if table == "blocks" { "number" } else { "block" };
                conn.execute(&format!("DELETE FROM {table} WHERE {column} > ?1"), &row![last])?;
            }
            match block {
                Some(block) => conn.write(&TIP, &[tip_row(&block)]),
                None => conn.execute("DELETE FROM tip", &[]).map(drop),
            }
        })?;
        self.tip = block;
        self.rebuild()
    }

    /// Derives everything anew from the stored events, in one transaction.
    ///
    /// # Errors
    /// `Database`, `Stored`.
    pub fn rebuild(&mut self) -> Result<()> {
        self.load(true)
    }

    /// Moves new books through all stored events; writes the derived tables where `write`.
    fn load(&mut self, write: bool) -> Result<()> {
        let contract = self.identity.contract;
        let birth = birth(&mut self.conn, &self.identity)?;
        let Some(birth) = birth else {
            if write {
                self.conn.transaction(schema::reset_derived)?;
            }
            self.ledger = None;
            return Ok(());
        };
        let mut ledger = Ledger::new(&birth);
        let mut work = |conn: &mut Conn| {
            if write {
                schema::reset_derived(conn)?;
            }
            let mut from = birth.block.number;
            loop {
                let page = stored(conn, &contract, from, PAGE)?;
                let Some(last) = page.last().map(|facts| facts.block) else { return Ok(()) };
                let mut out = Out::default();
                page.iter().for_each(|facts| ledger.apply(facts, &mut out));
                if write {
                    derived(conn, &ledger, &out)?;
                }
                ledger.forget(last.at);
                from = last.number.saturating_add(1);
            }
        };
        if write {
            self.conn.transaction(work)?;
        } else {
            work(&mut self.conn)?;
        }
        self.ledger = Some(ledger);
        Ok(())
    }

    /// Says that the chain was heard of, or that it was not and why.
    ///
    /// # Errors
    /// `Database`.
    pub fn heard(&mut self, now: u64, head: Option<(u32, u64)>, error: Option<&str>) -> Result<()> {
        let known = self.conn.first("SELECT heard_at, head, head_at FROM follower WHERE id = 1", &[])?;
        let (mut heard, mut number, mut at) =
            known.map_or((0, 0, 0), |row| (row.uint(0), row.u32(1), row.uint(2)));
        if let Some(head) = head {
            heard = now;
            (number, at) = head;
        }
        self.conn.write(&FOLLOWER, &[row![1u8, heard, number, at, error]])
    }
}

impl Ledger {
    /// A copy, for going back to where a write fails; none of books that are large: those are read again instead.
    fn clone_if_small(&self) -> Option<Ledger> {
        let size = self.tasks.len().saturating_add(self.nodes.len()).saturating_add(self.accounts.len());
        (size < 200).then(|| self.clone())
    }
}

fn tip_row(block: &Block) -> Vec<Cell> {
    row![1u8, block.number, hex(&block.hash.0), block.at]
}

/// Moves the tip on, where it still is what this writer knows.
fn claim(conn: &mut Conn, expected: Option<Block>, tip: Block) -> Result<()> {
    let row = conn.first("SELECT number, hash, at FROM tip WHERE id = 1", &[])?;
    let found = row.map(|row| block_of(&row)).transpose()?;
    if found != expected {
        let shown = |block: Option<Block>| {
            block.map_or("none".to_owned(), |b| format!("{} ({:?})", b.number, b.hash))
        };
        return Err(Error::Contended { expected: shown(expected), found: shown(found) });
    }
    conn.write(&TIP, &[tip_row(&tip)])
}

fn raw(conn: &mut Conn, blocks: &[Facts]) -> Result<()> {
    let (mut headers, mut events, mut reads) = (Rows::new(), Rows::new(), Rows::new());
    for facts in blocks {
        let Facts { block, nodes, pools, .. } = facts;
        if facts.events.is_empty() {
            continue;
        }
        headers.push(block_row(block));
        for fact in &facts.events {
            let topics: Vec<u8> = fact.topics.iter().flat_map(|topic| topic.0).collect();
            events.push(row![
                block.number,
                fact.index,
                fact.extrinsic,
                fact.contract.to_string(),
                fact.name(),
                topics,
                fact.data.clone(),
            ]);
        }
        reads
            .extend(nodes.iter().map(|(id, view)| row![block.number, "node", id.to_string(), view.encode()]));
        reads.extend(pools.iter().map(|(id, read)| row![block.number, "pool", address(id), read.encode()]));
    }
    conn.write(&BLOCKS, &headers)?;
    conn.write(&EVENTS, &events)?;
    conn.write(&READS, &reads)
}

fn derived(conn: &mut Conn, ledger: &Ledger, out: &Out) -> Result<()> {
    let mut strange = Rows::new();
    let mut place = (0, 0, 0u32);
    for finding in &out.strange {
        place = match place {
            (block, index, part) if (block, index) == (finding.block, finding.index) => {
                (block, index, part.saturating_add(1))
            }
            _ => (finding.block, finding.index, 0),
        };
        let what = format!(
            "{} ({}): expected {}, found {}",
            finding.what, finding.check, finding.expected, finding.found
        );
        strange.push(row![place.0, place.1, place.2, what]);
    }
    let written = written(ledger, &out.touched, &out.ends, &strange);
    for task in written.duties_of {
        conn.execute("DELETE FROM duties WHERE task = ?1", &row![task])?;
    }
    written.rows.iter().try_for_each(|(table, rows)| conn.write(table, rows))
}

/// A hash from a table.
pub(crate) fn hash_of(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(bytes)
}

/// A block from its row: number, hash, time.
pub(crate) fn block_of(row: &Row) -> Result<Block> {
    let broken = || Error::Stored {
        block: row.u32(0),
        index: 0,
        reason: "the block's hash is not 32 bytes in hexadecimal".into(),
    };
    Ok(Block { number: row.u32(0), hash: H256(hash_of(&row.text(1)).ok_or_else(broken)?), at: row.uint(2) })
}

/// Where the stored history begins.
pub(crate) fn birth(conn: &mut Conn, identity: &Identity) -> Result<Option<Birth>> {
    let sql = "SELECT b.number, b.hash, b.at, r.data FROM reads r JOIN blocks b ON b.number = r.block \
               WHERE r.what = 'birth' ORDER BY b.number LIMIT 1";
    let Some(row) = conn.first(sql, &[])? else { return Ok(None) };
    let block = block_of(&row)?;
    let overview = Overview::decode_all(&mut row.bytes(3)).map_err(|error| Error::Stored {
        block: block.number,
        index: 0,
        reason: format!("the contract's overview: {error}"),
    })?;
    let (contract, genesis) = (identity.contract, identity.genesis);
    Ok(Some(Birth { block, contract, genesis, overview }))
}

/// The stored blocks from number `from` on: whole ones, about `events` events.
pub(crate) fn stored(
    conn: &mut Conn,
    contract: &AccountId32,
    from: u32,
    events: usize,
) -> Result<Vec<Facts>> {
    let sql = "SELECT block FROM events WHERE block >= ?1 ORDER BY block, idx LIMIT 1 OFFSET ?2";
    let to = match conn.first(sql, &row![from, events])? {
        Some(row) => row.u32(0),
        None => u32::MAX,
    };
    between(conn, contract, from, to)
}

/// The stored blocks from number `from` to number `to`.
pub(crate) fn between(conn: &mut Conn, contract: &AccountId32, from: u32, to: u32) -> Result<Vec<Facts>> {
    let mut blocks: BTreeMap<u32, Facts> = BTreeMap::new();
    let sql = "SELECT number, hash, at FROM blocks WHERE number BETWEEN ?1 AND ?2 ORDER BY number";
    for row in conn.query(sql, &row![from, to])? {
        let block = block_of(&row)?;
        let facts = Facts { block, events: Vec::new(), nodes: BTreeMap::new(), pools: BTreeMap::new() };
        blocks.insert(block.number, facts);
    }
    let sql = "SELECT block, idx, extrinsic, contract, topics, data FROM events \
               WHERE block BETWEEN ?1 AND ?2 ORDER BY block, idx";
    conn.each(sql, &row![from, to], |row| {
        let fact = fact_of(contract, &row)?;
        if let Some(facts) = blocks.get_mut(&row.u32(0)) {
            facts.events.push(fact);
        }
        Ok(())
    })?;
    let sql = "SELECT block, what, id, data FROM reads WHERE block BETWEEN ?1 AND ?2 ORDER BY block";
    conn.each(sql, &row![from, to], |row| {
        let Some(facts) = blocks.get_mut(&row.u32(0)) else { return Ok(()) };
        let broken = |reason: String| Error::Stored { block: row.u32(0), index: 0, reason };
        let mut data = row.bytes(3);
        match row.text(1).as_str() {
            "node" => {
                let view = NodeView::decode_all(&mut data).map_err(|e| broken(format!("a node: {e}")))?;
                facts.nodes.insert(view.id, view);
            }
            "pool" => {
                let read = PoolRead::decode_all(&mut data).map_err(|e| broken(format!("a pool: {e}")))?;
                let pool = AccountId32::from_str(&row.text(2))
                    .map_err(|e| broken(format!("a pool's address: {e}")))?;
                facts.pools.insert(pool.0, read);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(blocks.into_values().collect())
}

/// An event from its row: block, index, extrinsic, contract, topics, data.
pub(crate) fn fact_of(contract: &AccountId32, row: &Row) -> Result<Fact> {
    let index = row.u32(1);
    let said = AccountId32::from_str(&row.text(3)).map_err(|error| Error::Stored {
        block: row.u32(0),
        index,
        reason: format!("the contract's address: {error}"),
    })?;
    let extrinsic = row.opt_int(2).and_then(|number| u32::try_from(number).ok());
    let topics =
        row.bytes(4).chunks_exact(32).map(|topic| H256(topic.try_into().unwrap_or_default())).collect();
    Ok(Fact::decode(contract, said, (extrinsic, index), topics, row.bytes(5).to_vec()))
}

impl Fact {
    /// Whether it is one of the contract's or of a pool's that is understood.
    pub fn is_understood(&self) -> bool {
        !matches!(self.body, Body::Strange(_))
    }
}
