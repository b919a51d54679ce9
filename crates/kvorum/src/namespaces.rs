//! `kvorum namespace`: list, make, change and drop namespaces of a running node.

use crate::ask::{Ask, Asked, part, table};
use crate::settings::Settings;
use clap::{Arg, ArgMatches};
use serde_json::{Map, Value};

/// What is to be done.
pub(crate) enum Action {
    List,
    Create { name: String, settings: Vec<String> },
    Set { name: String, settings: Vec<String> },
    Drop { name: String },
}

impl Action {
    /// The subcommands.
    pub(crate) fn commands(flags: &[Arg]) -> Vec<clap::Command> {
        let name = || Arg::new("name").value_name("NAME").required(true).help("Name of the namespace");
        let settings = |least| {
            let help = "mode, shards (both stay as they are made), replication, durability, history, grace, read, conflicts";
            Arg::new("setting").value_name("SETTING=VALUE").num_args(least..).required(least > 0).help(help)
        };
        let command =
            |word, about| clap::Command::new(word).about(about).args(flags).args_override_self(true);
        vec![
            command("list", "List the namespaces"),
            command("create", "Make a namespace").arg(name()).arg(settings(0)),
            command("set", "Change settings of a namespace").arg(name()).arg(settings(1)),
            command("drop", "Drop a namespace with all that is in it").arg(name()),
        ]
    }

    /// The one that was asked for.
    pub(crate) fn of(word: &str, matches: &ArgMatches) -> Action {
        let name = || matches.get_one::<String>("name").cloned().unwrap_or_default();
        let settings = || matches.get_many("setting").into_iter().flatten().cloned().collect();
        match word {
            "create" => Action::Create { name: name(), settings: settings() },
            "set" => Action::Set { name: name(), settings: settings() },
            "drop" => Action::Drop { name: name() },
            _ => Action::List,
        }
    }
}

/// Does it.
pub(crate) fn namespace(settings: &Settings, action: &Action) -> Result<(), String> {
    let asked = Asked::of(settings, "this")?;
    let path = |name: &str| format!("/v1/ns/{}", part(name));
    match action {
        Action::List => {
            let all = asked.json("/v1/ns", &Ask::Get)?;
            print!("{}", listing(all["namespaces"].as_array().map(Vec::as_slice).unwrap_or_default()));
        }
        Action::Create { name, settings } => {
            let made = asked.json(&path(name), &Ask::Put(&object(settings)?, "If-None-Match"))?;
            print!("{}", listing(&[made]));
        }
        Action::Set { name, settings } => {
            let changed = asked.json(&path(name), &Ask::Put(&object(settings)?, "If-Match"))?;
            print!("{}", listing(&[changed]));
        }
        Action::Drop { name } => {
            asked.json(&path(name), &Ask::Delete)?;
            println!("dropped {name}");
        }
    }
    Ok(())
}

fn object(settings: &[String]) -> Result<Value, String> {
    let mut object = Map::new();
    for setting in settings {
        let (word, value) =
            setting.split_once('=').ok_or_else(|| format!("{setting:?} is not a SETTING=VALUE"))?;
        object.insert(word.to_ascii_lowercase(), value.into());
    }
    Ok(Value::Object(object))
}

fn listing(namespaces: &[Value]) -> String {
    let row = |namespace: &Value| -> Vec<String> {
        let text = |name: &str| match &namespace[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rest = ["history", "read", "grace", "conflicts"].into_iter();
        let rest: Vec<_> = rest
            .filter(|word| !namespace[*word].is_null())
            .map(|word| format!("{word}={}", text(word)))
            .collect();
        let columns = ["name", "mode", "shards", "replication", "durability"].into_iter().map(text);
        columns.chain([rest.join(" ")]).collect()
    };
    let rows: Vec<_> = namespaces.iter().map(row).collect();
    table(&["NAME", "MODE", "SHARDS", "COPIES", "DURABILITY", "OTHERS"], &rows)
}
