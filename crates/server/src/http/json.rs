//! The small JSON API on namespace `0`: the same data as `SELECT 0` of the Redis protocol.

use super::body::Body;
use super::entity::parameter;
use super::query::Query;
use super::{Answer, collect};
use crate::shared::Shared;
use base64::Engine as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Response, StatusCode};
use kvorum_cluster::{Error, NamespaceId, Outcome, Prefetch, Request, Session, Watched};
use kvorum_model::{Args, Reply, resolve};
use serde_json::{Map, Value, json};

/// `GET /get?key=K`.
pub(super) async fn get(shared: &Shared, query: &Query) -> Result<Response<Body>, Answer> {
    let key = parameter(query, "key")?;
    let reply = run_one(shared, &[b"GETV", key]).await?;
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

/// `POST /set` with `{"key": "value", …}`: all or nothing.
pub(super) async fn set(
    shared: &Shared,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let text = "the content type must be application/json";
        return Err(Answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
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
    let replies = run_all(shared, &commands.iter().map(<[_; 3]>::as_slice).collect::<Vec<_>>()).await?;
    let mut versions = Map::new();
    for ((key, _), reply) in entries.iter().zip(&replies) {
        let Reply::Bulk(version) = reply else { return Err(unexpected(reply)) };
        versions.insert(key.clone(), text(version).into());
    }
    Ok(Answer::json(StatusCode::OK, &json!({ "versions": versions })).into_response())
}

/// `DELETE /del?key=K`.
pub(super) async fn delete(shared: &Shared, query: &Query) -> Result<Response<Body>, Answer> {
    let key = parameter(query, "key")?;
    match run_one(shared, &[b"DEL", key]).await? {
        Reply::Integer(deleted) => {
            Ok(Answer::json(StatusCode::OK, &json!({ "deleted": deleted })).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Text as it is, other bytes in base64 under another name.
fn put_text(answer: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => answer.insert(name.into(), text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            answer.insert(format!("{name}_base64"), encoded.into())
        }
    };
}

/// A command's error, or a reply that it never gives.
fn unexpected(reply: &Reply) -> Answer {
    match reply {
        Reply::Error(error) => {
            let status = match error.code() {
                "ERR" | "WRONGTYPE" => StatusCode::BAD_REQUEST,
                "CONFLICT" => StatusCode::CONFLICT,
                "BUSY" | "MISCONF" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Answer::text(status, error.text())
        }
        _ => Answer::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the command gave a reply that it should not give",
        ),
    }
}

/// Runs one command and waits until its reply may be told.
async fn run_one(shared: &Shared, words: &[&[u8]]) -> Result<Reply, Answer> {
    let replies = run_all(shared, &[words]).await?;
    replies.into_iter().next().ok_or_else(|| unexpected(&Reply::Nil))
}

/// Runs commands as one and waits until their replies may be told.
async fn run_all(shared: &Shared, commands: &[&[&[u8]]]) -> Result<Vec<Reply>, Answer> {
    let mut requests = Vec::with_capacity(commands.len());
    for words in commands {
        let args = Args::new(words);
        let spec = resolve(args).map_err(|error| unexpected(&Reply::Error(error)))?;
        requests.push(Request { namespace: NamespaceId::ZERO, spec, args });
    }
    let (mut session, watched) = (Session::new(), Watched::new());
    loop {
        let done = shared.node.transaction(&mut session, &requests, &watched);
        let refused = match done.outcome {
            Outcome::Done(replies) => {
                if let Some(commit) = done.commit {
                    commit.durable().await.map_err(|error| Answer::of(&error))?;
                }
                return Ok(replies);
            }
            Outcome::Blocked(prefetch) => {
                session.resume(fetch(prefetch).await?);
                continue;
            }
            Outcome::Changed => Error::Invalid("a watched key has changed".into()),
            Outcome::Refused(error) => error,
        };
        return Err(Answer::of(&refused));
    }
}

async fn fetch(prefetch: Prefetch) -> Result<kvorum_cluster::Fetched, Answer> {
    let reading = tokio::task::spawn_blocking(move || prefetch.run());
    reading.await.map_err(|error| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
