#!/usr/bin/env bash
# Kills the pulling process with SIGKILL ten times in the middle of a sync, then lets it finish.
# Shows: nothing that was reported as stored is lost, nothing is stored twice, each attempt goes
# on from what was there, and both sides end equal and sound.
#
#   scripts/kill-puller.sh [EVENTS] [AUTHORS]
source "$(dirname "$0")/lib.sh"

count="${1:-300000}"
authors="${2:-100}"
kills=10

run a init >"$work/out"
run b init >"$work/out"
space="$(run a space create killed | field space)"
events "$count" "$authors" | run a append killed --json-lines - >"$work/out"
total="$(run a status | field events)"
serve a
run b space join "$ticket" >"$work/out"
echo "A serves $total events by $authors authors; B pulls and is killed $kills times"

held() {
  local events
  events="$(run b status | field events)"
  echo "${events:-0}"
}

before=0
for ((kill = 1; kill <= kills; kill++)); do
  target=$((total * kill / (kills + 1)))
  mkfifo "$work/progress-$kill"
  start b sync "$space" >"$work/progress-$kill" &
  puller=$!
  reported=0
  while read -r line; do
    if [[ $line =~ \"applied_events\":([0-9]+) ]]; then reported="${BASH_REMATCH[1]}"; fi
    if ((before + reported >= target)); then
      # Before the pipe is closed: a closed pipe would end it in another way.
      builtin kill -KILL "$puller" 2>/dev/null || true
      break
    fi
  done <"$work/progress-$kill"
  status=0
  { wait "$puller"; } 2>/dev/null || status=$?
  after="$(held)"
  echo "kill $kill: at least $((before + reported)) reported as stored, $after found"
  ((status == 137)) || fail "the sync had ended by itself with $status: raise EVENTS"
  ((after >= before + reported)) || fail "an event reported as stored is gone"
  ((after < total)) || fail "the sync was complete before it was killed: raise EVENTS"
  before="$after"
done

report="$(run b sync "$space" | tail -n 1)"
got="$(field events <<<"$report")"
echo "left alone, B fetched the other $got"
((got == total - before)) || fail "expected $((total - before)) events, not $got"
stop_serving

run a export "$space" >"$work/a.jsonl"
run b export "$space" >"$work/b.jsonl"
cmp "$work/a.jsonl" "$work/b.jsonl" || fail "the exports differ"
(($(wc -l <"$work/b.jsonl") == total)) || fail "the export has another number of lines"
run a verify >"$work/out"
run b verify >"$work/out" || fail "verify found damage"
echo "OK: $kills kills, $total events, exports equal to the byte, verify sound on both sides"
