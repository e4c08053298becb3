//! How patient and how careful the client is.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When a sent call counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// In a block of the best chain. A fork can still undo it; level-triggered callers notice.
    #[default]
    Best,
    /// In a finalized block. A node that seals instantly and never finalizes makes this wait until it times out.
    Finalized,
}

/// For how long a signed call stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mortality {
    /// This many blocks from the best block at signing; rounded up to a power of two between 4 and 4,096.
    Blocks(u32),
    /// For ever: a call that the pool lost can be included at any later time.
    Immortal,
}

/// What a [`crate::Client`] is built with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long one endpoint may take to connect.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// How long [`crate::Client::connect`] goes on trying when no endpoint answers; zero for one attempt each.
    #[serde(with = "seconds")]
    pub connect_patience: Duration,
    /// How long a node may take to answer one request.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// After this long without a word from the node its health is asked; without an answer the connection counts as dead,
    /// and the next endpoint is tried.
    #[serde(with = "seconds")]
    pub silence: Duration,
    /// How often a read is tried again when the connection failed.
    pub read_retries: u32,
    /// For how long a request is tried again that the node refuses because it is busy or limits how often it is asked.
    #[serde(with = "seconds")]
    pub busy_patience: Duration,
    /// When a sent call counts as done.
    pub confirm: Confirm,
    /// For how long a signed call stays valid.
    pub mortality: Mortality,
    /// How long to wait for a sent call to be in a block (and finalized, where asked for).
    #[serde(with = "seconds")]
    pub inclusion_timeout: Duration,
    /// What is added to the gas that the dry run needed, in percent: the call runs in a later block, where a draw may take
    /// another path.
    pub gas_margin_percent: u32,
    /// What is added to the storage deposit that the dry run was charged, in percent, as the most that the call may cost.
    pub deposit_margin_percent: u32,
    /// How often a call is sent again where that cannot do anything twice. A nonce that another program took, and a node that is
    /// busy, do not count: those are tried again for as long as `inclusion_timeout` and `busy_patience` say.
    pub send_retries: u32,
    /// Whether an empty call may be paid for, to make a chain that seals on demand produce a block, when a message is only too
    /// early for the block that there is. Without it such a chain's time stands still until somebody sends something.
    pub nudge: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(20),
            connect_patience: Duration::ZERO,
            request_timeout: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            read_retries: 4,
            // Limits are mostly counted by the second or by the minute.
            busy_patience: Duration::from_secs(90),
            confirm: Confirm::Best,
            mortality: Mortality::Blocks(64),
            inclusion_timeout: Duration::from_secs(120),
            gas_margin_percent: 25,
            deposit_margin_percent: 10,
            send_retries: 5,
            nudge: true,
        }
    }
}

/// Durations in configuration files are seconds, with fractions.
mod seconds {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(d)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|e| D::Error::custom(format!("{seconds} is no number of seconds: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_seconds_and_default_the_rest() {
        let options: Options =
            serde_json::from_str(r#"{"silence": 2.5, "mortality": {"blocks": 16}, "confirm": "finalized"}"#)
                .unwrap();
        assert_eq!(options.silence, Duration::from_millis(2_500));
        assert_eq!(options.mortality, Mortality::Blocks(16));
        assert_eq!(options.confirm, Confirm::Finalized);
        assert_eq!(options.read_retries, Options::default().read_retries);
        assert!(serde_json::from_str::<Options>(r#"{"silence": -1}"#).is_err());
        assert!(serde_json::from_str::<Options>(r#"{"silense": 1}"#).is_err());
    }
}
