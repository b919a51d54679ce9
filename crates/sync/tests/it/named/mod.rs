//! The counterexamples that stand behind the rules: the sound core holds, the core with the rule switched off fails.

mod reading;
mod reign;
mod standing;
mod writing;

use kvorum_sync::{Config, Rule};

use crate::group::{config, without};

/// Runs a scenario with the rule on and with it off: it must hold, and must break.
fn bites(rule: Rule, holds: impl Fn(&Config) -> bool) {
    assert!(holds(&config()), "the sound core fails");
    assert!(!holds(&without(rule)), "{rule:?} switched off is not noticed");
}
