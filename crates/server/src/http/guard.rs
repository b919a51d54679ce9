//! Who may ask: the password; and without one, only pages and programs that mean this server.
//!
//! A browser will carry a foreign page's requests to a server on the loopback. Two things give it away: `Origin`, and, after the page's name
//! was made to resolve to this machine (DNS rebinding), `Host`.

use super::Answer;
use crate::rights;
use crate::settings::ServerSettings;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use std::net::IpAddr;

/// `Ok` if the request may go on.
pub(crate) fn check<B>(settings: &ServerSettings, request: &Request<B>) -> Result<(), Answer> {
    if request.uri().path() == "/healthz" {
        return Ok(());
    }
    let headers = request.headers();
    if settings.requirepass.is_some() {
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if rights::authorization_fits(settings, given) {
            return Ok(());
        }
        let mut answer =
            Answer::text(StatusCode::UNAUTHORIZED, "a password is required: Basic (user default) or Bearer");
        answer.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"kvorum\"")));
        return Err(answer);
    }
    let host =
        text(headers, &HOST)?.or_else(|| request.uri().authority().map(|name| name.as_str().to_owned()));
    let foreign = |what: &str, name: &str| {
        let text = format!(
            "{what} {name} is not this server's. Without a password HTTP answers to localhost and plain addresses only: set one \
             (--requirepass SECRET)"
        );
        Err(Answer::text(StatusCode::FORBIDDEN, text))
    };
    if let Some(host) = &host
        && !is_own(settings, name_of(host))
    {
        return foreign("Host", host);
    }
    let Some(origin) = text(headers, &ORIGIN)? else { return Ok(()) };
    let from = origin.split_once("://").map(|(_, authority)| authority);
    // Same origin: the very authority that was asked.
    if from.is_some() && from == host.as_deref() { Ok(()) } else { foreign("Origin", &origin) }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Answer> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text =
        value.to_str().map_err(|_| Answer::text(StatusCode::BAD_REQUEST, format!("{name} is no text")))?;
    Ok(Some(text.to_ascii_lowercase()))
}

/// The name without its port.
fn name_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(authority, |(address, _)| address);
    }
    authority.split_once(':').map_or(authority, |(name, _)| name)
}

/// Names that nobody else can make point here.
fn is_own(settings: &ServerSettings, name: &str) -> bool {
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || settings.http_hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(settings: &ServerSettings, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match check(settings, &request.body(()).unwrap()) {
            Ok(()) => 200,
            Err(answer) => answer.status.as_u16(),
        }
    }

    #[test]
    fn foreign_hosts_and_pages_are_refused_without_a_password() {
        let open = ServerSettings { http_hosts: vec!["db.internal".into()], ..ServerSettings::default() };
        let host = |host| status(&open, "/get", &[("host", host)]);
        for own in
            ["localhost", "LOCALHOST:8379", "127.0.0.1:8379", "[::1]:8379", "10.0.0.7", "db.internal:80"]
        {
            assert_eq!(host(own), 200, "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:8379"] {
            assert_eq!(host(foreign), 403, "{foreign}");
        }
        let origin = |origin| status(&open, "/get", &[("host", "localhost:8379"), ("origin", origin)]);
        assert_eq!(origin("http://localhost:8379"), 200);
        for foreign in ["http://localhost:3000", "https://evil.example", "null"] {
            assert_eq!(origin(foreign), 403, "{foreign}");
        }
        assert_eq!(status(&open, "/get", &[]), 200, "no browser leaves Host out");
    }

    #[test]
    fn with_a_password_only_that_counts() {
        let guarded = ServerSettings { requirepass: Some("secret".into()), ..ServerSettings::default() };
        assert_eq!(status(&guarded, "/get", &[("host", "localhost")]), 401);
        assert_eq!(status(&guarded, "/metrics", &[]), 401);
        assert_eq!(status(&guarded, "/healthz", &[("host", "evil.example")]), 200);
        let bearer =
            [("authorization", "Bearer secret"), ("host", "db.example"), ("origin", "https://db.example")];
        assert_eq!(status(&guarded, "/get", &bearer), 200);
    }
}
