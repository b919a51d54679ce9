//! `kvorum namespace` against a real node, and what a killed node keeps of its namespaces.

use crate::process::{Node, Reply, run};
use std::process::Command;

/// What the program prints, or its one line of refusal.
fn kvorum(node: &Node, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVORUM_") {
            command.env_remove(name);
        }
    }
    let http = node.http.to_string();
    let output = run(command.arg("namespace").args(words).args(["--http", &http]));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn namespaces_are_made_listed_changed_and_dropped_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let made = kvorum(&node, &["create", "users", "shards=4", "history=90s"]).unwrap();
    assert_eq!(
        made,
        "NAME   MODE    SHARDS  COPIES   DURABILITY  OTHERS\nusers  strong  4       default  default     history=90s read=leader"
    );
    let again = kvorum(&node, &["create", "users"]).unwrap_err();
    assert!(again.ends_with("412 Precondition Failed: there is a namespace users already"), "{again}");
    kvorum(&node, &["create", "free", "mode=available"]).unwrap();
    let changed = kvorum(&node, &["set", "users", "durability=written", "replication=5"]).unwrap();
    assert!(changed.contains("5       written"), "{changed}");
    let fixed = kvorum(&node, &["set", "users", "shards=5"]).unwrap_err();
    assert!(fixed.contains("409 Conflict"), "{fixed}");
    let absent = kvorum(&node, &["set", "nobody", "history=0"]).unwrap_err();
    assert!(absent.ends_with("there is no namespace nobody"), "{absent}");
    let bad = kvorum(&node, &["create", "x", "shards"]).unwrap_err();
    assert_eq!(bad, "kvorum: \"shards\" is not a SETTING=VALUE");
    let mut client = node.connect();
    assert_eq!(client.call(&["SELECT", "users"]), Reply::ok());
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::ok());
    node.kill();
    let node = Node::start(folder.path(), &[]);
    let all = kvorum(&node, &["list"]).unwrap();
    assert_eq!(all.lines().count(), 1 + 17 + 2, "{all}");
    assert!(all.contains("\nusers   strong     4       5        written"), "{all}");
    let mut client = node.connect();
    assert_eq!(client.call(&["SELECT", "users"]), Reply::ok());
    assert_eq!(client.call(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!(kvorum(&node, &["drop", "users"]).unwrap(), "dropped users");
    assert!(kvorum(&node, &["drop", "users"]).unwrap_err().contains("404 Not Found"));
    assert!(kvorum(&node, &["drop", "0"]).unwrap_err().contains("there from the start"));
}
