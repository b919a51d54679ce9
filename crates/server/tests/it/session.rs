//! Sessions: greetings, namespaces, names, settings, protocol versions.

use crate::client::{encode, start, start_with};

#[test]
fn a_first_session() {
    let server = start();
    let mut client = server.connect();
    client.script(&[
        ("PING", "+PONG|"),
        ("ECHO hi", "$2|hi|"),
        ("SET a 1", "+OK|"),
        ("GET a", "$1|1|"),
        ("GET none", "$-1|"),
        ("SELECT 1", "+OK|"),
        ("GET a", "$-1|"),
        ("SELECT 16", "-ERR DB index is out of range|"),
        ("SELECT entity", "+OK|"),
        ("INCR a", "-ERR needs a strong namespace|"),
        ("SELECT 0", "+OK|"),
        ("INCR a", ":2|"),
        ("CLIENT GETNAME", "$-1|"),
        ("CLIENT SETNAME me", "+OK|"),
        ("CLIENT GETNAME", "$2|me|"),
        ("CLIENT SETINFO LIB-NAME raw", "+OK|"),
        ("RESET", "+RESET|"),
        ("CLIENT GETNAME", "$-1|"),
        ("GET a b", "-ERR wrong number of arguments for 'get' command|"),
        ("QUIT", "+OK|"),
    ]);
    assert_eq!(client.rest(), "");
}

#[test]
fn hello_switches_the_protocol_or_nothing() {
    let server = start();
    let mut client = server.connect();
    assert_eq!(client.call("HELLO 4"), "-NOPROTO unsupported protocol version|");
    assert_eq!(client.call("HELLO x"), "-ERR Protocol version is not an integer or out of range|");
    assert_eq!(client.call("HELLO 3 SETNAME"), "-ERR Syntax error in HELLO option 'SETNAME'|");
    assert_eq!(client.call("GET none"), "$-1|");
    let greeting = client.call("HELLO 3 SETNAME me");
    assert!(greeting.starts_with("%8|$6|server|$5|redis|$7|version|$5|7.2."), "{greeting}");
    assert_eq!(client.call("GET none"), "_|");
    assert!(client.call("CONFIG GET save").starts_with("%1|"));
    assert!(client.call("CLIENT LIST").contains(" name=me "));
    assert!(client.call("HELLO 2").starts_with("*16|"));
}

#[test]
fn a_pipeline_is_answered_in_order_however_it_arrives() {
    let server = start();
    let mut client = server.connect();
    let mut bytes = Vec::new();
    for number in 0..300 {
        let text = number.to_string();
        bytes.extend(encode(&[b"SET", b"k", text.as_bytes()]));
        bytes.extend(encode(&[b"ECHO", text.as_bytes()]));
        bytes.extend(b"INCR k\r\nNOSUCH\r\n");
    }
    for piece in bytes.chunks(101) {
        client.send(piece);
    }
    for number in 0..300 {
        let text = number.to_string();
        assert_eq!(client.reply(), "+OK|");
        assert_eq!(client.reply(), format!("${}|{text}|", text.len()));
        assert_eq!(client.reply(), format!(":{}|", number + 1));
        assert!(client.reply().starts_with("-ERR unknown command 'NOSUCH'"));
    }
}

#[test]
fn who_stops_sending_is_still_answered() {
    let server = start();
    let mut client = server.connect();
    let value = "v".repeat(100);
    for number in 0..10_000 {
        client.send(format!("SET k{number} {value}\r\n").as_bytes());
    }
    client.send(b"DBSIZE\r\n");
    client.finish_sending();
    assert_eq!(client.rest(), "+OK\r\n".repeat(10_000) + ":10000\r\n");
}

#[test]
fn info_and_config_tell_what_is() {
    let server = start();
    let mut client = server.connect();
    let info = client.call("INFO server");
    assert!(info.contains("redis_version:7.2.") && info.contains("kvorum_version:0."), "{info}");
    assert!(!info.contains("# Clients"), "{info}");
    assert!(client.call("INFO").contains("loading:0|"));
    client.script(&[
        ("CONFIG GET durability", "*2|$10|durability|$6|synced|"),
        ("CONFIG SET durability written maxclients 77", "+OK|"),
        ("CONFIG GET maxclient? appendfsync", "*4|$11|appendfsync|$8|everysec|$10|maxclients|$2|77|"),
        ("CONFIG SET maxclients 5 port 1", "-ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config|"),
        ("CONFIG GET maxclients", "*2|$10|maxclients|$2|77|"),
        ("CONFIG SET nosuch 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'|"),
        ("CONFIG SET timeout x", "-ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer|"),
        ("CONFIG SET timeout 1 timeout 2", "-ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter|"),
    ]);
}

#[test]
fn a_password_is_asked_for() {
    let server = start_with(|settings| settings.requirepass = Some("secret".into()));
    let mut client = server.connect();
    client.script(&[
        ("GET a", "-NOAUTH Authentication required.|"),
        ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.|"),
        ("AUTH nobody secret", "-WRONGPASS invalid username-password pair or user is disabled.|"),
    ]);
    assert!(client.call("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    client.script(&[
        ("AUTH secret", "+OK|"),
        ("GET a", "$-1|"),
        ("CONFIG SET requirepass", "-ERR wrong number of arguments for 'config|set' command|"),
    ]);
    let mut other = server.connect();
    assert!(other.call("HELLO 2 AUTH default secret").starts_with("*16|"));
    assert_eq!(other.call("GET a"), "$-1|");
    let mut large = server.connect();
    large.send(b"*2\r\n$4\r\nECHO\r\n$20000\r\n");
    assert_eq!(large.rest(), "-ERR Protocol error: unauthenticated bulk length\r\n");
}

#[test]
fn a_node_alone_has_no_replicas_and_says_so() {
    let server = start();
    let mut client = server.connect();
    client.script(&[
        ("WAIT 0 0", ":0|"),
        ("SET k v", "+OK|"),
        ("WAIT 2 60000", ":0|"),
        ("WAITAOF 1 0 0", "*2|:1|:0|"),
        ("CONSISTENCY DURABILITY written", "*4|$4|read|$6|leader|$10|durability|$7|written|"),
        ("SET k w", "+OK|"),
        ("WAITAOF 1 2 60000", "*2|:1|:0|"),
        ("WAIT 1 -1", "-ERR timeout is negative|"),
        ("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1|"),
        ("MULTI", "+OK|"),
        ("SET k w", "+QUEUED|"),
        ("WAIT 1 0", "+QUEUED|"),
        ("WAITAOF 1 1 0", "+QUEUED|"),
        ("WAIT 1 x", "+QUEUED|"),
        ("EXEC", "*4|+OK|:0|*2|:1|:0|-ERR timeout is not an integer or out of range|"),
    ]);
}
