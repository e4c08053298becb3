//! Every message of the contract, as a value.

use crate::{blake2, call, encode};
use ink::primitives::AccountId;
use parity_scale_codec::{Decode, Encode};
use poq_contract::errors::Error;
use poq_contract::types::{
    Change, Commit, Decline as Declined, Draw, Lever, NodeUpdate, Open, Opening, Registration, Request,
    Reveal,
};
use poq_contract::Poq;
use poq_core::units::{Balance, NodeId, TaskId};

/// The selector of a message: the first bytes of the hash of its name.
pub fn selector_of(name: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = blake2(name.as_bytes());
    [a, b, c, d]
}

/// Declares the messages: one line each says what it is called, what it takes, and whether money can come with it.
macro_rules! messages {
    ($($name:ident = $method:ident($($arg:ident: $of:ty),*) $payable:literal;)*) => {
        /// A message with its arguments.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message {
            $(
                #[allow(missing_docs)]
                $name($($of),*),
            )*
        }

        impl Message {
            /// What all of them are called, in the contract's own order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($method)),*];

            /// What it is called.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Message::$name(..) => stringify!($method),)*
                }
            }

            /// Whether money can come with it.
            pub fn is_payable(&self) -> bool {
                match self {
                    $(Message::$name(..) => $payable,)*
                }
            }

            /// Selector and arguments.
            pub fn encode(&self) -> Vec<u8> {
                match self.clone() {
                    $(Message::$name($($arg),*) => encode(call().$method($($arg),*)),)*
                }
            }

            /// The message of a call's bytes, as the contract reads them; what is left over is not looked at.
            pub fn decode(bytes: &[u8]) -> Option<Message> {
                let (selector, rest) = bytes.split_first_chunk::<4>()?;
                $(
                    if *selector == selector_of(stringify!($method)) {
                        let mut input = rest;
                        let _ = &mut input;
                        return Some(Message::$name($(<$of>::decode(&mut input).ok()?),*));
                    }
                )*
                None
            }

            /// Runs it here, on the contract's own code: what it returns, encoded.
            ///
            /// # Errors
            /// The contract's.
            pub fn run(&self, contract: &mut Poq) -> Result<Vec<u8>, Error> {
                match self.clone() {
                    $(Message::$name($($arg),*) => contract.$method($($arg),*).map(|value| value.encode()),)*
                }
            }
        }
    };
}

messages! {
    Register = register(registration: Registration) true;
    Configure = configure(node: NodeId, update: NodeUpdate) false;
    Stake = stake(node: NodeId) true;
    Unstake = unstake(node: NodeId, amount: Balance) false;
    WithdrawUnbonded = withdraw_unbonded(node: NodeId) false;
    Drain = drain(node: NodeId) false;
    Resume = resume(node: NodeId) false;
    Deregister = deregister(node: NodeId) false;
    Refresh = refresh(nodes: Vec<NodeId>) false;
    Claim = claim(node: NodeId) false;
    RequestTasks = request_tasks(requests: Vec<Request>) true;
    Collect = collect(tasks: Vec<TaskId>) false;
    Withdraw = withdraw() false;
    CommitOutputs = commit_outputs(items: Vec<Commit>) false;
    Decline = decline(items: Vec<Declined>) false;
    OpenOutputs = open_outputs(items: Vec<Open>) false;
    DrawPanels = draw_panels(draws: Vec<Draw>) false;
    CommitScores = commit_scores(items: Vec<Commit>) false;
    RevealScores = reveal_scores(items: Vec<Reveal>) false;
    Advance = advance(tasks: Vec<TaskId>) false;
    Bond = bond() true;
    WithdrawBond = withdraw_bond() false;
    OpenReference = open_reference(task: TaskId, opening: Opening) false;
    Propose = propose(change: Change) false;
    ProposeCode = propose_code(instance: AccountId) false;
    Enact = enact(lever: Lever) false;
    SetCode = set_code() false;
    Migrate = migrate() false;
    Cancel = cancel(lever: Lever) false;
    SetPaused = set_paused(paused: bool) false;
    DismissAuditor = dismiss_auditor(auditor: AccountId) false;
    ProposeOwner = propose_owner(proposed: AccountId) false;
    AcceptOwnership = accept_ownership() false;
    WithdrawTreasury = withdraw_treasury(to: AccountId, amount: Balance) false;
    Burn = burn() false;
}
