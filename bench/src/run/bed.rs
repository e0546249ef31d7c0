//! The processes of a scenario: the server as one process or as two tiers, on free ports, with its logs kept.
//! Knows nothing of load (see `session`). Invariant: what was started is ended, unless it is to be kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Options;
use crate::process::Usage;
use crate::{clock, ending, http1, sockets};

pub(super) struct Bed {
    executable: PathBuf,
    keep: bool,
    logs: PathBuf,
    servers: Vec<Server>,
    /// Where clients connect; the push API; where the gateway's counters are.
    pub(super) clients: SocketAddr,
    pub(super) api: SocketAddr,
    metrics: SocketAddr,
    /// As they would be typed.
    pub(super) commands: Vec<String>,
}

struct Server {
    name: &'static str,
    child: Child,
}

/// The server must be ready by then; a drain at the end may take as long.
const READY: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(3);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

impl Bed {
    /// Both tiers in one process.
    pub(super) fn serve(options: &Options, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let (clients, api) = (sockets::free_address()?, sockets::free_address()?);
        let mut bed = Self::new(options, clients, api, api)?;
        bed.start("serve", &["--listen", &clients.to_string(), "--api", &api.to_string()], environment)?;
        bed.wait_until_ready()?;
        Ok(bed)
    }

    /// A gateway and a logic process: the gateway's CPU and memory are its own.
    pub(super) fn split(options: &Options, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let [clients, api, backplane, ops] =
            [sockets::free_address()?, sockets::free_address()?, sockets::free_address()?, sockets::free_address()?];
        let mut bed = Self::new(options, clients, api, ops)?;
        let (listen, backplane, ops) = (clients.to_string(), backplane.to_string(), ops.to_string());
        bed.start("gateway", &["--listen", &listen, "--backplane", &backplane, "--ops", &ops], environment)?;
        let gateway = format!("http://{backplane}");
        bed.start("logic", &["--api", &api.to_string(), "--gateway", &gateway], environment)?;
        bed.wait_until_ready()?;
        Ok(bed)
    }

    fn new(options: &Options, clients: SocketAddr, api: SocketAddr, metrics: SocketAddr) -> anyhow::Result<Self> {
        let executable = match &options.server {
            Some(server) => server.clone(),
            None => std::env::current_exe()?,
        };
        let logs = ending::scratch("bench")?;
        let (servers, commands) = (Vec::new(), Vec::new());
        Ok(Self { executable, keep: options.keep, logs, servers, clients, api, metrics, commands })
    }

    fn start(&mut self, name: &'static str, arguments: &[&str], environment: &[(&str, String)]) -> anyhow::Result<()> {
        let path = self.logs.join(format!("{name}.log"));
        let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(&self.executable);
        command.arg(name).args(arguments).envs(environment.iter().map(|(key, value)| (key, value)));
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        self.servers.push(Server { name, child });
        let set: String = environment.iter().map(|(key, value)| format!("{key}={value} ")).collect();
        self.commands.push(format!("{set}tidegate {name} {}", arguments.join(" ")));
        Ok(())
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline_ns = clock::now_ns() + READY.as_nanos() as u64;
        loop {
            for Server { name, child } in &mut self.servers {
                if let Some(status) = child.try_wait()? {
                    let log = std::fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
                    bail!("`{name}` ended with {status}: {}", log.trim());
                }
            }
            match http1::get(self.api, "/readyz", HTTP_TIMEOUT) {
                Ok(response) if response.status == 200 => return Ok(()),
                answer if clock::now_ns() > deadline_ns => {
                    let answer = answer.map(|r| format!("{} {}", r.status, String::from_utf8_lossy(&r.body)));
                    bail!("not ready after {READY:?}: {answer:?}; logs in {}", self.logs.display());
                }
                _ => clock::pause(Duration::from_millis(20)),
            }
        }
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}/ws", self.clients)
    }

    /// The gateway's counters now.
    pub(super) fn counters(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut counters = http1::scrape(self.metrics, HTTP_TIMEOUT).context("cannot read the gateway's metrics")?;
        counters.retain(|name, _| name.starts_with("tidegate_gateway_"));
        Ok(counters)
    }

    /// What each server process has used so far.
    pub(super) fn usages(&self) -> anyhow::Result<Vec<(String, Usage)>> {
        let usage = |server: &Server| Ok((server.name.to_owned(), Usage::of(server.child.id())?));
        self.servers.iter().map(usage).collect()
    }

    /// The process that holds the connections.
    pub(super) fn gateway(&self) -> anyhow::Result<Usage> {
        let server = self.servers.first().context("no server was started")?;
        Usage::of(server.child.id()).with_context(|| format!("`{}` died; logs in {}", server.name, self.logs.display()))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.keep {
            ending::say(&format!(
                "kept: clients {}, api http://{}, logs {}",
                self.url(),
                self.api,
                self.logs.display()
            ));
            return;
        }
        for Server { child, .. } in &mut self.servers {
            // A process that has ended already cannot be asked to.
            let _ = Pid::from_raw(child.id() as i32).map(|pid| kill_process(pid, Signal::TERM));
        }
        let deadline_ns = clock::now_ns() + STOP.as_nanos() as u64;
        for Server { child, .. } in &mut self.servers {
            clock::until_ns(deadline_ns, || !matches!(child.try_wait(), Ok(None)));
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.logs);
    }
}

/// The sum of a metric over its labels.
pub(super) fn total(counters: &BTreeMap<String, f64>, name: &str) -> f64 {
    let is_named = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
    counters.iter().filter(|(key, _)| is_named(key)).map(|(_, value)| value).sum()
}

/// Growth of counters (`…_total`); gauges as they are at the end.
pub(super) fn growth(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let grown = |(name, value): (&String, &f64)| {
        let is_counter = name.split('{').next().is_some_and(|base| base.ends_with("_total"));
        let start = if is_counter { before.get(name).copied().unwrap_or(0.0) } else { 0.0 };
        (name.clone(), value - start)
    };
    after.iter().map(grown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(samples: &[(&str, f64)]) -> BTreeMap<String, f64> {
        samples.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other() {
        let counters =
            counters(&[("a_total{reason=\"x\"}", 1.0), ("a_total{reason=\"y\"}", 2.0), ("a_total_more", 9.0)]);

        assert_eq!(total(&counters, "a_total"), 3.0);
    }

    #[test]
    fn counters_grow_and_gauges_are() {
        let before = counters(&[("a_total", 5.0), ("gauge", 5.0)]);
        let after = counters(&[("a_total", 8.0), ("gauge", 7.0), ("new_total", 1.0)]);

        let growth = growth(&before, &after);

        assert_eq!(growth.into_values().collect::<Vec<_>>(), [3.0, 7.0, 1.0]);
    }
}
