#!/usr/bin/env bash
# Holds the engine to the reference implementations: makes tiny models with random weights of every architecture and format that is
# supported, computes with PyTorch and transformers, and with llama.cpp, what they give, and prints for each the largest difference of
# logits (or of vectors) and how many of the likeliest tokens are the same. Fails where a difference is too large.
#
#   scripts/check-models.sh                       with new fixtures
#   scripts/check-models.sh --markdown FILE       also writes the table that docs/models.md has
#   scripts/check-models.sh --commit              writes the fixtures into the tree, where the tests find them
#
# Python packages go into a folder of their own under $POQ_CACHE (about 6 GB: PyTorch); nothing else is touched.
# POQ_CHECK_PYTHON names a Python that has them already.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

commit=0
markdown=""
while (($#)); do
    case "$1" in
    --commit) commit=1 ;;
    --markdown)
        [[ $# -ge 2 ]] || die "--markdown needs a file"
        markdown="$(realpath -m "$2")"
        shift
        ;;
    *)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        [[ "$1" == -h || "$1" == --help ]] && exit 0
        exit 2
        ;;
    esac
    shift
done

need_cmd python3 "Install Python 3.10 or later with its venv module."

venv="$POQ_CACHE/check-models"
# xllamacpp is llama.cpp of the build that its version names, compiled.
packages=(torch==2.15.0 transformers==5.24.0 gguf==0.19.0 xllamacpp==2026.10.11549)
python="${POQ_CHECK_PYTHON:-$venv/bin/python}"
if [[ -z "${POQ_CHECK_PYTHON:-}" ]] && ! up_to_date "$venv/packages" "${packages[*]}" "$venv/bin/python"; then
    log "installing Python packages into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "${packages[@]}" >&2
    mark_up_to_date "$venv/packages" "${packages[*]}"
fi

more=(--f32)
if ((commit)); then
    fixtures="$POQ_ROOT/offchain-worker/inference/tests/fixtures"
    more=()
else
    fixtures="$(mktemp -d)"
    trap 'rm -rf "$fixtures"' EXIT
fi
log "making fixtures in $fixtures"
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error \
    "$python" "$POQ_ROOT/scripts/make-fixtures.py" ${more[@]+"${more[@]}"} "$fixtures" >&2
log "asking llama.cpp"
"$python" "$POQ_ROOT/scripts/lib/llama_cpp_reference.py" "$fixtures" >&2

cd "$POQ_ROOT"
rows="$(mktemp)"
POQ_FIXTURES="$fixtures" POQ_FIXTURES_ROWS="$rows" \
    cargo test --locked --release --workspace --test fixtures -- --test-threads 1 >&2
table() {
    echo "| network | format | computed with | from transformers | the same of 8 tokens | from llama.cpp | the same of 8 tokens |"
    echo "|---|---|---|---|---|---|---|"
    sort "$rows"
}
table
if [[ -n "$markdown" ]]; then table >"$markdown"; fi
rm -f "$rows"
