//! The strategy without files: what it chooses, and that choosing comes to an end with a tree in order.

use super::garbage::Forgettable;
use super::rules::MemorySpan;
use super::strategy::{Choice, LEVELS, Shape, Sizes, choose};
use crate::sst::{BlobUse, Compression, Properties, TableMeta};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;

const SIZES: Sizes = Sizes { level_0_bytes: 1000, table_bytes: 400, idle: false };

static NO_BASELINE: LazyLock<HashMap<u64, u64>> = LazyLock::new(HashMap::new);

fn keep_all() -> Forgettable<'static> {
    Forgettable {
        floor: Some(0),
        tombstone_floor: 0,
        expiry_floor: 0,
        notes_floor: 0,
        settled_clear: None,
        oldest_view: u64::MAX,
        memory: MemorySpan::EMPTY,
        baseline: &NO_BASELINE,
    }
}

fn table(id: u64, smallest: u32, largest: u32, bytes: u64) -> TableMeta {
    let mut properties = Properties::empty(id, 0, 0, Compression::Lz4);
    properties.entries = 100;
    properties.smallest_key = Bytes::copy_from_slice(&smallest.to_be_bytes());
    properties.largest_key = Bytes::copy_from_slice(&largest.to_be_bytes());
    (properties.smallest_version, properties.largest_version) = (1, 100);
    properties.largest_sequence = id;
    TableMeta { id, file_bytes: bytes, hash: 0, properties }
}

fn with(mut table: TableMeta, change: impl FnOnce(&mut Properties)) -> TableMeta {
    change(&mut table.properties);
    table
}

type Levels = [Vec<TableMeta>; LEVELS];

fn levels(filled: Vec<(usize, TableMeta)>) -> Levels {
    let mut levels: Levels = Default::default();
    filled.into_iter().for_each(|(level, table)| levels[level].push(table));
    levels
}

fn chosen(levels: &Levels, forgettable: &Forgettable<'_>) -> Option<Choice> {
    let shape = Shape { levels: std::array::from_fn(|level| levels[level].iter().collect()) };
    choose(&shape, &SIZES, forgettable, &[])
}

#[test]
fn a_tree_in_order_is_left_alone() {
    assert_eq!(chosen(&Levels::default(), &keep_all()), None);
    let small = levels(vec![(0, table(3, 0, 9, 300)), (6, table(1, 0, 9, 5000))]);
    assert_eq!(chosen(&small, &keep_all()), None);
}

#[test]
fn level_0_goes_down_by_bytes_with_all_that_it_meets() {
    let full = levels(vec![
        (0, table(9, 0, 50, 600)),
        (0, table(8, 20, 90, 600)),
        (6, table(1, 0, 30, 3000)),
        (6, table(2, 31, 95, 3000)),
        (6, table(3, 96, 99, 3000)),
    ]);
    assert_eq!(chosen(&full, &keep_all()), Some(Choice::Merge { inputs: vec![9, 8, 1, 2], to: 6 }));
}

#[test]
fn what_meets_nothing_moves_unread() {
    let rising =
        levels(vec![(0, table(9, 60, 90, 600)), (0, table(8, 40, 50, 600)), (6, table(1, 0, 30, 3000))]);
    assert_eq!(chosen(&rising, &keep_all()), Some(Choice::Move { table: 8, to: 6 }));
}

#[test]
fn many_small_tables_are_merged_within_level_0_while_they_would_meet_far_more() {
    let mut tables: Vec<_> = (0..8).map(|i| (0, table(20 - i, 0, 90, 10))).collect();
    tables.push((6, table(1, 0, 90, 9000)));
    assert_eq!(
        chosen(&levels(tables), &keep_all()),
        Some(Choice::Merge { inputs: (13..=20).rev().collect(), to: 0 })
    );
}

#[test]
fn quiet_times_bring_down_what_does_not_press() {
    let shape = |bytes| levels(vec![(0, table(9, 0, 50, 100)), (6, table(1, 0, 30, bytes))]);
    let quiet = |levels: &Levels| {
        let shape = Shape { levels: std::array::from_fn(|level| levels[level].iter().collect()) };
        choose(&shape, &Sizes { idle: true, ..SIZES }, &keep_all(), &[])
    };
    assert_eq!(chosen(&shape(900), &keep_all()), None);
    assert_eq!(quiet(&shape(900)), Some(Choice::Merge { inputs: vec![9, 1], to: 6 }));
    assert_eq!(quiet(&shape(9000)), None, "it would cost far more than it is worth");
    assert_eq!(quiet(&levels(vec![(0, table(9, 0, 50, 10))])), Some(Choice::Move { table: 9, to: 6 }));
}

#[test]
fn level_sizes_follow_the_largest_level() {
    // The last level holds 100 targets of level 0: there are two levels above it, and level 0 goes to the first of them.
    let large = levels(vec![(0, table(9, 0, 9, 1100)), (6, table(1, 5, 9, 100_000))]);
    assert_eq!(chosen(&large, &keep_all()), Some(Choice::Move { table: 9, to: 4 }));
    // A level that outgrows its tenth of the next sends down the table that meets least.
    let grown = levels(vec![
        (5, table(2, 0, 9, 9_000)),
        (5, table(3, 10, 19, 9_000)),
        (6, table(4, 0, 9, 60_000)),
        (6, table(5, 10, 19, 40_000)),
    ]);
    assert_eq!(chosen(&grown, &keep_all()), Some(Choice::Merge { inputs: vec![3, 5], to: 6 }));
}

#[test]
fn garbage_is_rewritten_though_no_level_is_too_large() {
    let deleted = |p: &mut Properties| (p.tombstones, p.largest_tombstone) = (30, Some(80));
    let tree = levels(vec![(6, with(table(1, 0, 9, 500), deleted)), (6, table(2, 10, 19, 500))]);
    assert_eq!(chosen(&tree, &keep_all()), None);
    let may = Forgettable { floor: Some(90), tombstone_floor: 80, ..keep_all() };
    assert_eq!(chosen(&tree, &may), Some(Choice::Merge { inputs: vec![1], to: 6 }));
    let looked_at = Forgettable { oldest_view: 0, ..may };
    assert_eq!(chosen(&tree, &looked_at), None, "a snapshot may still need it");
    let tried = HashMap::from([(1, 30)]);
    assert_eq!(chosen(&tree, &Forgettable { baseline: &tried, ..may }), None, "it was tried");
    let shadowed = levels(vec![(6, with(table(1, 0, 9, 500), |p| p.shadowed = 40))]);
    assert_eq!(chosen(&shadowed, &may), Some(Choice::Merge { inputs: vec![1], to: 6 }));
}

#[test]
fn tombstones_go_down_to_what_they_hide() {
    let deleted = |p: &mut Properties| (p.tombstones, p.largest_tombstone) = (90, Some(80));
    let may = Forgettable { floor: Some(90), tombstone_floor: 80, ..keep_all() };
    let far = levels(vec![(4, with(table(1, 0, 9, 50), deleted)), (6, table(2, 0, 19, 5000))]);
    assert_eq!(chosen(&far, &may), Some(Choice::Move { table: 1, to: 5 }));
    let near = levels(vec![(5, with(table(1, 0, 9, 50), deleted)), (6, table(2, 0, 19, 5000))]);
    assert_eq!(chosen(&near, &may), Some(Choice::Merge { inputs: vec![1, 2], to: 6 }));
}

#[test]
fn wholly_expired_tables_go_unread_unless_something_shows_behind_them() {
    let expired = |p: &mut Properties| (p.expiring, p.expiry) = (100, Some((5, 8)));
    let may = Forgettable { floor: Some(100), tombstone_floor: 100, expiry_floor: 8, ..keep_all() };
    let drop = Some(Choice::Drop { tables: vec![1], collects: 100 });
    let tree = |others: Vec<(usize, TableMeta)>| {
        levels([vec![(5, with(table(1, 0, 9, 50), expired))], others].concat())
    };
    assert_eq!(chosen(&tree(vec![]), &may), drop);
    assert_eq!(chosen(&tree(vec![(6, table(2, 10, 19, 50))]), &may), drop);
    assert_ne!(chosen(&tree(vec![(6, table(2, 5, 19, 50))]), &may), drop, "it hides an older version");
    let late = |p: &mut Properties| p.smallest_late = Some(100);
    assert_ne!(
        chosen(&tree(vec![(0, with(table(2, 5, 19, 50), late))]), &may),
        drop,
        "a late entry would show"
    );
    for blocked in [
        Forgettable { expiry_floor: 7, ..may },
        Forgettable { tombstone_floor: 99, ..may },
        Forgettable { oldest_view: 0, ..may },
        Forgettable { memory: MemorySpan { smallest_version: 100, has_retracts: false }, ..may },
    ] {
        assert_ne!(chosen(&tree(vec![]), &blocked), drop);
    }
}

#[test]
fn wholly_cleared_tables_and_released_notes_go_unread() {
    let tree = levels(vec![(6, table(1, 0, 9, 50)), (6, table(2, 10, 19, 50))]);
    let cleared = Forgettable { settled_clear: Some(101), ..keep_all() };
    assert_eq!(chosen(&tree, &cleared), Some(Choice::Drop { tables: vec![1, 2], collects: 101 }));
    assert_ne!(
        chosen(&tree, &Forgettable { settled_clear: Some(100), ..keep_all() }),
        Some(Choice::Drop { tables: vec![1, 2], collects: 100 }),
        "what was written with the clear lives"
    );
    let noted = |p: &mut Properties| (p.entries, p.notes, p.note_versions) = (0, 5, Some((3, 7)));
    let notes = levels(vec![(0, with(table(1, 0, 0, 50), noted))]);
    assert_eq!(chosen(&notes, &Forgettable { notes_floor: 3, ..keep_all() }), None);
    let most = chosen(&notes, &Forgettable { notes_floor: 7, ..keep_all() });
    assert_eq!(most, Some(Choice::Merge { inputs: vec![1], to: 6 }), "most are released");
    let released = Forgettable { notes_floor: 8, ..keep_all() };
    assert_eq!(chosen(&notes, &released), Some(Choice::Drop { tables: vec![1], collects: 0 }));
}

#[test]
fn tables_that_point_into_a_victim_are_rewritten() {
    let points = |p: &mut Properties| p.blobs.push(BlobUse { file: 70, bytes: 10, values: 1 });
    let tree = levels(vec![(6, table(1, 0, 9, 50)), (6, with(table(2, 10, 19, 50), points))]);
    let shape = Shape { levels: std::array::from_fn(|level| tree[level].iter().collect()) };
    assert_eq!(choose(&shape, &SIZES, &keep_all(), &[71]), None);
    assert_eq!(choose(&shape, &SIZES, &keep_all(), &[70]), Some(Choice::Merge { inputs: vec![2], to: 6 }));
}

/// Carries out a choice on properties alone: outputs hold the inputs' keys, cut at the table size.
fn carry_out(levels: &mut Levels, choice: &Choice, next_id: &mut u64) {
    let mut take = |id: u64| {
        levels.iter_mut().enumerate().find_map(|(level, tables)| {
            let place = tables.iter().position(|table| table.id == id)?;
            Some((level, tables.remove(place)))
        })
    };
    match choice {
        Choice::Drop { tables, .. } => tables.iter().for_each(|id| drop(take(*id))),
        Choice::Move { table, to } => {
            let (from, table) = take(*table).unwrap();
            assert!(from < *to, "tables move down");
            insert(levels, *to, table);
        }
        Choice::Merge { inputs, to } => {
            let inputs: Vec<_> = inputs.iter().map(|id| take(*id).unwrap().1).collect();
            let number = |key: &Bytes| u32::from_be_bytes(key[..].try_into().unwrap());
            let low = inputs.iter().map(|t| number(&t.properties.smallest_key)).min().unwrap();
            let high = inputs.iter().map(|t| number(&t.properties.largest_key)).max().unwrap();
            let bytes: u64 = inputs.iter().map(|t| t.file_bytes).sum();
            let pieces = if *to == 0 {
                1
            } else {
                (bytes / SIZES.table_bytes).clamp(1, u64::from(high - low) + 1) as u32
            };
            for piece in 0..pieces {
                let bound =
                    |i: u32| low + ((u64::from(high - low) + 1) * u64::from(i) / u64::from(pieces)) as u32;
                *next_id += 1;
                let output = table(*next_id, bound(piece), bound(piece + 1) - 1, bytes / u64::from(pieces));
                let age = inputs.iter().map(|t| t.properties.largest_sequence).max().unwrap();
                insert(levels, *to, with(output, |p| p.largest_sequence = age));
            }
        }
    }
}

fn insert(levels: &mut Levels, level: usize, table: TableMeta) {
    levels[level].push(table);
    if level == 0 {
        levels[0].sort_by_key(|t| std::cmp::Reverse(t.properties.largest_sequence));
    } else {
        levels[level].sort_by(|a, b| a.properties.smallest_key.cmp(&b.properties.smallest_key));
        let apart = |pair: &[TableMeta]| pair[0].properties.largest_key < pair[1].properties.smallest_key;
        assert!(levels[level].windows(2).all(apart), "tables of level {level} overlap");
    }
}

proptest! {
    #[test]
    fn choosing_ends_with_a_tree_in_order(flushes in proptest::collection::vec((0u32..1000, 1u32..1000, 20u64..900), 1..60)) {
        let mut levels = Levels::default();
        let mut next_id = 1000;
        let mut written = 0;
        for (i, (low, width, bytes)) in flushes.iter().enumerate() {
            insert(&mut levels, 0, table(i as u64 + 1, *low, low + width, *bytes));
            let mut steps = 0;
            while let Some(choice) = chosen(&levels, &keep_all()) {
                if let Choice::Merge { inputs, .. } = &choice {
                    let inputs = levels.iter().flatten().filter(|t| inputs.contains(&t.id));
                    written += inputs.map(|t| t.file_bytes).sum::<u64>();
                }
                carry_out(&mut levels, &choice, &mut next_id);
                steps += 1;
                prop_assert!(steps < 100, "choosing does not end: {:?}", choice);
            }
            prop_assert!(levels[0].len() < 8 && levels[0].iter().map(|t| t.file_bytes).sum::<u64>() <= 1000);
        }
        let flushed: u64 = flushes.iter().map(|flush| flush.2).sum();
        prop_assert!(written <= flushed * 40, "{} bytes rewritten for {} flushed", written, flushed);
    }
}
