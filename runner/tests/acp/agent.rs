//! An agent of the protocol, line by line, and what is made of its lines.

use oqto_protocol::command::*;
use oqto_protocol::event::{Event, InputRequest, PermissionRequest};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::Message;
use oqto_protocol::reply::Reply;
use oqto_protocol::session::SessionState;
use oqto_runner::harness::Harness;
use oqto_runner::session::{Action, Input, Report, Session};
use serde_json::{Value, json};

use crate::support::{T0, setup};

pub(crate) const MODES: &str = r#""modes":{"currentModeId":"auto","availableModes":[{"id":"auto","name":"Auto"},{"id":"ask","name":"Ask"}]}"#;

/// An agent, line by line.
pub(crate) struct Agent {
    pub(crate) session: Session,
    pub(crate) now: u64,
    pub(crate) ids: u8,
}

impl Agent {
    /// One that was started and asked who it is.
    pub(crate) fn started(mode: Option<&str>, continue_session: Option<&str>) -> Self {
        Self::of(Harness::acp("agent", "agent", mode), continue_session)
    }

    pub(crate) fn of(harness: Harness, continue_session: Option<&str>) -> Self {
        let mut setup = setup(harness);
        setup.continue_session = continue_session.map(str::to_owned);
        let mut agent = Self {
            session: Session::new(setup, T0),
            now: T0,
            ids: 0,
        };
        let asked = agent.step(&Input::Report(&Report::Confined { layers: Vec::new() }));
        assert_eq!(written(&asked)[0]["method"], "initialize");
        agent
    }

    /// One that waits for a prompt.
    pub(crate) fn idle() -> Self {
        let mut agent = Self::started(Some("ask"), None);
        agent.initialized(
            r#"{"loadSession":true,"promptCapabilities":{"image":true,"embeddedContext":true}}"#,
        );
        agent.out(&format!(
            r#"{{"jsonrpc":"2.0","id":"open","result":{{"sessionId":"s1",{MODES}}}}}"#
        ));
        agent.out(r#"{"jsonrpc":"2.0","id":"configure","result":{}}"#);
        assert_eq!(agent.session.state(), SessionState::Idle);
        agent
    }

    /// One that works at a prompt of this id.
    pub(crate) fn working() -> (Self, CommandId) {
        let mut agent = Self::idle();
        let (id, _) = agent.tell(prompt("work"));
        assert_eq!(agent.session.state(), SessionState::Streaming);
        (agent, id)
    }

    pub(crate) fn initialized(&mut self, capabilities: &str) -> Vec<Action> {
        self.out(&format!(
            r#"{{"jsonrpc":"2.0","id":"initialize","result":{{"protocolVersion":1,"agentCapabilities":{capabilities},"agentInfo":{{"name":"agent","version":"1.2.3"}},"authMethods":[{{"id":"key","name":"Key"}}]}}}}"#
        ))
    }

    pub(crate) fn step(&mut self, input: &Input<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.step(input, self.now, &mut out);
        out
    }

    pub(crate) fn out(&mut self, line: &str) -> Vec<Action> {
        self.step(&Input::Out(format!("{line}\n").as_bytes()))
    }

    pub(crate) fn update(&mut self, update: &Value) -> Vec<Action> {
        let params = json!({ "sessionId": "s1", "update": update });
        self.out(&json!({ "jsonrpc": "2.0", "method": "session/update", "params": params }).to_string())
    }

    pub(crate) fn says(&mut self, text: &str) -> Vec<Action> {
        self.update(
            &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": text } }),
        )
    }

    pub(crate) fn ends(&mut self, id: CommandId, result: &Value) -> Vec<Action> {
        self.out(&json!({ "jsonrpc": "2.0", "id": id.to_string(), "result": result }).to_string())
    }

    /// Answers the request that was written.
    pub(crate) fn answers(&mut self, asked: &[Action], result: &Value) -> Vec<Action> {
        let id = &written(asked)[0]["id"];
        self.out(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
    }

    pub(crate) fn asks(&mut self, call: &Value) -> Vec<Action> {
        let options = json!([
            { "optionId": "a", "name": "Always", "kind": "allow_always" },
            { "optionId": "y", "name": "Yes", "kind": "allow_once" },
            { "optionId": "n", "name": "No", "kind": "reject_once" },
        ]);
        let params = json!({ "sessionId": "s1", "toolCall": call, "options": options });
        let request =
            json!({ "jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params });
        self.out(&request.to_string())
    }

    pub(crate) fn tell(&mut self, command: Command) -> (CommandId, Vec<Action>) {
        self.ids += 1;
        let id = CommandId([self.ids; 16]);
        let envelope = CommandEnvelope {
            id,
            session_id: "s".parse().expect("a name"),
            runner_id: None,
            command,
            on_behalf_of: None,
        };
        (id, self.step(&Input::Command(&envelope)))
    }

    pub(crate) fn wait(&mut self) -> Vec<Action> {
        self.now = self.session.poll_timeout().expect("something to wait for");
        self.step(&Input::Deadline)
    }
}

pub(crate) fn prompt(text: &str) -> Command {
    Command::Prompt(Prompt {
        message: text.to_owned(),
        images: Vec::new(),
        client_id: None,
        resources: Vec::new(),
    })
}

pub(crate) fn switch(to: &str) -> Command {
    Command::SessionSwitch(SessionSwitch {
        session_path: to.to_owned(),
    })
}

/// What a new session is answered with.
pub(crate) fn opened(session: &str) -> Value {
    serde_json::from_str(&format!(r#"{{"sessionId":"{session}",{MODES}}}"#)).expect("JSON")
}

/// The lines that were written.
pub(crate) fn written(actions: &[Action]) -> Vec<Value> {
    let bytes: Vec<u8> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Write { bytes, .. } => Some(bytes.as_slice()),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    let text = String::from_utf8(bytes).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

pub(crate) fn events(actions: &[Action]) -> Vec<&Event> {
    let recorded = actions.iter().filter_map(|action| match action {
        Action::Record { event, .. } => Some(event),
        _ => None,
    });
    recorded.collect()
}

pub(crate) fn messages(actions: &[Action]) -> Vec<&Message> {
    let ended = events(actions).into_iter().filter_map(|event| match event {
        Event::MessageEnd(end) => Some(&*end.message),
        _ => None,
    });
    ended.collect()
}

pub(crate) fn error(actions: &[Action]) -> Option<String> {
    events(actions).into_iter().find_map(|event| match event {
        Event::AgentError(it) => Some(it.error.clone()),
        _ => None,
    })
}

pub(crate) fn reply(actions: &[Action]) -> &Reply {
    let mut replies = actions.iter().filter_map(|action| match action {
        Action::Reply(reply) => Some(reply),
        _ => None,
    });
    replies.next().expect("a reply")
}

pub(crate) fn asked(actions: &[Action]) -> &PermissionRequest {
    let mut requests = events(actions).into_iter().filter_map(|event| match event {
        Event::InputNeeded(needed) => match &needed.request {
            InputRequest::PermissionRequest(request) => Some(request),
            _ => None,
        },
        _ => None,
    });
    requests.next().expect("a request")
}
