#!/usr/bin/env bash
# Runs the index's tests that need PostgreSQL against a server of its own: the same rows, hashes and answers as in SQLite.
#
#   scripts/check-postgres.sh
#
# The server is the machine's own PostgreSQL (Debian: apt-get install postgresql), started in a temporary folder as an ordinary user, on a
# socket there, and gone afterwards. POQ_TEST_POSTGRES=postgres://… uses another one: its schema `public` is emptied.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$POQ_ROOT"

case "${1:-}" in
"") ;;
*)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

if [[ -z "${POQ_TEST_POSTGRES:-}" ]]; then
    bin=""
    for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin; do
        [[ -x "$folder/initdb" ]] && bin="$folder"
    done
    [[ -n "$bin" ]] || bin="$(dirname "$(command -v initdb 2>/dev/null || true)")"
    [[ -x "$bin/initdb" ]] || die "PostgreSQL's initdb was not found. Install it (Debian: apt-get install postgresql), or set POQ_TEST_POSTGRES."
    folder="$(mktemp -d /tmp/poq-postgres.XXXXXX)"
    as=()
    if [[ "$(id -u)" == 0 ]]; then
        # PostgreSQL refuses to run as root.
        id postgres >/dev/null 2>&1 || die "PostgreSQL does not run as root, and there is no user postgres to run it as."
        chown postgres "$folder"
        as=(runuser -u postgres --)
    fi
    # shellcheck disable=SC2329 # called by the trap
    stop() {
        "${as[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
        rm -rf "$folder"
    }
    trap stop EXIT
    log "starting PostgreSQL in $folder"
    "${as[@]}" "$bin/initdb" -D "$folder/data" -U poq -A trust -E UTF8 --no-sync >/dev/null
    "${as[@]}" "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
        -o "-c listen_addresses='' -c unix_socket_directories='$folder' -c fsync=off" start >/dev/null
    "${as[@]}" "$bin/createdb" -h "$folder" -U poq poq
    export POQ_TEST_POSTGRES="postgres://poq@${folder//\//%2F}/poq"
fi
cargo test --locked --release "${POQ_WORKSPACE[@]}" --test index postgres:: -- --nocapture
