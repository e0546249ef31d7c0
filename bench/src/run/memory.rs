//! User-space memory of an idle connection: slope of the gateway's RSS from 1,000 to 19,000, anonymous, named and with a token.

use std::time::Duration;

use anyhow::ensure;

use super::Options;
use super::bed::Bed;
use crate::clock;
use crate::process::Usage;
use crate::report::{self, Bound, Process, Report};
use crate::swarm::crew::Crew;

const FEW: u64 = 1_000;
const MANY: u64 = 19_000;
/// The resident set is at rest when it moves less than this …
const STEADY_BYTES: u64 = 64 * 1024;
/// … over this many looks, a second apart.
const STEADY_LOOKS: usize = 4;
const LOOKS_MAX: usize = 30;
/// Of the tokens; protects nothing.
const SECRET: &str = "the-secret-of-a-bench-that-ends-with-it";

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let many = super::session::connections(options.connections, MANY)?;
    ensure!(many > FEW, "memory needs more than {FEW} connections");
    let named = ["--user-pattern", "user-{i}", "--rooms", "lobby"];
    // Rooms of three sizes: of everyone, of a hundred, of ten.
    let proven = "--user-pattern user-{i} --platform web --rooms lobby --room-pattern team-{i%190} --room-pattern pair-{i%1900} \
                  --attribute lang=l{i%20} --attribute tier=t{i%3}";
    let proven: Vec<&str> = proven.split_ascii_whitespace().chain(["--token-secret", SECRET]).collect();
    let keys = format!("[{{algorithm = \"HS256\", secret = \"{SECRET}\"}}]");
    let tokens = [("TIDEGATE_GATEWAY__AUTH__MODE", "jwt".to_owned()), ("TIDEGATE_GATEWAY__AUTH__KEYS", keys)];
    slope(options, "anonymous", (&[], &[]), many, 500.0, report)?;
    slope(options, "with a user and one room", (&named, &[]), many, 700.0, report)?;
    let name = "with a token, a platform, two attributes and three rooms";
    slope(options, name, (&proven, &tokens), many, 900.0, report)
}

fn slope(
    options: &Options,
    name: &str,
    (clients, environment): (&[&str], &[(&str, String)]),
    many: u64,
    bound: f64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bed = Bed::split(options, environment)?;
    report.commands.extend(bed.commands.iter().cloned());
    let (mut crews, mut usages) = (Vec::new(), vec![settled(&bed)?]);
    // The second swarm adds to the first: nothing is closed in between that could leave holes in the heap.
    for (first, count) in [(0, FEW), (FEW, many - FEW)] {
        let mut arguments = vec!["--url".to_owned(), bed.url()];
        let numbers = [("--connections", count), ("--first", first), ("--total", many)];
        arguments.extend(numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]));
        arguments.extend(clients.iter().map(|argument| (*argument).to_owned()));
        report.commands.push(format!("tidegate bench swarm {}", arguments.join(" ")));
        let mut crew = Crew::processes(&[arguments])?;
        report::stage(&format!("connecting {} clients, {name}", report::number(count as f64)));
        let bar = report::progress(count, name);
        let ready = crew.ready(|open| bar.set_position(open))?;
        bar.finish_and_clear();
        ensure!(ready.failed == 0, "{} clients could not connect: {:?}", ready.failed, ready.oddities);
        crews.push(crew);
        usages.push(settled(&bed)?);
    }
    let [empty, few, full] = usages[..] else { anyhow::bail!("three looks were taken") };
    let per_connection = |of: fn(&Usage) -> u64| (of(&full) as f64 - of(&few) as f64) / (many - FEW) as f64;
    report.bounded(&format!("RSS a connection, {name}"), per_connection(|u| u.rss_bytes), "B", Bound::AtMost(bound));
    report.figure(&format!("anonymous memory a connection, {name}"), per_connection(|u| u.anonymous_bytes), "B");
    report.figure(&format!("RSS with no connection, {name}"), empty.rss_bytes as f64, "B");
    report.figure(&format!("RSS with {FEW}, {name}"), few.rss_bytes as f64, "B");
    report.figure(&format!("RSS with {many}, {name}"), full.rss_bytes as f64, "B");
    report.processes.push(Process { name: format!("gateway {name}"), usage: full });
    for mut crew in crews {
        let tally = crew.report(&[], 0)?;
        if !tally.closed.is_empty() || !tally.oddities.is_empty() {
            report.fault(format!("{name}: closed {:?}, odd {:?}", tally.closed, tally.oddities));
        }
    }
    Ok(())
}

/// The gateway's memory once it is at rest: allocators give back with a delay.
fn settled(bed: &Bed) -> anyhow::Result<Usage> {
    let mut looks: Vec<Usage> = Vec::new();
    loop {
        clock::pause(Duration::from_secs(1));
        looks.push(bed.gateway()?);
        let recent = looks.iter().rev().take(STEADY_LOOKS).map(|usage| usage.rss_bytes);
        let (low, high) = (recent.clone().min().unwrap_or(0), recent.max().unwrap_or(0));
        let steady = looks.len() >= STEADY_LOOKS && high - low <= STEADY_BYTES;
        if let Some(last) = looks.last().filter(|_| steady || looks.len() >= LOOKS_MAX) {
            return Ok(*last);
        }
    }
}
