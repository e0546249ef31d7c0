//! Issue 3, point 6: a batch compressed once for all costs the gateway at most 1.1 × the CPU of the plain one a delivery, and takes
//! at most 0.35 × its bytes. Plain and compressed in turns, A B A B, each with a gateway, a swarm and publishers of its own, so that
//! neither pays for the other's idle connections.

use std::time::Duration;

use super::Options;
use super::bed::{Bed, total};
use super::session::{Phase, Session, connections};
use crate::report::{Bound, Report};

/// As long as in `delivery`: no merge window holds two batches.
const INTERVAL: Duration = Duration::from_millis(250);
/// Batches of each of the four parts.
const ROUNDS: u32 = 40;
/// Messages of a batch; with the default size a frame of 10 KB.
const BATCH: u32 = 20;
const SIZE: usize = 512;
const CPU_MAX: f64 = 1.1;
const BYTES_MAX: f64 = 0.35;

/// One of the two that are compared.
struct Side {
    name: &'static str,
    session: Session,
    /// CPU of the gateway in µs and bytes on the wire, a frame, by part.
    cpu_us: Vec<f64>,
    bytes: Vec<f64>,
}

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let size = options.size.unwrap_or(SIZE);
    let interval = options.rate.map_or(INTERVAL, |rate| Duration::from_secs_f64(f64::from(BATCH) / rate));
    let rounds = options.duration.map_or(ROUNDS, |d| (d.as_secs_f64() / interval.as_secs_f64()).ceil() as u32);
    let rate = (f64::from(BATCH) / interval.as_secs_f64()).to_string();
    let (size, batch, messages) = (size.to_string(), BATCH.to_string(), (rounds * BATCH).to_string());
    let publish = ["--to", "all", "--rows", "--size", &size, "--batch", &batch, "--rate", &rate, "--count", &messages];

    let mut plain = Side::start("plain", options, count, &[], report)?;
    let mut compressed = Side::start("compressed", options, count, &["--deflate"], report)?;
    for side in [&mut plain, &mut compressed] {
        let phase = side.session.phase(&publish, 1)?;
        side.session.judge(&format!("{}, settling in", side.name), &phase, report);
    }
    let mut last = None;
    for round in 1..=2 {
        let phase = plain.part(&publish, round, report)?;
        bounded_counter(&phase, "frames_deflated_total", 0.0, "frames compressed for nobody", report);
        let phase = compressed.part(&publish, round, report)?;
        let seen = phase.tally.frames as f64 / count as f64;
        bounded_counter(&phase, "frames_deflated_total", seen, "frames compressed once", report);
        bounded_counter(&phase, "frames_encoded_total", 2.0 * seen, "frames encoded, plain and compressed", report);
        last = Some(phase);
    }
    let (cpu, bytes) = (mean(&compressed.cpu_us) / mean(&plain.cpu_us), mean(&compressed.bytes) / mean(&plain.bytes));
    report.bounded("gateway CPU a delivery, compressed ÷ plain", cpu, "×", Bound::AtMost(CPU_MAX));
    report.bounded("bytes on the wire, compressed ÷ plain", bytes, "×", Bound::AtMost(BYTES_MAX));
    plain.session.reconcile(report)?;
    compressed.session.reconcile(report)?;
    if let Some(phase) = last {
        compressed.session.figures(phase, report);
    }
    plain.session.finish(report);
    compressed.session.finish(report);
    Ok(())
}

impl Side {
    fn start(
        name: &'static str,
        options: &Options,
        count: u64,
        clients: &[&str],
        report: &mut Report,
    ) -> anyhow::Result<Self> {
        let session = Session::start(Bed::split(options, &[])?, count, clients, report)?;
        Ok(Self { name, session, cpu_us: Vec::new(), bytes: Vec::new() })
    }

    /// One measured part: every client has checked every message.
    fn part(&mut self, publish: &[&str], round: u32, report: &mut Report) -> anyhow::Result<Phase> {
        let phase = self.session.phase(publish, 1)?;
        let name = self.name;
        self.session.judge(&format!("{name} {round}"), &phase, report);
        let frames = (phase.tally.frames as f64).max(1.0);
        let cpu_us = phase.processes.first().map_or(0.0, |process| process.usage.cpu_s() * 1e6) / frames;
        let bytes = phase.tally.bytes as f64 / frames;
        report.figure(&format!("gateway, CPU a delivery, {name} {round}"), cpu_us, "µs");
        report.figure(&format!("bytes on the wire a delivery, {name} {round}"), bytes, "B");
        let merged = phase.tally.messages as f64 / frames;
        report.bounded(&format!("messages a frame, {name} {round}"), merged, "", Bound::Exactly(f64::from(BATCH)));
        report.latency(&format!("intended → read, {name} {round}"), &phase.tally.latency_us);
        self.cpu_us.push(cpu_us);
        self.bytes.push(bytes);
        Ok(phase)
    }
}

fn bounded_counter(phase: &Phase, counter: &str, expected: f64, what: &str, report: &mut Report) {
    let counted = total(&phase.counters, &format!("tidegate_gateway_{counter}"));
    report.bounded(what, counted, "", Bound::Exactly(expected));
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
