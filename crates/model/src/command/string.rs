//! Strings: reading and writing whole values.

use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::reply::Reply;
use crate::spec::{Available, Categories, CommandSpec, Flags, Group, Run};

pub(crate) const SPECS: &[CommandSpec] = &[
    CommandSpec::new("get", 2, Group::String, Run::Data(get))
        .keys(1, 1, 1)
        .flags(Flags::READONLY.with(Flags::FAST))
        .category(Categories::STRING)
        .docs("1.0.0", "O(1)", "Returns the value of a key."),
    CommandSpec::new("set", -3, Group::String, Run::Data(set))
        .keys(1, 1, 1)
        .flags(Flags::WRITE.with(Flags::DENYOOM))
        .category(Categories::STRING)
        .docs("1.0.0", "O(1)", "Gives a key a value, whatever it held before.")
        .available(Available::If(|args| args.len() == 3)),
];

fn get<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    Ok(context.string(args.at(1))?.map_or(Reply::Nil, |record| Reply::Bulk(record.value)))
}

fn set<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    if args.len() > 3 {
        return Err(ErrorReply::syntax().into());
    }
    context.put(args.at(1), args.at(2), None);
    Ok(Reply::Ok)
}
