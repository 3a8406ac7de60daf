//! Three networks in a row: the controls', a router that translates addresses, the runner's. Each is a namespace of a
//! process of ours and goes when that is gone.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use oqto_tests::wait_until;

/// Where the runner listens in its network.
pub(crate) const RUNNER: &str = "10.77.2.2";

/// Addresses that the controls have in turn.
const CONTROLS: [&str; 2] = ["10.77.1.2", "10.77.1.3"];

/// What is lost, percent.
const LOSS: u32 = 5;

#[derive(Debug)]
pub(crate) struct Net {
    runner: Namespace,
    router: Namespace,
    control: Namespace,
    address: usize,
}

/// A network namespace, by the process that keeps it.
#[derive(Debug)]
struct Namespace(Child);

impl Net {
    /// The networks, joined, with loss on the way.
    ///
    /// # Errors
    /// When this host gives no namespaces or lacks a program.
    pub(crate) fn new() -> Result<Self, String> {
        let [runner, router, control] = [(), (), ()].map(|()| Namespace::new());
        let net = Self {
            runner: runner?,
            router: router?,
            control: control?,
            address: 0,
        };
        let router = net.router.0.id();
        net.runner.run(&format!(
            "ip link set lo up
            ip link add eth0 type veth peer name r0 netns {router}
            ip addr add {RUNNER}/24 dev eth0
            ip link set eth0 up
            ip route add default via 10.77.2.1"
        ))?;
        net.control.run(&format!(
            "ip link set lo up
            ip link add eth0 type veth peer name c0 netns {router}
            ip addr add {}/24 dev eth0
            ip link set eth0 up
            ip route add default via 10.77.1.1",
            CONTROLS[0]
        ))?;
        net.router.run(&format!(
            "ip addr add 10.77.2.1/24 dev r0
            ip addr add 10.77.1.1/24 dev c0
            ip link set r0 up
            ip link set c0 up
            echo 1 >/proc/sys/net/ipv4/ip_forward
            nft add table ip chaos
            nft add chain ip chaos forward '{{ type filter hook forward priority 0; }}'
            nft add rule ip chaos forward numgen random mod 100 '<' {LOSS} counter drop
            nft add chain ip chaos leave '{{ type nat hook postrouting priority 100; }}'
            nft add rule ip chaos leave oifname r0 masquerade fully-random
            conntrack -L >/dev/null"
        ))?;
        Ok(net)
    }

    /// How a program is started in the runner's network, and in the controls'.
    pub(crate) fn to_runner(&self) -> Vec<String> {
        self.runner.enter()
    }

    pub(crate) fn to_control(&self) -> Vec<String> {
        self.control.enter()
    }

    /// Nothing goes through until [`Self::join`].
    pub(crate) fn part(&self) {
        self.router.must("ip link set c0 down");
    }

    pub(crate) fn join(&self) {
        self.router.must("ip link set c0 up");
    }

    /// The router forgets which address of its own stands for whom: what comes next has another.
    pub(crate) fn forget(&self) {
        // It says on standard error how many it forgot.
        self.router.must("conntrack -F 2>/dev/null");
    }

    /// The controls have another address of their own.
    pub(crate) fn move_control(&mut self) {
        let before = CONTROLS[self.address % CONTROLS.len()];
        self.address += 1;
        let now = CONTROLS[self.address % CONTROLS.len()];
        self.control.must(&format!(
            "ip addr del {before}/24 dev eth0
            ip addr add {now}/24 dev eth0
            ip route add default via 10.77.1.1"
        ));
    }

    /// How many packets were lost on purpose.
    pub(crate) fn lost(&self) -> u64 {
        let listed = self.router.run("nft -j list chain ip chaos forward").unwrap();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let rules = listed["nftables"].as_array().unwrap().iter();
        let counters = rules.filter_map(|entry| {
            let parts = entry["rule"]["expr"].as_array()?;
            parts.iter().find_map(|part| part["counter"]["packets"].as_u64())
        });
        counters.sum()
    }
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let keeper = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--net",
                "sleep",
                "infinity",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("no setpriv: {error}"))?;
        let mut namespace = Self(keeper);
        let made = wait_until("a network namespace", || {
            if namespace.0.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let here = fs::read_link(namespace.path()).ok()?;
            (here != own).then_some(true)
        });
        if made {
            Ok(namespace)
        } else {
            Err("unshare --net is not allowed".to_owned())
        }
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn enter(&self) -> Vec<String> {
        vec![
            "nsenter".to_owned(),
            format!("--net={}", self.path().display()),
            "--".to_owned(),
        ]
    }

    /// Runs a shell's text in it and gives what it printed.
    fn run(&self, script: &str) -> Result<String, String> {
        let enter = self.enter();
        let mut shell = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["sh", "-e"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no nsenter: {error}"))?;
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let ended = shell.wait_with_output().unwrap();
        if ended.status.success() {
            Ok(String::from_utf8(ended.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&ended.stderr).into_owned())
        }
    }

    fn must(&self, script: &str) {
        self.run(script)
            .unwrap_or_else(|error| panic!("{script}: {error}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It is ours and not waited for, so its number is nobody else's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
