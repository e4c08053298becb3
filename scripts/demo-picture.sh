#!/usr/bin/env bash
# Runs the demonstration and draws what it printed as docs/demo.svg, the picture of the README.
#
#   scripts/demo-picture.sh [arguments of scripts/demo.sh]
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

build_programs xtask
printed="$(mktemp)"
trap 'rm -f "$printed"' EXIT
"$POQ_ROOT/scripts/demo.sh" "$@" >"$printed"
"$CARGO_TARGET_DIR/release/xtask" picture "./scripts/demo.sh${*:+ $*}" <"$printed" >"$POQ_ROOT/docs/demo.svg"
cat "$printed"
