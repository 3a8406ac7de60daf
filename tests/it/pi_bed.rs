//! Real pi, sandboxed, with the scripted model for a provider.

use std::fs;
use std::path::PathBuf;

use oqto_control::{Control, Runner, Session, SessionConfig};
use oqto_tests::{Agents, Home, Model, agents};

use crate::said::{Said, by_pi};
use crate::watch::Watch;

pub(crate) struct PiBed {
    // The home last: it fails the test if anything still runs.
    pub(crate) control: Control,
    pub(crate) runner: Runner,
    agents: Agents,
    _model: Model,
    pub(crate) home: Home,
}

impl PiBed {
    pub(crate) async fn new() -> Self {
        let (home, agents) = (Home::new(), agents());
        home.configure_pi(&agents.bin().join("pi"));
        let model = Model::start(home.dir());
        home.file("harness-config/models.json", &model.for_pi());
        // A retry waits as short as it may: what is tested is that it comes.
        home.file(
            "harness-config/settings.json",
            r#"{"retry":{"enabled":true,"maxRetries":3,"baseDelayMs":10}}"#,
        );
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            control,
            runner,
            agents,
            _model: model,
            home,
        }
    }

    pub(crate) fn config(&self) -> SessionConfig {
        SessionConfig {
            harness: "pi".to_owned(),
            cwd: Some(self.home.workspace().display().to_string()),
            policy: Some("open-net".to_owned()),
            provider: Some("fake".to_owned()),
            model: Some("fake-model".to_owned()),
            ..SessionConfig::default()
        }
    }

    pub(crate) async fn session(&self) -> (Session, Watch) {
        let session = self.runner.create(self.config()).await.unwrap();
        let watch = Watch::new(session.events().await.unwrap());
        (session, watch)
    }

    /// One session with these prompts, each to its end; what was seen of it.
    pub(crate) async fn talk(&self, prompts: &[&str]) -> Watch {
        let (session, mut watch) = self.session().await;
        for prompt in prompts {
            session.prompt(*prompt).await.unwrap();
            watch.rest().await;
        }
        self.end(session, &mut watch).await;
        watch
    }

    /// Closes a session and asserts that its stream was sound, and that our log, the stream and pi itself agree on
    /// what was said.
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
        let indexes: Vec<u64> = logged.iter().map(|message| message.idx).collect();
        assert_eq!(indexes, (0..logged.len() as u64).collect::<Vec<_>>());
        let mut ours: Vec<Said> = logged.iter().map(Said::from).collect();
        forget_repeated(&mut ours);
        let pis = by_pi(
            &self.agents,
            &self.home.path("harness-config"),
            &self.session_file(&session),
        );
        assert_eq!(ours, pis);
    }

    /// The file that pi keeps of a session.
    pub(crate) fn session_file(&self, session: &Session) -> PathBuf {
        let dir = self.home.state().join("sessions").join(session.id().as_str());
        let mut left = vec![dir.join("home")];
        let mut found = Vec::new();
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    left.push(path);
                } else if path.extension().is_some_and(|extension| extension == "jsonl") {
                    found.push(path);
                }
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
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

/// An attempt that failed and was made again is part of what happened, and of our history; pi forgets it.
fn forget_repeated(said: &mut Vec<Said>) {
    let failed = |said: &Said| said.role == "assistant" && said.stop.as_deref() == Some("error");
    let repeated: Vec<bool> = said
        .windows(2)
        .map(|two| failed(&two[0]) && two[1].role == "assistant")
        .collect();
    let mut repeated = repeated.into_iter();
    said.retain(|_| !repeated.next().unwrap_or(false));
}
