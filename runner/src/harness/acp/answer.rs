//! What an agent answers to our requests.

use oqto_protocol::codec::Json;
use oqto_protocol::event::{Event, Status};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{StopReason, Usage};
use oqto_protocol::reply::{HarnessAnswer, ReplyData};
use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::command::Waits;
use super::open::{AUTHENTICATE_ID, CLOSE_ID, CONFIGURE_ID, INITIALIZE_ID, OPEN_ID, told};
use super::{Acp, NotOfAcp, beside, wire};
use crate::harness::excerpt::excerpt;
use crate::harness::fragment::{Fragment, Outcome};

/// How much of an error is told that stands beside an answer, in bytes.
const ERROR_LEN_MAX: usize = 2048;

impl Acp {
    pub(super) fn answered(
        &mut self,
        id: &RawValue,
        result: Option<&RawValue>,
        error: Option<&RawValue>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfAcp> {
        let failure = error.map(wire::Failure::read);
        let id: String = serde_json::from_str(id.get())?;
        let answer = match (&failure, result) {
            (Some(failure), _) => Err(failure),
            (None, Some(result)) => Ok(result),
            (None, None) => return Err(NotOfAcp),
        };
        if let Ok(command) = id.parse::<CommandId>() {
            return self.command_answered(command, answer, now_ms, out);
        }
        let (name, command) = match id.split_once(' ') {
            Some((name, command)) => (name, Some(command.parse().map_err(|_| NotOfAcp)?)),
            None => (id.as_str(), None),
        };
        let step = match name {
            INITIALIZE_ID => "initialize",
            AUTHENTICATE_ID => "take its user's authentication",
            OPEN_ID => "open a session",
            CONFIGURE_ID => "be put in the mode or use the model that was asked for",
            // Whether it let go of an old session changes nothing.
            CLOSE_ID => return Ok(()),
            _ => return Err(NotOfAcp),
        };
        if !self.is_opening_for(command) {
            // Of what nobody waits for any more an answer may still come; nothing else is ever asked twice.
            return command.map(|_| ()).ok_or(NotOfAcp);
        }
        // An agent that answers before it was asked is in no session, or in no mode that asks.
        if self.is_set_up() != (name == CONFIGURE_ID) {
            return Err(NotOfAcp);
        }
        match (name, answer) {
            (CONFIGURE_ID, Err(failure)) => self.not_configured(step, failure, out),
            (_, Err(failure)) => self.step_failed(step, failure, out),
            (INITIALIZE_ID, Ok(result)) => self.initialized(result, out),
            (AUTHENTICATE_ID, Ok(_)) => self.authenticated(out),
            (OPEN_ID, Ok(result)) => self.opened(result, out),
            (_, Ok(_)) => self.configured(out),
        }
        Ok(())
    }

    fn command_answered(
        &mut self,
        id: CommandId,
        answer: Result<&RawValue, &wire::Failure<'_>>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfAcp> {
        if self.run == Some(id) {
            self.turn_ended(answer, now_ms, out);
            return Ok(());
        }
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == id);
        let (_, waits) = self.waiting.remove(at.ok_or(NotOfAcp)?);
        let answer = match (waits, answer) {
            (_, Err(failure)) => Err(Fault::new(FaultCode::Harness, told(failure))),
            (Waits::Set(what, value), Ok(_)) => {
                self.changed(what, &value, out);
                Ok(None)
            }
            (Waits::List, Ok(result)) => Ok(Some(ReplyData::HarnessAnswer(HarnessAnswer {
                answer: Json::from(result),
            }))),
        };
        out.push(Fragment::Answer { id, answer });
        Ok(())
    }

    /// The turn is over, in whatever form the agent says so.
    fn turn_ended(
        &mut self,
        answer: Result<&RawValue, &wire::Failure<'_>>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) {
        let read = match answer {
            Ok(result) => serde_json::from_str::<wire::TurnEnd<'_>>(result.get())
                .map_err(|_| "the agent's answer to the prompt cannot be read".to_owned()),
            Err(failure) => Err(told(failure)),
        };
        let (stop, outcome, usage) = match read {
            Err(error) => (Some(StopReason::Error), Outcome::Failed { error }, None),
            Ok(end) => {
                let (stop, outcome) = outcome(&end, self.trouble.as_deref());
                let used = match end.usage {
                    Some(usage) => wire::Usage::deserialize(usage).ok(),
                    None => end.meta.and_then(beside::used_in_all),
                };
                (stop, outcome, used.or(self.used.take()))
            }
        };
        let usage = usage.map(|usage| Usage {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cached_read_tokens,
            cache_write_tokens: usage.cached_write_tokens,
            cost_usd: None,
        });
        if let Some(usage) = &usage {
            self.totals.input_tokens = self.totals.input_tokens.saturating_add(usage.input_tokens);
            self.totals.output_tokens = self.totals.output_tokens.saturating_add(usage.output_tokens);
        }
        self.finish_message(stop, usage, out);
        self.end_calls(now_ms, out);
        if let Some((used, size)) = self.totals.context {
            out.push(Fragment::Event(Event::Status(Status {
                key: "x-acp-context".to_owned(),
                text: Some(format!("{used} of {size} tokens")),
            })));
        }
        self.run = None;
        (self.trouble, self.used) = (None, None);
        out.push(Fragment::Ended(outcome));
    }
}

/// How a turn ended, and with it the last message.
fn outcome(end: &wire::TurnEnd<'_>, trouble: Option<&str>) -> (Option<StopReason>, Outcome) {
    let failed = |error: &str| Outcome::Failed {
        error: error.to_owned(),
    };
    if let Some(error) = end.meta.and_then(beside::hidden_error) {
        return (Some(StopReason::Error), Outcome::Failed { error });
    }
    match &*end.stop_reason {
        "end_turn" => match trouble.map(str::trim) {
            None => (Some(StopReason::Stop), Outcome::Done),
            Some("") => (
                Some(StopReason::Error),
                failed("the agent failed and does not say why"),
            ),
            Some(error) => (Some(StopReason::Error), failed(error)),
        },
        "max_tokens" => (Some(StopReason::Length), Outcome::Length),
        "cancelled" => (Some(StopReason::Aborted), Outcome::Aborted),
        "max_turn_requests" => (
            Some(StopReason::Error),
            failed("the agent made as many requests to its model as one turn may have"),
        ),
        "refusal" => (Some(StopReason::Error), failed("the agent refused to go on")),
        other => {
            let other = excerpt(other.as_bytes(), ERROR_LEN_MAX);
            (
                Some(StopReason::Error),
                failed(&format!("the agent stopped: {other}")),
            )
        }
    }
}
