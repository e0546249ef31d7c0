//! The handle that starts and ends a gateway. The order of [`Gateway::start`] is the order in which the parts depend on
//! each other.

mod build;
pub(crate) mod check;
mod drain;
pub(crate) mod drain_rate;
mod housekeeping;
mod presence;

#[cfg(test)]
mod aged_tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_protocol::handshake::Origins;
use tidegate_tls::Renewal;

use self::build::Built;
use self::drain::Drain;
use crate::accept::front::Front;
use crate::accept::{Acceptor, before_logic, listener};
use crate::backplane::{Backplane, GOODBYE};
use crate::clock::Clock;
use crate::config::{BeforeLogic, GatewayConfig};
use crate::connection::event_loop::EventLoop;
use crate::connection::host::Host;
use crate::gateway::check::refusals;
use crate::key::Instance;
use crate::operate::health::Health;
use crate::operate::ops::{self, MetricsText, Ops};
use crate::operate::{Sources, metrics};
use crate::session::auth::{self, Auth};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({what}): {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// The system's word.
        error: io::Error,
    },
    /// The system lacks something else.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) parts: Parts,
    listen: SocketAddr,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is asked of a running gateway.
#[derive(Debug)]
pub(crate) struct Parts {
    pub instance: Arc<Instance>,
    pub host: Arc<Host>,
    pub front: Arc<Front>,
    pub backplane: Arc<Backplane>,
    pub sources: Arc<Sources>,
    pub drain: Drain,
    /// Where the backplane and the ops listener are served, once asked for.
    pub backplane_at: SocketAddr,
    pub ops_at: SocketAddr,
    /// How long what clients say waits for a logic node.
    pub wait_ms: u32,
}

impl Gateway {
    /// Starts a gateway: binds the client listener and starts buckets, fan-out threads, tick and acceptors.
    /// The backplane and the ops listener are served separately ([`Gateway::serve_backplane`], [`Gateway::serve_ops`]).
    ///
    /// # Errors
    /// [`StartError`], with nothing left running but what ends with the process.
    pub async fn start(config: GatewayConfig) -> Result<Self, StartError> {
        Self::start_on(config, Clock::start())
    }

    /// The same on a clock that may have run for long.
    pub(crate) fn start_on(mut config: GatewayConfig, clock: Clock) -> Result<Self, StartError> {
        let problems = refusals(&config);
        if !problems.is_empty() {
            return Err(StartError::Config(problems.join("; ")));
        }
        let origins = Origins::parse(&config.allowed_origins).map_err(|e| StartError::Config(e.to_string()))?;
        let auth = Auth::new(&config.auth).map_err(|e| StartError::Config(e.to_string()))?;
        if config.echo {
            // A conformance suite sends messages of 16 MiB and 65,536 fragments, on purpose.
            config.limits.message_bytes = config.limits.message_bytes.max(64 << 20);
            config.limits.fragments = config.limits.fragments.max(1 << 20);
            config.pending.bytes = config.pending.bytes.max(128 << 20);
            config.limits.control_per_s = config.limits.control_per_s.max(10_000);
            config.limits.partial_bytes_total = config.limits.partial_bytes_total.max(1 << 30);
            // It is used alone.
            config.handshake.before_logic = BeforeLogic::Admit;
        }
        let listener = listener::bind(config.listen, config.user_timeout_ms(), config.pending.kernel_bytes)
            .map_err(cannot_bind(config.listen, "clients"))?;
        let listen = local_address(&listener)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let Built { parts, housekeeping, presence, threads } =
            build::build(&config, origins, auth, listen, (cores, clock))?;
        let Parts { host, front, .. } = &parts;
        for index in 0..host.buckets.len() {
            tokio::spawn(EventLoop::new(Arc::clone(host), index).run());
        }
        tokio::spawn(housekeeping.run());
        if host.access.auth.is_required() {
            tokio::spawn(auth::watch(Arc::clone(&host.access), Arc::clone(&host.lifecycle)));
        }
        if !config.presence.rooms.is_empty() {
            tokio::spawn(presence.run());
        }
        if front.awaits_logic() {
            let front = Arc::clone(front);
            tokio::spawn(async move { before_logic::warn(&front).await });
        }
        let listener = Arc::new(listener);
        #[expect(clippy::cast_possible_truncation, reason = "as many as mailboxes, which `lobbies` bounds")]
        for index in 0..front.capacity.mailboxes.len() {
            tokio::spawn(Acceptor::new(Arc::clone(front), Arc::clone(&listener), index as u16)?.run());
        }
        Ok(Self { parts, listen, threads: Mutex::new(threads) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Name in receipts and metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.instance.name
    }

    /// Resolves once a logic node has said what it wants to hear. Before, clients are treated as
    /// `handshake.before_logic` says.
    pub async fn told(&self) {
        self.parts.host.uplink.wants.heard().await;
    }

    /// Resolves once all logic nodes that are linked have taken this gateway off their lists, and none that has it there has come
    /// back within `uplink.wait_ms`: it should [drain](Gateway::drain).
    pub async fn delisted(&self) {
        let patience = Duration::from_millis(u64::from(self.parts.wait_ms));
        self.parts.host.uplink.wants.delisted(patience).await;
    }

    /// Most connections it takes.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.parts.front.capacity.population.connections_max
    }

    /// Whether clients speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.parts.front.tls.is_some()
    }

    /// Reads the certificates again. Connections go on as they began, also when what was read is put in force.
    ///
    /// # Errors
    /// What could not be read, each with its section and file.
    pub fn renewal(&self) -> Result<Renewal<'_>, Vec<String>> {
        let client = self.parts.front.tls.as_ref().map(|tls| tls.renewal());
        let backplane = self.parts.backplane.tls.as_ref().map(tidegate_tls::Server::renewal);
        Renewal::all([("gateway.tls", client), ("gateway.backplane_tls", backplane)])
    }

    /// Appends the gateway's metrics in Prometheus' text format, without an end mark.
    pub fn metrics_text(&self, out: &mut String) {
        metrics::write(&self.parts.sources, out);
    }

    /// Serves the backplane on its TCP address; gives the address bound.
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub async fn serve_backplane(&self) -> Result<SocketAddr, StartError> {
        let bound = self.parts.backplane.listen(self.parts.backplane_at).await;
        bound.map_err(cannot_bind(self.parts.backplane_at, "backplane"))
    }

    /// A new in-memory link to the backplane, for a logic node in the same process.
    pub fn pipe(&self) -> impl Fn() -> tokio::io::DuplexStream + Send + Sync + 'static {
        let backplane = Arc::clone(&self.parts.backplane);
        move || {
            // As large as a batch, so that a push crosses in one piece.
            let (near, far) = tokio::io::duplex(tidegate_protocol::limits::BACKPLANE_BATCH_BYTES);
            tokio::spawn(Arc::clone(&backplane).serve(far));
            near
        }
    }

    /// Serves `/healthz`, `/readyz` and `/metrics`, to which `more` adds what the process knows; gives the address bound.
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub async fn serve_ops(&self, more: MetricsText) -> Result<SocketAddr, StartError> {
        let Parts { sources, front, ops_at, wait_ms, .. } = &self.parts;
        let health = Health { front: Arc::clone(front), wait_ms: *wait_ms };
        let bound = ops::listen(*ops_at, Ops { sources: Arc::clone(sources), health, more }).await;
        bound.map_err(cannot_bind(*ops_at, "ops"))
    }

    /// Puts another configuration in force as far as that goes while connections live: keys and expectations of tokens (files
    /// are read anew), the limits of a client's messages and rooms, the device policy. All of it or, on an error, nothing. The
    /// configuration has no contradictions ([`GatewayConfig::problems`]).
    ///
    /// # Errors
    /// What is wrong with it, in the operator's words.
    pub fn reload(&self, config: &GatewayConfig) -> Result<(), StartError> {
        self.parts.host.access.auth.reload(&config.auth).map_err(|e| StartError::Config(e.to_string()))?;
        if !self.parts.host.rules.echo {
            self.parts.host.settings.set(config);
        }
        Ok(())
    }

    /// Leaves without a stampede: readiness off, no strangers, GOAWAY, closes at the pace of the fleet, then stops.
    pub async fn drain(&self) {
        self.parts.drain.run().await;
        self.parts.host.lifecycle.stop();
        self.parts.drain.fanout.stop();
        // Logic nodes are told that this is no loss: whoever waits for this gateway to be empty lets it go by that word.
        let _ = tokio::time::timeout(2 * GOODBYE, self.parts.backplane.links.ended()).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A fan-out thread that panicked has said so already.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn cannot_bind(address: SocketAddr, what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Bind { address, what, error }
}

fn local_address(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(listener)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::other("not an internet address"))
}
