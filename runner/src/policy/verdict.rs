//! What a plan allows: the one answer that is shown to people and held against the meeting of policies.

use super::path::AbsolutePath;
use super::pattern::Pattern;
use super::plan::{Network, Plan};
use super::rule::Limit;
use super::seccomp::Verdict;
use super::syscall::Syscall;

/// Something that a program may try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// To read a file of the host, or to list a directory.
    Read(AbsolutePath),
    /// To run a file of the host.
    Execute(AbsolutePath),
    /// To change a file of the host.
    Write(AbsolutePath),
    /// To talk to anything but its own loopback.
    Network,
    /// To connect to this TCP port.
    Connect(u16),
    /// To listen on this TCP port.
    Bind(u16),
    /// To make a system call.
    Call(Syscall, [u64; 6]),
    /// To learn a variable of whoever starts it.
    Variable(String),
    /// To use so much.
    Use(Limit, u64),
}

/// Why a file is given or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because<'a> {
    /// It is readable.
    Read(&'a Pattern),
    /// It is writable.
    Write(&'a Pattern),
    /// It is hidden.
    Hidden(&'a Pattern),
    /// It is protected.
    Protected(&'a Pattern),
    /// The sandbox has something of its own there, and the host's is out of sight.
    Own,
    /// Nothing gives it.
    NotGiven,
}

/// What may be done at a path, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVerdict<'a> {
    /// Whether what is there may be read and run.
    pub read: bool,
    /// Why.
    pub read_because: Because<'a>,
    /// Whether it may be changed.
    pub write: bool,
    /// Why.
    pub write_because: Because<'a>,
}

/// Where every sandbox has directories of its own that can be written, whatever its policy says.
pub(crate) const OWN: [&str; 4] = ["/home/agent", "/tmp", "/var/tmp", "/dev/shm"];

impl Plan {
    /// Whether a program may do it.
    #[must_use]
    pub fn allows(&self, probe: &Probe) -> bool {
        let unlimited = |ports: &Option<std::collections::BTreeSet<u16>>, port: &u16| {
            ports.as_ref().is_none_or(|ports| ports.contains(port))
        };
        match probe {
            Probe::Read(path) | Probe::Execute(path) => self.file(path).read,
            Probe::Write(path) => self.file(path).write,
            Probe::Network => self.network == Network::Host,
            Probe::Connect(port) => unlimited(&self.ports.connect, port),
            Probe::Bind(port) => unlimited(&self.ports.bind, port),
            Probe::Call(call, args) => self.calls.judge(Some(*call), args) == Verdict::Allowed,
            Probe::Variable(name) => self.env.pass.contains(name) && !self.env.set.contains_key(name),
            Probe::Use(limit, amount) => self.limits.limit(*limit).is_none_or(|most| *amount <= most),
        }
    }

    /// What may be done at a path that has no links in it.
    #[must_use]
    pub fn file(&self, path: &AbsolutePath) -> FileVerdict<'_> {
        let find = |patterns: &'_ [Pattern]| patterns.iter().position(|pattern| pattern.covers(path));
        let files = &self.files;
        let read = find(&files.read).map(|at| Because::Read(&files.read[at]));
        let write = find(&files.write).map(|at| Because::Write(&files.write[at]));
        let no = |because| FileVerdict {
            read: false,
            read_because: because,
            write: false,
            write_because: because,
        };
        let Some(given) = write.or(read) else {
            let own = OWN.iter().any(|own| path.as_path().starts_with(own));
            return match own {
                true => FileVerdict {
                    read: true,
                    read_because: Because::Own,
                    write: true,
                    write_because: Because::Own,
                },
                false => no(Because::NotGiven),
            };
        };
        if let Some(at) = find(&files.hidden) {
            return no(Because::Hidden(&files.hidden[at]));
        }
        let protected = find(&files.protect).map(|at| Because::Protected(&files.protect[at]));
        let (write, write_because) = match (write, protected) {
            (Some(_), Some(protected)) => (false, protected),
            (Some(write), None) => (true, write),
            (None, _) => (false, Because::NotGiven),
        };
        FileVerdict {
            read: true,
            read_because: given,
            write,
            write_because,
        }
    }
}
