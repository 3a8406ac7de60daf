//! What pi answers to commands.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{Event, ModelChanged};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::{HarnessAnswer, ModelInfo, Models, ReplyData, Stats};
use oqto_protocol::session::SessionStats;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::command::{CLEAR, PROBE_ID};
use super::wire;
use crate::harness::fragment::{Fragment, HarnessState};

/// How long the path of pi's session file may be, in bytes: the kernel opens no longer one.
const OWN_SESSION_LEN_MAX: usize = 4096;

/// The commands that open another session.
const MOVES: [&str; 3] = ["new_session", "fork", "switch_session"];

/// Reads an answer. Those to nobody (the runner's own side commands) mean nothing.
pub(super) fn read(response: &wire::Response<'_>, out: &mut Vec<Fragment>) {
    let command = response.command.as_deref().unwrap_or_default();
    if command == "get_state" && response.success {
        state(response.data, out);
    }
    let Some(id) = response.id.as_deref() else {
        return refused_unnamed(response, out);
    };
    if id == PROBE_ID {
        out.push(Fragment::Ready);
        return;
    }
    let Ok(id) = id.parse::<CommandId>() else {
        return;
    };
    let answer = if response.success {
        taken(command, response.data, out)
    } else {
        let error = response.error.as_deref().unwrap_or("no reason given");
        Err(Fault::new(
            FaultCode::Harness,
            format!("pi refused {command}: {error}"),
        ))
    };
    out.push(Fragment::Answer { id, answer });
}

/// Whether pi has another session open by an answer to a command that opens one; `None` of all other answers.
pub(super) fn moved(response: &wire::Response<'_>) -> Option<bool> {
    let command = response.command.as_deref()?;
    MOVES
        .contains(&command)
        .then(|| response.success && !is_cancelled(response.data))
}

/// An extension may refuse these, and pi calls that a success.
fn is_cancelled(data: Option<&RawValue>) -> bool {
    of::<wire::Cancelled>(data).is_some_and(|data| data.cancelled)
}

/// A refusal without an id is of a line that pi could not read: ours, so it is worth a note. Up to 0.74 does not know the
/// command that takes back what is queued, which goes with every abort.
fn refused_unnamed(response: &wire::Response<'_>, out: &mut Vec<Fragment>) {
    if !response.success && response.command.as_deref() != Some(CLEAR) {
        out.push(Fragment::Stray);
    }
}

fn taken(
    command: &str,
    data: Option<&RawValue>,
    out: &mut Vec<Fragment>,
) -> Result<Option<ReplyData>, Fault> {
    match command {
        "set_model" => {
            if let Some(model) = of::<wire::Model<'_>>(data) {
                model_changed(&model, out);
            }
            Ok(None)
        }
        "cycle_model" => {
            if let Some(cycled) = of::<wire::Cycled<'_>>(data) {
                model_changed(&cycled.model, out);
            }
            Ok(data.map(as_it_came))
        }
        "get_available_models" => {
            let models = of::<wire::Models<'_>>(data).map_or_else(Vec::new, |data| data.models);
            let models = models.into_iter().map(model_info).collect();
            Ok(Some(ReplyData::Models(Models { models })))
        }
        "get_session_stats" => match of::<wire::Stats>(data) {
            Some(stats) => Ok(Some(session_stats(&stats))),
            None => Ok(data.map(as_it_came)),
        },
        _ if MOVES.contains(&command) && is_cancelled(data) => Err(Fault::new(
            FaultCode::Harness,
            format!("an extension of pi cancelled {command}"),
        )),
        "prompt" | "compact" | "new_session" | "switch_session" => Ok(None),
        _ => Ok(data.map(as_it_came)),
    }
}

fn state(data: Option<&RawValue>, out: &mut Vec<Fragment>) {
    let Some(state) = of::<wire::State<'_>>(data) else {
        return;
    };
    let (provider, model) = state
        .model
        .map(|model| (model.provider.into_owned(), model.id.into_owned()))
        .unzip();
    out.push(Fragment::State(Box::new(HarnessState {
        provider,
        model,
        thinking_level: state.thinking_level.map(wire::Text::into_owned),
        title: state.session_name.map(wire::Text::into_owned),
        own_session: state
            .session_file
            .filter(|file| is_session(file))
            .map(wire::Text::into_owned),
        raw: data.map(|raw| raw.get().to_owned()),
        ..HarnessState::default()
    })));
}

/// Whether pi can be started with this as its session: it becomes an argument of a program.
fn is_session(file: &str) -> bool {
    file.starts_with('/') && file.len() <= OWN_SESSION_LEN_MAX && !file.contains('\0')
}

fn model_changed(model: &wire::Model<'_>, out: &mut Vec<Fragment>) {
    let (provider, model_id) = (model.provider.to_string(), model.id.to_string());
    out.push(Fragment::State(Box::new(HarnessState {
        provider: Some(provider.clone()),
        model: Some(model_id.clone()),
        ..HarnessState::default()
    })));
    out.push(Fragment::Event(Event::ModelChanged(ModelChanged {
        provider,
        model_id,
    })));
}

fn model_info(model: wire::Model<'_>) -> ModelInfo {
    ModelInfo {
        provider: model.provider.into_owned(),
        id: model.id.into_owned(),
        name: model.name.map(wire::Text::into_owned),
        reasoning: model.reasoning,
        context_tokens: model.context_window,
    }
}

fn session_stats(stats: &wire::Stats) -> ReplyData {
    ReplyData::Stats(Stats {
        stats: SessionStats {
            user_messages: stats.user_messages,
            assistant_messages: stats.assistant_messages,
            tool_calls: stats.tool_calls,
            input_tokens: stats.tokens.input,
            output_tokens: stats.tokens.output,
            cost_usd: stats.cost,
        },
    })
}

fn as_it_came(data: &RawValue) -> ReplyData {
    ReplyData::HarnessAnswer(HarnessAnswer {
        answer: Json::from(data),
    })
}

fn of<'a, T: Deserialize<'a>>(data: Option<&'a RawValue>) -> Option<T> {
    T::deserialize(data?).ok()
}
