//! `POST /v1/backup`: a backup as a stream; `kvorum_cluster::backup` draws it.
//!
//! `POST`, because it makes the node work: a browser says with it which page it comes from, so that the guard can refuse foreign ones.

use super::Answer;
use super::body::Body;
use crate::shared::Shared;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// Takes a backup and sends it.
pub(super) async fn take(shared: &Shared) -> Result<Response<Body>, Answer> {
    let node = shared.node.clone();
    let taken = tokio::task::spawn_blocking(move || node.backup()).await.map_err(|error| {
        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("the backup was not taken: {error}"))
    })?;
    let Some(backup) = taken.map_err(|error| Answer::of(&error))? else {
        let text = "another backup of this node is under way; wait for its end";
        return Err(Answer::text(StatusCode::CONFLICT, text));
    };
    let mut response = Response::new(Body::backup(backup));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
