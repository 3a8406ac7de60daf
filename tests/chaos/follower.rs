//! A control in a process of its own, which may be killed at any time: it follows every session into a history on disk,
//! and one of the two also drives them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oqto_control::history::File;
use oqto_control::{CommandError, Control, Envelope, Event, Events, Options, Runner};
use oqto_protocol::command::{Command, Prompt, SessionClose, SessionCreate, SessionRestart};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::ReplyData;
use serde::{Deserialize, Serialize};

use crate::plan::{KINDS, PLACES, Place};

/// The variable by which a process knows that it is one, and which.
pub(crate) const ROLE: &str = "OQTO_CHAOS_ROLE";

/// How long who was refused or not heard waits before it asks again.
const AGAIN: Duration = Duration::from_millis(50);

/// What a control is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Whether it drives the sessions or only follows them.
    pub(crate) drives: bool,
    pub(crate) data: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) workspace: PathBuf,
    /// Where it keeps what it hears.
    pub(crate) history: PathBuf,
    /// Where it writes down what its prompts were answered.
    pub(crate) answers: PathBuf,
    /// There once the calm session has said everything.
    pub(crate) calm: PathBuf,
    /// There once no more is to be said.
    pub(crate) enough: PathBuf,
}

/// What a prompt was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) prompt: usize,
    /// The newest event before its effects; `None` when it was refused.
    pub(crate) after: Option<u64>,
    /// Why it was refused.
    pub(crate) refused: Option<String>,
}

/// What a history on disk has of a session.
pub(crate) fn kept(history: &Path, place: Place) -> Vec<Envelope> {
    let name = format!("{}.jsonl", place.session());
    let runners = fs::read_dir(history).into_iter().flatten().filter_map(Result::ok);
    let text = runners.filter_map(|runner| fs::read_to_string(runner.path().join(&name)).ok());
    let text: String = text.collect();
    // What a crash cut off is written again.
    oqto_tests::events(text.rfind('\n').map_or("", |end| &text[..end]))
}

/// What the prompts of a session were answered.
pub(crate) fn answers(dir: &Path, place: Place) -> Vec<Answer> {
    let text = fs::read_to_string(dir.join(place.session().as_str())).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl Role {
    /// Follows, and drives, every session to its end.
    pub(crate) async fn play(self) {
        let options = Options::under(&self.data)
            .local_dir(&self.state)
            .runner_program(&self.program)
            .history(Arc::new(File::new(self.history.clone())));
        let control = Control::open(options).unwrap();
        let runner = self.runner(&control).await;
        if self.drives && !self.calm.exists() {
            self.clone().drive(runner.clone(), Place::Calm, Some(KINDS)).await;
            fs::write(&self.calm, "").unwrap();
        }
        let mut tasks = tokio::task::JoinSet::new();
        for place in PLACES {
            let (role, runner) = (self.clone(), runner.clone());
            tasks.spawn(async move {
                if role.drives {
                    role.drive(runner, place, None).await;
                } else {
                    role.follow(runner, place).await;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        control.close().await;
    }

    /// The runner of this bed: who drives has the library bring it back, who follows knows only where it is.
    async fn runner(&self, control: &Control) -> Runner {
        loop {
            let connected = if self.drives {
                control.local().await.map_err(|error| format!("{error:?}"))
            } else {
                match control.local_addr() {
                    Some(at) => control.connect(at).await.map_err(|error| format!("{error:?}")),
                    None => Err("no runner says where it is".to_owned()),
                }
            };
            match connected {
                Ok(runner) => return runner,
                Err(error) => eprintln!("not connected: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn events(&self, runner: &Runner, place: Place) -> Events {
        loop {
            match runner.session(place.session()).events().await {
                Ok(events) => return events,
                Err(error) => eprintln!("{place:?} cannot be followed yet: {error:?}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(self, runner: Runner, place: Place) {
        let mut events = self.events(&runner, place).await;
        while let Some(event) = events.next().await {
            // A stream that ends for any reason but its session's end is what must not be.
            event.unwrap();
        }
    }

    /// Says prompt after prompt, each when the one before is done, and closes the session.
    async fn drive(self, runner: Runner, place: Place, count: Option<usize>) {
        let create = Command::SessionCreate(SessionCreate {
            config: Box::new(place.config(self.workspace.to_str().unwrap())),
        });
        let made = self.tell(&runner, place, place.create_id(), create).await;
        assert!(made.is_ok(), "{place:?} is not made: {made:?}");
        let mut answers: BTreeMap<usize, Answer> = answers(&self.answers, place)
            .into_iter()
            .map(|answer| (answer.prompt, answer))
            .collect();
        let begun_file = self.answers.join(format!("begun-{}", place.session()));
        let begun = fs::read_to_string(&begun_file)
            .unwrap_or_default()
            .lines()
            .count();
        let mut rest = kept(&self.history, place)
            .iter()
            .filter_map(rest)
            .max()
            .unwrap_or(0);
        let mut events = self.events(&runner, place).await;
        for n in 0.. {
            let is_enough = count.map_or_else(|| self.enough.exists(), |count| n >= count);
            // One that was begun before a kill, and may have had its effect, is seen to its end.
            if is_enough && n >= begun {
                break;
            }
            let answer = match answers.remove(&n) {
                Some(answer) => answer,
                None => {
                    if n >= begun {
                        append(&begun_file, "begun");
                    }
                    self.prompt(&runner, place, n).await
                }
            };
            while answer.after.is_some_and(|after| rest <= after) {
                let Some(event) = events.next().await else {
                    panic!("{place:?} ended at {rest}, and its prompt {n} was taken at {answer:?}")
                };
                let event = event.unwrap();
                rest = rest.max(self::rest(&event).unwrap_or(0));
            }
        }
        let closed = self.tell(
            &runner,
            place,
            place.close_id(),
            Command::SessionClose(SessionClose {}),
        );
        assert!(closed.await.is_ok());
        while let Some(event) = events.next().await {
            event.unwrap();
        }
    }

    async fn prompt(&self, runner: &Runner, place: Place, n: usize) -> Answer {
        let prompt = Command::Prompt(Prompt {
            message: place.prompt(n),
            images: Vec::new(),
            client_id: Some(place.token(n)),
            resources: Vec::new(),
        });
        let (after, refused) = match self.tell(runner, place, place.prompt_id(n), prompt).await {
            Ok(Some(ReplyData::Accepted(accepted))) => (Some(accepted.cursor.seq), None),
            Ok(other) => panic!("{other:?}"),
            Err(text) => (None, Some(text)),
        };
        let answer = Answer {
            prompt: n,
            after,
            refused,
        };
        self.write_down(place, &answer);
        answer
    }

    /// Gives a command until it is answered, always under the same name. A refusal is an answer where it is for good.
    async fn tell(
        &self,
        runner: &Runner,
        place: Place,
        id: CommandId,
        command: Command,
    ) -> Result<Option<ReplyData>, String> {
        loop {
            let told = runner.command_as(id, &place.session(), command.clone()).await;
            match told {
                Ok(data) => return Ok(data),
                Err(CommandError::Refused { source, .. }) => match source.0.code {
                    // Somebody else, or this one before it was killed, is at it.
                    FaultCode::Busy => {}
                    FaultCode::WrongState if source.0.message.contains("session.restart") => {
                        let restart = Command::SessionRestart(SessionRestart::default());
                        let woken = runner.command(&place.session(), restart).await;
                        eprintln!("{place:?} was woken: {woken:?}");
                        // The same command is answered the same for ever: this one has no effect.
                        return Err(format!("{:?}", source.0));
                    }
                    _ => {
                        // Who is refused for good does not ask as fast as it can.
                        tokio::time::sleep(AGAIN).await;
                        return Err(format!("{:?}", source.0));
                    }
                },
                Err(error) => eprintln!("{place:?} has no answer: {error:?}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn write_down(&self, place: Place, answer: &Answer) {
        let path = self.answers.join(place.session().as_str());
        append(&path, &serde_json::to_string(answer).unwrap());
    }
}

/// Adds a line, at once, so that a kill leaves all of it or nothing.
fn append(path: &Path, line: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The number of an event after which nothing more comes of a prompt.
fn rest(envelope: &Envelope) -> Option<u64> {
    match envelope.event {
        Event::AgentIdle(_) | Event::Recovered(_) | Event::SessionDormant(_) | Event::SessionClosed(_) => {
            envelope.seq
        }
        _ => None,
    }
}
