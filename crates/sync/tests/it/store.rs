//! Counterexamples in which the tree takes part, with a small model of a versioned tree: sources in order of age, retract markers,
//! tombstones, floors. The engine's own tests show that the real one keeps these rules.

use kvorum_sync::{
    Config, Durable, Effect, Effects, Fetch, Input, Item, Message, Moment, Names, OpId, Piece, Promise,
    Record, Replica, Rule, StoreId, TransferId, Want, Way,
};

use crate::group::{config, epoch, item, op, store, without};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Tombstone,
    Retract,
}

/// A tree with one key. Sources from the newest to the oldest, entries of each from the newest to the oldest.
#[derive(Default)]
struct Tree {
    sources: Vec<Vec<(OpId, Kind)>>,
    floor: OpId,
}

impl Tree {
    fn of(entries: &[(OpId, Kind)]) -> Tree {
        Tree { sources: vec![entries.iter().rev().copied().collect()], floor: OpId::ZERO }
    }

    fn add(&mut self, op: OpId, kind: Kind) {
        if self.sources.is_empty() {
            self.sources.push(vec![]);
        }
        self.sources[0].insert(0, (op, kind));
    }

    fn flush(&mut self) {
        self.sources.insert(0, vec![]);
    }

    /// The newest version at most `at` that is not retracted, if it is a value.
    fn get(&self, at: OpId) -> Option<OpId> {
        let mut retracted = Vec::new();
        let mut best: Option<(OpId, Kind)> = None;
        for (op, kind) in self.sources.iter().flatten().copied() {
            match kind {
                Kind::Retract => retracted.push(op),
                _ if op > at || retracted.contains(&op) => {}
                _ => best = best.filter(|(best, _)| *best >= op).or(Some((op, kind))),
            }
        }
        best.filter(|(_, kind)| *kind == Kind::Value).map(|(op, _)| op)
    }

    /// Compaction of everything: below the floor only the newest version stays.
    fn compact(&mut self) {
        let newest = self.get(self.floor);
        let keep = |op: OpId| op > self.floor || Some(op) == newest;
        let all =
            self.sources.iter().flatten().copied().filter(|(op, kind)| *kind == Kind::Retract || keep(*op));
        self.sources = vec![all.collect()];
    }

    /// Compaction of the newest source alone. The marker may go only if no older source holds its pair.
    fn compact_newest(&mut self, too_early: bool) {
        let older: Vec<OpId> = self.sources.iter().skip(1).flatten().map(|(op, _)| *op).collect();
        self.sources[0].retain(|(op, kind)| *kind != Kind::Retract || (older.contains(op) && !too_early));
    }
}

fn follower(config: &Config, durable: &Durable) -> (Replica, Effects) {
    let mut out = Effects::new();
    let replica = Replica::recover(store(1), 1, config.clone(), durable, true, Moment(1), &mut out);
    (replica, out)
}

fn in_epoch(number: u32, tail: &[Item]) -> Durable {
    Durable {
        promise: Promise { epoch: epoch(number), manager: store(2), nonce: 1 },
        epoch: epoch(number),
        tail: tail.iter().map(|item| (item.op, item.clone())).collect(),
        ..Durable::default()
    }
}

fn from_two(replica: &mut Replica, message: Message, out: &mut Effects) -> Vec<Effect> {
    replica.step(Moment(2), Input::Message { from: StoreId(2), message }, out);
    out.drain().collect()
}

/// Asks the follower to adopt reign 2 with this basis above 1.1 and gives the retracted ops.
fn adopt_reign_two(replica: &mut Replica, out: &mut Effects) -> Vec<OpId> {
    let adopt = kvorum_sync::Adopt {
        promise: Promise { epoch: epoch(2), manager: store(2), nonce: 1 },
        basis_epoch: epoch(1),
        checkpoint: kvorum_sync::Checkpoint { op: op(1, 1), ..kvorum_sync::Checkpoint::default() },
        basis: vec![],
        basis_end: op(1, 1),
        sources: Names::one(store(2)),
        head: op(1, 1),
    };
    let effects = from_two(replica, Message::Adopt(Box::new(adopt)), out);
    let adoption = effects.into_iter().find_map(|effect| match effect {
        Effect::Persist { record: Record::Adopt(adoption), .. } => Some(adoption.retract),
        _ => None,
    });
    adoption.unwrap()
}

#[test]
fn shipped_table_contains_pending() {
    // The source's table holds 2.7, which is pending there and cancelled later.
    let seen = |config: &Config| {
        let (mut replica, mut out) = follower(config, &in_epoch(2, &[]));
        let upto = kvorum_sync::Checkpoint { op: op(2, 6), ..kvorum_sync::Checkpoint::default() };
        let resume = Message::Resume { epoch: epoch(2), upto, sources: Names::one(store(2)) };
        from_two(&mut replica, resume, &mut out);
        let piece = Piece {
            transfer: TransferId { nonce: 1, number: 1 },
            epoch: epoch(2),
            number: 0,
            way: Way::Files,
            items: vec![],
            cursor: [].into(),
            end: Some(vec![]),
        };
        let effects = from_two(&mut replica, Message::Piece(Box::new(piece)), &mut out);
        let Some(Effect::Ingest { ceiling: Some(ceiling), .. }) = effects.first() else {
            panic!("{effects:?}")
        };
        let table = [(op(2, 5), Kind::Value), (op(2, 7), Kind::Value)];
        let taken: Vec<_> = table.into_iter().filter(|(op, _)| op <= ceiling).collect();
        Tree::of(&taken).get(OpId::MAX)
    };
    assert_eq!(seen(&config()), Some(op(2, 5)));
    assert_eq!(
        seen(&without(Rule::TransferCeiling)),
        Some(op(2, 7)),
        "without a ceiling the pending version shows"
    );
}

#[test]
fn delta_after_tombstone_gc() {
    // The key was deleted at 2.2, and that tombstone is gone at the source; the receiver still has the value of 2.1.
    let left = |config: &Config| {
        let mut durable = in_epoch(2, &[]);
        durable.checkpoint.op = op(2, 6);
        let (mut replica, mut out) = follower(config, &durable);
        replica.step(Moment(2), Input::Floors { floor: op(2, 6), gc_floor: op(2, 2) }, &mut out);
        let fetch = Fetch {
            transfer: TransferId { nonce: 9, number: 1 },
            epoch: epoch(2),
            want: Want::Final { since: op(2, 1), upto: op(2, 6), doubtful: vec![] },
            next: 0,
            credit: 1,
            cursor: [].into(),
        };
        let effects = from_two(&mut replica, Message::Fetch(Box::new(fetch)), &mut out);
        let Some(Effect::ReadPiece { way, .. }) = effects.first() else { panic!("{effects:?}") };
        // Files replace the receiver's tree; a delta is put on top of it.
        let receiver =
            if *way == Way::Files { Tree::default() } else { Tree::of(&[(op(2, 1), Kind::Value)]) };
        receiver.get(op(2, 6))
    };
    assert_eq!(left(&config()), None);
    assert_eq!(left(&without(Rule::DeltaAboveGcFloor)), Some(op(2, 1)), "the deleted key is back");
}

#[test]
fn floor_passes_pending_then_retract() {
    let run = |floor_at_pending: bool| {
        let mut durable = in_epoch(1, &[item(op(1, 2), &[])]);
        durable.checkpoint.op = op(1, 1);
        let (mut replica, mut out) = follower(&config(), &durable);
        let mut tree = Tree::of(&[(op(1, 1), Kind::Value), (op(1, 2), Kind::Value)]);
        assert_eq!(replica.pending(), [op(1, 2)]);
        // The floor follows the checkpoint, never what is merely stored.
        tree.floor = if floor_at_pending { op(1, 2) } else { replica.checkpoint().op };
        tree.compact();
        for op in adopt_reign_two(&mut replica, &mut out) {
            tree.add(op, Kind::Retract);
        }
        tree.get(OpId::MAX)
    };
    assert_eq!(run(false), Some(op(1, 1)));
    assert_eq!(run(true), None, "a floor above the checkpoint lost a committed value");
    // Without the retract the cancelled value would stay.
    let (mut replica, mut out) = follower(&without(Rule::RetractAtAdoption), &{
        let mut durable = in_epoch(1, &[item(op(1, 2), &[])]);
        durable.checkpoint.op = op(1, 1);
        durable
    });
    assert!(adopt_reign_two(&mut replica, &mut out).is_empty());
}

#[test]
fn retract_marker_dropped_before_put() {
    // 1.2 lies in an older table when it is retracted; its marker must outlive the compaction of the newer one. And if a reign that never
    // led had cancelled it, it may come back as final: a later put of the same version lives.
    let run = |too_early: bool| {
        let mut durable = in_epoch(1, &[item(op(1, 2), &[])]);
        durable.checkpoint.op = op(1, 1);
        let (mut replica, mut out) = follower(&config(), &durable);
        let mut tree = Tree::of(&[(op(1, 1), Kind::Value), (op(1, 2), Kind::Value)]);
        tree.flush();
        for op in adopt_reign_two(&mut replica, &mut out) {
            tree.add(op, Kind::Retract);
        }
        tree.compact_newest(too_early);
        tree
    };
    let mut sound = run(false);
    assert_eq!(sound.get(OpId::MAX), Some(op(1, 1)));
    sound.add(op(1, 2), Kind::Value);
    assert_eq!(sound.get(OpId::MAX), Some(op(1, 2)), "the same version put again lives");
    sound.add(op(1, 3), Kind::Tombstone);
    assert_eq!(sound.get(OpId::MAX), None);
    assert_eq!(
        run(true).get(OpId::MAX),
        Some(op(1, 2)),
        "a marker dropped too early brings the cancelled value back"
    );
}

/// The pieces of a delta from above 2.1 to 2.6 come by versions: the first one has the key's value, the last one its tombstone.
fn fill(replica: &mut Replica, tree: &mut Tree, number: u64, entry: (OpId, Kind), out: &mut Effects) {
    let piece = Piece {
        transfer: TransferId { nonce: 1, number: 1 },
        epoch: epoch(2),
        number,
        way: Way::Delta,
        items: vec![entry.0],
        cursor: [].into(),
        end: None,
    };
    let effects = from_two(replica, Message::Piece(Box::new(piece)), out);
    if matches!(effects.first(), Some(Effect::Ingest { .. })) {
        tree.add(entry.0, entry.1);
        let input = Input::Ingested { transfer: TransferId { nonce: 1, number: 1 }, number };
        replica.step(Moment(2), input, out);
        out.drain();
    }
}

fn write_from_two(replica: &mut Replica, tree: &mut Tree, entry: (OpId, Kind), point: OpId) {
    let mut out = Effects::new();
    let write = Message::Write { epoch: epoch(2), item: item(entry.0, &[]), point };
    for effect in from_two(replica, write, &mut out) {
        if let Effect::Persist { id, record, .. } = effect {
            if matches!(record, Record::Item(_)) {
                tree.add(entry.0, entry.1);
            }
            replica.step(Moment(2), Input::Persisted { upto: id }, &mut out);
        }
    }
    replica.step(Moment(2), Input::Tick, &mut out);
    for effect in out.drain().collect::<Vec<_>>() {
        if let Effect::Persist { id, .. } = effect {
            replica.step(Moment(2), Input::Persisted { upto: id }, &mut Effects::new());
        }
    }
}

#[test]
fn piece_brings_back_collected_value() {
    // The checkpoint moves within a running transfer, since the leader's stream closes the gap meanwhile.
    let seen = |config: &Config| {
        let mut durable = in_epoch(2, &[]);
        durable.checkpoint.op = op(2, 1);
        let (mut replica, mut out) = follower(config, &durable);
        let mut tree = Tree { sources: vec![vec![]], floor: op(2, 1) };
        let upto = kvorum_sync::Checkpoint { op: op(2, 6), ..kvorum_sync::Checkpoint::default() };
        let resume = Message::Resume { epoch: epoch(2), upto, sources: Names::one(store(2)) };
        from_two(&mut replica, resume, &mut out);
        write_from_two(&mut replica, &mut tree, (op(2, 2), Kind::Value), op(2, 2));
        write_from_two(&mut replica, &mut tree, (op(2, 3), Kind::Tombstone), op(2, 3));
        assert_eq!(replica.checkpoint().op, op(2, 3));
        tree.floor = replica.floor_limit();
        tree.compact();
        fill(&mut replica, &mut tree, 0, (op(2, 2), Kind::Value), &mut out);
        // The stream goes on, and the transfer ends before its last piece.
        for serial in 4..=6 {
            write_from_two(&mut replica, &mut tree, (op(2, serial), Kind::Retract), op(2, serial));
        }
        fill(&mut replica, &mut tree, 1, (op(2, 3), Kind::Tombstone), &mut out);
        assert!(replica.is_readable(), "the stream has closed the gap");
        tree.floor = replica.floor_limit();
        tree.get(replica.checkpoint().op)
    };
    assert_eq!(seen(&config()), None);
    assert_eq!(seen(&without(Rule::FloorAwaitsTransfer)), Some(op(2, 2)), "the deleted key is back");
}

#[test]
fn nothing_is_read_below_files_that_took_its_place() {
    // A member that is brought into the next reign by files still moves its checkpoint in the old one: its slow disk catches up.
    let readable = |config: &Config| {
        let mut durable = in_epoch(1, &[item(op(1, 2), &[])]);
        durable.checkpoint.op = op(1, 1);
        let (mut replica, mut out) = follower(config, &durable);
        assert!(replica.is_readable());
        let adopt = kvorum_sync::Adopt {
            promise: Promise { epoch: epoch(2), manager: store(2), nonce: 1 },
            basis_epoch: epoch(1),
            checkpoint: kvorum_sync::Checkpoint { op: op(1, 6), ..kvorum_sync::Checkpoint::default() },
            basis: vec![kvorum_sync::BasisItem {
                item: item(op(1, 7), &[]),
                holders: Names::one(store(3)),
                completed: false,
            }],
            basis_end: op(1, 7),
            sources: Names::one(store(2)),
            head: op(1, 7),
        };
        from_two(&mut replica, Message::Adopt(Box::new(adopt)), &mut out);
        let piece = Piece {
            transfer: TransferId { nonce: 1, number: 1 },
            epoch: epoch(2),
            number: 0,
            way: Way::Files,
            items: vec![],
            cursor: [].into(),
            end: Some(vec![]),
        };
        from_two(&mut replica, Message::Piece(Box::new(piece)), &mut out);
        let input = Input::Ingested { transfer: TransferId { nonce: 1, number: 1 }, number: 0 };
        replica.step(Moment(2), input, &mut out);
        assert_eq!(replica.checkpoint().op, op(1, 1), "1.7 is still on its way");
        replica.is_readable() || replica.stale_view(Moment(3)).is_some()
    };
    assert!(!readable(&config()));
    assert!(readable(&without(Rule::ReadableAboveFloor)));
}

#[test]
fn a_transfer_that_the_stream_has_outrun_ends_though_nobody_serves_it() {
    let mut durable = in_epoch(2, &[]);
    durable.checkpoint.op = op(2, 1);
    let (mut replica, mut out) = follower(&config(), &durable);
    let mut tree = Tree::default();
    let upto = kvorum_sync::Checkpoint { op: op(2, 3), ..kvorum_sync::Checkpoint::default() };
    let resume = Message::Resume { epoch: epoch(2), upto, sources: Names::one(store(2)) };
    from_two(&mut replica, resume, &mut out);
    let transfer = TransferId { nonce: 1, number: 1 };
    from_two(&mut replica, Message::CannotServe { transfer }, &mut out);
    assert!(!replica.is_readable());
    for serial in 2..=3 {
        write_from_two(&mut replica, &mut tree, (op(2, serial), Kind::Value), op(2, serial));
    }
    replica.step(Moment(3), Input::Tick, &mut out);
    assert_eq!(replica.checkpoint().op, op(2, 3));
    assert!(replica.is_readable(), "all of it is here");
}
