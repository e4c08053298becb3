//! The contract's Wasm on the real runtime: signed extrinsics, in blocks whose author puts them into any order. Every call is tried
//! first, as a wallet does; what is accepted is sent, and now and then what is refused, to see that it changes nothing.

use super::machine::{
    keys, people, Call, Machine, Payload, Refused, Sent, HOLDERS, MANAGER, OWNER, POOL_OPERATOR,
};
use super::state::Written;
use super::Failure;
use crate::pool::{call as pool_call, Act as PoolAct, TestPool, PSP22_TRANSFER, RULES, TERMS};
use crate::{encode, global, ink_account, Built, World, EPOCH_MS};
use ink::primitives::AccountId;
use parity_scale_codec::{Decode, Encode};
use poq_contract::errors::Error;
use poq_core::pool::Terms;
use poq_core::registry::Role;
use poq_core::units::{Balance, Millis, Ratio};
use poq_pool_contract::types::MemberView;
use poq_sandbox::runtime::{BalancesCall, RuntimeCall, System, EXISTENTIAL_DEPOSIT};
use poq_sandbox::{
    account_of, call_of, dev, dispatch_error_name, signed_deposit, AccountId32, Code, Draft, Sandbox,
    SandboxError, Snapshot, Weight, UNIT,
};
use std::path::Path;

/// What people begin with.
const ENDOWMENT: Balance = 1_000_000 * UNIT;
/// Every so many refused calls one is sent all the same.
const INSIST: u64 = 16;
/// The pool's bond.
const BOND: Balance = 300 * UNIT;

/// A chain with the contract on it.
pub struct Chain {
    world: World,
    base: Snapshot,
    draft: Option<Draft>,
    /// The id of the child trie that the contract's storage is in.
    storage: Vec<u8>,
    /// Live contracts: one with the contract's code under another hash, one with other code.
    instances: [AccountId; 2],
    pool: Option<TestPool>,
    gifts: Balance,
    refused: u64,
    /// Whether something may have happened to the pool in this block.
    stirred: bool,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chain({:?})", self.draft)
    }
}

/// The account in the chain's type.
fn account(id: &AccountId) -> AccountId32 {
    let bytes: [u8; 32] = *id.as_ref();
    bytes.into()
}

/// Whatever the sandbox says that is not about the contract.
fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::broken(error.to_string())
}

impl Chain {
    /// A chain with the built contract.
    ///
    /// # Errors
    /// Where the contract has not been built, or does not start.
    pub fn new() -> Result<Chain, Failure> {
        Chain::of(crate::wasm())
    }

    /// A chain with the contract of a file.
    ///
    /// # Errors
    /// Where there is no such file, or the contract does not start.
    pub fn of_file(path: &Path) -> Result<Chain, Failure> {
        Chain::of(std::fs::read(path).map_err(|error| broken(format!("{}: {error}", path.display())))?)
    }

    fn of(wasm: Vec<u8>) -> Result<Chain, Failure> {
        let mut chain = Sandbox::new().map_err(broken)?;
        for person in keys() {
            chain.fund(&account_of(person), ENDOWMENT).map_err(broken)?;
        }
        let genesis: [u8; 32] = chain.block_hash(0).ok_or_else(|| broken("no genesis block"))?.into();
        let data = [ink::selector_bytes!("new").to_vec(), (genesis, EPOCH_MS, global()).encode()].concat();
        // The same code under another hash: with a custom section behind it.
        let other = [wasm.clone(), b"\0\x06\x05later".to_vec()].concat();
        let mut place = |who: &crate::Pair, code: Vec<u8>, data: Vec<u8>| {
            chain.instantiate(who, 0, Code::Upload(code), data, vec![]).map(|placed| placed.address)
        };
        let contract = place(&keys()[OWNER], wasm, data.clone()).map_err(broken)?;
        let later = place(&dev::bob(), other, data).map_err(broken)?;
        let mute = place(&dev::bob(), crate::MUTE.to_vec(), vec![]).map_err(broken)?;
        let world = World::around(chain, contract.clone(), keys()[OWNER].clone()).map_err(broken)?;
        let storage = world.chain.storage_id(&contract).map_err(broken)?;
        let base = world.chain.snapshot();
        let mut machine = Chain {
            world,
            base,
            draft: None,
            storage: storage.ok_or_else(|| broken("the contract has no storage"))?,
            instances: [ink_account(&later), ink_account(&mute)],
            pool: None,
            gifts: 0,
            refused: 0,
            stirred: false,
        };
        machine.reset()?;
        Ok(machine)
    }

    /// The contract's account, and the hash of the chain's genesis block.
    pub fn place(&self) -> (AccountId, [u8; 32]) {
        let genesis = self.world.chain.block_hash(0).map_or([0; 32], Into::into);
        (ink_account(&self.world.contract), genesis)
    }

    /// The number of the block that calls go into now.
    pub fn block(&self) -> u32 {
        self.draft.as_ref().map_or(0, Draft::number)
    }

    fn draft(&mut self) -> Result<(&Sandbox, &mut Draft), Failure> {
        let draft = self.draft.as_mut().ok_or_else(|| broken("no block is begun"))?;
        Ok((&self.world.chain, draft))
    }

    fn seal(&mut self) -> Result<(), Failure> {
        if let Some(draft) = self.draft.take() {
            self.world.chain.seal(draft).map_err(broken)?;
        }
        if std::mem::take(&mut self.stirred) {
            if let Some(pool) = &self.pool {
                let holders = &keys()[HOLDERS];
                self.world
                    .check_pool(pool, holders, self.gifts)
                    .map_err(|error| Failure::violation(format!("the pool: {error}")))?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.draft = Some(self.world.chain.begin_block().map_err(broken)?);
        Ok(())
    }

    /// What a pool's act sends: who, to whom, how much, which bytes.
    fn pool_data(&mut self, pool: &TestPool, act: &PoolAct) -> Result<(usize, Balance, Vec<u8>), Failure> {
        let holder = |who: usize| HOLDERS.start + who % HOLDERS.len();
        let id = |who: usize| people()[holder(who)];
        Ok(match *act {
            PoolAct::Deposit(who, amount) => (holder(who), amount, encode(pool_call().deposit())),
            PoolAct::Exit(who, part) => {
                let shares = self.shares(pool, id(who), part)?;
                (holder(who), 0, encode(pool_call().exit(shares)))
            }
            PoolAct::Claim(who) => (holder(who + 1), 0, encode(pool_call().claim(id(who)))),
            PoolAct::Give(from, to, part) => {
                let shares = self.shares(pool, id(from), part)?;
                let arguments = (id(to), shares, Vec::<u8>::new()).encode();
                (holder(from), 0, [PSP22_TRANSFER.to_vec(), arguments].concat())
            }
            PoolAct::Advance => (holder(0), 0, encode(pool_call().advance())),
            PoolAct::AddBond(amount) => (MANAGER, amount, encode(pool_call().add_bond())),
            PoolAct::Collect => (MANAGER, 0, encode(pool_call().collect())),
            PoolAct::Announce(thousandths) => {
                let commission = Ratio::from_permille(u32::from(thousandths));
                (MANAGER, 0, encode(pool_call().announce(Terms { commission, ..TERMS })))
            }
            PoolAct::Drain(true) => (MANAGER, 0, encode(pool_call().drain())),
            PoolAct::Drain(false) => (MANAGER, 0, encode(pool_call().resume())),
            PoolAct::Close => (MANAGER, 0, encode(pool_call().close())),
            PoolAct::Usurp(how) => {
                let data = match how % 5 {
                    0 => encode(pool_call().collect()),
                    1 => encode(pool_call().announce(TERMS)),
                    2 => encode(pool_call().close()),
                    3 => encode(pool_call().propose_manager(id(how))),
                    _ => encode(pool_call().accept_management()),
                };
                (holder(how), 0, data)
            }
            PoolAct::Task(_) | PoolAct::Gift(_) | PoolAct::Pass(_) => {
                return Err(broken("this act is not a call to the pool"));
            }
        })
    }

    fn shares(&mut self, pool: &TestPool, of: AccountId, thousandths: u16) -> Result<Balance, Failure> {
        let member: Result<MemberView, poq_pool_contract::errors::Error> =
            self.ask(&pool.address, pool_call().member(of))?;
        let shares = member.map_or(0, |member| member.shares);
        Ok(Ratio::from_permille(u32::from(thousandths.min(1_000))).of(shares))
    }

    fn ask<Args: Encode, R: Decode>(
        &mut self,
        to: &AccountId32,
        query: Built<Args, R>,
    ) -> Result<R, Failure> {
        let nobody = AccountId32::new([9; 32]);
        let (chain, draft) = self.draft()?;
        let dry = chain.dry_call_in(draft, &nobody, to, 0, encode(query)).map_err(broken)?;
        let value = dry.result.map_err(|error| broken(format!("a query failed: {error:?}")))?;
        crate::answer::<R>(&value.data).map_err(broken)
    }

    fn written(&mut self) -> Result<Vec<Written>, Failure> {
        let id = self.storage.clone();
        let (chain, draft) = self.draft()?;
        // The pallet keeps a cell under the hash of its key and the key itself.
        let written = chain.written_in(draft, &id);
        Ok(written
            .into_iter()
            .map(|(key, value)| (key.get(16..).unwrap_or_default().to_vec(), value))
            .collect())
    }
}

/// What a reverted call says.
fn reverted(data: &[u8], pool: bool) -> Refused {
    match data {
        [0, 1, error @ ..] if pool => match poq_pool_contract::errors::Error::decode(&mut &error[..]) {
            Ok(error) => Refused::Pool(format!("{error:?}")),
            Err(_) => Refused::Pool("PSP22".into()),
        },
        [0, 1, error @ ..] => match Error::decode(&mut &error[..]) {
            Ok(error) => Refused::Contract(error),
            Err(error) => Refused::Framework(format!("an error that does not decode: {error}")),
        },
        _ => Refused::Unreadable,
    }
}

impl Machine for Chain {
    fn name(&self) -> &'static str {
        "Wasm"
    }

    fn reset(&mut self) -> Result<(), Failure> {
        self.draft = None;
        self.pool = None;
        self.gifts = 0;
        self.stirred = false;
        self.world.chain.restore(&self.base);
        self.begin()
    }

    fn now(&self) -> Millis {
        self.draft.as_ref().map_or(0, Draft::timestamp_ms)
    }

    fn wait_until(&mut self, at: Millis) -> Result<(), Failure> {
        self.seal()?;
        self.world.chain.advance_to_ms(at);
        self.begin()
    }

    fn can(&self, payload: &Payload) -> bool {
        !matches!(payload, Payload::Pool(_)) || self.pool.is_some()
    }

    fn send(&mut self, call: &Call) -> Result<Sent, Failure> {
        let pool = self.pool.clone();
        let (from, value, to, data) = match (&call.payload, &pool) {
            (Payload::Message(message), _) => {
                (call.from, call.value, self.world.contract.clone(), message.encode())
            }
            (Payload::Raw(bytes), _) => (call.from, call.value, self.world.contract.clone(), bytes.clone()),
            (Payload::Pool(act), Some(pool)) => {
                let (from, value, data) = self.pool_data(pool, act)?;
                (from, value, pool.address.clone(), data)
            }
            (Payload::Pool(_), None) => return Err(broken("there is no pool")),
        };
        self.stirred |= pool.is_some();
        let is_pool = matches!(call.payload, Payload::Pool(_));
        let signer = keys()[from].clone();
        // Once more where the block is full: the next one has room.
        for _ in 0..2 {
            let (chain, draft) = self.draft()?;
            let dry =
                chain.dry_call_in(draft, &account_of(&signer), &to, value, data.clone()).map_err(broken)?;
            let deposit = signed_deposit(&dry.storage_deposit);
            let mut sent = Sent {
                answer: Err(Refused::Unreadable),
                written: Vec::new(),
                fee: 0,
                deposit: Some(deposit),
                ref_time: dry.gas_consumed.ref_time(),
            };
            sent.answer = match &dry.result {
                Ok(value) if value.did_revert() => Err(reverted(&value.data, is_pool)),
                Ok(value) => match (&call.payload, &value.data[..]) {
                    (Payload::Raw(_), data) => Ok(data.to_vec()),
                    (_, [0, 0, answer @ ..]) => Ok(answer.to_vec()),
                    (_, other) => {
                        return Err(Failure::violation(format!("accepted with the answer {other:?}")));
                    }
                },
                Err(error) => {
                    let name = dispatch_error_name(error);
                    // ink! traps where money comes with a message that takes none.
                    let unpayable = match &call.payload {
                        Payload::Message(message) => value > 0 && !message.is_payable(),
                        Payload::Raw(_) => value > 0,
                        Payload::Pool(_) => false,
                    };
                    if name.contains("ContractTrapped") && !unpayable {
                        return Err(Failure::violation(format!("{} traps", call.payload.name())));
                    }
                    Err(Refused::Framework(name))
                }
            };
            if sent.answer.is_err() {
                self.refused += 1;
                if !self.refused.is_multiple_of(INSIST) {
                    return Ok(sent);
                }
            }
            let gas = dry.gas_required.saturating_add(dry.gas_required / 10);
            let gas = gas.max(Weight::from_parts(1_000_000_000, 100_000));
            let (chain, draft) = self.draft()?;
            let extrinsic = call_of(&to, value, gas, None, data.clone());
            match chain.submit_in(draft, &signer, extrinsic) {
                Ok(applied) => {
                    sent.fee = applied.fee;
                    if applied.result.is_ok() != sent.answer.is_ok() {
                        return Err(Failure::violation(format!(
                            "the trial says {:?}, the block {:?}",
                            sent.answer, applied.result
                        )));
                    }
                    if sent.answer.is_err() {
                        sent.deposit = Some(0);
                    }
                    sent.written = self.written()?;
                    return Ok(sent);
                }
                Err(SandboxError::InvalidTransaction(error)) => {
                    let error = format!("{error:?}");
                    if error.contains("ExhaustsResources") {
                        let now = self.now();
                        self.wait_until(now)?;
                        continue;
                    }
                    sent.answer = Err(Refused::Framework("cannot pay for the extrinsic".into()));
                    return Ok(sent);
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Err(broken("a call fits in no block"))
    }

    fn wealth(&mut self, accounts: &[AccountId]) -> Result<Vec<Balance>, Failure> {
        let (chain, draft) = self.draft()?;
        chain
            .query_in(draft, || {
                accounts
                    .iter()
                    .map(|id| {
                        let data = System::account(account(id)).data;
                        data.free + data.reserved
                    })
                    .collect()
            })
            .map_err(broken)
    }

    fn purse(&mut self) -> Result<Balance, Failure> {
        let contract = self.world.contract.clone();
        let (chain, draft) = self.draft()?;
        let free = chain.query_in(draft, || System::account(&contract).data.free).map_err(broken)?;
        Ok(free.saturating_sub(EXISTENTIAL_DEPOSIT))
    }

    fn give(&mut self, amount: Balance) -> Result<(), Failure> {
        let contract = self.world.contract.clone();
        let (chain, draft) = self.draft()?;
        let transfer = BalancesCall::transfer_keep_alive { dest: contract.into(), value: amount };
        let applied = chain.submit_in(draft, &dev::bob(), RuntimeCall::Balances(transfer)).map_err(broken)?;
        applied.result.map_err(|error| broken(dispatch_error_name(&error)))
    }

    fn starve(&mut self, person: usize) -> Result<(), Failure> {
        let who = people()[person];
        let empty = self.wealth(&[who])?.iter().all(|amount| *amount == 0);
        let (chain, draft) = self.draft()?;
        let (signer, moved) = if empty {
            let dest = account(&who).into();
            (dev::bob(), BalancesCall::transfer_keep_alive { dest, value: ENDOWMENT })
        } else {
            let dest = account_of(&dev::bob()).into();
            (keys()[person].clone(), BalancesCall::transfer_all { dest, keep_alive: false })
        };
        match chain.submit_in(draft, &signer, RuntimeCall::Balances(moved)) {
            Ok(applied) => applied.result.map_err(|error| broken(dispatch_error_name(&error))),
            Err(SandboxError::InvalidTransaction(_)) => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }

    fn cells(&mut self) -> Result<Vec<Written>, Failure> {
        let now = self.now();
        self.wait_until(now)?;
        let chain = &self.world.chain;
        let (at, id) = (chain.best().hash, self.storage.clone());
        let mut cells: Vec<Written> = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let keys = chain.keys(at, Some(&id), &[], last.as_deref(), 1_000).map_err(broken)?;
            let Some(end) = keys.last() else { return Ok(cells) };
            last = Some(end.clone());
            for key in keys {
                let value = chain.child_storage(at, &id, &key).map_err(broken)?;
                cells.push((key.get(16..).unwrap_or_default().to_vec(), value));
            }
        }
    }

    fn found_pool(&mut self) -> Result<Option<AccountId>, Failure> {
        self.seal()?;
        let (manager, operator) = (keys()[MANAGER].clone(), keys()[POOL_OPERATOR].clone());
        let pool = self
            .world
            .pool_of(manager, operator, Role::Inference, BOND, RULES, TERMS)
            .map_err(broken)?
            .map_err(broken)?;
        let address = ink_account(&pool.address);
        self.pool = Some(pool);
        self.begin()?;
        Ok(Some(address))
    }

    fn instances(&self) -> Option<[AccountId; 2]> {
        Some(self.instances)
    }

    fn existential(&self) -> Balance {
        EXISTENTIAL_DEPOSIT
    }
}
