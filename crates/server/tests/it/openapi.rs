//! The API below `/v1`, every answer of which is held to the document that the server gives of it.

use crate::client::{Running, start};
use crate::http::ask;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A server with its document.
struct Api {
    server: Running,
    document: Value,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

impl Api {
    fn new() -> Api {
        let server = start();
        let document = serde_json::from_slice(&ask(&server, "GET /v1/openapi.json", "", b"").2).unwrap();
        Api { server, document }
    }

    /// Asks, and checks that the document knows this path, method and status, and that the answer is as it says.
    fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let (status, head, body) = ask(&self.server, line, headers, body);
        let (method, target) = line.split_once(' ').unwrap();
        let template = template(target.split('?').next().unwrap());
        let method = method.to_ascii_lowercase();
        let operation = &self.document["paths"][template][&method];
        let known = if operation.is_null() && status == 405 {
            let operations = self.document["paths"][template].as_object().unwrap();
            operations.values().find(|operation| operation["responses"].is_object()).unwrap()
        } else {
            operation
        };
        let response = self.target(&known["responses"][status.to_string()]);
        assert!(response.is_object(), "{line}: {status} is not documented for {template}");
        let answer = Answer { status, head, body };
        if let Some((kind, content)) = response["content"].as_object().and_then(|kinds| kinds.iter().next()) {
            let given = answer.header("content-type").unwrap_or_default();
            assert!(given.starts_with(kind), "{line}: {given} instead of {kind}");
            if content["schema"].is_object() {
                self.check(&content["schema"], &answer.json(), line);
            }
        }
        for (name, _) in response["headers"].as_object().into_iter().flatten() {
            let optional = name != "ETag" || status == 412;
            assert!(optional || answer.header("etag").is_some(), "{line}: no {name}");
        }
        answer
    }

    fn json(&self, line: &str, body: &Value) -> Answer {
        self.ask(line, "Content-Type: application/json\r\n", body.to_string().as_bytes())
    }

    fn status(&self, line: &str) -> u16 {
        self.ask(line, "", b"").status
    }

    /// What a reference stands for; anything else is itself.
    fn target<'d>(&'d self, value: &'d Value) -> &'d Value {
        let Some(name) = value["$ref"].as_str() else { return value };
        let target = self.document.pointer(name.strip_prefix('#').unwrap());
        target.unwrap_or_else(|| panic!("{name} is not there"))
    }

    /// JSON Schema, as far as the document uses it.
    fn check(&self, schema: &Value, value: &Value, at: &str) {
        let schema = self.target(schema);
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
            _ => panic!("{at}: a schema without a type"),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        assert!(kinds.contains(&kind), "{at}: {value} is {kind}, not {kinds:?}");
        if let Some(choices) = schema["enum"].as_array() {
            assert!(choices.contains(value), "{at}: {value} is none of {choices:?}");
        }
        if schema["pattern"] == "^[0-9]+$" {
            let text = value.as_str().unwrap();
            assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()), "{at}: {text}");
        }
        for element in value.as_array().into_iter().flatten() {
            self.check(&schema["items"], element, at);
        }
        let Some(fields) = value.as_object() else { return };
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(fields.contains_key(required.as_str().unwrap()), "{at}: no {required} in {value}");
        }
        for (name, field) in fields {
            let known = &schema["properties"][name];
            assert!(known.is_object(), "{at}: {name} is not documented");
            self.check(known, field, &format!("{at} {name}"));
        }
    }
}

/// The document's path that a real one belongs to.
fn template(path: &str) -> &'static str {
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
    match parts.as_slice() {
        ["v1", "openapi.json"] => "/v1/openapi.json",
        ["v1", "cluster"] => "/v1/cluster",
        ["v1", "cluster", "verify"] => "/v1/cluster/verify",
        ["v1", "cluster", "nodes", _] => "/v1/cluster/nodes/{name}",
        ["v1", "cluster", "nodes", _, "drain"] => "/v1/cluster/nodes/{name}/drain",
        ["v1", "ns"] => "/v1/ns",
        ["v1", "ns", _] => "/v1/ns/{namespace}",
        ["v1", "ns", _, "keys"] => "/v1/ns/{namespace}/keys",
        ["v1", "ns", _, "keys", _] => "/v1/ns/{namespace}/keys/{key}",
        ["v1", "ns", _, "batch"] => "/v1/ns/{namespace}/batch",
        _ => panic!("{path} is no path of the document"),
    }
}

#[test]
fn namespaces_are_made_changed_and_dropped() {
    let api = Api::new();
    let all = api.ask("GET /v1/ns", "", b"").json();
    assert_eq!(all["namespaces"].as_array().unwrap().len(), 17);
    assert_eq!(all["namespaces"][16]["name"], "entity");
    let made = api.json("PUT /v1/ns/users", &json!({"shards": 4, "durability": "written"}));
    assert_eq!((made.status, &made.json()["shards"]), (201, &json!(4)));
    let changed = api.json("PUT /v1/ns/users", &json!({"history": "1h", "replication": 5}));
    assert_eq!((changed.status, &changed.json()["history"]), (200, &json!("1h")));
    assert_eq!(api.ask("GET /v1/ns/users", "", b"").json()["durability"], "written");
    let again = api.json("PUT /v1/ns/users", &changed.json());
    assert_eq!((again.status, again.json()), (200, changed.json()), "what GET gives can be put");
    assert_eq!(api.json("PUT /v1/ns/users", &json!({"shards": 8})).status, 409);
    assert_eq!(api.json("PUT /v1/ns/users", &json!({"mode": "available"})).status, 409);
    for bad in [json!({"colour": "red"}), json!({"shards": 0}), json!({"history": true}), json!([])] {
        assert_eq!(api.json("PUT /v1/ns/others", &bad).status, 400, "{bad}");
    }
    assert_eq!(api.json("PUT /v1/ns/16", &json!({})).status, 400);
    assert_eq!(api.ask("PUT /v1/ns/plain", "", b"").status, 201, "no body: the defaults");
    assert_eq!(api.ask("PUT /v1/ns/plain", "", b"{}").status, 415);
    assert_eq!(api.status("GET /v1/ns/nobody"), 404);
    assert_eq!(api.ask("PUT /v1/ns/plain", "If-None-Match: *\r\n", b"").status, 412);
    assert_eq!(api.ask("PUT /v1/ns/nobody", "If-Match: *\r\n", b"").status, 412);
    assert_eq!(api.status("POST /v1/ns/users"), 405);
    assert_eq!(api.status("DELETE /v1/ns/entity"), 400);
    let mut client = api.server.connect();
    assert_eq!(client.call("SELECT users"), "+OK|");
    assert_eq!(client.call("SET a 1"), "+OK|");
    assert_eq!(api.status("DELETE /v1/ns/users"), 200);
    assert_eq!(api.status("DELETE /v1/ns/users"), 404);
    assert_eq!(client.call("GET a"), "-ERR there is no namespace users any more: it was dropped|");
}

#[test]
fn values_have_versions_as_tags() {
    let api = Api::new();
    let key = "/v1/ns/0/keys/a%2Fb%00c";
    assert_eq!(api.status(&format!("GET {key}")), 404);
    let put = api.ask(&format!("PUT {key}"), "If-None-Match: *\r\n", &[0, 255]);
    let version = put.json()["version"].as_str().unwrap().to_owned();
    assert_eq!(put.header("etag").unwrap(), format!("\"{version}\""));
    let conflict = api.ask(&format!("PUT {key}"), "If-None-Match: *\r\n", b"x");
    assert_eq!((conflict.status, conflict.json()["version"].as_str()), (412, Some(version.as_str())));
    let got = api.ask(&format!("GET {key}"), "", b"");
    assert_eq!((got.body.as_slice(), got.header("kvorum-label")), (&[0, 255][..], Some("stable")));
    let tag = format!("If-None-Match: W/\"7\", \"{version}\"\r\n");
    let same = api.ask(&format!("GET {key}"), &tag, b"");
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(api.ask(&format!("GET {key}"), "If-Match: \"7\"\r\n", b"").status, 412);
    let matching = format!("If-Match: \"{version}\"\r\nKvorum-TTL-Ms: 100000\r\n");
    let next = api.ask(&format!("PUT {key}"), &matching, b"two");
    assert_eq!(next.status, 200);
    let left: u64 = api.ask(&format!("GET {key}"), "", b"").header("kvorum-ttl-ms").unwrap().parse().unwrap();
    assert!((1..=100_000).contains(&left));
    assert_eq!(api.ask(&format!("PUT {key}"), &matching, b"three").status, 412);
    assert_eq!(api.ask(&format!("DELETE {key}"), &matching, b"").status, 412);
    let now = format!("If-Match: {}\r\n", next.header("etag").unwrap());
    assert_eq!(api.ask(&format!("DELETE {key}"), &now, b"").json()["deleted"], 1);
    assert_eq!(api.ask(&format!("DELETE {key}"), "", b"").json()["deleted"], 0);
    assert_eq!(api.ask(&format!("DELETE {key}"), "If-Match: *\r\n", b"").status, 412);
    assert_eq!(api.ask(&format!("PUT {key}"), "If-Match: *\r\n", b"x").status, 412);
    for bad in [
        "If-Match: 7\r\n",
        "If-None-Match: \"7\"\r\n",
        "Kvorum-TTL-Ms: 0\r\n",
        "If-Match: *\r\nIf-None-Match: *\r\n",
    ] {
        assert_eq!(api.ask(&format!("PUT {key}"), bad, b"x").status, 400, "{bad}");
    }
    for bad in ["read=never", "durability=x", "ack=0", "ack=x"] {
        assert_eq!(api.status(&format!("GET {key}?{bad}")), 400, "{bad}");
    }
    assert_eq!(api.ask(&format!("PUT {key}?durability=synced&read=follower"), "", b"x").status, 200);
    assert_eq!(api.status("GET /v1/ns/nobody/keys/a"), 404);
    assert_eq!(api.status(&format!("POST {key}")), 405);
}

#[test]
fn an_available_namespace_has_tags_too() {
    let api = Api::new();
    assert_eq!(api.json("PUT /v1/ns/free", &json!({"mode": "available"})).status, 201);
    let put = api.ask("PUT /v1/ns/free/keys/a?ack=1&from=1", "Kvorum-TTL-Ms: 100000\r\n", b"1");
    let tag = format!("If-Match: {}\r\n", put.header("etag").unwrap());
    let got = api.ask("GET /v1/ns/free/keys/a", "", b"");
    assert!(got.body == b"1" && got.header("kvorum-ttl-ms").is_some());
    assert_eq!(api.ask("PUT /v1/ns/free/keys/a", &tag, b"2").status, 200);
    assert_eq!(api.ask("PUT /v1/ns/free/keys/a", &tag, b"3").status, 412);
    assert_eq!(
        api.ask("PUT /v1/ns/free/keys/a", "If-Match: *\r\n", b"3").status,
        400,
        "reads before it writes"
    );
    let batch = json!({"operations": [{"op": "put", "key": "a", "value": "1"}]});
    assert_eq!(api.json("POST /v1/ns/free/batch", &batch).status, 400);
}

#[test]
fn listings_have_a_prefix_and_a_cursor() {
    let api = Api::new();
    let mut client = api.server.connect();
    for number in 0..50 {
        assert_eq!(client.call(&format!("SET user:{number} x")), "+OK|");
        assert_eq!(client.call(&format!("SET use*:{number} x")), "+OK|");
    }
    client.send(b"SET \"user\\xff\" x\r\n");
    assert_eq!(client.reply(), "+OK|");
    let (mut keys, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let page = api.ask(&format!("GET /v1/ns/0/keys?prefix=user&limit=7{cursor}"), "", b"").json();
        for key in page["keys"].as_array().unwrap() {
            assert!(keys.insert(key.to_string()), "{key} came twice");
        }
        pages += 1;
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(keys.len() == 51 && keys.contains("{\"key_base64\":\"dXNlcv8=\"}"), "{keys:?}");
    assert!(pages >= 51 / 7);
    let starred = api.ask("GET /v1/ns/0/keys?prefix=use*", "", b"").json();
    assert_eq!(starred["keys"].as_array().unwrap().len(), 50);
    assert_eq!(api.ask("GET /v1/ns/1/keys", "", b"").json(), json!({"keys": [], "cursor": null}));
    for bad in ["limit=0", "limit=x", "limit=10001", "cursor=x", "cursor=7"] {
        assert_eq!(api.status(&format!("GET /v1/ns/0/keys?{bad}")), 400, "{bad}");
    }
    assert_eq!(api.status("GET /v1/ns/nobody/keys"), 404);
    assert_eq!(api.status("PUT /v1/ns/0/keys"), 405);
}

#[test]
fn a_batch_is_all_or_nothing() {
    let api = Api::new();
    let batch = |operations: Value| api.json("POST /v1/ns/0/batch", &json!({ "operations": operations }));
    let done = batch(json!([
        {"op": "put", "key": "a", "value": "1"},
        {"op": "put", "key_base64": "/w==", "value_base64": "/g==", "ttl_ms": 100_000},
        {"op": "get", "key_base64": "/w=="},
        {"op": "get", "key": "none"},
        {"op": "delete", "key": "none"},
    ]));
    let results = done.json()["results"].clone();
    assert_eq!(results[2]["value_base64"], "/g==");
    assert_eq!((&results[3]["version"], results[3].get("value")), (&json!("0"), None));
    assert_eq!(results[4]["deleted"], 0);
    let version = results[0]["version"].clone();
    let refused = batch(json!([
        {"op": "put", "key": "b", "value": "1", "if_version": "0"},
        {"op": "delete", "key": "a", "if_version": "7"},
    ]));
    assert_eq!(refused.status, 412);
    assert_eq!(refused.json()["conflicts"], json!([{"index": 1, "version": version}]));
    assert_eq!(api.status("GET /v1/ns/0/keys/b"), 404, "nothing of it happened");
    let done = batch(json!([
        {"op": "put", "key": "b", "value": "1", "if_version": "0"},
        {"op": "delete", "key": "a", "if_version": version},
    ]));
    assert_eq!((done.status, &done.json()["results"][1]["deleted"]), (200, &json!(1)));
    for bad in [
        json!([{"op": "move", "key": "a"}]),
        json!([{"op": "put", "key": "a"}]),
        json!([{"op": "get", "key": "a", "value": "1"}]),
        json!([{"op": "get"}]),
        json!([{"op": "get", "key": 7}]),
        json!([{"op": "get", "key": "a", "key_base64": "YQ=="}]),
        json!([{"op": "get", "key_base64": "?"}]),
        json!([{"op": "get", "key": "a", "if_version": 7}]),
        json!([{"op": "get", "key": "a", "colour": "red"}]),
        json!(7),
    ] {
        assert_eq!(batch(bad.clone()).status, 400, "{bad}");
    }
    assert_eq!(api.ask("POST /v1/ns/0/batch", "", b"{}").status, 415);
    assert_eq!(api.json("POST /v1/ns/nobody/batch", &json!({})).status, 404);
    assert_eq!(api.status("GET /v1/ns/0/batch"), 405);
}

#[test]
fn the_document_is_sound() {
    let api = Api::new();
    let text = api.document.to_string();
    for name in text.split("\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(api.document.pointer(name).is_some(), "{name} is not there");
    }
    for (path, item) in api.document["paths"].as_object().unwrap() {
        assert_eq!(template(&path.replace(['{', '}'], "")), path);
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
        {
            assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{method} {path}");
        }
    }
    assert_eq!(api.status("GET /v1/cluster"), 404, "a node alone");
    assert_eq!(api.status("PUT /v1/cluster"), 405);
    assert_eq!(api.status("GET /v1/cluster/verify"), 404, "a node alone");
    assert_eq!(api.status("PUT /v1/cluster/verify"), 405);
    assert_eq!(api.status("POST /v1/cluster/nodes/n1/drain"), 404, "a node alone");
    assert_eq!(api.status("DELETE /v1/cluster/nodes/n1/drain"), 404, "a node alone");
    assert_eq!(api.status("PUT /v1/cluster/nodes/n1/drain"), 405);
    assert_eq!(api.status("DELETE /v1/cluster/nodes/n1"), 404, "a node alone");
    assert_eq!(api.status("PUT /v1/cluster/nodes/n1"), 405);
    assert_eq!(ask(&api.server, "GET /v1/cluster/nothing", "", b"").0, 404);
    assert_eq!(api.status("PUT /v1/openapi.json"), 405);
    assert_eq!(api.status("GET /v1/openapi.json"), 200);
    assert_eq!(ask(&api.server, "GET /v1/ns/0/nothing", "", b"").0, 404);
    assert_eq!(ask(&api.server, "GET /v1/nsx", "", b"").0, 400);
}

#[test]
fn a_request_with_an_idempotency_key_is_executed_once() {
    let api = Api::new();
    let twice = |line: &str, headers: &str, body: &[u8]| {
        let one = api.ask(line, headers, body);
        let other = api.ask(line, headers, body);
        assert_eq!((one.status, &one.body), (other.status, &other.body), "{line}");
        one
    };
    let put = twice("PUT /v1/ns/0/keys/k", "Idempotency-Key: put-1\r\n", b"v");
    let tag = format!("If-Match: {}\r\n", put.header("etag").unwrap());
    // Without the key the second one would find another version.
    let next = twice("PUT /v1/ns/0/keys/k", &format!("{tag}Idempotency-Key: put-2\r\n"), b"w");
    assert_eq!(next.status, 200);
    assert_eq!(api.ask("PUT /v1/ns/0/keys/k", &tag, b"w").status, 412);
    assert_eq!(api.ask("PUT /v1/ns/0/keys/k", "Idempotency-Key: put-1\r\n", b"other").status, 400);
    let deleted = twice("DELETE /v1/ns/0/keys/k", "Idempotency-Key: delete\r\n", b"");
    assert_eq!(deleted.json()["deleted"], 1);
    let batch = json!({"operations": [
        {"op": "put", "key": "a", "value": "1", "if_version": "0"},
        {"op": "put", "key": "b", "value": "2", "if_version": "0"},
    ]});
    let headers = "Content-Type: application/json\r\nIdempotency-Key: batch\r\n";
    assert_eq!(twice("POST /v1/ns/0/batch", headers, batch.to_string().as_bytes()).status, 200);
    let long = format!("Idempotency-Key: {}\r\n", "x".repeat(129));
    assert_eq!(api.ask("PUT /v1/ns/0/keys/k", &long, b"v").status, 400);
}
