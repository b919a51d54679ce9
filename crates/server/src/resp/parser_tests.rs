use super::*;
use crate::fuzz::{OPEN, Words, feed};
use proptest::prelude::*;

fn whole(input: &[u8]) -> (Vec<Words>, Option<String>) {
    let (commands, error) = feed([input], OPEN);
    (commands, error.map(|error| error.to_string()))
}

fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn error_of(input: &[u8]) -> String {
    whole(input).1.unwrap_or_else(|| panic!("{:?} is refused", input.escape_ascii().to_string()))
}

#[test]
fn multibulk_inline_and_nothing() {
    let (commands, error) = whole(b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n\r\nPING\r\n*0\r\n*-1\r\nset a 'b c'\n");
    assert_eq!(error, None);
    let expected: Vec<Words> = vec![
        vec![b"ECHO".to_vec(), b"hi".to_vec()],
        vec![b"PING".to_vec()],
        vec![b"set".to_vec(), b"a".to_vec(), b"b c".to_vec()],
    ];
    assert_eq!(commands, expected);
}

#[test]
fn refused_as_redis_does() {
    for (input, text) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$01\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        (b"*1\r\nfoo\r\n", "expected '$', got 'f'"),
        (b"SET \"x\r\n", "unbalanced quotes in request"),
    ] {
        assert_eq!(error_of(input), format!("ERR Protocol error: {text}"));
    }
    let long = vec![b'a'; LINE_BYTES_MAX + 1];
    assert_eq!(error_of(&long), "ERR Protocol error: too big inline request");
    assert_eq!(error_of(&[&b"*"[..], &long].concat()), "ERR Protocol error: too big mbulk count string");
    assert_eq!(error_of(&[&b"*1\r\n$"[..], &long].concat()), "ERR Protocol error: too big bulk count string");
}

#[test]
fn commands_before_an_error_are_kept() {
    let (commands, error) = whole(b"PING\r\n*2\r\n$1\r\na\r\n!");
    assert_eq!(commands, [[b"PING".to_vec()]]);
    assert_eq!(error.unwrap(), "ERR Protocol error: expected '$', got '!'");
}

#[test]
fn unauthenticated_clients_get_little() {
    let closed = Limits { authenticated: false, ..OPEN };
    let (_, error) = feed([&b"*11\r\n"[..]], closed);
    assert_eq!(error.unwrap().to_string(), "ERR Protocol error: unauthenticated multibulk length");
    let (_, error) = feed([&b"*1\r\n$16385\r\n"[..]], closed);
    assert_eq!(error.unwrap().to_string(), "ERR Protocol error: unauthenticated bulk length");
    let (commands, error) = feed([&b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n"[..]], closed);
    assert_eq!((commands.len(), error), (1, None));
}

#[test]
fn a_long_pipeline_comes_in_pieces() {
    let input = b"PING\r\n".repeat(COMMANDS_MAX * 2 + 1);
    let (commands, error) = whole(&input);
    assert_eq!((commands.len(), error), (COMMANDS_MAX * 2 + 1, None));
}

#[test]
fn every_split_point_gives_the_same_commands() {
    let input = [
        encode(&[b"SET".to_vec(), b"k\r\n".to_vec(), vec![0, 255, b'\r', b'\n', b'$']]),
        b"get \"a\\x41 b\" 'c'\r\n".to_vec(),
        encode(&[b"DEL".to_vec(), Vec::new()]),
        b"\r\n*0\r\nPING\n".to_vec(),
    ]
    .concat();
    let expected = feed([&input[..]], OPEN);
    assert_eq!(expected.0.len(), 4);
    for at in 0..input.len() {
        for second in at..input.len() {
            let pieces = [&input[..at], &input[at..second], &input[second..]];
            assert_eq!(feed(pieces, OPEN), expected, "split at {at} and {second}");
        }
    }
    assert_eq!(feed(input.chunks(1), OPEN), expected);
}

#[test]
fn integers_as_string2ll() {
    for (text, value) in
        [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
    {
        assert_eq!(integer(text.as_bytes()), Some(value));
    }
    for text in ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "9223372036854775808", "1x"] {
        assert_eq!(integer(text.as_bytes()), None, "{text:?}");
    }
}

/// Bytes that look enough like the protocol to get past its first checks.
fn almost_protocol() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"'".to_vec()),
        Just(b"\\x4".to_vec()),
        (-2i64..20).prop_map(|n| n.to_string().into_bytes()),
        (0usize..4).prop_map(|n| encode(&vec![b"ab".to_vec(); n])),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed(
        commands in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6), 0..20),
        piece in 1usize..64,
    ) {
        let input: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
        prop_assert_eq!(feed(input.chunks(piece), OPEN), (commands, None));
    }

    #[test]
    fn pieces_never_matter(input in almost_protocol(), piece in 1usize..40) {
        // Where an error is found may differ by what has arrived, what is found and what came before it may not.
        prop_assert_eq!(feed(input.chunks(piece), OPEN), feed([&input[..]], OPEN));
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..40) {
        prop_assert_eq!(feed(input.chunks(piece), OPEN), feed([&input[..]], OPEN));
    }
}
