//! Namespaces are made, changed and dropped while the node runs.

use crate::available::wait;
use crate::support::{Client, World};
use kvorum_cluster::{
    Durability, Error, Mode, NamespaceChange, NamespaceInfo, NamespaceSettings, Node, Result,
};

fn settings(text: &str) -> Vec<NamespaceChange> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(word, value)| NamespaceChange::parse(word, value).unwrap()).collect()
}

fn create(node: &Node, name: &str, text: &str) -> Result<NamespaceInfo> {
    wait(node.namespaces().create(name, NamespaceSettings::made_of(&settings(text))?))
}

fn names(node: &Node) -> Vec<String> {
    node.namespaces().list().into_iter().skip(17).map(|info| info.name).collect()
}

#[test]
fn a_namespace_is_made_used_changed_and_dropped() {
    let world = World::new();
    let node = world.open();
    assert!(node.namespace(b"users").is_none());
    let made = create(&node, "users", "shards=5").unwrap();
    assert_eq!((made.id.mode(), made.id.shards(), made.id.number()), (Mode::Strong, 5, None));
    let mut users = Client::of(&node, "users");
    assert_eq!(users.text("SET a 1; INCR a; MSET b 1 c 2 d 3; DBSIZE"), "OK 2 OK 4");
    assert_eq!(Client::new(&node).text("GET a; DBSIZE"), "nil 0");
    assert_eq!(users.exec_text("FLUSHDB; SET e 1; DBSIZE"), "OK OK 1");
    assert_eq!(Client::new(&node).text("FLUSHALL"), "OK");
    assert_eq!(users.text("DBSIZE"), "1", "FLUSHALL clears those with numbers");
    let again = create(&node, "users", "").unwrap_err();
    assert!(matches!(again, Error::Exists(_)), "{again}");
    let changed = wait(node.namespaces().set("users", settings("history=1h read=stale"))).unwrap();
    assert_eq!(node.namespaces().get(b"users"), Some(changed.clone()));
    assert_eq!(changed.settings.history_ms, 3_600_000);
    wait(node.namespaces().drop("users")).unwrap();
    assert!(node.namespaces().get(b"users").is_none());
    let gone = "-ERR there is no namespace users any more: it was dropped";
    assert_eq!(users.text("GET e; SET e 2; DBSIZE"), format!("{gone} {gone} {gone}"));
    assert_eq!(users.try_exec(&crate::support::parse("SET e 2")).unwrap_err().resp(), &gone[1..]);
    let error = wait(node.namespaces().drop("users")).unwrap_err();
    assert!(matches!(error, Error::NoNamespace(_)), "{error}");
    let new = create(&node, "users", "").unwrap();
    assert_ne!(new.id.id(), made.id.id());
    assert_eq!(Client::of(&node, "users").text("DBSIZE"), "0");
    assert_eq!(users.text("GET e"), gone, "a handle stays with the one that it was of");
}

#[test]
fn they_are_there_after_a_restart() {
    let world = World::new();
    let node = world.open();
    create(&node, "one", "shards=1").unwrap();
    create(&node, "wide", "shards=1000 durability=buffered").unwrap();
    create(&node, "free", "mode=available grace=1h conflicts=keep").unwrap();
    create(&node, "gone", "").unwrap();
    wait(node.namespaces().set("0", settings("replication=5"))).unwrap();
    Client::of(&node, "one").run("SET k one");
    Client::of(&node, "wide").run("MSET a 1 b 2 c 3 d 4 e 5");
    Client::of(&node, "free").run("SET k free");
    Client::of(&node, "gone").run("SET k gone");
    wait(node.namespaces().drop("gone")).unwrap();
    let listed = node.namespaces().list();
    node.shutdown().unwrap();
    drop(node);
    let node = world.open();
    assert_eq!(node.namespaces().list(), listed);
    assert_eq!(names(&node), ["one", "wide", "free"]);
    assert_eq!(node.namespaces().get(b"0").unwrap().settings.replication, Some(5));
    assert_eq!(Client::of(&node, "one").text("GET k; DBSIZE"), "one 1");
    assert_eq!(Client::of(&node, "wide").text("MGET a b c d e; DBSIZE"), "[1 2 3 4 5] 5");
    let mut wide = Client::of(&node, "wide");
    let mut seen = 0;
    let mut cursor = "0".to_owned();
    loop {
        let page = wide.text(&format!("SCAN {cursor} COUNT 1"));
        let words: Vec<&str> = page.split([' ', '[', ']']).filter(|word| !word.is_empty()).collect();
        let (next, keys) = words.split_first().unwrap();
        seen += keys.len();
        cursor = (*next).to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, 5);
    let mut free = Client::of(&node, "free");
    assert_eq!(free.text("GET k; INCR k"), "free -ERR needs a strong namespace");
    assert!(free.text("FLUSHDB").ends_with("which can't be flushed: drop and create it"));
    let id = create(&node, "next", "").unwrap().id.id();
    assert_eq!(id, 21, "the id of the one that is gone does not come again");
}

#[test]
fn what_a_crash_left_of_a_drop_is_dropped() {
    let world = World::new();
    let node = world.open();
    create(&node, "users", "").unwrap();
    Client::of(&node, "users").run("SET a 1");
    let trees = |node: &Node| node.stats().engine.iter().find(|(name, _)| *name == "trees").unwrap().1;
    let with = trees(&node);
    // The crash: the row says that it is dropped, the trees are there.
    let copied = world.settings.data_dir.with_extension("copy");
    crate::support::copy(&world.settings.data_dir, &copied);
    wait(node.namespaces().drop("users")).unwrap();
    assert_eq!(trees(&node), with - 16);
    drop(node);
    for file in std::fs::read_dir(copied.join("wal")).unwrap() {
        let file = file.unwrap();
        std::fs::remove_file(file.path()).unwrap();
    }
    for file in std::fs::read_dir(world.settings.data_dir.join("wal")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copied.join("wal").join(file.file_name())).unwrap();
    }
    let mut settings = world.settings.clone();
    settings.data_dir = copied;
    let node = crate::support::open(&settings, &world.clock);
    assert!(node.namespace(b"users").is_none());
    assert_eq!(trees(&node), with - 16);
}

#[test]
fn limits_and_names() {
    let world = World::new();
    let node = world.open();
    for name in ["16", "", "a b", "entity", "7"] {
        assert!(create(&node, name, "").is_err(), "{name:?}");
    }
    for name in ["0", "15", "entity"] {
        let error = wait(node.namespaces().drop(name)).unwrap_err();
        assert!(error.to_string().contains("there from the start"), "{error}");
    }
    for number in 0..23 {
        create(&node, &format!("n-{number}"), "shards=1024").unwrap();
    }
    let error = create(&node, "last", "shards=1024").unwrap_err().to_string();
    assert!(error.contains("over the limit of 24576"), "{error}");
    for number in 0..720 {
        create(&node, &format!("m-{number}"), "shards=1").unwrap();
    }
    assert_eq!(node.namespaces().list().len(), 17 + 23 + 720);
}

#[test]
fn a_namespace_can_ask_for_durability_and_a_connection_for_more() {
    let mut world = World::new();
    world.settings.durability = Durability::Buffered;
    let node = world.open();
    create(&node, "safe", "durability=synced").unwrap();
    let synced =
        |node: &Node| node.stats().engine.iter().find(|(name, _)| *name == "synced_sequence").unwrap().1;
    let (mut plain, mut safe) = (Client::new(&node), Client::of(&node, "safe"));
    plain.run("SET a 1");
    safe.run("SET a 1");
    let before = synced(&node);
    plain.run("SET a 2");
    assert_eq!(synced(&node), before, "the node's own class is enough");
    safe.run("SET a 2");
    let after = synced(&node);
    assert!(after > before);
    plain.session.consistency.durability = Some(Durability::Synced);
    plain.run("SET a 3");
    let asked = synced(&node);
    assert!(asked > after);
    safe.session.consistency.durability = Some(Durability::Buffered);
    safe.run("SET a 4");
    assert!(synced(&node) > asked, "never less than the namespace asks for");
}
