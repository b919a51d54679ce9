//! One trouble at a time.

use super::client::Client;
use super::group::Group;
use super::node::Node;
use super::{check, heal, seeds};
use bytes::Bytes;
use kvorum_cluster::shard::{Done, Draft, Member, MemberInput, MemberRole, Outbox, ShardMessage, Writes};
use kvorum_engine::fs::sim::{Fault, Operation};
use kvorum_engine::{Attributes, Batch, Durability, TreeSettings};
use kvorum_sync::{
    Epoch, Fetch, Holders, Membership, Message, Moment, OpId, StoreId, Token, TransferId, Want,
};

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

#[test]
fn a_shard_that_was_written_alone_becomes_a_group() {
    for seed in seeds(12) {
        let first = Node::new(StoreId(11), seed);
        let mut client = Client::default();
        {
            let parts = first.parts(1);
            let tree = parts.store.tree("n0/s3", TreeSettings::with_history()).unwrap();
            for serial in 1..40 {
                let op = OpId::new(epoch(1), serial);
                let (key, value) =
                    (format!("\u{10}key-{serial}"), format!("alone-{serial}-{}", "x".repeat(300)));
                let mut batch = Batch::new();
                batch.put(&tree, key.as_bytes(), op.version(), value.as_bytes(), Attributes::default());
                parts.store.write(&batch, Durability::Synced).unwrap().wait().unwrap();
                client.wrote_alone(op, key.as_bytes(), value.as_bytes());
            }
            let mut batch = Batch::new();
            let converted = Member::convert(&parts, epoch(2), 1000, &mut batch).unwrap();
            assert_eq!(converted, Some(OpId::new(epoch(2), 0)));
            parts.store.write(&batch, Durability::Synced).unwrap().wait().unwrap();
            let again = Member::convert(&parts, epoch(3), 2000, &mut Batch::new()).unwrap();
            assert_eq!(again, None, "there is a member already");
        }
        let others = [12, 13].map(|id| Node::new(StoreId(id), seed ^ id));
        let mut group = Group::of(seed, std::iter::once(first).chain(others).collect(), 1, client);
        for _ in 0..1500 {
            group.turn();
            if group.dice.u8(..8) == 0 {
                group.write();
            }
        }
        heal(&mut group, seed);
        check(&group);
        assert!(group.met.files > 0, "what was written alone goes as files: {:?}", group.met);
        assert!(group.met.committed > 0);
    }
}

#[test]
fn a_member_that_holds_something_else_is_found_and_starts_over() {
    for seed in seeds(12) {
        let mut group = Group::new(seed);
        group.healed = true;
        for turn in 0..4000 {
            group.turn();
            if turn % 16 == 0 && turn < 3000 {
                group.write();
            }
            if turn == 1000 {
                let leading = group.leading().expect("somebody leads by now");
                group.spoils = Some(group.nodes[(leading + 1) % 3].id);
            }
        }
        assert!(group.spoils.is_none() && group.met.fenced > 0, "seed {seed}: {:?}", group.met);
        heal(&mut group, seed);
        check(&group);
        assert!(group.met.installed > 0, "it got another tree: {:?}", group.met);
    }
}

/// Steps a member of a group of one until it leads.
fn lead(node: &mut Node) {
    let mut out = Outbox::default();
    node.start(1, 7, &mut out);
    let process = node.process.as_mut().unwrap();
    let membership = Membership::steady(&[node.id]);
    process.member.step(Moment(2), MemberInput::Nominate { epoch: epoch(1), membership }, &mut out);
    for _ in 0..4 {
        let synced = process.sync();
        process.member.step(Moment(3), MemberInput::Durable(synced), &mut out);
    }
    assert!(process.member.leads() && out.led);
}

#[test]
fn a_member_whose_store_refuses_a_record_stands_still() {
    let mut node = Node::new(StoreId(5), 3);
    lead(&mut node);
    let process = node.process.as_mut().unwrap();
    let mut out = Outbox::default();
    let propose = |member: &mut Member, out: &mut Outbox, token: u64| {
        let mut writes = Writes::new();
        writes.put(b"\x10k", b"v", Attributes::default());
        let draft = Draft { token: Some(Token(token)), wall_ms: 1, writes, ..Draft::default() };
        let mut batch = Batch::new();
        member.propose(Moment(9), draft, &mut batch, out).unwrap();
        batch
    };
    let first = propose(&mut process.member, &mut out, 1);
    let commit = process.store.write_admitted(&first, Durability::Synced).unwrap();
    process.member.stored(commit.sequence(), &mut out);
    node.fs.inject(Fault::once(Operation::Sync, "wal"));
    assert!(commit.wait().is_err());
    let second = propose(&mut process.member, &mut out, 2);
    let error = process.store.write_admitted(&second, Durability::Synced).map(drop).unwrap_err();
    process.member.lost(error, &mut out);
    assert_eq!(process.member.role(), MemberRole::Halted);
    assert!(out.halted.is_some() && out.sends.is_empty());
    let unknown = |token| (Token(token), Done::Unknown);
    assert_eq!(out.done, [unknown(1), unknown(2)], "nobody here will ever know");
    assert!(process.member.room().is_err());

    node.fs.heal();
    node.crash(false, 0);
    lead_again(&mut node);
}

/// After a restart over the same disk.
fn lead_again(node: &mut Node) {
    let mut out = Outbox::default();
    node.start(20, 8, &mut out);
    let process = node.process.as_mut().unwrap();
    let membership = Membership::steady(&[node.id]);
    let below = MemberInput::Nominate { epoch: epoch(1), membership: membership.clone() };
    process.member.step(Moment(21), below, &mut out);
    assert!(!process.member.leads(), "a manager that restarted never acts in its old epoch");
    process.member.step(Moment(22), MemberInput::Nominate { epoch: epoch(2), membership }, &mut out);
    for _ in 0..4 {
        let synced = process.sync();
        process.member.step(Moment(23), MemberInput::Durable(synced), &mut out);
    }
    assert!(process.member.leads());
}

/// Writes something at the leader; answers its op id.
fn write_one(group: &mut Group) -> OpId {
    loop {
        let next = group.leading().and_then(|at| group.nodes[at].member().unwrap().next_op());
        group.write();
        let leader = group.leading().map(|at| group.nodes[at].member().unwrap());
        if let Some(next) = next.filter(|next| leader.is_some_and(|leader| leader.next_op() > Some(*next))) {
            return next;
        }
        group.turn();
    }
}

#[test]
fn who_holds_an_item_is_told_once_enough_do_or_time_is_over() {
    for seed in seeds(6) {
        let mut group = Group::new(seed);
        heal(&mut group, seed);
        let gone = (group.leading().unwrap() + 1) % 3;
        group.crash(gone, true, 0);
        group.nodes[gone].down_until = u64::MAX;
        let op = write_one(&mut group);
        let until = group.now + 300_000;
        group.watch(Token(1), op, 2, until);
        while group.held.is_empty() {
            group.turn();
        }
        assert_eq!(group.held, [(Token(1), Holders { leader: true, others: 1 })], "seed {seed}");
        assert!(group.now >= until, "seed {seed}: one more might have come");

        heal(&mut group, seed);
        let op = write_one(&mut group);
        group.watch(Token(2), op, 2, u64::MAX);
        assert_eq!(group.held.len(), 1, "seed {seed}: nobody can have said so yet");
        while group.held.len() < 2 {
            group.turn();
        }
        assert_eq!(group.held[1], (Token(2), Holders { leader: true, others: 2 }), "seed {seed}");
        for node in &mut group.nodes {
            node.crash(true, 0);
            let held = node.parts(9).store.find_tree("n0/s3").unwrap().note(op.version()).unwrap();
            assert!(held.is_some(), "seed {seed}: a power loss took {op} from {}", node.id);
        }
    }
}

#[test]
fn a_member_that_was_opened_again_serves_nothing_whose_history_it_cut_before() {
    let mut node = Node::new(StoreId(5), 4);
    lead(&mut node);
    let mut out = Outbox::default();
    let process = node.process.as_mut().unwrap();
    for round in 1..=40 {
        let now = Moment(round * 1_000_000);
        let mut writes = Writes::new();
        writes.put(b"\x10k", &round.to_le_bytes(), Attributes::default());
        let mut batch = Batch::new();
        let draft = Draft { wall_ms: round, writes, ..Draft::default() };
        process.member.propose(now, draft, &mut batch, &mut out).unwrap();
        let commit = process.store.write_admitted(&batch, Durability::Synced).unwrap();
        process.member.stored(commit.sequence(), &mut out);
        let synced = process.sync();
        process.member.step(now, MemberInput::Durable(synced), &mut out);
        process.member.step(now, MemberInput::Tick, &mut out);
        process.member.upkeep(now, 0, &mut out).unwrap();
    }
    process.sync();
    node.crash(false, 0);
    let mut out = Outbox::default();
    node.start(50_000_000, 8, &mut out);
    let process = node.process.as_mut().unwrap();
    // Below what the tree shows by now, and from before what it knows of deletions: as files, if at all.
    let want = Want::Final { since: OpId::ZERO, upto: OpId::new(epoch(1), 20), doubtful: Vec::new() };
    let transfer = TransferId { nonce: 1, number: 1 };
    let fetch = Fetch { transfer, epoch: epoch(1), want, next: 0, credit: 4, cursor: [].into() };
    let message = ShardMessage { message: Message::Fetch(Box::new(fetch)), payload: Bytes::new() };
    process.member.step(Moment(50_000_001), MemberInput::Message { from: StoreId(6), message }, &mut out);
    let answers: Vec<&Message> = out.sends.iter().map(|send| &send.message.message).collect();
    assert!(answers.contains(&&Message::CannotServe { transfer }), "{answers:?}");
    assert!(out.jobs.is_empty());
}

#[test]
fn what_a_member_leaves_behind_is_removed_and_it_may_come_back() {
    for seed in seeds(6) {
        let nodes = [11, 12, 13, 14].map(|id| Node::new(StoreId(id), seed ^ id)).into();
        let mut group = Group::of(seed, nodes, 3, Client::default());
        let all = group.target.clone();
        group.target.retain(|store| *store != StoreId(14));
        for turn in 0..1500 {
            group.turn();
            if turn % 8 == 0 {
                group.write();
            }
        }
        group.target = [11, 12, 14].map(StoreId).into();
        while group.is_changing() {
            group.turn();
        }
        let gone = 2;
        group.crash(gone, true, 0);
        group.nodes[gone].down_until = u64::MAX;
        let late = epoch(1 << 20);
        {
            let parts = group.nodes[gone].parts(91);
            assert!(
                !Member::leave(&parts, Epoch::ZERO).unwrap(),
                "seed {seed}: the map is from before it joined"
            );
            assert!(parts.store.find_tree("n0/s3").unwrap().stats().entries > 0, "seed {seed}");
            assert!(Member::leave(&parts, late).unwrap(), "seed {seed}");
        }
        group.nodes[gone].crash(true, u64::MAX);
        {
            let parts = group.nodes[gone].parts(92);
            assert_eq!(parts.store.find_tree("n0/s3").unwrap().stats().entries, 0, "seed {seed}");
            let others = parts.store.tree_names().iter().filter(|name| name.contains('~')).count();
            assert_eq!(others, 0, "seed {seed}: nothing half-made stays");
            assert!(!Member::leave(&parts, late).unwrap(), "seed {seed}: once is enough");
        }
        group.nodes[gone].crash(true, 0);
        group.target = all;
        for turn in 0..1500 {
            group.turn();
            if turn % 8 == 0 {
                group.write();
            }
        }
        heal(&mut group, seed);
        check(&group);
    }
}

#[test]
fn a_read_that_waits_when_the_member_halts_is_answered() {
    let mut node = Node::new(StoreId(5), 3);
    lead(&mut node);
    let process = node.process.as_mut().unwrap();
    let mut out = Outbox::default();
    let mut writes = Writes::new();
    writes.put(b"\x10k", b"v", Attributes::default());
    let draft = Draft { token: Some(Token(1)), wall_ms: 1, writes, ..Draft::default() };
    let mut batch = Batch::new();
    let op = process.member.propose(Moment(9), draft, &mut batch, &mut out).unwrap();
    let commit = process.store.write_admitted(&batch, Durability::Synced).unwrap();
    process.member.stored(commit.sequence(), &mut out);
    process.member.read(Moment(9), Token(2), &[op], &mut out);
    let wanted = Holders { leader: true, others: 0 };
    process.member.watch(Moment(9), Token(3), (op, wanted), Moment(u64::MAX), &mut out);
    assert!(out.done.is_empty(), "all three wait for the disk");
    let error = kvorum_engine::Error::Invalid("no disk".to_owned());
    process.member.lost(error, &mut out);
    assert_eq!(out.done, [(Token(1), Done::Unknown), (Token(3), Done::Again), (Token(2), Done::Again)]);
}
