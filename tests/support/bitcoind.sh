#!/usr/bin/env bash
# Obtains a real bitcoind for the tests and prints its path as the last line of stdout.
#
#   1. BITCOIND_EXE, if set, is used as it is.
#   2. A bitcoind on PATH is used next.
#   3. Otherwise Bitcoin Core is built once from the sources that the crate
#      `libbitcoinkernel-sys` carries, fetched and checked by cargo, and kept in
#      ${XDG_CACHE_HOME:-$HOME/.cache}/tributary/bitcoind/<crate version>/bin.
#
# Usage: bitcoind.sh [--install-packages] [--find] [--verify]
#   --install-packages  install missing Debian packages with apt-get (needs root)
#   --find              never build: print the path if there is one, else exit 4
#   --verify            also start the found daemon on regtest, ask it, and stop it
#                       (a fresh build is always verified)
#
# Exit codes: 0 found, 2 bad usage or BITCOIND_EXE, 3 packages missing,
# 4 nothing found (--find), 1 anything else.
set -euo pipefail

# Pinned: the cache is named by it, and everyone builds the same daemon.
readonly crate_version=0.4.1
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/tributary/bitcoind/$crate_version"

say() { printf 'bitcoind: %s\n' "$*" >&2; }

install_packages=no find_only=no verify=no
for argument in "$@"; do
    case "$argument" in
        --install-packages) install_packages=yes ;;
        --find) find_only=yes ;;
        --verify) verify=yes ;;
        *) say "unknown argument $argument; see the head of $0"; exit 2 ;;
    esac
done

# Starts the daemon on an empty regtest chain under the relay policy that the
# end-to-end tests use, asks it over RPC, and stops it.
verify_daemon() {
    local daemon=$1 cli data port chain attempt answered=no
    cli="$(dirname "$daemon")/bitcoin-cli"
    "$daemon" -version | head -n 1 >&2
    if [ ! -x "$cli" ]; then
        cli="$(command -v bitcoin-cli || true)"
        [ -n "$cli" ] || { say "no bitcoin-cli beside $daemon: not verified"; return 1; }
    fi
    data="$(mktemp -d)"
    port=$((20000 + RANDOM % 10000))
    local options=(-regtest "-datadir=$data" "-rpcport=$port")
    "$daemon" "${options[@]}" -acceptnonstdtxn=0 -listen=0 -server=1 -printtoconsole=0 &
    local pid=$!
    for attempt in $(seq 1 60); do
        if chain="$("$cli" "${options[@]}" getblockchaininfo 2>/dev/null)"; then
            answered=yes
            break
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.5
    done
    if [ "$answered" != yes ] || ! grep -q '"chain": "regtest"' <<<"$chain"; then
        say "$daemon does not answer on regtest; its log ends so:"
        tail -n 20 "$data/regtest/debug.log" >&2 || true
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        rm -rf "$data"
        return 1
    fi
    "$cli" "${options[@]}" stop >/dev/null
    wait "$pid"
    rm -rf "$data"
    say "regtest started, answered over RPC and stopped"
}

# Prints the path, after a check if one was asked for, and ends the script.
found() {
    [ "$verify" = no ] || verify_daemon "$1"
    printf '%s\n' "$1"
    exit 0
}

if [ -n "${BITCOIND_EXE:-}" ]; then
    [ -x "$BITCOIND_EXE" ] || { say "BITCOIND_EXE=$BITCOIND_EXE is not an executable file"; exit 2; }
    say "using BITCOIND_EXE"
    found "$BITCOIND_EXE"
fi
if on_path="$(command -v bitcoind)"; then
    say "using bitcoind on PATH"
    found "$on_path"
fi
if [ -x "$cache/bin/bitcoind" ] && [ -x "$cache/bin/bitcoin-cli" ]; then
    say "using the one built before"
    found "$cache/bin/bitcoind"
fi
if [ "$find_only" = yes ]; then
    say "none found; run this script without --find to build one"
    exit 4
fi

# What the build needs, as `package:how to see that it is there`.
missing=()
command -v cmake >/dev/null || missing+=(cmake)
command -v ninja >/dev/null || missing+=(ninja-build)
compiler="${CXX:-c++}"
command -v "$compiler" >/dev/null || missing+=(g++)
has_header() {
    command -v "$compiler" >/dev/null \
        && printf '#include <%s>\n' "$1" | "$compiler" -x c++ -E - >/dev/null 2>&1
}
has_header boost/multi_index_container.hpp || missing+=(libboost-dev)
has_header event2/event.h || missing+=(libevent-dev)
command -v pkg-config >/dev/null || missing+=(pkg-config)

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$install_packages" = yes ]; then
        say "installing ${missing[*]}"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    else
        say "missing packages: ${missing[*]}"
        say "install them with: apt-get install ${missing[*]}   (or run this script with --install-packages)"
        exit 3
    fi
fi
command -v cargo >/dev/null || { say "cargo is needed to fetch the sources: install Rust first"; exit 3; }

mkdir -p "$cache"
# Two builds at once would fight over the same folder: the second one waits.
exec 9>"$cache/lock"
if command -v flock >/dev/null; then
    flock 9
    if [ -x "$cache/bin/bitcoind" ] && [ -x "$cache/bin/bitcoin-cli" ]; then
        say "built meanwhile by another run"
        found "$cache/bin/bitcoind"
    fi
fi

say "fetching libbitcoinkernel-sys $crate_version with cargo"
mkdir -p "$cache/fetch"
cat >"$cache/fetch/Cargo.toml" <<TOML
[package]
name = "bitcoin-core-sources"
version = "0.0.0"
edition = "2021"

[lib]
path = "lib.rs"

[dependencies]
libbitcoinkernel-sys = "=$crate_version"

[workspace]
TOML
: >"$cache/fetch/lib.rs"
cargo fetch --manifest-path "$cache/fetch/Cargo.toml" >&2
manifest="$(cargo metadata --format-version 1 --offline --manifest-path "$cache/fetch/Cargo.toml" \
    | grep -o '"manifest_path":"[^"]*libbitcoinkernel-sys[^"]*"' | head -n 1 | cut -d '"' -f 4)"
sources="$(dirname "$manifest")/bitcoin"
[ -f "$sources/CMakeLists.txt" ] || { say "the crate carries no Bitcoin Core sources at $sources"; exit 1; }

jobs="${BITCOIND_BUILD_JOBS:-$(getconf _NPROCESSORS_ONLN)}"
say "building bitcoind and bitcoin-cli with $jobs jobs; this takes some minutes"
build="$cache/build"
cmake -S "$sources" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_DAEMON=ON -DBUILD_CLI=ON -DENABLE_WALLET=OFF -DWITH_EMBEDDED_ASMAP=OFF \
    -DENABLE_IPC=OFF -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF >&2
cmake --build "$build" --target bitcoind bitcoin-cli -j "$jobs" >&2

for program in bitcoind bitcoin-cli; do
    [ -x "$build/bin/$program" ] || { say "the build left no $program in $build/bin"; exit 1; }
done
verify_daemon "$build/bin/bitcoind"

# Into place in one step, so that an interrupted run never leaves half a cache.
mkdir -p "$cache/bin.new"
cp "$build/bin/bitcoind" "$build/bin/bitcoin-cli" "$cache/bin.new/"
rm -rf "$cache/bin"
mv "$cache/bin.new" "$cache/bin"
rm -rf "$build" "$cache/fetch"
say "built"
printf '%s\n' "$cache/bin/bitcoind"
