//! Propose, acknowledge and commit allocate nothing once their rings have grown.
#![expect(
    unsafe_code,
    reason = "a counting allocator has to implement GlobalAlloc; it only counts and passes on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kvorum_sync::{
    Config, Durable, Effect, Effects, Input, KeyHash, Keys, Membership, Message, Moment, Names, Proposal,
    RecordId, Replica, StoreId, Token,
};

use crate::group::epoch;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Group {
    members: Vec<Replica>,
    effects: Effects,
    outbox: Vec<(usize, u64, Message)>,
    inbox: Vec<(usize, u64, Message)>,
    synced: [RecordId; 3],
    committed: u64,
    proposed: u64,
}

impl Group {
    fn step(&mut self, member: usize, input: Input) {
        self.members[member].step(Moment(1), input, &mut self.effects);
        for effect in self.effects.drain() {
            match effect {
                Effect::Persist { id, .. } => self.synced[member] = id,
                Effect::Send { to, message, .. } => self.outbox.push((member, to.0, message)),
                Effect::Committed { first, last } => self.committed += last.version() - first.version() + 1,
                _ => {}
            }
        }
    }

    fn run(&mut self) {
        loop {
            for member in 0..3 {
                let upto = self.synced[member];
                self.step(member, Input::Persisted { upto });
            }
            std::mem::swap(&mut self.inbox, &mut self.outbox);
            if self.inbox.is_empty() {
                return;
            }
            let mut inbox = std::mem::take(&mut self.inbox);
            for (from, to, message) in inbox.drain(..) {
                self.step(
                    usize::try_from(to).unwrap(),
                    Input::Message { from: StoreId(from as u64), message },
                );
            }
            self.inbox = inbox;
        }
    }

    fn propose(&mut self, items: u64) {
        for _ in 0..items / 32 {
            for _ in 0..32 {
                self.proposed += 1;
                let keys = Keys::Of(Names::one(KeyHash(self.proposed)));
                self.step(
                    0,
                    Input::Propose(Proposal { token: Token(self.proposed), keys, ..Proposal::default() }),
                );
            }
            self.run();
        }
    }
}

#[test]
fn an_item_allocates_nothing_after_warm_up() {
    let config = Config { gather_grace_micros: 0, ..Config::default() };
    let mut effects = Effects::new();
    let members = (0..3).map(|id| {
        Replica::recover(StoreId(id), 1, config.clone(), &Durable::default(), true, Moment(1), &mut effects)
    });
    let mut group = Group {
        members: members.collect(),
        effects: Effects::new(),
        outbox: Vec::new(),
        inbox: Vec::new(),
        synced: [RecordId(0); 3],
        committed: 0,
        proposed: 0,
    };
    let membership = Membership::steady(&[StoreId(0), StoreId(1), StoreId(2)]);
    group.step(0, Input::Nominate { epoch: epoch(1), membership });
    group.run();
    group.propose(20_000);
    let (before, committed) = (ALLOCATIONS.with(Cell::get), group.committed);
    group.propose(20_000);
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!(group.committed - committed, 20_000);
    assert_eq!(allocations, 0, "allocations for 20,000 items after warm-up");
}
