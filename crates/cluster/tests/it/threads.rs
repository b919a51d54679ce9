//! Many threads on one node.

use crate::support::{Client, World};
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
