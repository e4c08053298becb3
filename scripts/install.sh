#!/usr/bin/env bash
# Compiles `poq` and `poq-models` and puts them where the shell finds them: $POQ_PREFIX/bin, by default ~/.local/bin.
# Installs Debian packages that compiling needs, as scripts/setup.sh says.
#
#   scripts/install.sh
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

case "${1:-}" in
"") ;;
-h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) die "unknown argument '$1' (known: --help)" ;;
esac

"$POQ_ROOT/scripts/setup.sh"
programs=(poq poq-models)
build_programs "${programs[@]}"
bin="${POQ_PREFIX:-$HOME/.local}/bin"
mkdir -p "$bin"
for program in "${programs[@]}"; do
    install -m 755 "$CARGO_TARGET_DIR/release/$program" "$bin/$program"
done
log "installed ${programs[*]} in $bin"
case ":$PATH:" in
*":$bin:"*) ;;
*) warn "$bin is not on PATH; add it:  export PATH=\"$bin:\$PATH\"" ;;
esac
