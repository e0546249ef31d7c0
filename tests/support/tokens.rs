//! Tokens for clients, by one shared secret, as a business service would mint them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

/// The gateway's only key.
pub const SECRET: &str = "the secret of this test, long enough for HS256";

/// What makes a server ask for tokens.
pub fn required() -> [(&'static str, &'static str); 2] {
    const KEYS: &str = r#"[{algorithm="HS256", secret="the secret of this test, long enough for HS256"}]"#;
    [("TIDEGATE_GATEWAY__AUTH__MODE", "jwt"), ("TIDEGATE_GATEWAY__AUTH__KEYS", KEYS)]
}

/// A token with these claims, good for ten minutes unless they say otherwise.
pub fn mint(mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = (now_s() + 600).into();
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("HMAC signs anything")
}

/// Unix seconds, now.
pub fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}
