//! What a harness may ask of the kernel.

use nix::libc;

use crate::bed::Bed;

/// Prints `name errno` for each call that is tried.
fn attempts(calls: &[(&str, i64, &str)]) -> String {
    let mut script = String::from("import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n");
    script.push_str("def go(name, *args):\n");
    script.push_str(" ctypes.set_errno(0)\n r = libc.syscall(*[ctypes.c_long(a) for a in args])\n");
    script.push_str(
        " e = ctypes.get_errno()\n print(name, errno.errorcode.get(e, 'done') if r == -1 else 'done')\n",
    );
    for (name, number, args) in calls {
        script.push_str(&format!("go('{name}', {number}, {args})\n"));
    }
    script
}

#[test]
fn calls_without_business_in_an_agents_work_are_refused() {
    let calls = [
        ("unshare-user", libc::SYS_unshare, "0x10000000"),
        ("unshare-net", libc::SYS_unshare, "0x40000000"),
        ("setns", libc::SYS_setns, "0, 0"),
        ("clone-user", libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
        ("clone-high-bits", libc::SYS_clone, "0x100020000011, 0, 0, 0, 0"),
        ("mount", libc::SYS_mount, "0, 0, 0, 0, 0"),
        ("umount", libc::SYS_umount2, "0, 0"),
        ("pivot_root", libc::SYS_pivot_root, "0, 0"),
        ("chroot", libc::SYS_chroot, "0"),
        ("open_tree", libc::SYS_open_tree, "-100, 0, 1"),
        ("fsopen", libc::SYS_fsopen, "0, 0"),
        ("mount_setattr", libc::SYS_mount_setattr, "-100, 0, 0, 0, 0"),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, "-100, 0, 0"),
        ("ptrace", libc::SYS_ptrace, "0, 0, 0, 0"),
        ("process_vm_readv", libc::SYS_process_vm_readv, "1, 0, 0, 0, 0, 0"),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, "0, 0, 0"),
        ("bpf", libc::SYS_bpf, "0, 0, 0"),
        ("perf_event_open", libc::SYS_perf_event_open, "0, 0, 0, 0, 0"),
        ("userfaultfd", libc::SYS_userfaultfd, "0"),
        ("io_uring_setup", libc::SYS_io_uring_setup, "1, 0"),
        ("init_module", libc::SYS_init_module, "0, 0, 0"),
        ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0"),
        ("syslog", libc::SYS_syslog, "3, 0, 0"),
        ("keyctl", libc::SYS_keyctl, "0, -3, 0"),
        ("add_key", libc::SYS_add_key, "0, 0, 0, 0, 0"),
        ("request_key", libc::SYS_request_key, "0, 0, 0, 0"),
        ("personality", libc::SYS_personality, "0x400000"),
        ("prctl-mm", libc::SYS_prctl, "35, 0, 0, 0, 0"),
        ("tiocsti", libc::SYS_ioctl, "0, 0x5412, 0"),
        ("tiocsti-high-bits", libc::SYS_ioctl, "0, 0x100005412, 0"),
        ("tioclinux", libc::SYS_ioctl, "0, 0x541c, 0"),
        ("raw-socket", libc::SYS_socket, "2, 3, 1"),
        ("raw-socket-with-flags", libc::SYS_socket, "2, 0x80003, 1"),
        ("raw-socket-6", libc::SYS_socket, "10, 3, 58"),
        ("ping-socket", libc::SYS_socket, "2, 2, 1"),
        ("packet-socket", libc::SYS_socket, "17, 3, 0"),
        ("crypto-socket", libc::SYS_socket, "38, 5, 0"),
        ("vm-socket", libc::SYS_socket, "40, 1, 0"),
        ("netfilter-socket", libc::SYS_socket, "16, 3, 12"),
        ("multipath-socket", libc::SYS_socket, "2, 1, 262"),
        ("sctp-socket", libc::SYS_socket, "2, 1, 132"),
        ("sctp-socket-by-type", libc::SYS_socket, "2, 5, 0"),
        ("sctp-socket-by-type-6", libc::SYS_socket, "10, 0x80005, 0"),
        ("btrfs-snapshot", libc::SYS_ioctl, "0, 0x50009401, 0"),
        ("btrfs-snapshot-2", libc::SYS_ioctl, "0, 0x50009417, 0"),
        ("bcachefs-snapshot", libc::SYS_ioctl, "0, 0x4020bc10, 0"),
        ("inet-socketpair", libc::SYS_socketpair, "2, 1, 0, 0"),
    ];
    let out = Bed::new().python(&attempts(&calls)).ok();
    let done: Vec<&str> = out.lines().filter(|line| !line.ends_with(" EPERM")).collect();
    assert_eq!(done, Vec::<&str>::new());
    assert_eq!(out.lines().count(), calls.len());
}

#[test]
fn calls_whose_arguments_no_filter_sees_do_not_exist() {
    let calls = [
        ("clone3", libc::SYS_clone3, "0, 0"),
        ("openat2", libc::SYS_openat2, "-100, 0, 0, 0"),
    ];
    assert_eq!(
        Bed::new().python(&attempts(&calls)).ok(),
        "clone3 ENOSYS\nopenat2 ENOSYS\n"
    );
}

#[test]
fn a_user_namespace_cannot_be_made_by_a_program_either() {
    assert_ne!(Bed::new().run(&["unshare", "--user", "true"]).code, 0);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_calls_of_other_architectures_kill() {
    let killed = 128 + libc::SIGSYS;
    let bed = Bed::new();
    let x32 = "import ctypes\nctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))\nprint('lives')\n";
    assert_eq!(bed.python(x32).code, killed);
    // mov eax, 20 (getpid); int 0x80; ret
    let int80 = "import ctypes, mmap\n\
                 m = mmap.mmap(-1, 4096, prot=7)\n\
                 m.write(bytes.fromhex('b814000000cd80c3'))\n\
                 ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\n\
                 print('lives')\n";
    assert_eq!(bed.python(int80).code, killed);
}

#[test]
fn the_kernel_says_itself_that_nothing_is_left_to_gain() {
    let out = Bed::new()
        .sh("grep -E '^(Cap...|NoNewPrivs|Seccomp|Groups):' /proc/self/status")
        .ok();
    let out: String = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "CapEff: 0000000000000000",
        "CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
    ] {
        assert!(out.contains(part), "{out} lacks {part}");
    }
}

#[test]
fn limits_hold() {
    let bed = Bed::new();
    assert_eq!(bed.sh("ulimit -c; ulimit -n").ok(), "0\n16384\n");
    let memory = bed.sh("head -c 5000000000 /dev/zero > /tmp/full").code;
    assert_ne!(memory, 0, "the directories in memory have a size");
}

#[test]
fn no_program_of_the_hosts_is_started_for_a_core_dump() {
    // The kernel pipes a dump to the host's handler with a limit of 0 as well, and with a limit of 1 never does.
    let script = "import resource as r\n\
                  r.setrlimit(r.RLIMIT_CORE, (0, 0))\n\
                  r.prlimit(0, r.RLIMIT_CORE, (0, 0))\n\
                  print(r.getrlimit(r.RLIMIT_CORE))\n\
                  r.setrlimit(r.RLIMIT_NOFILE, (99, 99))\n\
                  print(r.getrlimit(r.RLIMIT_NOFILE))\n";
    assert_eq!(Bed::new().python(script).ok(), "(1, 1)\n(99, 99)\n");
}

#[test]
fn a_flood_of_processes_ends_at_the_limit() {
    let script = "import os\n\
                  n = 0\n\
                  try:\n\
                  \x20while True:\n\
                  \x20 if os.fork() == 0: __import__('signal').pause()\n\
                  \x20 n += 1\n\
                  except BlockingIOError: print(90 < n < 100)\n";
    let bed = Bed::new();
    let policies = bed.directory("policies");
    bed.file(
        "policies/few.toml",
        "description = \"d\"\nextends = \"workspace\"\n[limits]\nprocesses = 100\n",
    );
    let mut command = std::process::Command::new(crate::bed::runner());
    command
        .args(["sandbox", "run", "--policy", "few", "--policy-dir"])
        .arg(policies)
        .arg("--cwd");
    command
        .arg(bed.workspace())
        .args(["--", "/usr/bin/python3", "-c", script]);
    assert_eq!(crate::bed::end(&mut command).ok(), "True\n");
}

#[test]
fn a_harness_cannot_signal_what_is_outside() {
    let bed = Bed::new();
    let own = std::process::id();
    assert_ne!(bed.sh(&format!("kill -0 {own}")).code, 0);
}
