use super::*;
use crate::available::anti_entropy::Way;
use crate::available::{Exchange, Exchanged};
use crate::namespace::Mode;
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Parts, Settings, SystemClock, TreeSettings};
use std::sync::Arc;

const ONE: StoreId = StoreId(1);
const TWO: StoreId = StoreId(2);

fn replica(me: StoreId) -> Replica {
    let mut settings = Settings::default();
    (settings.memory_bytes, settings.background_threads) = (64 << 20, false);
    let parts = Parts::new(Arc::new(SimFs::new(me.0)), Arc::new(SystemClock::new()));
    let store = Store::open("/store", settings, parts).unwrap();
    let trees = vec![store.tree("t", TreeSettings::newest_only()).unwrap()];
    let replica = Replica::new(me, NamespaceId::new(16, Mode::Available, 1), store, trees);
    turn(&replica, &order(), &[], false);
    replica
}

/// It serves among these nodes from now on, and lacks what some of them have.
fn turn(replica: &Replica, order: &Order, others: &[StoreId], doubts: bool) {
    let sources = Sources { others: others.to_vec(), lost: 0 };
    replica.turn(order, Begins { lacks: !others.is_empty(), doubts }, &sources, Vec::new());
}

fn order() -> Order {
    Order::of([(ONE, "a"), (TWO, "b")])
}

/// A key whose first replica is this one.
fn key_of(store: StoreId) -> Bytes {
    let mut keys = (0..).map(|number| Bytes::from(format!("key{number}")));
    keys.find(|key| order().rank(slot(key), store) == Some(0)).unwrap()
}

fn entry(version: u64, value: Option<&'static str>, from: u8) -> Entry {
    Entry { version, value: value.map(Bytes::from), expires_at: None, from, shadow: false, base: None }
}

fn write(replica: &Replica, key: &Bytes, entry: &Entry) -> (u64, u8) {
    let ask = Ask::Write { key: key.clone(), entry: entry.clone(), why: Why::Mend };
    match replica.handle(TWO, &ask, &order(), u64::MAX).unwrap() {
        (Answer::Stored { newer, wider }, _) => (newer, wider),
        other => panic!("{other:?}"),
    }
}

fn ask(replica: &Replica, ask: &Ask) -> Answer {
    replica.handle(TWO, ask, &order(), u64::MAX).unwrap().0
}

#[test]
fn the_higher_version_stays_in_whatever_order_they_come() {
    let (replica, key) = (replica(ONE), key_of(ONE));
    assert_eq!(ask(&replica, &Ask::Read { key: key.clone(), ack: 1, from: 1 }), Answer::Found(None));
    assert_eq!(write(&replica, &key, &entry(5, Some("five"), 1)), (0, 0));
    assert_eq!(write(&replica, &key, &entry(3, Some("three"), 1)), (5, 0));
    assert_eq!(write(&replica, &key, &entry(5, Some("five"), 1)), (0, 0), "once more is no harm");
    assert_eq!(replica.entry(&key).unwrap(), Some(entry(5, Some("five"), 1)));
    write(&replica, &key, &entry(7, None, 1));
    assert_eq!(ask(&replica, &Ask::Read { key, ack: 1, from: 1 }), Answer::Found(Some(entry(7, None, 1))));
}

#[test]
fn a_replica_behind_from_keeps_no_copy_and_lets_go_of_an_older_one() {
    let (replica, key) = (replica(ONE), key_of(TWO));
    write(&replica, &key, &entry(1, Some("not here"), 1));
    assert_eq!(replica.entry(&key).unwrap(), None);
    write(&replica, &key, &entry(2, Some("here"), 2));
    assert_eq!(
        write(&replica, &key, &entry(3, Some("not here"), 1)),
        (0, 2),
        "and says that there were more copies"
    );
    let shadow = Entry { shadow: true, ..entry(3, None, 1) };
    assert_eq!(replica.entry(&key).unwrap(), Some(shadow));
    assert_eq!(replica.digests(0, ONE, &order()).unwrap(), [], "what it remembers is no copy");
    // Nodes came or went, and now it is one of them.
    write(&replica, &key, &entry(3, Some("here now"), 2));
    assert_eq!(replica.entry(&key).unwrap(), Some(entry(3, Some("here now"), 2)));
}

#[test]
fn a_shadow_goes_where_older_copies_are_and_stays_one() {
    // Three nodes: the first keeps the entry, the third has its shadow, the second missed everything.
    let (second, key) = (replica(ONE), key_of(ONE));
    write(&second, &key, &entry(2, Some("old"), 2));
    let shadow = Entry { shadow: true, ..entry(3, None, 2) };
    write(&second, &key, &shadow);
    assert_eq!(second.entry(&key).unwrap(), Some(shadow));
    write(&second, &key, &entry(3, Some("new"), 2));
    assert_eq!(second.entry(&key).unwrap(), Some(entry(3, Some("new"), 2)));
}

#[test]
fn a_forgotten_deletion_does_not_let_the_deleted_come_back() {
    let (replica, key) = (replica(ONE), key_of(ONE));
    write(&replica, &key, &entry(4, Some("old"), 1));
    write(&replica, &key, &entry(9, None, 1));
    let digests = || replica.digests(0, ONE, &order()).unwrap();
    assert_eq!(digests().len(), 1);
    replica.set_tombstone_floor(9).unwrap();
    assert_eq!(digests(), [], "what may be forgotten is not compared");
    replica.store.flush().unwrap();
    replica.store.compact().unwrap();
    assert_eq!(replica.entry(&key).unwrap(), None, "the tombstone is gone");
    // A replica that slept brings it again.
    assert_eq!(write(&replica, &key, &entry(4, Some("old"), 1)), (5, 0));
    assert_eq!(replica.entry(&key).unwrap(), None);
}

#[test]
fn clocks_too_far_ahead_are_refused() {
    let (replica, key) = (replica(ONE), key_of(ONE));
    let ask = Ask::Write { key: key.clone(), entry: entry(11, Some("x"), 1), why: Why::Mend };
    let refused = replica.handle(TWO, &ask, &order(), 10);
    assert!(matches!(refused, Err(Refusal::Ahead { version: 11 })));
    assert_eq!(replica.entry(&key).unwrap(), None);
}

#[test]
fn who_is_rebuilt_takes_writes_and_answers_no_reads() {
    let (replica, key) = (replica(ONE), key_of(ONE));
    turn(&replica, &order(), &[TWO], false);
    write(&replica, &key, &entry(1, Some("x"), 1));
    let read = Ask::Read { key, ack: 1, from: 1 };
    assert!(matches!(replica.handle(TWO, &read, &order(), 10), Err(Refusal::Rebuilding)));
    replica.collected(TWO, true);
    assert_eq!(ask(&replica, &read), Answer::Found(Some(entry(1, Some("x"), 1))));
}

#[test]
fn equal_content_has_equal_digests() {
    let (one, two) = (replica(ONE), replica(TWO));
    let (shared, own) = (key_of(ONE), key_of(TWO));
    for replica in [&one, &two] {
        write(replica, &shared, &entry(5, Some("x"), 2));
    }
    // The second node alone keeps this: the first one is not asked about it.
    write(&two, &own, &entry(6, Some("y"), 1));
    let digests = |of: &Replica, with| of.digests(0, with, &order()).unwrap();
    assert_eq!(digests(&one, TWO), digests(&two, ONE));
    write(&two, &shared, &entry(7, None, 2));
    assert_ne!(digests(&one, TWO), digests(&two, ONE));
    let (mut exchange, _) = super::super::Exchange::begin(TWO, 0);
    let mut answer = Answer::Digests(digests(&two, ONE));
    let done = loop {
        match exchange.step(answer, &one, &order(), u64::MAX).unwrap() {
            super::super::Exchanged::Ask(ask) => {
                answer = two.handle(ONE, &ask, &order(), u64::MAX).unwrap().0;
            }
            done => break done,
        }
    };
    assert_eq!(done, super::super::Exchanged::Done { slots: 1, moved: 1, refused: 0 });
    assert_eq!(digests(&one, TWO), digests(&two, ONE));
}

#[test]
fn long_lists_and_large_entries_come_in_pieces() {
    let (one, two) = (replica(ONE), replica(TWO));
    let many = LISTED_MAX as u64 * 2 + 100;
    for number in 0..many {
        // Either side has some that the other lacks, and some that are newer there.
        let key = Bytes::from(format!("{{k}}{number:05}"));
        for (replica, share) in [(&one, 2), (&two, 3)] {
            if number.is_multiple_of(share) {
                write(replica, &key, &entry(number + share, Some("value"), 2));
            }
        }
    }
    let large: &'static str = Box::leak("x".repeat(300 << 10).into_boxed_str());
    for number in 0..8 {
        write(&two, &Bytes::from(format!("{{k}}large{number}")), &entry(1, Some(large), 2));
    }
    let (mut exchange, ask) = super::super::Exchange::begin(TWO, 0);
    let mut answer = two.handle(ONE, &ask, &order(), u64::MAX).unwrap().0;
    while let super::super::Exchanged::Ask(ask) = exchange.step(answer, &one, &order(), u64::MAX).unwrap() {
        answer = two.handle(ONE, &ask, &order(), u64::MAX).unwrap().0;
    }
    assert_eq!(one.digests(0, TWO, &order()).unwrap(), two.digests(0, ONE, &order()).unwrap());
    for number in 0..many {
        let key = format!("{{k}}{number:05}");
        assert_eq!(one.entry(key.as_bytes()).unwrap(), two.entry(key.as_bytes()).unwrap(), "{key}");
    }
    assert!(one.entry(b"{k}large7").unwrap().is_some());
}

/// Carries out an exchange of one with the other.
fn exchange(me: &Replica, peer: &Replica, begun: (Exchange, Ask)) {
    let (mut exchange, mut ask) = begun;
    loop {
        let answer = peer.handle(me.store_id(), &ask, &order(), u64::MAX).unwrap().0;
        match exchange.step(answer, me, &order(), u64::MAX).unwrap() {
            Exchanged::Ask(next) => ask = next,
            Exchanged::Done { .. } => return,
        }
    }
}

#[test]
fn who_slept_too_long_lets_go_of_what_was_deleted() {
    let (sleeper, awake) = (replica(ONE), replica(TWO));
    let keys = ["deleted", "kept", "missed", "newer"].map(Bytes::from);
    for replica in [&sleeper, &awake] {
        write(replica, &keys[0], &entry(5, Some("old"), 2));
        write(replica, &keys[1], &entry(6, Some("old"), 2));
    }
    // While one sleeps the other deletes, writes, and forgets the deletion; the sleeper has taken something shortly before.
    write(&awake, &keys[0], &entry(8, None, 2));
    write(&awake, &keys[2], &entry(9, Some("new"), 2));
    write(&sleeper, &keys[3], &entry(25, Some("late"), 2));
    awake.set_tombstone_floor(20).unwrap();
    turn(&sleeper, &order(), &[TWO], true);
    let refused =
        |ask: Ask| matches!(sleeper.handle(TWO, &ask, &order(), u64::MAX), Err(Refusal::Rebuilding));
    assert!(
        refused(Ask::Digests { place: 0 }) && refused(Ask::Read { key: keys[0].clone(), ack: 1, from: 1 })
    );
    let way = Way { deleted_upto: 20, takes_over: true, ..Way::default() };
    exchange(&sleeper, &awake, Exchange::collect(TWO, 0, way));
    sleeper.collected(TWO, true);
    assert!(sleeper.is_whole() && !sleeper.doubts());
    for replica in [&sleeper, &awake] {
        let value = |key: &Bytes| replica.entry(key).unwrap().and_then(|entry| entry.value);
        assert_eq!(
            keys.each_ref().map(value),
            [None, Some("old".into()), Some("new".into()), Some("late".into())]
        );
    }
    // Nothing is left to move, in either direction.
    assert_eq!(sleeper.digests(0, TWO, &order()).unwrap(), awake.digests(0, ONE, &order()).unwrap());
}

#[test]
fn what_was_forgotten_stays_so() {
    let before = replica(ONE);
    before.set_tombstone_floor(20).unwrap();
    let Replica { namespace, store, trees, .. } = before;
    let again = Replica::new(ONE, namespace, store, trees);
    turn(&again, &order(), &[], false);
    let (answer, _) = again.handle(TWO, &Ask::Standing, &order(), u64::MAX).unwrap();
    assert!(matches!(answer, Answer::Standing(stands) if stands.floor == 20));
}

#[test]
fn entries_of_others_are_found_and_let_go_of() {
    let replica = replica(ONE);
    let (own, others) = (key_of(ONE), key_of(TWO));
    write(&replica, &own, &entry(5, Some("mine"), 1));
    // Kept when there was only this node.
    let alone = Order::of([(ONE, "a")]);
    turn(&replica, &alone, &[], false);
    let ask =
        Ask::Write { key: others.clone(), entry: entry(6, Some("theirs"), 1), why: Why::Client { ack: 1 } };
    replica.handle(ONE, &ask, &alone, u64::MAX).unwrap();
    // Another node came: whoever does not know it is refused.
    turn(&replica, &order(), &[], false);
    let refused = |order: &Order| replica.handle(ONE, &ask, order, u64::MAX);
    assert!(matches!(refused(&alone), Err(Refusal::OtherNodes)));
    assert!(matches!(replica.handle_cached(&ask, &alone, u64::MAX), Some(Err(Refusal::OtherNodes))));
    assert_eq!(replica.misplaced(0, &alone, None).unwrap(), []);
    assert_eq!(replica.misplaced(0, &order(), None).unwrap(), [(others.clone(), 6)]);
    let theirs = replica.entry(&others).unwrap().unwrap();
    replica.forget(&others, &theirs).unwrap();
    assert_eq!(replica.misplaced(0, &order(), None).unwrap(), []);
    assert_eq!(replica.entry(&others).unwrap().map(|entry| (entry.value, entry.shadow)), Some((None, true)));
}
