//! Limits and times of a member.

use super::planted::MemberRule;
use kvorum_sync::Config;

/// Plain numbers, each with its unit in its name. Those of the core are to be the same on all members.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    /// Of the replication core.
    pub core: Config,
    /// Values of items that are proposed and not committed yet: above it a leader takes no proposal.
    pub window_bytes: usize,
    /// Values of items kept in memory to be repeated to those who lack them, the ones in flight included.
    pub recent_bytes: usize,
    /// Data of one piece of a transfer, unless a single entry is larger.
    pub piece_bytes: usize,
    /// Values that wait for an adoption. They are put by one batch, which the store bounds.
    pub staged_bytes_max: usize,
    /// How long tombstones are kept at least, unless all members are known to have them: who was away for less can be told what was deleted.
    pub tombstone_micros: u64,
    /// How long a checkpoint's record may wait for others to become durable together.
    pub lazy_micros: u64,
    /// Rules switched off, to show that their absence is noticed.
    #[cfg(feature = "planted")]
    pub planted: super::planted::MemberPlanted,
}

impl MemberConfig {
    /// Limits for a store that may take so much memory, over all its shards.
    pub fn for_memory(memory_bytes: u64) -> MemberConfig {
        let share = |part: u64, least: usize, most: usize| {
            usize::try_from(memory_bytes / part).unwrap_or(most).clamp(least, most)
        };
        MemberConfig {
            core: Config::default(),
            window_bytes: share(64, 1 << 20, 64 << 20),
            recent_bytes: share(32, 2 << 20, 128 << 20),
            piece_bytes: 256 << 10,
            staged_bytes_max: share(10, 1 << 20, 1 << 30),
            tombstone_micros: 600_000_000,
            lazy_micros: 200_000,
            #[cfg(feature = "planted")]
            planted: super::planted::MemberPlanted::default(),
        }
    }

    /// Whether a rule holds: always, outside tests with the `planted` feature.
    #[cfg(feature = "planted")]
    pub(super) const fn holds(&self, rule: MemberRule) -> bool {
        self.planted.holds(rule)
    }

    /// Whether a rule holds: always, outside tests with the `planted` feature.
    #[cfg(not(feature = "planted"))]
    #[inline]
    #[expect(clippy::unused_self, reason = "the planted build asks its settings")]
    pub(super) const fn holds(&self, _rule: MemberRule) -> bool {
        true
    }
}

impl Default for MemberConfig {
    fn default() -> Self {
        MemberConfig::for_memory(256 << 20)
    }
}
