//! The command line: subcommands, flags, and which configuration key each flag stands for.
//! Parses and nothing else; the examples that `--help` ends with are in `examples`.

mod agent;
mod examples;
mod token;
mod when;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use agent::Args as Agent;
use clap::{ArgAction, Args, Parser, Subcommand};
use tidegate_logic::Scope;

use crate::config::{Given, LogFormat, LogLevel, address};
use crate::demo::Speed;
use crate::doctor::Need;
pub use token::{TokenCommand, TokenMint};
pub use when::When;

/// A push gateway for a million open connections: one HTTP push, merged and encoded once, to every WebSocket.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = examples::ALL, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// Flags that every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE", global = true, env = "TIDEGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true, action = ArgAction::Append)]
    pub set: Vec<String>,
    /// How log lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    /// Least severe log level that is written [default: info]
    #[arg(long, value_enum, value_name = "LEVEL", global = true)]
    pub log_level: Option<LogLevel>,
    /// Errors only
    #[arg(short, long, global = true, conflicts_with = "log_level")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: connections and push API
    #[command(after_help = examples::SERVE)]
    Serve(Serve),
    /// Run the tier that holds the connections
    #[command(after_help = examples::GATEWAY)]
    Gateway(Gateway),
    /// Run the tier that answers the push API
    #[command(after_help = examples::LOGIC)]
    Logic(Logic),
    /// Say whether this machine can hold N connections, and what to change
    #[command(after_help = examples::DOCTOR)]
    Doctor(Doctor),
    /// Show or check the configuration
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(ConfigCommand),
    /// Answer commands of the push API on this machine: an edge agent
    #[command(after_help = examples::AGENT)]
    Agent(agent::Args),
    /// Make and look at API keys
    #[command(subcommand, after_help = examples::KEYS)]
    Keys(KeysCommand),
    /// Mint and look at tokens of clients
    #[command(subcommand, after_help = examples::TOKEN)]
    Token(TokenCommand),
    /// Measure: the physical limit, swarms of clients, publishers, scenarios
    #[command(subcommand)]
    Bench(tidegate_bench::Bench),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Where clients connect [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    pub listen: Option<SocketAddr>,
    /// Where the push API and the page are served [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    pub api: Option<SocketAddr>,
    /// Replay 10,000 real flights through the push API, one room per origin airport
    #[arg(long)]
    pub demo: bool,
    /// Simulated minutes a second, 1 to 100000
    #[arg(long, value_name = "MINUTES", default_value_t = Speed::default(), requires = "demo")]
    pub speed: Speed,
    /// API key with which the demo pushes, where logic.keys are set
    #[arg(long, value_name = "KEY", requires = "demo")]
    pub demo_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct Gateway {
    /// Where clients connect [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    pub listen: Option<SocketAddr>,
    /// Where logic nodes connect, HTTP/2 [default: 127.0.0.1:8002]
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    pub backplane: Option<SocketAddr>,
    /// Where health and metrics are served [default: 127.0.0.1:8003]
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    pub ops: Option<SocketAddr>,
    /// Answer each message with itself, for conformance suites
    #[arg(long)]
    pub echo: bool,
}

#[derive(Debug, Args)]
pub struct Logic {
    /// Where the push API is served [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    pub api: Option<SocketAddr>,
    /// Backplane of a gateway, such as http://10.0.0.5:8002; may be repeated
    #[arg(long = "gateway", value_name = "URL", action = ArgAction::Append)]
    pub gateways: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Connections that one gateway process is to hold; 100k and 1m are understood
    #[arg(long = "for", value_name = "N", default_value = "10k")]
    pub need: Need,
    /// Print JSON with a stable schema instead of text
    #[arg(long)]
    pub json: bool,
    /// Read /proc and /sys below this folder instead
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub root: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print each key, its value and where it came from
    Show {
        /// Print JSON: {"key": {"value": …, "origin": …}}
        #[arg(long)]
        json: bool,
    },
    /// Say "ok", or everything that is wrong (exit code 2)
    Check,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new key once, and the entry of logic.keys with its hash
    #[command(after_help = examples::KEYS)]
    Create(KeysCreate),
    /// Say of a key on standard input what it is, its hash, and what this configuration lets it do
    Inspect,
}

#[derive(Debug, Args)]
pub struct KeysCreate {
    /// Name of the caller, in the key and in the configuration: a-z, A-Z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    pub id: String,
    /// What its bearer may do: push, read, admin
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true, value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// From when it does not count any more: a span such as 90d, or a date
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<When>,
    /// From when it counts [default: at once]
    #[arg(long, value_name = "WHEN")]
    pub not_before: Option<When>,
    /// Push to rooms of this pattern and to nobody else, such as 'chat:*'; may be repeated
    #[arg(long = "room", value_name = "PATTERN", action = ArgAction::Append)]
    pub rooms: Vec<String>,
    /// Push to users of this pattern and to nobody else; may be repeated
    #[arg(long = "user", value_name = "PATTERN", action = ArgAction::Append)]
    pub users: Vec<String>,
    /// Print JSON instead: {"key": …, "config": …}
    #[arg(long)]
    pub json: bool,
}

fn scope(name: &str) -> Result<Scope, String> {
    let known = [Scope::Push, Scope::Read, Scope::Admin];
    known.into_iter().find(|scope| scope.label() == name).ok_or_else(|| "known are push, read and admin".to_owned())
}

impl Cli {
    /// What the command line says about configuration keys.
    pub fn given(&self) -> Given {
        let mut given = Given { file: self.global.config.clone(), sets: self.global.set.clone(), flags: Vec::new() };
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        given.flag("--log-format", "log.format", self.global.log_format.map(|format| name(&format)));
        given.flag("--log-level", "log.level", self.global.log_level.map(|level| name(&level)));
        given.flag("--quiet", "log.level", self.global.quiet.then(|| "error".into()));
        match &self.command {
            Command::Serve(serve) => {
                given.flag("--listen", "gateway.listen", serve.listen.map(|at| at.to_string()));
                given.flag("--api", "logic.api", serve.api.map(|at| at.to_string()));
            }
            Command::Gateway(gateway) => {
                given.flag("--listen", "gateway.listen", gateway.listen.map(|at| at.to_string()));
                given.flag("--backplane", "gateway.backplane", gateway.backplane.map(|at| at.to_string()));
                given.flag("--ops", "gateway.ops", gateway.ops.map(|at| at.to_string()));
                given.flag("--echo", "gateway.echo", gateway.echo.then(|| "true".into()));
            }
            Command::Logic(logic) => {
                given.flag("--api", "logic.api", logic.api.map(|at| at.to_string()));
                given.flag("--gateway", "logic.gateways", logic.gateways.iter().cloned());
            }
            Command::Agent(_)
            | Command::Doctor(_)
            | Command::Config(_)
            | Command::Keys(_)
            | Command::Token(_)
            | Command::Bench(_) => {}
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    /// Every flag that reads a variable: that one is no key of the configuration.
    #[test]
    fn variables_of_flags_are_known_to_the_configuration() {
        fn variables(command: &clap::Command, out: &mut Vec<String>) {
            let names = command.get_arguments().filter_map(|argument| argument.get_env());
            out.extend(names.map(|name| name.to_string_lossy().into_owned()));
            command.get_subcommands().for_each(|command| variables(command, out));
        }
        let mut found = Vec::new();

        variables(&Cli::command(), &mut found);

        found.sort();
        found.dedup();
        let mut known = crate::config::VARIABLES_OF_FLAGS.to_vec();
        known.sort_unstable();
        assert_eq!(found, known);
    }

    #[test]
    fn flags_become_the_keys_they_stand_for() {
        let cli = Cli::parse_from(["tidegate", "logic", "--gateway", "http://a:1", "--gateway", "http://b:1", "-q"]);

        let given = cli.given();

        let gateways = vec!["http://a:1".to_owned(), "http://b:1".to_owned()];
        assert!(given.flags.contains(&("--gateway", "logic.gateways", gateways)));
        assert!(given.flags.contains(&("--quiet", "log.level", vec!["error".to_owned()])));
    }
}
