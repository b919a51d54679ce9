//! A smaller plan that still fails in the same way.

use crate::plan::Plan;

/// What kind of failure it is: the words before the first colon.
#[must_use]
pub fn kind(failure: &str) -> &str {
    failure.split(':').next().unwrap_or(failure)
}

/// Leaves out faults, operations and troubles of the network as long as the run fails in the same way. `fails` runs a plan and gives
/// the kind of its failure; it is called at most `runs_max` times.
pub fn shrink(plan: &Plan, runs_max: usize, mut fails: impl FnMut(&Plan) -> Option<String>) -> Plan {
    let mut best = plan.clone();
    let Some(wanted) = fails(plan) else { return best };
    let mut left = runs_max;
    let mut attempt = |candidate: Plan, best: &mut Plan| {
        if left == 0 || candidate == *best {
            return false;
        }
        left -= 1;
        let smaller = fails(&candidate).is_some_and(|kind| kind == wanted);
        if smaller {
            *best = candidate;
        }
        smaller
    };
    for quieter in [
        |plan: &mut Plan| plan.late = 0.0,
        |plan: &mut Plan| plan.duplicates = 0.0,
        |plan: &mut Plan| plan.loss = 0.0,
        |plan: &mut Plan| plan.skew = false,
        |plan: &mut Plan| plan.collect = false,
        |plan: &mut Plan| plan.leases = false,
        |plan: &mut Plan| plan.tight = false,
    ] {
        let mut candidate = best.clone();
        quieter(&mut candidate);
        attempt(candidate, &mut best);
    }
    loop {
        let before = best.faults.len() + best.deeds.len();
        drop_parts(
            &mut best,
            &mut attempt,
            |plan| plan.faults.len(),
            |plan, range| drop(plan.faults.drain(range)),
        );
        drop_parts(
            &mut best,
            &mut attempt,
            |plan| plan.deeds.len(),
            |plan, range| drop(plan.deeds.drain(range)),
        );
        if best.faults.len() + best.deeds.len() == before {
            return best;
        }
    }
}

/// Drops ever smaller parts of one list.
fn drop_parts(
    best: &mut Plan,
    attempt: &mut impl FnMut(Plan, &mut Plan) -> bool,
    count: impl Fn(&Plan) -> usize,
    cut: impl Fn(&mut Plan, std::ops::Range<usize>),
) {
    let mut part = count(best).div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < count(best) {
            let mut candidate = best.clone();
            cut(&mut candidate, from..(from + part).min(count(best)));
            if !attempt(candidate, best) {
                from += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let plan = (0..)
            .map(Plan::of)
            .find(|plan| plan.faults.len() > 6 && plan.deeds.len() > 50)
            .expect("a busy plan");
        let needed = (plan.faults[3], plan.deeds[20]);
        let small = shrink(&plan, 1000, |plan| {
            let fails = plan.faults.contains(&needed.0) && plan.deeds.contains(&needed.1);
            fails.then(|| "it".to_string())
        });
        assert_eq!(
            (small.faults.as_slice(), small.deeds.as_slice()),
            ([needed.0].as_slice(), [needed.1].as_slice())
        );
        assert!(!small.leases && !small.tight);
    }
}
