//! The session itself: what it owns, and how it takes one input.

use oqto_protocol::codec::Json;
use oqto_protocol::cursor::Cursor;
use oqto_protocol::event::{AgentIdle, AgentWorking, Event, Notify, NotifyLevel, Phase, SessionCreated};
use oqto_protocol::id::CommandId;
use oqto_protocol::policy::{LayerReport, SandboxReport};
use oqto_protocol::session::{Capability, SessionInfo, SessionState, SessionStatus};

use super::action::{Action, WriteId};
use super::bounds::{
    DEADLINE_SLACK_MS, EARLY_LEN_MAX, HELD_MAX, MESSAGE_LEN_MAX, PARTIAL_LEN_MAX, START_MS, STDERR_LEN_MAX,
    VERSION_LEN_MAX,
};
use super::fact::Violations;
use super::input::{Input, Report};
use super::permission::{Decision, name};
use super::replies::Replies;
use super::setup::Setup;
use super::stage::{Again, Stage, Starting, Why};
use super::strays::Strays;
use super::transcript::Transcript;
use crate::harness::{
    Asked, Asks, Beginning, Dialect, Edition, Fragment, Harness, HarnessState, Lines, Tongue,
};
use crate::policy::Permissions;

/// One harness, from its start to its end.
#[derive(Debug)]
pub struct Session {
    pub(super) setup: Setup,
    pub(super) stage: Stage,
    pub(super) dialect: Dialect,
    pub(super) lines: Lines,
    /// What the line at hand means; kept for its memory.
    pub(super) fragments: Vec<Fragment>,
    /// What the harness says of itself.
    pub(super) known: HarnessState,
    /// What holds it, once the kernel accepted it.
    pub(super) sandbox: Option<SandboxReport>,
    /// Whether it has still to be told that it is there.
    pub(super) untold: bool,
    /// What is told after that.
    pub(super) held: Vec<Event>,
    /// The command that made it, until that is answered.
    pub(super) create: Option<CommandId>,
    pub(super) transcript: Transcript,
    pub(super) replies: Replies,
    pub(super) asked: Vec<Asked>,
    /// When it was asked last.
    pub(super) asked_at: Option<u64>,
    /// What was decided of that, and waits to be put on record.
    pub(super) decisions: Vec<Decision>,
    /// What the harness works at, as was said last; nothing while it is idle.
    pub(super) working: Option<Phase>,
    pub(super) strays: Strays,
    pub(super) violations: Violations,
    /// The end of what the harness wrote to its standard error.
    pub(super) stderr: Vec<u8>,
    /// How it came to be started again, until it takes commands.
    pub(super) again: Option<Again>,
    /// When its harness died, lately.
    pub(super) falls: Vec<u64>,
    /// The newest event.
    pub(super) cursor: Cursor,
    /// How many writes were the session's own.
    pub(super) own_writes: u64,
    /// When the harness last said something or was told something.
    pub(super) heard_at: u64,
    /// The silence that was told last, by its beginning, and whether something was done about it.
    pub(super) silence_told: Option<(u64, bool)>,
    /// The time of what is at hand. It never goes back.
    pub(super) now: u64,
}

/// How much of a message that is being made is kept.
pub(super) fn kept_max(tongue: Tongue) -> usize {
    match Dialect::new(tongue).repeats_messages() {
        true => PARTIAL_LEN_MAX,
        false => MESSAGE_LEN_MAX,
    }
}

impl Session {
    /// The answer that a command was given already.
    #[must_use]
    pub fn kept_reply(&self, id: CommandId) -> Option<&oqto_protocol::reply::Reply> {
        self.replies.given(id)
    }

    /// Whether a command was taken whose answer is still to come.
    #[must_use]
    pub fn owes_reply(&self, id: CommandId) -> bool {
        self.replies.waits(id) || self.create == Some(id) || self.queued(id) || self.waits_for_return(id)
    }

    /// A session whose harness is being started; its tape begins at `now_ms`.
    #[must_use]
    pub fn new(setup: Setup, now_ms: u64) -> Self {
        let stage = Stage::Starting(Starting::until(now_ms + START_MS));
        Self {
            stage,
            dialect: Dialect::new(setup.harness.tongue()),
            lines: Lines::default(),
            fragments: Vec::new(),
            known: HarnessState::default(),
            sandbox: None,
            untold: false,
            held: Vec::new(),
            create: None,
            transcript: Transcript::new(setup.next_idx, kept_max(setup.harness.tongue()), Vec::new()),
            replies: Replies::default(),
            asked: Vec::new(),
            asked_at: None,
            decisions: Vec::new(),
            working: None,
            strays: Strays::default(),
            violations: Violations::default(),
            stderr: Vec::new(),
            again: None,
            falls: Vec::new(),
            cursor: setup.cursor,
            own_writes: 0,
            heard_at: now_ms,
            silence_told: None,
            now: now_ms,
            setup,
        }
    }

    /// Takes one input and appends what is to be done to `out`. `now_ms` is the record's time on the tape, and for
    /// [`Input::Deadline`] the clock's.
    pub fn step(&mut self, input: &Input<'_>, now_ms: u64, out: &mut Vec<Action>) {
        let was_closed = matches!(self.stage, Stage::Closed);
        if let Input::Deadline = input {
            self.expire_until(now_ms.saturating_sub(DEADLINE_SLACK_MS), out);
        } else {
            self.expire_until(now_ms, out);
            self.now = self.now.max(now_ms);
        }
        if let Input::Out(_) | Input::Err(_) = input {
            self.heard_at = self.now;
        }
        match input {
            Input::Begun => self.begun(),
            Input::Out(bytes) => self.printed(bytes, out),
            Input::Err(bytes) => self.complained(bytes),
            Input::Command(envelope) => self.command(envelope, out),
            Input::Report(Report::Confined { layers }) => self.confined(layers, out),
            Input::Report(Report::Failed { layer, error }) => self.unconfined(layer, error, out),
            Input::Seen(fact) => self.seen(fact, out),
            Input::Exited(status) => self.exited(*status, out),
            Input::Lost(why) => self.lost(why, out),
            Input::Left(why) => self.left(why, out),
            Input::NotStarted(why) => self.not_started(why, out),
            Input::Deadline => {}
        }
        if self.at_rest() && !was_closed {
            // Not in a snapshot: who goes on from one has to tell the same.
            self.asked_at = None;
            out.push(Action::Rest);
        }
    }

    /// When [`Input::Deadline`] is to be put on the tape, Unix milliseconds: once the clock is there and the tape is read to
    /// its end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.deadline().map(|at| at.saturating_add(DEADLINE_SLACK_MS))
    }

    /// The log knows more than the tape does: what follows is numbered behind it.
    pub fn catch_up(&mut self, seq: u64, next_idx: u64) {
        self.cursor.seq = self.cursor.seq.max(seq);
        self.transcript.catch_up(next_idx);
    }

    /// What is to hold it when it is started again, how its harness is defined and which edition that is, and who answers it
    /// then.
    pub fn prepared(
        &mut self,
        harness: Harness,
        sandbox: SandboxReport,
        edition: Edition,
        permissions: Permissions,
    ) {
        // It is down: nothing that it said is left to be understood.
        self.dialect = Dialect::new(harness.tongue());
        self.setup.harness = harness;
        self.setup.sandbox = sandbox;
        self.setup.edition = edition;
        self.setup.permissions = permissions;
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.stage.state()
    }

    /// Its newest event.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What a list says of it.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        let setup = &self.setup;
        SessionInfo {
            session_id: setup.session_id.clone(),
            state: self.state(),
            harness: setup.harness.name().to_owned(),
            cwd: setup.cwd.clone(),
            policy: setup.sandbox.policy.clone(),
            title: self.known.title.clone().or_else(|| setup.title.clone()),
            created_at: setup.created_at,
            cursor: self.cursor,
            message_count: self.transcript.next_idx(),
            model: self.known.model.clone().or_else(|| setup.model.clone()),
            labels: setup.labels.clone(),
        }
    }

    /// How it stands, in full.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            info: self.info(),
            capabilities: self.capabilities().to_vec(),
            thinking_level: self.known.thinking_level.clone(),
            provider: self
                .known
                .provider
                .clone()
                .or_else(|| self.setup.provider.clone()),
            pending_request: self.asked.first().map(|asked| name(&asked.request).to_owned()),
            sandbox: self.sandbox.clone(),
            harness_state: self.known.raw.clone().and_then(|raw| Json::parse(raw).ok()),
        }
    }

    /// Whether nothing is open that a later record ends.
    pub(super) fn at_rest(&self) -> bool {
        match self.stage {
            // Whatever was open was ended on the way there.
            Stage::Down(_) | Stage::Closed => true,
            Stage::Idle => self.is_quiet(),
            Stage::Starting(_)
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Stopping(_) => false,
        }
    }

    fn is_quiet(&self) -> bool {
        self.lines.is_empty()
            && self.dialect.at_rest()
            && !self.transcript.is_open()
            && self.replies.pending.is_empty()
            && self.asked.is_empty()
            && self.create.is_none()
            && self.working.is_none()
    }

    /// Gives an event the time at hand and counts it.
    pub(super) fn record(&mut self, event: Event, out: &mut Vec<Action>) {
        if self.untold && self.can_wait(&event) {
            self.held.push(event);
            return;
        }
        // A session is never heard of before it is there.
        self.tell_created(out);
        self.cursor.seq += 1;
        out.push(Action::Record { at: self.now, event });
    }

    /// Whether something can be told after the session itself, of which the harness has still to say what it can do.
    fn can_wait(&self, event: &Event) -> bool {
        let is_note = matches!(
            event,
            Event::Status(_) | Event::Notify(_) | Event::TitleChanged(_)
        );
        is_note && matches!(self.stage, Stage::Starting(_)) && self.held.len() < HELD_MAX
    }

    /// Tells that the session is there, once.
    pub(super) fn tell_created(&mut self, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.untold) {
            return;
        }
        if let Some(sandbox) = self.sandbox.clone() {
            if self.known.version.is_none() {
                self.known.version.clone_from(&self.setup.edition.version);
            }
            let created = SessionCreated {
                resumed: self.setup.continue_session.is_some(),
                harness: self.setup.harness.name().to_owned(),
                capabilities: self.capabilities().to_vec(),
                sandbox,
                version: self.known.version.clone(),
            };
            self.record(Event::SessionCreated(created), out);
            if let Some(warning) = self.setup.edition.warning.clone() {
                self.warn(warning, out);
            }
            self.judge_version(out);
            if self.setup.permissions.wanted && !self.setup.harness.asks() {
                let harness = &self.setup.harness;
                self.warn(
                    format!("{harness} never asks, so that no rule under [permissions] is ever applied; the sandbox alone holds it"),
                    out,
                );
            }
        }
        for event in std::mem::take(&mut self.held) {
            self.record(event, out);
        }
    }

    /// Its harness is of this version: what there is to say of that is said once.
    pub(super) fn is_of_version(&mut self, version: Option<String>, out: &mut Vec<Action>) {
        let version = version.filter(|it| it.len() <= VERSION_LEN_MAX);
        if version.is_some() && version != self.known.version {
            self.known.version = version;
            // Before it is told of, nothing is said of it.
            if !self.untold {
                self.judge_version(out);
            }
        }
    }

    fn judge_version(&mut self, out: &mut Vec<Action>) {
        let setup = &self.setup;
        let version = self.known.version.as_deref();
        if let Some(warning) = version.and_then(|it| setup.edition.untested(setup.harness.name(), it)) {
            self.warn(warning, out);
        }
    }

    /// Says something that a human should look at.
    pub(super) fn warn(&mut self, message: String, out: &mut Vec<Action>) {
        let level = NotifyLevel::Warning;
        self.record(Event::Notify(Notify { level, message }), out);
    }

    /// Says at what the harness works, when that is news.
    pub(super) fn work(&mut self, phase: Phase, out: &mut Vec<Action>) {
        if self.working != Some(phase) {
            self.working = Some(phase);
            self.record(Event::AgentWorking(AgentWorking { phase, detail: None }), out);
        }
    }

    /// Says that it works no longer, when that is news.
    pub(super) fn rest(&mut self, out: &mut Vec<Action>) {
        if self.working.take().is_some() {
            self.record(Event::AgentIdle(AgentIdle {}), out);
        }
    }

    /// Asks the harness what it says of itself; its first answer is that it is ready.
    pub(super) fn probe(&mut self, out: &mut Vec<Action>) {
        let beginning = self.beginning();
        let bytes = self.dialect.probe(&beginning);
        self.write_own(bytes, out);
    }

    /// Writes what no command asked for.
    pub(super) fn write_own(&mut self, bytes: Vec<u8>, out: &mut Vec<Action>) {
        if !bytes.is_empty() {
            let id = WriteId::own(self.own_writes);
            self.own_writes += 1;
            out.push(Action::Write { id, bytes });
        }
    }

    fn beginning(&self) -> Beginning {
        let asked_for = self.setup.continue_session.as_ref();
        // What is started now may be another one than what said its version.
        let edition = self.setup.edition.version.clone();
        Beginning {
            cwd: self.setup.cwd.clone(),
            continue_session: self.known.own_session.as_ref().or(asked_for).cloned(),
            model: self.model_to_set(),
            mode: self.setup.harness.definition().mode.clone(),
            serve: self.setup.harness.definition().serve,
            version: edition.or_else(|| self.known.version.clone()),
            auth_method: self.setup.harness.definition().auth_method.clone(),
            asks: self.setup.harness.definition().asks == Asks::Made,
        }
    }

    /// The model that its harness is told once it has started; none where its arguments say it.
    fn model_to_set(&self) -> Option<String> {
        let (setup, definition) = (&self.setup, self.setup.harness.definition());
        if !definition.model_args.is_empty() {
            return None;
        }
        self.known.model.clone().or_else(|| match &setup.provider {
            // Agents that know many providers name a model by both.
            Some(provider) if definition.tongue == Tongue::Acp => {
                setup.model.as_ref().map(|model| format!("{provider}/{model}"))
            }
            _ => setup.model.clone(),
        })
    }

    /// What its harness can do, as it said itself or as is known of it.
    pub(super) fn capabilities(&self) -> &[Capability] {
        match &self.known.capabilities {
            Some(said) => said,
            None => self.setup.harness.capabilities(),
        }
    }

    pub(super) fn can(&self, capability: Capability) -> bool {
        self.capabilities().contains(&capability)
    }

    fn printed(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        match &mut self.stage {
            // Two pipes, read in any order: what the harness said must not come before what holds it.
            Stage::Starting(starting) if self.sandbox.is_none() => {
                let room = EARLY_LEN_MAX.saturating_sub(starting.early.len());
                if bytes.len() > room {
                    return self.broken("printed before its sandbox was there", out);
                }
                starting.early.extend_from_slice(bytes);
            }
            Stage::Stopping(stopping) if matches!(stopping.why, Why::Broken(_) | Why::Unconfined(_)) => {}
            Stage::Down(_) | Stage::Closed => {}
            Stage::Starting(_)
            | Stage::Idle
            | Stage::Streaming(_)
            | Stage::Compacting
            | Stage::Aborting(_)
            | Stage::Stopping(_) => self.listen(bytes, out),
        }
    }

    /// Understands what was printed, line by line.
    fn listen(&mut self, mut bytes: &[u8], out: &mut Vec<Action>) {
        loop {
            let line = match self.lines.next(&mut bytes) {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(too_long) => return self.broken(&too_long.to_string(), out),
            };
            let mut fragments = std::mem::take(&mut self.fragments);
            self.dialect.push(line, self.now, &mut fragments);
            if let [.., Fragment::Stray] = fragments.as_slice() {
                let shown = Self::shown(line);
                fragments.pop();
                self.stray(&shown, out);
            }
            for fragment in fragments.drain(..) {
                self.apply(fragment, out);
            }
            self.fragments = fragments;
        }
    }

    fn complained(&mut self, bytes: &[u8]) {
        let keep = &bytes[bytes.len().saturating_sub(STDERR_LEN_MAX)..];
        let over = (self.stderr.len() + keep.len()).saturating_sub(STDERR_LEN_MAX);
        self.stderr.drain(..over);
        self.stderr.extend_from_slice(keep);
    }

    /// The kernel accepted the sandbox, and the harness begins inside.
    fn confined(&mut self, layers: &[LayerReport], out: &mut Vec<Action>) {
        if self.sandbox.is_some() || matches!(self.stage, Stage::Down(_) | Stage::Closed) {
            return;
        }
        let sandbox = SandboxReport {
            layers: layers.to_vec(),
            ..self.setup.sandbox.clone()
        };
        self.sandbox = Some(sandbox.clone());
        // That it holds again is told when the harness is there again too.
        if self.again.is_none() {
            self.untold = true;
            // One that says itself what it can do is told of when it has.
            if !self.setup.harness.says_capabilities() {
                self.tell_created(out);
            }
            self.made(out);
        }
        self.probe(out);
        if let Stage::Starting(starting) = &mut self.stage {
            let early = std::mem::take(&mut starting.early);
            for fact in std::mem::take(&mut starting.early_facts) {
                self.seen(&fact, out);
            }
            self.listen(&early, out);
        }
    }
}
