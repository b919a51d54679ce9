use super::*;
use proptest::prelude::*;

const HEAD: Head = Head { namespace: 16, nodes: 7, durability: None };

fn some_entry(value: Option<&'static [u8]>, expires_at: Option<u64>) -> Entry {
    Entry {
        version: 7 << 22,
        value: value.map(Bytes::from_static),
        expires_at,
        from: 3,
        shadow: false,
        base: None,
    }
}

fn asks() -> Vec<Ask> {
    let key = Bytes::from_static(b"key");
    vec![
        Ask::Write {
            key: key.clone(),
            entry: some_entry(Some(b"value"), Some(9)),
            why: Why::Client { ack: 2 },
        },
        Ask::Write { key: Bytes::new(), entry: some_entry(None, None), why: Why::Mend },
        Ask::Read { key: key.clone(), ack: 1, from: 3 },
        Ask::Digests { place: 15 },
        Ask::List { place: 3, slots: vec![1, 16383], after: Some(Bytes::new()) },
        Ask::List { place: 3, slots: vec![], after: None },
        Ask::Fetch { place: 3, keys: vec![key, Bytes::new()] },
        Ask::Standing,
        Ask::Range { from: Bytes::new(), is_first: true, end: Some("z".into()) },
        Ask::Range { from: "a".into(), is_first: false, end: None },
        Ask::DigestsWith { place: 3, peer: StoreId(u64::MAX) },
        Ask::MemberDigest { place: 3, at: Some(7), expired_ms: 9 },
        Ask::MemberDigest { place: 3, at: None, expired_ms: 9 },
        Ask::Conflicts { key: "a".into(), ack: 2, from: 2 },
        Ask::Keys { from: Bytes::new(), is_first: true, end: Some("z".into()), most: 7 },
        Ask::Keys { from: "a".into(), is_first: false, end: None, most: u16::MAX },
        Ask::Marked { mark: u64::MAX, search: true },
        Ask::Drawn { seed: 7 },
        Ask::Awake { now_ms: 5, seen_ms: u64::MAX },
        Ask::Write {
            key: "a".into(),
            entry: Entry { base: Some(7), ..some_entry(Some(b"v"), Some(1)) },
            why: Why::Move,
        },
    ]
}

fn answers() -> Vec<Answer> {
    let key = Bytes::from_static(b"key");
    vec![
        Answer::Stored { newer: 1, wider: 2 },
        Answer::Found(None),
        Answer::Found(Some(some_entry(Some(b""), None))),
        Answer::Digests(vec![(1, 2), (3, u64::MAX)]),
        Answer::List {
            listed: vec![Listed { key: key.clone(), version: 4, from: 1, shadow: true, beside: 9 }],
            more: true,
        },
        Answer::Fetched(vec![(key, Entry { shadow: true, ..some_entry(None, Some(1)) })]),
        Answer::OtherNodes,
        Answer::Standing(Stands { floor: 9, doubts: true, is_whole: true, is_unused: false }),
        Answer::Heard { now_ms: 8, is_unused: true, silent: vec![StoreId(1), StoreId(u64::MAX)] },
        Answer::Rebuilding,
        Answer::Ahead,
        Answer::Key(None),
        Answer::Key(Some("key".into())),
        Answer::MemberDigest { checkpoint: 7, digest: Some(u64::MAX) },
        Answer::MemberDigest { checkpoint: 7, digest: None },
    ]
}

#[test]
fn what_is_said_comes_back_and_no_part_of_it_does() {
    for ask in asks() {
        for durability in DURABILITIES {
            let head = Head { durability, ..HEAD };
            assert_eq!(decode_ask(encode_ask(&head, &ask)), Some((head, ask.clone())));
        }
        let bytes = encode_ask(&HEAD, &ask);
        assert!((0..bytes.len()).all(|end| decode_ask(bytes.slice(..end)).is_none()));
    }
    for answer in answers() {
        let bytes = encode_answer(&answer);
        assert_eq!(decode_answer(bytes.clone()), Some(answer));
        assert!((0..bytes.len()).all(|end| decode_answer(bytes.slice(..end)).is_none()));
    }
}

#[test]
fn nobody_keeps_no_copy_or_too_many() {
    for from in [0, COPIES_MAX + 1] {
        let ask =
            Ask::Write { key: Bytes::new(), entry: Entry { from, ..some_entry(None, None) }, why: Why::Mend };
        assert_eq!(decode_ask(encode_ask(&HEAD, &ask)), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_ask(Bytes::from(bytes.clone()));
        let _ = decode_answer(Bytes::from(bytes));
    }

    #[test]
    fn changed_bytes_are_read_without_panic(at in any::<usize>(), byte in any::<u8>()) {
        for ask in asks() {
            let mut bytes = encode_ask(&HEAD, &ask).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode_ask(bytes.into());
        }
        for answer in answers() {
            let mut bytes = encode_answer(&answer).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode_answer(bytes.into());
        }
    }
}
