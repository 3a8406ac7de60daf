#!/usr/bin/env bash
# Runs tests of the sandbox on a virtual machine with the newest kernel that Debian has, cgroup v2, systemd and audit:
# what a container or an older host cannot exercise.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/vm/run.sh [--shell] [FILTER...]

Makes an image of Debian (once, in target/vm), starts it under qemu, copies the programs and the tests of the sandbox
and of the whole way that `cargo build --workspace --all-features --tests` made into it, and runs the tests whose names
contain a FILTER (default: cgroup check direct violations workloads), as root and as a user, each in a cgroup of its
own; at the end the systemd unit is started, restarted, crashed and stopped. Software emulation is some twenty times slower than this host: choose few tests.

  --shell   a shell as root in the machine instead

Needs root, mmdebstrap, qemu-system-x86_64, mke2fs, and a mirror of Debian: the one that this host uses, or
OQTO_TEST_MIRROR.
END
}

suite=trixie
mirror=${OQTO_TEST_MIRROR:-}
for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list; do
  [ -n "$mirror" ] || [ ! -r "$file" ] || mirror=$(awk '$1 == "URIs:" || $1 == "deb" { print $2; exit }' "$file")
done
shell=no
filters=()
for word in "$@"; do
  case $word in
    --shell) shell=yes ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) filters+=("$word") ;;
  esac
done
[ ${#filters[@]} -gt 0 ] || filters=(cgroup:: check:: direct:: violations:: workloads::)

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
there=$PWD/target/vm
scratch=$(mktemp -d /tmp/oqto-vm-XXXXXX)
machine=
cleanup() {
  if [ -n "$machine" ] && kill "$machine" 2>/dev/null; then wait "$machine" || true; fi
  rm -rf "$scratch"
}
trap cleanup EXIT

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
die() { printf 'tests/vm/run.sh: %s\n' "$*" >&2; exit 1; }
for program in mmdebstrap qemu-system-x86_64 mke2fs ssh ssh-keygen python3; do
  command -v "$program" >/dev/null || die "$program is missing"
done
[ "$(id -u)" = 0 ] || die "only root can make the image"
[ -n "$mirror" ] || die "this host names no mirror of Debian: set OQTO_TEST_MIRROR to the address of one"

# --- the image ----------------------------------------------------------------------------------------------------

make_image() {
  step "making an image of Debian $suite"
  local root=$scratch/root packages
  packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,openssh-server,iproute2,procps,util-linux
  packages+=,bubblewrap,git,python3,auditd,linux-image-cloud-amd64
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/bash --password "*" dev' \
    --customize-hook='chroot "$1" systemctl enable --quiet systemd-networkd ssh' \
    --customize-hook='printf "[Match]\nName=e*\n[Network]\nDHCP=yes\n" >"$1/etc/systemd/network/20-any.network"' \
    --customize-hook='mkdir -p "$1/var/lib/systemd/linger" && touch "$1/var/lib/systemd/linger/dev"' \
    --customize-hook=': >"$1/etc/machine-id"' \
    "$suite" "$root" "deb $mirror $suite main" "deb $mirror $suite-updates main" \
    "deb $mirror $suite-backports main"
  chroot "$root" apt-get -qq update
  DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -qq --no-install-recommends \
    --target-release "$suite-backports" linux-image-cloud-amd64 >"$scratch/kernel.log" 2>&1 ||
    die "the kernel cannot be installed: $(tail -n3 "$scratch/kernel.log")"
  mkdir -p "$there"
  ssh-keygen -q -t ed25519 -N '' -f "$there/key" <<<y >/dev/null
  for home in "$root/root" "$root/home/dev"; do
    mkdir -p "$home/.ssh"
    cp "$there/key.pub" "$home/.ssh/authorized_keys"
  done
  chroot "$root" chown -R dev:dev /home/dev
  # The newest of the two, by version.
  local kernel
  kernel=$(printf '%s\n' "$root"/boot/vmlinuz-* | sort -V | tail -n1)
  cp "$kernel" "$there/kernel"
  cp "${kernel/vmlinuz-/initrd.img-}" "$there/initrd"
  mke2fs -q -t ext4 -d "$root" "$there/new.img" 4G >/dev/null
  mv "$there/new.img" "$there/image"
  rm -rf "$root"
}

# --- the machine --------------------------------------------------------------------------------------------------

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

inside() {
  local user=$1
  shift
  ssh -q -i "$there/key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ConnectTimeout=20 "$user@127.0.0.1" "$@"
}

start() {
  step "starting the machine"
  port=$(free_port)
  # Nothing that a run writes stays: the next one finds the image as it was made.
  qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M q35 -m 2048 -smp 2 -display none -no-reboot \
    -serial "file:$scratch/serial.log" -kernel "$there/kernel" -initrd "$there/initrd" \
    -append "root=/dev/vda rw console=ttyS0 quiet audit=1" \
    -drive "file=$there/image,format=raw,if=virtio,snapshot=on" \
    -netdev "user,id=n0,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=n0,romfile= \
    -device virtio-rng-pci >"$scratch/qemu.log" 2>&1 &
  machine=$!
  # qemu takes every connection and drops it until somebody inside listens, so there is nothing to wait on but this.
  local tries=0
  until inside root true 2>/dev/null; do
    tries=$((tries + 1))
    kill -0 "$machine" 2>/dev/null || die "it ended: $(cat "$scratch/qemu.log")"
    [ "$tries" -lt 150 ] || die "it does not answer: $(tail -n5 "$scratch/serial.log")"
    sleep 2
  done
  inside root 'printf "Linux %s, " "$(uname -r)"; bwrap --version; cat /sys/kernel/security/lsm; echo'
}

# The test program of that name that cargo made last.
test_program() {
  cargo test --quiet --package oqto-tests --all-features --test "$1" --no-run --message-format=json 2>/dev/null |
    python3 -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == sys.argv[1]: print(made["executable"])' "$1"
}

copy() {
  step "copying the programs"
  local pack=$scratch/pack name
  mkdir -p "$pack/target/deps" "$pack/tests"
  cp target/debug/oqto-runner target/debug/oqtoctl target/debug/oqto-weak-sandbox "$pack/target/"
  for name in sandbox it; do
    cp "$(test_program "$name")" "$pack/target/deps/$name"
  done
  cp -r tests/tools tests/sandbox tests/vm "$pack/tests/"
  cp -r install "$pack/"
  strip "$pack"/target/oqto* "$pack"/target/deps/*
  tar -C "$pack" -cz . | inside root 'mkdir -p /opt/oqto && tar -C /opt/oqto -xz && chmod -R go+rX /opt/oqto'
}

[ -e "$there/image" ] || make_image
start
if [ "$shell" = yes ]; then
  copy
  inside root -t
  exit 0
fi
copy
run() {
  printf 'umask 022 && cd && export OQTO_TEST_DIR=/opt/oqto/tests OQTO_TEST_NOT_RUN=/tmp/not-run-%s' "$1"
  local name
  for name in sandbox it; do
    printf ' && /opt/oqto/target/deps/%s --test-threads 2 %s' "$name" "${filters[*]}"
  done
}
step "as root, in a cgroup of its own"
inside root "systemd-run --quiet --pipe --wait --property=Delegate=yes sh -c '$(run root)'"
step "as a user, in a cgroup of its own"
inside dev "systemd-run --user --quiet --pipe --wait --property=Delegate=yes sh -c '$(run user)'"
step "the systemd unit"
inside root /opt/oqto/tests/vm/unit.sh
step "all passed"
# What the machine cannot exercise either is told with what the host cannot.
inside root 'cat /tmp/not-run-* 2>/dev/null || true' | sed 's/^NOT RUN: /NOT RUN: in the virtual machine: /' |
  sort -u | tee -a "${OQTO_TEST_NOT_RUN:-/dev/null}"
