#!/usr/bin/env bash
# Compares this project's scores with the reference implementations, on the same weights and texts: bi-encoders and
# cross-encoders with Python's sentence-transformers, token F1 with SQuAD's official script (as the package allennlp 0.9.0
# carries it), ROUGE-L with Google's rouge_score, correlations with scipy. Prints the largest difference of each, and fails
# where one is too large.
#
#   scripts/check-scores.sh
#
# Python packages go into a folder of their own under $POQ_CACHE (about 6 GB: PyTorch); nothing else is touched. Models and data
# are installed when they are missing.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

case "${1:-}" in
"") ;;
*)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

need_cmd python3 "Install Python 3.10 or later with its venv module."
need_cmd unzip

# The two programs may be built already (POQ_BIN names their folder); else they are built here.
if [[ -z "${POQ_BIN:-}" ]]; then
    build_programs poq-models poq-experiment
    POQ_BIN="$CARGO_TARGET_DIR/release"
fi
"$POQ_BIN/poq-models" install aclsum consensus-summary qa all-minilm-l6-v2 paraphrase-minilm-l3-v2 bge-small-en-v1.5 \
    ms-marco-minilm-l12-v2 >&2

venv="$POQ_CACHE/check-scores"
packages=(sentence-transformers==6.2.0 torch==2.15.0 transformers==5.24.0 scipy==1.17.1 rouge-score==0.1.2)
if ! up_to_date "$venv/packages" "${packages[*]}" "$venv/bin/python"; then
    log "installing Python packages into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "${packages[@]}" >&2
    mark_up_to_date "$venv/packages" "${packages[*]}"
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$venv/bin/pip" download --quiet --no-deps --ignore-requires-python -d "$work" allennlp==0.9.0 >&2
unzip -q -p "$work"/allennlp-*.whl allennlp/tools/squad_eval.py >"$work/squad_eval.py"

models_dir="${POQ_MODELS_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/poq/models}"
checker="$POQ_ROOT/scripts/check-scores.py"
"$venv/bin/python" "$checker" make-pairs "$models_dir/../data" >"$work/pairs.jsonl"
"$POQ_BIN/poq-experiment" compare "$work/pairs.jsonl" >"$work/ours.json"
# Nothing is to be fetched for the models: they are the installed files.
cd "$work"
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$venv/bin/python" "$checker" compare pairs.jsonl ours.json squad_eval.py
