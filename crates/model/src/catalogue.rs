//! What `COMMAND` and `COMMAND DOCS` tell of a command, in the shapes of Redis 7.2.

use crate::reply::Reply;
use crate::spec::CommandSpec;
use crate::spec::argument::{Argument, ArgumentKind};

fn simple(text: &'static str) -> Reply {
    Reply::Simple(text.into())
}

/// The entry of `COMMAND` and `COMMAND INFO`.
pub(crate) fn info(spec: &CommandSpec) -> Reply {
    let categories = spec.all_categories();
    let place = |number: i32| Reply::Integer(number.into());
    Reply::Array(vec![
        Reply::text(spec.name),
        place(spec.arity),
        Reply::Set(spec.flags.names().map(simple).collect()),
        place(spec.first_key),
        place(spec.last_key),
        place(spec.key_step),
        Reply::Set(categories.names().map(|name| Reply::Simple(format!("@{name}").into())).collect()),
        Reply::Array(spec.tips.iter().map(|tip| Reply::text(tip)).collect()),
        Reply::Array(if spec.first_key == 0 { vec![] } else { vec![key_specification(spec)] }),
        Reply::Array(spec.subcommands.iter().map(info).collect()),
    ])
}

/// What the command does with its keys, as a set.
pub(crate) fn key_flags(spec: &CommandSpec) -> Reply {
    Reply::Set(spec.key_flags.iter().map(|flag| simple(flag)).collect())
}

fn key_specification(spec: &CommandSpec) -> Reply {
    let field = |name: &'static str, value: Reply| (Reply::text(name), value);
    // Redis counts the last key from the first, except from the end of the command.
    let last = if spec.last_key >= 0 { spec.last_key - spec.first_key } else { spec.last_key };
    let begin = vec![
        field("type", Reply::text("index")),
        field("spec", Reply::Map(vec![field("index", Reply::Integer(spec.first_key.into()))])),
    ];
    let range = vec![
        field("lastkey", Reply::Integer(last.into())),
        field("keystep", Reply::Integer(spec.key_step.into())),
        field("limit", Reply::Integer(0)),
    ];
    Reply::Map(vec![
        field("flags", key_flags(spec)),
        field("begin_search", Reply::Map(begin)),
        field(
            "find_keys",
            Reply::Map(vec![field("type", Reply::text("range")), field("spec", Reply::Map(range))]),
        ),
    ])
}

/// The entry of `COMMAND DOCS`.
pub(crate) fn docs(spec: &CommandSpec) -> Reply {
    let mut fields = vec![
        (Reply::text("summary"), Reply::text(spec.summary)),
        (Reply::text("since"), Reply::text(spec.since)),
        (Reply::text("group"), Reply::text(spec.group.name())),
        (Reply::text("complexity"), Reply::text(spec.complexity)),
    ];
    if let Some((since, instead)) = spec.deprecated {
        fields.push((Reply::text("doc_flags"), Reply::Set(vec![simple("deprecated")])));
        fields.push((Reply::text("deprecated_since"), Reply::text(since)));
        fields.push((Reply::text("replaced_by"), Reply::text(instead)));
    }
    if !spec.arguments.is_empty() {
        let arguments = spec.arguments.iter().map(argument).collect();
        fields.push((Reply::text("arguments"), Reply::Array(arguments)));
    }
    if !spec.subcommands.is_empty() {
        let each = spec.subcommands.iter().map(|sub| (Reply::text(sub.name), docs(sub)));
        fields.push((Reply::text("subcommands"), Reply::Map(each.collect())));
    }
    Reply::Map(fields)
}

fn argument(argument: &Argument) -> Reply {
    let mut fields = vec![
        (Reply::text("name"), Reply::text(argument.name)),
        (Reply::text("type"), Reply::text(argument.kind.name())),
    ];
    if !matches!(argument.kind, ArgumentKind::OneOf | ArgumentKind::Block) {
        fields.push((Reply::text("display_text"), Reply::text(argument.name)));
    }
    if argument.kind == ArgumentKind::Key {
        fields.push((Reply::text("key_spec_index"), Reply::Integer(0)));
    }
    if let Some(token) = argument.token {
        fields.push((Reply::text("token"), Reply::text(token)));
    }
    if let Some(since) = argument.since {
        fields.push((Reply::text("since"), Reply::text(since)));
    }
    let flags: Vec<_> = [(argument.optional, "optional"), (argument.multiple, "multiple")]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| simple(name))
        .collect();
    if !flags.is_empty() {
        fields.push((Reply::text("flags"), Reply::Set(flags)));
    }
    if !argument.arguments.is_empty() {
        let inner = argument.arguments.iter().map(self::argument).collect();
        fields.push((Reply::text("arguments"), Reply::Array(inner)));
    }
    Reply::Map(fields)
}
