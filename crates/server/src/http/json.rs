//! The small JSON API on namespace `0`: the same data as `SELECT 0` of the Redis protocol.

use super::body::Body;
use super::entity::parameter;
use super::query::Query;
use super::run::{Job, run, run_one, unexpected};
use super::{Answer, collect, must_be_json};
use crate::shared::Shared;
use base64::Engine as _;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use kvorum_cluster::{Consistency, NamespaceId};
use kvorum_model::Reply;
use serde_json::{Map, Value, json};

/// `GET /get?key=K`.
pub(super) async fn get(shared: &Shared, query: &Query) -> Result<Response<Body>, Answer> {
    let key = parameter(query, "key")?;
    let reply = run_one(shared, zero(), &[b"GETV", key]).await?;
    let Reply::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let [Reply::Bulk(value), Reply::Bulk(version), ..] = parts.as_slice() else {
        return Err(Answer::json(StatusCode::NOT_FOUND, &json!({"error": "not_found"})));
    };
    let mut answer = Map::new();
    put_text(&mut answer, "key", key);
    put_text(&mut answer, "value", value);
    answer.insert("version".into(), text(version).into());
    Ok(Answer::json(StatusCode::OK, &Value::Object(answer)).into_response())
}

fn zero() -> Job<'static> {
    Job::in_order(NamespaceId::ZERO, Consistency::default())
}

/// `POST /set` with `{"key": "value", …}`: all or nothing, where that can be.
pub(super) async fn set(
    shared: &Shared,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    must_be_json(headers)?;
    let body = collect(shared, body).await?;
    let bad = |text: String| Answer::text(StatusCode::BAD_REQUEST, text);
    let parsed: Value = serde_json::from_slice(&body).map_err(|error| bad(format!("no JSON: {error}")))?;
    let Value::Object(entries) = parsed else {
        return Err(bad("the body must be an object of strings: {\"key\": \"value\"}".into()));
    };
    let mut commands = Vec::with_capacity(entries.len());
    for (key, value) in &entries {
        let Value::String(value) = value else {
            return Err(bad(format!("the value of {key:?} must be a string")));
        };
        commands.push([&b"SETV"[..], key.as_bytes(), value.as_bytes()]);
    }
    let commands: Vec<_> = commands.iter().map(<[_; 3]>::as_slice).collect();
    let mut shards = entries.keys().map(|key| NamespaceId::ZERO.place_of(key.as_bytes()));
    let first = shards.next();
    // Within a shard, and on a node alone, all or nothing; else each key by itself.
    let as_one = !shared.node.is_clustered() || shards.all(|shard| Some(shard) == first);
    let job = if as_one { Job::as_one(NamespaceId::ZERO, Consistency::default()) } else { zero() };
    let replies = run(shared, job, &commands).await?.unwrap_or_default();
    let (mut versions, mut errors) = (Map::new(), Map::new());
    for ((key, _), reply) in entries.iter().zip(&replies) {
        match reply {
            Reply::Bulk(version) => versions.insert(key.clone(), text(version).into()),
            Reply::Error(error) if !as_one => errors.insert(key.clone(), error.text().into()),
            other => return Err(unexpected(other)),
        };
    }
    let answer = match errors.is_empty() {
        true => json!({ "versions": versions }),
        false => json!({ "versions": versions, "errors": errors }),
    };
    Ok(Answer::json(StatusCode::OK, &answer).into_response())
}

/// `DELETE /del?key=K`.
pub(super) async fn delete(shared: &Shared, query: &Query) -> Result<Response<Body>, Answer> {
    let key = parameter(query, "key")?;
    match run_one(shared, zero(), &[b"DEL", key]).await? {
        Reply::Integer(deleted) => {
            Ok(Answer::json(StatusCode::OK, &json!({ "deleted": deleted })).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Text as it is, other bytes in base64 under another name.
pub(super) fn put_text(answer: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => answer.insert(name.into(), text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            answer.insert(format!("{name}_base64"), encoded.into())
        }
    };
}
