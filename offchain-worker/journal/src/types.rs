use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use parity_scale_codec::{Decode, Encode};
use poq_core::commitment::{self, Hash, Purpose, Salt};
use poq_core::units::{Millis, NodeId, Score, TaskId};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest output or report that the journal keeps itself, in bytes (256 KiB). Larger ones live in the blob store
/// alone.
pub const MAX_INLINE: usize = 256 * 1024;

/// blake2b-256.
pub fn blake2_256(bytes: &[u8]) -> Hash {
    Blake2b::<U32>::digest(bytes).into()
}

/// The system's clock, in milliseconds since 1970.
pub fn now_ms() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Which contract on which chain a journal is kept for. One file holds any number of them apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Identity {
    /// The hash of the genesis block.
    pub genesis: Hash,
    /// The hash of block 1. A development chain that was wiped comes back with the same genesis and, after the same
    /// deployment, with the same contract address, and counts its tasks from 1 again; but its first block bears a new
    /// timestamp. Without this, old promises would block new tasks.
    pub first_block: Hash,
    /// The contract's account.
    pub contract: Hash,
}

impl Identity {
    /// What every commitment starts with: the hash of the chain's genesis and the contract.
    pub fn network(&self) -> Hash {
        blake2_256(&commitment::network(&self.genesis, &self.contract))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { genesis, first_block, contract } = self;
        write!(
            f,
            "contract 0x{} on the chain with genesis 0x{} and first block 0x{}",
            hex::encode(contract),
            hex::encode(genesis),
            hex::encode(first_block)
        )
    }
}

/// One promise that a task asks of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duty {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// What is promised.
    pub purpose: Purpose,
}

impl Duty {
    /// An inference node's output.
    pub const fn output(task: TaskId, node: NodeId) -> Duty {
        Duty { task, node, purpose: Purpose::Output }
    }

    /// An evaluator's scores. A node sits on a task's panel once: whoever fills a seat had none before.
    pub const fn scores(task: TaskId, node: NodeId) -> Duty {
        Duty { task, node, purpose: Purpose::Scores }
    }

    pub(crate) const fn purpose_code(&self) -> u8 {
        match self.purpose {
            Purpose::Output => 0,
            Purpose::Scores => 1,
        }
    }

    pub(crate) const fn purpose_from(code: u8) -> Option<Purpose> {
        match code {
            0 => Some(Purpose::Output),
            1 => Some(Purpose::Scores),
            _ => None,
        }
    }

    fn order(&self) -> (TaskId, NodeId, u8) {
        (self.task, self.node, self.purpose_code())
    }
}

impl PartialOrd for Duty {
    fn partial_cmp(&self, other: &Duty) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Duty {
    fn cmp(&self, other: &Duty) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl std::hash::Hash for Duty {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.order().hash(state);
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Duty { task, node, purpose } = self;
        let what = match purpose {
            Purpose::Output => "output",
            Purpose::Scores => "scores",
        };
        write!(f, "{what} of node {node} in task {task}")
    }
}

// `Purpose` can be encoded but not decoded, so a duty is stored as its three numbers.
impl Encode for Duty {
    fn encode_to<T: parity_scale_codec::Output + ?Sized>(&self, dest: &mut T) {
        self.order().encode_to(dest);
    }
}

impl Decode for Duty {
    fn decode<I: parity_scale_codec::Input>(input: &mut I) -> Result<Duty, parity_scale_codec::Error> {
        let (task, node, purpose) = <(TaskId, NodeId, u8)>::decode(input)?;
        let purpose = Duty::purpose_from(purpose).ok_or("unknown purpose of a duty")?;
        Ok(Duty { task, node, purpose })
    }
}

/// What opens a commitment. `Debug` hides salts, texts and scores.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// An inference node's output.
    #[codec(index = 0)]
    Output {
        /// blake2b-256 of the output's bytes.
        hash: Hash,
        /// The salt.
        salt: Salt,
        /// The output itself, at most [`MAX_INLINE`] bytes; `None` where it is in the blob store alone.
        bytes: Option<Vec<u8>>,
    },
    /// An evaluator's scores.
    #[codec(index = 1)]
    Scores {
        /// One per output, in the task's order.
        scores: Vec<Score>,
        /// blake2b-256 of the report; all zero for none.
        report_hash: Hash,
        /// The salt.
        salt: Salt,
        /// The report itself, at most [`MAX_INLINE`] bytes; `None` where there is none or it is in the blob store alone.
        report: Option<Vec<u8>>,
    },
}

impl Payload {
    /// An output that the journal keeps itself where it is small enough.
    pub fn output(bytes: Vec<u8>, salt: Salt) -> Payload {
        Payload::Output { hash: blake2_256(&bytes), salt, bytes: inline(bytes) }
    }

    /// Scores with a report that the journal keeps itself where it is small enough.
    pub fn scores(scores: Vec<Score>, report: Option<Vec<u8>>, salt: Salt) -> Payload {
        let report_hash = report.as_deref().map_or([0; 32], blake2_256);
        Payload::Scores { scores, report_hash, salt, report: report.and_then(inline) }
    }

    /// The salt.
    pub fn salt(&self) -> &Salt {
        match self {
            Payload::Output { salt, .. } | Payload::Scores { salt, .. } => salt,
        }
    }

    /// What does not fit together in it, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        let (what, hash, bytes) = match self {
            Payload::Output { hash, bytes, .. } => ("output", hash, bytes),
            Payload::Scores { report_hash, report, .. } => ("report", report_hash, report),
        };
        let bytes = bytes.as_deref()?;
        if bytes.len() > MAX_INLINE {
            return Some(format!(
                "the {what} has {} bytes, and at most {MAX_INLINE} are kept inline",
                bytes.len()
            ));
        }
        (blake2_256(bytes) != *hash)
            .then(|| format!("the {what}'s bytes do not hash to 0x{}", hex::encode(hash)))
    }
}

fn inline(bytes: Vec<u8>) -> Option<Vec<u8>> {
    (bytes.len() <= MAX_INLINE).then_some(bytes)
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Output { bytes, .. } => {
                f.debug_struct("Output").field("bytes", &bytes.as_ref().map(Vec::len)).finish_non_exhaustive()
            }
            Payload::Scores { scores, .. } => {
                f.debug_struct("Scores").field("scores", &scores.len()).finish_non_exhaustive()
            }
        }
    }
}

/// The commitment that a payload opens on a network ([`Identity::network`]); `None` where the payload is for another purpose than
/// the duty.
pub fn commitment_of(network: &Hash, duty: &Duty, payload: &Payload) -> Option<Hash> {
    let preimage = match (duty.purpose, payload) {
        (Purpose::Output, Payload::Output { hash, salt, .. }) => {
            commitment::output(network, duty.task, duty.node, hash, salt)
        }
        (Purpose::Scores, Payload::Scores { scores, report_hash, salt, .. }) => {
            commitment::scores(network, duty.task, duty.node, scores, report_hash, salt)
        }
        _ => return None,
    };
    Some(blake2_256(&preimage))
}

/// A duty's salt, from the node's own secret.
pub fn derive_salt(secret: &[u8; 32], network: &Hash, duty: &Duty) -> Salt {
    blake2_256(&commitment::salt(secret, network, duty.task, duty.node, duty.purpose))
}

/// How far a duty has come, as far as this node knows. The chain is the judge: after a reorganisation it may be behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Recorded; nothing signed yet.
    #[codec(index = 0)]
    Prepared,
    /// A signed call may have left the machine.
    #[codec(index = 1)]
    Sent,
    /// The chain shows the commitment.
    #[codec(index = 2)]
    Committed,
    /// The chain shows what opens it: an output's hash and salt, or the scores.
    #[codec(index = 3)]
    Revealed,
    /// Nothing more can be done.
    #[codec(index = 4)]
    Final(End),
}

impl State {
    /// Whether nothing more can be done.
    pub const fn is_final(self) -> bool {
        matches!(self, State::Final(_))
    }

    const fn rank(self) -> u8 {
        match self {
            State::Prepared => 0,
            State::Sent => 1,
            State::Committed => 2,
            State::Revealed => 3,
            State::Final(_) => 4,
        }
    }

    /// Whether going from `self` to `to` goes forward. From a final state nothing does.
    pub(crate) const fn may_become(self, to: State) -> bool {
        to.rank() > self.rank()
    }
}

/// How a duty ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The task was settled.
    #[codec(index = 0)]
    Settled,
    /// The task was refunded.
    #[codec(index = 1)]
    Refunded,
    /// The deadline passed without the node.
    #[codec(index = 2)]
    Missed,
    /// The operator gave it up.
    #[codec(index = 3)]
    Abandoned,
}

/// What the journal knows of a duty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The duty.
    pub duty: Duty,
    /// What was promised.
    pub commitment: Hash,
    /// What opens it.
    pub payload: Payload,
    /// How far it has come.
    pub state: State,
    /// When it was recorded, by the system's clock in milliseconds.
    pub created: Millis,
    /// When it was last touched, by the system's clock in milliseconds.
    pub updated: Millis,
}

/// A commitment that may be signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Safe {
    /// Recorded just now.
    New(Record),
    /// Recorded before, with this very commitment.
    Same(Record),
}

impl Safe {
    /// The record.
    pub const fn record(&self) -> &Record {
        match self {
            Safe::New(record) | Safe::Same(record) => record,
        }
    }

    /// The record.
    pub fn into_record(self) -> Record {
        match self {
            Safe::New(record) | Safe::Same(record) => record,
        }
    }

    /// Whether it was recorded just now.
    pub const fn is_new(&self) -> bool {
        matches!(self, Safe::New(_))
    }
}

/// The number of a recorded call; they count up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, serde::Serialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// A signed call that is about to be submitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCall {
    /// The account that signed it.
    pub account: Hash,
    /// Its nonce.
    pub nonce: u64,
    /// The extrinsic's hash.
    pub extrinsic: Hash,
    /// What it calls, say `commit_outputs`. At most [`crate::MAX_CALL_NAME`] bytes.
    pub call: String,
    /// The duties that it does.
    pub duties: Vec<Duty>,
}

/// A call as recorded.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SentCall {
    /// Its number.
    pub id: CallId,
    /// The account that signed it.
    pub account: Hash,
    /// Its nonce.
    pub nonce: u64,
    /// The extrinsic's hash.
    pub extrinsic: Hash,
    /// What it calls.
    pub call: String,
    /// The duties that it does.
    pub duties: Vec<Duty>,
    /// When it was recorded, by the system's clock in milliseconds.
    pub at: Millis,
    /// What became of it, and when this was recorded.
    pub outcome: Option<(Outcome, Millis)>,
}

/// What became of a call.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In a block that can still be replaced.
    #[codec(index = 0)]
    InBlock {
        /// The block's number.
        number: u64,
        /// The block's hash.
        #[serde(serialize_with = "crate::export::hex_hash")]
        hash: Hash,
    },
    /// In a finalised block.
    #[codec(index = 1)]
    Finalized {
        /// The block's number.
        number: u64,
        /// The block's hash.
        #[serde(serialize_with = "crate::export::hex_hash")]
        hash: Hash,
    },
    /// Executed, and refused.
    #[codec(index = 2)]
    Failed {
        /// Why.
        reason: String,
    },
    /// Never executed: refused by the pool, dropped or replaced.
    #[codec(index = 3)]
    Dropped {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Whether it can still change.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Outcome::InBlock { .. })
    }
}

/// What a pruning removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Pruned {
    /// Finished duties.
    pub duties: u64,
    /// Calls.
    pub calls: u64,
}

/// How much the journal holds for its contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Duties that are not final.
    pub open_duties: u64,
    /// Duties that are.
    pub final_duties: u64,
    /// Calls without a final outcome.
    pub unresolved_calls: u64,
    /// Calls with one.
    pub resolved_calls: u64,
}

/// One contract's part of a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceSummary {
    /// Which contract on which chain.
    pub identity: Identity,
    /// When the journal first heard of it, by the system's clock in milliseconds.
    pub created: Millis,
    /// Duties that are not final.
    pub open_duties: u64,
    /// Duties that are.
    pub final_duties: u64,
}
