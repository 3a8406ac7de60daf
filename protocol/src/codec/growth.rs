//! How old and new talk, tried on types that have grown.
#![expect(
    dead_code,
    unreachable_pub,
    reason = "the macros make what these tests do not need"
)]

use serde::{Deserialize, Serialize};

use super::{Blob, DecodeError, Unknown, Wire, decode_all, grows, kinds, words};

/// What the first version knew.
mod old {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Note {
        pub(super) text: String,
    }

    grows!(Note { text });

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Page {
        pub(super) items: Vec<Item>,
        pub(super) colour: Colour,
    }

    grows!(Page { items, colour });

    kinds! {
        /// What stands on a page.
        pub enum Item, "item" {
            /// A note.
            1 "note" since 1 => Note(Note),
        }
    }

    words! {
        /// A colour.
        pub enum Colour {
            /// The first.
            0 "red" => Red,
        }
    }
}

/// What two later versions know.
mod new {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Note {
        pub(super) text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(super) author: Option<String>,
        #[serde(default)]
        pub(super) stars: u32,
    }

    grows!(Note { text; since 2: author; since 3: stars });

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Drawing {
        pub(super) lines: Vec<u32>,
    }

    grows!(Drawing { lines });

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Page {
        pub(super) items: Vec<Item>,
        pub(super) colour: Colour,
        #[serde(default)]
        pub(super) title: String,
    }

    grows!(Page { items, colour; since 2: title });

    kinds! {
        /// What stands on a page.
        pub enum Item, "item" {
            /// A note.
            1 "note" since 1 => Note(Note),
            /// A drawing.
            2 "drawing" since 2 => Drawing(Drawing),
        }
    }

    words! {
        /// A colour.
        pub enum Colour {
            /// The first.
            0 "red" => Red,
            /// A later one.
            1 "green" => Green,
        }
    }
}

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// The same bytes, as another version reads them.
fn read<T: Wire>(value: &impl Wire) -> T {
    decode_all(&encoded(value)).unwrap()
}

fn new_note(text: &str) -> new::Note {
    new::Note {
        text: text.to_owned(),
        author: Some("ada".to_owned()),
        stars: 3,
    }
}

fn new_page() -> new::Page {
    new::Page {
        items: vec![
            new::Item::Note(new_note("first")),
            new::Item::Drawing(new::Drawing {
                lines: vec![1, 70_000],
            }),
            new::Item::Note(new_note("last")),
        ],
        colour: new::Colour::Green,
        title: "page".to_owned(),
    }
}

#[test]
fn an_older_reader_skips_what_a_newer_writer_appended() {
    let note: old::Note = read(&new_note("hi"));
    assert_eq!(
        note,
        old::Note {
            text: "hi".to_owned()
        }
    );
}

#[test]
fn a_newer_reader_takes_the_default_for_what_an_older_writer_lacked() {
    let note: new::Note = read(&old::Note {
        text: "hi".to_owned(),
    });
    assert_eq!(
        note,
        new::Note {
            text: "hi".to_owned(),
            author: None,
            stars: 0,
        }
    );
}

#[test]
fn versions_between_stop_between_two_fields_and_nowhere_else() {
    let whole = encoded(&new_note("hi"));
    // Length, text, author: what the second version wrote.
    let second = [&[8], &whole[1..9]].concat();
    assert_eq!(
        decode_all::<new::Note>(&second).unwrap().author.as_deref(),
        Some("ada")
    );
    assert_eq!(decode_all::<new::Note>(&second).unwrap().stars, 0);
    for len in [4, 5, 6, 7] {
        let cut = [&[len], &whole[1..=usize::from(len)]].concat();
        let read = decode_all::<new::Note>(&cut);
        assert!(matches!(read, Err(DecodeError::Short(_))), "{len}: {read:?}");
    }
}

#[test]
fn a_list_keeps_what_it_does_not_know_in_its_place() {
    let page: old::Page = read(&new_page());
    let names: Vec<_> = page.items.iter().map(old::Item::name).collect();
    assert_eq!(names, ["note", "x-unknown", "note"]);
    let old::Item::Unknown(unknown) = &page.items[1] else {
        panic!("the drawing is known: {:?}", page.items[1]);
    };
    assert_eq!(unknown.kind, 2);
    assert_eq!(page.items[1].since(), None);
    assert_eq!(page.colour, old::Colour::Unknown(1));
}

#[test]
fn what_an_older_version_passes_on_is_intact() {
    let page: old::Page = read(&new_page());
    let back: new::Page = read(&page);
    assert_eq!(back.items[1], new_page().items[1]);
    assert_eq!(back.colour, new::Colour::Green);
}

#[test]
fn what_an_older_version_wrote_down_is_known_again_to_a_newer_one() {
    let page: old::Page = read(&new_page());
    let json = serde_json::to_string(&page).unwrap();
    assert!(
        json.contains(r#"{"item":"x-unknown","kind":2,"bytes":""#),
        "{json}"
    );
    assert!(json.contains(r#""colour":"x-unknown-1""#), "{json}");
    assert_eq!(serde_json::from_str::<old::Page>(&json).unwrap(), page);
    let back: new::Page = serde_json::from_str(&json).unwrap();
    assert_eq!(back.items[1], new_page().items[1]);
    assert_eq!(back.colour, new::Colour::Green);
}

#[test]
fn an_unknown_variant_cannot_hide_a_known_one() {
    let json = r#"{"item":"x-unknown","kind":1,"bytes":"AmhpAA=="}"#;
    let item: old::Item = serde_json::from_str(json).unwrap();
    assert_eq!(
        item.name(),
        "note",
        "who judges by the variant must see what the peer will see"
    );
    let broken = r#"{"item":"x-unknown","kind":1,"bytes":"/w=="}"#;
    assert!(serde_json::from_str::<old::Item>(broken).is_err());
    assert_eq!("x-unknown-0".parse(), Ok(old::Colour::Red));
}

#[test]
fn an_unknown_body_may_be_empty_and_may_be_long() {
    for len in [0, 250, 251, 70_000] {
        let item = old::Item::Unknown(Unknown {
            kind: 9,
            bytes: Blob(vec![7; len]),
        });
        assert_eq!(read::<old::Item>(&item), item);
        assert_eq!(read::<new::Item>(&item).since(), None);
    }
}

#[test]
fn a_length_takes_as_many_bytes_as_it_needs() {
    for len in [0, 1, 248, 249, 250, 251, 65_532, 65_536, 70_000] {
        let note = old::Note {
            text: "x".repeat(len),
        };
        let bytes = encoded(&vec![note.clone(), note.clone()]);
        assert_eq!(
            decode_all::<Vec<old::Note>>(&bytes).unwrap(),
            [note.clone(), note],
            "{len}"
        );
    }
}
