//! The other end of the bare loop: N connections that receive and forget, and say when each pass is complete.
//! A process of its own so that its cost is not the sender's. It reads as a swarm reads, but looks at nothing.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};

use crate::{clock, sockets};

/// What the drain tells the sender, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Drained {
    /// All bytes of one more pass are here.
    Pass { at_ns: u64 },
    /// All connections are closed. CPU µs per read since the first byte.
    End { messages_us: f64 },
}

/// Connects that may be unaccepted: below any accept queue.
const BURST: u64 = 256;

pub(super) fn run(port: u16, count: u64, pass_bytes: u64) -> anyhow::Result<()> {
    sockets::connections_per_process()?;
    let epoll = sockets::epoll_set()?;
    let mut peers = Vec::with_capacity(count as usize);
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    for index in 0..count {
        let socket = sockets::dial(index, target, None)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(index), interest)?;
        peers.push(Some(socket));
        if index % BURST == BURST - 1 {
            clock::pause(Duration::from_millis(1));
        }
    }
    let (mut open, mut bytes, mut reads) = (count, 0, 0_u64);
    let mut next_pass = pass_bytes;
    let (mut events, mut buffer) = (Vec::with_capacity(sockets::EVENTS), vec![0; sockets::READ_BYTES]);
    let mut cpu_ns = None;
    while open > 0 {
        sockets::wait(&epoll, &mut events, Duration::from_secs(1))?;
        cpu_ns.get_or_insert_with(clock::thread_cpu_ns);
        for event in &events {
            let peer = &mut peers[event.data.u64() as usize];
            match drain(peer, &mut buffer) {
                Some(read) => (bytes, reads) = (bytes + read, reads + 1),
                None => {
                    open -= 1;
                    *peer = None;
                }
            }
        }
        while bytes >= next_pass {
            say(&Drained::Pass { at_ns: clock::now_ns() })?;
            next_pass += pass_bytes;
        }
    }
    let used_ns = clock::thread_cpu_ns() - cpu_ns.unwrap_or_default();
    say(&Drained::End { messages_us: used_ns as f64 / 1e3 / reads.max(1) as f64 })
}

/// Bytes read; `None` when the connection is over.
fn drain(peer: &Option<OwnedFd>, buffer: &mut [u8]) -> Option<u64> {
    let Some(socket) = peer else { return Some(0) };
    let mut sum = 0;
    loop {
        match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return None,
            Ok((bytes, _)) => {
                sum += bytes as u64;
                if bytes < buffer.len() {
                    return Some(sum);
                }
            }
            Err(Errno::AGAIN) => return Some(sum),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn say(event: &Drained) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, event)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
