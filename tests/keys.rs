//! API keys as an operator meets them: made, looked at, and told apart on the command line.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs the binary without any `TIDEGATE_*` of the machine that runs the test.
fn tidegate(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads, or has a small pipe");
    child.wait_with_output().expect("the child is ours")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The key and the rest of what `keys create` prints.
fn created(arguments: &[&str]) -> (String, String) {
    let output = tidegate(&[&["keys", "create"], arguments].concat(), "");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let key = text.lines().find(|line| line.starts_with("tidegate_sk_")).expect("a key").to_owned();
    (key, text)
}

fn scratch(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("tidegate.toml");
    std::fs::write(&path, text).expect("a scratch file");
    let path = path.to_str().expect("a plain path").to_owned();
    (folder, path)
}

#[test]
fn what_create_prints_is_a_configuration_that_knows_the_key() {
    let (key, printed) = created(&["--id", "billing", "--scopes", "push,read", "--expires", "90d", "--room", "chat:*"]);
    let file = printed.replace(&key, "");
    let (_folder, path) = scratch(&file);

    let check = tidegate(&["config", "check", "-c", &path], "");
    let inspected = tidegate(&["keys", "inspect", "-c", &path], &format!("{key}\n"));

    assert_eq!(stdout(&check), "ok\n", "{}", stderr(&check));
    let said = stdout(&inspected);
    assert!(said.contains("id \"billing\", checksum fits"), "{said}");
    assert!(said.contains("\"billing\" may push, read; rooms chat:*; until 20"), "{said}");
    assert_eq!(inspected.status.code(), Some(0));
    assert_eq!(printed.matches(&key).count(), 1, "the key is shown once");
}

#[test]
fn a_keys_file_takes_the_same_entries_and_must_hold_some() {
    let (_, printed) = created(&["--id", "a", "--scopes", "read"]);
    let (_keys_folder, keys) = scratch(&printed[printed.find("[[").expect("an entry")..]);
    let (_folder, path) = scratch(&format!("[logic]\nkeys_file = {keys:?}\n"));
    let check = || tidegate(&["config", "check", "-c", &path], "");

    assert_eq!(stdout(&check()), "ok\n");
    for (text, why) in [
        ("[logic]\nkeys = []\n", "holds no [[logic.keys]]"),
        ("logic = [[]]\n", "expected an object"),
        ("[logic]\nkeys = [[\"a\", \"00\", [\"push\"]]]\n", "expected an object"),
        ("[[logic.keys]]\nid = \"a\"\n", "missing field `sha256`"),
        ("[[logic.keys]]\nid = \"a\"\nscope = 1\n", ":3: unknown field `scope`"),
        ("[[logic.keys]]\nid = \"a\"\nsha256 = \"secret\"\nscopes = [\"push\"]\n", "64 hex digits"),
    ] {
        std::fs::write(&keys, text).expect("a scratch file");
        let output = check();

        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(stderr(&output).contains(why), "{text}: {}", stderr(&output));
    }
    std::fs::remove_file(&keys).expect("the scratch file");
    assert!(stderr(&check()).contains("cannot be read"), "{}", stderr(&check()));
}

#[test]
fn a_typing_error_in_a_key_is_told_from_a_key_that_is_unknown() {
    let (key, _) = created(&["--id", "a", "--scopes", "read"]);
    let last = if key.ends_with('0') { "1" } else { "0" };
    let typed = format!("{}{last}", &key[..key.len() - 1]);

    let unknown = tidegate(&["keys", "inspect"], &key);
    let wrong = tidegate(&["keys", "inspect"], &typed);
    let foreign = tidegate(&["keys", "inspect"], "2bb80d537b1da3e38bd30361aa855686");
    let nothing = tidegate(&["keys", "inspect"], " \n");

    assert!(stdout(&unknown).contains("not among the configured keys"), "{}", stdout(&unknown));
    assert_eq!((unknown.status.code(), wrong.status.code()), (Some(0), Some(1)));
    assert!(stdout(&wrong).contains("the checksum does not fit"), "{}", stdout(&wrong));
    assert!(stdout(&foreign).contains("not a key made by"), "{}", stdout(&foreign));
    assert_eq!(nothing.status.code(), Some(2));
    for output in [&unknown, &wrong] {
        assert!(!stdout(output).contains(&key[20..]), "an inspected key is not shown again");
    }
}

#[test]
fn what_no_key_can_be_is_refused_with_what_can() {
    for (arguments, why) in [
        (["--id", "a_b", "--scopes", "push"], "a-z, A-Z, 0-9 and -"),
        (["--id", "a", "--scopes", "write"], "known are push, read and admin"),
        (["--id", "a", "--scopes=read", "--room=x"], "it has no scope push"),
        (["--id", "a", "--scopes=push", "--expires=soon"], "write 90d"),
    ] {
        let output = tidegate(&[&["keys", "create"][..], &arguments[..]].concat(), "");

        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
        assert!(!stdout(&output).contains("tidegate_sk_"));
    }
}

#[test]
fn json_is_for_programs_and_two_keys_are_never_the_same() {
    let make = || {
        let output = tidegate(&["keys", "create", "--id", "ci", "--scopes", "read", "--json"], "");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };

    let (one, two) = (make(), make());

    assert_eq!(one["config"]["id"], "ci");
    assert_eq!(one["config"]["sha256"].as_str().map(str::len), Some(64));
    assert_ne!(one["key"], two["key"]);
}
