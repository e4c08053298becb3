//! Every message of the contract. Selector and argument types come from the call builders that ink! generates for the contract
//! itself, so an interface that drifts does not compile.

use crate::account::to_ink;
use crate::error::Error;
use crate::events::PoqEvent;
use crate::types::{
    Balance, BondChange, Change, Commit, Decline, Draw, Hash, Lever, Millis, NodeId, NodeUpdate, Open,
    Opening, Refusal, Registration, Request, Reveal, Step, TaskId,
};
use crate::view::decode_return;
use ink::env::call::utils::{ReturnType, Set};
use ink::env::call::{Call, CallBuilder, ExecutionInput, FromAccountId};
use ink::env::{DefaultEnvironment, Environment};
use parity_scale_codec::{Decode, Encode};
use poq_contract::errors::Error as ContractError;
use poq_contract::events::{Administration, NodeChange};
use std::marker::PhantomData;
use std::sync::Arc;
use subxt::utils::AccountId32;

/// The contract's call builder.
type Builder = <poq_contract::Poq as ink::codegen::ContractCallBuilder>::Type;

/// A call builder of the contract. The address that it asks for plays no part in what is encoded.
pub(crate) fn contract() -> Builder {
    <Builder as FromAccountId<DefaultEnvironment>>::from_account_id([0; 32].into())
}

/// Selector and arguments, with the type that the message returns.
pub(crate) struct Encoded<R> {
    pub(crate) data: Vec<u8>,
    returns: PhantomData<fn() -> R>,
}

/// A call as the contract's builders leave it: with its callee, its input and its type of return.
type Built<E, Args, R> = CallBuilder<E, Set<Call<E>>, Set<ExecutionInput<Args>>, Set<ReturnType<R>>>;

/// Takes a built call's selector and arguments.
pub(crate) fn encode<E, Args, R>(call: Built<E, Args, R>) -> Encoded<R>
where
    E: Environment,
    Args: Encode,
{
    Encoded { data: call.params().exec_input().encode(), returns: PhantomData }
}

/// What a message leaves behind: nothing where its event is missing; else the value, if the event tells it.
type Told<T> = Arc<dyn Fn(&[PoqEvent]) -> Option<Option<T>> + Send + Sync>;

/// Whether a dry run's answer only means that it is too early for the block that it was run at.
type Early<T> = fn(&Result<&T, ContractError>) -> bool;

/// Reads what a message answered: its address and name for errors, whether it reverted, and the bytes.
pub(crate) type Read<T> =
    fn(&AccountId32, &'static str, bool, &[u8]) -> crate::error::Result<Result<T, ContractError>>;

/// What a batch answers for one of its items.
trait Item: Decode {
    type Value;

    fn value(self) -> Result<Self::Value, ContractError>;
}

impl Item for TaskId {
    type Value = TaskId;

    fn value(self) -> Result<TaskId, ContractError> {
        Ok(self)
    }
}

impl Item for Option<ContractError> {
    type Value = ();

    fn value(self) -> Result<(), ContractError> {
        self.map_or(Ok(()), Err)
    }
}

impl<T: Decode> Item for Result<T, ContractError> {
    type Value = T;

    fn value(self) -> Result<T, ContractError> {
        self
    }
}

/// Reads what a batch of one answered.
fn read_one<I: Item>(
    address: &AccountId32,
    message: &'static str,
    reverted: bool,
    data: &[u8],
) -> crate::error::Result<Result<I::Value, ContractError>> {
    let items: Result<Vec<I>, ContractError> = decode_return(address, message, reverted, data)?;
    let item = match items {
        Ok(items) => items.into_iter().next(),
        Err(error) => return Ok(Err(error)),
    };
    item.map(Item::value).ok_or_else(|| Error::NotOurContract {
        address: *address,
        message,
        reason: "it answers nothing for the one item of a batch".into(),
    })
}

/// A message with its arguments and the money that it carries, returning `T`.
#[derive(Clone)]
pub struct Message<T> {
    name: &'static str,
    data: Vec<u8>,
    value: Balance,
    idempotent: bool,
    early: Option<Early<T>>,
    told: Option<Told<T>>,
    read: Read<T>,
    to: Option<AccountId32>,
}

impl<T> std::fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("name", &self.name)
            .field("data", &hex::encode(&self.data))
            .field("value", &self.value)
            .finish()
    }
}

impl<T: Decode> Message<T> {
    fn new(name: &'static str, encoded: Encoded<Result<T, ContractError>>) -> Message<T> {
        Message::read_by(name, encoded.data, decode_return)
    }
}

impl<T> Message<T> {
    fn read_by(name: &'static str, data: Vec<u8>, read: Read<T>) -> Message<T> {
        Message { name, data, value: 0, idempotent: false, early: None, told: None, read, to: None }
    }

    /// A message to another contract than the client's.
    pub(crate) fn to_another(
        contract: &AccountId32,
        name: &'static str,
        data: Vec<u8>,
        read: Read<T>,
    ) -> Message<T> {
        Message { to: Some(*contract), ..Message::read_by(name, data, read) }
    }

    /// Of a batch with one item: where it is refused, so is the message, with its error.
    fn one<I: Item<Value = T>>(
        name: &'static str,
        encoded: Encoded<Result<Vec<I>, ContractError>>,
    ) -> Message<T> {
        Message::read_by(name, encoded.data, read_one::<I>)
    }

    /// With money.
    pub(crate) fn paying(mut self, value: Balance) -> Message<T> {
        self.value = value;
        self
    }

    /// Sending it twice does what sending it once does.
    pub(crate) fn idempotent(mut self) -> Message<T> {
        self.idempotent = true;
        self
    }

    /// Its answer depends on the block's number or time, and so can be another one in the next block.
    fn timed(mut self, early: Early<T>) -> Message<T> {
        self.early = Some(early);
        self
    }

    /// An event must tell what it did.
    pub(crate) fn told_by(self, told: impl Fn(&PoqEvent) -> Option<T> + Send + Sync + 'static) -> Message<T> {
        self.told_by_all(move |events| events.iter().find_map(&told))
    }

    /// Several events must tell it together.
    fn told_by_all(mut self, told: impl Fn(&[PoqEvent]) -> Option<T> + Send + Sync + 'static) -> Message<T> {
        self.told = Some(Arc::new(move |events| told(events).map(Some)));
        self
    }

    /// The message's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Selector and arguments.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The money that it carries, in the chain's smallest unit.
    pub fn value(&self) -> Balance {
        self.value
    }

    /// The contract that it is for, where that is not the client's.
    pub fn to(&self) -> Option<AccountId32> {
        self.to
    }

    /// Whether sending it twice does what sending it once does.
    pub fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// Reads what it answered.
    pub(crate) fn read(
        &self,
        address: &AccountId32,
        reverted: bool,
        data: &[u8],
    ) -> crate::error::Result<Result<T, ContractError>> {
        (self.read)(address, self.name, reverted, data)
    }

    /// Whether what a dry run at the best block says may be otherwise in the next.
    pub(crate) fn is_early(&self, answer: &Result<&T, ContractError>) -> bool {
        self.early.is_some_and(|early| early(answer))
    }

    /// What the message's events say that it returned: `None` where they say nothing though they should, `Some(None)` where
    /// they need not.
    pub(crate) fn told(&self, events: &[PoqEvent]) -> Option<Option<T>> {
        match &self.told {
            None => Some(None),
            Some(told) => told(events),
        }
    }
}

/// Whether it is refused for the block's time.
fn is_early(error: &ContractError) -> bool {
    matches!(
        error,
        ContractError::Task(Refusal::TooEarly | Refusal::WrongPhase)
            | ContractError::StillUnbonding
            | ContractError::NotDue
    )
}

fn refused_early<T>(answer: &Result<&T, ContractError>) -> bool {
    answer.as_ref().is_err_and(is_early)
}

/// As [`refused_early`], of a batch: refused as a whole, or an item of it.
fn any_early(answer: &Result<&Vec<Option<ContractError>>, ContractError>) -> bool {
    match answer {
        Ok(items) => items.iter().flatten().any(is_early),
        Err(error) => is_early(error),
    }
}

/// As [`any_early`], of a batch whose items answer something.
fn any_step_early<T>(answer: &Result<&Vec<Result<T, ContractError>>, ContractError>) -> bool {
    match answer {
        Ok(items) => items.iter().any(|item| item.as_ref().is_err_and(is_early)),
        Err(error) => is_early(error),
    }
}

macro_rules! event {
    ($variant:ident, $event:ident, $condition:expr => $value:expr) => {
        move |event: &PoqEvent| match event {
            PoqEvent::$variant($event) if $condition => Some($value),
            _ => None,
        }
    };
}

// -------------------------------------------------------------------------------------------------- nodes

/// Registers a node of the caller, with its first stake (may be 0). Returns its number.
pub fn register(registration: Registration, stake: Balance) -> Message<NodeId> {
    Message::new("register", encode(contract().register(registration)))
        .paying(stake)
        .told_by(event!(NodeRegistered, e, true => e.node))
}

/// Changes a node's operator, payee, endpoint or price.
pub fn configure(node: NodeId, update: NodeUpdate) -> Message<()> {
    Message::new("configure", encode(contract().configure(node, update)))
        .idempotent()
        .told_by(event!(NodeChanged, e, e.node == node && e.change == NodeChange::Configured => ()))
}

/// Adds stake to a node. It counts from the next epoch on.
pub fn stake(node: NodeId, amount: Balance) -> Message<()> {
    Message::new("stake", encode(contract().stake(node)))
        .paying(amount)
        .told_by(event!(Staked, e, e.node == node => ()))
}

/// Begins to take stake out of a node. Returns when it can be withdrawn.
pub fn unstake(node: NodeId, amount: Balance) -> Message<Millis> {
    Message::new("unstake", encode(contract().unstake(node, amount)))
        .told_by(event!(Unstaked, e, e.node == node => e.until))
}

/// Pays out stake whose unbonding is over. Returns how much.
pub fn withdraw_unbonded(node: NodeId) -> Message<Balance> {
    Message::new("withdraw_unbonded", encode(contract().withdraw_unbonded(node)))
        .timed(refused_early)
        .told_by(event!(StakeWithdrawn, e, e.node == node => e.amount))
}

/// Takes a node out of the draws; open duties go on.
pub fn drain(node: NodeId) -> Message<()> {
    Message::new("drain", encode(contract().drain(node))).idempotent()
}

/// Takes a draining node back into the draws.
pub fn resume(node: NodeId) -> Message<()> {
    Message::new("resume", encode(contract().resume(node))).idempotent()
}

/// Removes a node that has no stake, duties or rewards left.
pub fn deregister(node: NodeId) -> Message<()> {
    Message::new("deregister", encode(contract().deregister(node)))
        .told_by(event!(NodeChanged, e, e.node == node && e.change == NodeChange::Deregistered => ()))
}

/// Puts nodes at the place in the draw's pool that their present stake and trust give them.
pub fn refresh(nodes: Vec<NodeId>) -> Message<()> {
    Message::new("refresh", encode(contract().refresh(nodes))).idempotent()
}

/// Pays a node's rewards to its payee. Returns how much.
pub fn claim(node: NodeId) -> Message<Balance> {
    Message::new("claim", encode(contract().claim(node)))
        .told_by(event!(Claimed, e, e.node == node => e.amount))
}

// -------------------------------------------------------------------------------------------------- requesters

/// Requests tasks, all or none, and puts their fees into escrow. Returns their numbers.
pub fn request_tasks(requests: Vec<Request>) -> Message<Vec<TaskId>> {
    let (count, fees) = (requests.len(), fees(&requests));
    Message::new("request_tasks", encode(contract().request_tasks(requests))).paying(fees).told_by_all(
        move |events| {
            let requested = events.iter().filter_map(event!(TaskRequested, e, true => e.task));
            let tasks: Vec<TaskId> = requested.collect();
            (tasks.len() == count).then_some(tasks)
        },
    )
}

/// Requests a task and puts its fee into escrow. Returns its number.
pub fn request_task(request: Request) -> Message<TaskId> {
    let fee = request.fee;
    Message::one("request_tasks", encode(contract().request_tasks(vec![request])))
        .paying(fee)
        .told_by(event!(TaskRequested, e, true => e.task))
}

/// All that requests put into escrow. No chain has more money than fits.
fn fees(requests: &[Request]) -> Balance {
    requests.iter().fold(0, |sum: Balance, request| sum.saturating_add(request.fee))
}

/// Collects the refunds of one requester's final tasks and frees their storage. Returns how much.
pub fn collect(tasks: Vec<TaskId>) -> Message<Balance> {
    let count = tasks.len();
    Message::new("collect", encode(contract().collect(tasks))).told_by_all(move |events| {
        let collected = events.iter().filter_map(event!(Collected, e, true => e.amount));
        let amounts: Vec<Balance> = collected.collect();
        (amounts.len() == count).then(|| amounts.iter().fold(0, |sum, amount| amount.saturating_add(sum)))
    })
}

/// Pays the signer's credit: keepers' fees, and refunds that could not be paid. Returns how much.
pub fn withdraw() -> Message<Balance> {
    Message::new("withdraw", encode(contract().withdraw())).told_by(event!(Withdrawn, e, true => e.amount))
}

// -------------------------------------------------------------------------------------------------- duties

/// Commits to outputs; per item why it was skipped, if it was.
pub fn commit_outputs(items: Vec<Commit>) -> Message<Vec<Option<ContractError>>> {
    Message::new("commit_outputs", encode(contract().commit_outputs(items))).idempotent()
}

/// Commits to an output.
pub fn commit_output(task: TaskId, node: NodeId, commitment: Hash) -> Message<()> {
    let items = vec![Commit { task, node, commitment }];
    Message::one("commit_outputs", encode(contract().commit_outputs(items))).idempotent()
}

/// Says of tasks that a node will not deliver; per item why it was skipped, if it was.
pub fn decline(items: Vec<Decline>) -> Message<Vec<Option<ContractError>>> {
    Message::new("decline", encode(contract().decline(items))).idempotent()
}

/// Opens outputs' commitments on chain; per item why it was skipped, if it was.
pub fn open_outputs(items: Vec<Open>) -> Message<Vec<Option<ContractError>>> {
    Message::new("open_outputs", encode(contract().open_outputs(items))).idempotent().timed(any_early)
}

/// Opens an output's commitment on chain.
pub fn open_output(item: Open) -> Message<()> {
    Message::one("open_outputs", encode(contract().open_outputs(vec![item])))
        .idempotent()
        .timed(refused_early)
}

/// Commits to panels' scores; per item why it was skipped, if it was.
pub fn commit_scores(items: Vec<Commit>) -> Message<Vec<Option<ContractError>>> {
    Message::new("commit_scores", encode(contract().commit_scores(items))).idempotent()
}

/// Commits to scores.
pub fn commit_score(task: TaskId, node: NodeId, commitment: Hash) -> Message<()> {
    let items = vec![Commit { task, node, commitment }];
    Message::one("commit_scores", encode(contract().commit_scores(items))).idempotent()
}

/// Reveals scores, whoever sends them; the last reveal of a task settles it. Per item why it was skipped, if it was.
pub fn reveal_scores(items: Vec<Reveal>) -> Message<Vec<Option<ContractError>>> {
    Message::new("reveal_scores", encode(contract().reveal_scores(items))).idempotent().timed(any_early)
}

/// Reveals scores.
pub fn reveal_score(reveal: Reveal) -> Message<()> {
    Message::one("reveal_scores", encode(contract().reveal_scores(vec![reveal])))
        .idempotent()
        .timed(refused_early)
}

// -------------------------------------------------------------------------------------------------- keepers

/// Shows secrets and openings, and draws panels; per item whether there was a panel, or why nothing was done.
pub fn draw_panels(draws: Vec<Draw>) -> Message<Vec<Result<bool, ContractError>>> {
    Message::new("draw_panels", encode(contract().draw_panels(draws))).idempotent().timed(any_step_early)
}

/// Shows a secret and openings, and draws the panel. Whether there was one.
pub fn draw_panel(draw: Draw) -> Message<bool> {
    let task = draw.task;
    Message::one("draw_panels", encode(contract().draw_panels(vec![draw])))
        .idempotent()
        .timed(refused_early)
        .told_by(move |event| match event {
            PoqEvent::PanelDrawn(e) if e.task == task => Some(true),
            PoqEvent::PanelShort(e) if e.task == task => Some(false),
            _ => None,
        })
}

/// Does for each task what is due; per item the step done, or why none was.
pub fn advance(tasks: Vec<TaskId>) -> Message<Vec<Result<Step, ContractError>>> {
    Message::new("advance", encode(contract().advance(tasks))).idempotent().timed(any_step_early)
}

/// Does for a task what is due. Returns the step done.
pub fn advance_one(task: TaskId) -> Message<Step> {
    Message::one("advance", encode(contract().advance(vec![task]))).idempotent().timed(refused_early)
}

// -------------------------------------------------------------------------------------------------- auditors

/// Adds to the signer's bond as an auditor.
pub fn bond(amount: Balance) -> Message<()> {
    Message::new("bond", encode(contract().bond()))
        .paying(amount)
        .told_by(event!(AuditorChanged, e, e.change == BondChange::Added(amount) => ()))
}

/// Resigns as an auditor; called again once the unbonding period is over, pays the bond back. Returns how much was paid.
pub fn withdraw_bond() -> Message<Balance> {
    Message::new("withdraw_bond", encode(contract().withdraw_bond())).told_by(|event| match event {
        PoqEvent::AuditorChanged(e) => match e.change {
            BondChange::Paid(amount) => Some(amount),
            _ => Some(0),
        },
        _ => None,
    })
}

/// Opens a settled task's reference: it moves the trust of the panel.
pub fn open_reference(task: TaskId, opening: Opening) -> Message<()> {
    Message::new("open_reference", encode(contract().open_reference(task, opening)))
        .told_by(event!(TaskAudited, e, e.task == task => ()))
}

// -------------------------------------------------------------------------------------------------- the owner

/// Announces a change. Returns from when anybody may enact it; at once, and done, while no node is registered and for a new kind.
pub fn propose(change: Change) -> Message<Millis> {
    announcing(Message::new("propose", encode(contract().propose(change))))
}

/// Announces that the contract will run the code of another live contract. Returns from when anybody may enact it.
pub fn propose_code(instance: &AccountId32) -> Message<Millis> {
    announcing(Message::new("propose_code", encode(contract().propose_code(to_ink(instance)))))
}

/// Told by the announcement, or by the change where it acts at once: at a time that is not in its event.
fn announcing(mut message: Message<Millis>) -> Message<Millis> {
    message.told = Some(Arc::new(|events| {
        events.iter().find_map(|event| match event {
            PoqEvent::Proposed(e) => Some(Some(e.acts_at)),
            PoqEvent::Enacted(_) => Some(None),
            _ => None,
        })
    }));
    message
}

/// Makes an announced change act, whoever sends it.
pub fn enact(lever: Lever) -> Message<()> {
    let message = match lever {
        Lever::Code => Message::new("set_code", encode(contract().set_code())),
        lever => Message::new("enact", encode(contract().enact(lever))),
    };
    message.timed(refused_early).told_by(event!(Enacted, e, e.change.lever() == lever => ()))
}

/// Withdraws an announcement.
pub fn cancel(lever: Lever) -> Message<()> {
    Message::new("cancel", encode(contract().cancel(lever)))
        .told_by(event!(Cancelled, e, e.lever == lever => ()))
}

/// Dismisses an auditor at once.
pub fn dismiss_auditor(auditor: &AccountId32) -> Message<()> {
    let account = to_ink(auditor);
    Message::new("dismiss_auditor", encode(contract().dismiss_auditor(account)))
        .idempotent()
        .told_by(event!(AuditorChanged, e, e.account == account && !e.auditor.appointed => ()))
}

/// Refuses new tasks, or takes them again.
pub fn set_paused(paused: bool) -> Message<()> {
    Message::new("set_paused", encode(contract().set_paused(paused)))
        .idempotent()
        .told_by(event!(Administered, e, e.what == Administration::Paused(paused) => ()))
}

/// Proposes another owner.
pub fn propose_owner(proposed: &AccountId32) -> Message<()> {
    let proposed = to_ink(proposed);
    Message::new("propose_owner", encode(contract().propose_owner(proposed)))
        .idempotent()
        .told_by(event!(Administered, e, e.what == Administration::Proposed(proposed) => ()))
}

/// Accepts the ownership.
pub fn accept_ownership() -> Message<()> {
    Message::new("accept_ownership", encode(contract().accept_ownership()))
        .told_by(event!(Administered, e, matches!(e.what, Administration::Owner(_)) => ()))
}

/// Pays out of the treasury.
pub fn withdraw_treasury(to: &AccountId32, amount: Balance) -> Message<()> {
    Message::new("withdraw_treasury", encode(contract().withdraw_treasury(to_ink(to), amount)))
        .told_by(event!(TreasuryWithdrawn, e, e.amount == amount => ()))
}

/// Sends what is burned to the account that nobody has, whoever sends it. Returns how much.
pub fn burn() -> Message<Balance> {
    Message::new("burn", encode(contract().burn())).told_by(event!(Burned, e, true => e.amount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DeclineReason, GlobalParams, KindParams, Opened, Ratio, Role, Score, Source};
    use ink::primitives::LangError;
    use ink::selector_bytes;

    fn registration() -> Registration {
        Registration {
            role: Role::Evaluator,
            kind: 7,
            operator: [1; 32].into(),
            payee: [2; 32].into(),
            model: "model".into(),
            model_digest: [3; 32],
            endpoint: "http://e".into(),
            price: 4,
        }
    }

    fn request(fee: Balance) -> Request {
        Request {
            kind: 7,
            fee,
            nodes: vec![],
            outputs: 2,
            panel: 5,
            input: Source::Url { hash: [6; 32], url: "http://i".into() },
            reference_commitment: [1; 32],
            secret_hash: [2; 32],
            early: false,
        }
    }

    /// Selector and arguments of a message are what the contract's dispatcher expects: blake2b of the name, then SCALE.
    fn expect<T>(message: Message<T>, selector: [u8; 4], args: impl Encode) {
        let mut expected = selector.to_vec();
        args.encode_to(&mut expected);
        assert_eq!(hex::encode(&message.data), hex::encode(expected), "{}", message.name);
    }

    #[test]
    fn every_message_is_encoded_as_the_contract_reads_it() {
        let commit = Commit { task: 1, node: 2, commitment: [3; 32] };
        let reveal = Reveal {
            task: 1,
            node: 2,
            scores: vec![Score::of(Ratio::from_permille(500)), Score::UNAVAILABLE],
            report_hash: [4; 32],
            salt: [5; 32],
        };
        let opened = Opened { hash: [1; 32], salt: [2; 32] };
        let draw = Draw { task: 1, secret: [7; 32], openings: vec![Some(opened), None] };
        let open = Open { task: 1, node: 2, opened };
        let declined = Decline { task: 1, node: 2, reason: DeclineReason::TooLong };
        let update = NodeUpdate { price: Some(9), ..NodeUpdate::default() };
        let account = AccountId32([8; 32]);
        let change = Change::Kind(7, KindParams::default());
        let opening = Opening {
            reference: b"Denver".to_vec(),
            salt: [1; 32],
            outputs: vec![Some(b"Denver won".to_vec()), None],
        };
        expect(register(registration(), 1), selector_bytes!("register"), registration());
        expect(configure(1, update.clone()), selector_bytes!("configure"), (1u32, update));
        expect(stake(1, 5), selector_bytes!("stake"), 1u32);
        expect(unstake(1, 5), selector_bytes!("unstake"), (1u32, 5u128));
        expect(withdraw_unbonded(1), selector_bytes!("withdraw_unbonded"), 1u32);
        expect(drain(1), selector_bytes!("drain"), 1u32);
        expect(resume(1), selector_bytes!("resume"), 1u32);
        expect(deregister(1), selector_bytes!("deregister"), 1u32);
        expect(refresh(vec![1, 2]), selector_bytes!("refresh"), vec![1u32, 2]);
        expect(claim(1), selector_bytes!("claim"), 1u32);
        expect(request_tasks(vec![request(1)]), selector_bytes!("request_tasks"), vec![request(1)]);
        expect(request_task(request(1)), selector_bytes!("request_tasks"), vec![request(1)]);
        expect(collect(vec![1]), selector_bytes!("collect"), vec![1u64]);
        expect(withdraw(), selector_bytes!("withdraw"), ());
        expect(commit_outputs(vec![commit]), selector_bytes!("commit_outputs"), vec![commit]);
        expect(commit_output(1, 2, [3; 32]), selector_bytes!("commit_outputs"), vec![commit]);
        expect(decline(vec![declined]), selector_bytes!("decline"), vec![declined]);
        expect(open_outputs(vec![open]), selector_bytes!("open_outputs"), vec![open]);
        expect(open_output(open), selector_bytes!("open_outputs"), vec![open]);
        expect(commit_scores(vec![commit]), selector_bytes!("commit_scores"), vec![commit]);
        expect(commit_score(1, 2, [3; 32]), selector_bytes!("commit_scores"), vec![commit]);
        expect(reveal_scores(vec![reveal.clone()]), selector_bytes!("reveal_scores"), vec![reveal.clone()]);
        expect(reveal_score(reveal.clone()), selector_bytes!("reveal_scores"), vec![reveal]);
        expect(draw_panels(vec![draw.clone()]), selector_bytes!("draw_panels"), vec![draw.clone()]);
        expect(draw_panel(draw.clone()), selector_bytes!("draw_panels"), vec![draw]);
        expect(advance(vec![1]), selector_bytes!("advance"), vec![1u64]);
        expect(advance_one(1), selector_bytes!("advance"), vec![1u64]);
        expect(bond(5), selector_bytes!("bond"), ());
        expect(withdraw_bond(), selector_bytes!("withdraw_bond"), ());
        expect(open_reference(1, opening.clone()), selector_bytes!("open_reference"), (1u64, opening));
        expect(propose(change.clone()), selector_bytes!("propose"), change);
        expect(propose_code(&account), selector_bytes!("propose_code"), [8u8; 32]);
        expect(enact(Lever::Kind(7)), selector_bytes!("enact"), Lever::Kind(7));
        expect(enact(Lever::Code), selector_bytes!("set_code"), ());
        expect(cancel(Lever::Global), selector_bytes!("cancel"), Lever::Global);
        expect(dismiss_auditor(&account), selector_bytes!("dismiss_auditor"), [8u8; 32]);
        expect(set_paused(true), selector_bytes!("set_paused"), true);
        expect(propose_owner(&account), selector_bytes!("propose_owner"), [8u8; 32]);
        expect(accept_ownership(), selector_bytes!("accept_ownership"), ());
        expect(withdraw_treasury(&account, 3), selector_bytes!("withdraw_treasury"), ([8u8; 32], 3u128));
        expect(burn(), selector_bytes!("burn"), ());
        let global = Change::Global(GlobalParams::default());
        expect(propose(global.clone()), selector_bytes!("propose"), global);
    }

    #[test]
    fn money_travels_beside_the_arguments() {
        assert_eq!(stake(1, 5).value(), 5);
        assert_eq!(stake(1, 5).data(), stake(1, 6).data());
        assert_eq!(request_tasks(vec![request(3), request(4)]).value(), 7);
        assert!(!stake(1, 5).is_idempotent());
        assert!(commit_output(1, 1, [1; 32]).is_idempotent());
    }

    #[test]
    fn a_batch_of_one_answers_for_its_item() {
        type Answer<T> = Result<Result<Vec<T>, ContractError>, LangError>;
        let at = AccountId32([1; 32]);
        let drawn: Answer<Result<bool, ContractError>> = Ok(Ok(vec![Ok(false)]));
        let message = draw_panel(Draw { task: 1, secret: [1; 32], openings: vec![] });
        assert_eq!(message.read(&at, false, &drawn.encode()).unwrap(), Ok(false));
        let mismatch = ContractError::Task(Refusal::Mismatch);
        let refused: Answer<Option<ContractError>> = Ok(Ok(vec![Some(mismatch)]));
        assert_eq!(commit_output(1, 1, [1; 32]).read(&at, false, &refused.encode()).unwrap(), Err(mismatch));
        let refused: Answer<Option<ContractError>> = Ok(Err(mismatch));
        assert_eq!(commit_output(1, 1, [1; 32]).read(&at, true, &refused.encode()).unwrap(), Err(mismatch));
        let nothing: Answer<Option<ContractError>> = Ok(Ok(vec![]));
        assert!(commit_output(1, 1, [1; 32]).read(&at, false, &nothing.encode()).is_err());
    }
}
