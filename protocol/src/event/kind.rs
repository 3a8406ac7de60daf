//! Every event, by its number and its name.

use crate::codec::kinds;
use crate::delegation::{DelegateDelta, DelegateEnd, DelegateError, DelegateStart};

use super::{
    AgentError, AgentIdle, AgentWorking, CompactEnd, CompactStart, Heartbeat, InputNeeded, InputResolved,
    MessageEnd, MessageStart, ModeChanged, ModelChanged, Notify, Persisted, Plan, Recovered, RetryEnd,
    RetryStart, SandboxLimit, SandboxViolation, SessionClosed, SessionCreated, SessionDormant, Status,
    StreamDone, StreamReset, TextDelta, ThinkingDelta, ThinkingLevelChanged, TitleChanged, ToolCallDelta,
    ToolCallEnd, ToolCallStart, ToolEnd, ToolProgress, ToolStart,
};

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
        /// Nothing of it runs any more, and it can be started again.
        6 "session.dormant" since 1 => SessionDormant(SessionDormant),
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
        /// What it means to do; replaces the plan before.
        21 "agent.plan" since 1 => Plan(Plan),
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
        /// Another mode.
        82 "config.mode_changed" since 1 => ModeChanged(ModeChanged),
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
