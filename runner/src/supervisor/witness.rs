//! Who reads the kernel's records and tells each session what concerns it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use oqto_protocol::event::{SandboxViolation, ViolationDecision};
use tokio::sync::mpsc;

use crate::cause;
use crate::kernel_audit::{AuditSession, Record, Socket, parse, socket::Received};
use crate::policy::{Architecture, Syscall};
use crate::session::Fact;

/// How many facts wait for a session's driver. What comes faster is mostly the same again; past this it is dropped.
const FACTS_MAX: usize = 64;

/// How many domains of landlock are known. A session has one; an agent may make more within its own.
const DOMAINS_MAX: usize = 4096;

/// Bit of a call's number that makes it one of x32.
const X32: u32 = 0x4000_0000;

/// Who is told what.
#[derive(Default)]
pub(super) struct Witness {
    sessions: Mutex<HashMap<AuditSession, mpsc::Sender<Fact>>>,
}

impl Witness {
    /// Begins to read the kernel's records, on a thread of its own that ends with this process. Where they cannot be
    /// had that is said, and sessions go without.
    pub(super) fn begin() -> Arc<Self> {
        let witness = Arc::new(Self::default());
        let socket = match Socket::open() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::info!(
                    reason = %cause::chain(&error),
                    "what the kernel refuses to sessions is not told; protected paths and what ends a harness are"
                );
                return witness;
            }
        };
        let reader = Arc::downgrade(&witness);
        let begun = thread::Builder::new()
            .name("kernel-audit".to_owned())
            .spawn(move || {
                let mut domains = Domains::default();
                let mut socket = socket;
                loop {
                    let received = socket.receive();
                    let Some(witness) = reader.upgrade() else { return };
                    match received {
                        Ok(Received::Message(message)) => witness.hear(message, &mut domains),
                        Ok(Received::Lost) => {
                            tracing::warn!("the kernel's records came too fast; some are lost");
                        }
                        Err(error) => {
                            tracing::error!(%error, "the kernel's records cannot be read any more");
                            return;
                        }
                    }
                }
            });
        if let Err(error) = begun {
            tracing::error!(%error, "the kernel's records are not read: no thread");
        }
        witness
    }

    /// Whoever holds this hears what concerns the session of that shim.
    pub(super) fn attend(&self, shim: Option<i32>) -> mpsc::Receiver<Fact> {
        let (tell, heard) = mpsc::channel(FACTS_MAX);
        // A shim that could not begin an audit session of its own is in the runner's, with all the others.
        let session = shim
            .and_then(AuditSession::of)
            .filter(|session| AuditSession::own() != Some(*session));
        if let Some(session) = session {
            let mut sessions = self.lock();
            sessions.retain(|_, tell| !tell.is_closed());
            sessions.insert(session, tell);
        }
        heard
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AuditSession, mpsc::Sender<Fact>>> {
        // What a panic left behind is as whole as each single insertion.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, message: &[u8], domains: &mut Domains) {
        let record = match parse(message) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a record of the kernel is not understood");
                return;
            }
        };
        if let Some((session, violation)) = domains.violation(record) {
            let tell = self.lock().get(&session).cloned();
            if let Some(tell) = tell
                && let Err(mpsc::error::TrySendError::Full(_)) = tell.try_send(Fact::Violation(violation))
            {
                tracing::debug!("a session violates its sandbox faster than it can be told");
            }
        }
    }
}

/// Which session each domain of landlock is of: denials name the domain alone.
#[derive(Default)]
struct Domains {
    sessions: BTreeMap<u64, AuditSession>,
}

impl Domains {
    /// What a record says about whose sandbox.
    fn violation(&mut self, record: Record) -> Option<(AuditSession, SandboxViolation)> {
        match record {
            Record::Seccomp {
                session,
                architecture,
                number,
                action,
                program,
            } => {
                let violation = SandboxViolation {
                    layer: "seccomp".to_owned(),
                    operation: call(architecture, number),
                    target: program,
                    decision: decision(action),
                };
                Some((session?, violation))
            }
            Record::LandlockDomain { domain, pid } => {
                if self.sessions.len() == DOMAINS_MAX {
                    // Numbers of domains grow, so this is the oldest.
                    self.sessions.pop_first();
                }
                self.sessions
                    .extend(AuditSession::of(pid).map(|session| (domain, session)));
                None
            }
            Record::LandlockGone { domain } => {
                self.sessions.remove(&domain);
                None
            }
            Record::Landlock {
                domain,
                rights,
                target,
            } => {
                let violation = SandboxViolation {
                    layer: "landlock".to_owned(),
                    operation: rights,
                    target,
                    decision: ViolationDecision::Denied,
                };
                Some((*self.sessions.get(&domain)?, violation))
            }
        }
    }
}

/// A system call, for people.
fn call(architecture: u32, number: u32) -> String {
    /// Little-endian, 64 bits, and the number of the machine: `AUDIT_ARCH_…`.
    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    const AARCH64: u32 = 0xc000_00b7;
    let name = |architecture, number: u32| Syscall::of(i64::from(number), architecture).map(Syscall::name);
    let known = match architecture {
        // The same call as under its number without the bit, but for a few at the end.
        X86_64 => name(Architecture::X86_64, number & !X32),
        AARCH64 => name(Architecture::Aarch64, number),
        _ => None,
    };
    match (architecture, known) {
        (X86_64, Some(name)) if number & X32 != 0 => format!("x32 call {} ({name})", number & !X32),
        (X86_64, None) if number & X32 != 0 => format!("x32 call {}", number & !X32),
        (_, Some(name)) => name.to_owned(),
        (X86_64 | AARCH64, None) => format!("call {number}"),
        (I386, None) => format!("32-bit call {number}"),
        _ => format!("call {number} of architecture {architecture:#x}"),
    }
}

/// What seccomp did.
fn decision(action: u32) -> ViolationDecision {
    /// `SECCOMP_RET_…`.
    const KILL_PROCESS: u32 = 0x8000_0000;
    const KILL_THREAD: u32 = 0;
    const LOG: u32 = 0x7ffc_0000;
    match action {
        KILL_PROCESS | KILL_THREAD => ViolationDecision::Killed,
        LOG => ViolationDecision::Logged,
        _ => ViolationDecision::Denied,
    }
}
