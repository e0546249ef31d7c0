//! TLS of the client listener, ended inside the gateway. Buckets write to sockets by number, many in one system call, so
//! they cannot encrypt; here a task a connection stands between: rustls on the outside, and on the inside one end of a
//! socket pair whose other end goes to the acceptor as if it were the client's own (docs/adr/0021).
//! Parts: this file (handshakes), `relay` (the bytes after them).
//! Invariants: handshakes stay within `handshake.tls_in_flight`, each ends by `handshake.deadline_ms`; with those that
//! are open they stay within `connections_max`.

mod relay;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tidegate_protocol::handshake::Refusal;
use tidegate_protocol::places::{Place, Places, Served};
use tidegate_protocol::proxy::{self, Header};
use tidegate_tls::{Renewal, Server, TlsConfig, TlsError, server_stream::TlsStream};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use self::relay::Relay;
use crate::accept::front::Front;
use crate::accept::proxy_header::{self, Stranger};
use crate::clock::Millis;

/// What is in the kernel from the client to the gateway, decrypted; a client's message is small.
const INBOUND_BYTES: usize = 16 * 1024;
/// How long nobody takes a newcomer's place: several round trips, and a part of `handshake.deadline_ms`.
const FRESH: Duration = Duration::from_secs(1);

/// Ends a handshake by being dropped.
type Holder = oneshot::Sender<()>;

/// A client past its TLS handshake, for the acceptor.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub stranger: Stranger,
    /// When its request must be complete: the time of its accept counts.
    pub deadline: Millis,
}

/// Where TLS ends.
#[derive(Debug)]
pub(crate) struct TlsEndpoint {
    server: Server,
    in_flight_max: usize,
    in_flight: Arc<Places<Holder>>,
    open: AtomicUsize,
    failed: AtomicU64,
    hung_up: AtomicU64,
}

/// A connection past its handshake; not counted any more when dropped.
#[derive(Debug)]
struct Open(Arc<TlsEndpoint>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl TlsEndpoint {
    /// None when TLS is not configured.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn new(config: &TlsConfig, in_flight_max: usize) -> Result<Option<Self>, TlsError> {
        if !config.is_on() {
            return Ok(None);
        }
        Ok(Some(Self {
            server: Server::open(config, &["http/1.1"])?,
            in_flight_max,
            in_flight: Places::new(in_flight_max),
            open: AtomicUsize::new(0),
            failed: AtomicU64::new(0),
            hung_up: AtomicU64::new(0),
        }))
    }

    /// Reads the certificate again.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays.
    pub fn renewal(&self) -> Result<Renewal<'_>, TlsError> {
        self.server.renewal()
    }

    /// Handshakes in flight, most of them, and connections past them.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.in_flight.held(), self.in_flight_max, self.open.load(Relaxed))
    }

    /// Handshakes that failed, and clients hung up on for want of a place.
    pub fn failures(&self) -> (u64, u64) {
        (self.failed.load(Relaxed), self.hung_up.load(Relaxed))
    }

    /// Clients whose handshakes made room for others'.
    pub fn evicted(&self) -> u64 {
        self.in_flight.evicted()
    }

    /// A place among the handshakes, if need be the oldest one's.
    fn enter(&self, front: &Front, holder: Holder) -> Option<Arc<Place<Holder>>> {
        if self.in_flight.held() + self.open.load(Relaxed) >= front.capacity.population.connections_max {
            return None;
        }
        self.in_flight.take(holder)
    }
}

/// Begins the handshake of a client just accepted; it comes to the acceptor by `door` when it is over. Nothing can be said to
/// a client that there is no place for.
pub(crate) fn welcome(front: &Arc<Front>, fd: OwnedFd, door: &mpsc::Sender<Arrival>) {
    let Some(endpoint) = &front.tls else { return };
    let (holder, evicted) = oneshot::channel();
    let place = if front.lifecycle.is_accepting() { endpoint.enter(front, holder) } else { None };
    let Some(place) = place else {
        endpoint.hung_up.fetch_add(1, Relaxed);
        return;
    };
    let stream = std::net::TcpStream::from(fd);
    let (Ok(peer), Ok(stream)) = (stream.peer_addr(), TcpStream::from_std(stream)) else { return };
    // From here on and not from the task's first turn, which in a storm comes late.
    let fresh = place.serve();
    let serve = serve(Arc::clone(front), (place, fresh), evicted, (stream, peer), door.clone());
    tokio::spawn(serve);
}

/// The life of one client.
async fn serve(
    front: Arc<Front>,
    (place, fresh): (Arc<Place<Holder>>, Served<Holder>),
    evicted: oneshot::Receiver<()>,
    (stream, peer): (TcpStream, SocketAddr),
    door: mpsc::Sender<Arrival>,
) {
    let Some(endpoint) = &front.tls else { return };
    let deadline_ms = front.rules.handshake.deadline_ms;
    let deadline = front.clock.now().wrapping_add(deadline_ms);
    let late = Instant::now() + Duration::from_millis(u64::from(deadline_ms));
    let shaken = tokio::select! {
        shaken = timeout_at(late, Box::pin(shake_hands_in(fresh, &front, stream, peer))) => shaken,
        _ = evicted => return,
    };
    let Ok(Some((stream, address))) = shaken else {
        endpoint.failed.fetch_add(1, Relaxed);
        return;
    };
    let (near, far) = match pair(front.rules.kernel_bytes as usize) {
        Ok(pair) => pair,
        Err(error) => {
            front.totals.accept_errors.fetch_add(1, Relaxed);
            tracing::warn!(%error, "no socket pair for a TLS client");
            return;
        }
    };
    endpoint.open.fetch_add(1, Relaxed);
    let open = Open(Arc::clone(endpoint));
    let arrival = Arrival { stranger: Stranger { fd: far, address: Some(address) }, deadline };
    // Waits while the acceptor is busy; its queue is short on purpose.
    if !matches!(timeout_at(late, door.send(arrival)).await, Ok(Ok(()))) {
        return;
    }
    drop((place, door));
    Relay::new(stream, near).await;
    drop(open);
}

/// A newcomer keeps its place for a while, whoever comes: in a storm of honest clients each would else throw out one that is
/// nearly through, and the work done for it would be lost.
async fn shake_hands_in(
    fresh: Served<Holder>,
    front: &Front,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
    let mut shaken = std::pin::pin!(shake_hands(front, stream, peer));
    if let Ok(shaken) = timeout(FRESH, &mut shaken).await {
        return shaken;
    }
    drop(fresh);
    shaken.await
}

/// What a proxy says first, then TLS; none when either is wrong.
async fn shake_hands(
    front: &Front,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
    let mut address = peer;
    if front.rules.proxies.is_announced(peer) {
        match source_of(&mut stream).await {
            Ok(source) => address = source.unwrap_or(peer),
            Err(refusal) => {
                front.totals.refuse(refusal);
                return None;
            }
        }
    }
    let acceptor = front.tls.as_ref()?.server.acceptor();
    match acceptor.accept(stream).await {
        Ok(stream) => Some((stream, address)),
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// Reads a PROXY header and not a byte more.
async fn source_of(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Refusal> {
    let mut bytes = Vec::with_capacity(128);
    loop {
        match proxy::header(&bytes).map_err(proxy_header::refusal)? {
            Header::Complete { source, .. } => return Ok(source),
            Header::Incomplete => {
                let read = bytes.len();
                bytes.resize(read + proxy::missing(&bytes), 0);
                let gone = |_| Refusal::ProxyHeader { what: "it ended before it was complete" };
                stream.read_exact(&mut bytes[read..]).await.map_err(gone)?;
            }
        }
    }
}

/// The task's end and the gateway's end. What the gateway has written and the client not yet taken is bounded as it is in a
/// TCP socket (`pending.kernel_bytes`), so that lanes rule over the rest.
fn pair(kernel_bytes: usize) -> io::Result<(UnixStream, OwnedFd)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_send_buffer_size(&near, INBOUND_BYTES)?;
    // The kernel doubles what it is asked for.
    sockopt::set_socket_send_buffer_size(&far, kernel_bytes / 2)?;
    Ok((UnixStream::from_std(StdUnixStream::from(near))?, far))
}
