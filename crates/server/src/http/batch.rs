//! `POST /v1/ns/{namespace}/batch`: several operations as one.

use super::body::Body;
use super::json::{put_text, text};
use super::keys::named;
use super::run::{Job, request_id, run, unexpected};
use super::{Answer, collect_json};
use crate::shared::Shared;
use base64::Engine as _;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use kvorum_cluster::{Consistency, NamespaceId};
use kvorum_model::{Reply, parse_u64};
use serde_json::{Map, Value, json};

/// Operations of one batch at most.
const OPERATIONS_MAX: usize = 10_000;

/// How often a batch is tried again after it met a conflict that was gone when it was looked for.
const TRIES_MAX: usize = 8;

/// An operation, as commands know it.
struct Operation {
    words: Vec<Vec<u8>>,
    /// The version that the key must have.
    if_version: Option<u64>,
}

impl Operation {
    fn key(&self) -> &[u8] {
        self.words.get(1).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Executes all operations or, if one of the keys has not the version that it must have, none.
pub(super) async fn batch(
    shared: &Shared,
    namespace: NamespaceId,
    consistency: Consistency,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    let parsed = collect_json(shared, headers, body).await?;
    let operations = parse(&parsed).map_err(|what| Answer::text(StatusCode::BAD_REQUEST, what))?;
    let words: Vec<Vec<&[u8]>> =
        operations.iter().map(|operation| operation.words.iter().map(Vec::as_slice).collect()).collect();
    let commands: Vec<_> = words.iter().map(Vec::as_slice).collect();
    let expected: Vec<_> =
        operations.iter().filter_map(|operation| Some((operation.key(), operation.if_version?))).collect();
    let request_id = request_id(headers)?;
    for _ in 0..TRIES_MAX {
        let job = Job { expected: &expected, request_id, ..Job::as_one(namespace, consistency) };
        if let Some(replies) = run(shared, job, &commands).await? {
            return results(&operations, &replies);
        }
        let conflicts = conflicts(shared, namespace, consistency, &operations).await?;
        if !conflicts.is_empty() {
            let body = json!({ "error": "keys have other versions", "conflicts": conflicts });
            return Err(Answer::json(StatusCode::PRECONDITION_FAILED, &body));
        }
    }
    Err(Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the keys change too fast: try again"))
}

/// Which operations have met another version than they must, and which.
async fn conflicts(
    shared: &Shared,
    namespace: NamespaceId,
    consistency: Consistency,
    operations: &[Operation],
) -> Result<Vec<Value>, Answer> {
    let mut conflicts = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let Some(expected) = operation.if_version else { continue };
        let job = Job::in_order(namespace, consistency);
        let reply = super::run::run_one(shared, job, &[b"GETV", operation.key()]).await?;
        let version = version_in(&reply)?;
        if version != expected.to_string() {
            conflicts.push(json!({ "index": index, "version": version }));
        }
    }
    Ok(conflicts)
}

fn version_in(reply: &Reply) -> Result<String, Answer> {
    match reply {
        Reply::Array(parts) => match parts.as_slice() {
            [_, Reply::Bulk(version), ..] => Ok(text(version)),
            _ => Err(unexpected(reply)),
        },
        _ => Err(unexpected(reply)),
    }
}

fn results(operations: &[Operation], replies: &[Reply]) -> Result<Response<Body>, Answer> {
    let mut results = Vec::with_capacity(replies.len());
    for (operation, reply) in operations.iter().zip(replies) {
        results.push(match reply {
            Reply::Bulk(version) => json!({ "version": text(version) }),
            Reply::Integer(deleted) => json!({ "deleted": deleted }),
            Reply::Array(parts) => {
                let mut found = Map::new();
                if let Value::Object(key) = named(operation.key()) {
                    found.extend(key);
                }
                if let [Reply::Bulk(value), ..] = parts.as_slice() {
                    put_text(&mut found, "value", value);
                }
                found.insert("version".into(), version_in(reply)?.into());
                Value::Object(found)
            }
            other => return Err(unexpected(other)),
        });
    }
    Ok(Answer::json(StatusCode::OK, &json!({ "results": results })).into_response())
}

fn parse(body: &Value) -> Result<Vec<Operation>, String> {
    let operations = body.get("operations").and_then(Value::as_array);
    let operations = operations.ok_or("the body must be {\"operations\": [...]}")?;
    if operations.len() > OPERATIONS_MAX {
        return Err(format!("a batch has at most {OPERATIONS_MAX} operations"));
    }
    let each = operations.iter().enumerate();
    each.map(|(index, one)| parse_one(one).map_err(|what| format!("operation {index}: {what}"))).collect()
}

fn parse_one(operation: &Value) -> Result<Operation, String> {
    let fields = operation.as_object().ok_or("it must be an object")?;
    let known = ["op", "key", "key_base64", "value", "value_base64", "ttl_ms", "if_version"];
    if let Some(odd) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown field {odd:?}; there are {}", known.join(", ")));
    }
    let key = bytes(fields, "key")?.ok_or("key or key_base64 is missing")?;
    let value = bytes(fields, "value")?;
    let if_version = match fields.get("if_version") {
        None => None,
        Some(version) => {
            let parsed = version.as_str().and_then(|text| parse_u64(text.as_bytes()));
            Some(parsed.ok_or("if_version is a string of digits")?)
        }
    };
    let ttl = match fields.get("ttl_ms") {
        None => None,
        Some(ttl) => Some(ttl.as_u64().filter(|ms| *ms > 0).ok_or("ttl_ms is a number from 1 on")?),
    };
    let op = fields.get("op").and_then(Value::as_str).unwrap_or_default();
    let words = match (op, value) {
        ("put", Some(value)) => {
            let mut words = vec![b"SETV".to_vec(), key, value];
            if let Some(ms) = ttl {
                words.extend([b"PX".to_vec(), ms.to_string().into_bytes()]);
            }
            words
        }
        ("put", None) => return Err("value or value_base64 is missing".into()),
        ("delete", None) if ttl.is_none() => vec![b"DEL".to_vec(), key],
        ("get", None) if ttl.is_none() => vec![b"GETV".to_vec(), key],
        ("delete" | "get", _) => return Err(format!("{op} takes neither value nor ttl_ms")),
        _ => return Err("op must be put, delete or get".into()),
    };
    Ok(Operation { words, if_version })
}

/// The bytes of a field that is text, or base64 under another name.
fn bytes(fields: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let encoded = format!("{name}_base64");
    match (fields.get(name), fields.get(&encoded)) {
        (None, None) => Ok(None),
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into_bytes())),
        (None, Some(Value::String(text))) => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("{encoded}: {error}")),
        },
        (Some(_), Some(_)) => Err(format!("{name} and {encoded} exclude each other")),
        _ => Err(format!("{name} must be a string")),
    }
}
