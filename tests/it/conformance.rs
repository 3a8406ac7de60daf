//! `docs/HARNESSES.md`: what is said there of each harness is what its tests and its own words say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use oqto_protocol::session::Capability;
use oqto_runner::harness::{Harness, Harnesses};

const PAGE: &str = include_str!("../../docs/HARNESSES.md");

/// Where the recordings of the agent of the second column are, and the recording that says what it can do.
const CLAUDE_TAPE: &str = include_str!("../tapes/acp/claude-agent-acp-0.101.0/golden/hello.jsonl");

/// The rows of each table: what is in the first column, and the cells of the others.
fn tables() -> Vec<BTreeMap<String, Vec<String>>> {
    let mut tables: Vec<BTreeMap<_, _>> = Vec::new();
    let lines = PAGE.lines().filter(|line| line.starts_with('|'));
    for line in lines.filter(|line| !line.starts_with("|--")) {
        let mut cells = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned());
        let what = cells.next().unwrap();
        match tables.last_mut() {
            Some(table) if what != "what" => {
                table.insert(what, cells.collect());
            }
            _ => tables.push(BTreeMap::new()),
        }
    }
    tables
}

/// All files below a directory.
fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            below(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_cell_names_a_test_or_a_recording_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for dir in [
        "tests/it",
        "tests/tapes",
        "tests/sandbox",
        "runner/tests",
        "runner/src",
    ] {
        below(&root.join(dir), &mut files);
    }
    let sources = files
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs"));
    let source: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let has_tape = |name: &str| {
        let file = format!("{name}.jsonl");
        files.iter().any(|path| path.ends_with(&file))
    };
    let tables = tables();
    assert!(
        tables.len() == 2 && tables[0].len() > Capability::ALL.len(),
        "the tables are not found"
    );
    for (row, cells) in tables.into_iter().flatten() {
        for cell in cells.iter().filter(|cell| *cell != "no") {
            let name = cell.trim_matches('`');
            let is_there = match name.contains('/') {
                true => has_tape(name),
                false => source.contains(&format!("fn {name}(")),
            };
            assert!(is_there, "{row}: {cell}");
        }
    }
}

#[test]
fn a_capability_has_a_cell_where_its_harness_has_it_and_nowhere_else() {
    let rows = &tables()[0];
    let created = CLAUDE_TAPE
        .lines()
        .find(|line| line.contains("session.created"))
        .unwrap();
    let created: serde_json::Value = serde_json::from_str(created).unwrap();
    let claude = created["record"]["capabilities"].as_array().unwrap();
    for capability in Capability::ALL {
        let word = capability.to_string();
        let cells = rows.get(&word).unwrap_or_else(|| panic!("no row {word}"));
        let has = [
            Harness::pi().made_to_ask().capabilities().contains(capability),
            claude.iter().any(|it| *it == word.as_str()),
            Harness::exec().capabilities().contains(capability),
        ];
        let said: Vec<bool> = cells.iter().map(|cell| cell != "no").collect();
        assert_eq!(said, has, "{word}: pi, claude-agent-acp, exec");
    }
}

#[test]
fn every_harness_that_is_ready_has_a_paragraph() {
    for harness in Harnesses::new(BTreeMap::new()).unwrap().iter() {
        let name = harness.name();
        assert!(PAGE.contains(&format!("\n### {name}\n")), "{name}");
        if let Some(install) = &harness.definition().install {
            assert!(PAGE.contains(install), "{name}: {install}");
        }
        if let Some(tested) = &harness.definition().tested {
            assert!(PAGE.contains(&format!("Tested: {tested}.")), "{name}: {tested}");
        }
    }
}
