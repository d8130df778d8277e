# Recipes of everyday work. Plain `just` lists them.

# List the recipes.
default:
    @{{ just_executable() }} --list --unsorted

# Type-check everything.
check:
    cargo check --workspace --all-targets

# Run all tests; arguments go to cargo, e.g. `just test -p channel-contracts`.
test *ARGS='--workspace':
    cargo test {{ ARGS }}

# Format the sources.
fmt:
    cargo fmt --all

# Check format and lints as the CI does.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Start a small network of real nodes on an embedded chain.
dev *ARGS:
    cargo run -p node --bin tributary -- dev {{ ARGS }}

# Do what the CI does: format, lints, tests.
ci:
    .ci/run

# Find or build a real bitcoind and print its path (see the head of the script).
bitcoind *ARGS:
    @tests/support/bitcoind.sh {{ ARGS }}

# Run the end-to-end tests on the embedded chain and on a real bitcoind.
e2e:
    BITCOIND_EXE="$(tests/support/bitcoind.sh)" cargo test -p tests --test 'e2e*' -- --nocapture

# Run against LND and ldk-node on a real bitcoind, e.g. `just interop --only lnd`.
interop *ARGS: build-node
    tests/interop/run {{ ARGS }}

# Cut the power under each storage engine for minutes, and compare what is left.
power-cut-long:
    cargo test -p tests --test power_cut -- --ignored --nocapture

# Fail the disk and cut the power at every commit of a node's life, and check everything after.
crash-suite:
    cargo test -p tests --test crash_suite every_ -- --ignored --nocapture --test-threads 1

# Measure payments per second, e.g. `just bench-payments --nodes 3 --in-flight 10`.
bench-payments *ARGS: build-node
    cargo run --release -p benches --bin payments -- {{ ARGS }}

# Measure the same work on ldk-node and on LDK alone, and write benches/README.md.
bench-peers *ARGS: build-node build-peers
    cargo run --release -p benches --bin payments -- page --peer target/peers/release/peers {{ ARGS }}

# Measure many payments on one channel, e.g. `just bench-endurance --payments 100000`.
bench-endurance *ARGS: build-node
    cargo run --release -p benches --bin payments -- endurance {{ ARGS }}

# Measure how a batch forms and what its hub needs, e.g. `just bench-batches --users 64`.
bench-batches *ARGS: build-node
    cargo run --release -p benches --bin batches -- {{ ARGS }}

# Measure a watchtower, e.g. `just bench-tower --appointments 1000000`.
bench-tower *ARGS:
    cargo run --release -p benches --bin tower -- {{ ARGS }}

# Measure the interface: calls per second over TLS, and what it adds to a payment.
bench-api *ARGS: build-node
    cargo run --release -p benches --bin api -- {{ ARGS }}

# Measure a node's start and memory, e.g. `just bench-start --channels 100`.
bench-start *ARGS: build-node
    cargo run --release -p benches --bin start -- {{ ARGS }}

# Run a scenario on the fast model, e.g. `just simulate configs/simnet/churn.toml --out results`.
simulate *ARGS:
    cargo run --release -p simnet --no-default-features -- run --engine model {{ ARGS }}

# Measure the model, e.g. `just bench-model --snapshot FILE` for a real network.
bench-model *ARGS:
    cargo run --release -p simnet --no-default-features -- bench --engine model --json {{ ARGS }}

# Measure both engines of simnet, e.g. `just bench-simnet --engine live --nodes 1000`.
bench-simnet *ARGS:
    cargo run --release -p simnet -- bench --json {{ ARGS }}

# Look for scenarios with faults that cost somebody money, e.g. `just hunt --minutes 30`.
hunt *ARGS:
    cargo run --release -p simnet -- hunt {{ ARGS }}

# Pay a file of 10,000 lines, 3 % of them bad, with the power cut three times in the middle.
payouts:
    cargo test -p tests --test payouts ten_thousand -- --ignored --nocapture

# Kill node processes in the middle of a burst, KILLS times, and count every satoshi afterwards.
soak KILLS='500':
    KILLS={{ KILLS }} cargo test -p node --test kill -- --nocapture

# Send a node what nobody should send, by every door, for SECONDS, and look how it is afterwards.
fuzz-api SECONDS='3600':
    FUZZ_SECONDS={{ SECONDS }} cargo test -p node --test fuzz -- --nocapture

# Follow events by gRPC, REST and webhooks for so long, over cut lines and kills: nothing missed,
# repeated or out of order.
follow SECONDS='3600':
    FOLLOW_SECONDS={{ SECONDS }} cargo test -p node --test followers -- --nocapture

# A hundred calls of each mutation under one key, and a kill in the middle, ROUNDS times.
duplicates ROUNDS='10':
    DUPLICATES_ROUNDS={{ ROUNDS }} cargo test -p node --test duplicates -- --nocapture

# Run the clients for Python and TypeScript against real nodes.
clients:
    cargo test -p node --test clients -- --nocapture

# Build the node for measuring.
[private]
build-node:
    cargo build --release -p node --bin tributary

# Build the peer's benchmark, which nothing else needs.
[private]
build-peers:
    cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
