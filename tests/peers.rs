//! `tidegate bench peers` and `bench report` as one types them: a small course, its JSON, its page, nothing left behind.
//! Tidegate always runs. A server that is not ours runs where it is installed; where it is not, stderr says so, past
//! the capture of a test that passes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A run in a scratch folder that takes the place of the system's.
struct Run {
    folder: tempfile::TempDir,
    output: Output,
}

impl Run {
    fn peers(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let scratch = folder.path().join("tmp");
        fs::create_dir(&scratch).expect("a folder in it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["bench", "peers", "--brief", "--connections", "100", "--json"])
            .arg(folder.path().join("peers.json"));
        let output = command.args(arguments).env("TMPDIR", &scratch).output().expect("the binary was built");
        Self { folder, output }
    }

    fn told(&self) -> String {
        [&self.output.stdout[..], &self.output.stderr].map(String::from_utf8_lossy).concat()
    }

    fn json(&self) -> Value {
        let text = fs::read_to_string(self.folder.path().join("peers.json")).expect("the report was written");
        serde_json::from_str(&text).expect("JSON")
    }

    /// What is left behind for good: a process that has been killed takes a moment to be gone on a busy machine.
    fn left_behind(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let found = self.found();
            if found.is_empty() || Instant::now() >= deadline {
                return found;
            }
            std::thread::yield_now();
        }
    }

    /// Names of what is still in the scratch folder, and of processes whose command line names it.
    fn found(&self) -> Vec<String> {
        let scratch = self.folder.path().join("tmp");
        let files = fs::read_dir(&scratch).expect("the scratch folder").flatten().map(|entry| entry.path());
        let processes = fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path().join("cmdline"));
        let names_it = |path: &PathBuf| {
            let line = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&*scratch.to_string_lossy())
        };
        files.chain(processes.filter(names_it)).map(|path| path.display().to_string()).collect()
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A process that nobody has waited for yet is gone as well.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Cells of the row named `name`.
fn cells<'v>(report: &'v Value, name: &str) -> &'v Vec<Value> {
    let rows = report["tables"][0]["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["name"] == name).expect("the row");
    row["cells"].as_array().expect("cells")
}

#[test]
fn a_small_course_fills_its_columns_becomes_a_page_and_leaves_nothing() {
    let run = Run::peers(&["--only", "bare,tidegate"]);

    assert!(run.output.status.success(), "{}", run.told());
    let report = run.json();
    assert_eq!((&report["sound"], &report["schema"]), (&Value::Bool(true), &"tidegate-bench/1".into()));
    // A hundred clients are too few for the slope of memory, which may be empty; all the rest is measured.
    assert!(cells(&report, "tidegate")[1..].iter().all(Value::is_number), "{:?}", cells(&report, "tidegate"));
    assert!(cells(&report, "bare loop")[1].is_number() && cells(&report, "bare loop")[0].is_null());
    assert_eq!(run.left_behind(), Vec::<String>::new());

    let (json, html) = (run.folder.path().join("peers.json"), run.folder.path().join("peers.html"));
    let mut report = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let made =
        report.args(["bench", "report"]).arg(json).arg("--out").arg(&html).output().expect("the binary was built");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let page = fs::read_to_string(html).expect("the page");
    assert!(page.contains("CPU a delivery") && page.contains("bare loop") && page.contains("data-plot=\"0\""));
}

#[test]
fn a_server_that_is_not_ours_runs_the_course_where_it_is_installed() {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers");
    let run = Run::peers(&["--only", "ws", "--kit", &kit.display().to_string()]);

    assert!(run.output.status.success(), "{}", run.told());
    let report = run.json();
    let skipped = report["skipped"].as_array().expect("a list");
    if let Some(why) = skipped.first() {
        // Straight to the file descriptor: what a passing test prints is kept from the terminal otherwise.
        writeln!(std::io::stderr(), "SKIPPED {why}: bench/peers/install installs it").expect("stderr");
        assert!(why.as_str().is_some_and(|why| why.starts_with("ws: no ")), "{why}");
        return;
    }
    assert!(cells(&report, "ws")[1..].iter().all(Value::is_number), "{:?}", cells(&report, "ws"));
    assert_eq!(run.left_behind(), Vec::<String>::new());
}

#[test]
fn a_signal_leaves_neither_servers_nor_their_folder() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["bench", "peers", "--only", "tidegate", "--connections", "100"]).env("TMPDIR", folder.path());
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary was built");
    let list = format!("/proc/{0}/task/{0}/children", run.id());
    let children = || fs::read_to_string(&list).unwrap_or_default();
    let is_up = || fs::read_dir(folder.path()).expect("there").next().is_some() && !children().is_empty();
    wait_until("a server is up", is_up);
    let children = children();

    kill_process(Pid::from_child(&run), Signal::TERM).expect("it lives");

    let status = run.wait().expect("it was started");
    assert_eq!(status.code(), Some(130));
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0, "its folder is gone");
    let pids: Vec<Pid> = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
    wait_until("its servers are gone", || pids.iter().all(|pid| is_gone(*pid)));
}

#[test]
fn an_unknown_peer_is_refused_with_the_known_ones() {
    let run = Run::peers(&["--only", "tidegate,nobody"]);

    assert!(!run.output.status.success());
    assert!(run.told().contains("`nobody`") && run.told().contains("mosquitto"), "{}", run.told());
}
