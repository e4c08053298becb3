#!/usr/bin/env bash
# Runs every test, on a machine with nothing but Rust and git: installs what is missing, then goes from the fast checks to
# the slow ones.
#
#   scripts/test.sh             everything; the development node's first build takes long, later ones reuse it
#   scripts/test.sh --no-node   everything that needs no development node
#   scripts/test.sh --fast      formatting, lints and the tests of the protocol's arithmetic: what to run before a commit
#
# Order: formatting, lints, dependencies; the contract's artifacts; all crates' tests (arithmetic, the contract's Wasm on the real
# runtime, workers with real models); the docs' own commands; then the development node and the tests that need it.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

fast=0
node=1
case "${1:-}" in
"") ;;
--fast) fast=1 ;;
--no-node) node=0 ;;
-h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) die "unknown argument '$1' (known: --fast, --no-node, --help)" ;;
esac

started=$SECONDS
stage() { printf '\n== %s (after %d min)\n' "$1" $(((SECONDS - started) / 60)) >&2; }

stage "set-up"
scripts/setup.sh

stage "formatting"
cargo fmt --all --check

if ((fast)); then
    stage "lints and tests of the arithmetic and the contract"
    cargo clippy --locked --release -p poq-core -p poq-contract --all-targets -- -D warnings
    exec cargo test --locked --release -p poq-core -p poq-contract
fi

stage "lints"
cargo clippy --locked --release "${POQ_WORKSPACE[@]}" "${POQ_ALL_TARGETS[@]}" --features poq-blobs/s3 -- -D warnings

stage "dependencies"
scripts/check-deps.sh

stage "the contract's artifacts are those of the sources"
scripts/build-contract.sh --check

stage "compiling all tests"
if have_cmd cargo-nextest; then
    run=(cargo nextest run --locked --release "${POQ_WORKSPACE[@]}" --tests)
    everything_but_node=(--no-fail-fast -E 'not binary(node)')
    node_only=(--run-ignored all -E 'binary(node) | test(on_the_node_)')
else
    warn "cargo-nextest is not installed: cargo test runs the same tests one program after the other"
    run=(cargo test --locked --release "${POQ_WORKSPACE[@]}" --tests)
    everything_but_node=(--no-fail-fast -- --skip on_the_node_)
    node_only=(on_the_node_ -- --include-ignored)
fi
"${run[@]}" --no-run
build_programs "${POQ_PROGRAMS[@]}"

stage "models"
"$CARGO_TARGET_DIR/release/poq-models" install

stage "tests"
"${run[@]}" "${everything_but_node[@]}"

stage "the docs' commands"
scripts/walkthrough.sh

if ((node)); then
    stage "the development node"
    POQ_NODE="${POQ_NODE:-$(scripts/build-node.sh)}"
    export POQ_NODE
    stage "tests on the development node"
    port=19944
    POQ_TEST_NODE_URL="$(scripts/devnet.sh --detach --port "$port")"
    export POQ_TEST_NODE_URL
    trap 'scripts/devnet.sh --stop --port "$port"' EXIT
    "${run[@]}" "${node_only[@]}"
else
    warn "the development node was not built and its tests did not run: scripts/test.sh without --no-node does both"
fi

stage "all tests passed"
