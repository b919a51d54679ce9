//! What the simulated machine keeps, loses and tears.

use super::*;
use std::collections::BTreeSet;

fn at(path: &str) -> &Path {
    Path::new(path)
}

fn file_of(fs: &SimFs, path: &str) -> Arc<dyn File> {
    fs.create(at(path)).expect("the file is created")
}

/// What the file holds after power loss, over many seeds.
fn outcomes(run: impl Fn(&SimFs), path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400)
        .map(|seed| {
            let fs = SimFs::new(seed);
            run(&fs);
            fs.after_power_loss().bytes(at(path))
        })
        .collect()
}

#[test]
fn what_is_synced_survives_and_the_rest_may_be_lost_torn_or_kept() {
    let outcomes = outcomes(
        |fs| {
            let file = file_of(fs, "/a");
            file.write_at(&[1; 2048], 0).unwrap();
            file.sync().unwrap();
            fs.sync_dir(at("/")).unwrap();
            file.write_at(&[2; 1024], 512).unwrap();
            file.write_at(&[3; 10], 2048).unwrap();
        },
        "/a",
    );
    let mut torn = 0;
    for bytes in outcomes.iter().map(|bytes| bytes.as_ref().expect("the name was synced")) {
        assert!(
            bytes[..512].iter().all(|&byte| byte == 1) && bytes[1536..2048].iter().all(|&byte| byte == 1)
        );
        torn += usize::from(bytes[512] != bytes[1024]);
    }
    assert!(torn > 0);
    assert_eq!(outcomes.len(), 8, "two sectors and the tail, each there or not");
}

#[test]
fn an_unsynced_name_may_vanish_and_a_synced_one_does_not() {
    let create = |fs: &SimFs| file_of(fs, "/a").sync().unwrap();
    assert_eq!(outcomes(create, "/a").len(), 2);
    let synced = |fs: &SimFs| {
        create(fs);
        fs.sync_dir(at("/")).unwrap();
    };
    assert_eq!(outcomes(synced, "/a"), BTreeSet::from([Some(Vec::new())]));
    let removed = |fs: &SimFs| {
        synced(fs);
        fs.remove(at("/a")).unwrap();
    };
    assert_eq!(outcomes(removed, "/a").len(), 2);
}

#[test]
fn a_rename_is_atomic() {
    let run = |fs: &SimFs| {
        for (name, byte) in [("/a", 1), ("/b", 2)] {
            let file = file_of(fs, name);
            file.write_at(&[byte], 0).unwrap();
            file.sync().unwrap();
        }
        fs.sync_dir(at("/")).unwrap();
        fs.rename(at("/b"), at("/a")).unwrap();
    };
    assert_eq!(outcomes(run, "/a"), BTreeSet::from([Some(vec![1]), Some(vec![2])]));
    assert_eq!(outcomes(run, "/b"), BTreeSet::from([None, Some(vec![2])]));
}

#[test]
fn a_folder_that_was_never_made_durable_takes_its_files_along() {
    let run = |fs: &SimFs| {
        fs.create_dir_all(at("/d/e")).unwrap();
        file_of(fs, "/d/e/a").sync().unwrap();
        fs.sync_dir(at("/d/e")).unwrap();
    };
    assert_eq!(outcomes(run, "/d/e/a").len(), 2);
    let whole = |fs: &SimFs| {
        run(fs);
        fs.sync_dir(at("/d")).unwrap();
        fs.sync_dir(at("/")).unwrap();
    };
    assert_eq!(outcomes(whole, "/d/e/a").len(), 1);
}

#[test]
fn a_kill_keeps_everything_and_makes_nothing_durable() {
    let mut lost = 0;
    for seed in 0..100 {
        let fs = SimFs::new(seed);
        file_of(&fs, "/a").write_at(b"bytes", 0).unwrap();
        let killed = fs.after_kill();
        assert_eq!(killed.bytes(at("/a")).as_deref(), Some(&b"bytes"[..]));
        lost += usize::from(killed.after_power_loss().bytes(at("/a")).as_deref() != Some(b"bytes"));
    }
    assert!(lost > 30);
}

#[test]
fn the_machine_goes_off_in_the_middle_of_an_operation() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let fs = SimFs::new(seed);
        let file = file_of(&fs, "/a");
        fs.off_at(2);
        assert!(file.write_at(&[1; 4], 0).is_err());
        assert!(fs.is_off());
        assert!(file.sync().is_err() && fs.list(at("/")).is_err());
        lengths.insert(fs.after_kill().bytes(at("/a")).unwrap().len());
    }
    assert_eq!(lengths, BTreeSet::from([0, 1, 2, 3, 4]));
}

#[test]
fn after_a_failed_sync_a_later_one_does_not_bring_the_bytes_back() {
    let mut lost = 0;
    for seed in 0..100 {
        let fs = SimFs::new(seed);
        let file = file_of(&fs, "/a");
        fs.sync_dir(at("/")).unwrap();
        file.write_at(b"bytes", 0).unwrap();
        fs.inject(Fault::once(Operation::Sync, "/a"));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let mut buffer = [0; 5];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5, "the page cache still has them");
        lost += usize::from(fs.after_power_loss().bytes(at("/a")).unwrap().is_empty());
    }
    assert!(lost > 20);
}

#[test]
fn faults_strike_what_they_name_and_as_often_as_they_say() {
    let fs = SimFs::new(1);
    let (a, b) = (file_of(&fs, "/a"), file_of(&fs, "/b"));
    fs.inject(Fault { skip: 1, times: 2, ..Fault::once(Operation::Write, "/a") });
    let answers: Vec<bool> = (0..5).map(|_| a.write_at(b"x", 0).is_ok()).collect();
    assert_eq!(answers, [true, false, false, true, true]);
    b.write_at(b"x", 0).unwrap();
    fs.inject(Fault { times: u64::MAX, ..Fault::once(Operation::Sync, "") });
    assert!(a.sync().is_err() && b.sync().is_err());
    fs.heal();
    a.sync().unwrap();
}

#[test]
fn a_full_device_refuses_and_recovers() {
    let fs = SimFs::new(1);
    fs.set_capacity(1000);
    let (a, b) = (file_of(&fs, "/a"), file_of(&fs, "/b"));
    a.allocate(600).unwrap();
    a.write_at(&[1; 600], 0).unwrap();
    assert_eq!(fs.free_bytes(at("/")).unwrap(), 400);
    assert_eq!(b.write_at(&[1; 500], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    b.write_at(&[1; 400], 0).unwrap();
    assert_eq!(a.allocate(601).unwrap_err().kind(), ErrorKind::StorageFull);
    fs.hard_link(at("/a"), at("/c")).unwrap();
    fs.remove(at("/a")).unwrap();
    assert_eq!(fs.free_bytes(at("/")).unwrap(), 0);
    fs.remove(at("/c")).unwrap();
    assert_eq!(fs.free_bytes(at("/")).unwrap(), 600);
    b.set_len(100).unwrap();
    assert_eq!(fs.free_bytes(at("/")).unwrap(), 900);
    assert_eq!(fs.after_kill().free_bytes(at("/")).unwrap(), 900);
}

#[test]
fn reads_can_be_misdirected_and_bytes_damaged() {
    let fs = SimFs::new(1);
    let file = file_of(&fs, "/a");
    let bytes: Vec<u8> = (0..=255).collect();
    file.write_at(&bytes, 0).unwrap();
    fs.inject(Fault { kind: FaultKind::Misdirected, ..Fault::once(Operation::Read, "/a") });
    let mut buffer = [0; 8];
    file.read_at(&mut buffer, 8).unwrap();
    assert_ne!(buffer[..], bytes[8..16]);
    file.read_at(&mut buffer, 8).unwrap();
    assert_eq!(buffer[..], bytes[8..16]);
    fs.damage(at("/a"), 9, 0x80).unwrap();
    file.read_at(&mut buffer, 8).unwrap();
    assert_eq!(buffer[1], 9 ^ 0x80);
    fs.set_cold_reads(1);
    assert_eq!(file.read_cached_at(&mut buffer, 0).unwrap(), None);
    fs.set_cold_reads(0);
    assert_eq!(file.read_cached_at(&mut buffer, 250).unwrap(), Some(6));
}

#[test]
fn a_renamed_folder_keeps_its_files() {
    let fs = SimFs::new(3);
    fs.create_dir_all(at("/d")).unwrap();
    file_of(&fs, "/d/a");
    fs.rename(at("/d"), at("/e")).unwrap();
    fs.sync_dir(at("/")).unwrap();
    fs.sync_dir(at("/e")).unwrap();
    let after = fs.after_power_loss();
    assert_eq!(after.files(), [(PathBuf::from("/e/a"), 0)]);
    assert_eq!(after.list(at("/e")).unwrap(), [DirEntry { name: "a".to_owned(), is_dir: false }]);
    assert!(after.remove_dir(at("/e")).is_err());
    after.remove(at("/e/a")).unwrap();
    after.remove_dir(at("/e")).unwrap();
    assert!(!after.exists(at("/e")).unwrap());
}

#[test]
fn the_lock_dies_with_the_machine() {
    let fs = SimFs::new(1);
    let held = fs.lock(at("/LOCK")).unwrap();
    assert_eq!(fs.lock(at("/LOCK")).err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    let _next = fs.after_kill().lock(at("/LOCK")).unwrap();
    drop(held);
}

#[test]
fn a_slow_sync_takes_its_time_and_covers_what_was_there_when_it_began() {
    let fs = SimFs::new(4);
    let file = file_of(&fs, "/wal");
    fs.sync_dir(at("/")).unwrap();
    file.write_at(b"before", 0).unwrap();
    let meanwhile = file.clone();
    fs.slow_sync("wal", Duration::from_secs(2), move || meanwhile.write_at(b"after", 6).unwrap());
    let begun = fs.clock().monotonic();
    file.sync().unwrap();
    assert!(fs.clock().monotonic() - begun >= Duration::from_secs(2));
    assert!(!fs.withdraw_slow_sync(), "it has come");
    let survivors: Vec<_> = (0..30).map(|_| fs.after_power_loss().bytes(at("/wal")).unwrap()).collect();
    assert!(survivors.iter().all(|bytes| bytes.starts_with(b"before")));
    assert!(
        survivors.iter().any(|bytes| !bytes.ends_with(b"after")),
        "what came during the sync is not in it"
    );
    assert!(fs.after_kill().clock().monotonic() > begun + Duration::from_secs(2), "time goes on");
}

#[test]
fn a_short_write_is_two_operations() {
    let (mut whole, mut parts) = (0, 0);
    for seed in 0..40 {
        let fs = SimFs::new(seed);
        let file = file_of(&fs, "/a");
        fs.inject(Fault { kind: FaultKind::Short, ..Fault::once(Operation::Write, "/a") });
        fs.off_at(fs.operations() + 1 + seed % 3);
        let answer = file.write_at(&[7; 100], 0);
        let len = fs.after_kill().bytes(at("/a")).unwrap().len();
        assert_eq!(answer.is_ok(), seed % 3 == 2);
        assert!(answer.is_err() || len == 100);
        whole += usize::from(len == 100);
        parts += usize::from((1..100).contains(&len));
    }
    assert!(whole > 10 && parts > 10, "{whole}, {parts}");
}
