#!/usr/bin/env bash
# Builds the development node, and its runtime before it.
#
#   scripts/build-node.sh [--force]
#
# Prints the path of the binary. The first build compiles some 850 crates: about half an hour on two idle cores. Does nothing
# when nothing that it is made of has changed.
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

HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/common.sh"

# The common build folder: two thirds of the node's crates are there already when the tests have been built.
OUT="$CARGO_TARGET_DIR/release/poq-node"
STAMP="$OUT.stamp"
HASH="$(content_hash node-runtime-tests/node node-runtime-tests/runtime Cargo.toml Cargo.lock \
    scripts/build-node.sh scripts/build-runtime.sh)"

if [[ "${1:-}" != --force ]] && up_to_date "$STAMP" "$HASH" "$OUT"; then
    log "the node is up to date"
    printf '%s\n' "$OUT"
    exit 0
fi

need_cmd cargo "Install Rust from https://rustup.rs."
# prost compiles the network's messages, and C libraries come along.
for tool in protoc clang cmake; do
    have_cmd "$tool" || apt_install protobuf-compiler clang cmake ||
        die "the node needs $tool (Debian: protobuf-compiler clang cmake)"
done

RUNTIME="$("$HERE/build-runtime.sh")"

build() {
    log "compiling the node (the first time some 850 crates)"
    POQ_RUNTIME_WASM="$RUNTIME" build_programs poq-node
    mark_up_to_date "$STAMP" "$HASH"
}

with_lock build-node build
printf '%s\n' "$OUT"
