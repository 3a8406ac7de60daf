//! Safe wrappers over what the kernel offers and the standard library does not.
//!
//! Floor: ground. Every function is one idea of the kernel in our words; errors are the kernel's own.

use std::ffi::OsString;
use std::fs::File;
use std::fs::Permissions;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, FallocateFlags, FcntlArg, FdFlag, OFlag, OpenHow, ResolveFlag, SealFlag, fallocate, fcntl,
    openat, openat2, renameat,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, unlinkat};
use oqto_protocol::id::Digest;

/// The running kernel's release, as `uname -r` says it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn kernel_release() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}

/// The digest of the program that this process runs, whatever lies at its path by now.
///
/// # Errors
/// `/proc` or the program cannot be read.
pub fn own_digest() -> io::Result<Digest> {
    let mut program = File::open("/proc/self/exe")?;
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut piece = vec![0; 256 * 1024];
    loop {
        match program.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => hash.update(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let digest = hash.finish();
    let digest = digest.as_ref().try_into().map_err(io::Error::other)?;
    Ok(Digest(digest))
}

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

/// Keeps blocks of the disk for what will be written to a range; the file's length stays.
///
/// # Errors
/// When there is no room, or the file system keeps none.
pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = |number: u64| i64::try_from(number).map_err(|_| io::ErrorKind::InvalidInput);
    let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
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

/// Begins a new audit session for this process and all that it starts, as that of the user `uid`. The kernel allows it
/// once to anybody, and again to `CAP_AUDIT_CONTROL`, so nothing inside a sandbox can leave its own.
///
/// # Errors
/// When this process has a session and may not leave it, or the kernel was built without audit.
pub fn begin_audit_session(uid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/loginuid", uid.to_string())
}

/// Locks a file that is open for writing, until this process ends or closes any descriptor of it. What it starts has
/// no part in the lock.
///
/// # Errors
/// When somebody else has locked it.
pub fn lock(file: impl AsFd) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETLK(&whole_file()))?;
    Ok(())
}

/// The process that holds a file by [`lock`], as the kernel knows it; `None` when none does.
///
/// # Errors
/// When the file cannot be asked for locks.
pub fn lock_holder(file: impl AsFd) -> io::Result<Option<i32>> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    let is_free = i32::from(lock.l_type) == nix::libc::F_UNLCK;
    Ok((!is_free).then_some(lock.l_pid))
}

fn whole_file() -> nix::libc::flock {
    nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The real user of a process; `None` when it is gone.
///
/// # Errors
/// When `/proc` is not there or does not say.
pub fn real_uid_of(pid: i32) -> io::Result<Option<u32>> {
    let status = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound)
                || error.raw_os_error() == Some(nix::libc::ESRCH) =>
        {
            return Ok(None);
        }
        status => status?,
    };
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = uids.and_then(|uids| uids.split_ascii_whitespace().next()?.parse().ok());
    uid.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}

/// Whether a process has died and something of it is left: a thread that is not gone yet, or its end, which nobody has
/// asked for.
#[must_use]
pub fn is_dead(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let state = |status: &str| {
        let state = status.lines().find_map(|line| line.strip_prefix("State:"))?;
        state.trim_start().chars().next()
    };
    status.is_ok_and(|status| matches!(state(&status), Some('Z' | 'X')))
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

/// Asks everything that this process has started, and what that has started, to end. Where some of it is in a process
/// namespace of its own only that is asked: what holds the namespace would take the others with it unasked.
///
/// # Errors
/// When `/proc` does not show this process.
pub fn terminate_descendants() -> io::Result<()> {
    let own_depth = Family::of(nix::unistd::getpid().as_raw())?.depth;
    let mut found: Vec<(OwnedFd, usize)> = Vec::new();
    let mut left = vec![nix::unistd::getpid().as_raw()];
    while let Some(parent) = left.pop() {
        for pid in children(parent) {
            let Some(process) = rustix::process::Pid::from_raw(pid) else {
                continue;
            };
            // What is held cannot become another process, and what it is then is looked at after that. One that is gone
            // meanwhile has ended.
            let held = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty());
            if let (Ok(held), Ok(family)) = (held, Family::of(pid))
                && family.parent == parent
                && found.len() < DESCENDANTS_MAX
            {
                found.push((held, family.depth));
                left.push(pid);
            }
        }
    }
    let any_inside = found.iter().any(|(_, depth)| *depth > own_depth);
    for (process, depth) in found {
        if !any_inside || depth > own_depth {
            // It may have ended, which is what it was to do.
            let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM);
        }
    }
    Ok(())
}

/// How many processes are asked to end: each is held by a descriptor until all are. The others end with those that
/// started them, or are killed.
const DESCENDANTS_MAX: usize = 512;

/// Where a process belongs.
struct Family {
    parent: i32,
    /// How many process namespaces deep it is.
    depth: usize,
}

impl Family {
    fn of(pid: i32) -> io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let parent = line("PPid:").and_then(|text| text.trim().parse().ok());
        let depth = line("NSpid:").map(|text| text.split_ascii_whitespace().count());
        match (parent, depth) {
            (Some(parent), Some(depth)) => Ok(Self { parent, depth }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The children of a process, by whichever of its threads; none when it is gone.
fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|pids| {
            let pids: Vec<i32> = pids
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect();
            pids
        })
        .collect()
}

/// A file or directory, held and not opened, on whose path there is no link at all.
///
/// # Errors
/// Among others `ELOOP`, when there is one.
pub fn open_straight(path: &Path) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(AT_FDCWD, path, how)?.into())
}

/// Opens a plain file under its own name to read it: no link, and nothing that keeps its reader waiting.
///
/// # Errors
/// When it is not there, is something else, or cannot be opened.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no plain file")),
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

/// What a plain file below `directory` is and holds, reached by these names without following a link; `None` when it
/// or a directory on the way is not there, and no bytes when it is longer than `len_max`.
///
/// # Errors
/// When there is a link on the way, or it is no plain file, or cannot be read.
pub fn read_below(
    directory: &Path,
    names: &[&str],
    len_max: u64,
) -> io::Result<Option<(std::fs::Metadata, Option<Vec<u8>>)>> {
    let held = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let plain = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = openat(AT_FDCWD, directory, held, Mode::empty())?;
    for (step, name) in names.iter().enumerate() {
        let flags = if step + 1 == names.len() { plain } else { held };
        at = match openat(&at, *name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    let file = File::from(at);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(len_max + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 <= len_max;
    Ok(Some((metadata, whole.then_some(bytes))))
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Whether it is a directory, and no link to one.
    pub is_dir: bool,
    /// When it was written last.
    pub modified: SystemTime,
}

/// What is in a directory below `directory`, reached by these names without following a link: directories and plain files,
/// as far as they have names that are text, out of the first `looked_at_max`. Nothing where the directory is not there.
///
/// # Errors
/// When there is a link or no directory on the way, or it cannot be read.
pub fn names_below(directory: &Path, names: &[&str], looked_at_max: usize) -> io::Result<Vec<Listed>> {
    let held = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = openat(AT_FDCWD, directory, held, Mode::empty())?;
    for name in names {
        at = match openat(&at, *name, held, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(by_number(&at))?.take(looked_at_max) {
        let entry = entry?;
        // Of the name itself, whatever it leads to.
        let Ok(metadata) = entry.metadata() else { continue };
        let is_dir = metadata.is_dir();
        if let Ok(name) = entry.file_name().into_string()
            && (is_dir || metadata.is_file())
        {
            let modified = metadata.modified()?;
            found.push(Listed {
                name,
                is_dir,
                modified,
            });
        }
    }
    Ok(found)
}

/// Removes a directory with everything in it, whoever filled it.
///
/// It follows no link, opens directories that their owner closed, and needs a handful of descriptors and the same
/// stack however deep the tree is: what lies deeper is lifted up a level at a time. The standard library's needs a
/// descriptor and a piece of stack for each level, and ends this process where it runs out of the latter.
///
/// # Errors
/// When it is not there, or something in it cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = open_closed(AT_FDCWD, path)?;
    let mut lifted = 0_u64;
    loop {
        let names = listed(&top)?;
        if names.is_empty() {
            return std::fs::remove_dir(path);
        }
        for (name, is_dir) in names {
            if !is_dir {
                unlinkat(&top, Path::new(&name), UnlinkatFlags::NoRemoveDir)?;
            } else if unlinkat(&top, Path::new(&name), UnlinkatFlags::RemoveDir).is_err() {
                lift(&top, Path::new(&name), &mut lifted)?;
                unlinkat(&top, Path::new(&name), UnlinkatFlags::RemoveDir)?;
            }
        }
    }
}

/// Empties the directory `name` of `top`: its directories go up to `top`, under names that count.
fn lift(top: &OwnedFd, name: &Path, lifted: &mut u64) -> io::Result<()> {
    let dir = open_closed(top, name)?;
    for (name, is_dir) in listed(&dir)? {
        let name = Path::new(&name);
        if !is_dir {
            unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
            continue;
        }
        // A directory can be moved by who may write into it.
        drop(open_closed(&dir, name)?);
        loop {
            *lifted += 1;
            match renameat(&dir, name, top, Path::new(&format!(".lifted-{lifted}"))) {
                // Somebody foresaw the name, and was lazy enough to do so for finitely many.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                moved => break moved?,
            }
        }
    }
    Ok(())
}

/// Opens a directory, after making it readable and writable for its owner.
fn open_closed(at: impl AsFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let held = File::from(openat(at, name, flags | OFlag::O_PATH, Mode::empty())?);
    if held.metadata()?.permissions().mode() & 0o700 != 0o700 {
        // By a descriptor, so that it cannot become another one's mode. Opening says what comes of it.
        let _ = std::fs::set_permissions(by_number(&held), Permissions::from_mode(0o700));
    }
    Ok(openat(&held, c".", flags, Mode::empty())?)
}

/// What is in a directory, and whether each is a directory.
fn listed(dir: &OwnedFd) -> io::Result<Vec<(OsString, bool)>> {
    let entries = std::fs::read_dir(by_number(dir))?;
    entries
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), entry.file_type()?.is_dir()))
        })
        .collect()
}

fn by_number(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
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
    fn a_tree_is_removed_however_deep_and_closed_it_is_and_no_link_is_followed() {
        let above = tempfile::tempdir().unwrap();
        let (tree, outside) = (above.path().join("tree"), above.path().join("outside"));
        std::fs::create_dir_all(tree.join("closed/inner/deeper")).unwrap();
        std::fs::create_dir_all(tree.join(".lifted-1/full")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("closed/inner/link")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        for (path, mode) in [("closed/inner/deeper", 0), ("closed/inner", 0o500), ("closed", 0)] {
            std::fs::set_permissions(tree.join(path), Permissions::from_mode(mode)).unwrap();
        }
        let mut at = open_closed(AT_FDCWD, &tree).unwrap();
        for _ in 0..20_000 {
            nix::sys::stat::mkdirat(&at, c"deep", Mode::S_IRWXU).unwrap();
            at = open_closed(&at, Path::new("deep")).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
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
