# The commands of this repository. Each check is spelled here and nowhere else; `.ci/run` calls these.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes.
default:
    @just --list --unsorted

# Every test of the workspace, doc tests first. Uses nextest where it is installed.
test:
    cargo test --workspace --doc --quiet
    if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; else cargo test --workspace --lib --bins --tests --examples; fi

# The long version: many more property cases and simulator seeds, then the two long shows.
test-full:
    PROPTEST_CASES=4096 just test
    just sim 100
    just kill-puller
    just show-large

# Fail if a file is not formatted.
fmt:
    cargo fmt --all --check
    cargo fmt --manifest-path bench/Cargo.toml --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check

# Lints, warnings denied, on every target and on the feature sets that differ.
clippy:
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo clippy -p headwater-store --lib -- -D warnings

# The API documentation, warnings denied.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --lib

# The sessions against each other on a simulated network, over so many times the usual seeds. A seed that fails is printed with the command that replays it.
sim factor="4":
    HEADWATER_SEED_FACTOR={{factor}} cargo test -p headwater-proto --test sim

# Peers that break the rules: every test of the catalogue, then the table of docs/hostile-peers.md.
hostile:
    #!/usr/bin/env bash
    set -euo pipefail
    results=$(mktemp)
    trap 'rm -f "$results"' EXIT
    run() { cargo test --color never --no-fail-fast "$@" | tee -a "$results" || true; }
    run -p headwater-tests --test it -- hostile syncing forks access
    run -p headwater-cli --test it -- a_flipped_bit
    run -p headwater-gossip --lib -- gate
    run -p headwater --lib -- frames conduct standing
    run -p headwater-store --lib -- disk::tests
    run -p headwater-proto --test sim -- tampering pulls owners
    run -p headwater-wire --lib --test allocation
    HEADWATER_HOSTILE_RESULTS="$results" cargo test -p headwater-tests --test it -- --ignored write_the_table

# Twenty nodes that sync in random pairs, four of them hostile: 1,000 seeds. A seed that fails is printed with the command that replays it.
sim-hostile factor="200":
    HEADWATER_SEED_FACTOR={{factor}} cargo test -p headwater-proto --test sim hostile_net

# Every fuzz target for a minute, on the committed seeds. What it finds lands in fuzz/artifacts. Installs cargo-fuzz if it is missing.
fuzz-smoke seconds="60" targets="frames message run roster legacy announcement ticket requester responder store":
    #!/usr/bin/env bash
    set -euo pipefail
    command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --version 0.13.1 --locked
    # Coverage is counted where bytes are read, see the script.
    export RUSTC_WRAPPER="$PWD/fuzz/rustc.sh"
    failed=""
    for target in {{targets}}; do
        mkdir -p "fuzz/grown/$target"
        # redb reserves what a damaged file says, up to 4 GiB; everything else has to do with little.
        limit=1024
        if [ "$target" = store ]; then limit=6000; fi
        cargo fuzz run -O -s none --features gossip "$target" "fuzz/grown/$target" "fuzz/corpus/$target" -- \
            -max_total_time={{seconds}} -timeout=20 -max_len=4096 -rss_limit_mb=$limit || failed+=" $target"
    done
    if [ -n "$failed" ]; then
        echo "crashes:$failed" >&2
        exit 1
    fi

# `headwater-wire` and `headwater-proto` run in a browser: build them for wasm, or check what they link.
wasm:
    #!/usr/bin/env bash
    set -euo pipefail
    target=wasm32-unknown-unknown
    if [ -d "$(rustc --print target-libdir --target "$target")" ]; then
        cargo build -p headwater-wire -p headwater-proto --target "$target"
    else
        echo "$target is not installed: checking the dependencies only"
    fi
    for crate in headwater-wire headwater-proto; do
        linked=$(cargo tree -p "$crate" --target "$target" -e normal --prefix none --format '{p}')
        for unwanted in tokio iroh mio; do
            if grep -E "^$unwanted(-[a-z]+)* v" <<<"$linked"; then
                echo "$crate must not depend on $unwanted" >&2
                exit 1
            fi
        done
        echo "$crate: neither tokio, iroh nor mio among $(sort -u <<<"$linked" | wc -l) crates"
    done

# cli ─▶ gossip ─▶ headwater ─▶ store ─▶ proto ─▶ wire: no crate may depend on one to its left.
layers:
    #!/usr/bin/env bash
    set -euo pipefail
    order=(headwater-wire headwater-proto headwater-store headwater headwater-gossip headwater-cli)
    known=("${order[@]}" headwater-examples headwater-tests)
    failed=0
    below=" "
    for crate in "${order[@]}"; do
        linked=$(cargo tree -p "$crate" -e normal,build,dev --depth 1 --prefix none --format '{p}' | awk '{print $1}' | sort -u)
        for other in "${known[@]}"; do
            [ "$other" = "$crate" ] && continue
            if grep -qx "$other" <<<"$linked" && [[ "$below" != *" $other "* ]]; then
                echo "$crate must not depend on $other" >&2
                failed=1
            fi
        done
        below+="$crate "
        echo "$crate ─▶ $(grep '^headwater' <<<"$linked" | grep -vx "$crate" | paste -sd' ' || true)"
    done
    if cargo tree -p headwater-store -e normal --prefix none --format '{p}' | grep -E '^iroh(-[a-z]+)* v'; then
        echo "headwater-store must not depend on iroh" >&2
        failed=1
    fi
    exit "$failed"

# The main job: two nodes, durable stores, real QUIC, the git history of this repository.
demo *args:
    cargo run --release -- demo {{args}}

# Kill the puller with SIGKILL ten times in mid sync, then let it finish and compare.
kill-puller *args:
    bash scripts/kill-puller.sh {{args}}

# 100,000 events by 100 authors, by one author and by 10,000 authors: both exports identical, `verify` passes.
show-large *args:
    bash scripts/show-large.sh {{args}}

# Every benchmark that needs no peer, about eight minutes on two cores; then tables and plots of docs/benchmarks.md. `just bench --small` tries it out.
bench *args:
    cd bench && cargo run --release --bin bench -- all --json-lines ../docs/benchmarks/results.jsonl {{args}}
    just bench-page

# A cold sync beside a bare iroh stream that moves as many payload bytes, in one run. `just bench-sync --help`.
bench-sync *args:
    cd bench && cargo run --release --bin bench -- sync {{args}}

# Headwater beside iroh-docs and p2panda, in one run. p2panda's crates need a nightly compiler.
bench-peers *args:
    cd bench/iroh-docs && cargo build --release
    cd bench/p2panda && cargo +nightly build --release
    cd bench && cargo run --release --bin bench -- peers --iroh-docs ../target/release/iroh-docs --p2panda ../target/p2panda/release/p2panda --events 50000 --reps 3 --json-lines ../docs/benchmarks/results.jsonl {{args}}
    just bench-page

# A node at its default limits that is flooded while an honest peer syncs from it, flood by flood. `just bench-flood --help`.
bench-flood *args:
    cd bench && cargo run --release --bin bench -- flood {{args}}

# Figures that do not depend on the machine's speed, against bench/budget.json. `just bench-smoke --write` sets a new budget.
bench-smoke *args:
    cd bench && cargo run --release --bin smoke -- {{args}}

# Writes the tables and plots of docs/benchmarks.md from docs/benchmarks/results.jsonl.
bench-page:
    cd bench && cargo run --release --bin bench -- page ../docs/benchmarks.md --json-lines ../docs/benchmarks/results.jsonl

# Licences, banned and duplicate crates, foreign sources, and with `just deny advisories` known holes: that one fetches a database from GitHub first. Not part of `ci`: cargo-deny takes minutes to install, which this does if it is missing.
deny *checks="licenses bans sources":
    command -v cargo-deny >/dev/null || cargo install cargo-deny --version 0.20.2 --locked
    cargo deny check {{checks}}
    cargo deny --manifest-path fuzz/Cargo.toml check {{checks}}
    cargo deny --manifest-path bench/Cargo.toml check {{checks}}

# What `.ci/run` checks, cheap checks first.
ci: fmt layers wasm clippy docs test sim
    cd bench && cargo clippy --all-targets -- -D warnings
    just bench-smoke
