//! A server in this process, and clients that speak raw bytes with it.

use kvorum_cluster::{Node, NodeSettings};
use kvorum_server::{Server, ServerSettings, ShutdownHandle};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// No test waits that long: it ends one that would wait forever.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Running {
    pub(crate) resp: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The door for cluster clients, if the settings ask for one.
    pub(crate) cluster: Option<SocketAddr>,
    pub(crate) shutdown: ShutdownHandle,
    node: Node,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// Starts one with default settings.
pub(crate) fn start() -> Running {
    start_with(|_| {})
}

/// Starts one with changed settings.
pub(crate) fn start_with(change: impl FnOnce(&mut ServerSettings)) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = ServerSettings::default();
    settings.resp = (Ipv4Addr::LOCALHOST, 0).into();
    settings.http = Some((Ipv4Addr::LOCALHOST, 0).into());
    settings.threads = 2;
    change(&mut settings);
    let bound = Server::bind(&settings).unwrap();
    let node = Node::open(NodeSettings::new(folder.path().join("data"))).unwrap();
    let (resp, http, shutdown) =
        (bound.resp_address(), bound.http_address().unwrap(), bound.shutdown_handle());
    let cluster = bound.resp_cluster_address();
    let serving = node.clone();
    let thread = std::thread::spawn(move || bound.run(serving).unwrap());
    Running { resp, http, cluster, shutdown, node, thread: Some(thread), _folder: folder }
}

impl Running {
    /// A new connection of the Redis protocol.
    pub(crate) fn connect(&self) -> Client {
        Running::connect_to(self.resp)
    }

    /// A new connection through the door for cluster clients.
    pub(crate) fn connect_cluster(&self) -> Client {
        Running::connect_to(self.cluster.unwrap())
    }

    fn connect_to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.shutdown();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            let closed = self.node.shutdown();
            if !std::thread::panicking() {
                ended.unwrap();
                closed.unwrap();
            }
        }
    }
}

/// A connection of the Redis protocol. Replies come as text: what the protocol writes, with `|` for each line end.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Tells the server that nothing more will be sent.
    pub(crate) fn finish_sending(&mut self) {
        self.stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a command and reads its reply.
    pub(crate) fn call(&mut self, words: &str) -> String {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        self.send(&encode(&words));
        self.reply()
    }

    /// Calls in turn; each must answer as it says.
    pub(crate) fn script(&mut self, steps: &[(&str, &str)]) {
        for (words, reply) in steps {
            assert_eq!(self.call(words), *reply, "{words}");
        }
    }

    /// Reads one reply.
    pub(crate) fn reply(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stream.read_line(&mut line).unwrap() > 0, "the server closed the connection");
        let count = line[1..].trim_end().parse::<i64>().unwrap_or(-1);
        let mut text = line.trim_end().to_owned() + "|";
        let parts = match line.as_bytes()[0] {
            b'*' | b'~' => count,
            b'%' => count * 2,
            b'$' | b'=' if count >= 0 => {
                let mut bytes = vec![0; usize::try_from(count).unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                text += &String::from_utf8_lossy(&bytes).trim_end().replace("\r\n", "|");
                text.push('|');
                0
            }
            _ => 0,
        };
        for _ in 0..parts {
            text += &self.reply();
        }
        text
    }

    /// Reads until the server closes, which it must.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        match self.stream.read_to_string(&mut text) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => text,
        }
    }
}

/// A command in the protocol.
pub(crate) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}
