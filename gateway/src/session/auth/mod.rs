//! Tokens: whether a client is who it says (rule C-4). [`Verifier`] is pure: a token and the time go in, [`Claims`] or a
//! [`TokenError`] come out; `current` holds the one in force and exchanges it when keys change.
//! The order of checks is the order of trust: size and form, algorithm, key, signature, and only then what the token says.
//! Invariants: a token's text is in no error, log, metric or `Debug`; nothing a token says picks a key but `kid` among those
//! that are here; no check costs more than the bound on a token's size allows.

mod claims;
mod current;
mod error;
mod jwks;
mod keys;
mod object;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use claims::{AHEAD_S_MAX, Claims};
pub(crate) use current::{Auth, watch};
pub use error::TokenError;
pub use keys::KeyError;

use self::claims::Expected;
use self::keys::Keyring;
use self::object::{Object, text};
use crate::config::{AuthConfig, TokenAlgorithm};

/// Longest token. Headers of 8 KiB hold no longer one, and no honest one comes near.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Verifies tokens by the keys and expectations of one configuration.
#[derive(Debug)]
pub struct Verifier {
    algorithms: Vec<TokenAlgorithm>,
    keyring: Keyring,
    expected: Expected,
}

/// What a token's header says that counts here.
struct Header {
    algorithm: TokenAlgorithm,
    kid: Option<String>,
}

impl Verifier {
    /// Reads the keys that a configuration names, files included.
    ///
    /// # Errors
    /// [`KeyError`] names the key and what is wrong with it.
    pub fn new(config: &AuthConfig) -> Result<Self, KeyError> {
        let (algorithms, keyring) = (config.algorithms.clone(), Keyring::read(config)?);
        Ok(Self { algorithms, keyring, expected: Expected::of(config) })
    }

    /// Who bears this token, at this time.
    ///
    /// # Errors
    /// [`TokenError`] says why it says nothing.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, TokenError> {
        const PARTS: TokenError = TokenError::Malformed("it must be three parts of base64url with dots between them");
        const OBJECT: TokenError =
            TokenError::Malformed("its header and its payload must be JSON objects that name nothing twice");
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed("it is longer than 8 KiB"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(PARTS)?;
        let (header, payload) = message.split_once('.').ok_or(PARTS)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| !bytes.is_empty());
        let header = decode(header).ok_or(PARTS)?;
        let payload = decode(payload).ok_or(PARTS)?;

        let header = self.header(&Object::parse(&header).ok_or(OBJECT)?)?;
        // An empty signature is that of `alg: none`, which the header's check has refused by its name.
        decode(signature).ok_or(PARTS)?;
        let mut keys = self.keyring.candidates(header.algorithm, header.kid.as_deref())?.into_iter();
        if !keys.any(|key| key.has_signed(message, signature)) {
            return Err(TokenError::Signature);
        }
        self.expected.read(&Object::parse(&payload).ok_or(OBJECT)?, now_unix_s)
    }

    /// How long after its `exp` a token still counts.
    #[must_use]
    pub fn leeway_s(&self) -> u32 {
        self.expected.leeway_s()
    }

    /// Keys in force.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keyring.len()
    }

    /// Keys and addresses that a header brings itself (`jwk`, `jku`, `x5u`, `x5c`) are passed over like any unknown member.
    fn header(&self, header: &Object<'_>) -> Result<Header, TokenError> {
        let algorithm = header.find("alg").and_then(text).and_then(|name| TokenAlgorithm::named(&name));
        let algorithm = algorithm.filter(|a| self.algorithms.contains(a)).ok_or(TokenError::Algorithm)?;
        if header.find("crit").is_some() {
            // RFC 7515 section 4.1.11: who does not understand what is critical must refuse.
            return Err(TokenError::Malformed(
                "its header names extensions as critical (crit), and none is known here",
            ));
        }
        let kid = match header.find("kid") {
            None => None,
            Some(kid) => Some(text(kid).ok_or(TokenError::KeyUnknown)?.into_owned()),
        };
        Ok(Header { algorithm, kid })
    }
}
