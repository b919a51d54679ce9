//! `kvorum bench` against a running node.

use crate::process::{Node, Reply};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

fn command(node: &Node, words: &[&str]) -> Command {
    let (resp, http) = (node.resp.to_string(), node.http.to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum"));
    command.arg("bench").args(words).args(["--resp", &resp, "--http", &http]);
    command
}

fn bench(node: &Node, words: &[&str]) -> Output {
    crate::process::run(&mut command(node, words))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn writes_of_both_protocols_arrive() {
    let dir = tempfile::TempDir::new().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let output = bench(
        &node,
        &["--get", "0", "--requests", "64", "--pipeline", "8", "--keys", "1", "--value-bytes", "7"],
    );
    assert!(output.status.success() && text(&output).contains("write       64"), "{}", text(&output));
    let Reply::Bulk(value) = node.connect().call(&["GET", "key:000000000000"]) else { panic!("a value") };
    assert_eq!(value.len(), 7);
    let output = bench(
        &node,
        &["http", "--get", "0", "--requests", "30", "--keys", "1", "--clients", "3", "--threads", "2"],
    );
    assert!(output.status.success() && text(&output).contains("write       30"), "{}", text(&output));
    let answer = node.http("GET /v0/entity?id=key:000000000000", b"");
    assert_eq!((answer.status, answer.text().len()), (200, 100));
}

#[test]
fn a_rate_that_no_machine_keeps_is_the_breaking_point() {
    let dir = tempfile::TempDir::new().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    let output = bench(&node, &["--ramp", "1000000000:1", "--seconds", "1", "--clients", "2"]);
    assert!(
        output.status.success() && text(&output).contains("breaking point: below 1000000000/s"),
        "{}",
        text(&output)
    );
}

#[test]
fn clients_are_spread_over_nodes_and_say_how_to_read() {
    let dir = tempfile::TempDir::new().unwrap();
    let start = |name: &str| Node::start(&dir.path().join(name), &["--peer", "127.0.0.1:0"]);
    let (one, other) = (start("one"), start("other"));
    let nodes = format!("{},{}", one.resp, other.resp);
    let words = ["--clients", "4", "--keys", "1", "--requests", "64", "--nodes", &nodes];
    let written = bench(&one, &[&words[..], &["--get", "0"]].concat());
    assert!(written.status.success() && text(&written).contains("write       64"), "{}", text(&written));
    for node in [&one, &other] {
        assert!(matches!(node.connect().call(&["GET", "key:000000000000"]), Reply::Bulk(_)));
    }
    let read = bench(&one, &[&words[..], &["--get", "100", "--read", "follower"]].concat());
    assert!(read.status.success() && text(&read).contains("read        64"), "{}", text(&read));
}

#[test]
fn a_signal_ends_a_run_that_tells_what_came_of_it() {
    let dir = tempfile::TempDir::new().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    for pace in [&["--seconds", "3600"][..], &["--seconds", "3600", "--rate", "1"]] {
        let mut run = command(&node, pace).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(run.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        let sent = Command::new("kill").args(["-s", "INT", &run.id().to_string()]).status().unwrap();
        let mut told = String::new();
        out.read_to_string(&mut told).unwrap();
        assert!(sent.success() && run.wait().unwrap().success() && told.contains("p99 ms"), "{told}");
    }
}

#[test]
fn what_can_not_be_loaded_is_said() {
    let dir = tempfile::TempDir::new().unwrap();
    let node = Node::start(&dir.path().join("data"), &["--requirepass", "secret"]);
    let output = bench(&node, &["--requests", "10", "--requirepass", "wrong"]);
    assert!(!output.status.success() && text(&output).contains("AUTH: WRONGPASS"), "{}", text(&output));
    let output = bench(&node, &["http", "--requests", "10"]);
    assert!(
        !output.status.success() && text(&output).contains("401: say --requirepass"),
        "{}",
        text(&output)
    );
    let output = bench(&node, &["--requests", "10", "--requirepass", "secret"]);
    assert!(output.status.success(), "{}", text(&output));
    drop(node);
}
