//! What the agent does: it follows the harness's own start and end and nothing else.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};

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

/// What the agent means to do, as it says itself. It replaces the plan before; without entries there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Each step, in order.
    #[serde(default)]
    pub entries: Vec<PlanEntry>,
}

grows!(Plan { entries });

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The step.
    pub content: String,
    /// How far it is.
    pub status: PlanStatus,
    /// How much it matters, as the harness calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

grows!(PlanEntry {
    content,
    status,
    priority
});

words! {
    /// How far a step of a plan is.
    pub enum PlanStatus {
        /// Not begun.
        0 "pending" => Pending,
        /// Under way.
        1 "in_progress" => InProgress,
        /// Done.
        2 "completed" => Completed,
    }
}
