//! Commands for keys of any type.

use crate::args::Args;
use crate::context::Context;
use crate::error::Stop;
use crate::reply::Reply;
use crate::spec::{Categories, CommandSpec, Flags, Group, Run};

pub(crate) const SPECS: &[CommandSpec] = &[CommandSpec::new("del", -2, Group::Generic, Run::Data(del))
    .keys(1, -1, 1)
    .flags(Flags::WRITE)
    .category(Categories::KEYSPACE)
    .docs("1.0.0", "O(N) where N is the number of keys.", "Deletes one or more keys.")];

fn del<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let mut deleted = 0;
    for key in args.from(1) {
        if !context.has_changed(key) && context.meta(key)?.is_some() {
            context.delete(key);
            deleted += 1;
        }
    }
    Ok(Reply::Integer(deleted))
}
