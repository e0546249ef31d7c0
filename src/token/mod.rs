//! `tidegate token`: mints tokens for trying things out and for scripts, and looks at tokens with the very code that gateways
//! verify them with. A service that mints tokens for its users does so itself, in its own language.

mod inspect;
mod mint;

use std::process::ExitCode;

pub use self::inspect::inspect;
use crate::cli::TokenMint;
use crate::config::Loaded;
use crate::failure::Failure;
use crate::out;

/// Prints a new token on standard output, and on standard error what is wrong with it for this configuration.
pub fn mint(loaded: &Loaded, args: &TokenMint) -> Result<ExitCode, Failure> {
    let auth = &loaded.config.gateway.auth;
    let token = mint::mint(auth, args, std::time::SystemTime::now())?;
    out::answer(&format!("{token}\n"))?;
    if let Err(why) = inspect::verdict(auth, &token) {
        out::remark(&format!("note: gateways of this configuration would refuse it: {why}"));
    }
    Ok(ExitCode::SUCCESS)
}
