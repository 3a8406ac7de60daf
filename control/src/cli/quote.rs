//! Words for a POSIX shell.

/// Joins words so that a POSIX shell splits them into the same words again.
pub(super) fn quote<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        quote_word(word, &mut line);
    }
    line
}

fn quote_word(word: &str, line: &mut String) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:=@%+".contains(c);
    // A first word such as A=1 would be an assignment.
    if !word.is_empty() && word.chars().all(plain) && !(line.is_empty() && word.contains('=')) {
        line.push_str(word);
        return;
    }
    line.push('\'');
    line.push_str(&word.replace('\'', r"'\''"));
    line.push('\'');
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a real shell makes of a line: its words, each ended by a null byte.
    fn split(words: &[String]) -> Vec<u8> {
        let line = quote(
            ["printf", r"%s\0"]
                .into_iter()
                .chain(words.iter().map(String::as_str)),
        );
        let output = Command::new("/bin/sh").arg("-c").arg(line).output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_back_the_words_that_were_quoted(
            words in proptest::collection::vec("([^\\x00]|['\"\\\\$`!~ \\n*?#;&|<>(){}\\[\\]]){0,12}", 1..6)
        ) {
            let wanted: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(split(&words), wanted);
        }
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(quote(["ls", "-la", "src/a.rs"]), "ls -la src/a.rs");
        assert_eq!(quote(["echo", "", "it's"]), r"echo '' 'it'\''s'");
    }

    #[test]
    fn a_program_whose_name_looks_like_an_assignment_is_run_and_not_assigned() {
        assert_eq!(quote(["A=1", "B=2"]), "'A=1' B=2");
    }
}
