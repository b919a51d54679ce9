//! Running a search: to its end, or to its first violation.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use super::rules::{Bounds, Rules};
use super::step::{Action, Sync};

/// Searches everything within the bounds; panics with the shortest trace if a property is violated. Returns the number of states.
pub(crate) fn exhaust(name: &str, rules: Rules, bounds: Bounds) -> usize {
    let checker = Sync { rules, bounds }
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: violated: {property}\n{}", trace(&path.into_actions()));
    }
    let states = checker.unique_state_count();
    println!("{name}: {states} states, depth {}, {bounds:?}: no violation", checker.max_depth());
    states
}

/// The shortest run that violates one of the named properties; panics if there is none within the bounds.
pub(crate) fn violation(
    name: &str,
    rules: Rules,
    bounds: Bounds,
    properties: &[&'static str],
) -> Vec<Action> {
    let any: BTreeSet<&'static str> = properties.iter().copied().collect();
    let checker = Sync { rules, bounds }.checker().finish_when(HasDiscoveries::AnyOf(any)).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(property) = properties.iter().find(|property| checker.discovery(property).is_some()) else {
        panic!("{name}: {states} states within {bounds:?}, and none of {properties:?} is violated");
    };
    let actions = checker.discovery(property).map(stateright::Path::into_actions).unwrap_or_default();
    println!(
        "{name}: {property:?} violated after {} steps ({states} states)\n{}",
        actions.len(),
        trace(&actions)
    );
    actions
}

fn trace(actions: &[Action]) -> String {
    actions.iter().enumerate().map(|(at, action)| format!("{:>3}  {action:?}\n", at + 1)).collect()
}
