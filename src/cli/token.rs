//! `tidegate token` on the command line. No flag takes a secret: other users of a machine can read command lines.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};
use tidegate_gateway::TokenAlgorithm;

use super::{When, examples};

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a new token, signed with a key of this configuration or of a file
    #[command(after_help = examples::TOKEN)]
    Mint(Box<TokenMint>),
    /// Say what a token on standard input claims, and what this configuration's gateways make of it
    Inspect {
        /// Read the token from a file instead
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct TokenMint {
    /// The user
    #[arg(long, value_name = "NAME")]
    pub sub: String,
    /// How long it counts: a span such as 1h, or a date
    #[arg(long, value_name = "WHEN", default_value = "1h")]
    pub exp: When,
    /// From when it counts [default: at once]
    #[arg(long, value_name = "WHEN")]
    pub nbf: Option<When>,
    /// Platform, such as web
    #[arg(long, value_name = "NAME")]
    pub plat: Option<String>,
    /// Device
    #[arg(long, value_name = "NAME")]
    pub dev: Option<String>,
    /// An attribute such as lang=de; may be repeated
    #[arg(long = "attr", value_name = "NAME=VALUE", action = ArgAction::Append, value_parser = pair)]
    pub attributes: Vec<(String, String)>,
    #[command(flatten)]
    pub grants: Grants,
    /// Audience [default: gateway.auth.audience]
    #[arg(long, value_name = "NAME")]
    pub aud: Option<String>,
    /// Issuer [default: gateway.auth.issuer]
    #[arg(long, value_name = "NAME")]
    pub iss: Option<String>,
    /// File with the private key in PEM or, for HS256, the secret [default: a HS256 key of gateway.auth.keys]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Algorithm of the key in --key-file: HS256, RS256, PS256, ES256, EdDSA [default: HS256]
    #[arg(long, value_name = "NAME", value_parser = algorithm, requires = "key_file")]
    pub alg: Option<TokenAlgorithm>,
    /// Name of the key among those of the gateway
    #[arg(long, value_name = "NAME")]
    pub kid: Option<String>,
}

/// Patterns (`*` any run of characters, `{sub}` the user); lists are separated by commas, and flags may be repeated.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What its bearer may do (patterns: * any run of characters, {sub} the user)")]
pub struct Grants {
    /// Rooms it may join
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub rooms: Vec<String>,
    /// Rooms it may speak in
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub speak: Vec<String>,
    /// Rooms whose counts it may see [default: as --rooms]
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub presence: Vec<String>,
    /// Rooms whose members it may list
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub members: Vec<String>,
    /// Users it may speak to
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub users: Vec<String>,
    /// Upstream routes it may use
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub routes: Vec<String>,
    /// Rooms it is in from the start
    #[arg(long, value_name = "ROOMS", value_delimiter = ',')]
    pub join: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value, such as lang=de")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn algorithm(name: &str) -> Result<TokenAlgorithm, String> {
    TokenAlgorithm::named(name).ok_or_else(|| "known are HS256, RS256, PS256, ES256 and EdDSA".to_owned())
}
