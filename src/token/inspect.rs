//! Shows what a token says and what a gateway of this configuration makes of it. The claims are shown whether or not they are
//! true; only the verdict says that. The token itself and its signature are never shown.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tidegate_gateway::AuthConfig;
use tidegate_gateway::session::auth::{Claims, TOKEN_BYTES_MAX, Verifier};
use tidegate_logic::Moment;

use crate::config::Loaded;
use crate::failure::Failure;
use crate::out;

/// Says of a token what it is. Exit code 1 when it is not accepted.
pub fn inspect(loaded: &Loaded, file: Option<&Path>) -> Result<ExitCode, Failure> {
    let token = read(file)?;
    for (name, part) in ["header", "claims"].into_iter().zip(token.split('.')) {
        out::answer(&format!("{name}: {}\n", shown(part)))?;
    }
    let (verdict, code) = match verdict(&loaded.config.gateway.auth, &token) {
        Ok(claims) => (accepted(&claims, Moment::now()), ExitCode::SUCCESS),
        Err(why) => (format!("refused: {why}"), ExitCode::FAILURE),
    };
    out::answer(&format!("verdict: {verdict}\n"))?;
    Ok(code)
}

/// What a gateway of this configuration makes of a token now.
pub fn verdict(auth: &AuthConfig, token: &str) -> Result<Claims, String> {
    if auth.keys.is_empty() && auth.jwks.is_empty() {
        return Err("not verified, because this configuration has no gateway.auth.keys and no gateway.auth.jwks".into());
    }
    let verifier = Verifier::new(auth).map_err(|error| error.to_string())?;
    verifier.verify(token, Moment::now().0).map_err(|error| format!("{}: {error}", error.code()))
}

fn accepted(claims: &Claims, now: Moment) -> String {
    let left = Duration::from_secs(u64::from(claims.expires_s).saturating_sub(now.0));
    let until = Moment(u64::from(claims.expires_s));
    format!("accepted: user {:?} until {until} ({} left)", claims.user, humantime::format_duration(left))
}

/// A part as JSON; a gateway is stricter than this.
fn shown(part: &str) -> String {
    let json =
        URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| tidegate_protocol::json::from_slice::<Value>(&bytes).ok());
    json.map_or_else(|| "(not base64url of JSON)".into(), |json| format!("{json:#}"))
}

fn read(file: Option<&Path>) -> Result<String, Failure> {
    let mut text = String::new();
    let most = TOKEN_BYTES_MAX as u64 + 1_024;
    match file {
        Some(path) => {
            let place = || format!("{} cannot be read", path.display());
            std::fs::File::open(path).with_context(place)?.take(most).read_to_string(&mut text).with_context(place)?
        }
        None => {
            if std::io::stdin().is_terminal() {
                out::remark("paste the token, then Ctrl-D:");
            }
            let read = std::io::stdin().take(most).read_to_string(&mut text);
            read.context("standard input cannot be read as text")?
        }
    };
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    if token.is_empty() {
        return Err(Failure::Usage(vec!["no token on standard input: `tidegate token inspect < token-file`".into()]));
    }
    Ok(token.to_owned())
}
