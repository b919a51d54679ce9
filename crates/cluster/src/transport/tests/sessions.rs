use super::*;

#[test]
fn messages_of_a_lane_keep_their_order() {
    let nodes = met(&[1, 2, 3]);
    let lanes = [Lane::Control, Lane::Data(0), Lane::Data(1)];
    let numbers = 0..2000_u32;
    std::thread::scope(|scope| {
        for from in &nodes {
            let (me, transport, numbers) = (from.store, from.transport.clone(), numbers.clone());
            let others: Vec<_> = nodes.iter().map(|node| node.store).filter(|other| *other != me).collect();
            scope.spawn(move || {
                for number in numbers {
                    for to in &others {
                        for lane in lanes {
                            let body = Bytes::copy_from_slice(&number.to_le_bytes());
                            while transport.send(*to, lane, Channel::Shard, body.clone()).is_err() {
                                std::thread::yield_now();
                            }
                        }
                    }
                }
            });
        }
    });
    for node in &nodes {
        let mut expected = hashbrown::HashMap::new();
        for _ in 0..2 * lanes.len() * numbers.len() {
            let Event::Message(from, lane, _, body) = node.next() else { panic!("a message") };
            let next: &mut u32 = expected.entry((from, lane)).or_default();
            assert_eq!(body, next.to_le_bytes()[..], "{lane:?} from {from:?}");
            *next += 1;
        }
    }
    let stats = nodes[0].transport.stats();
    assert_eq!(stats.peers.iter().map(|peer| peer.store.0).collect::<Vec<_>>(), [2, 3]);
    for peer in stats.peers {
        assert!(
            peer.up && peer.sessions == 1 && peer.frames_out >= 6000 && peer.frames_in >= 6000,
            "{peer:?}"
        );
        assert!(peer.writes < peer.frames_out, "frames share writes: {peer:?}");
    }
}

#[test]
fn a_node_that_comes_back_is_met_again() {
    let mut nodes = met(&[1, 2]);
    // The one that dials as well as the one that is dialled.
    for gone in [0, 1] {
        let Node { store, address, transport, .. } = nodes.remove(gone);
        transport.stop();
        let left = &nodes[0];
        left.sees(&Event::Reachable(store, false));
        assert_eq!(
            left.transport.send(store, Lane::Data(0), Channel::Shard, Bytes::new()),
            Err(NotSent::Down)
        );
        assert!(!left.transport.is_up(store));
        let back = Node::with(identity(store.0), settings(), &address);
        back.knows(&[left]);
        left.sees_up(&back);
        back.sees_up(left);
        left.send(&back, Lane::Data(1), "after").unwrap();
        back.sees(&left.message(Lane::Data(1), "after"));
        nodes.insert(gone, back);
    }
}

#[test]
fn a_node_that_nobody_knows_yet_is_let_in() {
    // The higher store waits for the lower one to dial, and then does it itself.
    for (knowing, other) in [(1, 2), (2, 1)] {
        let soon = TransportSettings { silence_max: Duration::from_millis(50), ..settings() };
        let knowing = Node::with(identity(knowing), soon, "127.0.0.1:0");
        let other = Node::start(other);
        knowing.knows(&[&other]);
        knowing.sees_up(&other);
        other.sees_up(&knowing);
        other.send(&knowing, Lane::Data(0), "hello").unwrap();
        knowing.sees(&other.message(Lane::Data(0), "hello"));
    }
}

#[test]
fn who_is_no_peer_any_more_is_left() {
    let nodes = met(&[1, 2, 3]);
    nodes[0].knows(&[&nodes[2]]);
    nodes[0].sees(&Event::Reachable(StoreId(2), false));
    assert_eq!(nodes[0].send(&nodes[1], Lane::Control, "no"), Err(NotSent::Down));
    nodes[0].send(&nodes[2], Lane::Control, "yes").unwrap();
    nodes[2].sees(&nodes[0].message(Lane::Control, "yes"));
}

#[test]
fn nodes_whose_clusters_become_different_ones_part() {
    let none = |store| Identity { cluster: None, ..identity(store) };
    let nodes = [1, 2].map(|store| Node::with(none(store), settings(), "127.0.0.1:0"));
    nodes[0].knows(&[&nodes[1]]);
    nodes[0].sees_up(&nodes[1]);
    nodes[1].sees_up(&nodes[0]);
    nodes[0].transport.set_identity(Identity { cluster: Some(7), map_version: 3, ..none(1) });
    while nodes[1].transport.identity_of(StoreId(1)).is_some_and(|identity| identity.cluster != Some(7)) {
        std::thread::yield_now();
    }
    assert!(nodes[1].transport.is_up(StoreId(1)), "one cluster and none speak");
    nodes[1].transport.set_identity(Identity { cluster: Some(8), ..none(2) });
    for (node, other) in [(0, 2), (1, 1)] {
        nodes[node].sees(&Event::Reachable(StoreId(other), false));
    }
    // And do not meet again.
    let asked = nodes[0].transport.ask(&nodes[1].address, Channel::Control, Bytes::new(), HANG);
    assert!(matches!(run(asked), Err(CallError::NotSent(reason)) if reason.contains("belongs to cluster")));
}

#[test]
fn a_stopped_transport_takes_nothing() {
    let nodes = met(&[1, 2]);
    nodes[0].transport.stop();
    assert_eq!(nodes[0].send(&nodes[1], Lane::Control, "no"), Err(NotSent::Down));
    let asked = nodes[0].transport.ask(&nodes[1].address, Channel::Control, Bytes::new(), HANG);
    assert!(matches!(run(asked), Err(CallError::NotSent(_))));
}
