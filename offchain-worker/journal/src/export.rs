//! The journal as JSON, for support: everything that explains what a node did, nothing that it must keep to itself.

use crate::types::{blake2_256, now_ms, Payload, Record, SentCall, State};
use crate::{Error, Hash, Journal, Salt, SCHEMA};
use serde::Serializer;
use serde_json::{json, Value};

impl Journal {
    /// All that the journal holds for this contract, as JSON that can be shown to others.
    ///
    /// Salts are replaced by fingerprints. The text of outputs and reports is left out; so are their hashes and the
    /// scores until the network knows them (short outputs and scores could be guessed from a hash).
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn export(&self) -> Result<Value, Error> {
        let identity = self.identity();
        Ok(json!({
            "journal": "poq",
            "schema": SCHEMA,
            "software": env!("CARGO_PKG_VERSION"),
            "exported_at": now_ms(),
            "identity": {
                "genesis": hex(&identity.genesis),
                "first_block": hex(&identity.first_block),
                "contract": hex(&identity.contract),
                "network": hex(&identity.network()),
            },
            "stats": self.stats()?,
            "duties": self.all_duties()?.iter().map(duty).collect::<Vec<_>>(),
            "calls": self.all_calls()?.iter().map(call).collect::<Vec<_>>(),
        }))
    }
}

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

pub(crate) fn hex_hash<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(hash))
}

/// Tells two salts apart and nothing else: a salt has 256 bits of entropy.
fn fingerprint(salt: &Salt) -> String {
    let mut preimage = b"poq/journal/salt-fingerprint\0".to_vec();
    preimage.extend_from_slice(salt);
    blake2_256(&preimage).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn duty(record: &Record) -> Value {
    let public = matches!(record.state, State::Revealed | State::Final(_));
    let shown = |value: Value| if public { value } else { Value::String("hidden until public".to_owned()) };
    let payload = match &record.payload {
        Payload::Output { hash, salt, bytes } => json!({
            "kind": "output",
            "hash": shown(json!(hex(hash))),
            "inline": bytes.is_some(),
            "bytes": shown(json!(bytes.as_ref().map(Vec::len))),
            "salt_fingerprint": fingerprint(salt),
        }),
        Payload::Scores { scores, report_hash, salt, report } => json!({
            "kind": "scores",
            "scores": shown(json!(scores)),
            "report_hash": shown(json!(hex(report_hash))),
            "inline": report.is_some(),
            "salt_fingerprint": fingerprint(salt),
        }),
    };
    json!({
        "task": record.duty.task,
        "node": record.duty.node,
        "commitment": hex(&record.commitment),
        "state": record.state,
        "created": record.created,
        "updated": record.updated,
        "payload": payload,
    })
}

fn call(call: &SentCall) -> Value {
    json!({
        "id": call.id,
        "account": hex(&call.account),
        "nonce": call.nonce,
        "extrinsic": hex(&call.extrinsic),
        "call": call.call,
        "duties": call.duties.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "at": call.at,
        "outcome": call.outcome.as_ref().map(|(outcome, at)| json!({ "what": outcome, "at": at })),
    })
}
