//! Everything that the official crate can say as an agent is understood, in any order.

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{
    AgentCapabilities, AudioContent, AvailableCommand, AvailableCommandsUpdate, BlobResourceContents,
    CompactionStatus, CompactionSummaryChunk, CompactionUpdate, ConfigOptionUpdate, Content, ContentBlock,
    ContentChunk, Cost, CurrentModeUpdate, Diff, EmbeddedResource, EmbeddedResourceResource, ImageContent,
    Implementation, InitializeResponse, NewSessionResponse, Notice, NoticeSeverity, PermissionOption,
    PermissionOptionKind, Plan, PlanEntry, PlanEntryPriority, PlanEntryStatus, PromptCapabilities,
    PromptResponse, RequestPermissionRequest, ResourceLink, SessionConfigOption, SessionConfigOptionCategory,
    SessionConfigSelectOption, SessionInfoUpdate, SessionMode, SessionModeState, SessionNotification,
    SessionUpdate, StopReason, Terminal, TextContent, TextResourceContents, ToolCall, ToolCallContent,
    ToolCallLocation, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields, ToolKind, UsageUpdate,
};
use oqto_protocol::command::{Command, Prompt};
use oqto_protocol::event::{Event, InputRequest, PermissionKind, PlanStatus};
use oqto_protocol::id::CommandId;
use oqto_protocol::message::Content as Ours;
use oqto_runner::harness::{Asked, Beginning, Dialect, Fragment, Outcome, Tongue};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::json;

/// A dialect whose agent has a session open.
pub(crate) struct Opened {
    pub(crate) dialect: Dialect,
    now_ms: u64,
}

const PROMPT: CommandId = CommandId([3; 16]);

impl Opened {
    pub(crate) fn new() -> Self {
        let mut opened = Self {
            dialect: Dialect::new(Tongue::Acp),
            now_ms: 1_800_000_000_000,
        };
        let beginning = Beginning {
            cwd: "/w".to_owned(),
            ..Beginning::default()
        };
        let first = String::from_utf8(opened.dialect.probe(&beginning)).unwrap();
        crate::lines::judge_ours(first.trim_end()).unwrap();
        let prompts = PromptCapabilities::new().image(true).embedded_context(true);
        let can = AgentCapabilities::new()
            .load_session(true)
            .prompt_capabilities(prompts);
        let initialized = InitializeResponse::new(ProtocolVersion::V1)
            .agent_capabilities(can)
            .agent_info(Implementation::new("official", "5.0.0"));
        opened.answer("initialize", &initialized);
        let modes = ["ask", "plan", "code"]
            .map(|id| SessionMode::new(id, id))
            .to_vec();
        let session = NewSessionResponse::new("s")
            .modes(SessionModeState::new("ask", modes))
            .config_options(vec![choice("small"), level("low")]);
        let ready = opened.answer("open", &session);
        assert!(ready.contains(&Fragment::Ready), "{ready:?}");
        opened
    }

    /// What a line of the agent's means.
    pub(crate) fn push(&mut self, line: &str) -> Vec<Fragment> {
        let mut out = Vec::new();
        self.now_ms += 1;
        self.dialect.push(line.as_bytes(), self.now_ms, &mut out);
        out
    }

    fn answer(&mut self, id: &str, result: &impl Serialize) -> Vec<Fragment> {
        self.understood(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
    }

    fn understood(&mut self, line: &str) -> Vec<Fragment> {
        let fragments = self.push(line);
        let is_strange = |fragment: &Fragment| match fragment {
            Fragment::Stray => true,
            Fragment::Event(Event::Status(status)) => {
                status.key.starts_with("x-acp-") && status.key != "x-acp-context"
            }
            _ => false,
        };
        assert!(!fragments.iter().any(is_strange), "{line}: {fragments:?}");
        fragments
    }

    fn prompt(&mut self) {
        let prompt = Command::Prompt(Prompt {
            message: "work".to_owned(),
            images: Vec::new(),
            client_id: None,
            resources: Vec::new(),
        });
        self.dialect.say(&prompt, PROMPT, &[]).unwrap();
    }

    fn update(&mut self, update: SessionUpdate) -> Vec<Fragment> {
        let params = SessionNotification::new("s", update);
        self.understood(
            &json!({ "jsonrpc": "2.0", "method": "session/update", "params": params }).to_string(),
        )
    }

    /// The agent asks for permission; what then waits for an answer.
    pub(crate) fn ask(&mut self) -> Vec<Asked> {
        use PermissionOptionKind as Kind;
        let options = [
            ("always", Kind::AllowAlways),
            ("once", Kind::AllowOnce),
            ("no", Kind::RejectOnce),
            ("never", Kind::RejectAlways),
        ];
        let options = options
            .map(|(id, kind)| PermissionOption::new(id, id, kind))
            .to_vec();
        let fields = ToolCallUpdateFields::new()
            .title("Remove".to_owned())
            .kind(ToolKind::Delete)
            .locations(vec![ToolCallLocation::new("/w/a")]);
        let params = RequestPermissionRequest::new("s", ToolCallUpdate::new("asked", fields), options);
        let line =
            json!({ "jsonrpc": "2.0", "id": 7, "method": "session/request_permission", "params": params });
        let fragments = self.understood(&line.to_string());
        let asks = fragments.into_iter().filter_map(|fragment| match fragment {
            Fragment::Asks(InputRequest::PermissionRequest(request)) => Some(request),
            _ => None,
        });
        asks.map(|request| Asked {
            request_id: request.request_id.clone(),
            request: InputRequest::PermissionRequest(request),
            until: None,
        })
        .collect()
    }

    fn end(&mut self, reason: StopReason) -> Vec<Fragment> {
        self.answer(&PROMPT.to_string(), &PromptResponse::new(reason))
    }
}

fn choice(current: &'static str) -> SessionConfigOption {
    let models = ["small", "large"].map(|id| SessionConfigSelectOption::new(id, id));
    SessionConfigOption::select("model", "Model", current, models.to_vec())
        .category(SessionConfigOptionCategory::Model)
}

fn level(current: &'static str) -> SessionConfigOption {
    let levels = ["low", "high"].map(|id| SessionConfigSelectOption::new(id, id));
    SessionConfigOption::select("effort", "Effort", current, levels.to_vec())
        .category(SessionConfigOptionCategory::ThoughtLevel)
}

/// Every block of content that the protocol has.
fn blocks() -> Vec<ContentBlock> {
    let text = EmbeddedResourceResource::TextResourceContents(TextResourceContents::new("t", "file:///t"));
    let blob = EmbeddedResourceResource::BlobResourceContents(BlobResourceContents::new("aGk=", "file:///b"));
    vec![
        ContentBlock::Text(TextContent::new("text")),
        ContentBlock::Image(ImageContent::new("aGk=", "image/png")),
        ContentBlock::Audio(AudioContent::new("aGk=", "audio/wav")),
        ContentBlock::ResourceLink(ResourceLink::new("a.rs", "file:///w/a.rs")),
        ContentBlock::Resource(EmbeddedResource::new(text)),
        ContentBlock::Resource(EmbeddedResource::new(blob)),
    ]
}

fn call_contents() -> Vec<ToolCallContent> {
    vec![
        ToolCallContent::Content(Content::new("output")),
        ToolCallContent::Diff(Diff::new("/w/a", "new").old_text("old".to_owned())),
        ToolCallContent::Terminal(Terminal::new("terminal-1")),
    ]
}

fn entries() -> Vec<PlanEntry> {
    [
        (PlanEntryPriority::High, PlanEntryStatus::Completed),
        (PlanEntryPriority::Medium, PlanEntryStatus::InProgress),
        (PlanEntryPriority::Low, PlanEntryStatus::Pending),
    ]
    .map(|(priority, status)| PlanEntry::new("step", priority, status))
    .to_vec()
}

/// Every update that the protocol has, at least once.
fn updates() -> Vec<SessionUpdate> {
    use SessionUpdate as It;
    let mut all = Vec::new();
    for block in blocks() {
        for make in [It::AgentMessageChunk, It::AgentThoughtChunk, It::UserMessageChunk] {
            all.push(make(ContentChunk::new(block.clone())));
        }
    }
    for status in [
        ToolCallStatus::Pending,
        ToolCallStatus::InProgress,
        ToolCallStatus::Completed,
        ToolCallStatus::Failed,
    ] {
        let call = ToolCall::new("call", "Call")
            .kind(ToolKind::Edit)
            .status(status)
            .content(call_contents());
        all.push(It::ToolCall(call.raw_input(json!({ "path": "/w/a" }))));
        let fields = ToolCallUpdateFields::new()
            .status(status)
            .raw_output(json!({ "done": true }));
        all.push(It::ToolCallUpdate(ToolCallUpdate::new("call", fields)));
        all.push(It::ToolCallUpdate(ToolCallUpdate::new(
            "never announced",
            ToolCallUpdateFields::new().status(status),
        )));
    }
    all.extend([
        It::Plan(Plan::new(entries())),
        It::AvailableCommandsUpdate(AvailableCommandsUpdate::new(vec![AvailableCommand::new(
            "review", "Review",
        )])),
        It::CurrentModeUpdate(CurrentModeUpdate::new("plan")),
        It::ConfigOptionUpdate(ConfigOptionUpdate::new(vec![choice("large"), level("high")])),
        It::SessionInfoUpdate(SessionInfoUpdate::new().title("A title".to_owned())),
        It::SessionInfoUpdate(SessionInfoUpdate::new()),
        It::UsageUpdate(UsageUpdate::new(10, 100).cost(Cost::new(0.5, "USD"))),
        It::Notice(Notice::new(NoticeSeverity::Warning, "Careful")),
    ]);
    for status in [
        CompactionStatus::InProgress,
        CompactionStatus::Completed,
        CompactionStatus::Failed,
        CompactionStatus::Cancelled,
    ] {
        all.push(It::CompactionUpdate(CompactionUpdate::new("c", status)));
    }
    let chunk = CompactionSummaryChunk::new("c", ContentBlock::Text(TextContent::new("in short")));
    all.push(It::CompactionSummaryChunk(chunk));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_an_official_agent_says_is_understood(picks in prop::collection::vec((any::<u8>(), "\\PC{0,12}"), 1..60)) {
        let all = updates();
        let mut opened = Opened::new();
        opened.prompt();
        let (mut said, mut heard) = (String::new(), String::new());
        for (pick, text) in picks {
            let update = match usize::from(pick) % (all.len() + 4) {
                at if at < all.len() => all[at].clone(),
                _ => SessionUpdate::AgentMessageChunk(ContentChunk::new(ContentBlock::Text(TextContent::new(text)))),
            };
            if let SessionUpdate::AgentMessageChunk(ContentChunk { content: ContentBlock::Text(text), .. }) = &update {
                said.push_str(&text.text);
            }
            heard.extend(opened.update(update).into_iter().filter_map(|fragment| match fragment {
                Fragment::Text { delta, .. } => Some(delta),
                _ => None,
            }));
        }
        prop_assert_eq!(said, heard);
        let last = opened.end(StopReason::EndTurn);
        prop_assert_eq!(last.last(), Some(&Fragment::Ended(Outcome::Done)));
        prop_assert!(opened.dialect.at_rest());
    }
}

/// The events that an update is, alone in a turn.
fn events(update: SessionUpdate) -> Vec<Event> {
    let mut opened = Opened::new();
    opened.prompt();
    let events = opened
        .update(update)
        .into_iter()
        .filter_map(|fragment| match fragment {
            Fragment::Event(event) => Some(event),
            _ => None,
        });
    events.collect()
}

#[test]
fn each_update_means_what_the_protocol_says() {
    use SessionUpdate as It;
    let plan = events(It::Plan(Plan::new(entries())));
    let [Event::Plan(plan)] = plan.as_slice() else {
        panic!("{plan:?}")
    };
    let status: Vec<_> = plan.entries.iter().map(|entry| entry.status).collect();
    assert_eq!(
        status,
        [PlanStatus::Completed, PlanStatus::InProgress, PlanStatus::Pending]
    );
    let priority: Vec<_> = plan
        .entries
        .iter()
        .map(|entry| entry.priority.as_deref())
        .collect();
    assert_eq!(priority, [Some("high"), Some("medium"), Some("low")]);

    let mode = events(It::CurrentModeUpdate(CurrentModeUpdate::new("plan")));
    assert!(
        matches!(mode.as_slice(), [Event::ModeChanged(mode)] if mode.mode_id == "plan"),
        "{mode:?}"
    );

    let options = events(It::ConfigOptionUpdate(ConfigOptionUpdate::new(vec![
        choice("large"),
        level("high"),
    ])));
    let [Event::ModelChanged(model), Event::ThinkingLevelChanged(level)] = options.as_slice() else {
        panic!("{options:?}")
    };
    assert_eq!((model.model_id.as_str(), level.level.as_str()), ("large", "high"));

    let title = events(It::SessionInfoUpdate(
        SessionInfoUpdate::new().title("A title".to_owned()),
    ));
    assert!(
        matches!(title.as_slice(), [Event::TitleChanged(title)] if title.title == "A title"),
        "{title:?}"
    );

    let notice = events(It::Notice(Notice::new(NoticeSeverity::Warning, "Careful")));
    assert!(
        matches!(notice.as_slice(), [Event::Notify(notice)] if notice.message == "Careful"),
        "{notice:?}"
    );
}

#[test]
fn each_block_is_a_part_of_its_kind() {
    for block in blocks() {
        let mut opened = Opened::new();
        opened.prompt();
        let fragments = opened.update(SessionUpdate::AgentMessageChunk(ContentChunk::new(block.clone())));
        let is_right = fragments.iter().any(|fragment| match (&block, fragment) {
            (ContentBlock::Text(text), Fragment::Text { delta, .. }) => text.text == *delta,
            (block, Fragment::Part { content, .. }) => matches!(
                (block, &**content),
                (ContentBlock::Image(_), Ours::Image(_))
                    | (ContentBlock::Audio(_), Ours::Audio(_))
                    | (ContentBlock::ResourceLink(_), Ours::FileRef(_))
                    | (ContentBlock::Resource(_), Ours::Extension(_))
            ),
            _ => false,
        });
        assert!(is_right, "{block:?}: {fragments:?}");
    }
}

#[test]
fn a_call_is_told_from_its_beginning_to_its_result() {
    let mut opened = Opened::new();
    opened.prompt();
    let call = ToolCall::new("call", "Edit a")
        .kind(ToolKind::Edit)
        .raw_input(json!({ "path": "/w/a" }));
    let mut all = opened.update(SessionUpdate::ToolCall(call));
    for (status, content) in [
        (ToolCallStatus::InProgress, vec![]),
        (ToolCallStatus::Completed, call_contents()),
    ] {
        let fields = ToolCallUpdateFields::new().status(status).content(content);
        all.extend(opened.update(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new("call", fields))));
    }
    let started = all.iter().any(
        |fragment| matches!(fragment, Fragment::CallStarted { tool_call_id, .. } if tool_call_id == "call"),
    );
    let ended = all.iter().find_map(|fragment| match fragment {
        Fragment::Event(Event::ToolEnd(end)) => Some(end),
        _ => None,
    });
    let ended = ended.expect("an end");
    assert!(started && !ended.is_error, "{all:?}");
    let output = serde_json::to_string(&ended).unwrap();
    for said in ["output", "newText", "terminal-1"] {
        assert!(output.contains(said), "{output}");
    }
}

#[test]
fn each_reason_to_stop_is_told() {
    for (reason, expected) in [
        (StopReason::EndTurn, Outcome::Done),
        (StopReason::MaxTokens, Outcome::Length),
        (StopReason::Cancelled, Outcome::Aborted),
    ] {
        let mut opened = Opened::new();
        opened.prompt();
        assert_eq!(opened.end(reason).last(), Some(&Fragment::Ended(expected)));
    }
    for reason in [StopReason::Refusal, StopReason::MaxTurnRequests] {
        let mut opened = Opened::new();
        opened.prompt();
        let fragments = opened.end(reason);
        assert!(
            matches!(fragments.last(), Some(Fragment::Ended(Outcome::Failed { .. }))),
            "{fragments:?}"
        );
    }
}

#[test]
fn a_question_offers_what_the_agent_offers() {
    let mut opened = Opened::new();
    opened.prompt();
    let asked = opened.ask();
    let [
        Asked {
            request: InputRequest::PermissionRequest(request),
            ..
        },
    ] = asked.as_slice()
    else {
        panic!("{asked:?}")
    };
    let kinds: Vec<_> = request.options.iter().map(|option| option.kind).collect();
    use PermissionKind as Kind;
    assert_eq!(
        kinds,
        [
            Kind::AllowAlways,
            Kind::AllowOnce,
            Kind::RejectOnce,
            Kind::RejectAlways
        ]
    );
    let tool = request.tool.as_ref().expect("a tool");
    assert_eq!(
        (tool.kind.as_deref(), tool.targets.as_slice()),
        (Some("delete"), &["/w/a".to_owned()][..])
    );
}
