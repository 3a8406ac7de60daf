#!/usr/bin/env bash
# Inside the virtual machine, as root: the systemd unit as it is shipped, and what stop, restart and a crash mean to the
# agents (docs/decisions/0015). Expects the programs in /opt/oqto/target and the unit in /opt/oqto/install.
set -euo pipefail

unit=oqto-runner
work=/home/dev/unit
state=/var/lib/oqto/runner
die() {
  printf 'unit.sh: %s\n' "$*" >&2
  cat /tmp/first.err /tmp/first.jsonl 2>/dev/null | tail -n 20 >&2
  journalctl --no-pager -u "$unit" | tail -n 40 >&2
  exit 1
}
# Everything here happens within seconds, or not at all: software emulation is slow, so half a minute at most.
until_true() {
  local what=$1 tries=0
  shift
  until "$@"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || die "waited in vain for $what"
    sleep 0.1
  done
}
main_pid() { systemctl show --property=MainPID --value "$unit"; }
is_active() { [ "$(systemctl is-active "$unit")" = active ]; }
changed_from() { is_active && [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ]; }
lives() { kill -0 "$1" 2>/dev/null; }
is_gone() { ! lives "$1"; }

install -m 755 /opt/oqto/target/oqto-runner /opt/oqto/target/oqtoctl /usr/local/bin/
install -d -o dev -g dev "$work"
cd "$work"
# A control signs the runner's key when it starts one; the unit then serves with it.
oqtoctl exec -- true
private=$(sed 's/.*"pid":\([0-9]*\).*/\1/' "$state/runner.json")
kill "$private"
until_true "the private runner to end" is_gone "$private"

systemd-analyze verify "/opt/oqto/install/systemd/$unit.service"
cp "/opt/oqto/install/systemd/$unit.service" /etc/systemd/system/
systemctl daemon-reload
systemctl start "$unit"
is_active || die "it does not start"

oqtoctl exec --json -- sh -c \
  'echo begun; while ! test -e go; do sleep 0.1; done; echo done; while ! test -e end; do sleep 0.1; done' \
  >/tmp/first.jsonl 2>/tmp/first.err &
first=$!
until_true "the agent to begin" grep -q begun /tmp/first.jsonl
session=$(head -n1 /tmp/first.jsonl | sed 's/.*"session_id":"\([^"]*\)".*/\1/')
shim=$(pgrep -f "shim --dir $state/sessions/$session" | head -n1)
[ -n "$shim" ] || die "no shim"
kill "$first" 2>/dev/null || true

before=$(main_pid)
systemctl restart "$unit"
changed_from "$before" || die "restart started no other runner"
lives "$shim" || die "restart ended the agent"

before=$(main_pid)
systemctl kill --signal=KILL --kill-whom=main "$unit"
until_true "systemd to start it again" changed_from "$before"
lives "$shim" || die "the runner's death ended the agent"

touch go
until_true "the agent to go on" sh -c "oqtoctl messages $session --json >/dev/null && timeout 5 oqtoctl attach $session --json | grep -q done"
systemctl stop "$unit"
[ "$(systemctl is-active "$unit")" = inactive ] || die "it is $(systemctl is-active "$unit") after stop"
lives "$shim" && die "stop left the agent running"
left=$(cat "/sys/fs/cgroup/system.slice/$unit.service"/{,*/}cgroup.procs 2>/dev/null || true)
[ -z "$left" ] || die "stop left processes: $left"
echo "unit: start, restart, crash and stop mean what they say"
