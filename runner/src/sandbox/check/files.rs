//! Attempts on files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::attempt::{Answer, Attempt, Forbidden};
use super::bait::Bait;
use crate::sandbox::report::Layer;
use crate::sandbox::wrap::RUNNER;

/// It is not in view, or no landlock rule covers it.
const OUT_OF_VIEW: &[(Answer, Layer)] = &[
    (Answer::errno(Errno::ENOENT), Layer::Mounts),
    (Answer::errno(Errno::EACCES), Layer::Landlock),
];

/// It is mounted read-only, or no landlock rule lets it be written.
const READ_ONLY: &[(Answer, Layer)] = &[
    (Answer::errno(Errno::EROFS), Layer::Mounts),
    (Answer::errno(Errno::EACCES), Layer::Landlock),
];

/// It is a mount, or lies on one of its own.
const PINNED: &[(Answer, Layer)] = &[
    (Answer::errno(Errno::EBUSY), Layer::Mounts),
    (Answer::errno(Errno::EROFS), Layer::Mounts),
    (Answer::errno(Errno::EXDEV), Layer::Mounts),
    (Answer::errno(Errno::EACCES), Layer::Landlock),
];

/// Another process's insides: the kernel asks whether one may trace it.
const NOT_OURS: &[(Answer, Layer)] = &[
    (Answer::errno(Errno::EACCES), Layer::Landlock),
    (Answer::errno(Errno::EPERM), Layer::Landlock),
    (Answer::errno(Errno::ENOENT), Layer::Mounts),
];

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "read-outside",
        what: "read a file of the user outside the workspace",
        forbidden: Forbidden::Always,
        stops: OUT_OF_VIEW,
        attempt: |bait| read(&bait.secret),
    },
    Attempt {
        name: "list-outside",
        what: "list the directory above the workspace",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::Nothing, Layer::Mounts),
            (Answer::errno(Errno::EACCES), Layer::Landlock),
        ],
        attempt: |bait| match others(bait) {
            Ok(0) => Answer::Nothing,
            other => other.into(),
        },
    },
    Attempt {
        name: "write-outside",
        what: "create a file outside the workspace",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::errno(Errno::EROFS), Layer::Mounts),
            (Answer::errno(Errno::ENOENT), Layer::Mounts),
            (Answer::Nothing, Layer::Mounts),
            (Answer::errno(Errno::EACCES), Layer::Landlock),
        ],
        attempt: write_outside,
    },
    Attempt {
        name: "link-outside",
        what: "read a file outside through a symbolic link in /tmp",
        forbidden: Forbidden::Always,
        stops: OUT_OF_VIEW,
        attempt: |bait| {
            let link = Path::new("/tmp/oqto-check-link");
            match symlink(&bait.secret, link) {
                Ok(()) => read(link),
                Err(error) => io::Result::<()>::Err(error).into(),
            }
        },
    },
    Attempt {
        name: "write-system",
        what: "create a file in /usr",
        forbidden: Forbidden::Always,
        stops: READ_ONLY,
        attempt: |_| create(Path::new("/usr/oqto-check")),
    },
    Attempt {
        name: "write-root",
        what: "create a file in /",
        forbidden: Forbidden::Always,
        stops: READ_ONLY,
        attempt: |_| create(Path::new("/oqto-check")),
    },
    Attempt {
        name: "write-runner",
        what: "write to the runner's own program",
        forbidden: Forbidden::Always,
        stops: READ_ONLY,
        attempt: |_| open_for_writing(Path::new(RUNNER)),
    },
    Attempt {
        name: "write-core-pattern",
        what: "open the host's core pattern for writing, which names a program of root's",
        forbidden: Forbidden::Always,
        stops: READ_ONLY,
        attempt: |_| open_for_writing(Path::new("/proc/sys/kernel/core_pattern")),
    },
    Attempt {
        name: "read-passwords",
        what: "read the host's /etc/shadow",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::Nothing, Layer::Mounts),
            (Answer::errno(Errno::ENOENT), Layer::Mounts),
            (Answer::errno(Errno::EACCES), Layer::Landlock),
        ],
        attempt: |_| read(Path::new("/etc/shadow")),
    },
    Attempt {
        name: "read-kernel-memory",
        what: "open /dev/mem",
        forbidden: Forbidden::Always,
        stops: OUT_OF_VIEW,
        attempt: |_| File::open("/dev/mem").into(),
    },
    Attempt {
        name: "read-kernel-log",
        what: "open /dev/kmsg",
        forbidden: Forbidden::Always,
        stops: OUT_OF_VIEW,
        attempt: |_| File::open("/dev/kmsg").into(),
    },
    Attempt {
        name: "list-sysfs",
        what: "list /sys",
        forbidden: Forbidden::Always,
        stops: OUT_OF_VIEW,
        attempt: |_| fs::read_dir("/sys").into(),
    },
    Attempt {
        name: "list-keys",
        what: "list the user's keys",
        forbidden: Forbidden::Always,
        // An empty device stands there, and devices cannot be opened below this mount.
        stops: &[
            (Answer::Nothing, Layer::Mounts),
            (Answer::errno(Errno::EACCES), Layer::Mounts),
            (Answer::errno(Errno::ENOENT), Layer::Mounts),
        ],
        attempt: |_| read(Path::new("/proc/keys")),
    },
    Attempt {
        name: "root-of-init",
        what: "reach a file through /proc/1/root",
        forbidden: Forbidden::Always,
        stops: NOT_OURS,
        attempt: |bait| match bait.secret.strip_prefix("/") {
            Ok(rest) => read(&Path::new("/proc/1/root").join(rest)),
            Err(_) => Answer::Done,
        },
    },
    Attempt {
        name: "memory-of-init",
        what: "open the memory of the sandbox's first process",
        forbidden: Forbidden::Always,
        stops: NOT_OURS,
        attempt: |_| File::open("/proc/1/mem").into(),
    },
    Attempt {
        name: "environment-of-init",
        what: "read the environment of the sandbox's first process",
        forbidden: Forbidden::Always,
        stops: NOT_OURS,
        attempt: |_| read(Path::new("/proc/1/environ")),
    },
    Attempt {
        name: "variable",
        what: "see a variable of the host that the policy does not name",
        forbidden: Forbidden::Always,
        stops: &[(Answer::Nothing, Layer::Entry)],
        attempt: |_| match std::env::var_os(super::bait::VARIABLE) {
            Some(_) => Answer::Done,
            None => Answer::Nothing,
        },
    },
    Attempt {
        name: "descriptor",
        what: "find a descriptor that was left open",
        forbidden: Forbidden::Always,
        stops: &[(Answer::Nothing, Layer::Entry)],
        attempt: |_| match descriptors() {
            Ok(0) => Answer::Nothing,
            other => other.into(),
        },
    },
    Attempt {
        name: "git-hook",
        what: "plant a hook in the repository",
        forbidden: Forbidden::Protected(".git/hooks"),
        stops: READ_ONLY,
        attempt: |bait| create(&bait.workspace.join(".git/hooks/post-commit")),
    },
    Attempt {
        name: "git-config",
        what: "write to the repository's configuration",
        forbidden: Forbidden::Protected(".git/config"),
        stops: READ_ONLY,
        attempt: |bait| open_for_writing(&bait.workspace.join(".git/config")),
    },
    Attempt {
        name: "git-config-replaced",
        what: "put another configuration in the place of the repository's",
        forbidden: Forbidden::Protected(".git/config"),
        stops: PINNED,
        attempt: |bait| {
            let config = bait.workspace.join(".git/config");
            fs::rename(&config, bait.workspace.join(".git/moved")).into()
        },
    },
    Attempt {
        name: "git-renamed",
        what: "move the repository's directory away, with what is protected in it",
        forbidden: Forbidden::Protected(".git/hooks"),
        stops: PINNED,
        attempt: |bait| fs::rename(bait.workspace.join(".git"), bait.workspace.join(".git2")).into(),
    },
    Attempt {
        name: "git-config-linked",
        what: "link the repository's configuration to where it may be written",
        forbidden: Forbidden::Protected(".git/config"),
        stops: PINNED,
        attempt: |bait| {
            fs::hard_link(bait.workspace.join(".git/config"), bait.workspace.join("config")).into()
        },
    },
    Attempt {
        name: "own-policy",
        what: "write a policy for the next session",
        forbidden: Forbidden::Protected(".oqto"),
        stops: READ_ONLY,
        attempt: |bait| create(&bait.workspace.join(".oqto/sandbox.toml")),
    },
    Attempt {
        name: "setuid-file",
        what: "leave a set-user-id file behind",
        forbidden: Forbidden::Call("fchmodat"),
        stops: &[(Answer::errno(Errno::EPERM), Layer::Seccomp)],
        attempt: |_| {
            let path = Path::new("/tmp/oqto-check-setuid");
            match File::create(path) {
                Ok(_) => fs::set_permissions(path, Permissions::from_mode(0o4755)).into(),
                Err(error) => io::Result::<()>::Err(error).into(),
            }
        },
    },
    Attempt {
        name: "device-node",
        what: "make a device",
        forbidden: Forbidden::Always,
        stops: &[
            (Answer::errno(Errno::EACCES), Layer::Landlock),
            (Answer::errno(Errno::EPERM), Layer::Privileges),
        ],
        attempt: |_| {
            let everybody = Mode::from_bits_truncate(0o666);
            mknod("/tmp/oqto-check-null", SFlag::S_IFCHR, everybody, makedev(1, 3)).into()
        },
    },
];

fn read(path: &Path) -> Answer {
    let mut byte = [0];
    match File::open(path).and_then(|mut file| file.read(&mut byte)) {
        Ok(0) => Answer::Nothing,
        other => other.into(),
    }
}

fn create(path: &Path) -> Answer {
    File::create_new(path).into()
}

/// Opened and not written: being able to is enough.
fn open_for_writing(path: &Path) -> Answer {
    OpenOptions::new().append(true).open(path).into()
}

/// How many things there are beside the workspace.
fn others(bait: &Bait) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(&bait.outside)? {
        count += usize::from(entry?.path() != bait.workspace);
    }
    Ok(count)
}

/// The directory above the workspace may be there as one in memory, and what is created in it reaches nobody: what
/// counts is whether it is the host's.
fn write_outside(bait: &Bait) -> Answer {
    match (create(&bait.outside.join("planted")), others(bait)) {
        // Only the new file is there, and not what lies there on the host.
        (Answer::Done, Ok(1)) => Answer::Nothing,
        (answer, _) => answer,
    }
}

/// How many descriptors there are besides the three streams and the listing's own.
fn descriptors() -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok());
        count += usize::from(number.is_none_or(|number| number > 2));
    }
    Ok(count.saturating_sub(1))
}
