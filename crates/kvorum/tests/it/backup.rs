//! Backup, restore and check, with real processes.

use crate::process::{Client, Node, Reply, command, encode, http, run};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;

/// The program with a subcommand and nothing from the environment.
fn kvorum(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVORUM_") {
            command.env_remove(name);
        }
    }
    command.args(words);
    command
}

fn backup(node: &Node, target: &Path, flags: &[&str]) -> Output {
    run(kvorum(&["backup"]).arg(target).args(["--http", &node.http.to_string()]).args(flags))
}

fn restore(source: &Path, data: &Path) -> Output {
    run(kvorum(&["restore"]).arg(source).arg("--data").arg(data))
}

fn check(dir: &Path) -> Output {
    run(kvorum(&["check"]).arg(dir))
}

fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn fill(node: &Node, keys: u32) {
    let mut client = node.connect();
    for key in 0..keys {
        assert_eq!(client.call(&["SET", &format!("key:{key}"), &value(key)]), Reply::ok());
    }
}

/// Short ones, and ones that stand in blob files.
fn value(key: u32) -> String {
    format!("{key}:{}", "x".repeat(if key.is_multiple_of(10) { 20_000 } else { 50 }))
}

fn assert_filled(client: &mut Client, keys: u32) {
    for key in 0..keys {
        assert_eq!(client.call(&["GET", &format!("key:{key}")]), Reply::bulk(&value(key)), "key {key}");
    }
}

fn info(client: &mut Client, section: &str, field: &str) -> String {
    let Reply::Bulk(text) = client.call(&["INFO", section]) else { panic!("no INFO") };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {field} in {text}"))
}

/// All files below a folder, without what the process holds.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("a file");
}

#[test]
fn what_was_acknowledged_before_a_backup_under_load_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, target, again) =
        (folder.path().join("data"), folder.path().join("backup"), folder.path().join("again"));
    let node = Node::start(&data, &["--durability", "written"]);
    fill(&node, 100);
    assert_eq!(http(node.http, "PUT /v0/entity?id=e", &[], b"entity").status, 201);
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let (began, beginning) = mpsc::channel();
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = node.connect();
            let mut round = 0;
            while !stop.load(SeqCst) {
                round += 1;
                assert_eq!(client.call(&["SET", &format!("load:{round}"), &round.to_string()]), Reply::ok());
                acknowledged.store(round, SeqCst);
                if round == 200 {
                    began.send(()).expect("a listener");
                }
            }
        });
        beginning.recv().expect("a writer");
        let before = acknowledged.load(SeqCst);
        let text = succeeded(&backup(&node, &target, &[]));
        assert!(text.starts_with("backup of ") && text.lines().count() == 1, "{text}");
        stop.store(true, SeqCst);
        before
    });
    assert!(acknowledged.load(SeqCst) > before, "the node went on");
    let mut client = node.connect();
    let old = (info(&mut client, "cluster", "store_id"), info(&mut client, "cluster", "epoch"));
    assert_eq!(names(&target), ["BACKUP", "files"]);
    succeeded(&check(&target));
    let error = refused(&run(&mut command(&target, &[])));
    assert!(error.contains("belongs to a backup"), "{error}");
    succeeded(&restore(&target, &again));
    succeeded(&check(&again));
    // Both serve at once: they are two stores.
    let restored = Node::start(&again, &[]);
    let mut client = restored.connect();
    assert_filled(&mut client, 100);
    for round in 1..=before {
        assert_eq!(client.call(&["GET", &format!("load:{round}")]), Reply::bulk(&round.to_string()));
    }
    assert_eq!(http(restored.http, "GET /v0/entity?id=e", &[], b"").text(), "entity");
    assert_ne!(info(&mut client, "cluster", "store_id"), old.0);
    let (epoch, was) = (info(&mut client, "cluster", "epoch"), old.1);
    assert!(epoch.parse::<u64>().unwrap() > was.parse::<u64>().unwrap() + 1000, "{epoch} after {was}");
    assert_eq!(client.call(&["SET", "key:1", "newer"]), Reply::ok());
    assert_eq!(client.call(&["GET", "key:1"]), Reply::bulk("newer"));
}

#[test]
fn a_target_or_folder_that_holds_something_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (target, full) = (folder.path().join("backup"), folder.path().join("full"));
    let node = Node::start(&folder.path().join("data"), &[]);
    fill(&node, 20);
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), b"mine").unwrap();
    let error = refused(&backup(&node, &full, &[]));
    assert!(error.contains("not empty: it holds mine"), "{error}");
    std::fs::create_dir(&target).unwrap();
    succeeded(&backup(&node, &target, &[]));
    let error = refused(&backup(&node, &target, &[]));
    assert!(error.contains("not empty: it holds BACKUP"), "{error}");
    let error = refused(&restore(&target, &full));
    assert!(error.contains("not empty: it holds mine"), "{error}");
    assert_eq!(names(&full), ["mine"]);
    let error = refused(&restore(&full, &folder.path().join("new")));
    assert!(error.contains("is no backup"), "{error}");
    assert_eq!(names(folder.path()), ["backup", "data", "full"]);
}

#[test]
fn the_password_guards_backups() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("backup");
    let node = Node::start(&folder.path().join("data"), &["--requirepass", "s3cret"]);
    let error = refused(&backup(&node, &target, &[]));
    assert!(error.contains("401") && error.contains("--requirepass"), "{error}");
    refused(&backup(&node, &target, &["--requirepass", "wrong"]));
    assert_eq!(names(folder.path()), ["data"]);
    succeeded(&backup(&node, &target, &["--requirepass", "s3cret"]));
}

#[test]
fn foreign_pages_take_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"), &[]);
    let foreign = http(node.http, "POST /v1/backup", &["Origin: https://evil.example"], b"");
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    assert_eq!(http(node.http, "GET /v1/backup", &[], b"").status, 405);
}

/// Answers one request with what a node sent, cut or changed.
fn play(answer: Vec<u8>) -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a connection");
    let address = listener.local_addr().expect("a connection");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a connection");
            head.extend(byte);
        }
        // The client may have heard enough before the end.
        let _ = stream.write_all(&answer);
    });
    (address, thread)
}

#[test]
fn a_broken_transfer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"), &[]);
    fill(&node, 50);
    let whole = http(node.http, "POST /v1/backup", &[], b"");
    assert_eq!(whole.status, 200);
    let length = whole.raw.len();
    let promised = format!("content-length: {length}");
    assert!(whole.head.to_lowercase().contains(&promised), "{}", whole.head);
    let mut flipped = whole.raw.clone();
    flipped[length - 100] ^= 1;
    let cut = |at: usize| whole.raw[..at].to_vec();
    // The last two: cut by something that puts the length right.
    let cases = [
        (cut(300), length),
        (cut(length / 2), length),
        (cut(length - 1), length),
        (flipped, length),
        (cut(300), 300),
        (cut(length - 1), length - 1),
        ([whole.raw.clone(), vec![0]].concat(), length + 1),
    ];
    for (number, (body, promised)) in cases.into_iter().enumerate() {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n").into_bytes();
        answer.extend(body);
        let (address, server) = play(answer);
        let target = folder.path().join("backup");
        let output = run(kvorum(&["backup"]).arg(&target).args(["--http", &address.to_string()]));
        let error = refused(&output);
        assert!(error.contains("the transfer broke"), "case {number}: {error}");
        server.join().unwrap();
        assert_eq!(names(folder.path()), ["data"], "case {number}");
    }
}

#[test]
fn a_flipped_byte_of_a_backup_is_refused_with_the_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let (target, data) = (folder.path().join("backup"), folder.path().join("restored"));
    let node = Node::start(&folder.path().join("data"), &[]);
    fill(&node, 30);
    succeeded(&backup(&node, &target, &[]));
    let found = files(&target);
    let ends = |ending: &str| found.iter().any(|path| path.to_string_lossy().ends_with(ending));
    assert!(ends(".sst") && ends(".blob") && ends("/BACKUP"), "{found:?}");
    for path in &found {
        let middle = std::fs::metadata(path).unwrap().len() as usize / 2;
        flip(path, middle);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let error = refused(&restore(&target, &data));
        assert!(error.contains(&name), "{name}: {error}");
        assert!(!data.exists(), "{name}");
        assert!(!check(&target).status.success(), "{name}");
        flip(path, middle);
    }
    let lost = found.iter().find(|path| path.extension().is_some_and(|end| end == "sst")).unwrap();
    let bytes = std::fs::read(lost).unwrap();
    std::fs::remove_file(lost).unwrap();
    refused(&restore(&target, &data));
    std::fs::write(lost, &bytes[..bytes.len() - 1]).unwrap();
    refused(&restore(&target, &data));
    assert!(!data.exists());
    std::fs::write(lost, bytes).unwrap();
    succeeded(&restore(&target, &data));
}

#[test]
fn check_tells_of_damage_and_salvages_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (data, saved) = (folder.path().join("data"), folder.path().join("saved"));
    let node = Node::start(&data, &[]);
    fill(&node, 200);
    assert_eq!(node.connect().call(&["SAVE"]), Reply::ok());
    // The next life's checkpoint frees the log of this one: what a table loses is lost.
    node.signal("TERM");
    assert_eq!(node.wait().0, Some(0));
    let node = Node::start(&data, &[]);
    assert_eq!(node.connect().call(&["SAVE"]), Reply::ok());
    let error = refused(&check(&data));
    assert!(error.contains("in use by another process") && error.contains("kvorum backup"), "{error}");
    let mut client = node.connect();
    let id = info(&mut client, "cluster", "store_id");
    client.send(&encode(&["SHUTDOWN"])).unwrap();
    assert_eq!(node.wait().0, Some(0));
    let text = succeeded(&check(&data));
    assert!(text.contains("no damage"), "{text}");
    let tables = files(&data.join("tables"));
    let largest = tables.iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    // The checkpoint's files are the same ones.
    std::fs::remove_dir_all(data.join("checkpoints")).unwrap();
    flip(largest, 30);
    let output = check(&data);
    let (text, error) = (String::from_utf8_lossy(&output.stdout).into_owned(), refused(&output));
    let name = largest.file_name().unwrap().to_string_lossy().into_owned();
    assert!(text.contains(&name) && text.contains("at offset") && text.contains("expected"), "{text}");
    assert!(error.contains("1 damage,"), "{error}");
    let output = run(kvorum(&["check"]).arg(&data).arg("--salvage").arg(&saved));
    refused(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("operations to"), "{text}");
    let node = Node::start(&saved, &[]);
    let mut client = node.connect();
    assert_ne!(info(&mut client, "cluster", "store_id"), id);
    let there = (0..200).filter(|key| {
        let found = client.call(&["GET", &format!("key:{key}")]);
        assert!(found == Reply::Nil || found == Reply::bulk(&value(*key)), "key {key}");
        found != Reply::Nil
    });
    let there = there.count();
    assert!((100..200).contains(&there), "{there} of 200 keys were saved; one block was damaged");
    let error = refused(&check(&folder.path().join("nowhere")));
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn a_log_that_was_kept_whole_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log, again) =
        (folder.path().join("data"), folder.path().join("log"), folder.path().join("again"));
    let flags = ["--wal-dir", &log.display().to_string(), "--wal-retention", "all"].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let node = Node::start(&data, &flags);
    fill(&node, 50);
    assert_eq!(node.connect().call(&["SAVE"]), Reply::ok());
    node.signal("TERM");
    assert_eq!(node.wait().0, Some(0));
    std::fs::remove_dir_all(&data).unwrap();
    let error =
        refused(&run(kvorum(&[]).arg("--data").arg(&data).args(&flags).args(["--resp", "127.0.0.1:0"])));
    assert!(error.contains(&format!("kvorum check {} --rebuild", log.display())), "{error}");
    let text = succeeded(&run(kvorum(&["check"]).arg(&log).arg("--rebuild").arg(&again)));
    assert!(text.contains("no damage") && text.contains("serve it with"), "{text}");
    let node = Node::start(&again, &[]);
    let mut client = node.connect();
    for key in 0..50 {
        assert_eq!(client.call(&["GET", &format!("key:{key}")]), Reply::bulk(&value(key)));
    }
    let error =
        refused(&run(kvorum(&["check"]).arg(folder.path()).arg("--rebuild").arg(folder.path().join("x"))));
    assert!(error.contains("cannot make a store of the log"), "{error}");
}

#[test]
fn bgsave_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (data, again) = (folder.path().join("data"), folder.path().join("again"));
    let node = Node::start(&data, &[]);
    fill(&node, 50);
    let mut client = node.connect();
    assert!(matches!(client.call(&["LASTSAVE"]), Reply::Integer(started) if started > 1_600_000_000));
    assert_eq!(client.call(&["SAVE"]), Reply::ok());
    assert_eq!(info(&mut client, "persistence", "rdb_changes_since_last_save"), "0");
    assert_eq!(client.call(&["SET", "key:0", "after the first"]), Reply::ok());
    assert_ne!(info(&mut client, "persistence", "rdb_changes_since_last_save"), "0");
    assert_eq!(client.call(&["BGSAVE"]), Reply::Simple("Background saving started".into()));
    while info(&mut client, "persistence", "rdb_bgsave_in_progress") == "1" {}
    assert_eq!(info(&mut client, "persistence", "rdb_last_bgsave_status"), "ok");
    assert_eq!(info(&mut client, "persistence", "rdb_saves"), "2");
    assert!(matches!(client.call(&["BGSAVE", "NOW"]), Reply::Error(text) if text == "ERR syntax error"));
    let last = client.call(&["LASTSAVE"]);
    let checkpoints = names(&data.join("checkpoints"));
    assert_eq!(checkpoints.len(), 1, "{checkpoints:?}");
    let seconds = checkpoints[0].parse::<i64>().unwrap() / 1000;
    assert_eq!(last, Reply::Integer(seconds));
    node.kill();
    // What a process that was killed in the middle leaves.
    std::fs::create_dir_all(data.join("backup.tmp/0/files")).unwrap();
    std::fs::create_dir_all(data.join("checkpoints/123.tmp/files")).unwrap();
    std::fs::write(data.join("checkpoints/123.tmp/files/FORMAT"), b"").unwrap();
    let node = Node::start(&data, &[]);
    assert_eq!(node.connect().call(&["LASTSAVE"]), Reply::Integer(seconds));
    assert!(!data.join("backup.tmp").exists());
    let checkpoint = data.join("checkpoints").join(&checkpoints[0]);
    assert_eq!(names(&data.join("checkpoints")), checkpoints);
    succeeded(&restore(&checkpoint, &again));
    let restored = Node::start(&again, &[]);
    assert_eq!(restored.connect().call(&["GET", "key:0"]), Reply::bulk("after the first"));
    assert_eq!(restored.connect().call(&["GET", "key:49"]), Reply::bulk(&value(49)));
}
