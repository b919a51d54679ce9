//! `/v1/ns/{namespace}/keys`: values with versions as entity tags, conditions, listings.

use super::body::Body;
use super::json::{put_text, text};
use super::query::Query;
use super::run::{Job, request_id, run, run_one, unexpected};
use super::{Answer, collect, only};
use crate::shared::Shared;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, Response, StatusCode};
use kvorum_cluster::{Consistency, Mode, NamespaceId, ReadMode, durability_of_word};
use kvorum_model::{Reply, parse_u64};
use serde_json::{Map, Value, json};

/// Milliseconds that a value has left, in requests and answers.
const TTL: HeaderName = HeaderName::from_static("kvorum-ttl-ms");

/// By how many milliseconds a stale read may be behind, at most.
const AGE: HeaderName = HeaderName::from_static("kvorum-age-ms");

/// Whether a write of the key is under way: `stable`, `old`, `new`; `stale` if nobody was asked.
const LABEL: HeaderName = HeaderName::from_static("kvorum-label");

/// Keys of one listing, if the request does not say, and at most.
const LISTED_KEYS: u64 = 1000;
const LISTED_KEYS_MAX: u64 = 10_000;

/// What a request says of the version that the key must have.
enum Condition {
    None,
    Version(u64),
    Exists,
    Absent,
}

/// `GET`, `PUT`, `DELETE /v1/ns/{namespace}/keys/{key}`.
pub(super) async fn one(
    shared: &Shared,
    namespace: NamespaceId,
    key: &[u8],
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    only(&head.method, &[Method::GET, Method::PUT, Method::DELETE])?;
    let consistency = consistency(&Query::parse(head.uri.query().unwrap_or_default()))?;
    let job = Job { request_id: request_id(&head.headers)?, ..Job::in_order(namespace, consistency) };
    if head.method == Method::GET {
        return get(shared, job, key, &head.headers).await;
    }
    let condition = condition(&head.headers)?;
    if head.method == Method::DELETE {
        return delete(shared, job, key, condition).await;
    }
    let expiry = ttl(&head.headers)?;
    let value = collect(shared, body).await?;
    let version = match condition {
        Condition::Version(version) => Some(version.to_string()),
        Condition::Absent => Some("0".to_owned()),
        _ => None,
    };
    let mut words = vec![&b"SETV"[..], key, &value];
    if let Some(version) = &version {
        words.extend([&b"IFVERSION"[..], version.as_bytes()]);
    }
    if let Some(expiry) = &expiry {
        words.extend([&b"PX"[..], expiry.as_bytes()]);
    }
    if matches!(condition, Condition::Exists) {
        words.push(b"XX");
    }
    match run_one(shared, job, &words).await? {
        Reply::Bulk(version) => {
            let answer = Answer::json(StatusCode::OK, &json!({ "version": text(&version) }));
            Ok(tagged(answer.into_response(), &text(&version)))
        }
        Reply::Nil => Err(conflict("0")),
        other => Err(refused(&other)),
    }
}

async fn get(
    shared: &Shared,
    job: Job<'_>,
    key: &[u8],
    headers: &HeaderMap,
) -> Result<Response<Body>, Answer> {
    // Value and time left are of the same moment, where there is one order of moments.
    let leader = job.consistency.read.is_none_or(|read| read == ReadMode::Leader);
    let atomic = job.namespace.mode() == Mode::Strong && leader;
    let commands: [&[&[u8]]; 2] = [&[b"GETV", key], &[b"PTTL", key]];
    let replies = run(shared, Job { atomic, ..job }, &commands).await?.unwrap_or_default();
    let [Reply::Array(parts), time_left] = replies.as_slice() else {
        return Err(replies
            .iter()
            .find(|reply| reply.is_error())
            .map_or_else(|| unexpected(&Reply::Nil), unexpected));
    };
    let [value, Reply::Bulk(version), Reply::Bulk(label)] = parts.as_slice() else {
        return Err(unexpected(&Reply::Nil));
    };
    let version = text(version);
    let is_there = matches!(value, Reply::Bulk(_));
    let named = |header| headers.get(header).map(|tags| tag_fits(tags, is_there, &version)).transpose();
    if named(IF_MATCH)? == Some(false) {
        return Err(conflict(&version));
    }
    let unchanged = named(IF_NONE_MATCH)? == Some(true);
    let Reply::Bulk(value) = value else {
        return Err(Answer::json(StatusCode::NOT_FOUND, &json!({ "error": "not found" })));
    };
    let mut response = Response::new(if unchanged { Body::full("") } else { Body::full(value.clone()) });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    if let Reply::Integer(ms) = time_left
        && *ms > 0
    {
        response.headers_mut().insert(TTL, HeaderValue::from(*ms));
    }
    let (word, age) = match label.strip_prefix(b"stale:") {
        Some(age) => (&b"stale"[..], Some(age)),
        None => (&label[..], None),
    };
    for (name, value) in [(LABEL, Some(word)), (AGE, age)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(tagged(response, &version))
}

async fn delete(
    shared: &Shared,
    job: Job<'_>,
    key: &[u8],
    condition: Condition,
) -> Result<Response<Body>, Answer> {
    let reply = match &condition {
        Condition::Version(version) => {
            let version = version.to_string();
            run_one(shared, job, &[b"DELEX", key, b"IFVERSION", version.as_bytes()]).await?
        }
        Condition::Absent => {
            let text = "If-None-Match makes no sense for DELETE";
            return Err(Answer::text(StatusCode::BAD_REQUEST, text));
        }
        _ => run_one(shared, job, &[b"DEL", key]).await?,
    };
    match reply {
        Reply::Integer(0) if matches!(condition, Condition::Exists) => Err(conflict("0")),
        Reply::Integer(deleted) => {
            Ok(Answer::json(StatusCode::OK, &json!({ "deleted": deleted })).into_response())
        }
        other => Err(refused(&other)),
    }
}

/// `GET /v1/ns/{namespace}/keys?prefix=P&cursor=C&limit=N`: shard by shard, within a shard in order.
pub(super) async fn list(
    shared: &Shared,
    namespace: NamespaceId,
    query: &Query,
) -> Result<Response<Body>, Answer> {
    let bad = |text: String| Answer::text(StatusCode::BAD_REQUEST, text);
    let limit = match query.get("limit") {
        None => LISTED_KEYS,
        Some(text) => parse_u64(text)
            .filter(|limit| (1..=LISTED_KEYS_MAX).contains(limit))
            .ok_or_else(|| bad(format!("limit is a number from 1 to {LISTED_KEYS_MAX}")))?,
    };
    let cursor = query.get("cursor").unwrap_or(b"0");
    let mut pattern: Vec<u8> = Vec::new();
    for byte in query.get("prefix").unwrap_or_default() {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'^' | b'-' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    let limit = limit.to_string();
    let words = [&b"SCAN"[..], cursor, b"MATCH", &pattern, b"COUNT", limit.as_bytes()];
    let job = Job::in_order(namespace, consistency(query)?);
    let reply = run_one(shared, job, &words).await?;
    let Reply::Array(parts) = &reply else { return Err(unexpected(&reply)) };
    let [Reply::Bulk(next), Reply::Array(keys)] = parts.as_slice() else { return Err(unexpected(&reply)) };
    let keys = keys.iter().filter_map(|key| match key {
        Reply::Bulk(key) => Some(named(key)),
        _ => None,
    });
    let next = if next == "0" { Value::Null } else { text(next).into() };
    let answer = json!({ "keys": keys.collect::<Vec<_>>(), "cursor": next });
    Ok(Answer::json(StatusCode::OK, &answer).into_response())
}

/// A key as JSON: `{"key": …}`, or `{"key_base64": …}` if it is not UTF-8.
pub(super) fn named(key: &[u8]) -> Value {
    let mut object = Map::new();
    put_text(&mut object, "key", key);
    Value::Object(object)
}

/// What the request asks of its reads and writes.
pub(super) fn consistency(query: &Query) -> Result<Consistency, Answer> {
    let bad = |text: &str| Answer::text(StatusCode::BAD_REQUEST, text);
    let word = |name| query.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let mut asked = Consistency::default();
    if let Some(read) = word("read") {
        let read = ReadMode::of_word(&read).ok_or_else(|| bad("read is leader, follower or stale"))?;
        asked.read = Some(read);
    }
    if let Some(durability) = word("durability") {
        let class = durability_of_word(&durability);
        asked.durability = Some(class.ok_or_else(|| bad("durability is synced, written or buffered"))?);
    }
    (asked.ack, asked.from) = (super::entity::number(query, "ack")?, super::entity::number(query, "from")?);
    Ok(asked)
}

fn condition(headers: &HeaderMap) -> Result<Condition, Answer> {
    let bad = |text: &str| Err(Answer::text(StatusCode::BAD_REQUEST, text));
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::None),
        (None, Some(tag)) if tag == "*" => Ok(Condition::Absent),
        (Some(tag), None) if tag == "*" => Ok(Condition::Exists),
        (Some(tag), None) => match version_of(tag.as_bytes()) {
            Some(version) => Ok(Condition::Version(version)),
            None => bad("If-Match is one version in quotes, as ETag gives it, or *"),
        },
        (None, Some(_)) => bad("If-None-Match is * for a write"),
        (Some(_), Some(_)) => bad("If-Match and If-None-Match exclude each other"),
    }
}

/// Whether a list of tags names what is there.
fn tag_fits(tags: &HeaderValue, is_there: bool, version: &str) -> Result<bool, Answer> {
    if tags == "*" {
        return Ok(is_there);
    }
    let mut fits = false;
    for tag in tags.as_bytes().split(|byte| *byte == b',') {
        let tag = tag.trim_ascii();
        let named = version_of(tag.strip_prefix(b"W/").unwrap_or(tag)).ok_or_else(|| {
            Answer::text(StatusCode::BAD_REQUEST, "a tag is a version in quotes, as ETag gives it")
        })?;
        fits |= is_there && named.to_string() == version;
    }
    Ok(fits)
}

fn version_of(tag: &[u8]) -> Option<u64> {
    parse_u64(tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?)
}

/// The expiry that a write asks for, as the option `PX` takes it.
fn ttl(headers: &HeaderMap) -> Result<Option<String>, Answer> {
    let Some(value) = headers.get(TTL) else { return Ok(None) };
    let ms = parse_u64(value.as_bytes()).filter(|ms| *ms > 0);
    let ms =
        ms.ok_or_else(|| Answer::text(StatusCode::BAD_REQUEST, format!("{TTL} is a number from 1 on")))?;
    Ok(Some(ms.to_string()))
}

/// An error reply: 412 for a conflict.
fn refused(reply: &Reply) -> Answer {
    match reply {
        Reply::Error(error) if error.code() == "CONFLICT" => {
            conflict(error.text().strip_prefix("CONFLICT ").unwrap_or("0"))
        }
        _ => unexpected(reply),
    }
}

/// 412 with the version that the key has.
fn conflict(version: &str) -> Answer {
    let body = json!({ "error": "the key has another version", "version": version });
    let mut answer = Answer::json(StatusCode::PRECONDITION_FAILED, &body);
    if version != "0" {
        answer.header = HeaderValue::from_str(&format!("\"{version}\"")).ok().map(|tag| (ETAG, tag));
    }
    answer
}

fn tagged(mut response: Response<Body>, version: &str) -> Response<Body> {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
