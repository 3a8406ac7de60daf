//! Embeds a runner: starts the private one of this machine, runs a program in its sandbox and prints the events.
//!
//! Run it with `cargo run -p oqto-control --example embed -- 'ls -la'`.
#![forbid(unsafe_code)]

use oqto_control::{Control, Event, Options, SessionConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args()
        .nth(1)
        .unwrap_or("echo hello from the sandbox".to_owned());
    let control = Control::open(Options::of_user()?)?;
    let runner = control.local().await?;
    let config = SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(std::env::current_dir()?.display().to_string()),
        ..SessionConfig::default()
    };
    let session = runner.create(config).await?;
    let mut events = session.events().await?;
    session.prompt(prompt).await?;
    let mut worked = false;
    while let Some(envelope) = events.next().await {
        let envelope = envelope?;
        println!("{}", serde_json::to_string(&envelope)?);
        match envelope.event {
            Event::StreamDone(_) => worked = true,
            Event::AgentIdle(_) if worked => break,
            _ => {}
        }
    }
    session.close().await?;
    control.close().await;
    Ok(())
}
