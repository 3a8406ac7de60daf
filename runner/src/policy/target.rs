//! What a rule of permissions says of one target: the command of a shell, a path, an address, or any other text.
//!
//! What allows is read narrowly and what denies widely. A shell understands more than is understood here, so a command
//! with anything in it that joins, substitutes or redirects is never what a wildcard stood for.

use super::path::AbsolutePath;
use super::pattern::Pattern;

/// How long a target may be to be compared with a pattern, in bytes: far more than a command or a path that somebody
/// reads. A pattern says nothing of a longer one.
pub(super) const TARGET_LEN_MAX: usize = 4096;

/// As what a target is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The command of a shell.
    Command,
    /// A path.
    Path,
    /// The address of a page.
    Address,
    /// Anything else.
    Text,
}

impl Form {
    /// The form of what a tool of this kind works on.
    pub(super) fn of(kind: Option<&str>) -> Self {
        match kind {
            Some("execute") => Self::Command,
            Some("read" | "edit" | "delete" | "move" | "search") => Self::Path,
            Some("fetch") => Self::Address,
            _ => Self::Text,
        }
    }
}

/// One letter of a pattern, or what stands for letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Letter(char),
    /// `?`
    One,
    /// `*`
    Any,
}

/// The pieces of a pattern of text, in which `$WORKSPACE` stands for the workspace. A star in its name is a letter.
pub(super) fn pieces(pattern: &str, workspace: &AbsolutePath) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("$WORKSPACE")
            && !after.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
        {
            pieces.extend(workspace.as_str().chars().map(Piece::Letter));
            rest = after;
            continue;
        }
        pieces.push(match letter {
            '*' => Piece::Any,
            '?' => Piece::One,
            letter => Piece::Letter(letter),
        });
        rest = &rest[letter.len_utf8()..];
    }
    pieces
}

/// Whether a text fits. Wildcards stand for no letter that `stands` refuses.
fn fits(pieces: &[Piece], text: &str, stands: impl Fn(char) -> bool) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // The last star, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        let letter = text[read];
        match pieces.get(at) {
            Some(Piece::Any) => {
                star = Some((at, read));
                at += 1;
                continue;
            }
            Some(Piece::One) if stands(letter) => {
                (at, read) = (at + 1, read + 1);
                continue;
            }
            Some(Piece::Letter(wanted)) if *wanted == letter => {
                (at, read) = (at + 1, read + 1);
                continue;
            }
            _ => {}
        }
        match star {
            Some((star_at, taken)) if stands(text[taken]) => {
                star = Some((star_at, taken + 1));
                (at, read) = (star_at + 1, taken + 1);
            }
            _ => return false,
        }
    }
    pieces[at..].iter().all(|piece| *piece == Piece::Any)
}

/// Letters by which a shell does more than run one program with plain words.
fn is_operator(letter: char) -> bool {
    matches!(
        letter,
        ';' | '&' | '|' | '`' | '$' | '<' | '>' | '(' | ')' | '{' | '}' | '\\'
    ) || is_unseen(letter)
}

/// Letters that nobody sees who reads the text, or that change how it looks.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

/// Whether a shell does no more with a text than run one program with plain words.
pub(super) fn is_plain(text: &str) -> bool {
    !text.chars().any(is_operator)
}

/// Whether a pattern names this target, of which it then allows what is asked.
pub(super) fn allows(
    pattern: &str,
    path: Option<&Pattern>,
    form: Form,
    target: &str,
    workspace: &AbsolutePath,
) -> bool {
    if target.len() > TARGET_LEN_MAX {
        return false;
    }
    match form {
        Form::Path => path
            .zip(absolute(target, workspace))
            .is_some_and(|(path, target)| path.covers(&target)),
        Form::Command => target.trim() == pattern.trim() || command_fits(pattern, target.trim(), workspace),
        Form::Address => address_fits(pattern, target, workspace),
        Form::Text if is_path(pattern) => path
            .zip(absolute(target, workspace))
            .is_some_and(|(path, target)| path.covers(&target)),
        Form::Text => target == pattern || command_fits(pattern, target, workspace),
    }
}

fn command_fits(pattern: &str, command: &str, workspace: &AbsolutePath) -> bool {
    is_plain(command) && fits(&pieces(pattern, workspace), command, |_| true)
}

/// An address is compared by its parts, so that what stands for a part of a host's name is never a part of the path.
fn address_fits(pattern: &str, address: &str, workspace: &AbsolutePath) -> bool {
    if address == pattern {
        return true;
    }
    let hostile = |letter: char| is_unseen(letter) || letter.is_whitespace() || letter == '\\';
    let (Some(wanted), Some(found)) = (split_address(pattern), split_address(address)) else {
        return false;
    };
    let rest = found
        .rest
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/");
    let climbs = rest.split(['/', '?', '#']).any(|name| matches!(name, "." | ".."));
    let in_host = |letter: char| !matches!(letter, '@' | ':' | '%');
    !address.chars().any(hostile)
        && !climbs
        && wanted.scheme.eq_ignore_ascii_case(found.scheme)
        && fits(
            &pieces(&wanted.host.to_ascii_lowercase(), workspace),
            &found.host.to_ascii_lowercase(),
            in_host,
        )
        && fits(&pieces(wanted.rest, workspace), found.rest, |_| true)
}

struct Address<'a> {
    scheme: &'a str,
    /// The host with all that stands beside it.
    host: &'a str,
    rest: &'a str,
}

fn split_address(text: &str) -> Option<Address<'_>> {
    let (scheme, after) = text.split_once("://")?;
    let end = after.find(['/', '?', '#', '\\']).filter(|end| {
        // A question mark of a pattern may stand for a letter of the host's name.
        !after[..*end].is_empty()
    });
    let (host, rest) = after.split_at(end.unwrap_or(after.len()));
    Some(Address { scheme, host, rest })
}

/// Whether a pattern denies this target: whatever of it may be meant.
pub(super) fn denies(
    pattern: &str,
    path: Option<&Pattern>,
    act: Denied<'_>,
    workspace: &AbsolutePath,
) -> bool {
    let Denied {
        form,
        takes_all,
        target,
    } = act;
    let pieces = pieces(pattern, workspace);
    let whole = |text: &str| fits(&pieces, text, |_| true);
    if whole(target) || whole(target.trim()) {
        return true;
    }
    match form {
        Form::Command => readings(target).iter().any(|text| whole(text)),
        Form::Address => whole(&target.to_ascii_lowercase()),
        // A tool of a kind that is not told may be a shell.
        Form::Text if !is_path(pattern) => readings(target).iter().any(|text| whole(text)),
        Form::Path | Form::Text => path
            .zip(absolute(target, workspace))
            .is_some_and(|(path, target)| {
                path.covers(&target) || (takes_all && path.base().is_within(&target))
            }),
    }
}

/// What is held against a rule that denies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied<'a> {
    pub(super) form: Form,
    /// Whether all that lies below the target goes with it.
    pub(super) takes_all: bool,
    pub(super) target: &'a str,
}

/// Words of a shell behind which a command begins, and programs that start the one that they are given.
const LEADING: [&str; 17] = [
    "!", "if", "then", "elif", "else", "while", "until", "do", "time", "exec", "command", "builtin", "eval",
    "env", "nohup", "sudo", "xargs",
];

/// Each command of a compound one, as it may be written otherwise: with single spaces, without quotes, without variables,
/// redirections and leading words before it, and without the directory of its program.
fn readings(command: &str) -> Vec<String> {
    let separates = |letter: char| is_operator(letter) && letter != '\\' && letter != '\t';
    let mut readings = Vec::new();
    for part in command.split(separates) {
        let plain: String = part.chars().filter(|letter| !is_quote(*letter)).collect();
        for text in [part, &plain] {
            read(&text.split_whitespace().collect::<Vec<_>>(), &mut readings);
        }
        read(&words(part), &mut readings);
    }
    // What stands behind a redirection's file is part of the command.
    for part in command.split(['<', '>']).skip(1) {
        let words = words(
            part.split(|letter| separates(letter) && letter != '&')
                .next()
                .unwrap_or(part),
        );
        read(words.get(1..).unwrap_or_default(), &mut readings);
    }
    readings
}

fn is_quote(letter: char) -> bool {
    matches!(letter, '"' | '\'' | '\\')
}

/// The words of a command; white space between quotes is within a word.
fn words(command: &str) -> Vec<&str> {
    let mut quoted = None;
    let ends = |letter: char| {
        match quoted {
            Some(quote) if quote == letter => quoted = None,
            None if matches!(letter, '"' | '\'') => quoted = Some(letter),
            _ => {}
        }
        quoted.is_none() && letter.is_whitespace()
    };
    command.split(ends).filter(|word| !word.is_empty()).collect()
}

/// What the words may be read as.
fn read(words: &[&str], readings: &mut Vec<String>) {
    let leads = |word: &&&str| {
        LEADING.contains(*word) || word.split_once('=').is_some_and(|(name, _)| is_variable(name))
    };
    let behind = words.iter().take_while(leads).count();
    // Also as it stands: a rule may name what leads.
    for words in [words, &words[behind..]] {
        let Some((program, arguments)) = words.split_first() else {
            continue;
        };
        let name = program.rsplit('/').next().unwrap_or(program);
        for program in [*program, name] {
            let mut reading: String = program.chars().filter(|letter| !is_quote(*letter)).collect();
            for argument in arguments {
                reading.push(' ');
                reading.push_str(argument);
            }
            readings.push(reading);
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit()
}

/// Whether a pattern of text begins as a path does.
pub(super) fn is_path(pattern: &str) -> bool {
    pattern.starts_with(['/', '~']) || pattern.starts_with("$WORKSPACE")
}

/// The path that is meant, without `.`, `..` and doubled slashes, a relative one below the workspace; `None` where that
/// cannot be said: without a shell, without knowing how an agent reads an address, quotes or a leading `@`, or of no text
/// at all.
pub(super) fn absolute(target: &str, workspace: &AbsolutePath) -> Option<AbsolutePath> {
    let of_file = target.strip_prefix("file://");
    let is_address = |text: &str| text.contains("://") || text.to_ascii_lowercase().starts_with("file:");
    let is_unclear = match of_file {
        // Of an address a part may be a host, written in another way, or no part of the path; a backslash is a slash in it.
        Some(path) => !path.starts_with('/') || path.contains(['%', '?', '#', '\\']),
        None => is_address(target) || target.starts_with(['~', '$', '@', '"', '\'']),
    };
    let target = of_file.unwrap_or(target);
    if is_unclear || target.is_empty() || target.len() > TARGET_LEN_MAX || target.trim() != target {
        return None;
    }
    let whole = match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("{workspace}/{target}"),
    };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    AbsolutePath::try_from(format!("/{}", names.join("/"))).ok()
}
