//! A swarm: N light WebSocket clients that check every message they get.
//! This file is the command line; `plan` says who the clients are, `worker` holds them, `ledger` judges.
//! Other modes share the sockets only: `churn` (handshakes per second), `quiet` (sockets that say nothing, or little).

pub mod assembly;
pub mod churn;
pub mod commands;
pub mod crew;
pub mod inflate;
pub mod mint;
pub mod plan;
pub mod quiet;
mod ramp;
mod reading;
pub mod tally;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::dialect::Dialect;
use crate::ledger::Expected;
use crate::pattern::Pattern;
use crate::shares::shares;
use crate::{clock, report, sockets};
use crew::{Crew, serve_control};
use mint::Mint;
use plan::Plan;
use tally::Tally;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to connect.
    #[arg(long, default_value = "ws://127.0.0.1:8000/ws")]
    pub url: String,
    /// What the server speaks: tidegate, or a peer of `bench peers`.
    #[arg(long, default_value = "tidegate", value_parser = crate::dialect::named)]
    pub dialect: &'static dyn Dialect,
    /// How many clients.
    #[arg(long, default_value_t = 1_000)]
    pub connections: u64,
    /// Rooms that every client joins.
    #[arg(long, value_delimiter = ',')]
    pub rooms: Vec<Pattern>,
    /// A room by the client's number, such as room-{i%100}. May be repeated.
    #[arg(long)]
    pub room_pattern: Vec<Pattern>,
    /// The user's name by the client's number, such as user-{i}. Without it clients are anonymous.
    #[arg(long)]
    pub user_pattern: Option<Pattern>,
    #[arg(long)]
    pub platform: Option<String>,
    /// Give each client a token (HS256, by this secret) for its user and platform, instead of letting it name itself.
    #[arg(long, value_name = "SECRET", requires = "user_pattern")]
    pub token_secret: Option<String>,
    /// An attribute in the tokens, such as lang=l{i%5}. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", requires = "token_secret")]
    pub attribute: Vec<String>,
    /// Connects per second; as fast as both sides can when absent.
    #[arg(long)]
    pub connect_rate: Option<f64>,
    /// Processes to spread over; by default as few as the open-files limit allows.
    #[arg(long)]
    pub processes: Option<u64>,
    /// Threads of each process.
    #[arg(long, default_value_t = 1)]
    pub threads: u64,
    /// How long to hold the connections.
    #[arg(long, default_value = "60s", value_parser = clock::parse_duration)]
    pub hold: Duration,
    /// One client in this many stops reading once it is connected.
    #[arg(long)]
    pub stalled_every: Option<u64>,
    /// Receive buffer of each client socket in bytes; the system's default when absent.
    #[arg(long)]
    pub receive_bytes: Option<usize>,
    /// Offer permessage-deflate without context takeover, insist on it, and inflate what comes compressed.
    #[arg(long)]
    pub deflate: bool,
    /// One client in this many is timed.
    #[arg(long, default_value_t = 50)]
    pub sample_every: u64,
    /// Publishers 0..this are checked.
    #[arg(long, default_value_t = 4)]
    pub publishers: usize,
    /// The publishers are running already: what came before a client's first message is not missing.
    #[arg(long)]
    pub late: bool,
    /// At the end expect that PUBLISHER's messages 0..COUNT went to TO. May be repeated.
    #[arg(long, value_name = "PUBLISHER:COUNT:TO", value_parser = parse_expected)]
    pub expect: Vec<Expected>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json_lines: bool,
    /// Instead: connect, upgrade, reset, again, for this long.
    #[arg(long, value_parser = clock::parse_duration)]
    pub handshakes: Option<Duration>,
    /// Handshakes in flight at any time, over all threads.
    #[arg(long, default_value_t = 512)]
    pub concurrency: usize,
    /// Instead: open this many sockets and say nothing on them.
    #[arg(long)]
    pub half_open: Option<u64>,
    /// Instead: open this many sockets and send one byte of a request head a second on each.
    #[arg(long)]
    pub slow_headers: Option<u64>,
    /// Obey JSON lines on stdin: for programs that steer a swarm.
    #[arg(long, hide = true)]
    pub control: bool,
    /// Global number of the first client of this process, and clients in all processes together.
    #[arg(long, hide = true, default_value_t = 0)]
    pub first: u64,
    #[arg(long, hide = true)]
    pub total: Option<u64>,
    /// Dial nobody until told to; end every socket by RST, even when this process is killed.
    #[arg(long, hide = true)]
    pub paused: bool,
    #[arg(long, hide = true)]
    pub abortive: bool,
}

fn parse_expected(text: &str) -> Result<Expected, String> {
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    match parts[..] {
        [publisher, count, ref to @ ..] => {
            let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
            let to = to.first().copied().unwrap_or("all").to_owned();
            Ok(Expected { publisher: number(publisher)?, count: number(count)?, refused: 0, to })
        }
        _ => Err(format!("`{text}`: expected PUBLISHER:COUNT or PUBLISHER:COUNT:TO")),
    }
}

impl Options {
    fn plan(&self) -> anyhow::Result<Plan> {
        let mut plan = Plan::new(&self.url, self.total.unwrap_or(self.connections))?;
        plan.dialect = self.dialect;
        plan.user.clone_from(&self.user_pattern);
        plan.platform.clone_from(&self.platform);
        plan.mint = self.token_secret.as_ref().map(|secret| Mint::new(secret, &self.attribute)).transpose()?;
        plan.rooms = self.rooms.iter().chain(&self.room_pattern).cloned().collect();
        plan.publishers = self.publishers.max(1);
        plan.from_zero = !self.late;
        plan.stalled_every = self.stalled_every;
        plan.receive_bytes = self.receive_bytes;
        plan.deflate = self.deflate;
        plan.sample_every = self.sample_every.max(1);
        plan.connect_rate = self.connect_rate;
        (plan.paused, plan.abortive) = (self.paused, self.abortive);
        Ok(plan)
    }

    /// The arguments of a child that holds `count` clients from `first` on.
    fn arguments(&self, first: u64, count: u64) -> Vec<String> {
        let share = self.connect_rate.map(|rate| rate * count as f64 / self.connections as f64);
        let total = self.total.unwrap_or(self.connections);
        let rooms = self.rooms.iter().chain(&self.room_pattern).map(|room| Some(room.source().to_owned()));
        let mut named: Vec<(&str, Option<String>)> = vec![
            ("--url", Some(self.url.clone())),
            ("--dialect", Some(self.dialect.name().to_owned())),
            ("--connections", Some(count.to_string())),
            ("--first", Some(first.to_string())),
            ("--total", Some(total.to_string())),
            ("--processes", Some("1".to_owned())),
            ("--threads", Some(self.threads.to_string())),
            ("--user-pattern", self.user_pattern.as_ref().map(|user| user.source().to_owned())),
            ("--platform", self.platform.clone()),
            ("--token-secret", self.token_secret.clone()),
            ("--connect-rate", share.map(|rate| rate.to_string())),
            ("--stalled-every", self.stalled_every.map(|every| every.to_string())),
            ("--receive-bytes", self.receive_bytes.map(|bytes| bytes.to_string())),
            ("--sample-every", Some(self.sample_every.to_string())),
            ("--publishers", Some(self.publishers.to_string())),
        ];
        named.extend(rooms.map(|room| ("--room-pattern", room)));
        named.extend(self.attribute.iter().map(|attribute| ("--attribute", Some(attribute.clone()))));
        let pairs = named.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let switches = [
            ("--late", self.late),
            ("--deflate", self.deflate),
            ("--paused", self.paused),
            ("--abortive", self.abortive),
        ];
        let switches = switches.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.to_owned());
        pairs.flatten().chain(switches).collect()
    }

    fn crew(&self) -> anyhow::Result<Crew> {
        let per_process = sockets::connections_per_process()?;
        let processes = self.processes.unwrap_or_else(|| self.connections.div_ceil(per_process)).max(1);
        let most = shares(self.connections, processes).max().unwrap_or(0);
        ensure!(most <= per_process, "{most} connections do not fit a process: its limit allows {per_process}");
        if processes == 1 {
            return Crew::threads(&Arc::new(self.plan()?), self.first, self.connections, self.threads);
        }
        let mut first = self.first;
        let lists = shares(self.connections, processes).map(|count| {
            let arguments = self.arguments(first, count);
            first += count;
            arguments
        });
        Crew::processes(&lists.collect::<Vec<_>>())
    }
}

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(duration) = options.handshakes {
        let outcome = churn::run(&options.plan()?, duration, options.concurrency, options.threads)?;
        return report::print(options.json_lines, &outcome, &outcome.lines());
    }
    if let Some(count) = options.half_open.or(options.slow_headers) {
        let outcome = quiet::run(&options.plan()?, count, options.slow_headers.is_some(), options.hold)?;
        return report::print(options.json_lines, &outcome, &outcome.lines());
    }
    let mut crew = options.crew()?;
    if options.control {
        serve_control(crew)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bar = report::progress(options.connections, "connecting");
    let ready = crew.ready(|open| bar.set_position(open))?;
    bar.finish_and_clear();
    ensure!(ready.open > 0, "no client could connect: {:?}", ready.oddities);
    crate::ending::say(&format!("{} of {} clients open after {:.1} s", ready.open, ready.connections, ready.ramp_s));
    clock::pause(options.hold);
    let tally = crew.report(&options.expect, SETTLE_MS).context("the swarm did not report")?;
    report::print(options.json_lines, &tally, &tally.lines())?;
    let faultless = tally.standing.faults() == 0 && tally.failed == 0;
    Ok(if faultless { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Nothing for this long means that nothing more will come.
const SETTLE_MS: u64 = 2_000;

impl Tally {
    /// The report for people: the worst first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let standing = &self.standing;
        if standing.faults() > 0 {
            lines.push(report::loss_line(standing));
            lines.extend(standing.examples.iter().map(|example| format!("  {example}")));
        }
        let (open, asked, failed) = (self.open, self.connections, self.failed);
        lines.push(format!("clients      {open} open of {asked}, {failed} failed, ramp {:.2} s", self.ramp_s));
        lines.push(report::distribution_line("handshake", "µs", &self.handshake_us));
        lines.push(format!("received     {} messages in {} frames, {} bytes", self.messages, self.frames, self.bytes));
        lines.push(report::distribution_line("latency", "µs", &self.latency_us));
        lines.push(report::distribution_line("per frame", "messages", &self.per_frame));
        for (what, count) in [("closed", &self.closed), ("closed slow", &self.closed_stalled), ("odd", &self.oddities)]
        {
            if !count.is_empty() {
                lines.push(format!("{what:<12} {count:?}"));
            }
        }
        lines.extend(self.gaps.iter().map(|(reason, count)| format!("gap          {reason}: {count:?}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_child_is_told_everything_its_clients_depend_on() {
        use clap::Parser as _;
        let line = "swarm --url ws://127.0.0.1:1/ws --connections 100 --room-pattern r{i%7} --rooms a,b \
                    --user-pattern u{i} --platform web --connect-rate 50 --stalled-every 9 --late --deflate --paused \
                    --abortive --token-secret shh --attribute lang=l{i%5}";
        let parent = Line::try_parse_from(line.split_ascii_whitespace()).expect("parses").options;

        let arguments = parent.arguments(40, 20);
        let child = Line::try_parse_from(["swarm".to_owned()].into_iter().chain(arguments)).expect("parses").options;

        let (ours, theirs) = (parent.plan().expect("a plan"), child.plan().expect("a plan"));
        assert_eq!((child.first, child.connections, theirs.total), (40, 20, 100));
        assert!(String::from_utf8_lossy(&ours.request(57)).contains("Authorization: Bearer "));
        assert_eq!(ours.request(57).len(), theirs.request(57).len(), "but for the second in which it was minted");
        assert_eq!(ours.rooms(57), theirs.rooms(57));
        assert_eq!(theirs.connect_rate, Some(10.0));
        assert!(theirs.deflate && String::from_utf8_lossy(&theirs.request(57)).contains("permessage-deflate"));
        assert_eq!((theirs.stalled_every, theirs.from_zero), (Some(9), false));
        assert!(theirs.paused && theirs.abortive);
    }

    #[test]
    fn an_expectation_without_an_audience_is_for_all() {
        let expected = parse_expected("1:2000").expect("parses");
        let room = parse_expected("1:2000:room:a").expect("parses");

        assert_eq!((expected.publisher, expected.count, expected.to.as_str()), (1, 2_000, "all"));
        assert_eq!(room.to, "room:a");
    }
}
