//! `kvorum cluster drain`: what operators do with the nodes of a cluster, until it is done.

use crate::ask::{Ask, Asked, part};
use crate::settings::Settings;
use clap::{Arg, ArgAction, ArgMatches};
use serde_json::Value;
use std::time::Duration;

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Looks without any progress after which the command gives up waiting: half a minute.
const STILL_MAX: usize = 100;

/// What is to be done with a node.
pub(crate) enum What {
    /// It is to lead nothing.
    Drain,
    /// It may lead again.
    EndDrain,
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
        vec![drain.arg(name()).arg(end).arg(no_wait())]
    }

    /// The one that was asked for, if it is one of these.
    pub(crate) fn of(word: &str, matches: &ArgMatches) -> Option<OnNode> {
        let what = match word {
            "drain" if matches.get_flag("end") => What::EndDrain,
            "drain" => What::Drain,
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
                follow(&asked, name, leads)?;
                println!("{name} leads nothing: it keeps its copies, and serves");
            }
            Ok(())
        }
    }
}

/// Prints what is still to do, whenever that changes, until it is nothing.
fn follow(asked: &Asked<'_>, name: &str, to_do: impl Fn(&Value) -> Option<String>) -> Result<(), String> {
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
        if still >= STILL_MAX {
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
}
