#!/usr/bin/env bash
# Checks on a machine with a card that it computes what the processor does, and measures how fast, beside PyTorch on the same
# weights in the same run. Needs nothing but this folder, a program of scripts/build-cuda.sh and, to compare, a Python with
# torch and transformers. Models with random weights are made on the spot. Takes less than eight minutes.
#
#   scripts/gpu-check.sh [--program FILE] [--device cuda:0] [--out DIR] [--dir DIR] [--small] [--within SECONDS]
#                        [--part PART]…
#
#   --program FILE    poq-bench-models, also packed (.xz, .gz); default: where scripts/build-cuda.sh puts it
#   --device DEVICE   cuda:N, metal or cpu; default cuda:0
#   --out DIR         where gpu-check.json and gpu-check.log go; default: the working directory
#   --dir DIR         where models are made, 16 GB; default: memory (/dev/shm) where there is room, else a temporary folder
#   --small           a small model in place of the one of seven billion weights: to try this without a card
#   --within SECONDS  no part is begun later; default 360
#   --part PART       only this one: decoders, batch (after decoders), encoders or large; may be given again
#
# PYTHON names the Python with torch and transformers; default: python3.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
say() { printf '• %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

program="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/poq/target}/cuda/release/poq-bench-models"
device=cuda:0
out=.
dir=
arguments=()
while (($#)); do
    case "$1" in
    --program) program="${2:?}" && shift 2 ;;
    --device) device="${2:?}" && shift 2 ;;
    --out) out="${2:?}" && shift 2 ;;
    --dir) dir="${2:?}" && shift 2 ;;
    --within) arguments+=(--within "${2:?}") && shift 2 ;;
    --part) arguments+=(--part "${2:?}") && shift 2 ;;
    --small) arguments+=(--small) && shift ;;
    -h | --help)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) die "unknown argument '$1'; try --help" ;;
    esac
done
[[ -f "$program" ]] || die "there is no $program: run scripts/build-cuda.sh, or name the program with --program"
mkdir -p "$out"

work="$(mktemp -d)"
made=
cleanup() { rm -rf "$work" ${made:+"$made"}; }
trap cleanup EXIT

python="${PYTHON:-python3}"
command -v "$python" >/dev/null || python=
case "$program" in
*.xz)
    if command -v xz >/dev/null; then
        xz -dc "$program" >"$work/poq-bench-models"
    else
        [[ -n "$python" ]] || die "neither xz nor python3 is there to unpack $program"
        "$python" -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$program" "$work/poq-bench-models"
    fi
    program="$work/poq-bench-models"
    ;;
*.gz) gzip -dc "$program" >"$work/poq-bench-models" && program="$work/poq-bench-models" ;;
esac
chmod +x "$program"

# ---- CUDA's libraries: what the system has, what PyTorch brought, what lies around.
missing() { ldd "$program" 2>/dev/null | sed -n 's/^[[:space:]]*\(lib[^ ]*\) => not found.*/\1/p'; }
add_folder() {
    [[ -d "$1" && ":${LD_LIBRARY_PATH:-}:" != *":$1:"* ]] || return 0
    export LD_LIBRARY_PATH="$1${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}
if ldd "$program" 2>&1 | grep -q 'GLIBC.*not found'; then
    ldd "$program" >&2 || true
    die "$program was built on a newer system than this one: build it here (scripts/build-cuda.sh), or on an older one"
fi
for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/local/cuda/lib64; do
    [[ -z "$(missing)" ]] || add_folder "$folder"
done
if [[ -n "$(missing)" && -n "$python" ]]; then
    while read -r folder; do add_folder "$folder"; done < <("$python" -c 'import glob, site, sys
for path in sys.path + site.getsitepackages():
    for folder in glob.glob(path + "/nvidia/*/lib"):
        print(folder)' 2>/dev/null | sort -u)
fi
for library in $(missing); do
    found="$(find / -xdev -name "$library" -not -path '/proc/*' -not -path '*/stubs/*' 2>/dev/null | head -n 1)"
    [[ -z "$found" ]] || add_folder "$(dirname "$found")"
done
[[ -z "$(missing)" ]] ||
    die "these libraries are missing: $(missing | tr '\n' ' '); libcuda comes with NVIDIA's driver, the others with" \
        "pip install nvidia-cublas nvidia-curand nvidia-cuda-nvrtc nvidia-cuda-runtime"
say "libraries: ${LD_LIBRARY_PATH:-those of the system}"

if [[ -n "$python" ]] && "$python" -c 'import torch, transformers' 2>/dev/null; then
    arguments+=(--python "$python" --peer "$here/bench/gpu_peer.py")
    export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=true
else
    say "no Python with torch and transformers: nothing is compared with them"
fi

if [[ -z "$dir" ]]; then
    free="$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1 || echo 0)"
    if ((${free:-0} > 20000000)); then made="$(mktemp -d /dev/shm/poq-gpu-check.XXXXXX)"; else made="$(mktemp -d)"; fi
    dir="$made"
fi
mkdir -p "$dir"
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader >&2 || true
fi
# The driver compiles candle's kernels at their first use, and keeps them here.
export CUDA_CACHE_MAXSIZE=2147483648
"$program" gpu-check --device "$device" --dir "$dir" --json "$out/gpu-check.json" ${arguments[@]+"${arguments[@]}"} 2>&1 |
    tee "$out/gpu-check.log"
