//! Several gateways and one logic node as processes, each of which can be drained, killed and started again at its addresses.
//! Knows nothing of load. Invariant: what was started is ended, unless it is to be kept.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Options;
use super::bed::total;
use crate::process::Usage;
use crate::{clock, ending, http1, sockets};

pub(super) struct Fleet {
    executable: PathBuf,
    keep: bool,
    logs: PathBuf,
    environment: Vec<(&'static str, String)>,
    pub(super) gateways: Vec<Gateway>,
    /// None until it is started, which is after the gateways.
    logic: Option<Child>,
    pub(super) api: SocketAddr,
    /// As they would be typed.
    pub(super) commands: Vec<String>,
}

pub(super) struct Gateway {
    child: Child,
    pub(super) clients: SocketAddr,
    backplane: SocketAddr,
    pub(super) ops: SocketAddr,
}

const READY: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(3);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

impl Fleet {
    pub(super) fn start(
        options: &Options,
        gateways: usize,
        environment: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let executable = match &options.server {
            Some(server) => server.clone(),
            None => std::env::current_exe()?,
        };
        let logs = ending::scratch("bench")?;
        let (mut started, mut lines) = (Vec::new(), vec!["--api".to_owned()]);
        let api = sockets::free_address()?;
        lines.push(api.to_string());
        for _ in 0..gateways {
            let addresses = [sockets::free_address()?, sockets::free_address()?, sockets::free_address()?];
            lines.extend(["--gateway".to_owned(), format!("http://{}", addresses[1])]);
            started.push(addresses);
        }
        let (keep, running, commands) = (options.keep, Vec::new(), Vec::new());
        // Whole before the first process starts, so that all end when a later one does not start.
        let mut fleet = Self { executable, keep, logs, environment, gateways: running, logic: None, api, commands };
        for [clients, backplane, ops] in started {
            let arguments = arguments(clients, backplane, ops);
            let set: String = fleet.environment.iter().map(|(key, value)| format!("{key}={value} ")).collect();
            fleet.commands.push(format!("{set}tidegate gateway {}", arguments.join(" ")));
            let child = fleet.spawn("gateway", &arguments)?;
            fleet.gateways.push(Gateway { child, clients, backplane, ops });
        }
        fleet.commands.push(format!("tidegate logic {}", lines.join(" ")));
        fleet.logic = Some(fleet.spawn("logic", &lines)?);
        (0..gateways).try_for_each(|index| fleet.wait_until_linked(index))?;
        Ok(fleet)
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.gateways.iter().map(|gateway| format!("ws://{}/ws", gateway.clients)).collect()
    }

    /// Asks a gateway to leave, and waits until it has: its exit status and how long it took.
    pub(super) fn drain(&mut self, index: usize, patience: Duration) -> anyhow::Result<(ExitStatus, f64)> {
        let started_ns = clock::now_ns();
        let child = &mut self.gateways[index].child;
        let pid = Pid::from_raw(child.id() as i32).context("a process has an id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline_ns = started_ns + patience.as_nanos() as u64;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, (clock::now_ns() - started_ns) as f64 / 1e9));
            }
            ensure!(clock::now_ns() < deadline_ns, "gateway {index} did not leave within {patience:?}");
            clock::pause(Duration::from_millis(5));
        }
    }

    /// Ends a gateway without a word.
    pub(super) fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let child = &mut self.gateways[index].child;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts a gateway again at its addresses.
    pub(super) fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let Gateway { clients, backplane, ops, .. } = self.gateways[index];
        let arguments = arguments(clients, backplane, ops);
        self.gateways[index].child = self.spawn("gateway", &arguments)?;
        Ok(())
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> anyhow::Result<Child> {
        let path = self.logs.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(&self.executable);
        command.arg(name).args(arguments).stdout(log.try_clone()?).stderr(log);
        if name == "gateway" {
            command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        }
        Ok(command.spawn()?)
    }

    /// Waits until a gateway takes clients and logic sends it pushes.
    pub(super) fn wait_until_linked(&mut self, index: usize) -> anyhow::Result<()> {
        let deadline_ns = clock::now_ns() + READY.as_nanos() as u64;
        let gateway = format!("{{gateway=\"{}\"}}", self.gateways[index].backplane);
        loop {
            if let Some(status) = self.gateways[index].child.try_wait()? {
                bail!("gateway {index} ended with {status}; logs in {}", self.logs.display());
            }
            let takes_clients =
                http1::get(self.gateways[index].ops, "/readyz", HTTP_TIMEOUT).is_ok_and(|r| r.status == 200);
            let links = http1::scrape(self.api, HTTP_TIMEOUT).unwrap_or_default();
            if takes_clients && links.get(&format!("tidegate_backplane_up{gateway}")) == Some(&1.0) {
                return Ok(());
            }
            ensure!(clock::now_ns() < deadline_ns, "gateway {index} is not ready after {READY:?}");
            clock::pause(Duration::from_millis(20));
        }
    }

    /// One gateway's counters now.
    pub(super) fn counters(&self, index: usize) -> anyhow::Result<BTreeMap<String, f64>> {
        http1::scrape(self.gateways[index].ops, HTTP_TIMEOUT)
    }

    /// A metric of all gateways that can be asked.
    pub(super) fn each(&self, name: &str) -> Vec<f64> {
        let of = |index| self.counters(index).ok().map(|counters| total(&counters, name));
        (0..self.gateways.len()).filter_map(of).collect()
    }

    /// What the processes have used so far.
    pub(super) fn usages(&self) -> anyhow::Result<Vec<(String, Usage)>> {
        let gateways = self.gateways.iter().enumerate().map(|(i, g)| (format!("gateway {i}"), g.child.id()));
        let all = gateways.chain(self.logic.iter().map(|logic| ("logic".to_owned(), logic.id())));
        all.map(|(name, pid)| Ok((name, Usage::of(pid)?))).collect()
    }
}

fn arguments(clients: SocketAddr, backplane: SocketAddr, ops: SocketAddr) -> Vec<String> {
    let flags = [("--listen", clients), ("--backplane", backplane), ("--ops", ops)];
    flags.iter().flat_map(|(flag, address)| [(*flag).to_owned(), address.to_string()]).collect()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.keep {
            ending::say(&format!(
                "kept: clients {:?}, api http://{}, logs {}",
                self.urls(),
                self.api,
                self.logs.display()
            ));
            return;
        }
        let mut children: Vec<&mut Child> = self.gateways.iter_mut().map(|gateway| &mut gateway.child).collect();
        children.extend(&mut self.logic);
        for child in &children {
            // A process that has ended already cannot be asked to.
            let _ = Pid::from_raw(child.id() as i32).map(|pid| kill_process(pid, Signal::TERM));
        }
        let deadline_ns = clock::now_ns() + STOP.as_nanos() as u64;
        for child in children {
            clock::until_ns(deadline_ns, || !matches!(child.try_wait(), Ok(None)));
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.logs);
    }
}
