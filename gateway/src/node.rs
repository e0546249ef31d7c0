//! One gateway: what its tasks share ([`Node`]), and the handle that starts and ends them ([`Gateway`]).
//! The order of `Gateway::start` is the order in which the parts depend on each other.
//! Invariants: `connections` is the sum of the buckets' live connections; nothing is opened once `accepting` is off.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::{Deflate, Origins, Refusal};
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::InterestKind;
use tidegate_protocol::reply::{self, Hello, Reconnect};
use tidegate_protocol::ws;
use tokio::sync::watch;

use crate::admission::{Admission, RATE_A_CORE};
use crate::backlog::Backlog;
use crate::backplane::Links;
use crate::bucket::drive::Drive;
use crate::bucket::pending::Pending;
use crate::bucket::{Bucket, Command, of_user, outbox};
use crate::clock::{Clock, unix_ms};
use crate::config::GatewayConfig;
use crate::counters::{Delta, Totals};
use crate::fanout::Fanout;
use crate::identity::{Identity, Platforms};
use crate::interest::{Held, Interest};
use crate::lobby::{self, Lobby};
use crate::merge::Merger;
use crate::merge::press::Press;
use crate::pace::Spare;
use crate::rooms::Rooms;
use crate::tick;
use crate::writer::{KernelWriter, Writer};

/// Changes of interest a late logic node can catch up with before it needs a snapshot.
const INTEREST_LOG: usize = 256 * 1024;
/// Files kept for logs, listeners, epoll sets and the backplane.
const FILES_RESERVED: usize = 256;
/// Anonymous connections that follow each other into one bucket. What the kernel made one after the other lies side by
/// side, and a walk that visits neighbours finds their pages in the TLB; with one connection for each bucket in turn it
/// strides over all of them. Few enough that a hundred connections still have several buckets.
const NEIGHBOURS: usize = 32;

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

/// What the tasks of a gateway share.
#[derive(Debug)]
pub struct Node {
    /// The configuration.
    pub config: GatewayConfig,
    /// Name in receipts and metrics.
    pub name: String,
    /// Start in Unix milliseconds; a new one voids what logic knew.
    pub epoch: u64,
    /// Gateway part of connection ids.
    pub id: u16,
    /// Epoch part of connection ids: the start in tenths of a second.
    pub id_epoch: u32,
    /// The clock.
    pub clock: Clock,
    /// The connections.
    pub buckets: Arc<[Bucket]>,
    /// The rooms.
    pub rooms: Rooms,
    /// What logic must know.
    pub interest: Interest,
    /// Names of platforms.
    pub platforms: Platforms,
    /// Who may come from a browser.
    pub origins: Origins,
    /// Rare events.
    pub totals: Arc<Totals>,
    /// The threads that write.
    pub fanout: Arc<Fanout>,
    /// The tide.
    pub merger: Merger,
    /// Logic nodes' links.
    pub links: Links,
    /// Guests of all lobbies.
    pub handshakes: AtomicUsize,
    /// How fast strangers are let in.
    pub admission: Mutex<Admission>,
    /// Those the kernel holds for us meanwhile.
    pub backlog: Backlog,
    /// What the rest of the fleet can take when this gateway leaves.
    pub spare: Spare,
    /// Users with connections.
    pub users_present: AtomicU64,
    /// Bytes of unfinished messages of all connections.
    pub partial_bytes: AtomicUsize,
    /// Most connections.
    pub connections_max: usize,
    /// Refused handshakes by code.
    pub refusals: Mutex<HashMap<&'static str, u64>>,
    connections: AtomicUsize,
    accepting: AtomicBool,
    draining: AtomicBool,
    /// Anonymous connections so far: whose turn it is among the buckets.
    opened: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Node {
    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn count_out(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.totals.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Strangers a second at most, what of it is spare, and the lag in milliseconds that it follows.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates and lags are small and positive"
    )]
    pub(crate) fn admitting(&self) -> (u32, u32, u32) {
        let room = self.connections_max.saturating_sub(self.connections() + self.handshakes.load(Ordering::Relaxed));
        let room = if self.is_draining() { 0 } else { room };
        let admission = self.admission.lock();
        (admission.rate() as u32, admission.spare(room), admission.lag_ms() as u32)
    }

    /// Whether strangers are let in.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Relaxed)
    }

    /// Whether the gateway is leaving.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_closed_to_strangers(&self) {
        self.accepting.store(false, Ordering::Relaxed);
    }

    /// Resolves when the gateway stops.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in self, so this ends only by the value.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    /// Counts a refused handshake.
    pub fn refused(&self, refusal: Refusal) {
        self.totals.refused.fetch_add(1, Ordering::Relaxed);
        *self.refusals.lock().entry(refusal.code()).or_insert(0) += 1;
    }

    /// The id of a connection of this gateway.
    #[must_use]
    pub fn connection_id(&self, bucket: u16, slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { gateway: self.id, epoch: self.id_epoch, bucket, slot, generation }
    }

    /// The (bucket, slot, generation) an id stands for, when it is one of this gateway's.
    #[must_use]
    pub fn locate(&self, id: ConnectionId) -> Option<(u16, u32, u32)> {
        let is_ours = id.gateway == self.id && id.epoch == self.id_epoch && usize::from(id.bucket) < self.buckets.len();
        is_ours.then_some((id.bucket, id.slot, id.generation))
    }

    /// Makes a checked guest a connection: enters it in its bucket and answers with `response`, to which it adds HELLO, in
    /// one write. The buffer is the lobby's, so that a handshake allocates only what stays.
    pub(crate) fn open(
        &self,
        fd: OwnedFd,
        identity: Identity,
        deflate: Option<Deflate>,
        response: &mut Vec<u8>,
        early: &[u8],
    ) {
        let (user, platform) = identity.into_parts();
        let index = match &user {
            Some(user) => of_user(user, self.buckets.len()),
            #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the number of buckets")]
            None => (self.opened.fetch_add(1, Ordering::Relaxed) / NEIGHBOURS % self.buckets.len()) as u16,
        };
        let bucket = &self.buckets[usize::from(index)];
        let now = self.clock.now();
        let mut d = Delta::default();
        {
            let mut table = bucket.table.write();
            let (slot, generation) = table.insert(fd, platform, now);
            self.connections.fetch_add(1, Ordering::Relaxed);
            bucket.count_in();
            if let Some(deflate) = deflate {
                bucket.admit_deflate(&mut table, slot, deflate);
            }
            let version = user.clone().map_or(0, |user| {
                table.enter_user(slot, user, |name| {
                    self.users_present.fetch_add(1, Ordering::Relaxed);
                    self.interest.announce(InterestKind::User, name, true)
                })
            });
            self.greet((index, slot, generation), user.as_deref(), response);
            let Some(hot) = table.find(slot, generation) else { return };
            let Some(fd) = &hot.fd else { return };
            if self.interest.hold(version, (index, slot, generation), now) {
                let mut pending = Box::new(Pending::new(now));
                pending.hold(version);
                let greeting = bytes::Bytes::copy_from_slice(response);
                pending.push_control(greeting, self.config.pending.bytes, now, &mut d);
                *hot.outbox.lock() = Some(pending);
            } else {
                let taken = KernelWriter.write(fd, &[io::IoSlice::new(response)]).unwrap_or(0);
                if taken < response.len() {
                    let mut pending = Box::new(Pending::new(now));
                    let greeting = bytes::Bytes::copy_from_slice(response);
                    pending.push_control_rest(greeting, taken, now, &mut d);
                    *hot.outbox.lock() = Some(pending);
                }
            }
            if !early.is_empty() {
                // Before the socket is watched, so that the task finds these bytes before any that follow.
                bucket.command(Command::Early { slot, generation, bytes: early.to_vec() });
            }
            if bucket.watch(fd, slot, generation).is_err() {
                // Not watched, it would never be heard.
                self.totals.accept_errors.fetch_add(1, Ordering::Relaxed);
                bucket.close(slot, generation, CloseReason::Overload, Some(1_000));
            }
        }
        bucket.counters.add(&d);
        self.totals.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Appends HELLO, framed; nothing under a conformance suite, which expects nothing it did not send.
    fn greet(&self, at: (u16, u32, u32), user: Option<&str>, out: &mut Vec<u8>) {
        if self.config.echo {
            return;
        }
        let reconnect = &self.config.reconnect;
        let hello = Hello {
            connection: &self.connection_id(at.0, at.1, at.2).to_string(),
            user,
            server: concat!("tidegate/", env!("CARGO_PKG_VERSION")),
            ping_ms: self.config.heartbeat.idle_ms,
            merge_ms: self.config.merge.max_ms,
            message_bytes: self.config.limits.message_bytes,
            rooms: self.config.limits.rooms,
            reconnect: Reconnect {
                base_ms: reconnect.base_ms,
                max_ms: reconnect.max_ms,
                jitter_percent: reconnect.jitter_percent,
            },
            time_ms: unix_ms(),
        };
        let mut json = Vec::with_capacity(384);
        reply::hello(&mut json, &hello);
        out.extend_from_slice(&ws::head(ws::OpCode::Text, json.len()));
        out.extend_from_slice(&json);
    }

    /// Lets go of replies that waited for logic to know.
    pub(crate) fn release(&self, held: &[Held]) {
        let now = self.clock.now();
        for h in held {
            let (index, slot, generation) = h.connection;
            let bucket = &self.buckets[usize::from(index)];
            let table = bucket.table.read();
            let Some(hot) = table.find(slot, generation) else { continue };
            let mut waited = 0;
            if let Some(pending) = hot.outbox.lock().as_mut() {
                waited = pending.bytes();
                pending.release(h.version, now);
            }
            let mut d = Delta::default();
            // A connection that is over is found by its bucket's task.
            let _ = outbox::drain(&KernelWriter, hot, now, &mut d);
            bucket.counters.add(&d);
            if waited > self.config.pending.bytes / 2 {
                // Its task may have stopped listening to it; no event will tell that the way is clear.
                bucket.command(Command::Resume { slot, generation });
            }
        }
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) node: Arc<Node>,
    listen: SocketAddr,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Gateway {
    /// Starts a gateway: binds the client listener and starts buckets, fan-out threads, tick and lobbies.
    /// The backplane and the ops listener are served separately ([`Gateway::serve_backplane`], [`Gateway::serve_ops`]).
    ///
    /// # Errors
    /// [`StartError`], with nothing left running but what ends with the process.
    pub async fn start(mut config: GatewayConfig) -> Result<Self, StartError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(StartError::Config(problems.join("; ")));
        }
        let origins = Origins::parse(&config.allowed_origins).map_err(|e| StartError::Config(e.to_string()))?;
        if config.echo {
            // A conformance suite sends messages of 16 MiB and 65,536 fragments, on purpose.
            config.limits.message_bytes = config.limits.message_bytes.max(64 << 20);
            config.limits.fragments = config.limits.fragments.max(1 << 20);
            config.pending.bytes = config.pending.bytes.max(128 << 20);
            config.limits.control_per_s = config.limits.control_per_s.max(10_000);
            config.limits.partial_bytes_total = config.limits.partial_bytes_total.max(1 << 30);
        }
        let listener = lobby::bind(config.listen, config.user_timeout_ms(), config.pending.kernel_bytes)
            .map_err(|error| StartError::Bind { address: config.listen, what: "clients", error })?;
        let listen = local_address(&listener)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (node, threads) = Self::build(config, origins, listen, cores)?;
        for index in 0..node.buckets.len() {
            tokio::spawn(Drive::new(Arc::clone(&node), index).run());
        }
        tokio::spawn(tick::run(Arc::clone(&node)));
        let lobbies = match node.config.handshake.lobbies {
            0 => cores,
            n => n,
        };
        let listener = Arc::new(listener);
        for _ in 0..lobbies {
            tokio::spawn(Lobby::new(Arc::clone(&node), Arc::clone(&listener))?.run());
        }
        Ok(Self { node, listen, threads: Mutex::new(threads) })
    }

    fn build(
        config: GatewayConfig,
        origins: Origins,
        listen: SocketAddr,
        cores: usize,
    ) -> Result<(Arc<Node>, Vec<JoinHandle<()>>), StartError> {
        let count = match config.buckets {
            0 => (cores * 32).next_power_of_two().clamp(64, 1024),
            n => n,
        };
        #[expect(clippy::cast_possible_truncation, reason = "config.problems() bounds the number of buckets")]
        let buckets: Arc<[Bucket]> = (0..count).map(|i| Bucket::new(i as u16)).collect::<io::Result<Vec<_>>>()?.into();
        let clock = Clock::start();
        let (fanout, handles) = Fanout::on_sockets(Arc::clone(&buckets), &config.fanout, config.pending.bytes, clock)?;
        let epoch = unix_ms();
        let epoch_text = format!("{epoch:x}-");
        let totals = Arc::new(Totals::default());
        let all_epoch = epoch_text.trim_end_matches('-');
        let press = Press::new(&config.deflate);
        let (shared, totals_too) = (Arc::clone(&buckets), Arc::clone(&totals));
        let merger = Merger::new(&config.merge, press, all_epoch, shared, Arc::clone(&fanout), totals_too);
        let connections_max = match config.connections_max {
            0 => files_max().saturating_sub(FILES_RESERVED + 2 * count).max(64),
            n => n,
        };
        let rate_max = match config.handshake.rate_max {
            0 => RATE_A_CORE.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)),
            n => n,
        };
        let node = Node {
            name: if config.name.is_empty() { listen.to_string() } else { config.name.clone() },
            epoch,
            id: if config.id == 0 { fastrand::u16(1..) } else { config.id },
            #[expect(clippy::cast_possible_truncation, reason = "wraps every 13 years, by design")]
            id_epoch: (epoch / 100) as u32,
            clock,
            rooms: Rooms::new(count, config.limits.rooms_total, &epoch_text),
            buckets,
            interest: Interest::new(INTEREST_LOG),
            platforms: Platforms::default(),
            origins,
            totals,
            fanout,
            merger,
            links: Links::default(),
            handshakes: AtomicUsize::new(0),
            admission: Mutex::new(Admission::new(rate_max, config.handshake.lag_ms, clock.now())),
            backlog: Backlog::of(listen),
            spare: Spare::default(),
            users_present: AtomicU64::new(0),
            partial_bytes: AtomicUsize::new(0),
            connections_max,
            refusals: Mutex::default(),
            connections: AtomicUsize::new(0),
            accepting: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
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
        &self.node.name
    }

    /// Most connections it takes.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.node.connections_max
    }

    /// Appends the gateway's metrics in Prometheus' text format, without an end mark.
    pub fn metrics_text(&self, out: &mut String) {
        crate::metrics::write(&self.node, out);
    }

    /// Serves the backplane on its TCP address; gives the address bound.
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub async fn serve_backplane(&self) -> Result<SocketAddr, StartError> {
        crate::backplane::listen(&self.node).await
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

    /// Serves `/healthz`, `/readyz` and `/metrics`; gives the address bound.
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub async fn serve_ops(&self) -> Result<SocketAddr, StartError> {
        crate::ops::listen(&self.node).await
    }

    /// Leaves without a stampede: readiness off, no strangers, GOAWAY, closes at the pace of the fleet, then stops.
    pub async fn drain(&self) {
        crate::drain::run(&self.node).await;
        let _ = self.node.stop.send(true);
        self.node.fanout.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A fan-out thread that panicked has said so already.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn local_address(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(listener)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::other("not an internet address"))
}

fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX / 2, |n| usize::try_from(n).unwrap_or(usize::MAX / 2))
}
