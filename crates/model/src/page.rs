//! "Coming from Redis", made from the table.

use crate::spec::argument::Argument;
use crate::spec::flags::Group;
use crate::spec::{Available, CommandSpec};
use crate::table::table;
use std::fmt::Write;

const HEAD: &str = "# Coming from Redis

<!-- Made from the command table by `UPDATE_DOCS=1 cargo test -p kvorum-model`; a test keeps it current. -->

Clients connect as they do to Redis 7.2: RESP2 and RESP3, pipelining, inline commands, transactions. Replies and error texts are Redis'. A
command is listed here only if all options shown work; whatever is not listed answers `ERR unknown command`, an option that is not shown
`ERR syntax error`.

## What is different

- **Acknowledged means stored.** A reply to a write comes when the write survives a crash of the program, and, with the default durability
  `synced`, a power loss.
- **Every value has a version**, a decimal string. `GETV` reads it, `SETV` returns the new one, `SET … IFVERSION` and `DELEX` write only if it is
  still what you read (0: the key is absent) and answer `CONFLICT <current version>` otherwise. Any write raises it, `EXPIRE`, `PERSIST` and
  `APPEND` too.
- **Numbered databases are namespaces.** `SELECT 0` to `15` work as usual, without `MOVE`, `COPY` and `SWAPDB`; `NAMESPACE CREATE users` makes another
  one, which `SELECT users` chooses.
- **Namespaces are strong or available.** In an available one there is no order of writes to rely on: commands that read before they write, or
  that promise all or nothing, answer `ERR needs a strong namespace`. The last column tells which commands it takes.
- **Strings only, so far.** Hashes, lists, sets, sorted sets, streams, scripts and publish/subscribe are not there yet.
- **An expired key is gone at once**, whether or not its space has been freed.
";

/// The page, in Markdown.
pub fn coming_from_redis() -> String {
    let mut page = HEAD.to_owned();
    let differing = table().iter().filter(|spec| !spec.differs.is_empty());
    page.push_str("\n## Commands that differ in details\n\n");
    for spec in differing {
        line(&mut page, format_args!("- `{}`: {}", spec.name.to_ascii_uppercase(), spec.differs));
    }
    page.push_str("\n## All commands\n");
    for (group, title) in [
        (Group::String, "Strings"),
        (Group::Generic, "Keys"),
        (Group::Transactions, "Transactions"),
        (Group::Connection, "Connections"),
        (Group::Server, "Server"),
        (Group::Cluster, "Cluster"),
    ] {
        line(
            &mut page,
            format_args!(
                "\n### {title}\n\n| command | what it does | available namespace |\n| --- | --- | --- |"
            ),
        );
        for spec in table().iter().filter(|spec| spec.group == group) {
            if spec.subcommands.is_empty() {
                row(&mut page, spec);
            } else {
                spec.subcommands.iter().for_each(|sub| row(&mut page, sub));
            }
        }
    }
    page
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

fn row(page: &mut String, spec: &CommandSpec) {
    let name = spec.name.to_ascii_uppercase().replace('|', " ");
    let words = spec.arguments.iter().map(Argument::syntax);
    let syntax = std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let available = match spec.available {
        Available::Yes => "yes",
        Available::No => "no",
        Available::If(_) => "without `NX`, `XX`, `GET`, `KEEPTTL`",
    };
    line(page, format_args!("| `{syntax}` | {} | {available} |", spec.summary));
}
