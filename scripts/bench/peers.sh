# shellcheck shell=bash
# The programs that our models are measured beside, in a Python environment of their own. Source it after lib/common.sh.

PEERS_VENV="$POQ_CACHE/venv-bench"

# peers_python: prints the Python that has them; installs what is missing. The first time takes long: llama.cpp is compiled for
# this machine (minutes), and torch is large (0.2 GB from its own index; where only the package registry can be reached, its
# GPU build, 3 GB).
peers_python() {
    with_lock venv-bench install_peers >&2 || die "the Python packages to measure beside could not be installed"
    printf '%s\n' "$PEERS_VENV/bin/python"
}

install_peers() {
    local here="$POQ_ROOT/scripts/bench" hash
    hash="$(cat "$here/requirements.txt" "$here/peers.sh" | sha256sum | cut -d' ' -f1)"
    if up_to_date "$PEERS_VENV/.installed" "$hash" "$PEERS_VENV/bin/python"; then return 0; fi
    need_cmd python3 "Install Python 3.10 or later, with venv."
    need_cmd c++ "Install a C++ compiler: llama.cpp is compiled here."
    log "installing llama.cpp, ONNX Runtime and sentence-transformers into $PEERS_VENV (once)"
    python3 -m venv "$PEERS_VENV" || return 1
    local pip=("$PEERS_VENV/bin/python" -m pip install --no-cache-dir --quiet --disable-pip-version-check)
    local torch="torch==2.15.0"
    if ! "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu --timeout 15 --retries 0 "$torch" 2>/dev/null; then
        warn "torch's index of CPU builds has no $torch for this machine or cannot be reached: taking the registry's build"
        "${pip[@]}" "$torch" || return 1
    fi
    # Native: the instructions of this very processor, as somebody who compiles llama.cpp at home has them.
    CMAKE_ARGS="-DGGML_NATIVE=ON" CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" \
        "${pip[@]}" -r "$here/requirements.txt" || return 1
    mark_up_to_date "$PEERS_VENV/.installed" "$hash"
}
