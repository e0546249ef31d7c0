//! The one binary: reads the command line and the configuration, refuses what is unsafe, and runs one command.
//! Tells the story in order; each step has a file of its own.

// A reader that stops reading must not end in a panic: `out` prints.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod cli;
mod config;
mod demo;
mod doctor;
mod failure;
mod gateway;
mod judge;
mod keys;
mod log;
mod logic;
mod out;
mod process;
mod reload;
mod serve;
mod token;
mod watched;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, ConfigCommand, KeysCommand, TokenCommand};
use config::exposure::Role;
use config::{Given, Loaded};
use failure::Failure;
use reload::Reloads;

/// The allocator with the lowest resident memory per idle connection of those measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(Failure::report)
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let given = cli.given();
    let load = || config::load(&given).map_err(Failure::Usage);
    match cli.command {
        Command::Serve(args) => serve::run(settled(given, Role::Serve)?, args),
        Command::Gateway(_) => gateway::run(settled(given, Role::Gateway)?),
        Command::Logic(_) => logic::run(settled(given, Role::Logic)?),
        Command::Config(ConfigCommand::Show { json }) => show(&load()?, json),
        Command::Config(ConfigCommand::Check) => check(&load()?),
        Command::Doctor(args) => doctor::run(&args.root, args.need, args.json),
        Command::Keys(KeysCommand::Create(args)) => keys::create(args),
        Command::Keys(KeysCommand::Inspect) => keys::inspect(&load()?),
        Command::Agent(args) => agent::run(load()?.config, args),
        Command::Token(TokenCommand::Mint(args)) => token::mint(&load()?, &args),
        Command::Token(TokenCommand::Inspect { file }) => token::inspect(&load()?, file.as_deref()),
        Command::Bench(bench) => Ok(tidegate_bench::main(bench)?),
    }
}

/// The configuration of a process that opens listeners: safe to expose, and the log started as it says.
fn settled(given: Given, role: Role) -> Result<Reloads, Failure> {
    let loaded = config::load(&given).map_err(Failure::Usage)?;
    refuse(&loaded, role)?;
    log::start(&loaded.config.log);
    Ok(Reloads::new(given, role, loaded))
}

fn refuse(loaded: &Loaded, role: Role) -> Result<(), Failure> {
    let refusals = judge::refusals(&loaded.config, role);
    if refusals.is_empty() { Ok(()) } else { Err(Failure::Usage(refusals)) }
}

fn show(loaded: &Loaded, json: bool) -> Result<ExitCode, Failure> {
    let text = if json { format!("{:#}\n", config::show::json(loaded)) } else { config::show::text(loaded) };
    out::answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn check(loaded: &Loaded) -> Result<ExitCode, Failure> {
    refuse(loaded, Role::Any)?;
    out::answer("ok\n")?;
    Ok(ExitCode::SUCCESS)
}
