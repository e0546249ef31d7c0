//! TLS of the listeners and of the backplane, by rustls: certificates are read and checked at start, and read again for
//! a `Renewal` without a connection being lost. Both tiers use it; it knows neither.
//! Parts: `config` (what an operator sets), `error`, `files` (PEM), `provider` (the cryptography), `renewal`, `server` and
//! `client` (one end each).
//! Invariant: a reading that fails changes nothing.

mod client;
mod config;
mod error;
mod files;
mod provider;
mod renewal;
mod server;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use config::{MutualTlsConfig, TlsConfig};
pub use error::TlsError;
pub use renewal::Renewal;
pub use server::Server;
pub use tokio_rustls::{TlsConnector, client as client_stream, server as server_stream};
