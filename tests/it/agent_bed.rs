//! Real agents, sandboxed, with the scripted model for a provider.

use std::path::PathBuf;

use oqto_control::{Control, Runner, Session, SessionConfig};
use oqto_protocol::message::Message;
use oqto_tests::{Home, Model};

use crate::watch::Watch;

pub(crate) struct AgentBed {
    pub(crate) control: Control,
    pub(crate) runner: Runner,
    config: SessionConfig,
    _model: Model,
    // The home last: it fails the test if anything still runs.
    pub(crate) home: Home,
}

impl AgentBed {
    /// Sessions in that home's workspace, which may use the network, and what of `config` says more.
    pub(crate) async fn new(home: Home, model: Model, config: SessionConfig) -> Self {
        let control = home.control();
        let runner = control.local().await.unwrap();
        let config = SessionConfig {
            cwd: Some(home.workspace().display().to_string()),
            policy: Some("open-net".to_owned()),
            ..config
        };
        Self {
            control,
            runner,
            config,
            _model: model,
            home,
        }
    }

    pub(crate) fn config(&self) -> SessionConfig {
        self.config.clone()
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

    /// Closes a session and asserts that its stream was sound, and that the log says the same: its messages.
    pub(crate) async fn end(&self, session: &Session, watch: &mut Watch) -> Vec<Message> {
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
        logged
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
