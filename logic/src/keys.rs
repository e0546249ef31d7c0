//! Who may call: API keys as SHA-256 hashes, and the scopes they open.
//! Knows nothing of HTTP beyond the value of one header. Invariant: every key is compared, in constant time, so
//! that time tells neither which key came close nor how close (reliability.md, threat 31).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::KeyConfig;
use crate::problem::Refusal;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send messages.
    Push,
    /// See connections, rooms, users, figures.
    Read,
    /// Close connections.
    Admin,
}

impl Scope {
    /// The scope as the configuration writes it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// Proof that a caller may do what it asks; `dedupe` keys are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller(u16);

impl Caller {
    /// Whoever calls what needs no key, or a node without keys.
    pub const ANYONE: Self = Self(u16::MAX);
    /// Clients of the gateways; their `dedupe` keys carry the sender.
    pub const CLIENTS: Self = Self(u16::MAX - 1);
}

#[derive(Debug)]
struct Key {
    sha256: [u8; 32],
    scopes: Vec<Scope>,
}

/// The configured keys.
#[derive(Debug)]
pub struct Keys {
    /// Empty: everyone may do everything; the binary then refuses addresses other than loopback.
    keys: Vec<Key>,
}

impl Keys {
    /// Takes keys over from a configuration without [`problems`](crate::LogicConfig::problems); others are left out.
    #[must_use]
    pub fn new(config: &[KeyConfig]) -> Self {
        let parse = |k: &KeyConfig| Some(Key { sha256: parse_sha256(&k.sha256)?, scopes: k.scopes.clone() });
        Self { keys: config.iter().filter_map(parse).collect() }
    }

    /// Whether no key is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks the value of `Authorization` against what a call needs.
    ///
    /// # Errors
    /// [`Refusal::NoKey`], [`Refusal::BadKey`] or [`Refusal::WrongScope`].
    pub fn check(&self, authorization: Option<&[u8]>, needs: Scope) -> Result<Caller, Refusal> {
        if self.is_open() {
            return Ok(Caller::ANYONE);
        }
        let value = authorization.ok_or(Refusal::NoKey)?;
        let key = match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(Refusal::NoKey),
        };
        let hash = Sha256::digest(key);
        let mut found = None;
        for (i, k) in self.keys.iter().enumerate() {
            if bool::from(k.sha256.ct_eq(&hash[..])) {
                found = Some((i, k));
            }
        }
        let (i, k) = found.ok_or(Refusal::BadKey)?;
        if !k.scopes.contains(&needs) {
            return Err(Refusal::WrongScope { needs: needs.label() });
        }
        // Fewer keys than 65,535 fit in any configuration file a person writes; beyond, they share dedupe names.
        Ok(Caller(u16::try_from(i).unwrap_or(u16::MAX - 2)))
    }
}

/// 64 hex digits as 32 bytes.
pub(crate) fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0u8; 32];
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "secret".
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn keys(scopes: &[Scope]) -> Keys {
        Keys::new(&[KeyConfig { id: "a".into(), sha256: SECRET.into(), scopes: scopes.to_vec() }])
    }

    #[test]
    fn a_key_opens_its_scopes_and_no_other() {
        let keys = keys(&[Scope::Push]);

        assert_eq!(keys.check(Some(b"Bearer secret"), Scope::Push), Ok(Caller(0)));
        assert_eq!(keys.check(Some(b"bearer  secret "), Scope::Push), Ok(Caller(0)));
        assert_eq!(keys.check(Some(b"Bearer secret"), Scope::Admin), Err(Refusal::WrongScope { needs: "admin" }));
    }

    #[test]
    fn no_key_and_a_wrong_key_are_told_apart() {
        let keys = keys(&[Scope::Push]);

        assert_eq!(keys.check(None, Scope::Push), Err(Refusal::NoKey));
        assert_eq!(keys.check(Some(b"Basic c2VjcmV0"), Scope::Push), Err(Refusal::NoKey));
        assert_eq!(keys.check(Some(b"Bearer "), Scope::Push), Err(Refusal::BadKey));
        assert_eq!(keys.check(Some(b"Bearer secre"), Scope::Push), Err(Refusal::BadKey));
        assert_eq!(keys.check(Some(SECRET.as_bytes()), Scope::Push), Err(Refusal::NoKey));
    }

    #[test]
    fn without_keys_everyone_may() {
        assert!(Keys::new(&[]).check(None, Scope::Admin).is_ok());
    }
}
