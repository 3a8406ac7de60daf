//! Real pi in a bed for agents: what it keeps of a session is what we say of it.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use oqto_control::{Session, SessionConfig};
use oqto_tests::{Agents, Home, Model, agents};

use crate::agent_bed::AgentBed;
use crate::said::{Said, by_pi};
use crate::watch::Watch;

pub(crate) struct PiBed {
    bed: AgentBed,
    agents: Agents,
}

impl Deref for PiBed {
    type Target = AgentBed;

    fn deref(&self) -> &AgentBed {
        &self.bed
    }
}

impl DerefMut for PiBed {
    fn deref_mut(&mut self) -> &mut AgentBed {
        &mut self.bed
    }
}

impl PiBed {
    pub(crate) async fn new() -> Self {
        Self::of(&agents().bin().join("pi")).await
    }

    /// The same with this pi.
    pub(crate) async fn of(pi: &Path) -> Self {
        let (home, agents) = (Home::new(), agents());
        home.configure_pi(pi);
        let model = Model::start(home.dir());
        home.file("harness-config/models.json", &model.for_pi());
        // A retry waits as short as it may: what is tested is that it comes.
        home.file(
            "harness-config/settings.json",
            r#"{"retry":{"enabled":true,"maxRetries":3,"baseDelayMs":10}}"#,
        );
        let config = SessionConfig {
            harness: "pi".to_owned(),
            provider: Some("fake".to_owned()),
            model: Some("fake-model".to_owned()),
            ..SessionConfig::default()
        };
        let bed = AgentBed::new(home, model, config).await;
        Self { bed, agents }
    }

    /// One session with these prompts, each to its end; what was seen of it.
    pub(crate) async fn talk(&self, prompts: &[&str]) -> Watch {
        let (session, mut watch) = self.session().await;
        for prompt in prompts {
            watch.prompt(&session, *prompt).await;
        }
        self.end(session, &mut watch).await;
        watch
    }

    /// Closes a session and asserts that its stream was sound, and that our log, the stream and pi itself agree on
    /// what was said.
    pub(crate) async fn end(&self, session: Session, watch: &mut Watch) {
        let logged = self.bed.end(&session, watch).await;
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
        self.bed.close().await;
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
