//! The value types of the contract's messages, queries and events, so that users of this crate need no other.

pub use poq_contract::types::{
    Account, Auditor, Balances, BondChange, Commit, GlobalParams, Kind, KindView, Liabilities, Node,
    NodeInfo, NodeStatus, NodeUpdate, NodeView, Opening, OutputSlot, Overview, Penalty, Place, Quote,
    RefundReason, Registration, Reveal, Role, Seat, SeatState, Solvency, Task, TaskInput, TaskView,
};
pub use poq_contract::types::{
    MAX_BATCH, MAX_NODES_PER_OWNER, MAX_OPEN, MAX_TASKS_PER_REQUESTER, MAX_TEXT, NODES_PAGE, RING,
    TASKS_PAGE, TASKS_SCAN,
};
pub use poq_core::commitment::{Hash, Purpose, Salt};
pub use poq_core::phase::{Clock, Phase, Step};
pub use poq_core::settlement::{
    Conduct, EvaluatorInput, EvaluatorSettlement, OutputInput, OutputSettlement, Population, Settlement,
    SettlementInput,
};
pub use poq_core::text::{token_f1, MAX_AUDITED, MAX_REFERENCE};
pub use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, Score, Signed, TaskId};
pub use poq_core::{Aggregation, KindParams, MeritRule, TrustRule};
