#!/usr/bin/env bash
# Measures. Every benchmark is a program that prints what it measured and, with --json FILE, writes it.
#
#   scripts/bench.sh gas [--json FILE] [--registry N]
#       ref_time, proof size and storage deposits of every message and of whole rounds; rounds per block; the cost of a draw
#       against the registry's size. Deterministic: it is what the chain charges, not what this machine needs.
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
-h | --help | "")
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    [[ -n "$what" ]] || exit 2
    ;;
*) die "unknown benchmark '$what' (known: gas)" ;;
esac
