//! The contract's own code in this process, without Wasm and without a chain: its messages, `poq-core`'s records and transitions,
//! cells in memory. ink!'s off-chain environment has caller, value, time and balances. Code changes and calls between contracts need a
//! chain.

use super::machine::{people, Call, Machine, Payload, Refused, Sent, OWNER};
use super::message::Message;
use super::state::Written;
use super::Failure;
use crate::{global, EPOCH_MS};
use ink::env::{test, DefaultEnvironment};
use ink::primitives::AccountId;
use ink::storage::traits::Storable;
use poq_contract::{native, Poq};
use poq_core::commitment::Hash;
use poq_core::units::{Balance, Millis};
use poq_sandbox::UNIT;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Where the root is.
const ROOT: [u8; 4] = [0; 4];
/// What people begin with.
const ENDOWMENT: Balance = 1_000_000 * UNIT;
/// Blocks are at least so far apart, as on the chain.
const BLOCK_MS: Millis = 10;

type Env = DefaultEnvironment;

/// The contract in this thread; there can be one in each.
#[derive(Debug)]
pub struct Native {
    contract: AccountId,
    genesis: Hash,
    start: (Millis, u32),
    now: Millis,
    block: u32,
}

impl Native {
    /// A contract at this account of the chain with this genesis, in a block at this time with this number.
    ///
    /// # Errors
    /// Where the contract cannot be made.
    pub fn at(contract: AccountId, genesis: Hash, start: (Millis, u32)) -> Result<Native, Failure> {
        let mut machine = Native { contract, genesis, start, now: 0, block: 0 };
        machine.reset()?;
        Ok(machine)
    }

    /// A contract of its own.
    ///
    /// # Errors
    /// Where the contract cannot be made.
    pub fn new() -> Result<Native, Failure> {
        Native::at([200; 32].into(), [1; 32], (1_767_225_600_000, 1))
    }

    /// The number of the block that calls go into now.
    pub fn block(&self) -> u32 {
        self.block
    }

    fn balance(account: AccountId) -> Balance {
        test::get_account_balance::<Env>(account).unwrap_or(0)
    }

    /// Moves money, and says that it came with a call.
    fn transfer(from: AccountId, to: AccountId, amount: Balance) {
        test::set_caller::<Env>(from);
        test::set_callee::<Env>(to);
        test::transfer_in::<Env>(amount);
    }
}

impl Machine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn reset(&mut self) -> Result<(), Failure> {
        native::clear();
        (self.now, self.block) = self.start;
        test::set_account_balance::<Env>(self.contract, 0);
        for person in people() {
            test::set_account_balance::<Env>(*person, ENDOWMENT);
        }
        test::set_block_timestamp::<Env>(self.now);
        test::set_block_number::<Env>(self.block);
        Native::transfer(people()[OWNER], self.contract, 0);
        let contract = Poq::new(self.genesis, EPOCH_MS, global())
            .map_err(|error| Failure::broken(format!("no contract: {error}")))?;
        let mut root = Vec::new();
        Storable::encode(&contract, &mut root);
        native::write(ROOT.to_vec(), root);
        native::commit();
        Ok(())
    }

    fn now(&self) -> Millis {
        self.now
    }

    fn wait_until(&mut self, at: Millis) -> Result<(), Failure> {
        self.now = at.max(self.now + BLOCK_MS);
        self.block += 1;
        test::set_block_timestamp::<Env>(self.now);
        test::set_block_number::<Env>(self.block);
        Ok(())
    }

    fn can(&self, payload: &Payload) -> bool {
        match payload {
            Payload::Message(message) => !matches!(message, Message::ProposeCode(_) | Message::SetCode()),
            Payload::Pool(_) | Payload::Raw(_) => false,
        }
    }

    fn send(&mut self, call: &Call) -> Result<Sent, Failure> {
        let mut sent = Sent {
            answer: Err(Refused::Framework("not here".into())),
            written: Vec::new(),
            fee: 0,
            deposit: None,
            ref_time: 0,
        };
        let Payload::Message(message) = &call.payload else { return Ok(sent) };
        let from = people()[call.from];
        if call.value > 0 && !message.is_payable() {
            sent.answer = Err(Refused::Framework("takes no money".into()));
            return Ok(sent);
        }
        if Native::balance(from) < call.value {
            sent.answer = Err(Refused::Framework("no money".into()));
            return Ok(sent);
        }
        let before = Native::balance(self.contract);
        Native::transfer(from, self.contract, call.value);
        let root = native::read(&ROOT).ok_or_else(|| Failure::broken("the contract has no root"))?;
        let mut contract: Poq = Storable::decode(&mut &root[..])
            .map_err(|error| Failure::violation(format!("the root does not decode: {error:?}")))?;
        let ran = catch_unwind(AssertUnwindSafe(|| message.run(&mut contract)));
        match ran {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                native::roll_back();
                Err(Failure::violation(format!("{} traps: {}", message.name(), text.unwrap_or_default())))
            }
            Ok(Ok(answer)) => {
                let mut after = Vec::new();
                Storable::encode(&contract, &mut after);
                if after != root {
                    native::write(ROOT.to_vec(), after);
                }
                sent.answer = Ok(answer);
                sent.written = native::commit();
                Ok(sent)
            }
            Ok(Err(error)) => {
                native::roll_back();
                Native::transfer(self.contract, from, call.value);
                if Native::balance(self.contract) != before {
                    return Err(Failure::violation(format!(
                        "{} paid, and refused: {error:?}",
                        message.name()
                    )));
                }
                sent.answer = Err(Refused::Contract(error));
                Ok(sent)
            }
        }
    }

    fn wealth(&mut self, accounts: &[AccountId]) -> Result<Vec<Balance>, Failure> {
        Ok(accounts.iter().map(|account| Native::balance(*account)).collect())
    }

    fn purse(&mut self) -> Result<Balance, Failure> {
        Ok(Native::balance(self.contract))
    }

    fn give(&mut self, amount: Balance) -> Result<(), Failure> {
        let rich = [250; 32].into();
        test::set_account_balance::<Env>(rich, amount.max(UNIT));
        Native::transfer(rich, self.contract, amount);
        Ok(())
    }

    fn starve(&mut self, person: usize) -> Result<(), Failure> {
        let account = people()[person];
        let filled = if Native::balance(account) == 0 { ENDOWMENT } else { 0 };
        test::set_account_balance::<Env>(account, filled);
        Ok(())
    }

    fn cells(&mut self) -> Result<Vec<Written>, Failure> {
        Ok(native::cells().into_iter().map(|(key, record)| (key, Some(record))).collect())
    }

    fn found_pool(&mut self) -> Result<Option<AccountId>, Failure> {
        Ok(None)
    }

    fn instances(&self) -> Option<[AccountId; 2]> {
        None
    }

    fn existential(&self) -> Balance {
        0
    }
}
