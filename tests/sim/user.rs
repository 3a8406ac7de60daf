//! Whoever prompts: one thing after the other, again when it was refused, and under the same id when the link fell.

use oqto_protocol::codec::{Json, decode_all};
use oqto_protocol::command::{Abort, Command, CommandEnvelope, Prompt, SessionClose};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::{CommandId, SessionId};
use oqto_protocol::message::{Content, Message};
use oqto_protocol::reply::{Reply, ReplyData};

use crate::agent::Agent;
use crate::dice::Dice;
use crate::plan::{Flaw, Plan};
use crate::store::Kept;
use crate::world::{CONTROLS, Happening, Place, Upward, World, command_id};

/// How long a user that interrupted waits for the end of what it interrupted, in milliseconds.
const PATIENCE_MS: u64 = 25_000;

/// How often one prompt is tried.
const TRIES_MAX: u32 = 200;

#[derive(Debug)]
enum Stage {
    /// It may prompt.
    Ready,
    /// A command has no answer yet.
    Asked(Box<CommandEnvelope>),
    /// The agent works; what follows this event ends it.
    Waits(Cursor),
    /// The session has ended, or all was said.
    Done,
}

/// Who prompts in one session.
#[derive(Debug)]
pub(crate) struct User {
    /// The control that it sits at.
    pub(crate) control: usize,
    stage: Stage,
    prompts: Vec<String>,
    next: usize,
    commands: u32,
    tries: u32,
    /// A harness did not answer in time, or was interrupted: what it said then is not what it says to prompts alone.
    is_off_script: bool,
    interrupts: bool,
    closes: bool,
}

impl User {
    pub(crate) fn new(session: usize, plan: &Plan, dice: &mut Dice) -> Self {
        let prompts =
            (0..dice.between(1, 4)).map(|n| format!("prompt {n} of session {session} {:x}", plan.seed));
        Self {
            control: session % CONTROLS,
            stage: Stage::Ready,
            prompts: prompts.collect(),
            next: 0,
            commands: 0,
            tries: 0,
            is_off_script: false,
            interrupts: plan.is_restless && dice.percent(60),
            closes: plan.is_restless && dice.percent(60),
        }
    }

    /// Whether the log has what the harness said to the prompts, all of it once and in order.
    pub(crate) fn judge(&self, place: &Place, kept: &Kept) -> Result<(), String> {
        if !matches!(self.stage, Stage::Done) {
            return Err(format!("its user rests at {:?}", self.stage));
        }
        if self.is_off_script || !place.is_undisturbed {
            return Ok(());
        }
        let said: Vec<_> = kept.messages.iter().map(|row| transcribed(&row.frame)).collect();
        let mut meant = Vec::new();
        for prompt in &self.prompts[..self.next] {
            meant.extend(Agent::transcript(place.dialect, prompt));
        }
        match (0..said.len().max(meant.len())).find(|n| said.get(*n) != meant.get(*n)) {
            Some(n) => Err(format!(
                "message {n} is {:?}, of an undisturbed run {:?}",
                said.get(n),
                meant.get(n)
            )),
            None => Ok(()),
        }
    }
}

fn transcribed(frame: &[u8]) -> String {
    let message: Message = decode_all(frame).expect("the log holds whole messages");
    let text = match message.parts.first().map(|part| &part.content) {
        Some(Content::Text(text)) => text.text.clone(),
        Some(Content::ToolResult(result)) => {
            let output = result.output.as_ref().map(Json::value).unwrap_or_default();
            let said = output.get("tail").or_else(|| output.pointer("/content/0/text"));
            let said = said.or_else(|| output.pointer("/0/text")).unwrap_or(&output);
            said.as_str().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    format!("{} {text}", message.role)
}

impl World {
    /// A user does what is next.
    pub(crate) fn act(&mut self, session: usize) {
        let control = self.users[session].control;
        let is_up = self.controls[control].is_up;
        match self.users[session].stage {
            Stage::Ready if is_up => self.ask_next(session),
            Stage::Waits(cursor) if self.controls[control].follows[session].has_rested(cursor) => {
                let user = &mut self.users[session];
                user.stage = Stage::Ready;
                user.next += 1;
                user.tries = 0;
                let after_ms = self.dice.between(0, 1500);
                self.soon(after_ms, Happening::UserActs { session });
            }
            Stage::Ready | Stage::Waits(_) | Stage::Asked(_) | Stage::Done => {}
        }
    }

    /// A user waits no longer for the end of a prompt that it interrupted.
    pub(crate) fn give_up(&mut self, session: usize, prompt: usize) {
        let user = &mut self.users[session];
        if user.next == prompt && matches!(user.stage, Stage::Waits(_)) {
            user.stage = Stage::Ready;
            user.next += 1;
            self.soon(1, Happening::UserActs { session });
        }
    }

    fn ask_next(&mut self, session: usize) {
        let user = &mut self.users[session];
        let command = match user.prompts.get(user.next) {
            Some(prompt) => Command::Prompt(Prompt {
                message: prompt.clone(),
                images: Vec::new(),
                client_id: None,
                resources: Vec::new(),
            }),
            None if user.closes => Command::SessionClose(SessionClose {}),
            None => {
                user.stage = Stage::Done;
                return;
            }
        };
        user.tries += 1;
        user.commands += 1;
        let envelope = envelope(session, user.commands, command);
        user.stage = Stage::Asked(Box::new(envelope));
        self.resend(session);
    }

    /// Sends what has no answer, under the id that it had.
    pub(crate) fn resend(&mut self, session: usize) {
        let user = &mut self.users[session];
        let control = user.control;
        match &mut user.stage {
            Stage::Asked(envelope) => {
                let Some(net) = self.controls[control].net else {
                    return;
                };
                if self.plan.flaw == Flaw::ControlRenamesCommands {
                    user.commands += 1;
                    envelope.id = command_id(session, user.commands);
                }
                let envelope = envelope.clone();
                self.send_up(net, Upward::Command { session, envelope });
            }
            Stage::Ready => self.soon(1, Happening::UserActs { session }),
            Stage::Waits(_) | Stage::Done => {}
        }
    }

    /// Interrupts what the agent does, at times.
    fn interrupt(&mut self, session: usize) {
        let user = &mut self.users[session];
        if !user.interrupts || !self.dice.percent(40) {
            return;
        }
        user.is_off_script = true;
        user.commands += 1;
        // What is interrupted before it has begun never ends.
        let prompt = user.next;
        self.soon(PATIENCE_MS, Happening::UserGivesUp { session, prompt });
        let user = &mut self.users[session];
        let envelope = Box::new(envelope(session, user.commands, Command::Abort(Abort {})));
        // From the other control: several may follow one session.
        let control = (user.control + 1) % CONTROLS;
        if let Some(net) = self.controls[control].net {
            self.send_up(net, Upward::Command { session, envelope });
        }
    }

    /// An answer has come.
    pub(crate) fn answered(&mut self, session: usize, reply: &Reply) {
        let user = &mut self.users[session];
        let Stage::Asked(envelope) = &user.stage else {
            return;
        };
        if envelope.id != reply.id {
            return;
        }
        let is_prompt = matches!(envelope.command, Command::Prompt(_));
        let fault = reply.error.as_ref();
        let message = fault.map(|fault| fault.message.as_str()).unwrap_or_default();
        if is_prompt {
            self.oracle.answered(reply.id, reply.success, message);
        }
        match (&reply.data, fault.map(|fault| fault.code)) {
            (Some(ReplyData::Accepted(accepted)), None) if is_prompt => {
                user.stage = Stage::Waits(accepted.cursor);
                self.interrupt(session);
                self.soon(1, Happening::UserActs { session });
            }
            (_, None) => user.stage = Stage::Done,
            (_, Some(FaultCode::WrongState))
                if message.contains("has ended") || message.contains("dormant") =>
            {
                user.stage = Stage::Done;
            }
            (_, Some(code)) => {
                let is_off_script =
                    matches!(code, FaultCode::Timeout | FaultCode::Harness | FaultCode::Closing);
                self.again(session, is_off_script);
            }
        }
    }

    fn again(&mut self, session: usize, is_off_script: bool) {
        let user = &mut self.users[session];
        user.is_off_script |= is_off_script;
        if user.tries >= TRIES_MAX {
            self.oracle
                .accuse(format!("session {session}: {TRIES_MAX} prompts were refused"));
        }
        self.users[session].stage = Stage::Ready;
        let after_ms = self.dice.between(100, 700);
        self.soon(after_ms, Happening::UserActs { session });
    }
}

fn envelope(session: usize, number: u32, command: Command) -> CommandEnvelope {
    let id: CommandId = command_id(session, number);
    CommandEnvelope {
        id,
        session_id: session_id(session),
        runner_id: None,
        command,
        on_behalf_of: None,
    }
}

pub(crate) fn session_id(session: usize) -> SessionId {
    format!("s-{session}").parse().expect("a name of a session")
}
