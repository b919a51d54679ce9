//! What the settings say of a cluster, made into what a node takes: names and addresses that leave nothing open.

use crate::settings::Settings;
use kvorum_cluster::{Bootstrap, ClusterSettings, PeerListener, PeerTls};
use kvorum_server::Bound;
use std::net::SocketAddr;
use std::path::Path;

/// Where a node that joins listens for the others, unless it is told.
const PEER_ADDRESS: &str = "127.0.0.1:7379";

/// Shortest secret of a cluster, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// The node's part in a cluster, its peer port bound; `None`: it is alone. `bound`: the doors for clients.
pub(crate) fn cluster(settings: &Settings, bound: &Bound) -> Result<Option<ClusterSettings>, String> {
    if settings.peer.is_none() && settings.peers.is_empty() && settings.join.is_none() {
        return Ok(None);
    }
    if !settings.peers.is_empty() && settings.join.is_some() {
        return Err("--peers begins a cluster, --join enters one: say only one of them".to_owned());
    }
    let own = own_entry(settings)?;
    let address = match (&settings.peer, own) {
        (Some(address), _) => address,
        (None, Some((_, address))) => address,
        (None, None) => PEER_ADDRESS,
    };
    let address = crate::serve::resolve(address)?;
    let listener = PeerListener::bind(address).map_err(|error| explain(address, &error))?;
    let peer = listener.address();
    let name = settings.name.clone().or_else(|| own.map(|(name, _)| name.clone()));
    let mut cluster = ClusterSettings::new(name.unwrap_or_else(|| machine_name(peer)), listener);
    let host = settings
        .advertise
        .as_deref()
        .or_else(|| own.and_then(|(_, address)| Some(address.rsplit_once(':')?.0)));
    cluster.advertise = Some(match own {
        Some((_, address)) => address.clone(),
        None => reached(settings, host, peer, "--peer")?,
    });
    cluster.resp = reached(settings, host, bound.resp_address(), "--resp")?;
    let http = bound.http_address().map(|http| reached(settings, host, http, "--http"));
    cluster.http = http.transpose()?.unwrap_or_default();
    let door = bound.resp_cluster_address().map(|door| reached(settings, host, door, "--resp-cluster"));
    cluster.resp_cluster = door.transpose()?.unwrap_or_default();
    cluster.bootstrap = match &settings.join {
        Some(address) => Bootstrap::Join(address.clone()),
        None if settings.peers.is_empty() => Bootstrap::Alone,
        None => Bootstrap::Peers(settings.peers.clone()),
    };
    cluster.tls = tls(settings)?;
    cluster.secret = settings.cluster_secret_file.as_deref().map(secret).transpose()?;
    Ok(Some(cluster))
}

/// This node's entry in `peers`: by its name, or by its address.
fn own_entry(settings: &Settings) -> Result<Option<&(String, String)>, String> {
    let peers = &settings.peers;
    if peers.is_empty() {
        return Ok(None);
    }
    let found = match (&settings.name, &settings.peer) {
        (Some(name), _) => peers.iter().find(|(known, _)| known == name),
        (None, Some(address)) => peers.iter().find(|(_, known)| known == address),
        (None, None) => None,
    };
    match found {
        Some(own) => Ok(Some(own)),
        None => Err("--peers names all nodes: say which of them this one is, with --name NAME".to_owned()),
    }
}

/// `host:port` by which others reach a listener.
fn reached(settings: &Settings, host: Option<&str>, bound: SocketAddr, flag: &str) -> Result<String, String> {
    let wildcard = bound.ip().is_unspecified();
    match host {
        Some(host) if wildcard || settings.advertise.is_some() => {
            let host = if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            Ok(format!("{host}:{}", bound.port()))
        }
        None if wildcard => Err(format!(
            "{flag} listens on all addresses: say by which one others reach it, with --advertise HOST"
        )),
        _ => Ok(bound.to_string()),
    }
}

fn machine_name(peer: SocketAddr) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let host: String = host.chars().filter(plain).take(48).collect();
    format!("{}:{}", if host.is_empty() { "node" } else { &host }, peer.port())
}

fn tls(settings: &Settings) -> Result<Option<PeerTls>, String> {
    let files =
        (&settings.cluster_tls_certificate, &settings.cluster_tls_key, &settings.cluster_tls_authority);
    match files {
        (None, None, None) => Ok(None),
        (Some(certificate), Some(key), Some(authority)) => Ok(Some(PeerTls {
            certificate_file: certificate.clone(),
            key_file: key.clone(),
            authority_file: authority.clone(),
        })),
        _ => Err("TLS between nodes needs --cluster-tls-certificate, --cluster-tls-key and --cluster-tls-authority".to_owned()),
    }
}

fn secret(file: &Path) -> Result<Vec<u8>, String> {
    let place = file.display();
    let text =
        std::fs::read(file).map_err(|error| format!("cannot read the cluster's secret: {place}: {error}"))?;
    let secret = text.trim_ascii();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "the cluster's secret in {place} has less than {SECRET_BYTES_MIN} bytes: head -c 32 /dev/urandom | base64 > {place}"
        ));
    }
    Ok(secret.to_vec())
}

fn explain(address: SocketAddr, error: &std::io::Error) -> String {
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return format!("cannot listen on {address} for other nodes: {error}");
    }
    let free = crate::probe::free_neighbour(address);
    format!("cannot listen on {address} for other nodes: in use. Start with: kvorum --peer {free}")
}
