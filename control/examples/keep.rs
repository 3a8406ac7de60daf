//! Keeps the events of a session in files of this side, and acknowledges what is on disk.
//!
//! Run it with `cargo run -p oqto-control --example keep -- DIR SESSION`, end it by whatever way, and run it again: it
//! goes on behind the last event that `DIR` has. It prints the number of each event that it was handed.
#![forbid(unsafe_code)]

use std::sync::Arc;

use oqto_control::history::File;
use oqto_control::{Control, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(dir), Some(session)) = (words.next(), words.next()) else {
        return Err("usage: keep DIR SESSION".into());
    };
    let store = Arc::new(File::new(dir.into()));
    let control = Control::open(Options::of_user()?.history(store))?;
    let session = control.local().await?.session(session.parse()?);
    let mut events = session.events().await?;
    while let Some(event) = events.next().await {
        println!("{}", event?.seq.unwrap_or_default());
    }
    control.close().await;
    Ok(())
}
