//! Connections that move: another socket, a NAT that forgets, packets that are lost, a cable that is pulled.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use oqto_control::{Event, Mark, RunnerAddr, Update};
use oqto_tests::{Ended, Home, end, is_root, not_run, wait_until};

/// A program that writes numbers until it is told to end, with as much again between them as fills a packet.
const TALKER: &str = "n=0; while ! test -e end; do n=$((n+1)); echo $n; sleep 0.002; done; exit 7";

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_moves_to_another_socket_in_mid_stream_keeps_its_connection() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let session = runner.create(home.exec()).await.unwrap();
    let mut events = session.events().await.unwrap();
    let mut link = runner.link();
    link.mark_unchanged();
    session.prompt(format!("sh -c '{TALKER}'")).await.unwrap();
    let (mut next, mut moves) = (1, 0);
    loop {
        let event = match events.update().await.expect("more events").unwrap() {
            Update::Event(event) => event,
            // How it begins.
            Update::Mark(Mark::Lagging { .. }) if next == 1 => continue,
            Update::Mark(mark) => panic!("the stream was interrupted: {mark:?}"),
        };
        assert_eq!(event.first_seq.or(event.seq), Some(next));
        next = event.seq.unwrap() + 1;
        if matches!(event.event, Event::StreamDone(_)) {
            break;
        }
        if next / 50 > moves && moves < 10 {
            moves += 1;
            control.rebind().unwrap();
            // A command goes the new way as well.
            assert_eq!(session.state().await.unwrap().info.session_id, *session.id());
        }
        if moves == 10 {
            home.file("workspace/end", "");
        }
    }
    assert!(!link.has_changed().unwrap(), "{:?}", link.borrow());
    let log = std::fs::read_to_string(home.state().join("runner.log")).unwrap();
    assert_eq!(log.matches(" connected ").count(), 1, "{log}");
    session.close().await.unwrap();
    control.close().await;
}

/// A client and a server in networks of their own, and a router with a NAT between them.
struct Net {
    name: String,
}

/// How many there were: two tests may run in one process.
static NETS: AtomicU32 = AtomicU32::new(0);

const NET: &str = r#"
set -e
for ns in c r s; do ip netns add $N-$ns; ip -n $N-$ns link set lo up; done
ip -n $N-r link add c type veth peer name wire netns $N-c
ip -n $N-r link add s type veth peer name wire netns $N-s
ip -n $N-c addr add 10.77.1.2/24 dev wire
ip -n $N-s addr add 10.77.2.2/24 dev wire
ip -n $N-r addr add 10.77.1.1/24 dev c
ip -n $N-r addr add 10.77.2.1/24 dev s
ip -n $N-r addr add 10.77.2.3/24 dev s
for ns in c s; do ip -n $N-$ns link set wire up; done
for link in c s; do ip -n $N-r link set $link up; done
ip -n $N-c route add default via 10.77.1.1
ip netns exec $N-r sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
ip netns exec $N-r nft -f - <<END
table ip oqto {
  chain out { type nat hook postrouting priority srcnat; ip saddr 10.77.1.0/24 snat to 10.77.2.1; }
  chain through { type filter hook forward priority filter; }
}
END
"#;

impl Net {
    /// Lays it out; says what is missing where it cannot.
    fn new(test: &str) -> Option<Self> {
        if !is_root() {
            not_run(test, "only root lays out networks");
            return None;
        }
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("conntrack", "conntrack"),
        ] {
            if !end(Command::new("sh").args(["-c", &format!("command -v {program}")]))
                .out
                .starts_with(b"/")
            {
                not_run(test, &format!("there is no {program}; install {package}"));
                return None;
            }
        }
        let net = Self {
            name: format!("oqto-{}-{}", std::process::id(), NETS.fetch_add(1, Relaxed)),
        };
        let laid = net.sh(NET);
        if laid.code != 0 {
            not_run(
                test,
                &format!("this host has no such networks: {}", laid.err.trim()),
            );
            return None;
        }
        Some(net)
    }

    fn sh(&self, script: &str) -> Ended {
        end(Command::new("sh").args(["-c", script]).env("N", &self.name))
    }

    fn do_it(&self, script: &str) {
        assert_eq!(self.sh(script).code, 0, "{script}");
    }

    /// The same program, in one of the networks.
    fn inside(&self, ns: &str, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside
            .args(["netns", "exec", &format!("{}-{ns}", self.name)])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            inside.current_dir(dir);
        }
        inside
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.sh("for ns in c r s; do ip netns del $N-$ns; done");
    }
}

/// Streams from one network to the other while `trouble` is made, one after the other, and asserts that nothing of it
/// is seen: no number missing, no second connection, no word on standard error.
fn streams_through(test: &str, troubles: &[&str]) {
    let Some(net) = Net::new(test) else { return };
    let home = Home::new();
    home.configure("listen = \"10.77.2.2:4433\"\n");
    let started = end(&mut net.inside("s", &home.ctl(&["status"])));
    assert_eq!(started.code, 0, "{started:?}");
    let control = home.control();
    let id = control.local_addr().expect("a runner").id;
    let address: SocketAddr = "10.77.2.2:4433".parse().unwrap();
    control
        .remember(&RunnerAddr {
            id: id.clone(),
            address,
        })
        .unwrap();
    let workspace = home.workspace();
    let words = [
        "exec",
        "--runner",
        id.as_str(),
        "--cwd",
        workspace.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        TALKER,
    ];
    let log = home.state().join("runner.log");
    let links = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .matches(" connected ")
            .count()
    };
    let before = links();
    let mut running = net
        .inside("c", &home.ctl(&words))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(running.stdout.take().unwrap());
    let mut said = String::new();
    let mut read = |said: &mut String, lines: usize| {
        for _ in 0..lines {
            assert!(shown.read_line(said).unwrap() > 0, "it ended: {said}");
        }
    };
    read(&mut said, 100);
    for trouble in troubles {
        net.do_it(trouble);
        // What comes now came past the trouble, or after it.
        read(&mut said, 500);
    }
    home.file("workspace/end", "");
    shown.read_to_string(&mut said).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert_eq!(
        ended.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    let count = said.lines().count();
    assert_eq!(said, (1..=count).map(|n| format!("{n}\n")).collect::<String>());
    assert_eq!(links(), before + 1, "the connection was made again");
    home.no_agents();
    control.forget(&id).unwrap();
    wait_until("the runner to be alone", || {
        home.agents().is_empty().then_some(())
    });
}

#[test]
fn a_nat_that_gives_another_address_in_mid_stream_costs_nothing() {
    let rebind = |to: &str| {
        format!(
            "ip netns exec $N-r nft -f - <<END\nflush chain ip oqto out\n\
             add rule ip oqto out ip saddr 10.77.1.0/24 snat to {to}\nEND\n\
             ip netns exec $N-r conntrack -D -p udp >/dev/null 2>&1"
        )
    };
    streams_through(
        "migration::a_nat_that_gives_another_address_in_mid_stream_costs_nothing",
        &[
            &rebind("10.77.2.3"),
            &rebind("10.77.2.1:20000-20010"),
            &rebind("10.77.2.3"),
        ],
    );
}

#[test]
fn a_link_that_loses_packets_and_one_that_is_cut_for_three_seconds_cost_nothing_but_time() {
    streams_through(
        "migration::a_link_that_loses_packets_and_one_that_is_cut_for_three_seconds_cost_nothing_but_time",
        &[
            "ip netns exec $N-r nft add rule ip oqto through numgen random mod 100 '<' 5 counter drop",
            "ip -n $N-r link set s down; sleep 3; ip -n $N-r link set s up",
            "ip netns exec $N-r nft flush chain ip oqto through",
        ],
    );
}
