# shellcheck shell=bash
# Functions and defaults shared by every script here. Source it; it changes no shell option of the caller.

if [[ -z "${POQ_COMMON_LOADED:-}" ]]; then
POQ_COMMON_LOADED=1

# -P: a script may be called through a link.
POQ_ROOT="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# Build outputs live outside the clone: a second clone, or a cleaned one, then starts warm.
: "${POQ_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/poq}"
: "${CARGO_TARGET_DIR:=$POQ_CACHE/target}"
export POQ_ROOT POQ_CACHE CARGO_TARGET_DIR

# log MESSAGE…: progress, to stderr (stdout is for results). Silent with POQ_QUIET=1.
log() { [[ "${POQ_QUIET:-0}" == 1 ]] || printf '%s\n' "• $*" >&2; }
# warn MESSAGE…: something the reader should know that does not stop the script.
warn() { printf '%s\n' "warning: $*" >&2; }
# die MESSAGE…: say what is wrong and what to do, and stop.
die() {
    printf '%s\n' "error: $*" >&2
    exit 1
}

have_cmd() { command -v "$1" >/dev/null 2>&1; }

# need_cmd COMMAND [HINT]: stop unless COMMAND is on PATH.
need_cmd() {
    have_cmd "$1" || die "'$1' is not on PATH. ${2:-Run scripts/setup.sh, which installs what these scripts need.}"
}

# What every cargo call here selects: packages decide the features of their dependencies, and another selection would compile
# those anew. Targets are selected by name, so that nothing compiles the node but scripts/build-node.sh.
POQ_WORKSPACE=(--workspace)
POQ_PROGRAMS=(poq poq-models poq-bench-models poq-experiment poq-simulate poq-bench-gas poq-bench-index xtask)
# All code but the node's, for lints.
POQ_ALL_TARGETS=(--lib --tests "${POQ_PROGRAMS[@]/#/--bin=}")

# build_programs NAME…: build these programs. Progress goes to stderr.
build_programs() {
    local name bins=()
    for name in "$@"; do bins+=(--bin "$name"); done
    need_cmd cargo "Install Rust from https://rustup.rs."
    (cd "$POQ_ROOT" && cargo build --locked --release "${POQ_WORKSPACE[@]}" "${bins[@]}") >&2
}

# content_hash PATH…: one sha256 over the names (relative to the repository) and contents of the given files and folders.
# Files that git ignores do not count; files not yet added do.
content_hash() {
    (
        cd "$POQ_ROOT" || exit 1
        if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
            git ls-files -z --cached --others --exclude-standard -- "$@" | sort -zu
        else
            find "$@" -type f -print0 | sort -zu
        fi | while IFS= read -r -d '' file; do
            # A file deleted but still in git's index is absent: its name alone changes the hash.
            if [[ -f "$file" ]]; then sha256sum -- "$file"; else printf 'absent  %s\n' "$file"; fi
        done | sha256sum | cut -d' ' -f1
    )
}

# contract_sources: one hash over what the contracts' artifacts are made of, as contracts/artifacts/SOURCES has it.
contract_sources() {
    content_hash contracts/poq contracts/pool contracts/poq-core ':!contracts/*/tests/*' ':!contracts/*/benches/*'
}

# up_to_date STAMP HASH FILE…: whether STAMP holds HASH and every FILE exists.
up_to_date() {
    local stamp="$1" hash="$2" file
    shift 2
    [[ -f "$stamp" && "$(<"$stamp")" == "$hash" ]] || return 1
    for file in "$@"; do [[ -f "$file" ]] || return 1; done
}

# mark_up_to_date STAMP HASH: remember that HASH has been built.
mark_up_to_date() {
    mkdir -p "$(dirname "$1")" && printf '%s\n' "$2" >"$1"
}

# with_lock NAME COMMAND…: run COMMAND while no other process holds the lock NAME.
with_lock() {
    local name="$1"
    shift
    mkdir -p "$POQ_CACHE/locks" || return 1
    (
        flock 9 || exit 1
        "$@"
    ) 9>"$POQ_CACHE/locks/$name"
}

# as_root COMMAND…: run COMMAND as root, through sudo where needed. Fails (with 126) where neither is possible.
as_root() {
    if [[ "$(id -u)" == 0 ]]; then
        "$@"
    elif have_cmd sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        sudo "$@"
    else
        return 126
    fi
}

# apt_missing PACKAGE…: those of the Debian packages that are not installed.
apt_missing() {
    local package
    for package in "$@"; do
        [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || printf '%s\n' "$package"
    done
}

# apt_install PACKAGE…: install those that are missing. Touches the network only when something is missing.
apt_install() {
    local missing
    mapfile -t missing < <(apt_missing "$@")
    ((${#missing[@]})) || return 0
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
    log "installing ${missing[*]}"
    # Package lists may be missing (container images) or too old: refresh them once, only when the first try fails.
    if as_root "${install[@]}" >&2; then return 0; fi
    if (($? == 126)); then
        warn "not root and no sudo: as an administrator, run  apt-get install --no-install-recommends ${missing[*]}"
        return 1
    fi
    log "trying again with fresh package lists"
    as_root apt-get update -qq >&2 && as_root "${install[@]}" >&2
}

# wasm_cargo ARGUMENT…: cargo of the Wasm toolchain that setup-toolchain.sh chose. RUSTFLAGS, RUSTC_BOOTSTRAP and
# CARGO_TARGET_DIR are the caller's.
wasm_cargo() {
    [[ -n "${POQ_WASM_CARGO:-}" ]] || die "source scripts/setup-toolchain.sh before calling wasm_cargo"
    # RUSTUP_TOOLCHAIN, RUSTC_WRAPPER… of the caller would lead to another compiler than the one that was chosen.
    env -u RUSTUP_TOOLCHAIN -u CARGO -u CARGO_ENCODED_RUSTFLAGS \
        RUSTC="$POQ_WASM_RUSTC" \
        CARGO_TARGET_WASM32V1_NONE_LINKER="$POQ_WASM_LINKER" \
        "$POQ_WASM_CARGO" "$@"
}

fi
