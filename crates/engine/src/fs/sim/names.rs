//! The simulated folders: the names that the running system sees, those that are durable, and the changes between.

use super::dice::Dice;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(usize),
}

type Map = BTreeMap<PathBuf, Node>;

/// A change of names that is not yet durable.
#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename { from: PathBuf, to: PathBuf, node: Node },
}

/// All names, by full path.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    current: Map,
    durable: Map,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if is_root(path) { Some(Node::Dir) } else { self.current.get(path).copied() }
    }

    pub(super) fn add(&mut self, path: &Path, node: Node) {
        self.current.insert(path.to_owned(), node);
        self.pending.push(Change::Add(path.to_owned(), node));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.current.remove(path);
        self.pending.push(Change::Remove(path.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        let Some(&node) = self.current.get(from) else { return };
        let change = Change::Rename { from: from.to_owned(), to: to.to_owned(), node };
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    /// The names directly in `dir`.
    pub(super) fn list<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = (&'a Path, Node)> {
        self.current
            .range(dir.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(dir))
            .filter(move |(path, _)| path.parent() == Some(dir))
            .map(|(path, &node)| (path.as_path(), node))
    }

    /// All files that the running system sees.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.current.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.as_path(), *inode)),
            Node::Dir => None,
        })
    }

    /// Makes the changes of one folder durable, in order.
    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (synced, left) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.touches(dir));
        self.pending = left;
        for change in synced {
            change.apply(&mut self.durable);
            if let Change::Rename { from, to, node: Node::Dir } = &change {
                self.pending.iter_mut().for_each(|pending| pending.follow(from, to));
            }
        }
    }

    /// What is left after power loss: what was synced, and of the rest in each folder a beginning or any part. Folders whose own name is
    /// gone are gone with all that is in them.
    pub(super) fn after_power_loss(&self, dice: &mut Dice) -> Names {
        let mut map = self.durable.clone();
        let mut plans: BTreeMap<&Path, (u64, bool)> = BTreeMap::new();
        for change in &self.pending {
            let plan = plans.entry(change.folder()).or_insert_with(|| (dice.below(4), true));
            let kept = match plan.0 {
                0 => false,
                1 => true,
                // A beginning.
                2 => {
                    plan.1 &= !dice.one_in(4);
                    plan.1
                }
                _ => dice.coin(),
            };
            if kept {
                change.apply(&mut map);
            }
        }
        let reachable = |path: &Path| {
            path.ancestors().skip(1).all(|folder| is_root(folder) || map.get(folder) == Some(&Node::Dir))
        };
        let durable: Map = map
            .iter()
            .filter(|(path, _)| reachable(path))
            .map(|(path, &node)| (path.clone(), node))
            .collect();
        Names { current: durable.clone(), durable, pending: Vec::new() }
    }

    /// The files that a name, a durable name or a pending change still refers to get new numbers.
    pub(super) fn renumber(&mut self, renumber: &mut dyn FnMut(usize) -> usize) {
        let nodes = self.current.values_mut().chain(self.durable.values_mut());
        let pending = self.pending.iter_mut().filter_map(|change| match change {
            Change::Add(_, node) | Change::Rename { node, .. } => Some(node),
            Change::Remove(_) => None,
        });
        for node in nodes.chain(pending) {
            if let Node::File(inode) = node {
                *inode = renumber(*inode);
            }
        }
    }
}

impl Change {
    fn apply(&self, map: &mut Map) {
        match self {
            Change::Add(path, node) => {
                map.insert(path.clone(), *node);
            }
            Change::Remove(path) => {
                map.remove(path);
            }
            Change::Rename { from, to, node } => {
                let moved: Vec<PathBuf> = map
                    .range(from.clone()..)
                    .take_while(|(path, _)| path.starts_with(from))
                    .map(|(path, _)| path.clone())
                    .collect();
                for path in moved {
                    if let (Some(node), Ok(rest)) = (map.remove(&path), path.strip_prefix(from)) {
                        map.insert(joined(to, rest), node);
                    }
                }
                map.insert(to.clone(), *node);
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        match self {
            Change::Add(path, _) | Change::Remove(path) => path.parent() == Some(dir),
            Change::Rename { from, to, .. } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn folder(&self) -> &Path {
        let (Change::Add(path, _) | Change::Remove(path) | Change::Rename { to: path, .. }) = self;
        path.parent().unwrap_or(path)
    }

    /// A folder above has another name now.
    fn follow(&mut self, old: &Path, new: &Path) {
        let follow = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(old) {
                *path = joined(new, rest);
            }
        };
        match self {
            Change::Add(path, _) | Change::Remove(path) => follow(path),
            Change::Rename { from, to, .. } => {
                follow(from);
                follow(to);
            }
        }
    }
}

fn joined(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_owned() } else { path.join(rest) }
}

/// The root and the current folder are always there.
pub(super) fn is_root(path: &Path) -> bool {
    path.parent().is_none_or(|parent| parent == path) || path.as_os_str().is_empty()
}
