//! `config check` and the start judge a configuration alike: what is wrong with it is said in the same words, with exit code 2.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// Longest wait for a refusal; one that does not come is a process that has started.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command whose start is refused, the file, and a part of the refusal. `DIR` in the file is a folder in which `empty` is a
/// file without anything in it.
const CASES: [(&str, &str, &str); 29] = [
    ("serve", "[gateway]\nallowed_origins = [\"example.com/path\"]", "origin"),
    ("serve", "[logic.hook]\nurl = \"ftp://hooks.example/\"", "logic.hook: "),
    ("serve", "[logic.hook]\nurl = \"https://hooks.example/\"\nsecrets = [\"hush\"]", "logic.hook: "),
    ("serve", "[logic.hook]\nurl = \"https://hooks.example/\"\nca = \"DIR/none.pem\"", "logic.hook: "),
    ("serve", "[logic.hook]\nurl = \"http://127.0.0.1/\"", "logic.hook: "),
    ("serve", "[logic.hook]\nheaders = [\"Cookie\"]", "logic.hook.headers: "),
    ("serve", "[gateway.tls]\ncert = \"DIR/none.pem\"\nkey = \"DIR/none.pem\"", "gateway.tls: "),
    ("serve", "[gateway.tls]\ncert = \"DIR/empty\"\nkey = \"DIR/empty\"", "gateway.tls: "),
    ("serve", "[gateway.tls]\ncert = \"DIR/empty\"", "gateway.tls"),
    ("serve", "[logic.tls]\ncert = \"DIR/none.pem\"\nkey = \"DIR/none.pem\"", "logic.tls: "),
    (
        "gateway",
        "[gateway.backplane_tls]\ncert = \"DIR/none\"\nkey = \"DIR/none\"\nca = \"DIR/none\"",
        "gateway.backplane_tls: ",
    ),
    (
        "logic",
        "[logic]\ngateways = [\"https://127.0.0.1:1\"]\n\
         [logic.backplane_tls]\ncert = \"DIR/none\"\nkey = \"DIR/none\"\nca = \"DIR/none\"",
        "logic.backplane_tls: ",
    ),
    ("serve", "[gateway.auth]\nmode = \"jwt\"", "gateway.auth"),
    ("serve", "[gateway.auth]\nmode = \"jwt\"\njwks = \"DIR/none.json\"", "gateway.auth"),
    ("serve", "[gateway.auth]\nmode = \"jwt\"\njwks = \"DIR/empty\"", "gateway.auth"),
    (
        "serve",
        "[gateway.auth]\nmode = \"jwt\"\n[[gateway.auth.keys]]\nalgorithm = \"HS256\"\nfile = \"DIR/none.key\"",
        "gateway.auth",
    ),
    (
        "serve",
        "[gateway.auth]\nmode = \"jwt\"\n[[gateway.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"short\"",
        "gateway.auth",
    ),
    (
        "serve",
        "[gateway.auth]\nmode = \"jwt\"\n[[gateway.auth.keys]]\nalgorithm = \"ES256\"\nfile = \"DIR/empty\"",
        "gateway.auth",
    ),
    ("serve", "[logic]\nkeys_file = \"DIR/none.toml\"", "logic.keys_file"),
    ("serve", "[[logic.keys]]\nid = \"a\"\nsha256 = \"secret\"", "logic.keys"),
    ("serve", "[logic.upstream]\nspool = \"DIR/empty/spool\"\nSINK", "logic.upstream.spool: "),
    ("serve", "[logic.upstream]\nspool = \"DIR/empty\"\nSINK", "logic.upstream.spool: "),
    ("serve", "[logic.upstream]\nSINK", "logic.upstream.spool: "),
    ("serve", "[logic.upstream]\nspool = \"DIR\"\nSINK\nca = \"DIR/none.pem\"", "logic.upstream.sinks: "),
    ("serve", "[[logic.upstream.routes]]\npattern = \"a\"\nsink = \"none\"", "which is no sink"),
    ("serve", "[gateway]\nlisten = \"0.0.0.0:0\"", "gateway.listen = 0.0.0.0:0"),
    ("serve", "[logic]\napi = \"0.0.0.0:0\"", "logic.api = 0.0.0.0:0"),
    ("gateway", "[gateway]\nops = \"0.0.0.0:0\"", "gateway.ops = 0.0.0.0:0"),
    ("serve", "[gateway.merge]\nmin_ms = 0", "gateway.merge: "),
];

const SINK: &str = "[[logic.upstream.sinks]]\nname = \"s\"\nurl = \"https://hooks.example/\"\n\
                    secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]";

async fn tidegate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("the binary was built");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    output.unwrap_or_else(|_| panic!("{arguments:?} has started")).expect("the child is ours")
}

async fn refusal(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tidegate(arguments).await;
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write(folder: &Path, text: &str) -> String {
    let text = text.replace("SINK", SINK).replace("DIR", folder.to_str().expect("a plain path"));
    let path = folder.join("tidegate.toml");
    std::fs::write(&path, text).expect("a scratch file");
    path.to_str().expect("a plain path").to_owned()
}

#[tokio::test]
async fn config_check_refuses_what_a_start_refuses_in_the_same_words() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    std::fs::write(folder.path().join("empty"), "").expect("a scratch file");
    for (command, text, part) in CASES {
        let path = write(folder.path(), text);

        let (code, checked) = refusal(&["config", "check", "-c", &path]).await;
        let (start_code, started) = refusal(&[command, "-c", &path]).await;

        assert_eq!((code, start_code), (Some(2), Some(2)), "{text}\ncheck: {checked}\nstart: {started}");
        assert!(checked.contains(part), "{text}: {checked}");
        assert_eq!(checked, started, "{text}");
    }
}

/// What is right for a start is right for the check: a folder that has to be made first, and files that are there.
#[tokio::test]
async fn config_check_takes_a_spool_folder_that_is_not_there_yet_and_makes_none() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = write(folder.path(), "[logic.upstream]\nspool = \"DIR/a/b\"\nSINK");

    let (code, said) = refusal(&["config", "check", "-c", &path]).await;

    assert_eq!(code, Some(0), "{said}");
    assert!(!folder.path().join("a").exists());
}
