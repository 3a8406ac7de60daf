//! Real claude-agent-acp in a bed for agents.

use std::ops::Deref;
use std::path::Path;

use oqto_control::{Secret, Session, SessionConfig};
use oqto_tests::{Home, Model, agents};

use crate::agent_bed::AgentBed;
use crate::watch::Watch;

/// The harness's name.
pub(crate) const CLAUDE: &str = "claude-agent-acp";

pub(crate) struct ClaudeBed(AgentBed);

impl Deref for ClaudeBed {
    type Target = AgentBed;

    fn deref(&self) -> &AgentBed {
        &self.0
    }
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
        let env = [
            ("ANTHROPIC_API_KEY", "dummy".to_owned()),
            ("ANTHROPIC_BASE_URL", model.url()),
        ];
        let config = SessionConfig {
            harness: CLAUDE.to_owned(),
            env: env
                .map(|(name, value)| (name.to_owned(), Secret::new(value)))
                .into(),
            ..SessionConfig::default()
        };
        Self(AgentBed::new(home, model, config).await)
    }

    /// All that was asked of the model so far, as JSON lines.
    pub(crate) fn asked_of_the_model(&self) -> String {
        std::fs::read_to_string(self.home.path("model.log")).unwrap()
    }

    /// Closes a session and asserts that its stream was sound, and that the log says the same.
    pub(crate) async fn end(&self, session: Session, watch: &mut Watch) {
        self.0.end(&session, watch).await;
    }

    /// Says goodbye; what still runs then fails the test.
    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}
