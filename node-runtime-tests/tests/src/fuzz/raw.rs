//! Any bytes to every selector: nothing traps, what is refused changes nothing, and what is accepted is what the bytes say.

use super::act::Random;
use super::machine::{Call, Payload, OUTSIDER, PEOPLE};
use super::message::Message;
use super::people::{Intent, Plan};
use super::Failure;
use rand::Rng;
use std::path::Path;

/// The selectors of all that the contract answers to, messages and queries, from the interface that is shipped with it.
///
/// # Errors
/// Where the contract has not been built.
pub fn selectors() -> Result<Vec<[u8; 4]>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/poq.json");
    let broken = |error: String| Failure::broken(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| broken(error.to_string()))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let messages = metadata["spec"]["messages"].as_array().ok_or_else(|| broken("no messages".into()))?;
    let selector = |message: &serde_json::Value| {
        let text = message["selector"].as_str()?.strip_prefix("0x")?;
        Some(u32::from_str_radix(text, 16).ok()?.to_be_bytes())
    };
    let all: Vec<[u8; 4]> = messages.iter().filter_map(selector).collect();
    if all.len() < Message::NAMES.len() || all.len() < messages.len() {
        return Err(broken(format!("{} selectors of {} messages", all.len(), messages.len())));
    }
    Ok(all)
}

/// What follows a selector: noise, nothing, endless lengths, zeros, ones.
fn arguments(random: &mut Random) -> Vec<u8> {
    let length = match random.random_range(0..4) {
        0 => random.random_range(0..8),
        1 => random.random_range(0..64),
        2 => random.random_range(0..400),
        _ => random.random_range(0..4_000),
    };
    let fill = random.random_range(0..5);
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| match fill {
            0 => 0,
            1 => 0xff,
            2 => random.random_range(0..4),
            _ => random.random(),
        })
        .collect();
    if random.random_range(0..3) == 0 {
        // A vector that says it is as long as can be: compact 2³² − 1, or 2³⁰ − 1.
        let long: &[u8] =
            if random.random() { &[0x03, 0xff, 0xff, 0xff, 0xff] } else { &[0xfe, 0xff, 0xff, 0xff] };
        let at = random.random_range(0..=bytes.len());
        bytes.splice(at..at, long.iter().copied());
    }
    bytes
}

/// A call with such bytes: mostly an outsider's, and mostly to that selector.
pub fn call(selector: [u8; 4], random: &mut Random) -> Plan {
    let mut bytes = [selector.to_vec(), arguments(random)].concat();
    match random.random_range(0..16) {
        0 => bytes.truncate(random.random_range(0..4)),
        1 => bytes[random.random_range(0..4)] ^= 1 << random.random_range(0..8),
        _ => {}
    }
    let from = if random.random_range(0..3) == 0 { random.random_range(0..PEOPLE) } else { OUTSIDER };
    Plan { call: Call { from, value: 0, payload: Payload::Raw(bytes) }, intent: Intent::Any }
}
