//! Many threads on one node.

use crate::support::{Client, World};
use kvorum_cluster::Node;
use kvorum_model::Reply;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[test]
fn no_increment_is_lost() {
    let world = World::new();
    let node = world.open();
    let threads = 3;
    let rounds = 300;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut client = Client::new(&node);
                for round in 0..rounds {
                    client.run(&format!("INCR n; INCR n; INCR m{}; MGET n m1", round % 5));
                    client.exec("INCR n; INCR {n}x").unwrap();
                }
            });
        }
    });
    let mut client = Client::new(&node);
    assert_eq!(client.text("GET n"), (threads * rounds * 3).to_string());
    assert_eq!(client.text("GET {n}x"), (threads * rounds).to_string());
    assert_eq!(client.text("GET m0"), (threads * rounds / 5).to_string());
}

#[test]
fn nobody_sees_half_of_a_command() {
    let world = World::new();
    let node = world.open();
    let stop = AtomicBool::new(false);
    Client::new(&node).run("MSET a 0 b 0 c 0 d 0");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::new(&node);
            for i in 0..500 {
                client.run(&format!("MSET a {i} b {i} c {i} d {i}"));
                if i % 50 == 0 {
                    client.exec("DEL a; DEL b; DEL c; DEL d; MSET a x b x c x d x").unwrap();
                }
            }
            stop.store(true, SeqCst);
        });
        scope.spawn(|| {
            let mut client = Client::new(&node);
            while !stop.load(SeqCst) {
                let Reply::Array(values) = client.run("MGET a b c d").remove(0) else { panic!("no array") };
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
                let replies = client.exec("GET a; GET b; EXISTS c d; MGET c d").unwrap();
                assert_eq!(replies[0], replies[1]);
                assert_eq!(replies[2], Reply::Integer(2));
                let counted = client.run("DBSIZE").remove(0);
                assert_eq!(counted, Reply::Integer(4));
            }
        });
    });
}

#[test]
fn nothing_is_lost_while_flushes_and_compactions_run() {
    let mut world = World::new();
    world.settings.memory_bytes = 4 << 20;
    // With threads of its own, and the machine's clock.
    let node = Node::open(world.settings.clone()).unwrap();
    let value = |writer: usize, round: usize| format!("{writer}:{round}:{}", "v".repeat(700)).into_bytes();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let node = &node;
            scope.spawn(move || {
                let mut client = Client::new(node);
                for round in 0..400 {
                    let sets: Vec<_> = (0..20)
                        .map(|i| {
                            let key = format!("{writer}:{}", (round * 7 + i * 31) % 500).into_bytes();
                            vec![b"SET".to_vec(), key, value(writer, round)]
                        })
                        .collect();
                    assert!(client.pipeline(&sets).iter().all(|reply| *reply == Reply::Ok));
                    client.run("INCR n; APPEND log x");
                    // Mostly cold: far more data than memory.
                    let at = (round * 7) % 500;
                    let read = client.get(format!("{writer}:{at}").as_bytes()).unwrap();
                    assert_eq!(read, value(writer, round), "{writer}:{at}");
                }
            });
        }
    });
    let check = |node: &Node| {
        let mut client = Client::new(node);
        assert_eq!(client.text("GET n; STRLEN log; DBSIZE"), "800 800 1002");
        for writer in 0..2 {
            for key in 0..500 {
                // The last round that wrote the key.
                let last =
                    (0..400).rfind(|round| (0..20).any(|i| (round * 7 + i * 31) % 500 == key)).unwrap();
                let found = client.get(format!("{writer}:{key}").as_bytes());
                assert_eq!(found, Some(value(writer, last)), "{writer}:{key}");
            }
        }
    };
    check(&node);
    node.shutdown().unwrap();
    drop(node);
    check(&Node::open(world.settings).unwrap());
}

#[test]
fn the_longest_time_that_writers_were_held_back_is_told() {
    let mut world = World::new();
    world.settings.memory_bytes = 4 << 20;
    // Nobody makes room before somebody has to wait for it.
    let node = world.open();
    let figure = |name| node.stats().engine.into_iter().find(|(other, _)| *other == name).unwrap().1;
    assert_eq!(figure("longest_pause_microseconds"), 0);
    let mut client = Client::new(&node);
    for round in 0..4000_u32 {
        let words = vec![b"SET".to_vec(), round.to_string().into_bytes(), vec![b'v'; 700]];
        assert_eq!(client.pipeline(&[words]), [Reply::Ok]);
    }
    assert!(figure("refused_writes") > 0);
    assert!(figure("longest_pause_microseconds") > 0);
}
