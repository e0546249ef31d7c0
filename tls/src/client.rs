//! The dialling end of the backplane: shows its own certificate and accepts only one of the fleet's authorities that has
//! the name that was dialled.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, version};

use crate::config::MutualTlsConfig;
use crate::error::TlsError;
use crate::files;
use crate::provider::provider;
use crate::renewal::Renewal;

/// The dialling end of mutual TLS.
#[derive(Debug)]
pub struct Client {
    files: MutualTlsConfig,
    protocols: Vec<Vec<u8>>,
    now: RwLock<Arc<ClientConfig>>,
}

impl Client {
    /// TLS 1.3 only; `protocols` are ALPN names.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn open_mutual(files: &MutualTlsConfig, protocols: &[&str]) -> Result<Self, TlsError> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let now = RwLock::new(Arc::new(read(files, &protocols)?));
        Ok(Self { files: files.clone(), protocols, now })
    }

    /// What the next handshake is made with.
    #[must_use]
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.now.read()))
    }

    /// Reads the files again. Connections go on with what they began with, also when it is put in force.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays.
    pub fn renewal(&self) -> Result<Renewal<'_>, TlsError> {
        let config = read(&self.files, &self.protocols)?;
        Ok(Renewal::new(move || *self.now.write() = Arc::new(config)))
    }

    /// The name that a peer at `host` (a name, or an address with or without brackets) must prove.
    ///
    /// # Errors
    /// [`TlsError::Name`].
    pub fn name_of(host: &str) -> Result<ServerName<'static>, TlsError> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
    }
}

fn read(files: &MutualTlsConfig, protocols: &[Vec<u8>]) -> Result<ClientConfig, TlsError> {
    let MutualTlsConfig { cert, key, ca } = files;
    let mismatch =
        |error: rustls::Error| TlsError::Mismatch { cert: cert.clone(), key: key.clone(), error: error.to_string() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(mismatch)?
        .with_root_certificates(files::authorities(ca)?)
        .with_client_auth_cert(files::chain(cert)?, files::key(key)?)
        .map_err(mismatch)?;
    config.alpn_protocols = protocols.to_vec();
    Ok(config)
}
