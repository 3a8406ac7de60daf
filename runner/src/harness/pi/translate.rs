//! What pi's lines mean, and the little that has to be remembered between them.

use std::borrow::Cow;

use memchr::memchr;
use oqto_protocol::codec::Json;
use oqto_protocol::command::Shell;
use oqto_protocol::event::{
    CompactEnd, CompactReason, Event, Phase, ProgressMode, RetryEnd, RetryStart, Status,
    ThinkingLevelChanged, TitleChanged, ToolEnd, ToolProgress, ToolStart,
};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Role, StopReason};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::gate::{self, Gate, Said};
use super::{answer, command, message, ui, update, wire};
use crate::harness::dialect::Beginning;
use crate::harness::excerpt::excerpt;
use crate::harness::fragment::{Fragment, HarnessState, Outcome};
use crate::harness::version::reaches;

/// How long after its end a run may still go on, where pi does not say when it is over (before 0.80.4): an error
/// there may be followed by a retry, a long context by a compaction, each at once.
const SETTLE_MS: u64 = 250;

/// How many running tools are remembered, for their durations. pi runs the calls of one message at once, and no
/// model makes more.
const TOOLS_MAX: usize = 64;

/// How many shell commands of the user's may run at once. People run one.
const SHELLS_MAX: usize = 16;

/// The versions that can keep a shell command of the user's from their model.
const APART_SINCE: &str = ">=0.76";

/// What pi calls its shell.
pub(super) const SHELL: &str = "bash";

/// How much of an unknown line is shown, in bytes.
const UNKNOWN_LEN_MAX: usize = 1024;

/// What a pi has said so far, as far as its next line depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pi {
    /// Whether this pi says when a run is over (`agent_settled`), known once it did.
    settles: bool,
    /// Where its run is.
    run: Run,
    /// How the newest message of the model in this run ended.
    last: Option<Last>,
    /// The tools that run, with when they began.
    tools: Vec<(String, u64)>,
    /// The shell commands of the user's that run.
    #[serde(default)]
    shells: Vec<CommandId>,
    /// Whether this pi tells its model of each of them, whatever is asked: before 0.76.
    #[serde(default)]
    tells_all: bool,
    /// What makes it ask before it acts.
    #[serde(default)]
    gate: Gate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    /// There is none.
    #[default]
    None,
    /// It works, or pauses before it goes on.
    Works,
    /// It has ended, unless it goes on before this time; without one pi itself says so.
    Ended { until: Option<u64> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Last {
    Done,
    Length,
    Aborted,
    Failed(String),
}

impl Pi {
    /// Asks whether pi is there: it says nothing by itself.
    pub(in crate::harness) fn begin(&mut self, beginning: &Beginning) -> Vec<u8> {
        let version = beginning.version.as_deref();
        self.tells_all = version.and_then(|version| reaches(version, APART_SINCE)) == Some(false);
        if beginning.asks {
            self.gate = Gate::Awaited;
        }
        command::probe()
    }

    pub(in crate::harness) fn push(&mut self, line: &[u8], now_ms: u64, out: &mut Vec<Fragment>) {
        let understood = match type_of(line) {
            Some(type_) => self.read(&type_, line, now_ms, out),
            None => Err(NotOfPi),
        };
        if understood.is_err() {
            out.push(Fragment::Stray);
        }
    }

    pub(in crate::harness) fn deadline(&self) -> Option<u64> {
        match self.run {
            Run::Ended { until } => until,
            Run::None | Run::Works => None,
        }
    }

    pub(in crate::harness) fn expire(&mut self, out: &mut Vec<Fragment>) {
        self.settled(out);
    }

    pub(in crate::harness) fn at_rest(&self) -> bool {
        self.run == Run::None
    }

    pub(in crate::harness) fn works_aside(&self) -> bool {
        !self.shells.is_empty()
    }

    /// The shell command of the user's that was begun last, of those that run.
    pub(super) fn newest_shell(&self) -> Option<CommandId> {
        self.shells.last().copied()
    }

    /// A shell command of the user's begins.
    pub(super) fn shell(&mut self, shell: &Shell, id: CommandId) -> Result<Fragment, Fault> {
        if shell.apart && self.tells_all {
            let message = "this pi tells its model of every shell command; 0.76 and later can keep one apart";
            return Err(Fault::new(FaultCode::Unsupported, message));
        }
        if self.shells.len() == SHELLS_MAX {
            let message = format!("{SHELLS_MAX} shell commands run already; abort ends them");
            return Err(Fault::new(FaultCode::Busy, message));
        }
        self.shells.push(id);
        Ok(Fragment::Event(Event::ToolStart(ToolStart {
            tool_call_id: id.to_string(),
            name: SHELL.to_owned(),
            input: Some(Json::from(&json!({ "command": shell.command }))),
        })))
    }

    /// What became of a shell command of the user's; `None` when the answer is to another command.
    fn shell_ended(&mut self, response: &wire::Response<'_>) -> Option<Fragment> {
        let id: CommandId = response.id.as_deref()?.parse().ok()?;
        let at = self.shells.iter().position(|shell| *shell == id)?;
        self.shells.remove(at);
        let ended: Option<wire::ShellEnd> = response
            .data
            .and_then(|data| wire::ShellEnd::deserialize(data).ok());
        let failed = || Json::from(&json!({ "error": response.error }));
        Some(Fragment::Event(Event::ToolEnd(ToolEnd {
            tool_call_id: id.to_string(),
            name: SHELL.to_owned(),
            output: response.data.map_or_else(failed, Json::from),
            is_error: !ended.is_some_and(|ended| ended.exit_code == Some(0) && !ended.cancelled),
            duration_ms: None,
        })))
    }

    fn read(
        &mut self,
        type_: &str,
        line: &[u8],
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfPi> {
        match type_ {
            "message_update" => update::read(line, out)?,
            "message_start" => {
                let start: wire::MessageStart<'_> = of(line)?;
                out.push(Fragment::Started(message::role(&start.message.role)));
            }
            "message_end" => self.finished(line, out)?,
            "tool_execution_start" | "tool_execution_update" | "tool_execution_end" => {
                self.tool(type_, of(line)?, now_ms, out);
            }
            "response" => {
                let response = of(line)?;
                if self.lacks_gate(&response) {
                    out.push(ungated());
                    return Ok(());
                }
                let id = response.id.as_deref().unwrap_or_default();
                if let Some(again) = command::abort_again(id, self.newest_shell()) {
                    out.push(Fragment::Write(again));
                    return Ok(());
                }
                match self.shell_ended(&response) {
                    Some(ended) => out.push(ended),
                    None => answer::read(&response, out),
                }
            }
            "extension_ui_request" => self.extension(of(line)?, now_ms, out)?,
            "agent_start" => {
                if self.gate == Gate::Awaited {
                    out.push(ungated());
                    return Ok(());
                }
                self.run = Run::Works;
                self.last = None;
                out.push(Fragment::Began(Phase::Generating));
            }
            "agent_end" => self.agent_end(will_retry(line)?, now_ms),
            "agent_settled" => {
                self.settles = true;
                self.settled(out);
            }
            "auto_retry_start" => self.retry_start(of(line)?, out),
            "auto_retry_end" => self.retry_end(of(line)?, now_ms, out),
            "compaction_start" => self.compaction_start(&of(line)?, out),
            "compaction_end" => self.compaction_end(of(line)?, now_ms, out),
            // What they say is said elsewhere: turns by their messages, entries by what they are about, and the
            // header stands in no stream but that of `--mode json`.
            "turn_start" | "turn_end" | "entry_appended" | "session" => {}
            _ => other(type_, line, out)?,
        }
        Ok(())
    }

    fn extension(
        &mut self,
        request: wire::UiRequest<'_>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfPi> {
        if self.gate != Gate::None {
            if let Some(said) = gate::said(&request) {
                match said {
                    Said::There => self.gate = Gate::There,
                    Said::Steered => out.push(steered()),
                }
                return Ok(());
            }
            if let Some(question) = gate::question(&request, now_ms) {
                out.push(Fragment::Asks(question));
                return Ok(());
            }
        }
        out.push(ui::read(request).ok_or(NotOfPi)?);
        Ok(())
    }

    /// Whether pi has a session open, by this answer, in which it does not ask as it was made to.
    fn lacks_gate(&mut self, response: &wire::Response<'_>) -> bool {
        if self.gate != Gate::Awaited {
            return false;
        }
        let moved = answer::moved(response);
        if moved == Some(false) {
            self.gate = Gate::There;
        }
        moved == Some(true) || response.id.as_deref() == Some(command::PROBE_ID)
    }

    /// What is said opens another session, in which pi has to be made to ask anew.
    pub(super) fn moves(&mut self) {
        if self.gate == Gate::There {
            self.gate = Gate::Awaited;
        }
    }

    /// Whether another session is being opened, so that nothing else can begin.
    pub(super) fn is_moving(&self) -> bool {
        self.gate == Gate::Awaited
    }

    fn finished(&mut self, line: &[u8], out: &mut Vec<Fragment>) -> Result<(), NotOfPi> {
        let end: wire::MessageEnd<'_> = of(line)?;
        let draft = message::draft(&end.message);
        if draft.role == Role::Assistant {
            self.last = Some(match draft.stop_reason {
                Some(StopReason::Error) => Last::Failed(
                    end.message
                        .error_message
                        .map_or_else(|| "the model failed".to_owned(), Cow::into_owned),
                ),
                Some(StopReason::Aborted) => Last::Aborted,
                Some(StopReason::Length) => Last::Length,
                _ => Last::Done,
            });
        }
        out.push(Fragment::Finished(Box::new(draft)));
        Ok(())
    }

    fn tool(&mut self, type_: &str, tool: wire::ToolExecution<'_>, now_ms: u64, out: &mut Vec<Fragment>) {
        let tool_call_id = tool.tool_call_id.into_owned();
        let name = tool.tool_name.into_owned();
        let json = |raw: Option<&RawValue>| raw.map(Json::from).unwrap_or_default();
        let event = match type_ {
            "tool_execution_start" => {
                if self.tools.len() < TOOLS_MAX {
                    self.tools.push((tool_call_id.clone(), now_ms));
                }
                out.push(Fragment::Phase(Phase::ToolRunning));
                Event::ToolStart(ToolStart {
                    tool_call_id,
                    name,
                    input: tool.args.map(Json::from),
                })
            }
            // pi repeats all that a tool gave so far.
            "tool_execution_update" => Event::ToolProgress(ToolProgress {
                tool_call_id,
                name,
                partial_output: json(tool.partial_result),
                mode: ProgressMode::Whole,
            }),
            _ => {
                let at = self.tools.iter().position(|(id, _)| *id == tool_call_id);
                let began = at.map(|at| self.tools.swap_remove(at).1);
                Event::ToolEnd(ToolEnd {
                    tool_call_id,
                    name,
                    output: json(tool.result),
                    is_error: tool.is_error,
                    duration_ms: began.map(|began| now_ms.saturating_sub(began)),
                })
            }
        };
        out.push(Fragment::Event(event));
    }

    fn agent_end(&mut self, will_retry: Option<bool>, now_ms: u64) {
        if will_retry != Some(true) {
            self.ends(now_ms);
        }
    }

    /// The run is over unless it goes on at once.
    fn ends(&mut self, now_ms: u64) {
        let until = (!self.settles).then_some(now_ms + SETTLE_MS);
        self.run = Run::Ended { until };
    }

    fn settled(&mut self, out: &mut Vec<Fragment>) {
        let last = self.last.take();
        self.tools.clear();
        if std::mem::take(&mut self.run) == Run::None {
            return;
        }
        out.push(Fragment::Ended(match last {
            None | Some(Last::Done) => Outcome::Done,
            Some(Last::Length) => Outcome::Length,
            Some(Last::Aborted) => Outcome::Aborted,
            Some(Last::Failed(error)) => Outcome::Failed { error },
        }));
    }

    fn retry_start(&mut self, retry: wire::RetryStart<'_>, out: &mut Vec<Fragment>) {
        self.run = Run::Works;
        out.push(Fragment::Event(Event::RetryStart(RetryStart {
            attempt: retry.attempt,
            max_attempts: retry.max_attempts,
            delay_ms: retry.delay_ms,
            error: retry.error_message.map(Cow::into_owned).unwrap_or_default(),
        })));
        out.push(Fragment::Phase(Phase::Retrying));
    }

    fn retry_end(&mut self, retry: wire::RetryEnd<'_>, now_ms: u64, out: &mut Vec<Fragment>) {
        if !retry.success && self.run != Run::None {
            self.ends(now_ms);
        }
        out.push(Fragment::Event(Event::RetryEnd(RetryEnd {
            success: retry.success,
            attempt: retry.attempt,
            final_error: retry.final_error.map(Cow::into_owned),
        })));
    }

    fn compaction_start(&mut self, compaction: &wire::CompactionStart<'_>, out: &mut Vec<Fragment>) {
        // While it compacts nothing else ends the run.
        if let Run::Ended { until } = &mut self.run {
            *until = None;
        }
        out.push(Fragment::Compacts(match compaction.reason.as_deref() {
            Some("threshold") => CompactReason::Threshold,
            Some("overflow") => CompactReason::Overflow,
            _ => CompactReason::Manual,
        }));
    }

    fn compaction_end(&mut self, compaction: wire::CompactionEnd<'_>, now_ms: u64, out: &mut Vec<Fragment>) {
        if matches!(self.run, Run::Ended { .. }) {
            self.ends(now_ms);
        }
        let aborted = compaction.aborted.then(|| "aborted".to_owned());
        let error = compaction.error_message.map(Cow::into_owned).or(aborted);
        let (summary, tokens_before) = compaction
            .result
            .map(|result| (result.summary.map(Cow::into_owned), result.tokens_before))
            .unwrap_or_default();
        out.push(Fragment::Compacted(Box::new(CompactEnd {
            success: error.is_none(),
            will_retry: compaction.will_retry,
            error,
            summary,
            tokens_before,
        })));
    }
}

/// A line that is not one of pi's.
pub(super) struct NotOfPi;

impl From<serde_json::Error> for NotOfPi {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

fn ungated() -> Fragment {
    let why = "it runs without the extension that makes it ask before it acts, as its policy wants; take a version that \
               was tested";
    Fragment::Unable(why.to_owned())
}

fn steered() -> Fragment {
    let why = "the workspace says how its commands are run, so that what is allowed would be something else; remove \
               shellPath and shellCommandPrefix from its .pi/settings.json, or mend that file if it cannot be read";
    Fragment::Unable(why.to_owned())
}

/// Reads a line, or what of it is asked for.
pub(super) fn of<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, NotOfPi> {
    Ok(serde_json::from_slice(line)?)
}

/// The type of a line. pi writes it first except in answers, so nearly always nothing is parsed for it.
fn type_of(line: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(rest) = line.strip_prefix(br#"{"type":""#) {
        let name = &rest[..memchr(b'"', rest)?];
        if let Ok(name) = std::str::from_utf8(name) {
            return Some(Cow::Borrowed(name));
        }
    }
    let head: wire::Head<'_> = serde_json::from_slice(line).ok()?;
    Some(head.type_)
}

/// Whether an ended run will be tried again. pi says so last, behind all messages of the run, which may be
/// megabytes that nobody needs again.
fn will_retry(line: &[u8]) -> Result<Option<bool>, NotOfPi> {
    if line.ends_with(br#""willRetry":false}"#) {
        return Ok(Some(false));
    }
    if line.ends_with(br#""willRetry":true}"#) {
        return Ok(Some(true));
    }
    let end: wire::AgentEnd = of(line)?;
    Ok(end.will_retry)
}

/// Lines that need no memory, and those of a newer pi.
fn other(type_: &str, line: &[u8], out: &mut Vec<Fragment>) -> Result<(), NotOfPi> {
    match type_ {
        "thinking_level_changed" => {
            let changed: wire::ThinkingLevelChanged<'_> = of(line)?;
            let level = changed.level.into_owned();
            out.push(Fragment::State(Box::new(HarnessState {
                thinking_level: Some(level.clone()),
                ..HarnessState::default()
            })));
            out.push(Fragment::Event(Event::ThinkingLevelChanged(
                ThinkingLevelChanged { level },
            )));
        }
        "session_info_changed" => {
            let changed: wire::SessionInfoChanged<'_> = of(line)?;
            let title = changed.name.map(Cow::into_owned).unwrap_or_default();
            out.push(Fragment::State(Box::new(HarnessState {
                title: Some(title.clone()),
                ..HarnessState::default()
            })));
            out.push(Fragment::Event(Event::TitleChanged(TitleChanged {
                title,
                readable_id: None,
            })));
        }
        "queue_update" => {
            let queue: wire::QueueUpdate = of(line)?;
            let (steering, follow_up) = (queue.steering.len(), queue.follow_up.len());
            let text =
                (steering + follow_up > 0).then(|| format!("{steering} to steer, {follow_up} to follow"));
            out.push(status("queue", text));
        }
        "bash_execution_update" => {
            let update: wire::BashUpdate<'_> = of(line)?;
            out.push(Fragment::Event(Event::ToolProgress(ToolProgress {
                tool_call_id: update.id.map(Cow::into_owned).unwrap_or_default(),
                name: SHELL.to_owned(),
                partial_output: Json::from(update.delta),
                mode: ProgressMode::More,
            })));
        }
        // A newer pi's: kept, under a name that nothing of the protocol has.
        _ => {
            let _: serde::de::IgnoredAny = of(line)?;
            let name = excerpt(type_.as_bytes(), 64);
            out.push(status(&name, Some(excerpt(line, UNKNOWN_LEN_MAX))));
        }
    }
    Ok(())
}

fn status(name: &str, text: Option<String>) -> Fragment {
    Fragment::Event(Event::Status(Status {
        key: format!("x-pi-{name}"),
        text,
    }))
}
