//! The program that embeds the library.

use oqto_protocol::event::Event;
use oqto_tests::{Home, end, example};

#[test]
fn the_example_embeds_a_runner_and_prints_what_its_session_says() {
    let home = Home::new();
    let ended = end(home
        .environment(&example("embed"))
        .arg("echo embedded > made; cat made"));
    let out = ended.ok();
    let events = oqto_tests::events(&out);
    let said = events.iter().filter_map(|envelope| match &envelope.event {
        Event::ToolProgress(progress) => Some(progress.partial_output.value()["stdout"].clone()),
        _ => None,
    });
    assert_eq!(said.collect::<Vec<_>>(), ["embedded\n"]);
    let made = std::fs::read_to_string(home.path("workspace/made")).unwrap();
    assert_eq!(made, "embedded\n");
    home.no_agents();
}
