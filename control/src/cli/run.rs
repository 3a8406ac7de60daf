//! `run`, `attach`, `prompt`: a conversation, shown.

use std::collections::BTreeMap;

use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{Envelope, Event};
use oqto_protocol::fault::FaultCode;

use tokio::signal::unix::Signal;

use super::args::{self, GlobalOptions};
use super::drive::{Ending, JsonLines, Until, View, follow, interrupted, or_interrupted, unless_interrupted};
use super::error::{CliError, similar};
use super::human::Human;
use super::output::{Output, has_colour, note};
use super::spinner::Spinner;
use super::target;
use crate::{CommandError, Control, Runner, Session, SessionConfig};

/// A conversation on a terminal or a pipe.
pub(super) struct Conversation {
    human: Human,
    spinner: Spinner,
    page: String,
}

impl Conversation {
    fn new(echo: bool) -> Self {
        Self {
            human: Human::new(has_colour(), echo),
            spinner: Spinner::new(true),
            page: String::new(),
        }
    }
}

impl View for Conversation {
    fn show(&mut self, envelope: &Envelope, output: &mut Output) -> Result<(), CliError> {
        self.spinner.watch(&envelope.event);
        self.page.clear();
        self.human.show(envelope, &mut self.page);
        if self.page.is_empty() {
            return Ok(());
        }
        self.spinner.hide();
        output.text(&self.page)
    }

    fn asks_in_place(&self) -> bool {
        true
    }

    fn is_worth_a_line(&self, envelope: &Envelope) -> bool {
        !matches!(
            &envelope.event,
            Event::InputNeeded(_) | Event::AgentWorking(_) | Event::Status(_) | Event::ToolStart(_)
        )
    }

    fn is_moving(&self) -> bool {
        self.spinner.is_enabled() && self.human.is_at_line_start()
    }

    fn tick(&mut self) {
        self.spinner.tick();
    }

    fn pause(&mut self) {
        self.spinner.hide();
    }

    fn end(&mut self, output: &mut Output) -> Result<(), CliError> {
        self.spinner.hide();
        self.page.clear();
        self.human.end_line(&mut self.page);
        output.text(&self.page)
    }
}

/// The view that the options ask for.
fn view(options: &GlobalOptions, echo: bool) -> Box<dyn View> {
    if options.json {
        Box::new(JsonLines)
    } else {
        Box::new(Conversation::new(echo))
    }
}

/// Gives an agent a task.
pub(super) async fn run(
    control: &Control,
    options: &GlobalOptions,
    args: args::Run,
    interrupts: &mut Signal,
    output: &mut Output,
) -> Result<Ending, CliError> {
    let cwd = target::workspace(options, args.cwd.as_deref())?;
    let prepared = or_interrupted(
        async {
            let prompt = target::text_or_stdin(&args.prompt).await?;
            Ok::<_, CliError>((prompt, target::runner(control, options).await?))
        },
        interrupts,
    );
    let Some(prepared) = prepared.await else {
        return Ok(Ending::Interrupted);
    };
    let (prompt, runner) = prepared?;
    let (provider, model) = match args.model {
        Some(model) => match model.split_once('/') {
            Some((provider, model)) => (Some(provider.to_owned()), Some(model.to_owned())),
            None => (None, Some(model)),
        },
        None => (None, None),
    };
    let config = SessionConfig {
        harness: args.harness,
        cwd,
        provider,
        model,
        continue_session: None,
        policy: args.policy,
        env: target::variables(args.env)?,
        title: None,
        labels: BTreeMap::new(),
    };
    let Some(session) = unless_interrupted(create(&runner, config), interrupts).await? else {
        return Ok(Ending::Interrupted);
    };
    let view = &mut *view(options, false);
    let ending = say(&session, &prompt, Cursor::default(), interrupts, view, output).await;
    if is_out_of_reach(&ending) {
        return ending;
    }
    if args.keep {
        let ending = ending?;
        let text = format!("session {0} waits; oqtoctl prompt {0} TEXT goes on", session.id());
        note_unless(options, &text);
        return Ok(ending);
    }
    close(&session, interrupts).await;
    let ending = ending?;
    let text = format!(
        "session {0} is closed; oqtoctl messages {0} shows it again",
        session.id()
    );
    note_unless(options, &text);
    Ok(ending)
}

/// Says something to a session that waits.
pub(super) async fn prompt(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Talk,
    interrupts: &mut Signal,
    output: &mut Output,
) -> Result<Ending, CliError> {
    let prepared = or_interrupted(
        async {
            let text = target::text_or_stdin(&args.text).await?;
            let runner = target::runner(control, options).await?;
            let session = target::session(&runner, &args.session).await?;
            let from = newest(&session).await?;
            Ok::<_, CliError>((text, session, from))
        },
        interrupts,
    );
    let Some(prepared) = prepared.await else {
        return Ok(Ending::Interrupted);
    };
    let (text, session, from) = prepared?;
    let view = &mut *view(options, false);
    say(&session, &text, from, interrupts, view, output).await
}

/// Shows the events of a session as they come.
pub(super) async fn attach(
    control: &Control,
    options: &GlobalOptions,
    args: &args::Attach,
    interrupts: &mut Signal,
    output: &mut Output,
) -> Result<Ending, CliError> {
    let prepared = or_interrupted(
        async {
            let runner = target::runner(control, options).await?;
            let session = target::session(&runner, &args.session).await?;
            let subscribed = match args.from {
                None | Some(1) => session.events().await,
                Some(from) => {
                    let epoch = newest(&session).await?.epoch;
                    session.events_from(Cursor { epoch, seq: from - 1 }).await
                }
            };
            let events = subscribed.map_err(|error| CliError::Subscribe(Box::new(error)))?;
            Ok::<_, CliError>((session, events))
        },
        interrupts,
    );
    let Some(prepared) = prepared.await else {
        return Ok(Ending::Interrupted);
    };
    let (session, events) = prepared?;
    let view = &mut *view(options, true);
    follow(&session, events, Until::Closed, interrupts, view, output).await
}

/// The newest event of a session.
async fn newest(session: &Session) -> Result<Cursor, CliError> {
    let state = session.state().await.map_err(|source| CliError::Command {
        action: "ask how the session stands",
        source: Box::new(source),
    })?;
    Ok(state.info.cursor)
}

/// Makes a session; when a name in its configuration is wrong, the error says which was meant.
pub(super) async fn create(runner: &Runner, config: SessionConfig) -> Result<Session, CliError> {
    let (harness, policy) = (config.harness.clone(), config.policy.clone());
    match runner.create(config).await {
        Ok(session) => Ok(session),
        Err(error) => {
            let similar = meant(runner, &error, &harness, policy.as_deref()).await;
            Err(CliError::Create {
                source: Box::new(error),
                similar,
            })
        }
    }
}

/// Prompts, and shows what comes of it.
pub(super) async fn say(
    session: &Session,
    text: &str,
    from: Cursor,
    interrupts: &mut Signal,
    view: &mut dyn View,
    output: &mut Output,
) -> Result<Ending, CliError> {
    let begun = async {
        let events = session
            .events_from(from)
            .await
            .map_err(|error| CliError::Subscribe(Box::new(error)))?;
        let after = session.prompt(text).await.map_err(|source| CliError::Command {
            action: "prompt the agent",
            source: Box::new(source),
        })?;
        Ok::<_, CliError>((events, after))
    };
    let Some(begun) = or_interrupted(begun, interrupts).await else {
        return Ok(interrupted(session));
    };
    let (events, after) = begun?;
    follow(session, events, Until::Done(after), interrupts, view, output).await
}

/// Whether the runner was lost on the way: it would not hear that the session is to be closed, and its agent goes on.
pub(super) fn is_out_of_reach(ending: &Result<Ending, CliError>) -> bool {
    matches!(ending, Err(CliError::Events { .. }) | Ok(Ending::Left))
}

/// Closes a session that nobody needs any more; that it has ended already is as good. Ctrl-C ends the wait for it.
pub(super) async fn close(session: &Session, interrupts: &mut Signal) {
    if let Some(Err(error)) = or_interrupted(session.close(), interrupts).await {
        let error = CliError::Command {
            action: "close the session",
            source: Box::new(error),
        };
        if !matches!(error.fault(), Some(FaultCode::WrongState | FaultCode::NotFound)) {
            note(&error.explain());
        }
    }
}

async fn meant(runner: &Runner, error: &CommandError, harness: &str, policy: Option<&str>) -> Option<String> {
    let CommandError::Refused { source, .. } = error else {
        return None;
    };
    if !matches!(
        source.0.code,
        FaultCode::NotFound | FaultCode::Invalid | FaultCode::Policy | FaultCode::Unsupported
    ) {
        return None;
    }
    let harnesses = runner
        .welcome()
        .await
        .map(|welcome| welcome.harnesses)
        .unwrap_or_default();
    let harnesses: Vec<&str> = harnesses.iter().map(|harness| harness.name.as_str()).collect();
    if !harnesses.contains(&harness)
        && let Some(meant) = similar(harness, harnesses)
    {
        return Some(meant.to_owned());
    }
    let policy = policy?;
    let policies = runner.policies().await.unwrap_or_default();
    let policies: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    if policies.contains(&policy) {
        return None;
    }
    similar(policy, policies).map(str::to_owned)
}

/// A note that programs do not need.
fn note_unless(options: &GlobalOptions, text: &str) {
    if !options.json {
        note(text);
    }
}
