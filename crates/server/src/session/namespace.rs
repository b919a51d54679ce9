//! `NAMESPACE …` and `CONSISTENCY`.

use super::Session;
use kvorum_cluster::{
    Consistency, Error, NamespaceChange, NamespaceInfo, NamespaceSettings, Node, ReadMode, STALE_AGE_MAX_MS,
    durability_of_word, durability_word,
};
use kvorum_model::{Args, ErrorReply, Reply, SessionCommand, parse_u64};

/// `NAMESPACE LIST`: of each its name, then its settings.
pub(super) fn list(node: &Node) -> Reply {
    let row = |info: NamespaceInfo| {
        let settings = info.settings.pairs().into_iter();
        let pairs = settings.map(|(word, value)| (Reply::text(word), Reply::bulk(value)));
        Reply::Map(std::iter::once((Reply::text("name"), Reply::bulk(info.name))).chain(pairs).collect())
    };
    Reply::Array(node.namespaces().list().into_iter().map(row).collect())
}

/// `NAMESPACE CREATE name [setting value …]`, `NAMESPACE SET name setting value …`, `NAMESPACE DROP name`.
pub(super) async fn namespace_command(node: &Node, command: SessionCommand, args: Args<'_>) -> Reply {
    match change(node, command, args).await {
        Ok(()) => Reply::Ok,
        Err(error) => error.reply(),
    }
}

async fn change(node: &Node, command: SessionCommand, args: Args<'_>) -> Result<(), Error> {
    let (name, namespaces) = (text(args.at(2))?, node.namespaces());
    match command {
        SessionCommand::NamespaceDrop => namespaces.drop(name).await,
        SessionCommand::NamespaceSet => namespaces.set(name, changes(args)?).await.map(drop),
        _ => namespaces.create(name, NamespaceSettings::made_of(&changes(args)?)?).await.map(drop),
    }
}

fn changes(args: Args<'_>) -> Result<Vec<NamespaceChange>, Error> {
    let (pairs, rest) = args.from(3).as_chunks::<2>();
    if let [odd] = rest {
        return Err(Error::Invalid(format!("the setting {} has no value", String::from_utf8_lossy(odd))));
    }
    pairs.iter().map(|[word, value]| NamespaceChange::parse(text(word)?, text(value)?)).collect()
}

fn text(word: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(word).map_err(|_| Error::Invalid("names and settings are UTF-8".to_owned()))
}

impl Session {
    /// `CONSISTENCY [READ mode] [ACK n] [FROM n] [DURABILITY class]`: all of it or nothing. Answers with what is in force in the namespace.
    pub(super) fn consistency(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let mut asked = self.node.consistency;
        let (pairs, rest) = args.from(1).as_chunks::<2>();
        if !rest.is_empty() {
            return Err(ErrorReply::syntax());
        }
        for [option, value] in pairs {
            ask(&mut asked, option, value)?;
        }
        let in_force = self.shared.node.in_force(self.namespace, &asked);
        let in_force = in_force.map_err(|error| ErrorReply::new(error.resp()))?;
        self.node.consistency = asked;
        let mut pairs = Vec::new();
        if let Some(read) = in_force.read {
            pairs.push((Reply::text("read"), Reply::text(read.word())));
            if read == ReadMode::Stale {
                let number = |number: u64| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
                pairs.push((Reply::text("age-ms"), number(self.node.age_ms)));
                pairs.push((Reply::text("age-max-ms"), number(STALE_AGE_MAX_MS)));
            }
        }
        if let Some((ack, from)) = in_force.quorum {
            pairs.push((Reply::text("ack"), Reply::Integer(ack.into())));
            pairs.push((Reply::text("from"), Reply::Integer(from.into())));
        }
        pairs.push((Reply::text("durability"), Reply::text(durability_word(in_force.durability))));
        Ok(Reply::Map(pairs))
    }
}

/// Takes one option over; `default` leaves it to the namespace again.
fn ask(asked: &mut Consistency, option: &[u8], value: &[u8]) -> Result<(), ErrorReply> {
    let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
    let word = std::str::from_utf8(value).map_err(|_| ErrorReply::syntax())?;
    let default = word.eq_ignore_ascii_case("default");
    let number = || {
        let number =
            parse_u64(value).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        number.ok_or_else(|| ErrorReply::new("ERR ACK and FROM are numbers from 1 on, or DEFAULT"))
    };
    if is(b"READ") {
        asked.read =
            if default { None } else { Some(ReadMode::of_word(word).ok_or_else(ErrorReply::syntax)?) };
    } else if is(b"ACK") {
        asked.ack = if default { None } else { Some(number()?) };
    } else if is(b"FROM") {
        asked.from = if default { None } else { Some(number()?) };
    } else if is(b"DURABILITY") {
        asked.durability =
            if default { None } else { Some(durability_of_word(word).ok_or_else(ErrorReply::syntax)?) };
    } else {
        return Err(ErrorReply::syntax());
    }
    Ok(())
}
