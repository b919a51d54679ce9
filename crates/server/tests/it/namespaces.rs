//! `NAMESPACE …`, `SELECT name` and `CONSISTENCY`.

use crate::client::{Client, start};

fn list(client: &mut Client, name: &str) -> String {
    let all = client.call("NAMESPACE LIST");
    let start = all.find(&format!("$4|name|${}|{name}|", name.len()));
    let Some(rest) = start.and_then(|start| all.get(start..)) else { return String::new() };
    rest.split("*14|").next().unwrap().to_owned()
}

#[test]
fn namespaces_by_command() {
    let server = start();
    let mut client = server.connect();
    client.script(&[
        ("SELECT users", "-ERR value is not an integer or out of range, nor is there a namespace 'users'|"),
        ("NAMESPACE CREATE users shards 4 durability written", "+OK|"),
        ("NAMESPACE CREATE users", "-ERR there is a namespace users already|"),
        ("SELECT users", "+OK|"),
        ("SET a 1", "+OK|"),
        ("INCR a", ":2|"),
        ("FLUSHALL", "+OK|"),
        ("DBSIZE", ":1|"),
        ("NAMESPACE SET users history 1h read follower", "+OK|"),
        ("NAMESPACE SET users shards 8", "-ERR shards is chosen when a namespace is made, and stays|"),
        ("NAMESPACE SET nobody read stale", "-ERR there is no namespace nobody|"),
        ("NAMESPACE SET users read", "-ERR wrong number of arguments for 'namespace|set' command|"),
        ("NAMESPACE CREATE other mode", "-ERR the setting mode has no value|"),
        ("NAMESPACE CREATE other mode weak", "-ERR mode is strong or available, not \"weak\"|"),
        ("NAMESPACE CREATE free mode available", "+OK|"),
        ("NAMESPACE DROP entity", "-ERR entity is there from the start, and can't be dropped|"),
        ("NAMESPACE NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try NAMESPACE HELP.|"),
    ]);
    assert_eq!(
        list(&mut client, "users"),
        "$4|name|$5|users|$4|mode|$6|strong|$6|shards|$1|4|$11|replication|$7|default|$10|durability|$7|written|$7|history|$2|1h|$4|read|$8|follower|"
    );
    assert!(list(&mut client, "free").contains("$5|grace|$3|10d|$9|conflicts|$6|newest|"));
    client.script(&[
        ("MULTI", "+OK|"),
        ("NAMESPACE DROP users", "-ERR Command not allowed inside a transaction|"),
        ("DISCARD", "+OK|"),
        ("NAMESPACE DROP users", "+OK|"),
        ("GET a", "-ERR there is no namespace users any more: it was dropped|"),
        ("SELECT 0", "+OK|"),
        ("GET a", "$-1|"),
    ]);
    assert!(client.call("NAMESPACE HELP").contains("+CREATE name [setting value [setting value ...]]|"));
}

#[test]
fn pipelined_changes_are_answered_in_order() {
    let server = start();
    let mut client = server.connect();
    client.send(
        b"SET a 1\r\nNAMESPACE CREATE n1\r\nSELECT n1\r\nSET a 2\r\nGET a\r\nSELECT 0\r\nGET a\r\nNAMESPACE DROP n1\r\nSELECT n1\r\n",
    );
    for reply in ["+OK|", "+OK|", "+OK|", "+OK|", "$1|2|", "+OK|", "$1|1|", "+OK|"] {
        assert_eq!(client.reply(), reply);
    }
    assert!(client.reply().starts_with("-ERR value is not"));
}

#[test]
fn consistency_says_what_is_in_force() {
    let server = start();
    let mut client = server.connect();
    let strong = |read: &str, durability: &str| {
        format!("*4|$4|read|${}|{read}|$10|durability|${}|{durability}|", read.len(), durability.len())
    };
    assert_eq!(client.call("CONSISTENCY"), strong("leader", "synced"));
    assert_eq!(client.call("CONSISTENCY READ Follower DURABILITY written"), strong("follower", "written"));
    assert_eq!(client.call("CONSISTENCY READ default"), strong("leader", "written"));
    assert_eq!(client.call("CONSISTENCY READ stale COLOUR red"), "-ERR syntax error|");
    assert_eq!(client.call("CONSISTENCY"), strong("leader", "written"), "all or nothing");
    client.script(&[
        ("CONSISTENCY READ", "-ERR syntax error|"),
        ("CONSISTENCY READ never", "-ERR syntax error|"),
        ("CONSISTENCY ACK 0", "-ERR ACK and FROM are numbers from 1 on, or DEFAULT|"),
        ("CONSISTENCY ACK 2 FROM 3", "-ERR from is 3, but the cluster has 1 node|"),
        ("NAMESPACE CREATE safe durability synced read stale", "+OK|"),
        ("SELECT safe", "+OK|"),
    ]);
    assert_eq!(
        client.call("CONSISTENCY"),
        "*8|$4|read|$5|stale|$6|age-ms|:0|$10|age-max-ms|:10000|$10|durability|$6|synced|",
        "never less than the namespace asks for"
    );
    assert_eq!(client.call("SELECT entity"), "+OK|");
    assert_eq!(client.call("CONSISTENCY ACK 1 FROM 1"), "*6|$3|ack|:1|$4|from|:1|$10|durability|$7|written|");
    assert_eq!(client.call("RESET"), "+RESET|");
    assert_eq!(client.call("CONSISTENCY"), strong("leader", "synced"));
    assert!(client.call("HELLO 3").starts_with('%'));
    assert!(client.call("CONSISTENCY").starts_with("%2|"));
}
