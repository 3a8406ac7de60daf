//! A harness's bytes as a short text for people.

/// The beginning of `bytes`, at most `len_max` of them, cut between characters.
pub(crate) fn excerpt(bytes: &[u8], len_max: usize) -> String {
    let head = &bytes[..bytes.len().min(len_max)];
    let mut text = String::with_capacity(head.len());
    for chunk in head.utf8_chunks() {
        text.push_str(chunk.valid());
        // What the cut left of a character is not an error of the harness.
        if !chunk.invalid().is_empty() && text.len() + 3 < len_max {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    if head.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// The beginning of a text, at most `len_max` bytes of it, cut between characters. Unlike an excerpt it shows nowhere that
/// it was cut: an id that is longer matches nothing afterwards, and is refused rather than mistaken.
pub(crate) fn cut(text: &str, len_max: usize) -> String {
    let mut end = text.len().min(len_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        assert_eq!(excerpt(b"short", 10), "short");
        assert_eq!(excerpt("ab日本".as_bytes(), 4), "ab…");
        assert_eq!(excerpt(b"a\xff b and more", 8), "a\u{fffd} b and…");
    }
}
