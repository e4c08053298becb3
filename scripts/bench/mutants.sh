# shellcheck shell=bash
# The contract with faults on purpose, for the fuzzer to find. Sourced by scripts/bench.sh.

# fuzz_mutants [ARGUMENT…]: each mutant on the contract's own code, then as Wasm on the runtime; the arguments are the fuzzer's.
# Everything is built in folders of its own: nothing of it can be taken for the contract.
fuzz_mutants() {
    local folder="$CARGO_TARGET_DIR/mutants" program name out
    need_cmd cargo "Install Rust from https://rustup.rs."
    need_cmd wasm-opt "It is in Debian's package binaryen; scripts/setup.sh installs it."
    mkdir -p "$folder"
    (cd "$POQ_ROOT" && cargo build --locked --release "${POQ_WORKSPACE[@]}" --bin poq-fuzz --bin xtask \
        --features poq-runtime-tests/mutants) >&2
    program="$folder/poq-fuzz"
    cp "$CARGO_TARGET_DIR/release/poq-fuzz" "$program"
    "$program" --mutants --native 100000 "$@"
    . "$POQ_ROOT/scripts/setup-toolchain.sh"
    for name in fee slash lock; do
        log "compiling the mutant '$name'"
        out="$folder/$name.wasm"
        # As scripts/build-contract.sh compiles the contract, and shrunk once: the chain takes 256 KiB.
        POQ_MUTANT="$name" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$folder/wasm" \
            RUSTFLAGS="-Zunstable-options -Cpanic=immediate-abort -Clink-arg=-zstack-size=65536 -Clink-arg=--import-memory -Clink-arg=--max-memory=1048576" \
            wasm_cargo rustc --locked --quiet --profile contract -p poq-contract --lib --crate-type cdylib \
            --no-default-features --features mutants --target "$POQ_WASM_TARGET" -Zbuild-std=core,alloc
        "$CARGO_TARGET_DIR/release/xtask" strip-exports "$folder/wasm/$POQ_WASM_TARGET/contract/poq_contract.wasm" "$out"
        wasm-opt -Oz --mvp-features --strip-debug "$out" -o "$out"
        printf "the mutant '%s' as Wasm\n" "$name"
        "$program" --wasm "$out" --must-fail --calls 5000 "$@"
    done
}
