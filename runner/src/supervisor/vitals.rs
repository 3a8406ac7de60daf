//! How the processes of sessions do, as `/proc` shows it: one pass over the host's processes for all sessions.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oqto_protocol::id::SessionId;

use crate::clock;

/// The longest `stat` of a process that is read, in bytes: fifty numbers and a name.
const STAT_LEN_MAX: u64 = 4096;

/// How the processes of one session do, all of them together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Vital {
    /// The first of them, which ends them all when it ends.
    pub(super) pid: u32,
    /// Their resident memory; what several share counts in each.
    pub(super) rss_bytes: u64,
    /// How much of one processor they used since the look before; `None` at the first.
    pub(super) cpu_pct: Option<f64>,
    /// How long the first of them lives.
    pub(super) uptime_s: u64,
    /// Processor time that they used, and those of them that have ended.
    cpu_ticks: u64,
    at: Instant,
}

/// What was seen last of every session that lives.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    seen: Mutex<BTreeMap<SessionId, Vital>>,
}

impl Vitals {
    /// What was seen last of a session.
    pub(super) fn of(&self, session: &SessionId) -> Option<Vital> {
        self.lock().get(session).cloned()
    }

    /// Looks at every session, each given by its shim's process. One whose processes are gone has none any more.
    pub(super) fn look(&self, shims: Vec<(SessionId, i32)>) {
        let found = match Processes::read() {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the processes of sessions cannot be seen");
                return;
            }
        };
        let mut seen = self.lock();
        let before = std::mem::take(&mut *seen);
        seen.extend(shims.into_iter().filter_map(|(session, shim)| {
            let vital = found.below(shim, before.get(&session))?;
            Some((session, vital))
        }));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Vital>> {
        // What a panic left behind is as whole as each single insertion.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's processes at one moment.
struct Processes {
    children: HashMap<i32, Vec<Process>>,
    at: Instant,
    /// Since the host's boot.
    uptime: Duration,
    page_len: u64,
    ticks_per_s: u64,
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    cpu_ticks: u64,
    started_ticks: u64,
    rss_pages: u64,
}

impl Processes {
    fn read() -> io::Result<Self> {
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let is_process = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            if !is_process {
                continue;
            }
            // One that is gone meanwhile is not there; one that may not be seen is nobody's of ours.
            let Ok(Some(text)) = crate::sys::read_bounded(&path.join("stat"), STAT_LEN_MAX) else {
                continue;
            };
            if let Some(process) = Process::parse(&text) {
                children.entry(process.parent).or_default().push(process);
            }
        }
        let uptime = fs::read_to_string("/proc/uptime")?;
        let uptime = uptime
            .split_ascii_whitespace()
            .next()
            .and_then(|text| text.parse().ok());
        let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Self {
            children,
            at: clock::instant(),
            uptime: uptime.ok_or(io::ErrorKind::InvalidData)?,
            page_len: rustix::param::page_size() as u64,
            ticks_per_s: rustix::param::clock_ticks_per_second().max(1),
        })
    }

    /// How everything below a shim does; `None` when nothing is.
    fn below(&self, shim: i32, before: Option<&Vital>) -> Option<Vital> {
        let first = *self
            .children
            .get(&shim)?
            .iter()
            .min_by_key(|child| child.started_ticks)?;
        let (mut cpu_ticks, mut rss_pages) = (0_u64, 0_u64);
        // Read one after the other, the processes need not be a tree; and none is counted twice.
        let mut counted = std::collections::HashSet::from([shim]);
        let mut left = vec![shim];
        while let Some(parent) = left.pop() {
            for child in self.children.get(&parent).into_iter().flatten() {
                if counted.insert(child.pid) {
                    cpu_ticks = cpu_ticks.saturating_add(child.cpu_ticks);
                    rss_pages = rss_pages.saturating_add(child.rss_pages);
                    left.push(child.pid);
                }
            }
        }
        let pid = u32::try_from(first.pid).ok()?;
        // Another first process is another start of the harness, whose use begins at nothing.
        let before = before.filter(|before| before.pid == pid);
        let cpu_pct = before.and_then(|before| {
            let elapsed_s = self.at.saturating_duration_since(before.at).as_secs_f64();
            let used = cpu_ticks.saturating_sub(before.cpu_ticks) as f64 / self.ticks_per_s as f64;
            (elapsed_s > 0.0).then(|| used / elapsed_s * 100.0)
        });
        let started = Duration::from_secs(first.started_ticks / self.ticks_per_s);
        Some(Vital {
            pid,
            rss_bytes: rss_pages.saturating_mul(self.page_len),
            cpu_pct,
            uptime_s: self.uptime.saturating_sub(started).as_secs(),
            cpu_ticks,
            at: self.at,
        })
    }
}

impl Process {
    /// Reads `/proc/PID/stat`.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        // The name stands in brackets and may hold any, so what follows begins at the last one.
        let (head, rest) = text.rsplit_once(") ")?;
        let pid = head.split_once(' ')?.0.parse().ok()?;
        let words: Vec<_> = rest.split_ascii_whitespace().collect();
        // Counted from the state, which is the third of proc(5).
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let used = [11, 12, 13, 14].map(number);
        Some(Self {
            pid,
            parent: words.get(1)?.parse().ok()?,
            cpu_ticks: used
                .into_iter()
                .try_fold(0_u64, |sum, ticks| sum.checked_add(ticks?))?,
            started_ticks: number(19)?,
            rss_pages: number(21)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_calls_itself() {
        let line =
            b"41 (a) R 1 (b) S 7 41 41 0 -1 4194560 100 200 0 0 5 6 7 8 20 0 1 0 3000 9000 25 1844 0 0\n";
        let process = Process {
            pid: 41,
            parent: 7,
            cpu_ticks: 26,
            started_ticks: 3000,
            rss_pages: 25,
        };
        assert_eq!(Process::parse(line), Some(process));
        assert_eq!(Process::parse(b"41 (a) S 7"), None);
        assert_eq!(Process::parse(b""), None);
    }

    #[test]
    fn what_runs_below_a_shim_is_counted_once_and_nothing_else() {
        let process = |pid, parent| Process {
            pid,
            parent,
            cpu_ticks: 100,
            started_ticks: 1000 + u64::try_from(pid).unwrap(),
            rss_pages: 2,
        };
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        // The last two are each other's parents, as they can seem to be when numbers are given out again meanwhile.
        for (pid, parent) in [(10, 1), (11, 10), (12, 11), (13, 12), (20, 1), (21, 20), (10, 13)] {
            children.entry(parent).or_default().push(process(pid, parent));
        }
        let at = clock::instant();
        let mut processes = Processes {
            children,
            at,
            uptime: Duration::from_secs(100),
            page_len: 4096,
            ticks_per_s: 100,
        };
        let first = processes.below(10, None).unwrap();
        assert_eq!(
            (first.pid, first.rss_bytes, first.cpu_pct),
            (11, 3 * 2 * 4096, None)
        );
        assert_eq!((first.cpu_ticks, first.uptime_s), (300, 90));
        processes.at = at + Duration::from_secs(2);
        for child in processes.children.values_mut().flatten() {
            child.cpu_ticks += 50;
        }
        // 1.5 s of use in 2 s.
        let second = processes.below(10, Some(&first)).unwrap();
        assert_eq!(second.cpu_pct, Some(75.0));
        assert_eq!(processes.below(21, None), None);
    }
}
