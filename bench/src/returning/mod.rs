//! Clients that come back: each holds one connection to one of several gateways, obeys what the server says about coming
//! back (HELLO, GOAWAY, closes, 503), picks another gateway as a load balancer would, and checks what it gets.
//! This file is the process and what is said with the scenario that steers it (JSON lines); `engine` holds the sockets,
//! `policy` says when to come back, `witness` judges. For the scenarios `storm` and `rolling`.

mod engine;
mod policy;
pub mod witness;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use engine::Engine;
use witness::{Faults, Rules};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateways, as ws:// URLs.
    #[arg(long, required = true)]
    pub gateway: Vec<String>,
    #[arg(long)]
    pub connections: u64,
    /// Number of the first client, for its source address.
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Connects a second at the start.
    #[arg(long, default_value_t = 5_000.0)]
    pub ramp_rate: f64,
    /// One client in this many heeds GOAWAY by itself; the others wait for the close.
    #[arg(long, default_value_t = 3)]
    pub heed_every: u64,
    /// The publisher's messages a second, and how long one may wait to be flushed.
    #[arg(long, default_value_t = 1.0)]
    pub rate: f64,
    #[arg(long, default_value_t = 1_500)]
    pub flush_ms: u64,
}

impl Options {
    fn rules(&self) -> Rules {
        Rules { period_ns: (1e9 / self.rate).max(1.0) as u64, flush_ns: self.flush_ms * 1_000_000 }
    }
}

/// What the scenario says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    /// Which gateways a load balancer would send clients to.
    Live { gateways: Vec<bool> },
    /// All connections end at once, by RST.
    Drop,
    /// How do you stand, when the publisher has sent so many messages?
    Report { published: u32 },
}

/// How the clients stand: the answer to every order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    pub open: u64,
    /// Open clients that do not have the publisher's last message.
    pub behind: u64,
    /// The last moment at which a client became open, and at which all were dropped.
    pub opened_ns: u64,
    pub dropped_ns: u64,
    /// Connections opened in each tenth of a second since the machine's start, by gateway.
    pub opened: Vec<BTreeMap<u64, u64>>,
    /// Answers 503, by `Retry-After`.
    pub refused: BTreeMap<String, u64>,
    /// Attempts that ended otherwise, and how.
    pub failed: BTreeMap<String, u64>,
    /// How connections ended: close codes, `heeded GOAWAY`, `reset`, …
    pub ended: BTreeMap<String, u64>,
    pub messages: u64,
    /// From losing a connection to having the next, in µs.
    pub away_us: Distribution,
    pub faults: Faults,
}

impl Standing {
    fn merge(&mut self, other: Self) {
        self.open += other.open;
        self.behind += other.behind;
        self.opened_ns = self.opened_ns.max(other.opened_ns);
        self.dropped_ns = self.dropped_ns.max(other.dropped_ns);
        self.opened.resize(self.opened.len().max(other.opened.len()), BTreeMap::new());
        for (sum, opened) in self.opened.iter_mut().zip(other.opened) {
            add(sum, opened);
        }
        add(&mut self.refused, other.refused);
        add(&mut self.failed, other.failed);
        add(&mut self.ended, other.ended);
        self.messages += other.messages;
        self.away_us.merge(&other.away_us);
        self.faults.merge(other.faults);
    }

    /// Most connections that a gateway let in within one second, from `from_ns` on.
    pub fn peak_per_s(&self, from_ns: u64) -> u64 {
        let from = from_ns / TENTH_NS;
        let peak = |opened: &BTreeMap<u64, u64>| {
            opened.range(from..).map(|(tenth, _)| opened.range(*tenth..tenth + 10).map(|(_, n)| n).sum()).max()
        };
        self.opened.iter().filter_map(peak).max().unwrap_or(0)
    }
}

const TENTH_NS: u64 = 100_000_000;

fn add<K: Ord>(sum: &mut BTreeMap<K, u64>, other: BTreeMap<K, u64>) {
    for (name, count) in other {
        *sum.entry(name).or_default() += count;
    }
}

/// The process: orders on stdin, answers on stdout, the end with the end of stdin.
pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    crate::sockets::connections_per_process()?;
    let orders = listen()?;
    let mut engine = Engine::new(options)?;
    engine.run(&orders, |standing| {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, standing)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn listen() -> anyhow::Result<Receiver<Order>> {
    let (heard, orders) = sync_channel(16);
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        // Whoever says what is no order, or speaks to nobody, is not heard any more.
        for order in lines.map_while(|line| serde_json::from_str(&line).ok()) {
            if heard.send(order).is_err() {
                return;
            }
        }
    })?;
    Ok(orders)
}

/// Several such processes as one.
#[derive(Debug)]
pub struct Returning {
    members: Vec<(Child, BufReader<ChildStdout>)>,
    /// As they would be typed.
    pub commands: Vec<String>,
}

impl Returning {
    /// One process for each share; `arguments` are those of [`Options`] besides `--connections` and `--first`.
    pub fn start(shares: &[u64], arguments: &[String]) -> anyhow::Result<Self> {
        let (mut members, mut commands, mut first) = (Vec::new(), Vec::new(), 0);
        for share in shares {
            let mut line = vec!["bench".to_owned(), "returning".to_owned()];
            line.extend(["--connections".to_owned(), share.to_string(), "--first".to_owned(), first.to_string()]);
            line.extend(arguments.iter().cloned());
            let mut command = std::process::Command::new(std::env::current_exe()?);
            let mut child = command.args(&line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let answers = BufReader::new(child.stdout.take().context("the child's stdout is piped")?);
            commands.push(format!("tidegate {}", line.join(" ")));
            members.push((child, answers));
            first += share;
        }
        Ok(Self { members, commands })
    }

    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|(child, _)| child.id()).collect()
    }

    /// Tells which gateways take clients.
    pub fn live(&mut self, gateways: &[bool]) -> anyhow::Result<Standing> {
        self.say(&Order::Live { gateways: gateways.to_vec() })
    }

    /// Drops all connections by RST.
    pub fn drop_all(&mut self) -> anyhow::Result<Standing> {
        self.say(&Order::Drop)
    }

    pub fn report(&mut self, published: u32) -> anyhow::Result<Standing> {
        self.say(&Order::Report { published })
    }

    fn say(&mut self, order: &Order) -> anyhow::Result<Standing> {
        let line = serde_json::to_string(order)?;
        for (child, _) in &mut self.members {
            writeln!(child.stdin.as_mut().context("the child's stdin is piped")?, "{line}")?;
        }
        let mut sum = Standing::default();
        for (_, answers) in &mut self.members {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            sum.merge(serde_json::from_str(&line).context("a process of returning clients has ended")?);
        }
        Ok(sum)
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        for (child, _) in &mut self.members {
            child.stdin = None;
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_of_any_second_at_one_gateway() {
        let opened = vec![BTreeMap::from([(0, 9), (100, 3), (109, 4), (110, 1)]), BTreeMap::from([(105, 5)])];
        let standing = Standing { opened, ..Standing::default() };

        assert_eq!(standing.peak_per_s(50 * TENTH_NS), 7);
        assert_eq!(standing.peak_per_s(0), 9);
    }

    #[test]
    fn what_is_said_survives_the_pipe() {
        let mut standing = Standing { open: 3, opened: vec![BTreeMap::from([(7, 9)])], ..Standing::default() };
        standing.away_us.record(250);

        let line = serde_json::to_string(&standing).expect("serializes");
        let again: Standing = serde_json::from_str(&line).expect("parses");

        assert_eq!((again.open, &again.opened[0][&7], again.away_us.count()), (3, &9, 1));
        assert!(!line.contains('\n'));
    }
}
