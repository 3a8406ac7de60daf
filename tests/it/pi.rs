//! Real pi in the sandbox, driven through the library. After every run our log, the stream and pi itself must agree.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use oqto_control::{CommandError, Event, Session};
use oqto_protocol::event::{DoneReason, NotifyLevel, Phase};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::message::{Content, Role, StopReason};
use oqto_protocol::session::SessionState;

use crate::pi_bed::PiBed;
use crate::watch::{Watch, text};

#[tokio::test(flavor = "multi_thread")]
async fn pi_says_hello() {
    let bed = PiBed::new().await;
    let watch = bed.talk(&["say hello"]).await;
    assert!(watch.answer().starts_with("Hello! I am a scripted model"));
    assert!(watch.answer().contains("日本語"));
    // Who is behind gets neighbouring deltas as one.
    assert!(watch.count(|event| matches!(event, Event::TextDelta(_))) > 0);
    assert_eq!(watch.done(), DoneReason::Stop);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_is_spoken_to_again_and_again() {
    let bed = PiBed::new().await;
    let watch = bed
        .talk(&["say hello", "anything", "run echo third", "say hello"])
        .await;
    let prompts: Vec<String> = watch
        .messages()
        .iter()
        .filter(|message| message.role == Role::User)
        .map(text)
        .collect();
    assert_eq!(prompts, ["say hello", "anything", "run echo third", "say hello"]);
    assert_eq!(watch.count(|event| matches!(event, Event::StreamDone(_))), 4);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_thinks_aloud() {
    let bed = PiBed::new().await;
    let watch = bed.talk(&["think"]).await;
    assert!(watch.count(|event| matches!(event, Event::ThinkingDelta(_))) > 0);
    assert!(
        watch
            .count(|event| matches!(event, Event::AgentWorking(working) if working.phase == Phase::Thinking))
            > 0
    );
    let messages = watch.messages();
    let thoughts = messages.iter().flat_map(|message| &message.parts).filter(
        |part| matches!(&part.content, Content::Thinking(thought) if thought.text.starts_with("The user wants me to think")),
    );
    assert_eq!(thoughts.count(), 1);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_runs_a_shell_command_as_the_owner_of_the_workspace() {
    let bed = PiBed::new().await;
    let watch = bed.talk(&["run id -u && touch made"]).await;
    let owner = bed.home.workspace().metadata().unwrap().uid();
    let results = watch.tools();
    assert_eq!(results.len(), 1);
    assert!(!results[0].is_error);
    assert!(
        results[0].output.text().contains(&owner.to_string()),
        "{}",
        results[0].output.text()
    );
    assert_ne!(owner, 0);
    assert_eq!(bed.home.path("workspace/made").metadata().unwrap().uid(), owner);
    assert!(watch.answer().contains(&owner.to_string()));
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_writes_and_edits_a_file_that_belongs_to_the_owner_of_the_workspace() {
    let bed = PiBed::new().await;
    let path = bed.home.workspace().join("note.txt");
    bed.talk(&[
        "fake: write note.txt written-by-pi || say done",
        "fake: edit note.txt written edited || say done",
    ])
    .await;
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), "edited-by-pi");
    let workspace = bed.home.workspace().metadata().unwrap();
    assert_eq!(path.metadata().unwrap().uid(), workspace.uid());
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_calls_of_one_turn_are_kept_apart() {
    let bed = PiBed::new().await;
    let watch = bed.talk(&["parallel"]).await;
    let mut ended: Vec<_> = watch
        .seen
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::ToolEnd(end) => Some(end.tool_call_id.clone()),
            _ => None,
        })
        .collect();
    ended.sort();
    ended.dedup();
    assert_eq!(ended.len(), 2);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_an_answer_in_the_middle() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("slow 2000 50").await.unwrap();
    watch
        .until("delta", |event| matches!(event, Event::TextDelta(_)))
        .await;
    let asked = Instant::now();
    session.abort().await.unwrap();
    watch.rest().await;
    // The whole answer would have taken a hundred seconds.
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", asked.elapsed());
    assert_eq!(watch.done(), DoneReason::Aborted);
    let last = watch.messages().pop().unwrap();
    assert_eq!(last.stop_reason, Some(StopReason::Aborted));
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    watch.prompt(&session, "say hello").await;
    assert!(watch.answer().starts_with("Hello!"));
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_a_tool_with_everything_that_it_started() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.prompt("run sleep 1000 & sleep 1000").await.unwrap();
    watch
        .until("tool", |event| matches!(event, Event::ToolStart(_)))
        .await;
    session.abort().await.unwrap();
    watch.rest().await;
    assert_eq!(watch.done(), DoneReason::Aborted);
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.home.no_agents();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_once_is_asked_again() {
    let bed = PiBed::new().await;
    let watch = bed.talk(&["error 500 x1"]).await;
    assert_eq!(watch.count(|event| matches!(event, Event::RetryStart(_))), 1);
    assert_eq!(
        watch.count(|event| matches!(event, Event::RetryEnd(end) if end.success)),
        1
    );
    assert_eq!(watch.count(|event| matches!(event, Event::StreamDone(_))), 1);
    assert_eq!(watch.done(), DoneReason::Stop);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_is_an_error_and_the_session_goes_on() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    watch.prompt(&session, "error 400").await;
    assert_eq!(watch.done(), DoneReason::Error);
    let errors = watch.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].recoverable && errors[0].error.contains("400"),
        "{errors:?}"
    );
    watch.prompt(&session, "say hello").await;
    assert_eq!(watch.done(), DoneReason::Stop);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_without_a_model_is_refused_in_words_that_say_so() {
    let bed = PiBed::new().await;
    std::fs::remove_file(bed.home.path("harness-config/models.json")).unwrap();
    let mut config = bed.config();
    (config.provider, config.model) = (None, None);
    let session = bed.runner.create(config).await.unwrap();
    let mut watch = Watch::new(session.events().await.unwrap());
    // Its start is not the prompt's.
    session.stats().await.unwrap();
    let asked = Instant::now();
    let said = session.prompt("say hello").await;
    let took = asked.elapsed();
    match said {
        Err(CommandError::Refused { source, .. }) => {
            assert_eq!(source.0.code, FaultCode::Harness, "{source}");
            assert!(source.0.message.contains("model"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    // Not because pi had said nothing for half a minute.
    assert!(took < Duration::from_secs(20), "{took:?}");
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_pi_does_not_know_is_told_in_pis_words() {
    let bed = PiBed::new().await;
    let mut config = bed.config();
    (config.provider, config.model) = (Some("nobody".to_owned()), Some("no-such-model".to_owned()));
    let session = bed.runner.create(config).await.unwrap();
    let mut watch = Watch::new(session.events().await.unwrap());
    watch.closed().await;
    watch.is_sound();
    let errors = watch.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        !errors[0].recoverable && errors[0].error.contains("no-such-model"),
        "{errors:?}"
    );
    bed.home.no_agents();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_of_text_come_through_whole() {
    let bed = PiBed::new().await;
    let watch = bed.talk(&["huge"]).await;
    assert_eq!(watch.answer().len(), 5_000_000);
    bed.close().await;
}

/// An extension that writes past pi, between its lines: no JSON, half of one, none of pi's, no text.
const RUBBISH: &str = r#"
import { writeSync } from "node:fs";
const rubbish = ["Welcome!\n", "{\"type\":\n", "[]\n", "null\n", "\n", "{\"id\":1}\n", Buffer.from([255, 254, 10]),
  "{\"type\":\"message_update\"}\n", "{\"type\":7}\n",
  "{\"type\":\"response\",\"id\":\"nobody\",\"command\":\"prompt\",\"success\":true}\n"];
let said = 0;
const say = () => { writeSync(1, rubbish[said++ % rubbish.length]); };
export default function (pi) {
  for (const when of ["session_start", "message_update", "message_end", "tool_execution_start", "agent_end"]) {
    pi.on(when, say);
  }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_between_pis_lines_is_shown_and_disturbs_nothing() {
    let bed = PiBed::new().await;
    let extension = bed.home.file("workspace/rubbish.js", RUBBISH);
    let settings = serde_json::json!({ "extensions": [extension] });
    bed.home
        .file("harness-config/settings.json", &settings.to_string());
    let watch = bed.talk(&["say hello", "run echo still here"]).await;
    assert!(
        watch
            .messages()
            .iter()
            .map(text)
            .any(|text| text.starts_with("Hello!"))
    );
    assert!(watch.answer().contains("still here"), "{}", watch.answer());
    let shown =
        watch.count(|event| matches!(event, Event::Notify(notify) if notify.level == NotifyLevel::Warning));
    assert!((1..=8).contains(&shown), "{shown}");
    bed.close().await;
}

/// Has pi run a tool that goes on until it is let go.
async fn works(session: &Session, watch: &mut Watch) {
    let prompt = "fake: shell until test -e go; do sleep 0.02; done || say first";
    session.prompt(prompt).await.unwrap();
    watch
        .until("tool", |event| matches!(event, Event::ToolStart(_)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_is_steered_in_the_middle_of_its_work() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    works(&session, &mut watch).await;
    session.steer("fake: say steered").await.unwrap();
    bed.home.file("workspace/go", "");
    watch.rest().await;
    assert_eq!(watch.answer(), "steered");
    assert_eq!(watch.count(|event| matches!(event, Event::StreamDone(_))), 1);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_follow_comes_after_the_work_at_hand() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    works(&session, &mut watch).await;
    session.follow_up("fake: say afterwards").await.unwrap();
    bed.home.file("workspace/go", "");
    watch.rest().await;
    assert_eq!(watch.answer(), "afterwards");
    let roles: Vec<Role> = watch
        .messages()
        .iter()
        .map(|message| message.role)
        .filter(|role| *role != Role::System)
        .collect();
    let (user, tool, assistant) = (Role::User, Role::Tool, Role::Assistant);
    assert_eq!(roles, [user, assistant, tool, assistant, user, assistant]);
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn model_and_thinking_level_are_changed_and_the_state_says_so() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    session.set_model("fake", "other-model").await.unwrap();
    watch
        .until(
            "model",
            |event| matches!(event, Event::ModelChanged(to) if to.model_id == "other-model"),
        )
        .await;
    session.set_thinking_level("low").await.unwrap();
    watch
        .until(
            "level",
            |event| matches!(event, Event::ThinkingLevelChanged(to) if to.level == "low"),
        )
        .await;
    let state = session.state().await.unwrap();
    assert_eq!(state.info.model.as_deref(), Some("other-model"));
    assert_eq!(state.thinking_level.as_deref(), Some("low"));
    assert_eq!(state.info.policy, "open-net");
    session.set_model("fake", "no-such-model").await.unwrap_err();
    watch.prompt(&session, "say hello").await;
    let said = watch.messages();
    assert_eq!(said.last().unwrap().model.as_deref(), Some("other-model"));
    bed.end(session, &mut watch).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_compacted_when_asked() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    for _ in 0..3 {
        watch.prompt(&session, "huge 40000").await;
    }
    session.compact(None).await.unwrap();
    let compacted = watch
        .until("end of compaction", |event| matches!(event, Event::CompactEnd(_)))
        .await;
    assert!(
        matches!(&compacted, Event::CompactEnd(end) if end.success),
        "{compacted:?}"
    );
    assert_eq!(session.state().await.unwrap().info.state, SessionState::Idle);
    watch.prompt(&session, "say hello").await;
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}
