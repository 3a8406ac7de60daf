//! The first certificate, over the channel that started this runner.
//!
//! Who starts a runner, by `fork` or by SSH, holds its standard input and output, and that is the first proof of
//! who they are. JSON lines: the runner says its name and what it wants signed; the control answers with a
//! [`Grant`]; the runner says where it listens, and lets go of the channel.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::Path;

use oqto_protocol::enrol::{Grant, SigningRequest};
use oqto_protocol::id::RunnerId;
use serde::Serialize;

use super::credentials::{Credentials, RenewError};
use super::kept;
use super::store::{StoreError, open_key};

/// The longest line that a control may answer, bytes.
const LINE_LEN_MAX: u64 = 256 * 1024;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The key cannot be had, or the certificate not be kept.
    #[error("cannot keep this runner's identity")]
    Store(#[from] StoreError),
    /// The channel broke.
    #[error("cannot talk to who started this runner")]
    Channel(#[source] io::Error),
    /// The channel ended before the answer.
    #[error("who started this runner gave no certificate")]
    NoAnswer,
    /// The answer is no grant.
    #[error("what stands for a certificate is malformed")]
    Malformed(#[source] serde_json::Error),
    /// The certificate is not one for this runner, or cannot be kept.
    #[error("cannot use what who started this runner gave it")]
    Taken(#[from] RenewError),
}

#[derive(Serialize)]
struct Request {
    oqto_bootstrap: u32,
    runner_id: RunnerId,
    request: SigningRequest,
}

#[derive(Serialize)]
struct Listening {
    listening: SocketAddr,
}

/// Asks for a certificate on `output` and reads it from `input`; keeps it in `dir`.
///
/// # Errors
/// When the channel breaks or the answer is not a certificate for this runner.
pub fn bootstrap(dir: &Path, input: impl BufRead, output: impl Write) -> Result<Credentials, BootstrapError> {
    let (runner_id, key) = {
        let _lock = kept::lock(dir)?;
        open_key(dir)?
    };
    let request = key.signing_request(runner_id.clone());
    say(
        output,
        &Request {
            oqto_bootstrap: 1,
            runner_id: runner_id.clone(),
            request,
        },
    )
    .map_err(BootstrapError::Channel)?;
    let mut line = String::new();
    input
        .take(LINE_LEN_MAX)
        .read_line(&mut line)
        .map_err(BootstrapError::Channel)?;
    if line.is_empty() {
        return Err(BootstrapError::NoAnswer);
    }
    let grant: Grant = serde_json::from_str(&line).map_err(BootstrapError::Malformed)?;
    Ok(Credentials::first(dir, &runner_id, key, grant, None)?)
}

/// Says where this runner listens; the last line of the channel.
///
/// # Errors
/// When the channel broke.
pub fn announce(output: impl Write, listening: SocketAddr) -> io::Result<()> {
    say(output, &Listening { listening })
}

fn say(mut output: impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    output.write_all(&bytes)?;
    output.flush()
}
