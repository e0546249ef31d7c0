//! The flags of `tidegate agent`.

use std::path::PathBuf;

/// See the fields.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to connect: ws://HOST:PORT/ws or wss://…
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// What it may do: ping, info, exec:FILE; separated by commas
    #[arg(long, value_name = "WORDS")]
    pub allow: String,
    /// Its name, where the gateway takes names on trust
    #[arg(long, value_name = "NAME", conflicts_with_all = ["token", "token_file"])]
    pub user: Option<String>,
    /// Token that names it; other users of this machine can see flags, so prefer a file or the variable
    #[arg(long, value_name = "TOKEN", env = "TIDEGATE_AGENT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the token; read again for each connection, so that it can be replaced
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Its platform, by which /v1/agents finds it
    #[arg(long, value_name = "NAME", default_value = "agent")]
    pub platform: String,
    /// Commands done at once; 64 more wait
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub at_once: u16,
    /// Replies remembered, for commands that come again
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u16).range(1..))]
    pub remember: u16,
}
