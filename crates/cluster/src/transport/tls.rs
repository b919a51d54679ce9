//! Mutual TLS: both sides show a certificate that the cluster's authority signed.

use super::lane::Io;
use super::types::TlsSettings;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long a node that is refused may take to read why.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// Certificates at work.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files.
    pub(super) fn load(settings: &TlsSettings) -> Result<Tls, String> {
        let certificates = certificates(&settings.certificate_file)?;
        let key = PrivateKeyDer::from_pem_file(&settings.key_file)
            .map_err(|error| unreadable(&settings.key_file, "a private key", error))?;
        let mut roots = RootCertStore::empty();
        for root in self::certificates(&settings.authority_file)? {
            roots.add(root).map_err(|error| {
                unreadable(&settings.authority_file, "the certificate of an authority", error)
            })?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(default_provider()));
        let unusable = |error: &dyn std::fmt::Display| {
            format!("{} and its key can't be used: {error}", settings.certificate_file.display())
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates.clone(), key.clone_key())
            .map_err(|error| unusable(&error))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates, key)
            .map_err(|error| unusable(&error))?;
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
        })
    }

    /// The side that connected: the certificate must be good for the host of `address`.
    pub(super) async fn connect(&self, address: &str, stream: TcpStream) -> Result<Box<dyn Io>, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(host).map_err(|error| format!("{address} has no host for TLS: {error}"))?;
        let stream = self.connector.connect(name, stream).await.map_err(|error| failed(&error))?;
        Ok(Box::new(stream))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Box<dyn Io>, String> {
        match self.acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(Box::new(stream)),
            Err((error, stream)) => {
                let _told = tokio::time::timeout(FAREWELL_TIME_MAX, let_hear(stream)).await;
                Err(failed(&error))
            }
        }
    }
}

/// Waits for the other side to read why it is refused: closed at once, with something unread, the connection would be reset, and the reason lost.
async fn let_hear(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

pub(super) fn failed(error: &std::io::Error) -> String {
    format!("TLS failed: {error}")
}

/// Whether it is TLS that failed: in its version 1.3 one side hears only with the first answer that its certificate is refused.
pub(super) fn is_cause(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<tokio_rustls::rustls::Error>())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unreadable(path, "a certificate", "there is none in it")),
        Err(error) => Err(unreadable(path, "a certificate", error)),
    }
}

fn unreadable(path: &Path, what: &str, error: impl std::fmt::Display) -> String {
    format!("{} should hold {what} in PEM: {error}", path.display())
}
