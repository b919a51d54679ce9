//! Transactions in a namespace of one shard, which are within it whatever they do.

use super::available::until;
use super::*;
use crate::Served;
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use crate::session::Watched;
use kvorum_model::Reply;

async fn exec(node: &Node, namespace: NamespaceId, lines: &str) -> Served {
    let words = words(lines.split(" · "));
    let requests = requests(namespace, &words);
    node.serve_transaction(&mut Session::new(), &requests, &Watched::new()).await
}

async fn replies(node: &Node, namespace: NamespaceId, lines: &str) -> Vec<Reply> {
    match exec(node, namespace, lines).await {
        Served::Done(replies) => replies,
        other => panic!("{lines}: {other:?}"),
    }
}

fn list(words: &[&str]) -> Reply {
    Reply::Array(words.iter().map(|word| Reply::bulk(*word)).collect())
}

#[test]
fn commands_over_all_keys_run_within_a_transaction_of_one_shard() {
    run(async {
        let world = World::new(3);
        world.settle().await;
        let mut settings = NamespaceSettings::new(Mode::Strong);
        settings.shards = 1;
        let made = world.node(0).namespaces().create("one", settings).await.unwrap().id;
        for node in world.running() {
            until("the namespace is known", node, || node.inner.namespaces.get(made.id()).is_some()).await;
        }
        let number = Reply::Integer;
        // At the leader, and through nodes that are not.
        for node in world.running() {
            let found = replies(node, made, "FLUSHDB · DBSIZE · SET a 1 · SET b 2 · DBSIZE · KEYS *").await;
            let expected = [Reply::Ok, number(0), Reply::Ok, Reply::Ok, number(2), list(&["a", "b"])];
            assert_eq!(found, expected);
            let found = replies(node, made, "SET c 3 PX 1 · DBSIZE · KEYS [ab] · DEL a · KEYS *").await;
            assert_eq!(found[..3], [Reply::Ok, number(3), list(&["a", "b"])]);
            let Reply::Array(mut keys) = found[4].clone() else { panic!("{found:?}") };
            keys.retain(|key| *key != Reply::bulk("c"));
            assert_eq!((&found[3], keys), (&number(1), vec![Reply::bulk("b")]));
            let found =
                replies(node, made, "RANDOMKEY · SET x 1 · FLUSHDB · RANDOMKEY · GET x · SET d 4").await;
            assert!(found[0] == Reply::bulk("b") || found[0] == Reply::bulk("c"), "{found:?}");
            assert_eq!(found[1..], [Reply::Ok, Reply::Ok, Reply::Nil, Reply::Nil, Reply::Ok]);
            for other in world.running() {
                let found = replies(other, made, "KEYS * · DBSIZE · GET d · GET b").await;
                assert_eq!(found, [list(&["d"]), number(1), Reply::bulk("4"), Reply::Nil]);
            }
        }
        for outside in ["SCAN 0 · SET a 1", "SET a 1 · FLUSHALL"] {
            let refused = exec(world.node(1), made, outside).await;
            assert!(
                matches!(&refused, Served::Error(error) if error.code() == "CROSSSLOT"),
                "{outside}: {refused:?}"
            );
        }
        let refused = exec(world.node(0), NamespaceId::ZERO, "DBSIZE").await;
        assert!(matches!(&refused, Served::Error(error) if error.code() == "CROSSSLOT"), "{refused:?}");
        assert_eq!(replies(world.node(2), made, "DBSIZE").await, [number(1)], "nothing of it was executed");
    });
}
