//! HTTP: entities, JSON, health, metrics, over raw bytes.

use crate::client::{Running, start, start_with};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Sends a request and gives status, headers and the raw body (with its chunk sizes, if it is chunked).
pub(crate) fn ask(server: &Running, line: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.http).unwrap();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..split].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), answer[split + 4..].to_vec())
}

fn status(server: &Running, line: &str) -> u16 {
    ask(server, line, "", b"").0
}

#[test]
fn entities() {
    let server = start();
    let binary = [0, 255, b'\r', b'\n'];
    assert_eq!(ask(&server, "PUT /v0/entity?id=b", "", b"two").0, 201);
    assert_eq!(ask(&server, "PUT /v0/entity?id=a%00", "", &binary).0, 201);
    assert_eq!(ask(&server, "PUT /v0/entity?id=c&ack=1&from=1", "", b"").0, 201);
    assert_eq!(ask(&server, "GET /v0/entity?id=a%00", "", b"").2, binary);
    let (code, head, body) = ask(&server, "GET /v0/entities?start=a&end=c", "", b"");
    assert_eq!(code, 200);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(body, b"7\r\na\0\n\0\xff\r\n\r\n5\r\nb\ntwo\r\n0\r\n\r\n");
    assert_eq!(ask(&server, "GET /v0/entities?start=c&scope=cluster", "", b"").2, b"2\r\nc\n\r\n0\r\n\r\n");
    assert_eq!(status(&server, "DELETE /v0/entity?id=b"), 202);
    assert_eq!(status(&server, "GET /v0/entity?id=b"), 404);
    assert_eq!(ask(&server, "GET /v0/entities?start=d", "", b"").2, b"0\r\n\r\n");
    for bad in [
        "/v0/entity",
        "/v0/entity?id=",
        "/v0/entity?id=a&ack=0",
        "/v0/entity?id=a&ack=+1",
        "/v0/entity?id=a&ack=",
        "/v0/entity?id=a&ack=2&from=1",
        "/v0/entity?id=a&from=2",
        "/v0/entities",
        "/v0/entities?start=",
        "/v0/entities?start=a&end=",
        "/v0/entities?start=a&scope=world",
        "/",
        "/v0/other",
    ] {
        assert_eq!(status(&server, &format!("GET {bad}")), 400, "{bad}");
    }
    assert_eq!(status(&server, "POST /v0/entity?id=a"), 405);
    let (_, _, text) = ask(&server, "GET /nowhere", "", b"");
    assert!(String::from_utf8_lossy(&text).contains("/v0/entities"));
}

#[test]
fn a_long_range_is_whole() {
    let server = start();
    let mut client = server.connect();
    assert_eq!(client.call("SELECT entity"), "+OK|");
    let value = "v".repeat(1000);
    for number in 0..3000 {
        client.send(format!("SET k{number:05} {value}\r\n").as_bytes());
    }
    for _ in 0..3000 {
        assert_eq!(client.reply(), "+OK|");
    }
    let body = ask(&server, "GET /v0/entities?start=k", "", b"").2;
    let chunk = format!("{:X}\r\nk00000\n{value}\r\n", 7 + 1000);
    assert_eq!(body.len(), chunk.len() * 3000 + 5);
    assert!(body.starts_with(chunk.as_bytes()) && body.ends_with(b"0\r\n\r\n"));
}

#[test]
fn json() {
    let server = start();
    let kind = "Content-Type: application/json; charset=utf-8\r\n";
    let (code, _, body) = ask(&server, "POST /set", kind, br#"{"name":"Ada","empty":""}"#);
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(code, 200);
    let version = answer["versions"]["name"].as_str().unwrap();
    let (code, _, body) = ask(&server, "GET /get?key=name", "", b"");
    let got: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, got), (200, serde_json::json!({"key": "name", "value": "Ada", "version": version})));
    let mut client = server.connect();
    assert_eq!(client.call("GET name"), "$3|Ada|");
    client.send(b"SET \"b\\xff\" \"\\xfe\"\r\n");
    assert_eq!(client.reply(), "+OK|");
    let (_, _, body) = ask(&server, "GET /get?key=b%ff", "", b"");
    assert!(String::from_utf8(body).unwrap().starts_with(r#"{"key_base64":"Yv8=","value_base64":"/g==","#));
    assert_eq!(ask(&server, "GET /get?key=nobody", "", b"").2, b"{\"error\":\"not_found\"}\n");
    assert_eq!(ask(&server, "DELETE /del?key=name", "", b"").2, b"{\"deleted\":1}\n");
    assert_eq!(ask(&server, "DELETE /del?key=name", "", b"").2, b"{\"deleted\":0}\n");
    for bad in ["[]", "1", "{\"a\":1}", "{\"a\":null}", "{", ""] {
        assert_eq!(ask(&server, "POST /set", kind, bad.as_bytes()).0, 400, "{bad}");
    }
    assert_eq!(ask(&server, "POST /set", "Content-Type: text/plain\r\n", b"{}").0, 415);
    assert_eq!(status(&server, "POST /set"), 415);
    assert_eq!(status(&server, "GET /set"), 405);
    assert_eq!(status(&server, "GET /get"), 400);
}

#[test]
fn health_metrics_passwords_and_limits() {
    let server = start_with(|settings| {
        settings.requirepass = Some("secret".into());
        settings.http_body_bytes_max = 10;
    });
    assert_eq!(status(&server, "GET /healthz"), 200);
    assert_eq!(status(&server, "GET /readyz"), 401);
    let pass = "Authorization: Bearer secret\r\n";
    assert_eq!(ask(&server, "GET /readyz", pass, b"").0, 200);
    let (code, head, body) = ask(&server, "GET /metrics", pass, b"");
    let text = String::from_utf8(body).unwrap();
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(text.contains("# TYPE kvorum_commands counter") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(ask(&server, "PUT /v0/entity?id=k", pass, b"elevenbytes").0, 413);
    assert_eq!(ask(&server, "PUT /v0/entity?id=k", pass, b"ten bytes!").0, 201);
}
