use super::*;
use crate::transport::connect::{accept, dial, read_greeting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Two sides shake hands: what each of them says of it.
fn shake(dialler: &Manners<'_>, acceptor: &Manners<'_>, wish: Wish) -> [Result<Identity, String>; 2] {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let greeting = read_greeting(&mut stream).await?;
            let guest = accept(acceptor, stream, greeting).await?;
            let identity = guest.hello.identity.clone();
            guest.welcome().await.map(|io| (identity, io))
        };
        let (dialled, accepted) = tokio::join!(dial(dialler, &address, wish), accepted);
        [dialled.map(|shaken| shaken.hello.identity), accepted.map(|(identity, _)| identity)]
    })
}

fn refusal(dialler: &Manners<'_>, acceptor: &Manners<'_>) -> String {
    let [dialled, accepted] = shake(dialler, acceptor, wish(Purpose::Control));
    let (dialled, accepted) = (dialled.unwrap_err(), accepted.unwrap_err());
    assert_eq!(dialled, accepted, "both sides say the same");
    dialled
}

#[test]
fn both_learn_who_the_other_is() {
    for purpose in [Purpose::Control, Purpose::Data(1), Purpose::Ask] {
        let shaken = shake(&manners(1), &manners(2), wish(purpose));
        assert_eq!(shaken, [Ok(identity(2)), Ok(identity(1))]);
    }
}

#[test]
fn a_foreign_cluster_is_refused() {
    let mut foreign = manners(2);
    foreign.identity.cluster = Some(0xf);
    let reason = refusal(&manners(1), &foreign);
    assert!(reason.contains("n1 to cluster 00000000000000000000000000000001"), "{reason}");
    let mut none = manners(2);
    none.identity.cluster = None;
    assert!(shake(&manners(1), &none, wish(Purpose::Ask)).iter().all(Result::is_ok));
}

#[test]
fn both_must_know_the_same_secret() {
    let (secret, other) = (Secret::of(b"secret").unwrap(), Secret::of(b"other").unwrap());
    let with = |store, secret| Manners { secret, ..manners(store) };
    let shaken = shake(&with(1, Some(&secret)), &with(2, Some(&secret)), wish(Purpose::Control));
    assert!(shaken.iter().all(Result::is_ok), "{shaken:?}");
    let reason = refusal(&with(1, Some(&secret)), &with(2, Some(&other)));
    assert!(reason.contains("secrets of the two nodes differ"), "{reason}");
    for (one, two) in [(Some(&secret), None), (None, Some(&secret))] {
        let reason = refusal(&with(1, one), &with(2, two));
        assert!(reason.contains("the other has none"), "{reason}");
    }
}

#[test]
fn a_node_is_not_taken_for_another() {
    let wish = Wish { expected: Some(StoreId(3)), ..wish(Purpose::Control) };
    let [dialled, accepted] = shake(&manners(1), &manners(2), wish);
    let reason = dialled.unwrap_err();
    assert!(reason.contains("n2 has store 0000000000000002 there"), "{reason}");
    assert_eq!(accepted.unwrap_err(), reason);
    assert!(refusal(&manners(1), &manners(1)).contains("this node itself"));
}

/// What a node answers to these bytes before it ends the connection.
fn answer(node: &Node, bytes: &[u8]) -> Vec<u8> {
    run(async {
        let mut stream = TcpStream::connect(&node.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(HANG, stream.read_to_end(&mut answer)).await.expect("it ends");
        let _ = read;
        answer
    })
}

#[test]
fn another_protocol_is_answered_with_a_closed_door() {
    let node = Node::start(1);
    assert_eq!(answer(&node, b"*1\r\n$4\r\nPING\r\n\r\n"), b"");
    assert_eq!(answer(&node, b"GET / HTTP/1.1\r\n\r\n"), b"");
    // The magic, with versions of a later time: the answer says which are spoken here.
    let later = answer(&node, b"KVRMPEER\x08\0\x09\0\0\0\0\0");
    assert_eq!(later, b"KVRMPEER\x01\0\x01\0\x03\0\0\0");
    let other = Node::start(2);
    assert!(run(other.transport.ask(&node.address, Channel::Control, Bytes::new(), HANG)).is_ok());
}

#[test]
fn a_wrong_secret_opens_no_session_and_no_call() {
    let with = |store, secret: &[u8]| {
        let settings = TransportSettings { secret: Secret::of(secret), ..settings() };
        Node::with(identity(store), settings, "127.0.0.1:0")
    };
    let (one, friend, foe) = (with(1, b"s"), with(2, b"s"), with(3, b"t"));
    assert!(run(friend.transport.ask(&one.address, Channel::Control, Bytes::new(), HANG)).is_ok());
    let refused = run(foe.transport.ask(&one.address, Channel::Control, Bytes::new(), HANG));
    assert!(matches!(refused, Err(CallError::NotSent(reason)) if reason.contains("secrets")));
    one.knows(&[&friend, &foe]);
    foe.knows(&[&one]);
    one.sees_up(&friend);
    assert!(!one.transport.is_up(foe.store));
    assert_eq!(one.send(&foe, Lane::Control, "no"), Err(NotSent::Down));
}
