# `just` lists these.

[private]
default:
    @just --list

# Build every binary.
build:
    cargo build --release --locked --workspace --bins

# Build, and run whatever is not fresh: just run-pipeline [CONFIG] [FLAGS…]
[positional-arguments]
run-pipeline *ARGUMENTS: build
    @case "${1:--}" in -*) ;; *) set -- --config "$@" ;; esac; target/release/codepair run "$@"

# Build, and run one stage alone: just stage train [CONFIG] [FLAGS…]
[positional-arguments]
stage STAGE *ARGUMENTS: build
    @stage=$1; shift; case "${1:--}" in -*) ;; *) set -- --config "$@" ;; esac; target/release/codepair run --only "$stage" "$@"

# Query the newest run's datasets: just sql "show tables" [CONFIG] [FLAGS…]
[positional-arguments]
sql QUERY *ARGUMENTS:
    @query=$1; shift; case "${1:--}" in -*) ;; *) set -- --config "$@" ;; esac; target/release/codepair sql "$@" -- "$query"

# Everything that can run here; a test whose server or data is absent says so.
test: build
    cargo test --release --locked --workspace

# Formatting, lints and the rules about what links what.
check:
    git ls-files '*.rs' | xargs rustfmt --check # cargo fmt does not see a `mod` that a macro writes
    cargo clippy --release --locked --workspace --all-targets -- -D warnings
    cargo check --release --locked -p codepair-train --features cuda
    ./deploy/check-dependencies

# Feed the parsers with damaged inputs, new ones each time, for so long. What fails is kept in proptest-regressions, to be committed.
fuzz SECONDS="60":
    cargo test --release --locked --workspace --lib --no-run
    timeout {{ SECONDS }} sh -c 'while :; do PROPTEST_CASES=5000 cargo test --release --locked --quiet --workspace --lib fuzz_ || exit 1; done' || [ $? -eq 124 ]

# Measure beside the peers and keep the table: just bench data (a corpus and the peers are fetched once; half an hour), just bench parts, just bench models, just bench translation.
bench NAME *FLAGS: build
    ./bench/run {{ NAME }} {{ FLAGS }}
