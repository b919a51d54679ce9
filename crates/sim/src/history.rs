//! What clients did and were told: the material of the linearizability check.

/// A write that nobody saw the version of has this one.
pub const NO_VERSION: u64 = 0;

/// What an operation asked of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Read the key.
    Read,
    /// Write the value (`None` deletes), if the key's version is still `expected`; without one, in any case. Values are unique in a history.
    Write {
        /// The value.
        value: Option<u64>,
        /// The version that the key must have.
        expected: Option<u64>,
    },
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// The read saw this value under this version (0: never written).
    Saw {
        /// The value, `None` for a key that is not there.
        value: Option<u64>,
        /// Its version.
        version: u64,
    },
    /// The write was done under this version.
    Done {
        /// The version.
        version: u64,
    },
    /// The condition failed: the key had this version.
    Conflict {
        /// The version.
        version: u64,
    },
    /// Nobody knows: it may have happened, at any time after the call.
    Unknown,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Who.
    pub client: u32,
    /// The key.
    pub key: u32,
    /// When it began, in microseconds of virtual time.
    pub call: u64,
    /// When it ended; of no meaning for an unknown outcome.
    pub end: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was told.
    pub told: Told,
}
