//! Gateway CPU per delivery of a 1 KB frame against the bare loop at the same cadence, with both writers: A B C A B C.
//! Both gateways and their clients stand beside each other all the time, so that each part finds the same machine.

use std::time::Duration;

use super::Options;
use super::bed::Bed;
use super::session::{Phase, Session, connections};
use crate::limit::{self, Cadence, Limit};
use crate::report::{self, Bound, Report};

/// Far enough apart that no merge window holds two messages, near enough that idle work stays small beside sending.
const INTERVAL: Duration = Duration::from_millis(250);
/// Passes of each part, after those that warm up.
const ROUNDS: u32 = 30;
/// How often each part has its turn.
const TURNS: u32 = 3;
/// Writers, with the bound on gateway CPU ÷ bare loop.
const WRITERS: [(&str, f64); 2] = [("send", 1.05), ("io_uring", 0.95)];

/// What is asked of each part in a turn.
struct Asked {
    connections: u64,
    /// Bytes of a message.
    size: usize,
    /// Passes, and how far apart.
    rounds: u32,
    interval: Duration,
}

/// One gateway with its clients, and what its deliveries have cost so far.
struct Part {
    writer: &'static str,
    bound: f64,
    session: Session,
    idle_us: f64,
    /// CPU µs of the gateway per delivery, turn by turn.
    cpu_us: Vec<f64>,
    net_us: Vec<f64>,
    /// The latest turn, for the figures that every publishing scenario has.
    last: Option<Phase>,
}

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let connections = connections(options.connections, 9_000)?;
    let size = options.size.unwrap_or(1_024);
    let interval = options.rate.map_or(INTERVAL, |rate| Duration::from_secs_f64(1.0 / rate));
    let rounds = options.duration.map_or(ROUNDS, |d| (d.as_secs_f64() / interval.as_secs_f64()).ceil() as u32);
    let asked = Asked { connections, size, rounds, interval };
    let mut parts = WRITERS
        .iter()
        .map(|&writer| Part::start(writer, &asked, options, report))
        .collect::<anyhow::Result<Vec<Part>>>()?;
    for part in &mut parts {
        part.idle()?;
    }
    let mut bare = Vec::new();
    for turn in 1..=TURNS {
        let passes = bare_loop(connections, size, rounds, interval, report)?;
        bare.extend(passes.paced.iter().map(|passes| mean(&passes.cpu_us_per_send)));
        for part in &mut parts {
            part.turn(turn, &asked, report)?;
        }
    }
    report.figure("bare loop, CPU a send", median(&bare), "µs");
    for part in &parts {
        part.conclude(&bare, report);
    }
    for part in parts {
        part.finish(report)?;
    }
    Ok(())
}

impl Part {
    fn start(
        (writer, bound): (&'static str, f64),
        asked: &Asked,
        options: &Options,
        report: &mut Report,
    ) -> anyhow::Result<Self> {
        let bed = Bed::split(options, &[("TIDEGATE_GATEWAY__FANOUT__WRITER", writer.to_owned())])?;
        let mut session = Session::start(bed, asked.connections, &[], report)?;
        session.warm_up("all", asked.size, report)?;
        Ok(Self { writer, bound, session, idle_us: 0.0, cpu_us: Vec::new(), net_us: Vec::new(), last: None })
    }

    /// What the gateway costs when nothing is sent, per second.
    fn idle(&mut self) -> anyhow::Result<()> {
        let idle = self.session.bed.gateway()?;
        super::session::rest(5);
        self.idle_us = self.session.bed.gateway()?.since(&idle).cpu_s() * 1e6 / 5.0;
        Ok(())
    }

    fn turn(&mut self, turn: u32, asked: &Asked, report: &mut Report) -> anyhow::Result<()> {
        let rate = (1.0 / asked.interval.as_secs_f64()).to_string();
        let (size, count) = (asked.size.to_string(), asked.rounds.to_string());
        let phase = self.session.phase(&["--to", "all", "--size", &size, "--rate", &rate, "--count", &count], 1)?;
        self.session.judge(&format!("{} {turn}", self.writer), &phase, report);
        let cpu_us = phase.processes.first().map_or(0.0, |process| process.usage.cpu_s() * 1e6);
        let frames = phase.tally.frames as f64;
        self.cpu_us.push(cpu_us / frames);
        self.net_us.push((cpu_us - self.idle_us * phase.seconds) / frames);
        let merged = phase.tally.messages as f64 / frames;
        report.bounded(&format!("{}: messages a frame, turn {turn}", self.writer), merged, "", Bound::AtMost(1.05));
        self.last = Some(phase);
        Ok(())
    }

    fn conclude(&self, bare: &[f64], report: &mut Report) {
        let Self { writer, bound, .. } = self;
        // Turn by turn, because the machine's speed changes in between; the turns then vote.
        let ratios: Vec<f64> = self.cpu_us.iter().zip(bare).map(|(gateway, bare)| gateway / bare).collect();
        let net: Vec<f64> = self.net_us.iter().zip(bare).map(|(gateway, bare)| gateway / bare).collect();
        report.figure(&format!("{writer}: gateway idle"), self.idle_us, "µs/s");
        report.figure(&format!("{writer}: CPU a delivery"), median(&self.cpu_us), "µs");
        for (turn, ratio) in ratios.iter().enumerate() {
            report.figure(&format!("{writer}: gateway ÷ bare loop, turn {}", turn + 1), *ratio, "×");
        }
        report.bounded(&format!("{writer}: gateway ÷ bare loop"), median(&ratios), "×", Bound::AtMost(*bound));
        report.figure(&format!("{writer}: gateway less idle ÷ bare loop"), median(&net), "×");
    }

    /// The last turn's figures under the writer's name, and the sums of its life.
    fn finish(self, report: &mut Report) -> anyhow::Result<()> {
        let Self { writer, session, last, .. } = self;
        if let Some(phase) = last {
            let mut figures = Report::default();
            session.figures(phase, &mut figures);
            report.absorb(&format!("{writer}, last turn"), figures);
        }
        session.reconcile(report)?;
        session.finish(report);
        Ok(())
    }
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
    report::stage("the bare loop, for comparison");
    let limit = limit::run(&options)?;
    report.part(&format!("limit {}", report.parts.len()), &limit);
    Ok(limit)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn median(values: &[f64]) -> f64 {
    crate::distribution::exact_quantile(values, 0.5)
}
