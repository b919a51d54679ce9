//! What a command costs inside the node: no sockets, no waiting for the disk.
//!
//! `cargo run --release -p kvorum-cluster --example execute [keys] [seconds for each row] [only rows that contain this]`
#![expect(clippy::unwrap_used, reason = "a measuring program ends at the first failure")]

use kvorum_cluster::{Durability, NamespaceId, Node, NodeSettings, Request, Session};
use kvorum_model::{Args, CommandSpec, resolve};
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let keys: usize = arguments.next().map_or(100_000, |text| text.parse().unwrap());
    let seconds: f64 = arguments.next().map_or(1.0, |text| text.parse().unwrap());
    let only = arguments.next().unwrap_or_default();
    let dir = tempfile::TempDir::new().unwrap();
    let mut settings = NodeSettings::new(dir.path().join("data"));
    settings.durability = Durability::Buffered;
    settings.memory_bytes = 1 << 30;
    let node = Node::open(settings).unwrap();
    let bench = Bench { node, keys, span: Duration::from_secs_f64(seconds), only };
    bench.load();
    println!("{keys} keys of 16 bytes, values of 100 bytes");
    println!("{:<22}{:>18}{:>14}", "command", "CPU ns a command", "k commands/s");
    for pipeline in [1, 16, 64] {
        bench.row(pipeline, "GET", |key| vec![b"GET", key]);
    }
    bench.row(64, "GET absent", |_| vec![b"GET", b"no such key"]);
    for pipeline in [1, 16, 64] {
        bench.row(pipeline, "SET", |key| vec![b"SET", key, VALUE]);
    }
    for pipeline in [1, 16] {
        bench.row(pipeline, "INCR", |key| vec![b"INCR", if key[0] == b'k' { b"counter" } else { key }]);
    }
    bench.row(16, "EXISTS", |key| vec![b"EXISTS", key]);
    bench.row(4, "MGET of 3", |key| vec![b"MGET", key, b"key:000000000001", b"key:000000000002"]);
}

const VALUE: &[u8] = &[b'x'; 100];

struct Bench {
    node: Node,
    keys: usize,
    span: Duration,
    only: String,
}

impl Bench {
    fn key(at: usize) -> Vec<u8> {
        format!("key:{at:012}").into_bytes()
    }

    fn load(&self) {
        let mut session = Session::new();
        for start in (0..self.keys).step_by(256) {
            let keys: Vec<_> = (start..self.keys.min(start + 256)).map(Bench::key).collect();
            let words: Vec<[&[u8]; 3]> = keys.iter().map(|key| [&b"SET"[..], key, VALUE]).collect();
            let words: Vec<&[&[u8]]> = words.iter().map(|words| &words[..]).collect();
            self.execute(&mut session, &words, resolve(Args::new(words[0])).unwrap());
        }
    }

    fn execute(&self, session: &mut Session, words: &[&[&[u8]]], spec: &'static CommandSpec) -> usize {
        let request = |words| Request { namespace: NamespaceId::ZERO, spec, args: Args::new(words) };
        let requests: Vec<_> = words.iter().map(|words| request(words)).collect();
        let mut replies = Vec::with_capacity(requests.len());
        let mut done = 0;
        while done < requests.len() {
            let progress = self.node.execute(session, &requests[done..], &mut replies);
            done += progress.executed;
            if let Some(prefetch) = progress.blocked {
                session.resume(prefetch.run());
            }
        }
        assert!(!replies[0].is_error(), "{:?}", replies[0]);
        replies.len()
    }

    #[expect(clippy::disallowed_methods, reason = "it measures")]
    fn row<'k>(&self, pipeline: usize, name: &str, words: impl Fn(&'k [u8]) -> Vec<&'k [u8]>) {
        let title = format!("{name} P{pipeline}");
        if !title.contains(&self.only) {
            return;
        }
        // The buffers are made before: they cost the server, not the node.
        let mut random = fastrand::Rng::with_seed(7);
        let keys: Vec<_> = (0..4096).map(|_| Bench::key(random.usize(0..self.keys))).collect();
        let keys: &'k [Vec<u8>] = keys.leak();
        let commands: Vec<_> = keys.iter().map(|key| words(key)).collect();
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let spec = resolve(Args::new(commands[0])).unwrap();
        let mut session = Session::new();
        let (mut done, start, cpu) = (0, Instant::now(), cpu_nanos());
        while start.elapsed() < self.span {
            for buffer in commands.chunks(pipeline) {
                done += self.execute(&mut session, buffer, spec);
            }
        }
        let nanos = (cpu_nanos() - cpu) as f64 / done as f64;
        println!("{title:<22}{nanos:>18.0}{:>14.0}", 1e6 / nanos);
    }
}

/// What this thread has used of the processor.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
