//! A node on a temporary folder, and a connection to it that does what the server does.

use kvorum_cluster::{
    Commit, Durability, NamespaceId, Node, NodeParts, NodeSettings, Outcome, Request, Result, Session,
    Watched,
};
use kvorum_engine::fs::{Fs, StdFs};
use kvorum_engine::{Clock, Parts};
use kvorum_model::{Args, Reply, resolve};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;

/// A clock that stands still until it is set.
pub(crate) struct TestClock(AtomicU64);

/// A day in 2026.
pub(crate) const NOW: u64 = 1_780_000_000_000;

impl TestClock {
    pub(crate) fn new() -> Arc<TestClock> {
        Arc::new(TestClock(AtomicU64::new(NOW)))
    }

    pub(crate) fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, SeqCst);
    }

    pub(crate) fn add(&self, ms: u64) {
        self.0.fetch_add(ms, SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }

    fn unix_ms(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// A folder with a clock, on which nodes are opened one after the other.
pub(crate) struct World {
    _dir: TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) settings: NodeSettings,
}

impl World {
    pub(crate) fn new() -> World {
        let dir = TempDir::new().unwrap();
        let mut settings = NodeSettings::new(dir.path().join("data"));
        settings.durability = Durability::Written;
        settings.memory_bytes = 32 << 20;
        World { _dir: dir, clock: TestClock::new(), settings }
    }

    pub(crate) fn open(&self) -> Node {
        open(&self.settings, &self.clock)
    }
}

pub(crate) fn open(settings: &NodeSettings, clock: &Arc<TestClock>) -> Node {
    try_open(settings, clock, Arc::new(StdFs)).unwrap()
}

pub(crate) fn try_open(settings: &NodeSettings, clock: &Arc<TestClock>, fs: Arc<dyn Fs>) -> Result<Node> {
    let storage = Parts::new(fs, Arc::clone(clock) as Arc<dyn Clock>);
    Node::open_with(settings.clone(), NodeParts { storage, seed: 7, background_threads: false })
}

/// A copy of a folder, as a crash of the process would leave it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) namespace: NamespaceId,
    pub(crate) session: Session,
    pub(crate) watched: Watched,
    /// How often something had to be fetched from the disk.
    pub(crate) fetches: usize,
}

pub(crate) type Words = Vec<Vec<u8>>;

/// Commands from text: words by spaces, commands by `;`.
pub(crate) fn parse(text: &str) -> Vec<Words> {
    let commands = text.split(';').map(str::trim).filter(|command| !command.is_empty());
    commands
        .map(|command| command.split_whitespace().map(|word| word.as_bytes().to_vec()).collect())
        .collect()
}

impl Client {
    pub(crate) fn new(node: &Node) -> Client {
        Client {
            node: node.clone(),
            namespace: NamespaceId::ZERO,
            session: Session::new(),
            watched: Watched::new(),
            fetches: 0,
        }
    }

    pub(crate) fn of(node: &Node, namespace: &str) -> Client {
        Client { namespace: node.namespace(namespace.as_bytes()).unwrap(), ..Client::new(node) }
    }

    /// Executes a pipelined buffer, waits until it is durable, and answers the replies.
    pub(crate) fn pipeline(&mut self, commands: &[Words]) -> Vec<Reply> {
        self.try_pipeline(commands).unwrap()
    }

    /// As `pipeline`; fails if it may not have become durable.
    pub(crate) fn try_pipeline(&mut self, commands: &[Words]) -> Result<Vec<Reply>> {
        let words: Vec<Vec<&[u8]>> =
            commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
        let requests: Vec<_> = words.iter().map(|words| request(self.namespace, words)).collect();
        let mut replies = Vec::new();
        let mut done = 0;
        while done < requests.len() {
            let progress = self.node.execute(&mut self.session, &requests[done..], &mut replies);
            done += progress.executed;
            assert_eq!(replies.len(), done);
            progress.commit.map_or(Ok(()), Commit::wait)?;
            if let Some(prefetch) = progress.blocked {
                self.fetches += 1;
                assert!(self.fetches < 1_000_000, "does not end");
                self.session.resume(prefetch.run());
            }
        }
        Ok(replies)
    }

    pub(crate) fn run(&mut self, text: &str) -> Vec<Reply> {
        self.pipeline(&parse(text))
    }

    /// The replies as text.
    pub(crate) fn text(&mut self, commands: &str) -> String {
        self.run(commands).iter().map(show).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        match self.pipeline(&[vec![b"GET".to_vec(), key.to_vec()]]).remove(0) {
            Reply::Bulk(value) => Some(value.to_vec()),
            Reply::Nil => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn watch(&mut self, keys: &[&[u8]]) {
        while let Some(prefetch) =
            self.node.watch(&mut self.session, self.namespace, keys, &mut self.watched).unwrap()
        {
            self.fetches += 1;
            self.session.resume(prefetch.run());
        }
    }

    /// `EXEC` of these commands; `None` if a watched key has changed.
    pub(crate) fn exec(&mut self, text: &str) -> Option<Vec<Reply>> {
        self.try_exec(&parse(text)).unwrap()
    }

    pub(crate) fn try_exec(&mut self, commands: &[Words]) -> Result<Option<Vec<Reply>>> {
        let words: Vec<Vec<&[u8]>> =
            commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
        let requests: Vec<_> = words.iter().map(|words| request(self.namespace, words)).collect();
        loop {
            let done = self.node.transaction(&mut self.session, &requests, &self.watched);
            done.commit.map_or(Ok(()), Commit::wait)?;
            let replies = match done.outcome {
                Outcome::Done(replies) => Some(replies),
                Outcome::Changed => None,
                Outcome::Refused(error) => return Err(error),
                Outcome::Elsewhere => panic!("a node without a cluster has no others"),
                Outcome::Blocked(prefetch) => {
                    self.fetches += 1;
                    self.session.resume(prefetch.run());
                    continue;
                }
            };
            self.watched.clear();
            return Ok(replies);
        }
    }

    pub(crate) fn exec_text(&mut self, commands: &str) -> String {
        let replies = self.exec(commands);
        replies.map_or("changed".into(), |replies| replies.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    /// The version of a key.
    pub(crate) fn version(&mut self, key: &str) -> u64 {
        match self.run(&format!("GETV {key}")).remove(0) {
            Reply::Array(parts) => match &parts[1] {
                Reply::Bulk(version) => std::str::from_utf8(version).unwrap().parse().unwrap(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn request<'a>(namespace: NamespaceId, words: &'a [&'a [u8]]) -> Request<'a> {
    let args = Args::new(words);
    Request { namespace, spec: resolve(args).unwrap(), args }
}

/// A reply in short.
pub(crate) fn show(reply: &Reply) -> String {
    match reply {
        Reply::Ok => "OK".into(),
        Reply::Simple(text) => text.to_string(),
        Reply::Error(error) => format!("-{error}"),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => bytes.escape_ascii().to_string(),
        Reply::Nil | Reply::NilArray => "nil".into(),
        Reply::Array(parts) => format!("[{}]", parts.iter().map(show).collect::<Vec<_>>().join(" ")),
        other => format!("{other:?}"),
    }
}
