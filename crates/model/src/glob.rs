//! Glob patterns with Redis' rules: `*`, `?`, `[abc]`, `[^a-z]`, `\` before a character that is meant literally.

/// Whether letters match in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Only their own case, as for keys.
    Exact,
    /// Either, as for names of settings and commands.
    Ignored,
}

/// Whether `text` matches `pattern`, both of any bytes. Oddities are Redis' own: an unclosed class ends with the pattern, `[]` matches
/// nothing, `[^]` anything, an escaped character in a class keeps its case, and nothing but the empty pattern matches the empty text.
///
/// Every element but `*` takes exactly one byte, so that on a mismatch only the last `*` need take one more: at most
/// `pattern.len() × text.len()` steps, for any pattern.
pub fn glob_match(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut read) = (0, 0);
    // Where to go on after a mismatch: right behind the last `*`, and at the text that it has not taken yet.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(read) {
        let rest = pattern.get(at..).unwrap_or_default();
        let (fits, width) = match rest {
            [] => (false, 0),
            [b'*', behind @ ..] => {
                if behind.iter().all(|each| *each == b'*') {
                    return true;
                }
                at += 1;
                retry = Some((at, read));
                continue;
            }
            _ => element(rest, *byte, case),
        };
        if fits {
            at += width;
            read += 1;
        } else if let Some((behind, from)) = retry {
            at = behind;
            read = from + 1;
            retry = Some((behind, read));
        } else {
            return false;
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|each| *each == b'*')
}

/// What every text begins with that matches `pattern`.
pub fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        rest = match rest {
            [b'*' | b'?' | b'[', ..] | [b'\\'] | [] => return prefix,
            [b'\\', literal, behind @ ..] | [literal, behind @ ..] => {
                prefix.push(*literal);
                behind
            }
        };
    }
}

/// Whether the first element of `pattern` (not empty, not `*`) fits `byte`, and how long that element is.
fn element(pattern: &[u8], byte: u8, case: Case) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'[', class @ ..] => {
            let (fits, width) = class_element(class, byte, case);
            (fits, width + 1)
        }
        [b'\\', literal, ..] => (same(*literal, byte, case), 2),
        [literal, ..] => (same(*literal, byte, case), 1),
        [] => (false, 0),
    }
}

/// A class, behind its `[`: whether it has `byte`, and its length up to and with the `]`.
fn class_element(class: &[u8], byte: u8, case: Case) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut has = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            [] => return (has != negated, at),
            [b'\\', literal, ..] => {
                has |= *literal == byte;
                at += 2;
            }
            [b']', ..] => return (has != negated, at + 1),
            [from, b'-', to, ..] => {
                let (from, to) = (folded(*from, case), folded(*to, case));
                has |= (from.min(to)..=from.max(to)).contains(&folded(byte, case));
                at += 3;
            }
            [literal, ..] => {
                has |= same(*literal, byte, case);
                at += 1;
            }
        }
    }
}

fn folded(byte: u8, case: Case) -> u8 {
    match case {
        Case::Exact => byte,
        Case::Ignored => byte.to_ascii_lowercase(),
    }
}

fn same(left: u8, right: u8, case: Case) -> bool {
    folded(left, case) == folded(right, case)
}

#[cfg(test)]
mod tests {
    use super::literal_prefix;

    #[test]
    fn prefixes_end_at_the_first_byte_that_is_not_literal() {
        for (pattern, prefix) in [
            ("user:*", "user:"),
            ("a?b", "a"),
            ("a[b]", "a"),
            (r"a\*b*", "a*b"),
            (r"a\", "a"),
            ("", ""),
            ("*", ""),
        ] {
            assert_eq!(literal_prefix(pattern.as_bytes()), prefix.as_bytes(), "{pattern}");
        }
    }

    use super::{Case, class_element, element, glob_match};
    use proptest::prelude::*;

    fn exact(pattern: &str, text: &str) -> bool {
        glob_match(pattern.as_bytes(), text.as_bytes(), Case::Exact)
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text) in [
            ("h?llo", "hello"),
            ("h*llo", "hllo"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hbllo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("*", "x"),
            ("***", "x"),
            ("a**b", "ab"),
            ("\\*", "*"),
            ("a\\", "a\\"),
            ("[abc", "c"),
            ("[\\]]", "]"),
            ("[^]", "x"),
            ("[^", "x"),
            ("*[0-9]?", "key:17"),
            ("", ""),
        ] {
            assert!(exact(pattern, text), "{pattern:?} should match {text:?}");
        }
        for (pattern, text) in [
            ("h[^e]llo", "hello"),
            ("h[ae]llo", "hillo"),
            ("?", ""),
            ("*", ""),
            ("", "x"),
            ("[]", "]"),
            ("[", "["),
            ("\\*", "x"),
            ("a*b", "abc"),
            ("HELLO", "hello"),
            ("a*b*c", "ab"),
        ] {
            assert!(!exact(pattern, text), "{pattern:?} should not match {text:?}");
        }
        assert!(glob_match(b"MAX*[A-C]", b"maxmemb", Case::Ignored));
        assert!(!glob_match(b"[\\A]", b"a", Case::Ignored));
    }

    #[test]
    fn many_stars_cost_no_more_than_length_times_length() {
        let pattern = "a*".repeat(2_000) + "b";
        let text = "a".repeat(20_000);
        assert!(!exact(&pattern, &text));
    }

    /// The rules said plainly, with a search over everything that a `*` may take.
    fn plain(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], []) => plain(rest, text),
            (_, []) | ([], _) => false,
            ([b'*', rest @ ..], [_, behind @ ..]) => plain(rest, text) || plain(pattern, behind),
            (_, [byte, behind @ ..]) => {
                let (fits, width) = element(pattern, *byte, Case::Exact);
                fits && plain(&pattern[width..], behind)
            }
        }
    }

    proptest! {
        #[test]
        fn the_fast_matcher_agrees_with_the_plain_one(
            pattern in r"([ab?*\[\]^\\-]|\[[ab^-]{1,3}\]){0,10}",
            text in r"[ab*\[\]^\\-]{1,10}",
        ) {
            prop_assert_eq!(exact(&pattern, &text), plain(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_taken(pattern: Vec<u8>, text: Vec<u8>, byte: u8) {
            glob_match(&pattern, &text, Case::Ignored);
            prop_assert!(class_element(&pattern, byte, Case::Exact).1 <= pattern.len());
        }
    }
}
