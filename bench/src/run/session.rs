//! A loaded bed: a swarm that is connected, publishers one phase after the other, what each phase cost.
//! A file of its own because all scenarios that publish share it. Every phase has publishers of its own, so that each
//! client's every message of every phase stays checked to the end.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::bed::{Bed, growth, total};
use crate::ledger::Expected;
use crate::process::Usage;
use crate::publish::Published;
use crate::report::{self, Process, Report};
use crate::swarm::crew::Crew;
use crate::swarm::tally::Tally;
use crate::{clock, sockets};

pub(super) struct Session {
    pub(super) bed: Bed,
    pub(super) crew: Crew,
    pub(super) connections: u64,
    expected: Vec<Expected>,
    /// Publishers used up, of those the swarm checks.
    publishers: u32,
    publishers_max: u32,
}

/// Publishers a session may use in all its phases, unless it asks for more.
const PUBLISHERS: u32 = 8;
/// Nothing for this long: nothing more will come. Above the longest merge window and the backplane's retry.
const SETTLE_MS: u64 = 3_000;

/// What one phase published, delivered and cost.
pub(super) struct Phase {
    pub(super) published: Published,
    pub(super) tally: Tally,
    pub(super) processes: Vec<Process>,
    pub(super) counters: BTreeMap<String, f64>,
    /// From the first message's due time to the last client's last message.
    pub(super) seconds: f64,
}

impl Session {
    /// Connects a swarm to a bed.
    pub(super) fn start(bed: Bed, connections: u64, clients: &[&str], report: &mut Report) -> anyhow::Result<Self> {
        Self::with_publishers(bed, connections, PUBLISHERS, clients, report)
    }

    /// The same, for so many publishers in all phases together; each costs every client 4 bytes.
    pub(super) fn with_publishers(
        bed: Bed,
        connections: u64,
        publishers_max: u32,
        clients: &[&str],
        report: &mut Report,
    ) -> anyhow::Result<Self> {
        let mut arguments = vec!["--url".to_owned(), bed.url(), "--connections".to_owned(), connections.to_string()];
        arguments.extend(["--publishers".to_owned(), publishers_max.to_string()]);
        arguments.extend(clients.iter().map(|argument| (*argument).to_owned()));
        report.commands.extend(bed.commands.iter().cloned());
        report.commands.push(format!("tidegate bench swarm {}", arguments.join(" ")));
        report::stage(&format!("connecting {} clients", report::number(connections as f64)));
        let crew = Crew::processes(&[arguments])?;
        let mut session = Self { bed, crew, connections, expected: Vec::new(), publishers: 0, publishers_max };
        let bar = report::progress(connections, "connecting");
        let ready = session.crew.ready(|open| bar.set_position(open))?;
        bar.finish_and_clear();
        ensure!(ready.failed == 0, "{} of {connections} clients could not connect: {:?}", ready.failed, ready.oddities);
        report.figure("clients connected in", ready.ramp_s, "s");
        Ok(session)
    }

    /// Publishes a few messages that are checked but not measured.
    pub(super) fn warm_up(&mut self, to: &str, size: usize, report: &mut Report) -> anyhow::Result<()> {
        let size = size.to_string();
        let phase = self.phase(&["--to", to, "--size", &size, "--count", "5", "--rate", "5"], 1)?;
        self.judge("warm-up", &phase, report);
        Ok(())
    }

    /// One phase: publish, wait for the last message, judge. `connections` publishers take part.
    pub(super) fn phase(&mut self, publish: &[&str], connections: u32) -> anyhow::Result<Phase> {
        ensure!(self.publishers + connections <= self.publishers_max, "the session has no publishers left");
        self.crew.reset()?;
        let (counters, usages) = (self.bed.counters()?, self.usages()?);
        report::stage(&announcement(publish));
        let published = self.publish(publish, connections)?;
        self.expected.extend(published.expected.iter().cloned());
        let tally = self.crew.report(&self.expected, SETTLE_MS)?;
        let after = self.usages()?;
        let counters = growth(&counters, &self.bed.counters()?);
        let processes = after
            .into_iter()
            .zip(usages)
            .map(|((name, after), (_, before))| Process { name, usage: after.since(&before) });
        let last_ns = tally.arrivals.iter().map(|arrival| arrival.last_ns).max().unwrap_or(published.started_ns);
        let seconds = last_ns.saturating_sub(published.started_ns) as f64 / 1e9;
        Ok(Phase { processes: processes.collect(), published, tally, counters, seconds })
    }

    /// A report with nothing new published.
    pub(super) fn settled(&mut self) -> anyhow::Result<Tally> {
        self.crew.report(&self.expected, SETTLE_MS)
    }

    fn publish(&mut self, publish: &[&str], connections: u32) -> anyhow::Result<Published> {
        let api = format!("http://{}", self.bed.api);
        let (first, connections_text) = (self.publishers.to_string(), connections.to_string());
        let mut arguments = vec!["--api", &api, "--publisher", &first, "--connections", &connections_text];
        arguments.extend(publish);
        self.publishers += connections;
        self.bed.commands.push(format!("tidegate bench publish {}", arguments.join(" ")));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "publish", "--json-lines"]).args(&arguments).stdout(Stdio::piped());
        let bar = report::progress(0, "publishing").with_style(indicatif::ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(200));
        let output = command.spawn()?.wait_with_output()?;
        bar.finish_and_clear();
        serde_json::from_slice(&output.stdout).with_context(|| format!("the publisher ended with {}", output.status))
    }

    /// CPU and memory of the servers and of the swarm.
    fn usages(&self) -> anyhow::Result<Vec<(String, Usage)>> {
        let mut usages = self.bed.usages()?;
        for pid in self.crew.pids() {
            usages.push(("swarm".to_owned(), Usage::of(pid)?));
        }
        Ok(usages)
    }

    /// Puts what a phase found wrong into the report, worst first.
    pub(super) fn judge(&self, name: &str, phase: &Phase, report: &mut Report) {
        let Phase { published, tally, .. } = phase;
        if tally.standing.faults() > 0 {
            report.fault(format!("{name}: {}", report::loss_line(&tally.standing)));
            tally.standing.examples.iter().for_each(|example| report.fault(format!("{name}: {example}")));
        }
        if tally.standing.excused > 0 {
            report.fault(format!(
                "{name}: {} messages were dropped and named in GAPs: {:?}",
                tally.standing.excused, tally.gaps
            ));
        }
        if !tally.closed.is_empty() {
            report.fault(format!("{name}: connections that read were closed: {:?}", tally.closed));
        }
        if !published.refused.is_empty() || published.unanswered > 0 {
            let Published { refused, unanswered, refusals, .. } = published;
            report.fault(format!("{name}: pushes refused {refused:?}, unanswered {unanswered}: {refusals:?}"));
        }
        if !tally.oddities.is_empty() {
            report.fault(format!("{name}: odd: {:?}", tally.oddities));
        }
    }

    /// Queued = written + dropped + pending, over the gateway's life.
    pub(super) fn reconcile(&self, report: &mut Report) -> anyhow::Result<()> {
        let counters = self.bed.counters()?;
        let of = |name: &str| total(&counters, &format!("tidegate_gateway_messages_{name}"));
        let (queued, written) = (of("queued_total"), of("written_total"));
        let (dropped, pending) = (of("dropped_total"), of("pending"));
        if queued == 0.0 {
            report.fault("the gateway counted no queued message".to_owned());
        }
        if queued != written + dropped + pending {
            report.fault(format!("queued {queued} is not written {written} + dropped {dropped} + pending {pending}"));
        }
        Ok(())
    }

    /// The figures every publishing scenario has.
    pub(super) fn figures(&self, phase: Phase, report: &mut Report) {
        let Phase { published, tally, processes, counters, seconds } = phase;
        let deliveries = tally.messages as f64;
        report.figure("connections", self.connections as f64, "");
        report.figure("messages published", published.messages as f64, "");
        report.figure("messages published a second", published.messages as f64 / seconds.max(1e-9), "/s");
        report.figure("deliveries (every one checked)", deliveries, "");
        report.figure("frames received", tally.frames as f64, "");
        report.figure("messages a frame, mean", deliveries / (tally.frames as f64).max(1.0), "");
        if let Some(gateway) = processes.first() {
            let cpu_us = gateway.usage.cpu_s() * 1e6;
            report.figure("gateway CPU a delivery", cpu_us / deliveries.max(1.0), "µs");
            report.figure("gateway CPU a frame", cpu_us / (tally.frames as f64).max(1.0), "µs");
        }
        report.figure("pushes sent > 1 ms late", published.late as f64, "");
        report.latency("intended → read", &tally.latency_us);
        report.latency("receipt", &published.receipt_us);
        report.by_second("deliveries", &tally.seconds());
        report.part("published", &published);
        report.part("swarm", &Tally { arrivals: Vec::new(), ..tally });
        report.processes = processes;
        report.counters = counters;
    }

    /// Adds what was typed in the meantime to the commands of the report.
    pub(super) fn finish(self, report: &mut Report) {
        let publishes = self.bed.commands.iter().filter(|command| command.starts_with("tidegate bench publish"));
        report.commands.extend(publishes.cloned());
    }
}

/// What is about to be published, from the publisher's arguments: how much and for how long.
fn announcement(publish: &[&str]) -> String {
    let after = |name: &str| publish.iter().skip_while(|argument| **argument != name).nth(1);
    let number = |name: &str| after(name).and_then(|text| text.parse::<f64>().ok());
    match (number("--count"), number("--rate")) {
        (Some(count), Some(rate)) if rate > 0.0 => {
            format!("publishing {} messages in {}", report::number(count), report::amount((count / rate).ceil(), "s"))
        }
        _ => "publishing".to_owned(),
    }
}

/// The default of a scenario, cut to what one process of this machine may hold.
pub(super) fn connections(asked: Option<u64>, default: u64) -> anyhow::Result<u64> {
    let most = sockets::connections_per_process()?;
    if default > most && asked.is_none() {
        crate::ending::say(&format!("{default} connections do not fit: the open-files limit allows {most}"));
    }
    Ok(asked.unwrap_or(default.min(most)))
}

/// Waits for the machine to come to rest.
pub(super) fn rest(seconds: u64) {
    clock::pause(Duration::from_secs(seconds));
}
