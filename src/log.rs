//! Sets up the log: one line or one JSON object per event, on standard error. The level can change while the process runs.
//! Standard output stays free for what a command answers. Colour only for a terminal, and not where NO_COLOR is set.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// The way to the level of the log once it is started.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Called once, before anything is logged.
pub fn start(config: &LogConfig) {
    let (level, handle) = reload::Layer::new(filter(config.level));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour);
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

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}
