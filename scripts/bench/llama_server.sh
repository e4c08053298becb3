# shellcheck shell=bash
# llama.cpp's server, compiled for this machine out of the sources that the package llama-cpp-python carries. Source it after
# lib/common.sh.

LLAMA_PACKAGE=llama-cpp-python
LLAMA_VERSION=0.3.36
LLAMA_FOLDER="$POQ_CACHE/llama-server-$LLAMA_VERSION"

# llama_server: prints the program's path; compiles it where it is not there. The first time takes about twenty minutes of one core.
llama_server() {
    with_lock llama-server install_llama_server >&2 || die "llama.cpp's server could not be built; see above"
    printf '%s\n' "$LLAMA_FOLDER/llama-server"
}

install_llama_server() {
    [[ -x "$LLAMA_FOLDER/llama-server" ]] && return 0
    need_cmd python3 "Install Python 3.10 or later, with venv."
    need_cmd cmake "Install cmake (Debian: cmake)."
    need_cmd c++ "Install a C++ compiler (Debian: g++)."
    local archive="${LLAMA_PACKAGE//-/_}-$LLAMA_VERSION.tar.gz" sources
    mkdir -p "$LLAMA_FOLDER" || return 1
    if [[ ! -f "$LLAMA_FOLDER/$archive" ]]; then
        log "fetching $LLAMA_PACKAGE $LLAMA_VERSION, which carries llama.cpp's sources (73 MB)"
        python3 -m venv "$LLAMA_FOLDER/venv" || return 1
        "$LLAMA_FOLDER/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
            --dest "$LLAMA_FOLDER" "$LLAMA_PACKAGE==$LLAMA_VERSION" || return 1
        rm -rf "$LLAMA_FOLDER/venv"
    fi
    sources="$LLAMA_FOLDER/${archive%.tar.gz}/vendor/llama.cpp"
    [[ -f "$sources/CMakeLists.txt" ]] || tar -xzf "$LLAMA_FOLDER/$archive" -C "$LLAMA_FOLDER" || return 1
    log "compiling llama.cpp's server (once)"
    # Native: the instructions of this very processor, as somebody who compiles it at home has them. Its pages for browsers,
    # which it would fetch, and what speaks TLS are left out.
    cmake -S "$sources" -B "$LLAMA_FOLDER/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_APP=OFF >"$LLAMA_FOLDER/cmake.log" 2>&1 || {
        tail -20 "$LLAMA_FOLDER/cmake.log"
        return 1
    }
    cmake --build "$LLAMA_FOLDER/build" --target llama-server --parallel "$(nproc)" >"$LLAMA_FOLDER/build.log" 2>&1 || {
        tail -20 "$LLAMA_FOLDER/build.log"
        return 1
    }
    cp "$LLAMA_FOLDER/build/bin/llama-server" "$LLAMA_FOLDER/llama-server" || return 1
    # What it was made of takes a gigabyte.
    rm -rf "${LLAMA_FOLDER:?}/build" "${LLAMA_FOLDER:?}/${archive%.tar.gz}"
}
