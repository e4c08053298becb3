//! Prints a contract's metadata (messages, events, types, storage layout) as JSON: that of the contract whose feature is on.
//!
//! ink! generates it in the contract crate itself when that is compiled with `std`, as a function without a mangled name;
//! linking the crate and calling that function is all there is to it.

// The function is found by its name only: these names are what links a contract in.
#[cfg(feature = "metadata-poq")]
use poq_contract::CHANGES_STATE;
#[cfg(not(feature = "metadata-poq"))]
const CHANGES_STATE: [&str; 0] = [];
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
    serde_json::to_writer_pretty(std::io::stdout().lock(), &project)?;
    println!();
    Ok(())
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
