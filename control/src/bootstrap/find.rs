//! What a running runner says of itself in its state directory.

use std::fs::File;
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

/// Where the runner of a state directory says it is. `None` when there is none, when its process is gone, or when
/// what is there cannot be read: a runner that is started then says what is wrong.
pub(crate) fn found(dir: &Path) -> Option<RunnerAddr> {
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
    let lives = Path::new("/proc").join(pid.to_string()).exists();
    lives.then_some(RunnerAddr {
        id: runner_id,
        address,
    })
}
