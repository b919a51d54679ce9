use super::*;
use crate::shard::bytes_in::put_varint;
use crate::testing::shard_id;
use kvorum_sync::{
    Adopt, AskRead, BasisItem, Checkpoint, Digest, Epoch, Fetch, Gather, Hello, Item, KeyHash, KeyState,
    Keys, Members, Membership, Moment, Names, OpId, Piece, Promise, Promised, ReadAnswer, ReadWhat, Standing,
    StoreId, TransferId, Want, Way,
};

/// Draws everything that a message consists of.
struct Draw(fastrand::Rng);

impl Draw {
    fn some<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.0.usize(0..5);
        (0..count).map(|_| one(self)).collect()
    }

    fn u64(&mut self) -> u64 {
        self.0.u64(..) >> self.0.u32(0..64)
    }

    fn epoch(&mut self) -> Epoch {
        Epoch::new(self.0.u32(..1 << 24)).unwrap()
    }

    fn op(&mut self) -> OpId {
        OpId::from_version(self.u64())
    }

    fn ops(&mut self) -> Vec<OpId> {
        self.some(Self::op)
    }

    fn store(&mut self) -> StoreId {
        StoreId(self.0.u64(..))
    }

    fn stores(&mut self) -> Names<StoreId> {
        Names::of(&self.some(Self::store))
    }

    fn promise(&mut self) -> Promise {
        Promise { epoch: self.epoch(), manager: self.store(), nonce: self.u64() }
    }

    fn members(&mut self) -> Members {
        let mut list = self.some(Self::store);
        list.push(self.store());
        Members::of(&list)
    }

    fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint { op: self.op(), digest: Digest(self.u64()), time: self.u64() }
    }

    fn standing(&mut self) -> Standing {
        if self.0.bool() { Standing::Whole } else { Standing::Rebuilding { until: self.op() } }
    }

    fn transfer(&mut self) -> TransferId {
        TransferId { nonce: self.u64(), number: self.u64() }
    }

    fn hashes(&mut self) -> Names<KeyHash> {
        Names::of(&self.some(|draw| KeyHash(draw.u64())))
    }

    fn item(&mut self) -> Item {
        let keys = if self.0.bool() { Keys::All } else { Keys::Of(self.hashes()) };
        let reads = Names::of(&self.ops());
        Item { op: self.op(), time: self.u64(), digest: Digest(self.u64()), keys, reads }
    }

    fn basis(&mut self) -> BasisItem {
        BasisItem { item: self.item(), holders: self.stores(), completed: self.0.bool() }
    }

    fn bytes(&mut self) -> std::sync::Arc<[u8]> {
        self.some(|draw| draw.0.u8(..)).into()
    }

    fn way(&mut self) -> Way {
        [Way::Items, Way::Delta, Way::Files][self.0.usize(..3)]
    }

    fn message(&mut self, kind: u8) -> Message {
        let epoch = self.epoch();
        match kind {
            kind::GATHER => {
                let membership = Membership { old: self.members(), new: self.members() };
                Message::Gather(Box::new(Gather { promise: self.promise(), membership }))
            }
            kind::PROMISED => Message::Promised(Box::new(Promised {
                promise: self.promise(),
                epoch,
                checkpoint: self.checkpoint(),
                tail: self.some(Self::item),
                standing: self.standing(),
            })),
            kind::REFUSED => Message::Refused { epoch, promised: self.epoch() },
            kind::ADOPT => Message::Adopt(Box::new(Adopt {
                promise: self.promise(),
                basis_epoch: epoch,
                checkpoint: self.checkpoint(),
                basis: self.some(Self::basis),
                basis_end: self.op(),
                sources: self.stores(),
                head: self.op(),
            })),
            kind::ADOPTED => Message::Adopted { epoch, checkpoint: self.op(), standing: self.standing() },
            kind::WRITE => Message::Write { epoch, item: self.item(), point: self.op() },
            kind::ACK => Message::Ack { epoch, first: self.u64(), last: self.u64(), checkpoint: self.op() },
            kind::POINT => {
                Message::Point { epoch, point: self.op(), digest: Digest(self.u64()), head: self.u64() }
            }
            kind::REACHED => Message::Reached { epoch, point: self.op(), digest: Digest(self.u64()) },
            kind::LACK => Message::Lack { epoch, first: self.u64(), last: self.u64() },
            kind::ANNOUNCE => Message::Announce { promise: self.promise() },
            kind::HELLO => Message::Hello(Box::new(Hello {
                promised: self.epoch(),
                epoch,
                checkpoint: self.op(),
                held: self.some(|draw| (draw.u64(), draw.u64())),
                standing: self.standing(),
            })),
            kind => self.rest(kind, epoch),
        }
    }

    fn rest(&mut self, kind: u8, epoch: Epoch) -> Message {
        match kind {
            kind::RESUME => Message::Resume { epoch, upto: self.checkpoint(), sources: self.stores() },
            kind::FETCH => {
                let want = if self.0.bool() {
                    Want::Items(self.ops())
                } else {
                    Want::Final { since: self.op(), upto: self.op(), doubtful: self.ops() }
                };
                Message::Fetch(Box::new(Fetch {
                    transfer: self.transfer(),
                    epoch,
                    want,
                    next: self.u64(),
                    credit: self.u64(),
                    cursor: self.bytes(),
                }))
            }
            kind::PIECE => Message::Piece(Box::new(Piece {
                transfer: self.transfer(),
                epoch,
                number: self.u64(),
                way: self.way(),
                items: self.ops(),
                cursor: self.bytes(),
                end: self.0.bool().then(|| self.ops()),
            })),
            kind::CANNOT_SERVE => Message::CannotServe { transfer: self.transfer() },
            kind::PING => Message::Ping { epoch, round: self.u64() },
            kind::PONG => Message::Pong { epoch, round: self.u64() },
            kind::ASK_READ => {
                let what = if self.0.bool() { ReadWhat::Range } else { ReadWhat::Keys(self.hashes()) };
                let ask = AskRead { epoch, id: self.u64(), checkpoint: self.op(), what };
                Message::AskRead(Box::new(ask))
            }
            kind::READ_ANSWER => {
                let state =
                    |draw: &mut Self| KeyState { committed: draw.op(), pending: draw.op(), wait: draw.op() };
                let keys = Names::of(&self.some(state));
                Message::ReadAnswer(Box::new(ReadAnswer { epoch, id: self.u64(), keys }))
            }
            kind::ASK_POINT => Message::AskPoint { epoch, sent: Moment(self.u64()) },
            kind::POINT_AT => Message::PointAt { epoch, sent: Moment(self.u64()), committed: self.op() },
            _ => Message::Fence { epoch, point: self.op() },
        }
    }
}

fn bytes_of(message: &ShardMessage) -> Bytes {
    let mut out = Vec::new();
    encode(shard_id(7), message, &mut out);
    out.into()
}

#[test]
fn messages_of_a_frame_come_back_in_order_and_a_cut_one_is_told() {
    let mut draw = Draw(fastrand::Rng::with_seed(14));
    let all: Vec<_> = (kind::GATHER..=kind::FENCE).map(|kind| ShardMessage::of(draw.message(kind))).collect();
    let mut frame = Vec::new();
    all.iter().for_each(|message| push(shard_id(7), message, &mut frame));
    let frame = Bytes::from(frame);
    let bytes: Vec<_> = all.iter().map(|message| Ok(bytes_of(message))).collect();
    assert_eq!(messages(&frame).collect::<Vec<_>>(), bytes);
    assert_eq!(messages(&Bytes::new()).count(), 0);
    for length in 0..frame.len() {
        let found: Vec<_> = messages(&frame.slice(..length)).collect();
        let whole = found.iter().take_while(|message| message.is_ok()).count();
        assert_eq!(found[..whole], bytes[..whole]);
        let ends: usize = bytes[..whole].iter().flatten().map(|bytes| LENGTH_BYTES + bytes.len()).sum();
        assert_eq!(found.len() - whole, usize::from(ends < length), "one error, where it is cut: {length}");
    }
}

/// What the reader is tried with: one message of each kind.
pub(in crate::shard) fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut draw = Draw(fastrand::Rng::with_seed(14));
    let one = |kind| {
        let message = ShardMessage { message: draw.message(kind), payload: Bytes::new() };
        ("shard_message", format!("kind-{kind:02}"), bytes_of(&message).to_vec())
    };
    (kind::GATHER..=kind::FENCE).map(one).collect()
}

#[test]
fn every_message_comes_back_from_its_bytes() {
    let mut draw = Draw(fastrand::Rng::with_seed(11));
    for round in 0..200 {
        for kind in kind::GATHER..=kind::FENCE {
            let message = draw.message(kind);
            let payload = match message {
                Message::Write { .. } | Message::Piece(_) => Bytes::from_static(b"beside"),
                _ => Bytes::new(),
            };
            let message = ShardMessage { message, payload };
            let bytes = bytes_of(&message);
            assert_eq!(bytes[4], kind, "each kind is drawn");
            assert_eq!(decode(&bytes), Ok((shard_id(7), message)), "kind {kind}, round {round}");
        }
    }
}

#[test]
fn cut_and_changed_messages_are_refused_or_read_but_never_panic() {
    let mut draw = Draw(fastrand::Rng::with_seed(12));
    for kind in kind::GATHER..=kind::FENCE {
        for _ in 0..40 {
            let bytes = bytes_of(&ShardMessage::of(draw.message(kind)));
            for length in 0..bytes.len() {
                let beside = matches!(kind, kind::WRITE | kind::PIECE);
                assert!(decode(&bytes.slice(..length)).is_err() || beside, "kind {kind} cut at {length}");
            }
            let mut changed = bytes.to_vec();
            let at = draw.0.usize(..changed.len());
            changed[at] ^= 1 << draw.0.u32(..8);
            let _may_be_read = decode(&changed.into());
        }
    }
}

#[test]
fn data_of_any_bytes_is_refused_or_read_but_never_panics() {
    let mut draw = Draw(fastrand::Rng::with_seed(13));
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..draw.0.usize(..80)).map(|_| draw.0.u8(..) >> draw.0.u8(..8)).collect();
        crate::shard::read_data(&bytes.into());
    }
}

#[test]
fn a_list_that_is_longer_than_the_message_is_refused_before_room_is_made() {
    let mut bytes = bytes_of(&ShardMessage::of(Message::Announce { promise: Promise::default() })).to_vec();
    bytes.truncate(4);
    bytes.push(kind::PROMISED);
    bytes.extend_from_slice(&[0; 4 + 8 + 8 + 4 + 8 + 8 + 1]);
    put_varint(&mut bytes, u64::MAX);
    assert_eq!(decode(&bytes.into()), Err("items"));
}
