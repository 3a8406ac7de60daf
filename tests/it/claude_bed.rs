//! Real claude-agent-acp, sandboxed, with the scripted model for a provider.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oqto_control::{Control, Event, Runner, Secret, Session, SessionConfig};
use oqto_protocol::command::InputResponse;
use oqto_protocol::event::{DoneReason, InputRequest, PermissionKind, PermissionRequest};
use oqto_protocol::message::{Content, Message, Role};
use oqto_tests::{Home, Model, agents};

use crate::watch::Watch;

/// The harness's name.
pub(crate) const CLAUDE: &str = "claude-agent-acp";

pub(crate) struct ClaudeBed {
    pub(crate) control: Control,
    pub(crate) runner: Runner,
    model: Model,
    // The home last: it fails the test if anything still runs.
    pub(crate) home: Home,
}

impl ClaudeBed {
    pub(crate) async fn new() -> Self {
        Self::of(Home::new(), &agents().bin().join(CLAUDE), "").await
    }

    /// The same with this program for the agent, and what more there is to say of it.
    pub(crate) async fn of(home: Home, program: &Path, more: &str) -> Self {
        home.configure(&format!(
            "[harness.{CLAUDE}]\nprogram = {program:?}\nconfig_dir = {:?}\n{more}\n",
            home.path("harness-config")
        ));
        let log = home.path("model.log");
        let model = Model::start_by(
            &[],
            home.dir(),
            &["--log-bodies", "--log", &log.display().to_string()],
        );
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            control,
            runner,
            model,
            home,
        }
    }

    pub(crate) fn config(&self) -> SessionConfig {
        let env = [
            ("ANTHROPIC_API_KEY", "dummy".to_owned()),
            ("ANTHROPIC_BASE_URL", self.model.url()),
        ];
        SessionConfig {
            harness: CLAUDE.to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            policy: Some("open-net".to_owned()),
            env: env
                .map(|(name, value)| (name.to_owned(), Secret::new(value)))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            ..SessionConfig::default()
        }
    }

    pub(crate) async fn session(&self) -> (Session, Watch) {
        let session = self.runner.create(self.config()).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        (session, watch)
    }

    /// Where the workspace has a file of this name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.workspace().join(name)
    }

    /// All that was asked of the model so far, as JSON lines.
    pub(crate) fn asked_of_the_model(&self) -> String {
        std::fs::read_to_string(self.home.path("model.log")).unwrap()
    }

    /// Closes a session and asserts that its stream was sound, and that the log says the same.
    pub(crate) async fn end(&self, session: Session, watch: &mut Watch) {
        session.close().await.unwrap();
        watch.closed().await;
        watch.is_sound();
        let (mut logged, mut after) = (Vec::new(), None);
        loop {
            let page = session.messages(after, None).await.unwrap();
            after = page.messages.last().map(|message| message.idx);
            logged.extend(page.messages);
            if !page.more {
                break;
            }
        }
        assert!(logged == watch.messages(), "the log and the stream differ");
    }

    /// Says goodbye; what still runs then fails the test.
    pub(crate) async fn close(self) {
        self.control.close().await;
        // Ending the home waits for processes, which must not hold up the runtime.
        tokio::task::spawn_blocking(move || drop(self.home))
            .await
            .unwrap();
    }
}

/// Reads on until the agent asks to be allowed something.
pub(crate) async fn permission(watch: &mut Watch) -> PermissionRequest {
    let asks = |event: &Event| matches!(event, Event::InputNeeded(_));
    match watch.until("request", asks).await {
        Event::InputNeeded(needed) => match needed.request {
            InputRequest::PermissionRequest(request) => request,
            other => panic!("{other:?}"),
        },
        event => panic!("{event:?}"),
    }
}

/// Yes or no, this once.
pub(crate) fn answer(request: &PermissionRequest, yes: bool) -> InputResponse {
    let meant = match yes {
        true => PermissionKind::AllowOnce,
        false => PermissionKind::RejectOnce,
    };
    let mut options = request.options.iter();
    let option = options
        .find(|option| option.kind == meant)
        .expect("such an answer");
    InputResponse {
        request_id: request.request_id.clone(),
        value: Some(option.id.clone()),
        confirmed: None,
        cancelled: None,
    }
}

/// All text of the last thing that the assistant said.
pub(crate) fn said(watch: &Watch) -> String {
    let messages = watch.messages();
    let mut assistants = messages
        .iter()
        .rev()
        .filter(|message| message.role == Role::Assistant);
    text(assistants.next().expect("an answer"))
}

/// All text of a message.
pub(crate) fn text(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match &part.content {
        Content::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// How the last run ended.
pub(crate) fn done(watch: &Watch) -> DoneReason {
    let mut ends = watch.seen.iter().rev();
    ends.find_map(|envelope| match &envelope.event {
        Event::StreamDone(done) => Some(done.reason),
        _ => None,
    })
    .expect("a run that ended")
}
