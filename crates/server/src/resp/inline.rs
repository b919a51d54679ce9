//! Words of an inline request, with quotes as Redis' `sdssplitargs` reads them: `"…"` with `\n \r \t \b \a \xHH` and escaped characters,
//! `'…'` with `\'` only; a closing quote must be followed by a space or the end.

/// A quote without its end, or with something right behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unbalanced;

/// Calls `word(start, end)` for each word of `line`, in order. Escapes are resolved in place: what a word stands for is never longer than
/// how it is written.
pub(crate) fn split(line: &mut [u8], mut word: impl FnMut(usize, usize)) -> Result<(), Unbalanced> {
    let mut read = 0;
    loop {
        while line.get(read).is_some_and(|byte| is_space(*byte)) {
            read += 1;
        }
        if read >= line.len() {
            return Ok(());
        }
        let start = read;
        let mut write = read;
        let mut quote = None;
        while let Some(&byte) = line.get(read) {
            let (kept, taken) = match (quote, byte) {
                (None, _) if is_space(byte) || byte == 0 => break,
                (None, b'"' | b'\'') => {
                    quote = Some(byte);
                    (None, 1)
                }
                (Some(open), _) if byte == open => {
                    if line.get(read + 1).is_some_and(|next| !is_space(*next)) {
                        return Err(Unbalanced);
                    }
                    quote = None;
                    (None, 1)
                }
                (Some(b'"'), b'\\') => escape(line.get(read + 1..).unwrap_or_default()),
                (Some(b'\''), b'\\') if line.get(read + 1) == Some(&b'\'') => (Some(b'\''), 2),
                _ => (Some(byte), 1),
            };
            if let (Some(byte), Some(place)) = (kept, line.get_mut(write)) {
                *place = byte;
                write += 1;
            }
            read += taken;
            if quote.is_none() && kept.is_none() && byte_closed(line, read) {
                break;
            }
        }
        if quote.is_some() {
            return Err(Unbalanced);
        }
        word(start, write);
        // A zero byte ends the line, as it ends a C string.
        if line.get(read) == Some(&0) {
            return Ok(());
        }
    }
}

/// Whether a word that just lost a quote is over: nothing, or a space, follows.
fn byte_closed(line: &[u8], read: usize) -> bool {
    line.get(read).is_none_or(|next| is_space(*next))
}

/// What stands behind a backslash within double quotes: the byte it means, and the length with the backslash.
fn escape(behind: &[u8]) -> (Option<u8>, usize) {
    match behind {
        [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            (Some(hex(*high) * 16 + hex(*low)), 4)
        }
        [b'n', ..] => (Some(b'\n'), 2),
        [b'r', ..] => (Some(b'\r'), 2),
        [b't', ..] => (Some(b'\t'), 2),
        [b'b', ..] => (Some(8), 2),
        [b'a', ..] => (Some(7), 2),
        [other, ..] => (Some(*other), 2),
        [] => (Some(b'\\'), 1),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let mut bytes = line.as_bytes().to_vec();
        let mut spans = Vec::new();
        split(&mut bytes, |start, end| spans.push((start, end)))?;
        Ok(spans.into_iter().map(|(start, end)| bytes[start..end].to_vec()).collect())
    }

    #[test]
    fn plain_words_and_any_spaces() {
        assert_eq!(words("  set\tkey   value ").unwrap(), [&b"set"[..], b"key", b"value"]);
        assert_eq!(words("").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(words(" \t ").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(words(r#"set "a b" 'c d'"#).unwrap(), [&b"set"[..], b"a b", b"c d"]);
        assert_eq!(words(r#""\x41\n\r\t\a\b\q\"""#).unwrap(), [&b"A\n\r\t\x07\x08q\""[..]]);
        assert_eq!(words(r"'it\'s' '\n'").unwrap(), [&b"it's"[..], b"\\n"]);
        assert_eq!(words(r#""" ''"#).unwrap(), [&b""[..], b""]);
        assert_eq!(words(r#"ab"cd""#).unwrap(), [&b"abcd"[..]], "a quote may open within a word");
        assert_eq!(words(r#""\x4""#).unwrap(), [&b"x4"[..]]);
    }

    #[test]
    fn unbalanced() {
        for line in [r#""open"#, "'open", r#""a"b"#, "'a'b", r#""ends\""#] {
            assert_eq!(words(line), Err(Unbalanced), "{line}");
        }
    }

    #[test]
    fn a_zero_byte_ends_the_line() {
        assert_eq!(words("a b\0c d").unwrap(), [&b"a"[..], b"b"]);
    }
}
