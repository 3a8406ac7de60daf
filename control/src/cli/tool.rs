//! A tool's call and its result, each on a part of one line.

use oqto_protocol::codec::Json;
use oqto_protocol::event::ToolEnd;
use serde_json::Value;

use super::clean::one_line;

const CALL_WIDTH_MAX: usize = 72;
const RESULT_WIDTH_MAX: usize = 60;

/// The arguments that say most of a call, the best first.
const TELLING: [&str; 8] = [
    "command",
    "cmd",
    "path",
    "file_path",
    "pattern",
    "query",
    "url",
    "prompt",
];

/// `bash ls -la`.
pub(super) fn call(name: &str, input: Option<&Json>) -> String {
    let input = input.map(Json::value).unwrap_or_default();
    let telling = TELLING.iter().find_map(|key| input.get(key)?.as_str());
    let arguments = match (&input, telling) {
        (_, Some(text)) => text.to_owned(),
        (Value::String(text), None) => text.clone(),
        (Value::Null, None) => String::new(),
        (Value::Object(map), None) if map.is_empty() => String::new(),
        (input, None) => input.to_string(),
    };
    one_line(&format!("{name} {arguments}"), CALL_WIDTH_MAX)
}

/// `5 lines, 0.1 s`, or `✗ exit 3`.
pub(super) fn result(tool: &ToolEnd) -> String {
    let output = tool.output.value();
    let text = text_of(&output);
    let exit = exit_of(&output);
    let mut result = match (tool.is_error, exit) {
        (_, Some(exit)) if tool.is_error || !exit.is_success() => format!("✗ {exit}"),
        (true, _) => match one_line(&text, RESULT_WIDTH_MAX) {
            line if line.is_empty() => "✗ failed".to_owned(),
            line => format!("✗ {line}"),
        },
        (false, _) => match text.lines().count() {
            0 => "done".to_owned(),
            1 => "1 line".to_owned(),
            count => format!("{count} lines"),
        },
    };
    if let Some(ms) = tool.duration_ms {
        result.push_str(&format!(", {}.{} s", ms / 1000, ms % 1000 / 100));
    }
    result
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Exit {
    fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// As a shell says it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How a program ended, if a tool's output says it: `exit_code` or `signal`.
pub(super) fn exit_of(output: &Value) -> Option<Exit> {
    let number = |key| output.get(key).and_then(Value::as_i64);
    if let Some(signal) = number("signal") {
        return u8::try_from(signal).ok().map(Exit::Signal);
    }
    // What no process can end with is no success either.
    number("exit_code").map(|code| Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The text in a tool's output: as it stands, in a list of parts, or under a common name.
fn text_of(output: &Value) -> String {
    match output {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        Value::Object(map) => ["text", "content", "output", "stdout", "error", "message"]
            .iter()
            .find_map(|key| map.get(*key))
            .map(text_of)
            .unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn end(output: &Value, is_error: bool, duration_ms: Option<u64>) -> ToolEnd {
        let output = Json::from(output);
        ToolEnd {
            tool_call_id: "c-1".into(),
            name: "bash".into(),
            output,
            is_error,
            duration_ms,
        }
    }

    #[test]
    fn a_call_shows_the_argument_that_says_most() {
        let table = [
            (json!({"command": "ls -la\n  src"}), "bash ls -la src"),
            (json!({"timeout": 3, "path": "a.rs"}), "bash a.rs"),
            (json!({"n": 3}), "bash {\"n\":3}"),
            (json!({}), "bash"),
            (json!("text"), "bash text"),
        ];
        for (input, line) in table {
            assert_eq!(call("bash", Some(&Json::from(&input))), line);
        }
        assert_eq!(call("bash", None), "bash");
    }

    #[test]
    fn a_result_shows_how_much_came_or_what_failed() {
        let table = [
            (end(&json!("a\nb\nc"), false, Some(130)), "3 lines, 0.1 s"),
            (
                end(
                    &json!({"content": [{"type": "text", "text": "one"}]}),
                    false,
                    None,
                ),
                "1 line",
            ),
            (end(&json!(null), false, Some(61_250)), "done, 61.2 s"),
            (
                end(&json!("no such file\nat all"), true, None),
                "✗ no such file at all",
            ),
            (end(&json!({"exit_code": 3}), true, None), "✗ exit 3"),
            (end(&json!({"exit_code": 3}), false, None), "✗ exit 3"),
            (end(&json!({"exit_code": 0}), false, None), "done"),
            (end(&json!({"signal": 9}), true, None), "✗ signal 9"),
            (end(&json!(null), true, None), "✗ failed"),
        ];
        for (tool, line) in table {
            assert_eq!(result(&tool), line, "{tool:?}");
        }
    }

    #[test]
    fn an_exit_code_is_as_a_shell_says_it() {
        assert_eq!(exit_of(&json!({"exit_code": 7})).map(Exit::code), Some(7));
        assert_eq!(exit_of(&json!({"signal": 9})).map(Exit::code), Some(137));
        assert_eq!(exit_of(&json!({"exit_code": 900})).map(Exit::code), Some(255));
        assert_eq!(exit_of(&json!({"stdout": "x"})), None);
    }
}
