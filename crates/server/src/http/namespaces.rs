//! `/v1/ns`: the namespaces, and the way to what is in them.

use super::body::Body;
use super::query::{self, Query};
use super::{Answer, batch, collect_json, keys, only};
use crate::shared::Shared;
use hyper::body::Incoming;
use hyper::header::{IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, Response, StatusCode};
use kvorum_cluster::{Error, NamespaceChange, NamespaceInfo, NamespaceSettings};
use serde_json::{Map, Value, json};

/// Answers a path below `/v1/ns`; `rest` is what follows. Refusals are JSON.
pub(super) async fn answer(
    shared: &Shared,
    rest: &str,
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    route(shared, rest, head, body).await.map_err(Answer::into_json)
}

async fn route(
    shared: &Shared,
    rest: &str,
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    if rest.is_empty() {
        only(&head.method, &[Method::GET])?;
        let all: Vec<_> = shared.node.namespaces().list().iter().map(object).collect();
        return Ok(Answer::json(StatusCode::OK, &json!({ "namespaces": all })).into_response());
    }
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let (name, below) = rest.split_once('/').map_or((rest, None), |(name, below)| (name, Some(below)));
    let name = query::part(name);
    let Some(below) = below else { return about(shared, &text(&name), head, body).await };
    let namespace = shared.node.namespace(&name).ok_or_else(|| of(&Error::NoNamespace(text(&name))))?;
    let asked = Query::parse(head.uri.query().unwrap_or_default());
    match below.split_once('/') {
        Some(("keys", key)) if !key.is_empty() => {
            keys::one(shared, namespace, &query::part(key), head, body).await
        }
        None if below == "keys" => {
            only(&head.method, &[Method::GET])?;
            keys::list(shared, namespace, &asked).await
        }
        None if below == "batch" => {
            only(&head.method, &[Method::POST])?;
            batch::batch(shared, namespace, keys::consistency(&asked)?, &head.headers, body).await
        }
        _ => {
            let text =
                "there is no such path; there are /v1/ns/{namespace}, /keys, /keys/{key} and /batch below it";
            Err(Answer::text(StatusCode::NOT_FOUND, text))
        }
    }
}

/// `GET`, `PUT`, `DELETE /v1/ns/{namespace}`.
async fn about(
    shared: &Shared,
    name: &str,
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    only(&head.method, &[Method::GET, Method::PUT, Method::DELETE])?;
    let namespaces = shared.node.namespaces();
    let known = namespaces.get(name.as_bytes());
    if head.method == Method::DELETE {
        namespaces.drop(name).await.map_err(|error| of(&error))?;
        return Ok(Answer::json(StatusCode::OK, &json!({ "dropped": name })).into_response());
    }
    if head.method == Method::GET {
        let known = known.ok_or_else(|| of(&Error::NoNamespace(name.to_owned())))?;
        return Ok(Answer::json(StatusCode::OK, &object(&known)).into_response());
    }
    let changes = changes(&collect_json(shared, &head.headers, body).await?)?;
    let asks = |header| head.headers.get(header).is_some_and(|tag| tag == "*");
    if asks(IF_NONE_MATCH) && known.is_some() {
        return Err(Answer::text(
            StatusCode::PRECONDITION_FAILED,
            Error::Exists(name.to_owned()).to_string(),
        ));
    }
    if asks(IF_MATCH) && known.is_none() {
        return Err(Answer::text(
            StatusCode::PRECONDITION_FAILED,
            Error::NoNamespace(name.to_owned()).to_string(),
        ));
    }
    let (status, made) = match known {
        Some(known) => {
            let fixed = |change: &NamespaceChange| match change {
                NamespaceChange::Mode(mode) => *mode != known.settings.mode,
                NamespaceChange::Shards(shards) => *shards != known.settings.shards,
                _ => false,
            };
            if changes.iter().any(fixed) {
                let text = format!(
                    "{name} is there with another mode or number of shards, which stay as they were made"
                );
                return Err(Answer::text(StatusCode::CONFLICT, text));
            }
            (StatusCode::OK, namespaces.set(name, changes).await)
        }
        None => {
            let settings = NamespaceSettings::made_of(&changes).map_err(|error| of(&error))?;
            (StatusCode::CREATED, namespaces.create(name, settings).await)
        }
    };
    let made = made.map_err(|error| of(&error))?;
    Ok(Answer::json(status, &object(&made)).into_response())
}

/// A namespace with its settings.
fn object(info: &NamespaceInfo) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), info.name.clone().into());
    for (word, value) in info.settings.pairs() {
        let number = matches!(word, "shards" | "replication").then(|| value.parse::<u64>().ok()).flatten();
        object.insert(word.into(), number.map_or_else(|| value.into(), Value::from));
    }
    Value::Object(object)
}

/// The settings of an object; an empty one asks for nothing.
fn changes(body: &Value) -> Result<Vec<NamespaceChange>, Answer> {
    let bad = |text: String| Answer::text(StatusCode::BAD_REQUEST, text);
    let object = body.as_object().ok_or_else(|| bad("the body must be an object of settings".into()))?;
    let change = |(word, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(bad(format!("{word} must be a string or a number"))),
        };
        NamespaceChange::parse(word, &text).map_err(|error| of(&error))
    };
    object.iter().filter(|(word, _)| *word != "name").map(change).collect()
}

fn of(error: &Error) -> Answer {
    Answer::of(error)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
