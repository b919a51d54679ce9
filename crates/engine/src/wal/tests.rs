//! The log as its users see it, over the real file system.

use super::format::{GROUP_HEADER_BYTES, HEADER_BYTES};
use super::recovery::Recovered;
use super::segments::segment_path;
use super::*;
use crate::error::{Error, Result};
use crate::fs::{Fs, StdFs};
use crate::options::WalRetention;
use crate::types::{Durability, Sequence};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

type Records = Vec<(Sequence, Vec<u8>)>;

fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 64 * 1024,
        buffer_bytes_max: 16 * 1024,
        retention: WalRetention::Freed,
        needed_from: 1,
        reaches: 0,
        begins_at: 1,
    }
}

fn try_open(dir: &Path, settings: &LogSettings) -> Result<(Arc<Log>, Recovered, Records)> {
    let mut records = Records::new();
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let (log, recovered) = Log::open(fs, dir, settings, &mut |first, record| {
        records.push((first, record.to_vec()));
        Ok(())
    })?;
    Ok((log, recovered, records))
}

fn open(dir: &Path) -> (Arc<Log>, Recovered, Records) {
    try_open(dir, &settings()).expect("the log opens")
}

fn put(log: &Arc<Log>, record: &[u8], operations: u64, durability: Durability) -> Sequence {
    let first = log.push(record, operations, durability).expect("the log takes the record");
    log.commit(first + operations - 1, durability).wait().expect("the record is safe");
    first
}

fn flip(path: &Path, offset: u64) {
    let file = StdFs.open(path, true).unwrap();
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, offset).unwrap(), 1, "nothing at {offset}");
    file.write_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn records_come_back_in_order_over_many_segments_and_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Records::new();
    for life in 0..4_u8 {
        let (log, recovered, records) = open(dir.path());
        assert_eq!(records, expected, "life {life}");
        let mut next = recovered.next_sequence;
        for index in 0..60_u64 {
            let record = vec![life + 1; 10 + index as usize * 40];
            let durability =
                [Durability::Synced, Durability::Written, Durability::Buffered][index as usize % 3];
            assert_eq!(put(&log, &record, index % 5 + 1, durability), next);
            expected.push((next, record));
            next += index % 5 + 1;
        }
        assert!(log.usage().segments > 1, "the records fill several segments");
        log.close().unwrap();
        assert!(matches!(log.push(b"late", 1, Durability::Synced), Err(Error::Closed)));
        assert_eq!(log.synced(), next - 1);
    }
}

#[test]
fn a_buffered_record_is_acknowledged_at_once_and_written_by_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"a", 1, Durability::Buffered);
    assert_eq!((log.acknowledged(), log.written(), log.synced()), (1, 0, 0));
    assert!(!log.lead(), "nobody waits for it");
    log.maintain();
    assert_eq!((log.acknowledged(), log.written(), log.synced()), (1, 1, 1));
}

#[test]
fn those_who_only_buffer_write_when_the_buffer_is_half_full() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    for _ in 0..100 {
        put(&log, &[1; 1000], 1, Durability::Buffered);
    }
    assert!(log.written() > 80 && log.written() < 100);
}

#[test]
fn a_written_record_is_synced_by_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"a", 1, Durability::Written);
    assert_eq!((log.acknowledged(), log.written(), log.synced()), (1, 1, 0));
    log.maintain();
    assert_eq!(log.synced(), 1);
}

#[test]
fn a_synced_record_makes_everything_before_it_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"a", 1, Durability::Buffered);
    put(&log, b"b", 1, Durability::Written);
    put(&log, b"c", 1, Durability::Synced);
    assert_eq!(log.synced(), 3);
    let stronger = log.push(b"d", 1, Durability::Written).unwrap();
    log.commit(stronger, Durability::Synced).wait().unwrap();
    assert_eq!(log.synced(), 4);
}

#[test]
fn a_full_buffer_says_busy_and_an_endless_record_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    let record = [7; 6000];
    log.push(&record, 1, Durability::Synced).unwrap();
    log.push(&record, 1, Durability::Synced).unwrap();
    assert!(matches!(log.push(&record, 1, Durability::Synced), Err(Error::Busy { .. })));
    assert!(log.lead());
    assert_eq!(log.push(&record, 1, Durability::Synced).unwrap(), 3);
    assert!(matches!(log.push(&[0; 17_000], 1, Durability::Synced), Err(Error::TooLarge { .. })));
    assert!(matches!(log.push(b"abc", 4, Durability::Synced), Err(Error::Invalid(_))));
    assert!(matches!(log.push(b"abc", 0, Durability::Synced), Err(Error::Invalid(_))));
}

#[test]
fn segments_below_the_watermark_are_freed_and_only_they() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    for _ in 0..40 {
        put(&log, &[1; 8000], 1, Durability::Synced);
    }
    let segments = log.usage().segments;
    assert!(segments > 4);
    log.release_below(1).unwrap();
    assert_eq!(log.usage().segments, segments);
    log.release_below(20).unwrap();
    let usage = log.usage();
    assert!(usage.segments < segments && usage.oldest > 1 && usage.oldest <= 20, "{usage:?}");
    log.close().unwrap();
    drop(log);

    let (_, recovered, records) =
        try_open(dir.path(), &LogSettings { needed_from: 20, ..settings() }).unwrap();
    assert_eq!(recovered.next_sequence, 41);
    assert!(records[0].0 <= 20 && records.len() < 40);

    let lost = try_open(dir.path(), &settings()).err().expect("records from 1 on are gone");
    assert!(matches!(lost, Error::Damaged { .. }), "{lost}");
}

#[test]
fn with_retention_nothing_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let all = LogSettings { retention: WalRetention::All, ..settings() };
    let (log, ..) = try_open(dir.path(), &all).unwrap();
    for _ in 0..40 {
        put(&log, &[1; 8000], 1, Durability::Synced);
    }
    log.release_below(40).unwrap();
    log.close().unwrap();
    drop(log);
    let (_, _, records) = try_open(dir.path(), &all).unwrap();
    assert_eq!(records.len(), 40);
}

#[test]
fn a_torn_end_is_cut_off_and_what_stands_behind_stays_void() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"first", 1, Durability::Synced);
    put(&log, b"second", 1, Durability::Written);
    put(&log, b"third", 1, Durability::Written);
    drop(log);
    let second = (HEADER_BYTES + GROUP_HEADER_BYTES + 16) as u64;
    flip(&segment_path(dir.path(), 1), second + 26);

    let (log, recovered, records) = open(dir.path());
    assert_eq!(records, [(1, b"first".to_vec())]);
    assert_eq!(recovered.torn, Some((segment_path(dir.path(), 1), second)));
    put(&log, b"other", 1, Durability::Synced);
    drop(log);
    // The byte comes back: what was void once stays void, because the new segment names the end.
    flip(&segment_path(dir.path(), 1), second + 26);
    let (_, _, records) = open(dir.path());
    assert_eq!(records, [(1, b"first".to_vec()), (2, b"other".to_vec())]);
}

#[test]
fn any_flipped_byte_of_a_synced_log_is_damage_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    for length in [5, 16, 1, 40] {
        put(&log, &vec![length; length as usize], 1, Durability::Synced);
    }
    log.close().unwrap();
    drop(log);
    let (log, _, expected) = open(dir.path());
    put(&log, b"a second life", 3, Durability::Synced);
    log.close().unwrap();
    drop(log);
    let (log, _, all) = open(dir.path());
    drop(log);
    assert_eq!(all.len(), expected.len() + 1);

    let mut found = 0;
    // The first two lives' segments.
    for id in [1, 2] {
        let path = segment_path(dir.path(), id);
        for offset in (0..60).step_by(3).chain((4090..4300).step_by(2)) {
            flip(&path, offset);
            match try_open(dir.path(), &settings()) {
                Ok((_, _, records)) => assert_eq!(records, all, "segment {id}, offset {offset}"),
                Err(error) => {
                    assert!(matches!(error, Error::Damaged { .. }), "{error}");
                    found += 1;
                }
            }
            flip(&path, offset);
        }
    }
    assert!(found > 80, "only {found} places are guarded");
}

#[test]
fn a_missing_segment_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    for _ in 0..20 {
        put(&log, &[1; 8000], 1, Durability::Synced);
    }
    log.close().unwrap();
    drop(log);
    let middle = segment_path(dir.path(), 2);
    let bytes = std::fs::read(&middle).unwrap();
    std::fs::remove_file(&middle).unwrap();
    let error = try_open(dir.path(), &settings()).err().expect("a segment is missing");
    assert!(matches!(&error, Error::Damaged { path, .. } if *path == middle), "{error}");
    // A segment under another's name is damage too.
    std::fs::write(&middle, std::fs::read(segment_path(dir.path(), 1)).unwrap()).unwrap();
    let error = try_open(dir.path(), &settings()).err().expect("a segment is another");
    assert!(matches!(&error, Error::Damaged { path, .. } if *path == middle), "{error}");
    std::fs::write(&middle, bytes).unwrap();
    assert_eq!(open(dir.path()).2.len(), 20);
}

#[test]
fn the_log_must_reach_as_far_as_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"only one", 1, Durability::Synced);
    log.close().unwrap();
    drop(log);
    assert!(try_open(dir.path(), &LogSettings { needed_from: 2, ..settings() }).is_ok());
    let error = try_open(dir.path(), &LogSettings { needed_from: 3, ..settings() }).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn a_torn_end_below_what_stands_in_tables_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"first", 1, Durability::Synced);
    put(&log, b"second", 2, Durability::Synced);
    drop(log);
    let second = (HEADER_BYTES + GROUP_HEADER_BYTES + 16) as u64;
    flip(&segment_path(dir.path(), 1), second + 26);
    // Nothing vouches for the second group, but one of its trees was flushed.
    let error = try_open(dir.path(), &LogSettings { reaches: 3, ..settings() }).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(try_open(dir.path(), &LogSettings { reaches: 1, ..settings() }).is_ok());
}

#[test]
fn two_logs_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, ..) = open(dir.path());
    assert!(matches!(try_open(dir.path(), &settings()), Err(Error::Locked { .. })));
}

#[test]
fn an_idle_log_says_that_its_last_group_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"first", 1, Durability::Synced);
    log.maintain();
    log.maintain();
    log.maintain();
    drop(log);
    flip(&segment_path(dir.path(), 1), (HEADER_BYTES + GROUP_HEADER_BYTES + 9) as u64);
    let error = try_open(dir.path(), &settings()).err().expect("the marker proves that the group was synced");
    assert!(matches!(error, Error::Damaged { offset: 4096, .. }), "{error}");
}

#[test]
fn a_rotated_log_frees_all_that_is_in_tables() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"first", 1, Durability::Synced);
    log.rotate();
    put(&log, b"second", 1, Durability::Synced);
    log.release_below(2).unwrap();
    assert_eq!(log.usage().segments, 1);
    assert_eq!(log.usage().oldest, 2);
}

#[test]
fn poison_is_told_to_everyone_and_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"safe", 1, Durability::Synced);
    let pending = log.push(b"pending", 1, Durability::Synced).unwrap();
    let commit = log.commit(pending, Durability::Synced);
    log.poison("the manifest could not be synced");
    let told = commit.wait().unwrap_err();
    assert!(matches!(&told, Error::Poisoned { reason } if reason.contains("manifest")), "{told}");
    assert!(matches!(log.push(b"later", 1, Durability::Buffered), Err(Error::Poisoned { .. })));
    assert!(!log.lead());
    assert!(log.is_poisoned());
    assert_eq!(log.acknowledged(), 1);
    log.commit(1, Durability::Synced).wait().unwrap();
    assert!(log.close().is_err());
}

#[test]
fn a_log_whose_content_is_all_in_tables_still_knows_its_next_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    put(&log, b"first", 1, Durability::Synced);
    drop(log);
    let (log, ..) = open(dir.path());
    log.release_below(2).unwrap();
    drop(log);
    let (log, recovered, _) = try_open(dir.path(), &LogSettings { needed_from: 2, ..settings() }).unwrap();
    assert_eq!(recovered.next_sequence, 2);
    put(&log, b"second", 1, Durability::Synced);
    log.release_below(2).unwrap();
    assert_eq!(log.usage().segments, 1);
}

#[test]
fn an_awaited_commit_lets_the_others_write_first_and_then_leads() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path());
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = |commit: &mut Commit| Pin::new(commit).poll(&mut context);
    let first = log.push(b"first", 1, Durability::Synced).unwrap();
    let mut commit = log.commit(first, Durability::Synced);
    assert!(poll(&mut commit).is_pending());
    assert_eq!(log.written(), 0);
    let second = log.push(b"second", 1, Durability::Synced).unwrap();
    assert!(matches!(poll(&mut commit), Poll::Ready(Ok(()))));
    assert_eq!(log.synced(), second, "both were in one group");
    assert!(matches!(poll(&mut log.commit(second, Durability::Synced)), Poll::Ready(Ok(()))));
}
