//! A session's events as they come, and what must hold for every such stream.

use std::collections::BTreeMap;
use std::time::Duration;

use oqto_control::{Envelope, Event, Events, Session};
use oqto_protocol::event::{AgentError, DoneReason, InputRequest, InputResolved, PermissionRequest, ToolEnd};
use oqto_protocol::id::MessageId;
use oqto_protocol::message::{Content, Message, Role};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A stream of events, and all that came of it.
pub(crate) struct Watch {
    events: Events,
    pub(crate) seen: Vec<Envelope>,
}

impl Watch {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            events,
            seen: Vec::new(),
        }
    }

    /// Reads on to the first event that is meant.
    pub(crate) async fn until(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        let read = async {
            loop {
                let envelope = self.events.next().await.expect("the stream goes on").unwrap();
                let event = envelope.event.clone();
                self.seen.push(envelope);
                if is_it(&event) {
                    return event;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(event) => event,
            Err(_) => panic!(
                "no {what} within {} s; {:#?}",
                PATIENCE.as_secs(),
                self.seen.last()
            ),
        }
    }

    /// Reads on until the run that goes on now is done and the agent waits.
    pub(crate) async fn rest(&mut self) {
        self.until("end of the run", |event| matches!(event, Event::StreamDone(_)))
            .await;
        self.until("idle agent", |event| matches!(event, Event::AgentIdle(_)))
            .await;
    }

    /// Has a prompt carried out to its end.
    pub(crate) async fn prompt(&mut self, session: &Session, text: impl Into<String>) {
        session.prompt(text).await.unwrap();
        self.rest().await;
    }

    /// Reads on until the agent asks to be allowed something.
    pub(crate) async fn permission(&mut self) -> PermissionRequest {
        let asks = |event: &Event| matches!(event, Event::InputNeeded(_));
        match self.until("request", asks).await {
            Event::InputNeeded(needed) => match needed.request {
                InputRequest::PermissionRequest(request) => request,
                other => panic!("{other:?}"),
            },
            event => panic!("{event:?}"),
        }
    }

    /// Reads on until what was asked is asked no more.
    pub(crate) async fn resolved(&mut self) -> InputResolved {
        let ends = |event: &Event| matches!(event, Event::InputResolved(_));
        match self.until("end of a request", ends).await {
            Event::InputResolved(resolved) => resolved,
            event => panic!("{event:?}"),
        }
    }

    /// Reads on until the session sleeps, and says why it does.
    pub(crate) async fn asleep(&mut self) -> String {
        let is_sleep = |event: &Event| matches!(event, Event::SessionDormant(_));
        match self.until("sleep", is_sleep).await {
            Event::SessionDormant(dormant) => dormant.reason,
            event => panic!("{event:?}"),
        }
    }

    /// Reads on to the end of the stream, which the end of the session is.
    pub(crate) async fn closed(&mut self) {
        self.until("end of the session", |event| {
            matches!(event, Event::SessionClosed(_))
        })
        .await;
        let end = tokio::time::timeout(PATIENCE, self.events.next()).await;
        assert!(end.unwrap().is_none(), "something came after the end");
    }

    /// The finished messages, in order.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let ends = self.seen.iter().filter_map(|envelope| match &envelope.event {
            Event::MessageEnd(end) => Some((*end.message).clone()),
            _ => None,
        });
        ends.collect()
    }

    /// All text of the last thing that the assistant said.
    pub(crate) fn answer(&self) -> String {
        let messages = self.messages();
        let mut assistants = messages
            .iter()
            .rev()
            .filter(|message| message.role == Role::Assistant);
        text(assistants.next().expect("an answer"))
    }

    /// How the last run ended.
    pub(crate) fn done(&self) -> DoneReason {
        let mut ends = self.seen.iter().rev();
        ends.find_map(|envelope| match &envelope.event {
            Event::StreamDone(done) => Some(done.reason),
            _ => None,
        })
        .expect("a run that ended")
    }

    /// The tools that ended, in order.
    pub(crate) fn tools(&self) -> Vec<&ToolEnd> {
        let ends = self.seen.iter().filter_map(|envelope| match &envelope.event {
            Event::ToolEnd(end) => Some(end),
            _ => None,
        });
        ends.collect()
    }

    /// What went wrong, in order.
    pub(crate) fn errors(&self) -> Vec<&AgentError> {
        let errors = self.seen.iter().filter_map(|envelope| match &envelope.event {
            Event::AgentError(error) => Some(error),
            _ => None,
        });
        errors.collect()
    }

    pub(crate) fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|envelope| is_it(&envelope.event)).count()
    }

    /// Asserts what must hold for every stream that was read from its beginning.
    pub(crate) fn is_sound(&self) {
        let mut last = 0;
        for envelope in &self.seen {
            let seq = envelope.seq.expect("what a subscription gives has a number");
            assert_eq!(envelope.first_seq.unwrap_or(seq), last + 1, "{envelope:?}");
            last = seq;
        }
        self.messages_are_whole();
    }

    /// Each message begins, grows and ends under one name, and what it grew by is what it is.
    fn messages_are_whole(&self) {
        let mut open: BTreeMap<&MessageId, BTreeMap<u32, String>> = BTreeMap::new();
        let mut ended = Vec::new();
        for envelope in &self.seen {
            match &envelope.event {
                Event::MessageStart(start) => {
                    assert!(!ended.contains(&&start.message_id), "{start:?} again");
                    assert_eq!(open.insert(&start.message_id, BTreeMap::new()), None);
                }
                Event::TextDelta(delta) => {
                    let grown = open
                        .get_mut(&delta.message_id)
                        .expect("a delta of an open message");
                    grown
                        .entry(delta.content_index)
                        .or_default()
                        .push_str(&delta.delta);
                }
                Event::ThinkingDelta(delta) => {
                    let grown = open
                        .get_mut(&delta.message_id)
                        .expect("a delta of an open message");
                    grown
                        .entry(delta.content_index)
                        .or_default()
                        .push_str(&delta.delta);
                }
                Event::MessageEnd(end) => {
                    let grown = open.remove(&end.message.id).expect("an end of an open message");
                    for (index, text) in grown {
                        let part = end.message.parts.get(index as usize).expect("a part that grew");
                        let whole = match &part.content {
                            Content::Text(part) => &part.text,
                            Content::Thinking(part) => &part.text,
                            other => panic!("text grew in {other:?}"),
                        };
                        assert!(
                            *whole == text,
                            "{} bytes grew, {} are there",
                            text.len(),
                            whole.len()
                        );
                    }
                    ended.push(&end.message.id);
                }
                _ => {}
            }
        }
        assert!(open.is_empty(), "never ended: {open:?}");
    }
}

/// All text of a message.
pub(crate) fn text(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match &part.content {
        Content::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect()
}
