//! Tokens, good and bad: keys made for this run, a mint that signs whatever it is told, and the set of attacks that every
//! door must refuse by the same code.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tidegate_gateway::{AuthConfig, AuthMode, KeyConfig, TokenAlgorithm};

/// The shared secret of this run's HS256 key.
pub const SECRET: &str = "a secret of this test run, long enough for HS256";

/// Keys of each kind.
pub struct Keys {
    folder: tempfile::TempDir,
    pub rsa: rcgen::KeyPair,
    pub ec: rcgen::KeyPair,
    pub ed: rcgen::KeyPair,
    /// Of an attacker.
    pub foreign: rcgen::KeyPair,
}

/// The keys of this run.
pub fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let make = |kind| rcgen::KeyPair::generate_for(kind).expect("a key of a known kind");
        let keys = Keys {
            folder: tempfile::tempdir().expect("a scratch folder"),
            rsa: make(&rcgen::PKCS_RSA_SHA256),
            ec: make(&rcgen::PKCS_ECDSA_P256_SHA256),
            ed: make(&rcgen::PKCS_ED25519),
            foreign: make(&rcgen::PKCS_RSA_SHA256),
        };
        for (name, key) in [("rsa", &keys.rsa), ("ec", &keys.ec), ("ed", &keys.ed)] {
            std::fs::write(keys.folder.path().join(name), key.public_key_pem()).expect("a scratch file");
        }
        keys
    })
}

/// A key by its file.
pub fn by_file(kid: &str, algorithm: TokenAlgorithm, name: &str) -> KeyConfig {
    let file = keys().folder.path().join(name).display().to_string();
    KeyConfig { kid: kid.into(), algorithm, secret: String::new(), file }
}

/// A gateway that knows one key of each algorithm, an audience and an issuer.
pub fn config() -> AuthConfig {
    let secret =
        KeyConfig { kid: "hs".into(), algorithm: TokenAlgorithm::HS256, secret: SECRET.into(), file: String::new() };
    AuthConfig {
        mode: AuthMode::Jwt,
        audience: "app".into(),
        issuer: "tests".into(),
        keys: vec![
            secret,
            by_file("rs", TokenAlgorithm::RS256, "rsa"),
            by_file("ps", TokenAlgorithm::PS256, "rsa"),
            by_file("es", TokenAlgorithm::ES256, "ec"),
            by_file("ed", TokenAlgorithm::EdDsa, "ed"),
        ],
        ..AuthConfig::default()
    }
}

/// Unix seconds, now.
pub fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Claims that are good for a minute, with these on top.
pub fn claims(more: &Value) -> Value {
    let mut claims = json!({"sub": "ann", "exp": now_s() + 60, "aud": "app", "iss": "tests"});
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

/// Claims without one.
fn without(name: &str) -> String {
    let mut claims = claims(&json!({}));
    claims.as_object_mut().expect("an object").remove(name);
    claims.to_string()
}

/// A token signed by the shared secret.
pub fn good(more: &Value) -> String {
    hs(r#"{"alg":"HS256","kid":"hs"}"#, &claims(more).to_string())
}

/// A token with this header and payload, signed by the shared secret.
pub fn hs(header: &str, payload: &str) -> String {
    signed(header, payload, Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()))
}

/// A token with this header and payload, signed so.
pub fn signed(header: &str, payload: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("a key of that kind");
    format!("{message}.{signature}")
}

/// A private key of this run, for signing.
pub fn private(pair: &rcgen::KeyPair, algorithm: Algorithm) -> EncodingKey {
    let pem = pair.serialize_pem();
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
    }
    .expect("PKCS #8")
}

/// What an attacker may try, and the code it is refused with.
pub fn attacks() -> Vec<(&'static str, String, &'static str)> {
    let mut all = of_signatures();
    all.extend(of_headers());
    all.extend(of_forms());
    all.extend(of_claims());
    all
}

fn of_signatures() -> Vec<(&'static str, String, &'static str)> {
    let plain = claims(&json!({})).to_string();
    let token = good(&json!({}));
    let unsigned = |header: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&plain));
    let signature = token.rsplit_once('.').expect("three parts").1;
    let other = format!(
        "{}.{}.{signature}",
        token.split('.').next().expect("three parts"),
        URL_SAFE_NO_PAD.encode(claims(&json!({"sub": "root"})).to_string())
    );
    let pem = keys().rsa.public_key_pem();
    let by_public = EncodingKey::from_secret(pem.as_bytes());
    let trimmed = EncodingKey::from_secret(pem.trim_end().as_bytes());
    let confused = |header: &str, key: &EncodingKey| signed(header, &plain, Algorithm::HS256, key);
    let foreign = private(&keys().foreign, Algorithm::RS256);
    let short = EncodingKey::from_secret(b"another secret");
    vec![
        ("alg none", unsigned(r#"{"alg":"none"}"#), "token_algorithm"),
        ("alg nOnE", unsigned(r#"{"alg":"nOnE","kid":"hs"}"#), "token_algorithm"),
        ("alg none, signed", hs(r#"{"alg":"none","kid":"hs"}"#, &plain), "token_algorithm"),
        ("no signature", unsigned(r#"{"alg":"HS256","kid":"hs"}"#), "token_malformed"),
        ("public key as secret", confused(r#"{"alg":"HS256","kid":"rs"}"#, &by_public), "token_algorithm"),
        ("public key as secret, no kid", confused(r#"{"alg":"HS256"}"#, &by_public), "token_signature"),
        ("public key as secret, trimmed", confused(r#"{"alg":"HS256"}"#, &trimmed), "token_signature"),
        ("public key as secret, kid of HS256", confused(r#"{"alg":"HS256","kid":"hs"}"#, &trimmed), "token_signature"),
        ("another secret", signed(r#"{"alg":"HS256"}"#, &plain, Algorithm::HS256, &short), "token_signature"),
        ("another key", signed(r#"{"alg":"RS256","kid":"rs"}"#, &plain, Algorithm::RS256, &foreign), "token_signature"),
        ("another payload", other, "token_signature"),
        ("PS256 under the key for RS256", rs_as_ps(&plain), "token_algorithm"),
        ("signature cut", token[..token.len() - 3].to_owned(), "token_signature"),
    ]
}

/// The right key, but not the algorithm that it is bound to.
fn rs_as_ps(payload: &str) -> String {
    signed(r#"{"alg":"PS256","kid":"rs"}"#, payload, Algorithm::PS256, &private(&keys().rsa, Algorithm::PS256))
}

fn of_headers() -> Vec<(&'static str, String, &'static str)> {
    let plain = claims(&json!({})).to_string();
    let foreign = private(&keys().foreign, Algorithm::RS256);
    let own = |header: Value| signed(&header.to_string(), &plain, Algorithm::RS256, &foreign);
    let jwk = json!({"kty": "RSA", "kid": "mine", "n": "AQAB", "e": "AQAB", "alg": "RS256"});
    vec![
        ("HS512", hs(r#"{"alg":"HS512","kid":"hs"}"#, &plain), "token_algorithm"),
        ("no alg", hs(r#"{"kid":"hs"}"#, &plain), "token_algorithm"),
        ("alg a number", hs(r#"{"alg":256}"#, &plain), "token_algorithm"),
        ("alg twice", hs(r#"{"alg":"none","alg":"HS256","kid":"hs"}"#, &plain), "token_malformed"),
        ("crit", hs(r#"{"alg":"HS256","kid":"hs","crit":["b64"],"b64":false}"#, &plain), "token_malformed"),
        ("unknown kid", hs(r#"{"alg":"HS256","kid":"h"}"#, &plain), "token_key_unknown"),
        ("kid a path", hs(r#"{"alg":"HS256","kid":"../../../../etc/hostname"}"#, &plain), "token_key_unknown"),
        ("kid a device", hs(r#"{"alg":"HS256","kid":"/dev/null"}"#, &plain), "token_key_unknown"),
        ("kid an address", hs(r#"{"alg":"HS256","kid":"http://127.0.0.1:1/key"}"#, &plain), "token_key_unknown"),
        ("kid SQL", hs(r#"{"alg":"HS256","kid":"x' UNION SELECT 'a"}"#, &plain), "token_key_unknown"),
        ("kid a list", hs(r#"{"alg":"HS256","kid":["hs"]}"#, &plain), "token_key_unknown"),
        ("kid empty", hs(r#"{"alg":"HS256","kid":""}"#, &plain), "token_key_unknown"),
        ("own key in jwk", own(json!({"alg": "RS256", "jwk": jwk})), "token_signature"),
        ("own key in jwk, own kid", own(json!({"alg": "RS256", "kid": "mine", "jwk": jwk})), "token_key_unknown"),
        (
            "own key behind jku",
            own(json!({"alg": "RS256", "kid": "rs", "jku": "http://127.0.0.1:1/"})),
            "token_signature",
        ),
        (
            "own key behind x5u",
            own(json!({"alg": "RS256", "x5u": "file:///etc/hosts", "x5c": ["MA=="]})),
            "token_signature",
        ),
    ]
}

fn of_forms() -> Vec<(&'static str, String, &'static str)> {
    let token = good(&json!({"sub": "ann?>"}));
    let parts: Vec<&str> = token.split('.').collect();
    let again = |engine: &base64::engine::GeneralPurpose, payload: &str| {
        let payload = engine.encode(payload);
        let message = format!("{}.{payload}", parts[0]);
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC");
        format!("{message}.{signature}")
    };
    let odd = claims(&json!({"attrs": {"x": "\u{fffd}\u{ffff}??>>~~"}})).to_string();
    let header = r#"{"alg":"HS256","kid":"hs"}"#;
    let head = parts[0];
    vec![
        ("extra dot", format!("{token}."), "token_malformed"),
        ("five parts", format!("{token}.a.b"), "token_malformed"),
        ("two parts", format!("{head}.{}", parts[1]), "token_malformed"),
        ("one part", "token".into(), "token_malformed"),
        ("dots alone", "..".into(), "token_malformed"),
        ("leading dot", format!(".{token}"), "token_malformed"),
        ("padding", again(&URL_SAFE, &(odd.clone() + " ")), "token_malformed"),
        ("other alphabet", again(&STANDARD, &(odd + "  ")), "token_malformed"),
        ("a quote around it", format!("\"{token}\""), "token_malformed"),
        ("last bits not zero", format!("{}_", &token[..token.len() - 1]), "token_malformed"),
        ("8 KiB and more", good(&json!({"x": "y".repeat(8_000)})), "token_malformed"),
        ("payload a list", hs(header, r#"["sub"]"#), "token_malformed"),
        ("payload a string", hs(header, r#""sub""#), "token_malformed"),
        (
            "payload no UTF-8",
            {
                let bad = URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}");
                resigned(head, &bad)
            },
            "token_malformed",
        ),
        ("header a list", hs(r#"["HS256"]"#, "{}"), "token_malformed"),
        ("too deep", hs(header, &format!(r#"{{"x":{}{}}}"#, "[".repeat(500), "]".repeat(500))), "token_malformed"),
        ("sub twice", hs(header, &without("sub").replacen('{', r#"{"sub":"ann","sub":"root","#, 1)), "token_malformed"),
        (
            "sub twice, escaped",
            hs(header, &without("sub").replacen('{', r#"{"sub":"a","su\u0062":"b","#, 1)),
            "token_malformed",
        ),
        ("exp twice", hs(header, &without("exp").replacen('{', r#"{"exp":1,"exp":9999999999,"#, 1)), "token_malformed"),
        ("unknown claim twice", hs(header, &without("").replacen('{', r#"{"x":1,"x":1,"#, 1)), "token_malformed"),
    ]
}

fn resigned(head: &str, payload: &str) -> String {
    let message = format!("{head}.{payload}");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    format!("{message}.{}", jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC"))
}

fn of_claims() -> Vec<(&'static str, String, &'static str)> {
    let header = r#"{"alg":"HS256","kid":"hs"}"#;
    let with = |more: Value| good(&more);
    let many: Vec<String> = (0..33).map(|n| n.to_string()).collect();
    let pairs: serde_json::Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("v"))).collect();
    let now_s = now_s();
    vec![
        ("exp a string", with(json!({"exp": "9999999999"})), "token_claims"),
        ("exp never", with(json!({"exp": "never"})), "token_claims"),
        ("exp null", with(json!({"exp": null})), "token_claims"),
        ("exp a list", with(json!({"exp": [now_s + 60]})), "token_claims"),
        ("exp negative", with(json!({"exp": -1})), "token_claims"),
        ("exp missing", hs(header, &without("exp")), "token_claims"),
        ("exp beyond numbers", hs(header, &without("exp").replacen('{', r#"{"exp":1e999,"#, 1)), "token_claims"),
        ("exp past", with(json!({"exp": now_s - 31})), "token_expired"),
        ("exp zero", with(json!({"exp": 0})), "token_expired"),
        ("nbf ahead", with(json!({"nbf": now_s + 120})), "token_not_yet"),
        ("nbf a string", with(json!({"nbf": "0"})), "token_claims"),
        ("no audience", hs(header, &without("aud")), "token_audience"),
        ("wrong audience", with(json!({"aud": "other"})), "token_audience"),
        ("audience a part", with(json!({"aud": "ap"})), "token_audience"),
        ("wrong audiences", with(json!({"aud": ["other", "APP"]})), "token_audience"),
        ("audience an object", with(json!({"aud": {"app": 1}})), "token_audience"),
        ("wrong issuer", with(json!({"iss": "tests2"})), "token_issuer"),
        ("issuers", with(json!({"iss": ["tests"]})), "token_issuer"),
        ("no issuer", hs(header, &without("iss")), "token_issuer"),
        ("no sub", hs(header, &without("sub")), "token_claims"),
        ("sub empty", with(json!({"sub": ""})), "token_claims"),
        ("sub a number", with(json!({"sub": 1})), "token_claims"),
        ("sub too long", with(json!({"sub": "x".repeat(129)})), "token_claims"),
        ("sub with a line end", with(json!({"sub": "a\nb"})), "token_claims"),
        ("plat with capitals", with(json!({"plat": "Web"})), "token_claims"),
        ("dev too long", with(json!({"dev": "x".repeat(129)})), "token_claims"),
        ("rooms a string", with(json!({"rooms": "*"})), "token_claims"),
        ("rooms of numbers", with(json!({"rooms": [1]})), "token_claims"),
        ("33 rooms", with(json!({"rooms": many})), "token_claims"),
        ("long pattern", with(json!({"speak": ["x".repeat(129)]})), "token_claims"),
        ("17 attributes", with(json!({"attrs": pairs})), "token_claims"),
        ("attribute a number", with(json!({"attrs": {"age": 3}})), "token_claims"),
        ("attributes too long", with(json!({"attrs": {"x": "y".repeat(1_024)}})), "token_claims"),
        (
            "attribute twice",
            hs(header, &without("").replacen('{', r#"{"attrs":{"a":"1","a":"2"},"#, 1)),
            "token_claims",
        ),
        ("join of a bad name", with(json!({"join": ["a\u{0}"]})), "token_claims"),
    ]
}
