//! A fleet that stands: its clients connect in two steps, memory is looked at before, between and after, everybody is
//! pushed to, and it comes down without a TIME_WAIT. The same for gateways and bare senders, so that they compare.
//! Measures; what the figures are worth is judged in `mod`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::Options;
use super::account::{Look, Sockets, drop_caches};
use super::interrupt::Interrupt;
use super::servers::Servers;
use super::shape::Shape;
use crate::clock;
use crate::ledger::Expected;
use crate::report::{self, loss_line, number};
use crate::swarm::crew::Crew;
use crate::swarm::tally::Tally;

/// The first step: 1,000 of 18,868, as `bench run memory` begins its slope.
const FIRST_STEP: u64 = 53;
const ALL: u64 = 1_000;
/// Nothing for this long at one of many processes: nothing more will come. The others may be served before it.
const SETTLE_MS: u64 = 30_000;
/// The kernel has forgotten the sockets by then.
const GONE: Duration = Duration::from_secs(60);

/// All that one side showed.
#[derive(Debug, Serialize)]
pub(super) struct Stood {
    /// With no client; with the first step of them; with all.
    pub(super) empty: Look,
    pub(super) few: Look,
    pub(super) full: Look,
    /// Clients after the first step.
    pub(super) few_connections: u64,
    /// Connecting, both steps.
    pub(super) ramp_s: f64,
    pub(super) broadcasts: Vec<Broadcast>,
    /// Faults, in words.
    pub(super) faults: Vec<String>,
    pub(super) down_s: f64,
}

/// One push to everybody.
#[derive(Debug, Serialize)]
pub(super) struct Broadcast {
    /// From the first client that had it to the last.
    pub(super) first_to_last_ms: f64,
    /// From the push to the last client.
    pub(super) last_ms: f64,
    pub(super) answered_ms: f64,
    pub(super) matched: u64,
    /// Clients that had it in the one frame there was.
    pub(super) receivers: u64,
    pub(super) frame_bytes: f64,
    pub(super) pings: u64,
    pub(super) server_us: f64,
    pub(super) client_us: f64,
    pub(super) swarm: Tally,
}

/// The clients; when dropped they end first, together and by RST.
struct Crowd<'a> {
    crew: Crew,
    interrupt: &'a Interrupt,
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        // From here on they are waited for, and a number that was waited for may be somebody else's.
        self.interrupt.guard(Vec::new());
        self.crew.stop();
    }
}

pub(super) fn stand(
    servers: &mut dyn Servers,
    shape: &Shape,
    options: &Options,
    interrupt: &Interrupt,
    commands: &mut Vec<String>,
) -> anyhow::Result<Stood> {
    let before = Sockets::now();
    let (mut crowd, pids) = Crowd::start(servers, shape, options, interrupt, commands)?;
    let (name, held) = (servers.name(), servers.pids());
    let look = |servers: &[u32], clients: &[u32]| {
        if options.drop_caches {
            drop_caches()?;
        }
        anyhow::Ok(Look::settled(servers, clients))
    };
    let empty = look(&held, &pids)?;
    let (few_connections, first_s) = crowd.dial(name, FIRST_STEP, shape, options)?;
    let few = look(&held, &pids)?;
    let (_, rest_s) = crowd.dial(name, ALL, shape, options)?;
    let ramp_s = first_s + rest_s;
    let rate = number((shape.connections as f64 / ramp_s).round());
    crate::ending::say(&format!(
        "{name}: {} connections open after {ramp_s:.1} s, {rate} a second",
        number(shape.connections as f64)
    ));
    let full = look(&held, &pids)?;
    interrupt.pause(options.hold)?;
    let (broadcasts, down_s) = (Vec::new(), 0.0);
    let faults = Vec::new();
    let mut stood = Stood { empty, few, full, few_connections, ramp_s, broadcasts, faults, down_s };
    for sequence in 0..options.pushes {
        interrupt.pause(options.every)?;
        let broadcast = crowd.broadcast(servers, sequence, options.size as usize, &mut stood.faults)?;
        let (ms, share) = (broadcast.first_to_last_ms, number(broadcast.receivers as f64));
        crate::ending::say(&format!("{name}: push {} reached {share} clients, first to last {ms:.0} ms", sequence + 1));
        stood.broadcasts.push(broadcast);
    }
    let started_ns = clock::now_ns();
    drop(crowd);
    wait_until_gone(before)?;
    stood.down_s = (clock::now_ns() - started_ns) as f64 / 1e9;
    Ok(stood)
}

impl<'a> Crowd<'a> {
    /// The client processes, with nobody connected yet.
    fn start(
        servers: &dyn Servers,
        shape: &Shape,
        options: &Options,
        interrupt: &'a Interrupt,
        commands: &mut Vec<String>,
    ) -> anyhow::Result<(Self, Vec<u32>)> {
        let threads = if shape.processes() > 1 { 1 } else { cores() };
        let mut first = 0;
        let mut lists = Vec::new();
        for (address, count) in servers.addresses().iter().zip(&shape.shares) {
            let numbers = [
                ("--connections", *count),
                ("--first", first),
                ("--total", shape.connections),
                ("--threads", threads as u64),
                ("--processes", 1),
                ("--publishers", 1),
                ("--sample-every", options.sample_every),
            ];
            let mut list = vec!["--url".to_owned(), format!("ws://{address}/ws")];
            list.extend(numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]));
            first += count;
            lists.push(list);
        }
        if let Some(list) = lists.first() {
            commands.push(format!("tidegate bench swarm {}   (and {} more)", list.join(" "), lists.len() - 1));
        }
        lists.iter_mut().for_each(|list| list.extend(["--paused".to_owned(), "--abortive".to_owned()]));
        let mut crowd = Self { crew: Crew::processes_with(&lists, &shape.environment())?, interrupt };
        interrupt.guard(crowd.crew.pids());
        interrupt.check()?;
        crowd.crew.ready(|_| {})?;
        let pids = crowd.crew.pids();
        Ok((crowd, pids))
    }

    /// Connects until `per_mille` thousandths are open: how many those are, and the seconds it took.
    fn dial(&mut self, name: &str, per_mille: u64, shape: &Shape, options: &Options) -> anyhow::Result<(u64, f64)> {
        let bar = report::rate_progress(shape.connections, &format!("{name}: connecting"));
        let started_ns = clock::now_ns();
        let at_once = options.at_once.unwrap_or_else(cores);
        let ready = self.crew.dial(per_mille, at_once, &|open| bar.set_position(open))?;
        bar.finish_and_clear();
        ensure!(ready.failed == 0, "{} clients could not connect: {:?}", ready.failed, ready.oddities);
        Ok((ready.open, (clock::now_ns() - started_ns) as f64 / 1e9))
    }

    fn broadcast(
        &mut self,
        servers: &mut dyn Servers,
        sequence: u32,
        size: usize,
        faults: &mut Vec<String>,
    ) -> anyhow::Result<Broadcast> {
        self.crew.reset()?;
        let (held, pids) = (servers.pids(), self.crew.pids());
        let before = Look::now(&held, &pids);
        let sent = servers.push(sequence, size)?;
        let expected = Expected { publisher: 0, count: sequence + 1, refused: 0, to: "all".to_owned() };
        let swarm = self.crew.report(&[expected], SETTLE_MS)?;
        let after = Look::now(&held, &pids);
        self.interrupt.check()?;
        let name = format!("{}, push {}", servers.name(), sequence + 1);
        if swarm.standing.faults() > 0 {
            faults.push(format!("{name}: {}", loss_line(&swarm.standing)));
            faults.extend(swarm.standing.examples.iter().map(|example| format!("{name}: {example}")));
        }
        if !swarm.closed.is_empty() || !swarm.oddities.is_empty() {
            faults.push(format!("{name}: closed {:?}, odd {:?}", swarm.closed, swarm.oddities));
        }
        let arrival = swarm.arrivals.first().context("no client had the push")?;
        let ms = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e6;
        let each_us = |cpu_s: f64| cpu_s * 1e6 / (swarm.messages as f64).max(1.0);
        Ok(Broadcast {
            first_to_last_ms: ms(arrival.first_ns, arrival.last_ns),
            last_ms: ms(sent.intended_ns, arrival.last_ns),
            answered_ms: sent.answered_ms,
            matched: sent.matched,
            receivers: arrival.receivers,
            frame_bytes: swarm.bytes as f64 / (swarm.frames as f64).max(1.0),
            pings: swarm.pings,
            server_us: each_us(after.servers.since(&before.servers).cpu_s()),
            client_us: each_us(after.clients.since(&before.clients).cpu_s()),
            swarm,
        })
    }
}

/// Waits until the kernel holds about as many sockets as it did before.
fn wait_until_gone(before: Sockets) -> anyhow::Result<()> {
    let deadline_ns = clock::now_ns() + GONE.as_nanos() as u64;
    // Other sockets of the machine come and go; a thousandth of a fleet they are not.
    let most = before.in_use + before.orphan + 1_000;
    loop {
        let now = Sockets::now();
        if now.in_use + now.orphan <= most {
            return Ok(());
        }
        ensure!(clock::now_ns() < deadline_ns, "{} sockets are still there after {GONE:?}", now.in_use + now.orphan);
        clock::pause(Duration::from_millis(100));
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
