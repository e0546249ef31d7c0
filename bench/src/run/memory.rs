//! User-space memory of an idle connection: slope of RSS from 1,000 to 19,000, anonymous, named and with a token, in rooms that many
//! share and in rooms of its own.

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

/// Clients of one kind.
struct Kind {
    name: &'static str,
    /// Arguments of the swarm.
    clients: String,
    has_token: bool,
    /// RSS of the gateway for each, in bytes; a tenth above the most that was measured where rooms are its own.
    bound: f64,
}

/// Shared and own side by side: what a room costs is paid once by all who are in it, or by the only one.
fn kinds() -> Vec<Kind> {
    let named = "--user-pattern user-{i}";
    let proven = format!("{named} --platform web --attribute lang=l{{i%20}} --attribute tier=t{{i%3}}");
    // As long as a room's name may be, numbers of up to seven digits included.
    let long = format!("{named} --room-pattern {}-{{i}}", "x".repeat(120));
    let kind = |name, clients: String, has_token, bound| Kind { name, clients, has_token, bound };
    vec![
        kind("anonymous", String::new(), false, 500.0),
        kind("with a user and a shared room", format!("{named} --rooms lobby"), false, 700.0),
        kind("with a user and a room of its own", format!("{named} --room-pattern own-{{i}}"), false, 1_400.0),
        kind("with a user and a room of its own with a long name", long, false, 1_900.0),
        // Rooms of three sizes: of everyone, of a hundred, of ten.
        kind(
            "with a token, a platform, two attributes and three shared rooms",
            format!("{proven} --rooms lobby --room-pattern team-{{i%190}} --room-pattern pair-{{i%1900}}"),
            true,
            900.0,
        ),
        kind(
            "with a token, a platform, two attributes and three rooms of its own",
            format!("{proven} --room-pattern own-{{i}} --room-pattern team-{{i}} --room-pattern pair-{{i}}"),
            true,
            2_400.0,
        ),
    ]
}

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let many = super::session::connections(options.connections, MANY)?;
    ensure!(many > FEW, "memory needs more than {FEW} connections");
    kinds().iter().try_for_each(|kind| slope(options, kind, many, report))
}

fn slope(options: &Options, kind: &Kind, many: u64, report: &mut Report) -> anyhow::Result<()> {
    let name = kind.name;
    let keys = format!("[{{algorithm = \"HS256\", secret = \"{SECRET}\"}}]");
    let tokens = [("TIDEGATE_GATEWAY__AUTH__MODE", "jwt".to_owned()), ("TIDEGATE_GATEWAY__AUTH__KEYS", keys)];
    let (environment, secret): (&[_], &[&str]) =
        if kind.has_token { (&tokens, &["--token-secret", SECRET]) } else { (&[], &[]) };
    let bed = Bed::split(options, environment)?;
    report.commands.extend(bed.commands.iter().cloned());
    let (mut crews, mut looks) = (Vec::new(), vec![settled(&bed)?]);
    // The second swarm adds to the first: nothing is closed in between that could leave holes in the heap.
    for (first, count) in [(0, FEW), (FEW, many - FEW)] {
        let mut arguments = vec!["--url".to_owned(), bed.url()];
        let numbers = [("--connections", count), ("--first", first), ("--total", many)];
        arguments.extend(numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]));
        arguments.extend(kind.clients.split_ascii_whitespace().chain(secret.iter().copied()).map(str::to_owned));
        report.commands.push(format!("tidegate bench swarm {}", arguments.join(" ")));
        let mut crew = Crew::processes(&[arguments])?;
        report::stage(&format!("connecting {} clients, {name}", report::number(count as f64)));
        let bar = report::progress(count, name);
        let ready = crew.ready(|open| bar.set_position(open))?;
        bar.finish_and_clear();
        ensure!(ready.failed == 0, "{} clients could not connect: {:?}", ready.failed, ready.oddities);
        crews.push(crew);
        looks.push(settled(&bed)?);
    }
    let [empty, few, full] = looks[..] else { anyhow::bail!("three looks were taken") };
    let each = |of: fn(&Look) -> u64| (of(&full) as f64 - of(&few) as f64) / (many - FEW) as f64;
    let bound = Bound::AtMost(kind.bound);
    report.bounded(&format!("RSS a connection, {name}"), each(|look| look.gateway.rss_bytes), "B", bound);
    let anonymous = each(|look| look.gateway.anonymous_bytes);
    report.figure(&format!("anonymous memory a connection, {name}"), anonymous, "B");
    report.figure(&format!("RSS of the logic node a connection, {name}"), each(|look| look.logic.rss_bytes), "B");
    report.figure(&format!("RSS with no connection, {name}"), empty.gateway.rss_bytes as f64, "B");
    report.figure(&format!("RSS with {FEW}, {name}"), few.gateway.rss_bytes as f64, "B");
    report.figure(&format!("RSS with {many}, {name}"), full.gateway.rss_bytes as f64, "B");
    report.processes.push(Process { name: format!("gateway {name}"), usage: full.gateway });
    for mut crew in crews {
        let tally = crew.report(&[], 0)?;
        if !tally.closed.is_empty() || !tally.oddities.is_empty() {
            report.fault(format!("{name}: closed {:?}, odd {:?}", tally.closed, tally.oddities));
        }
    }
    Ok(())
}

/// Both tiers at one moment.
#[derive(Clone, Copy)]
struct Look {
    gateway: Usage,
    logic: Usage,
}

/// Both tiers once the gateway's memory is at rest: allocators give back with a delay.
fn settled(bed: &Bed) -> anyhow::Result<Look> {
    let mut looks: Vec<Look> = Vec::new();
    loop {
        clock::pause(Duration::from_secs(1));
        let usages = bed.usages()?;
        let [(_, gateway), (_, logic)] = usages[..] else { anyhow::bail!("two tiers were started") };
        looks.push(Look { gateway, logic });
        let recent = looks.iter().rev().take(STEADY_LOOKS).map(|look| look.gateway.rss_bytes);
        let (low, high) = (recent.clone().min().unwrap_or(0), recent.max().unwrap_or(0));
        let steady = looks.len() >= STEADY_LOOKS && high - low <= STEADY_BYTES;
        if let Some(last) = looks.last().filter(|_| steady || looks.len() >= LOOKS_MAX) {
            return Ok(*last);
        }
    }
}
