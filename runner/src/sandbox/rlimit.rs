//! Resource limits: what one process, and all of them together, may use.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::policy::Limits;

const MIB: u64 = 1024 * 1024;

/// A limit that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot limit {what}")]
pub(super) struct LimitError {
    what: &'static str,
    source: Errno,
}

/// Lowers the limits of this process, for good. What the host allows less of stays as it is.
pub(super) fn restrict(limits: &Limits) -> Result<String, LimitError> {
    let Limits {
        process_memory_mib,
        memory_mib: _,
        cpu_percent: _,
        processes,
        open_files,
        process_cpu_seconds,
        file_size_mib,
        core_mib,
        tmp_mib: _,
    } = limits;
    let bytes = |mib: &Option<u64>| mib.map(|mib| mib.saturating_mul(MIB));
    let wanted = [
        // Not the address space: runtimes reserve far more of it than they ever use.
        ("memory", Resource::RLIMIT_DATA, bytes(process_memory_mib)),
        ("processes", Resource::RLIMIT_NPROC, *processes),
        ("open files", Resource::RLIMIT_NOFILE, *open_files),
        ("processor time", Resource::RLIMIT_CPU, *process_cpu_seconds),
        ("file size", Resource::RLIMIT_FSIZE, bytes(file_size_mib)),
        // Where the host pipes core dumps to a program, that program of root's is started even if nothing may be
        // written; the kernel knows one limit that prevents it, which is also too small for any file.
        (
            "core dumps",
            Resource::RLIMIT_CORE,
            bytes(core_mib).map(|limit| limit.max(1)),
        ),
    ];
    let mut names = Vec::new();
    for (what, resource, limit) in wanted {
        let Some(limit) = limit else { continue };
        let lower = || {
            let (_, hard) = getrlimit(resource)?;
            let limit = limit.min(hard);
            setrlimit(resource, limit, limit)
        };
        lower().map_err(|source| LimitError { what, source })?;
        names.push(what);
    }
    Ok(names.join(", "))
}
