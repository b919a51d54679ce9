//! What other nodes ask for their clients.

use super::asks;
use super::bytes::Bad;
use super::codec::{Answer, Ask, Said, Work, decode_ask};
use super::here::Here;
use super::router::{Router, execute};
use super::together::{self, home};
use crate::cursor::CURSOR_BITS;
use crate::node::Node;
use crate::runtime::now;
use bytes::Bytes;
use kvorum_model::{Args, Reply, ScanOptions};

/// Answers a call on the `Forward` channel. An error says that nothing was looked at.
pub(crate) async fn answer(node: &Node, body: Bytes) -> Result<Bytes, String> {
    let lacks = |expected: Bad| format!("forwarded commands lack {}", expected.0);
    if body.first() == Some(&asks::VERSION) {
        let cluster = node.inner.cluster.get().ok_or("the node is starting")?;
        let asked = asks::decode(body).map_err(lacks)?;
        let answers = together::execute(node, cluster, asked).await.ok_or("the node ends")?;
        return Ok(asks::encode_answers(&answers));
    }
    let ask = decode_ask(body).map_err(lacks)?;
    Ok(answered(node, &ask).await.encode())
}

async fn answered(node: &Node, ask: &Ask) -> Answer {
    let Some(cluster) = node.inner.cluster.get() else { return Answer::NotHere(None) };
    let namespace = match home(node, ask.shard) {
        Ok(namespace) => namespace,
        Err(answer) => return answer,
    };
    let router = Router { node, cluster, own_shards: false };
    if let Work::Scan(words) = &ask.work {
        let words: Vec<&[u8]> = words.iter().map(Bytes::as_ref).collect();
        let reply = match ScanOptions::parse(Args::new(&words)) {
            Ok(options) => router.scan_here(namespace, &options, options.cursor >> CURSOR_BITS).await,
            Err(error) => Err(error),
        };
        return Answer::Said { last: 0, all: vec![Said::Reply(reply.unwrap_or_else(Reply::Error))] };
    }
    let until = now().after_micros(u64::from(ask.patience_ms).saturating_mul(1000));
    let here = Here { node, cluster, shard: ask.shard, namespace, until };
    execute(&here, &ask.work, ask.request_id.as_deref()).await
}
