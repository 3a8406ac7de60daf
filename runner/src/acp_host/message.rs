//! The requests that are served and their answers, as JSON-RPC has them.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::harness::Serve;

/// How long the id of a request that is served may be, in bytes: it is kept while a command runs. Agents count.
const ID_LEN_MAX: usize = 256;

const INVALID_PARAMS: i32 = -32602;
const INTERNAL: i32 = -32603;
const NOT_FOUND: i32 = -32002;
const CANCELLED: i32 = -32800;

/// A line that is for us.
pub(super) enum Asked<'a> {
    Request {
        id: &'a RawValue,
        request: Request<'a>,
    },
    /// The agent no longer waits for this one.
    Cancel {
        id: &'a RawValue,
    },
}

pub(super) enum Request<'a> {
    Read(Read),
    Write(Write<'a>),
    Terminal(Terminal),
    /// Its parameters are not those of its method.
    Malformed(Refusal),
}

pub(super) enum Terminal {
    Create(Create),
    Output(Named),
    WaitForExit(Named),
    Kill(Named),
    Release(Named),
}

#[derive(Deserialize)]
pub(super) struct Read {
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) line: Option<u32>,
    #[serde(default)]
    pub(super) limit: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct Write<'a> {
    pub(super) path: PathBuf,
    #[serde(borrow)]
    pub(super) content: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create {
    pub(super) command: String,
    #[serde(default)]
    pub(super) args: Option<Vec<String>>,
    #[serde(default)]
    pub(super) env: Option<Vec<Variable>>,
    #[serde(default)]
    pub(super) cwd: Option<PathBuf>,
    #[serde(default)]
    pub(super) output_byte_limit: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    pub(super) terminal_id: String,
}

/// What a request comes to.
pub(super) type Outcome = Result<Done, Refusal>;

/// The result of a request.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(super) enum Done {
    Read {
        content: String,
    },
    Created {
        terminal_id: String,
    },
    Output {
        output: String,
        truncated: bool,
        exit_status: Option<Exit>,
    },
    Exited(Exit),
    Nothing {},
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exit {
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<&'static str>,
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Refusal {
    code: i32,
    message: String,
}

impl Refusal {
    pub(super) fn invalid(message: String) -> Self {
        Self {
            code: INVALID_PARAMS,
            message,
        }
    }

    pub(super) fn failed(message: String) -> Self {
        Self {
            code: INTERNAL,
            message,
        }
    }

    /// Agents tell a file that is not there from one that cannot be read by this code.
    pub(super) fn not_found(message: String) -> Self {
        Self {
            code: NOT_FOUND,
            message,
        }
    }

    pub(super) fn cancelled() -> Self {
        Self {
            code: CANCELLED,
            message: "the request was cancelled".to_owned(),
        }
    }
}

/// One line of JSON-RPC, as far as it decides whether it is for us.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CancelParams<'a> {
    #[serde(borrow)]
    request_id: &'a RawValue,
}

/// Reads a line; `None` when it is for the runner: what is not served, what is no request, and what is no JSON-RPC.
pub(super) fn read(line: &[u8], serve: Serve) -> Option<Asked<'_>> {
    let Envelope { method, id, params } = serde_json::from_slice(line).ok()?;
    let params = params.map_or("null", RawValue::get);
    if method == "$/cancel_request" {
        let CancelParams { request_id: id } = serde_json::from_str(params).ok()?;
        return Some(Asked::Cancel { id });
    }
    let id = id.filter(|id| id.get().len() <= ID_LEN_MAX)?;
    let terminal = |request: Result<Terminal, Refusal>| request.map(Request::Terminal);
    let request = match &*method {
        "fs/read_text_file" if serve.fs => params_of(params).map(Request::Read),
        "fs/write_text_file" if serve.fs => params_of(params).map(Request::Write),
        "terminal/create" if serve.terminal => terminal(params_of(params).map(Terminal::Create)),
        "terminal/output" if serve.terminal => terminal(params_of(params).map(Terminal::Output)),
        "terminal/wait_for_exit" if serve.terminal => terminal(params_of(params).map(Terminal::WaitForExit)),
        "terminal/kill" if serve.terminal => terminal(params_of(params).map(Terminal::Kill)),
        "terminal/release" if serve.terminal => terminal(params_of(params).map(Terminal::Release)),
        _ => return None,
    };
    let request = request.unwrap_or_else(Request::Malformed);
    Some(Asked::Request { id, request })
}

fn params_of<'a, T: Deserialize<'a>>(params: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(params)
        .map_err(|error| Refusal::invalid(format!("the parameters are malformed: {error}")))
}

/// Appends the answer to the request of that id, a line.
pub(super) fn answer(id: &str, outcome: &Outcome, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    to.extend_from_slice(id.as_bytes());
    // Texts and numbers always have a JSON form, and a vector takes every byte.
    let written = match outcome {
        Ok(done) => {
            to.extend_from_slice(br#","result":"#);
            serde_json::to_writer(&mut *to, done)
        }
        Err(refusal) => {
            to.extend_from_slice(br#","error":"#);
            serde_json::to_writer(&mut *to, refusal)
        }
    };
    debug_assert!(written.is_ok());
    to.extend_from_slice(b"}\n");
}
