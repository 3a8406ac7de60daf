//! What real pi is told and tells beside plain prompts: pictures, models, retries, compactions, shells and dialogs.

use std::time::{Duration, Instant};

use oqto_control::{Event, Session};
use oqto_protocol::codec::Blob;
use oqto_protocol::command::*;
use oqto_protocol::event::{CompactReason, DoneReason, InputRequest, ToolEnd};
use oqto_protocol::message::{Content, Media, Role, Source, SourceInline};
use oqto_protocol::session::SessionState;

use crate::pi_bed::PiBed;
use crate::pi_sessions::asked;
use crate::watch::Watch;

/// An extension that asks what it is told to ask, for so long, and shows what it got.
const ASKS: &str = r#"
export default function (pi) {
  pi.registerCommand("ask", { description: "asks", handler: async (words, ctx) => {
    const [how, timeout] = words.split(" ");
    const options = timeout ? { timeout: Number(timeout) } : undefined;
    const got = how === "select" ? await ctx.ui.select("Which?", ["a", "b"], options)
      : how === "confirm" ? await ctx.ui.confirm("Sure?", "Really", options)
      : await ctx.ui.input("Name?", "somebody", options);
    ctx.ui.setStatus("asked", how);
    ctx.ui.notify("got " + JSON.stringify(got ?? null), "warning");
    // That a command is done is said later than the last that is seen of it.
    await new Promise((done) => setTimeout(done, 50));
  }});
}
"#;

/// A picture of one pixel. What is none pi takes out, with a note in the prompt's own text.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

async fn tell(session: &Session, command: Command) {
    session.command(command).await.unwrap();
}

async fn end(session: Session, watch: &mut Watch, bed: PiBed) {
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}

/// A bed whose pi has these settings, and the scripted model this window.
async fn bed_with(settings: &str, window: Option<u32>) -> PiBed {
    let bed = PiBed::new().await;
    bed.home.file("harness-config/settings.json", settings);
    if let Some(window) = window {
        let path = bed.home.path("harness-config/models.json");
        let models = std::fs::read_to_string(path).unwrap();
        let models = models.replace("100000000", &window.to_string());
        bed.home.file("harness-config/models.json", &models);
    }
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_is_shown_a_picture() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    let picture = Media {
        source: Source::SourceInline(SourceInline {
            data: serde_json::from_value::<Blob>(PIXEL.into()).unwrap(),
            mime: "image/png".to_owned(),
        }),
        alt: None,
        duration_sec: None,
        transcript: None,
        filename: None,
        size_bytes: None,
    };
    let prompt = Prompt {
        message: "fake: say seen".to_owned(),
        images: vec![picture.clone()],
        client_id: Some("mine".to_owned()),
        resources: Vec::new(),
    };
    session.prompt_with(prompt).await.unwrap();
    watch.rest().await;
    let said = watch.messages();
    let user = said.iter().find(|message| message.role == Role::User).unwrap();
    assert_eq!(user.client_id.as_deref(), Some("mine"));
    let shown = user.parts.iter().filter_map(|part| match &part.content {
        Content::Image(image) => Some(&image.source),
        _ => None,
    });
    assert_eq!(shown.collect::<Vec<_>>(), [&picture.source]);
    end(session, &mut watch, bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn model_and_level_are_changed_to_the_next() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    tell(&session, Command::CycleModel(CycleModel {})).await;
    let event = watch
        .until("another model", |event| matches!(event, Event::ModelChanged(_)))
        .await;
    assert!(
        matches!(&event, Event::ModelChanged(to) if to.model_id == "other-model"),
        "{event:?}"
    );
    tell(&session, Command::CycleThinkingLevel(CycleThinkingLevel {})).await;
    watch
        .until("another level", |event| {
            matches!(event, Event::ThinkingLevelChanged(_))
        })
        .await;
    end(session, &mut watch, bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_grows_too_long_is_compacted_and_the_work_goes_on() {
    let settings = r#"{"compaction":{"enabled":true,"reserveTokens":2000,"keepRecentTokens":200}}"#;
    for (usage, reason) in [
        (19_000, CompactReason::Threshold),
        (30_000, CompactReason::Overflow),
    ] {
        let bed = bed_with(settings, Some(20_000)).await;
        let (session, mut watch) = bed.session().await;
        for _ in 0..2 {
            watch.prompt(&session, "huge 3000").await;
        }
        session.prompt(format!("usage {usage}")).await.unwrap();
        let began = watch
            .until("compaction", |event| matches!(event, Event::CompactStart(_)))
            .await;
        assert!(
            matches!(&began, Event::CompactStart(start) if start.reason == reason),
            "{began:?}"
        );
        let ended = watch
            .until("its end", |event| matches!(event, Event::CompactEnd(_)))
            .await;
        assert!(
            matches!(&ended, Event::CompactEnd(end) if end.success),
            "{ended:?}"
        );
        session.abort().await.unwrap();
        watch
            .until("idle agent", |event| matches!(event, Event::AgentIdle(_)))
            .await;
        watch.prompt(&session, "fake: say after").await;
        assert_eq!(watch.done(), DoneReason::Stop);
        end(session, &mut watch, bed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_keeps_failing_is_asked_so_often_and_then_it_is_an_error() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "error 500").await;
    assert_eq!(watch.done(), DoneReason::Error);
    assert_eq!(watch.count(|event| matches!(event, Event::RetryStart(_))), 3);
    assert_eq!(
        watch.count(|event| matches!(event, Event::RetryEnd(end) if !end.success)),
        1
    );
    assert_eq!(watch.count(|event| matches!(event, Event::AgentError(_))), 1);
    end(session, &mut watch, bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_is_given_up_when_told() {
    let bed = bed_with(
        r#"{"retry":{"enabled":true,"maxRetries":3,"baseDelayMs":60000}}"#,
        None,
    )
    .await;
    let (session, mut watch) = bed.session().await;
    session.prompt("error 500").await.unwrap();
    watch
        .until("retry", |event| matches!(event, Event::RetryStart(_)))
        .await;
    let asked = Instant::now();
    tell(&session, Command::AbortRetry(AbortRetry {})).await;
    watch.rest().await;
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(
        watch.count(|event| matches!(event, Event::RetryEnd(end) if !end.success)),
        1
    );
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    end(session, &mut watch, bed).await;
}

async fn shell(session: &Session, command: &str, apart: bool) {
    let command = command.to_owned();
    tell(session, Command::Shell(Shell { command, apart })).await;
}

async fn shell_ended(watch: &mut Watch) -> ToolEnd {
    match watch
        .until("end of the shell", |event| matches!(event, Event::ToolEnd(_)))
        .await
    {
        Event::ToolEnd(end) => end,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_command_of_the_users_runs_in_the_sandbox_and_an_abort_ends_it() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    shell(&session, "id -u; touch made; exit 3", false).await;
    let ended = shell_ended(&mut watch).await;
    let output = ended.output.value();
    let owner = std::os::unix::fs::MetadataExt::uid(&bed.home.workspace().metadata().unwrap());
    assert!(ended.is_error, "{output}");
    assert_eq!(output["exitCode"], 3);
    assert_eq!(output["output"], format!("{owner}\n"));
    assert!(bed.home.path("workspace/made").exists());
    assert_eq!(watch.count(|event| matches!(event, Event::ToolStart(_))), 1);
    assert!(watch.count(|event| matches!(event, Event::ToolProgress(_))) > 0);

    shell(&session, "echo apart", true).await;
    assert!(!shell_ended(&mut watch).await.is_error);
    let asked = Instant::now();
    shell(&session, "sleep 1000", false).await;
    session.abort().await.unwrap();
    let ended = shell_ended(&mut watch).await;
    assert_eq!(ended.output.value()["cancelled"], true);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    watch.prompt(&session, "fake: say fine").await;
    end(session, &mut watch, bed).await;
}

/// How somebody answers a dialog.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Given,
    Cancelled,
    /// Nobody does.
    Never,
}

fn answer_to(request: &InputRequest) -> InputResponse {
    let (request_id, value, confirmed) = match request {
        InputRequest::SelectRequest(it) => (&it.request_id, Some("b"), None),
        InputRequest::ConfirmRequest(it) => (&it.request_id, None, Some(true)),
        InputRequest::TextRequest(it) => (&it.request_id, Some("me"), None),
        other => panic!("{other:?}"),
    };
    InputResponse {
        request_id: request_id.clone(),
        value: value.map(str::to_owned),
        confirmed,
        cancelled: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dialog_of_an_extension_is_answered_cancelled_or_given_up() {
    let bed = PiBed::new().await;
    let extension = bed.home.file("workspace/asks.js", ASKS);
    let settings = serde_json::json!({ "extensions": [extension] });
    bed.home
        .file("harness-config/settings.json", &settings.to_string());
    let (session, mut watch) = bed.session().await;
    let commands = asked(&session, Command::GetCommands(GetCommands {})).await;
    assert!(commands.to_string().contains(r#""name":"ask""#), "{commands}");
    let cases = [
        ("select", Answer::Given, r#"got "b""#),
        ("select", Answer::Cancelled, "got null"),
        ("select", Answer::Never, "got null"),
        ("confirm", Answer::Given, "got true"),
        ("confirm", Answer::Cancelled, "got false"),
        ("confirm", Answer::Never, "got false"),
        ("input", Answer::Given, r#"got "me""#),
        ("input", Answer::Cancelled, "got null"),
        ("input", Answer::Never, "got null"),
    ];
    for (how, answer, got) in cases {
        let words = match answer {
            Answer::Never => format!("/ask {how} 300"),
            Answer::Given | Answer::Cancelled => format!("/ask {how}"),
        };
        let from = watch.seen.len();
        session.prompt(words).await.unwrap();
        let needed = watch
            .until("question", |event| matches!(event, Event::InputNeeded(_)))
            .await;
        let Event::InputNeeded(needed) = needed else {
            panic!("{needed:?}")
        };
        let mut response = answer_to(&needed.request);
        match answer {
            Answer::Given => session.respond(response).await.unwrap(),
            Answer::Cancelled => {
                (response.value, response.confirmed) = (None, None);
                response.cancelled = Some(true);
                session.respond(response).await.unwrap();
            }
            Answer::Never => {}
        }
        // pi's clock and ours end a question that nobody answers, in either order.
        let note = watch
            .until("note", |event| matches!(event, Event::Notify(_)))
            .await;
        let is_resolved = |watch: &Watch| {
            let mut seen = watch.seen[from..].iter();
            seen.any(|envelope| matches!(envelope.event, Event::InputResolved(_)))
        };
        if !is_resolved(&watch) {
            watch
                .until("its end", |event| matches!(event, Event::InputResolved(_)))
                .await;
        }
        let mut seen = watch.seen[from..].iter();
        let status = seen.find_map(|envelope| match &envelope.event {
            Event::Status(it) if it.key == "asked" => it.text.as_deref(),
            _ => None,
        });
        assert_eq!(status, Some(how));
        assert!(
            matches!(&note, Event::Notify(it) if it.message == got),
            "{how} {answer:?}: {note:?}"
        );
    }
    end(session, &mut watch, bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_is_set_to_is_its_own() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    let (other, mut others) = bed.session().await;
    let name = "a name".to_owned();
    tell(&session, Command::SetSessionName(SetSessionName { name })).await;
    watch
        .until(
            "title",
            |event| matches!(event, Event::TitleChanged(to) if to.title == "a name"),
        )
        .await;
    tell(&session, Command::SetAutoRetry(SetAutoRetry { enabled: false })).await;
    tell(
        &session,
        Command::SetAutoCompaction(SetAutoCompaction { enabled: false }),
    )
    .await;
    session.prompt("error 500").await.unwrap();
    other.prompt("error 500 x1").await.unwrap();
    watch.rest().await;
    others.rest().await;
    assert_eq!(watch.count(|event| matches!(event, Event::RetryStart(_))), 0);
    assert_eq!(watch.done(), DoneReason::Error);
    assert_eq!(others.done(), DoneReason::Stop);
    assert_eq!(session.stats().await.unwrap().user_messages, 1);
    assert_eq!(
        session.state().await.unwrap().info.title.as_deref(),
        Some("a name")
    );
    let theirs = std::fs::read_to_string(bed.home.path("harness-config/settings.json")).unwrap();
    assert!(theirs.contains(r#""enabled":true"#), "{theirs}");
    other.close().await.unwrap();
    others.closed().await;
    end(session, &mut watch, bed).await;
}
