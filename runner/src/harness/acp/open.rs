//! From an agent's start to a session that takes prompts: who it is, which session, and in which mode.
//!
//! Nothing is said to an agent before it is in the mode that asks before it acts: agents begin in one that lets a model
//! decide. What cannot be brought there is not used.

use oqto_protocol::event::{Event, Notify, NotifyLevel};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::session::Capability;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::choice::{self, By, Choice, What};
use super::out::{self, method};
use super::{Acp, wire};
use crate::harness::definition::Serve;
use crate::harness::dialect::Beginning;
use crate::harness::excerpt::excerpt;
use crate::harness::fragment::{Fragment, HarnessState};

/// The version of the protocol.
const VERSION: u64 = 1;

/// The ids of the runner's own requests.
pub(super) const INITIALIZE_ID: &str = "initialize";
pub(super) const AUTHENTICATE_ID: &str = "authenticate";
pub(super) const OPEN_ID: &str = "open";
pub(super) const CONFIGURE_ID: &str = "configure";
pub(super) const CLOSE_ID: &str = "close";

/// The agent wants to be told who its user is.
const AUTH_REQUIRED: i64 = -32000;

/// How many ways of telling it are kept, and how long the name of one may be, in bytes.
const AUTH_METHODS_MAX: usize = 16;
const AUTH_METHOD_LEN_MAX: usize = 128;

/// How long an agent's own name for a session may be, in bytes.
const SESSION_LEN_MAX: usize = 1024;

/// How much of an agent's answer is kept as its state, in bytes.
const RAW_LEN_MAX: usize = 256 * 1024;

/// How much of an error's text is told, in bytes.
const ERROR_LEN_MAX: usize = 2048;

/// What an agent says that it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one capability of the protocol"
)]
pub(super) struct Offers {
    load: bool,
    resume: bool,
    pub(super) close: bool,
    list: bool,
    pub(super) image: bool,
    pub(super) embedded: bool,
}

/// A session that is being opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opening {
    /// The command that asked for it; none at the agent's start.
    command: Option<CommandId>,
    target: Target,
    /// Whether the agent was told who its user is.
    authenticated: bool,
    /// What it is called, once it is there.
    session: Option<String>,
    choices: Vec<Choice>,
    /// What is still to be set.
    settings: Vec<(What, String)>,
}

/// Which session is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Target {
    New,
    Earlier(String),
}

impl Acp {
    /// What is said first.
    pub(in crate::harness) fn begin(&mut self, beginning: &Beginning) -> Vec<u8> {
        let target = match &beginning.continue_session {
            Some(session) => Target::Earlier(session.clone()),
            None => Target::New,
        };
        *self = Self {
            beginning: beginning.clone(),
            opening: Some(Opening::new(None, target)),
            ..Self::default()
        };
        // Who serves files and terminals stands between the agent and us, inside the sandbox.
        let Serve { fs, terminal } = beginning.serve;
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities": {
                "fs": { "readTextFile": fs, "writeTextFile": fs },
                "terminal": terminal,
                "session": { "notices": {}, "compaction": {} },
            },
            "clientInfo": { "name": "oqto-runner", "title": "oqto-runner", "version": env!("CARGO_PKG_VERSION") },
        });
        out::request(INITIALIZE_ID, method::INITIALIZE, &params)
    }

    /// Whether a session is being opened for this command, or since the agent starts.
    pub(super) fn is_opening_for(&self, command: Option<CommandId>) -> bool {
        self.opening.as_ref().is_some_and(|it| it.command == command)
    }

    /// Whether the session that is being opened is there, and only to be set up.
    pub(super) fn is_set_up(&self) -> bool {
        self.opening.as_ref().is_some_and(|it| it.session.is_some())
    }

    /// Nobody waits for this command any more.
    pub(in crate::harness) fn forget(&mut self, command: CommandId) {
        self.waiting.retain(|(waiting, _)| *waiting != command);
        if self.is_opening_for(Some(command)) {
            self.opening = None;
        }
    }

    /// Whether a session is being opened, so that nothing else can be said.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Begins a new session in the same process.
    pub(super) fn open_new(&mut self, command: CommandId) -> Vec<u8> {
        self.opening = Some(Opening::new(Some(command), Target::New));
        self.open_request()
    }

    /// Goes to another session in the same process.
    pub(super) fn open_earlier(&mut self, command: CommandId, session: &str) -> Vec<u8> {
        self.opening = Some(Opening::new(Some(command), Target::Earlier(session.to_owned())));
        self.open_request()
    }

    pub(super) fn initialized(&mut self, result: &RawValue, out: &mut Vec<Fragment>) {
        let Ok(read) = serde_json::from_str::<wire::Initialized<'_>>(result.get()) else {
            return self.cannot_open("its answer to initialize cannot be read", out);
        };
        if read.protocol_version != VERSION {
            let why = format!(
                "it speaks version {} of the Agent Client Protocol, and this runner version {VERSION}",
                read.protocol_version
            );
            return self.cannot_open(&why, out);
        }
        let can = read.agent_capabilities;
        self.offers = Offers {
            load: can.load_session,
            resume: can.session_capabilities.resume.is_some(),
            close: can.session_capabilities.close.is_some(),
            list: can.session_capabilities.list.is_some(),
            image: can.prompt_capabilities.image,
            embedded: can.prompt_capabilities.embedded_context,
        };
        self.auth_methods = read
            .auth_methods
            .iter()
            .filter(|it| it.id.len() <= AUTH_METHOD_LEN_MAX)
            .take(AUTH_METHODS_MAX)
            .map(|it| it.id.to_string())
            .collect();
        if let Some(info) = read.agent_info {
            self.name = excerpt(info.name.as_bytes(), AUTH_METHOD_LEN_MAX);
            out.push(Fragment::State(Box::new(HarnessState {
                version: info
                    .version
                    .map(|version| excerpt(version.as_bytes(), AUTH_METHOD_LEN_MAX)),
                ..HarnessState::default()
            })));
        }
        self.open(out);
    }

    /// Opens the session, if the agent can.
    fn open(&mut self, out: &mut Vec<Fragment>) {
        let goes_on = self.opening.as_ref().is_some_and(Opening::goes_on);
        if goes_on && !self.offers.load && !self.offers.resume {
            self.cannot_open("it cannot go on with an earlier session of its own", out);
            return;
        }
        let bytes = self.open_request();
        out.push(Fragment::Write(bytes));
    }

    fn open_request(&self) -> Vec<u8> {
        let command = self.opening.as_ref().and_then(|opening| opening.command);
        let id = step_id(OPEN_ID, command);
        let cwd = &self.beginning.cwd;
        match self.opening.as_ref().map(|opening| &opening.target) {
            Some(Target::Earlier(session)) => {
                // One that need not repeat all that was said is asked for first.
                let method = match self.offers.resume {
                    true => method::SESSION_RESUME,
                    false => method::SESSION_LOAD,
                };
                let params = json!({ "sessionId": session, "cwd": cwd, "mcpServers": [] });
                out::request(&id, method, &params)
            }
            Some(Target::New) | None => {
                let params = json!({ "cwd": cwd, "mcpServers": [] });
                out::request(&id, method::SESSION_NEW, &params)
            }
        }
    }

    pub(super) fn opened(&mut self, result: &RawValue, out: &mut Vec<Fragment>) {
        let opened: wire::Opened<'_> = match result.get() {
            "null" => wire::Opened::default(),
            text => match serde_json::from_str(text) {
                Ok(opened) => opened,
                Err(_) => return self.cannot_open("what it says of the session cannot be read", out),
            },
        };
        let Some(opening) = &mut self.opening else {
            return;
        };
        let session = match (&opening.target, &opened.session_id) {
            (Target::Earlier(session), _) => session.clone(),
            (Target::New, Some(session)) => session.to_string(),
            (Target::New, None) => String::new(),
        };
        if session.is_empty() || session.len() > SESSION_LEN_MAX {
            let why = format!("it named no session, or one of more than {SESSION_LEN_MAX} bytes");
            return self.cannot_open(&why, out);
        }
        opening.session = Some(session);
        opening.choices = choice::of_opened(&opened);
        let wanted = [
            (What::Mode, self.beginning.mode.clone()),
            (What::Model, self.beginning.model.clone()),
        ];
        for (what, value) in wanted {
            let Some(value) = value else { continue };
            let known = opening.choices.iter().find(|choice| choice.what == what);
            let fits = match known {
                Some(choice) => choice.has(&value).map_err(|fault| fault.message),
                None => Err(format!("it offers no choice of a {}", what.name())),
            };
            if let Err(why) = fits {
                match what {
                    What::Mode => {
                        let help = "a mode that asks is needed: name one in runner.toml (harness.NAME.mode)";
                        return self.cannot_open(&format!("{why}; {help}"), out);
                    }
                    _ if opening.goes_on() => out.push(goes_on_without(what, &value, &why)),
                    _ => return self.cannot_open(&why, out),
                }
                continue;
            }
            if known.is_some_and(|choice| choice.current != value) {
                opening.settings.push((what, value));
            }
        }
        let raw = result.get();
        out.push(Fragment::State(Box::new(HarnessState {
            raw: (raw.len() <= RAW_LEN_MAX).then(|| raw.to_owned()),
            capabilities: Some(self.capabilities()),
            ..HarnessState::default()
        })));
        self.configure(out);
    }

    /// Sets the next thing, or says that the session is there.
    fn configure(&mut self, out: &mut Vec<Fragment>) {
        let Some(opening) = &self.opening else {
            return;
        };
        let session = opening.session.as_deref().unwrap_or_default();
        if let Some((what, value)) = opening.settings.first()
            && let Some(choice) = opening.choices.iter().find(|choice| choice.what == *what)
        {
            let bytes = set(&step_id(CONFIGURE_ID, opening.command), session, choice, value);
            out.push(Fragment::Write(bytes));
            return;
        }
        self.arrive(out);
    }

    pub(super) fn configured(&mut self, out: &mut Vec<Fragment>) {
        if let Some(opening) = &mut self.opening
            && !opening.settings.is_empty()
        {
            let (what, value) = opening.settings.remove(0);
            let choice = opening.choices.iter_mut().find(|choice| choice.what == what);
            if let Some(choice) = choice {
                choice.current = value;
            }
        }
        self.configure(out);
    }

    /// The session is there and takes prompts.
    fn arrive(&mut self, out: &mut Vec<Fragment>) {
        let Some(opening) = self.opening.take() else {
            return;
        };
        let before = std::mem::replace(&mut self.session, opening.session);
        self.choices = opening.choices;
        out.push(Fragment::State(Box::new(HarnessState {
            own_session: self.session.clone(),
            provider: self.current(What::Model).map(|_| self.name.clone()),
            model: self.current(What::Model).map(str::to_owned),
            thinking_level: self.current(What::Thinking).map(str::to_owned),
            ..HarnessState::default()
        })));
        if let Some(before) =
            before.filter(|before| self.offers.close && Some(before) != self.session.as_ref())
        {
            let params = json!({ "sessionId": before });
            out.push(Fragment::Write(out::request(
                CLOSE_ID,
                method::SESSION_CLOSE,
                &params,
            )));
        }
        out.push(match opening.command {
            None => Fragment::Ready,
            Some(id) => Fragment::Answer { id, answer: Ok(None) },
        });
    }

    /// What is to be set next was refused. Without the model that it had, a session that was there before goes on with
    /// the agent's own; without the mode that asks, nothing does.
    pub(super) fn not_configured(
        &mut self,
        step: &str,
        failure: &wire::Failure<'_>,
        out: &mut Vec<Fragment>,
    ) {
        if let Some(opening) = &mut self.opening
            && opening.goes_on()
            && opening
                .settings
                .first()
                .is_some_and(|(what, _)| *what != What::Mode)
        {
            let (what, value) = opening.settings.remove(0);
            out.push(goes_on_without(what, &value, &told(failure)));
            return self.configure(out);
        }
        self.step_failed(step, failure, out);
    }

    /// A step of the way failed.
    pub(super) fn step_failed(&mut self, step: &str, failure: &wire::Failure<'_>, out: &mut Vec<Fragment>) {
        if failure.code == AUTH_REQUIRED
            && let Some(opening) = &mut self.opening
        {
            let wanted = self
                .beginning
                .auth_method
                .as_ref()
                .filter(|_| !opening.authenticated);
            if let Some(method_id) = wanted {
                opening.authenticated = true;
                let params = json!({ "methodId": method_id });
                let id = step_id(AUTHENTICATE_ID, opening.command);
                let bytes = out::request(&id, method::AUTHENTICATE, &params);
                out.push(Fragment::Write(bytes));
                return;
            }
            let why = format!(
                "it does not know who its user is ({}): give its provider's key as a variable of the session, or name one of its \
                 ways in runner.toml (harness.NAME.auth_method): {}",
                told(failure),
                self.auth_methods.join(", ")
            );
            self.cannot_open(&why, out);
            return;
        }
        let why = format!("it refused to {step}: {}", told(failure));
        self.cannot_open(&why, out);
    }

    pub(super) fn authenticated(&mut self, out: &mut Vec<Fragment>) {
        self.open(out);
    }

    /// The session cannot be opened; where there was one before it is kept.
    fn cannot_open(&mut self, why: &str, out: &mut Vec<Fragment>) {
        let opening = self.opening.take();
        let half = opening.as_ref().and_then(|it| it.session.clone());
        match opening.and_then(|opening| opening.command) {
            None => out.push(Fragment::Unable(why.to_owned())),
            Some(id) => {
                if let Some(half) =
                    half.filter(|half| self.offers.close && Some(half) != self.session.as_ref())
                {
                    let params = json!({ "sessionId": half });
                    out.push(Fragment::Write(out::request(
                        CLOSE_ID,
                        method::SESSION_CLOSE,
                        &params,
                    )));
                }
                out.push(Fragment::Answer {
                    id,
                    answer: Err(Fault::new(FaultCode::Harness, why)),
                });
            }
        }
    }

    /// What the agent can do, of what the protocol has words for.
    fn capabilities(&self) -> Vec<Capability> {
        let choices = self
            .opening
            .as_ref()
            .map_or(&self.choices, |opening| &opening.choices);
        let chooses = |what| choices.iter().any(|choice: &Choice| choice.what == what);
        let Offers {
            load,
            resume,
            close: _,
            list,
            image,
            embedded: _,
        } = self.offers;
        let (model, thinking) = (chooses(What::Model), chooses(What::Thinking));
        let more = [
            (Capability::Images, image),
            (Capability::Resume, load || resume),
            (Capability::SwitchSession, load || resume),
            (Capability::ListSessions, list),
            (Capability::SetModel, model),
            (Capability::CycleModel, model),
            (Capability::Models, model),
            (Capability::SetThinkingLevel, thinking),
            (Capability::CycleThinkingLevel, thinking),
            (Capability::SetMode, chooses(What::Mode)),
        ];
        let more = more
            .into_iter()
            .filter_map(|(capability, has)| has.then_some(capability));
        super::CAPABILITIES.iter().copied().chain(more).collect()
    }
}

impl Opening {
    fn new(command: Option<CommandId>, target: Target) -> Self {
        Self {
            command,
            target,
            authenticated: false,
            session: None,
            choices: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Whether the session was there before.
    fn goes_on(&self) -> bool {
        matches!(self.target, Target::Earlier(_))
    }

    /// What it is called, once the agent has told.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The choices that updates change while it is being opened.
    pub(super) fn choices(&mut self) -> &mut Vec<Choice> {
        &mut self.choices
    }
}

/// The warning that a session does not get back what it had.
fn goes_on_without(what: What, value: &str, why: &str) -> Fragment {
    let what = what.name();
    Fragment::Event(Event::Notify(Notify {
        level: NotifyLevel::Warning,
        message: format!(
            "the {what} {value:?} of before cannot be used, the agent goes on with its own: {why}"
        ),
    }))
}

/// The id of a step's request: what is asked for one command is told apart from what was asked for another.
fn step_id(step: &str, command: Option<CommandId>) -> String {
    match command {
        Some(command) => format!("{step} {command}"),
        None => step.to_owned(),
    }
}

/// The request that changes a choice.
pub(super) fn set(id: &str, session: &str, choice: &Choice, value: &str) -> Vec<u8> {
    match &choice.by {
        By::SetMode => {
            let params = json!({ "sessionId": session, "modeId": value });
            out::request(id, method::SESSION_SET_MODE, &params)
        }
        By::SetModel => {
            let params = json!({ "sessionId": session, "modelId": value });
            out::request(id, method::SESSION_SET_MODEL, &params)
        }
        By::Option(option) => {
            let params = json!({ "sessionId": session, "configId": option, "value": value });
            out::request(id, method::SESSION_SET_OPTION, &params)
        }
    }
}

/// An error as it is told to people.
pub(super) fn told(failure: &wire::Failure<'_>) -> String {
    let message = excerpt(failure.message.as_bytes(), ERROR_LEN_MAX);
    let data = failure.data.map(RawValue::get).filter(|data| *data != "null");
    match data {
        // Often the same once more, or what is behind "Internal error".
        Some(data) if !failure.message.contains(data.trim_matches('"')) => {
            format!("{message} ({})", excerpt(data.as_bytes(), ERROR_LEN_MAX))
        }
        _ => message,
    }
}
