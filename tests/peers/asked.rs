//! What a client asks a server for.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use oqto_tests::bench::Plan;

/// How frames become messages of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// Each frame is one.
    Each,
    /// As many frames as the runner reads from its log at once are one.
    Chunks,
}

/// Frames of a plan, in messages of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which frames.
    pub plan: Plan,
    /// In which messages.
    pub messages: Messages,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.messages {
            Messages::Each => "each",
            Messages::Chunks => "chunks",
        };
        write!(f, "{word} {}", self.plan)
    }
}

/// A text that asks for nothing.
#[derive(Clone, Copy, Debug)]
pub struct NothingAsked;

impl FromStr for Asked {
    type Err = NothingAsked;

    fn from_str(text: &str) -> Result<Self, NothingAsked> {
        let (word, plan) = text.split_once(' ').ok_or(NothingAsked)?;
        let messages = match word {
            "each" => Messages::Each,
            "chunks" => Messages::Chunks,
            _ => return Err(NothingAsked),
        };
        let plan = plan.parse().map_err(|_| NothingAsked)?;
        Ok(Self { plan, messages })
    }
}

/// Says where a server listens, as a runner does.
pub(crate) fn announce(address: SocketAddr) {
    println!("{}", serde_json::json!({ "listening": address }));
}
