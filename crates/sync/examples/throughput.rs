//! Items per second through propose → two followers' acknowledgements → commit, three members on one core, the core alone.
//!
//! `cargo run --release -p kvorum-sync --example throughput [items]`
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]

use std::time::Instant;

use kvorum_sync::{
    After, Config, Durable, Effect, Effects, Epoch, Input, KeyHash, Keys, Membership, Moment, Names,
    Proposal, RecordId, Replica, StoreId, Token,
};

/// Items proposed before the network and the disks get their turn.
const BATCH: u64 = 64;

struct Group {
    members: Vec<Replica>,
    effects: Effects,
    messages: Vec<(usize, usize, kvorum_sync::Message)>,
    synced: Vec<RecordId>,
    committed: u64,
}

impl Group {
    fn new() -> Group {
        let mut effects = Effects::new();
        let config = Config { gather_grace_micros: 0, ..Config::default() };
        let member = |number| {
            Replica::recover(
                StoreId(number),
                1,
                config.clone(),
                &Durable::default(),
                true,
                Moment(1),
                &mut effects,
            )
        };
        let members = (0..3).map(member).collect();
        let synced = vec![RecordId(0); 3];
        Group { members, effects, messages: Vec::new(), synced, committed: 0 }
    }

    fn step(&mut self, member: usize, input: Input) {
        self.members[member].step(Moment(2), input, &mut self.effects);
        for effect in self.effects.drain() {
            match effect {
                Effect::Persist { id, .. } => self.synced[member] = id,
                Effect::Send { to, message, after, .. } => {
                    if let After::Durable(record) = after {
                        self.synced[member] = record;
                    }
                    self.messages.push((member, usize::try_from(to.0).unwrap(), message));
                }
                Effect::Committed { first, last } => self.committed += last.version() - first.version() + 1,
                _ => {}
            }
        }
    }

    fn run(&mut self) {
        let mut inbox = Vec::new();
        loop {
            for member in 0..3 {
                let upto = self.synced[member];
                self.step(member, Input::Persisted { upto });
            }
            std::mem::swap(&mut inbox, &mut self.messages);
            if inbox.is_empty() {
                return;
            }
            for (from, to, message) in inbox.drain(..) {
                self.step(to, Input::Message { from: StoreId(from as u64), message });
            }
        }
    }
}

/// Nanoseconds that this process has spent on a processor: neighbours on the machine do not count.
fn cpu_nanos() -> Option<u64> {
    std::fs::read_to_string("/proc/self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

fn main() {
    let items: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(4_000_000);
    let mut group = Group::new();
    let membership = Membership::steady(&[StoreId(0), StoreId(1), StoreId(2)]);
    group.step(0, Input::Nominate { epoch: Epoch::new(1).unwrap(), membership });
    group.run();
    let (start, cpu) = (Instant::now(), cpu_nanos());
    let mut proposed = 0;
    while proposed < items {
        for _ in 0..BATCH {
            proposed += 1;
            let keys = Keys::Of(Names::one(KeyHash(proposed.wrapping_mul(0x9E37_79B9_7F4A_7C15))));
            group.step(0, Input::Propose(Proposal { token: Token(proposed), keys, ..Proposal::default() }));
        }
        group.run();
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(group.committed, proposed, "everything proposed is committed");
    let millions = proposed as f64 / 1e6;
    println!(
        "{proposed} items, all three members on this core: {:.2} M items/s by the clock",
        millions / seconds
    );
    if let (Some(before), Some(after)) = (cpu, cpu_nanos()) {
        println!("{:.2} M items per second of processor time", millions / ((after - before) as f64 / 1e9));
    }
}
