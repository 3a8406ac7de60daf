//! What an agent asks to be allowed: by whom it is answered, and how that is told to it.
//!
//! No two requests have the same name: an answer that comes late is an answer to nothing, never to what an agent asks next
//! under the same id. A dialect names a request by the time and the agent's own id, and of several at one time all but the
//! first are told apart here. What a rule or the clock decides is on record before
//! the agent is told: the decision waits until a note on the tape says so ([`super::Fact::Decided`]), and so it is the
//! same whenever the tape is read again.

use oqto_protocol::command::{Command, InputResponse};
use oqto_protocol::event::{
    Event, InputNeeded, InputRequest, InputResolved, Notify, NotifyLevel, PermissionKind, PermissionOption,
    PermissionRequest, PermissionTool, ResolvedBy,
};
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;

use super::action::{Action, WriteId};
use super::bounds::ASKED_MAX;
use super::machine::Session;
use super::replies::Kind;
use super::stage::Stage;
use crate::harness::Asked;
use crate::policy::Judgement;

/// What was decided without a person, and waits to be put on record.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The request, as its event names it.
    pub request_id: String,
    /// What the agent wanted.
    pub tool: Option<PermissionTool>,
    /// Whether it may.
    pub allow: bool,
    /// A rule, or the clock.
    pub by: ResolvedBy,
    /// The rule.
    pub rule: Option<String>,
}

/// What the agent is told.
enum Answer {
    Option(String),
    Cancelled,
}

impl Session {
    /// The agent asks. Who answers is said by the rules of the policy.
    pub(super) fn asks(&mut self, mut request: InputRequest, out: &mut Vec<Action>) {
        // What is counted on below is the number of the event that tells it.
        self.tell_created(out);
        if self.asked.len() == ASKED_MAX {
            self.drop_oldest(out);
        }
        let (request_id, timeout) = match &mut request {
            InputRequest::SelectRequest(it) => (it.request_id.clone(), it.timeout),
            InputRequest::ConfirmRequest(it) => (it.request_id.clone(), it.timeout),
            InputRequest::TextRequest(it) => (it.request_id.clone(), it.timeout),
            InputRequest::PermissionRequest(it) => {
                let timeout = it
                    .timeout
                    .get_or_insert_with(|| self.setup.permissions.timeout_ms());
                let (timeout, own) = (*timeout, it.request_id.clone());
                if self.asked_at == Some(self.now) {
                    it.request_id = told_apart(&own, self.cursor.seq + 1);
                }
                self.asked_at = Some(self.now);
                (own, Some(timeout))
            }
            InputRequest::Unknown(_) => return,
        };
        self.asked.push(Asked {
            request_id,
            request: request.clone(),
            until: timeout.map(|timeout| self.now.saturating_add(timeout)),
        });
        self.record(
            Event::InputNeeded(InputNeeded {
                request: request.clone(),
            }),
            out,
        );
        // What was said is taken, and who said it may be who has to answer.
        while let Some(pending) = self.replies.take_kind(Kind::Talk) {
            self.accept(&pending, None, out);
        }
        if let InputRequest::PermissionRequest(request) = request {
            if let Stage::Aborting(_) = self.stage {
                // Asked before the agent heard that it is to stop.
                let at = self.asked.len() - 1;
                return self.tell_answer(
                    at,
                    Answer::Cancelled,
                    resolution(&request.request_id, ResolvedBy::Abort),
                    out,
                );
            }
            self.judge(request);
        }
    }

    /// Holds a request against the rules.
    fn judge(&mut self, request: PermissionRequest) {
        let (allow, rule) = match self.setup.permissions.judge(request.tool.as_ref()) {
            Judgement::Asked => return,
            // A rule is for one time, and where there is no such answer somebody has to choose.
            Judgement::Allowed(_) if option(&request.options, PermissionKind::AllowOnce).is_none() => return,
            Judgement::Allowed(rule) => (true, rule),
            Judgement::Denied(rule) => (false, rule),
        };
        self.decisions.push(Decision {
            request_id: request.request_id,
            tool: request.tool,
            allow,
            by: ResolvedBy::Rule,
            rule: Some(rule),
        });
    }

    /// What waits to be put on record.
    #[must_use]
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Nobody answered in time.
    pub(super) fn asked_too_long(&mut self, at: usize, out: &mut Vec<Action>) {
        let asked = &mut self.asked[at];
        asked.until = None;
        let InputRequest::PermissionRequest(request) = &asked.request else {
            // Its agent waits no longer by itself.
            let asked = self.asked.remove(at);
            return self.resolved(&asked, ResolvedBy::Timeout, out);
        };
        if self
            .decisions
            .iter()
            .any(|decision| decision.request_id == request.request_id)
        {
            return;
        }
        self.decisions.push(Decision {
            request_id: request.request_id.clone(),
            tool: request.tool.clone(),
            allow: false,
            by: ResolvedBy::Timeout,
            rule: None,
        });
    }

    /// A decision is on record, or cannot be: then nothing is allowed.
    pub(super) fn decided(&mut self, request_id: &str, is_recorded: bool, out: &mut Vec<Action>) {
        let Some(at) = self
            .decisions
            .iter()
            .position(|decision| decision.request_id == request_id)
        else {
            return;
        };
        let decision = self.decisions.remove(at);
        if decision.allow && !is_recorded {
            let message = format!(
                "{request_id} is refused although {} allows it, since the audit log takes no record of it",
                decision.rule.as_deref().unwrap_or("a rule")
            );
            let level = NotifyLevel::Warning;
            self.record(Event::Notify(Notify { level, message }), out);
        }
        let Some(at) = self
            .asked
            .iter()
            .position(|asked| name(&asked.request) == request_id)
        else {
            return;
        };
        let kind = match decision.allow && is_recorded {
            true => PermissionKind::AllowOnce,
            false => PermissionKind::RejectOnce,
        };
        self.answer_alone(at, kind, decision.by, decision.rule, out);
    }

    /// Answers for the policy or the clock: for this time only.
    fn answer_alone(
        &mut self,
        at: usize,
        kind: PermissionKind,
        by: ResolvedBy,
        rule: Option<String>,
        out: &mut Vec<Action>,
    ) {
        let InputRequest::PermissionRequest(request) = &self.asked[at].request else {
            return;
        };
        let answer = option(&request.options, kind).map_or(Answer::Cancelled, Answer::Option);
        let resolved = InputResolved {
            decision: Some(kind),
            rule,
            ..resolution(&request.request_id, by)
        };
        self.tell_answer(at, answer, resolved, out);
    }

    /// Tells the agent an answer that no command brought.
    fn tell_answer(&mut self, at: usize, answer: Answer, resolved: InputResolved, out: &mut Vec<Action>) {
        let response = response(&self.asked[at].request_id, answer);
        let id = CommandId(WriteId::own(self.own_writes).0);
        match self
            .dialect
            .say(&Command::InputResponse(response), id, &self.asked)
        {
            Ok(speech) => {
                self.heard_at = self.now;
                self.write_own(speech.bytes, out);
                self.asked.remove(at);
                self.record(Event::InputResolved(resolved), out);
                for fragment in speech.means {
                    self.apply(fragment, out);
                }
            }
            // It has no words for an answer to what it asked: then it waits for ever, and nothing is allowed.
            Err(fault) => self.broken(&format!("it cannot be answered: {}", fault.message), out),
        }
    }

    /// There is no room for another request: the oldest is refused.
    fn drop_oldest(&mut self, out: &mut Vec<Action>) {
        let oldest = name(&self.asked[0].request).to_owned();
        self.decisions.retain(|decision| decision.request_id != oldest);
        if let InputRequest::PermissionRequest(_) = self.asked[0].request {
            let rule = Some(format!("more than {ASKED_MAX} requests are open"));
            self.answer_alone(0, PermissionKind::RejectOnce, ResolvedBy::Rule, rule, out);
        }
        if self.asked.len() == ASKED_MAX {
            let asked = self.asked.remove(0);
            self.resolved(&asked, ResolvedBy::Agent, out);
        }
    }

    /// A person answers.
    pub(super) fn respond(
        &mut self,
        id: CommandId,
        command: &Command,
        given: &InputResponse,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let at = self
            .asked
            .iter()
            .position(|asked| name(&asked.request) == given.request_id);
        let at = at.ok_or_else(|| {
            let message = format!("no request {} waits for an answer", given.request_id);
            Fault::new(FaultCode::NotFound, message)
        })?;
        if let Some(decision) = self.decisions.iter().find(|it| it.request_id == given.request_id) {
            let by = decision
                .rule
                .as_deref()
                .map_or("its time is over".to_owned(), |rule| {
                    format!("the rule {rule} decides it")
                });
            let message = format!("request {} is not open to an answer: {by}", given.request_id);
            return Err(Fault::new(FaultCode::WrongState, message));
        }
        let asked = self.asked[at].clone();
        let (told, decision) = match &asked.request {
            InputRequest::PermissionRequest(request) => chosen(request, given, &asked.request_id)?,
            request => {
                fits(given, request)?;
                (given.clone(), None)
            }
        };
        let means = self.say_alone(id, command, &Command::InputResponse(told), out)?;
        self.asked.remove(at);
        let resolved = InputResolved {
            decision,
            ..resolution(&given.request_id, ResolvedBy::Answer)
        };
        self.record(Event::InputResolved(resolved), out);
        // What was allowed begins behind that.
        for fragment in means {
            self.apply(fragment, out);
        }
        Ok(())
    }

    /// The agent takes back what it asked.
    pub(super) fn asks_no_more(&mut self, own: &str, out: &mut Vec<Action>) {
        let dialect = &self.dialect;
        let at = self
            .asked
            .iter()
            .position(|asked| dialect.names(&asked.request_id, own));
        if let Some(at) = at {
            let taken_back = resolution(name(&self.asked[at].request), ResolvedBy::Agent);
            self.decisions
                .retain(|decision| decision.request_id != taken_back.request_id);
            // Protocols in which requests are taken back have each of them answered all the same.
            self.tell_answer(at, Answer::Cancelled, taken_back, out);
        }
    }

    /// Nothing that was asked is asked any longer.
    pub(super) fn resolve_all(&mut self, by: ResolvedBy, out: &mut Vec<Action>) {
        self.decisions.clear();
        for asked in std::mem::take(&mut self.asked) {
            self.resolved(&asked, by, out);
        }
    }

    fn resolved(&mut self, asked: &Asked, by: ResolvedBy, out: &mut Vec<Action>) {
        let resolved = resolution(name(&asked.request), by);
        self.record(Event::InputResolved(resolved), out);
    }
}

fn resolution(request_id: &str, by: ResolvedBy) -> InputResolved {
    InputResolved {
        request_id: request_id.to_owned(),
        by: Some(by),
        decision: None,
        rule: None,
    }
}

/// A name that no other request has, by the number of the event that tells it.
fn told_apart(own: &str, seq: u64) -> String {
    format!("{own}@{seq}")
}

/// The name by which people know a request.
pub(super) fn name(request: &InputRequest) -> &str {
    match request {
        InputRequest::SelectRequest(it) => &it.request_id,
        InputRequest::ConfirmRequest(it) => &it.request_id,
        InputRequest::TextRequest(it) => &it.request_id,
        InputRequest::PermissionRequest(it) => &it.request_id,
        InputRequest::Unknown(_) => "",
    }
}

/// The id of the first answer of a kind.
fn option(options: &[PermissionOption], kind: PermissionKind) -> Option<String> {
    let option = options.iter().find(|option| option.kind == kind);
    option.map(|option| option.id.clone())
}

fn response(request_id: &str, answer: Answer) -> InputResponse {
    let (value, cancelled) = match answer {
        Answer::Option(id) => (Some(id), None),
        Answer::Cancelled => (None, Some(true)),
    };
    InputResponse {
        request_id: request_id.to_owned(),
        value,
        confirmed: None,
        cancelled,
    }
}

/// What a person chose of the answers that are possible, as the agent is told, and what it means.
fn chosen(
    request: &PermissionRequest,
    given: &InputResponse,
    own: &str,
) -> Result<(InputResponse, Option<PermissionKind>), Fault> {
    use PermissionKind as K;
    let invalid = |message: String| Err(Fault::new(FaultCode::Invalid, message));
    let answers = [
        given.cancelled == Some(true),
        given.confirmed.is_some(),
        given.value.is_some(),
    ];
    if answers.iter().filter(|is_given| **is_given).count() != 1 {
        return invalid("a permission is answered with one of value, confirmed and cancelled".to_owned());
    }
    if let Some(value) = &given.value {
        let Some(option) = request.options.iter().find(|option| option.id == *value) else {
            let ids: Vec<&str> = request.options.iter().map(|option| option.id.as_str()).collect();
            return invalid(format!(
                "a permission is answered with the id of one of its options: {}",
                ids.join(", ")
            ));
        };
        return Ok((response(own, Answer::Option(value.clone())), Some(option.kind)));
    }
    let kinds = match given.confirmed {
        None => return Ok((response(own, Answer::Cancelled), None)),
        Some(true) => [K::AllowOnce, K::AllowAlways],
        Some(false) => [K::RejectOnce, K::RejectAlways],
    };
    let found = kinds
        .iter()
        .find_map(|kind| Some((option(&request.options, *kind)?, *kind)));
    match found {
        Some((id, kind)) => Ok((response(own, Answer::Option(id)), Some(kind))),
        // One that offers no way to refuse is not answered at all.
        None if given.confirmed == Some(false) => Ok((response(own, Answer::Cancelled), None)),
        None => invalid("the agent offers no answer that allows it".to_owned()),
    }
}

/// Whether a response answers what was asked.
fn fits(response: &InputResponse, request: &InputRequest) -> Result<(), Fault> {
    let invalid = |message: &str| Err(Fault::new(FaultCode::Invalid, message));
    if response.cancelled == Some(true) {
        return Ok(());
    }
    match request {
        InputRequest::SelectRequest(select) => match &response.value {
            Some(value) if select.options.contains(value) => Ok(()),
            _ => invalid("a select is answered with a value that is one of its options"),
        },
        InputRequest::ConfirmRequest(_) if response.confirmed.is_none() => {
            invalid("a confirm is answered with confirmed")
        }
        InputRequest::TextRequest(_) if response.value.is_none() => {
            invalid("an input is answered with a value")
        }
        InputRequest::ConfirmRequest(_)
        | InputRequest::TextRequest(_)
        | InputRequest::PermissionRequest(_)
        | InputRequest::Unknown(_) => Ok(()),
    }
}
