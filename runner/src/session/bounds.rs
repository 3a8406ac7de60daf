//! Every bound of a session, each with its reason.

/// How long a harness may take from its start until it takes commands, in milliseconds. Agents answer after 0.4 to
/// 5 s, take as long again to open a session, and five times that on a busy host.
pub(super) const START_MS: u64 = 60_000;

/// How long a harness may take to answer a command, in milliseconds. Real ones take a few; past this the sender
/// is told rather than left waiting.
pub(super) const ANSWER_MS: u64 = 30_000;

/// How long after it took a prompt a harness may take to begin the run, in milliseconds. pi takes up to 15; what it
/// takes without a run is a command of an extension.
pub(super) const BEGIN_MS: u64 = 1_000;

/// How long a harness may take to stop working when told, in milliseconds, before that is called an error: tools
/// are ended with a grace of their own.
pub(super) const ABORT_MS: u64 = 20_000;

/// How long a harness may take to end after its input was closed, and to die after it was killed, in milliseconds.
pub(super) const STOP_MS: u64 = 5_000;

/// How often a harness is killed before its session is closed over it. A process that does not die of that hangs in
/// the kernel, and nobody should have to wait for it.
pub(super) const KILLS_MAX: u8 = 3;

/// How often a harness that died is started again within [`RESTARTS_MS`]. One that still dies has a reason that does
/// not go by itself.
pub(super) const RESTARTS_MAX: usize = 5;

/// The time in which [`RESTARTS_MAX`] counts, in milliseconds.
pub(super) const RESTARTS_MS: u64 = 10 * 60_000;

/// How long a harness that died stays down before it is started again, in milliseconds: the first time hardly, then
/// four times as long each time, so that what it ran into (a full memory, a provider) has time to pass.
pub(super) const RESTART_MS: [u64; RESTARTS_MAX] = [100, 1_000, 4_000, 16_000, 60_000];

/// How long after a deadline the driver is told to look, in milliseconds: a record of before the deadline that is
/// still on its way to the tape's reader comes first then, as it will when the tape is read again.
pub(super) const DEADLINE_SLACK_MS: u64 = 200;

/// How many commands may wait for a harness that starts, or for its answers. Nobody has more in flight that means
/// well.
pub(super) const COMMANDS_MAX: usize = 64;

/// How many replies are kept for commands that come again. A command comes again when the link fell before its
/// reply, seconds ago; no more than this are under way in a session, and each mark repeats them.
pub(super) const REPLIES_MAX: usize = 128;

/// How long all kept replies may be together, in bytes; a list of models has some 100 KB.
pub(super) const REPLIES_LEN_MAX: usize = 1024 * 1024;

/// How long a reply may be that is written down with a session at rest, in bytes: those that say that something was
/// done have some fifty.
pub(super) const REPLY_NOTED_MAX: usize = 1024;

/// How many requests of an agent may be open at once. Agents ask one at a time.
pub(super) const ASKED_MAX: usize = 64;

/// How many messages that were said may wait to be seen in the harness's own words.
pub(super) const SPOKEN_MAX: usize = 64;

/// How much of a message that is being made is kept where the harness does not repeat it at its end, in bytes. What is
/// longer becomes several messages; a line of such a harness always fits.
pub(super) const MESSAGE_LEN_MAX: usize = crate::bounds::HARNESS_LINE_MAX;

/// How much of a message that is being made is kept for the case that its harness dies, in bytes.
pub(super) const PARTIAL_LEN_MAX: usize = 1024 * 1024;

/// How many parts of it are kept. Models make a handful.
pub(super) const PARTIAL_PARTS_MAX: usize = 1024;

/// How much output is held back until the sandbox's report arrives, in bytes. Both come at once, from two pipes.
pub(super) const EARLY_LEN_MAX: usize = 1024 * 1024;

/// How many notes of a harness wait until it has said what it can do. An agent has one or two.
pub(super) const HELD_MAX: usize = 32;

/// How many different violations of its sandbox a session tells. An agent that was stopped so often was told to try,
/// and who reads has understood; each costs eight bytes of every snapshot.
pub(super) const VIOLATIONS_MAX: usize = 128;

/// How many facts are held back until the sandbox's report arrives. Hardly one can be there before.
pub(super) const EARLY_FACTS_MAX: usize = 16;

/// How much of what a harness wrote to its standard error is kept to explain its end, in bytes.
pub(super) const STDERR_LEN_MAX: usize = 2 * 1024;

/// How many lines that are none of its dialect are shown within [`STRAYS_MS`].
pub(super) const STRAYS_MAX: u32 = 8;

/// The time in which [`STRAYS_MAX`] counts, in milliseconds.
pub(super) const STRAYS_MS: u64 = 60_000;

/// How much of such a line is shown, in bytes.
pub(super) const STRAY_LEN_MAX: usize = 256;

/// The longest version that a harness may say it is of, in bytes: it stands in every list of harnesses. One that says
/// more said nothing.
pub(super) const VERSION_LEN_MAX: usize = 128;
