//! One session asks another.

use serde::{Deserialize, Serialize};

use crate::codec::{grows, words};
use crate::id::{RunnerId, SessionId};

/// Asks another session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delegate {
    /// Which.
    pub target_session_id: SessionId,
    /// Where; without it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_runner_id: Option<RunnerId>,
    /// What.
    pub message: String,
    /// Whether to wait.
    pub mode: DelegateMode,
    /// The policy for it; may only narrow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_profile: Option<String>,
    /// How long at most, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How many tokens at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// What it should know besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

grows!(Delegate {
    target_session_id,
    target_runner_id,
    message,
    mode,
    sandbox_profile,
    timeout_ms,
    max_tokens,
    context
});

words! {
    /// Whether who asks waits.
    pub enum DelegateMode {
        /// It waits for the answer.
        0 "sync" => Sync,
        /// It goes on; the answer comes as an event.
        1 "async" => Async,
    }
}

/// Takes a question back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegateCancel {
    /// Which.
    pub request_id: String,
}

grows!(DelegateCancel { request_id });

/// Another session is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegateStart {
    /// The question's name.
    pub request_id: String,
    /// Who is asked.
    pub target_session_id: SessionId,
    /// Where.
    pub target_runner_id: RunnerId,
    /// Whether who asks waits.
    pub mode: DelegateMode,
}

grows!(DelegateStart {
    request_id,
    target_session_id,
    target_runner_id,
    mode
});

/// More of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegateDelta {
    /// The question.
    pub request_id: String,
    /// The text.
    pub delta: String,
}

grows!(DelegateDelta { request_id, delta });

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegateEnd {
    /// The question.
    pub request_id: String,
    /// The answer.
    pub response: String,
    /// Who gave it.
    pub responder: String,
    /// How long it took, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

grows!(DelegateEnd {
    request_id,
    response,
    responder,
    duration_ms
});

/// No answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegateError {
    /// The question.
    pub request_id: String,
    /// Why, for people.
    pub error: String,
    /// Why.
    pub code: DelegateErrorCode,
}

grows!(DelegateError {
    request_id,
    error,
    code
});

words! {
    /// Why a question got no answer.
    pub enum DelegateErrorCode {
        /// There is no such session.
        0 "target_not_found" => TargetNotFound,
        /// Not allowed.
        1 "permission_denied" => PermissionDenied,
        /// It took too long.
        2 "timeout" => Timeout,
        /// The other session failed.
        3 "target_error" => TargetError,
        /// It was taken back.
        4 "cancelled" => Cancelled,
        /// The other runner cannot be reached.
        5 "runner_unreachable" => RunnerUnreachable,
    }
}
