//! Whether this node keeps everything by itself: then commands take the way of a node alone, straight to the trees, and no shard has a member.
//!
//! A node without a cluster always does. In a cluster it does as long as the map has no other node. Once another one comes, shards are to get
//! further members: from then on all that is written must be items of groups. This happens for the whole node at one moment. Whoever evaluates
//! commands by itself holds a [`Hold`] while it does, and [`Alone::end`] waits for all that are held, so nothing of theirs is left when the first
//! member is opened. What they wrote may still be on its way to the disk, but stands in the log before the first record of any member.

use crate::namespace::Mode;
use crate::namespaces::Namespace;
use crate::node::Inner;
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::atomic::{AtomicU8, Ordering::*};

/// How a node of a cluster keeps what the map gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// Not known yet: there is no map.
    Unknown,
    /// By itself. Comes first or never: a store that had company has what only members of groups understand.
    Alone,
    /// By members of groups.
    Grouped,
}

/// The standing of a node of a cluster.
#[derive(Default)]
pub(crate) struct Alone {
    standing: AtomicU8,
    /// Shared by those who evaluate.
    held: RwLock<()>,
}

impl Alone {
    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Acquire) {
            0 => Standing::Unknown,
            1 => Standing::Alone,
            _ => Standing::Grouped,
        }
    }

    /// From here on the node does everything by itself.
    pub(crate) fn begin(&self) {
        debug_assert_eq!(self.standing(), Standing::Unknown, "nobody is alone again");
        self.standing.store(Standing::Alone as u8, Release);
    }

    /// From here on members of groups do everything. Waits for those who are at it still: nobody is for long.
    pub(crate) fn end(&self) {
        // Who comes now is refused, and does not wait behind those who are waited for.
        self.standing.store(Standing::Grouped as u8, Release);
        drop(self.held.write());
    }

    fn hold(&self) -> Option<RwLockReadGuard<'_, ()>> {
        if self.standing() != Standing::Alone {
            return None;
        }
        let held = self.held.read();
        (self.standing() == Standing::Alone).then_some(held)
    }
}

/// While this is held the node keeps all of its strong namespaces by itself.
pub(crate) struct Hold<'n> {
    /// In a cluster.
    held: Option<RwLockReadGuard<'n, ()>>,
}

impl Hold<'_> {
    /// Whether the node executes commands in a namespace by itself. In a cluster only in strong ones that the map has shards of: a node that
    /// comes later must find them there.
    pub(crate) fn covers(&self, namespace: &Namespace) -> bool {
        self.held.is_none() || (namespace.id.mode() == Mode::Strong && namespace.is_in_use())
    }
}

impl Inner {
    /// The right to execute commands without asking anybody; `None`: groups do it, or it is not known yet who does. Not held over a wait.
    pub(crate) fn alone(&self) -> Option<Hold<'_>> {
        let Some(cluster) = self.cluster.get() else { return Some(Hold { held: None }) };
        Some(Hold { held: Some(cluster.alone.hold()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_end_waits_for_all_who_are_at_it() {
        let (alone, is_done) = (Alone::default(), AtomicBool::new(false));
        assert!(alone.hold().is_none(), "it is not known yet");
        alone.begin();
        let first = alone.hold().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                alone.end();
                assert!(is_done.load(SeqCst), "one was at it still");
            });
            while alone.standing() == Standing::Alone {
                std::thread::yield_now();
            }
            assert!(alone.hold().is_none(), "nobody begins any more, and nobody waits to be told so");
            is_done.store(true, SeqCst);
            drop(first);
        });
        assert_eq!(alone.standing(), Standing::Grouped);
        assert!(alone.hold().is_none());
    }
}
