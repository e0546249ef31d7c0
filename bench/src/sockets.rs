//! Sockets of the harness: non-blocking dials from many loopback addresses, endings by RST, the open-files limit.
//! A file of its own because the bare loop and the swarm must use sockets alike to be comparable.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

/// Where addresses of servers are looked for.
const FREE_PORTS: std::ops::Range<u16> = 12_000..30_000;
/// Sources are 127.0.0.2 to 127.0.0.250. At 20,000 ports each (70 % of the range 32768–60999; beyond, the kernel's
/// port search takes 300 µs a connect) that is 4.9 million connections to one destination.
const SOURCES: u64 = 249;
/// Connections one process may hold below its open-files limit: the rest is pipes, epoll sets, logs.
pub const FILES_SPARE: u64 = 200;
/// Accept queue: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 65_535;
/// Bytes a client reads at once; larger than the merge bound's frames mostly are.
pub const READ_BYTES: usize = 64 * 1024;
/// Events taken from one epoll_wait.
pub const EVENTS: usize = 512;

/// Raises the soft open-files limit to the hard one and says how many connections that allows here.
pub fn connections_per_process() -> anyhow::Result<u64> {
    let limit = rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the open-files limit")?;
    Ok(limit.saturating_sub(FILES_SPARE).max(1))
}

/// Starts a connect from client `index`'s own source address; completion is EPOLLOUT.
///
/// The port is chosen at bind. IP_BIND_ADDRESS_NO_PORT would choose it at connect, but no safe wrapper has it;
/// with the sources spread, a (source, destination) pair never sees more than 1/249 of the clients.
pub fn dial(index: u64, target: SocketAddrV4, receive_bytes: Option<usize>) -> std::io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if target.ip().is_loopback() {
        let source = Ipv4Addr::new(127, 0, 0, 2 + (index % SOURCES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SocketAddr::V4(target).into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Starts a connect for a socket that lives for one question: no source address of its own.
///
/// Over loopback the other side has answered by the time this returns, although the kernel says "in progress". The
/// acknowledgement that ends the TCP handshake travels with the question instead of ahead of it, as it does from a client
/// that has its question ready.
pub fn dial_once(target: SocketAddrV4) -> std::io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    sockopt::set_tcp_quickack(&socket, false)?;
    match socket.connect(&SocketAddr::V4(target).into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// A listener on a free loopback port with a deep accept queue.
pub fn listen() -> std::io::Result<TcpListener> {
    listen_at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
}

/// A listener with a deep accept queue.
pub fn listen_at(address: SocketAddrV4) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::V4(address).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A loopback address that is free at this moment, below the ports that the system gives to connections going out: none of those
/// can take it before a server does, and none is given twice.
pub fn free_address() -> std::io::Result<SocketAddr> {
    // Another process begins elsewhere.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let span = u32::from(FREE_PORTS.end - FREE_PORTS.start);
        let ahead = std::process::id().wrapping_mul(37) % span;
        AtomicU16::new(FREE_PORTS.start + u16::try_from(ahead).unwrap_or(0))
    });
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in FREE_PORTS {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if !FREE_PORTS.contains(&port) {
            NEXT.store(FREE_PORTS.start, Ordering::Relaxed);
            continue;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return listener.local_addr(),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// From now on the socket ends by RST whoever closes it, the kernel at the process's death included.
pub fn abort_on_close(socket: &OwnedFd) -> std::io::Result<()> {
    Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// Closes with RST: no TIME_WAIT is left behind.
pub fn reset(socket: OwnedFd) {
    // A socket that is already dead cannot be told to linger; closing it is all that is left.
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
}

/// An epoll set that closes on exec.
pub fn epoll_set() -> std::io::Result<OwnedFd> {
    Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
}

/// Waits for events up to `timeout`; a signal counts as none.
pub fn wait(set: &OwnedFd, events: &mut Vec<epoll::Event>, timeout: Duration) -> std::io::Result<()> {
    events.clear();
    events.reserve(EVENTS);
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match epoll::wait(set, rustix::buffer::spare_capacity(events), Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
