//! Commands over all keys, within a pipeline and within a transaction.

use super::evaluation::Evaluation;
use super::plan::Isolation;
use crate::keyspace::Reading;
use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use crate::session::Request;
use kvorum_engine::Sequence;
use kvorum_model::{Effect, ErrorReply, Keyspace, Reply, Stop};
use std::collections::BTreeSet;

/// How often a transaction's command over all keys is read again because they have changed meanwhile.
const SCANS_MAX: usize = 8;

impl Evaluation<'_, '_> {
    /// The reply of a command over all keys, or what is to be read for it. `at`: its place among the requests.
    pub(super) fn keyspace(
        &mut self,
        kind: Keyspace,
        request: &Request<'_>,
        at: usize,
    ) -> Result<Result<Reply, Stop>, Box<Reading>> {
        let mut reading = match Reading::parse(self.inner, kind, request) {
            Ok(reading) => Box::new(reading),
            Err(error) => return Ok(Err(Stop::Error(error))),
        };
        if self.grouped.is_some() {
            reading.judge_at(self.now_ms);
        }
        let scanned = self.fetched.scanned.iter().find(|(of, _)| *of == at).map(|(_, scanned)| scanned);
        if self.isolation == Isolation::Each {
            // Read after everything before it was written, so the trees have shown all.
            let Some(scanned) = scanned else { return Err(reading) };
            self.rests.on(scanned.rests_on);
            return Ok(Ok(scanned.answer.clone().into_reply()));
        }
        let namespace = request.namespace;
        let mut answer = reading.empty();
        if !self.overlay.is_cleared(namespace) {
            reading.hidden = self.hidden(namespace, reading.is_page());
            let Some(scanned) = scanned else { return Err(reading) };
            if scanned.hidden != reading.hidden || self.has_changed(namespace, scanned.as_of) {
                return if self.fetched.scans < SCANS_MAX { Err(reading) } else { Ok(Err(keeps_changing())) };
            }
            answer = scanned.answer.clone();
            self.rests.on(scanned.rests_on);
            let noted = self.grouped.as_ref().map(|grouped| grouped.noted.0);
            if scanned.expired.zip(noted).is_some_and(|(expired, noted)| expired > noted) {
                self.rests.need_time();
            }
        }
        for change in self.overlay.changes().iter().filter(|change| change.namespace == namespace) {
            if let Effect::Put { key, tag, .. } = change.effect {
                reading.add(&mut answer, key, tag);
            }
        }
        Ok(Ok(answer.into_reply()))
    }

    /// The keys that a transaction has changed, or (for a page of a scan) deleted.
    fn hidden(&self, namespace: NamespaceId, deleted_only: bool) -> BTreeSet<Vec<u8>> {
        let changes = self.overlay.changes().iter().filter(|change| change.namespace == namespace);
        let changes =
            changes.filter(|change| !deleted_only || matches!(change.effect, Effect::Delete { .. }));
        changes.map(|change| change.effect.key().to_vec()).collect()
    }

    /// Whether a shard of the namespace was written to behind a sequence. Asked by transactions, which hold all its latches.
    fn has_changed(&self, namespace: NamespaceId, as_of: Sequence) -> bool {
        let mut shards = ShardId::all_of(namespace).map(|shard| self.latches.get(shard));
        shards.any(|writer| writer.is_some_and(|writer| writer.sequence() > as_of))
    }
}

fn keeps_changing() -> Stop {
    Stop::Error(ErrorReply::new(
        "BUSY the keys change faster than they can be read inside MULTI: ask outside of it",
    ))
}
