//! What an agent says while it works: its messages, plans, settings and notes.

use oqto_protocol::codec::{Blob, Json};
use oqto_protocol::event::{
    CompactEnd, CompactReason, Event, ModeChanged, ModelChanged, Notify, NotifyLevel, Phase, Plan, PlanEntry,
    PlanStatus, ThinkingLevelChanged, TitleChanged,
};
use oqto_protocol::message::{Content, Extension, FileRef, Media, Role, Source, SourceInline};
use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::choice::{self, Choice, What};
use super::tool::Said;
use super::{Acp, LATE_MS, Message, NotOfAcp, PARTS_MAX, Speaks, beside, unknown, wire};
use crate::harness::excerpt::excerpt;
use crate::harness::fragment::{Fragment, HarnessState};

/// How long the list of an agent's commands is kept, in bytes: it is written down whenever the session rests. The longest
/// seen has 21 KB, and stood beside half a megabyte of what is not of the list.
const COMMANDS_LEN_MAX: usize = 128 * 1024;

/// How long a summary of a compaction is kept, in bytes.
const SUMMARY_LEN_MAX: usize = 64 * 1024;

/// How long a title may be, in bytes.
const TITLE_LEN_MAX: usize = 1024;

/// How much is kept of what an agent says of its own trouble, in bytes.
const TROUBLE_LEN_MAX: usize = 2048;

/// How many steps a plan may have.
const PLAN_MAX: usize = 1024;

impl Acp {
    pub(super) fn updated(
        &mut self,
        params: wire::UpdateParams<'_>,
        line: &[u8],
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfAcp> {
        let is_ours = self.session.as_deref() == Some(&*params.session_id);
        // What an agent repeats of an earlier session while it opens it was told when it was said; and what comes of a
        // session that is not ours any more belongs to nobody.
        let speaks = is_ours && !self.is_opening();
        let update = params.update;
        match &*update.session_update {
            "agent_message_chunk" if speaks => self.chunk(Speaks::Text, &update, now_ms, out),
            "agent_thought_chunk" if speaks => self.chunk(Speaks::Thought, &update, now_ms, out),
            "tool_call" | "tool_call_update" if speaks => {
                let said = Said {
                    id: update.tool_call_id.ok_or(NotOfAcp)?,
                    name: update.name,
                    title: update.title,
                    kind: update.kind,
                    status: update.status,
                    input: update.raw_input,
                    output: update.raw_output,
                    content: update.content,
                    locations: update.locations,
                    meta: update.meta,
                };
                self.tool(&said, now_ms, out)?;
                self.is_late(now_ms);
                Ok(())
            }
            "plan" if speaks => plan(update.entries.ok_or(NotOfAcp)?, out),
            // What the user said was told when it was.
            "user_message_chunk"
            | "agent_message_chunk"
            | "agent_thought_chunk"
            | "tool_call"
            | "tool_call_update"
            | "plan" => Ok(()),
            _ if !self.is_about(&params.session_id) => Ok(()),
            _ => self.set_about(&update, line, out),
        }
    }

    /// Whether what is said of a session is said of the one that is ours, or that is being opened: an agent may speak of that
    /// before it has told its name.
    pub(super) fn is_about(&self, session: &str) -> bool {
        let before = self.session.as_deref() == Some(session);
        match &self.opening {
            None => before,
            Some(opening) => opening.session().map_or(!before, |opened| opened == session),
        }
    }

    /// A piece of a message.
    fn chunk(
        &mut self,
        speaks: Speaks,
        update: &wire::Update<'_>,
        now_ms: u64,
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfAcp> {
        let raw = update.content.ok_or(NotOfAcp)?;
        let block = wire::Block::deserialize(raw)?;
        if let Some(usage) = update.meta.and_then(beside::used) {
            self.used.get_or_insert_default().add(&usage);
        }
        // Some give the thought before a text a name of its own.
        let is_thought = |message: &Message| message.parts == 1 && message.last == Some(Speaks::Thought);
        let is_other = |message: &Message| match (&message.id, &update.message_id) {
            (Some(known), Some(id)) => known != id && !(speaks == Speaks::Text && is_thought(message)),
            _ => false,
        };
        let is_full = |message: &Message| message.parts >= PARTS_MAX;
        if self
            .message
            .as_ref()
            .is_some_and(|it| is_other(it) || is_full(it))
        {
            self.finish_message(None, None, out);
        }
        let message = match &mut self.message {
            Some(message) => message,
            None => {
                out.push(Fragment::Started(Role::Assistant));
                self.message.insert(Message::default())
            }
        };
        if message.id.is_none() || speaks == Speaks::Text && is_thought(message) {
            message.id = update.message_id.as_deref().map(str::to_owned);
        }
        if block.type_ != "text" {
            message.last = None;
            message.parts += 1;
            let content_index = message.parts - 1;
            let content = Box::new(content(block, raw));
            out.push(Fragment::Part {
                content,
                content_index,
            });
            self.is_late(now_ms);
            return Ok(());
        }
        let text = block.text.ok_or(NotOfAcp)?;
        if message.last != Some(speaks) {
            message.last = Some(speaks);
            message.parts += 1;
            out.push(Fragment::Phase(match speaks {
                Speaks::Text => Phase::Generating,
                Speaks::Thought => Phase::Thinking,
            }));
        }
        let content_index = message.parts - 1;
        // Providers send empty ones to say that they live.
        if !text.is_empty() {
            if let Some(trouble) = &mut self.trouble
                && let Some(room @ 1..) = TROUBLE_LEN_MAX.checked_sub(trouble.len())
            {
                trouble.push_str(&excerpt(text.as_bytes(), room));
            }
            let delta = text.into_owned();
            out.push(match speaks {
                Speaks::Text => Fragment::Text { delta, content_index },
                Speaks::Thought => Fragment::Thought { delta, content_index },
            });
        }
        self.is_late(now_ms);
        Ok(())
    }

    /// Outside of any turn nothing says when a message is whole, so that time does.
    fn is_late(&mut self, now_ms: u64) {
        if self.run.is_none() && self.message.is_some() {
            self.late_until = Some(now_ms + LATE_MS);
        }
    }

    /// What is no part of a conversation.
    fn set_about(
        &mut self,
        update: &wire::Update<'_>,
        line: &[u8],
        out: &mut Vec<Fragment>,
    ) -> Result<(), NotOfAcp> {
        match &*update.session_update {
            "available_commands_update" => {
                let commands = update.available_commands.ok_or(NotOfAcp)?.get();
                self.commands = (commands.len() <= COMMANDS_LEN_MAX).then(|| commands.to_owned());
            }
            "current_mode_update" => {
                let mode = update.current_mode_id.as_deref().ok_or(NotOfAcp)?;
                self.changed(What::Mode, mode, out);
            }
            "config_option_update" => {
                for new in choice::of_options(update.config_options.ok_or(NotOfAcp)?) {
                    self.offered(new, out);
                }
            }
            "session_info_update" => {
                if let Some(is_broken) = update.meta.and_then(beside::is_broken) {
                    self.trouble = is_broken.then(String::new);
                }
                if let Some(title) = &update.title {
                    let title = excerpt(title.as_bytes(), TITLE_LEN_MAX);
                    out.push(Fragment::State(Box::new(HarnessState {
                        title: Some(title.clone()),
                        ..HarnessState::default()
                    })));
                    out.push(Fragment::Event(Event::TitleChanged(TitleChanged {
                        title,
                        readable_id: None,
                    })));
                }
            }
            "usage_update" => {
                self.totals.context = update.used.zip(update.size).or(self.totals.context);
                let cost = update.cost.and_then(|cost| wire::Cost::deserialize(cost).ok());
                if let Some(cost) = cost.filter(|cost| cost.currency == "USD" && cost.amount.is_finite()) {
                    self.totals.cost_usd = Some(cost.amount);
                }
            }
            "notice" => notice(update, out),
            "compaction_update" => self.compaction(update, out),
            "compaction_summary_chunk" => {
                let block = update.content.map(wire::Block::deserialize).transpose()?;
                if let Some(text) = block.and_then(|block| block.text)
                    && self.summary.len() + text.len() <= SUMMARY_LEN_MAX
                {
                    self.summary.push_str(&text);
                }
            }
            // A newer agent's: kept, under a name that nothing of the protocol has.
            kind => out.push(unknown(kind, line)),
        }
        Ok(())
    }

    /// A choice as it is offered now.
    fn offered(&mut self, new: Choice, out: &mut Vec<Fragment>) {
        let current = new.current.clone();
        let what = new.what;
        if let Some(known) = self.choices_mut().iter_mut().find(|choice| choice.what == what) {
            // Modes have a method of their own, which stays.
            known.values = new.values;
        } else {
            let before = Choice {
                current: String::new(),
                ..new
            };
            self.choices_mut().push(before);
        }
        self.changed(what, &current, out);
    }

    fn choices_mut(&mut self) -> &mut Vec<Choice> {
        match &mut self.opening {
            Some(opening) => opening.choices(),
            None => &mut self.choices,
        }
    }

    /// Something has another value: told when that is news, and not while a session is being opened.
    pub(super) fn changed(&mut self, what: What, value: &str, out: &mut Vec<Fragment>) {
        let is_opening = self.is_opening();
        let Some(choice) = self.choices_mut().iter_mut().find(|choice| choice.what == what) else {
            return;
        };
        if choice.current == value {
            return;
        }
        value.clone_into(&mut choice.current);
        if is_opening {
            return;
        }
        let value = value.to_owned();
        let (state, event) = match what {
            What::Mode => (
                HarnessState::default(),
                Event::ModeChanged(ModeChanged { mode_id: value }),
            ),
            What::Model => (
                HarnessState {
                    provider: Some(self.name.clone()),
                    model: Some(value.clone()),
                    ..HarnessState::default()
                },
                Event::ModelChanged(ModelChanged {
                    provider: self.name.clone(),
                    model_id: value,
                }),
            ),
            What::Thinking => (
                HarnessState {
                    thinking_level: Some(value.clone()),
                    ..HarnessState::default()
                },
                Event::ThinkingLevelChanged(ThinkingLevelChanged { level: value }),
            ),
        };
        out.push(Fragment::State(Box::new(state)));
        out.push(Fragment::Event(event));
    }

    fn compaction(&mut self, update: &wire::Update<'_>, out: &mut Vec<Fragment>) {
        let error = match update.status.as_deref() {
            Some("completed") => None,
            Some("in_progress") | None => {
                self.summary.clear();
                out.push(Fragment::Compacts(CompactReason::Threshold));
                return;
            }
            Some(status) => Some(update.error.as_deref().unwrap_or(status).to_owned()),
        };
        let said = update.summary.and_then(|summary| {
            let blocks = Vec::<wire::Block<'_>>::deserialize(summary).ok()?;
            let texts: String = blocks.into_iter().filter_map(|block| block.text).collect();
            Some(excerpt(texts.as_bytes(), SUMMARY_LEN_MAX))
        });
        let collected = std::mem::take(&mut self.summary);
        out.push(Fragment::Compacted(Box::new(CompactEnd {
            success: error.is_none(),
            will_retry: false,
            error,
            summary: said.or((!collected.is_empty()).then_some(collected)),
            tokens_before: None,
        })));
    }
}

fn plan(entries: &RawValue, out: &mut Vec<Fragment>) -> Result<(), NotOfAcp> {
    let entries = Vec::<wire::PlanEntry<'_>>::deserialize(entries)?;
    let entry = |entry: wire::PlanEntry<'_>| PlanEntry {
        content: entry.content.into_owned(),
        status: match &*entry.status {
            "in_progress" => PlanStatus::InProgress,
            "completed" => PlanStatus::Completed,
            _ => PlanStatus::Pending,
        },
        priority: entry.priority.map(wire::Text::into_owned),
    };
    let entries = entries.into_iter().take(PLAN_MAX).map(entry).collect();
    out.push(Fragment::Event(Event::Plan(Plan { entries })));
    Ok(())
}

fn notice(update: &wire::Update<'_>, out: &mut Vec<Fragment>) {
    let title = update.title.as_deref().unwrap_or_default();
    let message = match update.description.as_deref() {
        Some(description) => format!("{title}: {description}"),
        None => title.to_owned(),
    };
    out.push(Fragment::Event(Event::Notify(Notify {
        level: match update.severity.as_deref() {
            Some("error") => NotifyLevel::Error,
            Some("warning") => NotifyLevel::Warning,
            _ => NotifyLevel::Info,
        },
        message,
    })));
}

/// A block that is no text, as a part; one that the protocol has no place for is kept as it came.
fn content(block: wire::Block<'_>, raw: &RawValue) -> Content {
    let media = |block: &wire::Block<'_>| {
        Some(Media {
            source: Source::SourceInline(SourceInline {
                data: Blob::deserialize(block.data?).ok()?,
                mime: block.mime_type.as_deref()?.to_owned(),
            }),
            alt: None,
            duration_sec: None,
            transcript: None,
            filename: None,
            size_bytes: None,
        })
    };
    let read = match &*block.type_ {
        "image" => media(&block).map(Content::Image),
        "audio" => media(&block).map(Content::Audio),
        "resource_link" => block.uri.map(|uri| {
            Content::FileRef(FileRef {
                uri: uri.into_owned(),
                label: block.name.map(wire::Text::into_owned),
                range: None,
            })
        }),
        _ => None,
    };
    read.unwrap_or_else(|| {
        Content::Extension(Extension {
            name: "acp-content".to_owned(),
            payload: Some(Json::from(raw)),
            meta: None,
        })
    })
}
