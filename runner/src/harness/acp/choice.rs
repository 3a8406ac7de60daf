//! What of an agent can be chosen: its mode, its model, how hard that thinks.

use oqto_protocol::fault::{Fault, FaultCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::wire;
use crate::harness::excerpt::cut;

/// How many values of one choice are kept. Agents offer a handful of modes and at most hundreds of models.
const VALUES_MAX: usize = 1024;

/// How many of them a refusal names.
const SHOWN_MAX: usize = 32;

/// How long a name or an id of one is kept, in bytes.
const NAME_LEN_MAX: usize = 512;

/// What is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Mode,
    Model,
    Thinking,
}

/// By which method it is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum By {
    /// `session/set_mode`.
    SetMode,
    /// `session/set_model`, of agents without configuration options.
    SetModel,
    /// `session/set_config_option`, of this option.
    Option(String),
}

/// One choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) what: What,
    pub(super) by: By,
    pub(super) current: String,
    pub(super) values: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Value {
    pub(super) id: String,
    pub(super) name: String,
}

impl Choice {
    /// Checks that a value is one of those that there are.
    pub(super) fn has(&self, value: &str) -> Result<(), Fault> {
        if self.values.iter().any(|known| known.id == value) {
            return Ok(());
        }
        let known = self.values.iter().map(|known| known.id.as_str());
        let mut known: Vec<_> = known.take(SHOWN_MAX).collect();
        if self.values.len() > SHOWN_MAX {
            known.push("…");
        }
        Err(Fault::new(
            FaultCode::Invalid,
            format!(
                "there is no {} {value:?}; there are {}",
                self.what.name(),
                known.join(", ")
            ),
        ))
    }

    /// The value after the current one.
    pub(super) fn next(&self) -> Option<&str> {
        let at = self.values.iter().position(|known| known.id == self.current);
        let next = at.map_or(0, |at| (at + 1) % self.values.len());
        self.values.get(next).map(|value| value.id.as_str())
    }
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Model => "model",
            Self::Thinking => "thinking level",
        }
    }
}

/// The choices of a session that was opened. Modes have a method of their own also where they are an option too; of
/// models the option counts.
pub(super) fn of_opened(opened: &wire::Opened<'_>) -> Vec<Choice> {
    let mut choices = Vec::new();
    if let Some(modes) = &opened.modes {
        let values = modes.available_modes.iter();
        choices.push(Choice {
            what: What::Mode,
            by: By::SetMode,
            current: cut(&modes.current_mode_id, NAME_LEN_MAX),
            values: values
                .take(VALUES_MAX)
                .map(|mode| value(&mode.id, &mode.name))
                .collect(),
        });
    }
    let options = opened.config_options.map(of_options).unwrap_or_default();
    choices.extend(
        options
            .into_iter()
            .filter(|it| it.what != What::Mode || opened.modes.is_none()),
    );
    if let Some(models) = &opened.models
        && !choices.iter().any(|it| it.what == What::Model)
    {
        let values = models.available_models.iter();
        choices.push(Choice {
            what: What::Model,
            by: By::SetModel,
            current: cut(&models.current_model_id, NAME_LEN_MAX),
            values: values
                .take(VALUES_MAX)
                .map(|model| value(&model.model_id, &model.name))
                .collect(),
        });
    }
    choices
}

/// Those of the configuration options that are choices which the protocol has words for.
pub(super) fn of_options(options: &RawValue) -> Vec<Choice> {
    let options = Vec::<&RawValue>::deserialize(options).unwrap_or_default();
    let read = options
        .into_iter()
        .filter_map(|raw| wire::ConfigOption::deserialize(raw).ok());
    let mut choices: Vec<Choice> = Vec::new();
    for option in read {
        let what = match option.category.as_deref() {
            Some("mode") => What::Mode,
            Some("model") => What::Model,
            Some("thought_level") => What::Thinking,
            _ => continue,
        };
        if choices.iter().any(|it| it.what == what) {
            continue;
        }
        let mut values = Vec::new();
        for choice in &option.options {
            let group = choice.options.iter();
            let flat = group.chain(choice.value.is_some().then_some(choice));
            values.extend(flat.filter_map(|it| Some(value(it.value.as_ref()?, &it.name))));
        }
        values.truncate(VALUES_MAX);
        choices.push(Choice {
            what,
            by: By::Option(cut(&option.id, NAME_LEN_MAX)),
            current: cut(&option.current_value, NAME_LEN_MAX),
            values,
        });
    }
    choices
}

fn value(id: &str, name: &str) -> Value {
    Value {
        id: cut(id, NAME_LEN_MAX),
        name: cut(name, NAME_LEN_MAX),
    }
}
