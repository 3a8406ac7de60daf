//! Events: what happens in a session, in order. A file for each group of them.

mod agent;
mod envelope;
mod input;
mod kind;
mod note;
mod recovery;
mod sandbox;
mod session;
pub mod splice;
mod stream;
mod tool;

pub use agent::{AgentError, AgentIdle, AgentWorking, Phase, Plan, PlanEntry, PlanStatus};
pub use envelope::{Envelope, Numbered, Transient};
pub use input::{
    ConfirmRequest, InputNeeded, InputRequest, InputResolved, PermissionKind, PermissionOption,
    PermissionRequest, PermissionTool, ResolvedBy, SelectRequest, TextRequest,
};
pub use kind::Event;
pub use note::{ModeChanged, ModelChanged, Notify, NotifyLevel, Persisted, Status, ThinkingLevelChanged};
pub use recovery::{CompactEnd, CompactReason, CompactStart, RetryEnd, RetryStart};
pub use sandbox::{SandboxLimit, SandboxViolation, ViolationDecision};
pub use session::{
    Heartbeat, ProcessHealth, Recovered, SessionClosed, SessionCreated, SessionDormant, TitleChanged,
};
pub use stream::{
    DoneReason, FinishedCall, MessageEnd, MessageStart, StreamDone, StreamReset, TextDelta, ThinkingDelta,
    ToolCallDelta, ToolCallEnd, ToolCallStart,
};
pub use tool::{ProgressMode, ToolEnd, ToolProgress, ToolStart};
