//! Numbers as Redis reads them: canonical decimal, nothing around it.

use crate::error::ErrorReply;

/// A signed 64-bit integer in its one canonical form: no plus, no spaces, no leading zeros, no `-0`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let magnitude = parse_u64(digits)?;
    match (negative, magnitude) {
        (true, 0) => None,
        (true, _) => 0i64.checked_sub_unsigned(magnitude),
        (false, _) => i64::try_from(magnitude).ok(),
    }
}

/// An unsigned 64-bit integer in its canonical form. Versions are written so.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    let canonical = matches!(text, [b'0'] | [b'1'..=b'9', ..]);
    if !canonical {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// As [`parse_i64`], with the error that a client gets.
pub(crate) fn integer(text: &[u8]) -> Result<i64, ErrorReply> {
    parse_i64(text).ok_or_else(ErrorReply::not_an_integer)
}

#[cfg(test)]
mod tests {
    use super::{parse_i64, parse_u64};
    use proptest::prelude::*;

    #[test]
    fn only_canonical_integers_are_read() {
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        for not in
            ["", "-", "+1", " 1", "1 ", "01", "-0", "-01", "00", "1.0", "1e3", "0x1", "9223372036854775808"]
        {
            assert_eq!(parse_i64(not.as_bytes()), None, "{not:?}");
        }
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"-1"), None);
    }

    proptest! {
        #[test]
        fn every_integer_is_read_back(number: i64, version: u64) {
            prop_assert_eq!(parse_i64(number.to_string().as_bytes()), Some(number));
            prop_assert_eq!(parse_u64(version.to_string().as_bytes()), Some(version));
        }

        #[test]
        fn what_is_read_writes_the_same(text in "[-+ 0-9]{0,22}") {
            if let Some(number) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
