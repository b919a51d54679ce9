//! Whole tables: what goes in comes out, by every way of reading, and no damage passes.

use super::*;
use crate::cache::{Cache, CacheSettings};
use crate::error::{Error, Result};
use crate::fs::{Fs, StdFs};
use crate::types::{InternalEntry, Kind, Sequence, Version};
use bytes::Bytes;
use proptest::prelude::*;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

type Row = (Space, InternalEntry);

struct Bench {
    dir: TempDir,
    fs: Arc<dyn Fs>,
    cache: Arc<Cache>,
}

impl Bench {
    fn new() -> Bench {
        let cache = Arc::new(Cache::new(CacheSettings { bytes_max: 1 << 20, open_files_max: 4 }));
        Bench { dir: TempDir::new().unwrap(), fs: Arc::new(StdFs), cache }
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("{id:06}.sst"))
    }

    fn write(&self, id: u64, rows: &[Row], options: TableOptions) -> TableMeta {
        let mut writer = TableWriter::new(Arc::clone(&self.fs), &self.path(id), id, options).unwrap();
        for (space, entry) in rows {
            writer.add(*space, entry, true).unwrap();
        }
        writer.finish().unwrap()
    }

    fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        Table::open(Arc::clone(&self.fs), &self.path(meta.id), meta.clone(), &self.cache)
    }
}

fn small_blocks() -> TableOptions {
    TableOptions { block_bytes: 80, ..TableOptions::default() }
}

fn order((space, a): &Row, (other, b): &Row) -> Ordering {
    let versions = b.version.cmp(&a.version).then(b.sequence.cmp(&a.sequence));
    space.cmp(other).then_with(|| a.key.cmp(&b.key)).then(versions)
}

prop_compose! {
    fn row()(
        space in prop_oneof![8 => Just(Space::Data), 1 => Just(Space::Notes), 1 => Just(Space::Clears)],
        key in proptest::collection::vec(0u8..3, 0..5),
        version in 0u64..12,
        sequence in 0u64..1000,
        kind in 1u8..5,
        late: bool,
        expires_at in proptest::option::weighted(0.2, 0u64..900),
        tag in 0u8..2,
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) -> Row {
        let (key, kind) = match space {
            Space::Data => (key, Kind::from_byte(kind).unwrap()),
            Space::Notes => (Vec::new(), Kind::Note),
            Space::Clears => (Vec::new(), Kind::Clear),
        };
        let payload = if kind == Kind::BlobPointer {
            BlobPointer { file: 70 + version % 3, offset: sequence, stored_bytes: 9, value_bytes: 11 }.encode()
        } else {
            Bytes::from(payload)
        };
        (space, InternalEntry { key: Bytes::from(key), version, sequence, kind, late, expires_at, tag, payload })
    }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    proptest::collection::vec(row(), 1..150).prop_map(|mut rows| {
        rows.sort_by(order);
        rows.dedup_by(|a, b| order(a, b).is_eq());
        rows
    })
}

fn of_space(rows: &[Row], space: Space) -> Vec<InternalEntry> {
    rows.iter().filter(|row| row.0 == space).map(|row| row.1.clone()).collect()
}

fn forward(mut iter: TableIter) -> Result<Vec<InternalEntry>> {
    let mut seen = Vec::new();
    iter.seek_first()?;
    while let Some(entry) = iter.entry()? {
        seen.push(entry);
        iter.next()?;
    }
    Ok(seen)
}

fn backward(mut iter: TableIter) -> Result<Vec<InternalEntry>> {
    let mut seen = Vec::new();
    iter.seek_last()?;
    while let Some(entry) = iter.entry()? {
        seen.push(entry);
        iter.prev()?;
    }
    seen.reverse();
    Ok(seen)
}

fn versions_of(
    table: &Table,
    lookup: &Lookup<'_>,
    access: Access,
) -> Option<Vec<(Version, Sequence, Bytes)>> {
    let mut seen = Vec::new();
    let looked = table.get(lookup, access, &mut |candidate| {
        seen.push((candidate.head.version, candidate.head.sequence, candidate.payload().unwrap()));
        ControlFlow::Continue(())
    });
    (looked.unwrap() == Looked::Done).then_some(seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_table_holds_what_was_added(rows in rows(), key in proptest::collection::vec(0u8..3, 0..5), at in 0u64..13, max_sequence in 0u64..1000) {
        let bench = Bench::new();
        let table = bench.open(&bench.write(5, &rows, small_blocks())).unwrap();
        table.verify_hash().unwrap();
        for space in ALL_SPACES {
            let expected = of_space(&rows, space);
            prop_assert_eq!(&forward(TableIter::new(Arc::clone(&table), space)).unwrap(), &expected);
            prop_assert_eq!(&forward(TableIter::bulk(Arc::clone(&table), space)).unwrap(), &expected);
            prop_assert_eq!(&backward(TableIter::new(Arc::clone(&table), space)).unwrap(), &expected);
            prop_assert_eq!(&backward(TableIter::bulk(Arc::clone(&table), space)).unwrap(), &expected);
            let mut iter = TableIter::new(Arc::clone(&table), space);
            let not_before = expected.partition_point(|e| (&e.key[..], !e.version) < (&key[..], !at));
            iter.seek(&key, at).unwrap();
            prop_assert_eq!(iter.entry().unwrap(), expected.get(not_before).cloned());
            iter.seek_before(&key, at).unwrap();
            prop_assert_eq!(iter.entry().unwrap(), not_before.checked_sub(1).map(|i| expected[i].clone()));
            iter.seek(&key, at).unwrap();
            iter.next().unwrap();
            iter.prev().unwrap();
            if not_before + 1 < expected.len() {
                prop_assert_eq!(iter.entry().unwrap(), expected.get(not_before).cloned());
            }
        }
        let data = of_space(&rows, Space::Data);
        for key in data.iter().map(|entry| entry.key.clone()).chain([Bytes::from(key)]) {
            let lookup = Lookup::new(&key, at, max_sequence);
            let seen = |e: &&InternalEntry| e.key == key && e.version <= at && e.sequence <= max_sequence;
            let expected: Vec<_> = data.iter().filter(seen).map(|e| (e.version, e.sequence, e.payload.clone())).collect();
            prop_assert_eq!(versions_of(&table, &lookup, Access::Wait), Some(expected.clone()));
            prop_assert_eq!(versions_of(&table, &lookup, Access::Cached), Some(expected));
        }
    }

    #[test]
    fn properties_tell_what_is_inside(rows in rows()) {
        let bench = Bench::new();
        let meta = bench.write(5, &rows, small_blocks());
        let p = &meta.properties;
        let count = |test: fn(&Row) -> bool| rows.iter().filter(|row| test(row)).count() as u64;
        prop_assert_eq!(p.entries, count(|r| r.0 == Space::Data));
        prop_assert_eq!(p.tombstones, count(|r| r.1.kind == Kind::Tombstone));
        prop_assert_eq!(p.retracts, count(|r| r.1.kind == Kind::Retract));
        prop_assert_eq!(p.notes, count(|r| r.0 == Space::Notes));
        prop_assert_eq!(p.clears, count(|r| r.0 == Space::Clears));
        prop_assert_eq!(p.expiring, count(|r| r.0 == Space::Data && r.1.expires_at.is_some()));
        prop_assert_eq!(p.largest_sequence, rows.iter().map(|r| r.1.sequence).max().unwrap());
        let versioned = || rows.iter().filter(|r| r.0 != Space::Notes);
        prop_assert_eq!(p.largest_version, versioned().map(|r| r.1.version).max().unwrap_or(0));
        prop_assert_eq!(p.smallest_version, versioned().map(|r| r.1.version).min().unwrap_or(u64::MAX));
        let distinct: std::collections::BTreeSet<_> = of_space(&rows, Space::Data).into_iter().map(|e| e.key).collect();
        prop_assert_eq!(p.shadowed, p.entries - distinct.len() as u64);
        let deletes = |r: &&Row| matches!(r.1.kind, Kind::Tombstone | Kind::Clear);
        prop_assert_eq!(p.largest_tombstone, versioned().filter(deletes).map(|r| r.1.version).max());
        prop_assert_eq!(p.smallest_late, versioned().filter(|r| r.1.late).map(|r| r.1.version).min());
        let keys = || rows.iter().filter(|r| r.0 == Space::Data).map(|r| r.1.key.clone());
        prop_assert_eq!(&p.smallest_key, &keys().min().unwrap_or_default());
        prop_assert_eq!(&p.largest_key, &keys().max().unwrap_or_default());
        for blob in &p.blobs {
            let points = |r: &&Row| r.1.kind == Kind::BlobPointer && BlobPointer::decode(&r.1.payload).unwrap().file == blob.file;
            prop_assert_eq!(blob.values, rows.iter().filter(points).count() as u64);
            prop_assert_eq!(blob.bytes, 9 * blob.values);
        }
        prop_assert_eq!(meta.file_bytes, std::fs::metadata(bench.path(5)).unwrap().len());
        prop_assert_eq!(&TableMeta::of_file(&*bench.fs, &bench.path(5), 5).unwrap(), &meta);
    }
}

fn value(key: impl Into<Vec<u8>>, version: Version, payload: impl Into<Vec<u8>>) -> Row {
    let (key, payload) = (Bytes::from(key.into()), Bytes::from(payload.into()));
    let entry = InternalEntry {
        key,
        version,
        sequence: version,
        kind: Kind::Value,
        late: false,
        expires_at: None,
        tag: 0,
        payload,
    };
    (Space::Data, entry)
}

fn many(count: u64) -> Vec<Row> {
    (0..count).map(|i| value(format!("key:{i:08}"), i, format!("value {i}").repeat(5))).collect()
}

/// Reads everything there is by every way; the first error met.
fn read_all(bench: &Bench, meta: &TableMeta, keys: &[Row]) -> Result<Vec<InternalEntry>> {
    let table = bench.open(meta)?;
    let mut all = Vec::new();
    for space in ALL_SPACES {
        all.extend(forward(TableIter::bulk(Arc::clone(&table), space))?);
    }
    for (_, entry) in keys {
        table.get(&Lookup::new(&entry.key, Version::MAX, Sequence::MAX), Access::Wait, &mut |candidate| {
            assert_eq!(candidate.payload().unwrap(), entry.payload);
            ControlFlow::Break(())
        })?;
    }
    Ok(all)
}

#[test]
fn every_flipped_byte_is_found() {
    let bench = Bench::new();
    let mut rows = many(12);
    let marker = |kind, version| InternalEntry { key: Bytes::new(), kind, ..value("", version, "note").1 };
    rows.push((Space::Notes, marker(Kind::Note, 9)));
    rows.push((Space::Clears, marker(Kind::Clear, 3)));
    let meta = bench.write(5, &rows, TableOptions { block_bytes: 200, ..TableOptions::default() });
    let whole = std::fs::read(bench.path(5)).unwrap();
    assert_eq!(read_all(&bench, &meta, &rows[..12]).unwrap().len(), rows.len());
    for at in 0..whole.len() {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(bench.path(5), bytes).unwrap();
            match read_all(&bench, &meta, &rows[..12]) {
                Err(Error::Damaged { path, .. }) => assert_eq!(path, bench.path(5)),
                Err(Error::UnknownFormat { .. }) => {}
                other => panic!("byte {at} flipped by {flip:#x}: {other:?}"),
            }
        }
    }
    for len in [0, 10, whole.len() - 1] {
        std::fs::write(bench.path(5), &whole[..len]).unwrap();
        assert!(matches!(read_all(&bench, &meta, &[]), Err(Error::Damaged { .. })));
        assert!(matches!(TableMeta::of_file(&*bench.fs, &bench.path(5), 5), Err(Error::Damaged { .. })));
    }
}

#[test]
fn another_table_under_the_name_is_found() {
    let bench = Bench::new();
    let meta = bench.write(5, &many(10), small_blocks());
    bench.write(6, &many(10), small_blocks());
    std::fs::rename(bench.path(6), bench.path(5)).unwrap();
    assert!(matches!(bench.open(&meta), Err(Error::Damaged { .. })));
}

#[test]
fn an_unfinished_table_leaves_no_file_and_a_stale_one_is_replaced() {
    let bench = Bench::new();
    let start = || TableWriter::new(Arc::clone(&bench.fs), &bench.path(5), 5, small_blocks()).unwrap();
    let names = || bench.fs.list(bench.dir.path()).unwrap().len();
    let mut writer = start();
    writer.add(Space::Data, &value("a", 1, "b").1, false).unwrap();
    assert_eq!(names(), 1);
    drop(writer);
    assert_eq!(names(), 0);
    std::mem::forget(start());
    assert_eq!(names(), 1);
    assert!(start().is_empty());
    bench.write(5, &many(3), small_blocks());
    assert_eq!(names(), 1);
}

#[test]
fn entries_out_of_order_are_refused() {
    let bench = Bench::new();
    let mut writer = TableWriter::new(Arc::clone(&bench.fs), &bench.path(5), 5, small_blocks()).unwrap();
    writer.add(Space::Data, &value("b", 4, "").1, true).unwrap();
    for (key, version) in [("a", 9), ("b", 5)] {
        assert!(matches!(writer.add(Space::Data, &value(key, version, "").1, true), Err(Error::Invalid(_))));
    }
    writer.add(Space::Data, &value("b", 3, "").1, true).unwrap();
}

#[test]
fn sequences_are_stored_only_where_asked_for() {
    let bench = Bench::new();
    let mut writer = TableWriter::new(Arc::clone(&bench.fs), &bench.path(5), 5, small_blocks()).unwrap();
    writer.add(Space::Data, &value("a", 40, "").1, true).unwrap();
    writer.add(Space::Data, &value("b", 50, "").1, false).unwrap();
    let meta = writer.finish().unwrap();
    assert_eq!(meta.properties.largest_sequence, 50);
    let table = bench.open(&meta).unwrap();
    let sequences = forward(TableIter::new(table, Space::Data)).unwrap();
    assert_eq!(sequences.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [40, 0]);
}

#[test]
fn values_larger_than_any_block_come_back() {
    let bench = Bench::new();
    let noise: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let rows = [value("a", 1, noise), value("b", 2, vec![b'x'; 3_000_000]), value("c", 3, "small")];
    let meta = bench.write(5, &rows, TableOptions::default());
    assert_eq!(read_all(&bench, &meta, &rows).unwrap().len(), 3);
}

#[test]
fn a_lookup_that_must_not_wait_needs_an_open_file() {
    let bench = Bench::new();
    let rows = many(500);
    let tables: Vec<_> =
        (1..40).map(|id| bench.open(&bench.write(id, &rows, small_blocks())).unwrap()).collect();
    assert!(bench.cache.stats().open_files <= 40);
    let closed = tables.iter().filter(|table| {
        versions_of(table, &Lookup::new(b"key:00000007", 600, 600), Access::Cached).is_none()
    });
    assert!(closed.count() > 0, "more files stay open than the limit allows");
    for table in &tables {
        let seen = versions_of(table, &Lookup::new(b"key:00000007", 600, 600), Access::Wait).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(versions_of(table, &Lookup::new(b"key:00000007", 600, 600), Access::Cached), Some(seen));
    }
}

#[test]
fn pinned_memory_is_counted_while_tables_are_open() {
    let bench = Bench::new();
    let meta = bench.write(1, &many(20_000), TableOptions::default());
    let table = bench.open(&meta).unwrap();
    let filter = meta.properties.filter.unwrap().0;
    let pinned = bench.cache.stats().pinned_bytes;
    assert!(pinned > filter && pinned < filter * 2, "{pinned} bytes are pinned, {filter} of them the filter");
    forward(TableIter::new(Arc::clone(&table), Space::Data)).unwrap();
    let stats = bench.cache.stats();
    assert!(stats.block_bytes + stats.pinned_bytes <= 1 << 20);
    drop(table);
    assert_eq!(bench.cache.stats().pinned_bytes, 0);
}

#[test]
fn a_table_from_an_earlier_run_of_this_format_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/table-1");
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let path = folder.join("000001.sst");
    let meta = TableMeta::of_file(&*fs, &path, 1).unwrap();
    let cache = Arc::new(Cache::new(CacheSettings { bytes_max: 1 << 20, open_files_max: 4 }));
    let table = Table::open(fs, &path, meta, &cache).unwrap();
    let entries = forward(TableIter::new(Arc::clone(&table), Space::Data)).unwrap();
    assert_eq!(entries, of_space(&fixture_rows(), Space::Data));
    assert_eq!(forward(TableIter::new(Arc::clone(&table), Space::Notes)).unwrap().len(), 1);
    assert_eq!(forward(TableIter::new(table, Space::Clears)).unwrap().len(), 1);
}

/// What the fixture holds: every kind and every optional field.
fn fixture_rows() -> Vec<Row> {
    let mut rows = many(60);
    rows[1].1.kind = Kind::Tombstone;
    rows[1].1.payload = Bytes::new();
    rows[2].1.kind = Kind::Retract;
    rows[2].1.payload = Bytes::new();
    rows[3].1.kind = Kind::BlobPointer;
    rows[3].1.payload = BlobPointer { file: 9, offset: 32, stored_bytes: 100, value_bytes: 120 }.encode();
    rows[4].1.late = true;
    rows[5].1.expires_at = Some(1_800_000_000_000);
    rows[6].1.tag = 3;
    let marker = |kind, version| InternalEntry { key: Bytes::new(), kind, ..value("", version, "note").1 };
    rows.push((Space::Notes, marker(Kind::Note, 9)));
    rows.push((Space::Clears, marker(Kind::Clear, 3)));
    rows
}

/// Writes the fixture of the current format: run by hand when a new format version is released.
#[test]
#[ignore = "writes the fixture that another test reads"]
fn write_the_fixture() {
    let bench = Bench::new();
    bench.write(1, &fixture_rows(), TableOptions { block_bytes: 512, ..TableOptions::default() });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/table-1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(bench.path(1), folder.join("000001.sst")).unwrap();
}
