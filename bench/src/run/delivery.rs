//! Issue point 3: gateway CPU per delivery of a 1 KB frame ≤ 1.15 × the bare loop, both at the same cadence, A B A B.

use std::time::Duration;

use super::Options;
use super::bed::Bed;
use super::session::{Session, connections};
use crate::limit::{self, Cadence, Limit};
use crate::report::{Bound, Report};

/// Far enough apart that no merge window holds two messages, near enough that idle work stays small beside sending.
const INTERVAL: Duration = Duration::from_millis(250);
/// Passes of each of the four parts, after those that warm up.
const ROUNDS: u32 = 40;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let size = options.size.unwrap_or(1_024);
    let interval = options.rate.map_or(INTERVAL, |rate| Duration::from_secs_f64(1.0 / rate));
    let rounds = options.duration.map_or(ROUNDS, |d| (d.as_secs_f64() / interval.as_secs_f64()).ceil() as u32);
    let mut session = Session::start(Bed::split(options, &[])?, count, &[], report)?;
    session.warm_up("all", size, report)?;
    let idle = session.bed.gateway()?;
    super::session::rest(5);
    let idle_us = session.bed.gateway()?.since(&idle).cpu_s() * 1e6 / 5.0;

    let (mut bare, mut gateway, mut net) = (Vec::new(), Vec::new(), Vec::new());
    let rate = (1.0 / interval.as_secs_f64()).to_string();
    let (size_text, messages) = (size.to_string(), rounds.to_string());
    let mut last = None;
    for round in 1..=2 {
        let passes = bare_loop(count, size, rounds, interval, report)?;
        bare.extend(passes.paced.iter().flat_map(|passes| passes.cpu_us_per_send.iter().copied()));
        let phase = session.phase(&["--to", "all", "--size", &size_text, "--rate", &rate, "--count", &messages], 1)?;
        session.judge(&format!("delivery {round}"), &phase, report);
        let cpu_us = phase.processes.first().map_or(0.0, |process| process.usage.cpu_s() * 1e6);
        let frames = phase.tally.frames as f64;
        gateway.push(cpu_us / frames);
        net.push((cpu_us - idle_us * phase.seconds) / frames);
        let merged = phase.tally.messages as f64 / frames;
        report.bounded(&format!("messages a frame, part {round}"), merged, "", Bound::AtMost(1.05));
        last = Some(phase);
    }
    let (bare, raw, net) = (mean(&bare), mean(&gateway), mean(&net));
    report.figure("bare loop, CPU a send", bare, "µs");
    report.figure("gateway, CPU a delivery", raw, "µs");
    report.figure("gateway, CPU a delivery less idle", net, "µs");
    report.figure("gateway idle", idle_us, "µs/s");
    report.bounded("gateway ÷ bare loop", raw / bare, "×", Bound::AtMost(1.15));
    report.figure("gateway less idle ÷ bare loop", net / bare, "×");
    if let Some(phase) = last {
        session.figures(phase, report);
    }
    session.reconcile(report)?;
    session.finish(report);
    Ok(())
}

/// The bare loop in this run, paced as the gateway is.
pub(super) fn bare_loop(
    connections: u64,
    size: usize,
    rounds: u32,
    interval: Duration,
    report: &mut Report,
) -> anyhow::Result<Limit> {
    let options = limit::Options {
        connections,
        size,
        rounds,
        interval,
        cadence: Cadence::Paced,
        json_lines: true,
        drain: None,
        pass_bytes: 0,
    };
    let interval = interval.as_millis();
    let command = format!(
        "tidegate bench limit --connections {connections} --size {size} --rounds {rounds} --interval {interval}ms \
         --cadence paced"
    );
    if !report.commands.contains(&command) {
        report.commands.push(command);
    }
    let limit = limit::run(&options)?;
    report.part(&format!("limit {}", report.parts.len()), &limit);
    Ok(limit)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
