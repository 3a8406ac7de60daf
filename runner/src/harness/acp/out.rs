//! The lines that are written to an agent.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

/// What the protocol's method is called, once and for both directions.
pub(super) mod method {
    pub(in super::super) const INITIALIZE: &str = "initialize";
    pub(in super::super) const AUTHENTICATE: &str = "authenticate";
    pub(in super::super) const SESSION_NEW: &str = "session/new";
    pub(in super::super) const SESSION_LOAD: &str = "session/load";
    pub(in super::super) const SESSION_RESUME: &str = "session/resume";
    pub(in super::super) const SESSION_CLOSE: &str = "session/close";
    pub(in super::super) const SESSION_LIST: &str = "session/list";
    pub(in super::super) const SESSION_PROMPT: &str = "session/prompt";
    pub(in super::super) const SESSION_CANCEL: &str = "session/cancel";
    pub(in super::super) const SESSION_SET_MODE: &str = "session/set_mode";
    pub(in super::super) const SESSION_SET_MODEL: &str = "session/set_model";
    pub(in super::super) const SESSION_SET_OPTION: &str = "session/set_config_option";
    pub(in super::super) const SESSION_UPDATE: &str = "session/update";
    pub(in super::super) const REQUEST_PERMISSION: &str = "session/request_permission";
    pub(in super::super) const CANCEL_REQUEST: &str = "$/cancel_request";
}

/// The method is none that the runner serves.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// What stands beside the method is not what the protocol says.
pub(super) const INVALID_PARAMS: i64 = -32602;

#[derive(Serialize)]
struct Request<'a, T> {
    jsonrpc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    method: &'a str,
    params: &'a T,
}

#[derive(Serialize)]
struct Answer<'a, T> {
    jsonrpc: &'a str,
    id: &'a RawValue,
    #[serde(flatten)]
    answer: BTreeMap<&'a str, T>,
}

#[derive(Serialize)]
struct Failure<'a> {
    code: i64,
    message: &'a str,
}

/// A request, answered under its id.
pub(super) fn request<T: Serialize>(id: &str, method: &str, params: &T) -> Vec<u8> {
    line(&Request {
        jsonrpc: "2.0",
        id: Some(id),
        method,
        params,
    })
}

/// A notification, which nobody answers.
pub(super) fn notification<T: Serialize>(method: &str, params: &T) -> Vec<u8> {
    line(&Request {
        jsonrpc: "2.0",
        id: None,
        method,
        params,
    })
}

/// An answer to a request of the agent's.
pub(super) fn result<T: Serialize>(id: &RawValue, result: T) -> Vec<u8> {
    line(&Answer {
        jsonrpc: "2.0",
        id,
        answer: [("result", result)].into(),
    })
}

/// A refusal of one.
pub(super) fn error(id: &RawValue, code: i64, message: &str) -> Vec<u8> {
    line(&Answer {
        jsonrpc: "2.0",
        id,
        answer: [("error", Failure { code, message })].into(),
    })
}

/// One line: JSON has no line break inside.
fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Texts, numbers and flags under names always have a JSON form, and a vector takes every byte.
    let written = serde_json::to_writer(&mut bytes, value);
    debug_assert!(written.is_ok());
    bytes.push(b'\n');
    bytes
}
