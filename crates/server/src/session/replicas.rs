//! `WAIT` and `WAITAOF`.

use super::Session;
use crate::resp::integer;
use kvorum_cluster::Held;
use kvorum_model::{Args, ErrorReply, Reply, SessionCommand};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How often a client that waits for ever, and has sent more already, is looked after: whether it is there still.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// What is waited for, and for how long; `None`: however long it takes.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    held: Held,
    within: Option<Duration>,
}

impl Wanted {
    /// In the words of Redis' errors.
    fn parse(command: SessionCommand, args: Args<'_>) -> Result<Wanted, ErrorReply> {
        let no_integer = || ErrorReply::new("ERR value is not an integer or out of range");
        let (held, timeout) = if command == SessionCommand::Wait {
            let replicas = integer(args.at(1)).ok_or_else(no_integer)?;
            // Redis takes a negative number, too: it is reached at once.
            (Held { local: false, replicas: u64::try_from(replicas).unwrap_or(0) }, args.at(2))
        } else {
            let local = match integer(args.at(1)).ok_or_else(no_integer)? {
                0 => false,
                1 => true,
                _ => {
                    return Err(ErrorReply::new("ERR value is out of range, value must between 0 and 1"));
                }
            };
            let replicas = integer(args.at(2)).and_then(|number| u64::try_from(number).ok());
            let replicas =
                replicas.ok_or_else(|| ErrorReply::new("ERR value is out of range, must be positive"))?;
            (Held { local, replicas }, args.at(3))
        };
        let timeout = integer(timeout)
            .ok_or_else(|| ErrorReply::new("ERR timeout is not an integer or out of range"))?;
        let timeout = u64::try_from(timeout).map_err(|_| ErrorReply::new("ERR timeout is negative"))?;
        Ok(Wanted { held, within: (timeout > 0).then(|| Duration::from_millis(timeout)) })
    }
}

fn reply(command: SessionCommand, held: Held) -> Reply {
    let replicas = Reply::Integer(i64::try_from(held.replicas).unwrap_or(i64::MAX));
    if command == SessionCommand::Wait {
        return replicas;
    }
    Reply::Array(vec![Reply::Integer(held.local.into()), replicas])
}

impl Session {
    /// Waits until as many have the connection's writes as are wanted, the time is over, the server stops, or the client of an endless wait is gone.
    pub(crate) async fn wait_for_replicas(
        &self,
        command: SessionCommand,
        args: Args<'_>,
        stream: &TcpStream,
    ) -> Reply {
        let wanted = match Wanted::parse(command, args) {
            Ok(wanted) => wanted,
            Err(error) => return Reply::Error(error),
        };
        let node = &self.shared.node;
        let is_endless = wanted.within.is_none();
        let held = tokio::select! {
            held = node.held(&self.node, wanted.held, wanted.within) => held,
            () = gone(stream), if is_endless => Held::default(),
            () = self.shared.shutdown.stopping() => node.held_now(&self.node).await,
        };
        reply(command, held)
    }

    /// One of them inside a transaction, which waits for nothing: `held` says who had what was written before it.
    pub(super) fn replicas_now(
        command: SessionCommand,
        args: Args<'_>,
        held: Held,
    ) -> Result<Reply, ErrorReply> {
        Wanted::parse(command, args).map(|_| reply(command, held))
    }
}

/// Whether a command is one of them.
pub(crate) fn waits_for_replicas(command: SessionCommand) -> bool {
    matches!(command, SessionCommand::Wait | SessionCommand::WaitAof)
}

/// Resolves when the client has closed its side.
async fn gone(stream: &TcpStream) {
    loop {
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_AFTER).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: SessionCommand, line: &str) -> Result<Wanted, String> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Wanted::parse(command, Args::new(&words)).map_err(|error| error.text().to_owned())
    }

    #[test]
    fn arguments_are_those_of_redis() {
        let wanted = |local, replicas, within: Option<u64>| {
            Ok(Wanted { held: Held { local, replicas }, within: within.map(Duration::from_millis) })
        };
        let wait = |line| parse(SessionCommand::Wait, line);
        assert_eq!(wait("WAIT 2 100"), wanted(false, 2, Some(100)));
        assert_eq!(wait("WAIT -5 0"), wanted(false, 0, None));
        assert_eq!(wait("WAIT a 0"), Err("ERR value is not an integer or out of range".to_owned()));
        assert_eq!(wait("WAIT 1 -1"), Err("ERR timeout is negative".to_owned()));
        assert_eq!(wait("WAIT 1 x"), Err("ERR timeout is not an integer or out of range".to_owned()));
        let aof = |line| parse(SessionCommand::WaitAof, line);
        assert_eq!(aof("WAITAOF 1 0 7"), wanted(true, 0, Some(7)));
        assert_eq!(
            aof("WAITAOF 2 0 7"),
            Err("ERR value is out of range, value must between 0 and 1".to_owned())
        );
        assert_eq!(aof("WAITAOF 0 -1 7"), Err("ERR value is out of range, must be positive".to_owned()));
    }
}
