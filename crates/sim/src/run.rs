//! One run: faults and clients, then peace, then everything must have come to one end.

use kvorum_sync::Config;

use crate::linear::{Verdict, check};
use crate::plan::{Plan, Profile};
use crate::world::World;

/// Time to converge after faults stop, in microseconds.
const PEACE_MICROS: u64 = 40_000_000;
/// Between two looks whether it has.
const LOOK_MICROS: u64 = 100_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The same for the same plan, always.
    pub hash: u64,
    /// What was wrong.
    pub failure: Option<String>,
    /// Events that happened.
    pub events: u64,
    /// Items committed, and epochs led.
    pub commits: u64,
    /// Epochs that were led.
    pub reigns: u64,
    /// Operations in the history.
    pub operations: usize,
    /// Virtual time, in microseconds.
    pub micros: u64,
    /// What happened, if asked for.
    pub lines: Vec<String>,
}

/// The core's settings for a plan.
#[must_use]
pub fn config_of(plan: &Plan) -> Config {
    let mut config = Config::default();
    if plan.leases {
        config.lease_micros = Some(400_000);
    }
    if plan.tight {
        config.window_items = 4;
        config.retain_items = 4;
        config.small_gap_items = 3;
        config.piece_credit = 2;
    }
    config
}

/// Runs a plan with the sound core.
#[must_use]
pub fn run(plan: &Plan, keep_lines: bool) -> Outcome {
    run_with(plan, config_of(plan), keep_lines)
}

/// Runs a plan with other settings of the core.
#[must_use]
pub fn run_with(plan: &Plan, config: Config, keep_lines: bool) -> Outcome {
    let mut world = World::new(plan.clone(), config);
    if keep_lines {
        world.trace.lines = Some(Vec::new());
    }
    while world.ledger.failure.is_none() && world.turn(plan.heal_at) {}
    world.now = world.now.max(plan.heal_at);
    let end = plan.heal_at + PEACE_MICROS;
    let mut state = Some("nothing has happened".to_string());
    while world.ledger.failure.is_none() && state.is_some() && world.now < end {
        let look = world.now + LOOK_MICROS;
        while world.ledger.failure.is_none() && world.turn(look) {}
        world.now = look;
        state = world.has_converged();
    }
    if let Some(state) = state {
        world
            .ledger
            .fail(|| format!("convergence: {} s after the last fault {state}", PEACE_MICROS / 1_000_000));
    }
    if plan.profile == Profile::Drains && world.clients.unknowns > 0 {
        let unknowns = world.clients.unknowns;
        world.ledger.fail(|| format!("draining: {unknowns} outcomes are unknown, and nothing went wrong"));
    }
    if world.ledger.failure.is_none() {
        judge(&mut world);
    }
    Outcome {
        hash: world.trace.hash(),
        failure: world.ledger.failure.clone(),
        events: world.events,
        commits: world.ledger.commits,
        reigns: world.ledger.led.len() as u64,
        operations: world.clients.history.len(),
        micros: world.now,
        lines: world.trace.lines.take().unwrap_or_default(),
    }
}

fn judge(world: &mut World) {
    match check(&world.clients.history) {
        Verdict::Linearizable => {}
        Verdict::Violated { key, operations } => {
            let lines: Vec<String> = operations.iter().map(|operation| format!("  {operation:?}")).collect();
            world
                .ledger
                .fail(|| format!("linearizability: no order explains key {key}:\n{}", lines.join("\n")));
        }
        Verdict::TooLarge { key } => {
            world.ledger.fail(|| format!("the history of key {key} is too large to check"));
        }
    }
}
