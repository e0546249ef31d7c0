//! The harness alone, as `harness bench …`: for work on it without the server. `tidegate bench …` is the same code.

use clap::FromArgMatches as _;

fn main() -> anyhow::Result<std::process::ExitCode> {
    let matches = clap::Command::new("harness").subcommand(tidegate_bench::command()).get_matches();
    match matches.subcommand() {
        Some(("bench", bench)) => tidegate_bench::main(tidegate_bench::Bench::from_arg_matches(bench)?),
        _ => anyhow::bail!("usage: harness bench …"),
    }
}
