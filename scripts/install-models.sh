#!/usr/bin/env bash
# Installs the models (and the question-and-answer data) that nodes run: from the Hugging Face hub where it can be
# reached, else out of Python packages from the index that pip is configured with. No Python is needed. Every file is
# checked against the sha256 in offchain-worker/inference/models.toml. Running it again does only what is missing.
#
#   scripts/install-models.sh                       everything (2.3 GB on disk)
#   scripts/install-models.sh qwen2.5-coder-0.5b-instruct all-minilm-l6-v2 qa
#   scripts/install-models.sh --dir DIR [names…]    another folder than $POQ_MODELS_DIR or ~/.local/share/poq/models
#   scripts/install-models.sh --list                what there is, and what is installed
#   scripts/install-models.sh --help                every option (--offline, --wheels DIR, --keep-wheels, --index-url URL)
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

command=install
arguments=()
for argument in "$@"; do
    case "$argument" in
        --list) command=list ;;
        *) arguments+=("$argument") ;;
    esac
done

build_programs poq-models
exec "$CARGO_TARGET_DIR/release/poq-models" "$command" ${arguments[@]+"${arguments[@]}"}
