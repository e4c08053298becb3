#!/usr/bin/env bash
# Measures. Every benchmark is a program that prints what it measured and, with --json FILE, writes it.
#
#   scripts/bench.sh gas [--json FILE] [--registry N]
#       ref_time, proof size and storage deposits of every message and of whole rounds; rounds per block; the cost of a draw
#       against the registry's size. Deterministic: it is what the chain charges, not what this machine needs.
#   scripts/bench.sh simulate [--json FILE] [--quick]
#       5,000 rounds of the papers' setting on one core; how the time grows with rounds, panels and nodes; the same round in
#       NumPy beside it, after a check that both compute the same. Set POQ_SIMULATE to a program that is already built.
#   scripts/bench.sh attacks [--json FILE] [--dishonest N] [--node] [ATTACK…]
#       The demonstration once for every attack, half a minute each: what cheating came to on the chain, beside the simulator's
#       books of the same run, which must agree to the last unit.
#   scripts/bench.sh generate [--json FILE] [--threads N] [--rounds N] [MODEL…]
#       Tokens per second of language models, in prompts and in answers, beside llama.cpp on the same GGUF file, the one that
#       was released.
#   scripts/bench.sh score [--json FILE] [--threads N] [--rounds N] [MODEL…]
#       Texts (for a cross-encoder: pairs) per second of evaluators, and milliseconds of one alone, beside ONNX Runtime and
#       sentence-transformers on the same weights.
#       Both install what they are measured beside (6 GB at most, under $POQ_CACHE/venv-bench); --alone measures us only.
#   scripts/bench.sh index [--json FILE] [--sizes N,N,…] [--replay N] [--db URL]
#       Events a second into the index, how long each question of the read API takes at 10, 1,000 and 100,000 tasks, and how long
#       10,000 settlements take to compute again. Made-up histories, in SQLite; --db measures an empty PostgreSQL database.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=bench/peers.sh
. "$POQ_ROOT/scripts/bench/peers.sh"
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
index)
    build_programs poq-bench-index
    exec "$CARGO_TARGET_DIR/release/poq-bench-index" "$@"
    ;;
attacks)
    [[ -f contracts/artifacts/poq.contract ]] || scripts/build-contract.sh
    build_programs poq poq-models
    "$CARGO_TARGET_DIR/release/poq-models" install >&2
    exec python3 scripts/lib/live_attacks.py "$CARGO_TARGET_DIR/release/poq" "$@"
    ;;
generate | score)
    peers=(with)
    arguments=()
    for argument in "$@"; do
        if [[ "$argument" == --alone ]]; then peers=(); else arguments+=("$argument"); fi
    done
    build_programs poq-models poq-bench-models
    models=()
    if [[ "$what" == generate ]]; then
        program=llama_cpp_peer.py
        released=(--dir "$POQ_CACHE/bench-models" --manifest scripts/bench/released.toml)
        models=("${released[@]}")
        "$CARGO_TARGET_DIR/release/poq-models" "${released[@]}" install >&2
        "$CARGO_TARGET_DIR/release/poq-models" install qa >&2
    else
        program=encoder_peer.py
        mapfile -t encoders < <("$CARGO_TARGET_DIR/release/poq-models" list | awk '$2 ~ /encoder$/ {print $1}')
        "$CARGO_TARGET_DIR/release/poq-models" install "${encoders[@]}" qa >&2
    fi
    if ((${#peers[@]})); then
        python="$(peers_python)"
        peers=(--python "$python" --peer "scripts/bench/$program")
    fi
    exec "$CARGO_TARGET_DIR/release/poq-bench-models" "$what" ${models[@]+"${models[@]}"} ${peers[@]+"${peers[@]}"} \
        ${arguments[@]+"${arguments[@]}"}
    ;;
-h | --help | "")
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    [[ -n "$what" ]] || exit 2
    ;;
*) die "unknown benchmark '$what' (known: attacks, gas, generate, index, score, simulate)" ;;
esac
