//! The command line as an operator meets it: configuration, refusals, exit codes, `doctor`. Opens no listener.

use std::process::{Command, Output};

/// Runs the binary without any `TIDEGATE_*` of the machine that runs the test.
fn tidegate(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).output().expect("the binary was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn scratch(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("tidegate.toml");
    std::fs::write(&path, text).expect("a scratch file");
    let path = path.to_str().expect("a plain path").to_owned();
    (folder, path)
}

#[test]
fn config_show_says_where_each_value_came_from() {
    let (_folder, path) = scratch("[gateway.merge]\nmin_ms = 10\nmax_ms = 90\n");
    let arguments = ["config", "show", "--json", "-c", &path, "--set", "gateway.name=north"];

    let output = tidegate(&arguments, &[("TIDEGATE_GATEWAY__MERGE__MIN_MS", "30")]);

    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["gateway.merge.min_ms"]["value"], 30);
    assert_eq!(shown["gateway.merge.min_ms"]["origin"], "env TIDEGATE_GATEWAY__MERGE__MIN_MS");
    assert_eq!(shown["gateway.merge.max_ms"]["origin"], format!("{path}:3"));
    assert_eq!(shown["gateway.name"]["origin"], "flag --set");
    assert_eq!(shown["gateway.listen"]["origin"], "default");
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_suggestion() {
    let (_folder, path) = scratch("[gateway]\n\nlisten_ = \"127.0.0.1:1\"\n");

    let output = tidegate(&["config", "check", "-c", &path], &[]);

    assert_eq!(output.status.code(), Some(2));
    let expected = format!("{path}:3: unknown key gateway.listen_; did you mean gateway.listen?");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn a_good_configuration_is_ok() {
    let output = tidegate(&["config", "check"], &[]);

    assert_eq!(stdout(&output), "ok\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn every_command_refuses_what_it_would_expose_and_says_what_to_set() {
    let open = "0.0.0.0:0";
    for (arguments, remedy) in [
        (vec!["serve", "--listen", open], "auth.allow_open = true"),
        (vec!["serve", "--api", open], "logic.keys"),
        (vec!["gateway", "--backplane", open], "gateway.backplane_secret"),
        (vec!["gateway", "--ops", open], "auth.allow_open_ops = true"),
        (vec!["logic", "--api", open, "--gateway", "http://127.0.0.1:1"], "logic.keys"),
    ] {
        let output = tidegate(&arguments, &[]);

        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(remedy), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn logic_without_gateways_is_refused() {
    let output = tidegate(&["logic"], &[]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--gateway http://127.0.0.1:8002"), "{}", stderr(&output));
}

#[test]
fn an_unknown_variable_is_refused_by_name() {
    let output = tidegate(&["config", "check"], &[("TIDEGATE_GATEWAY__LISTENN", "127.0.0.1:1")]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean TIDEGATE_GATEWAY__LISTEN?"), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_is_one_sentence_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();

    let output = tidegate(&["serve", "--listen", &address, "--api", "127.0.0.1:0", "-q"], &[]);

    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn doctor_prints_its_schema_and_its_verdict_is_the_exit_code() {
    let output = tidegate(&["doctor", "--json", "--for", "1k"], &[]);

    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let code = match report["verdict"].as_str() {
        Some("ok") => 0,
        Some("warn") => 1,
        Some("fail") => 2,
        other => panic!("no verdict: {other:?}"),
    };
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(report["schema"], 1);
    assert_eq!(report["for"], 1_000);
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() > 15));
    assert!(report["capacity"]["connections"].is_u64());
}

#[test]
fn doctor_on_a_bare_folder_claims_nothing() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let root = folder.path().to_str().expect("a plain path");

    let output = tidegate(&["doctor", "--root", root], &[]);

    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("capacity unknown"), "{}", stdout(&output));
}

#[test]
fn help_of_every_command_ends_with_examples() {
    for command in ["serve", "gateway", "logic", "agent", "doctor", "config", "keys", "token"] {
        let output = tidegate(&[command, "--help"], &[]);

        assert!(stdout(&output).contains("Examples:\n  tidegate"), "{command}: {}", stdout(&output));
    }
}
