//! What the contract says happened, decoded by each event's signature topic.

use crate::client::Block;
use crate::error::{Error, Result};
use crate::json::ToJson;
use crate::types::{NodeId, TaskId};
use ink::env::Event;
use parity_scale_codec::DecodeAll;
pub use poq_contract::events::{
    Administered, Administration, AuditorChanged, Burned, Cancelled, Claimed, Collected, Declined, Enacted,
    KeeperPaid, KindSet, NodeChange, NodeChanged, NodeRegistered, OutputsCommitted, OutputsOpened,
    PanelDrawn, PanelShort, Proposed, ScoresCommitted, ScoresRevealed, StakeWithdrawn, Staked, TaskAudited,
    TaskClosed, TaskRequested, TreasuryWithdrawn, Unstaked, Withdrawn,
};
use serde_json::{json, Value};
use std::borrow::Borrow;
use subxt::utils::{AccountId32, H256};

macro_rules! poq_events {
    ($($(#[$doc:meta])* $name:ident($holds:ty) { $($field:ident),* $(,)? })*) => {
        /// An event of the contract.
        #[non_exhaustive]
        pub enum PoqEvent {
            $($(#[$doc])* $name($holds),)*
            /// An event that this version does not know.
            Unknown {
                /// Its topics.
                topics: Vec<H256>,
                /// Its fields.
                data: Vec<u8>,
            },
        }

        impl PoqEvent {
            /// Decodes an event from its topics and data.
            ///
            /// # Errors
            /// `Decode` where the data is not what the topic promises.
            pub fn decode(topics: &[H256], data: &[u8]) -> Result<PoqEvent> {
                $(
                    let signature = <$name as Event>::SIGNATURE_TOPIC;
                    if signature.is_some() && topics.first().map(|topic| topic.0) == signature {
                        return $name::decode_all(&mut &data[..])
                            .map(|event| PoqEvent::$name(event.into()))
                            .map_err(|e| Error::decode(concat!("the event ", stringify!($name)), e));
                    }
                )*
                Ok(PoqEvent::Unknown { topics: topics.to_vec(), data: data.to_vec() })
            }

            /// The event's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(PoqEvent::$name(_) => stringify!($name),)*
                    PoqEvent::Unknown { .. } => "Unknown",
                }
            }

            /// The event's fields.
            fn fields(&self) -> Value {
                match self {
                    $(PoqEvent::$name(event) => {
                        let $name { $($field),* } = Borrow::<$name>::borrow(event);
                        json!({ $(stringify!($field): $field.to_json()),* })
                    })*
                    PoqEvent::Unknown { topics, data } => {
                        json!({ "topics": topics.to_json(), "data": format!("0x{}", hex::encode(data)) })
                    }
                }
            }
        }

        impl Clone for PoqEvent {
            fn clone(&self) -> PoqEvent {
                match self {
                    $(PoqEvent::$name(event) => {
                        let $name { $($field),* } = Borrow::<$name>::borrow(event);
                        PoqEvent::$name($name { $($field: $field.clone()),* }.into())
                    })*
                    PoqEvent::Unknown { topics, data } => {
                        PoqEvent::Unknown { topics: topics.clone(), data: data.clone() }
                    }
                }
            }
        }
    };
}

poq_events! {
    /// A node was registered.
    NodeRegistered(NodeRegistered) { node, owner, operator, role, kind, model, model_digest }
    /// A node was configured, drained, resumed or deregistered.
    NodeChanged(NodeChanged) { node, change }
    /// Stake came in.
    Staked(Staked) { node, amount }
    /// Stake began to unbond.
    Unstaked(Unstaked) { node, amount, until }
    /// Unbonded stake was paid out.
    StakeWithdrawn(StakeWithdrawn) { node, to, amount }
    /// Rewards were paid out.
    Claimed(Claimed) { node, to, amount }
    /// A task was requested and its inference nodes assigned.
    TaskRequested(Box<TaskRequested>) {
        task, requester, kind, version, fee, nodes, panel, deadline, early, input, data
    }
    /// Inference nodes committed to outputs.
    OutputsCommitted(OutputsCommitted) { items }
    /// Inference nodes declined.
    Declined(Declined) { items }
    /// Outputs' commitments were opened on chain before the draw.
    OutputsOpened(OutputsOpened) { items }
    /// A panel was drawn, or its empty seats filled.
    PanelDrawn(Box<PanelDrawn>) { task, filled, seed, secret, outputs, nodes, weights, vacated, deadline }
    /// A secret was shown, but too few evaluators could be drawn.
    PanelShort(PanelShort) { task, found }
    /// Evaluators committed to scores.
    ScoresCommitted(ScoresCommitted) { items }
    /// Evaluators' scores were revealed.
    ScoresRevealed(ScoresRevealed) { items }
    /// A task ended.
    TaskClosed(Box<TaskClosed>) {
        task, requester, kind, version, seed, output_nodes, panel_nodes, input, settlement
    }
    /// An auditor opened a gold task's reference.
    TaskAudited(Box<TaskAudited>) { task, auditor, opening, panel_nodes, input, audit }
    /// Steps paid their keeper.
    KeeperPaid(KeeperPaid) { keeper, items }
    /// An auditor was appointed, bonded, was dismissed or slashed, resigned, or got its bond back.
    AuditorChanged(AuditorChanged) { account, auditor, change }
    /// A final task was collected.
    Collected(Collected) { task, to, amount }
    /// An account's credit was paid out.
    Withdrawn(Withdrawn) { to, amount }
    /// Burned money left the contract for the account that nobody has.
    Burned(Burned) { amount }
    /// The owner announced a change.
    Proposed(Box<Proposed>) { change, acts_at }
    /// A change acts.
    Enacted(Box<Enacted>) { change }
    /// The owner withdrew an announcement.
    Cancelled(Cancelled) { lever }
    /// The owner withdrew from the treasury.
    TreasuryWithdrawn(TreasuryWithdrawn) { to, amount }
    /// A kind got new parameters.
    KindSet(Box<KindSet>) { kind, version, params }
    /// The contract's owner changed something for future tasks, or is another one.
    Administered(Administered) { what }
}

impl PoqEvent {
    /// The task that it is about, where it is about one.
    pub fn task(&self) -> Option<TaskId> {
        match self.tasks()[..] {
            [task] => Some(task),
            _ => None,
        }
    }

    /// All the tasks that it is about, each once.
    pub fn tasks(&self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = match self {
            PoqEvent::TaskRequested(e) => vec![e.task],
            PoqEvent::PanelDrawn(e) => vec![e.task],
            PoqEvent::PanelShort(e) => vec![e.task],
            PoqEvent::TaskClosed(e) => vec![e.task],
            PoqEvent::TaskAudited(e) => vec![e.task],
            PoqEvent::Collected(e) => vec![e.task],
            PoqEvent::OutputsCommitted(OutputsCommitted { items })
            | PoqEvent::ScoresCommitted(ScoresCommitted { items }) => {
                items.iter().map(|item| item.0).collect()
            }
            PoqEvent::Declined(e) => e.items.iter().map(|item| item.task).collect(),
            PoqEvent::OutputsOpened(e) => e.items.iter().map(|item| item.task).collect(),
            PoqEvent::ScoresRevealed(e) => e.items.iter().map(|item| item.task).collect(),
            PoqEvent::KeeperPaid(e) => e.items.iter().map(|item| item.0).collect(),
            _ => Vec::new(),
        };
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// The nodes that it is about.
    pub fn nodes(&self) -> Vec<NodeId> {
        // A vacant seat's node is 0.
        let panel = |nodes: &[NodeId]| nodes.iter().copied().filter(|node| *node != 0).collect::<Vec<_>>();
        match self {
            PoqEvent::NodeRegistered(e) => vec![e.node],
            PoqEvent::NodeChanged(e) => vec![e.node],
            PoqEvent::Staked(e) => vec![e.node],
            PoqEvent::Unstaked(e) => vec![e.node],
            PoqEvent::StakeWithdrawn(e) => vec![e.node],
            PoqEvent::Claimed(e) => vec![e.node],
            PoqEvent::TaskRequested(e) => e.nodes.clone(),
            PoqEvent::OutputsCommitted(OutputsCommitted { items })
            | PoqEvent::ScoresCommitted(ScoresCommitted { items }) => {
                items.iter().map(|item| item.1).collect()
            }
            PoqEvent::Declined(e) => e.items.iter().map(|item| item.node).collect(),
            PoqEvent::OutputsOpened(e) => e.items.iter().map(|item| item.node).collect(),
            PoqEvent::PanelDrawn(e) => {
                e.nodes.iter().copied().chain(e.vacated.iter().map(|penalty| penalty.node)).collect()
            }
            PoqEvent::ScoresRevealed(e) => e.items.iter().map(|item| item.node).collect(),
            PoqEvent::TaskClosed(e) => [e.output_nodes.clone(), panel(&e.panel_nodes)].concat(),
            PoqEvent::TaskAudited(e) => panel(&e.panel_nodes),
            _ => Vec::new(),
        }
    }
}

impl ToJson for PoqEvent {
    fn to_json(&self) -> Value {
        let mut fields = self.fields();
        if let Value::Object(map) = &mut fields {
            map.insert("event".into(), self.name().into());
        }
        fields
    }
}

impl std::fmt::Debug for PoqEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name(), self.fields())
    }
}

impl PartialEq for PoqEvent {
    fn eq(&self, other: &PoqEvent) -> bool {
        self.name() == other.name() && self.fields() == other.fields()
    }
}

/// An event of any contract, as the chain has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The contract that said it.
    pub contract: AccountId32,
    /// The extrinsic within the block.
    pub extrinsic: Option<u32>,
    /// The event within the block.
    pub index: u32,
    /// Its topics; an ink! event's first is its signature.
    pub topics: Vec<H256>,
    /// Its fields.
    pub data: Vec<u8>,
}

/// An event with its place in the chain.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The block.
    pub block: Block,
    /// The extrinsic within the block.
    pub extrinsic: Option<u32>,
    /// The event within the block.
    pub index: u32,
    /// The event.
    pub event: PoqEvent,
}

impl ToJson for Emitted {
    fn to_json(&self) -> Value {
        json!({
            "block": self.block,
            "extrinsic": self.extrinsic,
            "index": self.index,
            "event": self.event.to_json(),
        })
    }
}

/// The event that made a task final.
pub struct FinalEvent {
    /// The block.
    pub block: Block,
    /// The extrinsic within the block.
    pub extrinsic: Option<u32>,
    /// The event within the block.
    pub index: u32,
    /// The event.
    pub event: Box<TaskClosed>,
}

impl std::fmt::Debug for FinalEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FinalEvent")
            .field("block", &self.block)
            .field("index", &self.index)
            .field("task", &self.event.task)
            .field("ending", &self.event.settlement.ending)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Penalty, Ratio};
    use parity_scale_codec::Encode;

    fn topic<E: Event>() -> H256 {
        H256(E::SIGNATURE_TOPIC.unwrap())
    }

    #[test]
    fn events_are_told_apart_by_their_signature() {
        let staked = PoqEvent::decode(&[topic::<Staked>()], &(7u32, 9u128).encode()).unwrap();
        assert!(matches!(&staked, PoqEvent::Staked(e) if e.node == 7 && e.amount == 9));
        assert_eq!(staked.name(), "Staked");
        assert_eq!(staked.nodes(), [7]);
        assert_eq!(staked.to_json(), json!({ "event": "Staked", "node": 7, "amount": "9" }));
        assert_eq!(staked.clone(), staked);

        let drawn = PanelDrawn {
            task: 3,
            filled: true,
            seed: [1; 32],
            secret: [0; 32],
            outputs: vec![None],
            nodes: vec![4],
            weights: vec![Ratio::ONE],
            vacated: vec![Penalty { node: 2, amount: 1 }],
            deadline: 5,
        };
        let event = PoqEvent::decode(&[topic::<PanelDrawn>()], &drawn.encode()).unwrap();
        assert_eq!((event.task(), event.nodes()), (Some(3), vec![4, 2]));
        assert!(format!("{event:?}").contains("vacated"));

        let paid = KeeperPaid { keeper: [1; 32].into(), items: vec![(3, 9), (4, 1)] };
        let event = PoqEvent::decode(&[topic::<KeeperPaid>()], &paid.encode()).unwrap();
        assert_eq!((event.task(), event.tasks()), (None, vec![3, 4]));
        assert_eq!(event.to_json()["items"], json!([[3, "9"], [4, "1"]]));
    }

    #[test]
    fn a_broken_event_is_an_error_and_a_strange_one_is_unknown() {
        let short = PoqEvent::decode(&[topic::<Staked>()], &[1, 2]);
        assert!(matches!(short, Err(Error::Decode { .. })));
        let long = PoqEvent::decode(&[topic::<Staked>()], &(7u32, 9u128, 1u8).encode());
        assert!(matches!(long, Err(Error::Decode { .. })));
        let strange = PoqEvent::decode(&[H256([9; 32])], &[1]).unwrap();
        assert!(matches!(strange, PoqEvent::Unknown { .. }));
    }
}
