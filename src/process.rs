//! What the three long-running commands share as processes: the runtime, open files, the service manager, signals.
//! Knows nothing of connections or pushes.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Runs a command's life on a runtime of its own: one worker a core, since buckets are balanced over them and fan-out has
/// threads of its own. What still runs when the life is over ends with the process: a second signal must not wait.
pub fn run<T>(life: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("tidegate")
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let end = runtime.block_on(life);
    runtime.shutdown_background();
    end
}

/// Raises the soft limit of open files to the hard one: each connection is a file, and the usual soft limit is 1,024.
/// Where that fails the process goes on; the gateway bounds its connections by what it finds.
pub fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => tracing::debug!(files, "open files"),
        Err(error) => tracing::warn!(%error, "the soft limit of open files cannot be raised to the hard one"),
    }
}

/// Tells systemd, if it started us, and starts the watchdog pings if it asked for them.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    if let Some(deadline) = sd_notify::watchdog_enabled() {
        tokio::spawn(async move {
            // Half the deadline, as sd_watchdog_enabled(3) advises; a stalled runtime stops the pings.
            let mut tick = tokio::time::interval((deadline / 2).max(Duration::from_millis(1)));
            loop {
                tick.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
        });
    }
}

/// Tells systemd what `systemctl status` shows from now on.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Tells systemd that we leave, and for how long that may take whatever TimeoutStopSec says.
fn stopping(takes_at_most: Duration) {
    let micros = u32::try_from(takes_at_most.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// SIGTERM and SIGINT, which end the process, and SIGHUP, which does not.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be awaited");
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }

    /// Waits for the first signal that ends the process; at each SIGHUP up to then `reload` is called.
    pub async fn end(&mut self, mut reload: impl FnMut()) -> &'static str {
        loop {
            if let Some(name) = self.hup_or_end().await {
                return name;
            }
            reload();
        }
    }

    /// Waits for the next signal; none for SIGHUP, which does not end the process.
    pub async fn hup_or_end(&mut self) -> Option<&'static str> {
        tokio::select! {
            _ = self.hup.recv() => None,
            _ = self.term.recv() => Some("SIGTERM"),
            _ = self.int.recv() => Some("SIGINT"),
        }
    }

    /// After the signal `name`: waits for `leave`; a second signal ends the wait.
    pub async fn then(
        mut self,
        name: &'static str,
        takes_at_most: Duration,
        leave: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        tracing::info!(signal = name, "draining; a second signal ends at once");
        stopping(takes_at_most);
        tokio::select! {
            () = leave => {
                tracing::info!("stopped");
                Ok(())
            }
            name = self.next() => {
                tracing::warn!(signal = name, "ended before the drain was over");
                Err(Failure::Interrupted)
            }
        }
    }
}
