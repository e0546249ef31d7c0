//! Makes a token: claims from the flags, a key from a file or the configuration, `jsonwebtoken` for the signature.
//! Does not judge the claims; the caller has the gateway's own code do that.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use tidegate_gateway::session::auth::AHEAD_S_MAX;
use tidegate_gateway::{AuthConfig, TokenAlgorithm};
use tidegate_logic::Moment;

use crate::cli::TokenMint;
use crate::failure::Failure;

/// What a token is signed with.
struct Signer {
    key: EncodingKey,
    algorithm: TokenAlgorithm,
    kid: Option<String>,
}

/// The token.
pub fn mint(auth: &AuthConfig, args: &TokenMint, now: SystemTime) -> Result<String, Failure> {
    let signer = signer(auth, args).map_err(|why| Failure::Usage(vec![why]))?;
    let now = Moment(now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    check_times(args, now).map_err(|why| Failure::Usage(vec![why]))?;
    let mut header = Header::new(match signer.algorithm {
        TokenAlgorithm::HS256 => Algorithm::HS256,
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::PS256 => Algorithm::PS256,
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::EdDsa => Algorithm::EdDSA,
    });
    header.kid = signer.kid;
    let token = jsonwebtoken::encode(&header, &claims(auth, args, now), &signer.key);
    token.map_err(|error| Failure::Usage(vec![format!("the key does not sign {}: {error}", signer.algorithm.name())]))
}

fn check_times(args: &TokenMint, now: Moment) -> Result<(), String> {
    let times = [("--exp", Some(args.exp.from(now))), ("--nbf", args.nbf.map(|nbf| nbf.from(now)))];
    let is_far = |time: Moment| time.0 > now.0.saturating_add(u64::from(AHEAD_S_MAX));
    match times.into_iter().find(|(_, time)| time.is_some_and(is_far)) {
        Some((flag, _)) => Err(format!("{flag} lies more than ten years ahead: gateways refuse such a token")),
        None => Ok(()),
    }
}

fn claims(auth: &AuthConfig, args: &TokenMint, now: Moment) -> Value {
    let mut claims = Map::new();
    claims.insert("sub".into(), json!(args.sub));
    claims.insert("iat".into(), json!(now.0));
    claims.insert("exp".into(), json!(args.exp.from(now).0));
    let texts = [
        ("plat", args.plat.as_deref()),
        ("dev", args.dev.as_deref()),
        ("aud", args.aud.as_deref().or(Some(&auth.audience))),
        ("iss", args.iss.as_deref().or(Some(&auth.issuer))),
    ];
    for (name, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            claims.insert(name.into(), json!(text));
        }
    }
    if let Some(nbf) = args.nbf {
        claims.insert("nbf".into(), json!(nbf.from(now).0));
    }
    let grants = &args.grants;
    let lists = [
        ("rooms", &grants.rooms),
        ("speak", &grants.speak),
        ("presence", &grants.presence),
        ("members", &grants.members),
        ("users", &grants.users),
        ("routes", &grants.routes),
        ("join", &grants.join),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        claims.insert(name.into(), json!(list));
    }
    if !args.attributes.is_empty() {
        let attributes: Map<String, Value> = args.attributes.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        claims.insert("attrs".into(), Value::Object(attributes));
    }
    Value::Object(claims)
}

/// The key of `--key-file`; without, the HS256 key of the configuration that `--kid` names, or its first: only that kind is
/// enough to sign with.
fn signer(auth: &AuthConfig, args: &TokenMint) -> Result<Signer, String> {
    if let Some(path) = &args.key_file {
        let algorithm = args.alg.unwrap_or(TokenAlgorithm::HS256);
        let place = format!("--key-file {}", path.display());
        let key = encoding_key(algorithm, &read(path, &place)?, &place)?;
        return Ok(Signer { key, algorithm, kid: args.kid.clone() });
    }
    let is_asked_for = |kid: &str| args.kid.as_ref().is_none_or(|wanted| wanted == kid);
    let hs256 = auth.keys.iter().enumerate().filter(|(_, key)| key.algorithm == TokenAlgorithm::HS256);
    let Some((n, key)) = hs256.into_iter().find(|(_, key)| is_asked_for(&key.kid)) else {
        return Err(
            "there is no key to sign with: name the private key with --key-file and its --alg, or set a HS256 key in \
                    gateway.auth.keys"
                .into(),
        );
    };
    let place = format!("gateway.auth.keys[{n}]");
    let secret = match key.file.as_str() {
        "" => key.secret.clone().into_bytes(),
        file => read(Path::new(file), &format!("{place} {file}"))?,
    };
    let key_text = encoding_key(TokenAlgorithm::HS256, &secret, &place)?;
    let kid = (!key.kid.is_empty()).then(|| key.kid.clone());
    Ok(Signer { key: key_text, algorithm: TokenAlgorithm::HS256, kid })
}

/// Without the line end that editors add, as the gateway reads it.
fn read(path: &Path, place: &str) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|error| format!("{place} cannot be read: {error}"))?;
    Ok(text.trim_ascii_end().to_vec())
}

/// No error of this repeats what a key file holds.
fn encoding_key(algorithm: TokenAlgorithm, text: &[u8], place: &str) -> Result<EncodingKey, String> {
    let is_pem = text.starts_with(b"-----BEGIN");
    let key = match algorithm {
        TokenAlgorithm::HS256 if is_pem => {
            return Err(format!("{place} is PEM and no secret: say --alg RS256, ES256 or EdDSA"));
        }
        TokenAlgorithm::HS256 => return Ok(EncodingKey::from_secret(text)),
        TokenAlgorithm::RS256 | TokenAlgorithm::PS256 => EncodingKey::from_rsa_pem(text),
        TokenAlgorithm::ES256 => EncodingKey::from_ec_pem(text),
        TokenAlgorithm::EdDsa => EncodingKey::from_ed_pem(text),
    };
    key.map_err(|_| format!("{place} is no private key in PEM (PKCS #8) for {}", algorithm.name()))
}
