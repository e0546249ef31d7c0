//! How many connections wait in the listener's accept queue, asked of the kernel by `sock_diag` (as `ss -ltn` does).
//! A file of its own because the records are the kernel's; what follows from the length is `admission`'s to say.
//! About 3 µs a look. Where netlink is forbidden every look says `None`, and nobody is made to wait in the queue.

use std::net::SocketAddr;

use parking_lot::{Mutex, MutexGuard};
use socket2::{Domain, Protocol, Socket, Type};

use crate::accept::admission::Queue;

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
/// Type of request and answer (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// Linux's AF_INET and AF_INET6.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `TCP_LISTEN`; in any other state the two numbers are bytes and not connections.
const STATE_LISTEN: u8 = 10;
/// `nlmsghdr` and `inet_diag_req_v2`.
const REQUEST_BYTES: usize = 16 + 56;
/// In the answer: `nlmsghdr`, four bytes, `inet_diag_sockid`, `expires`; then the two lengths.
const LENGTH_AT: usize = 16 + 4 + 48 + 4;

/// Looks at one listener.
#[derive(Debug)]
pub struct Backlog {
    /// Question and answer belong together; `None` where there is no netlink.
    netlink: Mutex<Option<Socket>>,
    request: [u8; REQUEST_BYTES],
    /// Held by the acceptor that shortens the queue.
    turn: Mutex<()>,
}

impl Backlog {
    /// For the listener bound to this address.
    #[must_use]
    pub fn of(listener: SocketAddr) -> Self {
        let netlink = Socket::new(
            Domain::from(AF_NETLINK),
            Type::RAW.nonblocking().cloexec(),
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        );
        if let Err(error) = &netlink {
            tracing::warn!(%error, "no netlink: the accept queue is out of sight, so beyond the rate strangers are refused");
        }
        Self { netlink: Mutex::new(netlink.ok()), request: request(listener), turn: Mutex::new(()) }
    }

    /// The right to shorten the queue, unless another acceptor has it: two that act on one look would refuse twice as many.
    pub fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock()
    }

    /// The queue now.
    #[must_use]
    pub fn look(&self) -> Option<Queue> {
        let netlink = self.netlink.lock();
        let socket = netlink.as_ref()?;
        socket.send(&self.request).ok()?;
        // The kernel answers before `send` returns.
        let mut answer = [0_u8; 512];
        let (_, length) = rustix::net::recv(socket, &mut answer[..], rustix::net::RecvFlags::DONTWAIT).ok()?;
        read(answer.get(..length)?)
    }
}

fn request(listener: SocketAddr) -> [u8; REQUEST_BYTES] {
    let mut out = [0; REQUEST_BYTES];
    out[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    out[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    out[16] = if listener.is_ipv4() { AF_INET } else { AF_INET6 };
    out[17] = IPPROTO_TCP;
    out[20..24].copy_from_slice(&(1_u32 << STATE_LISTEN).to_ne_bytes());
    // `inet_diag_sockid`: ports and addresses in network order, no interface, and no cookie to match.
    out[24..26].copy_from_slice(&listener.port().to_be_bytes());
    match listener.ip() {
        std::net::IpAddr::V4(ip) => out[28..32].copy_from_slice(&ip.octets()),
        std::net::IpAddr::V6(ip) => out[28..44].copy_from_slice(&ip.octets()),
    }
    out[64..72].fill(0xff);
    out
}

fn read(answer: &[u8]) -> Option<Queue> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let is_listener = kind == SOCK_DIAG_BY_FAMILY && answer.get(17) == Some(&STATE_LISTEN);
    is_listener.then_some(Queue { length: number(LENGTH_AT)?, length_max: number(LENGTH_AT + 4)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_nobody_accepts_are_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().expect("an address");
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
            listener.bind(&address.into()).expect("a free port");
            listener.listen(16).expect("a listener");
            let address = listener.local_addr().expect("bound").as_socket().expect("an internet address");
            let backlog = Backlog::of(address);

            assert_eq!(backlog.look(), Some(Queue { length: 0, length_max: 16 }));
            let _waiting: Vec<_> =
                (0..3).map(|_| std::net::TcpStream::connect(address).expect("a place in the queue")).collect();
            assert_eq!(backlog.look(), Some(Queue { length: 3, length_max: 16 }));
        }
    }

    #[test]
    fn an_address_without_a_listener_has_no_queue() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");

        assert_eq!(Backlog::of(gone).look(), None);
    }
}
