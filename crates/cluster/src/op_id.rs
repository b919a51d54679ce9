//! Op ids: the names of the items of a shard's log, and the versions of what they write.

/// Bits of the serial; the epoch has the 24 above.
const SERIAL_BITS: u32 = 40;

/// Highest epoch.
pub(crate) const EPOCH_MAX: u64 = (1 << (64 - SERIAL_BITS)) - 1;

/// Highest serial within an epoch.
pub(crate) const SERIAL_MAX: u64 = (1 << SERIAL_BITS) - 1;

/// The op id of the item `serial` of `epoch`: later epochs are above all serials of earlier ones.
pub(crate) fn op_id(epoch: u64, serial: u64) -> u64 {
    debug_assert!(epoch <= EPOCH_MAX && serial <= SERIAL_MAX, "epoch {epoch}, serial {serial}");
    (epoch << SERIAL_BITS) | serial
}

/// The epoch of an op id.
#[cfg(test)]
pub(crate) fn epoch_of(op_id: u64) -> u64 {
    op_id >> SERIAL_BITS
}

/// The serial of an op id.
#[cfg(test)]
pub(crate) fn serial_of(op_id: u64) -> u64 {
    op_id & SERIAL_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_order_before_serials() {
        assert!(op_id(2, 1) > op_id(1, SERIAL_MAX));
        assert_eq!(epoch_of(op_id(EPOCH_MAX, 5)), EPOCH_MAX);
        assert_eq!(serial_of(op_id(EPOCH_MAX, 5)), 5);
        assert_eq!(op_id(EPOCH_MAX, SERIAL_MAX), u64::MAX);
    }
}
