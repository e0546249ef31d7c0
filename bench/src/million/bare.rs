//! The bare server: shakes hands as little as a WebSocket client lets it, then sends one frame to each socket, in order
//! of arrival, with nothing but `send` in the loop. What a broadcast costs when nothing is in the way.
//! A process of its own, steered by JSON lines; the swarm's clients cannot tell it from a gateway.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::{Deserialize, Serialize};

use crate::dialect::head;
use crate::swarm::plan::ACCEPT;
use crate::{clock, sockets};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where clients connect.
    #[arg(long)]
    listen: SocketAddrV4,
}

/// One pass over all sockets: `text` as a frame, beginning when the monotonic clock shows `at_ns`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) at_ns: u64,
    pub(super) text: String,
}

/// What a pass was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pass {
    pub(super) sent: u64,
    /// Sends that did not take the frame whole.
    pub(super) failed: u64,
    pub(super) began_ns: u64,
    pub(super) ended_ns: u64,
}

/// Longest request head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A client that has connected sends its request at once.
const REQUEST: Duration = Duration::from_secs(20);
const HELLO: &[u8] = br#"{"type":"HELLO","data":{}}"#;

pub fn main(options: &Options) -> anyhow::Result<()> {
    sockets::connections_per_process()?;
    let listener = sockets::listen_at(options.listen)?;
    let mut greeting = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_vec();
    greeting.extend_from_slice(b"Sec-WebSocket-Accept: ");
    greeting.extend_from_slice(ACCEPT);
    greeting.extend_from_slice(b"\r\n\r\n");
    head::write_server_text(&mut greeting, HELLO);
    let stdin = std::io::stdin();
    let (mut peers, mut line) = (Vec::new(), String::new());
    loop {
        let mut ready = [PollFd::new(&listener, PollFlags::IN), PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (dialled, told) = (!ready[0].revents().is_empty(), !ready[1].revents().is_empty());
        if dialled {
            peers.push(greet(listener.accept()?.0, &greeting)?);
        }
        if told {
            line.clear();
            // Whoever steers has gone.
            if stdin.lock().read_line(&mut line)? == 0 {
                return Ok(());
            }
            let order = serde_json::from_str(&line).context("not an order")?;
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &pass(&peers, &order))?;
            out.write_all(b"\n")?;
            out.flush()?;
        }
    }
}

/// Reads a request head and answers it; which request it was does not matter here.
fn greet(mut peer: TcpStream, greeting: &[u8]) -> anyhow::Result<TcpStream> {
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(REQUEST))?;
    let (mut request, mut read) = ([0; HEAD_BYTES_MAX], 0);
    while !request[..read].ends_with(b"\r\n\r\n") {
        ensure!(read < request.len(), "a request head is longer than {HEAD_BYTES_MAX} bytes");
        let more = peer.read(&mut request[read..]).context("no request came")?;
        ensure!(more > 0, "a client left before its request was whole");
        read += more;
    }
    peer.write_all(greeting)?;
    Ok(peer)
}

/// The loop itself. Nothing but `send` may be in it.
fn pass(peers: &[TcpStream], order: &Order) -> Pass {
    let mut frame = Vec::new();
    head::write_server_text(&mut frame, order.text.as_bytes());
    clock::sleep_until_ns(order.at_ns);
    let mut pass = Pass { began_ns: clock::now_ns(), ..Pass::default() };
    for peer in peers {
        match send(peer, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == frame.len() => pass.sent += 1,
            Ok(_) | Err(_) => pass.failed += 1,
        }
    }
    pass.ended_ns = clock::now_ns();
    pass
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_pass_gives_each_peer_the_frame_and_counts_those_it_could_not_give_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("connects");
        let (here, gone) = (listener.accept().expect("a peer").0, TcpStream::connect(address).expect("connects"));
        gone.shutdown(std::net::Shutdown::Write).expect("open until now");

        let pass = pass(&[here, gone], &Order { at_ns: 0, text: "{}".to_owned() });

        assert_eq!((pass.sent, pass.failed), (1, 1));
        let mut frame = [0; 4];
        client.read_exact(&mut frame).expect("a frame");
        assert_eq!(&frame, b"\x81\x02{}");
    }
}
