//! The process as a service manager and an operator meet it: what it tells systemd, how it answers signals, and that each
//! metric it shows is explained.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a word of the process; generous, since it is waited in full only by a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `tidegate serve` on free ports that reports to a socket of this test.
struct Service {
    child: Child,
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_with(&[arguments, &["-q"]].concat(), variables, Stdio::inherit())
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)], log: Stdio) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a free name");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]).args(arguments).stderr(log);
        command.env("NOTIFY_SOCKET", &path).envs(variables.iter().copied()).stdin(Stdio::null());
        Self { child: command.spawn().expect("the binary was built"), socket, _folder: folder }
    }

    /// The next datagram that holds `word`.
    fn hears(&self, word: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(word) {
                return text;
            }
        }
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the process lives");
    }

    fn ended(&mut self) -> ExitStatus {
        self.child.wait().expect("the child is ours")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already gone is fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_is_ready_when_it_listens_and_says_when_it_leaves() {
    let mut service = Service::start(&[], &[]);

    let ready = service.hears("READY=1");
    service.terminate();
    let stopping = service.hears("STOPPING=1");

    assert!(ready.contains("STATUS=clients ws://127.0.0.1:"), "{ready}");
    // 60 s of drain.spread_max_ms and 10 of margin, 5 s of http.shutdown_ms and of margin.
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=80000000"), "{stopping}");
    assert_eq!(service.ended().code(), Some(0));
}

/// `tidegate serve 2>&1 | head`: whoever read the log has gone.
#[test]
fn a_node_outlives_the_reader_of_its_log() {
    let (log, writer) = std::io::pipe().expect("a pipe");
    let mut service = Service::start_with(&["--log-level", "debug"], &[], writer.into());
    service.hears("READY=1");

    drop(log);
    // Is logged, as the end is.
    kill_process(Pid::from_child(&service.child), Signal::HUP).expect("the process lives");
    service.terminate();

    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn it_feeds_the_watchdog_when_asked() {
    let service = Service::start(&[], &[("WATCHDOG_USEC", "200000")]);

    service.hears("WATCHDOG=1");
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let mut service = Service::start(&["--set", "gateway.drain.delay_ms=600000"], &[]);

    service.hears("READY=1");
    service.terminate();
    service.hears("STOPPING=1");
    service.terminate();

    assert_eq!(service.ended().code(), Some(1));
}

/// House style: every metric has a line in `docs/reference/metrics.md`.
#[test]
fn every_metric_of_both_tiers_has_a_line_for_operators() {
    let service = Service::start(&[], &[]);
    let status = service.hears("READY=1");

    let names = metric_names(&scrape(&status));

    for tier in ["tidegate_gateway_", "tidegate_logic_"] {
        assert!(names.iter().any(|name| name.starts_with(tier)), "no metric of {tier}: {names:?}");
    }
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    let page = std::fs::read_to_string(page).expect("the page of metrics");
    let unlisted: Vec<&String> = names.iter().filter(|name| !page.contains(&format!("`{name}"))).collect();
    assert!(
        unlisted.is_empty(),
        "docs/reference/metrics.md does not mention these metrics in backticks: {unlisted:#?}"
    );
}

/// `/metrics` of the push API whose address the status names.
fn scrape(status: &str) -> String {
    let rest = status.split_once("push API http://").expect("the status names the API").1;
    let address = rest.split(' ').next().expect("an address");
    let mut stream = TcpStream::connect(address).expect("the API listens when the process is ready");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request is small");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text, then the end");
    answer
}

fn metric_names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
