#!/usr/bin/env bash
# The whole of Proof of Quality on this machine: sets up what is missing (Debian packages, the contract, models, the worker),
# then runs a network with real language models that answer real questions, real evaluators that score them, rewards settled
# on chain and claimed, and at the end a check of every unit of money.
#
#   scripts/demo.sh                     on a chain in the demonstration's own process
#   scripts/demo.sh --node              on the development node, spawned (its first build takes long)
#   scripts/demo.sh --url ws://HOST:P   on any node with pallet-contracts; pays with //Alice, or with --key-file FILE
#   scripts/demo.sh --json FILE         writes nodes, tasks and the money check as JSON, too
#   scripts/demo.sh --help              all of its flags (--questions, --seed, --work-dir, --timeout, …)
#
# POQ_SKIP_SETUP=1 goes straight to the run. Exit status: 0 good; 5 a reward or a unit of money is off; else it failed.
set -euo pipefail

HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/common.sh"
POQ="$CARGO_TARGET_DIR/release/poq"

WITH_NODE=0
ONLY_HELP=0
for argument in "$@"; do
    case "$argument" in
    --node) WITH_NODE=1 ;;
    -h) ONLY_HELP=1 ;;
    --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        ONLY_HELP=1
        ;;
    esac
done
if ((ONLY_HELP)); then
    if [[ -x "$POQ" ]]; then exec "$POQ" demo "$@"; fi
    log "the demonstration's own flags are told once it is built: scripts/demo.sh builds it"
    exit 0
fi

# Arguments are paths of where the caller stands; everything else happens in the repository.
CALLER="$PWD"
cd "$POQ_ROOT"

# timed WHAT COMMAND…: run it and say how long it took.
timed() {
    local what="$1" start="$SECONDS"
    shift
    "$@"
    log "$what: $((SECONDS - start)) s"
}

# The committed artifacts are good when they are whole and made of the sources that are here. Then no WebAssembly toolchain is
# needed, and a fresh clone starts minutes earlier.
artifacts_are_current() {
    (cd contracts/artifacts 2>/dev/null && sha256sum --check --quiet --strict SHA256SUMS) >/dev/null 2>&1 || return 1
    # Without a repository (an unpacked release) there is nothing that could have changed them.
    git rev-parse --is-inside-work-tree >/dev/null 2>&1 || return 0
    [[ "$(contract_sources)" == "$(cat contracts/artifacts/SOURCES 2>/dev/null)" ]]
}

if [[ "${POQ_SKIP_SETUP:-0}" != 1 ]]; then
    timed "set-up of the machine" "$HERE/setup.sh"
    need_cmd cargo "Install Rust from https://rustup.rs."
    if artifacts_are_current; then
        log "contracts/artifacts: as committed"
    else
        timed "the contract" "$HERE/build-contract.sh"
    fi
    timed "the programs" build_programs poq poq-models
    timed "the models" "$CARGO_TARGET_DIR/release/poq-models" install
    if ((WITH_NODE)); then timed "the node" "$HERE/build-node.sh" >&2; fi
fi

export POQ_ARTIFACT="${POQ_ARTIFACT:-$POQ_ROOT/contracts/artifacts/poq.contract}"
cd "$CALLER"
exec "$POQ" demo "$@"
