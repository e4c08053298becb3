#!/usr/bin/env bash
# Optional: opens the bundles in contracts/artifacts with polkadot.js, the library behind the Contracts UI and most wallets, and with
# substrate-interface, Python's; lists what they find. Needs node, npm and python3; fetches @polkadot/api-contract (150 MB unpacked) and
# substrate-interface (80 MB) into the cache the first time.
#
#   scripts/check-bundle.sh [FILE…]
#
# The tests do not need it: xtask reads the bundle back with the crate that cargo-contract uses.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

case "${1:-}" in
-h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

files=("$@")
(($#)) || files=("$POQ_ROOT"/contracts/artifacts/*.contract)
library='@polkadot/api-contract@16.5.6'
python_library='substrate-interface==1.7.11'
folder="$POQ_CACHE/check-bundle"

for file in "${files[@]}"; do
    [[ -f "$file" ]] || die "there is no $file: run scripts/build-contract.sh"
done
need_cmd node "This optional check needs Node.js 18 or newer: https://nodejs.org, or Debian's packages nodejs and npm."
need_cmd npm "It comes with Node.js; on Debian it is a package of its own."
need_cmd python3 "It is in Debian's package python3; python3-venv is needed, too."

if ! up_to_date "$folder/installed" "$library"; then
    log "fetching $library"
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-save --no-audit --no-fund --loglevel=error "$library" >&2
    mark_up_to_date "$folder/installed" "$library"
fi
if ! up_to_date "$folder/python-installed" "$python_library"; then
    log "installing $python_library"
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet "$python_library" >&2
    mark_up_to_date "$folder/python-installed" "$python_library"
fi
for file in "${files[@]}"; do
    node "$POQ_ROOT/scripts/lib/check-bundle.mjs" "$file" "$folder"
done
"$folder/venv/bin/python" "$POQ_ROOT/scripts/lib/check-bundle.py" "${files[@]}"
