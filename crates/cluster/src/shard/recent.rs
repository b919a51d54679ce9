//! Values of a leader's last items, so that they can be repeated without the disk.

use super::writes::Payload;
use kvorum_sync::OpId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Recent {
    payloads: BTreeMap<OpId, Payload>,
    bytes: usize,
    /// Bytes above the commit point.
    flight_bytes: usize,
    point: OpId,
}

impl Recent {
    pub(super) fn add(&mut self, op: OpId, payload: Payload) {
        self.bytes += payload.len();
        self.flight_bytes += payload.len();
        self.payloads.insert(op, payload);
    }

    pub(super) fn get(&self, op: OpId) -> Option<&Payload> {
        self.payloads.get(&op)
    }

    /// Bytes of items that are not known to be committed.
    pub(super) fn flight_bytes(&self) -> usize {
        self.flight_bytes
    }

    /// Everything up to the point is committed; forgets what is beyond the limit, the oldest first, but nothing in flight.
    pub(super) fn committed(&mut self, point: OpId, bytes_max: usize) {
        if point > self.point {
            use std::ops::Bound::{Excluded, Included};
            let landed = self.payloads.range((Excluded(self.point), Included(point)));
            self.flight_bytes -= landed.map(|(_, payload)| payload.len()).sum::<usize>();
            self.point = point;
        }
        while self.bytes > bytes_max
            && let Some(first) = self.payloads.first_entry().filter(|first| *first.key() <= self.point)
        {
            self.bytes -= first.remove().len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::writes::Writes;
    use kvorum_engine::Attributes;

    #[test]
    fn what_is_in_flight_stays_and_the_oldest_goes() {
        let mut recent = Recent::default();
        let payload = || {
            let mut writes = Writes::new();
            writes.put(b"key", &[7; 100], Attributes::default());
            writes.finish()
        };
        let each = payload().len();
        for version in 1..=4 {
            recent.add(OpId::from_version(version), payload());
        }
        recent.committed(OpId::ZERO, 0);
        assert_eq!(recent.flight_bytes(), 4 * each, "nothing is committed");
        recent.committed(OpId::from_version(3), 2 * each);
        assert_eq!(recent.flight_bytes(), each);
        let held: Vec<bool> = (1..=4).map(|v| recent.get(OpId::from_version(v)).is_some()).collect();
        assert_eq!(held, [false, false, true, true]);
    }
}
