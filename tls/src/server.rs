//! The listening end: what it shows to peers, and whether it asks them who they are.
//! Each handshake takes the configuration of its moment, so that a reload concerns only those who come after it.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::server::{ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, ServerConfig, version};

use crate::config::{MutualTlsConfig, TlsConfig};
use crate::error::TlsError;
use crate::files;
use crate::provider::provider;
use crate::renewal::Renewal;

/// Where the certificates are, and who is asked for one.
#[derive(Clone, Debug)]
enum Files {
    Alone(TlsConfig),
    Mutual(MutualTlsConfig),
}

/// The listening end of TLS.
#[derive(Debug)]
pub struct Server {
    files: Files,
    protocols: Vec<Vec<u8>>,
    /// Outlives reloads, so that clients that come back after one need no whole handshake. Keys change every six hours.
    ticketer: Option<Arc<dyn ProducesTickets>>,
    now: RwLock<Arc<ServerConfig>>,
}

impl Server {
    /// TLS 1.2 and 1.3 for anyone; `protocols` are ALPN names, most wanted first.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn open(config: &TlsConfig, protocols: &[&str]) -> Result<Self, TlsError> {
        // Without a ticketer each returning client would cost a signature: the default remembers 256 sessions.
        Self::start(Files::Alone(config.clone()), protocols, Ticketer::new().ok())
    }

    /// TLS 1.3 for peers that show a certificate of the authorities in `ca`.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn open_mutual(config: &MutualTlsConfig, protocols: &[&str]) -> Result<Self, TlsError> {
        Self::start(Files::Mutual(config.clone()), protocols, None)
    }

    fn start(files: Files, protocols: &[&str], ticketer: Option<Arc<dyn ProducesTickets>>) -> Result<Self, TlsError> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let now = RwLock::new(Arc::new(read(&files, &protocols, ticketer.as_ref())?));
        Ok(Self { files, protocols, ticketer, now })
    }

    /// What the next handshake is made with.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.now.read()))
    }

    /// Reads the files again. Connections go on with what they began with, also when it is put in force.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays.
    pub fn renewal(&self) -> Result<Renewal<'_>, TlsError> {
        let config = read(&self.files, &self.protocols, self.ticketer.as_ref())?;
        Ok(Renewal::new(move || *self.now.write() = Arc::new(config)))
    }
}

fn read(
    files: &Files,
    protocols: &[Vec<u8>],
    ticketer: Option<&Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, TlsError> {
    let (cert, key) = match files {
        Files::Alone(TlsConfig { cert, key }) | Files::Mutual(MutualTlsConfig { cert, key, .. }) => (cert, key),
    };
    let mismatch =
        |error: rustls::Error| TlsError::Mismatch { cert: cert.clone(), key: key.clone(), error: error.to_string() };
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = match files {
        Files::Alone(_) => {
            builder.with_protocol_versions(&[&version::TLS13, &version::TLS12]).map_err(mismatch)?.with_no_client_auth()
        }
        Files::Mutual(MutualTlsConfig { ca, .. }) => {
            let roots = Arc::new(files::authorities(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| TlsError::File { path: ca.clone(), error: error.to_string() })?;
            builder.with_protocol_versions(&[&version::TLS13]).map_err(mismatch)?.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(files::chain(cert)?, files::key(key)?).map_err(mismatch)?;
    config.alpn_protocols = protocols.to_vec();
    if let Some(ticketer) = ticketer {
        config.ticketer = Arc::clone(ticketer);
        config.send_tls13_tickets = 1;
    }
    Ok(config)
}
