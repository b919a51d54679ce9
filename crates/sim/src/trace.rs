//! What happened, as a hash that tells whether two runs were the same, and as lines for a person.

use std::fmt::Display;
use std::hash::{Hash, Hasher};

/// FNV-1a: a hash that is the same on every platform and release.
#[derive(Clone, Debug)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        // FNV alone leaves the upper bits of short inputs alike.
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The run so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    hash: Fnv,
    /// Kept only when somebody wants to read them.
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn note(&mut self, now: u64, event: &impl Hash) {
        now.hash(&mut self.hash);
        event.hash(&mut self.hash);
    }

    /// A line for a person; the text is made only if it is kept.
    pub(crate) fn line<T: Display>(&mut self, now: u64, text: impl FnOnce() -> T) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} ms  {}", now as f64 / 1000.0, text()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }
}
