//! `CLIENT …`.

use super::Session;
use crate::clients::Client;
use crate::resp::integer;
use bytes::Bytes;
use kvorum_model::{Args, ErrorReply, Reply};

/// Longest name that a connection may give itself, bytes: it is kept and listed.
const NAME_BYTES_MAX: usize = 1024;

/// Longest id of a request, bytes: shards keep it for a while.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;

/// The id of a request, if it can be one.
pub(crate) fn request_id(id: &[u8]) -> Option<Bytes> {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()).then(|| Bytes::copy_from_slice(id))
}

/// Refuses names that would break the lines of `CLIENT LIST`.
pub(super) fn check_name(name: &[u8]) -> Result<(), ErrorReply> {
    if name.len() > NAME_BYTES_MAX {
        return Err(ErrorReply::new(format!("ERR Client names are limited to {NAME_BYTES_MAX} bytes.")));
    }
    if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
        return Err(ErrorReply::new(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(())
}

impl Session {
    pub(super) fn client_name(&self) -> Reply {
        let name = self.client.facts.lock().name.clone();
        if name.is_empty() { Reply::Nil } else { Reply::Bulk(name) }
    }

    pub(super) fn set_client_name(&mut self, name: &[u8]) -> Result<Reply, ErrorReply> {
        check_name(name)?;
        self.client.facts.lock().name = Bytes::copy_from_slice(name);
        Ok(Reply::Ok)
    }

    /// `CLIENT SETINFO LIB-NAME | LIB-VER text`.
    pub(super) fn set_client_info(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let (attribute, text) = (args.at(2), args.at(3));
        let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
        if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
            let shown = String::from_utf8_lossy(attribute.get(..64).unwrap_or(attribute)).into_owned();
            return Err(ErrorReply::new(format!("ERR Unrecognized option '{shown}'")));
        }
        let attribute = if is_name { "lib-name" } else { "lib-ver" };
        if text.len() > NAME_BYTES_MAX || check_name(text).is_err() {
            return Err(ErrorReply::new(format!(
                "ERR {attribute} cannot contain spaces, newlines or special characters."
            )));
        }
        let text = Bytes::copy_from_slice(text);
        let mut facts = self.client.facts.lock();
        if is_name {
            facts.library = text;
        } else {
            facts.library_version = text;
        }
        Ok(Reply::Ok)
    }

    /// `CLIENT REQUESTID id`.
    pub(super) fn name_request(&mut self, id: &[u8]) -> Result<Reply, ErrorReply> {
        self.node.request_id = Some(request_id(id).ok_or_else(|| {
            ErrorReply::new(format!("ERR a request id has 1 to {REQUEST_ID_BYTES_MAX} bytes"))
        })?);
        Ok(Reply::Ok)
    }

    pub(super) fn client_info(&self) -> Reply {
        Reply::Verbatim(self.client.line(crate::time::now()) + "\n")
    }

    /// `CLIENT LIST [TYPE type] [ID id …]`.
    pub(super) fn client_list(&self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let chosen: Box<dyn Fn(&Client) -> bool> = match args.from(2) {
            [] => Box::new(|_| true),
            [option, kind] if option.eq_ignore_ascii_case(b"TYPE") => {
                let is = |name: &[u8]| kind.eq_ignore_ascii_case(name);
                let known = [&b"normal"[..], b"master", b"slave", b"replica", b"pubsub"].into_iter().any(is);
                if !known {
                    let shown = String::from_utf8_lossy(kind.get(..64).unwrap_or(kind)).into_owned();
                    return Err(ErrorReply::new(format!("ERR Unknown client type '{shown}'")));
                }
                let normal = is(b"normal");
                Box::new(move |_| normal)
            }
            [option, ids @ ..] if option.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
                let parse =
                    |id: &&[u8]| integer(id).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                let ids: Option<Vec<u64>> = ids.iter().map(parse).collect();
                let ids = ids.ok_or_else(|| ErrorReply::new("ERR Invalid client ID"))?;
                Box::new(move |client| ids.contains(&client.id))
            }
            _ => return Err(ErrorReply::syntax()),
        };
        let now = crate::time::now();
        let clients = self.shared.clients.list();
        let lines = clients.iter().filter(|client| chosen(client)).map(|client| client.line(now) + "\n");
        Ok(Reply::Verbatim(lines.collect()))
    }
}
