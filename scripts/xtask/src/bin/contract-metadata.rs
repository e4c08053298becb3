//! Prints a contract's metadata (messages, events, types, storage layout) as JSON: that of the contract whose feature is on.
//!
//! ink! generates it in the contract crate itself when that is compiled with `std`, as a function without a mangled name;
//! linking the crate and calling that function is all there is to it.

// The function is found by its name only: these names are what links a contract in.
#[cfg(feature = "metadata-poq")]
use poq_contract::CHANGES_STATE;
#[cfg(not(feature = "metadata-poq"))]
const CHANGES_STATE: [&str; 0] = [];
/// The crates whose events the contract emits: it links others, whose events ink! lists as well.
#[cfg(feature = "metadata-poq")]
const EMITS: [&str; 1] = ["poq_contract"];
#[cfg(not(feature = "metadata-poq"))]
const EMITS: [&str; 2] = ["poq_pool_contract", "psp22"];
#[cfg(all(feature = "metadata-pool", not(feature = "metadata-poq")))]
use poq_pool_contract as _;

extern "Rust" {
    fn __ink_generate_metadata() -> ink::metadata::InkProject;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: ink_codegen 5.1.1 (src/generator/metadata.rs) defines this symbol in the contract crate with this very
    // signature, and both are compiled by the same compiler in the same build.
    let project = unsafe { __ink_generate_metadata() };
    let mut project = serde_json::to_value(project)?;
    mark_changes(&mut project)?;
    own_events(&mut project)?;
    serde_json::to_writer_pretty(std::io::stdout().lock(), &project)?;
    println!();
    Ok(())
}

/// Leaves out the events of contracts that this one only calls.
fn own_events(project: &mut serde_json::Value) -> Result<(), String> {
    let events = project["spec"]["events"].as_array_mut().ok_or("the metadata has no events")?;
    let of = |event: &serde_json::Value| {
        event["module_path"].as_str().and_then(|path| path.split("::").next()).map(str::to_owned)
    };
    events.retain(|event| of(event).is_some_and(|name| EMITS.contains(&name.as_str())));
    match EMITS.iter().find(|name| !events.iter().any(|event| of(event).as_deref() == Some(name))) {
        Some(name) => Err(format!("there is no event of {name}: correct EMITS")),
        None => Ok(()),
    }
}

/// Says of the messages that take `&self` and write cells of their own that they change something: else wallets would offer them as
/// queries only.
fn mark_changes(project: &mut serde_json::Value) -> Result<(), String> {
    let messages = project["spec"]["messages"].as_array_mut().ok_or("the metadata has no messages")?;
    for name in CHANGES_STATE {
        let message = messages
            .iter_mut()
            .find(|message| message["label"] == name)
            .ok_or_else(|| format!("there is no message {name}: correct CHANGES_STATE in the contract"))?;
        message["mutates"] = true.into();
    }
    Ok(())
}
