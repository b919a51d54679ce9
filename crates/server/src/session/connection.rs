//! `SELECT`, `AUTH`, `HELLO`, `RESET`, `TIME`, `SHUTDOWN`.

use super::Session;
use crate::network::Door;
use crate::resp::{Protocol, integer};
use crate::rights;
use kvorum_cluster::NamespaceId;
use kvorum_model::{Args, ErrorReply, Reply};

/// The Redis version whose semantics the commands have.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

impl Session {
    /// `SELECT number` or `SELECT name`.
    pub(super) fn select(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let namespace = self.find_namespace(args.at(1))?;
        if self.client.door == Door::RespCluster && namespace != NamespaceId::ZERO {
            return Err(ErrorReply::new("ERR SELECT is not allowed in cluster mode"));
        }
        self.namespace = namespace;
        self.client.facts.lock().database = self.namespace.number();
        Ok(Reply::Ok)
    }

    /// The namespace that `SELECT` would choose.
    pub(super) fn find_namespace(&self, name: &[u8]) -> Result<NamespaceId, ErrorReply> {
        if let Some(namespace) = self.shared.node.namespace(name) {
            return Ok(namespace);
        }
        Err(ErrorReply::new(match integer(name) {
            Some(_) => "ERR DB index is out of range".to_owned(),
            None => format!(
                "ERR value is not an integer or out of range, nor is there a namespace '{}'",
                String::from_utf8_lossy(name.get(..64).unwrap_or(name))
            ),
        }))
    }

    /// `AUTH [user] password`.
    pub(super) fn auth(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let (user, password) = match args.from(1) {
            [password] => {
                if self.settings().requirepass.is_none() {
                    return Err(ErrorReply::new(
                        "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration \
                         is correct?",
                    ));
                }
                (&b"default"[..], *password)
            }
            [user, password] => (*user, *password),
            _ => return Err(ErrorReply::syntax()),
        };
        self.log_in(user, password)?;
        Ok(Reply::Ok)
    }

    fn log_in(&mut self, user: &[u8], password: &[u8]) -> Result<(), ErrorReply> {
        if !rights::credentials_fit(self.settings(), user, password) {
            return Err(ErrorReply::new("WRONGPASS invalid username-password pair or user is disabled."));
        }
        self.authenticated = true;
        Ok(())
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`: all of it or nothing.
    pub(super) fn hello(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let mut protocol = self.protocol;
        if let Some(version) = args.get(1) {
            protocol = match integer(version) {
                Some(2) => Protocol::Two,
                Some(3) => Protocol::Three,
                Some(_) => return Err(ErrorReply::new("NOPROTO unsupported protocol version")),
                None => {
                    return Err(ErrorReply::new("ERR Protocol version is not an integer or out of range"));
                }
            };
        }
        let (mut credentials, mut name) = (None, None);
        let mut at = 2;
        while let Some(option) = args.get(at) {
            let (first, second) = (args.get(at + 1), args.get(at + 2));
            if let (true, Some(user), Some(password)) = (option.eq_ignore_ascii_case(b"AUTH"), first, second)
            {
                credentials = Some((user, password));
                at += 3;
            } else if let (true, Some(given)) = (option.eq_ignore_ascii_case(b"SETNAME"), first) {
                super::client::check_name(given)?;
                name = Some(given);
                at += 2;
            } else {
                let option = String::from_utf8_lossy(option.get(..64).unwrap_or(option));
                return Err(ErrorReply::new(format!("ERR Syntax error in HELLO option '{option}'")));
            }
        }
        if let Some((user, password)) = credentials {
            self.log_in(user, password)?;
        }
        self.settings();
        if !self.is_authenticated() {
            return Err(ErrorReply::new(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option \
                 can be used to authenticate the client and select the RESP protocol version at the same time",
            ));
        }
        if let Some(name) = name {
            self.set_client_name(name)?;
        }
        self.protocol = protocol;
        self.client.facts.lock().protocol = protocol.number();
        Ok(self.greeting())
    }

    fn greeting(&self) -> Reply {
        Reply::Map(vec![
            (Reply::text("server"), Reply::text("redis")),
            (Reply::text("version"), Reply::text(REDIS_VERSION)),
            (Reply::text("proto"), Reply::Integer(i64::from(self.protocol.number()))),
            (Reply::text("id"), Reply::Integer(i64::try_from(self.client.id).unwrap_or(i64::MAX))),
            (
                Reply::text("mode"),
                Reply::text(if self.client.door == Door::RespCluster { "cluster" } else { "standalone" }),
            ),
            (Reply::text("role"), Reply::text("master")),
            (Reply::text("modules"), Reply::Array(Vec::new())),
            (Reply::text("kvorum_version"), Reply::text(env!("CARGO_PKG_VERSION"))),
        ])
    }

    /// `RESET`: as if the connection were new.
    pub(super) fn reset(&mut self) -> Reply {
        let fresh = Session::new(std::sync::Arc::clone(&self.shared), std::sync::Arc::clone(&self.client));
        let closing = self.closing;
        *self = Session { closing, ..fresh };
        let mut facts = self.client.facts.lock();
        facts.name.clear();
        facts.database = Some(0);
        facts.protocol = Protocol::default().number();
        facts.queued = None;
        Reply::Simple("RESET".into())
    }

    /// `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]`. What was acknowledged is durable in its class already, so the options that say what
    /// to save, or to go on if that fails, ask for nothing.
    pub(super) fn stop_server(&mut self, args: Args<'_>) -> Result<(), ErrorReply> {
        let is = |option: &[u8], name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        let (mut save, mut nosave, mut abort, mut others) = (false, false, false, false);
        for option in args.from(1) {
            save |= is(option, "SAVE");
            nosave |= is(option, "NOSAVE");
            abort |= is(option, "ABORT");
            others |= is(option, "NOW") || is(option, "FORCE");
            if !["SAVE", "NOSAVE", "ABORT", "NOW", "FORCE"].iter().any(|name| is(option, name)) {
                return Err(ErrorReply::syntax());
            }
        }
        if (save && nosave) || (abort && (save || nosave || others)) {
            return Err(ErrorReply::syntax());
        }
        if abort {
            return Err(ErrorReply::new("ERR No shutdown in progress."));
        }
        tracing::info!("SHUTDOWN was asked for");
        self.closing = true;
        self.shared.shutdown.shutdown();
        Ok(())
    }
}

/// `TIME`: seconds, and microseconds of the current one.
pub(super) fn time() -> Reply {
    let now = crate::time::since_epoch();
    Reply::Array(vec![Reply::bulk(now.as_secs().to_string()), Reply::bulk(now.subsec_micros().to_string())])
}
