//! `models`, `set`, `send`: what else a session can be told.

use oqto_protocol::command::{Command, SetMode, SetModel, SetSessionName, SetThinkingLevel};
use oqto_protocol::reply::ModelInfo;
use serde_json::{Value, json};

use super::act::{done, session};
use super::args::{self, GlobalOptions};
use super::error::{CliError, similar};
use super::list::table;
use super::output::Output;
use super::target;
use crate::Control;

/// Lists the models that a session can use.
pub(super) async fn models(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Which,
    output: &mut Output,
) -> Result<(), CliError> {
    let session = session(control, options, &args.session).await?;
    let models = session.models().await.map_err(failed("list the models"))?;
    if options.json {
        return output.json(&json!({"session_id": session.id(), "models": models}));
    }
    let rows = models.into_iter().map(|model| {
        let context = model.context_tokens.map(|tokens| tokens.to_string());
        [
            name(&model),
            context.unwrap_or_default(),
            model.name.unwrap_or_default(),
        ]
    });
    output.text(&table(["MODEL", "CONTEXT", "NAME"], rows))
}

/// Changes one thing of a session.
pub(super) async fn set(
    control: &Control,
    options: &GlobalOptions,
    args: args::Set,
    output: &mut Output,
) -> Result<(), CliError> {
    let session = session(control, options, &args.session).await?;
    let (action, command) = match args {
        args::Set {
            model: Some(asked), ..
        } => {
            let models = session.models().await.map_err(failed("list the models"))?;
            let ModelInfo { provider, id, .. } = choose(&models, &asked)?;
            let set = SetModel {
                provider,
                model_id: id,
            };
            ("change the model", Command::SetModel(set))
        }
        args::Set {
            thinking: Some(level),
            ..
        } => {
            let set = SetThinkingLevel { level };
            ("change how hard the model thinks", Command::SetThinkingLevel(set))
        }
        args::Set {
            mode: Some(mode_id), ..
        } => {
            let set = SetMode { mode_id };
            ("change how much the agent asks", Command::SetMode(set))
        }
        args::Set { title, .. } => {
            let set = SetSessionName {
                name: title.unwrap_or_default(),
            };
            ("change the title", Command::SetSessionName(set))
        }
    };
    let told = session.command(command).await.map(drop);
    done(options, &session, action, "changed", told, output)
}

/// Gives a session a command as it is, and writes what it answers.
pub(super) async fn send(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Send,
    output: &mut Output,
) -> Result<(), CliError> {
    let command = read(&target::text_or_stdin(&args.command).await?)?;
    let session = session(control, options, &args.session).await?;
    let answer = session
        .command(command)
        .await
        .map_err(failed("give the session this command"))?;
    match answer {
        Some(data) => output.json(&data),
        None => output.json(&json!({"session_id": session.id(), "done": true})),
    }
}

/// A command with every field that was written: one that it does not have would be left out without a word.
fn read(text: &str) -> Result<Command, CliError> {
    let given: Value = serde_json::from_str(text).map_err(CliError::Json)?;
    let command: Command = serde_json::from_value(given.clone()).map_err(CliError::Json)?;
    let understood = serde_json::to_value(&command).map_err(CliError::Json)?;
    let fields = given.as_object().into_iter().flatten();
    for (field, _) in fields.filter(|(_, value)| !value.is_null()) {
        if understood.get(field).is_none() {
            return Err(CliError::NoField {
                cmd: command.name().to_string(),
                field: field.clone(),
            });
        }
    }
    Ok(command)
}

/// The one model that is called so, with its provider or without.
fn choose(models: &[ModelInfo], asked: &str) -> Result<ModelInfo, CliError> {
    let whole = models.iter().find(|model| name(model) == asked);
    let mut found = models.iter().filter(|model| model.id == asked);
    match (
        whole.or_else(|| found.next()),
        whole.is_none().then(|| found.next()).flatten(),
    ) {
        (Some(model), None) => Ok(model.clone()),
        (Some(one), Some(other)) => Err(CliError::ManyModels {
            asked: asked.to_owned(),
            names: [one, other].into_iter().chain(found).map(name).collect(),
        }),
        (None, _) => {
            let names: Vec<String> = models.iter().map(name).collect();
            let known = names.iter().chain(models.iter().map(|model| &model.id));
            Err(CliError::NoModel {
                asked: asked.to_owned(),
                similar: similar(asked, known.map(String::as_str)).map(str::to_owned),
            })
        }
    }
}

/// What `--model` takes. Not every agent tells models apart by their providers.
fn name(model: &ModelInfo) -> String {
    match model.provider.as_str() {
        "" => model.id.clone(),
        provider => format!("{provider}/{}", model.id),
    }
}

fn failed(action: &'static str) -> impl FnOnce(crate::CommandError) -> CliError {
    move |source| CliError::Command {
        action,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(provider: &str, id: &str) -> ModelInfo {
        ModelInfo {
            provider: provider.to_owned(),
            id: id.to_owned(),
            name: None,
            reasoning: None,
            context_tokens: None,
        }
    }

    #[test]
    fn a_model_is_chosen_by_its_whole_name_or_by_what_no_other_has() {
        let models = [
            model("one", "big"),
            model("two", "big"),
            model("two", "small/er"),
            model("", "two/big"),
        ];
        let chosen = |asked| choose(&models, asked).map(|model| name(&model));
        assert_eq!(chosen("one/big").unwrap(), "one/big");
        assert_eq!(chosen("small/er").unwrap(), "two/small/er");
        assert_eq!(chosen("two/big").unwrap(), "two/big");
        let error = chosen("big").unwrap_err();
        assert!(
            matches!(&error, CliError::ManyModels { names, .. } if names.len() == 2),
            "{error}"
        );
        let error = chosen("samll/er").unwrap_err().explain();
        assert!(error.contains("did you mean small/er?"), "{error}");
        assert!(
            chosen("nothing like it")
                .unwrap_err()
                .explain()
                .contains("oqtoctl models")
        );
    }

    #[test]
    fn a_command_with_a_field_that_it_does_not_have_is_refused() {
        let command = read(r#"{"cmd":"set_mode","mode_id":"plan","id":null}"#).unwrap();
        assert!(matches!(command, Command::SetMode(SetMode { mode_id }) if mode_id == "plan"));
        let error = read(r#"{"cmd":"compact","instruction":"short"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the command: compact has no field instruction"
        );
        for broken in [
            "",
            "compact",
            "[]",
            r#"{"cmd":"set_mode"}"#,
            r#"{"mode_id":"plan"}"#,
        ] {
            assert!(matches!(read(broken), Err(CliError::Json(_))), "{broken}");
        }
    }
}
