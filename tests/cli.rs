//! The command line as an operator meets it: configuration, refusals, exit codes, help, `doctor`. Opens no listener.
//! That `config check` refuses what a start refuses is in `refusals.rs`.

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

/// `--help` is as wide as the terminal; an example that was wrapped cannot be pasted.
#[test]
fn no_example_of_any_help_is_wrapped_at_any_width() {
    let commands: [&[&str]; 14] = [
        &[],
        &["serve"],
        &["gateway"],
        &["logic"],
        &["agent"],
        &["doctor"],
        &["config"],
        &["keys"],
        &["keys", "create"],
        &["token"],
        &["token", "mint"],
        &["bench"],
        &["bench", "million"],
        &["bench", "run"],
    ];
    for command in commands {
        let examples = |columns: &str| {
            let output = tidegate(&[command, &["--help"]].concat(), &[("COLUMNS", columns)]);
            let text = stdout(&output);
            let at = text.find("Examples:").or_else(|| text.find("Start here:"));
            at.map(|at| text[at..].to_owned()).unwrap_or_default()
        };

        let narrow = examples("80");

        assert_eq!(narrow, examples("100"), "{command:?}");
        assert_eq!(narrow, examples("120"), "{command:?}");
        assert!(narrow.lines().all(|line| line.len() <= 80), "{command:?}: {narrow}");
    }
}

#[test]
fn an_address_without_its_ip_is_answered_with_what_to_write() {
    for arguments in [
        ["serve", "--listen", "8000"],
        ["serve", "--api", ":8000"],
        ["gateway", "--backplane", "localhost:8000"],
        ["gateway", "--ops", "8000"],
        ["logic", "--api", "8000"],
        ["config", "check", "--set=gateway.listen=8000"],
    ] {
        let output = tidegate(&arguments, &[]);

        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("write 127.0.0.1:8000 "), "{arguments:?}: {}", stderr(&output));
    }
}

/// `… | head`: the reader closes the pipe before everything is written.
#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let (_folder, path) = scratch(
        "[gateway.auth]\nmode = \"jwt\"\n[[gateway.auth.keys]]\nalgorithm = \"HS256\"\n\
         secret = \"a secret that is long enough for this\"\n",
    );
    let commands: [&[&str]; 9] = [
        &["config", "show"],
        &["config", "show", "--json"],
        &["config", "check"],
        &["doctor", "--json", "--root", "/nowhere"],
        &["doctor", "--root", "/nowhere"],
        &["token", "mint", "-c", &path, "--sub", "ann"],
        &["keys", "create", "--id", "a", "--scopes", "push"],
        &["--help"],
        &["agent", "--help"],
    ];
    for arguments in commands {
        for is_stderr_closed_too in [false, true] {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
            if is_stderr_closed_too {
                command.stderr(writer.try_clone().expect("a second end"));
            }
            command.args(arguments).stdin(std::process::Stdio::null()).stdout(writer);
            drop(reader);

            let status = command.status().expect("the binary was built");

            assert_eq!(status.code(), Some(0), "{arguments:?}");
        }
    }
}

/// What is wrong is said on standard error, and its exit code holds also when nobody reads that.
#[test]
fn a_refusal_that_nobody_reads_keeps_its_exit_code() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["config", "check", "--set", "gateway.merge.min_ms=0"]).stderr(writer);
    drop(reader);

    assert_eq!(command.status().expect("the binary was built").code(), Some(2));
}

#[test]
fn the_agents_variable_stops_no_other_command() {
    let output = tidegate(&["config", "check"], &[("TIDEGATE_AGENT_TOKEN", "a token")]);

    assert_eq!((stdout(&output).as_str(), output.status.code()), ("ok\n", Some(0)), "{}", stderr(&output));
}
