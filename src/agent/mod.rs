//! `tidegate agent`: an edge agent. Connects as a user, answers commands of the push API, comes back when it loses its
//! connection. Parts: `allow` (what it may do), `commands` (commands and replies), `memory`, `execute`, `host`, `session` (one
//! connection), `socket` (its WebSocket), `policy` (whether and when to come back).
//! It is a client like any other and knows only the client protocol. Invariant: no token is in any log or error.

mod allow;
mod commands;
mod execute;
mod host;
mod memory;
mod policy;
mod session;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::{Request, Uri};
use tokio::sync::watch;
use tokio::time::sleep;

use self::allow::Allow;
use self::commands::Commands;
use self::policy::{Next, Spacing, next};
use self::session::Over;
use crate::cli::Agent as Args;
use crate::config::Config;
use crate::failure::Failure;
use crate::log;
use crate::process::{self, Signals};

/// How long leaving may take: a close frame and its answer.
const LEAVE: Duration = Duration::from_secs(3);
/// A connection that has lasted this long makes earlier failures forgotten.
const LASTED: Duration = Duration::from_secs(30);

/// Where the agent connects, as whom.
struct Identity {
    /// With user and platform in the query.
    uri: Uri,
    token: Option<Token>,
}

enum Token {
    Given(String),
    File(PathBuf),
}

/// Runs until a signal, or until it is refused for good.
pub fn run(config: Config, args: Args) -> Result<ExitCode, Failure> {
    let usage = |why: String| Failure::Usage(vec![why]);
    let allow = Allow::read(&args.allow).map_err(usage)?;
    let identity = Identity::of(&args).map_err(usage)?;
    // A token that cannot be read is a mistake now; later it may be on its way.
    identity.request().map_err(usage)?;
    log::start(&config.log);
    let place = identity.place();
    tracing::info!(url = %place, allows = %allow.words(), "agent starts");
    process::run(async move {
        let mut signals = Signals::listen()?;
        let (stop, stopped) = watch::channel(false);
        let commands = Commands::new(allow, usize::from(args.at_once), usize::from(args.remember));
        let mut life = tokio::spawn(keep_connected(identity, commands, stopped));
        let name = tokio::select! {
            end = &mut life => {
                end.unwrap_or_else(|error| Err(anyhow::anyhow!("the agent's task ended: {error}")))?;
                return Ok(ExitCode::SUCCESS);
            }
            name = signals.end(|| tracing::info!("SIGHUP: an agent reads its token file with each connection")) => name,
        };
        stop.send_replace(true);
        signals.then(name, LEAVE, async { drop(tokio::time::timeout(LEAVE, life).await) }).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// One connection after the other.
async fn keep_connected(
    identity: Identity,
    mut commands: Commands,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut spacing = Spacing::default();
    let mut failures = 0;
    let may_mend = matches!(identity.token, Some(Token::File(_)));
    while !*stop.borrow() {
        let begun = tokio::time::Instant::now();
        let ending = match identity.request() {
            Ok(request) => match session::run(request, &mut commands, &mut spacing, &mut stop).await {
                Over::Stopped => return Ok(()),
                Over::Ended(ending) => ending,
            },
            Err(why) => {
                tracing::warn!(why, "no token");
                policy::Ending::Lost
            }
        };
        failures = if begun.elapsed() >= LASTED { 0 } else { failures + 1 };
        match next(&ending, u32::saturating_sub(failures, 1), spacing, may_mend, fastrand::f64()) {
            Next::Stop => anyhow::bail!("refused for good ({ending:?}): nothing will change by trying again"),
            Next::After(delay) => {
                tracing::info!(?ending, delay_ms = delay.as_millis() as u64, "disconnected, coming back");
                tokio::select! {
                    () = sleep(delay) => {}
                    _ = stop.changed() => {}
                }
            }
        }
    }
    Ok(())
}

impl Identity {
    fn of(args: &Args) -> Result<Self, String> {
        let uri: Uri = args.url.parse().map_err(|error| format!("--url: {error}"))?;
        if !matches!(uri.scheme_str(), Some("ws" | "wss")) || uri.host().is_none() {
            return Err("--url must be ws://HOST:PORT/PATH or wss://…".into());
        }
        let query = uri.query().unwrap_or_default();
        if query.split('&').any(|pair| pair.starts_with("token=")) {
            return Err("--url must not carry a token, which would end up in logs: use --token-file".into());
        }
        let mut pairs: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
        if let Some(user) = &args.user {
            pairs.push(format!("user={}", encoded(user)));
        }
        pairs.push(format!("platform={}", encoded(&args.platform)));
        let path = if uri.path() == "/" { "/ws" } else { uri.path() };
        let mut parts = uri.clone().into_parts();
        let path_and_query = format!("{path}?{}", pairs.join("&")).parse();
        parts.path_and_query = Some(path_and_query.map_err(|error| format!("--url: {error}"))?);
        let token = match (&args.token, &args.token_file) {
            (Some(token), _) => Some(Token::Given(token.clone())),
            (None, Some(file)) => Some(Token::File(file.clone())),
            (None, None) => None,
        };
        let uri = Uri::from_parts(parts).map_err(|error| format!("--url: {error}"))?;
        Ok(Self { uri, token })
    }

    /// Without the query.
    fn place(&self) -> String {
        let authority = self.uri.authority().map_or("", |a| a.as_str());
        format!("{}://{authority}{}", self.uri.scheme_str().unwrap_or_default(), self.uri.path())
    }

    /// The handshake, with the token as it is now. The error names no token.
    fn request(&self) -> Result<Request<()>, String> {
        let mut request = Request::new(());
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("tidegate.v1.json"));
        let token = match &self.token {
            None => return Ok(request),
            Some(Token::Given(token)) => token.clone(),
            Some(Token::File(file)) => {
                std::fs::read_to_string(file).map_err(|error| format!("--token-file {}: {error}", file.display()))?
            }
        };
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| "the token has characters that no token has".to_owned())?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        Ok(request)
    }
}

/// Percent-encodes what is not plain in a query.
fn encoded(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn identity(flags: &[&str]) -> Result<Identity, String> {
        let words = ["tidegate", "agent", "--allow", "ping"].iter().chain(flags);
        let Command::Agent(args) = Cli::parse_from(words).command else { panic!("an agent") };
        Identity::of(&args)
    }

    #[test]
    fn user_and_platform_go_into_the_query_and_the_log_has_neither() {
        let identity = identity(&["--url", "ws://a:1/ws?x=1", "--user", "robot 7/é"]).expect("good");

        assert_eq!(identity.uri.to_string(), "ws://a:1/ws?x=1&user=robot%207%2F%C3%A9&platform=agent");
        assert_eq!(identity.place(), "ws://a:1/ws");
    }

    #[test]
    fn a_token_travels_in_a_header_and_is_in_no_error() {
        let canary = "CANARY";
        let with = identity(&["--url", "wss://a/", "--token", canary]).expect("good");
        let request = with.request().expect("good");
        let bad = identity(&["--url", "wss://a/", "--token", "CANARY\n\u{7f}x"]).expect("good").request();

        assert_eq!(request.uri().to_string(), "wss://a/ws?platform=agent");
        assert!(!format!("{request:?}").contains(canary), "{request:?}");
        assert!(bad.is_err_and(|why| !why.contains(canary)));
        assert!(identity(&["--url", "ws://a/ws?token=CANARY"]).is_err_and(|why| !why.contains(canary)));
    }

    #[test]
    fn a_url_is_of_a_websocket() {
        for url in ["http://a/ws", "ws:", "a"] {
            assert!(identity(&["--url", url]).is_err(), "{url}");
        }
    }
}
