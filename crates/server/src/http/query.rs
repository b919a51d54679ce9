//! Query strings and paths: bytes of any content, percent-encoded.

/// The parameters of a request, decoded.
pub(crate) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Splits `a=1&b=2`. `+` stands for a space and `%HH` for a byte; a `%` that no two hexadecimal digits follow stands for itself.
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name.as_bytes(), true), decode(value.as_bytes(), true))
                })
                .collect(),
        )
    }

    /// The first parameter of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

/// The bytes of a part of a path.
pub(super) fn part(text: &str) -> Vec<u8> {
    decode(text.as_bytes(), false)
}

/// `plus`: a `+` stands for a space.
fn decode(text: &[u8], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return out,
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(digit(*high) * 16 + digit(*low));
                after
            }
            [b'+', after @ ..] if plus => {
                out.push(b' ');
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

fn digit(hex: u8) -> u8 {
    char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_content() {
        let query = Query::parse("id=a%00%ff+b%2Bc&ack=1&empty=&flag&id=second&%6bey=x");
        assert_eq!(query.get("id"), Some(&b"a\0\xff b+c"[..]));
        assert_eq!(query.get("ack"), Some(&b"1"[..]));
        assert_eq!((query.get("empty"), query.get("flag")), (Some(&b""[..]), Some(&b""[..])));
        assert_eq!((query.get("key"), query.get("none")), (Some(&b"x"[..]), None));
        assert_eq!(Query::parse("a=%zz%4").get("a"), Some(&b"%zz%4"[..]));
        assert_eq!(Query::parse("").get(""), None);
        assert_eq!(part("a%2Fb+c/d"), b"a/b+c/d");
    }
}
