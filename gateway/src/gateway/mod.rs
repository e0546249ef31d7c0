//! The handle that starts and ends a gateway. The order of [`Gateway::start`] is the order in which the parts depend on
//! each other.

mod build;
pub(crate) mod check;
mod drain;
pub(crate) mod drain_rate;
mod housekeeping;
pub(crate) mod node;
mod presence;

#[cfg(test)]
mod aged_tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tidegate_protocol::handshake::Origins;
use tidegate_tls::Renewal;

use self::node::Node;
use crate::accept::{Acceptor, before_logic, listener};
use crate::clock::Clock;
use crate::config::{BeforeLogic, GatewayConfig};
use crate::connection::event_loop::EventLoop;
use crate::gateway::check::refusals;
use crate::operate::ops::MetricsText;
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
    pub(crate) node: Arc<Node>,
    listen: SocketAddr,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
        let (node, threads) = build::build(config, origins, auth, listen, (cores, clock))?;
        for index in 0..node.buckets.len() {
            tokio::spawn(EventLoop::new(Arc::clone(&node.host), index).run());
        }
        tokio::spawn(housekeeping::run(Arc::clone(&node)));
        if node.access.auth.is_required() {
            tokio::spawn(auth::watch(Arc::clone(&node.access), Arc::clone(&node.lifecycle)));
        }
        if !node.config.presence.rooms.is_empty() {
            tokio::spawn(presence::run(Arc::clone(&node)));
        }
        if node.front.awaits_logic() {
            let front = Arc::clone(&node.front);
            tokio::spawn(async move { before_logic::warn(&front).await });
        }
        let listener = Arc::new(listener);
        #[expect(clippy::cast_possible_truncation, reason = "as many as mailboxes, which `lobbies` bounds")]
        for index in 0..node.capacity.mailboxes.len() {
            tokio::spawn(Acceptor::new(Arc::clone(&node.front), Arc::clone(&listener), index as u16)?.run());
        }
        Ok(Self { node, listen, threads: Mutex::new(threads) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Name in receipts and metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.instance.name
    }

    /// Resolves once a logic node has said what it wants to hear. Before, clients are treated as
    /// `handshake.before_logic` says.
    pub async fn told(&self) {
        self.node.uplink.wants.heard().await;
    }

    /// Resolves once all logic nodes that are linked have taken this gateway off their lists: it should [drain](Gateway::drain).
    pub async fn delisted(&self) {
        self.node.uplink.wants.delisted().await;
    }

    /// Most connections it takes.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.node.population.connections_max
    }

    /// Whether clients speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.node.front.tls.is_some()
    }

    /// Reads the certificates again. Connections go on as they began, also when what was read is put in force.
    ///
    /// # Errors
    /// What could not be read, each with its section and file.
    pub fn renewal(&self) -> Result<Renewal<'_>, Vec<String>> {
        let client = self.node.front.tls.as_ref().map(|tls| tls.renewal());
        let backplane = self.node.backplane.tls.as_ref().map(tidegate_tls::Server::renewal);
        Renewal::all([("gateway.tls", client), ("gateway.backplane_tls", backplane)])
    }

    /// Appends the gateway's metrics in Prometheus' text format, without an end mark.
    pub fn metrics_text(&self, out: &mut String) {
        crate::operate::metrics::write(&self.node, out);
    }

    /// Serves the backplane on its TCP address; gives the address bound.
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub async fn serve_backplane(&self) -> Result<SocketAddr, StartError> {
        let bound = self.node.backplane.listen(self.node.config.backplane).await;
        bound.map_err(cannot_bind(self.node.config.backplane, "backplane"))
    }

    /// A new in-memory link to the backplane, for a logic node in the same process.
    pub fn pipe(&self) -> impl Fn() -> tokio::io::DuplexStream + Send + Sync + 'static {
        let backplane = Arc::clone(&self.node.backplane);
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
        let bound = crate::operate::ops::listen(&self.node, more).await;
        bound.map_err(cannot_bind(self.node.config.ops, "ops"))
    }

    /// Puts another configuration in force as far as that goes while connections live: keys and expectations of tokens (files
    /// are read anew), the limits of a client's messages and rooms, the device policy. All of it or, on an error, nothing. The
    /// configuration has no contradictions ([`GatewayConfig::problems`]).
    ///
    /// # Errors
    /// What is wrong with it, in the operator's words.
    pub fn reload(&self, config: &GatewayConfig) -> Result<(), StartError> {
        self.node.access.auth.reload(&config.auth).map_err(|e| StartError::Config(e.to_string()))?;
        if !self.node.config.echo {
            self.node.settings.set(config);
        }
        Ok(())
    }

    /// Leaves without a stampede: readiness off, no strangers, GOAWAY, closes at the pace of the fleet, then stops.
    pub async fn drain(&self) {
        drain::run(&self.node).await;
        self.node.lifecycle.stop();
        self.node.fanout.stop();
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
