//! Three processes that form a cluster: any node takes any command, and killed ones lose nothing.

use crate::process::{Client, Log, Node, Reply, command_that_logs};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use tempfile::TempDir;

/// Acknowledged writes between two acts of the test.
const WRITES: usize = 300;

struct Cluster {
    dir: TempDir,
    peers: Vec<SocketAddr>,
    /// Of every node alike.
    flags: Vec<String>,
}

impl Cluster {
    fn new(nodes: usize) -> Cluster {
        // Held together, so that no port comes twice; free again when the nodes bind them.
        let listeners: Vec<TcpListener> =
            (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let peers = listeners.iter().map(|listener| listener.local_addr().expect("its address")).collect();
        Cluster { dir: TempDir::new().expect("a folder"), peers, flags: Vec::new() }
    }

    fn data(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("n{number}"))
    }

    fn start(&self, number: usize) -> Node {
        let named = |(number, peer): (usize, &SocketAddr)| format!("n{number}={peer}");
        let peers: Vec<String> = self.peers.iter().enumerate().map(named).collect();
        self.start_with(number, &["--peers", &peers.join(",")])
    }

    /// Starts a node whose store is new, through another one.
    fn join(&self, number: usize, through: usize) -> Node {
        self.start_with(number, &["--join", &self.peers[through].to_string()])
    }

    fn start_with(&self, number: usize, how: &[&str]) -> Node {
        let (name, peer) = (format!("n{number}"), self.peers[number].to_string());
        let own = ["--name", &name, "--peer", &peer];
        let flags: Vec<&str> =
            own.into_iter().chain(how.iter().copied()).chain(self.flags.iter().map(String::as_str)).collect();
        Node::start(&self.data(number), &flags)
    }

    fn start_all(&self) -> Vec<Node> {
        std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..self.peers.len()).map(|number| scope.spawn(move || self.start(number))).collect();
            starts.into_iter().map(|start| start.join().expect("a started node")).collect()
        })
    }
}

/// Repeats a command until it is not refused: a node waits for a leader by itself, but not for ever.
fn patiently(client: &mut Client, words: &[&str]) -> Reply {
    loop {
        match client.call(words) {
            Reply::Error(text) if refused(&text) => {}
            reply => return reply,
        }
    }
}

/// Whether the command was surely not executed, for want of a leader.
fn refused(text: &str) -> bool {
    ["CLUSTERDOWN", "TRYAGAIN", "LOADING", "BUSY"].iter().any(|code| text.starts_with(code))
}

/// Writes keys that are written once, and tells of each acknowledged one. Outcomes that are not known are no acknowledgement.
fn write(address: SocketAddr, from: usize, stop: &AtomicBool, acknowledged: &mpsc::Sender<usize>) {
    let mut client = Client::connect(address);
    for number in (from..).step_by(2) {
        if stop.load(SeqCst) {
            return;
        }
        let reply = patiently(&mut client, &["SET", &format!("key:{number}"), &number.to_string()]);
        match reply {
            Reply::Simple(_) => acknowledged.send(number).expect("a listener"),
            Reply::Error(text) if text.starts_with("UNKNOWN") => {}
            other => panic!("SET answers {other:?}"),
        }
    }
}

fn check(client: &mut Client, acknowledged: &BTreeSet<usize>) {
    for number in acknowledged {
        let key = format!("key:{number}");
        assert_eq!(patiently(client, &["GET", &key]), Reply::bulk(&number.to_string()), "{key} is lost");
    }
}

#[test]
fn every_node_may_be_killed_under_load_and_nothing_is_lost() {
    let cluster = Cluster::new(3);
    let mut nodes: Vec<Option<Node>> = cluster.start_all().into_iter().map(Some).collect();
    let mut acknowledged = BTreeSet::new();
    for victim in 0..3 {
        let others: Vec<SocketAddr> =
            (0..3).filter(|at| *at != victim).map(|at| nodes[at].as_ref().expect("it runs").resp).collect();
        let stop = AtomicBool::new(false);
        let (sender, written) = mpsc::channel();
        std::thread::scope(|scope| {
            for (at, address) in others.iter().enumerate() {
                let (sender, stop) = (sender.clone(), &stop);
                // Keys of one round and writer are those of no other.
                scope.spawn(move || write(*address, victim * 1_000_000 + at, stop, &sender));
            }
            acknowledged.extend(written.iter().take(WRITES));
            nodes[victim].take().expect("it runs").kill();
            acknowledged.extend(written.iter().take(WRITES));
            stop.store(true, SeqCst);
        });
        drop(sender);
        acknowledged.extend(written.iter());
        let back = cluster.start(victim);
        check(&mut back.connect(), &acknowledged);
        nodes[victim] = Some(back);
    }
    assert!(acknowledged.len() >= 6 * WRITES);
}

#[test]
fn a_cluster_that_lost_its_power_has_everything_acknowledged() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all();
    let acknowledged = write_all(nodes[1].resp);
    for node in nodes {
        node.kill();
    }
    let nodes = cluster.start_all();
    for node in &nodes {
        check(&mut node.connect(), &acknowledged);
    }
}

/// Writes all of the test's keys, and leaves when each of them is acknowledged.
fn write_all(address: SocketAddr) -> BTreeSet<usize> {
    let mut client = Client::connect(address);
    let mut write = |number: usize| loop {
        let reply = patiently(&mut client, &["SET", &format!("key:{number}"), &number.to_string()]);
        match reply {
            Reply::Error(text) if text.starts_with("UNKNOWN") => {}
            reply => break assert_eq!(reply, Reply::ok()),
        }
    };
    (0..WRITES).for_each(&mut write);
    (0..WRITES).collect()
}

/// Waits until a node sees all shards led, with three nodes for members and none on its way to be one. A store that has left is no node.
fn wait_whole(node: &Node) {
    let is_whole = |nodes: &[serde_json::Value], shard: &serde_json::Value| {
        let is_node = |name: &&serde_json::Value| nodes.iter().any(|node| node["name"] == **name);
        let list = |list: &str| shard[list].as_array().expect("a list");
        let members = list("members").iter().filter(is_node).count();
        shard["led"] == true && (members, list("members").len()) == (3, 3) && list("learners").is_empty()
    };
    loop {
        let status: serde_json::Value =
            serde_json::from_slice(&node.http("GET /v1/cluster", b"").raw).expect("JSON");
        let shards = status["shards"].as_array().expect("shards");
        let nodes = status["nodes"].as_array().expect("nodes");
        if !shards.is_empty() && shards.iter().all(|shard| is_whole(nodes, shard)) {
            return;
        }
    }
}

#[test]
fn a_node_that_lost_its_disk_is_filled_and_then_others_may_die() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all();
    let acknowledged = write_all(nodes[0].resp);
    nodes.pop().expect("three nodes").kill();
    std::fs::remove_dir_all(cluster.data(2)).expect("its data");
    let back = cluster.join(2, 1);
    wait_whole(&back);
    nodes.remove(0).kill();
    check(&mut back.connect(), &acknowledged);
}

#[test]
fn nodes_that_know_each_other_by_certificates_form_a_cluster() {
    let mut cluster = Cluster::new(3);
    cluster.flags = certificates(cluster.dir.path());
    let nodes = cluster.start_all();
    let acknowledged = write_all(nodes[0].resp);
    nodes.iter().for_each(|node| check(&mut node.connect(), &acknowledged));
}

#[test]
fn strangers_are_refused_and_both_sides_say_why() {
    let mut cluster = Cluster::new(2);
    let folder = |name: &str| {
        let dir = cluster.dir.path().join(name);
        std::fs::create_dir(&dir).expect("a folder");
        dir
    };
    let (ours, theirs) = (certificates(&folder("ours")), certificates(&folder("theirs")));
    // Shows a certificate of another authority, and knows ours all the same.
    let mut half = theirs.clone();
    half[5].clone_from(&ours[5]);
    cluster.flags = ours;
    let own = ["--name", "n0", "--peer", &cluster.peers[0].to_string()];
    let flags: Vec<&str> = own.into_iter().chain(cluster.flags.iter().map(String::as_str)).collect();
    let (inside, mut log) = Node::start_that_logs(&cluster.data(0), &flags);
    assert!(!inside.lines.iter().any(|line| line.starts_with("WARNING")), "{:?}", inside.lines);
    let strangers: [(&[String], &[&str], &[&str]); 3] = [
        (&theirs, &["TLS failed: invalid peer certificate"], &["TLS failed: received fatal alert"]),
        (&half, &["TLS failed: received fatal alert"], &["TLS failed: invalid peer certificate"]),
        (&[], &["speaks over TLS only"], &["speaks over TLS only"]),
    ];
    for (number, (flags, said, logged)) in strangers.into_iter().enumerate() {
        let (at, through) = (cluster.peers[1].to_string(), cluster.peers[0].to_string());
        let own = ["--name", "stranger", "--peer", &at, "--join", &through];
        let flags: Vec<&str> = own.into_iter().chain(flags.iter().map(String::as_str)).collect();
        let mut stranger = command_that_logs("warn", &cluster.data(number + 1), &flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Log::of(&mut stranger).wait_for(&[&["no session with", &through], said].concat());
        log.wait_for(&[&["no session with 127.0.0.1"], logged].concat());
        stranger.kill().expect("a running process");
        stranger.wait().expect("its end");
    }
    let status: serde_json::Value =
        serde_json::from_slice(&inside.http("GET /v1/cluster", b"").raw).expect("JSON");
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(patiently(&mut inside.connect(), &["SET", "k", "v"]), Reply::ok());
}

/// An authority and a certificate that it signed for 127.0.0.1; answers the flags that name them.
fn certificates(dir: &Path) -> Vec<String> {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate().expect("a key");
    let root = authority.self_signed(&authority_key).expect("a certificate");
    let mut node = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    node.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = node.signed_by(&key, &Issuer::new(authority, authority_key)).expect("a certificate");
    let files = [("certificate", certificate.pem()), ("key", key.serialize_pem()), ("authority", root.pem())];
    let flags = files.map(|(what, text)| {
        let file = dir.join(what);
        std::fs::write(&file, text).expect("a file");
        [format!("--cluster-tls-{what}"), file.display().to_string()]
    });
    flags.concat()
}
