//! Attempts on the kernel: namespaces, mounts, other processes, privileges.

use std::fs::File;
use std::io::{IoSliceMut, Read as _};

use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module, init_module};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags};
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace;
use nix::sys::quota::{QuotaType, quotactl_off};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::kill;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, Uid, chroot, gethostname, pivot_root, setgroups, sethostname, setuid};

use super::attempt::{Answer, Attempt, Forbidden};
use crate::sandbox::report::Layer;

const REFUSED: &[(Answer, Layer)] = &[(Answer::errno(Errno::EPERM), Layer::Seccomp)];

/// The first process of the sandbox, which is not the one that tries.
const INIT: Pid = Pid::from_raw(1);

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "user-namespace",
        what: "make a user namespace, and be root in it",
        forbidden: Forbidden::Call("unshare"),
        stops: &[
            (Answer::errno(Errno::EPERM), Layer::Seccomp),
            (Answer::errno(Errno::ENOSPC), Layer::Namespaces),
        ],
        attempt: |_| unshare(CloneFlags::CLONE_NEWUSER).into(),
    },
    Attempt {
        name: "network-namespace",
        what: "enter a network namespace",
        forbidden: Forbidden::Call("setns"),
        stops: REFUSED,
        attempt: |_| match File::open("/proc/self/ns/net") {
            Ok(namespace) => setns(namespace, CloneFlags::CLONE_NEWNET).into(),
            Err(error) => std::io::Result::<()>::Err(error).into(),
        },
    },
    Attempt {
        name: "mount",
        what: "mount something over /tmp",
        forbidden: Forbidden::Call("mount"),
        stops: REFUSED,
        attempt: |_| {
            mount(
                Some("none"),
                "/tmp",
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .into()
        },
    },
    Attempt {
        name: "unmount",
        what: "unmount what covers /proc/sys",
        forbidden: Forbidden::Call("umount2"),
        stops: REFUSED,
        attempt: |_| umount2("/proc/sys", MntFlags::MNT_DETACH).into(),
    },
    Attempt {
        name: "pivot-root",
        what: "change the root of the namespace",
        forbidden: Forbidden::Call("pivot_root"),
        stops: REFUSED,
        attempt: |_| pivot_root("/tmp", "/tmp").into(),
    },
    Attempt {
        name: "chroot",
        what: "change the root of the process",
        forbidden: Forbidden::Call("chroot"),
        stops: REFUSED,
        attempt: |_| chroot("/").into(),
    },
    Attempt {
        name: "trace",
        what: "trace another process",
        forbidden: Forbidden::Call("ptrace"),
        stops: REFUSED,
        attempt: |_| ptrace::seize(INIT, ptrace::Options::empty()).into(),
    },
    Attempt {
        name: "read-process",
        what: "read the memory of another process",
        forbidden: Forbidden::Call("process_vm_readv"),
        stops: REFUSED,
        attempt: |_| {
            let mut byte = [0];
            let remote = [RemoteIoVec { base: 0x1000, len: 1 }];
            process_vm_readv(INIT, &mut [IoSliceMut::new(&mut byte)], &remote).into()
        },
    },
    Attempt {
        name: "signal-outside",
        what: "signal a process of the same user outside",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::errno(Errno::ESRCH), Layer::Namespaces),
            (Answer::errno(Errno::EPERM), Layer::Landlock),
        ],
        attempt: |bait| kill(Pid::from_raw(bait.pid), None).into(),
    },
    Attempt {
        name: "load-module",
        what: "load a module into the kernel",
        forbidden: Forbidden::Call("init_module"),
        stops: REFUSED,
        attempt: |_| init_module(&[], c"").into(),
    },
    Attempt {
        name: "unload-module",
        what: "unload a module of the kernel",
        forbidden: Forbidden::Call("delete_module"),
        stops: REFUSED,
        attempt: |_| delete_module(c"oqto-check", DeleteModuleFlags::O_NONBLOCK).into(),
    },
    Attempt {
        name: "host-name",
        what: "set the host's name",
        forbidden: Forbidden::Call("sethostname"),
        stops: REFUSED,
        attempt: |_| match gethostname() {
            Ok(name) => sethostname(name).into(),
            Err(errno) => Answer::errno(errno),
        },
    },
    Attempt {
        name: "executable-memory",
        what: "make all readable memory executable",
        forbidden: Forbidden::Call("personality"),
        stops: REFUSED,
        attempt: |_| personality::set(Persona::READ_IMPLIES_EXEC).into(),
    },
    Attempt {
        name: "watch-file-system",
        what: "watch a whole file system",
        forbidden: Forbidden::Call("fanotify_init"),
        stops: REFUSED,
        attempt: |_| Fanotify::init(InitFlags::FAN_CLASS_NOTIF, EventFFlags::O_RDONLY).into(),
    },
    Attempt {
        name: "quota",
        what: "turn quotas off",
        forbidden: Forbidden::Call("quotactl"),
        stops: REFUSED,
        attempt: |_| quotactl_off(QuotaType::USRQUOTA, "/dev/oqto-check").into(),
    },
    Attempt {
        name: "become-root",
        what: "become root",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::errno(Errno::EPERM), Layer::Privileges),
            (Answer::errno(Errno::EINVAL), Layer::Namespaces),
        ],
        attempt: |_| setuid(Uid::from_raw(0)).into(),
    },
    Attempt {
        name: "leave-groups",
        what: "change the process's groups",
        forbidden: Forbidden::Always,
        stops: &[(Answer::errno(Errno::EPERM), Layer::Privileges)],
        attempt: |_| setgroups(&[]).into(),
    },
    Attempt {
        name: "gain-privileges",
        what: "have privileges, or a way to get some",
        forbidden: Forbidden::Always,
        stops: &[(Answer::Nothing, Layer::Privileges)],
        attempt: |_| privileges(),
    },
    Attempt {
        name: "raise-limit",
        what: "raise a limit that was lowered",
        forbidden: Forbidden::OpenFiles,
        stops: &[(Answer::errno(Errno::EPERM), Layer::Privileges)],
        attempt: |_| match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((soft, hard)) => setrlimit(Resource::RLIMIT_NOFILE, soft, hard.saturating_add(1)).into(),
            Err(errno) => Answer::errno(errno),
        },
    },
];

fn privileges() -> Answer {
    let mut status = String::new();
    match File::open("/proc/self/status").and_then(|mut file| file.read_to_string(&mut status)) {
        Ok(_) => {}
        other => return other.into(),
    }
    let value = |name: &str| {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim).unwrap_or_default()
    };
    let none = |name: &&str| value(name).bytes().all(|digit| digit == b'0') && !value(name).is_empty();
    let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    if capabilities.iter().all(none) && value("NoNewPrivs") == "1" {
        Answer::Nothing
    } else {
        Answer::Done
    }
}
