//! Starting and stopping: start lines, taken ports, locked folders, bad settings, signals.

use crate::process::{Client, Node, Reply, command, run};
use std::net::TcpListener;

#[test]
fn start_lines_give_actual_addresses_folder_durability_and_how_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data, &[]);
    assert_ne!(node.resp.port(), 0);
    assert_ne!(node.http.port(), 0);
    let has = |text: &str| node.lines.iter().any(|line| line.contains(text));
    assert!(has(&format!("data {}", data.display())), "{:?}", node.lines);
    assert!(has("ready in "), "{:?}", node.lines);
    assert!(
        has("durability synced: survives power loss; --durability written ≈ Redis everysec, faster"),
        "{:?}",
        node.lines
    );
    assert!(has("stop with Ctrl-C"), "{:?}", node.lines);
    assert_eq!(node.connect().call(&["PING"]), Reply::Simple("PONG".into()));
    assert_eq!(node.http("GET /healthz", b"").status, 200);
}

#[test]
fn a_taken_port_is_one_clear_line_and_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Node::start(&folder.path().join("first"), &[]);
    let data = folder.path().join("second");
    let taken = first.resp.to_string();
    let output = run(command(&data, &[]).args(["--resp", &taken]));
    assert_bind_failure(
        &output,
        &format!("cannot listen on {taken}: in use (it answers PING as Kvorum "),
        "kvorum --resp 127.0.0.1:",
    );
    let taken = first.http.to_string();
    let output = run(command(&data, &[]).args(["--http", &taken]));
    assert_bind_failure(&output, &format!("cannot listen on {taken}: in use. "), "kvorum --http 127.0.0.1:");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = silent.local_addr().unwrap().to_string();
    let output = run(command(&data, &[]).args(["--resp", &taken]));
    assert_bind_failure(&output, &format!("cannot listen on {taken}: in use. "), "kvorum --resp 127.0.0.1:");
    assert!(!data.exists(), "a failed start leaves no folder");
}

fn assert_bind_failure(output: &std::process::Output, says: &str, remedy: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(says) && error.contains(remedy), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Node::start(folder.path(), &[]);
    let output = run(&mut command(folder.path(), &[]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("in use by another process"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn broken_settings_are_one_line_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("kvorum.toml");
    std::fs::write(&file, "durabilty = \"synced\"\n").unwrap();
    let output = run(command(&data, &["--config"]).arg(&file));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("did you mean \"durability\"?"), "{error}");
    let output = run(&mut command(&data, &["--durability", "maybe"]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error.trim_end(), "kvorum: --durability: \"maybe\" is not synced, written or buffered");
    assert!(!output.status.success() && !data.exists());
}

#[test]
fn config_print_shows_all_settings_and_serves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_kvorum"));
    let output = run(program.args(["config", "--print", "--memory", "1GiB", "--data"]).arg(&data));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(text.contains("memory = \"1GiB\"") && text.contains("durability = \"synced\""), "{text}");
    assert!(!data.exists());
}

#[test]
fn interrupt_and_terminate_end_cleanly() {
    for signal in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path(), &["--durability", "buffered"]);
        assert_eq!(node.connect().call(&["SET", "k", "v"]), Reply::ok());
        node.signal(signal);
        assert_eq!(node.wait().0, Some(0), "{signal}");
        let node = Node::start(folder.path(), &[]);
        assert_eq!(node.connect().call(&["GET", "k"]), Reply::bulk("v"), "{signal}");
    }
}

#[test]
fn shutdown_ends_the_process_and_closes_connections() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let mut idle = node.connect();
    assert_eq!(idle.call(&["PING"]), Reply::Simple("PONG".into()));
    let mut client = node.connect();
    client.send(&crate::process::encode(&["SHUTDOWN"])).unwrap();
    assert_eq!(node.wait().0, Some(0));
    assert!(idle.read().is_err());
}

#[test]
fn a_password_guards_both_doors() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &["--requirepass", "s3cret"]);
    let mut client = Client::connect(node.resp);
    assert!(matches!(client.call(&["GET", "k"]), Reply::Error(text) if text.starts_with("NOAUTH ")));
    assert!(matches!(client.call(&["AUTH", "wrong"]), Reply::Error(text) if text.starts_with("WRONGPASS ")));
    assert_eq!(client.call(&["AUTH", "s3cret"]), Reply::ok());
    assert_eq!(client.call(&["GET", "k"]), Reply::Nil);
    assert_eq!(node.http("GET /healthz", b"").status, 200);
    assert_eq!(node.http("GET /get?key=k", b"").status, 401);
    let bearer = crate::process::http(node.http, "GET /get?key=k", &["Authorization: Bearer s3cret"], b"");
    assert_eq!(bearer.status, 404, "{}", bearer.text());
}
