use super::*;
use kvorum_model::ErrorReply;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn words() -> impl Strategy<Value = Vec<Bytes>> {
    proptest::collection::vec(bytes(), 0..5)
}

fn commands() -> impl Strategy<Value = Vec<Vec<Bytes>>> {
    proptest::collection::vec(words(), 0..5)
}

fn work() -> impl Strategy<Value = Work<Bytes>> {
    let maybe = || proptest::option::of(bytes());
    prop_oneof![
        commands().prop_map(Work::Commands),
        (proptest::collection::vec((bytes(), any::<u64>()), 0..4), commands())
            .prop_map(|(watched, commands)| Work::Transaction { watched, commands }),
        words().prop_map(Work::Versions),
        Just(Work::Clear),
        (maybe(), any::<u32>(), maybe(), maybe()).prop_map(|(after, looked_at_max, pattern, type_name)| {
            Work::Page { after, looked_at_max, pattern, type_name }
        }),
        bytes().prop_map(Work::Keys),
        Just(Work::Count),
        Just(Work::RandomKey),
        words().prop_map(Work::Scan),
        (any::<u64>(), holders()).prop_map(|(op, wanted)| Work::Held { op, wanted }),
    ]
}

fn holders() -> impl Strategy<Value = Holders> {
    (any::<bool>(), any::<u8>()).prop_map(|(leader, others)| Holders { leader, others: others.into() })
}

fn reply() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        Just(Reply::Ok),
        Just(Reply::Nil),
        Just(Reply::NilArray),
        any::<i64>().prop_map(Reply::Integer),
        any::<bool>().prop_map(Reply::Boolean),
        (-1e300..1e300f64).prop_map(Reply::Double),
        bytes().prop_map(Reply::Bulk),
        "[a-z ]{0,20}".prop_map(|text| Reply::Simple(text.into())),
        "[A-Z]{1,8} .{0,20}".prop_map(|text| Reply::Error(ErrorReply::new(text))),
        ".{0,20}".prop_map(Reply::Verbatim),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            list.clone().prop_map(Reply::Array),
            list.prop_map(Reply::Set),
            proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
        ]
    })
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![reply().prop_map(Said::Reply), Just(Said::Again), Just(Said::Unknown)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (any::<u64>(), proptest::collection::vec(said(), 0..5))
            .prop_map(|(last, all)| Answer::Said { last, all }),
        Just(Answer::Changed),
        proptest::collection::vec(any::<u64>(), 0..5).prop_map(Answer::Versions),
        (proptest::option::of(bytes()), words()).prop_map(|(next, keys)| Answer::Page { next, keys }),
        any::<u64>().prop_map(Answer::Count),
        holders().prop_map(Answer::Held),
        proptest::option::of(any::<u64>()).prop_map(|leader| Answer::NotHere(leader.map(StoreId))),
        ".{0,30}".prop_map(Answer::Refused),
    ]
}

/// One of each, by name.
fn asks() -> Vec<(&'static str, Work<Bytes>)> {
    let word = |word: &'static str| Bytes::from_static(word.as_bytes());
    let commands =
        || vec![vec![word("SET"), word("key"), word("value")], vec![word("GET"), word("")], Vec::new()];
    let some = |text| Some(word(text));
    let page = Work::Page {
        after: some("after"),
        looked_at_max: 10,
        pattern: some("k*"),
        type_name: some("string"),
    };
    vec![
        ("commands", Work::Commands(commands())),
        (
            "transaction",
            Work::Transaction { watched: vec![(word("key"), u64::MAX), (word(""), 0)], commands: commands() },
        ),
        ("versions", Work::Versions(vec![word("a"), word("b")])),
        ("clear", Work::Clear),
        ("page", page),
        ("keys", Work::Keys(word("*"))),
        ("count", Work::Count),
        ("random_key", Work::RandomKey),
        ("scan", Work::Scan(vec![word("SCAN"), word("7"), word("COUNT"), word("10")])),
        ("held", Work::Held { op: 7 << 40, wanted: Holders { leader: true, others: 2 } }),
    ]
}

/// One of each, by name.
fn answers() -> Vec<(&'static str, Answer)> {
    let list = Reply::Array(vec![Reply::Integer(-7), Reply::Nil, Reply::Set(vec![Reply::bulk("member")])]);
    let map = Reply::Map(vec![(Reply::bulk("field"), Reply::Double(0.5)), (Reply::Ok, Reply::Boolean(true))]);
    let texts = vec![Reply::Simple("PONG".into()), Reply::Verbatim("text".into()), Reply::NilArray];
    let error = Reply::Error(ErrorReply::new("ERR why"));
    let replies = [list, map, Reply::Array(texts), error].map(Said::Reply);
    let all = replies.into_iter().chain([Said::Again, Said::Unknown]).collect();
    vec![
        ("said", Answer::Said { last: 9 << 40, all }),
        ("changed", Answer::Changed),
        ("versions", Answer::Versions(vec![0, u64::MAX])),
        ("page", Answer::Page { next: Some("next".into()), keys: vec!["a".into(), Bytes::new()] }),
        ("count", Answer::Count(3)),
        ("held", Answer::Held(Holders { leader: false, others: 1 })),
        ("not_here", Answer::NotHere(Some(StoreId(5)))),
        ("refused", Answer::Refused("why".to_owned())),
    ]
}

/// What the readers are tried with: a target of `fuzz/`, a name, and the bytes.
pub(crate) fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let ask = |(name, work): (&str, Work<Bytes>)| {
        let (shard, request_id) = (ShardId { namespace: 7, place: 3 }, Some("request".into()));
        let bytes = encode(&Ask { shard, patience_ms: 1000, request_id, work });
        ("forward_ask", name.to_owned(), bytes.to_vec())
    };
    let answer =
        |(name, answer): (&str, Answer)| ("forward_answer", name.to_owned(), answer.encode().to_vec());
    asks().into_iter().map(ask).chain(answers().into_iter().map(answer)).collect()
}

fn encode(ask: &Ask) -> Bytes {
    encode_ask(ask.shard, ask.patience_ms, ask.request_id.as_deref(), &ask.work)
}

proptest! {
    #[test]
    fn what_is_asked_comes_back(
        namespace: u16, place: u16, patience_ms: u32, request_id in proptest::option::of(bytes()), work in work(),
    ) {
        let ask = Ask { shard: ShardId { namespace, place }, patience_ms, request_id, work };
        let encoded = encode(&ask);
        prop_assert_eq!(decode_ask(encoded.clone()), Ok(ask));
        for cut in 0..encoded.len() {
            prop_assert!(decode_ask(encoded.slice(..cut)).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn what_is_answered_comes_back(answer in answer()) {
        let encoded = answer.encode();
        prop_assert_eq!(decode_answer(encoded.clone()), Ok(answer));
        for cut in 0..encoded.len() {
            prop_assert!(decode_answer(encoded.slice(..cut)).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn anything_else_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // What is taken says the same again.
        if let Ok(ask) = decode_ask(bytes.clone().into()) {
            prop_assert_eq!(&encode(&ask)[..], &bytes[..]);
        }
        _ = decode_answer(bytes.into());
    }
}

#[test]
fn counts_are_checked_before_room_is_made_for_them() {
    let huge = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, VERSIONS, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(decode_ask(Bytes::copy_from_slice(&huge)), Err(Bad("a count that the rest has room for")));
    let mut nested = vec![SAID, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, SAID_REPLY];
    nested.extend([8, 1, 0, 0, 0].repeat(10_000));
    nested.push(1);
    assert_eq!(decode_answer(nested.into()), Err(Bad("replies nested at most 16 deep")));
}
