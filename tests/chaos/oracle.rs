//! What must hold of all that was heard, whatever was broken.

use std::collections::BTreeMap;

use oqto_control::{Envelope, Event};
use oqto_protocol::message::{Content, Message, Role};

use crate::bed::{Bed, Who};
use crate::follower::{answers, kept};
use crate::plan::{KINDS, PLACES, Place};

/// What of a message is the same whenever it is said: who says it, and what.
type Said = (Role, Vec<String>);

/// What stands for a prompt's own token where two prompts of one kind are compared.
const TOKEN: &str = "TOKEN";

/// Judges everything.
pub(crate) fn judge(bed: &Bed) {
    let calm = kept(&bed.history(Who::Driver), Place::Calm);
    numbers_are_whole(Place::Calm, &calm);
    let calm = turns(Place::Calm, &calm);
    assert_eq!(calm.len(), KINDS, "{calm:#?}");
    for place in PLACES {
        let [driver, watcher] = [Who::Driver, Who::Watcher].map(|who| kept(&bed.history(who), place));
        numbers_are_whole(place, &driver);
        numbers_are_whole(place, &watcher);
        same(place, &joined(&driver), &joined(&watcher));
        transcript(bed, place, &calm, &driver);
    }
    effects(bed);
}

/// Every number once, from the first to the last, which tells the session's end.
fn numbers_are_whole(place: Place, events: &[Envelope]) {
    let mut last = 0;
    for event in events {
        let seq = event.seq.expect("a number");
        let first = event.first_seq.unwrap_or(seq);
        assert_eq!(first, last + 1, "{place:?}: {first} to {seq} comes after {last}");
        assert!(seq >= first);
        assert_eq!(event.epoch, events[0].epoch, "{place:?}");
        last = seq;
    }
    let end = events.last().map(|event| &event.event);
    assert!(
        matches!(end, Some(Event::SessionClosed(_))),
        "{place:?} ends with {end:?}"
    );
}

/// Events with neighbouring deltas joined as far as they go: how they were cut depends on how far behind a reader was.
fn joined(events: &[Envelope]) -> Vec<(u64, u64, serde_json::Value)> {
    let mut all: Vec<(u64, u64, serde_json::Value)> = Vec::new();
    for envelope in events {
        let seq = envelope.seq.unwrap();
        let first = envelope.first_seq.unwrap_or(seq);
        let mut value = serde_json::to_value(&envelope.event).unwrap();
        let is_delta = value["delta"].is_string();
        if !is_delta {
            value["ts"] = envelope.ts.into();
        }
        let alike = |before: &serde_json::Value| {
            let but_delta = |value: &serde_json::Value| {
                let mut value = value.clone();
                value["delta"] = serde_json::Value::Null;
                value
            };
            is_delta && before["delta"].is_string() && but_delta(before) == but_delta(&value)
        };
        match all.last_mut() {
            Some((_, last, before)) if alike(before) => {
                let text = [
                    before["delta"].as_str().unwrap(),
                    value["delta"].as_str().unwrap(),
                ]
                .concat();
                before["delta"] = text.into();
                *last = seq;
            }
            _ => all.push((first, seq, value)),
        }
    }
    all
}

fn same(place: Place, one: &[(u64, u64, serde_json::Value)], two: &[(u64, u64, serde_json::Value)]) {
    for (one, two) in one.iter().zip(two) {
        assert_eq!(one, two, "{place:?}: two controls heard different things");
    }
    assert_eq!(one.len(), two.len(), "{place:?}");
}

/// What was said of one prompt.
#[derive(Debug)]
struct Turn {
    prompt: usize,
    said: Vec<Said>,
}

/// The messages of a session, by the prompt that they belong to.
fn turns(place: Place, events: &[Envelope]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for envelope in events {
        let Event::MessageEnd(end) = &envelope.event else {
            continue;
        };
        let message = &end.message;
        match message.role {
            // How an agent was set up says nothing of a prompt.
            Role::System => continue,
            Role::User => {
                let text = said(message).1.concat();
                let prompt = (0..100_000).find(|n| text.contains(&place.token(*n)));
                turns.push(Turn {
                    prompt: prompt.unwrap_or_else(|| panic!("{place:?}: nobody said {text}")),
                    said: Vec::new(),
                });
            }
            _ => {}
        }
        let Some(turn) = turns.last_mut() else {
            panic!("{place:?}: nobody asked for {message:?}")
        };
        let token = place.token(turn.prompt);
        let (role, parts) = said(message);
        let parts = parts.into_iter().map(|part| part.replace(&token, TOKEN));
        turn.said.push((role, parts.collect()));
    }
    turns
}

fn said(message: &Message) -> Said {
    let parts = message.parts.iter().map(|part| match &part.content {
        Content::Text(text) => format!("text {}", text.text),
        Content::Thinking(thought) => format!("thinking {}", thought.text),
        Content::ToolCall(call) => format!("call {} {:?}", call.name, call.input),
        Content::ToolResult(result) => format!("result {:?} {}", result.output, result.is_error),
        other => format!("{other:?}"),
    });
    (message.role, parts.collect())
}

/// What is said of each prompt is what the calm session says of one of its kind. Only where a session's own processes
/// were killed it may be something else, and then the session says of this very prompt that something of it is lost.
fn transcript(bed: &Bed, place: Place, calm: &[Turn], events: &[Envelope]) {
    let answers = answers(&bed.answers(), place);
    let turns = turns(place, events);
    assert!(
        turns.is_sorted_by(|one, two| one.prompt < two.prompt),
        "{place:?}: something was said twice"
    );
    let said: BTreeMap<usize, &Turn> = turns.iter().map(|turn| (turn.prompt, turn)).collect();
    let taken: Vec<_> = answers
        .iter()
        .filter_map(|answer| Some((answer.prompt, answer.after?)))
        .collect();
    for (at, (prompt, after)) in taken.iter().enumerate() {
        let model = place_in_calm(&calm[prompt % KINDS].said, place);
        let turn = said.get(prompt);
        if turn.is_some_and(|turn| turn.said == model) {
            continue;
        }
        let before = taken.get(at + 1).map_or(u64::MAX, |(_, next)| *next);
        let lost = events.iter().any(|envelope| {
            let is_of_it = envelope
                .seq
                .is_some_and(|seq| (*after + 1..=before).contains(&seq));
            is_of_it && matches!(&envelope.event, Event::Recovered(recovered) if recovered.lost.is_some())
        });
        assert!(
            place.is_mortal() && lost,
            "{place:?}: prompt {prompt} was answered with {turn:#?}, but calm {model:#?}"
        );
    }
    for answer in &answers {
        if let Some(why) = &answer.refused {
            assert!(
                place.is_mortal(),
                "{place:?}: prompt {} was refused: {why}",
                answer.prompt
            );
            let turn = said.get(&answer.prompt);
            assert!(
                turn.is_none(),
                "{place:?}: prompt {} was refused ({why}) and said: {turn:#?}",
                answer.prompt
            );
        }
    }
    let answered: Vec<_> = answers.iter().map(|answer| answer.prompt).collect();
    let expected: Vec<_> = (0..answers.len()).collect();
    assert_eq!(answered, expected, "{place:?}: every prompt is answered once");
    let came_back = events
        .iter()
        .filter(|envelope| matches!(envelope.event, Event::Recovered(_)))
        .count();
    assert!(
        place.is_mortal() || came_back == 0,
        "{place:?} came back, and nobody had ended it"
    );
    println!(
        "{place:?}: {} prompts, {} of them taken, {} events, came back {came_back} times",
        answers.len(),
        taken.len(),
        events.len()
    );
}

/// What the calm session said, with this session's own file in place of the calm one's.
fn place_in_calm(said: &[Said], place: Place) -> Vec<Said> {
    let (from, to) = (Place::Calm.trace(), place.trace());
    let said = said.iter().map(|(role, parts)| {
        let parts = parts.iter().map(|part| part.replace(&from, &to));
        (*role, parts.collect())
    });
    said.collect()
}

/// Each prompt reached the model once, and its shell command was run once.
fn effects(bed: &Bed) {
    let mut asked: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
    for (prompt, step, status) in bed.asked() {
        asked.entry((prompt, step)).or_default().push(status);
    }
    for ((prompt, step), times) in &asked {
        assert_eq!(
            times.len(),
            1,
            "the model was asked twice: {prompt} ({step}): {times:?}"
        );
    }
    for place in PLACES {
        let answers = answers(&bed.answers(), place);
        let taken = answers.iter().filter(|answer| answer.refused.is_none());
        let taken: Vec<_> = taken.map(|answer| answer.prompt).collect();
        if !place.is_mortal() {
            for n in &taken {
                assert!(
                    asked.contains_key(&(place.prompt(*n), 0)),
                    "{place:?}: prompt {n} had no effect"
                );
            }
        }
        let trace = std::fs::read_to_string(bed.home.workspace().join(place.trace())).unwrap_or_default();
        let traced: Vec<_> = trace.lines().map(str::to_owned).collect();
        let expected = taken.iter().filter(|n| **n % KINDS == 1).map(|n| place.token(*n));
        let expected: Vec<_> = expected.collect();
        if place.is_mortal() {
            let mut once = traced.clone();
            once.dedup();
            assert_eq!(once, traced, "{place:?}: something was done twice");
            assert!(
                traced.iter().all(|token| expected.contains(token)),
                "{place:?}: {traced:?}"
            );
        } else {
            assert_eq!(traced, expected, "{place:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session's events: numbers and what is told under them.
    fn heard(all: &[(u64, u64, &str)]) -> Vec<Envelope> {
        let heard = all.iter().map(|(first, last, what)| {
            let event = match what.split_once(' ') {
                Some(("delta", text)) => format!(
                    r#""event":"stream.text_delta","message_id":"m","content_index":0,"delta":"{text}""#
                ),
                _ => format!(r#""event":"{what}""#),
            };
            let text = format!(
                r#"{{"session_id":"s","runner_id":"r","epoch":1,"first_seq":{first},"seq":{last},"ts":7,{event}}}"#
            );
            serde_json::from_str(&text).unwrap()
        });
        heard.collect()
    }

    fn is_refused(judge: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(judge).is_err()
    }

    const WHOLE: [(u64, u64, &str); 4] = [
        (1, 1, "agent.idle"),
        (2, 2, "delta one"),
        (3, 3, "delta two"),
        (4, 4, "session.closed"),
    ];

    #[test]
    fn a_gap_a_repeat_and_a_missing_end_are_seen() {
        numbers_are_whole(Place::Calm, &heard(&WHOLE));
        for broken in [
            [&WHOLE[..1], &WHOLE[2..]].concat(),
            [&WHOLE[..2], &WHOLE[1..]].concat(),
            WHOLE[..3].to_vec(),
            WHOLE[1..].to_vec(),
            vec![WHOLE[1], WHOLE[0], WHOLE[2], WHOLE[3]],
        ] {
            let broken = heard(&broken);
            assert!(
                is_refused(|| numbers_are_whole(Place::Calm, &broken)),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn deltas_are_the_same_however_they_were_cut_and_nothing_else_is() {
        let whole = joined(&heard(&WHOLE));
        let merged = [WHOLE[0], (2, 3, "delta onetwo"), WHOLE[3]];
        same(Place::Calm, &whole, &joined(&heard(&merged)));
        for broken in [
            vec![WHOLE[0], (2, 3, "delta onetow"), WHOLE[3]],
            vec![WHOLE[0], (2, 3, "delta one"), WHOLE[3]],
            vec![WHOLE[0], WHOLE[1], (3, 3, "agent.idle"), WHOLE[3]],
            WHOLE[..3].to_vec(),
        ] {
            let broken = joined(&heard(&broken));
            assert!(is_refused(|| same(Place::Calm, &whole, &broken)), "{broken:?}");
        }
    }
}
