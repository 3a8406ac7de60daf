#!/usr/bin/env bash
# Runs everything that proves this repository, on a fresh Debian or Ubuntu as on a developer's machine, as root or not.
set -euo pipefail
# What others may change is not believed, and tests lay out what is to be believed.
umask 022

usage() {
  cat <<'END'
usage: tests/run.sh [--setup | --nightly | --soak] [--no-install]

Installs what the tests need, builds once, and runs: formatting, clippy, all tests, the official peers of the Agent
Client Protocol, the documentation's tests, the fuzz corpora, every bench for a moment. As root it runs the tests of the
sandbox and of the whole way a second time, as a user without privileges. What this host cannot exercise is listed at
the end.

  --setup       only install
  --nightly     then also every decoder that a peer reaches, and every other, fuzzed for a minute each
  --soak        then also that and what takes longer: the tests of the whole way over and over, libFuzzer, full benches
  --no-install  install nothing; fail where something is missing
END
}

setup_only=no nightly=no soak=no install=yes
for word in "$@"; do
  case $word in
    --setup) setup_only=yes ;;
    --nightly) nightly=yes ;;
    --soak) nightly=yes soak=yes ;;
    --no-install) install=no ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
# A user that no host has: what root's tests run as when they are not to be root.
somebody=61234
started=$SECONDS
scratch=$(mktemp -d /tmp/oqto-run-XXXXXX)
beds=
trap 'rm -rf "$scratch" ${beds:+"$beds"}' EXIT
chmod 755 "$scratch"
export OQTO_TEST_NOT_RUN=$scratch/not-run
touch "$OQTO_TEST_NOT_RUN"
# The tests as somebody say there too what they could not run.
chmod 666 "$OQTO_TEST_NOT_RUN"

step() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - started)); }
die() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }
not_run() { printf 'NOT RUN: %s: %s\n' "$1" "$2" >>"$OQTO_TEST_NOT_RUN"; }
as_root() { if is_root; then "$@"; else sudo "$@"; fi; }
as_somebody() {
  setpriv --reuid "$somebody" --regid "$somebody" --clear-groups --inh-caps=-all -- "$@"
}

# --- what the tests need ------------------------------------------------------------------------------------------

install_packages() {
  local need=() pair
  for pair in nft:nftables conntrack:conntrack ip:iproute2 bwrap:bubblewrap python3:python3 git:git cc:build-essential node:nodejs npm:npm \
    script:bsdutils setpriv:util-linux; do
    has "${pair%%:*}" || need+=("${pair##*:}")
  done
  has cargo || has rustup || need+=(curl ca-certificates)
  [ ${#need[@]} -gt 0 ] || return 0
  [ "$install" = yes ] || die "missing: ${need[*]}"
  has apt-get || die "install these with your package manager, then run this again: ${need[*]}"
  is_root || has sudo || die "only root can install these, and there is no sudo: ${need[*]}"
  step "installing ${need[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}"
}

install_rust() {
  local cargo_env=${CARGO_HOME:-$HOME/.cargo}/env
  # shellcheck disable=SC1090 # it is rustup's
  if [ -r "$cargo_env" ]; then . "$cargo_env"; fi
  if ! has cargo; then
    [ "$install" = yes ] || die "missing: a Rust toolchain"
    step "installing a Rust toolchain"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs -o "$scratch/rustup-init" ||
      die "rustup cannot be downloaded here; install Rust $(minimum_rust) or newer by your own means
(apt-get install rustup && rustup default stable, where the distribution has it), then run this again"
    sh "$scratch/rustup-init" -y -q --no-modify-path --profile default
    # shellcheck disable=SC1090 # it is rustup's
    . "$cargo_env"
  fi
  local have
  have=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$(minimum_rust)" "$have" | sort -V | head -n1)" = "$(minimum_rust)" ] ||
    die "this needs Rust $(minimum_rust), here is $have: rustup update stable"
  local part
  for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 ||
      rustup component add "${part/#fmt/rustfmt}" ||
      die "cargo $part is missing"
  done
}

minimum_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

# What says which agents there are.
installed_agents() { cat tests/agents/package-lock.json tests/agents/pi-0.74/package-lock.json; }

# The agents, in the very versions of the lock files. Their own directory, since npm puts hundreds of packages there.
install_agents() {
  [ -z "${OQTO_TEST_AGENTS:-}" ] || return 0
  local there=tests/.agents
  if ! installed_agents | cmp -s - "$there/installed"; then
    [ "$install" = yes ] || die "missing: the agents of tests/agents"
    step "installing the agents of tests/agents"
    mkdir -p "$there"
    cp -r tests/agents/. "$there/"
    npm ci --prefix "$there" --no-audit --no-fund --loglevel=error &
    # Both versions are called pi, so that each has a directory of its own; they share a node.
    npm ci --prefix "$there/pi-0.74" --omit=optional --no-audit --no-fund --loglevel=error
    wait $!
    ln -sfn ../../../node_modules/node/bin/node "$there/pi-0.74/node_modules/.bin/node"
    installed_agents >"$there/installed"
  fi
  export OQTO_TEST_AGENTS=$root/$there
  # Harnesses of root are somebody else, who must be able to read their program.
  if is_root && ! as_somebody test -r "$OQTO_TEST_AGENTS/node_modules/.bin/pi"; then
    cp -a "$there" "$scratch/agents"
    chmod -R go+rX "$scratch/agents"
    export OQTO_TEST_AGENTS=$scratch/agents
  fi
}

# --- what is run --------------------------------------------------------------------------------------------------

run_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --all-features "$@"
  else
    cargo test --workspace --all-features --lib --bins --examples --tests -- "$@"
  fi
}

# The tests that depend on who runs them, from copies of the programs in a place that somebody can reach.
run_as_somebody() {
  local there=$scratch/as-somebody name
  # Not below /tmp, of which every sandbox has one of its own.
  beds=$(mktemp -d /home/oqto-beds-XXXXXX)
  chown "$somebody:$somebody" "$beds"
  mkdir -p "$there/target/deps" "$there/target/examples" "$there/home" "$there/tests"
  cp -r tests/tools "$there/tests/"
  cp target/debug/oqto-runner target/debug/oqtoctl target/debug/oqto-weak-sandbox "$there/target/"
  for name in control/examples/*.rs; do
    name=${name##*/}
    cp "target/debug/examples/${name%.rs}" "$there/target/examples/"
  done
  for name in sandbox it; do
    cp "$(test_program "$name")" "$there/target/deps/$name"
  done
  chown -R "$somebody:$somebody" "$there/home"
  chmod -R go+rX "$there"
  for name in sandbox it; do
    (cd "$there/home" && as_somebody env -i PATH="$PATH" HOME="$there/home" LANG=C.UTF-8 \
      OQTO_TEST_DIR="$there/tests" OQTO_TEST_BEDS="$beds" OQTO_TEST_AGENTS="$OQTO_TEST_AGENTS" OQTO_TEST_NOT_RUN="$OQTO_TEST_NOT_RUN" \
      bash -c "$each_alone" "$name" "../target/deps/$name")
  done
}

# Each test of a program in a process of its own, as nextest has them: no child of one holds a file open that another has
# written and starts. Four at once, and then those that want the machine to themselves (.config/nextest.toml).
each_alone='
program=$1 out=$(mktemp -d ./out-XXXXXX)
one() {
  "$program" --exact "$1" >"$out/$1" 2>&1 || { cat "$out/$1"; echo "$1" >>"$out/failed"; }
}
export -f one
export program out
listed() { "$program" --list --format terse "$@" 2>/dev/null | sed -n "s/: test$//p"; }
# A part of another test, which that one runs, is none by itself.
listed --ignored >"$out/parts"
listed | grep -vxFf "$out/parts" >"$out/names"
heavy="^hostile::|megabytes"
grep -vE "$heavy" "$out/names" | xargs -P 4 -I{} bash -c "one {}"
grep -E "$heavy" "$out/names" | xargs -P 1 -I{} bash -c "one {}"
touch "$out/failed"
run=$(wc -l <"$out/names") failed=$(wc -l <"$out/failed")
printf "test result: %s: %d run; %d passed; %d failed\n" "$0" "$run" "$((run - failed))" "$failed"
sed "s/^/failed: /" "$out/failed"
[ "$run" -gt 0 ] && [ "$failed" -eq 0 ]
'

# Where cargo put the tests of that name.
test_program() {
  cargo test -p oqto-tests --all-features --no-run --test "$1" --message-format json 2>/dev/null |
    python3 -c 'import json, sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("executable") and said["target"]["name"] == sys.argv[1]: print(said["executable"])' "$1"
}

# What the official types, crate and SDK of the Agent Client Protocol say of ours. A workspace of its own.
run_acp() {
  CARGO_TARGET_DIR=$root/target cargo test --locked --manifest-path tests/acp/Cargo.toml -- --show-output
  printf 'acp: the official types, crate and SDK agree with this runner\n'
}

run_benches() {
  grep -q '^\[\[bench\]\]' tests/Cargo.toml || return 0
  # For a moment each, to see that they work: as the tests were built, since what ships takes minutes to build. These
  # figures are nobody's.
  local package
  for package in tests tests/peers; do
    OQTO_RUNNER=$root/target/debug/oqto-runner CARGO_TARGET_DIR=$root/target \
      cargo bench --manifest-path $package/Cargo.toml --benches --profile dev -- --quick
  done
}

# Debian has what makes Debian; elsewhere it may be there already.
install_vm() {
  has qemu-system-x86_64 && has mmdebstrap && return 0
  [ "$install" = yes ] && has apt-get || return 1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    qemu-system-x86 mmdebstrap e2fsprogs openssh-client
}

# The loop that needs no other compiler. As many targets at once as there are processors.
run_fuzzers() {
  step "every fuzz target, a minute each"
  FUZZ_SECONDS=60 cargo test -p oqto-tests --all-features --test fuzz -- --nocapture --exact \
    no_decoder_breaks_its_promise_for_as_long_as_is_asked
}

run_soak() {
  step "two hundred and fifty kills"
  OQTO_CHAOS_KILLS=250 cargo test -p oqto-tests --all-features --test chaos -- --nocapture
  step "the whole way, ten times"
  local round
  for round in 1 2 3 4 5 6 7 8 9 10; do
    step "round $round"
    run_tests -E 'package(oqto-tests)'
  done
  if [ -d tests/fuzz ]; then
    if cargo fuzz --version >/dev/null 2>&1; then
      step "the fuzzers, ten minutes"
      (cd tests && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz decoders -- -max_total_time=600)
    else
      not_run "the fuzzers" "cargo-fuzz is not installed (cargo install cargo-fuzz)"
    fi
  fi
  if is_root && install_vm; then
    step "the sandbox on the newest kernel, in a virtual machine"
    tests/vm/run.sh
  else
    not_run "the sandbox on the newest kernel" "qemu, mmdebstrap and root are needed"
  fi
  step "the benches, as they ship"
  cargo bench -p oqto-tests
  CARGO_TARGET_DIR=$root/target cargo bench --manifest-path tests/peers/Cargo.toml
  CARGO_TARGET_DIR=$root/target cargo bench --locked --manifest-path tests/acp/Cargo.toml
}

install_packages
install_rust
install_agents
if [ "$setup_only" = yes ]; then
  step "ready"
  exit 0
fi

step "formatting"
cargo fmt --all -- --check
cargo fmt --manifest-path tests/acp/Cargo.toml -- --check
step "building"
cargo build --workspace --all-features --tests --bins --examples
step "clippy"
cargo clippy --workspace --all-targets --all-features -- -D warnings
step "tests"
run_tests
if is_root; then
  step "the sandbox and the whole way again, as user $somebody"
  run_as_somebody
else
  not_run "the tests as root" "a runner of root, whose agents run as the owner of their workspace; run this as root too"
fi
step "the official peers of the Agent Client Protocol"
run_acp
step "tests in the documentation"
cargo test --workspace --all-features --doc
step "benches, for a moment each"
run_benches
[ "$nightly" = no ] || run_fuzzers
[ "$soak" = no ] || run_soak

step "all passed"
sort -u "$OQTO_TEST_NOT_RUN"
