use super::evaluator::Commanded;
use super::*;
use crate::keys::with_user_key;
use crate::prefetch::Fetched;
use crate::testing::TestClock;
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Attributes, Batch, Durability, Parts, Settings, Store, TreeSettings};
use kvorum_model::{Args, CommandSpec, resolve};
use kvorum_sync::Epoch;
use std::collections::BTreeSet;
use std::sync::Arc;

const NOW_MS: u64 = 1_780_000_000_000;

/// A leader of whose items some are pending.
#[derive(Default)]
struct Fake {
    pending: BTreeSet<OpId>,
    clear: Option<OpId>,
    last_time_ms: u64,
}

impl Leader for Fake {
    fn is_committed(&self, op: OpId) -> bool {
        !self.pending.contains(&op) && op < op_at(100)
    }

    fn pending_clear(&self) -> Option<OpId> {
        self.clear
    }

    fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }
}

fn op_at(serial: u64) -> OpId {
    OpId::new(Epoch::new(7).unwrap(), serial)
}

/// A shard whose next item gets serial 100.
struct World {
    leader: Fake,
    store: Store,
    tree: Tree,
    fetching: Fetching,
    fetched: Fetched,
}

impl World {
    fn new() -> World {
        World::on(&SimFs::new(1))
    }

    fn on(fs: &SimFs) -> World {
        let parts = Parts::new(Arc::new(fs.clone()), TestClock::at(NOW_MS));
        let mut settings = Settings::default();
        (settings.background_threads, settings.memory_bytes) = (false, 8 << 20);
        let store = Store::open("/data", settings, parts).unwrap();
        let tree = store.tree("t", TreeSettings::with_history()).unwrap();
        let leader = Fake { last_time_ms: NOW_MS, ..Fake::default() };
        World { leader, store, tree, fetching: Fetching::default(), fetched: Fetched::default() }
    }

    /// A key as it stands, written by the item of this serial.
    fn has(&mut self, key: &str, value: &str, serial: u64, expires_at: Option<u64>) {
        let mut batch = Batch::new();
        let attributes = Attributes { expires_at, tag: 0 };
        with_user_key(key.as_bytes(), |key| {
            batch.put(&self.tree, key, op_at(serial).version(), value.as_bytes(), attributes);
        });
        self.store.write(&batch, Durability::Written).unwrap().wait().unwrap();
    }

    fn is_pending(&mut self, serial: u64) {
        self.leader.pending.insert(op_at(serial));
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            leader: &self.leader,
            tree: &self.tree,
            namespace: NamespaceId::ZERO,
            next: op_at(100),
            now_ms: NOW_MS,
            fetching: &self.fetching,
            fetched: &self.fetched,
            all_keys: None,
            limits: Limits { value_bytes_max: 1 << 20, batch_bytes_max: 1 << 20 },
        }
    }
}

/// Commands, a line each.
struct Lines(Vec<Vec<&'static [u8]>>);

fn lines(text: &'static str) -> Lines {
    Lines(text.split(" · ").map(|line| line.split(' ').map(str::as_bytes).collect()).collect())
}

impl Lines {
    fn list(&self) -> Vec<(&'static CommandSpec, Args<'_>)> {
        self.0.iter().map(|words| (resolve(Args::new(words)).unwrap(), Args::new(words))).collect()
    }
}

fn run<'r>(world: &World, lines: &'r Lines) -> Commanded<'r> {
    commands(&world.ground(), lines.list().into_iter(), None)
}

fn serials(ops: &[OpId]) -> Vec<u64> {
    ops.iter().map(|op| op.serial()).collect()
}

fn items(commanded: &Commanded<'_>) -> Vec<Option<usize>> {
    commanded.done.iter().map(|done| done.item).collect()
}

#[test]
fn writes_of_a_buffer_make_one_item_until_a_key_comes_again() {
    let world = World::new();
    let text = lines("SET a 1 · SETV b 2 · GET a · SETV a 3 · SET c 4 · SET b 5 · SET b 6");
    let commanded = run(&world, &text);
    assert_eq!(items(&commanded), [Some(0), Some(0), None, Some(1), Some(1), Some(1), Some(2)]);
    assert_eq!(commanded.done[1].reply, Reply::version(op_at(100).version()));
    assert_eq!(commanded.done[3].reply, Reply::version(op_at(101).version()), "it foresees its item");
    assert_eq!(commanded.items.iter().map(|item| item.effects.len()).collect::<Vec<_>>(), [2, 3, 1]);
    assert_eq!(commanded.done[2].reply, Reply::bulk("1"));
    assert_eq!(serials(&commanded.rests.ops), [100], "the GET waits for the SET before it");
    assert!(commanded.stopped.is_none());
}

#[test]
fn items_are_bounded_but_a_command_is_one() {
    let world = World::new();
    let keys: Vec<String> = (0..ITEM_KEYS_MAX * 2 + 10).map(|i| format!("k{i}")).collect();
    let sets: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![&b"SET"[..], key.as_bytes(), b"v"]).collect();
    let spec = resolve(Args::new(&sets[0])).unwrap();
    let commanded = commands(&world.ground(), sets.iter().map(|words| (spec, Args::new(words))), None);
    let sizes: Vec<_> = commanded.items.iter().map(|item| item.effects.len()).collect();
    assert_eq!(sizes, [ITEM_KEYS_MAX, ITEM_KEYS_MAX, 10]);
    let mut all = vec![&b"MSET"[..]];
    keys.iter().for_each(|key| all.extend([key.as_bytes(), b"v"]));
    let spec = resolve(Args::new(&all)).unwrap();
    let commanded = commands(&world.ground(), std::iter::once((spec, Args::new(&all))), None);
    assert_eq!(commanded.items.len(), 1);
}

#[test]
fn what_reads_pending_items_names_them() {
    let mut world = World::new();
    world.has("n", "5", 90, None);
    world.has("settled", "5", 10, None);
    world.has("other", "x", 91, None);
    world.is_pending(90);
    world.is_pending(91);
    let text = lines("INCR n · INCR settled · GET other · SETNX other y · INCR n");
    let commanded = run(&world, &text);
    assert_eq!(items(&commanded), [Some(0), Some(0), None, None, Some(1)]);
    assert_eq!(serials(&commanded.items[0].reads), [90]);
    assert_eq!(serials(&commanded.items[1].reads), [100], "on top of the first INCR");
    assert_eq!(commanded.done[4].reply, Reply::Integer(7));
    assert_eq!(
        serials(&commanded.rests.ops),
        [91],
        "the failed SETNX rests on a write that may be cancelled"
    );
}

#[test]
fn errors_rest_on_what_they_saw() {
    let mut world = World::new();
    world.has("text", "x", 90, None);
    world.is_pending(90);
    let text = lines("INCR text · SET text y IFVERSION 1");
    let commanded = run(&world, &text);
    assert!(commanded.done.iter().all(|done| done.reply.is_error() && done.item.is_none()));
    assert_eq!(serials(&commanded.rests.ops), [90]);
}

#[test]
fn absence_rests_on_a_pending_clear() {
    let mut world = World::new();
    world.leader.clear = Some(op_at(95));
    world.is_pending(95);
    let text = lines("GET nothing · SETNX nothing 1");
    let commanded = run(&world, &text);
    assert_eq!(serials(&commanded.rests.ops), [95]);
    assert_eq!(serials(&commanded.items[0].reads), [95]);
}

#[test]
fn a_labelled_read_does_not_wait() {
    let mut world = World::new();
    world.has("k", "v", 90, None);
    world.has("old", "v", 10, None);
    world.is_pending(90);
    let text = lines("GETV k · GETV old");
    let commanded = run(&world, &text);
    let label = |at: usize| match &commanded.done[at].reply {
        Reply::Array(parts) => parts[2].clone(),
        reply => panic!("{reply:?}"),
    };
    assert_eq!((label(0), label(1)), (Reply::bulk("new"), Reply::bulk("stable")));
    assert!(commanded.rests.ops.is_empty());
}

#[test]
fn expiry_waits_for_an_item_that_carries_the_time() {
    let mut world = World::new();
    world.leader.last_time_ms = NOW_MS - 1000;
    world.has("long", "v", 10, Some(NOW_MS - 5000));
    world.has("just", "v", 11, Some(NOW_MS - 500));
    world.has("later", "v", 12, Some(NOW_MS + 1));
    let rests = |text| run(&world, &lines(text)).rests;
    assert!(!rests("GET long").on_time && !rests("GET later").on_time && !rests("GET none").on_time);
    assert!(rests("GET long").ops.is_empty());
    assert!(rests("GET just").on_time);
    let text = lines("SETNX just 1");
    let commanded = run(&world, &text);
    assert!(!commanded.rests.on_time, "its own item carries the time");
    world.leader.last_time_ms = NOW_MS;
    world.is_pending(99);
    assert_eq!(
        serials(&run(&world, &lines("GET just")).rests.ops),
        [99],
        "the last item carries it, once it is committed"
    );
}

#[test]
fn a_transaction_stores_the_last_of_each_key() {
    let mut world = World::new();
    world.has("n", "5", 90, None);
    world.is_pending(90);
    let text = lines("INCR n · INCR n · SETV m 1 · DEL m · GET n");
    let Transacted::Done { reply, item: Some(item), rests } =
        transaction(&world.ground(), &text.list(), &[], None)
    else {
        panic!("it writes")
    };
    let version = Reply::version(op_at(100).version());
    let number = Reply::Integer;
    assert_eq!(reply, Reply::Array(vec![number(6), number(7), version, number(1), Reply::bulk("7")]));
    assert!(item.effects.len() == 2 && !item.clears);
    assert_eq!(serials(&item.reads), [90]);
    assert!(!rests.wanted, "its replies share the item's fate");
    let reads = lines("GET n · GET none");
    let done = transaction(&world.ground(), &reads.list(), &[], None);
    assert!(matches!(done, Transacted::Done { item: None, rests, .. } if serials(&rests.ops) == [90]));
}

#[test]
fn a_watched_key_with_another_version_stops_a_transaction() {
    let mut world = World::new();
    world.has("k", "v", 90, None);
    world.is_pending(90);
    let text = lines("SET a 1");
    let version = op_at(90).version();
    let with = |watched: &[(&[u8], u64)]| transaction(&world.ground(), &text.list(), watched, None);
    let Transacted::Done { item: Some(item), .. } = with(&[(b"k", version), (b"none", 0)]) else {
        panic!("unchanged")
    };
    assert_eq!(serials(&item.reads), [90], "that it is unchanged rests on a pending write");
    assert!(matches!(with(&[(b"k", 1)]), Transacted::Changed(rests) if serials(&rests.ops) == [90]));
    assert!(matches!(with(&[(b"none", 5)]), Transacted::Changed(_)));
}

#[test]
fn a_request_with_an_id_is_executed_once() {
    let mut world = World::new();
    let key = record_key(b"id-1");
    let named = || Some((0, Named { key: &key, fetched: None }));
    let text = lines("INCR n");
    let commanded = commands(&world.ground(), text.list().into_iter(), named());
    let (record_key, value, expires_at) = commanded.items[0].record.clone().unwrap();
    assert_eq!((&record_key, expires_at), (&key, NOW_MS + record::RECORD_LIFE_MS));
    // The item is stored, and pending.
    let mut batch = Batch::new();
    let attributes = Attributes { expires_at: Some(expires_at), tag: 0 };
    batch.put(&world.tree, &record_key, op_at(99).version(), &value, attributes);
    world.store.write(&batch, Durability::Written).unwrap().wait().unwrap();
    world.has("n", "1", 99, None);
    world.is_pending(99);
    let again = commands(&world.ground(), text.list().into_iter(), named());
    assert_eq!((again.done[0].reply.clone(), again.items.len()), (Reply::Integer(1), 0));
    assert_eq!(serials(&again.rests.ops), [99], "the retry waits for what it repeats");
    let other = lines("INCR m");
    let refused = commands(&world.ground(), other.list().into_iter(), named());
    assert!(refused.done[0].reply.is_error() && refused.items.is_empty());
    let unnamed = commands(&world.ground(), text.list().into_iter(), None);
    assert_eq!(unnamed.done[0].reply, Reply::Integer(2));
    let whole = transaction(&world.ground(), &text.list(), &[], named().map(|(_, named)| named));
    assert!(matches!(whole, Transacted::Done { item: None, .. }));
}

#[test]
fn one_batch_takes_so_much_and_the_rest_comes_after() {
    let world = World::new();
    let value = vec![b'x'; 400_000];
    let words: Vec<Vec<&[u8]>> = (0..5).map(|_| vec![&b"SET"[..], b"k", &value]).collect();
    let spec = resolve(Args::new(&words[0])).unwrap();
    let commanded = commands(&world.ground(), words.iter().map(|words| (spec, Args::new(words))), None);
    assert_eq!(commanded.done.len(), 3);
    assert!(matches!(commanded.stopped, Some(Stopped::Full)));
    let too_large = vec![b'x'; (1 << 20) + 1];
    let words: Vec<&[u8]> = vec![b"SET", b"k", &too_large];
    let refused = commands(&world.ground(), std::iter::once((spec, Args::new(&words))), None);
    assert!(refused.done[0].reply.is_error() && refused.items.is_empty());
}

#[test]
fn versions_of_watched_keys_rest_on_what_is_pending() {
    let mut world = World::new();
    world.has("k", "v", 90, None);
    world.is_pending(90);
    let (found, rests) = versions(&world.ground(), &[b"k", b"none"]).unwrap();
    assert_eq!(found, [op_at(90).version(), 0]);
    assert_eq!(serials(&rests.into_ops()), [90]);
}

#[test]
fn what_is_not_in_memory_stops_the_commands_behind() {
    let fs = SimFs::new(1);
    let mut world = World::on(&fs);
    world.has("k", "v", 10, None);
    world.store.flush().unwrap();
    world.store.close().unwrap();
    let fs = fs.after_kill();
    let world = World::on(&fs);
    fs.set_cold_reads(1);
    let text = lines("SET a 1 · APPEND k x · GET a");
    let commanded = run(&world, &text);
    assert_eq!((commanded.done.len(), commanded.items.len()), (1, 1), "what came before goes on");
    let is_cold =
        |stopped: &Stopped| matches!(stopped, Stopped::Cold { key, with_value: true } if key == b"k");
    assert!(commanded.stopped.as_ref().is_some_and(is_cold), "{:?}", commanded.stopped);
    let whole = transaction(&world.ground(), &text.list(), &[], None);
    assert!(matches!(&whole, Transacted::Stopped(stopped) if is_cold(stopped)), "{whole:?}");
}
