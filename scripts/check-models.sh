#!/usr/bin/env bash
# Holds the engine to the reference implementations: makes tiny models with random weights of every architecture and format that is
# supported, computes with PyTorch and transformers what they give, and prints for each the largest difference of logits (or of
# vectors) and how many of the likeliest tokens are the same. Fails where a difference is too large.
#
#   scripts/check-models.sh            with new fixtures
#   scripts/check-models.sh --commit   writes them into the tree, where the tests find them
#
# Python packages go into a folder of their own under $POQ_CACHE (about 6 GB: PyTorch); nothing else is touched.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

commit=0
case "${1:-}" in
"") ;;
--commit) commit=1 ;;
*)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

need_cmd python3 "Install Python 3.10 or later with its venv module."

venv="$POQ_CACHE/check-models"
packages=(torch==2.15.0 transformers==5.24.0 gguf==0.19.0)
if ! up_to_date "$venv/packages" "${packages[*]}" "$venv/bin/python"; then
    log "installing Python packages into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "${packages[@]}" >&2
    mark_up_to_date "$venv/packages" "${packages[*]}"
fi

if ((commit)); then
    fixtures="$POQ_ROOT/offchain-worker/inference/tests/fixtures"
else
    fixtures="$(mktemp -d)"
    trap 'rm -rf "$fixtures"' EXIT
fi
log "making fixtures in $fixtures"
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error \
    "$venv/bin/python" "$POQ_ROOT/scripts/make-fixtures.py" "$fixtures" >&2

cd "$POQ_ROOT"
POQ_FIXTURES="$fixtures" cargo test --locked --release --workspace --test fixtures -- --nocapture --test-threads 1
