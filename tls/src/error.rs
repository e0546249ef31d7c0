//! Why TLS cannot be set up: each failure names the file, and none says anything of what is in it.

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system's word on a file.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system or the PEM reader said.
        error: String,
    },
    /// A file without what it should hold.
    #[error("{path}: no {what} in this PEM file")]
    Empty {
        /// The file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The parts do not fit together.
    #[error("{cert} with {key}: {error}")]
    Mismatch {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
        /// What rustls said.
        error: String,
    },
    /// No name to expect of a peer.
    #[error("{0:?} is no name or address that a certificate could have")]
    Name(String),
}
