//! The small words of the protocol: who, when, which write.

use std::fmt;

/// Bits of an op id that hold the serial; the rest above them holds the epoch.
const SERIAL_BITS: u32 = 40;

/// The largest serial of an epoch.
pub const SERIAL_MAX: u64 = (1 << SERIAL_BITS) - 1;

/// The largest epoch.
pub const EPOCH_MAX: u32 = (1 << (64 - SERIAL_BITS)) - 1;

/// A member, named by its *store*: a random number made together with the store's folder. A wiped disk comes back under another
/// number, and so is another member, which counts in no majority until a membership change lets it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoreId(pub u64);

/// The number of one manager's reign: unique, rising, given out by the control plane. Zero is *no reign yet*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u32", into = "u32"))]
pub struct Epoch(u32);

impl Epoch {
    /// No reign yet.
    pub const ZERO: Epoch = Epoch(0);

    /// The epoch of that number, or `None` above [`EPOCH_MAX`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Epoch> {
        if number <= EPOCH_MAX { Some(Epoch(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<Epoch> for u32 {
    fn from(epoch: Epoch) -> u32 {
        epoch.0
    }
}

impl TryFrom<u32> for Epoch {
    type Error = String;

    fn try_from(number: u32) -> Result<Epoch, String> {
        Epoch::new(number).ok_or_else(|| format!("epoch {number} is beyond the last one, {EPOCH_MAX}"))
    }
}

/// The name of one item for ever, and the version of every value that the item writes: epoch (24 bits) · serial (40 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OpId(u64);

impl OpId {
    /// Before every item.
    pub const ZERO: OpId = OpId(0);
    /// Behind every item.
    pub const MAX: OpId = OpId(u64::MAX);

    /// Names an item. The serial is cut to its 40 bits: callers refuse larger ones before they come here.
    #[must_use]
    pub const fn new(epoch: Epoch, serial: u64) -> OpId {
        OpId(((epoch.0 as u64) << SERIAL_BITS) | (serial & SERIAL_MAX))
    }

    /// The op id of a stored version.
    #[must_use]
    pub const fn from_version(version: u64) -> OpId {
        OpId(version)
    }

    /// The version under which values of this item are stored.
    #[must_use]
    pub const fn version(self) -> u64 {
        self.0
    }

    /// The reign in which the item was made.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> SERIAL_BITS) as u32)
    }

    /// The item's place in its reign, from 1.
    #[must_use]
    pub const fn serial(self) -> u64 {
        self.0 & SERIAL_MAX
    }
}

/// A moment on the driver's monotonic clock, in microseconds. The clock must count the time for which the machine was suspended
/// (`CLOCK_BOOTTIME`): leases are counted on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment this many microseconds later.
    #[must_use]
    pub const fn after_micros(self, micros: u64) -> Moment {
        Moment(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this moment, none if it is not earlier.
    #[must_use]
    pub const fn micros_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names a record handed to the driver for storing; rising by one from 1 in each run of the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// The driver's own name for a request, given back with the answer. The core never looks into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A hash of a key. Two keys of one hash cost waiting, never a wrong answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u64);

/// A sum of hashes of `(op id, key, value)`, in which order does not matter. The driver computes an item's digest over what it is
/// about to store, not over what it was told: else the comparison would compare nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64);

impl Digest {
    /// This digest with another one folded in.
    #[must_use]
    pub const fn with(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }
}

/// The end of what a member knows to be final and holds without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checkpoint {
    /// Every item up to here is final and held.
    pub op: OpId,
    /// The digest of all items up to `op`.
    pub digest: Digest,
    /// The shard's time (milliseconds) at `op`: expiry may be acted upon up to it.
    pub time: u64,
}

/// A durable promise to follow one manager and to take nothing of a lower one. The manager's boot nonce is part of it: a manager
/// that restarted is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promise {
    /// The reign.
    pub epoch: Epoch,
    /// Its manager.
    pub manager: StoreId,
    /// Drawn by the manager's driver at every start.
    pub nonce: u64,
}

/// Names one transfer of data between two members: the receiver's boot nonce and a number rising within that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId {
    /// The receiver's boot nonce.
    pub nonce: u64,
    /// Rising within the receiver's run.
    pub number: u64,
}

/// Whether a member's data counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It holds all it ever acknowledged.
    #[default]
    Whole,
    /// It lost or doubts its data (fenced by a digest, or a cut log in a weaker durability class). It keeps its promises and counts
    /// nowhere until its checkpoint has passed `until`: the leader's highest op when the rebuilding started ([`OpId::MAX`]: not known yet).
    Rebuilding {
        /// Where it counts again.
        until: OpId,
    },
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == OpId::MAX {
            f.write_str("max")
        } else {
            write!(f, "{}.{}", self.epoch().0, self.serial())
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch, self.manager, self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_ids_order_by_epoch_then_serial() {
        let low = OpId::new(Epoch(1), SERIAL_MAX);
        let high = OpId::new(Epoch(2), 1);
        assert!(low < high);
        assert_eq!((high.epoch().get(), high.serial()), (2, 1));
        assert_eq!(OpId::from_version(high.version()), high);
        assert_eq!(low.to_string(), format!("1.{SERIAL_MAX}"));
    }

    #[test]
    fn epochs_end_where_their_bits_end() {
        assert_eq!(Epoch::new(EPOCH_MAX).map(Epoch::get), Some(EPOCH_MAX));
        assert_eq!(Epoch::new(EPOCH_MAX + 1), None);
        assert_eq!(OpId::new(Epoch(EPOCH_MAX), SERIAL_MAX), OpId::MAX);
    }
}
