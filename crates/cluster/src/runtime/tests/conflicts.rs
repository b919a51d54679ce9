//! Writes of available namespaces at the same time, through different nodes.

use super::available::{end, execute, meet, until};
use super::*;
use crate::available::{Ask, Entry, Frame, Operation, Outcome, Shell, Wanted, Why};
use crate::consistency::Consistency;
use crate::namespace::Mode;
use crate::namespaces::{Conflicts, NamespaceSettings};

const ALL: Consistency = Consistency { ack: Some(3), from: Some(3), read: None, durability: None };

async fn one(node: &Node, namespace: NamespaceId, consistency: Consistency, line: &str) -> String {
    execute(node, namespace, consistency, &[line]).await.remove(0)
}

/// Three nodes, and a namespace.
async fn world(conflicts: Conflicts) -> (World, NamespaceId) {
    let world = World::new(3);
    meet(&world, 3).await;
    let mut settings = NamespaceSettings::new(Mode::Available);
    (settings.shards, settings.conflicts) = (4, conflicts);
    let made = world.node(0).namespaces().create("carts", settings).await.unwrap();
    for node in world.running() {
        until("the namespace is known", node, || node.inner.namespaces.get(made.id.id()).is_some()).await;
    }
    (world, made.id)
}

fn shell(node: &Node) -> &Arc<Shell> {
    &node.inner.cluster.get().unwrap().available
}

fn superseded(node: &Node) -> u64 {
    let all = node.stats().available;
    all.iter().find(|(name, _)| *name == "writes_superseded").unwrap().1
}

/// Two conditional writes of the same base, each by another node, until both are told that they succeeded.
async fn both_succeed(world: &World, namespace: NamespaceId) -> (String, [String; 2]) {
    for number in 0.. {
        let key = format!("cart{number}");
        let base = one(world.node(2), namespace, ALL, &format!("SETV {key} seen")).await;
        let asked = Consistency::default();
        let writes = ["apples", "pears"].map(|value| format!("SET {key} {value} IFVERSION {base}"));
        let done = tokio::join!(
            one(world.node(0), namespace, asked, &writes[0]),
            one(world.node(1), namespace, asked, &writes[1])
        );
        if done.0 == "OK" && done.1 == "OK" {
            return (key, ["apples".into(), "pears".into()]);
        }
        let is_refused = |reply: &str| reply.starts_with("CONFLICT ");
        assert!(is_refused(&done.0) || is_refused(&done.1), "{done:?}");
    }
    unreachable!("there are as many keys as it takes")
}

#[test]
fn of_two_conditional_writes_that_both_succeed_the_loser_is_kept() {
    run(async {
        let (mut world, namespace) = world(Conflicts::Keep).await;
        let succeed = both_succeed(&world, namespace);
        let (key, values) = within("two succeed at the same time", world.node(0), succeed).await;
        let winner = one(world.node(2), namespace, ALL, &format!("GET {key}")).await;
        let loser = values.iter().find(|value| **value != winner).unwrap();
        assert!(values.contains(&winner), "{winner}");
        for node in world.running() {
            let kept = one(node, namespace, ALL, &format!("CONFLICTS {key}")).await;
            assert_eq!(kept.matches("Bulk(b\"").count(), 2, "one loser and its version: {kept}");
            assert!(kept.contains(&format!("Array([Bulk(b\"{loser}\"), ")), "{kept}");
        }
        for number in 0..3 {
            end(&mut world, number, true).await;
        }
    });
}

#[test]
fn without_that_a_conditional_write_that_lost_is_counted() {
    run(async {
        let (world, namespace) = world(Conflicts::Newest).await;
        let node = world.node(0);
        let succeed = both_succeed(&world, namespace);
        let (key, values) = within("two succeed at the same time", node, succeed).await;
        assert!(values.contains(&one(node, namespace, ALL, &format!("GET {key}")).await));
        let kept = one(node, namespace, ALL, &format!("CONFLICTS {key}")).await;
        assert_eq!(kept, "Array([])", "the loser is gone");
        // A coordinator that finds the winner there already has seen it, and counts.
        let before = superseded(node);
        let entry = |value: &'static str| Entry {
            version: node.inner.hybrid.stamp(node.now_ms()),
            value: Some(value.into()),
            expires_at: None,
            from: 3,
            shadow: false,
            base: None,
        };
        let (loser, winner) = (entry("loser"), entry("winner"));
        for entry in [winner, loser] {
            let operation = Operation::Write(entry);
            let wanted =
                Wanted { namespace: namespace.id(), key: "k".into(), operation, ack: 3, durability: None };
            let outcome = shell(node).coordinate(wanted).await.unwrap();
            assert!(matches!(outcome, Outcome::Written { .. }));
        }
        assert_eq!(superseded(node), before + 1);
    });
}

#[test]
fn what_a_write_finds_when_it_is_tried_again_was_written_at_the_same_time() {
    run(async {
        let (world, namespace) = world(Conflicts::Keep).await;
        let node = world.node(0);
        let asked = Consistency { ack: Some(2), ..ALL };
        let tried = async {
            for number in 0.. {
                let key = format!("cart{number}");
                // On one replica alone, of a clock that is ahead: most reads of two replicas do not see it, and writes find it.
                let ahead = Entry {
                    version: node.inner.hybrid.floor(node.now_ms() + 30_000),
                    value: Some("pears".into()),
                    expires_at: None,
                    from: 3,
                    shadow: false,
                    base: Some(0),
                };
                let frame = Frame::own(namespace.id(), &shell(node).order());
                let third = world.node(2).inner.cluster.get().unwrap().me;
                let ask = Ask::Write { key: key.clone().into(), entry: ahead, why: Why::Mend };
                assert!(shell(node).ask(&frame, third, ask).await.is_some());
                let before = superseded(node);
                assert_eq!(one(node, namespace, asked, &format!("SET {key} apples")).await, "OK");
                if superseded(node) > before {
                    return key;
                }
            }
            unreachable!("there are as many keys as it takes")
        };
        let key = within("a write is tried again", node, tried).await;
        assert_eq!(one(node, namespace, ALL, &format!("GET {key}")).await, "apples");
        let kept = one(node, namespace, ALL, &format!("CONFLICTS {key}")).await;
        assert!(kept.starts_with("Array([Array([Bulk(b\"pears\"), "), "{kept}");
    });
}
