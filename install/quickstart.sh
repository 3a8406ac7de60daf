#!/usr/bin/env bash
# From a fresh checkout to an agent at work in its sandbox, on this machine. Nothing is installed into the system but
# the packages that are missing; the programs stay in target/release.
set -euo pipefail

usage() {
  cat <<'END'
usage: install/quickstart.sh [--no-build] [--no-pi]

Installs what is missing (bubblewrap, a C compiler, a Rust toolchain), builds oqto-runner and oqtoctl, and shows
what they are for: a program at work in a sandbox, streamed to this terminal, and what the sandbox refused it.
If the pi agent is installed and set up for you, pi is given a small task too, with your own model.

  --no-build  use the programs that were built before
  --no-pi     leave pi and your model alone
END
}

build=yes with_pi=yes
for word in "$@"; do
  case $word in
    --no-build) build=no ;;
    --no-pi) with_pi=no ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}/release
demo=

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' plain=$'\e[0m'
fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }
as_root() { if is_root; then "$@"; else sudo "$@"; fi; }
clean_up() { [ -z "$demo" ] || rm -rf "$demo"; }
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_packages() {
  local need=()
  has bwrap || need+=(bubblewrap)
  if [ "$build" = yes ]; then
    has cc || need+=(build-essential)
    has cargo || [ -x "$HOME/.cargo/bin/cargo" ] || has curl || need+=(curl ca-certificates)
  fi
  [ ${#need[@]} -gt 0 ] || return 0
  has apt-get || die "install these with your package manager, then run this again: ${need[*]}"
  is_root || has sudo || die "only root can install these, and there is no sudo: ${need[*]}"
  step "Installing ${need[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}"
}

install_rust() {
  local least have cargo_env=${CARGO_HOME:-$HOME/.cargo}/env
  least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  # shellcheck disable=SC1090 # it is rustup's
  if ! has cargo && [ -r "$cargo_env" ]; then . "$cargo_env"; fi
  if ! has cargo; then
    step "Installing a Rust toolchain"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs -o "$demo/rustup-init" ||
      die "rustup cannot be downloaded here; install Rust $least or newer by your own means
(apt-get install rustup && rustup default stable, where the distribution has it), then run this again"
    sh "$demo/rustup-init" -y -q --no-modify-path --profile minimal
    # shellcheck disable=SC1090 # it is rustup's
    . "$cargo_env"
  fi
  have=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$least" "$have" | sort -V | head -n1)" = "$least" ] ||
    die "this needs Rust $least or newer, here is $have: rustup update stable"
}

# The demonstration's program: works in its workspace, then tries what an agent that was talked into anything would.
write_demo() {
  mkdir -p "$demo/workspace"
  cat >"$demo/workspace/notes.txt" <<'END'
colour: red
END
  cat >"$demo/workspace/agent.sh" <<'END'
echo "In its workspace it does what it likes:"
sed -i 's/red/green/' notes.txt && echo "  edited notes.txt: $(cat notes.txt)"
echo "Outside it is refused:"
bad=0
try() {
  what=$1
  shift
  if why=$("$@" 2>&1 </dev/null); then
    printf '  NOT REFUSED  %s\n' "$what"
    bad=1
  else
    printf '  refused  %-34s %s\n' "$what" "$(printf '%s' "$why" | tail -n1 | sed 's/^.*: //')"
  fi
}
try "reading $1/.ssh" ls "$1/.ssh"
try "reading /etc/shadow" grep -q . /etc/shadow
try "writing to /etc" sh -c 'echo x > /etc/oqto-quickstart'
try "writing to $1" sh -c "echo x > $1/oqto-quickstart"
try "seeing other processes" sh -c 'test "$(ls -d /proc/[0-9]* | wc -l)" -gt 12 || { echo "only its own are there"; false; }'
try "reaching the network" bash -c 'exec 3<>/dev/tcp/1.1.1.1/443'
try "making a user namespace" unshare --user true
try "tracing another process" sh -c 'cat /proc/1/mem'
try "setting the kernel's core_pattern" sh -c 'echo x > /proc/sys/kernel/core_pattern'
exit $bad
END
  # Harnesses never run as root: a runner of root runs them as the owner of the workspace.
  chmod 755 "$demo"
  if is_root; then
    local owner=60999
    if id -u oqto >/dev/null 2>&1; then owner=$(id -u oqto); fi
    chown -R "$owner:$owner" "$demo/workspace"
    printf 'You are root, and agents never are: this one runs as user %s, to whom its workspace belongs.\n' "$owner"
  fi
}

pi_is_ready() {
  [ "$with_pi" = yes ] && ! is_root && has pi &&
    { [ -s "$HOME/.pi/agent/auth.json" ] || [ -s "$HOME/.pi/agent/models.json" ]; }
}

demo=$(mktemp -d /tmp/oqto-quickstart-XXXXXX)
install_packages
if [ "$build" = yes ]; then
  install_rust
  step "Building oqto-runner and oqtoctl (some minutes the first time)"
  cargo build --release -p oqto-runner -p oqto-control --features oqto-control/cli
fi
for program in oqtoctl oqto-runner; do
  [ -x "$target/$program" ] || die "$target/$program is not built; run this without --no-build"
done

step "What this host can enforce"
"$target/oqto-runner" doctor || die "the sandbox cannot be made here; see above for the way to get it"

step "A program at work in its sandbox: oqtoctl exec -- bash agent.sh"
write_demo
code=0
"$target/oqtoctl" exec --cwd "$demo/workspace" -- bash agent.sh "$HOME" || code=$?
[ "$code" != 130 ] || exit 130
[ "$code" = 0 ] || die "the demonstration ended with code $code"
grep -q green "$demo/workspace/notes.txt" || die "its work did not arrive in the workspace"
for written in /etc/oqto-quickstart "$HOME/oqto-quickstart"; do
  [ ! -e "$written" ] || die "it wrote outside of its workspace: $written"
done
printf 'Looked at from outside: notes.txt says "%s", and nothing else changed.\n' "$(cat "$demo/workspace/notes.txt")"

if pi_is_ready; then
  step "pi at work in its sandbox, with your model: oqtoctl run --policy open-net"
  "$target/oqtoctl" run --policy open-net --cwd "$demo/workspace" \
    "Change the colour in notes.txt to blue and say in one sentence what you did." || code=$?
  [ "$code" = 0 ] || printf 'pi ended with code %s; see above.\n' "$code"
elif [ "$with_pi" = yes ]; then
  printf '\npi is not shown: it is not installed (npm install -g @earendil-works/pi-coding-agent), or not set up for %s.\n' "$(id -un)"
fi

step "What next"
cat <<END
  export PATH="$target:\$PATH"
  oqtoctl exec -- make test                     any program, sandboxed, here
  oqtoctl run --policy open-net "your task"     an agent, sandboxed, here
  oqtoctl sessions                              what ran, also just now
  oqtoctl --help                                all of it, with exit codes
END
if is_root; then
  printf '  Work in a directory that belongs to a user who is not root, or name one as principal in /etc/oqto/runner.toml.\n'
fi
