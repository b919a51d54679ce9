use super::*;
use crate::namespace::NamespaceId;
use kvorum_model::resolve;

/// Keys of three shards: `a…`, `b…`, `c…` by their tags.
fn shard(key: &str) -> ShardId {
    shard_of(NamespaceId::ZERO, key.as_bytes())
}

fn cut<'r>(commands: &'r [Vec<&'r [u8]>]) -> Parts<'r> {
    let requests: Vec<Request<'r>> = commands
        .iter()
        .map(|words| {
            let args = Args::new(words);
            Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args }
        })
        .collect();
    Parts::of(&requests)
}

fn words(text: &'static str) -> Vec<&'static [u8]> {
    text.split(' ').map(str::as_bytes).collect()
}

fn shown(part: &Part<'_>) -> Vec<String> {
    let show = |piece: &Piece<'_>| {
        let words: Vec<_> = piece.words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        format!("{}: {}", piece.at, words.join(" "))
    };
    part.pieces.iter().map(show).collect()
}

fn refusal() -> ErrorReply {
    ErrorReply::new("TRYAGAIN no leader")
}

/// Lets `execute` answer every piece, the parts in reverse, and puts the replies together.
fn merge(parts: Parts<'_>, execute: impl Fn(&Piece<'_>) -> Said) -> Vec<Reply> {
    let Parts { parts, mut merging } = parts;
    for part in parts.iter().rev() {
        for piece in &part.pieces {
            merging.add(piece, execute(piece), &refusal());
        }
    }
    merging.into_replies()
}

#[test]
fn each_shard_gets_its_commands_in_order() {
    let commands = [
        words("SET {a}1 x"),
        words("SET {b}1 y"),
        words("GET {a}1"),
        words("PING"),
        words("MSET {a}1 x {a}2 y"),
    ];
    let parts = cut(&commands);
    assert_ne!(shard("{a}1"), shard("{b}1"));
    assert_eq!(parts.parts.len(), 2);
    assert_eq!(parts.parts[0].shard, shard("{a}1"));
    assert_eq!(shown(&parts.parts[0]), ["0: SET {a}1 x", "2: GET {a}1", "4: MSET {a}1 x {a}2 y"]);
    assert_eq!(shown(&parts.parts[1]), ["1: SET {b}1 y"]);
    let replies = merge(parts, |piece| Said::Reply(Reply::Integer(piece.at as i64)));
    let number = Reply::Integer;
    assert_eq!(replies, [number(0), number(1), number(2), Reply::Simple("PONG".into()), number(4)]);
}

#[test]
fn reads_and_deletes_of_several_shards_are_cut_and_put_together() {
    let commands =
        [words("MGET {a}1 {b}1 {a}2 {c}1 {a}1"), words("DEL {a}1 {b}1 {b}2"), words("EXISTS {a}1 {a}2")];
    let parts = cut(&commands);
    assert_eq!(shown(&parts.parts[0]), ["0: MGET {a}1 {a}2 {a}1", "1: DEL {a}1", "2: EXISTS {a}1 {a}2"]);
    assert_eq!(shown(&parts.parts[1]), ["0: MGET {b}1", "1: DEL {b}1 {b}2"]);
    let replies = merge(parts, |piece| {
        let keys = piece.args().from(1);
        Said::Reply(match piece.spec.name {
            "mget" => Reply::Array(keys.iter().map(Reply::bulk).collect()),
            _ => Reply::count(keys.len()),
        })
    });
    let keys = ["{a}1", "{b}1", "{a}2", "{c}1", "{a}1"];
    assert_eq!(replies[0], Reply::Array(keys.iter().map(Reply::bulk).collect()));
    assert_eq!(replies[1..], [Reply::Integer(3), Reply::Integer(2)]);
}

#[test]
fn what_is_to_be_done_as_one_is_refused_over_shards() {
    let commands = [words("MSET {a}1 x {b}1 y"), words("MSETNX {a}1 x {b}1 y"), words("GET {a}1")];
    let parts = cut(&commands);
    assert_eq!(parts.parts.len(), 1, "the others go on");
    let replies = merge(parts, |_| Said::Reply(Reply::Nil));
    assert!(matches!(&replies[0], Reply::Error(error) if error.code() == "CROSSSLOT"));
    assert!(matches!(&replies[1], Reply::Error(error) if error.code() == "CROSSSLOT"));
    assert_eq!(replies[2], Reply::Nil);
}

#[test]
fn a_delete_done_in_part_is_not_called_undone() {
    let commands = [words("DEL {a}1 {b}1")];
    let code = |execute: &dyn Fn(&Piece<'_>) -> Said| match &merge(cut(&commands), execute)[0] {
        Reply::Error(error) => error.code().to_owned(),
        reply => format!("{reply:?}"),
    };
    let is_a = |piece: &Piece<'_>| piece.words[1].starts_with(b"{a}");
    let one = || Said::Reply(Reply::Integer(1));
    assert_eq!(code(&|_| Said::Again), "TRYAGAIN");
    assert_eq!(code(&|piece| if is_a(piece) { one() } else { Said::Again }), "UNKNOWN");
    assert_eq!(code(&|piece| if is_a(piece) { Said::Again } else { one() }), "UNKNOWN");
    assert_eq!(code(&|piece| if is_a(piece) { Said::Unknown } else { one() }), "UNKNOWN");
    assert_eq!(code(&|piece| if is_a(piece) { Said::Again } else { Said::Unknown }), "UNKNOWN");
    let reads = [words("MGET {a}1 {b}1")];
    let half = merge(cut(&reads), |piece| match is_a(piece) {
        true => Said::Reply(Reply::Array(vec![Reply::Nil])),
        false => Said::Again,
    });
    assert!(matches!(&half[0], Reply::Error(error) if error.code() == "TRYAGAIN"), "a read changes nothing");
}
