//! `bench million`: a fleet of gateways and as many client processes on one machine, within whatever open-files limit it
//! has; what they take, how long a broadcast to all of them takes, and the same for bare senders in their place.
//! This file is the command line, the story and the judgement. `shape`, `budget` and `settings` decide whether to begin,
//! `servers` and `stand` do it, `account` looks at memory, `bare` is the bare sender, `interrupt` is Ctrl-C and its like.
//! Invariant: however it ends, no process and no TIME_WAIT of it is left.

mod account;
pub mod bare;
mod budget;
mod interrupt;
mod servers;
mod settings;
mod shape;
mod stand;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::distribution::exact_quantile;
use crate::report::{self, Bound, Detail, Process, Report, number};
use crate::{clock, ending, sockets};
use account::{Look, Sockets};
use budget::SERVER_KERNEL_BYTES;
use interrupt::Interrupt;
use servers::{Bare, Setup, Tidegate};
use shape::Shape;
use stand::{Broadcast, Stood, stand};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How many connections; 40k and 1m are understood.
    #[arg(long = "for", value_name = "N", default_value = "1m", value_parser = parse_count)]
    pub connections: u64,
    /// Pushes to everybody, one after the other.
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub pushes: u32,
    /// Bytes of a message. A frame has to fit one packet: a million unread ones are a million packets in memory.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_300))]
    pub size: u32,
    /// Rest before each push.
    #[arg(long, default_value = "3s", value_parser = clock::parse_duration)]
    pub every: Duration,
    /// First the same with bare senders: as many processes that do nothing but send.
    #[arg(long)]
    pub bare: bool,
    /// How long the connections are left alone before the pushes.
    #[arg(long, default_value = "0s", value_parser = clock::parse_duration)]
    pub hold: Duration,
    /// gateway.heartbeat.idle_ms of the gateways: silence before a ping. Its default of 25 s is 40,000 pings a second for
    /// a million that share two cores with their clients.
    #[arg(long, default_value = "2m", value_parser = clock::parse_duration)]
    pub heartbeat: Duration,
    /// Connections a process holds at most; by default what the open-files limit allows.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub per_process: Option<u64>,
    /// Client processes that connect at the same time; by default one a core.
    #[arg(long, value_name = "N")]
    pub at_once: Option<usize>,
    /// One client in this many is timed; all are checked.
    #[arg(long, default_value_t = 50)]
    pub sample_every: u64,
    /// Drop the kernel's unused inodes before each look at memory (root): a monitor that lists descriptors in /proc leaves
    /// 1.8 KB a connection behind, which the account would take for the connections'.
    #[arg(long)]
    pub drop_caches: bool,
    /// Refuse to start unless every kernel setting is as `tidegate doctor` wants it.
    #[arg(long)]
    pub strict_settings: bool,
    /// Write the report here as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Say everything: each figure, and each command of the run's parts.
    #[arg(long, short)]
    pub verbose: bool,
    /// Exit 2 when a bound is missed.
    #[arg(long)]
    pub strict: bool,
    /// The binary under test; this one when absent.
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
}

/// From here on the processes' own memory is small beside the connections', and totals are judged.
const JUDGED_FROM: u64 = 100_000;
/// Both ends of a connection, everything counted.
const BOTH_ENDS_BYTES: f64 = 12_000.0;
const USER_SPACE_BYTES: f64 = 450.0;
/// Gateway and kernel over the kernel alone.
const OVER_THE_FLOOR: f64 = 1.12;
const OVER_BARE: f64 = 1.15;

/// `40000`, `40k`, `1m`, `1.5m`.
fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of connections; write 40000, 40k or 1m");
    let lower = text.to_lowercase().replace(['_', ','], "");
    let (digits, unit) = match (lower.strip_suffix('k'), lower.strip_suffix('m')) {
        (Some(digits), _) => (digits, 1e3),
        (_, Some(digits)) => (digits, 1e6),
        _ => (lower.as_str(), 1.0),
    };
    let count = digits.parse::<f64>().map_err(|_| wrong())? * unit;
    if (1.0..=1e9).contains(&count) { Ok(count as u64) } else { Err(wrong()) }
}

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    let started_ns = clock::now_ns();
    let files = sockets::connections_per_process()? + sockets::FILES_SPARE;
    let shape = Shape::new(options.connections, files, options.per_process)?;
    let needed = budget::check(&shape, Look::now(&[], &[]).available_bytes)?;
    ensure!(options.pushes > 0, "--pushes: without a push there is nothing to check");
    let amiss = settings::check(options.connections, options.strict_settings)?;
    ending::say(&format!(
        "{} connections: {} gateway and {} client processes, {} of memory at most",
        number(options.connections as f64),
        shape.processes(),
        shape.processes(),
        gigabytes(needed as f64)
    ));
    let mut outcome = Report::new("million");
    outcome.commands.push(std::env::args().collect::<Vec<_>>().join(" "));
    outcome.part("settings", &amiss);
    outcome.figure("kernel settings not as wanted", amiss.len() as f64, "");
    let interrupt = Interrupt::watch()?;
    if let Err(error) = run(&shape, options, &interrupt, &mut outcome) {
        let why = if interrupt.has_rung() { "interrupted by a signal".to_owned() } else { format!("{error:#}") };
        outcome.fault(format!("the run did not finish: {why}"));
    }
    outcome.seconds = (clock::now_ns() - started_ns) as f64 / 1e9;
    outcome.conclude();
    report::print(false, &outcome, &outcome.lines(if options.verbose { Detail::Full } else { Detail::Brief }))?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcome)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(match (outcome.sound, outcome.targets_met || !options.strict) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(2),
    })
}

fn run(shape: &Shape, options: &Options, interrupt: &Interrupt, report: &mut Report) -> anyhow::Result<()> {
    let waiting = Sockets::now().time_wait;
    let mut commands = Vec::new();
    let bare = if options.bare {
        let stood = stand(&mut Bare::start(shape)?, shape, options, interrupt, &mut commands)?;
        stood.faults.iter().for_each(|fault| report.fault(fault.clone()));
        bare_figures(&stood, shape, report);
        Some(stood)
    } else {
        None
    };
    if options.drop_caches {
        account::drop_caches()?;
    }
    let none = Look::now(&[], &[]);
    let executable = options.server.clone().map_or_else(std::env::current_exe, Ok)?;
    let setup = Setup { executable, heartbeat: options.heartbeat, is_compared: options.bare, interrupt };
    let mut fleet = Tidegate::start(shape, &setup, &mut commands)?;
    let stood = stand(&mut fleet, shape, options, interrupt, &mut commands)?;
    drop(fleet);
    report.commands.extend(commands);
    stood.faults.iter().for_each(|fault| report.fault(fault.clone()));
    memory_figures(&stood, none, shape, report);
    broadcast_figures(&stood, shape, report);
    if let Some(bare) = &bare {
        let ratio = median(&stood, |b| b.first_to_last_ms) / median(bare, |b| b.first_to_last_ms);
        report.bounded("first to last, gateway ÷ bare (medians)", ratio, "×", Bound::AtMost(OVER_BARE));
        report.part("bare", bare);
    }
    report.figure("taken down in", stood.down_s, "s");
    let left = Sockets::now().time_wait.saturating_sub(waiting) as f64;
    // Health checks and pushes are closed in the ordinary way; a thousandth of the clients they are not.
    let most = (shape.connections / 1_000 + 100) as f64;
    report.bounded("TIME_WAIT sockets more than before", left, "", Bound::AtMost(most));
    report.part("tidegate", &stood);
    Ok(())
}

/// The account: what stands while all are connected and nobody is pushed to.
fn memory_figures(stood: &Stood, none: Look, shape: &Shape, report: &mut Report) {
    let Stood { empty, few, full, few_connections, .. } = stood;
    let connections = shape.connections as f64;
    let grown = |of: fn(&Look) -> u64, from: &Look| of(full) as f64 - of(from) as f64;
    let slope = |of: fn(&Look) -> u64| grown(of, few) / (connections - *few_connections as f64).max(1.0);

    report.figure("connections", connections, "");
    report.figure("gateway processes, and as many of clients", shape.processes() as f64, "");
    report.figure("ramp", stood.ramp_s, "s");
    report.figure("connected a second", connections / stood.ramp_s.max(1e-9), "/s");
    let both = grown(|look| look.used_bytes, &none);
    judge(report, shape, "memory, both ends and all processes", (both, "B"), BOTH_ENDS_BYTES * connections);
    report.figure("the same a connection", both / connections, "B");
    report.figure("MemAvailable less", none.available_bytes as f64 - full.available_bytes as f64, "B");
    report.figure("kernel slab a connection, both ends", slope(|look| look.slab_bytes), "B");
    report.figure("TCP buffers while idle", full.sockets.pages as f64, "pages");
    let user = slope(|look| look.servers.rss_bytes);
    judge(report, shape, "gateway RSS a connection (slope, 5 % to all)", (user, "B"), USER_SPACE_BYTES);
    let over = (user + SERVER_KERNEL_BYTES as f64) / SERVER_KERNEL_BYTES as f64;
    judge(report, shape, "(gateway + kernel's 4,045 B) ÷ kernel's", (over, "×"), OVER_THE_FLOOR);
    report.figure("gateway anonymous a connection (slope)", slope(|look| look.servers.anonymous_bytes), "B");
    let from_empty = grown(|look| look.servers.rss_bytes, empty) / connections;
    report.figure("gateway RSS a connection (from empty)", from_empty, "B");
    report.figure("client RSS a connection (slope)", slope(|look| look.clients.rss_bytes), "B");
    let processes = shape.processes() as f64;
    report.figure("gateway RSS, no connection, each", empty.servers.rss_bytes as f64 / processes, "B");
    report.figure("gateway anonymous, no connection, each", empty.servers.anonymous_bytes as f64 / processes, "B");
    report.figure("client process RSS, no connection, each", empty.clients.rss_bytes as f64 / processes, "B");
    report.processes.push(Process { name: "gateways, idle".to_owned(), usage: full.servers });
    report.processes.push(Process { name: "clients, idle".to_owned(), usage: full.clients });
}

/// A figure that only a large fleet is judged by.
fn judge(report: &mut Report, shape: &Shape, name: &str, (value, unit): (f64, &str), most: f64) {
    if shape.connections >= JUDGED_FROM {
        report.bounded(name, value, unit, Bound::AtMost(most));
    } else {
        report.figure(name, value, unit);
    }
}

fn broadcast_figures(stood: &Stood, shape: &Shape, report: &mut Report) {
    let connections = shape.connections as f64;
    let least = |of: fn(&Broadcast) -> u64| stood.broadcasts.iter().map(of).min().unwrap_or(0) as f64;
    report.bounded("receipt: matched, fewest", least(|b| b.matched), "", Bound::Exactly(connections));
    report.bounded("clients that had each push, fewest", least(|b| b.receivers), "", Bound::Exactly(connections));
    pushes(stood, "gateway", report);
    report.figure("receipt after, median", median(stood, |b| b.answered_ms), "ms");
    report.figure("last client after the push, median", median(stood, |b| b.last_ms), "ms");
    report.figure("gateway CPU a delivery, median", median(stood, |b| b.server_us), "µs");
    report.figure("client CPU a delivery, median", median(stood, |b| b.client_us), "µs");
    report.figure("pings during the pushes", stood.broadcasts.iter().map(|b| b.pings).sum::<u64>() as f64, "");
    if let Some(last) = stood.broadcasts.last() {
        report.latency("push → read, last", &last.swarm.latency_us);
    }
}

fn bare_figures(stood: &Stood, shape: &Shape, report: &mut Report) {
    let Stood { few, full, few_connections, .. } = stood;
    let slab = full.slab_bytes as f64 - few.slab_bytes as f64;
    let more = (shape.connections - few_connections).max(1) as f64;
    report.figure("bare: connected a second", shape.connections as f64 / stood.ramp_s.max(1e-9), "/s");
    report.figure("bare: kernel slab a connection, both ends", slab / more, "B");
    pushes(stood, "bare", report);
    report.figure("bare: sender CPU a delivery, median", median(stood, |b| b.server_us), "µs");
    report.figure("bare: client CPU a delivery, median", median(stood, |b| b.client_us), "µs");
}

fn pushes(stood: &Stood, who: &str, report: &mut Report) {
    for (index, broadcast) in stood.broadcasts.iter().enumerate() {
        report.figure(&format!("{who}: push {}, first to last", index + 1), broadcast.first_to_last_ms, "ms");
    }
    report.figure(&format!("{who}: bytes of a frame"), median(stood, |b| b.frame_bytes), "B");
}

fn median(stood: &Stood, of: fn(&Broadcast) -> f64) -> f64 {
    exact_quantile(&stood.broadcasts.iter().map(of).collect::<Vec<_>>(), 0.5)
}

fn gigabytes(bytes: f64) -> String {
    format!("{:.1} GB", bytes / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_people_write_them() {
        assert_eq!(parse_count("1m"), Ok(1_000_000));
        assert_eq!(parse_count("1.5M"), Ok(1_500_000));
        assert_eq!(parse_count("40k"), Ok(40_000));
        assert_eq!(parse_count("40_000"), Ok(40_000));
        assert!(parse_count("0").is_err() && parse_count("many").is_err() && parse_count("2g").is_err());
    }
}
