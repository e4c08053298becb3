//! The value types of the contract's messages, queries and events, so that users of this crate need no other.

pub use poq_contract::types::{
    Account, Auditor, Balances, BondChange, Change, Commit, Counts, Decline, DeclineReason, Draw, Epoch,
    GlobalParams, Holding, Kind, KindView, Lever, Liabilities, Node, NodeInfo, NodeStatus, NodeUpdate,
    NodeView, Open, Opened, Opening, OutputSlot, OutputState, Overview, Penalty, Pending, Place, PoolId,
    Population, Quote, Record, Registration, Request, Reveal, Role, Seat, SeatState, Solvency, Source, Stake,
    Standing, Task, TaskInput, TaskView, Terms, Tranche, Ver,
};
pub use poq_contract::types::{
    MAX_BATCH, MAX_INLINE, MAX_NODES_PER_OWNER, MAX_OPEN, MAX_PENDING, MAX_TASKS_PER_REQUESTER, MAX_TEXT,
    NODES_PAGE, TASKS_PAGE, TASKS_SCAN,
};
pub use poq_core::commitment::{Hash, Purpose, Salt};
pub use poq_core::kind::ring::{Ring, RING};
pub use poq_core::registry::epoch_of;
pub use poq_core::settlement::{
    Answer, Audit, AuditInput, Conduct, Ending, EvaluatorInput, EvaluatorSettlement, OutputInput,
    OutputSettlement, Settlement, SettlementInput, TrustState,
};
pub use poq_core::task::{Clock, Phase, Refusal, Step};
pub use poq_core::text::{token_f1, MAX_AUDITED, MAX_REFERENCE};
pub use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, Score, Signed, TaskId};
pub use poq_core::{Aggregation, KindParams, MeritRule, TrustRule};
