//! What tokens are accepted, and what they say: the verifier alone, with keys of every kind.

mod support;

use jsonwebtoken::Algorithm;
use serde_json::json;
use support::tokens::{attacks, by_file, claims, config, good, keys, now_s, private, signed};
use tidegate_gateway::session::Act;
use tidegate_gateway::session::auth::{AHEAD_S_MAX, TokenError, Verifier};
use tidegate_gateway::{AuthConfig, AuthMode, KeyConfig, TokenAlgorithm};

fn verifier() -> Verifier {
    Verifier::new(&config()).expect("good keys")
}

/// Rule C-4.
#[test]
fn each_algorithm_is_accepted_with_its_key() {
    let verifier = verifier();
    let keys = keys();
    let payload = claims(&json!({})).to_string();
    for (kid, name, algorithm, pair) in [
        ("rs", "RS256", Algorithm::RS256, &keys.rsa),
        ("ps", "PS256", Algorithm::PS256, &keys.rsa),
        ("es", "ES256", Algorithm::ES256, &keys.ec),
        ("ed", "EdDSA", Algorithm::EdDSA, &keys.ed),
    ] {
        for header in
            [json!({"alg": name, "kid": kid}), json!({"alg": name, "typ": "JWT", "jku": "http://127.0.0.1:1/"})]
        {
            let token = signed(&header.to_string(), &payload, algorithm, &private(pair, algorithm));
            let claims = verifier.verify(&token, now_s()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(&*claims.user, "ann", "{name}");
        }
    }
    assert_eq!(verifier.verify(&good(&json!({})), now_s()).map(|c| c.user), Ok("ann".into()));
}

/// Rule C-4: the attack set, each by its code.
#[test]
fn every_attack_is_refused_with_its_code() {
    let verifier = verifier();
    let attacks = attacks();

    let wrong: Vec<String> = attacks
        .iter()
        .filter_map(|(name, token, code)| match verifier.verify(token, now_s()) {
            Ok(_) => Some(format!("{name}: accepted")),
            Err(error) if error.code() != *code => Some(format!("{name}: {} instead of {code}", error.code())),
            Err(_) => None,
        })
        .collect();

    assert!(attacks.len() > 70);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rule C-4: no part of a token is in what is said of it.
#[test]
fn no_error_shows_any_part_of_its_token() {
    let verifier = verifier();
    for (name, token, _) in attacks() {
        let Err(error) = verifier.verify(&token, now_s()) else { panic!("{name}") };
        let said = format!("{error} {error:?} {}", error.refusal());
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!said.contains(part), "{name}: {said}");
        }
    }
    assert!(!format!("{verifier:?} {:?}", config()).contains(support::tokens::SECRET));
    let huge = "a".repeat(1 << 20) + ".b.c";
    assert!(matches!(verifier.verify(&huge, 0), Err(TokenError::Malformed(_))));
    assert_eq!(verifier.verify("", 0), Err(TokenError::Missing));
}

/// Rule C-4: what the claims mean.
#[test]
fn claims_say_who_it_is_and_what_it_may_do() {
    let more = json!({"plat": "ios", "dev": "phone 1", "attrs": {"lang": "de", "tier": "pro"}, "rooms": ["chat:*", "user:{sub}:*"],
        "speak": ["chat:1"], "users": ["*"], "join": ["user:{sub}", "news"], "aud": ["x", "app"], "exp": now_s() as f64 + 60.5});

    let claims = verifier().verify(&good(&more), now_s()).expect("good");

    let may = |act, name| claims.grant.allows(act, Some(&claims.user), name);
    assert_eq!((claims.platform.as_deref(), claims.device.as_deref()), (Some("ios"), Some("phone 1")));
    assert_eq!((claims.attributes.find("lang"), claims.attributes.find("tier")), (Some("de"), Some("pro")));
    assert!(may(Act::Join, "chat:7") && may(Act::Join, "user:ann:x") && !may(Act::Join, "user:bob:x"));
    assert!(may(Act::Speak, "chat:1") && !may(Act::Speak, "chat:7"));
    assert!(may(Act::See, "chat:7") && !may(Act::See, "news"), "presence is as rooms where it is not said");
    assert!(may(Act::Whisper, "bob") && !may(Act::List, "chat:1") && !may(Act::Route, "a/b"));
    assert_eq!(claims.join, ["user:ann".into(), "news".into()]);
}

/// Rule C-4: both clocks may be half a minute apart, and no more.
#[test]
fn times_hold_to_the_second_with_the_leeway() {
    let verifier = verifier();
    let token = |more| good(&more);
    for (claim, now_s, outcome) in [
        (json!({"exp": 1_000}), 1_029, Ok(())),
        (json!({"exp": 1_000}), 1_030, Err(TokenError::Expired)),
        (json!({"exp": 9_000, "nbf": 1_000}), 970, Ok(())),
        (json!({"exp": 9_000, "nbf": 1_000}), 969, Err(TokenError::NotYet)),
        (json!({"exp": 9_000 + u64::from(AHEAD_S_MAX)}), 9_000, Ok(())),
    ] {
        assert_eq!(verifier.verify(&token(claim.clone()), now_s).map(|_| ()), outcome, "{claim} at {now_s}");
    }
}

/// Rule C-4: milliseconds for seconds would last until 2106.
#[test]
fn times_more_than_ten_years_ahead_are_refused_by_name() {
    let verifier = verifier();
    let now_ms = now_s() * 1_000;
    for (claim, value) in [
        ("exp", now_ms),
        ("exp", now_s() + u64::from(AHEAD_S_MAX) + 60),
        ("exp", 99_999_999_999),
        ("nbf", now_ms),
        ("iat", now_ms),
    ] {
        let error = verifier.verify(&good(&json!({claim: value})), now_s()).expect_err("far ahead");

        assert_eq!(error.code(), "token_claims", "{claim} {value}");
        assert!(error.to_string().contains(&format!("{claim} lies more than ten years ahead")), "{error}");
    }
    assert!(verifier.verify(&good(&json!({"iat": now_s() + 5})), now_s()).is_ok(), "clocks differ");
}

#[test]
fn a_key_set_is_read_and_each_of_its_keys_bound() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("jwks.json");
    let b64 = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let (point, ed) = (keys().ec.public_key_raw(), keys().ed.public_key_raw());
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "e1", "x": b64(&point[1..33]), "y": b64(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "d1", "use": "sig", "alg": "EdDSA", "x": b64(ed)},
        {"kty": "RSA", "use": "enc", "kid": "other", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-521", "kid": "unknown", "x": "", "y": ""},
    ]});
    std::fs::write(&path, set.to_string()).expect("a scratch file");
    let config = AuthConfig { mode: AuthMode::Jwt, jwks: path.display().to_string(), ..AuthConfig::default() };
    let verifier = Verifier::new(&config).expect("a good set");
    let payload = claims(&json!({})).to_string();
    let token = |header: &str, pair, algorithm| signed(header, &payload, algorithm, &private(pair, algorithm));

    assert_eq!(verifier.keys(), 2, "keys for other purposes are passed over");
    let by_ec = token(r#"{"alg":"ES256","kid":"e1"}"#, &keys().ec, Algorithm::ES256);
    let by_ed = token(r#"{"alg":"EdDSA","kid":"d1"}"#, &keys().ed, Algorithm::EdDSA);
    let crossed = token(r#"{"alg":"EdDSA","kid":"e1"}"#, &keys().ed, Algorithm::EdDSA);
    assert!(verifier.verify(&by_ec, now_s()).is_ok() && verifier.verify(&by_ed, now_s()).is_ok());
    assert_eq!(verifier.verify(&crossed, now_s()), Err(TokenError::Algorithm));
}

#[test]
fn keys_that_cannot_be_meant_are_refused_with_the_remedy() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a scratch file");
        path.display().to_string()
    };
    let key = |algorithm, secret: &str, file: &str| {
        let key = KeyConfig { kid: String::new(), algorithm, secret: secret.into(), file: file.into() };
        AuthConfig { mode: AuthMode::Jwt, keys: vec![key], ..AuthConfig::default() }
    };
    let set = |text: &str| {
        let jwks = file(&format!("set of {}", text.len()), text);
        AuthConfig { mode: AuthMode::Jwt, jwks, ..AuthConfig::default() }
    };
    let mut twice = config();
    twice.keys.push(by_file("rs", TokenAlgorithm::RS256, "rsa"));
    let private = keys().ec.serialize_pem();
    let public = keys().rsa.public_key_pem();
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").public_key_pem();

    for (config, remedy) in [
        (key(TokenAlgorithm::HS256, "hush-hush", ""), "openssl rand"),
        (key(TokenAlgorithm::HS256, &public, ""), "name the algorithm it is for"),
        (key(TokenAlgorithm::HS256, "", &file("pem", &public)), "name the algorithm it is for"),
        (key(TokenAlgorithm::ES256, "", &file("private", &private)), "private key"),
        (key(TokenAlgorithm::ES256, "", &file("rsa", &public)), "no public key in PEM of the kind"),
        (key(TokenAlgorithm::ES256, "", &file("p384", &p384)), "P-256"),
        (key(TokenAlgorithm::RS256, "", "/nowhere/key.pem"), "/nowhere/key.pem: cannot be read"),
        (set("{"), "no JSON Web Key Set"),
        (set(r#"{"keys":[]}"#), "no key for signatures"),
        (set(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#), "2,048 bits"),
        (set(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#), "private key"),
        (set(r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"RS256","x":"AA","y":"AA"}]}"#), "does not fit"),
        (twice, "two keys have the kid \"rs\""),
    ] {
        let error = Verifier::new(&config).expect_err(remedy).to_string();
        assert!(error.contains(remedy), "{error} does not say {remedy}");
        assert!(!error.contains("hush-hush"), "{error}");
    }
}

#[test]
fn a_key_set_is_read_by_names_alone() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("jwks.json");
    for set in [r#"[[]]"#, r#"{"keys":[["oct",null,"HS256"]]}"#, r#"{"keys":[[]]}"#, r#"{"keys":[],"keys":[]}"#] {
        std::fs::write(&path, set).expect("a scratch file");
        let config = AuthConfig { mode: AuthMode::Jwt, jwks: path.display().to_string(), ..AuthConfig::default() };

        let error = Verifier::new(&config).expect_err(set).to_string();

        assert!(error.contains("JSON Web Key Set"), "{set}: {error}");
    }
}
