//! How the protocol's commands are said to an agent.

use oqto_protocol::codec::Json;
use oqto_protocol::command::{Command, Prompt, Resource};
use oqto_protocol::event::Phase;
use oqto_protocol::fault::{Fault, FaultCode};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::{Content, FileRef, Media, Part, Role, Source, Text};
use oqto_protocol::reply::{HarnessAnswer, ModelInfo, Models, ReplyData, Stats};
use oqto_protocol::session::SessionStats;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::choice::What;
use super::open::set;
use super::out::{self, method};
use super::{Acp, permission};
use crate::harness::dialect::{Asked, Expect, Speech};
use crate::harness::fragment::{Draft, Fragment};

/// What the answer to a command's request means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Waits {
    /// Something has this value now.
    Set(What, String),
    /// The agent's sessions.
    List,
}

impl Acp {
    /// Says a command.
    pub(in crate::harness) fn say(
        &mut self,
        command: &Command,
        id: CommandId,
        asked: &[Asked],
    ) -> Result<Speech, Fault> {
        match command {
            Command::Abort(_) => Speech::new(self.abort(asked), Expect::Nothing),
            Command::InputResponse(it) => {
                let (bytes, allowed) = permission::answer(it, asked)?;
                let mut speech = Speech::new(bytes, Expect::Nothing)?;
                if let Some(call) = allowed {
                    self.may_begin(&call, &mut speech.means);
                }
                Ok(speech)
            }
            Command::GetCommands(_) => Ok(self.known(id, self.own_commands())),
            Command::GetModels(_) => Ok(self.known(id, self.models())),
            Command::GetStats(_) => Ok(self.known(id, self.stats())),
            _ if self.is_opening() => Err(Fault::new(
                FaultCode::WrongState,
                "the agent is opening another of its sessions",
            )),
            Command::Prompt(it) => self.prompt(it, id),
            Command::SetMode(it) => self.choose(What::Mode, Some(&it.mode_id), id),
            Command::SetModel(it) => self.choose(What::Model, Some(&it.model_id), id),
            Command::CycleModel(_) => self.choose(What::Model, None, id),
            Command::SetThinkingLevel(it) => self.choose(What::Thinking, Some(&it.level), id),
            Command::CycleThinkingLevel(_) => self.choose(What::Thinking, None, id),
            Command::SessionNew(_) => Speech::new(self.open_new(id), Expect::Answer),
            Command::SessionSwitch(it) => {
                Speech::new(self.open_earlier(id, &it.session_path), Expect::Answer)
            }
            Command::ListSessions(_) => {
                let params = json!({ "cwd": self.beginning.cwd });
                self.waiting.push((id, Waits::List));
                Speech::new(
                    out::request(&id.to_string(), method::SESSION_LIST, &params),
                    Expect::Answer,
                )
            }
            _ => Err(Fault::new(
                FaultCode::Unsupported,
                format!("the Agent Client Protocol has no method for {}", command.name()),
            )),
        }
    }

    fn session(&self) -> Result<&str, Fault> {
        self.session
            .as_deref()
            .ok_or_else(|| Fault::new(FaultCode::WrongState, "the agent has no session open"))
    }

    fn prompt(&mut self, prompt: &Prompt, id: CommandId) -> Result<Speech, Fault> {
        if self.run.is_some() {
            return Err(Fault::new(
                FaultCode::WrongState,
                "the agent works at another prompt",
            ));
        }
        let session = self.session()?;
        let mut blocks = vec![json!({ "type": "text", "text": prompt.message })];
        for image in &prompt.images {
            blocks.push(picture(image)?);
        }
        for resource in &prompt.resources {
            blocks.push(self.resource(resource)?);
        }
        let params = json!({ "sessionId": session, "prompt": blocks });
        let bytes = out::request(&id.to_string(), method::SESSION_PROMPT, &params);
        let mut speech = Speech::new(bytes, Expect::Nothing)?;
        // What was said outside of any turn is over, and says nothing of this one.
        self.finish_message(None, None, &mut speech.means);
        self.run = Some(id);
        (self.trouble, self.used) = (None, None);
        self.totals.prompts += 1;
        speech.means.extend([
            Fragment::Began(Phase::Generating),
            Fragment::Started(Role::User),
            Fragment::Finished(Box::new(Draft::new(Role::User, spoken(prompt)))),
        ]);
        Ok(speech)
    }

    fn resource(&self, resource: &Resource) -> Result<Value, Fault> {
        let Resource {
            uri,
            label,
            mime,
            text,
        } = resource;
        let Some(text) = text else {
            let name = label.as_deref().or_else(|| uri.rsplit('/').next());
            return Ok(json!({ "type": "resource_link", "uri": uri, "name": name, "mimeType": mime }));
        };
        if !self.offers.embedded {
            return Err(Fault::new(
                FaultCode::Unsupported,
                "the agent takes resources only by their URI, without their text",
            ));
        }
        Ok(json!({ "type": "resource", "resource": { "uri": uri, "mimeType": mime, "text": text } }))
    }

    /// Takes back what waits for an answer, then stops the turn.
    fn abort(&self, asked: &[Asked]) -> Vec<u8> {
        let mut bytes = permission::cancel_all(asked);
        if let Some(session) = &self.session {
            let params = json!({ "sessionId": session });
            bytes.extend(out::notification(method::SESSION_CANCEL, &params));
        }
        bytes
    }

    /// Gives something another value: this one, or the next.
    fn choose(&mut self, what: What, value: Option<&str>, id: CommandId) -> Result<Speech, Fault> {
        let choice = self.choice(what).ok_or_else(|| {
            let message = format!("the agent offers no choice of a {}", what.name());
            Fault::new(FaultCode::Unsupported, message)
        })?;
        let value = value.or_else(|| choice.next()).unwrap_or_default().to_owned();
        choice.has(&value)?;
        let bytes = set(&id.to_string(), self.session()?, choice, &value);
        let speech = Speech::new(bytes, Expect::Answer)?;
        self.waiting.push((id, Waits::Set(what, value)));
        Ok(speech)
    }

    /// What is known already and needs no words.
    fn known(&self, id: CommandId, data: ReplyData) -> Speech {
        Speech {
            bytes: Vec::new(),
            expect: Expect::Answer,
            means: vec![Fragment::Answer {
                id,
                answer: Ok(Some(data)),
            }],
        }
    }

    fn own_commands(&self) -> ReplyData {
        let commands = self.commands.clone().and_then(|text| Json::parse(text).ok());
        ReplyData::HarnessAnswer(HarnessAnswer {
            answer: commands.unwrap_or_else(|| Json::from(&json!([]))),
        })
    }

    fn models(&self) -> ReplyData {
        let values = self.choice(What::Model).map(|choice| choice.values.as_slice());
        let models = values.unwrap_or_default().iter().map(|value| ModelInfo {
            provider: self.name.clone(),
            id: value.id.clone(),
            name: Some(value.name.clone()),
            reasoning: None,
            context_tokens: None,
        });
        ReplyData::Models(Models {
            models: models.collect(),
        })
    }

    fn stats(&self) -> ReplyData {
        let totals = &self.totals;
        ReplyData::Stats(Stats {
            stats: SessionStats {
                user_messages: totals.prompts,
                assistant_messages: totals.messages,
                tool_calls: totals.calls,
                input_tokens: totals.input_tokens,
                output_tokens: totals.output_tokens,
                cost_usd: totals.cost_usd,
            },
        })
    }
}

fn picture(media: &Media) -> Result<Value, Fault> {
    match &media.source {
        Source::SourceInline(inline) => {
            Ok(json!({ "type": "image", "data": inline.data, "mimeType": inline.mime }))
        }
        Source::SourceUrl(_) | Source::SourceAttachment(_) | Source::Unknown(_) => Err(Fault::new(
            FaultCode::Invalid,
            "the agent takes pictures only inline, as base64",
        )),
    }
}

/// What the user said, as a message: agents do not repeat it.
fn spoken(prompt: &Prompt) -> Vec<Part> {
    let text = Content::Text(Text {
        text: prompt.message.clone(),
        format: None,
    });
    let images = prompt.images.iter().cloned().map(Content::Image);
    let resources = prompt.resources.iter().map(|resource| {
        Content::FileRef(FileRef {
            uri: resource.uri.clone(),
            label: resource.label.clone(),
            range: None,
        })
    });
    let contents = std::iter::once(text).chain(images).chain(resources);
    contents
        .enumerate()
        .map(|(n, content)| Part {
            id: format!("p-{n}"),
            content,
        })
        .collect()
}
