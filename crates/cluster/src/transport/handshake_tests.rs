use super::*;
use proptest::prelude::*;

fn identity(store: u64, cluster: Option<u128>) -> Identity {
    Identity { store: StoreId(store), name: format!("n{store}"), cluster, empty: true, map_version: 3 }
}

fn hello() -> Hello {
    let identity = identity(7, Some(9));
    Hello { identity, purpose: Purpose::Data(3), session: 77, lanes: 4, secret: true, nonce: [5; 32] }
}

fn records() -> [Record; 3] {
    [Record::Hello(hello()), Record::Proof(Bytes::from_static(&[1; 32])), Record::Refusal("no".into())]
}

/// One of each, one behind the other.
pub(in crate::transport) fn all_records() -> Vec<u8> {
    records().iter().flat_map(Record::encode).collect()
}

#[test]
fn records_come_back() {
    for record in records() {
        let bytes = record.encode();
        assert_eq!(Record::length(&bytes[..4]), Ok(Some(bytes.len())));
        assert_eq!(Record::decode(&bytes), Ok(record));
    }
    for purpose in [Purpose::Control, Purpose::Data(0), Purpose::Data(255), Purpose::Ask] {
        let greeting = Greeting::new(purpose, true);
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
    }
    for verdict in VERDICTS {
        let answer = Answer { versions: (1, 2), verdict };
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

#[test]
fn any_flipped_bit_of_a_record_is_found() {
    let bytes = Record::Hello(hello()).encode();
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[at / 8] ^= 1 << (at % 8);
        assert!(Record::decode(&changed).is_err(), "bit {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_handshake(&bytes);
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn any_body_is_read_without_panic(kind in 0..4_u8, body in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(body.len() as u32);
        bytes.put_u8(kind);
        bytes.put_slice(&body);
        let sum = xxh3_64(&bytes);
        bytes.put_u64_le(sum);
        let _ = Record::decode(&bytes);
    }
}

#[test]
fn versions_overlap_or_the_connection_ends_with_a_reason() {
    let greeting = |versions| Greeting { versions, purpose: Purpose::Ask, tls: false };
    let verdict = |versions| Answer::to(&greeting(versions), false).verdict;
    assert_eq!(verdict((VERSION_MIN, VERSION_MAX)), Verdict::GoOn);
    assert_eq!(verdict((VERSION_MAX, VERSION_MAX + 1)), Verdict::GoOn, "the release behind this one");
    assert_eq!(verdict((0, VERSION_MIN)), Verdict::GoOn, "the release before this one");
    assert_eq!(verdict((VERSION_MAX + 1, VERSION_MAX + 2)), Verdict::Versions);
    assert_eq!(verdict((0, 0)), Verdict::Versions);
    assert_eq!(verdict((9, 1)), Verdict::Versions, "a range that is none");
    let reason = Answer::to(&greeting((8, 9)), false).reason((8, 9)).unwrap_err();
    assert!(reason.contains("speaks 8 to 9") && reason.contains("one release at a time"), "{reason}");
}

#[test]
fn tls_is_wanted_by_both_or_none() {
    let verdict = |theirs, mine| Answer::to(&Greeting::new(Purpose::Ask, theirs), mine).verdict;
    assert_eq!(verdict(true, true), Verdict::GoOn);
    assert_eq!(verdict(false, false), Verdict::GoOn);
    assert_eq!(verdict(false, true), Verdict::WantsTls);
    assert_eq!(verdict(true, false), Verdict::HasNoTls);
}

#[test]
fn two_clusters_do_not_speak() {
    let judge = |mine, theirs| judge(&identity(1, mine), &identity(2, theirs));
    assert_eq!(judge(Some(1), Some(1)), Ok(()));
    assert_eq!(judge(None, Some(1)), Ok(()));
    assert_eq!(judge(Some(1), None), Ok(()));
    let reason = judge(Some(1), Some(0xab)).unwrap_err();
    assert!(reason.contains("n2 to cluster 000000000000000000000000000000ab"), "{reason}");
    assert!(super::judge(&identity(1, None), &identity(1, None)).unwrap_err().contains("this node itself"));
}

#[test]
fn a_proof_is_of_one_secret_one_side_and_one_conversation() {
    let (secret, other) = (Secret::of(b"s").unwrap(), Secret::of(b"t").unwrap());
    let said: [&[u8]; 2] = [b"hello", b"you"];
    let found = prove(Some(&secret), Side::Dialer, &said);
    assert!(is_proven(Some(&secret), Side::Dialer, &said, &found));
    assert!(!is_proven(Some(&other), Side::Dialer, &said, &found));
    assert!(!is_proven(Some(&secret), Side::Acceptor, &said, &found));
    assert!(!is_proven(Some(&secret), Side::Dialer, &[b"hell", b"oyou"], &found));
    assert!(!is_proven(Some(&secret), Side::Dialer, &said, &found[1..]));
    assert!(!is_proven(Some(&secret), Side::Dialer, &said, b""));
    assert!(!is_proven(None, Side::Dialer, &said, &found));
    assert!(is_proven(None, Side::Dialer, &said, &prove(None, Side::Dialer, &said)));
}

#[test]
fn text_of_others_is_bounded_and_harmless() {
    let long = Record::Refusal("é".repeat(RECORD_BYTES_MAX));
    let Ok(Record::Refusal(text)) = Record::decode(&long.encode()) else { panic!("a refusal") };
    assert_eq!(text.len(), REASON_BYTES_MAX);
    let Ok(Record::Refusal(text)) = Record::decode(&Record::Refusal("a\nb\x1b[2J".into()).encode()) else {
        panic!("a refusal")
    };
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
