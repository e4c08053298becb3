#!/usr/bin/env bash
# Measures. Every benchmark is a program that prints what it measured and, with --json FILE, writes it.
#
#   scripts/bench.sh gas [--json FILE] [--registry N]
#       ref_time, proof size and storage deposits of every message and of whole rounds; rounds per block; the cost of a draw
#       against the registry's size. Deterministic: it is what the chain charges, not what this machine needs.
#   scripts/bench.sh fuzz [--calls N] [--native N] [--raw N] [--seed S] [--acts N] [--json FILE]
#       Random people send random messages: N calls to the Wasm on the real runtime, N to the contract's own code in this process,
#       N of any bytes to every selector. After each, the books and every invariant are checked; what fails is shortened and printed.
#   scripts/bench.sh fuzz --replay FILE
#       Runs what was printed once more, and prints all of its calls.
#   scripts/bench.sh fuzz --mutants
#       Builds the contract with each of its mutants (contracts/poq/mutant.rs), as Wasm too: the fuzzer must find them.
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
#   scripts/bench.sh kernels [--rounds N] [MODEL…]
#       This project's own kernels beside candle's operations on the same model, in turns.
#   scripts/bench.sh devices [--json FILE] [--questions N] [--device cuda:0] [MODEL…]
#       What differs between the instruction sets (and cards) that this machine has: logits, answers, vectors, scores.
#   scripts/bench.sh fuzz-models [--cases N] [--seconds N] [--from N]
#       N GGUF headers, safetensors headers and whole models, changed at random: no panic, no allocation beyond a file's size.
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
fuzz)
    [[ -f contracts/artifacts/poq.wasm ]] || scripts/build-contract.sh
    if [[ "${1:-}" == --mutants ]]; then
        shift
        . "$POQ_ROOT/scripts/bench/mutants.sh"
        fuzz_mutants "$@"
        exit 0
    fi
    build_programs poq-fuzz
    exec "$CARGO_TARGET_DIR/release/poq-fuzz" "$@"
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
        "$CARGO_TARGET_DIR/release/poq-models" install "${released[@]}" >&2
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
kernels)
    build_programs poq-models
    arguments=()
    models=()
    while (($#)); do
        case "$1" in
        --*) arguments+=("$1" "${2:-}") && shift ;;
        *) models+=("$1") ;;
        esac
        shift
    done
    if ((${#models[@]} == 0)); then
        mapfile -t models < <("$CARGO_TARGET_DIR/release/poq-models" list | awk '$3 == "installed" || $3 == "added" {print $1}')
        ((${#models[@]})) || die "no model is installed: scripts/install-models.sh"
    fi
    for model in "${models[@]}"; do
        "$CARGO_TARGET_DIR/release/poq-models" bench "$model" --beside-candle ${arguments[@]+"${arguments[@]}"}
    done
    ;;
devices)
    build_programs poq-models poq-bench-models
    "$CARGO_TARGET_DIR/release/poq-models" install qa >&2
    exec "$CARGO_TARGET_DIR/release/poq-bench-models" devices "$@"
    ;;
fuzz-models)
    need_cmd cargo "Install Rust from https://rustup.rs."
    while (($#)); do
        case "$1" in
        --cases) export POQ_FUZZ_CASES="${2:?--cases needs a number}" ;;
        --seconds) export POQ_FUZZ_SECONDS="${2:?--seconds needs a number}" ;;
        --from) export POQ_FUZZ_FROM="${2:?--from needs a number}" ;;
        *) die "fuzz-models takes --cases N, --seconds N, --from N" ;;
        esac
        shift 2
    done
    exec cargo test --locked --release --workspace --test headers -- --nocapture
    ;;
-h | --help | "")
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    [[ -n "$what" ]] || exit 2
    ;;
*) die "unknown benchmark '$what' (known: attacks, devices, fuzz, fuzz-models, gas, generate, kernels, score, simulate)" ;;
esac
