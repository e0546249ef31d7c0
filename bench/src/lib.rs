//! Load harness of Tidegate: the physical limit of this machine, swarms of light clients, open-loop
//! publishers, and scenarios that put them together and judge the result.
//! Knows nothing of the gateway's inside: it speaks WebSocket, HTTP and `/metrics` like anybody else.
//! Invariant: every client's every message is checked; latency alone is sampled.

// A reader that stops reading must not end in a panic: `ending` prints.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod clock;
pub mod dialect;
pub mod distribution;
pub mod ending;
mod help;
pub mod http1;
pub mod ledger;
pub mod limit;
pub mod machine;
pub mod message;
pub mod million;
pub mod netstat;
pub mod page;
pub mod pattern;
pub mod peers;
pub mod process;
pub mod publish;
pub mod report;
pub mod returning;
pub mod run;
mod shares;
pub mod sockets;
pub mod swarm;

use std::process::ExitCode;

/// `tidegate bench …`
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// The bare loop: N sockets, plain send, the same payload: the physical limit of this machine.
    #[command(after_help = help::LIMIT)]
    Limit(Box<limit::Options>),
    /// Hold N light WebSocket clients and check every message each of them gets.
    #[command(after_help = help::SWARM)]
    Swarm(Box<swarm::Options>),
    /// Push messages on a fixed schedule that never waits for answers.
    #[command(after_help = help::PUBLISH)]
    Publish(Box<publish::Options>),
    /// Clients that come back whenever their connection ends, for the scenarios that drop them.
    #[command(hide = true)]
    Returning(Box<returning::Options>),
    /// Make one HTML page, with plots, of what the other commands wrote; it needs no network.
    #[command(after_help = help::REPORT)]
    Report(page::Options),
    /// The same course for Tidegate, the bare loop and every peer that is installed: one table.
    ///
    /// `bench/peers/install` installs the peers. Each is measured for memory a connection, CPU a delivery, deliveries
    /// a second, latency and connects a second; under a minute each.
    #[command(after_help = help::PEERS)]
    Peers(Box<peers::Options>),
    /// Start a server, load it, check every client, and say whether it is as good as it has to be.
    #[command(after_help = help::RUN)]
    Run(Box<run::Options>),
    /// Hold a million connections on one machine, both ends; account for their memory; push to all of them.
    #[command(after_help = help::MILLION)]
    Million(Box<million::Options>),
    /// The bare sender that `million --bare` compares with; steered by JSON lines.
    #[command(hide = true)]
    BareServer(million::bare::Options),
}

/// The whole command line as a type, for those who want to embed it.
pub fn command() -> clap::Command {
    use clap::Subcommand as _;
    Bench::augment_subcommands(clap::Command::new("bench").about("Load harness").subcommand_required(true))
}

/// Runs one bench command. Exit code 1: something was lost, duplicated or out of order.
pub fn main(bench: Bench) -> anyhow::Result<ExitCode> {
    let outcome = match bench {
        Bench::Limit(options) => limit::main(&options),
        Bench::Swarm(options) => swarm::main(&options),
        Bench::Publish(options) => publish::main(&options),
        Bench::Returning(options) => returning::main(&options),
        Bench::Report(options) => page::main(&options),
        Bench::Peers(options) => peers::main(&options),
        Bench::Run(options) => run::main(&options),
        Bench::Million(options) => million::main(&options),
        Bench::BareServer(options) => million::bare::main(&options).map(|()| ExitCode::SUCCESS),
    };
    ending::let_it_end();
    outcome
}
