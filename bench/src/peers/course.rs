//! The course: what is measured of one server, in the same order and with the same clients for all.
//! Memory: a fifth of the clients connect, rest, the others, rest. Pace: broadcasts at a moderate rate. Climb: twice the
//! rate, and again, until latency grows beyond a second or something is lost. Then handshakes.
//! Knows no peer; judges no figure (see `table`). Everything it starts ends with it.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::kit::{Kit, Program};
use super::server::Server;
use super::{Options, Peer};
use crate::clock;
use crate::distribution::Distribution;
use crate::ledger::Expected;
use crate::limit::{self, Cadence};
use crate::process::Usage;
use crate::publish::Published;
use crate::report::{self, Process, Report};
use crate::swarm::churn::Churned;
use crate::swarm::crew::Crew;
use crate::swarm::tally::Tally;

/// Everything measured of one server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub version: String,
    pub processes: usize,
    /// Connections and bytes of memory at rest (pages shared between its processes count once).
    pub memory: Vec<(u64, u64)>,
    pub bytes_per_connection: Option<f64>,
    /// User and system time of all its processes over all deliveries of the pace.
    pub cpu_us_per_delivery: Option<f64>,
    pub latency_us: Distribution,
    /// When all clients had a message, where latency was not measured client by client.
    pub received_ms: Option<f64>,
    /// Messages in a frame while paced, and at the most.
    pub per_frame: f64,
    pub climb: Vec<Step>,
    pub deliveries_per_s: Option<f64>,
    pub handshakes_per_s: Option<f64>,
    /// Messages delivered in each second of the pace.
    pub by_second: Vec<u64>,
}

/// One rate of the climb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Messages a second, each to every client.
    pub rate: f64,
    /// From the first message's due time to the last client's last message.
    pub deliveries_per_s: f64,
    pub p99_us: u64,
    pub per_frame: f64,
    /// Nothing was missing at any client.
    pub is_whole: bool,
}

impl Step {
    /// Whether the next rate is worth trying.
    fn keeps_up(&self) -> bool {
        self.is_whole && self.p99_us <= LATENCY_MAX_US
    }
}

pub struct Course {
    connections: u64,
    size: usize,
    rate: f64,
    pace: Duration,
    step: Duration,
    churn: Duration,
    /// Looks at memory before it must be at rest, and how far apart.
    looks: usize,
    look: Duration,
    /// Steps of the climb at most.
    steps: usize,
}

/// The first rate of the climb, and how many doublings at most.
const CLIMB_FROM: f64 = 20.0;
const STEPS_MAX: usize = 9;
/// Beyond this p99 a server is behind: no merge window is longer.
const LATENCY_MAX_US: u64 = 1_000_000;
/// Publishers of one swarm: warm-up, pace, steps.
const PUBLISHERS: u32 = 2 + STEPS_MAX as u32;
/// Nothing for this long means that nothing more will come.
const SETTLE_MS: u64 = 2_000;
/// One client in so many is timed: the same for all.
const SAMPLE: &str = "4";
/// Memory is at rest when it moved less than this part of itself over so many looks. Allocators give back seconds late.
const REST: f64 = 0.002;
const REST_LOOKS: usize = 3;

/// Clients in two swarms (a fifth, then the rest), and what they must have by now.
struct Load {
    crews: Vec<Crew>,
    expected: Vec<Expected>,
    publishers: u32,
}

struct Phase {
    published: Published,
    tally: Tally,
    usage: Usage,
    seconds: f64,
}

impl Course {
    pub fn new(options: &Options) -> Self {
        let seconds = |s: f64| Duration::from_secs_f64(if options.brief { s / 10.0 } else { s });
        let (connections, size, rate) = (options.connections, options.size, options.rate);
        let (pace, step, churn) = (seconds(options.pace.as_secs_f64()), seconds(2.0), seconds(4.0));
        let (looks, steps) = if options.brief { (1, 2) } else { (10, STEPS_MAX) };
        Self { connections, size, rate, pace, step, churn, looks, look: seconds(1.0), steps }
    }

    /// The bare loop at the pace and back to back: what is possible when nothing is done but to send.
    pub fn bare(&self, report: &mut Report) -> anyhow::Result<Row> {
        let interval = Duration::from_secs_f64(1.0 / self.rate);
        let options = limit::Options {
            connections: self.connections,
            size: self.size,
            rounds: (self.pace.as_secs_f64() * self.rate).ceil() as u32,
            interval,
            cadence: Cadence::Both,
            json_lines: true,
            drain: None,
            pass_bytes: 0,
        };
        let limit = limit::run(&options)?;
        let (rounds, interval_ms) = (options.rounds, interval.as_millis());
        report.commands.push(format!(
            "tidegate bench limit --connections {} --size {} --rounds {rounds} --interval {interval_ms}ms",
            self.connections, self.size
        ));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let (paced, hot) = (limit.paced.unwrap_or_default(), limit.back_to_back.unwrap_or_default());
        Ok(Row {
            name: "bare loop".to_owned(),
            version: "send in a loop, one thread".to_owned(),
            processes: 1,
            cpu_us_per_delivery: Some(mean(&paced.cpu_us_per_send)),
            received_ms: Some(paced.received_ms.iter().copied().fold(0.0, f64::max)),
            per_frame: 1.0,
            deliveries_per_s: Some(self.connections as f64 * 1e3 / mean(&hot.received_ms).max(1e-9)),
            ..Row::default()
        })
    }

    pub fn run(
        &self,
        peer: &'static dyn Peer,
        program: &Program,
        kit: &Kit,
        report: &mut Report,
    ) -> anyhow::Result<Row> {
        let server = Server::start(peer, program, kit)?;
        report.commands.push(server.command.clone());
        let mut row = Row { name: peer.name().to_owned(), version: program.version.clone(), ..Row::default() };
        row.processes = server.processes();
        let mut load = self.connect(&server, &mut row)?;
        let warm_up = load.phase(self, &server, 5.0, 5)?;
        warm_up.judge(peer, "warm-up", report);
        let messages = (self.pace.as_secs_f64() * self.rate).ceil() as u32;
        let paced = load.phase(self, &server, self.rate, messages)?;
        paced.judge(peer, "pace", report);
        paced.note(peer, &mut row, report);
        self.climb(&server, &mut load, &mut row)?;
        drop(load);
        let churned = self.churn(&server)?;
        row.handshakes_per_s = Some(churned.per_second);
        if !churned.failed.is_empty() {
            report.fault(format!("{}: handshakes failed: {:?}", peer.name(), churned.failed));
        }
        report.part(peer.name(), &row);
        Ok(row)
    }

    /// Connects everyone and takes the server's memory at rest: with nobody, with a fifth, with all.
    fn connect(&self, server: &Server, row: &mut Row) -> anyhow::Result<Load> {
        let few = self.connections / 5;
        let mut load = Load { crews: Vec::new(), expected: Vec::new(), publishers: 0 };
        row.memory.push((0, self.at_rest(server)?));
        for (first, count) in [(0, few), (few, self.connections - few)] {
            let numbers = [("--first", first), ("--connections", count), ("--total", self.connections)];
            let words = [("--url", server.url.as_str()), ("--dialect", server.name), ("--sample-every", SAMPLE)];
            let publishers = ("--publishers", u64::from(PUBLISHERS));
            let numbers = numbers.iter().chain([&publishers]).flat_map(|(name, n)| [(*name).to_owned(), n.to_string()]);
            let words = words.iter().flat_map(|(name, word)| [*name, *word].map(str::to_owned));
            let mut crew = Crew::processes(&[words.chain(numbers).collect()])?;
            let bar = report::progress(count, server.name);
            let ready = crew.ready(|open| bar.set_position(open))?;
            bar.finish_and_clear();
            ensure!(ready.failed == 0, "{} of {count} clients could not connect: {:?}", ready.failed, ready.oddities);
            load.crews.push(crew);
            row.memory.push((first + count, self.at_rest(server)?));
        }
        let [_, (few, at_few), (all, at_all)] = row.memory[..] else { anyhow::bail!("three looks were taken") };
        // A server that gave back more than the clients took has no slope to tell: better no figure than a negative one.
        let slope = (at_all as f64 - at_few as f64) / (all - few) as f64;
        row.bytes_per_connection = (slope > 0.0).then_some(slope);
        Ok(load)
    }

    fn at_rest(&self, server: &Server) -> anyhow::Result<u64> {
        let mut looks = vec![server.usage()?.pss_bytes];
        while looks.len() <= self.looks && !is_at_rest(&looks) {
            clock::pause(self.look);
            looks.push(server.usage()?.pss_bytes);
        }
        Ok(looks.last().copied().unwrap_or(0))
    }

    fn climb(&self, server: &Server, load: &mut Load, row: &mut Row) -> anyhow::Result<()> {
        let mut rate = CLIMB_FROM;
        for _ in 0..self.steps {
            let messages = (rate * self.step.as_secs_f64()).ceil() as u32;
            let phase = load.phase(self, server, rate, messages)?;
            let step = phase.step(rate);
            row.climb.push(step);
            if !step.keeps_up() {
                break;
            }
            rate *= 2.0;
        }
        let whole = row.climb.iter().filter(|step| step.is_whole).map(|step| step.deliveries_per_s);
        row.deliveries_per_s = whole.reduce(f64::max);
        Ok(())
    }

    fn churn(&self, server: &Server) -> anyhow::Result<Churned> {
        let duration = format!("{}ms", self.churn.as_millis());
        let words = ["--url", &server.url, "--dialect", server.name, "--handshakes", &duration];
        let mut command = Command::new(std::env::current_exe()?);
        // A thread a core and as many in flight as any server here can use: at 64, by one thread, the client is what is measured.
        let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        command.args(["bench", "swarm", "--json-lines", "--concurrency", "512", "--threads", &cores]).args(words);
        let output = command.stdout(Stdio::piped()).spawn()?.wait_with_output()?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("the swarm ended with {}", output.status))
    }
}

/// Whether the last looks agree.
fn is_at_rest(looks: &[u64]) -> bool {
    let Some(recent) = looks.len().checked_sub(REST_LOOKS + 1).and_then(|start| looks.get(start..)) else {
        return false;
    };
    let (low, high) = recent.iter().fold((u64::MAX, 0), |(low, high), look| (low.min(*look), high.max(*look)));
    (high - low) as f64 <= high as f64 * REST
}

impl Load {
    /// Publishes `messages` at `rate` to everyone, waits for the last of them, and adds up.
    fn phase(&mut self, course: &Course, server: &Server, rate: f64, messages: u32) -> anyhow::Result<Phase> {
        self.crews.iter_mut().try_for_each(Crew::reset)?;
        let before = server.usage()?;
        let published = self.publish(course, server, rate, messages)?;
        self.publishers += 1;
        self.expected.extend(published.expected.iter().cloned());
        let mut tally = Tally::default();
        for crew in &mut self.crews {
            tally.merge(crew.report(&self.expected, SETTLE_MS)?);
        }
        let usage = server.usage()?.since(&before);
        let last_ns = tally.arrivals.iter().map(|arrival| arrival.last_ns).max().unwrap_or(published.started_ns);
        let seconds = last_ns.saturating_sub(published.started_ns) as f64 / 1e9;
        Ok(Phase { published, tally, usage, seconds })
    }

    /// Runs the next publisher.
    fn publish(&self, course: &Course, server: &Server, rate: f64, messages: u32) -> anyhow::Result<Published> {
        let words = [
            ("--api", server.publish_url()),
            ("--dialect", server.name.to_owned()),
            ("--publisher", self.publishers.to_string()),
            ("--rate", rate.to_string()),
            ("--count", messages.to_string()),
            ("--size", course.size.to_string()),
            ("--in-flight", "1024".to_owned()),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "publish", "--json-lines"]).stdout(Stdio::piped());
        command.args(words.iter().flat_map(|(name, value)| [*name, value]));
        let output = command.spawn()?.wait_with_output()?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("the publisher ended with {}", output.status))
    }
}

impl Phase {
    fn is_whole(&self) -> bool {
        let Self { published, tally, .. } = self;
        let refused = published.refused.values().sum::<u64>() + published.unanswered;
        tally.standing.faults() + tally.standing.excused + refused == 0 && tally.closed.is_empty()
    }

    fn per_frame(&self) -> f64 {
        self.tally.messages as f64 / (self.tally.frames as f64).max(1.0)
    }

    /// Where everything must have arrived, whatever did not is a fault of the run.
    fn judge(&self, peer: &dyn Peer, part: &str, report: &mut Report) {
        let Self { published, tally, .. } = self;
        let name = peer.name();
        if !self.is_whole() {
            let loss = report::loss_line(&tally.standing);
            report.fault(format!(
                "{name}, {part}: {loss}; excused {}, closed {:?}, refused {:?}, unanswered {}",
                tally.standing.excused, tally.closed, published.refused, published.unanswered
            ));
        }
        if !tally.oddities.is_empty() {
            report.fault(format!("{name}, {part}: odd: {:?}", tally.oddities));
        }
    }

    /// The figures of the pace.
    fn note(&self, peer: &dyn Peer, row: &mut Row, report: &mut Report) {
        row.cpu_us_per_delivery = Some(self.usage.cpu_s() * 1e6 / (self.tally.messages as f64).max(1.0));
        row.latency_us = self.tally.latency_us.clone();
        row.per_frame = self.per_frame();
        row.by_second = self.tally.seconds();
        report.latency(peer.name(), &row.latency_us);
        report.processes.push(Process { name: peer.name().to_owned(), usage: self.usage });
    }

    fn step(&self, rate: f64) -> Step {
        Step {
            rate,
            deliveries_per_s: self.tally.messages as f64 / self.seconds.max(1e-9),
            p99_us: self.tally.latency_us.quantile(0.99),
            per_frame: self.per_frame(),
            is_whole: self.is_whole(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_rests_only_when_the_last_looks_agree() {
        assert!(!is_at_rest(&[1_000, 1_000, 1_000]), "too few looks");
        assert!(!is_at_rest(&[1_000, 1_000, 1_000, 1_010]));
        assert!(is_at_rest(&[9_000, 1_000, 1_000, 1_001, 1_001]));
    }

    #[test]
    fn a_climb_goes_on_only_from_a_step_that_was_whole_and_in_time() {
        let step = Step { is_whole: true, p99_us: LATENCY_MAX_US, ..Step::default() };

        assert!(step.keeps_up());
        assert!(!Step { is_whole: false, ..step }.keeps_up());
        assert!(!Step { p99_us: LATENCY_MAX_US + 1, ..step }.keeps_up());
    }
}
