#!/usr/bin/env bash
# Checks the explorer's pages: their types (tsc over the plain modules), that every text is there and used, and their behaviour in headless
# Chromium (Playwright, axe) over made-up histories: every page by mouse, by keyboard, on a phone, in the dark, empty, with the chain away,
# with strings that try to break them.
#
#   scripts/check-pages.sh [--shots FOLDER] [--types]
#       --shots FOLDER   also takes pictures of every page
#       --types          types and texts only: needs no browser and builds nothing
#
# Node.js packages go into a folder under $POQ_CACHE; the browser is the one that CHROMIUM names, or that is on PATH.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

shots=""
types=""
while [[ $# -gt 0 ]]; do
    case "$1" in
    --shots) shots="$(realpath -m "${2:?--shots needs a folder}")" && shift 2 ;;
    --types) types=yes && shift ;;
    *)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        [[ "$1" == -h || "$1" == --help ]] && exit 0
        exit 2
        ;;
    esac
done

need_cmd node "Install Node.js 20 or later."
need_cmd npm "Install npm, which comes with Node.js."
web="$POQ_CACHE/explorer-web"
mkdir -p "$web"
if ! cmp -s offchain-worker/explorer/web/package-lock.json "$web/package-lock.json" || [[ ! -d "$web/node_modules" ]]; then
    cp offchain-worker/explorer/web/package.json offchain-worker/explorer/web/package-lock.json "$web/"
    log "installing what checks the pages into $web"
    (cd "$web" && npm ci --silent --no-audit --no-fund --ignore-scripts) >&2
fi

log "types"
"$web/node_modules/.bin/tsc" -p offchain-worker/explorer/web/tsconfig.json
log "texts"
node offchain-worker/explorer/web/texts.mjs
[[ -z "$types" ]] || exit 0

if [[ -z "${CHROMIUM:-}" ]]; then
    for name in chromium chromium-browser google-chrome; do
        if have_cmd "$name"; then CHROMIUM="$(command -v "$name")" && break; fi
    done
fi
[[ -n "${CHROMIUM:-}" ]] || die "no Chromium is on PATH. Install it (Debian: apt-get install chromium), or name it with CHROMIUM=…"
if [[ -z "${MADE_UP:-}" ]]; then
    cargo build --locked --release "${POQ_WORKSPACE[@]}" --example made_up >&2
    MADE_UP="$CARGO_TARGET_DIR/release/examples/made_up"
fi
cp offchain-worker/explorer/web/pages.test.mjs "$web/"
log "behaviour, in $CHROMIUM"
cd "$web"
CHROMIUM="$CHROMIUM" MADE_UP="$MADE_UP" SHOTS="$shots" PAGES="$POQ_ROOT/offchain-worker/explorer/pages" exec node --test --test-concurrency=1 pages.test.mjs
