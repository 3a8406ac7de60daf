//! What is said in the sessions, and under which names: known to who drives and to who judges.

use oqto_control::SessionConfig;
use oqto_protocol::id::{CommandId, SessionId};

/// How many kinds of prompts there are.
pub(crate) const KINDS: usize = 5;

/// A session of the bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing is done to it or to anything else while it works: what it says is what all are to say.
    Calm,
    /// Its runner, its controls and their links are broken, and never its own processes.
    Spared(u8),
    /// Its own processes are killed too.
    Mortal(u8),
}

/// All sessions that work while things are broken.
pub(crate) const PLACES: [Place; 4] = [
    Place::Spared(0),
    Place::Spared(1),
    Place::Mortal(2),
    Place::Mortal(3),
];

impl Place {
    fn number(self) -> u8 {
        match self {
            Self::Calm => u8::MAX,
            Self::Spared(n) | Self::Mortal(n) => n,
        }
    }

    pub(crate) fn session(self) -> SessionId {
        match self {
            Self::Calm => "calm".to_owned(),
            Self::Spared(n) => format!("spared-{n}"),
            Self::Mortal(n) => format!("mortal-{n}"),
        }
        .parse()
        .unwrap()
    }

    pub(crate) fn is_mortal(self) -> bool {
        matches!(self, Self::Mortal(_))
    }

    /// The file in the workspace in which its shell commands leave their token.
    pub(crate) fn trace(self) -> String {
        format!("trace-{}", self.session())
    }

    /// What makes the `n`th prompt of this session different from every other text.
    pub(crate) fn token(self, n: usize) -> String {
        format!("token-{}-{n}-end", self.session())
    }

    /// The `n`th prompt: each is of another kind than the one before, each kind ends with its token.
    pub(crate) fn prompt(self, n: usize) -> String {
        let (token, trace) = (self.token(n), self.trace());
        match n % KINDS {
            0 => format!("fake: slow 25 20 ;; say {token}"),
            1 => format!("fake: say first ;; shell echo {token} >> {trace} || say done {token}"),
            2 => format!("fake: think about {token} ;; say thought"),
            3 => format!("fake: huge 150000 ;; say {token}"),
            _ => format!("fake: shell echo {token} ;; shell echo again || slow 10 10 ;; say {token}"),
        }
    }

    /// The names of commands, which a driver that was killed knows again without having written them down.
    pub(crate) fn create_id(self) -> CommandId {
        self.id(1, 0)
    }

    pub(crate) fn prompt_id(self, n: usize) -> CommandId {
        self.id(2, n)
    }

    pub(crate) fn close_id(self) -> CommandId {
        self.id(3, 0)
    }

    fn id(self, what: u8, n: usize) -> CommandId {
        let mut id = [0xc5; 16];
        (id[0], id[1]) = (self.number(), what);
        id[8..].copy_from_slice(&(n as u64).to_be_bytes());
        CommandId(id)
    }

    pub(crate) fn config(self, workspace: &str) -> SessionConfig {
        SessionConfig {
            harness: "pi".to_owned(),
            cwd: Some(workspace.to_owned()),
            policy: Some("open-net".to_owned()),
            provider: Some("fake".to_owned()),
            model: Some("fake-model".to_owned()),
            ..SessionConfig::default()
        }
    }
}
