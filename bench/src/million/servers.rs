//! The servers of a fleet: gateways with a logic node before them, or bare senders in their place; as many processes,
//! on the same addresses, pushing the same messages. Knows nothing of clients.
//! Invariant: what was started is ended when its owner lets go, servers after the clients that were dropped before.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::bare::{Order, Pass};
use super::interrupt::Interrupt;
use super::shape::{self, Shape};
use crate::message::Stamp;
use crate::{clock, ending, http1, sockets};

/// One side of the comparison.
pub(super) trait Servers {
    fn name(&self) -> &'static str;
    /// Where each share of the clients connects.
    fn addresses(&self) -> &[SocketAddrV4];
    /// The processes that hold the connections.
    fn pids(&self) -> Vec<u32>;
    /// Sends publisher 0's message `sequence` to everybody.
    fn push(&mut self, sequence: u32, size: usize) -> anyhow::Result<Sent>;
}

/// What became of a push, as the server says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) intended_ns: u64,
    /// Connections it was for.
    pub(super) matched: u64,
    pub(super) answered_ms: f64,
}

/// The fleet must be up by then, and a push be answered.
const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(60);
/// From the order to the first send: every sender has read it by then.
const LEAD_NS: u64 = 500_000_000;

/// A server process; it is killed when dropped, because its clients have gone before.
struct Server {
    child: Child,
    log: PathBuf,
}

pub(super) struct Tidegate {
    addresses: Vec<SocketAddrV4>,
    /// Before the gateways, so that it goes first.
    logic: Server,
    gateways: Vec<Server>,
    api: SocketAddr,
    _logs: Logs,
}

pub(super) struct Bare {
    addresses: Vec<SocketAddrV4>,
    senders: Vec<(Server, BufReader<ChildStdout>)>,
    _logs: Logs,
}

/// A folder for what the servers say, gone with them.
struct Logs(PathBuf);

/// How a fleet of Tidegate is set up.
pub(super) struct Setup<'a> {
    pub(super) executable: PathBuf,
    pub(super) heartbeat: Duration,
    /// Whether bare senders, which have one thread each, are measured beside it.
    pub(super) is_compared: bool,
    pub(super) interrupt: &'a Interrupt,
}

#[derive(Deserialize)]
struct Readiness {
    #[serde(default)]
    missing: Vec<String>,
}

#[derive(Deserialize)]
struct Receipt {
    matched: u64,
    gateways: Asked,
}

#[derive(Deserialize)]
struct Asked {
    failed: Vec<serde_json::Value>,
}

impl Tidegate {
    pub(super) fn start(shape: &Shape, setup: &Setup<'_>, commands: &mut Vec<String>) -> anyhow::Result<Self> {
        let logs = Logs::new()?;
        let (mut addresses, mut gateways, mut backplanes) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..shape.processes() {
            let [listen, backplane, ops] = [shape::address(index)?, shape::address(index)?, shape::address(index)?];
            let mut command = Command::new(&setup.executable);
            command.args(["gateway", "--log-level", "warn", "--listen", &listen.to_string()]);
            command.args(["--backplane", &backplane.to_string(), "--ops", &ops.to_string()]);
            let environment = environment(shape, setup, index);
            command.envs(environment.iter().map(|(key, value)| (key, value)));
            if index == 0 {
                let set: String = environment.iter().map(|(key, value)| format!("{key}={value} ")).collect();
                let arguments = format!("--listen {listen} --backplane {backplane} --ops {ops}");
                commands.push(format!("{set}tidegate gateway {arguments}   (and {} more)", shape.processes() - 1));
            }
            gateways.push(Server::start(&mut command, logs.0.join(format!("gateway-{index}.log")), false)?);
            backplanes.push(format!("http://{backplane}"));
            addresses.push(listen);
        }
        let api = sockets::free_address()?;
        let mut command = Command::new(&setup.executable);
        command.args(["logic", "--log-level", "warn", "--api", &api.to_string()]);
        command.args(backplanes.iter().flat_map(|url| ["--gateway", url]));
        command.envs(shape.environment());
        let logic = Server::start(&mut command, logs.0.join("logic.log"), false)?;
        let mut fleet = Self { addresses, logic, gateways, api, _logs: logs };
        fleet.wait_until_ready(setup.interrupt)?;
        Ok(fleet)
    }

    /// Every gateway is linked to the logic node and takes connections.
    fn wait_until_ready(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let deadline_ns = clock::now_ns() + READY.as_nanos() as u64;
        loop {
            self.gateways.iter_mut().chain([&mut self.logic]).try_for_each(Server::check)?;
            let answer = http1::get(self.api, "/readyz", Duration::from_secs(5));
            let missing = match &answer {
                Ok(response) if response.status == 200 => serde_json::from_slice::<Readiness>(&response.body)?.missing,
                Ok(response) => vec![format!("logic answers {}", response.status)],
                Err(error) => vec![format!("logic: {error:#}")],
            };
            if missing.is_empty() {
                return Ok(());
            }
            ensure!(clock::now_ns() < deadline_ns, "not ready after {READY:?}: {}", missing.join(", "));
            interrupt.pause(Duration::from_millis(50))?;
        }
    }
}

/// What the gateways are told beside their addresses. Many small processes share the cores, so each gets one thread for
/// what a gateway alone would give one a core. Beside bare senders a gateway alone fans out with one thread as well.
fn environment(shape: &Shape, setup: &Setup<'_>, index: usize) -> Vec<(&'static str, String)> {
    let mut environment = shape.environment();
    environment.extend([
        ("TIDEGATE_GATEWAY__NAME", format!("gateway-{index}")),
        ("TIDEGATE_GATEWAY__ID", (index + 1).to_string()),
        ("TIDEGATE_GATEWAY__HEARTBEAT__IDLE_MS", setup.heartbeat.as_millis().to_string()),
    ]);
    if let Some(buckets) = shape.buckets {
        environment.push(("TIDEGATE_GATEWAY__BUCKETS", buckets.to_string()));
    }
    if shape.processes() > 1 || setup.is_compared {
        environment.push(("TIDEGATE_GATEWAY__FANOUT__THREADS", "1".to_owned()));
    }
    if shape.processes() > 1 {
        environment.push(("TIDEGATE_GATEWAY__HANDSHAKE__LOBBIES", "1".to_owned()));
    }
    environment
}

impl Servers for Tidegate {
    fn name(&self) -> &'static str {
        "tidegate"
    }

    fn addresses(&self) -> &[SocketAddrV4] {
        &self.addresses
    }

    fn pids(&self) -> Vec<u32> {
        self.gateways.iter().map(|server| server.child.id()).collect()
    }

    fn push(&mut self, sequence: u32, size: usize) -> anyhow::Result<Sent> {
        let mut stream = TcpStream::connect(self.api).context("the push API takes no connection")?;
        stream.set_read_timeout(Some(ANSWER))?;
        let intended_ns = clock::now_ns();
        let body = format!(r#"{{"to":{{"all":true}},"messages":[{}]}}"#, message(sequence, intended_ns, size));
        write!(
            stream,
            "POST /v1/push HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        )?;
        let response = http1::Reader::new(stream).response().context("the push was not answered")?;
        let answered_ms = (clock::now_ns() - intended_ns) as f64 / 1e6;
        let text = String::from_utf8_lossy(&response.body);
        ensure!(response.status == 202, "the push was answered {}: {text}", response.status);
        let receipt: Receipt = serde_json::from_str(&text).with_context(|| format!("not a receipt: {text}"))?;
        ensure!(receipt.gateways.failed.is_empty(), "gateways failed: {text}");
        Ok(Sent { intended_ns, matched: receipt.matched, answered_ms })
    }
}

impl Bare {
    pub(super) fn start(shape: &Shape) -> anyhow::Result<Self> {
        let logs = Logs::new()?;
        let (mut addresses, mut senders) = (Vec::new(), Vec::new());
        for index in 0..shape.processes() {
            let listen = shape::address(index)?;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["bench", "bare-server", "--listen", &listen.to_string()]).envs(shape.environment());
            let mut server = Server::start(&mut command, logs.0.join(format!("bare-{index}.log")), true)?;
            let says = server.child.stdout.take().context("the sender's stdout is piped")?;
            senders.push((server, BufReader::new(says)));
            addresses.push(listen);
        }
        let mut fleet = Self { addresses, senders, _logs: logs };
        // An empty pass is answered once the sender listens.
        fleet.pass(&Order { at_ns: 0, text: String::new() })?;
        Ok(fleet)
    }

    /// All senders do the same, at the same time.
    fn pass(&mut self, order: &Order) -> anyhow::Result<Vec<Pass>> {
        let line = serde_json::to_string(order)?;
        for (server, _) in &mut self.senders {
            let stdin = server.child.stdin.as_mut().context("the sender's stdin is piped")?;
            writeln!(stdin, "{line}").context("a bare sender has ended")?;
        }
        let mut passes = Vec::new();
        for (server, says) in &mut self.senders {
            let mut line = String::new();
            if says.read_line(&mut line)? == 0 {
                server.child.wait()?;
                server.check()?;
            }
            passes.push(serde_json::from_str(&line).context("a bare sender said something odd")?);
        }
        Ok(passes)
    }
}

impl Servers for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn addresses(&self) -> &[SocketAddrV4] {
        &self.addresses
    }

    fn pids(&self) -> Vec<u32> {
        self.senders.iter().map(|(server, _)| server.child.id()).collect()
    }

    fn push(&mut self, sequence: u32, size: usize) -> anyhow::Result<Sent> {
        let intended_ns = clock::now_ns() + LEAD_NS;
        // As a gateway frames it: the same bytes to send, and to read.
        let seq = sequence + 1;
        let message = message(sequence, intended_ns, size);
        let text =
            format!(r#"{{"type":"PUSH","data":{{"epoch":"1a1fdb96e89","seq":[{seq},{seq}],"items":[{message}]}}}}"#);
        let passes = self.pass(&Order { at_ns: intended_ns, text })?;
        let failed: u64 = passes.iter().map(|pass| pass.failed).sum();
        ensure!(failed == 0, "{failed} bare sends did not take the frame whole");
        let ended_ns = passes.iter().map(|pass| pass.ended_ns).max().unwrap_or(intended_ns);
        let matched = passes.iter().map(|pass| pass.sent).sum();
        Ok(Sent { intended_ns, matched, answered_ms: ended_ns.saturating_sub(intended_ns) as f64 / 1e6 })
    }
}

fn message(sequence: u32, intended_ns: u64, size: usize) -> String {
    let mut message = Vec::new();
    Stamp { publisher: 0, sequence, intended_ns }.write(&mut message, size);
    String::from_utf8_lossy(&message).into_owned()
}

impl Server {
    /// In a process group of its own: a Ctrl-C is for the bench, which ends the fleet in order.
    fn start(command: &mut Command, log: PathBuf, steered: bool) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let stdin = if steered { Stdio::piped() } else { Stdio::null() };
        let stdout = if steered { Stdio::piped() } else { file.try_clone()?.into() };
        let child = command.process_group(0).stdin(stdin).stdout(stdout).stderr(file).spawn()?;
        Ok(Self { child, log })
    }

    /// An error with its last words when it has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let name = self.log.file_stem().unwrap_or_default().display();
            bail!("`{name}` ended with {status}: {}", log.trim());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Logs {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(ending::scratch("million")?))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // Left behind they harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fan-out threads that the first gateway is told to have.
    fn threads(per_process: Option<u64>, is_compared: bool) -> Option<String> {
        let shape = Shape::new(400, 1_048_576, per_process).expect("fits");
        let interrupt = Interrupt::default();
        let setup = Setup { executable: PathBuf::new(), heartbeat: Duration::ZERO, is_compared, interrupt: &interrupt };
        let environment = environment(&shape, &setup, 0);
        environment.into_iter().find(|(key, _)| key.ends_with("FANOUT__THREADS")).map(|(_, value)| value)
    }

    #[test]
    fn beside_a_bare_sender_a_gateway_has_one_fan_out_thread_in_every_shape() {
        assert_eq!(threads(None, true).as_deref(), Some("1"));
        assert_eq!(threads(Some(150), true).as_deref(), Some("1"));
        assert_eq!(threads(Some(150), false).as_deref(), Some("1"));
        assert_eq!(threads(None, false), None, "a gateway alone, and nothing to compare it with");
    }
}
