//! Commands of several connections that are ready at one moment, one of which needs the disk.

use super::*;
use kvorum_model::Reply;
use std::sync::mpsc;

/// A runtime with one thread for what may wait for the disk.
fn run_with_one_reader(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(test);
}

/// One connection's buffer.
async fn buffer(node: &Node, lines: &str) -> Vec<Reply> {
    let words = words(lines.split(" · "));
    let requests = requests(NamespaceId::ZERO, &words);
    node.serve(&mut Session::new(), &requests).await
}

/// `slow` needs the disk, which answers nobody; `quick` is ready at the same moment, behind it, and is answered. Then the disk answers.
async fn waits_alone(node: &Node, slow: &str, quick: &str) -> (Vec<Reply>, Vec<Reply>) {
    let (answer, disk) = mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || disk.recv());
    let mut slow = std::pin::pin!(buffer(node, slow));
    let quick = within("what needs no disk is answered", node, async {
        tokio::select! {
            biased;
            replies = &mut slow => panic!("the disk did not answer, and still: {replies:?}"),
            replies = buffer(node, quick) => replies,
        }
    });
    let quick = quick.await;
    answer.send(()).unwrap();
    let slow = within("the disk has answered", node, slow).await;
    busy.await.unwrap().unwrap();
    (slow, quick)
}

#[test]
fn who_needs_the_disk_delays_nobody_else() {
    run_with_one_reader(async {
        let disks = (0..3).map(|number| (number, SimFs::new(number as u64))).collect();
        let world = World::with_disks(3, disks);
        world.settle().await;
        // Each in a table of its own: a block that was read for one says nothing of another.
        for (key, value) in [("{a}cold", "1"), ("{a}counter", "5"), ("{a}hot", "3")] {
            world.put(key.as_bytes(), value.as_bytes()).await;
            world.running().for_each(|node| node.flush().unwrap());
        }
        world.disks.values().for_each(|disk| disk.set_cold_reads(1));
        world.put(b"{a}hot", b"4").await;
        let leader = world.leader(b"{a}hot").expect("it was written just now");
        let (slow, quick) = waits_alone(world.node(leader), "GET {a}cold", "GET {a}hot").await;
        assert_eq!((slow, quick), (vec![Reply::bulk("1")], vec![Reply::bulk("4")]));
        let slow = "SET {a}before 6 · INCR {a}counter · INCR {a}before";
        let (slow, quick) = waits_alone(world.node(leader), slow, "SET {a}hot 7 · GET {a}hot").await;
        assert_eq!(quick, [Reply::Ok, Reply::bulk("7")]);
        assert_eq!(slow, [Reply::Ok, Reply::Integer(6), Reply::Integer(7)]);
    });
}
