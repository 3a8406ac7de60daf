//! The scripted model: `tests/tools/fake_llm.py`, which says what the prompt tells it to say.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::tests_dir;

/// A scripted model that listens on loopback. It ends with this value.
#[derive(Debug)]
pub struct Model {
    server: Child,
    port: u16,
}

impl Model {
    /// Starts one.
    ///
    /// # Panics
    /// When python or the script is not there.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        Self::start_by(&[], dir, &[])
    }

    /// Starts one by a program that these words begin with, and tells it these.
    ///
    /// # Panics
    /// When python or the script is not there.
    #[must_use]
    pub fn start_by(by: &[String], dir: &Path, words: &[&str]) -> Self {
        let port_file = dir.join("model.port");
        let script = tests_dir().join("tools/fake_llm.py");
        let python = ["python3".to_owned()];
        let mut program = by.iter().chain(&python);
        let mut server = Command::new(program.next().unwrap())
            .args(program)
            .arg(script)
            .args(words)
            .args(["--port", "0", "--port-file"])
            .arg(&port_file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It writes its port first and then says one line.
        let mut said = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        let port = std::fs::read_to_string(&port_file).unwrap();
        Self {
            server,
            port: port.trim().parse().unwrap(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What pi needs to know of it, as its `models.json`.
    #[must_use]
    pub fn for_pi(&self) -> String {
        // A window that five megabytes fit in: what is tested is not when an agent shortens its context.
        let model = |id: &str| serde_json::json!({"id": id, "reasoning": true, "contextWindow": 100_000_000});
        serde_json::json!({"providers": {"fake": {
            "baseUrl": format!("{}/v1", self.url()),
            "api": "openai-completions",
            "apiKey": "dummy",
            "models": [model("fake-model"), model("other-model")],
        }}})
        .to_string()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // It is ours and was not waited for, so its number is nobody else's.
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}
