#!/usr/bin/env bash
# Pulls 100,000 events by 1, by 100 and by 10,000 authors into a store on disk; compares the
# exports byte by byte, verifies both stores, and compares what an equal re-sync costs.
#
#   scripts/show-large.sh [EVENTS]
source "$(dirname "$0")/lib.sh"

count="${1:-100000}"
format="%8s %9s %9s %9s %11s %9s %9s %11s\n"
# shellcheck disable=SC2059
printf "$format" authors import_s sync_s events/s again_bytes trips export_s verify_s
costs=()
for authors in 1 100 10000; do
  a="a$authors"
  b="b$authors"
  run "$a" init >"$work/out"
  run "$b" init >"$work/out"
  space="$(run "$a" space create large | field space)"
  events "$count" "$authors" >"$work/in.jsonl"
  from="$(now)"
  run "$a" append large --json-lines "$work/in.jsonl" >"$work/out"
  import="$(since "$from")"
  serve "$a"
  report="$(run "$b" sync "$ticket" | tail -n 1)"
  again="$(run "$b" sync "$space" | tail -n 1)"
  stop_serving

  [[ "$(field outcome <<<"$report")" == complete ]] || fail "not complete: $report"
  [[ "$(field events <<<"$again")" == 0 ]] || fail "the second sync fetched events: $again"
  [[ "$(field round_trips <<<"$again")" == 1 ]] || fail "more than one round trip: $again"
  sent="$(field wire_bytes_sent <<<"$again")"
  received="$(field wire_bytes_received <<<"$again")"
  costs+=($((sent + received)))

  from="$(now)"
  run "$a" export large >"$work/a.jsonl"
  export="$(since "$from")"
  run "$b" export "$space" >"$work/b.jsonl"
  cmp "$work/a.jsonl" "$work/b.jsonl" || fail "the exports differ"
  # Besides: the genesis event, the secret of the gossip topic, and the grant that opens the space.
  (($(wc -l <"$work/b.jsonl") == count + 3)) || fail "lines are missing, or too many"
  from="$(now)"
  run "$b" verify >"$work/out" || fail "verify found damage"
  verify="$(since "$from")"
  run "$a" verify >"$work/out" || fail "verify found damage"

  ms="$(field duration_ms <<<"$report")"
  # shellcheck disable=SC2059
  printf "$format" "$authors" "$import" \
    "$(awk -v ms="$ms" 'BEGIN { printf "%.2f", ms / 1000 }')" \
    "$(awk -v ms="$ms" -v n="$count" 'BEGIN { printf "%d", n / (ms / 1000) }')" \
    "$((sent + received))" 1 "$export" "$verify"
done
difference=$((costs[2] - costs[0]))
((difference >= -16 && difference <= 16)) || fail "an equal re-sync costs more with more authors"
echo "OK: exports equal to the byte, verify sound, equal re-syncs within 16 bytes of each other"
