//! The handle that starts and ends a gateway. The order of [`Gateway::start`] is the order in which the parts depend on
//! each other.

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
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tidegate_protocol::handshake::Origins;
use tidegate_protocol::places::Places;
use tidegate_tls::{Renewal, TlsError};

use self::node::Node;
use crate::accept::admission::{Admission, RATE_A_CORE};
use crate::accept::backlog::Backlog;
use crate::accept::capacity::Capacity;
use crate::accept::hook::Mailbox;
use crate::accept::proxy_header::Proxies;
use crate::accept::tls::TlsEndpoint;
use crate::accept::{Acceptor, before_logic, listener};
use crate::backplane::{self, Links};
use crate::bucket::Bucket;
use crate::budget::Budget;
use crate::clock::{Clock, unix_ms};
use crate::config::settings::Settings;
use crate::config::{BeforeLogic, GatewayConfig};
use crate::connection::event_loop::EventLoop;
use crate::counters::{Population, Totals};
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::Merger;
use crate::deliver::merge::compressor::Compressor;
use crate::gateway::check::refusals;
use crate::gateway::drain_rate::SpareCapacity;
use crate::key::Instance;
use crate::operate::ops::{self, MetricsText};
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;
use crate::rooms::presence::Watched;
use crate::session::auth::{self, Auth};
use crate::session::blocklist::Blocklist;
use crate::session::{Access, ClaimsPool, Open, Platforms};
use crate::uplink::Uplink;

/// Changes of interest a late logic node can catch up with before it needs a snapshot.
const INTEREST_LOG: usize = 256 * 1024;
/// Most acceptors: more than any machine has cores.
const ACCEPTORS_MAX: usize = 4_096;
/// Files kept for logs, listeners, epoll sets and the backplane.
const FILES_RESERVED: usize = 256;
/// A TLS client's own socket, and the pair inside.
const FILES_A_TLS_CLIENT: usize = 3;

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
        let (node, threads) = Self::build(config, origins, auth, listen, (cores, clock))?;
        for index in 0..node.buckets.len() {
            tokio::spawn(EventLoop::new(Arc::clone(&node), index).run());
        }
        tokio::spawn(housekeeping::run(Arc::clone(&node)));
        if node.access.auth.is_required() {
            tokio::spawn(auth::watch(Arc::clone(&node)));
        }
        if !node.config.presence.rooms.is_empty() {
            tokio::spawn(presence::run(Arc::clone(&node)));
        }
        if node.awaits_logic() {
            let node = Arc::clone(&node);
            tokio::spawn(async move { before_logic::warn(&node).await });
        }
        let listener = Arc::new(listener);
        #[expect(clippy::cast_possible_truncation, reason = "as many as mailboxes, which `lobbies` bounds")]
        for index in 0..node.capacity.mailboxes.len() {
            tokio::spawn(Acceptor::new(Arc::clone(&node), Arc::clone(&listener), index as u16)?.run());
        }
        Ok(Self { node, listen, threads: Mutex::new(threads) })
    }

    fn build(
        config: GatewayConfig,
        origins: Origins,
        auth: Auth,
        listen: SocketAddr,
        (cores, clock): (usize, Clock),
    ) -> Result<(Arc<Node>, Vec<JoinHandle<()>>), StartError> {
        let count = match config.buckets {
            0 => (cores * 32).next_power_of_two().clamp(64, 1024),
            n => n,
        };
        #[expect(clippy::cast_possible_truncation, reason = "config.problems() bounds the number of buckets")]
        let buckets: Arc<[Bucket]> = (0..count).map(|i| Bucket::new(i as u16)).collect::<io::Result<Vec<_>>>()?.into();
        let (fanout, handles) = Fanout::on_sockets(Arc::clone(&buckets), &config.fanout, config.pending.bytes, clock)?;
        let epoch = unix_ms();
        let epoch_text = format!("{epoch:x}-");
        let totals = Arc::new(Totals::default());
        let all_epoch = epoch_text.trim_end_matches('-');
        let compressor = Compressor::new(&config.deflate);
        let (shared, totals_too) = (Arc::clone(&buckets), Arc::clone(&totals));
        let merger = Merger::new(&config.merge, compressor, all_epoch, shared, Arc::clone(&fanout), totals_too);
        let (tls, backplane_tls) = certificates(&config)?;
        let rate_max = match config.handshake.rate_max {
            0 => RATE_A_CORE.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)),
            n => n,
        };
        let acceptors = if config.handshake.lobbies == 0 { cores } else { config.handshake.lobbies }.min(ACCEPTORS_MAX);
        let watched = Watched::new(&config.presence, config.limits.rooms_total);
        let population = Arc::new(Population::new(connections_max(&config, count)));
        let node = Node {
            instance: Arc::new(Instance {
                name: if config.name.is_empty() { listen.to_string() } else { config.name.clone() },
                epoch,
                id: if config.id == 0 { fastrand::u16(1..) } else { config.id },
                #[expect(clippy::cast_possible_truncation, reason = "wraps every 13 years, by design")]
                id_epoch: (epoch / 100) as u32,
                buckets: count,
            }),
            lifecycle: Arc::default(),
            clock,
            rooms: Arc::new(Rooms::watching(count, config.limits.rooms_total, &epoch_text, watched)),
            buckets,
            interest: Arc::new(Interest::new(INTEREST_LOG)),
            uplink: Arc::new(Uplink::new(&config.uplink)),
            access: Arc::new(Access {
                platforms: Platforms::knowing(config.devices.platforms.keys().map(String::as_str)),
                auth,
                claims: ClaimsPool::default(),
                open: Open::of(&config),
                blocklist: Blocklist::default(),
            }),
            origins,
            proxies: Proxies::new(&config.proxy),
            tls,
            backplane_tls,
            totals,
            fanout,
            merger: Arc::new(merger),
            links: Links::default(),
            capacity: Arc::new(Capacity {
                admission: Mutex::new(Admission::new(rate_max, config.handshake.lag_ms, clock.now())),
                backlog: Backlog::of(listen),
                handshakes: Budget::new(acceptors),
                unauthenticated: Budget::new(acceptors),
                population: Arc::clone(&population),
                mailboxes: (0..acceptors).map(|_| Mailbox::default()).collect(),
            }),
            spare: SpareCapacity::default(),
            unfinished: Budget::new(count),
            ops_places: Places::new(ops::CONNECTIONS_MAX),
            link_places: Places::new(backplane::LINKS_MAX),
            population,
            opened: AtomicUsize::new(0),
            settings: Arc::new(Settings::of(&config)),
            config,
        };
        Ok((Arc::new(node), handles))
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

    /// Most connections it takes.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.node.population.connections_max
    }

    /// Whether clients speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.node.tls.is_some()
    }

    /// Reads the certificates again. Connections go on as they began, also when what was read is put in force.
    ///
    /// # Errors
    /// What could not be read, each with its section and file.
    pub fn renewal(&self) -> Result<Renewal<'_>, Vec<String>> {
        let client = self.node.tls.as_ref().map(TlsEndpoint::renewal);
        let backplane = self.node.backplane_tls.as_ref().map(tidegate_tls::Server::renewal);
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
        let bound = crate::backplane::listen(&self.node).await;
        bound.map_err(cannot_bind(self.node.config.backplane, "backplane"))
    }

    /// A new in-memory link to the backplane, for a logic node in the same process.
    pub fn pipe(&self) -> impl Fn() -> tokio::io::DuplexStream + Send + Sync + 'static {
        let node = Arc::clone(&self.node);
        move || {
            // As large as a batch, so that a push crosses in one piece.
            let (near, far) = tokio::io::duplex(tidegate_protocol::limits::BACKPLANE_BATCH_BYTES);
            tokio::spawn(crate::backplane::serve(Arc::clone(&node), far));
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

/// As configured, or what the open files allow.
fn connections_max(config: &GatewayConfig, buckets: usize) -> usize {
    let files_each = if config.tls.is_on() { FILES_A_TLS_CLIENT } else { 1 };
    match config.connections_max {
        0 => (files_max().saturating_sub(FILES_RESERVED + 2 * buckets) / files_each).max(64),
        n => n,
    }
}

/// Reads the certificates of the listener and of the backplane, where they are configured.
fn certificates(config: &GatewayConfig) -> Result<(Option<TlsEndpoint>, Option<tidegate_tls::Server>), StartError> {
    let tls = TlsEndpoint::new(&config.tls, config.handshake.tls_in_flight).map_err(in_section("gateway.tls"))?;
    let backplane = config.backplane_tls.is_on().then(|| {
        let server = tidegate_tls::Server::open_mutual(&config.backplane_tls, &["h2"]);
        server.map_err(in_section("gateway.backplane_tls"))
    });
    Ok((tls, backplane.transpose()?))
}

fn in_section(section: &'static str) -> impl Fn(TlsError) -> StartError {
    move |error| StartError::Config(format!("{section}: {error}"))
}

fn local_address(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(listener)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::other("not an internet address"))
}

fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX / 2, |n| usize::try_from(n).unwrap_or(usize::MAX / 2))
}
