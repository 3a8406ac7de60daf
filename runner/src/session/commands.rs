//! Commands: which is allowed when, what is said to the harness for it, and what it is answered.

use oqto_protocol::command::{Command, CommandEnvelope, Prompt};
use oqto_protocol::event::ResolvedBy;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::{Accepted, Reply, ReplyData, State};
use oqto_protocol::session::{Capability, SessionState};

use super::action::{Action, WriteId};
use super::bounds::{ABORT_MS, ANSWER_MS, COMMANDS_MAX};
use super::machine::Session;
use super::replies::{Kind, Pending};
use super::stage::{Aborting, Begun, Run, Stage, Stopping, Why};
use crate::harness::{Expect, Fragment, Speech};

/// What a harness must be able to do for a command; `None` for what every session does.
fn capability(command: &Command) -> Option<Capability> {
    match command {
        Command::Prompt(prompt) if !prompt.images.is_empty() => Some(Capability::Images),
        Command::Prompt(prompt) if !prompt.resources.is_empty() => Some(Capability::Resources),
        Command::Steer(_) => Some(Capability::Steer),
        Command::FollowUp(_) => Some(Capability::FollowUp),
        Command::Abort(_) => Some(Capability::Abort),
        Command::Compact(_) => Some(Capability::Compact),
        Command::SetModel(_) => Some(Capability::SetModel),
        Command::CycleModel(_) => Some(Capability::CycleModel),
        Command::SetThinkingLevel(_) => Some(Capability::SetThinkingLevel),
        Command::CycleThinkingLevel(_) => Some(Capability::CycleThinkingLevel),
        Command::SetAutoCompaction(_) => Some(Capability::AutoCompaction),
        Command::SetAutoRetry(_) | Command::AbortRetry(_) => Some(Capability::AutoRetry),
        Command::SetSessionName(_) => Some(Capability::SessionName),
        Command::GetStats(_) => Some(Capability::Stats),
        Command::GetModels(_) => Some(Capability::Models),
        Command::GetCommands(_) => Some(Capability::Commands),
        Command::GetForkPoints(_) | Command::Fork(_) => Some(Capability::Fork),
        Command::SessionNew(_) => Some(Capability::NewSession),
        Command::SessionSwitch(_) => Some(Capability::SwitchSession),
        Command::Delegate(_) | Command::DelegateCancel(_) => Some(Capability::Delegate),
        Command::SetMode(_) => Some(Capability::SetMode),
        Command::Shell(_) => Some(Capability::Shell),
        Command::ListSessions(_) => Some(Capability::ListSessions),
        Command::Prompt(_)
        | Command::InputResponse(_)
        | Command::SessionCreate(_)
        | Command::SessionClose(_)
        | Command::SessionDelete(_)
        | Command::SessionRestart(_)
        | Command::GetState(_)
        | Command::GetMessages(_)
        | Command::Unknown(_) => None,
    }
}

/// Whether a command that the harness is told is allowed in a state.
fn allowed(command: &Command, state: SessionState) -> bool {
    use SessionState as S;
    match command {
        Command::Prompt(_) => matches!(state, S::Starting | S::Idle),
        Command::Steer(_) | Command::FollowUp(_) => matches!(state, S::Starting | S::Idle | S::Streaming),
        Command::Compact(_) | Command::SessionNew(_) | Command::SessionSwitch(_) | Command::Fork(_) => {
            matches!(state, S::Idle)
        }
        _ => !matches!(state, S::Stopping | S::Closed | S::Dormant),
    }
}

/// What a command's answer means to the session.
fn kind(command: &Command) -> Kind {
    match command {
        Command::Prompt(_) | Command::Steer(_) | Command::FollowUp(_) => Kind::Talk,
        Command::Compact(_) => Kind::Compact,
        Command::SessionNew(_) | Command::SessionSwitch(_) | Command::Fork(_) => Kind::Move,
        _ => Kind::Other,
    }
}

impl Session {
    /// Takes a command. Exactly one reply follows, now or later; the same id again gets the same one.
    pub(super) fn command(&mut self, envelope: &CommandEnvelope, out: &mut Vec<Action>) {
        let id = envelope.id;
        if let Some(reply) = self.replies.given(id) {
            out.push(Action::Reply(reply.clone()));
            return;
        }
        if self.owes_reply(id) {
            return;
        }
        let cmd = envelope.command.name();
        match &envelope.command {
            Command::SessionCreate(_) => self.create(id, out),
            Command::SessionClose(_) => self.close_asked(id, out),
            Command::SessionRestart(_) => self.restart_asked(id, out),
            Command::GetState(_) => {
                let status = Box::new(self.status());
                self.reply(
                    Reply::done(id, cmd, Some(ReplyData::State(State { status }))),
                    out,
                );
            }
            Command::GetMessages(it) => out.push(Action::Messages {
                id,
                after_idx: it.after_idx,
                limit: it.limit,
            }),
            Command::SessionDelete(_) | Command::Unknown(_) => {
                let fault = Fault::new(FaultCode::Unsupported, format!("a session itself does no {cmd}"));
                self.reply(Reply::refused(id, cmd, fault), out);
            }
            _ => {
                if let Err(fault) = self.tell(envelope, out) {
                    self.reply(Reply::refused(id, cmd, fault), out);
                }
            }
        }
    }

    /// Tells the harness a command, or keeps it until the harness listens.
    fn tell(&mut self, envelope: &CommandEnvelope, out: &mut Vec<Action>) -> Result<(), Fault> {
        let (id, command) = (envelope.id, &envelope.command);
        self.check(command)?;
        match (command, &mut self.stage) {
            (Command::Abort(_), _) => self.abort(id, command, out),
            (Command::InputResponse(response), _) => self.respond(id, command, response, out),
            (_, Stage::Starting(starting)) => {
                let talks = |it: &CommandEnvelope| kind(&it.command) == Kind::Talk;
                if matches!(command, Command::Prompt(_)) && starting.waiting.iter().any(talks) {
                    return Err(Fault::new(
                        FaultCode::WrongState,
                        "another prompt waits for the harness to start",
                    ));
                }
                if starting.waiting.len() == COMMANDS_MAX {
                    return Err(busy());
                }
                starting.waiting.push(envelope.clone());
                Ok(())
            }
            (Command::Steer(it), Stage::Idle) => {
                self.prompt(id, command, &it.message, it.client_id.as_ref(), out)
            }
            (Command::FollowUp(it), Stage::Idle) => {
                self.prompt(id, command, &it.message, it.client_id.as_ref(), out)
            }
            (_, _) => self.say(id, command, command, out),
        }
    }

    /// Whether the harness can do it, and now.
    fn check(&self, command: &Command) -> Result<(), Fault> {
        let harness = &self.setup.harness;
        // One that starts may still say what it can do; it is asked again when it did.
        let is_known = self.known.capabilities.is_some() || !harness.says_capabilities();
        if let Some(capability) = capability(command)
            && is_known
            && !self.can(capability)
        {
            return Err(Fault::new(
                FaultCode::Unsupported,
                format!("{harness} does not have the capability {capability}"),
            ));
        }
        if let Stage::Down(down) = &self.stage {
            return Err(down.refuses(command.name()));
        }
        let state = match command {
            Command::Prompt(_) if self.takes_prompt() => SessionState::Idle,
            _ => self.state(),
        };
        if !allowed(command, state) {
            let mut message = format!("no {} while the session is {state}", command.name());
            if let Stage::Stopping(Stopping {
                why: Why::Broken(reason),
                ..
            }) = &self.stage
            {
                message.push_str(": ");
                message.push_str(reason);
            }
            return Err(Fault::new(FaultCode::WrongState, message));
        }
        Ok(())
    }

    /// Whether a prompt can begin a run: the harness has none, or took a prompt and began none yet. The latter is most
    /// likely a command of an extension; if not, the harness itself refuses the second prompt.
    fn takes_prompt(&self) -> bool {
        match self.stage {
            Stage::Idle => true,
            // One that asks something has taken the prompt. What else there is to say of it comes after all that can be
            // seen of it, so that nobody could wait for that.
            Stage::Streaming(Run {
                begun: Begun::No { prompt, .. },
            }) => !self.replies.waits(prompt),
            Stage::Streaming(_)
            | Stage::Starting(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Stopping(_)
            | Stage::Down(_)
            | Stage::Closed => false,
        }
    }

    /// What would steer a run begins one when there is none.
    fn prompt(
        &mut self,
        id: CommandId,
        command: &Command,
        message: &str,
        client_id: Option<&String>,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let prompt = Command::Prompt(Prompt {
            message: message.to_owned(),
            images: Vec::new(),
            client_id: client_id.cloned(),
            resources: Vec::new(),
        });
        self.say(id, command, &prompt, out)
    }

    /// Says `said` for `command`, and tells what that means.
    pub(super) fn say(
        &mut self,
        id: CommandId,
        command: &Command,
        said: &Command,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        for fragment in self.say_alone(id, command, said, out)? {
            self.apply(fragment, out);
        }
        Ok(())
    }

    /// Says `said` for `command`; what that means, which is not told yet.
    pub(super) fn say_alone(
        &mut self,
        id: CommandId,
        command: &Command,
        said: &Command,
        out: &mut Vec<Action>,
    ) -> Result<Vec<Fragment>, Fault> {
        if self.replies.pending.len() == COMMANDS_MAX {
            return Err(busy());
        }
        let speech = self.dialect.say(said, id, &self.asked)?;
        self.heard_at = self.now;
        let pending = Pending {
            id,
            cmd: command.name(),
            kind: kind(command),
            cursor: self.cursor,
            until: self.now + ANSWER_MS,
        };
        match command {
            Command::Prompt(it) => self.transcript.speak(&it.message, it.client_id.as_deref()),
            Command::Steer(it) => self.transcript.speak(&it.message, it.client_id.as_deref()),
            Command::FollowUp(it) => self.transcript.speak(&it.message, it.client_id.as_deref()),
            _ => {}
        }
        match (&self.stage, pending.kind) {
            (_, Kind::Talk) if self.takes_prompt() => {
                let begun = Begun::No {
                    prompt: id,
                    until: None,
                };
                self.stage = Stage::Streaming(Run { begun });
            }
            (Stage::Idle, Kind::Compact) => self.stage = Stage::Compacting,
            (_, _) => {}
        }
        let Speech { bytes, expect, means } = speech;
        if !bytes.is_empty() {
            out.push(Action::Write {
                id: WriteId::of(id),
                bytes,
            });
        }
        match expect {
            Expect::Answer => self.replies.pending.push(pending),
            Expect::Nothing => self.accept(&pending, None, out),
        }
        Ok(means)
    }

    pub(super) fn abort(
        &mut self,
        id: CommandId,
        command: &Command,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let until = Some(self.now + ABORT_MS);
        let begun = match &mut self.stage {
            Stage::Starting(_) => {
                let fault = Fault::new(FaultCode::WrongState, "aborted before the harness had started");
                self.refuse_waiting(&fault, out);
                return self.accept_now(id, command, out);
            }
            Stage::Idle if self.asked.is_empty() && !self.dialect.works_aside() => {
                return self.accept_now(id, command, out);
            }
            Stage::Streaming(run) => Some(run.begun),
            Stage::Aborting(aborting) => Some(aborting.begun),
            Stage::Idle | Stage::Compacting | Stage::Stopping(_) | Stage::Down(_) | Stage::Closed => None,
        };
        self.say(id, command, command, out)?;
        self.transcript.unspeak();
        self.resolve_all(ResolvedBy::Abort, out);
        if let Some(begun) = begun {
            let command = id;
            self.stage = Stage::Aborting(Aborting {
                command,
                begun,
                until,
            });
        }
        Ok(())
    }

    /// The command that made this session: it is answered when its sandbox holds, or not.
    fn create(&mut self, id: CommandId, out: &mut Vec<Action>) {
        if self.create.is_some() || !matches!(self.stage, Stage::Starting(_)) {
            let fault = Fault::new(FaultCode::Exists, "the session is there already");
            return self.reply(Reply::refused(id, "session.create", fault), out);
        }
        self.create = Some(id);
        if self.sandbox.is_some() {
            self.made(out);
        }
    }

    fn close_asked(&mut self, id: CommandId, out: &mut Vec<Action>) {
        let cursor = self.cursor;
        let data = ReplyData::Accepted(Accepted { cursor });
        self.reply(Reply::done(id, "session.close", Some(data)), out);
        match self.stage {
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_) => {
                self.stop(out);
            }
            Stage::Stopping(_) => self.closes_after_all(out),
            Stage::Down(_) => self.close("closed on request".to_owned(), out),
            Stage::Closed => {}
        }
    }

    /// Whether a command waits for the harness to start.
    pub(super) fn queued(&self, id: CommandId) -> bool {
        match &self.stage {
            Stage::Starting(starting) => starting.waiting.iter().any(|waiting| waiting.id == id),
            Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Stopping(_)
            | Stage::Down(_)
            | Stage::Closed => false,
        }
    }
}

fn busy() -> Fault {
    Fault::new(
        FaultCode::Busy,
        format!("{COMMANDS_MAX} commands wait for the harness already"),
    )
}
