//! Puts the runtime's Wasm where the node embeds it from.
//!
//! `scripts/build-node.sh` builds the runtime first and names the file in `POQ_RUNTIME_WASM`. Without that the node still
//! compiles (so that `cargo check` and clippy need no Wasm toolchain) with an empty blob in its place, and says so when it is
//! started.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=POQ_RUNTIME_WASM");
    let Some(out) = env::var_os("OUT_DIR") else {
        println!("cargo::error=OUT_DIR is not set: this script must be run by cargo");
        return;
    };
    let blob = match env::var_os("POQ_RUNTIME_WASM").map(PathBuf::from) {
        Some(path) => {
            println!("cargo:rerun-if-changed={}", path.display());
            match fs::read(&path) {
                Ok(blob) if blob.starts_with(b"\0asm") => blob,
                Ok(_) => {
                    println!("cargo::error=POQ_RUNTIME_WASM names {}, which is not Wasm", path.display());
                    return;
                }
                Err(error) => {
                    println!(
                        "cargo::error=POQ_RUNTIME_WASM names {}, which cannot be read ({error}); scripts/build-runtime.sh \
                         builds it",
                        path.display()
                    );
                    return;
                }
            }
        }
        None => {
            println!("cargo:warning=POQ_RUNTIME_WASM is not set: this node has no runtime; use scripts/build-node.sh");
            Vec::new()
        }
    };
    let target = PathBuf::from(out).join("poq_runtime.wasm");
    if let Err(error) = fs::write(&target, blob) {
        println!("cargo::error=cannot write {}: {error}", target.display());
    }
}
