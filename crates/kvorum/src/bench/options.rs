//! What `kvorum bench` can be told.

use clap::{Arg, ArgMatches, value_parser};
use std::time::Duration;

/// A connection needs a place in the histograms and a socket each: more than that no machine serves.
const CLIENTS_MAX: u64 = 20_000;

/// Commands that a connection sends at once.
const PIPELINE_MAX: u64 = 4096;

/// Largest value.
const VALUE_BYTES_MAX: u64 = 512 << 20;

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `GET` and `SET`.
    Resp,
    /// `GET` and `PUT`: of `/v0/entity`, or of `/v1/ns/{namespace}/keys/{key}` if a namespace is named.
    Http,
}

/// Rates that rise until the node does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ramp {
    /// Operations per second of the first step.
    pub(crate) start: u64,
    /// Added with each step.
    pub(crate) step: u64,
    /// Where it ends: a step whose 99th percentile is above.
    pub(crate) until_p99: Duration,
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) protocol: Protocol,
    /// Nodes; clients take turns.
    pub(crate) addresses: Vec<String>,
    pub(crate) password: Option<String>,
    pub(crate) namespace: Option<String>,
    /// Copies that must answer, and copies that are asked, in an available namespace over HTTP.
    pub(crate) quorum: Option<(u64, u64)>,
    /// `CONSISTENCY READ`'s word, if the default of the namespace is not wanted.
    pub(crate) read: Option<String>,
    pub(crate) clients: u64,
    pub(crate) threads: u64,
    pub(crate) pipeline: u64,
    /// How long a run, or a step of a ramp, takes.
    pub(crate) time: Duration,
    /// Operations after which a run ends, if before its time.
    pub(crate) requests: Option<u64>,
    /// Operations per second of all clients together (open loop); `None`: as fast as answers come (closed loop).
    pub(crate) rate: Option<u64>,
    pub(crate) ramp: Option<Ramp>,
    pub(crate) reads_percent: u64,
    pub(crate) keys: u64,
    /// Skew of the choice of keys; 0: all alike.
    pub(crate) zipf: f64,
    pub(crate) value_bytes: u64,
    pub(crate) seed: u64,
}

/// The subcommand, without the settings' own flags.
pub(crate) fn command() -> clap::Command {
    clap::Command::new("bench")
        .about("Load a running node and tell rates and latencies, percentiles included")
        .after_help(
            "Closed loop (default): every client sends the next command when the answer is there.\n\
             Open loop (--rate, --ramp): commands fall due at fixed times, and latency counts from then on, so that a node that stalls \
             is not asked less meanwhile. Times are exact to a millisecond.\n\
             Ctrl-C ends a run early and tells what came of it until then.\n\
             Examples: kvorum bench http --get 0 --ramp 2000:2000 --until-p99 20\n          \
             kvorum bench --nodes 10.0.0.1:6379,10.0.0.2:6379,10.0.0.3:6379 --get 100 --read follower",
        )
        .arg(
            Arg::new("protocol")
                .value_name("resp|http")
                .value_parser(["resp", "http"])
                .default_value("resp")
                .help("Protocol to speak"),
        )
        .args(load_flags())
        .args(data_flags())
}

fn number(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    max: u64,
    help: &'static str,
) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .default_value(default)
        .help(help)
        .value_parser(value_parser!(u64).range(1..=max))
}

fn load_flags() -> Vec<Arg> {
    let optional = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    vec![
        optional(
            "nodes",
            "ADDR,…",
            "Nodes that the clients are spread over, instead of the one of --resp or --http",
        )
        .value_delimiter(','),
        number("clients", "N", "50", CLIENTS_MAX, "Connections"),
        number("threads", "N", "1", 64, "Threads of the load generator"),
        number("pipeline", "N", "1", PIPELINE_MAX, "Commands that a client sends at once (RESP)"),
        number("seconds", "N", "10", 86_400, "Length of a run, or of each step of a ramp"),
        optional("requests", "N", "End after so many operations").value_parser(value_parser!(u64).range(1..)),
        optional("rate", "N", "Operations per second (open loop)")
            .value_parser(value_parser!(u64).range(1..))
            .conflicts_with("ramp"),
        optional(
            "ramp",
            "START:STEP",
            "Raise the rate step by step until --until-p99 is passed, and tell the breaking point",
        )
        .value_parser(parse_ramp)
        .conflicts_with("requests"),
        number("until-p99", "MS", "50", 60_000, "Where a ramp ends: 99th percentile of the latency"),
    ]
}

fn data_flags() -> Vec<Arg> {
    vec![
        Arg::new("namespace")
            .long("namespace")
            .value_name("NAME")
            .help("Namespace [default: 0 by RESP, /v0/entity by HTTP]"),
        Arg::new("quorum")
            .long("quorum")
            .value_name("ACK/FROM")
            .value_parser(parse_quorum)
            .help("ack and from of /v0/entity"),
        Arg::new("read")
            .long("read")
            .value_name("MODE")
            .value_parser(["leader", "follower", "stale"])
            .help("How a strong namespace is read (RESP) [default: as the namespace says]"),
        Arg::new("get")
            .long("get")
            .value_name("PERCENT")
            .default_value("50")
            .value_parser(value_parser!(u64).range(0..=100))
            .help("Share of reads; the rest are writes"),
        number("keys", "N", "100000", u64::MAX, "Keys to choose from"),
        Arg::new("zipf")
            .long("zipf")
            .value_name("SKEW")
            .default_value("0")
            .value_parser(parse_skew)
            .help("Skew of the choice of keys (0: all alike; 0.99 is usual)"),
        number("value-bytes", "N", "100", VALUE_BYTES_MAX, "Size of a value"),
        Arg::new("seed")
            .long("seed")
            .value_name("N")
            .default_value("1")
            .value_parser(value_parser!(u64))
            .help("Seed of all choices"),
    ]
}

fn parse_ramp(text: &str) -> Result<(u64, u64), String> {
    let parsed =
        text.split_once(':').and_then(|(start, step)| Some((start.parse().ok()?, step.parse().ok()?)));
    parsed
        .filter(|(start, step)| *start > 0 && *step > 0)
        .ok_or_else(|| String::from("START:STEP, such as 1000:500"))
}

fn parse_quorum(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once('/').and_then(|(ack, from)| Some((ack.parse().ok()?, from.parse().ok()?)));
    parsed
        .filter(|(ack, from)| (1..=*from).contains(ack))
        .ok_or_else(|| String::from("ACK/FROM, such as 2/3"))
}

fn parse_skew(text: &str) -> Result<f64, String> {
    let skew = text.parse::<f64>().ok().filter(|skew| (0.0..=10.0).contains(skew));
    skew.ok_or_else(|| String::from("a number from 0 to 10"))
}

impl Options {
    /// What was said; `resp` and `http` are the addresses in the settings.
    pub(crate) fn of(
        matches: &ArgMatches,
        resp: &str,
        http: Option<&str>,
        password: Option<String>,
    ) -> Result<Options, String> {
        let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or_default();
        let is_http = matches.get_one::<String>("protocol").is_some_and(|name| name == "http");
        let addresses = match matches.get_many::<String>("nodes") {
            Some(nodes) => nodes.cloned().collect(),
            None if is_http => vec![http.ok_or("HTTP is off in the settings: say --http ADDR")?.to_owned()],
            None => vec![resp.to_owned()],
        };
        let options = Options {
            protocol: if is_http { Protocol::Http } else { Protocol::Resp },
            addresses,
            password,
            namespace: matches.get_one::<String>("namespace").cloned(),
            quorum: matches.get_one::<(u64, u64)>("quorum").copied(),
            read: matches.get_one::<String>("read").cloned(),
            clients: number("clients"),
            threads: number("threads").min(number("clients")),
            pipeline: number("pipeline"),
            time: Duration::from_secs(number("seconds")),
            requests: matches.get_one::<u64>("requests").copied(),
            rate: matches.get_one::<u64>("rate").copied(),
            ramp: matches.get_one::<(u64, u64)>("ramp").map(|&(start, step)| Ramp {
                start,
                step,
                until_p99: Duration::from_millis(number("until-p99")),
            }),
            reads_percent: number("get"),
            keys: number("keys"),
            zipf: matches.get_one::<f64>("zipf").copied().unwrap_or_default(),
            value_bytes: number("value-bytes"),
            seed: number("seed"),
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), String> {
        if self.protocol == Protocol::Http && self.pipeline > 1 {
            return Err(String::from("HTTP is not pipelined: leave --pipeline out, take more --clients"));
        }
        if self.quorum.is_some() && (self.protocol == Protocol::Resp || self.namespace.is_some()) {
            return Err(String::from("--quorum is for /v0/entity: bench http, without --namespace"));
        }
        if self.read.is_some() && self.protocol == Protocol::Http {
            return Err(String::from("--read is for connections of the Redis protocol: bench resp"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        let matches = command()
            .try_get_matches_from(std::iter::once(&"bench").chain(words))
            .map_err(|e| e.to_string())?;
        Options::of(&matches, "127.0.0.1:1", Some("127.0.0.1:2"), None)
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["http", "--pipeline", "4"][..],
            &["resp", "--quorum", "2/3"],
            &["http", "--quorum", "3/2"],
            &["http", "--read", "follower"],
            &["resp", "--read", "elsewhere"],
            &["http", "--quorum", "0/2"],
            &["--ramp", "100"],
            &["--ramp", "0:5"],
            &["--ramp", "5:5", "--rate", "7"],
            &["--clients", "0"],
            &["--get", "101"],
            &["--zipf", "-1"],
            &["ftp"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_was_said_is_taken() {
        let options = parse(&["http", "--quorum", "2/3", "--ramp", "100:50", "--until-p99", "20"]).unwrap();
        assert_eq!((options.addresses, options.quorum), (vec![String::from("127.0.0.1:2")], Some((2, 3))));
        let ramp = Ramp { start: 100, step: 50, until_p99: Duration::from_millis(20) };
        assert_eq!(options.ramp, Some(ramp));
        let options = parse(&["--threads", "8", "--clients", "3"]).unwrap();
        assert_eq!((options.threads, options.protocol), (3, Protocol::Resp), "no thread without a client");
        let options = parse(&["--nodes", "a:1,b:2", "--read", "follower"]).unwrap();
        assert_eq!(
            (options.addresses.join(" "), options.read.as_deref()),
            (String::from("a:1 b:2"), Some("follower"))
        );
    }
}
