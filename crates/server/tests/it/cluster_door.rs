//! The door for cluster clients, on a node alone: it serves all slots.

use crate::client::{Running, start, start_with};
use std::net::Ipv4Addr;

fn with_door() -> Running {
    start_with(|settings| settings.resp_cluster = Some((Ipv4Addr::LOCALHOST, 0).into()))
}

#[test]
fn a_cluster_client_is_told_where_the_slots_are() {
    let server = with_door();
    let mut client = server.connect_cluster();
    let (host, port) = ("127.0.0.1", server.cluster.unwrap().port());
    let id = client.call("CLUSTER MYID");
    let id = id.strip_prefix("$40|").and_then(|id| id.strip_suffix('|')).unwrap();
    assert_eq!(client.call("CLUSTER SLOTS"), format!("*1|*3|:0|:16383|*4|$9|{host}|:{port}|$40|{id}|*0|"));
    let nodes = client.call("CLUSTER NODES");
    assert!(
        nodes.contains(&format!("|{id} {host}:{port}@0 myself,master - 0 0 1 connected 0-16383")),
        "{nodes}"
    );
    let shards = client.call("CLUSTER SHARDS");
    assert!(shards.starts_with("*1|*4|$5|slots|*2|:0|:16383|$5|nodes|*1|*14|"), "{shards}");
    assert!(client.call("CLUSTER INFO").contains("cluster_state:ok|cluster_slots_assigned:16384|"));
    assert!(client.call("INFO").contains("cluster_enabled:1|"));
    assert!(client.call("HELLO 2").contains("$4|mode|$7|cluster|"));
    client.script(&[
        ("CLUSTER KEYSLOT foo", ":12182|"),
        ("SET foo 1", "+OK|"),
        ("SET {foo}.b 1", "+OK|"),
        ("SET gone 1 PX 1", "+OK|"),
        ("CLUSTER COUNTKEYSINSLOT 12182", ":2|"),
        ("CLUSTER GETKEYSINSLOT 12182 1", "*1|$3|foo|"),
        ("CLUSTER GETKEYSINSLOT 12182 x", "-ERR Invalid number of keys|"),
        ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot|"),
        ("MGET foo {foo}.b", "*2|$1|1|$1|1|"),
        ("MGET foo bar", "-CROSSSLOT Keys in request don't hash to the same slot|"),
        ("SELECT 0", "+OK|"),
        ("SELECT 1", "-ERR SELECT is not allowed in cluster mode|"),
        ("SELECT entity", "-ERR SELECT is not allowed in cluster mode|"),
        ("READONLY", "+OK|"),
        ("GET foo", "$1|1|"),
        ("READWRITE", "+OK|"),
        ("MULTI", "+OK|"),
        ("SET foo 2", "+QUEUED|"),
        ("DEL foo bar", "-CROSSSLOT Keys in request don't hash to the same slot|"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.|"),
    ]);
}

#[test]
fn the_plain_door_is_no_cluster() {
    let server = start();
    let mut client = server.connect();
    let disabled = "-ERR This instance has cluster support disabled|";
    for command in
        ["INFO", "MYID", "NODES", "SHARDS", "SLOTS", "KEYSLOT a", "COUNTKEYSINSLOT 1", "GETKEYSINSLOT 1 1"]
    {
        assert_eq!(client.call(&format!("CLUSTER {command}")), disabled, "{command}");
    }
    assert_eq!(client.call("READONLY"), disabled);
    assert!(client.call("INFO cluster").contains("cluster_enabled:0|"));
    assert!(client.call("CLUSTER HELP").contains("+KEYSLOT key|"));
}
