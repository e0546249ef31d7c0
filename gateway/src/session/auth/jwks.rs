//! A JSON Web Key Set (RFC 7517), read strictly where it matters and leniently where sets of other makers hold more than we
//! need: keys for encryption and of unknown kinds are passed over, private ones are refused.
//! One of the parts of [`super`].

use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use tidegate_protocol::json;

use super::keys::Key;
use crate::config::TokenAlgorithm;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// What of a key matters here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// The keys for signatures of the algorithms we know.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set = json::from_slice(text).map_err(|e| {
        format!("is no JSON Web Key Set {{\"keys\": [{{\"kty\": …}}]}}: {:?} error in line {}", e.classify(), e.line())
    })?;
    let mut keys = Vec::new();
    for (n, jwk) in set.keys.iter().enumerate() {
        if jwk.d.is_some() {
            return Err(format!("keys[{n}] is a private key; a gateway needs the public ones alone"));
        }
        if let Some(key) = key(jwk).map_err(|what| format!("keys[{n}]: {what}"))? {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// One key, bound to its `alg`, or to what its kind is mostly used with; none when it is not for us.
fn key(jwk: &Jwk) -> Result<Option<Key>, &'static str> {
    const FORM: &str = "its members are not those of its kty (RFC 7518 section 6)";
    if jwk.r#use.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Ok(None);
    }
    let kid = jwk.kid.as_deref().map(Into::into);
    let usual = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => TokenAlgorithm::RS256,
        ("EC", Some("P-256")) => TokenAlgorithm::ES256,
        ("OKP", Some("Ed25519")) => TokenAlgorithm::EdDsa,
        ("oct", _) => TokenAlgorithm::HS256,
        _ => return Ok(None),
    };
    let algorithm = match jwk.alg.as_deref() {
        None => usual,
        Some(name) => match TokenAlgorithm::named(name) {
            None => return Ok(None),
            Some(TokenAlgorithm::PS256) if usual == TokenAlgorithm::RS256 => TokenAlgorithm::PS256,
            Some(named) if named == usual => named,
            Some(_) => return Err("its alg does not fit its kty"),
        },
    };
    let form = |key: jsonwebtoken::errors::Result<DecodingKey>| key.map_err(|_| FORM);
    let key = match algorithm {
        TokenAlgorithm::HS256 => {
            use base64::Engine as _;
            let secret = jwk.k.as_deref().and_then(|k| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(k).ok());
            return Key::secret(kid, &secret.ok_or(FORM)?).map(Some);
        }
        TokenAlgorithm::RS256 | TokenAlgorithm::PS256 => {
            let (n, e) = jwk.n.as_deref().zip(jwk.e.as_deref()).ok_or(FORM)?;
            // 2,048 bits in base64url.
            if n.len() < 342 {
                return Err("an RSA key must have at least 2,048 bits");
            }
            form(DecodingKey::from_rsa_components(n, e))?
        }
        TokenAlgorithm::ES256 => {
            let (x, y) = jwk.x.as_deref().zip(jwk.y.as_deref()).ok_or(FORM)?;
            form(DecodingKey::from_ec_components(x, y))?
        }
        TokenAlgorithm::EdDsa => form(DecodingKey::from_ed_components(jwk.x.as_deref().ok_or(FORM)?))?,
    };
    Key::public(kid, algorithm, key).map(Some)
}
