//! A short list that needs no heap for the usual one or two entries.

use std::sync::Arc;

/// Entries that fit without the heap.
const INLINE: usize = 2;

/// A short list of keys or op ids. Up to two entries stand inline; a longer list is shared, so that cloning it (into the log, into each
/// follower's message) never allocates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names<T>(Inner<T>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner<T> {
    // Unused places hold the default, so that equality and hash may be derived.
    Inline(u8, [T; INLINE]),
    Shared(Arc<[T]>),
}

impl<T: Copy + Default> Names<T> {
    /// No entry.
    #[must_use]
    pub fn none() -> Names<T> {
        Names(Inner::Inline(0, [T::default(); INLINE]))
    }

    /// One entry.
    #[must_use]
    pub fn one(entry: T) -> Names<T> {
        Names(Inner::Inline(1, [entry, T::default()]))
    }

    /// A copy of a list; allocates only above two entries.
    #[must_use]
    pub fn of(entries: &[T]) -> Names<T> {
        match *entries {
            [] => Names::none(),
            [one] => Names::one(one),
            [one, two] => Names(Inner::Inline(2, [one, two])),
            _ => Names(Inner::Shared(entries.into())),
        }
    }

    /// The entries.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match &self.0 {
            Inner::Inline(count, entries) => entries.get(..usize::from(*count)).unwrap_or_default(),
            Inner::Shared(entries) => entries,
        }
    }
}

impl<T: Copy + Default> Default for Names<T> {
    fn default() -> Self {
        Names::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_whatever_its_length() {
        for count in 0..6_u64 {
            let entries: Vec<u64> = (1..=count).collect();
            let names = Names::of(&entries);
            assert_eq!(names.as_slice(), entries);
            assert_eq!(names.clone(), names);
        }
        assert_eq!(Names::of(&[7_u64]), Names::one(7));
    }
}
