//! What a harness may ask of the kernel.

use nix::libc;

use crate::bed::Bed;

#[test]
fn calls_whose_arguments_no_filter_sees_do_not_exist() {
    // Libraries fall back to the older calls when these answer that there are none.
    let script = format!(
        "import ctypes, errno\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         for number in {}, {}:\n\
         \x20print(libc.syscall(number, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])\n",
        libc::SYS_clone3,
        libc::SYS_openat2
    );
    assert_eq!(Bed::new().python(&script).ok(), "-1 ENOSYS\n-1 ENOSYS\n");
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
fn the_limits_are_those_of_the_policy() {
    let script = "ulimit -c; ulimit -n; ulimit -u; ulimit -d; echo $(($(stat -f -c '%b * %S' /tmp)))";
    let said = "0\n16384\n4096\n16777216\n4294967296\n";
    assert_eq!(Bed::new().run(&["bash", "-c", script]).ok(), said);
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
