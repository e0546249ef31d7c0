//! Tokens for clients of a server that asks for them: HS256, minted here from the claims of `docs/protocol.md`, so that the
//! harness shares no code with the server that verifies them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::pattern::Pattern;

/// How long a swarm may last.
const LIFE_S: u64 = 24 * 3600;

/// A mint.
#[derive(Clone, Debug)]
pub struct Mint {
    secret: String,
    /// Names and what each client has under them.
    attributes: Vec<(String, Pattern)>,
    expires_s: u64,
}

impl Mint {
    /// `attributes` are `name=value`, with the client's number in the value as in names of users.
    pub fn new(secret: &str, attributes: &[String]) -> anyhow::Result<Self> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').with_context(|| format!("`{text}`: expected name=value"))?;
            anyhow::Ok((name.to_owned(), value.parse::<Pattern>().map_err(anyhow::Error::msg)?))
        };
        let attributes = attributes.iter().map(pair).collect::<anyhow::Result<_>>()?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self { secret: secret.to_owned(), attributes, expires_s: now_s + LIFE_S })
    }

    /// The token of client `index`, which may join any room.
    pub fn token(&self, index: u64, user: &str, platform: Option<&str>) -> String {
        let attributes: serde_json::Map<String, serde_json::Value> =
            self.attributes.iter().map(|(name, value)| (name.clone(), value.name(index).into())).collect();
        let mut claims = json!({"sub": user, "exp": self.expires_s, "attrs": attributes, "rooms": ["*"]});
        if let Some(platform) = platform {
            claims["plat"] = platform.into();
        }
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_its_client_is() {
        let mint = Mint::new("secret", &["lang=l{i%5}".into(), "tier=pro".into()]).expect("two attributes");

        let token = mint.token(7, "user-7", Some("web"));

        let parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).expect("base64url");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!((parts.len(), &claims["sub"], &claims["plat"]), (3, &"user-7".into(), &"web".into()));
        assert_eq!(claims["attrs"], serde_json::json!({"lang": "l2", "tier": "pro"}));
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).expect("base64url").len(), 32);
        assert!(Mint::new("secret", &["lang".into()]).is_err());
    }
}
