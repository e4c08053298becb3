#!/usr/bin/env bash
# Follows README.md and docs/operations.md to the letter: runs every command of their `sh` blocks in order, in a folder that
# looks like a fresh clone, on the development chain that the README starts. Fails when a command fails or does not print what
# the page says. Also compares docs/parameters.md with the shipped parameters.
#
#   scripts/walkthrough.sh           runs everything (two minutes once the programs are built and the models installed)
#   scripts/walkthrough.sh --list    only lists the commands, and which are skipped or run in the background
#
# What is special about a block stands in a comment on the line before it; scripts/xtask/src/walkthrough.rs says how.
# The ports of the README must be free: 9944 (chain), 9955 (blobs), 9615 (metrics), 9966 (a request's input).
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"
PAGES=(README.md docs/operations.md)
XTASK="$CARGO_TARGET_DIR/release/xtask"

case "${1:-}" in
"") ;;
--list)
    build_programs xtask
    exec "$XTASK" walkthrough --list --folder . "${PAGES[@]}"
    ;;
-h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) die "unknown argument '$1' (known: --list, --help)" ;;
esac

build_programs poq poq-models xtask
"$CARGO_TARGET_DIR/release/poq-models" install >&2

for port in 9944 9955 9615 9966; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "something answers on port $port, which the README's commands take: stop it first"
    fi
done

# A fresh clone, but for its build: links lead to the files here, so that nothing is compiled anew.
clone="$(mktemp -d)"
trap 'rm -rf "$clone"' EXIT
git ls-files -z | cut -z -d/ -f1 | sort -zu | while IFS= read -r -d '' entry; do
    ln -s "$POQ_ROOT/$entry" "$clone/$entry"
done

# Nothing of the caller's settings, and nothing installed for good.
for name in $(compgen -e POQ_); do
    case "$name" in
    POQ_CACHE | POQ_MODELS_DIR | POQ_WHEELS_DIR) ;;
    *) unset "$name" ;;
    esac
done
export POQ_PREFIX="$clone/.installed"
export PATH="$POQ_PREFIX/bin:$CARGO_TARGET_DIR/release:$PATH"

poq params show --defaults | "$XTASK" check-parameters docs/parameters.md
# The demonstration is the longest command: half a minute, some minutes on a machine that does much else.
"$XTASK" walkthrough --timeout 300 --folder "$clone" "${PAGES[@]}"
