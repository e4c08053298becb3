//! Staking pools in a [`World`]: the built Wasm of the pool beside that of the protocol, and what must hold of a pool after every message.

use crate::{
    answer, encode, ink_account, ink_of, Built, Pair, Res, Sent, TestNode, World, EPOCH_MS, KIND,
    UNBONDING_MS,
};
use ink::env::call::FromAccountId;
use ink::env::DefaultEnvironment;
use parity_scale_codec::{Decode, Encode};
use poq_core::pool::{Rules, Stage, Terms};
use poq_core::registry::Role;
use poq_core::units::{Balance, NodeId, Ratio};
use poq_pool_contract::errors::Error;
use poq_pool_contract::types::{MemberView, PoolNode, PoolView};
use poq_sandbox::runtime::EXISTENTIAL_DEPOSIT;
use poq_sandbox::{signed_deposit, AccountId32, Called, Code, SandboxError, UNIT};
use std::path::Path;

/// The pool's generated call builder.
pub type Builder = <poq_pool_contract::Pool as ink::codegen::ContractCallBuilder>::Type;

/// The pool's call builder: `call().exit(shares)` and so on.
pub fn call() -> Builder {
    <Builder as FromAccountId<DefaultEnvironment>>::from_account_id([0; 32].into())
}

/// The built pool contract.
///
/// # Panics
/// Where it has not been built; the message names the script.
#[allow(clippy::panic)]
pub fn wasm() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/pool.wasm");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/build-contract.sh", path.display()))
}

/// The shortest era and exit that the test network allows.
pub const RULES: Rules = Rules {
    commission_max: Ratio::from_permille(300),
    first_loss: Ratio::from_permille(1),
    era_ms: EPOCH_MS,
    exit_ms: UNBONDING_MS,
};

/// A tenth for the manager.
pub const TERMS: Terms = Terms { commission: Ratio::from_permille(100), capacity: 100_000 * UNIT };

/// A pool with its keys.
#[derive(Clone)]
pub struct TestPool {
    /// Its account.
    pub address: AccountId32,
    /// Its node.
    pub node: NodeId,
    /// Who runs it.
    pub manager: Pair,
    /// The node's hot key.
    pub operator: Pair,
}

impl TestPool {
    /// Its node, for rounds. What belongs to owner and payee is the pool's: their keys are of no use.
    pub fn test_node(&self) -> TestNode {
        TestNode {
            id: self.node,
            owner: self.manager.clone(),
            operator: self.operator.clone(),
            payee: self.manager.clone(),
        }
    }
}

impl World {
    /// A pool of a new manager, with a node of the test kind.
    pub fn pool(
        &mut self,
        role: Role,
        bond: Balance,
        rules: Rules,
        terms: Terms,
    ) -> Res<Result<TestPool, Error>> {
        let (manager, operator) = (self.account()?, self.account()?);
        self.pool_of(manager, operator, role, bond, rules, terms)
    }

    /// A pool of these keys, with a node of the test kind.
    pub fn pool_of(
        &mut self,
        manager: Pair,
        operator: Pair,
        role: Role,
        bond: Balance,
        rules: Rules,
        terms: Terms,
    ) -> Res<Result<TestPool, Error>> {
        let node = PoolNode {
            role,
            kind: KIND,
            operator: ink_of(&operator),
            model: "the pool's model".into(),
            model_digest: [77; 32],
            endpoint: "http://127.0.0.1:9".into(),
            price: 0,
        };
        let arguments =
            (ink_account(&self.contract), node, rules, terms, Some("Pool of tests"), Some("sPOQ"));
        let data = [ink::selector_bytes!("new").to_vec(), arguments.encode()].concat();
        let placed = match self.chain.instantiate(&manager, bond, Code::Upload(wasm()), data, vec![]) {
            Ok(placed) => placed,
            Err(SandboxError::Reverted { data, .. }) => {
                return match answer::<Result<(), Error>>(&data)? {
                    Err(error) => Ok(Err(error)),
                    Ok(()) => Err("the constructor reverted with a value that says it accepted".into()),
                }
            }
            Err(other) => return Err(other.into()),
        };
        let mut pool = TestPool { address: placed.address, node: 0, manager, operator };
        pool.node = self.pool_view(&pool)?.node;
        self.check_books()?;
        Ok(Ok(pool))
    }

    /// Sends a message to a pool: a dry run, then the extrinsic. The books of both contracts are checked.
    pub fn send_to<Args: Encode, T: Decode>(
        &mut self,
        pool: &TestPool,
        signer: &Pair,
        value: Balance,
        message: Built<Args, Result<T, Error>>,
    ) -> Res<Result<Sent<T>, Error>> {
        self.send_raw(pool, signer, value, encode(message))
    }

    /// Sends selector and arguments to a pool.
    pub fn send_raw<T: Decode, E: Decode>(
        &mut self,
        pool: &TestPool,
        signer: &Pair,
        value: Balance,
        data: Vec<u8>,
    ) -> Res<Result<Sent<T>, E>> {
        match self.chain.call(signer, &pool.address, value, data) {
            Ok(Called { dry, report }) => {
                let data = dry.result.as_ref().map(|answer| answer.data.clone()).unwrap_or_default();
                let Ok(value) = answer::<Result<T, E>>(&data)? else {
                    return Err("the pool refused without reverting".into());
                };
                self.check_books()?;
                Ok(Ok(Sent { value, deposit: signed_deposit(&dry.storage_deposit), report }))
            }
            Err(SandboxError::Reverted { data, .. }) => match answer::<Result<T, E>>(&data)? {
                Err(error) => Ok(Err(error)),
                Ok(_) => Err("the pool reverted with a value that says it accepted".into()),
            },
            Err(other) => Err(other.into()),
        }
    }

    /// Asks a pool as an account that does not exist.
    pub fn read_from<Args: Encode, R: Decode>(&self, pool: &TestPool, query: Built<Args, R>) -> Res<R> {
        self.read_raw(pool, encode(query))
    }

    /// Asks a pool by selector and arguments.
    pub fn read_raw<R: Decode>(&self, pool: &TestPool, data: Vec<u8>) -> Res<R> {
        let nobody = AccountId32::new([9; 32]);
        let dry = self.chain.dry_call(&nobody, &pool.address, 0, None, None, data)?;
        let value = dry.result.map_err(|error| format!("the query failed: {error:?}"))?;
        answer::<R>(&value.data)
    }

    /// A pool, as of now.
    pub fn pool_view(&self, pool: &TestPool) -> Res<PoolView> {
        Ok(self.read_from(pool, call().pool())?.map_err(Box::new)?)
    }

    /// What an account has in a pool, as of now.
    pub fn member(&self, pool: &TestPool, account: &Pair) -> Res<MemberView> {
        Ok(self.read_from(pool, call().member(ink_of(account)))?.map_err(Box::new)?)
    }

    /// Everything that must hold of a pool after every message. `holders` are all that ever had shares, `gifts` what was sent to its
    /// account past it.
    pub fn check_pool(&self, pool: &TestPool, holders: &[Pair], gifts: Balance) -> Res<()> {
        let view = self.pool_view(pool)?;
        let ledger = view.ledger;
        let wrong = |what: &str| -> Res<()> { Err(format!("{what}: {view:?}").into()) };
        if !ledger.is_balanced() {
            return wrong("the pool's books do not balance");
        }
        // Its money: what the books say, no planck more or less.
        let mut cash = self.chain.balance(&pool.address)? - EXISTENTIAL_DEPOSIT - gifts;
        if ledger.stage == Stage::Closed {
            if self.read(crate::call().node(pool.node))?.is_some() {
                return wrong("the pool is closed and its node there");
            }
        } else {
            let holding = self.read(crate::call().holding(pool.node))?.ok_or("the pool's node is gone")?;
            cash += holding.withdrawable + holding.claimable;
            if (ledger.staked, ledger.unbonding) != (holding.bonded, holding.unbonding - holding.withdrawable)
            {
                return wrong("the pool does not know what its node has");
            }
            let node = self.view(pool.node)?.node;
            if (node.owner, node.payee) != (ink_account(&pool.address), ink_account(&pool.address)) {
                return wrong("the node is not the pool's");
            }
        }
        if ledger.cash != cash {
            return wrong(&format!("the pool has {cash}"));
        }
        // Its people: what each could claim is there.
        let (mut shares, mut worth, mut waits, mut ready) = (0, 0, 0, 0);
        for holder in holders {
            let member = self.member(pool, holder)?;
            shares += member.shares;
            worth += member.value;
            waits += member.exits.iter().filter(|exit| !exit.ready).map(|exit| exit.value).sum::<Balance>();
            ready += member.exits.iter().filter(|exit| exit.ready).map(|exit| exit.value).sum::<Balance>();
        }
        if shares != view.supply || worth > ledger.active || waits > ledger.exiting || ready > ledger.due {
            return wrong(&format!("{shares} shares of {worth}, {waits} waits, {ready} is ready"));
        }
        Ok(())
    }
}

/// What actors do to a pool and its node: enough to be drawn from random numbers, and to be shrunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// An account deposits.
    Deposit(usize, Balance),
    /// An account exits so many thousandths of its shares.
    Exit(usize, u16),
    /// Anybody has an account paid.
    Claim(usize),
    /// An account gives another one so many thousandths of its shares.
    Give(usize, usize, u16),
    /// Anybody does what is due.
    Advance,
    /// The manager adds to its bond.
    AddBond(Balance),
    /// The manager collects.
    Collect,
    /// The manager announces a commission, in thousandths.
    Announce(u16),
    /// The manager takes its node out of the draws, or puts it back.
    Drain(bool),
    /// The manager begins to close.
    Close,
    /// Somebody who is not the manager sends what only the manager may.
    Usurp(usize),
    /// The node answers a task and is paid, or misses its deadline and is slashed.
    Task(bool),
    /// Somebody sends money to the pool's account, past its messages.
    Gift(Balance),
    /// Time passes, in milliseconds.
    Pass(u64),
}

/// Actors around one pool, and the protocol's nodes that its node's tasks need.
pub struct Actors {
    /// The world.
    pub world: World,
    /// The pool.
    pub pool: TestPool,
    /// Its holders.
    pub holders: Vec<Pair>,
    /// Money that went to the pool's account past its messages.
    pub gifts: Balance,
    requester: Pair,
    evaluators: Vec<TestNode>,
}

/// PSP22's `transfer`, by its standard selector.
pub const PSP22_TRANSFER: [u8; 4] = [0xdb, 0x20, 0xf9, 0xf5];

impl Actors {
    /// A pool for an inference node with this bond, three evaluators, and so many holders without shares.
    pub fn new(bond: Balance, holders: usize) -> Res<Actors> {
        let mut world = World::new()?;
        let pool = world.pool(Role::Inference, bond, RULES, TERMS)??;
        let (_, evaluators) = world.nodes(0, 3)?;
        let requester = world.account()?;
        let holders = (0..holders).map(|_| world.account()).collect::<Res<_>>()?;
        world.next_epoch()?;
        Ok(Actors { world, pool, holders, gifts: 0, requester, evaluators })
    }

    /// The account of an index, wrapping around.
    pub fn holder(&self, index: usize) -> Pair {
        self.holders[index % self.holders.len()].clone()
    }

    fn part(&self, holder: &Pair, thousandths: u16) -> Res<Balance> {
        let shares = self.world.member(&self.pool, holder)?.shares;
        Ok(Ratio::from_permille(u32::from(thousandths.min(1_000))).of(shares))
    }

    fn sent<Args: Encode, T: Decode>(
        &mut self,
        signer: &Pair,
        value: Balance,
        message: Built<Args, Result<T, Error>>,
    ) -> Res<Result<(), Error>> {
        let pool = self.pool.clone();
        Ok(self.world.send_to(&pool, signer, value, message)?.map(|_| ()))
    }

    /// Does it. The pool's refusal is the inner error; what must hold of the pool is checked either way.
    pub fn act(&mut self, act: &Act) -> Res<Result<(), Error>> {
        let manager = self.pool.manager.clone();
        let done = match *act {
            Act::Deposit(who, amount) => self.sent(&self.holder(who), amount, call().deposit())?,
            Act::Exit(who, thousandths) => {
                let holder = self.holder(who);
                let shares = self.part(&holder, thousandths)?;
                self.sent(&holder, 0, call().exit(shares))?
            }
            Act::Claim(who) => {
                let account = ink_of(&self.holder(who));
                self.sent(&self.holder(who + 1), 0, call().claim(account))?
            }
            Act::Give(from, to, thousandths) => {
                let (holder, to) = (self.holder(from), ink_of(&self.holder(to)));
                let value = self.part(&holder, thousandths)?;
                let data = [PSP22_TRANSFER.to_vec(), (to, value, Vec::<u8>::new()).encode()].concat();
                let pool = self.pool.clone();
                self.world
                    .send_raw::<(), psp22::PSP22Error>(&pool, &holder, 0, data)?
                    .map_err(|error| format!("{error:?}"))?;
                Ok(())
            }
            Act::Advance => self.sent(&self.holder(0), 0, call().advance())?,
            Act::AddBond(amount) => self.sent(&manager, amount, call().add_bond())?,
            Act::Collect => self.sent(&manager, 0, call().collect())?,
            Act::Announce(thousandths) => {
                let commission = Ratio::from_permille(u32::from(thousandths));
                self.sent(&manager, 0, call().announce(Terms { commission, ..TERMS }))?
            }
            Act::Drain(true) => self.sent(&manager, 0, call().drain())?,
            Act::Drain(false) => self.sent(&manager, 0, call().resume())?,
            Act::Close => self.sent(&manager, 0, call().close())?,
            Act::Usurp(how) => {
                let nobody = self.holder(how);
                match how % 5 {
                    0 => self.sent(&nobody, 0, call().collect())?,
                    1 => self.sent(&nobody, 0, call().announce(TERMS))?,
                    2 => self.sent(&nobody, 0, call().close())?,
                    3 => self.sent(&nobody, 0, call().propose_manager(ink_of(&nobody)))?,
                    _ => self.sent(&nobody, 0, call().accept_management())?,
                }
            }
            Act::Task(answered) => {
                self.task(answered)?;
                Ok(())
            }
            Act::Gift(amount) => {
                self.give(amount)?;
                Ok(())
            }
            Act::Pass(ms) => {
                self.world.pass(ms)?;
                Ok(())
            }
        };
        self.world.check_pool(&self.pool, &self.holders, self.gifts)?;
        Ok(done)
    }

    /// Sends money to the pool's account, past its messages.
    pub fn give(&mut self, amount: Balance) -> Res<()> {
        let balance = self.world.chain.balance(&self.pool.address)?;
        self.world.chain.fund(&self.pool.address, balance + amount)?;
        self.gifts += amount;
        Ok(())
    }

    /// A task for the pool's node: answered and settled, or missed. Nothing where the node is not to be had. Returns whether there was
    /// one.
    pub fn task(&mut self, answered: bool) -> Res<bool> {
        let node = self.pool.test_node();
        let requester = self.requester.clone();
        let Ok(id) = self.world.request(&requester, 1, 3, 10 * UNIT)? else { return Ok(false) };
        if answered {
            self.world.commit_outputs(id, &[node])?;
            self.world.draw(id)?;
            self.world.score(id, &self.evaluators.clone(), |_| vec![700])?;
        } else {
            let deadline = self.world.task(id)?.task.deadline;
            self.world.pass(deadline.saturating_sub(self.world.chain.now_ms()) + 1)?;
            self.world.advance(id)??;
        }
        Ok(true)
    }
}
