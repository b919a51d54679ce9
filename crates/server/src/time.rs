//! The server's clock, in one place. Data never depends on it: the node has its own.

use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Time on a clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Time since 1970, as the machine has it.
pub(crate) fn since_epoch() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "what TIME and INFO tell is the machine's time; nothing decides by it"
    )]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
