//! The doors `audit verify`, `audit tail` and `audit export`: they read files, whether the runner runs or not.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::audit::record::{Line, Record, is_plain};
use crate::audit::segment::{Piece, Segment};
use crate::audit::{Found, Outcome, PublicKey, VerifyError, ocsf, verify};
use crate::cause::chain;
use crate::daemon::{Config, ConfigError, Overrides};
use crate::identity;

/// The most records that a tail shows: they are kept in memory.
const TAIL_MAX: u64 = 10_000;

/// `audit`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Say whether every record is there as it was written, and which is the first that is not. Exit codes: 0 whole, 1
    /// something is wrong, 125 it cannot be read
    Verify(VerifyArgs),
    /// Print the newest records
    Tail(TailArgs),
    /// Print all records, one JSON object a line
    Export(ExportArgs),
}

/// Where the log is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The runner's configuration, as `serve` takes it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the runner keeps its state
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// `audit verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// The first record of the oldest file to verify, as its name says it, where older ones were taken elsewhere
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// `audit tail`.
#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    place: Place,
    /// How many
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=TAIL_MAX))]
    lines: u64,
    /// Print them as they stand in the log
    #[arg(long)]
    json: bool,
}

/// `audit export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// In which form
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    format: Format,
    /// From this record on
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// As the records stand in the log
    Json,
    /// OCSF 1.3.0: API Activity, Application Lifecycle
    Ocsf,
}

/// Why a log cannot be shown.
#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error("cannot tell where the runner keeps its state")]
    Config(#[from] ConfigError),
    #[error("cannot read the runner's public key")]
    Key(#[from] identity::StoreError),
    #[error("there is no runner's key in {path}, and nothing that is signed can be verified")]
    NoKey { path: PathBuf },
    #[error("cannot verify the audit log")]
    Verify(#[from] VerifyError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}, is no record: run `oqto-runner audit verify`")]
    NoRecord { path: PathBuf, line: u64 },
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Runs one of the doors.
pub(super) fn audit(command: AuditCommand) -> ExitCode {
    let shown = match command {
        AuditCommand::Verify(args) => verified(&args),
        AuditCommand::Tail(args) => tail(&args).map(|()| ExitCode::SUCCESS),
        AuditCommand::Export(args) => export(&args).map(|()| ExitCode::SUCCESS),
    };
    match shown {
        Ok(code) => code,
        // Who reads no further wants no more.
        Err(ShowError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => super::failed(&error),
    }
}

impl Place {
    fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        let overrides = Overrides {
            state_dir: self.state_dir.clone(),
            ..Overrides::default()
        };
        Ok(Config::load(self.config.as_deref(), overrides)?.state_dir)
    }
}

fn log_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("audit")
}

fn verified(args: &VerifyArgs) -> Result<ExitCode, ShowError> {
    let state_dir = args.place.state_dir()?;
    let identity_dir = state_dir.join("identity");
    let key = identity::public_key(&identity_dir)?.ok_or(ShowError::NoKey { path: identity_dir })?;
    let (text, code) = match verify(&log_dir(&state_dir), args.from, Some(&PublicKey(key))) {
        Ok(found) if args.json => (format!("{}\n", as_json(&found)), ExitCode::SUCCESS),
        Ok(found) => (as_text(&found), ExitCode::SUCCESS),
        Err(error) if error.is_finding() && args.json => {
            let answer = json!({ "whole": false, "wrong": chain(&error) });
            (format!("{answer}\n"), ExitCode::from(1))
        }
        Err(error) if error.is_finding() => (format!("not whole: {}\n", chain(&error)), ExitCode::from(1)),
        Err(error) => return Err(error.into()),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

fn as_text(found: &Found) -> String {
    let Found {
        files,
        first,
        whole,
        torn_len,
    } = found;
    let mut text = format!(
        "whole: records {first} to {}, files: {files}, signed by the runner up to {}, checkpoints: {}\n",
        whole.last,
        whole.last - whole.unsigned,
        whole.checkpoints
    );
    if whole.unsigned > 0 {
        text += &format!("the newest {} are not signed yet\n", whole.unsigned);
    }
    if *torn_len > 0 {
        text += &format!(
            "behind them {torn_len} bytes of a record that is not whole and was never acknowledged\n"
        );
    }
    text
}

fn as_json(found: &Found) -> serde_json::Value {
    json!({
        "whole": true,
        "files": found.files,
        "first": found.first,
        "last": found.whole.last,
        "hash": found.whole.hash,
        "checkpoints": found.whole.checkpoints,
        "unsigned": found.whole.unsigned,
        "torn_len": found.torn_len,
    })
}

fn tail(args: &TailArgs) -> Result<(), ShowError> {
    let dir = log_dir(&args.place.state_dir()?);
    let segments = found(&dir)?;
    let wanted = usize::try_from(args.lines).unwrap_or(usize::MAX);
    let mut newest: VecDeque<(String, Record)> = VecDeque::new();
    for segment in segments.iter().rev() {
        let room = wanted - newest.len();
        if room == 0 {
            break;
        }
        let mut here = VecDeque::new();
        each(segment, |line, record| {
            if here.len() == room {
                here.pop_front();
            }
            here.push_back((String::from_utf8_lossy(line).into_owned(), record));
            Ok(())
        })?;
        while let Some(last) = here.pop_back() {
            newest.push_front(last);
        }
    }
    let mut out = BufWriter::new(io::stdout().lock());
    for (line, record) in &newest {
        if args.json {
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", for_people(record))?;
        }
    }
    Ok(out.flush()?)
}

fn export(args: &ExportArgs) -> Result<(), ShowError> {
    let dir = log_dir(&args.place.state_dir()?);
    let mut out = BufWriter::new(io::stdout().lock());
    for segment in found(&dir)? {
        each(&segment, |line, record| {
            if record.seq < args.from {
                return Ok(());
            }
            match args.format {
                Format::Json => {
                    out.write_all(line)?;
                    out.write_all(b"\n")
                }
                Format::Ocsf => {
                    let hash = Line::read(line).map(|line| line.hash.to_string());
                    writeln!(out, "{}", ocsf(&record, &hash.unwrap_or_default()))
                }
            }
        })?;
    }
    Ok(out.flush()?)
}

fn found(dir: &Path) -> Result<Vec<Segment>, ShowError> {
    let segments = Segment::all(dir).map_err(|source| ShowError::Read {
        path: dir.to_owned(),
        source,
    })?;
    if segments.is_empty() {
        return Err(VerifyError::NoLog { path: dir.to_owned() }.into());
    }
    Ok(segments)
}

/// Each record of a file that is what it was. Of one that is not nothing is shown: what follows is as doubtful.
fn each(segment: &Segment, mut take: impl FnMut(&[u8], Record) -> io::Result<()>) -> Result<(), ShowError> {
    let read = |source| ShowError::Read {
        path: segment.path.clone(),
        source,
    };
    let mut lines = segment.lines().map_err(read)?;
    let mut line = 0;
    while let Some(piece) = lines.next_piece().map_err(read)? {
        line += 1;
        match piece {
            Piece::Line(bytes) => {
                let record = Line::read(bytes).and_then(|line| line.record());
                let record = record.ok_or(ShowError::NoRecord {
                    path: segment.path.clone(),
                    line,
                })?;
                take(bytes, record)?;
            }
            // It is being written.
            Piece::Torn { .. } => {}
        }
    }
    Ok(())
}

fn for_people(record: &Record) -> String {
    let outcome = match record.outcome {
        Outcome::Allowed => "allowed",
        Outcome::Refused => "refused",
        Outcome::Noted => "noted",
    };
    let mut text = format!(
        "{:>8} {} {:<7} {}",
        record.seq,
        time(record.at),
        outcome,
        record.what
    );
    if let Some(control) = &record.control {
        text += &format!(" by {control}");
    }
    if let Some(whom) = &record.on_behalf_of {
        text += &format!(" for {whom:?}");
    }
    if let Some(session) = &record.session {
        text += &format!(" on {session}");
    }
    if let Some(address) = &record.address {
        text += &format!(" from {address}");
    }
    if let Some(count) = &record.count {
        text += &format!(" {count} times");
    }
    if let Some(reason) = &record.reason {
        text += &format!(": {reason}");
    }
    if let Some(detail) = &record.detail {
        text += &format!(" ({detail})");
    }
    // Who can write the file could else write to the terminal.
    text.replace(|letter| !is_plain(letter), "\u{fffd}")
}

/// Unix milliseconds as a date in UTC, RFC 3339.
fn time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the first of March of year 0, so that a leap day is the last of its year.
    let days = day + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_as_a_date() {
        for (unix_ms, said) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(unix_ms), said);
        }
    }
}
