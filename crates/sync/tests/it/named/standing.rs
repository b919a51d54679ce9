//! Who counts: wiped and cut disks, and the list of members.

use kvorum_sync::{Durable, Members, OpId, Register, Rule, Standing};

use super::bites;
use crate::group::{Group, config, epoch, store};

#[test]
fn wiped_disk_same_id_votes() {
    // X is on A and B; B's disk is wiped and comes back under its old number, in a state that says so.
    bites(Rule::RebuildingCountsNot, |config| {
        let mut group = Group::led(config);
        group.cut_off(3);
        group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.crash(1);
        group.crash(2);
        group.member(2).durable =
            Durable { standing: Standing::Rebuilding { until: OpId::MAX }, ..Durable::default() };
        group.member(2).tree.clear();
        group.start(2);
        group.nominate(3, 2, &[1, 2, 3]);
        group.settle();
        // Without the one that has X, nobody may lead.
        !group.leads(3)
    });
}

#[test]
fn a_wiped_disk_under_a_new_number_counts_in_no_majority() {
    let mut group = Group::led(&config());
    group.cut_off(3);
    group.propose(1, &[]).unwrap();
    group.run();
    group.heal();
    group.crash(1);
    group.crash(2);
    group.add(4, &config(), Durable::default());
    group.nominate(3, 2, &[1, 2, 3]);
    group.settle();
    assert!(!group.leads(3));
}

#[test]
fn power_cycle_in_written() {
    // A weaker durability class: the log of the second member was cut by power loss, and lacks an acknowledged item.
    bites(Rule::CutLogRebuilds, |config| {
        let mut group = Group::led(config);
        group.cut_off(3);
        let written = group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.crash(1);
        group.crash(2);
        group.member(2).durable.tail.remove(&written);
        group.member(2).tree.remove(&written);
        group.start_intact(2, false);
        group.nominate(3, 2, &[1, 2, 3]);
        group.settle();
        !group.leads(3)
    });
}

#[test]
fn late_led_report_two_adds() {
    let members = |list: &[u64]| Members::of(&list.iter().copied().map(store).collect::<Vec<_>>());
    let mut register = Register::new(members(&[1, 2, 3]));
    let (first, _) = register.nominate(epoch(0), members(&[1, 2, 3, 4])).unwrap();
    let (second, membership) = register.nominate(epoch(0), members(&[1, 2, 3, 5])).unwrap();
    assert_eq!(membership.old, members(&[1, 2, 3]), "until the last nomination leads, old stays old");
    // The first manager's report comes late: {1, 2, 3, 4} never becomes current beside {1, 2, 3, 5}.
    assert!(!register.led(first));
    assert!(register.led(second));
    assert_eq!(register.current(), &members(&[1, 2, 3, 5]));
    assert!(register.nominate(epoch(0), members(&[1, 2, 3, 4])).is_err(), "one member at a time");
}
