//! What a fuzz runs on: the contract's Wasm on the real runtime ([`super::Chain`]), or the contract's own code and records in this
//! process ([`super::Native`]). Acts, books and invariants are the same for both.

use super::message::Message;
use super::state::Written;
use super::Failure;
use crate::pool::Act as PoolAct;
use crate::Pair;
use ink::primitives::AccountId;
use poq_contract::errors::Error;
use poq_core::units::{Balance, Millis};
use poq_sandbox::dev;
use std::ops::Range;
use std::sync::OnceLock;

/// The contract's first owner.
pub const OWNER: usize = 0;
/// Who may become it.
pub const HEIRS: Range<usize> = 0..2;
/// Who may be auditors.
pub const AUDITORS: Range<usize> = 2..5;
/// Who asks.
pub const REQUESTERS: Range<usize> = 5..12;
/// Those of them, and payees, whose accounts may be emptied, so that the chain refuses to pay them little.
pub const POOR: Range<usize> = 11..14;
/// Who is paid for nodes, beside their owners.
pub const PAYEES: Range<usize> = 12..16;
/// Who owns nodes.
pub const OWNERS: Range<usize> = 16..28;
/// Who does nodes' duties.
pub const OPERATORS: Range<usize> = 28..34;
/// Who does what anybody can.
pub const KEEPERS: Range<usize> = 34..36;
/// Who has nothing to do with anything.
pub const OUTSIDER: usize = 36;
/// Who holds shares of the pool.
pub const HOLDERS: Range<usize> = 37..41;
/// Who runs the pool.
pub const MANAGER: usize = 41;
/// Who does the duties of the pool's node.
pub const POOL_OPERATOR: usize = 42;
/// How many people there are.
pub const PEOPLE: usize = 43;

/// The keys of all people.
pub fn keys() -> &'static [Pair] {
    static KEYS: OnceLock<Vec<Pair>> = OnceLock::new();
    KEYS.get_or_init(|| (0..PEOPLE as u64).map(|person| dev::numbered(5_000 + person)).collect())
}

/// The accounts of all people.
pub fn people() -> &'static [AccountId] {
    static ACCOUNTS: OnceLock<Vec<AccountId>> = OnceLock::new();
    ACCOUNTS.get_or_init(|| keys().iter().map(crate::ink_of).collect())
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A message to the contract.
    Message(Message),
    /// An act on the pool that owns one of the nodes.
    Pool(PoolAct),
    /// Any bytes to the contract.
    Raw(Vec<u8>),
}

impl Payload {
    /// What it is called in the table of calls.
    pub fn name(&self) -> &'static str {
        match self {
            Payload::Message(message) => message.name(),
            Payload::Pool(_) => "(pool)",
            Payload::Raw(_) => "(raw bytes)",
        }
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The person who sends it.
    pub from: usize,
    /// The money with it.
    pub value: Balance,
    /// What is sent.
    pub payload: Payload,
}

/// Why a call was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The contract says so.
    Contract(Error),
    /// It could not read the call.
    Unreadable,
    /// The pool says so.
    Pool(String),
    /// What runs the contract says so: no money for it, money with a message that takes none.
    Framework(String),
}

impl Refused {
    /// A short name: what refusals are counted by.
    pub fn name(&self) -> String {
        let words = |text: String| text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
        match self {
            Refused::Contract(Error::Task(refusal)) => format!("Task::{}", words(format!("{refusal:?}"))),
            Refused::Contract(error) => words(format!("{error:?}")),
            Refused::Unreadable => "Unreadable".into(),
            Refused::Pool(error) => format!("pool {error}"),
            Refused::Framework(error) => format!("[{error}]"),
        }
    }
}

/// What a call did.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it returned, encoded, or why it was refused.
    pub answer: Result<Vec<u8>, Refused>,
    /// The contract's cells that may be other than before: all that are.
    pub written: Vec<Written>,
    /// What the sender paid for sending.
    pub fee: Balance,
    /// Storage deposit that the sender paid; negative for what it got back. Nothing where no deposits exist.
    pub deposit: Option<i128>,
    /// Computing, where it is charged.
    pub ref_time: u64,
}

/// Where the contract runs.
pub trait Machine {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Begins anew: a contract without kinds and nodes that [`OWNER`] owns, and people with money.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn reset(&mut self) -> Result<(), Failure>;

    /// The time of the block that calls go into now.
    fn now(&self) -> Millis;

    /// Ends that block. The next one is at this time, or as soon after it as can be.
    ///
    /// # Errors
    /// Where the machine is broken, or something that it looks after itself does not hold.
    fn wait_until(&mut self, at: Millis) -> Result<(), Failure>;

    /// Whether it can run this message.
    fn can(&self, payload: &Payload) -> bool;

    /// Sends a call.
    ///
    /// # Errors
    /// A violation where the contract traps; else where the machine is broken.
    fn send(&mut self, call: &Call) -> Result<Sent, Failure>;

    /// All that each of these accounts has outside the contract.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn wealth(&mut self, accounts: &[AccountId]) -> Result<Vec<Balance>, Failure>;

    /// What the contract can spend.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn purse(&mut self) -> Result<Balance, Failure>;

    /// Sends money to the contract's account past its messages.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn give(&mut self, amount: Balance) -> Result<(), Failure>;

    /// Empties a person's account, so that it is gone; or fills an empty one.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn starve(&mut self, person: usize) -> Result<(), Failure>;

    /// All of the contract's cells.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn cells(&mut self) -> Result<Vec<Written>, Failure>;

    /// Makes the pool that owns a node, where there can be one: its account.
    ///
    /// # Errors
    /// Where the machine is broken.
    fn found_pool(&mut self) -> Result<Option<AccountId>, Failure>;

    /// A live contract with code that the contract could be given, and one whose code it could not be.
    fn instances(&self) -> Option<[AccountId; 2]>;

    /// Below how much an account that is gone cannot be paid.
    fn existential(&self) -> Balance;
}
