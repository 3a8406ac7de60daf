//! Real claude-agent-acp in the sandbox, driven through the library.

use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::Signal;
use oqto_control::Event;
use oqto_protocol::codec::Blob;
use oqto_protocol::command::*;
use oqto_protocol::event::{DoneReason, NotifyLevel, PlanStatus};
use oqto_protocol::message::{Content, Media, Role, Source, SourceInline};
use oqto_protocol::session::{Capability, SessionState};
use oqto_tests::{Home, Process, agents, signal, wait_until};

use crate::claude_bed::{CLAUDE, ClaudeBed};
use crate::watch::text;

#[tokio::test(flavor = "multi_thread")]
async fn claude_says_hello_thinks_aloud_and_says_what_it_can_do() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    let Event::SessionCreated(created) = &watch.seen[0].event else {
        panic!("{:?}", watch.seen[0])
    };
    assert_eq!(created.version.as_deref(), Some("0.101.0"));
    for capability in [Capability::Permission, Capability::Resume, Capability::SetMode] {
        assert!(created.capabilities.contains(&capability), "{created:?}");
    }
    assert!(watch.answer().starts_with("Hello! I am a scripted model"));
    assert!(watch.answer().contains("日本語"));
    assert_eq!(watch.done(), DoneReason::Stop);
    watch.prompt(&session, "think").await;
    assert!(watch.count(|event| matches!(event, Event::ThinkingDelta(_))) > 0);
    let messages = watch.messages();
    let thoughts = messages.iter().flat_map(|message| &message.parts).filter(
        |part| matches!(&part.content, Content::Thinking(thought) if thought.text.starts_with("The user wants me to think")),
    );
    assert_eq!(thoughts.count(), 1);
    let todo = r#"{"content":"look around","status":"in_progress","activeForm":"looking around"}"#;
    watch
        .prompt(
            &session,
            format!("fake: call TodoWrite {{\"todos\":[{todo}]}} || say done"),
        )
        .await;
    let mut plans = watch.seen.iter().filter_map(|envelope| match &envelope.event {
        Event::Plan(plan) => Some(plan),
        _ => None,
    });
    let entries = &plans.next_back().expect("a plan").entries;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(
        (entries[0].content.as_str(), entries[0].status),
        ("looking around", PlanStatus::InProgress)
    );
    // A command that this harness has no words for is refused at once, by the name of what is missing.
    let refused = session.steer("more").await.unwrap_err();
    assert!(format!("{refused:?}").contains("steer"), "{refused:?}");
    let users = messages.iter().filter(|message| message.role == Role::User);
    assert_eq!(users.map(text).collect::<Vec<_>>(), ["say hello", "think"]);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_asks_before_it_acts_and_does_what_is_allowed_and_nothing_else() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("run touch made").await.unwrap();
    let request = watch.permission().await;
    assert!(!bed.file("made").exists(), "it did not wait");
    let tool = request.tool.clone().expect("what it wants to do");
    assert_eq!(tool.targets, ["touch made"]);
    session.allow(&request.request_id).await.unwrap();
    watch.rest().await;
    let owner = bed.home.workspace().metadata().unwrap().uid();
    assert_eq!(bed.file("made").metadata().unwrap().uid(), owner);
    assert_eq!(
        watch.tools().iter().map(|end| end.is_error).collect::<Vec<_>>(),
        [false]
    );

    session.prompt("run touch refused").await.unwrap();
    let request = watch.permission().await;
    session.refuse(&request.request_id).await.unwrap();
    watch.rest().await;
    assert!(!bed.file("refused").exists());
    assert!(watch.tools()[1].is_error, "{:?}", watch.tools());
    let resolved = watch.count(|event| matches!(event, Event::InputResolved(_)));
    assert_eq!(resolved, 2);

    let note = bed.file("note.txt").display().to_string();
    let write = format!("fake: write {note} written-by-claude || say done");
    session.prompt(write).await.unwrap();
    let request = watch.permission().await;
    let tool = request.tool.clone().expect("what it wants to do");
    assert_eq!(tool.kind.as_deref(), Some("edit"));
    assert_eq!(tool.targets, [note]);
    session.allow(&request.request_id).await.unwrap();
    watch.rest().await;
    let written = std::fs::read_to_string(bed.file("note.txt")).unwrap();
    assert_eq!(written.trim(), "written-by-claude");
    assert_eq!(bed.file("note.txt").metadata().unwrap().uid(), owner);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_stops_in_the_middle_of_a_sentence_a_tool_and_a_question() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("slow 1000 50").await.unwrap();
    watch
        .until("delta", |event| matches!(event, Event::TextDelta(_)))
        .await;
    session.abort().await.unwrap();
    watch.rest().await;
    assert_eq!(watch.done(), DoneReason::Aborted);
    // The whole answer takes fifty seconds.
    assert!(!watch.answer().contains("tick 1000"), "{}", watch.answer());

    // While it asks, its question is taken back first.
    session.prompt("run touch never").await.unwrap();
    watch.permission().await;
    session.abort().await.unwrap();
    watch.rest().await;
    assert_eq!(watch.done(), DoneReason::Aborted);
    assert_eq!(session.state().await.unwrap().pending_request, None);

    session.prompt("run touch began; sleep 300").await.unwrap();
    let request = watch.permission().await;
    session.allow(&request.request_id).await.unwrap();
    wait_until("the tool to begin", || bed.file("began").exists().then_some(()));
    session.abort().await.unwrap();
    watch.rest().await;
    assert_eq!(watch.done(), DoneReason::Aborted);
    let sleeps = || {
        bed.home
            .agents()
            .into_iter()
            .any(|process| process.words.starts_with("sleep 300"))
    };
    wait_until("the tool to end", || (!sleeps()).then_some(()));

    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    watch.prompt(&session, "say hello").await;
    assert!(watch.answer().starts_with("Hello!"));
    assert!(!bed.file("never").exists());
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_claude_is_an_error_and_the_session_goes_on() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "error 400").await;
    assert_eq!(watch.done(), DoneReason::Error);
    assert!(watch.count(|event| matches!(event, Event::AgentError(_))) > 0);
    watch.prompt(&session, "say hello").await;
    assert!(watch.answer().starts_with("Hello!"));
    assert_eq!(watch.done(), DoneReason::Stop);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_that_was_killed_goes_on_with_what_was_said() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "fake: say the word was heliotrope").await;
    let victim: Process = wait_until("the agent", || {
        let mut all = bed.home.agents().into_iter();
        all.find(|process| process.words.contains("/node ") && !process.words.contains("bwrap"))
    });
    signal(victim.pid, Signal::SIGKILL);
    watch
        .until("recovery", |event| matches!(event, Event::Recovered(_)))
        .await;
    watch
        .until("idle agent", |event| matches!(event, Event::AgentIdle(_)))
        .await;
    watch.prompt(&session, "and again").await;
    assert!(
        watch.answer().contains("You said: and again"),
        "{}",
        watch.answer()
    );
    // What was said before stands in what the model is asked.
    let asked = bed.asked_of_the_model();
    let again = asked
        .lines()
        .filter(|line| line.contains("and again") && line.contains("heliotrope"));
    assert!(again.count() > 0);
    // Nothing was told twice.
    let users = watch
        .messages()
        .into_iter()
        .filter(|message| message.role == Role::User);
    assert_eq!(users.count(), 2);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_of_claudes_text_come_through_whole() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "huge").await;
    assert_eq!(watch.answer().len(), 5_000_000);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_claudes_work_at_once_and_know_nothing_of_each_other() {
    let bed = ClaudeBed::new().await;
    let (one, two) = tokio::join!(bed.session(), bed.session());
    let ((one, mut first), (two, mut second)) = (one, two);
    tokio::join!(
        first.prompt(&one, "fake: say this is one"),
        second.prompt(&two, "fake: say this is two"),
    );
    assert_eq!(first.answer(), "this is one");
    assert_eq!(second.answer(), "this is two");
    bed.end(one, &mut first).await;
    bed.end(two, &mut second).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_between_claudes_lines_is_shown_and_disturbs_nothing() {
    let home = Home::new();
    let bin = agents().bin();
    // Whatever the agent says comes after lines that are none: no JSON, half of one, of another protocol, not text.
    let program = home.program(
        "bin/rubbish",
        &format!(
            "#!/bin/sh\nprintf 'Welcome!\\n{{\"jsonrpc\":\\n{{\"id\":1}}\\n[]\\n\\377\\376\\n\\n'\nexec {:?} {:?}\n",
            bin.join("node").canonicalize().unwrap(),
            bin.join(CLAUDE).canonicalize().unwrap(),
        ),
    );
    let read = format!("read = [{:?}]", bin.canonicalize().unwrap().parent().unwrap());
    let bed = ClaudeBed::of(home, &program, &read).await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "say hello").await;
    assert!(watch.answer().starts_with("Hello!"));
    let shown =
        watch.count(|event| matches!(event, Event::Notify(notify) if notify.level == NotifyLevel::Warning));
    assert!((1..=8).contains(&shown), "{shown}");
    bed.end(session, &mut watch).await;
    bed.close().await;
}

/// A picture of one point.
const POINT: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0,
    1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 13, b'I', b'D', b'A', b'T', 0x78, 0x9c, 0x63, 0, 1, 0,
    0, 5, 0, 1, 0x0d, 0x0a, 0x2d, 0xb4, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
];

#[tokio::test(flavor = "multi_thread")]
async fn claude_takes_pictures_models_levels_modes_and_begins_anew() {
    let bed = ClaudeBed::new().await;
    let (session, mut watch) = bed.session().await;
    session
        .prompt_with(Prompt {
            message: "say hello".to_owned(),
            images: vec![Media {
                source: Source::SourceInline(SourceInline {
                    data: Blob(POINT.to_vec()),
                    mime: "image/png".to_owned(),
                }),
                alt: None,
                duration_sec: None,
                transcript: None,
                filename: None,
                size_bytes: None,
            }],
            client_id: None,
            resources: Vec::new(),
        })
        .await
        .unwrap();
    watch.rest().await;
    assert!(bed.asked_of_the_model().contains("image/png"));

    let models = session
        .command(Command::GetModels(GetModels { workdir: None }))
        .await
        .unwrap();
    assert!(format!("{models:?}").contains("sonnet"), "{models:?}");
    let commands = session
        .command(Command::GetCommands(GetCommands {}))
        .await
        .unwrap();
    assert!(format!("{commands:?}").contains("compact"), "{commands:?}");
    let stats = session.stats().await.unwrap();
    assert!(stats.output_tokens > 0, "{stats:?}");

    session.command(Command::CycleModel(CycleModel {})).await.unwrap();
    watch
        .until("another model", |event| matches!(event, Event::ModelChanged(_)))
        .await;
    let cycle = Command::CycleThinkingLevel(CycleThinkingLevel {});
    session.command(cycle).await.unwrap();
    watch
        .until("another level", |event| {
            matches!(event, Event::ThinkingLevelChanged(_))
        })
        .await;

    let mode_id = "acceptEdits".to_owned();
    session
        .command(Command::SetMode(SetMode { mode_id }))
        .await
        .unwrap();
    let note = bed.file("note.txt").display().to_string();
    watch
        .prompt(&session, format!("fake: write {note} unasked || say done"))
        .await;
    assert_eq!(std::fs::read_to_string(&note).unwrap().trim(), "unasked");

    // A new session of its own knows nothing of the one before, and asks again.
    let anew = Command::SessionNew(SessionNew { parent_session: None });
    session.command(anew).await.unwrap();
    session
        .prompt(format!("fake: write {note} again || say done"))
        .await
        .unwrap();
    let request = watch.permission().await;
    session.refuse(&request.request_id).await.unwrap();
    watch.rest().await;
    assert_eq!(std::fs::read_to_string(&note).unwrap().trim(), "unasked");
    bed.end(session, &mut watch).await;
    bed.close().await;
}
