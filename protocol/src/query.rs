//! Queries: what a runner is asked beside its sessions' commands, each on a stream of its own.

use serde::{Deserialize, Serialize};

use crate::attest::{Attest, Attestation};
use crate::codec::{Json, grows, kinds};
use crate::enrol::{Enrol, Grant, Renew};
use crate::fault::Fault;
use crate::file::{
    FileEntries, FileList, FileMakeDir, FileRead, FileRemove, FileRename, FileStat, FileStatus, FileWrite,
};
use crate::hello::HarnessInfo;
use crate::id::RunnerId;
use crate::policy::{PolicyInfo, PolicyText};
use crate::session::SessionInfo;
use crate::terminal::{TerminalOpen, TerminalOpened};
use crate::trust::Trust;

kinds! {
    /// What a runner can be asked.
    pub enum Query, "query" {
        /// How it stands.
        1 "runner.status" since 1 => RunnerStatus(RunnerStatus),
        /// What it is, signed.
        2 "runner.attest" since 1 => RunnerAttest(Attest),
        /// Which sessions it has.
        3 "runner.sessions" since 1 => RunnerSessions(RunnerSessions),
        /// Which policies it has.
        16 "policy.list" since 1 => PolicyList(PolicyList),
        /// One policy.
        17 "policy.show" since 1 => PolicyShow(PolicyShow),
        /// A directory.
        32 "files.list" since 1 => FilesList(FileList),
        /// One file's facts.
        33 "files.stat" since 1 => FilesStat(FileStat),
        /// A file's bytes; they follow on this stream.
        34 "files.read" since 1 => FilesRead(FileRead),
        /// A file to be written; its bytes follow on this stream.
        35 "files.write" since 1 => FilesWrite(FileWrite),
        /// Remove a file or an empty directory.
        36 "files.remove" since 1 => FilesRemove(FileRemove),
        /// Rename.
        37 "files.rename" since 1 => FilesRename(FileRename),
        /// Make a directory.
        38 "files.mkdir" since 1 => FilesMakeDir(FileMakeDir),
        /// A terminal; its frames follow on this stream.
        48 "terminal.open" since 1 => TerminalOpen(TerminalOpen),
        /// The audit log; records follow on this stream.
        64 "audit.tail" since 1 => AuditTail(AuditTail),
        /// A certificate for a token.
        80 "enrol" since 1 => Enrol(Enrol),
        /// A new certificate for a live one.
        81 "renew" since 1 => Renew(Renew),
        /// Whom to trust from now on.
        82 "trust" since 1 => Trust(Trust),
    }
}

kinds! {
    /// What a runner answers.
    pub enum Answer, "answer" {
        /// How it stands.
        1 "status" since 1 => Status(Status),
        /// What it is, signed.
        2 "attestation" since 1 => Attested(Attestation),
        /// Its sessions.
        3 "sessions" since 1 => SessionList(SessionList),
        /// Its policies.
        16 "policies" since 1 => Policies(Policies),
        /// One policy.
        17 "policy" since 1 => Policy(PolicyText),
        /// A directory.
        32 "files" since 1 => FileEntries(FileEntries),
        /// One file's facts.
        33 "file" since 1 => File(FileStatus),
        /// It was done.
        34 "done" since 1 => Done(Done),
        /// The terminal.
        48 "terminal" since 1 => Terminal(TerminalOpened),
        /// One record.
        64 "audit_record" since 1 => AuditRecord(AuditRecord),
        /// A certificate.
        80 "grant" since 1 => Grant(Grant),
        /// It was not done.
        96 "fault" since 1 => Fault(Fault),
    }
}

/// Asks how the runner stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerStatus {}

grows!(RunnerStatus {});

/// Asks which sessions the runner has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerSessions {}

grows!(RunnerSessions {});

/// Asks which policies the runner has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyList {}

grows!(PolicyList {});

/// Asks for one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyShow {
    /// Which.
    pub name: String,
}

grows!(PolicyShow { name });

/// Asks for the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditTail {
    /// From this record on; without it only new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

grows!(AuditTail { from });

/// One record of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// As it stands in the log.
    pub record: Json,
}

grows!(AuditRecord { record });

/// How a runner stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub runner_id: RunnerId,
    /// Its software's version, for people.
    pub version: String,
    /// How long it runs, seconds.
    pub uptime_s: u64,
    /// How many sessions live.
    pub sessions: u32,
    /// How many may.
    pub sessions_max: u32,
    /// Its resident memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// What it can start.
    #[serde(default)]
    pub harnesses: Vec<HarnessInfo>,
    /// What a human should know, such as a policy that gives the host's network.
    #[serde(default)]
    pub notes: Vec<String>,
}

grows!(Status {
    runner_id,
    version,
    uptime_s,
    sessions,
    sessions_max,
    rss_bytes,
    harnesses,
    notes
});

/// A runner's sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionList {
    /// Each.
    #[serde(default)]
    pub sessions: Vec<SessionInfo>,
}

grows!(SessionList { sessions });

/// A runner's policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policies {
    /// Each.
    #[serde(default)]
    pub policies: Vec<PolicyInfo>,
}

grows!(Policies { policies });

/// It was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {}

grows!(Done {});
