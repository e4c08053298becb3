#!/usr/bin/env bash
# Measures. Every benchmark is a program that prints what it measured and, with --json FILE, writes it.
#
#   scripts/bench.sh gas [--json FILE] [--registry N]
#       ref_time, proof size and storage deposits of every message and of whole rounds; rounds per block; the cost of a draw
#       against the registry's size. Deterministic: it is what the chain charges, not what this machine needs.
#   scripts/bench.sh simulate [--json FILE] [--quick]
#       5,000 rounds of the papers' setting on one core; how the time grows with rounds, panels and nodes; the same round in
#       NumPy beside it, after a check that both compute the same. Set POQ_SIMULATE to a program that is already built.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

what="${1:-}"
[[ $# -gt 0 ]] && shift
case "$what" in
gas)
    [[ -f contracts/artifacts/poq.wasm ]] || scripts/build-contract.sh
    build_programs poq-bench-gas
    exec "$CARGO_TARGET_DIR/release/poq-bench-gas" "$@"
    ;;
simulate)
    need_cmd cargo "Install Rust from https://rustup.rs."
    if [[ -z "${POQ_SIMULATE:-}" ]]; then
        # Alone, without the rest of the workspace: it is a small program, and nothing here needs a node or a model.
        cargo build --locked --release -p poq-simulator --bin poq-simulate >&2
        POQ_SIMULATE="$CARGO_TARGET_DIR/release/poq-simulate"
    fi
    have_cmd python3 && python3 -c 'import ensurepip' 2>/dev/null || apt_install python3 python3-venv
    venv="$POQ_CACHE/numpy"
    if [[ ! -x "$venv/bin/python" ]] || ! "$venv/bin/python" -c 'import numpy' 2>/dev/null; then
        log "installing NumPy into $venv"
        python3 -m venv "$venv" && "$venv/bin/pip" install --quiet 'numpy>=2,<3' >&2
    fi
    # NumPy's own threads would only slow arrays of nine numbers down.
    OMP_NUM_THREADS=1 exec "$venv/bin/python" scripts/lib/bench_simulate.py \
        "$POQ_SIMULATE" contracts/poq-core/tests/vectors/settlement.json "$@"
    ;;
-h | --help | "")
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    [[ -n "$what" ]] || exit 2
    ;;
*) die "unknown benchmark '$what' (known: gas, simulate)" ;;
esac
