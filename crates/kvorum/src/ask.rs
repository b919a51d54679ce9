//! Asking a running node over HTTP, on behalf of the subcommands.

use crate::settings::Settings;
use serde_json::Value;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

/// A node that does not answer a connection within this is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that brings nothing for so long is given up. A node flushes before it sends a backup, so the first byte may take a while.
const SILENT_MAX: Duration = Duration::from_secs(300);

/// Bytes of a refusal that are shown.
const REFUSAL_BYTES_MAX: u64 = 4 << 10;

/// Bytes of an answer in JSON at most.
const JSON_BYTES_MAX: u64 = 64 << 20;

/// A node, by its HTTP address.
pub(crate) struct Asked<'s> {
    pub(crate) address: &'s str,
    secret: Option<&'s str>,
    agent: Agent,
}

/// What is asked of a path.
pub(crate) enum Ask<'v> {
    Get,
    Post,
    /// With a body, and a condition: `If-Match` or `If-None-Match`, on `*`.
    Put(&'v Value, &'static str),
    Delete,
}

impl Asked<'_> {
    /// The node that the settings name. `what` needs it.
    pub(crate) fn of<'s>(settings: &'s Settings, what: &str) -> Result<Asked<'s>, String> {
        let address = settings.http.as_deref();
        let address =
            address.ok_or_else(|| format!("{what} goes over HTTP, which is off: say --http ADDR"))?;
        Ok(Asked::at(address, settings))
    }

    /// The node at an address, which knows the same password.
    pub(crate) fn at<'s>(address: &'s str, settings: &'s Settings) -> Asked<'s> {
        let configuration = Agent::config_builder()
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(SILENT_MAX))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        let agent = Agent::new_with_config(configuration);
        Asked { address, secret: settings.requirepass.as_deref(), agent }
    }

    /// The body of a 200, 201 or 202; anything else is a refusal in one line.
    pub(crate) fn ask(&self, path: &str, ask: &Ask<'_>) -> Result<Body, String> {
        let response =
            self.send(path, ask).map_err(|error| format!("cannot ask {}: {error}", self.address))?;
        let (status, mut body) = (response.status(), response.into_body());
        if matches!(status.as_u16(), 200..=202) {
            return Ok(body);
        }
        let text = body.with_config().limit(REFUSAL_BYTES_MAX).read_to_string().unwrap_or_default();
        let error = serde_json::from_str::<Value>(&text).ok();
        let error = error.as_ref().and_then(|body| body["error"].as_str()).unwrap_or(text.trim());
        let remedy = match status.as_u16() {
            401 => " (--requirepass SECRET, or KVORUM_REQUIREPASS)",
            400 if error.starts_with("there is no such path") => " (a Kvorum of another version?)",
            _ => "",
        };
        Err(format!("{} refused: {status}: {error}{remedy}", self.address))
    }

    /// As [`ask`](Asked::ask), of an answer in JSON.
    pub(crate) fn json(&self, path: &str, ask: &Ask<'_>) -> Result<Value, String> {
        let text = self.ask(path, ask)?.with_config().limit(JSON_BYTES_MAX).read_to_vec();
        let text = text.map_err(|error| format!("the answer of {} broke off: {error}", self.address))?;
        serde_json::from_slice(&text)
            .map_err(|error| format!("{} does not answer JSON: {error}", self.address))
    }

    fn send(&self, path: &str, ask: &Ask<'_>) -> Result<Response<Body>, ureq::Error> {
        let url = format!("http://{}{path}", self.address);
        match ask {
            Ask::Get => self.authorized(self.agent.get(url)).call(),
            Ask::Delete => self.authorized(self.agent.delete(url)).call(),
            Ask::Post => self.authorized(self.agent.post(url)).send_empty(),
            Ask::Put(body, condition) => {
                let request = self.authorized(self.agent.put(url)).header(*condition, "*");
                request.header("Content-Type", "application/json").send(body.to_string())
            }
        }
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match self.secret {
            Some(secret) => request.header("Authorization", format!("Bearer {secret}")),
            None => request,
        }
    }
}

/// A part of a path, percent-encoded.
pub(crate) fn part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let each = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(each).collect()
}

/// Rows as a table for people: columns as wide as what is in them.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at))).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heads.iter().copied());
    rows.iter().for_each(|row| text.push_str(&line(&mut row.iter().map(String::as_str))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["a".to_owned(), "long one".to_owned()], vec!["bcd".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "X"], &rows), "NAME  X\na     long one\nbcd\n");
        assert_eq!(part("a b/ü"), "a%20b%2F%C3%BC");
    }
}
