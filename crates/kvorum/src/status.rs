//! `kvorum cluster status`: a cluster as one of its nodes sees it.

use crate::ask::{Ask, Asked, table};
use crate::nodes::to_hand_over;
use crate::settings::Settings;
use serde_json::Value;
use std::collections::BTreeMap;

/// Prints it. `shards`: each of them, too.
pub(crate) fn status(settings: &Settings, shards: bool) -> Result<(), String> {
    let status = Asked::of(settings, "this")?.json("/v1/cluster", &Ask::Get)?;
    print!("{}", text_of(&status, shards));
    Ok(())
}

fn text_of(status: &Value, each: bool) -> String {
    let control = status["control"].as_str().unwrap_or("nobody: it has no majority");
    let mut text = format!(
        "cluster {}  map {}  control plane led by {control}\n",
        show(&status["cluster"]),
        show(&status["version"])
    );
    if let Some(halted) = status["halted"].as_str() {
        text.push_str(&format!("this node takes no writes: {halted}\n"));
    }
    let nodes: Vec<_> = list(&status["nodes"]).iter().map(node).collect();
    text.push('\n');
    text.push_str(&table(&["NODE", "STATE", "PEER", "RESP", "HTTP", "VOTES", "KEEPS", "LEADS"], &nodes));
    let shards = list(&status["shards"]);
    text.push('\n');
    if each {
        let rows: Vec<_> = shards.iter().map(shard).collect();
        text.push_str(&table(&["SHARD", "EPOCH", "LEADER", "MEMBERS", "LEARNERS", "HERE"], &rows));
    } else {
        text.push_str(&table(
            &["NAMESPACE", "SHARDS", "LED", "COPIES", "COMING"],
            &by_namespace(list(&status["nodes"]), shards),
        ));
    }
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
        other => other.to_string(),
    }
}

fn node(node: &Value) -> Vec<String> {
    let state = show(&node["state"]);
    let silent = node["reachable"] == false && state != "down";
    let state = if silent { format!("{state}, but not heard") } else { state };
    let state = match to_hand_over(node) {
        Some(rest) => format!("{state}: {rest}"),
        None => state,
    };
    let field = |name: &str| match show(&node[name]) {
        empty if empty.is_empty() => "-".to_owned(),
        shown => shown,
    };
    let (peer, resp, http) = (field("peer"), field("resp"), field("http"));
    vec![field("name"), state, peer, resp, http, field("votes"), field("members"), field("leads")]
}

fn names(value: &Value) -> String {
    list(value).iter().map(show).collect::<Vec<_>>().join(" ")
}

fn shard(shard: &Value) -> Vec<String> {
    let leader = show(&shard["leader"]);
    let leader = if shard["led"] == true { leader } else { format!("{leader} (not yet)") };
    let here = &shard["here"];
    let here = match here["role"].as_str() {
        Some(role) => format!("{role} at {}", show(&here["checkpoint"])),
        None => "-".to_owned(),
    };
    let place = format!("{}/{}", show(&shard["namespace"]), show(&shard["place"]));
    vec![place, show(&shard["epoch"]), leader, names(&shard["members"]), names(&shard["learners"]), here]
}

/// How many shards of each namespace there are, are led, with how many copies, and how many get another one. A store that has left is no copy.
fn by_namespace(nodes: &[Value], shards: &[Value]) -> Vec<Vec<String>> {
    let is_node = |name: &&Value| nodes.iter().any(|node| node["name"] == **name);
    let mut order = Vec::new();
    let mut of: BTreeMap<String, (usize, usize, usize, usize, usize)> = BTreeMap::new();
    for shard in shards {
        let name = show(&shard["namespace"]);
        if !order.contains(&name) {
            order.push(name.clone());
        }
        let copies = list(&shard["members"]).iter().filter(is_node).count();
        let sums = of.entry(name).or_insert((0, 0, copies, copies, 0));
        sums.0 += 1;
        sums.1 += usize::from(shard["led"] == true);
        sums.2 = sums.2.min(copies);
        sums.3 = sums.3.max(copies);
        sums.4 += usize::from(!list(&shard["learners"]).is_empty());
    }
    let row = |name: String| {
        let (count, led, least, most, coming) = of.get(&name).copied().unwrap_or_default();
        let copies = if least == most { most.to_string() } else { format!("{least} to {most}") };
        vec![name, count.to_string(), led.to_string(), copies, coming.to_string()]
    };
    order.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_in_tables() {
        let node = |name: &str, reachable: bool| {
            json!({"id": "0f", "name": name, "peer": "h:1", "resp": "h:2", "http": "", "state": "up", "votes": true,
                   "reachable": reachable, "members": 16, "leads": 8})
        };
        let shard = |place: u32, led: bool, members: &[&str]| {
            json!({"namespace": "0", "place": place, "epoch": 3, "leader": "n1", "led": led, "members": members,
                   "learners": [], "here": {"role": "leader", "checkpoint": "3.7", "committed": "3.7", "readable": true}})
        };
        let status = json!({"cluster": "ab", "version": 7, "me": "0f", "control": "n1", "halted": null,
            "nodes": [node("n1", true), node("n2", false)],
            "shards": [shard(0, true, &["n1", "n2"]), shard(1, false, &["n1"])]});
        assert_eq!(
            text_of(&status, false),
            "cluster ab  map 7  control plane led by n1\n\n\
             NODE  STATE              PEER  RESP  HTTP  VOTES  KEEPS  LEADS\n\
             n1    up                 h:1   h:2   -     yes    16     8\n\
             n2    up, but not heard  h:1   h:2   -     yes    16     8\n\n\
             NAMESPACE  SHARDS  LED  COPIES  COMING\n\
             0          2       1    1 to 2  0\n"
        );
        let all = text_of(&status, true);
        assert!(all.contains("0/0    3      n1            n1 n2              leader at 3.7"), "{all}");
        assert!(all.contains("0/1    3      n1 (not yet)  n1"), "{all}");
        let replaced = [shard(0, true, &["n1", "n2", "00000000000000f3"])];
        assert_eq!(by_namespace(list(&status["nodes"]), &replaced), [["0", "1", "1", "2", "0"]]);
    }
}
