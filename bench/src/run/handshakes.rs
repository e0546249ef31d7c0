//! Issue point 6: handshakes a second sustained; half-open and slow-header sockets are gone soon and cost little.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use super::Options;
use super::bed::Bed;
use super::session::connections;
use crate::report::{self, Bound, Process, Report};
use crate::swarm::churn::Churned;
use crate::swarm::quiet::Quieted;

const PER_SECOND: f64 = 30_000.0;
const SOCKETS: u64 = 15_000;
const GONE_S: f64 = 6.0;
const PEAK_BYTES: f64 = 100e6;
/// How long to wait for the last of them: well beyond the bound, so that a miss has a figure.
const HOLD: &str = "30s";

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let bed = Bed::split(options, &[])?;
    report.commands.extend(bed.commands.iter().cloned());
    let seconds = options.duration.unwrap_or(Duration::from_secs(15)).as_secs().to_string() + "s";
    let before = bed.gateway()?;
    report::stage(&format!("connecting and closing, for {seconds}"));
    // A thread a core: with one, the client is at its end before the gateway is, which then sleeps and is woken for each.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let churned: Churned = swarm(&["--url", &bed.url(), "--handshakes", &seconds, "--threads", &threads], report)?;
    let after = bed.gateway()?.since(&before);
    report.bounded("handshakes a second", churned.per_second, "/s", Bound::AtLeast(PER_SECOND));
    report.figure("handshakes in the slowest second", churned.sustained(), "/s");
    let handshakes = churned.handshakes.max(1) as f64;
    report.figure("gateway CPU a handshake", after.cpu_s() * 1e6 / handshakes, "µs");
    report.figure("client CPU a handshake", churned.cpu_s * 1e6 / handshakes, "µs");
    report.latency("handshake", &churned.handshake_us);
    if !churned.failed.is_empty() {
        report.fault(format!("handshakes failed: {:?}", churned.failed));
    }
    report.processes.push(Process { name: "gateway churn".to_owned(), usage: after });
    report.part("churn", &churned);
    drop(bed);
    quiet(options, "half-open", "--half-open", report)?;
    quiet(options, "slow headers", "--slow-headers", report)
}

fn quiet(options: &Options, name: &str, flag: &str, report: &mut Report) -> anyhow::Result<()> {
    // A fresh process: the peak of the resident set only ever grows.
    let bed = Bed::split(options, &[])?;
    let count = connections(options.connections, SOCKETS)?.to_string();
    let before = bed.gateway()?;
    report::stage(&format!("{name}: {count} sockets that never finish their request"));
    let quieted: Quieted = swarm(&["--url", &bed.url(), flag, &count, "--hold", HOLD], report)?;
    let after = bed.gateway()?;
    let lived_s = quieted.lived_us.max() as f64 / 1e6;
    let slowest = if quieted.still_open == 0 { lived_s } else { f64::from(u16::MAX) };
    report.bounded(&format!("{name}: longest life of a socket"), slowest, "s", Bound::AtMost(GONE_S));
    let peak = after.peak_rss_bytes.saturating_sub(before.rss_bytes) as f64;
    report.bounded(&format!("{name}: peak memory"), peak, "B", Bound::AtMost(PEAK_BYTES));
    report.bounded(&format!("{name}: still open"), quieted.still_open as f64, "", Bound::Exactly(0.0));
    report.latency(&format!("{name}: life"), &quieted.lived_us);
    report.processes.push(Process { name: format!("gateway {name}"), usage: after.since(&before) });
    report.part(name, &quieted);
    Ok(())
}

/// A swarm of its own process that ends by itself.
fn swarm<T: DeserializeOwned>(arguments: &[&str], report: &mut Report) -> anyhow::Result<T> {
    report.commands.push(format!("tidegate bench swarm {}", arguments.join(" ")));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "swarm", "--json-lines"]).args(arguments).stdout(Stdio::piped());
    let output = command.spawn()?.wait_with_output()?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("the swarm ended with {}", output.status))
}
