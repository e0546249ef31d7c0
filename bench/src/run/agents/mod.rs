//! 1,000 agents and 10,000 commands over HTTP, with agents that die and come back at random: every answer is the reply of
//! that agent to that caller, a 504 or a 404 that are true, and none is given twice. Before it, round trips at rest.
//! Parts: `truth` (what really happened, and the judge), `agent` with its `socket`, `caller`. The server is a gateway and a logic process.

mod agent;
mod caller;
mod socket;
mod truth;

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::agent::Shared;
use self::caller::Heard;
use self::truth::Truth;
use super::Options;
use super::bed::Bed;
use super::session::rest;
use crate::report::{self, Bound, Report};

const AGENTS: u64 = 1_000;
const COMMANDS_AN_AGENT: u64 = 10;
/// One after the other, at rest.
const CALM_COMMANDS: u64 = 1_000;
const CALLERS: u64 = 64;
const TIMEOUT_MS: u64 = 3_000;
const CALM_TIMEOUT_MS: u64 = 10_000;
/// Besides those that a command kills.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// All agents must be there by then.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Agents that connect at once.
const WAVE: usize = 100;
/// The bound.
const P50_MS: f64 = 5.0;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let agents = usize::try_from(options.connections.unwrap_or(AGENTS))?;
    let commands = options.connections.unwrap_or(AGENTS) * COMMANDS_AN_AGENT;
    let bed = Bed::split(options, &[])?;
    report.commands.extend(bed.commands.iter().cloned());
    report::stage(&format!("{agents} agents, {commands} commands"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (calm, wild, killed, shared) = runtime.block_on(phases(bed.clients, bed.api, agents, commands))?;

    report.figure("agents", agents as f64, "");
    report.figure("commands at rest", calm.answers() as f64, "");
    report.latency("round trip at rest", &calm.round_trip_us);
    let p50_ms = calm.round_trip_us.quantile(0.5) as f64 / 1e3;
    report.bounded("round trip at rest, median", p50_ms, "ms", Bound::AtMost(P50_MS));
    report.figure("commands while agents die", commands as f64, "");
    report.latency("round trip while agents die", &wild.round_trip_us);
    report.figure("  agents killed at random", killed as f64, "");
    report.figure("  commands sent to a second connection", shared.truth.asked_again() as f64, "");
    report.figure("  answered 200", wild.replied as f64, "");
    report.figure("  answered 504", wild.late as f64, "");
    report.figure("  answered 404", wild.nobody as f64, "");
    let wrong: Vec<&String> = calm.wrong.iter().chain(&wild.wrong).collect();
    report.bounded("wrong answers", wrong.len() as f64, "", Bound::Exactly(0.0));
    report.bounded(
        "answers at rest that are no reply",
        (calm.answers() - calm.replied) as f64,
        "",
        Bound::Exactly(0.0),
    );
    wrong.iter().take(5).for_each(|why| report.fault((*why).clone()));
    Ok(())
}

async fn phases(
    clients: SocketAddr,
    api: SocketAddr,
    agents: usize,
    commands: u64,
) -> anyhow::Result<(Heard, Heard, u64, Arc<Shared>)> {
    let (stop, stopped) = watch::channel(false);
    let (arrivals, mut arrived) = watch::channel(0);
    let kills = (0..agents).map(|_| Notify::new()).collect();
    let shared = Arc::new(Shared { clients, truth: Truth::new(agents), kills, stop: stopped, arrivals });
    let mut lives = JoinSet::new();
    for index in 0..agents {
        lives.spawn(agent::live(Arc::clone(&shared), index));
        if index % WAVE == WAVE - 1 {
            timeout(ARRIVAL, arrived.wait_for(|n| *n > index)).await.context("agents do not come in")??;
        }
    }
    timeout(ARRIVAL, arrived.wait_for(|n| *n >= agents)).await.context("agents do not come in")??;
    tokio::task::block_in_place(|| rest(1));

    let calm = Phase { callers: 1, commands: CALM_COMMANDS.min(commands), timeout_ms: CALM_TIMEOUT_MS, is_calm: true };
    let calm = calm.run(&shared, api).await?;
    let killer = tokio::spawn(kill_at_random(Arc::clone(&shared)));
    let wild = Phase { callers: CALLERS, commands, timeout_ms: TIMEOUT_MS, is_calm: false };
    let wild = wild.run(&shared, api).await?;
    stop.send_replace(true);
    let killed = killer.await?;
    while lives.join_next().await.is_some() {}
    ensure!(wild.answers() + wild.wrong.len() as u64 >= commands, "callers stopped early");
    Ok((calm, wild, killed, shared))
}

/// Commands from so many callers at once.
struct Phase {
    callers: u64,
    commands: u64,
    timeout_ms: u64,
    /// Agents reply to these and do nothing else.
    is_calm: bool,
}

impl Phase {
    async fn run(self, shared: &Arc<Shared>, api: SocketAddr) -> anyhow::Result<Heard> {
        let left = Arc::new(AtomicU64::new(self.commands));
        let mut calls = JoinSet::new();
        for _ in 0..self.callers {
            calls.spawn(caller::call(Arc::clone(shared), api, Arc::clone(&left), self.timeout_ms, self.is_calm));
        }
        let mut heard = Heard::default();
        while let Some(one) = calls.join_next().await {
            heard.add(one??);
        }
        Ok(heard)
    }
}

async fn kill_at_random(shared: Arc<Shared>) -> u64 {
    let mut stop = shared.stop.clone();
    let mut killed = 0;
    loop {
        tokio::select! {
            () = sleep(KILL_EVERY) => {}
            _ = stop.changed() => return killed,
        }
        let index = usize::try_from(dice()).unwrap_or_default() % shared.kills.len();
        shared.kills[index].notify_waiters();
        killed += 1;
    }
}

/// A random number; another one each time and each run (a splitmix64 seeded by the system).
fn dice() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0)));
    STATE.with(|state| {
        let z = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(z);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // JSON readers hold 53 bits.
        (z ^ (z >> 31)) >> 11
    })
}
