//! What other nodes ask for their clients.

use super::codec::{Answer, Ask, Said, Work, decode_ask};
use super::here::Here;
use super::router::{Router, execute};
use crate::cursor::CURSOR_BITS;
use crate::namespace::Mode;
use crate::node::Node;
use crate::runtime::now;
use bytes::Bytes;
use kvorum_model::{Args, Reply, ScanOptions};

/// Answers a call on the `Forward` channel. An error says that nothing was looked at.
pub(crate) async fn answer(node: &Node, body: Bytes) -> Result<Bytes, String> {
    let ask = decode_ask(body).map_err(|expected| format!("forwarded commands lack {}", expected.0))?;
    Ok(answered(node, &ask).await.encode())
}

async fn answered(node: &Node, ask: &Ask) -> Answer {
    let inner = &*node.inner;
    let kept = inner.namespaces.get(ask.shard.namespace).filter(|kept| !kept.is_dropped());
    let (Some(cluster), Some(kept)) = (inner.cluster.get(), kept) else { return Answer::NotHere(None) };
    if kept.id.mode() == Mode::Available || ask.shard.place >= kept.id.shards() {
        return Answer::Refused("ERR needs a strong namespace".to_owned());
    }
    let router = Router { node, cluster, own_shards: false };
    if let Work::Scan(words) = &ask.work {
        let words: Vec<&[u8]> = words.iter().map(Bytes::as_ref).collect();
        let reply = match ScanOptions::parse(Args::new(&words)) {
            Ok(options) => router.scan_here(kept.id, &options, options.cursor >> CURSOR_BITS).await,
            Err(error) => Err(error),
        };
        return Answer::Said { last: 0, all: vec![Said::Reply(reply.unwrap_or_else(Reply::Error))] };
    }
    let until = now().after_micros(u64::from(ask.patience_ms).saturating_mul(1000));
    let here = Here { node, cluster, shard: ask.shard, namespace: kept.id, until };
    execute(&here, &ask.work, ask.request_id.as_deref()).await
}
