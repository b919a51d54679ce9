//! Namespaces: names, modes, and the handles that the rest passes around.

/// How a namespace is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One order of writes in each shard; the version is the op id of the shard's log. All data types.
    Strong,
    /// No leader: the newest hybrid timestamp wins. Strings only.
    Available,
}

/// Number of strong namespaces that are there from the start: `SELECT 0` to `SELECT 15`.
pub const STRONG_NAMESPACES: u16 = 16;

/// The id of the available namespace that is there from the start.
const ENTITY: u16 = STRONG_NAMESPACES;

/// Number of namespaces of a node.
pub(crate) const COUNT: usize = ENTITY as usize + 1;

/// A namespace of this node; from [`Node::namespace`](crate::Node::namespace).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(pub(crate) u16);

impl NamespaceId {
    /// The namespace that a connection starts in.
    pub const ZERO: NamespaceId = NamespaceId(0);

    /// The available namespace of `/v0/entity`.
    pub const ENTITY: NamespaceId = NamespaceId(ENTITY);

    /// The namespace of `SELECT number`; `None` beyond [`STRONG_NAMESPACES`].
    pub fn numbered(number: u16) -> Option<NamespaceId> {
        (number < STRONG_NAMESPACES).then_some(NamespaceId(number))
    }

    /// How it is kept.
    pub fn mode(self) -> Mode {
        if self.0 < STRONG_NAMESPACES { Mode::Strong } else { Mode::Available }
    }

    /// The number for `SELECT`, `None` for a namespace that has only a name.
    pub fn number(self) -> Option<u16> {
        (self.0 < STRONG_NAMESPACES).then_some(self.0)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// All namespaces of a node, in order.
pub(crate) fn all() -> impl Iterator<Item = NamespaceId> {
    (0..=ENTITY).map(NamespaceId)
}

/// The name of a namespace.
pub(crate) fn name(id: NamespaceId, entity: &str) -> String {
    id.number().map_or_else(|| entity.to_owned(), |number| number.to_string())
}

/// The namespace that `name` stands for: a plain decimal number, or the name of the available namespace.
pub(crate) fn by_name(name: &[u8], entity: &str) -> Option<NamespaceId> {
    if name == entity.as_bytes() {
        return Some(NamespaceId::ENTITY);
    }
    if name.is_empty() || name.len() > 2 || (name.len() == 2 && name.first() == Some(&b'0')) {
        return None;
    }
    let number = name
        .iter()
        .try_fold(0u16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u16::from(byte - b'0')))?;
    NamespaceId::numbered(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(by_name(b"0", "entity"), Some(NamespaceId::ZERO));
        assert_eq!(by_name(b"15", "entity").and_then(NamespaceId::number), Some(15));
        assert_eq!(by_name(b"entity", "entity").map(NamespaceId::mode), Some(Mode::Available));
        for none in ["16", "00", "01", "", "-1", "+1", "1x", "100", "entities"] {
            assert_eq!(by_name(none.as_bytes(), "entity"), None, "{none:?}");
        }
        assert_eq!(all().count(), 17);
    }
}
