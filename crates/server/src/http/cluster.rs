//! `/v1/cluster`: how it stands, and what operators do with its nodes.

use super::body::Body;
use super::{Answer, only, query};
use crate::shared::Shared;
use hyper::{Method, Response, StatusCode};
use kvorum_cluster::{Error, NodeStatus};
use serde_json::Value;

/// Answers a path below `/v1/cluster`; `rest` is what follows.
pub(super) async fn answer(shared: &Shared, rest: &str, method: &Method) -> Result<Response<Body>, Answer> {
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    match parts.as_slice() {
        [] => {
            only(method, &[Method::GET])?;
            json(serde_json::to_value(shared.node.cluster_status().ok_or_else(alone)?))
        }
        ["verify"] => {
            only(method, &[Method::GET])?;
            verify(shared).await
        }
        ["nodes", name] => {
            only(method, &[Method::DELETE])?;
            let removal = shared.node.nodes().remove(&name_of(shared, name)?).await;
            let removal = removal.map_err(|error| Answer::of(&error).into_json())?;
            let status = if removal.node.state == "left" { StatusCode::OK } else { StatusCode::ACCEPTED };
            let mut answer = json(serde_json::to_value(&removal))?;
            *answer.status_mut() = status;
            Ok(answer)
        }
        ["nodes", name, "drain"] => {
            only(method, &[Method::POST, Method::DELETE])?;
            let name = name_of(shared, name)?;
            let nodes = shared.node.nodes();
            node(if method == Method::POST { nodes.drain(&name).await } else { nodes.end_drain(&name).await })
        }
        _ => {
            let text = "there is no such path; there are /v1/cluster, /verify, /nodes/{name} and /nodes/{name}/drain below it";
            Err(Answer::text(StatusCode::NOT_FOUND, text).into_json())
        }
    }
}

/// The name in a path, if there is a cluster.
fn name_of(shared: &Shared, part: &str) -> Result<String, Answer> {
    if !shared.node.is_clustered() {
        return Err(alone());
    }
    Ok(String::from_utf8_lossy(&query::part(part)).into_owned())
}

fn node(done: Result<NodeStatus, Error>) -> Result<Response<Body>, Answer> {
    json(serde_json::to_value(done.map_err(|error| Answer::of(&error).into_json())?))
}

fn json(value: serde_json::Result<Value>) -> Result<Response<Body>, Answer> {
    let value = value.map_err(|error| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Answer::json(StatusCode::OK, &value).into_response())
}

/// Compares the replicas of all shards.
async fn verify(shared: &Shared) -> Result<Response<Body>, Answer> {
    if !shared.node.is_clustered() {
        return Err(alone());
    }
    let verified = shared.node.verify_cluster().await.map_err(|error| Answer::of(&error).into_json())?;
    json(Ok(serde_json::json!({
        "differing": verified.differing(),
        "unknown": verified.unknown(),
        "shards": verified.shards,
    })))
}

fn alone() -> Answer {
    let text = "this node is alone: it was started without --peer, --peers and --join";
    Answer::text(StatusCode::NOT_FOUND, text).into_json()
}
