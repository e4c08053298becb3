#!/usr/bin/env bash
# Builds the contracts' artifacts (the protocol's, poq, and the staking pool's, pool):
#   contracts/artifacts/NAME.wasm      the code, as it is uploaded
#   contracts/artifacts/NAME.json      its interface (ink! metadata, version 5)
#   contracts/artifacts/NAME.contract  both in one, for polkadot.js and other wallets
#   contracts/artifacts/SHA256SUMS
#   contracts/artifacts/SOURCES        a hash of the sources that they are made of
#
#   scripts/build-contract.sh           build, unless neither sources nor toolchain have changed
#   scripts/build-contract.sh --check   build elsewhere and compare with the committed artifacts: byte for byte where the
#                                       toolchain is the one that built them, else interface and acceptance only
#   --force                             build even if nothing has changed
#
# Why not cargo-contract: its last release for ink! 5 (5.0.3) passes flags that rustc has not known since 1.92, or that put
# instructions into the code which pallet-contracts refuses.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

check=0
force=0
for argument in "$@"; do
    case "$argument" in
    --check) check=1 ;;
    --force) force=1 ;;
    -h | --help)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) die "unknown argument '$argument' (known: --check, --force, --help)" ;;
    esac
done

contracts=(poq pool)
# The programs that use a contract as a library, without its metadata.
users=(--exclude poq-chain --exclude poq-worker --exclude poq-runtime-tests)
# A contract's sources are in contracts/NAME; its crate is:
declare -A crate=([poq]=poq-contract [pool]=poq-pool-contract)
artifacts="$POQ_ROOT/contracts/artifacts"
work="$CARGO_TARGET_DIR/wasm-contract"
stamp="$work/artifacts.stamp"

. "$POQ_ROOT/scripts/setup-toolchain.sh"
need_cmd wasm-opt "It is in Debian's package binaryen; scripts/setup.sh installs it."
need_cmd cargo
optimiser="$(wasm-opt --version)"

files=()
expected=()
for name in "${contracts[@]}"; do
    files+=("$artifacts/$name."{wasm,json,contract})
    expected+=(--contract "$name=contracts/$name/size-budget.txt")
done

# What decides the bytes. The artifacts themselves are part of it: an edited one is built anew.
inputs_hash() {
    {
        content_hash contracts/poq contracts/pool contracts/poq-core scripts/xtask scripts/build-contract.sh Cargo.toml Cargo.lock
        printf '%s\n' "$POQ_WASM_ID" "$optimiser"
        cat "${files[@]}" "$artifacts/"{SHA256SUMS,SOURCES} 2>/dev/null | sha256sum
    } | sha256sum | cut -d' ' -f1
}

# One build at a time in a target folder: two of different toolchains would leave their code under the same name, and one
# could bundle the other's.
mkdir -p "$work"
exec 8>"$work/.lock"
flock 8

if ((!force)) && up_to_date "$stamp" "$(inputs_hash)" "${files[@]}"; then
    log "contracts/artifacts: up to date"
    exit 0
fi

locked=()
# A check must not resolve versions anew: it is about the sources as they are committed.
((check)) && locked=(--locked)

ink="$(sed -n '/^name = "ink"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)"
[[ -n "$ink" ]] || die "Cargo.lock names no version of ink: is it the workspace's?"
fresh="$work/artifacts"
rm -rf "$fresh"

log "compiling xtask"
cargo build "${locked[@]}" --quiet --release "${POQ_WORKSPACE[@]}" --bin xtask
xtask="$CARGO_TARGET_DIR/release/xtask"

# build NAME: one contract, into $fresh.
build() {
    local name="$1" package="${crate[$1]}"
    local linked="$work/$POQ_WASM_TARGET/contract/${package//-/_}.wasm" part="$work/$name"
    mkdir -p "$part"

    # 1. Compile. `core` and `alloc` are rebuilt (build-std, hence RUSTC_BOOTSTRAP) because a panic is an `unreachable` here, with
    #    neither message nor location: those would be most of the code. `cargo rustc --crate-type`: a cdylib here, an ordinary
    #    library everywhere else.
    log "compiling the contract $name"
    RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS="-Zunstable-options -Cpanic=immediate-abort -Clink-arg=-zstack-size=65536 -Clink-arg=--import-memory -Clink-arg=--max-memory=1048576" \
        CARGO_TARGET_DIR="$work" \
        wasm_cargo rustc "${locked[@]}" --quiet --profile contract -p "$package" --lib --crate-type cdylib \
        --no-default-features --target "$POQ_WASM_TARGET" -Zbuild-std=core,alloc

    # 2. The metadata comes from the same sources, compiled for this machine; without what uses a contract as a library, because then
    #    it has no metadata (Cargo gives a crate one set of features), and else with the rest of the workspace, so that nothing that
    #    is compiled already is compiled again.
    log "compiling the metadata of $name"
    local others=("${users[@]}")
    [[ "$name" == pool ]] || others+=(--exclude poq-pool-contract)
    cargo build "${locked[@]}" --quiet --release "${POQ_WORKSPACE[@]}" "${others[@]}" --features "xtask/metadata-$name" \
        --bin contract-metadata
    "$CARGO_TARGET_DIR/release/contract-metadata" >"$part/metadata.json"

    # 3. Strip, then shrink. The second pass finds what the first one has uncovered; the third numbers functions by how often they
    #    are called, so that calls take fewer bytes. The pallet charges every call for each function that it enters, by the
    #    function's size: so a function with a single caller stays apart, unless it is small.
    local shrink=(wasm-opt -Oz --mvp-features --zero-filled-memory --strip-debug --strip-producers
        --one-caller-inline-max-function-size=45)
    "$xtask" strip-exports "$linked" "$part/stripped.wasm"
    "${shrink[@]}" "$part/stripped.wasm" -o "$part/once.wasm"
    "${shrink[@]}" "$part/once.wasm" -o "$part/twice.wasm"
    "${shrink[@]}" --reorder-functions "$part/twice.wasm" -o "$part/final.wasm"

    # 4. Would the pallet take it, and is it as small as we said it would be?
    "$xtask" validate "$part/final.wasm" --budget "contracts/$name/size-budget.txt"

    # 5. Bundle.
    "$xtask" bundle --name "$name" --wasm "$part/final.wasm" --metadata "$part/metadata.json" --out "$fresh" \
        --ink "$ink" --rustc "$POQ_WASM_VERSION" \
        --info "build_mode=Release" --info "rust_toolchain=$POQ_WASM_ID" --info "wasm_opt=$optimiser"
}

for name in "${contracts[@]}"; do build "$name"; done
"$xtask" checksums "$fresh" "${contracts[@]}"

if ((check)); then
    [[ "$(contract_sources)" == "$(cat "$artifacts/SOURCES" 2>/dev/null)" ]] ||
        die "contracts/artifacts is of other sources than these: run scripts/build-contract.sh and commit what it writes"
    "$xtask" check-artifacts "$artifacts" "${expected[@]}" --fresh "$fresh"
else
    mkdir -p "$artifacts"
    cp "$fresh"/* "$artifacts/"
    contract_sources >"$artifacts/SOURCES"
    "$xtask" check-artifacts "$artifacts" "${expected[@]}"
fi
mark_up_to_date "$stamp" "$(inputs_hash)"
