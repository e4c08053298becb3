//! Prints a contract's metadata (messages, events, types, storage layout) as JSON: that of the contract whose feature is on.
//!
//! ink! generates it in the contract crate itself when that is compiled with `std`, as a function without a mangled name;
//! linking the crate and calling that function is all there is to it.

// The function is found by its name only: these imports are what links a contract in.
#[cfg(feature = "metadata-poq")]
use poq_contract as _;
#[cfg(feature = "metadata-pool")]
use poq_pool_contract as _;

extern "Rust" {
    fn __ink_generate_metadata() -> ink::metadata::InkProject;
}

fn main() -> Result<(), serde_json::Error> {
    // SAFETY: ink_codegen 5.1.1 (src/generator/metadata.rs) defines this symbol in the contract crate with this very
    // signature, and both are compiled by the same compiler in the same build.
    let project = unsafe { __ink_generate_metadata() };
    serde_json::to_writer_pretty(std::io::stdout().lock(), &project)?;
    println!();
    Ok(())
}
