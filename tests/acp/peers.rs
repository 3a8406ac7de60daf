//! Agents of others, the whole way: a real runner, its sandbox, and an agent made with the official crate or SDK.

use std::os::unix::fs::MetadataExt as _;

use crate::bed::{Bed, texts};
use crate::clients::{AGENT, Sdk, heard};

#[tokio::test]
async fn an_official_agent_says_the_same_to_us_and_to_the_official_client() {
    let bed = Bed::new();
    for prompt in ["say one two  three 日本語 \u{2028} end", "where"] {
        let ours = bed.run(prompt);
        assert_eq!(ours, heard(AGENT, prompt).await);
        assert!(!ours.is_empty());
    }
}

#[test]
fn an_official_agent_is_allowed_and_refused_what_it_asks() {
    let bed = Bed::new();
    for (how, said) in [
        ("--yes", "allowed"),
        ("--no", "refused"),
        ("--cancel", "cancelled"),
    ] {
        let mut running = bed.start("official", "ask");
        running.answer(how);
        assert_eq!(running.end(), (said.to_owned(), "stop".to_owned()));
    }
}

#[test]
fn an_official_agent_is_stopped() {
    let bed = Bed::new();
    let mut running = bed.start("official", "wait");
    running.until("stream.text_delta");
    bed.ctl(&["abort", "--json", &running.session]);
    assert_eq!(running.end(), ("waiting".to_owned(), "aborted".to_owned()));
}

#[test]
fn an_official_agent_goes_on_with_its_session_in_another_process() {
    let bed = Bed::new();
    let running = bed.start("official", "where");
    let session = running.session.clone();
    assert_eq!(running.end().0, "the-first");
    bed.ctl(&["restart", "--json", &session]);
    // What it repeats of before is not told twice.
    let again = texts(&bed.ctl(&["prompt", "--json", &session, "where"]));
    assert_eq!(again, "the-first");
}

#[test]
fn an_official_agent_is_served_files_and_terminals() {
    let bed = Bed::new();
    bed.define("serve = [\"fs\", \"terminal\"]\n");
    let note = bed.path("workspace/note").display().to_string();
    for (prompt, said) in [
        (format!("write {note} one two"), "written"),
        (format!("read {note}"), "one two"),
        ("run cat note; exit 3".to_owned(), "one twoSome(3)"),
        ("write /etc/note one".to_owned(), "not written"),
    ] {
        assert_eq!(bed.run(&prompt), said, "{prompt}");
    }
    let owner = |name: &str| std::fs::metadata(bed.path(name)).unwrap().uid();
    assert_eq!(owner("workspace/note"), owner("workspace"));
}

#[test]
fn the_example_of_the_official_sdk_does_all_of_its_turn() {
    let Some(sdk) = Sdk::installed() else { return };
    let bed = Bed::new();
    let text = format!(
        "[harness.example]\ndialect = \"acp\"\nprogram = {:?}\nargs = [{:?}]\nread = [{:?}]\n",
        sdk.node(),
        sdk.example("agent"),
        sdk.packages,
    );
    bed.file("runner.toml", 0o644, &text);
    let mut running = bed.start("example", "hello");
    running.answer("--yes");
    let (said, reason) = running.end();
    assert_eq!(reason, "stop");
    assert!(said.starts_with("I'll help you with that"), "{said}");
    assert!(
        said.contains("Perfect! I've successfully updated the configuration"),
        "{said}"
    );
}
