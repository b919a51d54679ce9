use super::*;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const BODY: usize = 100;
const FRAME: usize = BODY + HEADER_BYTES;

fn link(frames: usize) -> Arc<Link> {
    let bounds = Bounds { queue_bytes_max: frames * FRAME, frame_bytes_max: BODY };
    Link::new(Lane::Data(0), bounds, Arc::default())
}

fn body() -> Bytes {
    vec![7; BODY].into()
}

fn wait(call: Call) -> Result<Bytes, CallError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(call.wait(Duration::from_secs(1)))
}

fn take(link: &Link) -> Vec<Frame> {
    let mut frames = Vec::new();
    link.take_ready(&mut frames);
    frames
}

#[test]
fn a_full_queue_refuses_until_what_it_held_has_left() {
    let link = link(2);
    for _ in 0..2 {
        link.send(Channel::Shard, body()).unwrap();
    }
    assert_eq!(link.send(Channel::Shard, Bytes::new()), Err(NotSent::Full));
    assert!(matches!(link.call(Channel::Shard, body()), Err(NotSent::Full)));
    assert_eq!(take(&link).len(), 2);
    assert_eq!(link.send(Channel::Shard, body()), Err(NotSent::Full), "what is being written counts");
    link.written(2, 2 * FRAME);
    link.send(Channel::Shard, body()).unwrap();
    assert_eq!(
        (link.queued_bytes(), link.counts.refused_full.load(std::sync::atomic::Ordering::Relaxed)),
        (FRAME, 3)
    );
}

#[test]
fn a_frame_too_large_is_refused_here() {
    assert_eq!(link(9).send(Channel::Shard, vec![0; BODY + 1].into()), Err(NotSent::TooLarge));
}

#[test]
fn a_call_in_the_queue_was_not_sent_when_the_connection_ends() {
    let link = link(9);
    let (sent, queued) = (link.call(Channel::Forward, body()).unwrap(), {
        assert_eq!(take(&link).len(), 1);
        link.call(Channel::Forward, body()).unwrap()
    });
    link.close("broken");
    assert_eq!(wait(sent), Err(CallError::Lost("broken".into())));
    assert_eq!(wait(queued), Err(CallError::NotSent("broken".into())));
    assert!(matches!(link.call(Channel::Forward, body()), Err(NotSent::Down)));
    assert_eq!(link.end().as_deref(), Some("broken"));
}

#[test]
fn a_call_whose_time_is_over_in_the_queue_is_never_sent() {
    let link = link(9);
    let call = link.call(Channel::Forward, body()).unwrap();
    link.send(Channel::Forward, body()).unwrap();
    assert_eq!(wait(call), Err(CallError::NotSent("the time was over".into())));
    let taken = take(&link);
    assert_eq!(taken.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [Kind::Message]);
    link.written(1, FRAME);
    assert_eq!(link.queued_bytes(), 0);
}

#[test]
fn a_call_whose_time_is_over_after_it_was_taken_is_lost() {
    let link = link(9);
    let call = link.call(Channel::Forward, body()).unwrap();
    let number = take(&link)[0].call;
    assert_eq!(wait(call), Err(CallError::Lost("the time was over".into())));
    // The answer that comes too late finds nobody.
    link.answered(number, Ok(body()));
}

#[test]
fn a_dropped_call_is_not_sent() {
    let link = link(9);
    drop(link.call(Channel::Forward, body()).unwrap());
    assert!(take(&link).is_empty());
    assert_eq!(link.queued_bytes(), 0);
}

#[test]
fn answers_wait_for_room_and_come_to_their_call() {
    let (here, there) = (link(9), link(1));
    let call = here.call(Channel::Forward, body()).unwrap();
    let number = take(&here)[0].call;
    there.send(Channel::Shard, body()).unwrap();
    let mut answer = pin!(there.answer(number, Ok(body())));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(answer.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(take(&there).len(), 1);
    there.written(1, FRAME);
    assert_eq!(answer.as_mut().poll(&mut context), Poll::Ready(()));
    let frame = take(&there).remove(0);
    assert_eq!((frame.kind, frame.call), (Kind::Answer, number));
    here.answered(number, Ok(frame.body));
    assert_eq!(wait(call), Ok(body()));
}

#[test]
fn pings_and_identities_pass_a_full_queue_once_each() {
    let link = link(1);
    link.send(Channel::Shard, body()).unwrap();
    link.send_own(Kind::Ping, Bytes::new());
    link.send_own(Kind::Ping, Bytes::new());
    link.send_own(Kind::Identity, Bytes::from_static(b"old"));
    link.send_own(Kind::Identity, Bytes::from_static(b"new"));
    let kinds: Vec<_> = take(&link).into_iter().map(|frame| (frame.kind, frame.body.len())).collect();
    assert_eq!(kinds, [(Kind::Message, BODY), (Kind::Ping, 0), (Kind::Identity, 3)]);
}

#[test]
fn one_write_carries_many_frames_but_not_all() {
    let bounds = Bounds { queue_bytes_max: 10 * WRITE_BYTES, frame_bytes_max: WRITE_BYTES };
    let link = Link::new(Lane::Control, bounds, Arc::default());
    let half: Bytes = vec![0; WRITE_BYTES / 2].into();
    for _ in 0..4 {
        link.send(Channel::Shard, half.clone()).unwrap();
    }
    assert_eq!((take(&link).len(), take(&link).len(), take(&link).len()), (2, 2, 0));
}
