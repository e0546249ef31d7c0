//! Publishers: pushes on a fixed schedule that never waits for answers (open loop).
//! This file is the command line and the sum; `schedule` says what is due when, `composer` writes it, `publisher` holds
//! one connection.

mod composer;
pub mod publisher;
pub mod schedule;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::dialect::form::Form;
use crate::dialect::{self, Dialect};
use crate::distribution::Distribution;
use crate::ledger::Expected;
use crate::pattern::Pattern;
use crate::shares::shares;
use crate::{clock, http1, report};
use schedule::Schedule;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The push API.
    #[arg(long, default_value = "http://127.0.0.1:8001")]
    pub api: String,
    /// What the server speaks: tidegate, or a peer of `bench peers`.
    #[arg(long, default_value = "tidegate", value_parser = dialect::named)]
    pub dialect: &'static dyn Dialect,
    /// `all`, `room:NAME` or `user:NAME`; a name such as r{i%20} differs by the connection's number.
    #[arg(long, default_value = "all", value_parser = parse_to)]
    pub to: Pattern,
    /// Messages per second, over all connections.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Pushes that are due at the same moment.
    #[arg(long, default_value_t = 1)]
    pub burst: u64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Fill messages with rows of JSON instead of one letter, so that they compress as real ones do.
    #[arg(long)]
    pub rows: bool,
    /// For how long; `--count` wins when both are given.
    #[arg(long, default_value = "10s", value_parser = clock::parse_duration)]
    pub duration: Duration,
    /// How many messages, over all connections.
    #[arg(long)]
    pub count: Option<u32>,
    /// Connections; each is one publisher with an order of its own (rule M-4).
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Messages in one push.
    #[arg(long, default_value_t = 1)]
    pub batch: u32,
    /// Requests of a connection that may be unanswered.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Number of the first publisher.
    #[arg(long, default_value_t = 1)]
    pub publisher: u32,
    /// API key.
    #[arg(long)]
    pub key: Option<String>,
    /// End early when stdin does: whoever steers has what it wanted, or is gone.
    #[arg(long, hide = true)]
    pub while_stdin: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json_lines: bool,
}

fn parse_to(text: &str) -> Result<Pattern, String> {
    match text.split_once(':') {
        Some(("room" | "user", name)) if !name.is_empty() => text.parse(),
        None if text == "all" => text.parse(),
        _ => Err(format!("`{text}` is not all, room:NAME or user:NAME")),
    }
}

/// What the publishers did, and what of it the API took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Published {
    /// What clients must have got, per publisher.
    pub expected: Vec<Expected>,
    pub pushes: u64,
    pub messages: u64,
    pub accepted: u64,
    /// Refused pushes by status, with the first refusal's body.
    pub refused: BTreeMap<u16, u64>,
    pub refusals: Vec<String>,
    /// Pushes that got no answer: nobody knows whether they were delivered.
    pub unanswered: u64,
    /// From the first message's due time to the last answer.
    pub seconds: f64,
    /// Due time of the first message.
    pub started_ns: u64,
    /// Sent → answered, in µs.
    pub receipt_us: Distribution,
    /// Due → written to the socket, in µs: how late this publisher was.
    pub late_us: Distribution,
    /// Pushes written more than 1 ms late.
    pub late: u64,
    pub cpu_s: f64,
}

impl Published {
    fn merge(&mut self, other: Self) {
        self.expected.extend(other.expected);
        self.pushes += other.pushes;
        self.messages += other.messages;
        self.accepted += other.accepted;
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.refusals.extend(other.refusals);
        self.unanswered += other.unanswered;
        self.seconds = self.seconds.max(other.seconds);
        self.receipt_us.merge(&other.receipt_us);
        self.late_us.merge(&other.late_us);
        self.late += other.late;
    }

    pub fn lines(&self) -> Vec<String> {
        let rate = self.messages as f64 / self.seconds.max(1e-9);
        let mut lines = vec![
            format!(
                "published    {} messages in {} pushes, {:.2} s, {rate:.0}/s",
                self.messages, self.pushes, self.seconds
            ),
            format!("accepted     {} pushes, unanswered {}", self.accepted, self.unanswered),
            report::distribution_line("receipt", "µs", &self.receipt_us),
            report::distribution_line("late", "µs", &self.late_us),
            format!("late > 1 ms  {} pushes", self.late),
        ];
        if !self.refused.is_empty() {
            lines.insert(0, format!("REFUSED {:?}: {:?}", self.refused, self.refusals));
        }
        lines
    }
}

/// Before the first message is due: connections are made, threads run.
const LEAD: Duration = Duration::from_millis(50);

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    let published = run(options)?;
    report::print(options.json_lines, &published, &published.lines())?;
    let sound = published.refused.is_empty() && published.unanswered == 0;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn run(options: &Options) -> anyhow::Result<Published> {
    ensure!(options.rate > 0.0 && options.batch > 0 && options.connections > 0, "rate, batch and connections are > 0");
    let form = options.dialect.form();
    ensure!(
        options.batch == 1 || !matches!(form, Form::Post(_)),
        "{} takes one message a push",
        options.dialect.name()
    );
    let address = http1::parse_authority(&options.api)?;
    let count = match options.count {
        Some(count) => count,
        None => (options.rate * options.duration.as_secs_f64()).ceil() as u32,
    };
    let is_over = Arc::new(AtomicBool::new(false));
    if options.while_stdin {
        end_with_stdin(Arc::clone(&is_over))?;
    }
    let cpu_ns = clock::process_cpu_ns();
    let connections = u64::from(options.connections);
    let started_ns = clock::now_ns() + LEAD.as_nanos() as u64;
    let publisher = |(number, share): (u64, u64)| {
        let options = publisher::Options {
            address,
            form,
            publisher: options.publisher + number as u32,
            to: options.to.name(number),
            size: options.size,
            rows: options.rows,
            key: options.key.clone(),
            in_flight: options.in_flight.max(1),
            is_over: Arc::clone(&is_over),
            schedule: Schedule::new(options, number, share as u32, started_ns),
        };
        std::thread::Builder::new().name(format!("publish-{number}")).spawn(move || publisher::run(&options))
    };
    let numbered = (0..).zip(shares(u64::from(count), connections));
    let publishers = numbered.map(publisher).collect::<Result<Vec<_>, _>>()?;
    let mut sum = Published { started_ns, ..Published::default() };
    for publisher in publishers {
        sum.merge(publisher.join().ok().context("a publisher panicked")??);
    }
    sum.cpu_s = (clock::process_cpu_ns() - cpu_ns) as f64 / 1e9;
    Ok(sum)
}

/// Sets `is_over` at the end of stdin; what comes before is not looked at.
fn end_with_stdin(is_over: Arc<AtomicBool>) -> anyhow::Result<()> {
    let wait = move || {
        // An stdin that cannot be read has ended as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        is_over.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(wait).context("no thread for stdin")?;
    Ok(())
}
