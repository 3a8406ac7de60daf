//! What a running runner says of itself in its state directory.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use oqto_protocol::id::RunnerId;
use serde::Deserialize;

use crate::bounds::RECORD_LEN_MAX;
use crate::connection::RunnerAddr;

/// `runner.json`, as the runner writes it. It is only a hint where to knock.
#[derive(Deserialize)]
struct Found {
    runner_id: RunnerId,
    address: SocketAddr,
    pid: u32,
}

/// A runner that says it runs here.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) at: RunnerAddr,
    pub(super) pid: u32,
}

impl Neighbour {
    /// Whether its process lives.
    pub(super) fn lives(&self) -> bool {
        lives(self.pid)
    }
}

/// Where the runner of a state directory says it is. `None` when there is none, when its process is gone, or when
/// what is there cannot be read: a runner that is started then says what is wrong.
pub(crate) fn found(dir: &Path) -> Option<Neighbour> {
    let mut text = Vec::new();
    let file = File::open(dir.join("runner.json")).ok()?;
    file.take(RECORD_LEN_MAX).read_to_end(&mut text).ok()?;
    let Found {
        runner_id,
        address,
        pid,
    } = serde_json::from_slice(&text).ok()?;
    // A dead process is not knocked at: a closed UDP port answers nothing, and that takes a timeout to find out. A
    // number that lives again as somebody else costs that timeout and no more.
    lives(pid).then_some(Neighbour {
        at: RunnerAddr {
            id: runner_id,
            address,
        },
        pid,
    })
}

/// Whether a process is there and has not ended: in a container often nobody waits for those that have.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    // The program's name stands before the state, in parentheses, and may have some of its own.
    let state = stat.as_ref().ok().and_then(|stat| stat.rsplit_once(") "));
    state.is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::lives;

    #[test]
    fn a_process_that_has_ended_and_was_not_waited_for_does_not_live() {
        let mut child = Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(lives(child.id()));
        drop(child.stdin.take());
        // The end of its output is the end of the process, but for a moment.
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        while lives(child.id()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!lives(u32::MAX));
    }
}
