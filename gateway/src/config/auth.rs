//! `[gateway.auth]`: how clients prove who they are. Plain values; reading keys is [`crate::session::auth`]'s.
//! Invariant: `Debug` and errors never show a secret.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `[gateway.auth]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// How clients prove who they are.
    pub mode: AuthMode,
    /// From the 101 to the message AUTH of a client that brought no token.
    pub deadline_ms: u32,
    /// Most connections that wait for their AUTH; one more is answered 503.
    pub unnamed_max: usize,
    /// How far the clocks of who mints tokens and of this machine may be apart.
    pub leeway_s: u32,
    /// What a token's `aud` must name; empty: not checked.
    pub audience: String,
    /// What a token's `iss` must be; empty: not checked.
    pub issuer: String,
    /// Algorithms that are taken at all. Each key has one of them and serves no other.
    pub algorithms: Vec<TokenAlgorithm>,
    /// The keys.
    pub keys: Vec<KeyConfig>,
    /// A file with a JSON Web Key Set, read again when it changes; empty: none.
    pub jwks: String,
    /// Whether a token may come as `?token=`, where proxies may log it.
    pub query: bool,
}

/// Ways to prove who one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Clients name themselves with `?user=…&platform=…`.
    #[default]
    None,
    /// A signed token names them.
    Jwt,
}

/// Signatures of tokens (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256: who verifies can also mint.
    HS256,
    /// RSA, PKCS #1 v1.5.
    RS256,
    /// RSA, PSS.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::HS256, Self::RS256, Self::PS256, Self::ES256, Self::EdDsa];

    /// As in a token's `alg`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::ES256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name, to the letter.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// `[[gateway.auth.keys]]`
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The name by which tokens ask for this key; empty: only tokens without `kid` are tried with it.
    #[serde(default)]
    pub kid: String,
    /// The one algorithm this key is for.
    pub algorithm: TokenAlgorithm,
    /// Of HS256: the secret, at least 32 bytes.
    #[serde(default)]
    pub secret: String,
    /// A file with the public key in PEM; of HS256, with the secret.
    #[serde(default)]
    pub file: String,
}

impl fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kid, algorithm, file) = (&self.kid, self.algorithm.name(), &self.file);
        write!(f, "KeyConfig {{ kid: {kid:?}, algorithm: {algorithm}, file: {file:?}, secret: … }}")
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: AuthMode::None,
            deadline_ms: 5_000,
            unnamed_max: 4_096,
            leeway_s: 30,
            audience: String::new(),
            issuer: String::new(),
            algorithms: TokenAlgorithm::ALL.to_vec(),
            keys: Vec::new(),
            jwks: String::new(),
            query: true,
        }
    }
}

impl AuthConfig {
    /// What contradicts itself; empty when all is well. Files are not looked at.
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if self.deadline_ms < 100 || self.unnamed_max == 0 {
            out.push("gateway.auth: deadline_ms >= 100 and unnamed_max >= 1 are needed".into());
        }
        if self.leeway_s > 3_600 {
            out.push("gateway.auth.leeway_s: at most 3600; a token is not to outlive its exp by more".into());
        }
        if self.mode == AuthMode::Jwt && self.keys.is_empty() && self.jwks.is_empty() {
            out.push("gateway.auth.mode = \"jwt\" needs a key: set gateway.auth.keys or gateway.auth.jwks".into());
        }
        if self.mode == AuthMode::Jwt && self.algorithms.is_empty() {
            out.push("gateway.auth.algorithms: with none in the list every token is refused".into());
        }
        for (n, key) in self.keys.iter().enumerate() {
            if key.secret.is_empty() == key.file.is_empty() {
                out.push(format!("gateway.auth.keys[{n}]: needs either a secret or a file, and not both"));
            }
            if !key.secret.is_empty() && key.algorithm != TokenAlgorithm::HS256 {
                let name = key.algorithm.name();
                out.push(format!("gateway.auth.keys[{n}]: {name} has a public key: name its PEM file with `file`"));
            }
            if !self.algorithms.contains(&key.algorithm) {
                let name = key.algorithm.name();
                out.push(format!("gateway.auth.keys[{n}]: {name} is not in gateway.auth.algorithms"));
            }
        }
    }
}
