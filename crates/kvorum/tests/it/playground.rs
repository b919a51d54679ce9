//! `kvorum playground`: a cluster in one process, seen through all of its doors.

use crate::process::{Client, Reply, http};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The doors of a node.
struct Doors {
    resp: SocketAddr,
    cluster: SocketAddr,
    http: SocketAddr,
}

struct Playground {
    child: Child,
    out: BufReader<ChildStdout>,
    nodes: Vec<Doors>,
    temporary: tempfile::TempDir,
}

impl Playground {
    fn start(nodes: usize) -> Playground {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_kvorum"))
            .args(["playground", "--nodes", &nodes.to_string()])
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("a piped output"));
        let mut doors = Vec::new();
        loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).expect("a line") > 0, "it ended");
            if line.starts_with("stop with") {
                break;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [name, "resp", resp, "resp-cluster", cluster, "http", http] = words[..] {
                assert_eq!(name, format!("n{}", doors.len() + 1));
                let parse = |address: &str| address.parse().expect("an address");
                doors.push(Doors { resp: parse(resp), cluster: parse(cluster), http: parse(http) });
            }
        }
        assert_eq!(doors.len(), nodes);
        Playground { child, out, nodes: doors, temporary }
    }

    fn json(&self, node: usize, path: &str) -> serde_json::Value {
        serde_json::from_slice(&http(self.nodes[node].http, &format!("GET {path}"), &[], b"").raw)
            .expect("JSON")
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bulk(reply: Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8(bytes).expect("text"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_node_takes_any_command_by_any_door() {
    let ground = Playground::start(3);
    let mut clients: Vec<Client> = ground.nodes.iter().map(|doors| Client::connect(doors.resp)).collect();
    for number in 0..30 {
        let (key, value) = (format!("key:{number}"), number.to_string());
        assert_eq!(clients[number % 3].call(&["SET", &key, &value]), Reply::ok());
        assert_eq!(clients[(number + 1) % 3].call(&["GET", &key]), Reply::bulk(&value));
    }
    assert_eq!(clients[2].call(&["DBSIZE"]), Reply::Integer(30));
    for (at, doors) in ground.nodes.iter().enumerate() {
        let got = http(doors.http, "GET /v1/ns/0/keys/key:7", &[], b"");
        assert_eq!((got.status, got.text()), (200, "7".to_owned()), "node {at}");
    }
    let batch = br#"{"operations": [{"op": "put", "key": "{b}1", "value": "x"}, {"op": "put", "key": "{b}2", "value": "y"}]}"#;
    let json = ["Content-Type: application/json"];
    assert_eq!(http(ground.nodes[1].http, "POST /v1/ns/0/batch", &json, batch).status, 200);
    assert_eq!(bulk(clients[0].call(&["GET", "{b}2"])), "y");
    let status = ground.json(0, "/v1/cluster");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    let shards = status["shards"].as_array().unwrap();
    assert!(
        shards.len() == 16 && shards.iter().all(|shard| shard["members"].as_array().unwrap().len() == 3),
        "{status}"
    );
}

#[test]
fn a_node_is_drained_and_removed_by_any_other() {
    let ground = Playground::start(3);
    let on_node = |node: usize, words: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_kvorum"))
            .arg("cluster")
            .args(words)
            .args(["--http", &ground.nodes[node].http.to_string()])
            .output()
            .expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.success(), text(&done.stdout), text(&done.stderr))
    };
    let (good, said, complaint) = on_node(0, &["drain", "n2"]);
    assert!(good && said.contains("n2 leads nothing"), "{said} {complaint}");
    let n2 = &ground.json(2, "/v1/cluster")["nodes"][1];
    assert_eq!((&n2["name"], &n2["leads"], &n2["members"]), (&"n2".into(), &0.into(), &16.into()));
    let (good, said, _) = on_node(2, &["status"]);
    assert!(good && said.contains("n2    draining"), "{said}");
    let (good, said, _) = on_node(1, &["drain", "n2", "--end"]);
    assert!(good && said == "n2 is up\n", "{said}");
    let (good, _, complaint) = on_node(1, &["drain", "n4"]);
    assert!(
        !good
            && complaint
                .contains("404 Not Found: ERR there is no node `n4` in the cluster; there are n1, n2, n3"),
        "{complaint}"
    );
    assert_eq!(http(ground.nodes[0].http, "PUT /v1/cluster/nodes/n2/drain", &[], b"").status, 405);
    let (good, said, complaint) = on_node(1, &["remove", "n2"]);
    assert!(
        good && said.contains("2 nodes stay: from now on that is how many copies there are of `0`"),
        "{said} {complaint}"
    );
    assert!(said.ends_with("n2 was removed: its data folder is of no use any more\n"), "{said}");
    assert_eq!(ground.json(0, "/v1/cluster")["nodes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn namespaces_are_those_of_the_cluster() {
    let ground = Playground::start(3);
    let mut clients: Vec<Client> = ground.nodes.iter().map(|doors| Client::connect(doors.resp)).collect();
    assert_eq!(clients[0].call(&["NAMESPACE", "CREATE", "users", "shards", "4"]), Reply::ok());
    let exists = clients[0].call(&["NAMESPACE", "CREATE", "users"]);
    assert_eq!(exists, Reply::Error("ERR there is a namespace users already".into()));
    assert_eq!(clients[0].call(&["SELECT", "users"]), Reply::ok());
    assert_eq!(clients[0].call(&["SET", "k", "v"]), Reply::ok());
    // The others follow the map; how soon is up to them.
    for client in &mut clients[1..] {
        while client.call(&["SELECT", "users"]) != Reply::ok() {}
        assert_eq!(client.call(&["GET", "k"]), Reply::bulk("v"));
    }
    assert_eq!(clients[1].call(&["NAMESPACE", "SET", "users", "read", "follower"]), Reply::ok());
    assert_eq!(ground.json(1, "/v1/ns/users")["read"], "follower");
    assert_eq!(clients[2].call(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!(clients[2].call(&["NAMESPACE", "DROP", "users"]), Reply::ok());
    assert!(
        matches!(clients[2].call(&["GET", "k"]), Reply::Error(text) if text.contains("no namespace users any more"))
    );
}

#[test]
fn cluster_clients_are_sent_to_the_leader() {
    let ground = Playground::start(3);
    let mut clients: Vec<Client> = ground.nodes.iter().map(|doors| Client::connect(doors.cluster)).collect();
    let Reply::Array(ranges) = clients[0].call(&["CLUSTER", "SLOTS"]) else { panic!("CLUSTER SLOTS") };
    let mut next = 0;
    for range in ranges {
        let Reply::Array(range) = range else { panic!("{range:?}") };
        assert_eq!(range[0], Reply::Integer(next));
        let Reply::Integer(last) = range[1] else { panic!("{range:?}") };
        next = last + 1;
    }
    assert_eq!(next, 16_384, "all slots are led");
    let mut moved = 0;
    for number in 0..30 {
        let key = format!("key:{number}");
        let (mut at, mut hops) = (0, 0);
        loop {
            match clients[at].call(&["SET", &key, "v"]) {
                Reply::Error(text) => {
                    let address = text.strip_prefix("MOVED ").unwrap().split(' ').nth(1).unwrap();
                    at = ground.nodes.iter().position(|doors| doors.cluster.to_string() == address).unwrap();
                    (moved, hops) = (moved + 1, hops + 1);
                    assert!(hops < 10, "{key} is sent round and round");
                }
                reply => break assert_eq!(reply, Reply::ok()),
            }
        }
    }
    assert!(moved > 0, "one node leads all");
    let mut counted = 0;
    for client in &mut clients {
        let Reply::Integer(count) = client.call(&["DBSIZE"]) else { panic!("DBSIZE") };
        counted += count;
    }
    assert_eq!(counted, 30, "each node counts what it leads");
    let nodes = bulk(clients[1].call(&["CLUSTER", "NODES"]));
    assert_eq!(nodes.lines().count(), 3, "{nodes}");
    assert!(nodes.lines().next().unwrap().contains("myself,master"), "{nodes}");
}

#[test]
fn nothing_stays_behind() {
    let mut ground = Playground::start(2);
    let sent = Command::new("kill").args(["-s", "INT", &ground.child.id().to_string()]).status().unwrap();
    assert!(sent.success() && ground.child.wait().unwrap().success());
    let mut rest = String::new();
    ground.out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(std::fs::read_dir(ground.temporary.path()).unwrap().count(), 0, "the data is gone");
}

#[test]
fn one_ctrl_c_is_enough_before_it_is_ready() {
    let temporary = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvorum"))
        .args(["playground"])
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Its folder is made before it listens for signals and is waiting for its nodes some time later; whichever it is at, it ends.
    while std::fs::read_dir(temporary.path()).unwrap().flatten().all(|folder| !holds_a_store(&folder.path()))
    {
    }
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success() && child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the data is gone");
}

/// Whether the first node has begun: the signal handler is there by then.
fn holds_a_store(folder: &std::path::Path) -> bool {
    folder.join("n1").exists()
}
