//! Answers.

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{Either, Full};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use kvorum_cluster::Error;

/// A body: whole, or streamed.
pub(super) type Body = Either<Full<Bytes>, Channel<Bytes, Error>>;

/// An answer.
pub(super) type Response = hyper::Response<Body>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

fn whole(status: StatusCode, kind: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer for people.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    whole(status, TEXT, Bytes::from(text.into()))
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    whole(status, JSON, Bytes::from(value.to_string()))
}

/// A value, as it is.
pub(super) fn octets(value: Bytes) -> Response {
    whole(StatusCode::OK, OCTETS, value)
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Either::Left(Full::new(Bytes::new())));
    *response.status_mut() = status;
    response
}

/// A body that is sent while it is made: each piece becomes one chunk; at most `pieces_max` wait to be sent.
pub(super) fn stream(pieces_max: usize) -> (Sender<Bytes, Error>, Response) {
    let (sender, body) = Channel::new(pieces_max);
    let mut response = Response::new(Either::Right(body));
    response.headers_mut().insert(CONTENT_TYPE, OCTETS);
    (sender, response)
}

/// The metrics' text.
pub(super) fn open_metrics(text: String) -> Response {
    whole(StatusCode::OK, OPEN_METRICS, Bytes::from(text))
}

/// Refuses the request's method.
pub(super) fn refusal(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("Allowed here: {allowed}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Asks for the password.
pub(super) fn unauthorized() -> Response {
    let mut response = text(StatusCode::UNAUTHORIZED, "The password is needed: Authorization: Bearer PASSWORD, or Basic\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"kvorum\""));
    response
}

/// The status that an error of the node has.
pub(super) fn status(error: &Error) -> StatusCode {
    match error {
        Error::Busy { .. } | Error::ReadOnly(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::DiskFull(_) => StatusCode::INSUFFICIENT_STORAGE,
        Error::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
        Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Invalid(_) | Error::NeedsStrong => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error of the node as text.
pub(super) fn failure(error: &Error) -> Response {
    let mut response = text(status(error), format!("{error}\n"));
    if let Error::Busy { retry_after } = error {
        let seconds = retry_after.as_secs().saturating_add(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
