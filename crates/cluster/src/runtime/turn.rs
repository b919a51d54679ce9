//! What a thread does in one go: a frame that came, a group that became durable, the commands that were ready. What members want of other nodes
//! meanwhile goes out at its end, in one frame for each lane, and who waits here hears of it then.

use super::Cluster;
use super::pump::Duty;
use crate::latch::ShardId;
use crate::shard::{Done, Send, wire};
use crate::transport::Channel;
use kvorum_engine::Sequence;
use kvorum_sync::{Lane, Message, StoreId, Token};
use std::cell::RefCell;
use std::sync::Arc;
use tokio::runtime::Handle;

/// A frame goes out as soon as it is that long.
const FRAME_BYTES: usize = 256 << 10;

/// What is wanted and was not done yet.
struct Turn {
    /// Whose members want it. Tests have many nodes on one thread.
    me: StoreId,
    /// Whether this thread carries data and commands, see [`Cluster::in_turn_with_data`].
    with_data: bool,
    frames: Vec<Frame>,
    written: Vec<(ShardId, Sequence)>,
    done: Vec<(Token, Done)>,
    /// A member has room again, shows more, began to lead, or leads no more.
    moved: bool,
}

struct Frame {
    to: StoreId,
    lane: Lane,
    bytes: Vec<u8>,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Ends the turn also if what is done in it panics.
struct Ending<'c>(&'c Arc<Cluster>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(turn) = TURN.take() {
            self.0.end_turn(turn);
        }
    }
}

impl Cluster {
    /// Does something in one turn, or in the one that this thread is in. It must not wait.
    pub(crate) fn in_turn<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        self.in_some_turn(false, work)
    }

    /// As [`Cluster::in_turn`], on a thread that carries data and commands, and is awake for them: what would wake others on their way goes with the
    /// data, and this thread syncs the log afterwards, as long as that is quick.
    pub(crate) fn in_turn_with_data<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        self.in_some_turn(true, work)
    }

    fn in_some_turn<T>(self: &Arc<Self>, with_data: bool, work: impl FnOnce() -> T) -> T {
        let begins = TURN.with_borrow_mut(|turn| {
            let begins = turn.is_none();
            if begins {
                *turn = Some(Turn::of(self.me, with_data));
            }
            begins
        });
        let _ending = begins.then(|| Ending(self));
        work()
    }

    /// What a member wants: done at the end of the turn that this thread is in, else at once.
    pub(super) fn want(
        self: &Arc<Self>,
        shard: ShardId,
        sends: &[Send],
        written: Option<Sequence>,
        done: Vec<(Token, Done)>,
        moved: bool,
    ) {
        if sends.is_empty() && written.is_none() && done.is_empty() && !moved {
            return;
        }
        self.in_turn(|| {
            TURN.with_borrow_mut(|turn| {
                let mut other = None;
                let turn = match turn {
                    Some(turn) if turn.me == self.me => turn,
                    _ => other.insert(Turn::of(self.me, false)),
                };
                turn.send(self, shard, sends);
                turn.written.extend(written.map(|sequence| (shard, sequence)));
                turn.done.extend(done);
                turn.moved |= moved;
                if let Some(other) = other {
                    self.end_turn(other);
                }
            });
        });
    }

    fn end_turn(self: &Arc<Self>, turn: Turn) {
        // What others wait for comes first.
        turn.frames.into_iter().for_each(|frame| self.send_frame(frame));
        if turn.with_data {
            let duty = self.pump.wrote_here(&turn.written);
            duty.into_iter().for_each(|duty| self.sync_soon(duty));
        } else {
            self.pump.wrote(&turn.written);
        }
        for (token, done) in turn.done {
            self.waits.complete(token, done);
        }
        if turn.moved {
            self.moved.notify_waiters();
        }
    }

    /// Syncs the log on this thread, once it has seen to all that is ready: what that writes is in the same group.
    fn sync_soon(self: &Arc<Self>, duty: Duty) {
        // Without a runtime the log's own thread does it.
        let Ok(runtime) = Handle::try_current() else { return };
        let cluster = Arc::clone(self);
        runtime.spawn(async move {
            let mut duty = Some(duty);
            while let Some(now) = duty {
                tokio::task::yield_now().await;
                duty = now.lead(&cluster.store, &mut |pumped| cluster.pumped(&pumped));
            }
        });
    }

    /// What is not sent is lost as on any network: the protocol repeats it.
    fn send_frame(&self, Frame { to, lane, bytes }: Frame) {
        let _ = self.transport.send(to, lane, Channel::Shard, bytes.into());
    }
}

impl Turn {
    fn of(me: StoreId, with_data: bool) -> Turn {
        Turn { me, with_data, frames: Vec::new(), written: Vec::new(), done: Vec::new(), moved: false }
    }

    fn send(&mut self, cluster: &Cluster, shard: ShardId, sends: &[Send]) {
        let mut last: Option<(&Send, usize, std::ops::Range<usize>)> = None;
        for send in sends {
            let at = self.frame(send.to, self.lane(shard, send));
            let same = last.take().filter(|(before, _, _)| is_same_write(before, send));
            let range = match same {
                // A write goes to all followers alike: it is put into bytes once.
                Some((_, from, range)) => self.copy(from, range, at),
                None => {
                    let Some(frame) = self.frames.get_mut(at) else { return };
                    let start = frame.bytes.len();
                    wire::push(shard, &send.message, &mut frame.bytes);
                    start..frame.bytes.len()
                }
            };
            last = Some((send, at, range));
            if self.frames.get(at).is_some_and(|frame| frame.bytes.len() >= FRAME_BYTES) {
                cluster.send_frame(self.frames.remove(at));
                last = None;
            }
        }
    }

    /// The lane of a message. Acknowledgements, and rounds that confirm reads, are on the way of commands: with data they wake nobody who is not awake
    /// for these. Rounds that the clock repeats take the control lane, which nothing holds up, and so do the answers to them.
    fn lane(&self, shard: ShardId, send: &Send) -> Lane {
        match (send.lane, &send.message.message) {
            (Lane::Control, Message::Ack { .. }) => with_data(shard),
            (Lane::Control, Message::Ping { .. } | Message::Pong { .. }) if self.with_data => {
                with_data(shard)
            }
            (lane, _) => lane,
        }
    }

    /// The frame for a node: all data of a turn for it goes over one lane, that of the first.
    fn frame(&mut self, to: StoreId, lane: Lane) -> usize {
        let is_data = |lane: Lane| lane != Lane::Control;
        let goes = |frame: &Frame| frame.to == to && is_data(frame.lane) == is_data(lane);
        self.frames.iter().position(goes).unwrap_or_else(|| {
            self.frames.push(Frame { to, lane, bytes: Vec::new() });
            self.frames.len() - 1
        })
    }

    fn copy(&mut self, from: usize, range: std::ops::Range<usize>, to: usize) -> std::ops::Range<usize> {
        let Ok([source, frame]) = self.frames.get_disjoint_mut([from, to]) else { return range };
        let start = frame.bytes.len();
        frame.bytes.extend_from_slice(source.bytes.get(range).unwrap_or_default());
        start..frame.bytes.len()
    }
}

fn with_data(shard: ShardId) -> Lane {
    // Any of them; the shards are spread.
    Lane::Data((shard.place % 64) as u8)
}

/// Whether two sends of one step carry the same write, of the same item, for two followers.
fn is_same_write(one: &Send, other: &Send) -> bool {
    let (Message::Write { item, point, .. }, Message::Write { item: of_other, point: at_other, .. }) =
        (&one.message.message, &other.message.message)
    else {
        return false;
    };
    // An op id names one item for ever.
    let is_same_item = item.op == of_other.op && point == at_other && one.to != other.to;
    let (payload, of_other) = (&one.message.payload, &other.message.payload);
    is_same_item && std::ptr::eq(payload.as_ptr(), of_other.as_ptr()) && payload.len() == of_other.len()
}
