//! PEM files → certificates, keys and authorities; each failure names the file and what is wrong with it.
//! Reads only; what the parts are good for is decided in `server` and `client`.

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::TlsError;

/// The certificates of a file, leaf first.
pub(crate) fn chain(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(chain) if chain.is_empty() => Err(TlsError::Empty { path: path.into(), what: "certificate" }),
        Ok(chain) => Ok(chain),
        Err(error) => Err(failed(path, "certificate", &error)),
    }
}

/// The first key of a file: PKCS #8, PKCS #1 or SEC 1.
pub(crate) fn key(path: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| failed(path, "private key", &error))
}

/// The authorities of a file.
pub(crate) fn authorities(path: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path)? {
        store.add(certificate).map_err(|error| TlsError::File { path: path.into(), error: error.to_string() })?;
    }
    Ok(store)
}

fn failed(path: &str, what: &'static str, error: &pem::Error) -> TlsError {
    match error {
        pem::Error::NoItemsFound => TlsError::Empty { path: path.into(), what },
        // The reader's own words say nothing of the file's content but for what section it stumbled over.
        pem::Error::Io(error) => TlsError::File { path: path.into(), error: error.to_string() },
        other => TlsError::File { path: path.into(), error: other.to_string() },
    }
}
