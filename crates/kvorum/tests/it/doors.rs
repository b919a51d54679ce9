//! Both doors of a real process: order under pipelining, transactions, entities, JSON, and what a restart keeps.

use crate::process::{Node, Reply, encode, http};

#[test]
fn a_pipeline_is_answered_in_order_however_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &["--durability", "written"]);
    let mut client = node.connect();
    let mut bytes = Vec::new();
    for index in 0..500 {
        let text = index.to_string();
        bytes.extend(encode(&["SET", "counter", &text]));
        bytes.extend(encode(&["INCR", "counter"]));
        bytes.extend(encode(&["ECHO", &text]));
        bytes.extend(b"GET counter\r\n");
    }
    for piece in bytes.chunks(777) {
        client.send(piece).unwrap();
    }
    for index in 0..500 {
        assert_eq!(client.read().unwrap(), Reply::ok());
        assert_eq!(client.read().unwrap(), Reply::Integer(index + 1));
        assert_eq!(client.read().unwrap(), Reply::bulk(&index.to_string()));
        assert_eq!(client.read().unwrap(), Reply::bulk(&(index + 1).to_string()));
    }
}

#[test]
fn a_transaction_runs_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let (mut one, mut two) = (node.connect(), node.connect());
    assert_eq!(one.call(&["SET", "a", "1"]), Reply::ok());
    assert_eq!(one.call(&["WATCH", "a"]), Reply::ok());
    assert_eq!(one.call(&["MULTI"]), Reply::ok());
    assert_eq!(one.call(&["INCR", "a"]), Reply::Simple("QUEUED".into()));
    assert_eq!(two.call(&["SET", "a", "5"]), Reply::ok());
    assert_eq!(one.call(&["EXEC"]), Reply::Nil);
    assert_eq!(one.call(&["GET", "a"]), Reply::bulk("5"));
    assert_eq!(one.call(&["MULTI"]), Reply::ok());
    for words in [&["INCR", "a"][..], &["SET", "b", "text"], &["INCR", "b"], &["GET", "a"]] {
        assert_eq!(one.call(words), Reply::Simple("QUEUED".into()));
    }
    let Reply::Array(replies) = one.call(&["EXEC"]) else { panic!("EXEC answers with an array") };
    assert_eq!(replies[0], Reply::Integer(6));
    assert_eq!(replies[1], Reply::ok());
    assert!(
        matches!(&replies[2], Reply::Error(text) if text == "ERR value is not an integer or out of range")
    );
    assert_eq!(replies[3], Reply::bulk("6"));
    assert_eq!(one.call(&["MULTI"]), Reply::ok());
    assert!(matches!(one.call(&["NOSUCH"]), Reply::Error(text) if text.starts_with("ERR unknown command")));
    assert!(matches!(one.call(&["EXEC"]), Reply::Error(text) if text.starts_with("EXECABORT")));
    assert!(matches!(one.call(&["EXEC"]), Reply::Error(text) if text == "ERR EXEC without MULTI"));
}

#[test]
fn versions_travel_as_decimal_strings_and_guard_writes() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let mut client = node.connect();
    assert_eq!(
        client.call(&["GETV", "k"]),
        Reply::Array(vec![Reply::Nil, Reply::bulk("0"), Reply::bulk("stable")])
    );
    let Reply::Bulk(first) = client.call(&["SETV", "k", "one", "IFVERSION", "0"]) else {
        panic!("SETV answers with a version")
    };
    let first = String::from_utf8(first).unwrap();
    assert_eq!(
        client.call(&["GETV", "k"]),
        Reply::Array(vec![Reply::bulk("one"), Reply::bulk(&first), Reply::bulk("stable")])
    );
    assert_eq!(
        client.call(&["SET", "k", "two", "IFVERSION", "0"]),
        Reply::Error(format!("CONFLICT {first}"))
    );
    assert_eq!(client.call(&["SET", "k", "two", "IFVERSION", &first]), Reply::ok());
    assert!(
        matches!(client.call(&["DELEX", "k", "IFVERSION", &first]), Reply::Error(text) if text.starts_with("CONFLICT "))
    );
    let never = u64::MAX.to_string();
    assert!(
        matches!(client.call(&["SET", "k", "x", "IFVERSION", &never]), Reply::Error(text) if text.starts_with("CONFLICT "))
    );
}

#[test]
fn entities_are_put_got_deleted_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let status = |request: &str| node.http(request, b"").status;
    assert_eq!(node.http("PUT /v0/entity?id=b", b"two").status, 201);
    assert_eq!(node.http("PUT /v0/entity?id=a", b"one").status, 201);
    assert_eq!(node.http("PUT /v0/entity?id=c&ack=1&from=1", &[0, 255, 10]).status, 201);
    let got = node.http("GET /v0/entity?id=b", b"");
    assert_eq!((got.status, &got.raw[..]), (200, &b"two"[..]));
    let range = node.http("GET /v0/entities?start=a&end=c", b"");
    assert_eq!((range.status, range.chunks()), (200, vec![b"a\none".to_vec(), b"b\ntwo".to_vec()]));
    let rest = node.http("GET /v0/entities?start=b", b"");
    assert_eq!(rest.chunks(), vec![b"b\ntwo".to_vec(), vec![b'c', b'\n', 0, 255, 10]]);
    assert_eq!(status("DELETE /v0/entity?id=b"), 202);
    assert_eq!(status("GET /v0/entity?id=b"), 404);
    for bad in ["id=", "", "id=a&ack=0&from=1", "id=a&ack=2&from=1", "id=a&ack=x", "id=a&ack=1&from=2"] {
        assert_eq!(status(&format!("GET /v0/entity?{bad}")), 400, "{bad}");
    }
    assert_eq!(status("POST /v0/entity?id=a"), 405);
    assert_eq!(status("GET /no/such/path"), 400);
    node.kill();
    let node = Node::start(folder.path(), &[]);
    assert_eq!(node.http("GET /v0/entity?id=a", b"").raw, b"one");
    assert_eq!(node.http("GET /v0/entity?id=b", b"").status, 404);
}

#[test]
fn the_json_api_and_redis_see_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let json = ["Content-Type: application/json"];
    let set = http(node.http, "POST /set", &json, br#"{"name":"Ada","city":"London"}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    let answer: serde_json::Value = serde_json::from_slice(&set.raw).unwrap();
    assert!(answer["versions"]["name"].is_string(), "{answer}");
    let mut client = node.connect();
    assert_eq!(client.call(&["GET", "name"]), Reply::bulk("Ada"));
    assert_eq!(client.call(&["SET", "greeting", "hello"]), Reply::ok());
    let got: serde_json::Value =
        serde_json::from_slice(&node.http("GET /get?key=greeting", b"").raw).unwrap();
    assert_eq!((&got["key"], &got["value"]), (&"greeting".into(), &"hello".into()));
    assert!(got["version"].is_string(), "{got}");
    let missing = node.http("GET /get?key=nobody", b"");
    assert_eq!((missing.status, missing.text().trim_end()), (404, r#"{"error":"not_found"}"#));
    let deleted = node.http("DELETE /del?key=name", b"");
    assert_eq!((deleted.status, deleted.text().trim_end()), (200, r#"{"deleted":1}"#));
    assert_eq!(http(node.http, "POST /set", &json, br#"{"n":1}"#).status, 400);
    assert_eq!(http(node.http, "POST /set", &["Content-Type: text/plain"], br#"{"n":"1"}"#).status, 415);
}

#[test]
fn a_foreign_page_or_host_is_refused_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let foreign = http(node.http, "GET /get?key=k", &["Host: evil.example"], b"");
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    let page = http(node.http, "GET /get?key=k", &["Origin: https://evil.example"], b"");
    assert_eq!(page.status, 403, "{}", page.text());
    let mut smuggled = node.connect();
    smuggled.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n").unwrap();
    while smuggled.read().is_ok() {}
    assert_eq!(node.connect().call(&["EXISTS", "k"]), Reply::Integer(0));
}

#[test]
fn metrics_and_readiness_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    assert_eq!(node.http("GET /readyz", b"").status, 200);
    let metrics = node.http("GET /metrics", b"");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.text().contains("# TYPE kvorum_") && metrics.text().trim_end().ends_with("# EOF"),
        "{}",
        metrics.text()
    );
}

#[test]
fn what_is_flushed_stays_flushed_and_what_expires_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let mut client = node.connect();
    for key in 0..100 {
        assert_eq!(client.call(&["SET", &format!("k{key}"), "v"]), Reply::ok());
    }
    assert_eq!(client.call(&["DBSIZE"]), Reply::Integer(100));
    assert_eq!(client.call(&["FLUSHALL"]), Reply::ok());
    assert_eq!(client.call(&["SET", "after", "v"]), Reply::ok());
    assert_eq!(client.call(&["SET", "past", "v", "PXAT", "1"]), Reply::ok());
    assert_eq!(client.call(&["EXISTS", "past"]), Reply::Integer(0));
    node.kill();
    let node = Node::start(folder.path(), &[]);
    let mut client = node.connect();
    assert_eq!(client.call(&["KEYS", "*"]), Reply::Array(vec![Reply::bulk("after")]));
    assert_eq!(client.call(&["SELECT", "entity"]), Reply::ok());
    assert_eq!(client.call(&["SET", "e", "v"]), Reply::ok());
    assert!(
        matches!(client.call(&["INCR", "e"]), Reply::Error(text) if text == "ERR needs a strong namespace")
    );
}
