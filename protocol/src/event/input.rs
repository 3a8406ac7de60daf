//! What an agent asks of people.

use serde::{Deserialize, Serialize};

use crate::codec::{Json, grows, kinds, words};

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
    /// What it wants to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<PermissionTool>,
    /// After how long it is refused, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

grows!(PermissionRequest {
    request_id,
    title,
    description,
    options,
    metadata,
    tool,
    timeout
});

/// What an agent wants to do that asks to be allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PermissionTool {
    /// The call, where it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tool, as the harness calls it.
    pub name: String,
    /// Of what kind it is: `read`, `edit`, `delete`, `move`, `search`, `execute`, `think`, `fetch`, `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What the rules of a policy are compared with: the command of a shell, the path of a file, the URL of a page. All of
    /// them have to be allowed.
    #[serde(default)]
    pub targets: Vec<String>,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
}

grows!(PermissionTool {
    tool_call_id,
    name,
    kind,
    targets,
    input
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
    /// Who or what resolved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ResolvedBy>,
    /// Of a permission: what was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<PermissionKind>,
    /// The rule of the policy that decided, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

grows!(InputResolved {
    request_id,
    by,
    decision,
    rule
});

words! {
    /// What resolved a request.
    pub enum ResolvedBy {
        /// Somebody's answer.
        0 "answer" => Answer,
        /// A rule of the policy.
        1 "rule" => Rule,
        /// Nobody answered in time.
        2 "timeout" => Timeout,
        /// The run was aborted.
        3 "abort" => Abort,
        /// The agent asks no longer: its run or its process has ended.
        4 "agent" => Agent,
    }
}
