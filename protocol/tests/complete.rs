//! Nothing of the crate is left out of the other tests.
#![expect(clippy::unwrap_used, reason = "a helper of a test may end it")]

use std::fs;
use std::path::Path;

use oqto_protocol::command::Command;
use oqto_protocol::event::{Event, InputRequest};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::frame::Kind;
use oqto_protocol::message::{Content, Source};
use oqto_protocol::query::{Answer, Query};
use oqto_protocol::reply::ReplyData;

/// So that a new type of the crate cannot be forgotten in the samples.
#[test]
fn every_type_of_the_crate_has_samples() {
    let samples = include_str!("support/types.rs");
    for declared in declared_types() {
        assert!(
            samples.contains(&format!("::{declared} {{")) || samples.contains(&format!("::{declared},")),
            "{declared}"
        );
    }
}

/// The name of each type that one of the codec's three macros was given.
fn declared_types() -> Vec<String> {
    let mut names = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()) {
            if path.is_dir() && !path.ends_with("codec") {
                directories.push(path);
            } else if path.is_file() {
                let text = fs::read_to_string(&path).unwrap();
                names.extend(declared_in(&text));
            }
        }
    }
    names
}

fn declared_in(text: &str) -> Vec<String> {
    let name = |text: &str| {
        text.split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap()
            .to_owned()
    };
    let structs = text.split("\ngrows!(").skip(1).map(name);
    let enums = ["\nwords! {", "\nkinds! {"]
        .into_iter()
        .flat_map(|start| text.split(start).skip(1))
        .map(|body| name(body.split_once("pub enum ").unwrap().1));
    structs.chain(enums).collect()
}

#[test]
fn the_documentation_names_all_that_there_is() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let manual = fs::read_to_string(manual).unwrap();
    let variants = [
        Event::NAMES,
        InputRequest::NAMES,
        Command::NAMES,
        ReplyData::NAMES,
        Query::NAMES,
        Answer::NAMES,
        Content::NAMES,
    ];
    // The type of an extension is its own name.
    let names = variants
        .into_iter()
        .flatten()
        .map(|(name, _)| *name)
        .filter(|name| *name != "x");
    for name in names {
        assert!(manual.contains(&format!("`{name}`")), "{name}");
    }
    for (name, _) in Source::NAMES {
        assert!(manual.contains(&format!("type: \"{name}\"")), "{name}");
    }
    for code in FaultCode::ALL {
        assert!(manual.contains(&format!("| `{code}` |")), "{code}");
    }
    for (Kind(number), name) in Kind::ALL {
        assert!(manual.contains(&format!("| {number} | {name} |")), "{name}");
    }
}
