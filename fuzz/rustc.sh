#!/usr/bin/env bash
# rustc for fuzzing (RUSTC_WRAPPER): coverage is counted in this repository's crates and in redb, which reads
# damaged files. Elsewhere, above all in cryptography, counters cost time and lead the fuzzer nowhere.
set -euo pipefail
rustc=$1
shift
crate=""
previous=""
for word in "$@"; do
    [ "$previous" = --crate-name ] && crate=$word
    previous=$word
done
case "$crate" in
headwater* | redb | announcement | frames | legacy | message | requester | responder | roster | run | store | ticket)
    exec "$rustc" "$@"
    ;;
esac
kept=()
for word in "$@"; do
    case "$word" in
    -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
    *) kept+=("$word") ;;
    esac
done
exec "$rustc" "${kept[@]}"
