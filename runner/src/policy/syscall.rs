//! The system calls that a policy may name.

use std::fmt;

use nix::libc;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A system call by name, one of the table below, so that a misspelt name stops the policy and not nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Syscall(&'static str);

/// No system call of that name is in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system call {name} is not known to this version")]
pub struct UnknownSyscall {
    name: String,
}

impl Syscall {
    /// Its number on the architecture this was built for; `None` where that architecture never had it.
    #[must_use]
    pub fn number(self) -> Option<i64> {
        TABLE
            .iter()
            .find(|(name, _)| *name == self.0)
            .and_then(|(_, number)| *number)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }
}

impl TryFrom<String> for Syscall {
    type Error = UnknownSyscall;

    fn try_from(name: String) -> Result<Self, UnknownSyscall> {
        match TABLE.iter().find(|(known, _)| *known == name) {
            Some((known, _)) => Ok(Self(known)),
            None => Err(UnknownSyscall { name }),
        }
    }
}

// By hand, since the derived one would ask for texts that live as long as the table does.
impl<'de> Deserialize<'de> for Syscall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl From<Syscall> for String {
    fn from(call: Syscall) -> Self {
        call.0.to_owned()
    }
}

impl fmt::Debug for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The architectures differ only in the calls that newer ones never got.
macro_rules! table {
    (everywhere { $($name:ident => $number:ident,)* } only_x86_64 { $($old:ident => $old_number:ident,)* }) => {
        const TABLE: &[(&str, Option<i64>)] = &[
            $((stringify!($name), Some(libc::$number)),)*
            $(
                #[cfg(target_arch = "x86_64")]
                (stringify!($old), Some(libc::$old_number)),
                #[cfg(not(target_arch = "x86_64"))]
                (stringify!($old), None),
            )*
        ];
    };
}

table! {
    everywhere {
    acct => SYS_acct,
    add_key => SYS_add_key,
    adjtimex => SYS_adjtimex,
    bpf => SYS_bpf,
    chroot => SYS_chroot,
    clock_adjtime => SYS_clock_adjtime,
    clock_settime => SYS_clock_settime,
    clone => SYS_clone,
    clone3 => SYS_clone3,
    delete_module => SYS_delete_module,
    fanotify_init => SYS_fanotify_init,
    fchmod => SYS_fchmod,
    fchmodat => SYS_fchmodat,
    fchmodat2 => SYS_fchmodat2,
    finit_module => SYS_finit_module,
    fsconfig => SYS_fsconfig,
    fsmount => SYS_fsmount,
    fsopen => SYS_fsopen,
    fspick => SYS_fspick,
    get_mempolicy => SYS_get_mempolicy,
    init_module => SYS_init_module,
    io_uring_enter => SYS_io_uring_enter,
    io_uring_register => SYS_io_uring_register,
    io_uring_setup => SYS_io_uring_setup,
    ioctl => SYS_ioctl,
    kcmp => SYS_kcmp,
    kexec_load => SYS_kexec_load,
    kexec_file_load => SYS_kexec_file_load,
    keyctl => SYS_keyctl,
    lookup_dcookie => SYS_lookup_dcookie,
    mbind => SYS_mbind,
    memfd_secret => SYS_memfd_secret,
    migrate_pages => SYS_migrate_pages,
    mknodat => SYS_mknodat,
    mount => SYS_mount,
    mount_setattr => SYS_mount_setattr,
    move_mount => SYS_move_mount,
    move_pages => SYS_move_pages,
    name_to_handle_at => SYS_name_to_handle_at,
    nfsservctl => SYS_nfsservctl,
    open_by_handle_at => SYS_open_by_handle_at,
    open_tree => SYS_open_tree,
    openat => SYS_openat,
    openat2 => SYS_openat2,
    perf_event_open => SYS_perf_event_open,
    personality => SYS_personality,
    pidfd_getfd => SYS_pidfd_getfd,
    pivot_root => SYS_pivot_root,
    prctl => SYS_prctl,
    prlimit64 => SYS_prlimit64,
    process_madvise => SYS_process_madvise,
    process_vm_readv => SYS_process_vm_readv,
    process_vm_writev => SYS_process_vm_writev,
    ptrace => SYS_ptrace,
    quotactl => SYS_quotactl,
    quotactl_fd => SYS_quotactl_fd,
    reboot => SYS_reboot,
    remap_file_pages => SYS_remap_file_pages,
    request_key => SYS_request_key,
    set_mempolicy => SYS_set_mempolicy,
    set_mempolicy_home_node => SYS_set_mempolicy_home_node,
    setdomainname => SYS_setdomainname,
    sethostname => SYS_sethostname,
    setns => SYS_setns,
    setrlimit => SYS_setrlimit,
    settimeofday => SYS_settimeofday,
    socket => SYS_socket,
    socketpair => SYS_socketpair,
    swapoff => SYS_swapoff,
    swapon => SYS_swapon,
    syslog => SYS_syslog,
    umount2 => SYS_umount2,
    unshare => SYS_unshare,
    userfaultfd => SYS_userfaultfd,
    vhangup => SYS_vhangup,
    }
    only_x86_64 {
    _sysctl => SYS__sysctl,
    chmod => SYS_chmod,
    creat => SYS_creat,
    ioperm => SYS_ioperm,
    iopl => SYS_iopl,
    mknod => SYS_mknod,
    modify_ldt => SYS_modify_ldt,
    open => SYS_open,
    sysfs => SYS_sysfs,
    uselib => SYS_uselib,
    ustat => SYS_ustat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_stands_in_the_table_twice() {
        for (at, (name, number)) in TABLE.iter().enumerate() {
            assert!(TABLE[at + 1..].iter().all(|(other, _)| other != name), "{name}");
            assert!(
                number.is_none() || TABLE[at + 1..].iter().all(|(_, other)| other != number),
                "{name}"
            );
        }
    }

    #[test]
    fn a_misspelt_call_is_an_error() {
        assert_eq!(
            Syscall::try_from("ptrase".to_owned()),
            Err(UnknownSyscall {
                name: "ptrase".to_owned()
            })
        );
    }
}
