//! TLS of the listeners and of the backplane, by rustls: certificates are read and checked at start, and read again for
//! a `Renewal` without a connection being lost. Both tiers use it; it knows neither.
//! Parts: `config` (what an operator sets), `files` (PEM), `server` and `client` (one end each), `renewal`.
//! Invariant: a reading that fails changes nothing.

mod client;
mod config;
mod files;
mod renewal;
mod server;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use config::{MutualTlsConfig, TlsConfig};
pub use files::TlsError;
pub use renewal::Renewal;
pub use server::Server;
pub use tokio_rustls::{TlsConnector, client as client_stream, server as server_stream};

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The cryptography, named here and not taken from whatever the process may have installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
