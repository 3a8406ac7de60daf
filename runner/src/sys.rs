//! Safe wrappers over what the kernel offers and the standard library does not.
//!
//! Floor: ground. Every function is one idea of the kernel in our words; errors are the kernel's own.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FallocateFlags, FcntlArg, FdFlag, OFlag, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid};

/// Names this boot of the kernel. Process ids and unsynced writes mean nothing across two of them.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim_end()
        .to_owned())
}

/// A file in memory that holds `bytes`, stands at their start and can never change again. It is closed on exec
/// until [`inherit`] says otherwise.
///
/// # Errors
/// When the kernel has no memory or descriptors left.
pub fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"data", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Lets the programs that this process starts inherit `fd`.
///
/// # Errors
/// When the descriptor is not open.
pub fn inherit(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Closes every descriptor but the three standard streams: those that whoever started this process forgot to keep
/// to itself. Call it first of all, before anything of our own is open.
///
/// # Errors
/// When `/proc` is not there.
pub fn close_inherited() -> io::Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for fd in found.into_iter().filter(|fd| *fd > 2) {
        // The listing's own is among them and closed already.
        let _closed = nix::unistd::close(fd);
    }
    Ok(())
}

/// Makes reads and writes of `fd` return instead of waiting.
///
/// # Errors
/// When the descriptor is not open.
pub fn never_block(fd: impl AsFd) -> io::Result<()> {
    let now = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(now | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Gives the disk blocks of a range back to the file system; offsets and the file's length stay.
///
/// # Errors
/// Among others [`io::ErrorKind::Unsupported`] when the file system cannot.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = |number: u64| i64::try_from(number).map_err(|_| io::ErrorKind::InvalidInput);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, range(offset)?, range(len)?)?;
    Ok(())
}

/// The user on the other end of a unix socket, as the kernel saw it when the connection was made.
///
/// # Errors
/// When the descriptor is no unix socket.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(&socket, PeerCredentials)?.uid())
}

/// The user this process acts as.
#[must_use]
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}

/// Becomes this user and group for good, with no other groups. Only root can.
///
/// # Errors
/// When the kernel refuses, or when the old identity could still be taken back.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    let root = Uid::from_raw(0);
    if !user.is_root() && nix::unistd::setresuid(root, root, root).is_ok() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Kills and reaps every child of this process, and what they leave behind when it is a subreaper.
///
/// For a process of one thread whose own children have all been waited for.
pub fn end_children() {
    let children = || std::fs::read_to_string(format!("/proc/self/task/{}/children", nix::unistd::gettid()));
    while let Ok(pids) = children() {
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // It is ours and not reaped, so the number is nobody else's.
            let _dead_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitpid(None, None).is_err() {
            return;
        }
    }
}

/// The bytes of a plain file; `None` when it is longer than `len_max`.
///
/// # Errors
/// When it is not there, is no plain file, or cannot be read.
pub fn read_bounded(path: &Path, len_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(len_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= len_max).then_some(bytes))
}

/// How much of this process is in memory, in bytes; `None` where `/proc` does not tell.
#[must_use]
pub fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn sealed_memory_reads_from_its_start_and_refuses_writes() {
        let mut file = File::from(sealed_memory(b"rules").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "rules");
        assert!(file.write_all(b"!").is_err());
    }

    #[test]
    fn a_punched_file_keeps_its_length() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 65536]).unwrap();
        match punch_hole(&file, 0, 65536) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            other => other.unwrap(),
        }
        assert_eq!(file.metadata().unwrap().len(), 65536);
    }
}
