//! `kvorum cluster drain` and `remove`: what operators do with the nodes of a cluster, until it is done.

use crate::ask::{Ask, Asked, part};
use crate::settings::Settings;
use clap::{Arg, ArgAction, ArgMatches};
use serde_json::Value;
use std::time::Duration;

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Looks without any progress after which the command gives up waiting: half a minute until others lead, ten minutes for the copy of a shard.
const STILL_LEADS_MAX: usize = 100;
const STILL_KEEPS_MAX: usize = 2000;

/// What is to be done with a node.
pub(crate) enum What {
    /// It is to lead nothing.
    Drain,
    /// It may lead again.
    EndDrain,
    /// It is to leave the cluster for good.
    Remove,
}

/// A command on a node.
pub(crate) struct OnNode {
    what: What,
    name: String,
    /// Until it is done.
    waits: bool,
}

impl OnNode {
    /// The subcommands.
    pub(crate) fn commands(flags: &[Arg]) -> Vec<clap::Command> {
        let name = || Arg::new("name").value_name("NAME").required(true).help("Name of the node");
        let flag = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
        };
        let no_wait = || flag("no-wait", "Only begin it");
        let command =
            |word, about| clap::Command::new(word).about(about).args(flags).args_override_self(true);
        let drain = command(
            "drain",
            "Let a node lead nothing, also after restarts; it keeps its copies, and serves. Over HTTP, through any node",
        );
        let end = flag("end", "End it: the node may lead again").conflicts_with("no-wait");
        let remove = command(
            "remove",
            "Take a node out of the cluster for good: it hands over what it leads and keeps, and ends. Over HTTP, through any node",
        );
        vec![drain.arg(name()).arg(end).arg(no_wait()), remove.arg(name()).arg(no_wait())]
    }

    /// The one that was asked for, if it is one of these.
    pub(crate) fn of(word: &str, matches: &ArgMatches) -> Option<OnNode> {
        let what = match word {
            "drain" if matches.get_flag("end") => What::EndDrain,
            "drain" => What::Drain,
            "remove" => What::Remove,
            _ => return None,
        };
        let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
        Some(OnNode { what, name, waits: !matches.get_flag("no-wait") })
    }
}

/// Does it, and tells how far it is.
pub(crate) fn on_node(settings: &Settings, command: &OnNode) -> Result<(), String> {
    let asked = Asked::of(settings, "this")?;
    let OnNode { what, name, waits } = command;
    let path = format!("/v1/cluster/nodes/{}/drain", part(name));
    match what {
        What::EndDrain => {
            let node = asked.json(&path, &Ask::Delete)?;
            println!("{name} is {}", node["state"].as_str().unwrap_or("?"));
            Ok(())
        }
        What::Drain => {
            asked.json(&path, &Ask::Post)?;
            println!("{name} drains; it may lead again after: kvorum cluster drain {name} --end");
            if *waits {
                follow(&asked, name, STILL_LEADS_MAX, leads)?;
                println!("{name} leads nothing: it keeps its copies, and serves");
            }
            Ok(())
        }
        What::Remove => remove(settings, &asked, name, *waits),
    }
}

/// Takes a node out of the cluster; `waits`: until it is gone.
fn remove(settings: &Settings, asked: &Asked<'_>, name: &str, waits: bool) -> Result<(), String> {
    let removal = asked.json(&format!("/v1/cluster/nodes/{}", part(name)), &Ask::Delete)?;
    for note in removal["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        println!("{note}");
    }
    if removal["node"]["state"] != "left" {
        println!("{name} is being removed; that goes on without this command: kvorum cluster status");
        if !waits {
            return Ok(());
        }
        // The node itself ends when it is done.
        let status = asked.json("/v1/cluster", &Ask::Get)?;
        match another(&status, name) {
            Some(other) => follow(&Asked::at(&other, settings), name, STILL_KEEPS_MAX, to_hand_over)?,
            None => follow(asked, name, STILL_KEEPS_MAX, to_hand_over)?,
        }
    }
    println!("{name} was removed: its data folder is of no use any more");
    Ok(())
}

/// Prints what is still to do, whenever that changes, until it is nothing.
fn follow(
    asked: &Asked<'_>,
    name: &str,
    still_max: usize,
    to_do: impl Fn(&Value) -> Option<String>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| format!("cannot wait: {error}"))?;
    let (mut before, mut still) = (String::new(), 0);
    loop {
        let status = asked.json("/v1/cluster", &Ask::Get)?;
        let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let node = nodes.iter().find(|node| node["name"] == name).unwrap_or(&Value::Null);
        let Some(text) = to_do(node) else { return Ok(()) };
        if text == before {
            still += 1;
        } else {
            println!("{name} {text}");
            (before, still) = (text, 0);
        }
        if still >= still_max {
            return Err(format!(
                "{name} {before}, for a while by now; it goes on by itself: see kvorum cluster status"
            ));
        }
        runtime.block_on(async { tokio::time::sleep(LOOK_EVERY).await });
    }
}

/// What a node that drains leads still.
fn leads(node: &Value) -> Option<String> {
    match node["leads"].as_u64().unwrap_or(0) {
        0 => None,
        1 => Some("still leads 1 shard".to_owned()),
        count => Some(format!("still leads {count} shards")),
    }
}

/// The HTTP address of another node that is heard, if it is the node itself that was asked.
fn another(status: &Value, name: &str) -> Option<String> {
    let nodes = status["nodes"].as_array()?;
    nodes.iter().find(|node| node["name"] == name && node["id"] == status["me"])?;
    let http = |node: &Value| node["http"].as_str().filter(|http| !http.is_empty()).map(str::to_owned);
    nodes.iter().filter(|node| node["name"] != name && node["reachable"] == true).find_map(http)
}

/// What a node that is being removed has to hand over still; nothing once it has left.
pub(crate) fn to_hand_over(node: &Value) -> Option<String> {
    let leaving = node.get("leaving")?;
    let count = |number: u64, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let shards = count(leaving["shards"].as_u64().unwrap_or(0), "shard");
    let slots = leaving["slots"].as_u64().map(|slots| count(slots, "slot"));
    let waits = leaving["waits"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!("has {shards} and {} to go{waits}", slots.unwrap_or_else(|| "some slots".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_drain_lasts_until_nothing_is_led() {
        assert_eq!(leads(&json!({"name": "n1", "leads": 0})), None);
        assert_eq!(leads(&json!({"name": "n1", "leads": 1})).unwrap(), "still leads 1 shard");
        assert_eq!(leads(&json!({"name": "n1", "leads": 7})).unwrap(), "still leads 7 shards");
    }

    #[test]
    fn a_removal_lasts_until_the_node_is_gone() {
        let node = |leaving: Value| json!({"name": "n1", "leaving": leaving});
        let said = |leaving| to_hand_over(&node(leaving)).unwrap();
        assert_eq!(
            said(json!({"shards": 1, "slots": 2048, "waits": null})),
            "has 1 shard and 2048 slots to go"
        );
        let waits = json!({"shards": 0, "slots": null, "waits": "it is not heard: start it"});
        assert_eq!(said(waits), "has 0 shards and some slots to go (it is not heard: start it)");
        assert_eq!(to_hand_over(&Value::Null), None);
    }

    #[test]
    fn whoever_removes_the_node_that_it_asks_goes_on_with_another() {
        let node = |name: &str, id: &str, http: &str| json!({"name": name, "id": id, "http": http, "reachable": true});
        let nodes = [node("n1", "1", "h:1"), node("n2", "2", ""), node("n3", "3", "h:3")];
        let status = |me: &str| json!({"me": me, "nodes": nodes});
        assert_eq!(another(&status("1"), "n1").as_deref(), Some("h:3"));
        assert_eq!(another(&status("3"), "n1"), None, "the one that is asked stays");
    }
}
