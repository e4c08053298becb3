#!/usr/bin/env bash
# Installs what the other scripts need and this machine lacks: Debian packages and a WebAssembly toolchain. Idempotent, and
# done in a second when nothing is missing. Rust itself must be there (https://rustup.rs).
#
#   scripts/setup.sh
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

case "${1:-}" in
"") ;;
-h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) die "unknown argument '$1' (known: --help)" ;;
esac

need_cmd cargo "Install Rust from https://rustup.rs, then run this again."

# build-essential, perl: several libraries come as C source (aws-lc, secp256k1, zstd; the node's OpenSSL is configured by perl).
# protobuf-compiler: the node's network protocols. binaryen: wasm-opt. curl: a quick look whether rustup's server answers, and
# the devnet's health. What only the development node needs (clang, cmake), scripts/build-node.sh installs.
packages=(build-essential ca-certificates curl git perl pkg-config protobuf-compiler binaryen)
if have_cmd apt-get && have_cmd dpkg-query; then
    apt_install "${packages[@]}" || die "the packages above are needed; install them and run this again"
else
    for command in cc make curl git perl protoc wasm-opt; do
        need_cmd "$command" "This is not a Debian system: install the counterparts of ${packages[*]}."
    done
fi

# shellcheck source-path=SCRIPTDIR
. "$POQ_ROOT/scripts/setup-toolchain.sh"
