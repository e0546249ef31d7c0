//! Standard Webhooks signatures (standardwebhooks.com, specification 1.0): the receiver knows that a request is ours, whole
//! and recent. Every secret of a sink signs, so that a receiver can change from one to the other without a gap.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Least and most bytes of a key, as the specification has it.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A symmetric key.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads `whsec_` and base64.
    ///
    /// # Errors
    /// What it should be; never a part of what it is.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "a secret is whsec_ and the base64 of 24 to 64 bytes";
        let key = text.strip_prefix("whsec_").and_then(|base64| STANDARD.decode(base64).ok()).ok_or(EXPECTED)?;
        if KEY_BYTES.contains(&key.len()) { Ok(Self(key)) } else { Err(EXPECTED) }
    }

    fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

/// The value of `webhook-signature`.
#[must_use]
pub fn signature(secrets: &[Secret], id: &str, seconds: u64, body: &[u8]) -> String {
    let mut out = String::with_capacity(secrets.len() * 48);
    for secret in secrets {
        let gap = if out.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(out, "{gap}v1,{}", secret.sign(id, seconds, body));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    #[test]
    fn a_signature_is_what_the_specification_computes() {
        let secret = Secret::read(KEY).expect("a key");

        assert_eq!(signature(&[secret], ID, 1_614_265_330, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_sign_side_by_side() {
        let other = format!("whsec_{}", STANDARD.encode([7; 32]));
        let (one, other) = (Secret::read(KEY).expect("a key"), Secret::read(&other).expect("a key"));

        let both = signature(&[one.clone(), other.clone()], ID, 1, BODY);

        let alone = [signature(&[one], ID, 1, BODY), signature(&[other], ID, 1, BODY)];
        assert_eq!(both, alone.join(" "));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for bad in ["", "hunter2", "whsec_", "whsec_%%%", "whsec_aGVsbG8=", "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(
                Secret::read(bad).expect_err(bad),
                "a secret is whsec_ and the base64 of 24 to 64 bytes",
                "the same words whatever it was"
            );
        }
        assert_eq!(format!("{:?}", Secret::read(KEY)), "Ok(Secret)");
    }
}
