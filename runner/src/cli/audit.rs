//! The doors `audit verify`, `audit tail` and `audit export`: they read files, whether the runner runs or not.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::audit::record::{CHECKPOINT, LINE_LEN_MAX, Line, Record};
use crate::audit::seal::{Head, is_signed_checkpoint};
use crate::audit::segment::{HeadFile, Piece, Segment, head_path, read_head};
use crate::audit::{
    Anchor, Expected, Found, PublicKey, Tail, TailError, VerifyError, for_people, ocsf, verify,
};
use crate::cause::chain;
use crate::daemon::{Config, ConfigError, Overrides};
use crate::identity;

/// The most records that a tail shows: they are kept in memory.
const TAIL_MAX: u64 = 10_000;

/// How often a tail that follows looks whether there is more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `audit`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Say whether every record is there as it was written, and which is the first that is not. Run it as the runner's user, or
    /// as root. Exit codes: 0 whole, 1 something is wrong, 125 it cannot be read
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
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// A copy of the log's `head`, or the line of a checkpoint, that was kept where nobody of this host can change it: what it
    /// names has to be there. That finds also what root has written anew
    #[arg(long, value_name = "FILE")]
    head: Vec<PathBuf>,
    /// The number and the hash of a record that are known from elsewhere
    #[arg(long, value_name = "SEQ:HASH")]
    expect: Vec<Known>,
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
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Print them as they stand in the log
    #[arg(long)]
    json: bool,
}

/// A record, as somebody knows it who kept that elsewhere.
#[derive(Clone, Copy, Debug)]
struct Known(Anchor);

impl FromStr for Known {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || {
            let (seq, hash) = text.split_once(':')?;
            let hash = hash.strip_prefix("sha256:").unwrap_or(hash);
            let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
            Some(Self(Anchor {
                seq,
                hash: hash.parse().ok()?,
            }))
        };
        known().ok_or("it has to be a record's number, a colon, and the 64 digits of its hash")
    }
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
    #[error(
        "this needs the runner's user or root, who alone may read the audit log: run it as user {owner}, such as with \
         `sudo -u '#{owner}' oqto-runner audit …`"
    )]
    NotOurs { owner: u32, source: io::Error },
    #[error("{path} is neither a copy of an audit log's head nor the line of a checkpoint")]
    NoHead { path: PathBuf },
    #[error("cannot read on")]
    Tail(#[from] TailError),
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
    may_read(&state_dir)?;
    let identity_dir = state_dir.join("identity");
    let key = identity::public_key(&identity_dir)?.ok_or(ShowError::NoKey { path: identity_dir })?;
    let key = PublicKey(key);
    let (text, code) = match verify_all(&log_dir(&state_dir), args, &key)? {
        Ok(found) if args.json => (format!("{}\n", as_json(&found)), ExitCode::SUCCESS),
        Ok(found) => (as_text(&found), ExitCode::SUCCESS),
        Err(wrong) if args.json => {
            let answer = json!({ "whole": false, "wrong": wrong });
            (format!("{answer}\n"), ExitCode::from(1))
        }
        Err(wrong) => (format!("not whole: {wrong}\n"), ExitCode::from(1)),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

/// What was found, or what is wrong.
fn verify_all(dir: &Path, args: &VerifyArgs, key: &PublicKey) -> Result<Result<Found, String>, ShowError> {
    let mut anchors: Vec<_> = args.expect.iter().map(|known| known.0).collect();
    for path in &args.head {
        match anchor(path, key)? {
            Some(anchor) => anchors.push(anchor),
            None => {
                let path = path.display();
                return Ok(Err(format!(
                    "what {path} has is not signed by the key that this runner has now"
                )));
            }
        }
    }
    let from = args.from;
    match verify(dir, &Expected { from, anchors }, Some(key)) {
        Ok(found) => Ok(Ok(found)),
        Err(error) if error.is_finding() => Ok(Err(chain(&error))),
        Err(error) => Err(error.into()),
    }
}

/// What was kept elsewhere; `None` when the runner's key did not sign it.
fn anchor(path: &Path, key: &PublicKey) -> Result<Option<Anchor>, ShowError> {
    let no_head = || ShowError::NoHead {
        path: path.to_owned(),
    };
    let bytes =
        crate::sys::read_bounded(path, LINE_LEN_MAX as u64 + 1).map_err(|source| ShowError::Read {
            path: path.to_owned(),
            source,
        })?;
    let bytes = bytes.ok_or_else(no_head)?;
    // First as a line: a checkpoint has all that a head has, and more.
    let line = Line::read(bytes.trim_ascii_end()).filter(|line| line.says(CHECKPOINT));
    if let Some(line) = line {
        let is_signed = line
            .record()
            .is_some_and(|record| is_signed_checkpoint(&record, key));
        let Line { seq, hash, .. } = line;
        return Ok(is_signed.then_some(Anchor { seq, hash }));
    }
    let head = Head::from_bytes(&bytes).ok_or_else(no_head)?;
    let Head { seq, hash, .. } = head;
    Ok(head.is_signed_by(key).then_some(Anchor { seq, hash }))
}

/// Whose files these are, where somebody else looks: the answer would else be about a single path.
fn may_read(state_dir: &Path) -> Result<(), ShowError> {
    match fs::read_dir(log_dir(state_dir)) {
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            let owner = fs::metadata(state_dir).map_or(0, |found| found.uid());
            Err(ShowError::NotOurs { owner, source })
        }
        // What else is wrong with it is said by who reads it.
        _ => Ok(()),
    }
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
    if whole.removed > 0 {
        text += &format!(
            "records up to {} were removed by the runner, at its bound\n",
            whole.removed
        );
    }
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
        "removed": found.whole.removed,
        "torn_len": found.torn_len,
    })
}

fn tail(args: &TailArgs) -> Result<(), ShowError> {
    let state_dir = args.place.state_dir()?;
    may_read(&state_dir)?;
    let dir = log_dir(&state_dir);
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
        print(&mut out, line, record, args.json)?;
    }
    out.flush()?;
    if args.follow {
        let next = newest.back().map_or(1, |(_, record)| record.seq + 1);
        follow(&dir, next, args.json, &mut out)?;
    }
    Ok(())
}

fn print(out: &mut impl io::Write, line: &str, record: &Record, as_json: bool) -> io::Result<()> {
    if as_json {
        writeln!(out, "{line}")
    } else {
        writeln!(out, "{}", for_people(record))
    }
}

/// Prints what comes, as far as it is acknowledged, until nobody reads it.
fn follow(dir: &Path, next: u64, as_json: bool, out: &mut impl io::Write) -> Result<(), ShowError> {
    let mut tail = Tail::new(dir, next);
    loop {
        let head = read_head(dir).map_err(|source| ShowError::Read {
            path: head_path(dir),
            source,
        })?;
        let lines = match head {
            HeadFile::Head(head) => tail.read(head.seq)?,
            // It is being written.
            HeadFile::Absent | HeadFile::Damaged => Vec::new(),
        };
        if lines.is_empty() {
            out.flush()?;
            thread::sleep(LOOK_EVERY);
        }
        for line in lines {
            if let Some(record) = Line::read(&line).and_then(|line| line.record()) {
                print(out, &String::from_utf8_lossy(&line), &record, as_json)?;
            }
        }
    }
}

fn export(args: &ExportArgs) -> Result<(), ShowError> {
    let state_dir = args.place.state_dir()?;
    may_read(&state_dir)?;
    let dir = log_dir(&state_dir);
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
