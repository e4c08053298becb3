#!/usr/bin/env bash
# Chooses the toolchain that compiles WebAssembly (the contract and the runtime), and makes it complete where it is not.
#
# Source it:  . scripts/setup-toolchain.sh      (or run it, to see what it would take)
#
# What is needed: a rustc of at least 1.92 with the target wasm32v1-none, the standard library's source (the contract
# rebuilds `core` without panic messages), and rust-lld. Two places have them:
#   rustup   `rustup target add wasm32v1-none` and `rustup component add rust-src`
#   debian   the packages rustc-web, cargo-web and rust-web-src; the target itself is compiled once (20 s)
# The first that is complete wins; else rustup's is completed if its server answers, else Debian's is installed.
# POQ_WASM_TOOLCHAIN=rustup|debian forces one.
#
# Exports: POQ_WASM_KIND (rustup|debian), POQ_WASM_CARGO, POQ_WASM_RUSTC, POQ_WASM_LINKER, POQ_WASM_TARGET,
#          POQ_WASM_VERSION (rustc's version), POQ_WASM_ID (one line naming the toolchain, for build stamps).

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

POQ_WASM_TARGET=wasm32v1-none
# The first rustc whose `immediate-abort` is a panic strategy, not a feature of the standard library.
POQ_WASM_MIN_MINOR=92
# Seconds: how long rustup's server may take to answer, and to deliver (some 15 MB).
POQ_RUSTUP_PROBE_S=4
POQ_RUSTUP_FETCH_S=90

# poq_rustc_field RUSTC FIELD: a line of `rustc -vV`, for example "release" or "host".
poq_rustc_field() { "$1" -vV 2>/dev/null | sed -n "s/^$2: //p"; }

# poq_sysroot_complete SYSROOT: whether it has the target's compiled library and the source.
poq_sysroot_complete() {
    compgen -G "$1/lib/rustlib/$POQ_WASM_TARGET/lib/libcore-*.rlib" >/dev/null &&
        compgen -G "$1/lib/rustlib/$POQ_WASM_TARGET/lib/liballoc-*.rlib" >/dev/null &&
        [[ -f "$1/lib/rustlib/src/rust/library/Cargo.lock" ]]
}

# poq_new_enough RUSTC
poq_new_enough() {
    local release
    release="$(poq_rustc_field "$1" release)"
    [[ "$release" =~ ^1\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= POQ_WASM_MIN_MINOR))
}

# poq_rustup_sysroot: the folder of rustup's active toolchain. RUSTUP_AUTO_INSTALL=0: looking must not download.
poq_rustup_sysroot() {
    local rustc
    have_cmd rustup || return 1
    rustc="$(cd "$POQ_ROOT" && RUSTUP_AUTO_INSTALL=0 rustup which rustc 2>/dev/null)" || return 1
    dirname "$(dirname "$rustc")"
}

# poq_linker HOST: a wasm linker that understands the object files of a current LLVM.
poq_linker() {
    local host="$1" candidate sysroot version
    if [[ -n "${POQ_WASM_LINKER:-}" && -x "$POQ_WASM_LINKER" ]]; then
        printf '%s\n' "$POQ_WASM_LINKER"
        return 0
    fi
    if sysroot="$(poq_rustup_sysroot)"; then
        candidate="$sysroot/lib/rustlib/$host/bin/rust-lld"
        [[ -x "$candidate" ]] && printf '%s\n' "$candidate" && return 0
    fi
    for version in 22 21 20 19; do
        # Debian's lld, under the name that makes it a wasm linker.
        candidate="$(command -v "wasm-ld-$version")" && printf '%s\n' "$candidate" && return 0
    done
    return 1
}

# poq_take KIND CARGO RUSTC: export the choice.
poq_take() {
    local linker
    linker="$(poq_linker "$(poq_rustc_field "$3" host)")" || return 1
    POQ_WASM_KIND="$1"
    POQ_WASM_CARGO="$2"
    POQ_WASM_RUSTC="$3"
    POQ_WASM_LINKER="$linker"
    POQ_WASM_VERSION="$(poq_rustc_field "$3" release)"
    POQ_WASM_ID="rustc $POQ_WASM_VERSION $(poq_rustc_field "$3" commit-hash) ($1)"
    export POQ_WASM_KIND POQ_WASM_CARGO POQ_WASM_RUSTC POQ_WASM_LINKER POQ_WASM_TARGET POQ_WASM_VERSION POQ_WASM_ID
}

# ---- rustup

poq_rustup_complete() {
    local sysroot
    sysroot="$(poq_rustup_sysroot)" || return 1
    poq_new_enough "$sysroot/bin/rustc" && poq_sysroot_complete "$sysroot" || return 1
    poq_take rustup "$sysroot/bin/cargo" "$sysroot/bin/rustc"
}

# poq_rustup_fetch: add target and source to the active toolchain, if the server answers at once.
poq_rustup_fetch() {
    local sysroot server
    sysroot="$(poq_rustup_sysroot)" || return 1
    poq_new_enough "$sysroot/bin/rustc" || return 1
    server="${RUSTUP_DIST_SERVER:-https://static.rust-lang.org}"
    if have_cmd curl; then
        curl -fsS -o /dev/null --max-time "$POQ_RUSTUP_PROBE_S" "$server/dist/channel-rust-stable.toml.sha256" 2>/dev/null || {
            log "rustup's server ($server) does not answer"
            return 1
        }
    fi
    log "adding $POQ_WASM_TARGET and rust-src to rustup's toolchain"
    (
        cd "$POQ_ROOT" &&
            timeout "$POQ_RUSTUP_FETCH_S" rustup target add "$POQ_WASM_TARGET" &&
            timeout "$POQ_RUSTUP_FETCH_S" rustup component add rust-src
    ) >&2 || return 1
}

# ---- Debian

# rustc-web has no target wasm32v1-none, only the source to compile it from. The result goes into a sysroot of our own
# (links to Debian's, plus the target) rather than below /usr: no root needed, nothing of the packages is altered.
poq_debian_sysroot() {
    local id
    id="$(/usr/bin/rustc -vV 2>/dev/null | sha256sum | cut -c1-12)"
    printf '%s\n' "$POQ_CACHE/wasm-sysroot-$id"
}

poq_debian_make_target() {
    local sysroot="$1" host build lib
    poq_sysroot_complete "$sysroot" && return 0 # another process was faster
    host="$(poq_rustc_field /usr/bin/rustc host)"
    log "compiling core and alloc for $POQ_WASM_TARGET (once, about 20 s)"
    build="$(mktemp -d)" || return 1
    mkdir -p "$build/src"
    printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n' >"$build/Cargo.toml"
    printf '#![no_std]\n' >"$build/src/lib.rs"
    # From the temporary folder: cargo reads .cargo/config.toml of the folder it runs in.
    if ! (
        cd "$build" &&
            env -u RUSTUP_TOOLCHAIN -u CARGO -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER \
                RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$build/target" \
                /usr/bin/cargo build --release -Zbuild-std=core,alloc --target "$POQ_WASM_TARGET"
    ) >"$build/log" 2>&1; then
        cat "$build/log" >&2
        rm -rf "$build"
        return 1
    fi
    # Built beside the final place and moved there in one step, so that a half-made sysroot is never seen.
    local new="$sysroot.new.$$"
    rm -rf "$new" && mkdir -p "$new/bin" "$new/lib/rustlib/$POQ_WASM_TARGET/lib" "$new/lib/rustlib/$host"
    for lib in core alloc compiler_builtins; do
        cp "$build/target/$POQ_WASM_TARGET/release/deps/lib$lib"-*.rlib "$new/lib/rustlib/$POQ_WASM_TARGET/lib/" || return 1
    done
    ln -s "/usr/lib/rustlib/$host/lib" "$new/lib/rustlib/$host/lib"
    ln -s /usr/lib/rustlib/src "$new/lib/rustlib/src"
    [[ -d /usr/lib/rustlib/etc ]] && ln -s /usr/lib/rustlib/etc "$new/lib/rustlib/etc"
    printf '#!/bin/sh\nexec /usr/bin/rustc --sysroot "%s" "$@"\n' "$sysroot" >"$new/bin/rustc"
    chmod +x "$new/bin/rustc"
    rm -rf "$sysroot" && mv "$new" "$sysroot"
    rm -rf "$build"
}

poq_debian_complete() {
    local sysroot
    [[ -x /usr/bin/rustc && -x /usr/bin/cargo ]] || return 1
    poq_new_enough /usr/bin/rustc || return 1
    sysroot="$(poq_debian_sysroot)"
    poq_sysroot_complete "$sysroot" || return 1
    poq_take debian /usr/bin/cargo "$sysroot/bin/rustc"
}

# poq_debian_prepare: compile the target where Debian's compiler and source are installed already.
poq_debian_prepare() {
    [[ -x /usr/bin/rustc && -x /usr/bin/cargo && -f /usr/lib/rustlib/src/rust/library/Cargo.lock ]] || return 1
    poq_new_enough /usr/bin/rustc || return 1
    with_lock wasm-sysroot poq_debian_make_target "$(poq_debian_sysroot)"
}

poq_debian_install() {
    if ! have_cmd apt-get; then
        log "no apt-get here"
        return 1
    fi
    apt_install rustc-web cargo-web rust-web-src || return 1
    if ! poq_linker "$(poq_rustc_field /usr/bin/rustc host)" >/dev/null; then
        apt_install lld-22 || apt_install lld-19 || return 1
    fi
}

# ---- the choice

poq_choose_toolchain() {
    case "${POQ_WASM_TOOLCHAIN:-any}" in
    rustup)
        poq_rustup_complete && return 0
        poq_rustup_fetch && poq_rustup_complete && return 0
        ;;
    debian)
        poq_debian_complete && return 0
        poq_debian_prepare && poq_debian_complete && return 0
        poq_debian_install && poq_debian_prepare && poq_debian_complete && return 0
        ;;
    any)
        poq_rustup_complete && return 0
        poq_debian_complete && return 0
        poq_rustup_fetch && poq_rustup_complete && return 0
        poq_debian_prepare && poq_debian_complete && return 0
        poq_debian_install && poq_debian_prepare && poq_debian_complete && return 0
        ;;
    *)
        warn "POQ_WASM_TOOLCHAIN is '${POQ_WASM_TOOLCHAIN}': it must be rustup or debian"
        return 1
        ;;
    esac
    warn "no toolchain for $POQ_WASM_TARGET. With rustup (rustc 1.$POQ_WASM_MIN_MINOR or newer):" \
        "rustup target add $POQ_WASM_TARGET && rustup component add rust-src." \
        "On Debian: apt-get install rustc-web cargo-web rust-web-src."
    return 1
}

if poq_choose_toolchain; then
    log "Wasm toolchain: $POQ_WASM_ID, linker $POQ_WASM_LINKER"
else
    # Sourced or run: fail either way, without closing the reader's shell.
    # shellcheck disable=SC2317
    return 1 2>/dev/null || exit 1
fi
