//! `/v0/entity` and `/v0/entities`: the available namespace, `ack` of `from`.

use super::body::Body;
use super::query::Query;
use super::{Answer, collect, only};
use crate::shared::Shared;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use kvorum_cluster::Quorum;

/// `GET`, `PUT`, `DELETE /v0/entity?id=K[&ack=A&from=F]`.
pub(crate) async fn one(
    shared: &Shared,
    method: &Method,
    query: &Query,
    body: Incoming,
) -> Result<Response<Body>, Answer> {
    only(method, &[Method::GET, Method::PUT, Method::DELETE])?;
    let id = parameter(query, "id")?;
    let quorum = Quorum { ack: number(query, "ack")?, from: number(query, "from")? };
    let entity = shared.node.entity();
    if *method == Method::GET {
        let found = entity.get(id, quorum).await.map_err(|error| Answer::of(&error))?;
        let Some(entry) = found else {
            return Err(Answer::text(StatusCode::NOT_FOUND, "there is no such entity"));
        };
        return Ok(bytes(Body::full(entry.value)));
    }
    let status = if *method == Method::PUT {
        let value = collect(shared, body).await?;
        entity.put(id, &value, quorum).await.map_err(|error| Answer::of(&error))?;
        StatusCode::CREATED
    } else {
        entity.delete(id, quorum).await.map_err(|error| Answer::of(&error))?;
        StatusCode::ACCEPTED
    };
    let mut response = Response::new(Body::full(""));
    *response.status_mut() = status;
    Ok(response)
}

/// `GET /v0/entities?start=A[&end=B]`: from `start`, inclusive, to `end`, exclusive, one chunk an entry: of this node, or with
/// `&scope=cluster[&ack=A&from=F]` of all.
pub(crate) async fn range(shared: &Shared, query: &Query) -> Result<Response<Body>, Answer> {
    let start = parameter(query, "start")?;
    let end = query.get("end");
    if end.is_some_and(<[u8]>::is_empty) {
        return Err(Answer::text(StatusCode::BAD_REQUEST, "end is empty: leave it out for all that follow"));
    }
    let entity = shared.node.entity();
    let range = match query.get("scope") {
        None | Some(b"node") => entity.range(start, end).await,
        Some(b"cluster") => {
            let quorum = Quorum { ack: number(query, "ack")?, from: number(query, "from")? };
            entity.range_of_cluster(start, end, quorum).await
        }
        Some(_) => return Err(Answer::text(StatusCode::BAD_REQUEST, "scope is node or cluster")),
    };
    let range = range.map_err(|error| Answer::of(&error))?;
    Ok(bytes(Body::entries(range)))
}

fn bytes(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// A parameter that must be there and not be empty.
pub(super) fn parameter<'q>(query: &'q Query, name: &str) -> Result<&'q [u8], Answer> {
    query
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Answer::text(StatusCode::BAD_REQUEST, format!("{name} is missing or empty")))
}

/// A parameter that must be a plain number from 1 on, if it is there.
pub(super) fn number(query: &Query, name: &str) -> Result<Option<u32>, Answer> {
    let Some(value) = query.get(name) else { return Ok(None) };
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    match number {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(Answer::text(StatusCode::BAD_REQUEST, format!("{name} must be a number from 1 on"))),
    }
}
