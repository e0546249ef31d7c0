//! Sets up the log: one line or one JSON object per event, on standard error. The level can change while the process runs.
//! Standard output stays free for what a command answers. Colour only for a terminal, and not where NO_COLOR is set.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// The way to the level of the log once it is started.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Called once, before anything is logged.
pub fn start(config: &LogConfig) {
    let (level, handle) = reload::Layer::new(filter(config.level));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // What cannot be written is lost: a node must not end because whoever read its log has.
    let lines =
        fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour).log_internal_errors(false);
    let log = tracing_subscriber::registry().with(level);
    match config.format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
    }
    // `init` has panicked if this was not the first time.
    let _ = LEVEL.set(handle);
}

/// Another level from now on; nothing where no log was started.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // Fails only when the log is gone, and then there is nobody to tell.
        let _ = handle.reload(filter(level));
    }
}

/// What libraries say at `debug` is of their own making, a line for each HTTP/2 frame: it comes with `trace`.
fn filter(level: LogLevel) -> Targets {
    let (ours, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::INFO),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    // The crates' names all begin with it.
    Targets::new().with_default(libraries).with_target(OURS, ours)
}

/// How the names of this workspace's crates begin.
const OURS: &str = "tidegate";

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn debug_is_of_this_program_and_trace_of_everything() {
        let is_written = |level, target| filter(level).would_enable(target, &Level::DEBUG);

        assert!(is_written(LogLevel::Debug, "tidegate") && is_written(LogLevel::Debug, "tidegate_gateway::bucket"));
        assert!(!is_written(LogLevel::Debug, "h2::codec") && !is_written(LogLevel::Debug, "hyper_util::client"));
        assert!(is_written(LogLevel::Trace, "h2::codec") && !is_written(LogLevel::Info, "tidegate"));
        assert!(filter(LogLevel::Debug).would_enable("h2", &Level::WARN));
    }
}
