//! `tidegate token` as an operator uses it: what is minted is accepted by the code of the gateway, and what is not says why.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::Value;

const SECRET: &str = "a secret of at least 32 bytes, for HS256";

/// Runs the binary without any `TIDEGATE_*` of the machine that runs the test.
fn tidegate(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built");
    // One that refuses its arguments has gone before it reads.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("the child is ours")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a scratch folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a scratch file");
        plain(&self.path(name))
    }

    /// A configuration with these keys.
    fn config(&self, keys: &str) -> String {
        self.write("tidegate.toml", &format!("[gateway.auth]\nmode = \"jwt\"\nkeys = [{keys}]\n"))
    }
}

fn plain(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

fn hs256(kid: &str) -> String {
    format!("{{ kid = \"{kid}\", algorithm = \"HS256\", secret = \"{SECRET}\" }}")
}

fn minted(arguments: &[&str]) -> String {
    let output = tidegate(&[&["token", "mint"], arguments].concat(), "");
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{arguments:?}");
    stdout(&output).trim().to_owned()
}

#[test]
fn a_minted_token_says_what_was_asked_for_and_is_accepted() {
    let scratch = Scratch::new();
    let config = scratch.config(&hs256("a"));
    let token = minted(&[
        "-c",
        &config,
        "--sub",
        "alice",
        "--plat",
        "web",
        "--exp",
        "1h",
        "--attr",
        "lang=de",
        "--attr",
        "tier=pro",
        "--rooms",
        "chat:*,user:{sub}:*",
        "--speak",
        "chat:*",
        "--join",
        "lobby",
    ]);

    let inspected = tidegate(&["token", "inspect", "-c", &config], &token);

    let said = stdout(&inspected);
    let claims = said.split("claims: ").nth(1).and_then(|rest| rest.split("verdict: ").next()).expect("claims");
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    assert_eq!(
        (&claims["sub"], &claims["plat"], &claims["join"][0]),
        (&"alice".into(), &"web".into(), &"lobby".into())
    );
    assert_eq!(claims["rooms"], serde_json::json!(["chat:*", "user:{sub}:*"]));
    assert_eq!(claims["attrs"], serde_json::json!({"lang": "de", "tier": "pro"}));
    assert!(said.contains("verdict: accepted: user \"alice\" until 20") && said.contains(" left)"), "{said}");
    assert_eq!(inspected.status.code(), Some(0));
    assert!(!said.contains(token.rsplit('.').next().expect("a signature")), "the signature is not shown");
}

#[test]
fn every_algorithm_mints_with_a_private_key_what_its_public_key_accepts() {
    let scratch = Scratch::new();
    for (name, kind) in [
        ("EdDSA", &PKCS_ED25519),
        ("ES256", &PKCS_ECDSA_P256_SHA256),
        ("RS256", &PKCS_RSA_SHA256),
        ("PS256", &PKCS_RSA_SHA256),
    ] {
        let pair = KeyPair::generate_for(kind).expect("a key pair");
        let (private, public) = (scratch.write("private.pem", &pair.serialize_pem()), pair.public_key_pem());
        let public = scratch.write("public.pem", &public);
        let config = scratch.config(&format!("{{ kid = \"k\", algorithm = \"{name}\", file = {public:?} }}"));
        let token = minted(&["-c", &config, "--sub", "bob", "--key-file", &private, "--alg", name, "--kid", "k"]);

        let inspected = tidegate(&["token", "inspect", "-c", &config], &token);

        assert_eq!(inspected.status.code(), Some(0), "{name}: {}", stdout(&inspected));
    }
}

#[test]
fn a_refused_token_gets_the_gateways_own_reason() {
    let scratch = Scratch::new();
    let config = scratch.config(&hs256("a"));
    let other = scratch.write("secret", &format!("another {SECRET}\n"));
    let mint = |arguments: &[&str]| {
        let all = [&["token", "mint", "-c", &config, "--sub", "alice"], arguments].concat();
        let output = tidegate(&all, "");
        (stdout(&output), stderr(&output))
    };

    for (arguments, code) in [
        (vec!["--exp", "2020-01-01"], "token_expired"),
        (vec!["--nbf", "1h", "--exp", "2h"], "token_not_yet"),
        (vec!["--plat", "No Such"], "token_claims"),
        (vec!["--key-file", &other], "token_signature"),
        (vec!["--key-file", &other, "--kid", "b"], "token_key_unknown"),
    ] {
        let (token, note) = mint(&arguments);
        let inspected = tidegate(&["token", "inspect", "-c", &config], &token);

        assert!(note.contains(code), "the minter hears of it too: {note}");
        assert!(stdout(&inspected).contains(&format!("verdict: refused: {code}: ")), "{}", stdout(&inspected));
        assert_eq!(inspected.status.code(), Some(1), "{arguments:?}");
    }
    let garbage = tidegate(&["token", "inspect", "-c", &config], "x.y.z");
    assert!(stdout(&garbage).contains("token_malformed"), "{}", stdout(&garbage));
}

#[test]
fn a_secret_comes_from_files_and_variables_and_is_in_no_output() {
    let scratch = Scratch::new();
    let secret = scratch.write("secret", &format!("{SECRET}\n"));
    let config = scratch.config(&hs256(""));
    let token = minted(&["-c", &config, "--sub", "alice", "--key-file", &secret]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("TIDEGATE_GATEWAY__AUTH__KEYS", format!("[{}]", hs256(""))).args(["token", "mint", "--sub", "alice"]);
    let by_variable = command.output().expect("the binary was built");

    for token in [token, stdout(&by_variable)] {
        let inspected = tidegate(&["token", "inspect", "-c", &config], &token);

        assert_eq!(inspected.status.code(), Some(0), "{}", stdout(&inspected));
        assert!(!stdout(&inspected).contains(SECRET));
    }
    let pem = scratch.write("key.pem", &KeyPair::generate().expect("a key pair").serialize_pem());
    for (arguments, why) in [
        (vec!["--key-file", &pem], "no secret: say --alg"),
        (vec!["--key-file", &secret, "--alg", "ES256"], "no private key in PEM"),
        (vec!["--key-file", "/nonexistent"], "cannot be read"),
        (vec![], "name the private key with --key-file"),
    ] {
        let output = tidegate(&[&["token", "mint", "--sub", "alice"][..], &arguments].concat(), "");

        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains(SECRET) && !stderr(&output).contains("BEGIN"));
    }
}

#[test]
fn a_token_of_more_than_ten_years_is_not_minted() {
    let scratch = Scratch::new();
    let config = scratch.config(&hs256("a"));
    for (flag, when) in [("--exp", "4000d"), ("--exp", "2106-01-01"), ("--nbf", "11y")] {
        let output = tidegate(&["token", "mint", "-c", &config, "--sub", "alice", flag, when], "");

        assert_eq!((output.status.code(), stdout(&output)), (Some(2), String::new()), "{flag} {when}");
        assert!(stderr(&output).contains(&format!("{flag} lies more than ten years ahead")), "{}", stderr(&output));
    }
    minted(&["-c", &config, "--sub", "alice", "--exp", "3650d"]);
}
