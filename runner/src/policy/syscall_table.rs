//! The numbers of the system calls, as data for both architectures, whichever this was built for.
//!
//! From the kernel's tables (`syscall_64.tbl` of x86, `scripts/syscall.tbl`) up to Linux 6.19. A call that is not here
//! yet counts as unknown: an allow list answers it as a kernel without it would.

use super::syscall::Syscall;

const fn both(name: &'static str, x86_64: u16, aarch64: u16) -> Syscall {
    Syscall::at(name, Some(x86_64), Some(aarch64))
}

const fn x86_64(name: &'static str, number: u16) -> Syscall {
    Syscall::at(name, Some(number), None)
}

/// By name, in order.
pub(super) const TABLE: &[Syscall] = &[
    x86_64("_sysctl", 156),
    both("accept", 43, 202),
    both("accept4", 288, 242),
    x86_64("access", 21),
    both("acct", 163, 89),
    both("add_key", 248, 217),
    both("adjtimex", 159, 171),
    x86_64("afs_syscall", 183),
    x86_64("alarm", 37),
    x86_64("arch_prctl", 158),
    both("bind", 49, 200),
    both("bpf", 321, 280),
    both("brk", 12, 214),
    both("cachestat", 451, 451),
    both("capget", 125, 90),
    both("capset", 126, 91),
    both("chdir", 80, 49),
    x86_64("chmod", 90),
    x86_64("chown", 92),
    both("chroot", 161, 51),
    both("clock_adjtime", 305, 266),
    both("clock_getres", 229, 114),
    both("clock_gettime", 228, 113),
    both("clock_nanosleep", 230, 115),
    both("clock_settime", 227, 112),
    both("clone", 56, 220),
    both("clone3", 435, 435),
    both("close", 3, 57),
    both("close_range", 436, 436),
    both("connect", 42, 203),
    both("copy_file_range", 326, 285),
    x86_64("creat", 85),
    x86_64("create_module", 174),
    both("delete_module", 176, 106),
    both("dup", 32, 23),
    x86_64("dup2", 33),
    both("dup3", 292, 24),
    x86_64("epoll_create", 213),
    both("epoll_create1", 291, 20),
    both("epoll_ctl", 233, 21),
    x86_64("epoll_ctl_old", 214),
    both("epoll_pwait", 281, 22),
    both("epoll_pwait2", 441, 441),
    x86_64("epoll_wait", 232),
    x86_64("epoll_wait_old", 215),
    x86_64("eventfd", 284),
    both("eventfd2", 290, 19),
    both("execve", 59, 221),
    both("execveat", 322, 281),
    both("exit", 60, 93),
    both("exit_group", 231, 94),
    both("faccessat", 269, 48),
    both("faccessat2", 439, 439),
    both("fadvise64", 221, 223),
    both("fallocate", 285, 47),
    both("fanotify_init", 300, 262),
    both("fanotify_mark", 301, 263),
    both("fchdir", 81, 50),
    both("fchmod", 91, 52),
    both("fchmodat", 268, 53),
    both("fchmodat2", 452, 452),
    both("fchown", 93, 55),
    both("fchownat", 260, 54),
    both("fcntl", 72, 25),
    both("fdatasync", 75, 83),
    both("fgetxattr", 193, 10),
    both("file_getattr", 468, 468),
    both("file_setattr", 469, 469),
    both("finit_module", 313, 273),
    both("flistxattr", 196, 13),
    both("flock", 73, 32),
    x86_64("fork", 57),
    both("fremovexattr", 199, 16),
    both("fsconfig", 431, 431),
    both("fsetxattr", 190, 7),
    both("fsmount", 432, 432),
    both("fsopen", 430, 430),
    both("fspick", 433, 433),
    both("fstat", 5, 80),
    both("fstatfs", 138, 44),
    both("fsync", 74, 82),
    both("ftruncate", 77, 46),
    both("futex", 202, 98),
    both("futex_requeue", 456, 456),
    both("futex_wait", 455, 455),
    both("futex_waitv", 449, 449),
    both("futex_wake", 454, 454),
    x86_64("futimesat", 261),
    x86_64("get_kernel_syms", 177),
    both("get_mempolicy", 239, 236),
    both("get_robust_list", 274, 100),
    x86_64("get_thread_area", 211),
    both("getcpu", 309, 168),
    both("getcwd", 79, 17),
    x86_64("getdents", 78),
    both("getdents64", 217, 61),
    both("getegid", 108, 177),
    both("geteuid", 107, 175),
    both("getgid", 104, 176),
    both("getgroups", 115, 158),
    both("getitimer", 36, 102),
    both("getpeername", 52, 205),
    both("getpgid", 121, 155),
    x86_64("getpgrp", 111),
    both("getpid", 39, 172),
    x86_64("getpmsg", 181),
    both("getppid", 110, 173),
    both("getpriority", 140, 141),
    both("getrandom", 318, 278),
    both("getresgid", 120, 150),
    both("getresuid", 118, 148),
    both("getrlimit", 97, 163),
    both("getrusage", 98, 165),
    both("getsid", 124, 156),
    both("getsockname", 51, 204),
    both("getsockopt", 55, 209),
    both("gettid", 186, 178),
    both("gettimeofday", 96, 169),
    both("getuid", 102, 174),
    both("getxattr", 191, 8),
    both("getxattrat", 464, 464),
    both("init_module", 175, 105),
    both("inotify_add_watch", 254, 27),
    x86_64("inotify_init", 253),
    both("inotify_init1", 294, 26),
    both("inotify_rm_watch", 255, 28),
    both("io_cancel", 210, 3),
    both("io_destroy", 207, 1),
    both("io_getevents", 208, 4),
    both("io_pgetevents", 333, 292),
    both("io_setup", 206, 0),
    both("io_submit", 209, 2),
    both("io_uring_enter", 426, 426),
    both("io_uring_register", 427, 427),
    both("io_uring_setup", 425, 425),
    both("ioctl", 16, 29),
    x86_64("ioperm", 173),
    x86_64("iopl", 172),
    both("ioprio_get", 252, 31),
    both("ioprio_set", 251, 30),
    both("kcmp", 312, 272),
    both("kexec_file_load", 320, 294),
    both("kexec_load", 246, 104),
    both("keyctl", 250, 219),
    both("kill", 62, 129),
    both("landlock_add_rule", 445, 445),
    both("landlock_create_ruleset", 444, 444),
    both("landlock_restrict_self", 446, 446),
    x86_64("lchown", 94),
    both("lgetxattr", 192, 9),
    x86_64("link", 86),
    both("linkat", 265, 37),
    both("listen", 50, 201),
    both("listmount", 458, 458),
    both("listns", 470, 470),
    both("listxattr", 194, 11),
    both("listxattrat", 465, 465),
    both("llistxattr", 195, 12),
    both("lookup_dcookie", 212, 18),
    both("lremovexattr", 198, 15),
    both("lseek", 8, 62),
    both("lsetxattr", 189, 6),
    both("lsm_get_self_attr", 459, 459),
    both("lsm_list_modules", 461, 461),
    both("lsm_set_self_attr", 460, 460),
    x86_64("lstat", 6),
    both("madvise", 28, 233),
    both("map_shadow_stack", 453, 453),
    both("mbind", 237, 235),
    both("membarrier", 324, 283),
    both("memfd_create", 319, 279),
    both("memfd_secret", 447, 447),
    both("migrate_pages", 256, 238),
    both("mincore", 27, 232),
    x86_64("mkdir", 83),
    both("mkdirat", 258, 34),
    x86_64("mknod", 133),
    both("mknodat", 259, 33),
    both("mlock", 149, 228),
    both("mlock2", 325, 284),
    both("mlockall", 151, 230),
    both("mmap", 9, 222),
    x86_64("modify_ldt", 154),
    both("mount", 165, 40),
    both("mount_setattr", 442, 442),
    both("move_mount", 429, 429),
    both("move_pages", 279, 239),
    both("mprotect", 10, 226),
    both("mq_getsetattr", 245, 185),
    both("mq_notify", 244, 184),
    both("mq_open", 240, 180),
    both("mq_timedreceive", 243, 183),
    both("mq_timedsend", 242, 182),
    both("mq_unlink", 241, 181),
    both("mremap", 25, 216),
    both("mseal", 462, 462),
    both("msgctl", 71, 187),
    both("msgget", 68, 186),
    both("msgrcv", 70, 188),
    both("msgsnd", 69, 189),
    both("msync", 26, 227),
    both("munlock", 150, 229),
    both("munlockall", 152, 231),
    both("munmap", 11, 215),
    both("name_to_handle_at", 303, 264),
    both("nanosleep", 35, 101),
    both("newfstatat", 262, 79),
    both("nfsservctl", 180, 42),
    x86_64("open", 2),
    both("open_by_handle_at", 304, 265),
    both("open_tree", 428, 428),
    both("open_tree_attr", 467, 467),
    both("openat", 257, 56),
    both("openat2", 437, 437),
    x86_64("pause", 34),
    both("perf_event_open", 298, 241),
    both("personality", 135, 92),
    both("pidfd_getfd", 438, 438),
    both("pidfd_open", 434, 434),
    both("pidfd_send_signal", 424, 424),
    x86_64("pipe", 22),
    both("pipe2", 293, 59),
    both("pivot_root", 155, 41),
    both("pkey_alloc", 330, 289),
    both("pkey_free", 331, 290),
    both("pkey_mprotect", 329, 288),
    x86_64("poll", 7),
    both("ppoll", 271, 73),
    both("prctl", 157, 167),
    both("pread64", 17, 67),
    both("preadv", 295, 69),
    both("preadv2", 327, 286),
    both("prlimit64", 302, 261),
    both("process_madvise", 440, 440),
    both("process_mrelease", 448, 448),
    both("process_vm_readv", 310, 270),
    both("process_vm_writev", 311, 271),
    both("pselect6", 270, 72),
    both("ptrace", 101, 117),
    x86_64("putpmsg", 182),
    both("pwrite64", 18, 68),
    both("pwritev", 296, 70),
    both("pwritev2", 328, 287),
    x86_64("query_module", 178),
    both("quotactl", 179, 60),
    both("quotactl_fd", 443, 443),
    both("read", 0, 63),
    both("readahead", 187, 213),
    x86_64("readlink", 89),
    both("readlinkat", 267, 78),
    both("readv", 19, 65),
    both("reboot", 169, 142),
    both("recvfrom", 45, 207),
    both("recvmmsg", 299, 243),
    both("recvmsg", 47, 212),
    both("remap_file_pages", 216, 234),
    both("removexattr", 197, 14),
    both("removexattrat", 466, 466),
    x86_64("rename", 82),
    both("renameat", 264, 38),
    both("renameat2", 316, 276),
    both("request_key", 249, 218),
    both("restart_syscall", 219, 128),
    x86_64("rmdir", 84),
    both("rseq", 334, 293),
    both("rt_sigaction", 13, 134),
    both("rt_sigpending", 127, 136),
    both("rt_sigprocmask", 14, 135),
    both("rt_sigqueueinfo", 129, 138),
    both("rt_sigreturn", 15, 139),
    both("rt_sigsuspend", 130, 133),
    both("rt_sigtimedwait", 128, 137),
    both("rt_tgsigqueueinfo", 297, 240),
    both("sched_get_priority_max", 146, 125),
    both("sched_get_priority_min", 147, 126),
    both("sched_getaffinity", 204, 123),
    both("sched_getattr", 315, 275),
    both("sched_getparam", 143, 121),
    both("sched_getscheduler", 145, 120),
    both("sched_rr_get_interval", 148, 127),
    both("sched_setaffinity", 203, 122),
    both("sched_setattr", 314, 274),
    both("sched_setparam", 142, 118),
    both("sched_setscheduler", 144, 119),
    both("sched_yield", 24, 124),
    both("seccomp", 317, 277),
    x86_64("security", 185),
    x86_64("select", 23),
    both("semctl", 66, 191),
    both("semget", 64, 190),
    both("semop", 65, 193),
    both("semtimedop", 220, 192),
    both("sendfile", 40, 71),
    both("sendmmsg", 307, 269),
    both("sendmsg", 46, 211),
    both("sendto", 44, 206),
    both("set_mempolicy", 238, 237),
    both("set_mempolicy_home_node", 450, 450),
    both("set_robust_list", 273, 99),
    x86_64("set_thread_area", 205),
    both("set_tid_address", 218, 96),
    both("setdomainname", 171, 162),
    both("setfsgid", 123, 152),
    both("setfsuid", 122, 151),
    both("setgid", 106, 144),
    both("setgroups", 116, 159),
    both("sethostname", 170, 161),
    both("setitimer", 38, 103),
    both("setns", 308, 268),
    both("setpgid", 109, 154),
    both("setpriority", 141, 140),
    both("setregid", 114, 143),
    both("setresgid", 119, 149),
    both("setresuid", 117, 147),
    both("setreuid", 113, 145),
    both("setrlimit", 160, 164),
    both("setsid", 112, 157),
    both("setsockopt", 54, 208),
    both("settimeofday", 164, 170),
    both("setuid", 105, 146),
    both("setxattr", 188, 5),
    both("setxattrat", 463, 463),
    both("shmat", 30, 196),
    both("shmctl", 31, 195),
    both("shmdt", 67, 197),
    both("shmget", 29, 194),
    both("shutdown", 48, 210),
    both("sigaltstack", 131, 132),
    x86_64("signalfd", 282),
    both("signalfd4", 289, 74),
    both("socket", 41, 198),
    both("socketpair", 53, 199),
    both("splice", 275, 76),
    x86_64("stat", 4),
    both("statfs", 137, 43),
    both("statmount", 457, 457),
    both("statx", 332, 291),
    both("swapoff", 168, 225),
    both("swapon", 167, 224),
    x86_64("symlink", 88),
    both("symlinkat", 266, 36),
    both("sync", 162, 81),
    both("sync_file_range", 277, 84),
    both("syncfs", 306, 267),
    x86_64("sysfs", 139),
    both("sysinfo", 99, 179),
    both("syslog", 103, 116),
    both("tee", 276, 77),
    both("tgkill", 234, 131),
    x86_64("time", 201),
    both("timer_create", 222, 107),
    both("timer_delete", 226, 111),
    both("timer_getoverrun", 225, 109),
    both("timer_gettime", 224, 108),
    both("timer_settime", 223, 110),
    both("timerfd_create", 283, 85),
    both("timerfd_gettime", 287, 87),
    both("timerfd_settime", 286, 86),
    both("times", 100, 153),
    both("tkill", 200, 130),
    both("truncate", 76, 45),
    x86_64("tuxcall", 184),
    both("umask", 95, 166),
    both("umount2", 166, 39),
    both("uname", 63, 160),
    x86_64("unlink", 87),
    both("unlinkat", 263, 35),
    both("unshare", 272, 97),
    x86_64("uprobe", 336),
    x86_64("uretprobe", 335),
    x86_64("uselib", 134),
    both("userfaultfd", 323, 282),
    x86_64("ustat", 136),
    x86_64("utime", 132),
    both("utimensat", 280, 88),
    x86_64("utimes", 235),
    x86_64("vfork", 58),
    both("vhangup", 153, 58),
    both("vmsplice", 278, 75),
    x86_64("vserver", 236),
    both("wait4", 61, 260),
    both("waitid", 247, 95),
    both("write", 1, 64),
    both("writev", 20, 66),
];

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::super::syscall::Architecture;
    use super::*;

    #[test]
    fn the_table_is_in_order_and_gives_no_number_twice() {
        assert!(TABLE.is_sorted_by(|one, next| one.name() < next.name()));
        for architecture in Architecture::ALL {
            let mut numbers: Vec<i64> = TABLE
                .iter()
                .filter_map(|call| call.number(architecture))
                .collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all, "{architecture:?}");
            assert!(all > 300, "{architecture:?}");
        }
    }

    /// Every constant of the C library must be in the table, with the same number.
    macro_rules! agree {
        ($($constant:ident)*) => {$(
            let name = stringify!($constant).trim_start_matches("SYS_");
            let call = Syscall::try_from(name.to_owned()).unwrap();
            assert_eq!(call.number(Architecture::NATIVE), Some(libc::$constant), "{name}");
            assert_eq!(Syscall::of(libc::$constant, Architecture::NATIVE), Some(call));
        )*};
    }

    #[test]
    fn the_column_of_this_architecture_is_what_the_c_library_says() {
        agree! {
            SYS_accept SYS_accept4 SYS_acct SYS_add_key SYS_adjtimex SYS_bind SYS_bpf SYS_brk SYS_capget
            SYS_capset SYS_chdir SYS_chroot SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime
            SYS_clock_nanosleep SYS_clock_settime SYS_clone SYS_clone3 SYS_close SYS_close_range
            SYS_connect SYS_copy_file_range SYS_delete_module SYS_dup SYS_dup3 SYS_epoll_create1
            SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit
            SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_init
            SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl
            SYS_fdatasync SYS_fgetxattr SYS_finit_module SYS_flistxattr SYS_flock SYS_fremovexattr
            SYS_fsconfig SYS_fsetxattr SYS_fsmount SYS_fsopen SYS_fspick SYS_fstat SYS_fstatfs SYS_fsync
            SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_mempolicy SYS_get_robust_list SYS_getcpu
            SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer
            SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom
            SYS_getresgid SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname
            SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_init_module
            SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy
            SYS_io_getevents SYS_io_setup SYS_io_submit SYS_io_uring_enter SYS_io_uring_register
            SYS_io_uring_setup SYS_ioctl SYS_ioprio_get SYS_ioprio_set SYS_kcmp SYS_kexec_file_load
            SYS_kexec_load SYS_keyctl SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
            SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr
            SYS_lookup_dcookie SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_mbind
            SYS_membarrier SYS_memfd_create SYS_memfd_secret SYS_migrate_pages SYS_mincore SYS_mkdirat
            SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mount SYS_mount_setattr
            SYS_move_mount SYS_move_pages SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open
            SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_mseal SYS_msgctl
            SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap
            SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_nfsservctl SYS_open_by_handle_at
            SYS_open_tree SYS_openat SYS_openat2 SYS_perf_event_open SYS_personality SYS_pidfd_getfd
            SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pivot_root SYS_pkey_alloc SYS_pkey_free
            SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64
            SYS_process_madvise SYS_process_mrelease SYS_process_vm_readv SYS_process_vm_writev
            SYS_pselect6 SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_quotactl SYS_quotactl_fd
            SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_reboot SYS_recvfrom SYS_recvmmsg
            SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat SYS_renameat2 SYS_request_key
            SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask
            SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
            SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max SYS_sched_get_priority_min
            SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler
            SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam
            SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop
            SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_mempolicy
            SYS_set_mempolicy_home_node SYS_set_robust_list SYS_set_tid_address SYS_setdomainname
            SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_sethostname SYS_setitimer SYS_setns
            SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
            SYS_setrlimit SYS_setsid SYS_setsockopt SYS_settimeofday SYS_setuid SYS_setxattr SYS_shmat
            SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socket
            SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_swapoff SYS_swapon SYS_symlinkat SYS_sync
            SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_syslog SYS_tee SYS_tgkill SYS_timer_create
            SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create
            SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask
            SYS_umount2 SYS_uname SYS_unlinkat SYS_unshare SYS_userfaultfd SYS_utimensat SYS_vhangup
            SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_calls_that_only_x86_64_has_are_what_the_c_library_says() {
        agree! {
            SYS__sysctl SYS_access SYS_afs_syscall SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown
            SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old SYS_epoll_wait SYS_epoll_wait_old
            SYS_eventfd SYS_fchmodat2 SYS_fork SYS_futimesat SYS_get_thread_area SYS_getdents
            SYS_getpgrp SYS_getpmsg SYS_inotify_init SYS_ioperm SYS_iopl SYS_lchown SYS_link SYS_lstat
            SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_putpmsg
            SYS_readlink SYS_rename SYS_rmdir SYS_security SYS_select SYS_set_thread_area SYS_signalfd
            SYS_stat SYS_symlink SYS_sysfs SYS_time SYS_tuxcall SYS_unlink SYS_uselib SYS_ustat
            SYS_utime SYS_utimes SYS_vfork SYS_vserver
        }
    }
}
