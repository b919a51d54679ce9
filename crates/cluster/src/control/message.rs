//! What control planes say to each other: JSON, so that the releases before and after understand it; pieces of snapshots have their bytes behind.
//!
//! ```text
//! J  json                                                        a call, a question or a heartbeat
//! S  length of the head (u32, little-endian)  head: json  bytes  a piece of a snapshot
//! ```

use super::change::{Answers, Proposal};
use super::map::{ClusterId, NodeInfo};
use super::raft::Types;
use bytes::Bytes;
use kvorum_sync::StoreId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A call from one node of a cluster to another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Types>),
    /// To the one believed to be the raft leader.
    Propose(Proposal),
}

/// The answer to [`Call::Append`], [`Call::Vote`] and [`Call::Snapshot`].
pub(crate) type Appended = AppendEntriesResponse<u64>;
pub(crate) type Voted = VoteResponse<u64>;
pub(crate) type Installed = InstallSnapshotResponse<u64>;

/// The answer to [`Call::Propose`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proposed {
    Applied(Answers),
    /// Surely not proposed here; whom this node believes to lead.
    NotLeader(Option<StoreId>),
    /// It is in the log and may yet be applied, or not.
    Unknown(String),
}

/// A question to a node that may not know the asking one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Who are you?
    Hello,
    /// May I enter?
    Join { store: StoreId, info: NodeInfo, cluster: Option<ClusterId> },
    /// Do I still belong to this cluster? Of a node that hears others no more.
    Known { store: StoreId, cluster: ClusterId },
}

/// How a node stands before it has a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// It belongs to no cluster; the addresses of the list that it was started with, sorted (none: it waits for none), and whether it gave its
    /// vote to the beginner of a log.
    New {
        peers: Vec<String>,
        #[serde(default)]
        voted: bool,
    },
    /// It belongs to this cluster.
    Member { cluster: ClusterId },
}

/// The answer to [`Question::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    pub(crate) store: StoreId,
    pub(crate) info: NodeInfo,
    pub(crate) standing: Standing,
}

/// The answer to [`Question::Known`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Known {
    /// It belongs to the cluster.
    Here,
    /// It was removed, or replaced, for good.
    Left,
    /// Nothing is known of such a store, or of such a cluster.
    Unknown,
}

/// The answer to [`Question::Join`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// The node has a row in the map; where the others are.
    In { cluster: ClusterId, nodes: Vec<(StoreId, String)> },
    /// Never.
    Refused(String),
    /// Not now: ask again.
    Later(String),
}

const JSON: u8 = b'J';
const PIECE: u8 = b'S';

/// The bytes of a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, String> {
    let mut bytes = vec![JSON];
    serde_json::to_writer(&mut bytes, message).map_err(|error| error.to_string())?;
    Ok(bytes.into())
}

/// The message of bytes that may be anything.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let json = bytes.strip_prefix(&[JSON]).ok_or("a control message begins with J")?;
    serde_json::from_slice(json).map_err(|error| format!("a control message: {error}"))
}

/// The bytes of a call.
pub(crate) fn encode_call(call: &mut Call) -> Result<Bytes, String> {
    let Call::Snapshot(piece) = call else { return encode(call) };
    let data = std::mem::take(&mut piece.data);
    let head = serde_json::to_vec(call).map_err(|error| error.to_string())?;
    let length = u32::try_from(head.len()).map_err(|error| error.to_string())?;
    Ok([&[PIECE][..], &length.to_le_bytes(), &head, &data].concat().into())
}

/// The call of bytes that may be anything.
pub(crate) fn decode_call(bytes: &[u8]) -> Result<Call, String> {
    let Some(rest) = bytes.strip_prefix(&[PIECE]) else { return decode(bytes) };
    let short = "a piece of a snapshot shorter than it says";
    let (length, rest) = rest.split_first_chunk().ok_or(short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| short)?;
    let (head, data) = rest.split_at_checked(length).ok_or(short)?;
    let mut call: Call =
        serde_json::from_slice(head).map_err(|error| format!("a piece of a snapshot: {error}"))?;
    match &mut call {
        Call::Snapshot(piece) => piece.data = data.to_vec(),
        _ => return Err("only pieces of snapshots have bytes behind them".to_owned()),
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::super::raft::{SnapshotMeta, Vote};
    use super::*;

    fn piece() -> Call {
        Call::Snapshot(InstallSnapshotRequest {
            vote: Vote::new(3, 7),
            meta: SnapshotMeta::default(),
            offset: 5,
            data: (0..=255).collect(),
            done: true,
        })
    }

    #[test]
    fn a_piece_of_a_snapshot_comes_back_from_its_bytes() {
        let bytes = encode_call(&mut piece()).unwrap();
        let (Call::Snapshot(sent), Call::Snapshot(came)) = (piece(), decode_call(&bytes).unwrap()) else {
            panic!("another call");
        };
        assert_eq!(
            (sent.vote, sent.offset, sent.data, sent.done),
            (came.vote, came.offset, came.data, came.done)
        );
        assert_eq!(sent.meta, came.meta);
    }

    #[test]
    fn cut_and_flipped_messages_are_errors_or_harmless() {
        let messages = [
            encode_call(&mut piece()).unwrap(),
            encode_call(&mut Call::Vote(VoteRequest::new(Vote::new(1, 2), None))).unwrap(),
        ];
        for bytes in messages {
            for length in 0..bytes.len() {
                drop(decode_call(&bytes[..length]));
            }
            for at in 0..bytes.len() {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 0x41;
                drop(decode_call(&flipped));
            }
        }
        assert!(decode_call(b"").is_err() && decode_call(b"S\xff\xff\xff\xff").is_err());
        assert!(decode_call(b"J[[[[").is_err() && decode_call(b"xyz").is_err());
        let mut vote = b"S".to_vec();
        let head = serde_json::to_vec(&Call::Vote(VoteRequest::new(Vote::new(1, 2), None))).unwrap();
        vote.extend((head.len() as u32).to_le_bytes());
        vote.extend(head);
        assert!(decode_call(&vote).unwrap_err().contains("only pieces"));
    }
}
