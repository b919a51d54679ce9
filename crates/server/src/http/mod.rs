//! HTTP: entities, the small JSON API, backups, health, metrics.

mod backup;
mod batch;
mod body;
mod cluster;
mod entity;
mod guard;
mod json;
mod keys;
mod namespaces;
mod patience;
mod query;
mod run;

use crate::counters;
use crate::network::Local;
use crate::shared::Shared;
use body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kvorum_cluster::Error;
use patience::Patient;
use query::Query;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Time for a client to send its headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);

/// A client that takes nothing of an answer for so long is given up: a backup has one slot.
const WRITES_WITHIN: Duration = Duration::from_secs(60);

/// Bytes of headers that a connection holds at most.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The paths that exist, as a 400 names them.
const PATHS: &str = "/v0/entity, /v0/entities, /v1/ns, /v1/cluster, /v1/cluster/verify, /v1/cluster/nodes, /v1/openapi.json, /v1/backup, /get, /set, /del, /healthz, /readyz, /metrics";

/// Serves a connection until either side ends it.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>, local: Arc<Local>) {
    let stopping = shared.shutdown.clone();
    let service = hyper::service::service_fn(|request| {
        let (shared, local) = (Arc::clone(&shared), Arc::clone(&local));
        async move {
            let _busy = local.begin();
            counters::add(&shared.counters.requests, 1);
            Ok::<_, Infallible>(answer(&shared, request).await)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITES_WITHIN)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("an HTTP connection ended early: {error}");
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let refused = |answer: Answer| answer.into_response();
    if let Err(answer) = guard::check(&shared.settings(), &request) {
        return refused(answer);
    }
    match route(shared, request).await {
        Ok(response) => response,
        Err(answer) => refused(answer),
    }
}

async fn route(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Answer> {
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let path = head.uri.path();
    match path {
        "/v0/entity" => entity::one(shared, &head.method, &query, body).await,
        "/v0/entities" => {
            only(&head.method, &[Method::GET])?;
            entity::range(shared, &query).await
        }
        "/get" => {
            only(&head.method, &[Method::GET])?;
            json::get(shared, &query).await
        }
        "/set" => {
            only(&head.method, &[Method::POST])?;
            json::set(shared, &head.headers, body).await
        }
        "/del" => {
            only(&head.method, &[Method::DELETE])?;
            json::delete(shared, &query).await
        }
        "/v1/backup" => {
            only(&head.method, &[Method::POST])?;
            backup::take(shared).await
        }
        "/v1/openapi.json" => {
            only(&head.method, &[Method::GET])?;
            let mut response = Response::new(Body::full(OPENAPI));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
        "/healthz" | "/readyz" | "/metrics" => {
            only(&head.method, &[Method::GET, Method::HEAD])?;
            Ok(about(shared, path))
        }
        _ if below("/v1/cluster", path).is_some() => {
            cluster::answer(shared, below("/v1/cluster", path).unwrap_or_default(), &head.method).await
        }
        _ if below("/v1/ns", path).is_some() => {
            namespaces::answer(shared, below("/v1/ns", path).unwrap_or_default(), &head, body).await
        }
        _ => Err(Answer::text(StatusCode::BAD_REQUEST, format!("there is no such path; there are {PATHS}"))),
    }
}

/// The description of the API below `/v1`.
const OPENAPI: &str = include_str!("openapi.json");

/// What follows a part of the API, if the path belongs to it.
fn below<'p>(part: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(part).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How the server is.
fn about(shared: &Shared, path: &str) -> Response<Body> {
    if path == "/metrics" {
        let mut response = Response::new(Body::full(crate::metrics::text(shared)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(crate::metrics::CONTENT_TYPE));
        return response;
    }
    let trouble = if path != "/readyz" {
        None
    } else if shared.shutdown.is_stopping() {
        Some(String::from("stopping"))
    } else {
        shared
            .node
            .stats()
            .poisoned
            .map(|reason| format!("takes no writes until it is started again: {reason}"))
    };
    match trouble {
        Some(trouble) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, trouble),
        None => Answer::text(StatusCode::OK, "ok"),
    }
    .into_response()
}

/// 405 for other methods.
fn only(method: &Method, allowed: &[Method]) -> Result<(), Answer> {
    if allowed.contains(method) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
    let names = names.join(", ");
    let mut answer = Answer::text(StatusCode::METHOD_NOT_ALLOWED, format!("this path takes {names}"));
    answer.header = HeaderValue::from_str(&names).ok().map(|names| (hyper::header::ALLOW, names));
    Err(answer)
}

/// The whole body, up to the limit.
async fn collect(shared: &Shared, body: Incoming) -> Result<Bytes, Answer> {
    let limit = shared.settings().http_body_bytes_max;
    let limited = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Answer::text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes")))
        }
        Err(error) => Err(Answer::text(StatusCode::BAD_REQUEST, format!("the body did not arrive: {error}"))),
    }
}

/// The body as JSON, which its content type must say; an empty body is an empty object.
async fn collect_json(
    shared: &Shared,
    headers: &hyper::HeaderMap,
    body: Incoming,
) -> Result<serde_json::Value, Answer> {
    let body = collect(shared, body).await?;
    if body.is_empty() {
        return Ok(serde_json::Value::Object(serde_json::Map::new()));
    }
    must_be_json(headers)?;
    serde_json::from_slice(&body)
        .map_err(|error| Answer::text(StatusCode::BAD_REQUEST, format!("no JSON: {error}")))
}

/// 415 unless the headers say that the body is JSON.
fn must_be_json(headers: &hyper::HeaderMap) -> Result<(), Answer> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(Answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"))
}

/// The media type of JSON.
const JSON: &str = "application/json";

/// A short answer: a status with a line of text or JSON.
pub(crate) struct Answer {
    status: StatusCode,
    text: String,
    content_type: &'static str,
    header: Option<(hyper::header::HeaderName, HeaderValue)>,
}

impl Answer {
    fn text(status: StatusCode, text: impl Into<String>) -> Answer {
        Answer { status, text: text.into() + "\n", content_type: "text/plain; charset=utf-8", header: None }
    }

    fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
        Answer { status, text: format!("{value}\n"), content_type: JSON, header: None }
    }

    /// The same as JSON, `{"error": text}`, unless it is JSON already.
    fn into_json(self) -> Answer {
        if self.content_type == JSON {
            return self;
        }
        let body = serde_json::json!({ "error": self.text.trim_end() });
        Answer { text: format!("{body}\n"), content_type: JSON, ..self }
    }

    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.text));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// What an error of the node means over HTTP: 4xx and 507 mean that nothing was done, 500 with `UNKNOWN` and 504 that it may have been.
    fn of(error: &Error) -> Answer {
        let status = match error {
            Error::Busy { .. } | Error::ReadOnly(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::TooFew { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::DiskFull(_) => StatusCode::INSUFFICIENT_STORAGE,
            Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Invalid(_) | Error::NeedsStrong => StatusCode::BAD_REQUEST,
            Error::NoNamespace(_) | Error::NoNode(_) => StatusCode::NOT_FOUND,
            Error::Exists(_) | Error::NotNow(_) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = if matches!(error, Error::TooFew { .. }) { error.to_string() } else { error.resp() };
        let mut answer = Answer::text(status, text);
        if let Error::Busy { retry_after } = error {
            let seconds = HeaderValue::from(retry_after.as_secs().max(1));
            answer.header = Some((hyper::header::RETRY_AFTER, seconds));
        }
        answer
    }
}
