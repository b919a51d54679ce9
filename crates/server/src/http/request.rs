//! What a request asks: its parameters, its body, and whether a browser was sent here by somebody else's page.

use super::response::{Response, text};
use crate::settings::ServerSettings;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::{Request, StatusCode};
use kvorum_cluster::Quorum;
use percent_encoding::percent_decode;
use std::net::IpAddr;

/// The parameters of a request. Names and values are bytes of any content, percent-encoded; `+` is a space, as forms write it.
pub(super) struct Target {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Target {
    pub(super) fn parse(query: Option<&str>) -> Target {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Target { pairs: pairs.collect() }
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let pair = self.pairs.iter().find(|(known, _)| known == name.as_bytes());
        pair.map(|(_, value)| value.as_slice())
    }

    /// The first value of this name, which must be there and not be empty.
    pub(super) fn required(&self, name: &str) -> Result<&[u8], Box<Response>> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Box::new(text(StatusCode::BAD_REQUEST, format!("The parameter {name} is missing or empty\n")))
        })
    }

    /// `ack` and `from`, each a whole number if given.
    pub(super) fn quorum(&self) -> Result<Quorum, Box<Response>> {
        Ok(Quorum { ack: self.replicas("ack")?, from: self.replicas("from")? })
    }

    fn replicas(&self, name: &str) -> Result<Option<u32>, Box<Response>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|text| text.parse().ok()).map(Some);
        number.ok_or_else(|| {
            Box::new(text(StatusCode::BAD_REQUEST, format!("{name} is not a whole number of replicas\n")))
        })
    }
}

fn decode(text: &str) -> Vec<u8> {
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).collect()
}

/// The whole body, if it is within the limit.
pub(super) async fn body(request: Request<Incoming>, bytes_max: u64) -> Result<Bytes, Box<Response>> {
    let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let reason = format!("The body is larger than {bytes_max} bytes (http_body_bytes_max)\n");
            Err(Box::new(text(StatusCode::PAYLOAD_TOO_LARGE, reason)))
        }
        Err(error) => Err(Box::new(text(StatusCode::BAD_REQUEST, format!("The body did not arrive: {error}\n")))),
    }
}

/// Without a password, whoever can make a browser on this machine send requests could use the server: by a page (its `Origin` is foreign) or
/// by a name that points here (the `Host` is foreign). Both are refused.
pub(super) fn check_origin(request: &Request<Incoming>, settings: &ServerSettings) -> Result<(), String> {
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let origin = request.headers().get(ORIGIN).map(HeaderValue::as_bytes);
    origin_fits(host, origin, &settings.http_hosts)
}

fn origin_fits(host: Option<&[u8]>, origin: Option<&[u8]>, hosts: &[String]) -> Result<(), String> {
    const REMEDY: &str = "without a password only requests to this machine's own addresses are taken, and none of foreign pages\n";
    let host = host.map(String::from_utf8_lossy);
    if let Some(host) = &host
        && !is_own(host, hosts)
    {
        return Err(format!("Host {host}: {REMEDY}"));
    }
    let Some(origin) = origin.map(String::from_utf8_lossy) else { return Ok(()) };
    let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if page.is_some() && page == host.as_deref() {
        return Ok(());
    }
    Err(format!("Origin {origin}: {REMEDY}"))
}

/// Whether a `Host` is a plain address, `localhost`, or one of the names in the settings. A plain address can't be made to point elsewhere.
fn is_own(host: &str, hosts: &[String]) -> bool {
    let port = host.rfind(':').filter(|at| !host.get(*at..).unwrap_or_default().contains(']'));
    let name = port.and_then(|at| host.get(..at)).unwrap_or(host);
    let address = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_bytes_of_any_content() {
        let target = Target::parse(Some("id=a%00%ff+b%2B&ack=2&empty=&id=second&alone"));
        assert_eq!(target.get("id"), Some(&b"a\0\xff b+"[..]));
        assert_eq!(target.get("empty"), Some(&b""[..]));
        assert_eq!(target.get("alone"), Some(&b""[..]));
        assert_eq!(target.get("none"), None);
        assert!(target.required("empty").is_err() && target.required("none").is_err());
        assert_eq!(target.quorum().unwrap(), Quorum { ack: Some(2), from: None });
        for bad in ["ack=", "ack=x", "from=-1", "ack=+1", "from=99999999999"] {
            assert!(Target::parse(Some(bad)).quorum().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_own_hosts_and_origins_fit() {
        let hosts = [String::from("db.internal")];
        let fits = |host: Option<&str>, origin: Option<&str>| {
            origin_fits(host.map(str::as_bytes), origin.map(str::as_bytes), &hosts).is_ok()
        };
        for host in ["127.0.0.1:8379", "localhost", "LOCALHOST:1", "[::1]:8379", "10.0.0.7", "db.internal:80"] {
            assert!(fits(Some(host), None), "{host}");
        }
        for host in ["evil.example", "evil.example:8379", "localhost.evil.example", "127.0.0.1.evil.example:80", ""] {
            assert!(!fits(Some(host), None), "{host}");
        }
        assert!(fits(None, None));
        assert!(fits(Some("localhost:8379"), Some("http://localhost:8379")));
        for origin in ["http://evil.example", "https://localhost:1", "null", "http://127.0.0.1:8379"] {
            assert!(!fits(Some("localhost:8379"), Some(origin)), "{origin}");
        }
    }
}
