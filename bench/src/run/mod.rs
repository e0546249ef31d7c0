//! Scenarios: start the server, load it, check every client, judge against the bounds, report.
//! This file is the command line; `bed` starts processes, `session` loads and measures, each scenario has a file.

mod agents;
mod bed;
mod broadcast;
mod deflate;
mod delivery;
mod fleet;
mod handshakes;
mod idle;
mod lonely;
mod memory;
mod merged;
mod presence;
mod rolling;
mod rooms;
mod session;
mod slow;
mod storm;
mod walkers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::report::{Detail, Report};
use crate::{clock, ending, report};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Clients; each scenario has its own default.
    #[arg(long)]
    pub connections: Option<u64>,
    /// How long each phase publishes or holds.
    #[arg(long, value_parser = clock::parse_duration)]
    pub duration: Option<Duration>,
    /// Messages per second.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Bytes of a message.
    #[arg(long)]
    pub size: Option<usize>,
    /// Write the report here as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leave the server running and say where it is. A signal ends it all the same.
    #[arg(long)]
    pub keep: bool,
    /// Say everything: each figure, each metric of the server, each command of the run's parts.
    #[arg(long, short)]
    pub verbose: bool,
    /// Exit 2 when a bound is missed.
    #[arg(long)]
    pub strict: bool,
    /// `storm`: end the connections by killing the gateways and starting them again, and not from the clients' side.
    #[arg(long)]
    pub kill: bool,
    /// The binary under test; this one when absent. For comparing two commits with one harness.
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// 9,000 clients × 2,000 messages to everyone in bursts: nothing lost, one encoding a tick.
    Broadcast,
    /// Many small messages a second to 9,000 clients: at least 10 million deliveries a second.
    Merged,
    /// 1 KB to 9,000 clients, unmerged: gateway CPU a delivery against the bare loop.
    Delivery,
    /// Batches of 10 KB of JSON to 9,000 clients, plain and compressed once for all: gateway CPU and bytes a delivery.
    Deflate,
    /// One message to an idle room of 9,000: when does the last client have it.
    Lonely,
    /// Memory of an idle connection: slope from 1,000 to 19,000.
    Memory,
    /// Handshakes per second; half-open and slow-header sockets.
    Handshakes,
    /// One client in 50 stops reading: what the others notice.
    Slow,
    /// CPU of 19,000 connections that do nothing, heartbeats included.
    Idle,
    /// 20,000 clients dropped at once come back: how soon, and is anybody refused.
    Storm,
    /// Three gateways restarted one after the other under load: nothing lost, nobody in a rush.
    Rolling,
    /// 1,000 agents that die and come back, 10,000 commands over HTTP: every answer is right.
    Agents,
    /// 2,000 clients in 20 hot rooms each: one write a connection and tick.
    Rooms,
    /// 20,000 joins and leaves a second in a room of 9,000: exact counts, and the cost of telling members once a tick.
    Presence,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Merged => "merged",
            Self::Delivery => "delivery",
            Self::Deflate => "deflate",
            Self::Lonely => "lonely",
            Self::Memory => "memory",
            Self::Handshakes => "handshakes",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::Storm => "storm",
            Self::Rolling => "rolling",
            Self::Rooms => "rooms",
            Self::Presence => "presence",
            Self::Agents => "agents",
        }
    }
}

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    ending::end_all_on_signal()?;
    let mut outcome = Report::new(options.scenario.name());
    let started_ns = clock::now_ns();
    outcome.commands.push(std::env::args().collect::<Vec<_>>().join(" "));
    let scenario = match options.scenario {
        Scenario::Broadcast => broadcast::run,
        Scenario::Merged => merged::run,
        Scenario::Delivery => delivery::run,
        Scenario::Deflate => deflate::run,
        Scenario::Lonely => lonely::run,
        Scenario::Memory => memory::run,
        Scenario::Handshakes => handshakes::run,
        Scenario::Slow => slow::run,
        Scenario::Idle => idle::run,
        Scenario::Storm => storm::run,
        Scenario::Rolling => rolling::run,
        Scenario::Rooms => rooms::run,
        Scenario::Presence => presence::run,
        Scenario::Agents => agents::run,
    };
    report::stage(&format!("{}: starting", options.scenario.name()));
    let ran = scenario(options, &mut outcome);
    report::stage("judging");
    if let Err(error) = &ran {
        outcome.fault(format!("the scenario did not finish: {error:#}"));
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
