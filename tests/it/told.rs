//! What `oqtoctl` tells a session beside what is said in it: models, levels, modes, titles, and any other command.

use oqto_control::Event;
use serde_json::Value;

use crate::pi_bed::PiBed;

#[tokio::test(flavor = "multi_thread")]
async fn oqtoctl_changes_what_a_session_has_and_names_what_it_has_not() {
    let bed = PiBed::new().await;
    let (session, mut watch) = bed.session().await;
    let id = session.id().to_string();
    let text = bed.home.run(&["models", &id]).ok();
    assert!(
        text.lines().any(|line| line.starts_with("fake/fake-model ")),
        "{text}"
    );
    let listed: Value = serde_json::from_str(&bed.home.run(&["models", &id, "--json"]).ok()).unwrap();
    assert_eq!(listed["models"][0]["provider"], "fake");

    let _done = bed.home.run(&["set", &id, "--model", "fake-model"]).ok();
    let mistyped = bed.home.run(&["set", &id, "--model", "fake-modle"]);
    mistyped.failed(125, &["cannot find model fake-modle", "did you mean fake-model?"]);
    let _done = bed.home.run(&["set", &id, "--thinking", "high"]).ok();
    let _done = bed.home.run(&["set", &id, "--title", "spring cleaning"]).ok();
    let text = bed.home.run(&["show", &id]).ok();
    for line in [
        "model      fake/fake-model",
        "thinking   high",
        "title      spring cleaning",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // What the agent cannot do is refused by its name, and what is no command before anybody is asked.
    let refused = bed.home.run(&["set", &id, "--mode", "plan"]);
    refused.failed(
        125,
        &[
            "set_mode",
            "oqtoctl show lists what the agent of a session can do",
        ],
    );
    bed.home
        .run(&["set", &id])
        .failed(2, &["--model", "--thinking", "--mode", "--title"]);
    let broken = bed.home.run(&["send", &id, r#"{"cmd":"shell","comand":"true"}"#]);
    broken.failed(125, &["cannot read the command"]);

    let shell = r#"{"cmd":"shell","command":"echo $((6*7)) > sum"}"#;
    let _done = bed.home.run(&["send", &id, shell]).ok();
    watch
        .until("the command's end", |event| matches!(event, Event::ToolEnd(_)))
        .await;
    assert_eq!(
        std::fs::read_to_string(bed.home.path("workspace/sum")).unwrap(),
        "42\n"
    );
    let answer: Value =
        serde_json::from_str(&bed.home.run(&["send", &id, r#"{"cmd":"get_state"}"#]).ok()).unwrap();
    assert_eq!(answer["status"]["thinking_level"], "high");

    let _done = bed.home.run(&["follow-up", &id, "fake: say later"]).ok();
    watch.rest().await;
    assert!(bed.home.run(&["messages", &id]).ok().contains("later"));
    session.close().await.unwrap();
    watch.closed().await;
    watch.is_sound();
    bed.close().await;
}
