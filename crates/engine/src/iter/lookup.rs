//! What a view sees of one key. Sources are asked from the newest to the oldest, and the first answer that nothing older can surpass ends it.

use super::visible::Visibility;
use crate::error::Result;
use crate::sst::Head;
use crate::types::{Kind, Version};
use bytes::Bytes;

/// What to do after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Show the source's next entry of the key.
    Next,
    /// This source has no better one; ask the next older source.
    NextSource,
    /// Nothing older can be better.
    Done,
}

/// The state of a lookup.
#[derive(Debug)]
pub(crate) struct Lookup<'v> {
    view: Visibility<&'v [Version]>,
    best: Option<(Head, Bytes)>,
    /// Versions of the key that a marker took back, for this source and all older ones. Nearly always empty.
    retracted: Vec<Version>,
}

impl<'v> Lookup<'v> {
    pub(crate) fn new(view: Visibility<&'v [Version]>) -> Lookup<'v> {
        Lookup { view, best: None, retracted: Vec::new() }
    }

    pub(crate) fn into_best(self) -> Option<(Head, Bytes)> {
        self.best
    }

    /// Takes in an entry of the key. Entries of one source come in internal order, sources from the newest to the oldest.
    ///
    /// An entry that is not late had a version above everything that is older than its source, when it was written: it ends the search,
    /// unless the view does not see it. What is late may be surpassed by an older source.
    pub(crate) fn offer(&mut self, head: &Head, payload: impl FnOnce() -> Result<Bytes>) -> Result<Step> {
        if !self.view.admits(head.version, head.sequence) || self.retracted.contains(&head.version) {
            return Ok(Step::Next);
        }
        if head.kind == Kind::Retract {
            self.retracted.push(head.version);
            return Ok(Step::Next);
        }
        // Of equal versions the newer source's wins.
        if self.best.as_ref().is_none_or(|(best, _)| head.version > best.version) {
            self.best = Some((*head, payload()?));
        }
        Ok(if head.late { Step::NextSource } else { Step::Done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: Version, sequence: u64, kind: Kind, late: bool) -> Head {
        Head { version, sequence, kind, late, expires_at: None, tag: 0 }
    }

    fn run(at: Version, upto: u64, hidden: &[Version], sources: &[&[Head]]) -> Option<Version> {
        let mut lookup = Lookup::new(Visibility { at, upto, hidden });
        'sources: for source in sources {
            for entry in source.iter().filter(|e| e.version <= at) {
                match lookup.offer(entry, || Ok(Bytes::new())).unwrap() {
                    Step::Next => {}
                    Step::NextSource => continue 'sources,
                    Step::Done => break 'sources,
                }
            }
        }
        lookup.into_best().map(|(head, _)| head.version)
    }

    #[test]
    fn a_late_entry_does_not_hide_a_higher_older_one() {
        let newer = [entry(5, 9, Kind::Value, true)];
        let older = [entry(7, 3, Kind::Value, false)];
        assert_eq!(run(100, 100, &[], &[&newer, &older]), Some(7));
        assert_eq!(run(6, 100, &[], &[&newer, &older]), Some(5));
    }

    #[test]
    fn a_retract_reaches_its_own_and_older_sources_only() {
        let newest = [entry(7, 12, Kind::Value, true)];
        let middle = [entry(7, 9, Kind::Retract, false)];
        let oldest = [entry(7, 3, Kind::Value, false), entry(4, 2, Kind::Value, false)];
        assert_eq!(run(100, 100, &[], &[&middle, &oldest]), Some(4));
        assert_eq!(run(100, 100, &[], &[&newest, &middle, &oldest]), Some(7));
        assert_eq!(run(100, 8, &[], &[&middle, &oldest]), Some(7), "before the retract");
    }

    #[test]
    fn hidden_versions_are_passed_over() {
        let source = [entry(7, 3, Kind::Value, false), entry(4, 2, Kind::Tombstone, false)];
        assert_eq!(run(100, 100, &[7], &[&source]), Some(4));
    }
}
