//! Who else hears of records: a thread for each, behind a bounded queue. A sink holds nobody up and fails nothing: what it
//! does not take is counted, the log says how many, and the log stays the truth.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::record::{Line, Outcome, Record};
use super::said::{for_people, time};
use super::settings::Sink;
use crate::clock;

/// How many records may wait for a sink: at most 16 MiB, usually two.
const WAITING_MAX: usize = 4096;

/// How long one may take a record before it is given up: a journal that is busy takes milliseconds.
const SEND_MAX: Duration = Duration::from_secs(1);

/// How long a log that is closed waits for all its sinks.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What messages name as their source.
const NAME: &str = "oqto-runner";

/// The facility of RFC 5424 for audits.
const FACILITY: u8 = 13;

/// A sink with its thread.
pub(super) struct Outlet {
    name: &'static str,
    lines: Option<mpsc::SyncSender<Arc<[u8]>>>,
    pub(super) lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Outlet {
    /// Starts its thread.
    pub(super) fn open(sink: Sink) -> io::Result<Self> {
        let (lines, taken) = mpsc::sync_channel::<Arc<[u8]>>(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        let name = match sink {
            Sink::Journal(_) => "journald",
            Sink::Syslog(_) => "syslog",
        };
        let counted = lost.clone();
        let send = move || {
            for line in taken {
                if send(&socket, &sink, &line).is_err() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let thread = thread::Builder::new().name(format!("audit-{name}")).spawn(send)?;
        Ok(Self {
            name,
            lines: Some(lines),
            lost,
            thread: Some(thread),
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Hands it a line, without its end, or counts it.
    pub(super) fn hand(&self, line: &Arc<[u8]>) {
        let taken = self.lines.as_ref().map(|lines| lines.try_send(line.clone()));
        if !matches!(taken, Some(Ok(()))) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many it did not take since that was last [said](Self::said).
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// So many of them are told of.
    pub(super) fn said(&self, lost: u64) {
        self.lost.fetch_sub(lost, Ordering::Relaxed);
    }

    /// Lets all of them take what waits, for a while.
    pub(super) fn close(outlets: &mut [Self]) {
        for outlet in &mut *outlets {
            outlet.lines = None;
        }
        let until: Instant = clock::instant() + CLOSE_MAX;
        for outlet in outlets {
            let Some(thread) = outlet.thread.take() else {
                continue;
            };
            while !thread.is_finished() && clock::instant() < until {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn send(socket: &UnixDatagram, sink: &Sink, line: &[u8]) -> io::Result<()> {
    let record = Line::read(line).and_then(|line| line.record());
    let record = record.ok_or(io::ErrorKind::InvalidData)?;
    let (message, path): (Vec<u8>, &Path) = match sink {
        Sink::Journal(path) => (journal(&record, line), path),
        Sink::Syslog(path) => (syslog(&record, line, std::process::id()), path),
    };
    // By its path each time: who receives may have been started again.
    socket.send_to(&message, path).map(drop)
}

/// As severities count: what was refused is a warning, the rest informs.
fn severity(record: &Record) -> u8 {
    match record.outcome {
        Outcome::Allowed | Outcome::Noted => 6,
        Outcome::Refused => 4,
    }
}

/// An entry of the journal: fields `NAME=value`, one a line.
fn journal(record: &Record, line: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut field = |name: &str, value: &[u8]| {
        entry.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            // A value of more than one line has its length before it.
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value);
        entry.push(b'\n');
    };
    field("MESSAGE", for_people(record).as_bytes());
    field("PRIORITY", severity(record).to_string().as_bytes());
    field("SYSLOG_IDENTIFIER", NAME.as_bytes());
    field("SYSLOG_FACILITY", FACILITY.to_string().as_bytes());
    field("OQTO_AUDIT_SEQ", record.seq.to_string().as_bytes());
    field("OQTO_AUDIT_WHAT", record.what.as_bytes());
    for (name, value) in [
        (
            "OQTO_AUDIT_CONTROL",
            record.control.as_ref().map(ToString::to_string),
        ),
        (
            "OQTO_AUDIT_SESSION",
            record.session.as_ref().map(ToString::to_string),
        ),
        ("OQTO_AUDIT_REASON", record.reason.clone()),
    ] {
        if let Some(value) = value {
            field(name, value.as_bytes());
        }
    }
    field("OQTO_AUDIT_RECORD", line);
    entry
}

/// A message of RFC 5424 whose text is the record as it stands in the log. The host is left to who receives it.
fn syslog(record: &Record, line: &[u8], pid: u32) -> Vec<u8> {
    let priority = FACILITY * 8 + severity(record);
    // A message's kind is at most 32 letters.
    let kind: String = record
        .what
        .chars()
        .filter(char::is_ascii_graphic)
        .take(32)
        .collect();
    let mut message = format!("<{priority}>1 {} - {NAME} {pid} {kind} - ", time(record.at)).into_bytes();
    message.extend_from_slice(line);
    message
}

#[cfg(test)]
mod tests {
    use oqto_protocol::id::Digest;

    use super::super::record::Entry;
    use super::*;

    fn record(what: &'static str, outcome: Outcome) -> (Record, Vec<u8>) {
        let mut entry = Entry::new(what, outcome);
        entry.session = Some("s-1".parse().unwrap());
        let record = Record::new(7, 951_782_400_000, Digest([1; 32]), entry);
        let mut line = Vec::new();
        record.write(&mut line).unwrap();
        line.pop();
        (record, line)
    }

    #[test]
    fn a_message_for_syslog_has_the_form_of_rfc_5424() {
        let (record, line) = record("prompt", Outcome::Refused);
        let message = String::from_utf8(syslog(&record, &line, 42)).unwrap();
        let text = String::from_utf8(line).unwrap();
        assert_eq!(
            message,
            format!("<108>1 2000-02-29T00:00:00.000Z - oqto-runner 42 prompt - {text}")
        );
    }

    #[test]
    fn an_entry_for_the_journal_has_a_field_a_line_and_the_length_of_what_has_more() {
        let (record, line) = record("prompt", Outcome::Allowed);
        let entry = String::from_utf8(journal(&record, &line)).unwrap();
        let text = String::from_utf8(line).unwrap();
        for field in [
            "MESSAGE=       7 2000-02-29T00:00:00.000Z allowed prompt on s-1",
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=oqto-runner",
            "OQTO_AUDIT_SEQ=7",
            "OQTO_AUDIT_SESSION=s-1",
            &format!("OQTO_AUDIT_RECORD={text}"),
        ] {
            assert!(entry.lines().any(|line| line == field), "{field}: {entry}");
        }
        let (record, _) = self::record("prompt", Outcome::Allowed);
        let entry = journal(&record, b"two\nlines");
        let field = b"OQTO_AUDIT_RECORD\n\x09\0\0\0\0\0\0\0two\nlines\n";
        assert!(entry.ends_with(field));
    }
}
