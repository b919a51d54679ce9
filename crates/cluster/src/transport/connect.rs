//! From a TCP connection to a handshake that both sides agreed to.

use super::handshake::{
    Answer, GREETING_BYTES, Greeting, Hello, Purpose, Record, Side, is_proven, judge, judge_secrets, prove,
};
use super::lane::Io;
use super::tls::{self, Tls};
use super::types::{Identity, Secret};
use bytes::Bytes;
use kvorum_sync::StoreId;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What this node brings to every handshake.
pub(super) struct Manners<'a> {
    pub(super) identity: Identity,
    pub(super) lanes: u8,
    pub(super) secret: Option<&'a Secret>,
    pub(super) tls: Option<&'a Tls>,
}

/// What the side that connects wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) purpose: Purpose,
    pub(super) session: u64,
    /// Who should be there.
    pub(super) expected: Option<StoreId>,
}

/// A connection whose other side is known.
pub(super) struct Shaken {
    pub(super) io: Box<dyn Io>,
    /// What the other side said.
    pub(super) hello: Hello,
}

/// A connection whose other side is known, but has not heard yet that it is welcome.
pub(super) struct Guest {
    pub(super) hello: Hello,
    io: Box<dyn Io>,
    proof: Bytes,
}

impl Guest {
    /// The last word of the handshake.
    pub(super) async fn welcome(mut self) -> Result<Box<dyn Io>, String> {
        self.io.write_all(&Record::Proof(self.proof).encode()).await.map_err(ended)?;
        self.io.flush().await.map_err(ended)?;
        Ok(self.io)
    }

    pub(super) async fn refuse(mut self, reason: String) -> String {
        refuse(&mut *self.io, &reason).await;
        reason
    }
}

/// Connects and shakes hands.
pub(super) async fn dial(manners: &Manners<'_>, address: &str, wish: Wish) -> Result<Shaken, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(ended)?;
    let greeting = Greeting::new(wish.purpose, manners.tls.is_some());
    let greeting_bytes = greeting.encode();
    stream.write_all(&greeting_bytes).await.map_err(ended)?;
    let mut answer_bytes = [0; GREETING_BYTES];
    stream.read_exact(&mut answer_bytes).await.map_err(ended)?;
    let answer = Answer::decode(&answer_bytes)?;
    answer.reason(answer.versions)?;
    let mut io: Box<dyn Io> = match manners.tls {
        Some(tls) => tls.connect(address, stream).await?,
        None => Box::new(stream),
    };
    let mine = Record::Hello(manners.hello(wish.purpose, wish.session)?).encode();
    io.write_all(&mine).await.map_err(ended)?;
    io.flush().await.map_err(ended)?;
    let (hello, theirs) = read_hello(&mut *io).await?;
    if let Err(reason) = manners.judge(&hello, wish.expected) {
        refuse(&mut *io, &reason).await;
        return Err(reason);
    }
    let said: [&[u8]; 4] = [&greeting_bytes, &answer_bytes, &mine, &theirs];
    let proof = prove(manners.secret, Side::Dialer, &said);
    io.write_all(&Record::Proof(proof).encode()).await.map_err(ended)?;
    io.flush().await.map_err(ended)?;
    let (Record::Proof(proof), _) = read_record(&mut *io).await? else { return Err(out_of_order()) };
    if !is_proven(manners.secret, Side::Acceptor, &said, &proof) {
        return Err("it does not know the cluster secret".into());
    }
    Ok(Shaken { io, hello })
}

/// Reads the greeting of a node that connected.
pub(super) async fn read_greeting(
    stream: &mut TcpStream,
) -> Result<(Greeting, [u8; GREETING_BYTES]), String> {
    let mut bytes = [0; GREETING_BYTES];
    stream.read_exact(&mut bytes).await.map_err(ended)?;
    Ok((Greeting::decode(&bytes)?, bytes))
}

/// Shakes hands with a node that connected and has greeted so.
pub(super) async fn accept(
    manners: &Manners<'_>,
    mut stream: TcpStream,
    (greeting, greeting_bytes): (Greeting, [u8; GREETING_BYTES]),
) -> Result<Guest, String> {
    stream.set_nodelay(true).map_err(ended)?;
    let answer = Answer::to(&greeting, manners.tls.is_some());
    let answer_bytes = answer.encode();
    stream.write_all(&answer_bytes).await.map_err(ended)?;
    answer.reason(greeting.versions)?;
    let mut io: Box<dyn Io> = match manners.tls {
        Some(tls) => tls.accept(stream).await?,
        None => Box::new(stream),
    };
    let (hello, theirs) = read_hello(&mut *io).await?;
    let judged = manners.judge(&hello, None);
    let judged =
        judged.and_then(|()| if hello.purpose == greeting.purpose { Ok(()) } else { Err(out_of_order()) });
    if let Err(reason) = judged {
        refuse(&mut *io, &reason).await;
        return Err(reason);
    }
    let mine = Record::Hello(manners.hello(hello.purpose, hello.session)?).encode();
    io.write_all(&mine).await.map_err(ended)?;
    io.flush().await.map_err(ended)?;
    let (Record::Proof(proof), _) = read_record(&mut *io).await? else { return Err(out_of_order()) };
    let said: [&[u8]; 4] = [&greeting_bytes, &answer_bytes, &theirs, &mine];
    if !is_proven(manners.secret, Side::Dialer, &said, &proof) {
        let reason = "the cluster secrets of the two nodes differ: give both the same --cluster-secret-file";
        refuse(&mut *io, reason).await;
        return Err(reason.into());
    }
    Ok(Guest { io, hello, proof: prove(manners.secret, Side::Acceptor, &said) })
}

impl Manners<'_> {
    fn hello(&self, purpose: Purpose, session: u64) -> Result<Hello, String> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let (identity, lanes, secret) = (self.identity.clone(), self.lanes, self.secret.is_some());
        Ok(Hello { identity, purpose, session, lanes, secret, nonce })
    }

    fn judge(&self, hello: &Hello, expected: Option<StoreId>) -> Result<(), String> {
        judge(&self.identity, &hello.identity)?;
        judge_secrets(self.secret.is_some(), hello.secret)?;
        match expected {
            Some(StoreId(expected)) if expected != hello.identity.store.0 => {
                let Identity { store: StoreId(store), name, .. } = &hello.identity;
                Err(format!("{name} has store {store:016x} there, and {expected:016x} was expected"))
            }
            _ => Ok(()),
        }
    }
}

async fn read_hello(io: &mut dyn Io) -> Result<(Hello, Bytes), String> {
    match read_record(io).await? {
        (Record::Hello(hello), bytes) => Ok((hello, bytes)),
        _ => Err(out_of_order()),
    }
}

/// A record and its bytes. A refusal is an error.
async fn read_record(io: &mut dyn Io) -> Result<(Record, Bytes), String> {
    let mut bytes = vec![0; 4];
    io.read_exact(&mut bytes).await.map_err(ended)?;
    let length = Record::length(&bytes)?.ok_or_else(out_of_order)?;
    bytes.resize(length, 0);
    io.read_exact(bytes.get_mut(4..).unwrap_or_default()).await.map_err(ended)?;
    match Record::decode(&bytes)? {
        Record::Refusal(reason) => Err(reason),
        record => Ok((record, bytes.into())),
    }
}

/// Tells the other side why. It may be gone already: then it can't be told.
async fn refuse(io: &mut dyn Io, reason: &str) {
    let told = io.write_all(&Record::Refusal(reason.to_owned()).encode()).await;
    if told.is_ok() && io.flush().await.is_ok() {
        let _ = io.shutdown().await;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn ended(error: io::Error) -> String {
    if tls::is_cause(&error) {
        return tls::failed(&error);
    }
    format!("the connection ended during the handshake: {error}")
}

fn out_of_order() -> String {
    "it says something else than the handshake wants".into()
}
