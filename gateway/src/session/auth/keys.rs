//! The keys that tokens are verified with: read once, from the configuration, from PEM files and from a key set, each bound to
//! one algorithm. A token picks by `kid` among these and by nothing else: what its header says of other keys, of
//! files or of addresses is not looked at (threat row 32).
//! Invariants: no two keys have one `kid`; a key serves its own algorithm only; no error and no `Debug` shows a key.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey};

use super::error::TokenError;
use super::jwks;
use crate::config::{AuthConfig, KeyConfig, TokenAlgorithm};

/// RFC 7518 section 3.2: as long as the hash.
const SECRET_BYTES_MIN: usize = 32;
/// An RSA key of 2,048 bits is at least so long in DER; shorter ones are no longer safe, and the verifier takes none.
const RSA_DER_BYTES_MIN: usize = 256;
/// An uncompressed point of P-256 (SEC 1 section 2.3.3).
const P256_BYTES: usize = 65;
/// Largest key file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most keys.
const KEYS_MAX: usize = 64;
/// Keys that a token without `kid` is tried with: enough for a rotation, few enough for a flood of forgeries.
const TRIES_MAX: usize = 4;

/// Why the keys cannot be used. Says where and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct KeyError {
    place: String,
    what: String,
}

impl KeyError {
    pub(super) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// One key.
pub(super) struct Key {
    kid: Option<Box<str>>,
    algorithm: TokenAlgorithm,
    key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {})", self.kid, self.algorithm.name())
    }
}

impl Key {
    pub(super) fn secret(kid: Option<Box<str>>, secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err("a secret for HS256 must have at least 32 bytes: `openssl rand -base64 48` makes one");
        }
        if secret.starts_with(b"-----BEGIN") {
            return Err("that is a PEM key and no secret: name the algorithm it is for, such as RS256 or ES256");
        }
        Ok(Self { kid, algorithm: TokenAlgorithm::HS256, key: DecodingKey::from_secret(secret) })
    }

    pub(super) fn public(
        kid: Option<Box<str>>,
        algorithm: TokenAlgorithm,
        key: DecodingKey,
    ) -> Result<Self, &'static str> {
        let bytes = key.try_get_as_bytes().map(<[u8]>::len).ok();
        match algorithm {
            TokenAlgorithm::HS256 => return Err("a public key is no secret"),
            TokenAlgorithm::RS256 | TokenAlgorithm::PS256 if bytes.is_some_and(|n| n < RSA_DER_BYTES_MIN) => {
                return Err("an RSA key must have at least 2,048 bits");
            }
            TokenAlgorithm::ES256 if bytes != Some(P256_BYTES) => return Err("ES256 needs a key on the curve P-256"),
            TokenAlgorithm::RS256 | TokenAlgorithm::PS256 | TokenAlgorithm::ES256 | TokenAlgorithm::EdDsa => {}
        }
        Ok(Self { kid, algorithm, key })
    }

    fn pem(kid: Option<Box<str>>, algorithm: TokenAlgorithm, pem: &[u8]) -> Result<Self, &'static str> {
        const PRIVATE: &[u8] = b"PRIVATE KEY-----";
        if pem.windows(PRIVATE.len()).any(|w| w == PRIVATE) {
            return Err("holds a private key; a gateway needs the public one alone: `openssl pkey -pubout` writes it");
        }
        let key = match algorithm {
            TokenAlgorithm::HS256 => return Self::secret(kid, pem),
            TokenAlgorithm::RS256 | TokenAlgorithm::PS256 => DecodingKey::from_rsa_pem(pem),
            TokenAlgorithm::ES256 => DecodingKey::from_ec_pem(pem),
            TokenAlgorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| "is no public key in PEM of the kind that its algorithm needs")?;
        Self::public(kid, algorithm, key)
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(super) fn has_signed(&self, message: &str, signature: &str) -> bool {
        let algorithm = match self.algorithm {
            TokenAlgorithm::HS256 => Algorithm::HS256,
            TokenAlgorithm::RS256 => Algorithm::RS256,
            TokenAlgorithm::PS256 => Algorithm::PS256,
            TokenAlgorithm::ES256 => Algorithm::ES256,
            TokenAlgorithm::EdDsa => Algorithm::EdDSA,
        };
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm).unwrap_or(false)
    }
}

/// All keys.
#[derive(Debug)]
pub(super) struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// Reads what the configuration names.
    pub(super) fn read(config: &AuthConfig) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (n, key) in config.keys.iter().enumerate() {
            keys.push(configured(&format!("gateway.auth.keys[{n}]"), key)?);
        }
        if !config.jwks.is_empty() {
            let place = format!("gateway.auth.jwks {}", config.jwks);
            let text = read(&place, Path::new(&config.jwks))?;
            let set = jwks::parse(&text).map_err(|what| KeyError::new(&place, what))?;
            let set: Vec<Key> = set.into_iter().filter(|key| config.algorithms.contains(&key.algorithm)).collect();
            if set.is_empty() {
                let what = "has no key for signatures of gateway.auth.algorithms";
                return Err(KeyError::new(place, what));
            }
            keys.extend(set);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyError::new("gateway.auth", format!("{} keys, at most {KEYS_MAX} are taken", keys.len())));
        }
        for (n, key) in keys.iter().enumerate() {
            if key.kid.is_some() && keys[..n].iter().any(|other| other.kid == key.kid) {
                let kid = key.kid.as_deref().unwrap_or_default();
                return Err(KeyError::new(
                    "gateway.auth",
                    format!("two keys have the kid {kid:?}; tokens could not tell them apart"),
                ));
            }
        }
        Ok(Self { keys })
    }

    /// The keys that a token may be signed with.
    pub(super) fn candidates(&self, algorithm: TokenAlgorithm, kid: Option<&str>) -> Result<Vec<&Key>, TokenError> {
        if let Some(kid) = kid {
            let key = self.keys.iter().find(|key| key.kid.as_deref() == Some(kid)).ok_or(TokenError::KeyUnknown)?;
            return if key.algorithm == algorithm { Ok(vec![key]) } else { Err(TokenError::Algorithm) };
        }
        let keys: Vec<&Key> = self.keys.iter().filter(|key| key.algorithm == algorithm).take(TRIES_MAX).collect();
        if keys.is_empty() { Err(TokenError::KeyUnknown) } else { Ok(keys) }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// The files that a configuration's keys stand in.
pub(super) fn files(config: &AuthConfig) -> Vec<PathBuf> {
    let pems = config.keys.iter().map(|key| &key.file);
    pems.chain([&config.jwks]).filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

fn configured(place: &str, key: &KeyConfig) -> Result<Key, KeyError> {
    let kid = (!key.kid.is_empty()).then(|| key.kid.as_str().into());
    if key.file.is_empty() {
        return Key::secret(kid, key.secret.as_bytes()).map_err(|what| KeyError::new(place, what));
    }
    let place = format!("{place} {}", key.file);
    let text = read(&place, Path::new(&key.file))?;
    // A secret written by an editor or `echo` ends with a line end that nobody meant.
    Key::pem(kid, key.algorithm, text.trim_ascii_end()).map_err(|what| KeyError::new(place, what))
}

fn read(place: &str, path: &Path) -> Result<Vec<u8>, KeyError> {
    let cannot = |error: std::io::Error| KeyError::new(place, format!("cannot be read: {error}"));
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(KeyError::new(place, format!("has {bytes} bytes, at most {FILE_BYTES_MAX} are taken")));
    }
    std::fs::read(path).map_err(cannot)
}
