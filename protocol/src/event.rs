//! Events: what happens in a session, in order.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, kinds, words};
use crate::delegation::{DelegateDelta, DelegateEnd, DelegateError, DelegateStart};
use crate::id::{MessageId, RunnerId, SessionId};
use crate::message::{Message, Role};
use crate::policy::SandboxReport;
use crate::session::Capability;

/// An event with its number, as it is kept and sent. Whose it is follows from the stream or file it stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Which telling of the session.
    pub epoch: u32,
    /// Its number within the epoch, from 1, without gaps; of a merged event the last.
    pub seq: u64,
    /// Of a merged event the first number.
    pub first_seq: Option<u64>,
    /// When it happened, Unix milliseconds.
    pub ts: u64,
    /// What happened.
    pub event: Event,
}

grows!(Numbered {
    epoch,
    seq,
    first_seq,
    ts,
    event
});

/// An event with all that is needed to know it anywhere: the form of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Whose.
    pub session_id: SessionId,
    /// Where.
    pub runner_id: RunnerId,
    /// Which telling of the session.
    pub epoch: u32,
    /// Its number; a transient event has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Of a merged event the first number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    /// When it happened, Unix milliseconds.
    pub ts: u64,
    /// What happened. Flattened, since the protocol has one object an event and every field of it is known.
    #[serde(flatten)]
    pub event: Event,
}

/// An event that is not kept: telemetry, the first thing to go under load.
#[derive(Clone, Debug, PartialEq)]
pub struct Transient {
    /// Whose.
    pub session_id: SessionId,
    /// When, Unix milliseconds.
    pub ts: u64,
    /// What.
    pub event: Event,
}

grows!(Transient {
    session_id,
    ts,
    event
});

kinds! {
    /// What can happen in a session.
    pub enum Event, "event" {
        /// The session exists and its sandbox holds.
        1 "session.created" since 1 => SessionCreated(SessionCreated),
        /// The session has ended.
        2 "session.closed" since 1 => SessionClosed(SessionClosed),
        /// It has another title.
        3 "session.title_changed" since 1 => TitleChanged(TitleChanged),
        /// How its process does; transient.
        4 "session.heartbeat" since 1 => Heartbeat(Heartbeat),
        /// It goes on after something died.
        5 "session.recovered" since 1 => Recovered(Recovered),
        /// The agent waits.
        16 "agent.idle" since 1 => AgentIdle(AgentIdle),
        /// The agent works.
        17 "agent.working" since 1 => AgentWorking(AgentWorking),
        /// Something failed.
        18 "agent.error" since 1 => AgentError(AgentError),
        /// The agent asks.
        19 "agent.input_needed" since 1 => InputNeeded(InputNeeded),
        /// What it asked is answered, or no longer asked.
        20 "agent.input_resolved" since 1 => InputResolved(InputResolved),
        /// A message begins.
        32 "stream.message_start" since 1 => MessageStart(MessageStart),
        /// More text of it.
        33 "stream.text_delta" since 1 => TextDelta(TextDelta),
        /// More thought of it.
        34 "stream.thinking_delta" since 1 => ThinkingDelta(ThinkingDelta),
        /// It begins to call a tool.
        35 "stream.tool_call_start" since 1 => ToolCallStart(ToolCallStart),
        /// More of the call's arguments.
        36 "stream.tool_call_delta" since 1 => ToolCallDelta(ToolCallDelta),
        /// The call is whole.
        37 "stream.tool_call_end" since 1 => ToolCallEnd(ToolCallEnd),
        /// The message is whole.
        38 "stream.message_end" since 1 => MessageEnd(MessageEnd),
        /// The run has ended.
        39 "stream.done" since 1 => StreamDone(StreamDone),
        /// The reader's cursor is of a lost tail; it goes on from here.
        40 "stream.reset" since 1 => StreamReset(StreamReset),
        /// A tool runs.
        48 "tool.start" since 1 => ToolStart(ToolStart),
        /// What it gave so far, or more of it.
        49 "tool.progress" since 1 => ToolProgress(ToolProgress),
        /// It has ended.
        50 "tool.end" since 1 => ToolEnd(ToolEnd),
        /// The harness will try again.
        64 "retry.start" since 1 => RetryStart(RetryStart),
        /// It has tried.
        65 "retry.end" since 1 => RetryEnd(RetryEnd),
        /// The context is being shortened.
        66 "compact.start" since 1 => CompactStart(CompactStart),
        /// It is shorter, or not.
        67 "compact.end" since 1 => CompactEnd(CompactEnd),
        /// Another model.
        80 "config.model_changed" since 1 => ModelChanged(ModelChanged),
        /// Another level.
        81 "config.thinking_level_changed" since 1 => ThinkingLevelChanged(ThinkingLevelChanged),
        /// A note for people.
        96 "notify" since 1 => Notify(Notify),
        /// A line for people that replaces the one with the same key.
        97 "status" since 1 => Status(Status),
        /// The harness has written its own session down.
        98 "persisted" since 1 => Persisted(Persisted),
        /// Something was refused.
        112 "sandbox.violation" since 1 => SandboxViolation(SandboxViolation),
        /// A limit was reached.
        113 "sandbox.limit" since 1 => SandboxLimit(SandboxLimit),
        /// Another session is asked.
        128 "delegate.start" since 1 => DelegateStart(DelegateStart),
        /// More of its answer.
        129 "delegate.delta" since 1 => DelegateDelta(DelegateDelta),
        /// Its answer.
        130 "delegate.end" since 1 => DelegateEnd(DelegateEnd),
        /// It did not answer.
        131 "delegate.error" since 1 => DelegateError(DelegateError),
    }
}

/// The session exists and its sandbox holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionCreated {
    /// Whether it goes on with an earlier session of the harness.
    pub resumed: bool,
    /// The harness.
    pub harness: String,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// What holds it.
    pub sandbox: SandboxReport,
}

grows!(SessionCreated {
    resumed,
    harness,
    capabilities,
    sandbox
});

/// The session has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionClosed {
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

grows!(SessionClosed { reason });

/// The session has another title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TitleChanged {
    /// The title.
    pub title: String,
    /// A short form of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable_id: Option<String>,
}

grows!(TitleChanged { title, readable_id });

/// How the session's process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The process.
    pub process: ProcessHealth,
}

grows!(Heartbeat { process });

/// How a process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessHealth {
    /// Whether it lives.
    pub alive: bool,
    /// Its id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its resident memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Its share of one processor, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// How long it lives, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
}

grows!(ProcessHealth {
    alive,
    pid,
    rss_bytes,
    cpu_pct,
    uptime_s
});

/// The session goes on after something died.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// What was done.
    pub how: String,
    /// What is lost, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

grows!(Recovered { how, lost });

/// The agent waits for a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentIdle {}

grows!(AgentIdle {});

/// The agent works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentWorking {
    /// At what.
    pub phase: Phase,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

grows!(AgentWorking { phase, detail });

words! {
    /// What an agent works at.
    pub enum Phase {
        /// The model writes.
        0 "generating" => Generating,
        /// The model thinks.
        1 "thinking" => Thinking,
        /// A tool runs.
        2 "tool_running" => ToolRunning,
        /// The context is being shortened.
        3 "compacting" => Compacting,
        /// It waits to try again.
        4 "retrying" => Retrying,
        /// It begins.
        5 "initializing" => Initializing,
    }
}

/// Something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentError {
    /// What, and why.
    pub error: String,
    /// Whether the session can go on.
    pub recoverable: bool,
    /// At what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}

grows!(AgentError {
    error,
    recoverable,
    phase
});

/// The agent asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputNeeded {
    /// What.
    pub request: InputRequest,
}

grows!(InputNeeded { request });

kinds! {
    /// What an agent can ask.
    pub enum InputRequest, "type" {
        /// To choose.
        1 "select" since 1 => SelectRequest(SelectRequest),
        /// To confirm.
        2 "confirm" since 1 => ConfirmRequest(ConfirmRequest),
        /// For text.
        3 "input" since 1 => TextRequest(TextRequest),
        /// To be allowed.
        4 "permission" since 1 => PermissionRequest(PermissionRequest),
    }
}

/// Asks to choose one of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectRequest {
    /// Named in the answer.
    pub request_id: String,
    /// The question.
    pub title: String,
    /// The choices.
    #[serde(default)]
    pub options: Vec<String>,
    /// After how long it stops asking, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

grows!(SelectRequest {
    request_id,
    title,
    options,
    timeout
});

/// Asks to confirm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmRequest {
    /// Named in the answer.
    pub request_id: String,
    /// The question.
    pub title: String,
    /// More of it.
    pub message: String,
    /// After how long it stops asking, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

grows!(ConfirmRequest {
    request_id,
    title,
    message,
    timeout
});

/// Asks for text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextRequest {
    /// Named in the answer.
    pub request_id: String,
    /// The question.
    pub title: String,
    /// What an answer looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// After how long it stops asking, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

grows!(TextRequest {
    request_id,
    title,
    placeholder,
    timeout
});

/// Asks to be allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PermissionRequest {
    /// Named in the answer.
    pub request_id: String,
    /// The question.
    pub title: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The answers that are possible.
    #[serde(default)]
    pub options: Vec<PermissionOption>,
    /// What the harness said beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

grows!(PermissionRequest {
    request_id,
    title,
    description,
    options,
    metadata
});

/// One answer to a permission request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PermissionOption {
    /// Named in the answer.
    pub id: String,
    /// For people.
    pub label: String,
    /// What it means.
    pub kind: PermissionKind,
}

grows!(PermissionOption { id, label, kind });

words! {
    /// What an answer to a permission request means.
    pub enum PermissionKind {
        /// Yes, this time.
        0 "allow_once" => AllowOnce,
        /// Yes, and do not ask again.
        1 "allow_always" => AllowAlways,
        /// No, this time.
        2 "reject_once" => RejectOnce,
        /// No, and do not ask again.
        3 "reject_always" => RejectAlways,
    }
}

/// What was asked is answered, or no longer asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputResolved {
    /// Which request.
    pub request_id: String,
}

grows!(InputResolved { request_id });

/// A message begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageStart {
    /// Its id.
    pub message_id: MessageId,
    /// Who speaks.
    pub role: Role,
}

grows!(MessageStart { message_id, role });

/// More text of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextDelta {
    /// The message.
    pub message_id: MessageId,
    /// The text.
    pub delta: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(TextDelta {
    message_id,
    delta,
    content_index
});

/// More thought of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThinkingDelta {
    /// The message.
    pub message_id: MessageId,
    /// The thought.
    pub delta: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(ThinkingDelta {
    message_id,
    delta,
    content_index
});

/// A message begins to call a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCallStart {
    /// The message.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(ToolCallStart {
    message_id,
    tool_call_id,
    name,
    content_index
});

/// More of a call's arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// The message.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: String,
    /// A piece of JSON text.
    pub delta: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
}

grows!(ToolCallDelta {
    message_id,
    tool_call_id,
    delta,
    content_index
});

/// A call is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCallEnd {
    /// The message.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: String,
    /// Which part of the message, from 0.
    pub content_index: u32,
    /// The call.
    pub tool_call: FinishedCall,
}

grows!(ToolCallEnd {
    message_id,
    tool_call_id,
    content_index,
    tool_call
});

/// A whole call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedCall {
    /// The call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub input: Json,
}

grows!(FinishedCall { id, name, input });

/// A message is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageEnd {
    /// The message.
    pub message: Box<Message>,
}

grows!(MessageEnd { message });

/// A run has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamDone {
    /// How.
    pub reason: DoneReason,
}

grows!(StreamDone { reason });

words! {
    /// How a run ended.
    pub enum DoneReason {
        /// The agent was done.
        0 "stop" => Stop,
        /// The output limit.
        1 "length" => Length,
        /// Something failed.
        2 "error" => Error,
        /// It was told to.
        3 "aborted" => Aborted,
    }
}

/// The reader's cursor is of a lost tail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamReset {
    /// The epoch that goes on.
    pub epoch: u32,
    /// Its last number that the reader may keep; what it has beyond never happened.
    pub seq: u64,
}

grows!(StreamReset { epoch, seq });

/// A tool runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolStart {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
}

grows!(ToolStart {
    tool_call_id,
    name,
    input
});

/// What a tool gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolProgress {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// What it gave.
    pub partial_output: Json,
    /// Whether this is all so far or only what is new.
    pub mode: ProgressMode,
}

grows!(ToolProgress {
    tool_call_id,
    name,
    partial_output,
    mode
});

words! {
    /// How to read a tool's progress.
    pub enum ProgressMode {
        /// All that the tool gave so far.
        0 "whole" => Whole,
        /// What it gave since the last.
        1 "more" => More,
    }
}

/// A tool has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolEnd {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub name: String,
    /// What it gave.
    pub output: Json,
    /// Whether it failed.
    pub is_error: bool,
    /// How long it took, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

grows!(ToolEnd {
    tool_call_id,
    name,
    output,
    is_error,
    duration_ms
});

/// The harness will try again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryStart {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How many there will be at most.
    pub max_attempts: u32,
    /// After how long, milliseconds.
    pub delay_ms: u64,
    /// What failed.
    pub error: String,
}

grows!(RetryStart {
    attempt,
    max_attempts,
    delay_ms,
    error
});

/// The harness has tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryEnd {
    /// Whether that helped.
    pub success: bool,
    /// Which attempt.
    pub attempt: u32,
    /// What failed in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_error: Option<String>,
}

grows!(RetryEnd {
    success,
    attempt,
    final_error
});

/// The context is being shortened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompactStart {
    /// Why.
    pub reason: CompactReason,
}

grows!(CompactStart { reason });

words! {
    /// Why a context is being shortened.
    pub enum CompactReason {
        /// It became long.
        0 "threshold" => Threshold,
        /// It became too long.
        1 "overflow" => Overflow,
        /// Somebody asked.
        2 "manual" => Manual,
    }
}

/// The context was shortened, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompactEnd {
    /// Whether it is shorter.
    pub success: bool,
    /// Whether the run goes on with it.
    pub will_retry: bool,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What stands for what was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// How long it was, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_before: Option<u64>,
}

grows!(CompactEnd {
    success,
    will_retry,
    error,
    summary,
    tokens_before
});

/// Another model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelChanged {
    /// Whose.
    pub provider: String,
    /// Which.
    pub model_id: String,
}

grows!(ModelChanged { provider, model_id });

/// Another level of thinking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThinkingLevelChanged {
    /// Which.
    pub level: String,
}

grows!(ThinkingLevelChanged { level });

/// A note for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notify {
    /// How much it matters.
    pub level: NotifyLevel,
    /// The note.
    pub message: String,
}

grows!(Notify { level, message });

words! {
    /// How much a note matters.
    pub enum NotifyLevel {
        /// Good to know.
        0 "info" => Info,
        /// Look at it.
        1 "warning" => Warning,
        /// Something is wrong.
        2 "error" => Error,
    }
}

/// A line for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which line.
    pub key: String,
    /// What it says; without it the line goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

grows!(Status { key, text });

/// The harness has written its own session down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Persisted {
    /// How many messages.
    pub message_count: u64,
    /// Up to which event.
    pub seq: u64,
}

grows!(Persisted { message_count, seq });

/// Something was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxViolation {
    /// Which layer refused.
    pub layer: String,
    /// What was tried.
    pub operation: String,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What became of it.
    pub decision: ViolationDecision,
}

grows!(SandboxViolation {
    layer,
    operation,
    target,
    decision
});

words! {
    /// What became of a violation.
    pub enum ViolationDecision {
        /// It was refused.
        0 "denied" => Denied,
        /// Who tried was ended.
        1 "killed" => Killed,
        /// It was let through, and said.
        2 "logged" => Logged,
    }
}

/// A limit was reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxLimit {
    /// Of what.
    pub resource: String,
    /// How much is used, in the resource's unit.
    pub used: u64,
    /// The limit, in the same unit.
    pub limit: u64,
}

grows!(SandboxLimit {
    resource,
    used,
    limit
});
