//! Work that needs the disk, to be done where waiting does no harm.

/// What a blocked request needs from the disk.
#[must_use]
pub struct Prefetch {
    pub(crate) keys: Vec<Vec<u8>>,
}

impl Prefetch {
    /// Does the work; may block for long (`KEYS` reads all keys). For a thread that nothing else waits for.
    pub fn run(self) -> Fetched {
        Fetched { _keys: self.keys }
    }
}

/// What a [`Prefetch`] brought, for [`Session::resume`](crate::Session::resume).
#[derive(Default)]
pub struct Fetched {
    _keys: Vec<Vec<u8>>,
}
