//! Clients of others, which know nothing of this house: an agent that our sandbox holds behind our host is to them the one
//! that it is without.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, InitializeRequest, NewSessionRequest, PromptRequest, SessionNotification, SessionUpdate,
    TextContent,
};
use agent_client_protocol::{AcpAgent, Agent, Client, on_receive_notification};

use crate::bed::Bed;

/// The agent that is made with the official crate.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_official-agent");

/// What the client of the official crate hears of the agent that these words start.
pub(crate) async fn heard(words: &str, prompt: &str) -> String {
    let agent = AcpAgent::from_str(words).unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&heard);
    Client
        .v1()
        .on_receive_notification(
            async move |said: SessionNotification, _: ConnectionTo<Agent>| {
                if let SessionUpdate::AgentMessageChunk(chunk) = said.update
                    && let ContentBlock::Text(text) = chunk.content
                {
                    hears.lock().unwrap().push_str(&text.text);
                }
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_with(agent, async |agent: ConnectionTo<Agent>| {
            let hello = InitializeRequest::new(ProtocolVersion::V1);
            agent.send_request(hello).block_task().await?;
            let session = agent
                .send_request(NewSessionRequest::new("/tmp"))
                .block_task()
                .await?;
            let blocks = vec![ContentBlock::Text(TextContent::new(prompt))];
            let asked = PromptRequest::new(session.session_id, blocks);
            agent.send_request(asked).block_task().await?;
            Ok(())
        })
        .await
        .unwrap();
    let heard = heard.lock().unwrap();
    heard.clone()
}

/// The official SDK, and the node that runs it.
pub(crate) struct Sdk {
    pub(crate) packages: PathBuf,
}

impl Sdk {
    /// Where it is installed; else says that what needs it was not run.
    pub(crate) fn installed() -> Option<Self> {
        let Some(agents) = std::env::var_os("OQTO_TEST_AGENTS").map(PathBuf::from) else {
            println!("NOT RUN: the examples of the official SDK: OQTO_TEST_AGENTS names no agents");
            return None;
        };
        let packages = agents.join("node_modules").canonicalize().unwrap();
        Some(Self { packages })
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.packages.join("node/bin/node")
    }

    pub(crate) fn example(&self, name: &str) -> PathBuf {
        let examples = self.packages.join("acp-example/dist/examples");
        examples.join(name).with_extension("js")
    }

    /// Starts the example client, whose agent is what it finds under the name `npx`: the example agent, after these words.
    /// It is asked once, and takes the first answer that there is.
    fn client(&self, bed: &Bed, name: &str, words: &str) -> Child {
        fs::create_dir(bed.path(name)).unwrap();
        let npx = format!(
            "#!/bin/sh\nexec {words} {:?} {:?}\n",
            self.node(),
            self.example("agent")
        );
        bed.file(&format!("{name}/npx"), 0o755, &npx);
        let mut client = Command::new(self.node())
            .arg(self.example("client"))
            .current_dir(bed.path("workspace"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bed.path(name).display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        client.stdin.as_mut().unwrap().write_all(b"1\n").unwrap();
        client
    }
}

/// What the example client showed: all but the session's name, which is another each time.
fn shown(client: Child) -> Vec<String> {
    let output = client.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.contains("Created session"));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_example_client_and_agent_of_the_official_sdk_do_not_notice_our_host_and_sandbox() {
    let Some(sdk) = Sdk::installed() else { return };
    let bed = Bed::new();
    let held = bed.held(&[&sdk.packages]).display().to_string();
    let (bare, held) = (sdk.client(&bed, "bare", ""), sdk.client(&bed, "boxed", &held));
    let (bare, held) = (shown(bare), shown(held));
    assert_eq!(bare, held);
    assert!(
        bare.iter().any(|line| line.contains("Permission requested")),
        "{bare:?}"
    );
    assert_eq!(bare.last().unwrap(), "✅ Agent completed with: end_turn");
}

#[tokio::test]
async fn the_official_client_finds_an_agent_in_our_sandbox_as_it_is_without_and_is_asked_for_nothing() {
    let bed = Bed::new();
    let agent = bed.path("agent/official-agent");
    let held = format!("{} {}", bed.held(&[&agent]).display(), agent.display());
    for prompt in ["say one two  three 日本語 \u{2028} end", "where"] {
        assert_eq!(heard(&held, prompt).await, heard(AGENT, prompt).await);
    }
    // It serves neither files nor terminals: our host does, and only in the sandbox.
    let note = bed.path("workspace/note").display().to_string();
    for (prompt, said) in [
        (format!("write {note} one two"), "written"),
        (format!("read {note}"), "one two"),
        ("run cat note; exit 3".to_owned(), "one twoSome(3)"),
        (
            format!("write {} one", bed.path("home/note").display()),
            "not written",
        ),
        ("read /etc/shadow".to_owned(), "not read"),
    ] {
        assert_eq!(heard(&held, &prompt).await, said, "{prompt}");
    }
    assert_eq!(heard(AGENT, &format!("read {note}")).await, "not read");
}
