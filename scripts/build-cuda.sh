#!/usr/bin/env bash
# Builds `poq`, `poq-models` and `poq-bench-models` for NVIDIA GPUs.
#
#   scripts/build-cuda.sh
#
# Prints the folder of the binaries, $CARGO_TARGET_DIR/cuda/release, and tells on stderr which shared libraries they need
# where they run..
#
# Takes the CUDA toolkit that is there: nvcc on PATH, in $CUDA_HOME or in /usr/local/cuda. Where there is none it fetches
# NVIDIA's compiler from the Python package index (0.5 GB, once, into the cache) and links against stubs of the libraries
# that come with driver and toolkit: building needs no card, only running does.
#
# CUDA_COMPUTE_CAP says which cards it is for (80 A100, 86 RTX 30, 89 RTX 40 and L4, 90 H100 and H200, 120 RTX 50). Default:
# the card of this machine, else 90. A build runs on cards of that capability and newer of the same generation.
#
# Exit status 75 (try again later): there is no toolkit and the package index cannot be reached.
set -euo pipefail

case "${1:-}" in
-h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
'') ;;
*)
    printf 'error: unknown argument %s; try --help\n' "$1" >&2
    exit 2
    ;;
esac

HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/common.sh"

PROGRAMS=(poq poq-models poq-bench-models)
OUT="$CARGO_TARGET_DIR/cuda"
# The compiler's packages: one release of CUDA.
VERSION=13.0.88
PACKAGES=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-nvrtc==13.0.88
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
)
# Of libraries that these packages do not have: the name that programs ask for at run time, and the folder of cudarc's
# sources that declares the functions.
STUBS=(libcuda.so.1=driver libcublas.so.13=cublas libcublasLt.so.13=cublaslt libcurand.so.10=curand)

# installed_toolkit: print the folder of a toolkit that is there.
installed_toolkit() {
    local nvcc
    for nvcc in "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
        [[ -n "$nvcc" && -x "$nvcc" ]] || continue
        nvcc="$(readlink -f "$nvcc")"
        dirname "$(dirname "$nvcc")"
        return 0
    done
    return 1
}

# cudarc_sources: print the folder of the sources of the cudarc that Cargo.lock pins.
cudarc_sources() {
    local manifest
    manifest="$(cargo metadata --locked --format-version 1 --features poq-inference/cuda | grep -o '"manifest_path":"[^"]*/cudarc-[0-9][^"/]*/Cargo.toml"' | head -n 1)" ||
        return 1
    manifest="${manifest#*:\"}"
    dirname "${manifest%\"}"
}

# write_stubs FOLDER: shared libraries with the names and functions of those that only a driver or a whole toolkit brings. Whoever
# runs with them is told CUDA_ERROR_STUB_LIBRARY.
write_stubs() {
    local folder="$1" sources stub soname name module
    sources="$(cudarc_sources)/src" || die "cargo does not tell where cudarc's sources are"
    mkdir -p "$folder"
    for stub in "${STUBS[@]}"; do
        soname="${stub%=*}" module="${stub#*=}"
        name="${soname%%.so.*}"
        grep -A1 'extern "C" {' "$sources/$module/sys/mod.rs" | sed -n 's/^ *fn \([A-Za-z0-9_]*\)(.*/int \1(void) { return 34; }/p' |
            sort -u >"$folder/$name.c"
        [[ -s "$folder/$name.c" ]] || die "no functions were found in $sources/$module/sys/mod.rs"
        cc -shared -fPIC -w -fno-builtin -o "$folder/$name.so" -Wl,-soname,"$soname" "$folder/$name.c" ||
            die "no stub of $soname could be linked"
    done
}

# fetch_toolkit: install the compiler's packages, once; sets CUDA_HOME.
fetch_toolkit() {
    local home="$POQ_CACHE/cuda/$VERSION" python library
    export CUDA_HOME="$home/nvidia/cu13"
    [[ -f "$home/complete" ]] && return 0
    python="$(command -v python3)" || die "python3 is not on PATH: install it, or a CUDA toolkit"
    log "no CUDA toolkit is installed: fetching NVIDIA's compiler (0.5 GB, once)"
    if ! "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade --no-deps \
        --target "$home" "${PACKAGES[@]}" >&2; then
        warn "there is no CUDA toolkit here, and pip could not fetch ${PACKAGES[*]}"
        exit 75
    fi
    # What linkers look for: the packages have the versioned names only.
    for library in "$CUDA_HOME"/lib/lib{cudart,nvrtc}.so.*; do
        [[ "$library" == *.alt.* ]] || ln -sf "$(basename "$library")" "${library%.so.*}.so"
    done
    # Where no errors stop the script (called in a condition), these do.
    write_stubs "$CUDA_HOME/lib/stubs" || exit 1
    touch "$home/complete"
}

need_cmd cargo "Install Rust from https://rustup.rs."
need_cmd cc "Install a C compiler (Debian: gcc)."
need_cmd c++ "nvcc needs a C++ compiler (Debian: g++)."
cd "$POQ_ROOT"

if CUDA_HOME="$(installed_toolkit)"; then
    export CUDA_HOME
    log "CUDA toolkit: $CUDA_HOME"
else
    with_lock cuda-toolkit fetch_toolkit || exit "$?"
    CUDA_HOME="$POQ_CACHE/cuda/$VERSION/nvidia/cu13"
    export CUDA_HOME
    log "CUDA compiler $VERSION from Python packages: $CUDA_HOME"
fi
export CUDA_PATH="$CUDA_HOME" CUDA_ROOT="$CUDA_HOME" PATH="$CUDA_HOME/bin:$PATH"
if [[ -z "${CUDA_COMPUTE_CAP:-}" ]]; then
    CUDA_COMPUTE_CAP="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')" || true
    [[ "$CUDA_COMPUTE_CAP" =~ ^[0-9]+$ ]] || CUDA_COMPUTE_CAP=90
fi
export CUDA_COMPUTE_CAP

build() {
    log "compiling for compute capability $CUDA_COMPUTE_CAP (the first time CUDA's kernels, some eight minutes of one core)"
    local program bins=()
    for program in "${PROGRAMS[@]}"; do bins+=(--bin "$program"); done
    # Intermediate files go where all builds have theirs: what does not depend on candle is taken from there. The programs
    # have a folder of their own, or each build would replace the other's.
    CARGO_BUILD_BUILD_DIR="$CARGO_TARGET_DIR" CARGO_TARGET_DIR="$OUT" \
        cargo build --locked --release "${POQ_WORKSPACE[@]}" --features poq-inference/cuda "${bins[@]}" >&2
}

with_lock build-cuda build
if have_cmd readelf; then
    log "they need, where they run: $(readelf -d "$OUT/release/poq" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')"
    log "libcuda comes with the driver; the others with a CUDA toolkit, or with pip install nvidia-cublas nvidia-curand" \
        "nvidia-cuda-nvrtc nvidia-cuda-runtime and their lib folder on LD_LIBRARY_PATH"
fi
printf '%s\n' "$OUT/release"
