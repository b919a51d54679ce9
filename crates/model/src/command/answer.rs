//! Commands whose reply follows from their words and the table.

use crate::args::Args;
use crate::catalogue;
use crate::error::ErrorReply;
use crate::glob::{Case, glob_match};
use crate::reply::Reply;
use crate::spec::CommandSpec;
use crate::spec::flags::Categories;
use crate::table::{find, lookup, resolve, table};

pub(super) fn ping(args: Args<'_>) -> Result<Reply, ErrorReply> {
    match args.from(1) {
        [] => Ok(Reply::Simple("PONG".into())),
        [message] => Ok(Reply::bulk(message)),
        _ => Err(ErrorReply::wrong_arity("ping")),
    }
}

pub(super) fn echo(args: Args<'_>) -> Result<Reply, ErrorReply> {
    Ok(Reply::bulk(args.at(1)))
}

pub(super) fn command(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    Ok(Reply::Array(table().iter().map(catalogue::info).collect()))
}

pub(super) fn command_count(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    Ok(Reply::count(table().len()))
}

pub(super) fn command_info(args: Args<'_>) -> Result<Reply, ErrorReply> {
    if args.len() == 2 {
        return command(args);
    }
    let describe = |name: &&[u8]| find(name).map_or(Reply::Nil, catalogue::info);
    Ok(Reply::Array(args.from(2).iter().map(describe).collect()))
}

pub(super) fn command_docs(args: Args<'_>) -> Result<Reply, ErrorReply> {
    let document = |spec: &CommandSpec| (Reply::text(spec.name), catalogue::docs(spec));
    Ok(Reply::Map(if args.len() == 2 {
        table().iter().map(document).collect()
    } else {
        args.from(2).iter().filter_map(|name| find(name)).map(document).collect()
    }))
}

pub(super) fn command_list(args: Args<'_>) -> Result<Reply, ErrorReply> {
    let wanted: Box<dyn Fn(&CommandSpec) -> bool> = match args.from(2) {
        [] => Box::new(|_| true),
        [by, what, value] if by.eq_ignore_ascii_case(b"FILTERBY") => {
            if what.eq_ignore_ascii_case(b"MODULE") {
                Box::new(|_| false)
            } else if what.eq_ignore_ascii_case(b"ACLCAT") {
                let category = Categories::named(value);
                Box::new(move |spec| category.is_some_and(|one| spec.all_categories().has(one)))
            } else if what.eq_ignore_ascii_case(b"PATTERN") {
                Box::new(move |spec| glob_match(value, spec.name.as_bytes(), Case::Ignored))
            } else {
                return Err(ErrorReply::syntax());
            }
        }
        _ => return Err(ErrorReply::syntax()),
    };
    let all = table().iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    Ok(Reply::Array(all.filter(|spec| wanted(spec)).map(|spec| Reply::text(spec.name)).collect()))
}

/// The spec of the command in the words from 2 on, and these words.
fn called<'r>(args: Args<'r>) -> Result<(&'static CommandSpec, Args<'r>), ErrorReply> {
    let words = Args::new(args.from(2));
    let known = lookup(words.name()).is_some_and(|spec| {
        spec.subcommands.is_empty()
            || words.get(1).is_none_or(|sub| crate::table::subcommand(spec, sub).is_some())
    });
    if !known {
        return Err(ErrorReply::new("ERR Invalid command specified"));
    }
    let spec = resolve(words)
        .map_err(|_| ErrorReply::new("ERR Invalid number of arguments specified for command"))?;
    if spec.first_key == 0 {
        return Err(ErrorReply::new("ERR The command has no key arguments"));
    }
    Ok((spec, words))
}

pub(super) fn command_getkeys(args: Args<'_>) -> Result<Reply, ErrorReply> {
    let (spec, words) = called(args)?;
    Ok(Reply::Array(spec.keys_of(words).map(Reply::bulk).collect()))
}

pub(super) fn command_getkeysandflags(args: Args<'_>) -> Result<Reply, ErrorReply> {
    let (spec, words) = called(args)?;
    let each = |key| Reply::Array(vec![Reply::bulk(key), catalogue::key_flags(spec)]);
    Ok(Reply::Array(spec.keys_of(words).map(each).collect()))
}

/// The subcommands of a container with their syntax and summary, in the shape of Redis' help.
fn help(container: &str) -> Result<Reply, ErrorReply> {
    let title = container.to_ascii_uppercase();
    let mut lines = vec![format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for sub in lookup(container.as_bytes()).map(|spec| spec.subcommands).unwrap_or_default() {
        let own = sub.name.split_once('|').map_or(sub.name, |(_, own)| own).to_ascii_uppercase();
        let words = sub.arguments.iter().map(crate::spec::argument::Argument::syntax);
        lines.push(std::iter::once(own).chain(words).collect::<Vec<_>>().join(" "));
        lines.push(format!("    {}", sub.summary));
    }
    Ok(Reply::Array(lines.into_iter().map(|line| Reply::Simple(line.into())).collect()))
}

pub(super) fn command_help(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    help("command")
}

pub(super) fn config_help(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    help("config")
}

pub(super) fn cluster_help(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    help("cluster")
}

pub(super) fn namespace_help(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    help("namespace")
}

pub(super) fn client_help(_args: Args<'_>) -> Result<Reply, ErrorReply> {
    help("client")
}
