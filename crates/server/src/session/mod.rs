//! What a connection of the Redis protocol is: who, where, in which protocol, inside a transaction or not.

mod client;
mod cluster;
mod config;
mod connection;
mod namespace;
mod replicas;
mod save;
mod transaction;
mod waiting;

pub(crate) use client::{REQUEST_ID_BYTES_MAX, request_id};
pub(crate) use connection::REDIS_VERSION;
pub(crate) use replicas::waits_for_replicas;
pub(crate) use transaction::{NotRun, Queue};
pub(crate) use waiting::is_waiting;

use crate::clients::Client;
use crate::network::Door;
use crate::resp::Protocol;
use crate::rights;
use crate::settings::ServerSettings;
use crate::shared::Shared;
use kvorum_cluster::{NamespaceId, Request, Watched};
use kvorum_model::{Args, CommandSpec, ErrorReply, Flags, Reply, Run, SessionCommand, resolve};
use std::sync::Arc;

/// A connection's state.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Arc<Client>,
    pub(crate) node: kvorum_cluster::Session,
    pub(crate) namespace: NamespaceId,
    pub(crate) protocol: Protocol,
    pub(crate) watched: Watched,
    /// Set when the connection shall be closed after the replies so far.
    pub(crate) closing: bool,
    queue: Option<Queue>,
    /// The password has been given, or none was needed when the connection was opened.
    authenticated: bool,
    settings: Arc<ServerSettings>,
    generation: u64,
}

/// What is to be done with a command.
pub(crate) enum Admitted<'a> {
    /// The node executes it.
    Request(Request<'a>),
    /// [`Session::own`] does.
    Own(&'static CommandSpec, Args<'a>),
    /// It waits for `EXEC`.
    Queued,
    /// `EXEC`.
    Exec,
    /// `WATCH`.
    Watch(Args<'a>),
    /// It gets an error.
    Refused(ErrorReply),
    /// A browser, made to talk to us by a foreign page.
    Hostile,
}

impl Session {
    /// A new connection's.
    pub(crate) fn new(shared: Arc<Shared>, client: Arc<Client>) -> Session {
        let settings = shared.settings();
        let mut node = kvorum_cluster::Session::new();
        node.own_shards = client.door == Door::RespCluster;
        Session {
            node,
            namespace: NamespaceId::ZERO,
            protocol: Protocol::default(),
            watched: Watched::new(),
            closing: false,
            queue: None,
            authenticated: settings.requirepass.is_none(),
            settings,
            generation: 0,
            shared,
            client,
        }
    }

    /// The settings as they are now.
    pub(crate) fn settings(&mut self) -> &ServerSettings {
        self.shared.refresh(&mut self.generation, &mut self.settings);
        &self.settings
    }

    /// Whether the password has been given, if there is one.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.authenticated || self.settings.requirepass.is_none()
    }

    /// Looks a command up, checks its words and rights, and says who executes it. The checks come in Redis' order.
    pub(crate) fn admit<'a>(&mut self, args: Args<'a>) -> Admitted<'a> {
        let spec = match resolve(args) {
            Ok(spec) => spec,
            Err(_) if is_http(args.name()) => {
                self.closing = true;
                return Admitted::Hostile;
            }
            Err(error) => return self.refuse(error),
        };
        if let Err(error) = rights::check(self.authenticated, &self.settings, spec, args) {
            return self.refuse(error);
        }
        if self.client.door == Door::RespCluster
            && let Err(error) = self.check_slot(spec, args)
        {
            return self.refuse(error);
        }
        if self.queue.is_some() {
            return self.admit_queued(spec, args);
        }
        match spec.run {
            Run::Data(_) | Run::Keyspace(_) => {
                Admitted::Request(Request { namespace: self.namespace, spec, args })
            }
            Run::Session(SessionCommand::Exec) => Admitted::Exec,
            Run::Session(SessionCommand::Watch) => Admitted::Watch(args),
            _ => Admitted::Own(spec, args),
        }
    }

    /// A command while `MULTI` is open: most wait for `EXEC`.
    fn admit_queued<'a>(&mut self, spec: &'static CommandSpec, args: Args<'a>) -> Admitted<'a> {
        use SessionCommand::{Discard, Exec, Multi, Quit, Reset, Watch};
        let waits = matches!(spec.run, Run::Session(command) if is_waiting(command));
        if waits || spec.flags.has(Flags::NO_MULTI) {
            return self.refuse(ErrorReply::new("ERR Command not allowed inside a transaction"));
        }
        match spec.run {
            Run::Session(Exec) => return Admitted::Exec,
            Run::Session(Multi | Discard | Quit | Reset) => return Admitted::Own(spec, args),
            Run::Session(Watch) => {
                return Admitted::Refused(ErrorReply::new("ERR WATCH inside MULTI is not allowed"));
            }
            _ => {}
        }
        let limit = self.settings.query_buffer_bytes_max;
        let Some(queue) = &mut self.queue else { return Admitted::Own(spec, args) };
        match queue.push(spec, args, limit) {
            Ok(()) => {
                self.client.facts.lock().queued = Some(queue.len());
                Admitted::Queued
            }
            Err(error) => self.refuse(error),
        }
    }

    /// An error that a transaction remembers.
    fn refuse<'a>(&mut self, error: ErrorReply) -> Admitted<'a> {
        if let Some(queue) = &mut self.queue {
            queue.spoil();
        }
        Admitted::Refused(error)
    }

    /// Executes a command that concerns the connection or the process, or whose reply follows from its words. `Ok(None)`: there is no reply.
    pub(crate) fn own(
        &mut self,
        spec: &'static CommandSpec,
        args: Args<'_>,
    ) -> Result<Option<Reply>, ErrorReply> {
        self.client.facts.lock().last_command = spec.name;
        match spec.run {
            Run::Answer(answer) => answer(args).map(Some),
            Run::Session(command) => self.session_command(command, args),
            _ => Err(ErrorReply::new(format!("ERR '{}' is not for the connection", spec.name))),
        }
    }

    fn session_command(
        &mut self,
        command: SessionCommand,
        args: Args<'_>,
    ) -> Result<Option<Reply>, ErrorReply> {
        use SessionCommand as C;
        let reply = match command {
            C::Select => self.select(args),
            C::Auth => self.auth(args),
            C::Hello => self.hello(args),
            C::Quit => {
                self.closing = true;
                Ok(Reply::Ok)
            }
            C::Reset => Ok(self.reset()),
            C::Info => Ok(Reply::Verbatim(crate::info::text(&self.shared, self.client.door, args))),
            C::ConfigGet => Ok(self.config_get(args)),
            C::ConfigSet => self.config_set(args),
            C::ClientId => Ok(Reply::Integer(i64::try_from(self.client.id).unwrap_or(i64::MAX))),
            C::ClientGetName => Ok(self.client_name()),
            C::ClientSetName => self.set_client_name(args.at(2)),
            C::ClientSetInfo => self.set_client_info(args),
            C::ClientList => self.client_list(args),
            C::ClientRequestId => self.name_request(args.at(2)),
            C::ClientInfo => Ok(self.client_info()),
            C::Time => Ok(connection::time()),
            C::BgSave => self.background_save(args),
            C::LastSave => Ok(self.last_save()),
            C::Shutdown => return self.stop_server(args).map(|()| None),
            C::Multi => self.multi(),
            C::Discard => self.discard(),
            C::Unwatch => {
                self.watched.clear();
                Ok(Reply::Ok)
            }
            C::ClusterInfo
            | C::ClusterMyId
            | C::ClusterNodes
            | C::ClusterShards
            | C::ClusterSlots
            | C::ClusterKeySlot
            | C::ReadOnly
            | C::ReadWrite => self.cluster(command, args),
            C::Consistency => self.consistency(args),
            C::NamespaceList => Ok(namespace::list(&self.shared.node)),
            _ => Err(ErrorReply::new("ERR this command waits, and is for the turn to execute")),
        };
        reply.map(Some)
    }
}

/// Words that a browser's request brings to a port that speaks the Redis protocol, in the hope that commands follow in its body.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}
