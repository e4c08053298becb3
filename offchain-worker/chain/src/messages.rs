//! Every message of the contract. Selector and argument types come from the call builders that ink! generates for the contract
//! itself, so an interface that drifts does not compile.

use crate::account::to_ink;
use crate::events::PoqEvent;
use crate::types::{
    Balance, BondChange, Commit, GlobalParams, Hash, KindId, KindParams, NodeId, NodeUpdate, Opening,
    Registration, Reveal, Step, TaskId, TaskInput,
};
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

/// What a message leaves behind: the value that its event tells, or nothing where the event is missing.
type Told<T> = Arc<dyn Fn(&[PoqEvent]) -> Option<T> + Send + Sync>;

/// Whether a dry run's answer only means that it is too early for the block that it was run at.
type Early<T> = fn(&Result<&T, ContractError>) -> bool;

/// A message with its arguments and the money that it carries, returning `T`.
#[derive(Clone)]
pub struct Message<T> {
    name: &'static str,
    data: Vec<u8>,
    value: Balance,
    idempotent: bool,
    early: Option<Early<T>>,
    told: Option<Told<T>>,
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
        Message { name, data: encoded.data, value: 0, idempotent: false, early: None, told: None }
    }

    /// With money.
    fn paying(mut self, value: Balance) -> Message<T> {
        self.value = value;
        self
    }

    /// Sending it twice does what sending it once does.
    fn idempotent(mut self) -> Message<T> {
        self.idempotent = true;
        self
    }

    /// Its answer depends on the block's number or time, and so can be another one in the next block.
    fn timed(mut self, early: Early<T>) -> Message<T> {
        self.early = Some(early);
        self
    }

    /// An event must tell what it did.
    fn told_by(mut self, told: impl Fn(&PoqEvent) -> Option<T> + Send + Sync + 'static) -> Message<T> {
        self.told = Some(Arc::new(move |events| events.iter().find_map(&told)));
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

    /// Whether sending it twice does what sending it once does.
    pub fn is_idempotent(&self) -> bool {
        self.idempotent
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
            Some(told) => told(events).map(Some),
        }
    }
}

/// Refused for the block's number or time.
fn refused_early<T>(answer: &Result<&T, ContractError>) -> bool {
    matches!(answer, Err(ContractError::TooEarly | ContractError::WrongPhase | ContractError::StillUnbonding))
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

/// Adds stake to a node.
pub fn stake(node: NodeId, amount: Balance) -> Message<()> {
    Message::new("stake", encode(contract().stake(node)))
        .paying(amount)
        .told_by(event!(Staked, e, e.node == node => ()))
}

/// Begins to take stake out of a node.
pub fn unstake(node: NodeId, amount: Balance) -> Message<()> {
    Message::new("unstake", encode(contract().unstake(node, amount)))
        .told_by(event!(Unstaked, e, e.node == node => ()))
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

/// Requests a task and puts its fee into escrow. Returns its number.
pub fn request_task(
    kind: KindId,
    outputs: u8,
    panel: u8,
    input: TaskInput,
    reference_commitment: Hash,
    fee: Balance,
) -> Message<TaskId> {
    Message::new(
        "request_task",
        encode(contract().request_task(kind, outputs, panel, input, reference_commitment)),
    )
    .paying(fee)
    .told_by(event!(TaskRequested, e, true => e.task))
}

/// Collects the refunds of final tasks and frees their storage. Returns how much.
pub fn collect(tasks: Vec<TaskId>) -> Message<Balance> {
    Message::new("collect", encode(contract().collect(tasks)))
}

// -------------------------------------------------------------------------------------------------- duties

/// Commits to an output.
pub fn commit_output(task: TaskId, node: NodeId, commitment: Hash) -> Message<()> {
    Message::new("commit_output", encode(contract().commit_output(task, node, commitment))).idempotent()
}

/// Commits to several outputs; per item why it was skipped, if it was.
pub fn commit_outputs(items: Vec<Commit>) -> Message<Vec<Option<ContractError>>> {
    Message::new("commit_outputs", encode(contract().commit_outputs(items))).idempotent()
}

/// Commits to scores.
pub fn commit_scores(task: TaskId, node: NodeId, commitment: Hash) -> Message<()> {
    Message::new("commit_scores", encode(contract().commit_scores(task, node, commitment))).idempotent()
}

/// Commits to several panels' scores; per item why it was skipped, if it was.
pub fn commit_scores_batch(items: Vec<Commit>) -> Message<Vec<Option<ContractError>>> {
    Message::new("commit_scores_batch", encode(contract().commit_scores_batch(items))).idempotent()
}

/// Reveals scores.
pub fn reveal_scores(reveal: Reveal) -> Message<()> {
    Message::new("reveal_scores", encode(contract().reveal_scores(reveal))).idempotent().timed(refused_early)
}

/// Reveals several panels' scores; per item why it was skipped, if it was.
pub fn reveal_scores_batch(items: Vec<Reveal>) -> Message<Vec<Option<ContractError>>> {
    Message::new("reveal_scores_batch", encode(contract().reveal_scores_batch(items))).idempotent().timed(
        |answer| match answer {
            Ok(items) => items.iter().flatten().any(|error| refused_early::<()>(&Err(*error))),
            Err(_) => refused_early(answer),
        },
    )
}

// -------------------------------------------------------------------------------------------------- keepers

/// Draws a task's panel.
pub fn draw_panel(task: TaskId) -> Message<()> {
    Message::new("draw_panel", encode(contract().draw_panel(task)))
        .idempotent()
        .timed(refused_early)
        .told_by(event!(PanelDrawn, e, e.task == task => ()))
}

/// Settles a task.
pub fn settle(task: TaskId) -> Message<()> {
    Message::new("settle", encode(contract().settle(task)))
        .idempotent()
        .timed(refused_early)
        .told_by(event!(TaskSettled, e, e.task == task => ()))
}

/// Does for each task what is due; per item the step done, or why none was.
pub fn advance(tasks: Vec<TaskId>) -> Message<Vec<Result<Step, ContractError>>> {
    Message::new("advance", encode(contract().advance(tasks))).idempotent().timed(|answer| match answer {
        Ok(items) => items.iter().any(|item| matches!(item, Err(ContractError::TooEarly))),
        Err(_) => refused_early(answer),
    })
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
    Message::new("withdraw_bond", encode(contract().withdraw_bond()))
}

/// Settles a gold task by its reference.
pub fn settle_audited(task: TaskId, opening: Opening) -> Message<()> {
    Message::new("settle_audited", encode(contract().settle_audited(task, opening)))
        .idempotent()
        .timed(refused_early)
        .told_by(event!(TaskAudited, e, e.task == task => ()))
}

// -------------------------------------------------------------------------------------------------- the owner

/// Appoints an auditor or dismisses one, and takes something from its bond.
pub fn set_auditor(auditor: &AccountId32, appointed: bool, slash: Balance) -> Message<()> {
    Message::new("set_auditor", encode(contract().set_auditor(to_ink(auditor), appointed, slash)))
        .told_by(event!(AuditorChanged, e, e.change == BondChange::Slashed(slash) => ()))
}

/// Sets a kind's parameters for future tasks. Returns their version.
pub fn set_kind(kind: KindId, params: KindParams) -> Message<u32> {
    Message::new("set_kind", encode(contract().set_kind(kind, params)))
        .told_by(event!(KindSet, e, e.kind == kind => e.version))
}

/// Sets the global parameters.
pub fn set_global(params: GlobalParams) -> Message<()> {
    Message::new("set_global", encode(contract().set_global(params)))
        .idempotent()
        .told_by(event!(Administered, e, e.what == Administration::Global(params) => ()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ratio, Role, Score};
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

    /// Selector and arguments of a message are what the contract's dispatcher expects: blake2b of the name, then SCALE.
    fn expect<T: Decode>(message: Message<T>, selector: [u8; 4], args: impl Encode) {
        let mut expected = selector.to_vec();
        args.encode_to(&mut expected);
        assert_eq!(hex::encode(message.data()), hex::encode(expected), "{}", message.name());
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
        let input = TaskInput { hash: [6; 32], url: "http://i".into() };
        let update = NodeUpdate { price: Some(9), ..NodeUpdate::default() };
        let account = AccountId32([8; 32]);
        let params = KindParams::default();
        let global = GlobalParams::default();
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
        expect(
            request_task(7, 2, 5, input.clone(), [1; 32], 10),
            selector_bytes!("request_task"),
            (7u16, 2u8, 5u8, input, [1u8; 32]),
        );
        expect(collect(vec![1]), selector_bytes!("collect"), vec![1u64]);
        expect(commit_output(1, 2, [3; 32]), selector_bytes!("commit_output"), (1u64, 2u32, [3u8; 32]));
        expect(commit_outputs(vec![commit.clone()]), selector_bytes!("commit_outputs"), vec![commit.clone()]);
        expect(commit_scores(1, 2, [3; 32]), selector_bytes!("commit_scores"), (1u64, 2u32, [3u8; 32]));
        expect(
            commit_scores_batch(vec![commit.clone()]),
            selector_bytes!("commit_scores_batch"),
            vec![commit],
        );
        expect(reveal_scores(reveal.clone()), selector_bytes!("reveal_scores"), reveal.clone());
        expect(
            reveal_scores_batch(vec![reveal.clone()]),
            selector_bytes!("reveal_scores_batch"),
            vec![reveal],
        );
        expect(draw_panel(1), selector_bytes!("draw_panel"), 1u64);
        expect(settle(1), selector_bytes!("settle"), 1u64);
        let opening = Opening {
            reference: b"Denver".to_vec(),
            salt: [1; 32],
            outputs: vec![Some((b"Denver won".to_vec(), [2; 32])), None],
        };
        expect(bond(5), selector_bytes!("bond"), ());
        expect(withdraw_bond(), selector_bytes!("withdraw_bond"), ());
        expect(settle_audited(1, opening.clone()), selector_bytes!("settle_audited"), (1u64, opening));
        expect(set_auditor(&account, true, 3), selector_bytes!("set_auditor"), ([8u8; 32], true, 3u128));
        expect(advance(vec![1]), selector_bytes!("advance"), vec![1u64]);
        expect(set_kind(7, params.clone()), selector_bytes!("set_kind"), (7u16, params));
        expect(set_global(global), selector_bytes!("set_global"), global);
        expect(set_paused(true), selector_bytes!("set_paused"), true);
        expect(propose_owner(&account), selector_bytes!("propose_owner"), [8u8; 32]);
        expect(accept_ownership(), selector_bytes!("accept_ownership"), ());
        expect(withdraw_treasury(&account, 3), selector_bytes!("withdraw_treasury"), ([8u8; 32], 3u128));
    }

    #[test]
    fn money_travels_beside_the_arguments() {
        assert_eq!(stake(1, 5).value(), 5);
        assert_eq!(stake(1, 5).data(), stake(1, 6).data());
        assert!(!stake(1, 5).is_idempotent());
        assert!(commit_output(1, 1, [1; 32]).is_idempotent());
    }
}
