use super::*;
use crate::transport::connect::dial;
use crate::transport::frame::{Decoder, Frame, HEADER_BYTES, Kind, Next};
use crate::transport::lane::{Io, write_frames};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_stalled_data_lane_refuses_and_the_control_lane_passes() {
    let nodes = met(&[1, 2]);
    let (from, to) = (&nodes[0], &nodes[1]);
    to.paused.send_replace(true);
    // What the system and the other side take in at most is much less than this: in the end the queue is full.
    let body: Bytes = vec![1; 64 << 10].into();
    let send = || from.transport.send(to.store, Lane::Data(0), Channel::Shard, body.clone());
    let full = (0..65536).find_map(|_| send().err()).expect("the queue is full at some time");
    assert_eq!(full, NotSent::Full);
    let call = from.transport.call(to.store, Lane::Data(0), Channel::Forward, body.clone(), HANG);
    assert!(matches!(run(call), Err(CallError::NotSent(_))));
    // Both ways, and calls.
    from.send(to, Lane::Control, "passes").unwrap();
    while to.next() != from.message(Lane::Control, "passes") {}
    to.send(from, Lane::Control, "back").unwrap();
    from.sees(&to.message(Lane::Control, "back"));
    let call = from.transport.call(to.store, Lane::Control, Channel::Control, "asked".into(), HANG);
    assert_eq!(run(call), Ok("asked".into()));
    assert!(from.transport.stats().peers[0].queued_bytes <= 1 << 20);
    // Nothing that was taken is missing afterwards.
    to.paused.send_replace(false);
    from.sees_end_of_stall(to);
}

impl Node {
    /// Sends a last message as soon as there is room, and waits until it came.
    fn sees_end_of_stall(&self, to: &Node) {
        while self.send(to, Lane::Data(0), "last").is_err() {
            std::thread::yield_now();
        }
        to.sees(&self.message(Lane::Data(0), "last"));
    }
}

/// Shakes hands as store 9, for this purpose.
async fn shake(with: &Node, purpose: Purpose) -> Box<dyn Io> {
    dial(&manners(9), &with.address, wish(purpose)).await.map(|shaken| shaken.io).expect("a handshake")
}

/// Reads until the other side ends the connection.
async fn drain(io: &mut dyn Io) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(HANG, io.read_to_end(&mut all)).await.expect("the connection ends");
    // It may be reset, where something had not been read yet.
    let _ = read;
    all
}

fn frame(body: &'static [u8]) -> Vec<u8> {
    let frame =
        Frame { kind: Kind::Message, channel: Channel::Shard, call: 0, body: Bytes::from_static(body) };
    let mut bytes = BytesMut::new();
    frame.put_header(&mut bytes);
    bytes.extend_from_slice(body);
    bytes.to_vec()
}

#[test]
fn bad_frames_end_the_connection_and_nothing_else() {
    let node = Node::start(1);
    let mut corrupt = frame(b"some body");
    corrupt[HEADER_BYTES + 3] ^= 1;
    let mut oversized = frame(b"x");
    oversized[..4].copy_from_slice(&(2_u32 << 20).to_le_bytes());
    let garbage = vec![0xee; 100];
    for bytes in [corrupt, oversized, garbage] {
        run(async {
            let mut io = shake(&node, Purpose::Control).await;
            io.write_all(&frame(b"good")).await.unwrap();
            io.write_all(&bytes).await.unwrap();
            drain(&mut *io).await;
        });
        node.sees(&Event::Message(StoreId(9), Lane::Control, Channel::Shard, "good".into()));
    }
    let other = Node::start(2);
    assert!(run(other.transport.ask(&node.address, Channel::Control, Bytes::new(), HANG)).is_ok());
}

#[test]
fn a_connection_that_ends_within_a_frame_is_no_harm() {
    let node = Node::start(1);
    let bytes = frame(b"some body");
    for cut in 0..bytes.len() {
        run(async {
            let mut io = shake(&node, Purpose::Control).await;
            io.write_all(&bytes[..cut]).await.unwrap();
            io.shutdown().await.unwrap();
            drain(&mut *io).await;
        });
    }
    assert!(node.events.try_iter().all(|event| !matches!(event, Event::Message(..))));
}

#[test]
fn a_half_dead_session_is_noticed() {
    let impatient = TransportSettings { silence_max: Duration::from_millis(100), ..settings() };
    let node = Node::with(identity(1), impatient, "127.0.0.1:0");
    let said = run(async {
        let mut control = shake(&node, Purpose::Control).await;
        let mut lanes = [shake(&node, Purpose::Data(0)).await, shake(&node, Purpose::Data(1)).await];
        // It never answers a ping. All of its connections end.
        let said = drain(&mut *control).await;
        for lane in &mut lanes {
            drain(&mut **lane).await;
        }
        said
    });
    let mut said = BytesMut::from(&said[..]);
    let Ok(Next::Frame(ping)) = Decoder::new(100).next(&mut said) else { panic!("a ping") };
    assert_eq!(ping.kind, Kind::Ping);
    node.sees(&Event::Reachable(StoreId(9), true));
    node.sees(&Event::Reachable(StoreId(9), false));
}

#[test]
fn a_lane_without_its_session_is_refused() {
    let node = Node::start(1);
    let refused = run(dial(&manners(9), &node.address, wish(Purpose::Data(0))));
    assert_eq!(refused.err().as_deref(), Some("there is no such session"));
}

#[test]
fn frames_of_all_sizes_pass() {
    let nodes = met(&[1, 2]);
    for bytes in [0, 1, 32 << 10, (32 << 10) + 1, 200_000, 1 << 20] {
        let body: Bytes = vec![3; bytes].into();
        let call = nodes[0].transport.call(StoreId(2), Lane::Data(1), Channel::Forward, body.clone(), HANG);
        assert_eq!(run(call), Ok(body));
    }
    let body = vec![3; (1 << 20) + 1].into();
    assert_eq!(
        nodes[0].transport.send(StoreId(2), Lane::Data(1), Channel::Forward, body),
        Err(NotSent::TooLarge)
    );
}

#[test]
fn many_frames_share_a_write() {
    #[derive(Default)]
    struct Writes(Vec<usize>);
    impl tokio::io::AsyncWrite for Writes {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            std::task::Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
    let frame =
        |bytes| Frame { kind: Kind::Message, channel: Channel::Shard, call: 0, body: vec![0; bytes].into() };
    let mut writes = Writes::default();
    let mut frames = vec![frame(10), frame(20), frame(100_000), frame(30)];
    run(write_frames(&mut writes, &mut frames, &mut BytesMut::new())).unwrap();
    assert_eq!(writes.0, [3 * HEADER_BYTES + 30, 100_000, HEADER_BYTES + 30]);
}
