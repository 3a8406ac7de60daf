//! A question of the agent, asked in place: what it wants, what can be answered, and what an answer means. Pure.
//!
//! Nothing that an agent wrote reaches the terminal as it is: control characters are shown, not obeyed. What is not
//! understood is never a yes, and the answer that is given without a word refuses.

use std::fmt::Write as _;

use oqto_protocol::command::InputResponse;
use oqto_protocol::event::{InputRequest, InputResolved, PermissionKind, PermissionRequest, ResolvedBy};
use serde_json::Value;

use super::clean::one_line;
use super::note::LINE_WIDTH_MAX;

/// How many lines of what a tool would do are shown; how many there are is said.
const LINES_MAX: usize = 40;

/// How many answers are numbered.
const OPTIONS_MAX: usize = 32;

/// What a line of input means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meant {
    /// This answer.
    Answer(InputResponse),
    /// Nothing that can be answered; ask again, with this hint.
    Unclear(String),
}

/// The name of a request; `None` for one that this version cannot answer.
pub(super) fn name(request: &InputRequest) -> Option<&str> {
    match request {
        InputRequest::SelectRequest(it) => Some(&it.request_id),
        InputRequest::ConfirmRequest(it) => Some(&it.request_id),
        InputRequest::TextRequest(it) => Some(&it.request_id),
        InputRequest::PermissionRequest(it) => Some(&it.request_id),
        InputRequest::Unknown(_) => None,
    }
}

/// The whole question, with the line on which the answer is written. `until` says when it is over.
pub(super) fn question(request: &InputRequest, until: Option<&str>) -> String {
    let mut page = String::new();
    let until = until
        .map(|until| format!(", refused {until}"))
        .unwrap_or_default();
    // A string takes every character.
    let _infallible = match request {
        InputRequest::PermissionRequest(it) => {
            permission(it, &mut page);
            write!(page, "  [y/N or a number{until}] ")
        }
        InputRequest::SelectRequest(it) => {
            let _title = writeln!(page, "? {}", shown(&it.title));
            for (option, n) in it.options.iter().take(OPTIONS_MAX).zip(1..) {
                let _option = writeln!(page, "  {n}. {}", shown(option));
            }
            write!(
                page,
                "  [a number, Enter for none{}] ",
                until.replace("refused", "over")
            )
        }
        InputRequest::ConfirmRequest(it) => {
            let _title = writeln!(page, "? {}", shown(&it.title));
            body(&it.message, &mut page);
            write!(page, "  [y/N{}] ", until.replace("refused", "over"))
        }
        InputRequest::TextRequest(it) => {
            let _title = writeln!(page, "? {}", shown(&it.title));
            if let Some(placeholder) = &it.placeholder {
                body(placeholder, &mut page);
            }
            write!(
                page,
                "  [a text, Enter for none{}] ",
                until.replace("refused", "over")
            )
        }
        InputRequest::Unknown(_) => Ok(()),
    };
    page
}

fn permission(request: &PermissionRequest, page: &mut String) {
    let _infallible = writeln!(page, "? May it: {}", shown(&request.title));
    if let Some(description) = &request.description {
        body(description, page);
    }
    if let Some(tool) = &request.tool {
        let kind = tool
            .kind
            .as_deref()
            .map(|kind| format!(" ({})", shown(kind)))
            .unwrap_or_default();
        let _infallible = writeln!(page, "  tool: {}{kind}", shown(&tool.name));
        for target in tool.targets.iter().take(LINES_MAX) {
            body(target, page);
        }
        more(tool.targets.len(), LINES_MAX, page);
        if let Some(input) = &tool.input {
            let input = input.value();
            let is_told = change(&input, page);
            // Who agrees has to see of every change and every unknown tool what it is given.
            if !is_told && (tool.targets.is_empty() || tool.kind.as_deref() == Some("edit")) {
                body(&format!("{input:#}"), page);
            }
        }
    }
    for (option, n) in request.options.iter().take(OPTIONS_MAX).zip(1..) {
        let _infallible = writeln!(page, "  {n}. {} ({})", shown(&option.label), meaning(option.kind));
    }
}

/// What an answer does, whatever the agent calls it.
fn meaning(kind: PermissionKind) -> &'static str {
    match kind {
        PermissionKind::AllowOnce => "allows once",
        PermissionKind::AllowAlways => "allows always",
        PermissionKind::RejectOnce => "refuses once",
        PermissionKind::RejectAlways => "refuses always",
        _ => "unknown to this version",
    }
}

/// What an edit takes away and puts there, by the names that agents give it, whether it is one or several; whether there
/// is any.
fn change(input: &Value, page: &mut String) -> bool {
    let edits = input.get("edits").and_then(Value::as_array);
    let edits = edits.map(Vec::as_slice).unwrap_or_default();
    let before = page.len();
    for edit in std::iter::once(input).chain(edits.iter().take(LINES_MAX)) {
        for (names, sign) in [
            (["old_string", "oldText", "old_str"], '-'),
            (["new_string", "newText", "new_str"], '+'),
            (["content", "text", "file_text"], '+'),
        ] {
            let text = names.iter().find_map(|name| edit.get(name)?.as_str());
            let Some(text) = text else { continue };
            for line in text.lines().take(LINES_MAX) {
                let _infallible = writeln!(page, "  {sign} {}", cut(line));
            }
            more(text.lines().count(), LINES_MAX, page);
        }
    }
    more(edits.len(), LINES_MAX, page);
    page.len() > before
}

fn body(text: &str, page: &mut String) {
    for line in text.lines().take(LINES_MAX) {
        let _infallible = writeln!(page, "  | {}", cut(line));
    }
    more(text.lines().count(), LINES_MAX, page);
}

fn more(count: usize, shown: usize, page: &mut String) {
    if count > shown {
        let _infallible = writeln!(page, "  … and {} more", count - shown);
    }
}

fn shown(text: &str) -> String {
    one_line(&visible(text), LINE_WIDTH_MAX)
}

/// A line of what would be done. What is beyond the edge is counted, since what cannot be seen must not be agreed to
/// unawares.
fn cut(line: &str) -> String {
    let text = visible(line);
    let len = text.chars().count();
    let width_max = 4 * LINE_WIDTH_MAX;
    if len <= width_max {
        return text;
    }
    let begin: String = text.chars().take(width_max).collect();
    format!("{begin}… ({} more letters)", len - width_max)
}

/// The text with all that cannot be seen written out.
fn visible(text: &str) -> String {
    let is_seen = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace() || is_turning(c));
    let mut visible = String::new();
    for c in text.chars() {
        match is_seen(c) {
            true => visible.push(c),
            false => visible.extend(c.escape_unicode()),
        }
    }
    visible
}

/// Letters that nobody sees, or that turn the direction of writing.
fn is_turning(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// What a line means as an answer; an empty one is the answer that refuses.
pub(super) fn meant(request: &InputRequest, line: &str) -> Meant {
    let line = line.trim();
    let yes = ["y", "yes"].iter().any(|word| line.eq_ignore_ascii_case(word));
    let no = line.is_empty() || ["n", "no"].iter().any(|word| line.eq_ignore_ascii_case(word));
    let number = line
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_sub(1))
        .filter(|n| *n < OPTIONS_MAX);
    match request {
        InputRequest::PermissionRequest(it) => {
            let allows_once = || {
                it.options
                    .iter()
                    .any(|option| option.kind == PermissionKind::AllowOnce)
            };
            match number.map(|n| it.options.get(n)) {
                Some(Some(option)) => answer(request, Some(&option.id), None),
                None if yes && allows_once() => answer(request, None, Some(true)),
                None if no => answer(request, None, Some(false)),
                _ => Meant::Unclear(
                    match allows_once() {
                        true => "y allows it this time, n or Enter refuses; or one of the numbers",
                        false => "n or Enter refuses; or one of the numbers",
                    }
                    .to_owned(),
                ),
            }
        }
        InputRequest::SelectRequest(it) => match number.map(|n| it.options.get(n)) {
            Some(Some(option)) => answer(request, Some(option), None),
            None if line.is_empty() => refusal(request),
            _ => Meant::Unclear("one of the numbers, or Enter for none".to_owned()),
        },
        InputRequest::ConfirmRequest(_) if yes || no => answer(request, None, Some(yes)),
        InputRequest::ConfirmRequest(_) => Meant::Unclear("y or n".to_owned()),
        InputRequest::TextRequest(_) if line.is_empty() => refusal(request),
        InputRequest::TextRequest(_) => answer(request, Some(line), None),
        InputRequest::Unknown(_) => Meant::Unclear("this version cannot answer it".to_owned()),
    }
}

fn answer(request: &InputRequest, value: Option<&str>, confirmed: Option<bool>) -> Meant {
    Meant::Answer(InputResponse {
        request_id: name(request).unwrap_or_default().to_owned(),
        value: value.map(str::to_owned),
        confirmed,
        cancelled: None,
    })
}

fn refusal(request: &InputRequest) -> Meant {
    Meant::Answer(refused(request))
}

/// The answer that refuses, whatever is asked.
pub(super) fn refused(request: &InputRequest) -> InputResponse {
    let is_permission = matches!(request, InputRequest::PermissionRequest(_));
    InputResponse {
        request_id: name(request).unwrap_or_default().to_owned(),
        value: None,
        confirmed: is_permission.then_some(false),
        cancelled: (!is_permission).then_some(true),
    }
}

/// How a request came to its end, for a human.
pub(super) fn outcome(resolved: &InputResolved) -> String {
    let decision = match resolved.decision {
        Some(PermissionKind::AllowOnce) => "allowed",
        Some(PermissionKind::AllowAlways) => "allowed for always",
        Some(PermissionKind::RejectOnce) => "refused",
        Some(PermissionKind::RejectAlways) => "refused for always",
        _ => "over",
    };
    match resolved.by {
        Some(ResolvedBy::Rule) => {
            let rule = resolved.rule.as_deref().map(shown).unwrap_or_default();
            format!("{decision} by the rule {rule}")
        }
        Some(ResolvedBy::Timeout) => format!("{decision}, nobody answered in time"),
        Some(ResolvedBy::Abort) => "over, the work was stopped".to_owned(),
        Some(ResolvedBy::Agent) => "over, the agent asks no longer".to_owned(),
        _ => format!("{decision} by somebody's answer"),
    }
}

#[cfg(test)]
mod tests {
    use oqto_protocol::codec::Json;
    use oqto_protocol::event::{PermissionOption, PermissionTool, SelectRequest};

    use super::*;

    fn permission_request() -> InputRequest {
        let option = |id: &str, kind| PermissionOption {
            id: id.to_owned(),
            label: format!("do {id}\u{1b}[2J"),
            kind,
        };
        InputRequest::PermissionRequest(PermissionRequest {
            request_id: "5".to_owned(),
            title: "run a command\u{202e}".to_owned(),
            description: None,
            options: vec![
                option("always", PermissionKind::AllowAlways),
                option("no", PermissionKind::RejectOnce),
                option("once", PermissionKind::AllowOnce),
            ],
            metadata: None,
            tool: Some(PermissionTool {
                tool_call_id: None,
                name: "Bash".to_owned(),
                kind: Some("execute".to_owned()),
                targets: vec!["ls\r\u{1b}[1Arm -rf ~\nsecond".to_owned(), "x".repeat(1000)],
                input: Json::parse(r#"{"old_string":"a\nb","new_string":"c"}"#.to_owned()).ok(),
            }),
            timeout: None,
        })
    }

    #[test]
    fn a_question_shows_all_that_would_be_done_and_obeys_nothing_in_it() {
        let page = question(&permission_request(), Some("in 5 s"));
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page:?}");
        let wanted = "\
? May it: run a command\\u{202e}
  tool: Bash (execute)
  | ls\\u{d}\\u{1b}[1Arm -rf ~
  | second
";
        assert!(page.starts_with(wanted), "{page}");
        assert!(
            page.contains("(600 more letters)\n  - a\n  - b\n  + c\n  1. do always\\u{1b}[2J (allows always)\n  2. do no"),
            "{page}"
        );
        assert!(page.ends_with("[y/N or a number, refused in 5 s] "), "{page}");
    }

    /// What is shown of a tool that is given this, and of what it works on.
    fn page_of(kind: Option<&str>, targets: &[&str], input: &str) -> String {
        let InputRequest::PermissionRequest(mut request) = permission_request() else {
            panic!("it is one");
        };
        request.tool = Some(PermissionTool {
            tool_call_id: None,
            name: "a tool".to_owned(),
            kind: kind.map(str::to_owned),
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            input: Json::parse(input.to_owned()).ok(),
        });
        question(&InputRequest::PermissionRequest(request), None)
    }

    #[test]
    fn each_of_several_edits_of_one_call_is_shown() {
        let edits = r#"{"path":"a","edits":[{"oldText":"a","newText":"b"},{"oldText":"c","newText":"d"}]}"#;
        let page = page_of(Some("edit"), &["a"], edits);
        assert!(page.contains("  - a\n  + b\n  - c\n  + d\n"), "{page}");
        let many = vec![r#"{"oldText":"a","newText":"b"}"#; LINES_MAX + 3].join(",");
        let page = page_of(Some("edit"), &["a"], &format!(r#"{{"edits":[{many}]}}"#));
        assert!(page.contains("… and 3 more\n"), "{page}");
    }

    #[test]
    fn what_a_tool_is_given_is_shown_where_nothing_else_says_what_it_does() {
        let page = page_of(None, &[], r#"{"to":"a\u001b[2J","amount":5}"#);
        assert!(page.contains("amount") && page.contains("a\\u001b[2J"), "{page}");
        let page = page_of(Some("edit"), &["a"], r#"{"patch":"@@ -1 +1 @@"}"#);
        assert!(page.contains("@@ -1 +1 @@"), "{page}");
        let page = page_of(Some("execute"), &["ls"], r#"{"command":"ls","timeout":5}"#);
        assert!(!page.contains("timeout"), "{page}");
    }

    #[test]
    fn nothing_but_a_clear_yes_allows() {
        let request = permission_request();
        let said = |line: &str| match meant(&request, line) {
            Meant::Answer(answer) => (answer.value, answer.confirmed),
            Meant::Unclear(_) => (None, None),
        };
        for line in ["", "n", "No", " \t"] {
            assert_eq!(said(line), (None, Some(false)), "{line:?}");
        }
        for line in ["y", "YES"] {
            assert_eq!(said(line), (None, Some(true)), "{line:?}");
        }
        assert_eq!(said("1"), (Some("always".to_owned()), None));
        for line in [
            "0",
            "4",
            "-1",
            "ye",
            "yy",
            "1 2",
            "\u{1b}[A",
            "ÿ",
            "99999999999999999999",
        ] {
            assert_eq!(said(line), (None, None), "{line:?}");
        }
        assert_eq!(refused(&request).confirmed, Some(false));
    }

    #[test]
    fn yes_never_means_for_always() {
        let InputRequest::PermissionRequest(mut request) = permission_request() else {
            panic!("it is one");
        };
        request.options.pop();
        let request = InputRequest::PermissionRequest(request);
        assert!(matches!(meant(&request, "y"), Meant::Unclear(_)));
        assert!(matches!(meant(&request, "1"), Meant::Answer(it) if it.value.as_deref() == Some("always")));
    }

    #[test]
    fn letters_that_nobody_sees_are_written_out() {
        for c in [
            '\u{3164}',
            '\u{2800}',
            '\u{61c}',
            '\u{e0041}',
            '\u{fe0f}',
            '\u{1160}',
            '\u{a0}',
        ] {
            assert_eq!(
                visible(&format!("ls{c}x")),
                format!("ls\\u{{{:x}}}x", u32::from(c))
            );
        }
    }

    #[test]
    fn a_choice_is_one_of_what_there_is_or_none() {
        let request = InputRequest::SelectRequest(SelectRequest {
            request_id: "q".to_owned(),
            title: "which".to_owned(),
            options: vec!["a".to_owned(), "b".to_owned()],
            timeout: None,
        });
        assert!(matches!(meant(&request, "2"), Meant::Answer(it) if it.value.as_deref() == Some("b")));
        assert!(matches!(meant(&request, ""), Meant::Answer(it) if it.cancelled == Some(true)));
        assert!(matches!(meant(&request, "b"), Meant::Unclear(_)));
    }
}
