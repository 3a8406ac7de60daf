//! What bubblewrap is told: the namespaces, and the view as its options.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::policy::{Need, Network, Plan};

use super::host::Host;
use super::report::Layer;
use super::view::{Mount, View};

/// The options, each ended by a NUL, for `--args`: the paths of the host in them stand on no command line.
pub(super) fn options(plan: &Plan, view: &View, host: &Host, runner: (&Path, &Path)) -> Vec<u8> {
    let mut options = Options(Vec::new());
    // The other namespaces and the mounts are made in these two, so they are there whatever a test leaves out.
    options.words(["--unshare-user", "--new-session", "--die-with-parent"]);
    if host.with(Layer::Namespaces) {
        namespaces(plan, &mut options);
    }
    options.words(match host.with(Layer::Privileges) {
        true => ["--cap-drop", "ALL"],
        false => ["--cap-add", "ALL"],
    });
    if host.with(Layer::Privileges) {
        options.words(["--disable-userns"]);
    }
    if host.with(Layer::Mounts) {
        root(plan, view, host, runner, &mut options);
    } else {
        options.words(["--dev-bind", "/", "/"]);
    }
    options.0
}

struct Options(Vec<u8>);

impl Options {
    fn add<const N: usize>(&mut self, words: [&OsStr; N]) {
        for word in words {
            self.0.extend_from_slice(word.as_bytes());
            self.0.push(0);
        }
    }

    fn words<const N: usize>(&mut self, words: [&str; N]) {
        self.add(words.map(OsStr::new));
    }

    /// The directory in memory that the next words mount holds no more than the plan says.
    fn size(&mut self, plan: &Plan) {
        if let Some(mib) = plan.limits.tmp_mib {
            self.words(["--size", &mib.saturating_mul(1024 * 1024).to_string()]);
        }
    }
}

fn namespaces(plan: &Plan, options: &mut Options) {
    options.words(["--unshare-ipc", "--unshare-pid", "--unshare-uts"]);
    options.words([match plan.layers.cgroup_namespace {
        Need::Required => "--unshare-cgroup",
        Need::IfAvailable => "--unshare-cgroup-try",
    }]);
    match plan.network {
        Network::None => options.words(["--unshare-net"]),
        Network::Host => {}
    }
    options.words(["--hostname", "sandbox"]);
}

fn root(
    plan: &Plan,
    view: &View,
    host: &Host,
    (runner, runner_inside): (&Path, &Path),
    options: &mut Options,
) {
    match host.with(Layer::Namespaces) {
        true => options.words(["--proc", "/proc"]),
        // The kernel shows processes anew only to whom their namespace belongs.
        false => options.words(["--bind", "/proc", "/proc"]),
    }
    // Files there belong to the host's root for the kernel's own judgement, which a mount does not ask.
    options.words(["--ro-bind", "/proc/sys", "/proc/sys"]);
    // Keyrings have no namespace: these would name the user's keys, and count them.
    for list in ["/proc/keys", "/proc/key-users"] {
        if Path::new(list).exists() {
            options.words(["--ro-bind", "/dev/null", list]);
        }
    }
    options.words(["--dev", "/dev"]);
    options.size(plan);
    options.words(["--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]);
    for directory in ["/home", "/root", "/run", "/var"] {
        options.words(["--dir", directory]);
    }
    for (at, mount) in &view.mounts {
        let at = at.as_os_str();
        match mount {
            Mount::ReadOnly(from) => options.add([OsStr::new("--ro-bind"), from.as_os_str(), at]),
            Mount::Writable(from) => options.add([OsStr::new("--bind"), from.as_os_str(), at]),
            Mount::Link(target) => options.add([OsStr::new("--symlink"), target.as_os_str(), at]),
            Mount::EmptyFile => options.add([OsStr::new("--ro-bind"), OsStr::new("/dev/null"), at]),
            Mount::EmptyDirectory => {
                options.add([
                    OsStr::new("--perms"),
                    OsStr::new("0555"),
                    OsStr::new("--tmpfs"),
                    at,
                ]);
                options.add([OsStr::new("--remount-ro"), at]);
            }
            Mount::Memory => {
                options.size(plan);
                options.add([
                    OsStr::new("--perms"),
                    OsStr::new("1777"),
                    OsStr::new("--tmpfs"),
                    at,
                ]);
            }
        }
    }
    options.add([
        OsStr::new("--ro-bind"),
        runner.as_os_str(),
        runner_inside.as_os_str(),
    ]);
    options.words(["--remount-ro", "/"]);
}
