//! What two nodes say to each other before the first frame, and when they had better not go on. Drawn in `docs/formats/peer.md`.

use super::types::{Identity, Secret};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use kvorum_sync::StoreId;
use sha2::Sha256;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"KVRMPEER";

/// Versions of the protocol that this program speaks: the one of its own release and that of the release before.
pub(super) const VERSION_MIN: u16 = 1;
pub(super) const VERSION_MAX: u16 = 1;

/// Bytes of a greeting, and of the answer to it. They never change, whatever else does.
pub(super) const GREETING_BYTES: usize = 16;

/// Bytes of a record before its body (length, kind), behind it (checksum), and its body at most.
const RECORD_HEADER_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 8;
pub(super) const RECORD_BYTES_MAX: usize = 4096;

const NONCE_BYTES: usize = 32;
const NAME_BYTES_MAX: usize = 255;
const REASON_BYTES_MAX: usize = 1024;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The control lane of a session: with it the session begins and ends.
    Control,
    /// A data lane of a session.
    Data(u8),
    /// One call, to a node that need not be a peer.
    Ask,
}

impl Purpose {
    fn numbers(self) -> (u8, u8) {
        match self {
            Purpose::Control => (0, 0),
            Purpose::Data(lane) => (1, lane),
            Purpose::Ask => (2, 0),
        }
    }

    fn of(purpose: u8, lane: u8) -> Result<Purpose, String> {
        match (purpose, lane) {
            (0, 0) => Ok(Purpose::Control),
            (1, lane) => Ok(Purpose::Data(lane)),
            (2, 0) => Ok(Purpose::Ask),
            _ => Err(format!("it wants a connection for purpose {purpose}.{lane}, which is unknown here")),
        }
    }
}

/// The first bytes of the side that connects; in clear, also with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) versions: (u16, u16),
    pub(super) purpose: Purpose,
    pub(super) tls: bool,
}

impl Greeting {
    pub(super) fn new(purpose: Purpose, tls: bool) -> Greeting {
        Greeting { versions: (VERSION_MIN, VERSION_MAX), purpose, tls }
    }

    pub(super) fn encode(self) -> [u8; GREETING_BYTES] {
        let (purpose, lane) = self.purpose.numbers();
        greeting_bytes(self.versions, [purpose, lane, u8::from(self.tls), 0])
    }

    pub(super) fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Greeting, String> {
        let (versions, [purpose, lane, tls, _]) = read_greeting(bytes)?;
        Ok(Greeting { versions, purpose: Purpose::of(purpose, lane)?, tls: tls == 1 })
    }
}

/// The answer to a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) versions: (u16, u16),
    pub(super) verdict: Verdict,
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does: with TLS if the greeting said so, then with records.
    GoOn,
    /// This node speaks over TLS only.
    WantsTls,
    /// This node has no certificate to speak TLS with.
    HasNoTls,
    /// No version of the protocol is known to both.
    Versions,
}

const VERDICTS: [Verdict; 4] = [Verdict::GoOn, Verdict::WantsTls, Verdict::HasNoTls, Verdict::Versions];

impl Answer {
    /// The answer of a node to this greeting.
    pub(super) fn to(greeting: &Greeting, tls: bool) -> Answer {
        let verdict = match (version(greeting.versions), greeting.tls, tls) {
            (None, ..) => Verdict::Versions,
            (_, false, true) => Verdict::WantsTls,
            (_, true, false) => Verdict::HasNoTls,
            _ => Verdict::GoOn,
        };
        Answer { versions: (VERSION_MIN, VERSION_MAX), verdict }
    }

    pub(super) fn encode(self) -> [u8; GREETING_BYTES] {
        greeting_bytes(self.versions, [self.verdict as u8, 0, 0, 0])
    }

    pub(super) fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Answer, String> {
        let (versions, [verdict, ..]) = read_greeting(bytes)?;
        let verdict = VERDICTS.get(usize::from(verdict)).copied();
        let verdict = verdict.ok_or("its answer to a greeting is unknown here")?;
        Ok(Answer { versions, verdict })
    }

    /// Why the connection ends, if it does; in words that fit both sides, `theirs` being the versions of the other one.
    pub(super) fn reason(self, theirs: (u16, u16)) -> Result<(), String> {
        let (least, most) = theirs;
        Err(match self.verdict {
            Verdict::GoOn => return Ok(()),
            Verdict::WantsTls => "one node speaks over TLS only, the other has no certificate".into(),
            Verdict::HasNoTls => "one node wants TLS, the other has no certificate".into(),
            Verdict::Versions => format!(
                "no version of the peer protocol is known to both: the other node speaks {least} to {most}, this one {VERSION_MIN} to {VERSION_MAX}. \
                 Upgrade one release at a time"
            ),
        })
    }
}

/// The version that two nodes speak: the highest that both know.
fn version((least, most): (u16, u16)) -> Option<u16> {
    let both = most.min(VERSION_MAX);
    (both >= least.max(VERSION_MIN)).then_some(both)
}

fn greeting_bytes((least, most): (u16, u16), last: [u8; 4]) -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    let mut rest = &mut bytes[..];
    rest.put_slice(&MAGIC);
    rest.put_u16_le(least);
    rest.put_u16_le(most);
    rest.put_slice(&last);
    bytes
}

fn read_greeting(bytes: &[u8; GREETING_BYTES]) -> Result<((u16, u16), [u8; 4]), String> {
    let mut rest = bytes.strip_prefix(&MAGIC).ok_or("it does not speak the peer protocol")?;
    let versions = (rest.get_u16_le(), rest.get_u16_le());
    let mut last = [0; 4];
    rest.copy_to_slice(&mut last);
    Ok((versions, last))
}

/// Who one side is and what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) identity: Identity,
    pub(super) purpose: Purpose,
    /// Number of the session that the connection belongs to, by the side that connects.
    pub(super) session: u64,
    /// Data lanes that this side would have.
    pub(super) lanes: u8,
    /// Whether this side has a cluster secret.
    pub(super) secret: bool,
    /// The challenge of this side.
    pub(super) nonce: [u8; NONCE_BYTES],
}

/// What the two sides send each other after the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Hello(Hello),
    /// That this side knows the secret; empty if there is none.
    Proof(Bytes),
    /// Why this side ends the connection.
    Refusal(String),
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let kind = match self {
            Record::Hello(hello) => {
                hello.put(&mut body);
                0
            }
            Record::Proof(proof) => {
                body.put_slice(proof);
                1
            }
            Record::Refusal(reason) => {
                body.put_slice(cut(reason, REASON_BYTES_MAX).as_bytes());
                2
            }
        };
        let mut bytes = BytesMut::with_capacity(RECORD_HEADER_BYTES + body.len() + CHECKSUM_BYTES);
        bytes.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
        bytes.put_u8(kind);
        bytes.put_slice(&body);
        let sum = xxh3_64(&bytes);
        bytes.put_u64_le(sum);
        bytes.freeze()
    }

    /// How many bytes the record has that begins so; `None` if more of its beginning is needed.
    pub(super) fn length(begin: &[u8]) -> Result<Option<usize>, String> {
        let Some(mut length) = begin.get(..4) else { return Ok(None) };
        let body = length.get_u32_le() as usize;
        if body > RECORD_BYTES_MAX {
            return Err(format!(
                "a record of its handshake has {body} bytes, and {RECORD_BYTES_MAX} are the most"
            ));
        }
        Ok(Some(RECORD_HEADER_BYTES + body + CHECKSUM_BYTES))
    }

    /// Reads a whole record.
    pub(super) fn decode(bytes: &[u8]) -> Result<Record, String> {
        let torn = || "a record of its handshake is torn".to_owned();
        if Record::length(bytes)? != Some(bytes.len()) {
            return Err(torn());
        }
        let (summed, mut sum) = bytes.split_at_checked(bytes.len() - CHECKSUM_BYTES).ok_or_else(torn)?;
        if sum.get_u64_le() != xxh3_64(summed) {
            return Err("a record of its handshake does not have its checksum".into());
        }
        let (header, body) = summed.split_at_checked(RECORD_HEADER_BYTES).ok_or_else(torn)?;
        match header.last() {
            Some(0) => Hello::read(body).ok_or_else(torn)?.map(Record::Hello),
            Some(1) => Ok(Record::Proof(Bytes::copy_from_slice(body))),
            Some(2) => Ok(Record::Refusal(printable(body))),
            _ => Err("a record of its handshake is unknown here".into()),
        }
    }
}

impl Hello {
    fn put(&self, to: &mut BytesMut) {
        let (purpose, lane) = self.purpose.numbers();
        to.put_slice(&self.nonce);
        to.put_u8(purpose);
        to.put_u8(lane);
        to.put_u8(self.lanes);
        to.put_u8(u8::from(self.secret));
        to.put_u64_le(self.session);
        put_identity(&self.identity, to);
    }

    /// `None` if the body ends too early.
    fn read(mut body: &[u8]) -> Option<Result<Hello, String>> {
        let mut nonce = [0; NONCE_BYTES];
        body.try_copy_to_slice(&mut nonce).ok()?;
        let (purpose, lane) = (body.try_get_u8().ok()?, body.try_get_u8().ok()?);
        let (lanes, secret) = (body.try_get_u8().ok()?, body.try_get_u8().ok()? == 1);
        let session = body.try_get_u64_le().ok()?;
        let identity = read_identity(body)?;
        let whole = |purpose| Hello { identity, purpose, session, lanes, secret, nonce };
        Some(Purpose::of(purpose, lane).map(whole))
    }
}

/// Whatever follows an identity in a later version is left alone.
pub(super) fn put_identity(identity: &Identity, to: &mut BytesMut) {
    to.put_u64_le(identity.store.0);
    to.put_u8(u8::from(identity.cluster.is_some()));
    to.put_u128_le(identity.cluster.unwrap_or_default());
    to.put_u8(u8::from(identity.empty));
    to.put_u64_le(identity.map_version);
    let name = cut(&identity.name, NAME_BYTES_MAX);
    to.put_u16_le(u16::try_from(name.len()).unwrap_or(u16::MAX));
    to.put_slice(name.as_bytes());
}

pub(super) fn read_identity(mut body: &[u8]) -> Option<Identity> {
    let store = StoreId(body.try_get_u64_le().ok()?);
    let (has, cluster) = (body.try_get_u8().ok()? == 1, body.try_get_u128_le().ok()?);
    let empty = body.try_get_u8().ok()? == 1;
    let map_version = body.try_get_u64_le().ok()?;
    let name_bytes = body.try_get_u16_le().ok()?;
    let name = printable(body.get(..usize::from(name_bytes))?);
    Some(Identity { store, name, cluster: has.then_some(cluster), empty, map_version })
}

/// Why a node does not speak with another.
pub(super) fn judge(me: &Identity, other: &Identity) -> Result<(), String> {
    if me.store == other.store {
        return Err("it has the same store id: it is this node itself, or a copy of its data folder".into());
    }
    match (me.cluster, other.cluster) {
        (Some(mine), Some(theirs)) if mine != theirs => {
            let (one, other) = (&me.name, &other.name);
            Err(format!("{one} belongs to cluster {mine:032x}, {other} to cluster {theirs:032x}"))
        }
        _ => Ok(()),
    }
}

/// Why this side with or without a secret does not speak with that one.
pub(super) fn judge_secrets(mine: bool, theirs: bool) -> Result<(), String> {
    if mine == theirs {
        return Ok(());
    }
    Err("one node has a cluster secret, the other has none: give both the same --cluster-secret-file".into())
}

/// Which side proves that it knows the secret. The two prove different things: what one says can't be said back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Acceptor,
}

/// The proof of one side, over everything that both have said before.
pub(super) fn prove(secret: Option<&Secret>, side: Side, said: &[&[u8]]) -> Bytes {
    secret.map_or_else(Bytes::new, |secret| {
        Bytes::copy_from_slice(&proof(secret, side, said).finalize().into_bytes())
    })
}

/// Whether the other side knows the secret. Takes as long whatever it said.
pub(super) fn is_proven(secret: Option<&Secret>, side: Side, said: &[&[u8]], found: &[u8]) -> bool {
    secret.map_or(found.is_empty(), |secret| proof(secret, side, said).verify_slice(found).is_ok())
}

fn proof(secret: &Secret, side: Side, said: &[&[u8]]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "a key of this function may have any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("a key of any length");
    mac.update(match side {
        Side::Dialer => b"kvorum peer 1 dialer",
        Side::Acceptor => b"kvorum peer 1 acceptor",
    });
    for part in said {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac
}

/// Not more than so many bytes of a text.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

/// Text of another node as it may stand in a log.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Reads these bytes as everything that a handshake may hold.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode_handshake(bytes: &[u8]) -> Result<(), String> {
    if let Some(greeting) = bytes.first_chunk() {
        let _ = (Greeting::decode(greeting), Answer::decode(greeting));
    }
    let _ = read_identity(bytes);
    let mut rest = bytes;
    while let Some(length) = Record::length(rest)? {
        let (record, behind) = rest.split_at_checked(length).ok_or("torn")?;
        Record::decode(record)?;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
pub(super) mod tests;
