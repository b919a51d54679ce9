//! A group whose members change while everything is in disorder: five stores, of which the control plane's register names the members.

use std::collections::BTreeSet;

use kvorum_sync::{Config, Effect, Input, Members, OpId, Register, RoleName, StoreId};

use crate::group::{Group, config, epoch, store};
use crate::random::{Dice, propose, seeds, shuffle_network};

const STORES: u64 = 5;

struct Moves {
    group: Group,
    register: Register,
    dice: Dice,
}

impl Moves {
    /// Passes on what managers report, sometimes late.
    fn reports(&mut self) {
        for number in 1..=STORES {
            let told = std::mem::take(&mut self.group.member(number).told);
            for effect in told {
                if let Effect::Lead { epoch } = effect {
                    self.register.led(epoch);
                }
            }
        }
    }

    /// Names a manager among the new members, and sometimes a list that differs by one.
    fn nominate(&mut self, change: bool) {
        let mut list: BTreeSet<StoreId> = self.register.current().as_slice().iter().copied().collect();
        if change {
            let other = store(self.dice.below(5) as u64 + 1);
            if !list.remove(&other) {
                list.insert(other);
            }
        }
        let list: Vec<StoreId> = list.into_iter().collect();
        let manager = list.get(self.dice.below(list.len().max(1))).copied();
        let (Some(manager), Ok((epoch, membership))) =
            (manager, self.register.nominate(epoch(0), Members::of(&list)))
        else {
            return;
        };
        self.group.nominate_with(manager.0, epoch.get(), &membership);
    }

    fn step(&mut self) {
        let number = self.dice.below(5) as u64 + 1;
        let running = self.group.member(number).replica.is_some();
        match self.dice.below(120) {
            0 | 1 => {
                let change = self.dice.below(2) == 0;
                self.nominate(change);
            }
            2 if running => self.group.crash(number),
            3 | 4 if !running => self.group.start(number),
            5 => self.reports(),
            6 => self.group.member(number).syncs = false,
            7..=9 => self.group.member(number).syncs = true,
            10..=13 => self.group.sync(number),
            14..=20 => propose(&mut self.group, &mut self.dice),
            21..=25 => {
                self.group.now = self.group.now.after_micros(10);
                self.group.input(number, Input::Tick);
            }
            _ => shuffle_network(&mut self.group, &mut self.dice),
        }
    }

    fn heal(&mut self) -> u64 {
        for number in 1..=STORES {
            self.group.member(number).syncs = true;
            if self.group.member(number).replica.is_none() {
                self.group.start(number);
            }
            self.group.sync(number);
        }
        self.group.settle();
        self.reports();
        let list = self.register.current().clone();
        let (epoch, membership) = self.register.nominate(epoch(0), list.clone()).unwrap();
        let manager = list.as_slice()[0].0;
        self.group.nominate_with(manager, epoch.get(), &membership);
        self.group.settle();
        self.group.settle();
        self.group.propose(manager, &[]);
        self.group.settle();
        manager
    }

    fn judge(&self, manager: u64) -> Result<(), String> {
        if self.group.role(manager) != RoleName::Leader {
            return Err(format!("s{manager} does not lead"));
        }
        let members = self.register.current();
        let lost: Vec<(StoreId, OpId)> =
            self.group.lost().into_iter().filter(|(store, _)| members.contains(*store)).collect();
        if !lost.is_empty() {
            return Err(format!("acknowledged items are lost: {lost:?}"));
        }
        let point = self.group.replica(manager).checkpoint();
        match members.as_slice().iter().find(|member| self.group.replica(member.0).checkpoint() != point) {
            Some(behind) => Err(format!("{behind} does not converge")),
            None => Ok(()),
        }
    }
}

/// One run: whether the members changed, or what went wrong.
fn run(seed: u64, config: &Config) -> Result<bool, String> {
    let mut moves = Moves {
        group: Group::with(STORES, config),
        register: Register::new(Members::of(&[store(1), store(2), store(3)])),
        dice: Dice(seed),
    };
    for _ in 0..3_000 {
        moves.step();
    }
    let manager = moves.heal();
    moves.judge(manager)?;
    Ok(moves.register.current() != &Members::of(&[store(1), store(2), store(3)]))
}

#[test]
fn nothing_acknowledged_is_lost_while_members_change() {
    let mut changed = 0;
    for seed in seeds(300) {
        match run(seed, &config()) {
            Ok(moved) => changed += u32::from(moved),
            Err(what) => panic!("SEED={seed}: {what}"),
        }
    }
    assert!(changed > 0 || std::env::var_os("SEED").is_some(), "no run changed its members");
}
