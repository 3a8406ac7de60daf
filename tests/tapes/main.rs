//! Recorded sessions of real agents, given to the session core.
//!
//! Every recording has a golden file of all that the core wants done for it. `BLESS=1` writes them anew: read the
//! difference before you commit it.

mod acp;
mod play;
mod tape;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oqto_protocol::event::{DoneReason, Event, Phase};
use oqto_protocol::id::MessageId;
use oqto_protocol::message::{Content, Message, Role};
use oqto_runner::harness::Tongue;
use oqto_runner::session::{Action, Session, Setup};
use proptest::prelude::*;
use serde_json::Value;

use play::{events, lasting, live, play, recut, session, setup};
use tape::{Record, What};

/// A recording, and what its session is made of.
struct Tape {
    name: String,
    setup: Setup,
    records: Vec<Record>,
}

fn tapes() -> impl Iterator<Item = Tape> {
    let acp = acp::all().into_iter().map(|tape| Tape {
        name: tape.name,
        setup: setup(tape.harness, tape.continue_session),
        records: tape.records,
    });
    of_pi().chain(acp)
}

fn of_pi() -> impl Iterator<Item = Tape> {
    tape::all().into_iter().map(|(name, path)| Tape {
        setup: setup(tape::pi(&name), None),
        name,
        records: tape::read(&path),
    })
}

fn golden_path(name: &str, tongue: Tongue) -> PathBuf {
    match tongue {
        Tongue::Acp => acp::golden(name),
        Tongue::Pi | Tongue::Exec => tape::golden(name),
    }
}

fn played(setup: &Setup, records: &[Record]) -> Vec<Action> {
    lasting(play(&mut session(setup), records))
}

fn messages(actions: &[Action]) -> Vec<&Message> {
    events(actions)
        .filter_map(|event| match event {
            Event::MessageEnd(end) => Some(&*end.message),
            _ => None,
        })
        .collect()
}

#[test]
fn every_recording_gives_what_its_golden_file_says() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for Tape { name, setup, records } in tapes() {
        let mut seq = 0;
        let mut lines = String::new();
        for action in played(&setup, &records) {
            seq += u64::from(matches!(action, Action::Record { .. }));
            lines.push_str(&play::golden(seq, &action).to_string());
            lines.push('\n');
        }
        let path = golden_path(&name, setup.harness.tongue());
        if bless {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
            std::fs::write(&path, lines).expect("writable");
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&lines) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "differ from their golden files: {wrong:?}");
}

#[test]
fn no_recording_has_a_line_that_is_not_understood() {
    let shown = ["x-pi-queue", "x-pi-title", "x-pi-editor-text"];
    for Tape { name, setup, records } in of_pi() {
        for event in events(&played(&setup, &records)) {
            match event {
                Event::Status(status) if status.key.starts_with("x-pi-") => assert!(
                    shown.contains(&status.key.as_str()) || status.key.starts_with("x-pi-widget-"),
                    "{name}: {status:?}"
                ),
                // There pi itself was told what it could not understand.
                Event::Notify(note) if tape::scenario(&name) != "malformed" => {
                    assert!(!note.message.contains("not of its protocol"), "{name}: {note:?}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_tape_read_twice_or_lived_through_gives_the_same() {
    for Tape { name, setup, records } in tapes() {
        let once = played(&setup, &records);
        assert_eq!(once, played(&setup, &records), "{name}");
        assert_eq!(once, lasting(live(&mut session(&setup), &records)), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_tape_cut_anywhere_gives_the_same(sizes in prop::collection::vec(1_usize..3000, 1..64)) {
        for Tape { name, setup, records } in tapes() {
            let mut sizes = sizes.iter().copied().cycle();
            let cut = recut(&records, || sizes.next().unwrap_or(1));
            prop_assert_eq!(played(&setup, &records), played(&setup, &cut), "{}", name);
        }
    }

    #[test]
    fn a_tape_with_bytes_changed_breaks_nothing(changes in prop::collection::vec(any::<(u16, u8)>(), 1..200)) {
        for Tape { name, setup, mut records } in tapes() {
            let mut changes = changes.iter().cycle();
            for record in &mut records {
                if let (What::Out(bytes), Some((at, byte))) = (&mut record.what, changes.next()) {
                    let at = usize::from(*at) % bytes.len();
                    bytes[at] = *byte;
                }
            }
            let actions = played(&setup, &records);
            let numbers: Vec<u64> = messages(&actions).iter().map(|message| message.idx).collect();
            let expected: Vec<u64> = (0..).take(numbers.len()).collect();
            prop_assert_eq!(numbers, expected, "{}", name);
        }
    }
}

#[test]
fn a_session_goes_on_from_every_snapshot_as_if_nothing_had_been() {
    let mut taken = 0;
    for Tape { name, setup, records } in tapes() {
        let mut whole = session(&setup);
        let mut ends = Vec::new();
        let mut snapshots = Vec::new();
        let mut all = Vec::new();
        for (n, record) in records.iter().enumerate() {
            whole.step(&record.what.input(), record.at, &mut all);
            ends.push(all.len());
            if let [.., Action::Rest] = all.as_slice() {
                let text = serde_json::to_string(&whole.snapshot()).expect("snapshots have a form");
                snapshots.push((n, text));
            } else {
                assert!(whole.snapshot().is_none(), "{name}: at rest and not said");
            }
        }
        for (n, text) in snapshots {
            let snapshot = serde_json::from_str(&text).expect("its own form");
            let mut again = Session::restore(&snapshot, setup.clone()).expect("its own form");
            let rest = play(&mut again, &records[n + 1..]);
            assert_eq!(rest, all[ends[n]..], "{name} from record {n}");
            taken += 1;
        }
    }
    assert!(taken > 100, "only {taken} snapshots");
}

#[test]
fn messages_are_numbered_without_gaps_and_keep_their_ids() {
    for Tape { name, setup, records } in tapes() {
        let actions = played(&setup, &records);
        let mut open: Option<MessageId> = None;
        let mut next = 0;
        for event in events(&actions) {
            let of = match event {
                Event::MessageStart(it) => {
                    assert_eq!(open.replace(it.message_id), None, "{name}: two at once");
                    assert_eq!(it.message_id, MessageId::numbered(next), "{name}");
                    continue;
                }
                Event::MessageEnd(it) => {
                    assert_eq!(open.take(), Some(it.message.id), "{name}");
                    assert_eq!(it.message.idx, next, "{name}");
                    next += 1;
                    continue;
                }
                Event::TextDelta(it) => it.message_id,
                Event::ThinkingDelta(it) => it.message_id,
                Event::ToolCallStart(it) => it.message_id,
                Event::ToolCallDelta(it) => it.message_id,
                Event::ToolCallEnd(it) => it.message_id,
                _ => continue,
            };
            assert_eq!(open, Some(of), "{name}");
        }
        assert_eq!(open, None, "{name}: a message without its end");
    }
}

#[test]
fn deltas_together_are_what_the_finished_message_says() {
    for Tape { name, setup, records } in tapes() {
        let actions = played(&setup, &records);
        let mut deltas: BTreeMap<(MessageId, u32), String> = BTreeMap::new();
        for event in events(&actions) {
            match event {
                Event::TextDelta(it) => deltas
                    .entry((it.message_id, it.content_index))
                    .or_default()
                    .push_str(&it.delta),
                Event::ThinkingDelta(it) => deltas
                    .entry((it.message_id, it.content_index))
                    .or_default()
                    .push_str(&it.delta),
                _ => {}
            }
        }
        for ((id, index), text) in deltas {
            let message = *messages(&actions)
                .iter()
                .find(|message| message.id == id)
                .expect("ended");
            let said = match &message.parts[index as usize].content {
                Content::Text(it) => it.text.as_str(),
                // Of one provider's thoughts pi itself cuts the last blank lines off, once it has streamed them.
                Content::Thinking(it) if text.trim_end() == it.text => text.as_str(),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(said, text, "{name} {id}");
        }
    }
}

#[test]
fn finished_messages_are_those_that_pi_reports_at_the_end_of_its_runs() {
    for Tape { name, setup, records } in of_pi() {
        let actions = played(&setup, &records);
        let ours: Vec<(Role, Vec<String>)> = messages(&actions)
            .into_iter()
            // Of what died in the middle pi reports nothing.
            .filter(|message| message.metadata.as_ref().is_none_or(|it| !it.text().contains("incomplete")))
            .map(|message| (message.role, message.parts.iter().map(said).collect()))
            .collect();
        let theirs: Vec<(Role, Vec<String>)> = reported(&records);
        let common = theirs.len().min(ours.len());
        assert_eq!(ours[..common], theirs[..common], "{name}");
        let unfinished = [
            "crash",
            "sigterm_midstream",
            "stdin_close_midstream",
            "extension_ui_abort",
        ];
        if !unfinished.contains(&tape::scenario(&name)) {
            assert_eq!(ours.len(), theirs.len(), "{name}");
        }
    }
}

/// What the runs of a recording say of their own messages.
fn reported(records: &[Record]) -> Vec<(Role, Vec<String>)> {
    let mut all = Vec::new();
    for record in records {
        let What::Out(line) = &record.what else { continue };
        let Ok(value) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        if value["type"] != "agent_end" {
            continue;
        }
        for message in value["messages"].as_array().expect("a list") {
            let content = &message["content"];
            all.push(match message["role"].as_str() {
                Some("user") => (Role::User, parts(content)),
                Some("assistant") => (Role::Assistant, parts(content)),
                Some("toolResult") => (Role::Tool, vec![content.to_string()]),
                _ => (Role::System, vec![message["sections"].to_string()]),
            });
        }
    }
    all
}

fn parts(content: &Value) -> Vec<String> {
    let part = |part: &Value| match part["type"].as_str() {
        Some("text") => part["text"].as_str().unwrap_or_default().to_owned(),
        Some("thinking") => part["thinking"].as_str().unwrap_or_default().to_owned(),
        Some("toolCall") => format!("{} {}", part["name"], part["arguments"]),
        Some("image") => part["data"].to_string(),
        _ => part.to_string(),
    };
    content.as_array().expect("a list").iter().map(part).collect()
}

fn said(part: &oqto_protocol::message::Part) -> String {
    match &part.content {
        Content::Text(it) => it.text.clone(),
        Content::Thinking(it) => it.text.clone(),
        Content::ToolCall(it) => {
            let input = it.input.as_ref().map(oqto_protocol::codec::Json::value);
            format!("{:?} {}", it.name, input.unwrap_or_default())
        }
        Content::ToolResult(it) => it
            .output
            .as_ref()
            .map(|output| output.value().to_string())
            .unwrap_or_default(),
        Content::Image(it) => match &it.source {
            oqto_protocol::message::Source::SourceInline(inline) => {
                serde_json::to_value(&inline.data).unwrap_or_default().to_string()
            }
            other => panic!("{other:?}"),
        },
        Content::Extension(it) => it
            .payload
            .as_ref()
            .map(|it| it.value().to_string())
            .unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_run_begins_works_and_ends_in_order() {
    for Tape { name, setup, records } in tapes() {
        let actions = played(&setup, &records);
        let mut working = false;
        let mut done: Option<DoneReason> = None;
        for event in events(&actions) {
            match event {
                Event::AgentWorking(_) => working = true,
                Event::StreamDone(it) => {
                    assert!(working, "{name}: done before it worked");
                    assert_eq!(done.replace(it.reason), None, "{name}: done twice");
                }
                Event::AgentIdle(_) => {
                    assert!(working, "{name}: idle twice");
                    (working, done) = (false, None);
                }
                Event::MessageEnd(_) | Event::TextDelta(_) => {
                    // There a second prompt was refused here and answered all the same.
                    assert!(
                        working && done.is_none() || name.ends_with("/concurrent"),
                        "{name}: a message outside a run"
                    );
                }
                _ => {}
            }
        }
        let last = events(&actions).last();
        if records
            .iter()
            .any(|record| matches!(record.what, What::Exited(_)))
        {
            // One that died unasked is about to be started again.
            let rises = matches!(last, Some(Event::AgentWorking(it)) if it.phase == Phase::Initializing);
            let died = match setup.harness.tongue() {
                Tongue::Acp => name.ends_with("/sigterm_midstream"),
                _ => tape::scenario(&name) == "crash",
            };
            assert_eq!(rises, died, "{name}: {last:?}");
            assert!(
                rises || matches!(last, Some(Event::SessionClosed(_))),
                "{name}: {last:?}"
            );
        }
    }
}

/// What a session wants done in the nth turn of one that says the same each time.
fn of_turn(session: &mut Session, records: &[Record], n: u64) -> Vec<Action> {
    let prompt = records.iter().find_map(|record| match &record.what {
        What::Command(envelope) if envelope.command.name() == "prompt" => Some(envelope.id),
        _ => None,
    });
    let prompt = prompt.expect("a prompt");
    let mut id = prompt;
    id.0[8..].copy_from_slice(&n.to_be_bytes());
    let new = id.to_string();
    let turn = records.iter().filter_map(|record| {
        let what = match &record.what {
            What::Command(envelope) if envelope.id == prompt => {
                let mut envelope = envelope.clone();
                envelope.id = id;
                What::Command(envelope)
            }
            What::Out(line) => What::Out(
                String::from_utf8_lossy(line)
                    .replace(&prompt.to_string(), &new)
                    .into_bytes(),
            ),
            _ => return None,
        };
        // Turns follow each other; a whole one is shorter than this.
        let at = record.at + n * 60_000;
        Some(Record { at, what })
    });
    live(session, &turn.collect::<Vec<_>>())
}

#[test]
fn a_turn_costs_the_same_after_ten_and_after_five_hundred() {
    let mut seen = 0;
    for Tape { name, setup, records } in of_pi().filter(|tape| tape::scenario(&tape.name) == "hello") {
        let mut session = session(&setup);
        let cost = |actions: &[Action]| {
            let written = actions.iter().filter_map(|action| match action {
                Action::Write { bytes, .. } => Some(bytes.len()),
                _ => None,
            });
            let kept = events(actions).filter(|event| !matches!(event, Event::SessionCreated(_)));
            (written.collect::<Vec<_>>(), kept.count(), actions.len())
        };
        let _ = live(&mut session, &records[..1]);
        let costs: Vec<_> = (0..500)
            .map(|n| cost(&of_turn(&mut session, &records, n)))
            .collect();
        // One line for the prompt, and none that asks for what was said.
        assert_eq!(costs[9].0.len(), 1, "{name}");
        assert!(costs[9].1 > 10, "{name}");
        assert!(costs[9..].iter().all(|cost| *cost == costs[9]), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 2);
}
