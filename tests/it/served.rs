//! An agent whose definition says `serve` is served its files and terminals, the whole way, inside its sandbox.

use oqto_tests::Home;
use serde_json::{Value, json};

/// What came of what an agent asked its client for; before that, what it was told that the client can do.
fn asked(serve: &str, asks: &Value) -> Vec<Value> {
    let home = Home::new();
    home.file("workspace/agent.py", include_str!("../tools/acp_fs_agent.py"));
    home.file("workspace/mine", "seen");
    let agent = home.path("workspace/agent.py");
    home.configure(&format!(
        "[harness.asks]\ndialect = \"acp\"\nprogram = \"/usr/bin/python3\"\nargs = [{agent:?}]\n{serve}\n"
    ));
    let workspace = home.workspace().display().to_string();
    let prompt = asks.to_string().replace("$WORKSPACE", &workspace);
    let words = [
        "run",
        "--harness",
        "asks",
        "--policy",
        "open-net",
        "--json",
        &prompt,
    ];
    let out = home.run(&words).ok();
    let events = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let deltas = events.filter(|event| event["event"] == "stream.text_delta");
    let text: String = deltas
        .map(|event| event["delta"].as_str().unwrap().to_owned())
        .collect();
    home.no_agents();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_a_definition_serves_is_offered_and_done_in_the_sandbox() {
    let said = asked(
        "serve = [\"fs\", \"terminal\"]",
        &json!([
            ["fs/read_text_file", { "path": "$WORKSPACE/mine" }],
            ["fs/write_text_file", { "path": "$WORKSPACE/made", "content": "by the agent" }],
            ["fs/read_text_file", { "path": "/etc/shadow" }],
            ["terminal/create", { "command": "id -u; cat made; cat /etc/shadow" }],
            ["terminal/wait_for_exit", { "terminalId": "$LAST" }],
            ["terminal/output", { "terminalId": "$LAST" }],
        ]),
    );
    assert_eq!(
        said[0]["fs"],
        json!({ "readTextFile": true, "writeTextFile": true })
    );
    assert_eq!(said[0]["terminal"], true);
    assert_eq!(said[1], json!({ "content": "seen" }));
    assert_eq!(said[2], json!({}));
    assert!(
        said[3]["code"].is_i64() || said[3]["content"] == "",
        "{}",
        said[3]
    );
    let output = said[6]["output"].as_str().unwrap();
    assert!(
        output.contains("by the agent") && !output.contains("root:"),
        "{output}"
    );
    assert!(!output.starts_with("0\n"), "{output}");
}

#[test]
fn without_it_nothing_is_offered_and_what_is_asked_for_is_refused() {
    let said = asked("", &json!([["fs/read_text_file", { "path": "$WORKSPACE/mine" }]]));
    assert_eq!(
        said[0]["fs"],
        json!({ "readTextFile": false, "writeTextFile": false })
    );
    assert_eq!(said[1]["code"], -32601);
}
