#!/usr/bin/env bash
# Runs a worker whose models other people's servers run: llama.cpp's answers, infinity embeds by OpenAI's API, and a server with
# text-embeddings-inference's API over sentence-transformers embeds and reranks. Tasks are asked, scored and paid on a chain in the
# test's process.
#
#   scripts/check-endpoints.sh
#
# Installs what it needs under $POQ_CACHE: llama.cpp is compiled (twenty minutes of one core, once), the Python packages are those of
# scripts/bench.sh and infinity. POQ_ENDPOINTS_PYTHON names a Python that has torch and transformers already.
set -euo pipefail

case "${1:-}" in
-h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
'') ;;
*)
    printf 'error: unknown argument %s; try --help\n' "$1" >&2
    exit 2
    ;;
esac

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=bench/peers.sh
. "$POQ_ROOT/scripts/bench/peers.sh"
# shellcheck source=bench/llama_server.sh
. "$POQ_ROOT/scripts/bench/llama_server.sh"
cd "$POQ_ROOT"

INFINITY="$POQ_CACHE/infinity"
# What infinity's server needs beside torch and transformers.
PACKAGES=(
    infinity-emb==0.0.78 sentence-transformers==6.2.0 fastapi uvicorn starlette orjson prometheus-fastapi-instrumentator
    prometheus-client scipy scikit-learn joblib threadpoolctl
)

install_infinity() {
    [[ -f "$INFINITY/.complete" ]] && return 0
    log "installing infinity into $INFINITY (once)"
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade --target "$INFINITY" \
        "${PACKAGES[@]}" >&2 || return 1
    touch "$INFINITY/.complete"
}

need_cmd cargo "Install Rust from https://rustup.rs."
generator=smollm2-135m-instruct
evaluators=(all-minilm-l6-v2 paraphrase-minilm-l3-v2 ms-marco-minilm-l12-v2)
build_programs poq-models
"$CARGO_TARGET_DIR/release/poq-models" install "$generator" "${evaluators[@]}" >&2
models="${POQ_MODELS_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/poq/models}"
llama="$(llama_server)"
python="${POQ_ENDPOINTS_PYTHON:-}"
[[ -n "$python" ]] || python="$(peers_python)"
with_lock infinity install_infinity || die "infinity could not be installed"

work="$(mktemp -d)"
servers=()
# shellcheck disable=SC2317 # called by the trap
stop_servers() {
    kill "${servers[@]}" 2>/dev/null
    wait
    rm -rf "$work"
}
trap stop_servers EXIT
# start NAME COMMAND…: a server in the background.
start() {
    local name="$1"
    shift
    "$@" >"$work/$name.log" 2>&1 &
    servers+=("$!")
}
export HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 INFINITY_ANONYMOUS_USAGE_STATS=0 PYTHONPATH="$INFINITY:$POQ_ROOT/scripts/lib"
folder="$("$python" -c 'import hugging_face, sys; print(hugging_face.hugging_face_folder(sys.argv[1], "bi-encoder", 256))' \
    "$models/all-minilm-l6-v2")"
start llama.cpp "$llama" --model "$models/$generator/model.gguf" --alias "$generator" --host 127.0.0.1 --port 18181 --threads 2 \
    --parallel 4 --ctx-size 8192 --api-key-file <(printf 'a-key\n')
start infinity "$python" -c 'from infinity_emb.cli import cli; cli()' v2 --model-id "$folder" --served-model-name all-minilm-l6-v2 \
    --engine torch --device cpu --dtype float32 --host 127.0.0.1 --port 18182 --no-model-warmup --no-bettertransformer
start tei-bi "$python" scripts/lib/tei_server.py "$models/paraphrase-minilm-l3-v2" bi-encoder 128 mean paraphrase-minilm-l3-v2 18183
start tei-cross "$python" scripts/lib/tei_server.py "$models/ms-marco-minilm-l12-v2" cross-encoder 512 mean ms-marco-minilm-l12-v2 18184
for port in 18181 18182 18183 18184; do
    await_http "http://127.0.0.1:$port/health" 180 || {
        tail -n 25 "$work"/*.log >&2
        die "the server at port $port did not start"
    }
done
printf 'a-key\n' >"$work/key"
cat >"$work/endpoints.toml" <<TOML
[[models]]
name = "generator"
endpoint = { kind = "openai", url = "http://127.0.0.1:18181/v1", model = "$generator", key_file = "$work/key" }
[[models]]
name = "all-minilm-l6-v2"
endpoint = { kind = "openai", url = "http://127.0.0.1:18182", model = "all-minilm-l6-v2" }
[[models]]
name = "paraphrase-minilm-l3-v2"
endpoint = { kind = "tei", url = "http://127.0.0.1:18183", model = "paraphrase-minilm-l3-v2" }
[[models]]
name = "ms-marco-minilm-l12-v2"
endpoint = { kind = "tei", url = "http://127.0.0.1:18184", model = "ms-marco-minilm-l12-v2" }
TOML
unset PYTHONPATH
POQ_TEST_ENDPOINTS="$work/endpoints.toml" cargo test --locked --release "${POQ_WORKSPACE[@]}" --test worker -- --nocapture --exact \
    endpoints::real_servers_answer_score_and_are_paid || {
    tail -n 25 "$work"/*.log >&2
    die "the worker failed with these servers"
}
log "llama.cpp's server answered, infinity and a server with TEI's API scored"
