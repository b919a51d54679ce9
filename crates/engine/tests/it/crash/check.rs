//! Compares a store with the model, key by key, through random views.

use super::model::{Look, Model, ModelTree, Seen};
use kvorum_engine::fs::sim::Dice;
use kvorum_engine::{Cached, Direction, Error, Found, FoundKind, Result, Sequence, Store, Tree, View};

/// Compares everything: names, keys, ranges, notes. On a device that lies, damage is an answer too.
pub(crate) fn check(store: &Store, model: &Model, lies: bool, dice: &mut Dice) -> Result<()> {
    let names: Vec<String> = store.tree_names().iter().map(ToString::to_string).collect();
    assert_eq!(names, model.names.keys().cloned().collect::<Vec<_>>(), "the trees' names");
    let upto = store.visible();
    for (name, id) in &model.names {
        let tree = store.find_tree(name).expect("it is in the list");
        assert_eq!(tree.id(), *id, "the id of tree {name}");
        check_tree(&tree, &model.trees[id], lies, upto, dice)?;
    }
    Ok(())
}

/// What was read, if it could be and the device may be blamed for it if not.
fn read<T>(result: Result<T>, lies: bool) -> Result<Option<T>> {
    match result {
        Err(Error::Damaged { .. } | Error::UnknownFormat { .. }) if lies => Ok(None),
        result => result.map(Some),
    }
}

fn check_tree(tree: &Tree, model: &ModelTree, lies: bool, upto: Sequence, dice: &mut Dice) -> Result<()> {
    let mut looks = vec![Look { at: u64::MAX, hidden: Vec::new(), upto }];
    if !model.newest_only {
        let at = model.floor + dice.below(200);
        let hidden = (0..dice.below(3)).map(|_| at.saturating_sub(dice.below(20))).collect::<Vec<_>>();
        // A hidden version at or below the floor may have shadowed what is gone.
        let hidden = hidden.into_iter().filter(|&version| version > model.floor).collect();
        looks.push(Look { at, hidden, upto });
    }
    for look in &looks {
        let view = View { at: look.at, hidden: &look.hidden, snapshot: None };
        let mut values = Vec::new();
        for key in model.keys() {
            let expected = model.seen(&key, look);
            if let Some(found) = read(tree.get(&key, &view), lies)? {
                compare(tree, model, &key, expected.clone(), found, look);
            }
            if let Some(Cached::Ready(found)) = read(tree.get_cached(&key, &view), lies)? {
                compare(tree, model, &key, expected.clone(), found, look);
            }
            let version = read(tree.version_of(&key, &view), lies)?;
            if let Some(Seen::Value { version: expected, .. }) = model.shown(expected) {
                if let Some(found) = version {
                    let version = found.map(|found| found.version);
                    assert_eq!(version, Some(expected), "version of {key:?} in {tree:?} at {look:?}");
                }
                values.push(key);
            }
        }
        check_range(tree, model, values, lies, look, dice)?;
    }
    if let Some(notes) = read(tree.notes(model.notes_from..), lies)? {
        let notes: Vec<_> = notes.into_iter().map(|(v, b)| (v, b.to_vec())).collect();
        assert_eq!(notes, model.notes(upto), "the notes of {tree:?}");
    }
    Ok(())
}

fn check_range(
    tree: &Tree,
    model: &ModelTree,
    mut keys: Vec<Vec<u8>>,
    lies: bool,
    look: &Look,
    dice: &mut Dice,
) -> Result<()> {
    let view = View { at: look.at, hidden: &look.hidden, snapshot: None };
    let direction = if dice.coin() { Direction::Forward } else { Direction::Backward };
    let mut found = Vec::new();
    let mut whole = false;
    if let Some(mut range) = read(tree.range(.., &view, direction), lies)? {
        while let Some(entry) = read(range.next().transpose(), lies)? {
            whole = entry.is_none();
            let Some(entry) = entry else { break };
            found.push(entry);
        }
    }
    if direction == Direction::Backward {
        keys.reverse();
    }
    // What expired may be there still.
    let expired = |found: &Found| found.expires_at.is_some_and(|at| at <= model.expiry_floor);
    let found: Vec<_> = found.into_iter().filter(|(_, found)| !expired(found)).collect();
    let found_keys: Vec<_> = found.iter().map(|(key, _)| key.to_vec()).collect();
    if !whole {
        // Up to where it broke off.
        keys.truncate(found_keys.len());
    }
    assert_eq!(found_keys, keys, "the range {direction:?} of {tree:?} at {look:?}");
    for (key, found) in found {
        compare(tree, model, &key, model.seen(&key, look), Some(found), look);
    }
    Ok(())
}

fn compare(
    tree: &Tree,
    model: &ModelTree,
    key: &[u8],
    expected: Option<Seen>,
    found: Option<Found>,
    look: &Look,
) {
    let found = found.map(|found| match found.kind {
        FoundKind::Value => Seen::Value {
            version: found.version,
            value: found.value.to_vec(),
            expires_at: found.expires_at,
            tag: found.tag,
        },
        FoundKind::Tombstone => Seen::Tombstone { version: found.version },
    });
    let (found, expected) = (model.shown(found), model.shown(expected));
    assert_eq!(found, expected, "key {key:?} of {tree:?} at {look:?}");
}
