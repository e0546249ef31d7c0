//! `tidegate bench million` with a few hundred connections: several gateways and client processes, a broadcast that all
//! of them get, bare senders beside it; and an end in order, also when somebody presses Ctrl-C.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use support::until;

/// Processes of a debug build start slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn million(connections: u32, per_process: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["bench", "million", "--for", &connections.to_string()]);
    command.args(["--per-process", &per_process.to_string()]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn figure(report: &Value, name: &str) -> f64 {
    let figures = report["figures"].as_array().expect("figures");
    let figure = figures.iter().find(|figure| figure["name"] == name);
    figure.unwrap_or_else(|| panic!("no figure {name:?}"))["value"].as_f64().expect("a number")
}

#[test]
fn everybody_has_every_push_from_gateways_and_from_bare_senders() {
    let scratch = tempfile::tempdir().expect("a folder");
    let json = scratch.path().join("report.json");

    let output =
        million(400, 150, &["--bare", "--pushes", "2", "--every", "0s", "--json"]).arg(&json).output().expect("runs");

    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("JSON");
    assert_eq!((&report["sound"], &report["scenario"]), (&Value::Bool(true), &Value::from("million")));
    assert_eq!(figure(&report, "gateway processes, and as many of clients"), 3.0);
    assert_eq!(figure(&report, "receipt: matched, fewest"), 400.0);
    assert_eq!(figure(&report, "clients that had each push, fewest"), 400.0);
    // Like for like: what is sent and read is the same on both sides.
    assert_eq!(figure(&report, "gateway: bytes of a frame"), figure(&report, "bare: bytes of a frame"));
    for side in ["bare", "tidegate"] {
        let broadcasts = report["parts"][side]["broadcasts"].as_array().expect("broadcasts");
        let receivers: Vec<_> = broadcasts.iter().map(|broadcast| broadcast["receivers"].as_u64()).collect();
        assert_eq!(receivers, [Some(400), Some(400)], "{side}");
        assert_eq!(broadcasts[1]["swarm"]["standing"]["clients"], 400, "{side}");
    }
    assert!(figure(&report, "first to last, gateway ÷ bare (medians)") > 0.0);
}

#[test]
fn a_fleet_beyond_what_a_logic_node_takes_is_refused_before_anything_starts() {
    let output = million(129, 1, &[]).output().expect("runs");

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("need 129 gateways") && text.contains("at most 128"), "{text}");
}

/// Processes that this one started and has not waited for.
fn children(parent: &Child) -> Vec<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", parent.id());
    let text = fs::read_to_string(path).expect("the parent lives");
    text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[tokio::test]
async fn a_signal_takes_the_whole_fleet_down() {
    let mut run = million(400, 150, &["--hold", "5m"]).spawn().expect("starts");
    let mut says = BufReader::new(run.stderr.take().expect("piped")).lines();
    let up = says.find(|line| line.as_ref().is_ok_and(|line| line.contains("connections open after")));
    assert!(up.is_some(), "the fleet did not come up");
    let fleet = children(&run);
    assert_eq!(fleet.len(), 3 + 1 + 3, "gateways, logic, clients");

    kill_process(Pid::from_child(&run), Signal::INT).expect("it lives");

    let status = until("the bench ends", PATIENCE, async || run.try_wait().expect("a child")).await;
    assert_eq!(status.code(), Some(1));
    let left: Vec<_> = fleet.into_iter().filter(|pid| test_kill_process(*pid).is_ok()).collect();
    assert!(left.is_empty(), "{left:?} outlived the bench");
    let rest: Vec<String> = says.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
}
