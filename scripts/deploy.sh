#!/usr/bin/env bash
# Puts the contract on a chain with pallet-contracts, building contract and tool first where they are missing.
#
#   scripts/deploy.sh --url ws://HOST:PORT --key-file FILE [further arguments of `poq deploy`]
#
# On a development chain, where //Alice has money, it can be called without any argument: the chain is then the one at
# ws://127.0.0.1:9944 and the key is //Alice. Writes deployment.json, which every `poq` command reads, into the current folder.
# With a key of one's own it asks before it sends, and needs --yes (or POQ_YES=1) where there is no terminal. `poq deploy --help`
# tells all flags.
set -euo pipefail

HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/common.sh"

KEY_GIVEN=0
[[ -n "${POQ_KEY_FILE:-}" ]] && KEY_GIVEN=1
for argument in "$@"; do
    case "$argument" in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    --key-file | --key-file=*) KEY_GIVEN=1 ;;
    esac
done

CALLER="$PWD"
cd "$POQ_ROOT"
export POQ_ARTIFACT="${POQ_ARTIFACT:-$POQ_ROOT/contracts/artifacts/poq.contract}"
[[ -f "$POQ_ARTIFACT" ]] || "$HERE/build-contract.sh"
build_programs poq
cd "$CALLER"

if ((!KEY_GIVEN)); then
    # Everybody knows this secret: it is worth something on development chains only.
    POQ_KEY_FILE="$(mktemp)"
    trap 'rm -f "$POQ_KEY_FILE"' EXIT
    chmod 600 "$POQ_KEY_FILE"
    printf '//Alice\n' >"$POQ_KEY_FILE"
    export POQ_KEY_FILE
    # Nothing of anybody's is spent: no question. With a key of one's own `poq deploy` shows what it costs and asks.
    export POQ_YES=1
    log "no --key-file: deploying as //Alice, which has money on development chains only"
fi
"$CARGO_TARGET_DIR/release/poq" deploy "$@"
