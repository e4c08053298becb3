//! Staking pools: contracts that own a node and let token holders stake through it.

use crate::account::{to_account32, to_ink, InkAccountId};
use crate::deploy::{instantiate, Artifact, Construction, Deployed};
use crate::error::{Error, Result};
use crate::events::PoqEvent;
use crate::json::ToJson;
use crate::messages::{encode, Encoded, Message};
use crate::submit::Submitter;
use crate::types::{Balance, Millis};
use crate::view::{decode_return, View};
use crate::Cost;
use ink::env::call::FromAccountId;
use ink::env::{DefaultEnvironment, Environment, Event};
use parity_scale_codec::{Decode, DecodeAll, Encode};
use poq_contract::errors::Error as ContractError;
pub use poq_core::pool::{
    Exits, Ledger, PoolError, Rules, Stage, Terms, NEVER, SHARE_DECIMALS, VIRTUAL_SHARES,
};
pub use poq_pool_contract::errors::Error as Refusal;
pub use poq_pool_contract::events::{
    Accounted, BondAdded, Deposited, EraEnded, EraPaid, ExitPaid, ExitRequested, ManagerChanged, ManagerPaid,
    PoolCreated, StageChanged, TermsAnnounced,
};
pub use poq_pool_contract::types::{ExitView, MemberView, PoolNode, PoolNodeUpdate, PoolView, Token};
use poq_pool_contract::PoolRef;
pub use psp22::Transfer;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use subxt::utils::{AccountId32, H256};

/// The pool contract's call builder.
type Builder = <poq_pool_contract::Pool as ink::codegen::ContractCallBuilder>::Type;

/// A call builder of the pool contract. The address that it asks for plays no part in what is encoded.
fn contract() -> Builder {
    <Builder as FromAccountId<DefaultEnvironment>>::from_account_id([0; 32].into())
}

// -------------------------------------------------------------------------------------------------- queries

impl View {
    /// A pool, with its books as of this block.
    ///
    /// # Errors
    /// As of every query; `NotOurContract` where the address is not a pool's.
    pub async fn pool(&self, pool: &AccountId32) -> Result<PoolView> {
        accepted("pool", self.query_of(pool, "pool", encode(contract().pool())).await?)
    }

    /// What an account has in a pool, as of this block.
    ///
    /// # Errors
    /// As of [`View::pool`].
    pub async fn pool_member(&self, pool: &AccountId32, account: &AccountId32) -> Result<MemberView> {
        accepted("member", self.query_of(pool, "member", encode(contract().member(to_ink(account)))).await?)
    }

    /// Every pool that owns a node of this contract, by its address. Pools are found by their nodes: a closed pool, whose node is gone,
    /// is not among them.
    ///
    /// # Errors
    /// As of every query.
    pub async fn pools(&self) -> Result<Vec<(AccountId32, PoolView)>> {
        let owners: BTreeSet<[u8; 32]> =
            self.all_nodes().await?.iter().map(|view| to_account32(&view.node.owner).0).collect();
        let mut pools = Vec::new();
        for owner in owners.into_iter().map(AccountId32) {
            // Owners are people, mostly; and other contracts may own nodes too.
            if self.client().code_hash_of(&owner).await?.is_none() {
                continue;
            }
            match self.pool(&owner).await {
                Ok(pool) if to_account32(&pool.poq) == self.client().contract()? => pools.push((owner, pool)),
                Ok(_) | Err(Error::NotOurContract { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pools)
    }
}

fn accepted<T>(message: &'static str, answer: std::result::Result<T, Refusal>) -> Result<T> {
    answer.map_err(|error| Error::PoolRejected { message, error })
}

// -------------------------------------------------------------------------------------------------- messages

/// Reads what a pool answered; its refusal is an error of its own kind.
fn read<T: Decode>(
    pool: &AccountId32,
    message: &'static str,
    reverted: bool,
    data: &[u8],
) -> Result<std::result::Result<T, ContractError>> {
    accepted(message, decode_return(pool, message, reverted, data)?).map(Ok)
}

fn message<T: Decode>(
    pool: &AccountId32,
    name: &'static str,
    encoded: Encoded<std::result::Result<T, Refusal>>,
) -> Message<T> {
    Message::to_another(pool, name, encoded.data, read)
}

/// Reads what a message did from its event.
fn told<T>(read: impl Fn(PoolEvent) -> Option<T>) -> impl Fn(&PoqEvent) -> Option<T> {
    move |event| PoolEvent::of(event).and_then(&read)
}

/// Deposits; returns the shares that it bought.
pub fn deposit(pool: &AccountId32, amount: Balance) -> Message<Balance> {
    message(pool, "deposit", encode(contract().deposit())).paying(amount).told_by(told(|event| match event {
        PoolEvent::Deposited(e) => Some(e.shares),
        _ => None,
    }))
}

/// Exits shares; returns what they are worth.
pub fn exit(pool: &AccountId32, shares: Balance) -> Message<Balance> {
    message(pool, "exit", encode(contract().exit(shares))).told_by(told(|event| match event {
        PoolEvent::ExitRequested(e) => Some(e.value),
        _ => None,
    }))
}

/// Pays an account what its exits gave whose eras are paid; returns how much. Anybody may.
pub fn claim(pool: &AccountId32, account: &AccountId32) -> Message<Balance> {
    message(pool, "claim", encode(contract().claim(to_ink(account)))).idempotent()
}

/// Does what is due in a pool. Anybody may.
pub fn advance(pool: &AccountId32) -> Message<()> {
    message(pool, "advance", encode(contract().advance())).idempotent()
}

/// Adds to the manager's bond.
pub fn add_bond(pool: &AccountId32, amount: Balance) -> Message<()> {
    message(pool, "add_bond", encode(contract().add_bond())).paying(amount).told_by(told(
        |event| match event {
            PoolEvent::BondAdded(_) => Some(()),
            _ => None,
        },
    ))
}

/// Pays the manager; returns how much.
pub fn collect(pool: &AccountId32) -> Message<Balance> {
    message(pool, "collect", encode(contract().collect())).idempotent()
}

/// Announces terms; returns when they begin.
pub fn announce(pool: &AccountId32, terms: Terms) -> Message<Millis> {
    message(pool, "announce", encode(contract().announce(terms))).told_by(told(|event| match event {
        PoolEvent::TermsAnnounced(e) => Some(e.from),
        _ => None,
    }))
}

/// Changes the pool's node.
pub fn configure(pool: &AccountId32, update: PoolNodeUpdate) -> Message<()> {
    message(pool, "configure", encode(contract().configure(update))).idempotent()
}

/// Takes the pool's node out of the draws.
pub fn drain(pool: &AccountId32) -> Message<()> {
    message(pool, "drain", encode(contract().drain())).idempotent()
}

/// Puts it back into them.
pub fn resume(pool: &AccountId32) -> Message<()> {
    message(pool, "resume", encode(contract().resume())).idempotent()
}

/// Begins to close a pool.
pub fn close(pool: &AccountId32) -> Message<()> {
    message(pool, "close", encode(contract().close())).told_by(told(|event| match event {
        PoolEvent::StageChanged(_) => Some(()),
        _ => None,
    }))
}

/// Proposes another account as manager.
pub fn propose_manager(pool: &AccountId32, proposed: &AccountId32) -> Message<()> {
    message(pool, "propose_manager", encode(contract().propose_manager(to_ink(proposed)))).idempotent()
}

/// Accepts to run a pool.
pub fn accept_management(pool: &AccountId32) -> Message<()> {
    message(pool, "accept_management", encode(contract().accept_management()))
}

// -------------------------------------------------------------------------------------------------- making one

/// A pool to be made.
#[derive(Clone, Debug)]
pub struct NewPool {
    /// The contract that its node is to be in.
    pub poq: AccountId32,
    /// Its node.
    pub node: PoolNode,
    /// What is promised for ever.
    pub rules: Rules,
    /// The first terms.
    pub terms: Terms,
    /// The manager's bond.
    pub bond: Balance,
    /// The token's name and symbol.
    pub token: Token,
}

impl NewPool {
    fn construction<'a>(&self, artifact: &'a Artifact, salt: &'a [u8]) -> Construction<'a> {
        let Token { name, symbol } = self.token.clone();
        let poq: InkAccountId = to_ink(&self.poq);
        // Only the input is taken from the built instantiation; hash, endowment and salt travel beside it.
        let data = PoolRef::new(poq, self.node.clone(), self.rules, self.terms, name, symbol)
            .code_hash(<DefaultEnvironment as Environment>::Hash::from([0; 32]))
            .endowment(0)
            .salt_bytes([0u8; 0])
            .params()
            .exec_input()
            .encode();
        Construction { name: "the pool", artifact, value: self.bond, data, salt, answer: constructed }
    }

    /// Where the pool comes to be when this account makes it.
    pub fn address(&self, manager: &AccountId32, artifact: &Artifact, salt: &[u8]) -> AccountId32 {
        self.construction(artifact, salt).address(manager)
    }

    /// Makes the pool; the submitter's account is its manager and pays its bond.
    ///
    /// # Errors
    /// `PoolRejected`; `Dispatch(Contracts::DuplicateContract)` where the same was made before with the same salt;
    /// `InsufficientFunds`; or as of every call.
    pub async fn create(&self, submitter: &Submitter, artifact: &Artifact, salt: &[u8]) -> Result<Deployed> {
        instantiate(submitter, &self.construction(artifact, salt)).await
    }

    /// What [`NewPool::create`] would cost.
    ///
    /// # Errors
    /// As of it, with nothing sent.
    pub async fn quote(&self, submitter: &Submitter, artifact: &Artifact, salt: &[u8]) -> Result<Cost> {
        submitter.quote_construction(&self.construction(artifact, salt)).await
    }
}

fn constructed(pool: &AccountId32, reverted: bool, data: &[u8]) -> Result<()> {
    accepted("new", decode_return(pool, "new", reverted, data)?)
}

// -------------------------------------------------------------------------------------------------- events

macro_rules! pool_events {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),* $(,)? })*) => {
        /// An event of a pool.
        #[non_exhaustive]
        pub enum PoolEvent {
            $($(#[$doc])* $name($name),)*
        }

        impl PoolEvent {
            /// Decodes an event from its topics and data; `None` for one that is no pool's, an allowance's for example.
            ///
            /// # Errors
            /// `Decode` where the data is not what the topic promises.
            pub fn decode(topics: &[H256], data: &[u8]) -> Result<Option<PoolEvent>> {
                let topic = topics.first().map(|topic| topic.0);
                $(
                    if topic.is_some() && topic == <$name as Event>::SIGNATURE_TOPIC {
                        return $name::decode_all(&mut &data[..])
                            .map(|event| Some(PoolEvent::$name(event)))
                            .map_err(|e| Error::decode(concat!("the event ", stringify!($name)), e));
                    }
                )*
                Ok(None)
            }

            /// The event's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(PoolEvent::$name(_) => stringify!($name),)*
                }
            }
        }

        impl ToJson for PoolEvent {
            fn to_json(&self) -> Value {
                match self {
                    $(PoolEvent::$name(event) => {
                        let $name { $($field),* } = event;
                        json!({ "event": stringify!($name), $(stringify!($field): $field.to_json()),* })
                    })*
                }
            }
        }
    };
}

pool_events! {
    /// A pool was made.
    PoolCreated { poq, node, manager, bond, rules, terms }
    /// Slashes or rewards were booked.
    Accounted {
        bond_slashed, shares_slashed, exits_slashed, commission, bond_earned, shares_earned, written_off
    }
    /// A deposit was taken.
    Deposited { account, amount, shares }
    /// Shares were exited.
    ExitRequested { account, shares, value, era }
    /// Stake was unstaked, or an era ended.
    EraEnded { era, unstaked, ends }
    /// An era's exits can be claimed.
    EraPaid { era, pot }
    /// An account was paid its exits.
    ExitPaid { account, amount }
    /// The manager added to its bond.
    BondAdded { amount }
    /// The manager was paid.
    ManagerPaid { to, amount }
    /// Terms were announced.
    TermsAnnounced { terms, from }
    /// The pool began to close, or was closed.
    StageChanged { stage }
    /// Another manager was proposed or accepted.
    ManagerChanged { manager, proposed }
    /// Shares moved (PSP22): minted where they come from nobody, burned where they go to nobody.
    Transfer { from, to, value }
}

impl PoolEvent {
    /// Of an event that this client does not know as one of its own contract's.
    pub fn of(event: &PoqEvent) -> Option<PoolEvent> {
        match event {
            PoqEvent::Unknown { topics, data } => PoolEvent::decode(topics, data).ok().flatten(),
            _ => None,
        }
    }
}

impl std::fmt::Debug for PoolEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_events_are_told_apart_by_their_signature() {
        let topic = H256(<EraPaid as Event>::SIGNATURE_TOPIC.unwrap());
        let unknown = PoqEvent::decode(&[topic], &(3u32, 9u128).encode()).unwrap();
        let event = PoolEvent::of(&unknown).unwrap();
        assert_eq!(event.to_json(), json!({ "event": "EraPaid", "era": 3, "pot": "9" }));
        assert!(PoolEvent::decode(&[topic], &[1]).is_err());
        assert!(PoolEvent::decode(&[H256([1; 32])], &[1]).unwrap().is_none());
    }

    #[test]
    fn a_refusal_is_the_pools() {
        let pool = AccountId32([7; 32]);
        let refused: std::result::Result<std::result::Result<u128, Refusal>, ink::LangError> =
            Ok(Err(Refusal::Pool(PoolError::WipedOut)));
        let error = read::<u128>(&pool, "deposit", true, &refused.encode()).unwrap_err();
        assert!(error.to_string().contains("next to nothing"), "{error}");
        assert!(matches!(error, Error::PoolRejected { message: "deposit", .. }));
    }
}
