#!/usr/bin/env bash
# Starts a development chain for contracts, building the node first if it must.
#
#   scripts/devnet.sh [--port PORT] [--data DIR] [--detach] [-- NODE ARGUMENT…]
#   scripts/devnet.sh --stop [--port PORT]
#
#   --port PORT   RPC port (default 9944)
#   --data DIR    keep the chain there; without it the chain is gone when the node stops
#   --detach      return when the chain answers; the node goes on in the background
#   --stop        stop a detached node
#
# Prints the websocket URL as soon as the chain answers. POQ_NODE names another binary, for example a
# substrate-contracts-node, which takes the same arguments. Alice to Ferdie have money, Alice is sudo.
set -euo pipefail

HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/common.sh"

PORT=9944
DATA=
DETACH=0
STOP=0
while (($#)); do
    case "$1" in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    --port)
        [[ "${2:-}" =~ ^[0-9]+$ ]] || die "--port needs a number"
        PORT="$2"
        shift 2
        ;;
    --data)
        DATA="${2:?--data needs a folder}"
        shift 2
        ;;
    --detach)
        DETACH=1
        shift
        ;;
    --stop)
        STOP=1
        shift
        ;;
    --)
        shift
        break
        ;;
    *) die "unknown argument $1; arguments for the node itself come after --" ;;
    esac
done

STATE="$POQ_CACHE/devnet/$PORT"
PID_FILE="$STATE/pid"
LOG_FILE="$STATE/node.log"

# The process that this script detached on this port, if it still runs.
running_pid() {
    local pid
    [[ -f "$PID_FILE" ]] && pid="$(<"$PID_FILE")" && [[ -n "$pid" ]] && kill -0 "$pid" 2>/dev/null || return 1
    printf '%s\n' "$pid"
}

if ((STOP)); then
    if pid="$(running_pid)"; then
        kill "$pid"
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        log "stopped the node on port $PORT (process $pid)"
    else
        log "no detached node runs on port $PORT"
    fi
    rm -f "$PID_FILE"
    exit 0
fi

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null
}

answers && die "something answers on port $PORT already; choose another with --port, or stop it with --stop --port $PORT"

NODE="${POQ_NODE:-}"
[[ -n "$NODE" ]] || NODE="$("$HERE/build-node.sh")"

ARGUMENTS=(--rpc-port "$PORT" --no-telemetry --no-prometheus)
if [[ -n "$DATA" ]]; then
    mkdir -p "$DATA"
    ARGUMENTS+=(--base-path "$DATA")
else
    ARGUMENTS+=(--tmp)
fi
ARGUMENTS+=("$@")

mkdir -p "$STATE"
# wait_for PID: until the RPC port answers; fails if the process ends first.
wait_for() {
    for _ in $(seq 600); do
        answers && return 0
        kill -0 "$1" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

if ((DETACH)); then
    # setsid: the node must outlive this script and its terminal.
    setsid "$NODE" "${ARGUMENTS[@]}" >"$LOG_FILE" 2>&1 </dev/null &
    pid=$!
    printf '%s\n' "$pid" >"$PID_FILE"
    if ! wait_for "$pid"; then
        tail -n 20 "$LOG_FILE" >&2
        kill "$pid" 2>/dev/null || true
        rm -f "$PID_FILE"
        die "the node did not start; its log is $LOG_FILE"
    fi
    log "the node runs as process $pid, its log is $LOG_FILE; stop it with scripts/devnet.sh --stop --port $PORT"
    printf 'ws://127.0.0.1:%s\n' "$PORT"
else
    "$NODE" "${ARGUMENTS[@]}" &
    pid=$!
    trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true' EXIT INT TERM
    wait_for "$pid" || die "the node did not start"
    printf 'ws://127.0.0.1:%s\n' "$PORT"
    wait "$pid"
fi
