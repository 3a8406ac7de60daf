//! What others wrote, made harmless for a terminal.

use std::borrow::Cow;

/// Drops control characters but line feeds and tabs, and the characters that turn the direction of writing: what an
/// agent or a tool wrote must not move the cursor, set the title, or look like something else.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        Cow::Borrowed(text)
    } else {
        text.chars().filter(|c| is_harmless(*c)).collect()
    }
}

/// The same on one line of at most `width_max` characters.
pub(super) fn one_line(text: &str, width_max: usize) -> String {
    let mut line = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let word = clean(word);
        let gap = usize::from(width > 0);
        let room = width_max.saturating_sub(width + gap);
        let len = word.chars().count();
        if gap > 0 {
            line.push(' ');
        }
        if len > room {
            line.extend(word.chars().take(room.saturating_sub(1)));
            line.push('…');
            return line;
        }
        line.push_str(&word);
        width += gap + len;
    }
    line
}

fn is_harmless(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        c => !c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_lose_what_makes_them_so() {
        let table = [
            (
                "plain text\n\tstays — ünïcode 漢字 too",
                "plain text\n\tstays — ünïcode 漢字 too",
            ),
            ("\x1b[31mred\x1b[0m", "[31mred[0m"),
            ("\x1b]0;title\x07rest", "]0;titlerest"),
            ("\u{9b}31mred", "31mred"),
            ("over\rwrite\x08\x7f\x00", "overwrite"),
            ("\u{202e}gnp.exe", "gnp.exe"),
            ("\x1bP+q\x1b\\", "P+q\\"),
        ];
        for (text, cleaned) in table {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }

    #[test]
    fn one_line_has_no_breaks_and_is_not_wider_than_it_may_be() {
        assert_eq!(one_line("a\n b\t\tc ", 80), "a b c");
        assert_eq!(one_line("abc defghi", 8), "abc def…");
        assert_eq!(one_line("abc", 3), "abc");
        assert_eq!(one_line("", 3), "");
        assert_eq!(one_line("\x1b[2Jx", 80), "[2Jx");
    }
}
