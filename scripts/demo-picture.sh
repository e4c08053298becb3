#!/usr/bin/env bash
# Runs the demonstration and draws what it printed, shortened, as docs/demo.svg, the picture of the README.
#
#   scripts/demo-picture.sh [arguments of scripts/demo.sh]; the committed picture is of --questions 6
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

build_programs xtask
printed="$(mktemp)"
told="$(mktemp)"
trap 'rm -f "$printed" "$told"' EXIT
"$POQ_ROOT/scripts/demo.sh" "$@" >"$printed" 2> >(tee "$told" >&2)
{
    # Of the progress, the questions with their answers and scores; of the result, the nodes and the money.
    echo "…"
    sed -nE 's/^\[ *[0-9.]+s\] (task [0-9]+: [^a-z0-9].*|    [0-9.-]+  .*)$/\1/p' "$told"
    echo "…"
    awk '/^┌/ { tables++ } tables > 1' "$printed"
} | "$CARGO_TARGET_DIR/release/xtask" picture "./scripts/demo.sh${*:+ $*}" >"$POQ_ROOT/docs/demo.svg"
cat "$printed"
