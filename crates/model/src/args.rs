//! A command's words, borrowed from the connection's input buffer.

/// A command as it came in: the name first, then its arguments. Borrows everything, so that a command is evaluated without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Args<'r>(&'r [&'r [u8]]);

impl<'r> Args<'r> {
    /// Wraps the words of one command, the name among them.
    pub fn new(words: &'r [&'r [u8]]) -> Args<'r> {
        Args(words)
    }

    /// The command's name as it was sent; empty for an empty command.
    pub fn name(self) -> &'r [u8] {
        self.0.first().copied().unwrap_or_default()
    }

    /// The word at `index`, the name being word 0; `None` past the end.
    pub fn get(self, index: usize) -> Option<&'r [u8]> {
        self.0.get(index).copied()
    }

    /// The word at `index`; empty past the end. For words whose presence the arity has already checked.
    pub fn at(self, index: usize) -> &'r [u8] {
        self.get(index).unwrap_or_default()
    }

    /// The words from `index` on; empty past the end.
    pub fn from(self, index: usize) -> &'r [&'r [u8]] {
        self.0.get(index..).unwrap_or_default()
    }

    /// Number of words, the name included.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there is not even a name.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// All words, the name first.
    pub fn words(self) -> &'r [&'r [u8]] {
        self.0
    }
}
