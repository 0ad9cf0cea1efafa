# Shared by the scripts here: the binary, generated input, one field of a JSON line.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

headwater="${HEADWATER:-${CARGO_TARGET_DIR:-target}/release/headwater}"
if [[ -z "${HEADWATER:-}" ]]; then
  cargo build --release --quiet -p headwater-cli
fi

work="$(mktemp -d "${TMPDIR:-/tmp}/headwater-show-XXXXXX")"
serve_pid=""
finish() {
  if [[ -n "$serve_pid" ]]; then kill "$serve_pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }

# run FOLDER WORDS…: the command on a data folder, on this machine alone, answering in JSON.
run() {
  local folder="$1"
  shift
  "$headwater" --no-relay --json --data "$work/$folder" "$@"
}

# start FOLDER WORDS…: the same for the background: $! is the command itself, not a shell around it.
start() {
  local folder="$1"
  shift
  exec "$headwater" --no-relay --json --data "$work/$folder" "$@"
}

# field NAME: the value of a number, word or true/false in the JSON line on standard input.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" | tail -n 1; }

# events COUNT AUTHORS: JSON lines with payloads of 200 bytes.
events() {
  awk -v count="$1" -v authors="$2" 'BEGIN {
    srand(1)
    for (i = 0; i < 200; i++) pad = pad sprintf("%x", int(rand() * 16))
    for (i = 0; i < count; i++) {
      payload = substr("event " i " " substr(pad, i % 97), 1, 200)
      while (length(payload) < 200) payload = payload "."
      printf "{\"author\":\"author-%d\",\"channel\":\"c%d\",\"timestamp_ms\":%d,\"payload\":\"%s\"}\n",
        i % authors, i % 3, 1700000000000 + i, payload
    }
  }'
}

# serve FOLDER: serves in the background; sets $ticket to the ticket of $space.
serve() {
  mkfifo "$work/serve-$1"
  start "$1" serve --bind 127.0.0.1:0 >"$work/serve-$1" &
  serve_pid=$!
  local first
  read -r first <"$work/serve-$1"
  ticket="$(field "$space" <<<"$first")"
  [[ -n "$ticket" ]] || fail "no ticket in: $first"
}

stop_serving() {
  kill -TERM "$serve_pid"
  wait "$serve_pid" || fail "serve ended with $?"
  serve_pid=""
}

now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.2f", to - from }'; }
