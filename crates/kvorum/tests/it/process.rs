//! A real `kvorum` process, its start lines, and clients of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

/// A running node. Killed (SIGKILL) when dropped.
pub(crate) struct Node {
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) resp: SocketAddr,
    pub(crate) http: SocketAddr,
    /// All start lines.
    pub(crate) lines: Vec<String>,
}

/// The program with free ports on `data`, plus `flags`.
pub(crate) fn command(data: &Path, flags: &[&str]) -> Command {
    command_that_logs("error", data, flags)
}

/// As [`command`], with another level of logging.
pub(crate) fn command_that_logs(level: &str, data: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVORUM_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--resp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", level, "--data"])
        .arg(data)
        .args(flags);
    command
}

/// Runs the program to its end, which must come by itself.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}

impl Node {
    /// Starts a node and waits for its last start line.
    pub(crate) fn start(data: &Path, flags: &[&str]) -> Node {
        Node::spawn(&mut command(data, flags))
    }

    /// As [`Node::start`]; answers its warnings, too.
    pub(crate) fn start_that_logs(data: &Path, flags: &[&str]) -> (Node, Log) {
        let mut node = Node::spawn(command_that_logs("warn", data, flags).stderr(Stdio::piped()));
        let log = Log::of(&mut node.child);
        (node, log)
    }

    fn spawn(command: &mut Command) -> Node {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("a piped output"));
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.starts_with("stop with")) {
            let mut line = String::new();
            let read = out.read_line(&mut line).expect("a start line");
            assert!(read > 0, "the program ended after {lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        let address = |name: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(name)).expect("an address line");
            line.split_whitespace().next().expect("an address").parse().expect("an address")
        };
        Node { resp: address("resp "), http: address("http "), child, out, lines }
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a running process");
        self.child.wait().expect("its end");
    }

    /// Sends a signal by name (`INT`, `TERM`).
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits for the end; its exit code and what else it printed.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("its end");
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("its output");
        (status.code(), rest)
    }

    /// A RESP connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.resp)
    }

    /// One HTTP request on a connection of its own.
    pub(crate) fn http(&self, request: &str, body: &[u8]) -> Answer {
        http(self.http, request, &[], body)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process logs, from where it was read before.
pub(crate) struct Log(BufReader<ChildStderr>);

impl Log {
    /// Of a process whose standard error is piped.
    pub(crate) fn of(child: &mut Child) -> Log {
        Log(BufReader::new(child.stderr.take().expect("a piped error output")))
    }

    /// Reads on until a line has all of these words.
    pub(crate) fn wait_for(&mut self, words: &[&str]) {
        let mut all = String::new();
        loop {
            let start = all.len();
            let read = self.0.read_line(&mut all).expect("a line");
            assert!(read > 0, "it ended without {words:?}: {all}");
            if words.iter().all(|word| all[start..].contains(word)) {
                return;
            }
        }
    }
}

/// A reply of the Redis protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    /// A bulk string.
    pub(crate) fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    /// `+OK`.
    pub(crate) fn ok() -> Reply {
        Reply::Simple(String::from("OK"))
    }
}

/// A RESP2 client that reads strictly: anything it does not expect is a panic.
pub(crate) struct Client {
    input: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        Client { input: BufReader::new(stream) }
    }

    /// Sends a command and reads its reply.
    pub(crate) fn call(&mut self, words: &[&str]) -> Reply {
        self.send(&encode(words)).expect("a connection");
        self.read().expect("a reply")
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.input.get_mut().write_all(bytes)
    }

    /// Reads one reply; an error if the connection ends first.
    pub(crate) fn read(&mut self) -> std::io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let length = || rest.parse::<i64>().expect("a number");
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(length()),
            "$" if rest == "-1" => Reply::Nil,
            "*" if rest == "-1" => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; usize::try_from(length()).expect("a length") + 2];
                self.input.read_exact(&mut bytes)?;
                assert!(bytes.ends_with(b"\r\n"), "a bulk string ends with CRLF");
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            "*" => {
                let replies = (0..length()).map(|_| self.read());
                Reply::Array(replies.collect::<std::io::Result<_>>()?)
            }
            _ => panic!("not a RESP2 reply: {line:?}"),
        })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").to_owned())
    }
}

/// A command in the protocol's form.
pub(crate) fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body, with a chunked transfer's frames as they came.
    pub(crate) raw: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// The chunks of a chunked body.
    pub(crate) fn chunks(&self) -> Vec<Vec<u8>> {
        assert!(self.head.to_lowercase().contains("transfer-encoding: chunked"), "{}", self.head);
        let (mut rest, mut chunks) = (&self.raw[..], Vec::new());
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a chunk's length");
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("text"), 16)
                .expect("a length");
            if size == 0 {
                return chunks;
            }
            chunks.push(rest[end + 2..end + 2 + size].to_vec());
            rest = &rest[end + 2 + size + 2..];
        }
    }
}

/// One HTTP request: `request` is method and target, `headers` are whole lines.
pub(crate) fn http(address: SocketAddr, request: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let host = if headers.iter().any(|line| line.to_lowercase().starts_with("host:")) {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let extra: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\n{host}{extra}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a connection");
    stream.write_all(body).expect("a connection");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head, raw: bytes[split + 4..].to_vec() }
}
