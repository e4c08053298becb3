#!/usr/bin/env bash
# Compiles the development chain's runtime to Wasm.
#
#   scripts/build-runtime.sh [--force]
#
# Prints the path of the blob: $CARGO_TARGET_DIR/poq_runtime.wasm. Does nothing when nothing that it is made of has changed.
# The first build takes some six minutes on two cores, later ones one or two.
set -euo pipefail

case "${1:-}" in
-h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
--force | '') ;;
*)
    printf 'error: unknown argument %s; try --help\n' "$1" >&2
    exit 2
    ;;
esac

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

OUT="$CARGO_TARGET_DIR/poq_runtime.wasm"
STAMP="$OUT.stamp"
BUILD_DIR="$CARGO_TARGET_DIR/wasm-runtime"
# The lock file pins what the runtime depends on; the workspace's manifest has the profile.
HASH="$(content_hash node-runtime-tests/runtime Cargo.toml Cargo.lock scripts/build-runtime.sh)"

if [[ "${1:-}" != --force ]] && up_to_date "$STAMP" "$HASH" "$OUT"; then
    log "the runtime is up to date"
    printf '%s\n' "$OUT"
    exit 0
fi

. "$(dirname "${BASH_SOURCE[0]}")/setup-toolchain.sh"

# What substrate-wasm-builder would pass: the host provides the memory and finds the heap and the function table by name.
RUNTIME_RUSTFLAGS="-C link-arg=--export-table -C link-arg=--export=__heap_base -C link-arg=--import-memory --cfg substrate_runtime"

build() {
    log "compiling the runtime for $POQ_WASM_TARGET"
    (
        cd "$POQ_ROOT"
        # SKIP_WASM_BUILD, WASM_BUILD_*: nothing reads them here; the build has no substrate-wasm-builder in it.
        RUSTFLAGS="$RUNTIME_RUSTFLAGS" CARGO_TARGET_DIR="$BUILD_DIR" wasm_cargo rustc --locked --release \
            --target "$POQ_WASM_TARGET" -p poq-runtime --no-default-features --crate-type cdylib
    ) >&2

    local raw="$BUILD_DIR/$POQ_WASM_TARGET/release/poq_runtime.wasm" new="$OUT.new.$$"
    [[ -f "$raw" ]] || die "cargo succeeded but there is no $raw"
    if have_cmd wasm-opt; then
        # The custom sections `runtime_version` and `runtime_apis` must stay, so nothing that strips them all.
        wasm-opt -O2 --mvp-features --enable-mutable-globals --strip-debug --strip-producers "$raw" -o "$new"
    else
        warn "wasm-opt is not on PATH (Debian: binaryen): the runtime stays larger and slower than it need be"
        cp "$raw" "$new"
    fi
    mv "$new" "$OUT"
    mark_up_to_date "$STAMP" "$HASH"
    log "runtime: $(stat -c %s "$raw") bytes, optimised $(stat -c %s "$OUT") bytes"
}

mkdir -p "$CARGO_TARGET_DIR"
with_lock build-runtime build
printf '%s\n' "$OUT"
