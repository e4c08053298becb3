//! The durable memory of a node: what it has promised the contract, so that it never promises twice and can always keep
//! its word.
//!
//! A node that commits to one output, loses its memory and commits to another has broken the protocol's only rule about
//! commitments; a node that forgets the salt of a commitment cannot reveal it. Either costs stake. So before anything is
//! signed, [`Journal::check_and_insert`] writes the commitment together with everything that opens it, and returns only
//! when the disk has confirmed the write. After a crash at any point the record is either there, and the same commitment
//! is sent again (which the contract takes as a no-op), or it is not, and nothing was signed.
//!
//! The model is Lighthouse's slashing protection: one transaction that checks and inserts, before signing, in a file that
//! one process at a time can hold.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use poq_journal::{commitment_of, derive_salt, Duty, Identity, Journal, NotSafe, Payload, State};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("journal.redb");
//! # let (genesis, first_block, contract, secret) = ([1; 32], [2; 32], [3; 32], [4; 32]);
//! let identity = Identity { genesis, first_block, contract };
//! let network = identity.network();
//! let journal = Journal::open(path, identity)?;
//! let duty = Duty::output(7, 3);
//! let record = match journal.get(&duty)? {
//!     Some(record) => record, // from before a restart: this is what has to be sent
//!     None => {
//!         let salt = derive_salt(&secret, &network, &duty);
//!         let payload = Payload::output(b"Paris".to_vec(), salt);
//!         let commitment = commitment_of(&network, &duty, &payload).ok_or("a payload for another purpose")?;
//!         match journal.check_and_insert(duty, commitment, payload) {
//!             Ok(safe) => safe.into_record(),
//!             Err(NotSafe::Conflict { existing, .. }) => *existing,
//!             Err(error) => return Err(error.into()),
//!         }
//!     }
//! };
//! // Sign and send `record.commitment`; once the chain shows it:
//! journal.advance(&duty, State::Committed)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it holds
//!
//! Salts and outputs that the network must not see yet: the file has mode 0600. It never holds a key. Salts can be derived
//! again from the node's secret ([`derive_salt`]); outputs and scores cannot.
//!
//! # What it cannot do
//!
//! It protects one file on one disk. Two copies of a node with two journals, or a journal restored from an older backup,
//! are two nodes to it. Restore the newest file, or none: the contract itself refuses a second, different commitment.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod export;
mod journal;
mod lock;
#[cfg(test)]
mod power_cut;
mod types;

pub use error::{Error, NotSafe};
pub use journal::{Journal, MAX_CALL_NAME, SCHEMA};
pub use types::{
    blake2_256, commitment_of, derive_salt, now_ms, CallId, Duty, End, Identity, NamespaceSummary, NewCall,
    Outcome, Payload, Pruned, Record, Safe, SentCall, State, Stats, MAX_INLINE,
};

pub use poq_core::commitment::{Hash, Purpose, Salt};
