//! Every bound of this side, each with its reason.

use std::time::Duration;

/// How long a dial may take, from the first packet to the answered Hello. A handshake takes a millisecond on a
/// loopback and a few round trips elsewhere; who needs longer is not there.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How long one command or query may wait for its answer, with all that is dialled and sent again meanwhile. Commands
/// are answered when they are taken, not when the agent is done, so only a harness that starts slowly, or a runner that
/// is started again, comes near this.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// How often a quiet connection says that it lives: below the shortest timeout of common NATs, and three chances
/// before it counts as dead.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// After how long of silence a connection is dead: an outage of some seconds passes, and a person does not wait long
/// for the next. With the keep-alive before it, a dead peer is known after 13 s at the latest.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(10);

/// How long a link must have stood for its loss to be a first one. Who loses it again sooner waits longer each time.
pub(crate) const STEADY: Duration = Duration::from_secs(5);

/// How often the process of the private runner is looked at. A UDP port that nobody listens at says nothing, so this,
/// not the silence, is what tells that it died.
#[cfg(feature = "local")]
pub(crate) const PROCESS_LOOK: Duration = Duration::from_millis(100);

/// What the kernel is asked for as socket buffers, bytes. The usual 208 KiB loses packets at full speed; what the
/// kernel clamps it to is taken.
pub(crate) const SOCKET_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// The longest packet that path discovery tries, bytes. Ten segments of it must fit one offloaded send of 65,507
/// bytes, or quinn hangs.
pub(crate) const MTU_MAX: u16 = 6500;

/// How many bytes of ours may be on their way unacknowledged. A peer that stops reading pins as much memory.
pub(crate) const SEND_WINDOW: u64 = 1024 * 1024;

/// How many streams a runner may have open to ask for a new certificate: one, and one more after a link that hung.
pub(crate) const RENEWALS_MAX: u32 = 2;

/// How long a stream that a runner has opened may take to come to its question, and one of ours that tells it whom to
/// trust to be answered.
pub(crate) const WORD_WAIT: Duration = Duration::from_secs(5);

/// How many bytes somebody who dials in may have sent unread before it is known who that is: a request for a
/// certificate is a few hundred.
pub(crate) const STRANGER_WINDOW: u32 = 64 * 1024;

/// How many who dial in may be strangers at once. Each has ten seconds to say what it wants, and a runner as much again to
/// be greeted.
pub(crate) const STRANGERS_MAX: usize = 256;

/// How many connections one listener has at most, those of runners included.
pub(crate) const ARRIVALS_MAX: usize = 4096;

/// How many runners that have dialled in wait to be taken up by the embedder.
pub(crate) const UNACCEPTED_MAX: usize = 64;

/// How many threads change the authority at once; one at a time has its lock.
pub(crate) const WRITERS_MAX: usize = 4;

/// How many strangers of one address that is known to be theirs are met at once, when half of all places are taken.
pub(crate) const STRANGERS_OF_ONE_MAX: usize = 32;

/// How many bytes of somebody who dials in wait for us to look.
pub(crate) const KNOCK_LEN_MAX: u64 = 64 * 1024;

/// The same of all of them together.
pub(crate) const KNOCKS_LEN_MAX: u64 = 4 * 1024 * 1024;

/// How many runners are dialled at once to be told whom to trust: a core's worth of handshakes.
pub(crate) const TELLING_MAX: usize = 32;

/// How many records of the authority wait for a slow reader before the oldest are dropped; they stand on the disk.
pub(crate) const RECORDS_HEARD_MAX: usize = 256;

/// The first buffer of a reader of one answer, bytes; nearly every answer fits.
pub(crate) const ANSWER_BUFFER_LEN: usize = 4 * 1024;

/// The first buffer of a subscription's reader, bytes: a few hundred events are split off one read.
pub(crate) const EVENT_BUFFER_LEN: usize = 64 * 1024;

/// How many events wait for the history store, at most. At the bound the stream waits for the store, and with it
/// the runner.
pub(crate) const UNKEPT_MAX: usize = 1024;

/// How many transient events wait for a slow reader before the oldest are dropped.
pub(crate) const TRANSIENTS_MAX: usize = 64;

/// How often one command is sent at most, each time on a new link. One that takes its runner down each time is not
/// sent to the next for ever.
pub(crate) const SENDS_MAX: u8 = 8;

/// The life of the certificate of a private runner on this machine: it is started where no control is that would stay
/// to renew it.
#[cfg(feature = "local")]
pub(crate) const LOCAL_RUNNER_LIFE: Duration = LEAF_LIFE_MAX;

/// The life of a runner's certificate unless the embedder wants another.
pub(crate) const RUNNER_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The longest life of any certificate but a root's: so long a serial number that was revoked is remembered.
pub(crate) const LEAF_LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The life of this control's own certificate. One is made for every dial, so it only has to outlive a handshake
/// and the longest connection that a runner should trust.
pub(crate) const CONTROL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The life of an authority's root, about ten years: whoever rotates it does so on purpose.
pub(crate) const ROOT_LIFE: Duration = Duration::from_secs(3653 * 24 * 3600);

/// How far back a certificate begins: two clocks may differ by this much.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The longest file of decisions that is read, bytes: ten thousand revocations of each kind, each with a reason, and the
/// statement that names them all.
pub(crate) const LEDGER_LEN_MAX: u64 = 32 * 1024 * 1024;

/// The longest reason of a revocation, bytes.
pub(crate) const REASON_LEN_MAX: usize = 256;

/// How often a process looks whether another one has decided something: revocations cut links within a second, of which
/// the disk and the link have the rest.
pub(crate) const AUTHORITY_LOOK: Duration = Duration::from_millis(200);
const _: () = assert!(AUTHORITY_LOOK.as_millis() <= 250);

/// How long a token may live: a token is made when it is needed, and one that lies around is found by somebody else.
pub(crate) const TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a token lives at least.
pub(crate) const TOKEN_LIFE_MIN: Duration = Duration::from_secs(1);

/// How many tokens may be open at once: a fleet that is enrolled by a script.
pub(crate) const TOKENS_MAX: usize = 1000;

/// The longest file of the audit log, bytes.
pub(crate) const AUDIT_LEN_MAX: u64 = 16 * 1024 * 1024;

/// How many files the audit log has at most: 128 MiB, some half a million lines.
pub(crate) const AUDIT_FILES_MAX: u32 = 8;

/// The longest key of the authority that is read, bytes: one on P-256 is a few hundred.
pub(crate) const AUTHORITY_FILE_LEN_MAX: u64 = 16 * 1024;

/// How long each step of a runner's start may take.
#[cfg(feature = "local")]
pub(crate) const BOOTSTRAP_WAIT: Duration = Duration::from_secs(30);

/// The longest line that a starting runner may write, bytes.
#[cfg(feature = "local")]
pub(crate) const BOOTSTRAP_LINE_LEN_MAX: usize = 64 * 1024;

/// How many lines a shell may say before the runner's first.
#[cfg(feature = "local")]
pub(crate) const BOOTSTRAP_NOISE_LINES_MAX: usize = 1000;

/// How much of what a starting runner says on its standard error is kept, bytes: the end, where the reason is.
#[cfg(feature = "local")]
pub(crate) const BOOTSTRAP_TAIL_LEN_MAX: usize = 8 * 1024;

/// How long a private runner without sessions and connections lives, seconds.
#[cfg(feature = "local")]
pub(crate) const LOCAL_IDLE_S: u32 = 600;

/// The longest record of a runner that is read, bytes: a name and an address.
pub(crate) const RECORD_LEN_MAX: u64 = 16 * 1024;

/// How many runners may be known by name.
pub(crate) const RECORDS_MAX: usize = 10_000;

/// How long a runner on this machine that was found may take to answer before another is started.
#[cfg(feature = "local")]
pub(crate) const LOCAL_CONNECT_WAIT: Duration = Duration::from_secs(3);
