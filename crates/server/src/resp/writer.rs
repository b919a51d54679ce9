//! Replies as bytes of RESP2 or RESP3.

use kvorum_model::Reply;

/// The protocol's version, chosen by `HELLO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Protocol {
    /// RESP2.
    #[default]
    Two,
    /// RESP3.
    Three,
}

impl Protocol {
    /// The number that `HELLO` takes and gives.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Two => 2,
            Protocol::Three => 3,
        }
    }
}

/// Appends `reply` to `out`.
pub(crate) fn write(out: &mut Vec<u8>, reply: &Reply, protocol: Protocol) {
    let three = protocol == Protocol::Three;
    match reply {
        Reply::Ok => out.extend_from_slice(b"+OK\r\n"),
        Reply::Simple(text) => line(out, b'+', text.as_bytes()),
        Reply::Error(error) => line(out, b'-', error.text().as_bytes()),
        Reply::Integer(number) => prefixed(out, b':', *number),
        Reply::Bulk(bytes) => bulk(out, bytes),
        Reply::Nil | Reply::NilArray if three => out.extend_from_slice(b"_\r\n"),
        Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
        Reply::NilArray => out.extend_from_slice(b"*-1\r\n"),
        Reply::Array(items) => sequence(out, b'*', items, protocol),
        Reply::Set(items) => sequence(out, if three { b'~' } else { b'*' }, items, protocol),
        Reply::Map(pairs) => {
            let (kind, count) = if three { (b'%', pairs.len()) } else { (b'*', pairs.len() * 2) };
            length(out, kind, count);
            for (key, value) in pairs {
                write(out, key, protocol);
                write(out, value, protocol);
            }
        }
        Reply::Double(number) if three => line(out, b',', double(*number).as_bytes()),
        Reply::Double(number) => bulk(out, double(*number).as_bytes()),
        Reply::Boolean(truth) if three => out.extend_from_slice(if *truth { b"#t\r\n" } else { b"#f\r\n" }),
        Reply::Boolean(truth) => prefixed(out, b':', i64::from(*truth)),
        Reply::Verbatim(text) if three => {
            length(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Verbatim(text) => bulk(out, text.as_bytes()),
    }
}

fn sequence(out: &mut Vec<u8>, kind: u8, items: &[Reply], protocol: Protocol) {
    length(out, kind, items.len());
    for item in items {
        write(out, item, protocol);
    }
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 16);
    length(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn length(out: &mut Vec<u8>, kind: u8, count: usize) {
    prefixed(out, kind, i64::try_from(count).unwrap_or(i64::MAX));
}

/// Digits of the longest 64-bit integer with its sign.
const INTEGER_BYTES_MAX: usize = 20;

fn prefixed(out: &mut Vec<u8>, kind: u8, number: i64) {
    let mut text = [0u8; INTEGER_BYTES_MAX];
    let mut rest = number.unsigned_abs();
    let mut digits = 0;
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        digits += 1;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(text.get(INTEGER_BYTES_MAX - digits..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Shortest text that reads back as the same number; infinities and NaN as RESP3 names them.
fn double(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    if number.is_nan() {
        return "nan".to_owned();
    }
    let plain = number.abs() == 0.0 || (1e-5..1e17).contains(&number.abs());
    if plain { format!("{number}") } else { format!("{number:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kvorum_model::ErrorReply;

    fn both(reply: &Reply) -> (String, String) {
        let encode = |protocol| {
            let mut out = Vec::new();
            write(&mut out, reply, protocol);
            String::from_utf8(out).unwrap()
        };
        (encode(Protocol::Two), encode(Protocol::Three))
    }

    fn same(reply: &Reply, expected: &str) {
        assert_eq!(both(reply), (expected.to_owned(), expected.to_owned()));
    }

    fn differ(reply: &Reply, two: &str, three: &str) {
        assert_eq!(both(reply), (two.to_owned(), three.to_owned()));
    }

    #[test]
    fn alike_in_both_protocols() {
        same(&Reply::Ok, "+OK\r\n");
        same(&Reply::Simple("PONG".into()), "+PONG\r\n");
        same(&Reply::Error(ErrorReply::syntax()), "-ERR syntax error\r\n");
        same(&Reply::Bulk(Bytes::from_static(b"a\r\nb")), "$4\r\na\r\nb\r\n");
        same(&Reply::Bulk(Bytes::new()), "$0\r\n\r\n");
        same(&Reply::Array(vec![Reply::Integer(1), Reply::Array(Vec::new())]), "*2\r\n:1\r\n*0\r\n");
        for (number, text) in [
            (0, ":0\r\n"),
            (-1, ":-1\r\n"),
            (10, ":10\r\n"),
            (i64::MAX, ":9223372036854775807\r\n"),
            (i64::MIN, ":-9223372036854775808\r\n"),
        ] {
            same(&Reply::Integer(number), text);
        }
    }

    #[test]
    fn types_that_resp2_lacks() {
        differ(&Reply::Nil, "$-1\r\n", "_\r\n");
        differ(&Reply::NilArray, "*-1\r\n", "_\r\n");
        differ(
            &Reply::Map(vec![(Reply::text("a"), Reply::Integer(1))]),
            "*2\r\n$1\r\na\r\n:1\r\n",
            "%1\r\n$1\r\na\r\n:1\r\n",
        );
        differ(&Reply::Set(vec![Reply::Ok]), "*1\r\n+OK\r\n", "~1\r\n+OK\r\n");
        differ(&Reply::Boolean(true), ":1\r\n", "#t\r\n");
        differ(&Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        differ(&Reply::Double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n");
        differ(&Reply::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }
}
