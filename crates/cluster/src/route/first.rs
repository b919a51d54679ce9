//! The first try of a buffer's parts: all that one node leads is asked of it at once.

use super::asks;
use super::attempt::{PATIENCE_MS, Setback};
use super::codec::{Answer, COMMANDS_MAX, Said};
use super::join::{Boxed, join};
use super::plan::Part;
use super::router::{ANSWER_WITHIN, Router, Wish};
use super::together;
use crate::consistency::ReadMode;
use crate::transport::{CallError, Channel};
use bytes::Bytes;
use kvorum_sync::{Lane, StoreId};
use smallvec::SmallVec;
use std::time::Duration;

/// A node, and which parts are for it.
type Asked = (StoreId, SmallVec<[usize; 8]>);

impl Router<'_> {
    /// Asks those who lead the shards, each once. For each part what came of it; nothing at all where parts are to be tried one by one, because
    /// it is not known who leads, a request has an id, or others than leaders may answer.
    pub(super) async fn first_answers(
        &self,
        parts: &[Part<'_>],
        wish: Wish<'_>,
    ) -> Vec<Option<Result<Answer, Setback>>> {
        let Some(nodes) = self.by_leader(parts, wish) else { return Vec::new() };
        let asking = nodes.iter().map(|(to, places)| {
            let of_node = places.iter().filter_map(|place| parts.get(*place));
            let body = asks::encode(PATIENCE_MS as u32, of_node);
            let asking: Boxed<'_, Result<Vec<Answer>, Setback>> =
                Box::pin(self.ask_node(*to, parts, places, body));
            asking
        });
        let answered = join(asking.collect()).await;
        let mut all: Vec<Option<Result<Answer, Setback>>> = parts.iter().map(|_| None).collect();
        for ((_, places), answers) in nodes.iter().zip(answered) {
            let mut answers = answers.map(Vec::into_iter);
            for place in places {
                let answer = match &mut answers {
                    Ok(answers) => answers.next().ok_or(Setback::Lost),
                    Err(setback) => Err(*setback),
                };
                all.get_mut(*place).into_iter().for_each(|slot| *slot = Some(answer.clone()));
            }
        }
        all
    }

    fn by_leader(&self, parts: &[Part<'_>], wish: Wish<'_>) -> Option<SmallVec<[Asked; 4]>> {
        if wish.id.is_some() {
            return None;
        }
        let map = self.cluster.control.map();
        let mut nodes: SmallVec<[Asked; 4]> = SmallVec::new();
        for (place, part) in parts.iter().enumerate() {
            let at_leader =
                wish.read == ReadMode::Leader || part.pieces.iter().any(|piece| piece.spec.is_write());
            if !at_leader || part.pieces.len() > COMMANDS_MAX {
                return None;
            }
            let (_, leader) = map.shards.get(&part.shard)?.manager()?;
            match nodes.iter_mut().find(|(node, _)| *node == leader) {
                Some((_, places)) => places.push(place),
                None => nodes.push((leader, SmallVec::from_slice(&[place]))),
            }
        }
        Some(nodes)
    }

    async fn ask_node(
        &self,
        to: StoreId,
        parts: &[Part<'_>],
        places: &[usize],
        body: Bytes,
    ) -> Result<Vec<Answer>, Setback> {
        if to == self.cluster.me {
            // This node wrote the body itself.
            let asked = asks::decode(body).map_err(|_| Setback::NotHere(None))?;
            // A node that ends does not know what became of it.
            return together::execute(self.node, self.cluster, asked).await.ok_or(Setback::Lost);
        }
        let first = places.first().and_then(|place| parts.get(*place));
        let lane = Lane::Data(first.map_or(0, |part| (part.shard.place % 64) as u8));
        // The answer to what is given up there has to come back, too.
        let within = ANSWER_WITHIN + Duration::from_millis(250);
        match self.cluster.transport.call(to, lane, Channel::Forward, body, within).await {
            Ok(body) => asks::decode_answers(body, places.len()).map_err(|expected| {
                tracing::warn!(%to, ?expected, "an answer for forwarded commands makes no sense");
                Setback::Lost
            }),
            Err(CallError::NotSent(_)) => Err(Setback::NotSent),
            Err(CallError::Lost(_)) => Err(Setback::Lost),
            // Whoever refuses has not looked at it.
            Err(CallError::Refused(_)) => Err(Setback::NotHere(None)),
        }
    }
}

/// Whether a part is answered, all of it.
pub(super) fn is_whole(part: &Part<'_>, all: &[Said]) -> bool {
    all.len() == part.pieces.len() && !all.contains(&Said::Again)
}
