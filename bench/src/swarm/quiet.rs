//! Sockets that say nothing, or one byte of a request head a second: how long does the server put up with them.
//! A file of its own because these peers never become clients. Measures issue point "handshakes", second half.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::ensure;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::distribution::Distribution;
use crate::{clock, report, sockets};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Quieted {
    pub sockets: u64,
    /// Closed by the server, by how: an HTTP status, `eof`, `reset`.
    pub closed: BTreeMap<String, u64>,
    /// Still open when the hold was over.
    pub still_open: u64,
    pub failed: BTreeMap<String, u64>,
    /// Connect to close, in µs.
    pub lived_us: Distribution,
    /// Seconds from the last connect to the last close; `None` when some stayed open.
    pub all_gone_s: Option<f64>,
}

/// Between two bytes of a slow head.
const DRIBBLE_NS: u64 = 1_000_000_000;
/// Sockets opened before the accept queue gets a chance.
const BURST: u64 = 256;

struct Peer {
    socket: OwnedFd,
    started_ns: u64,
    /// How it was refused, once the server has answered anything.
    status: Option<String>,
}

struct Quiet {
    epoll: OwnedFd,
    peers: Vec<Option<Peer>>,
    outcome: Quieted,
    last_close_ns: u64,
}

pub fn run(plan: &Plan, count: u64, dribbles: bool, hold: Duration) -> anyhow::Result<Quieted> {
    let most = sockets::connections_per_process()?;
    ensure!(count <= most, "{count} sockets do not fit a process: its limit allows {most}");
    let outcome = Quieted { sockets: count, ..Quieted::default() };
    let mut quiet = Quiet { epoll: sockets::epoll_set()?, peers: Vec::new(), outcome, last_close_ns: 0 };
    let mut events = Vec::with_capacity(sockets::EVENTS);
    let bar = report::progress(count, "sockets gone");
    quiet.open(plan, count, &mut events)?;
    let opened_ns = clock::now_ns();
    let end_ns = opened_ns + hold.as_nanos() as u64;
    let request = plan.request(0);
    let (mut dribble_ns, mut sent) = (opened_ns, 0);
    while clock::now_ns() < end_ns && quiet.peers.iter().any(Option::is_some) {
        quiet.turn(&mut events)?;
        // One byte short of the end at most: the head stays unfinished.
        if dribbles && clock::now_ns() >= dribble_ns && sent + 1 < request.len() {
            quiet.dribble(&request[sent..=sent]);
            (dribble_ns, sent) = (dribble_ns + DRIBBLE_NS, sent + 1);
        }
        bar.set_position(quiet.peers.iter().filter(|peer| peer.is_none()).count() as u64);
    }
    bar.finish_and_clear();
    quiet.outcome.still_open = quiet.peers.iter().flatten().count() as u64;
    if quiet.outcome.still_open == 0 {
        quiet.outcome.all_gone_s = Some(quiet.last_close_ns.saturating_sub(opened_ns) as f64 / 1e9);
    }
    quiet.peers.into_iter().flatten().for_each(|peer| sockets::reset(peer.socket));
    Ok(quiet.outcome)
}

impl Quiet {
    fn open(&mut self, plan: &Plan, count: u64, events: &mut Vec<epoll::Event>) -> anyhow::Result<()> {
        for index in 0..count {
            match sockets::dial(index, plan.target, None) {
                Ok(socket) => {
                    let slot = epoll::EventData::new_u64(self.peers.len() as u64);
                    let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
                    epoll::add(&self.epoll, &socket, slot, interest)?;
                    self.peers.push(Some(Peer { socket, started_ns: clock::now_ns(), status: None }));
                }
                Err(error) => *self.outcome.failed.entry(error.to_string()).or_default() += 1,
            }
            if index % BURST == BURST - 1 {
                self.turn(events)?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Vec<epoll::Event>) -> anyhow::Result<()> {
        sockets::wait(&self.epoll, events, Duration::from_millis(5))?;
        for event in &*events {
            self.read(event.data.u64() as usize);
        }
        Ok(())
    }

    fn read(&mut self, slot: usize) {
        let mut buffer = [0; 4096];
        while let Some(peer) = &mut self.peers[slot] {
            match recv(&peer.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.gone(slot, "eof"),
                Ok((bytes, _)) => {
                    let line = buffer[..bytes].split(|byte| *byte == b'\r').next().unwrap_or_default();
                    peer.status.get_or_insert_with(|| String::from_utf8_lossy(line).into_owned());
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => self.gone(slot, "reset"),
                Err(error) => self.gone(slot, &error.to_string()),
            }
        }
    }

    fn gone(&mut self, slot: usize, how: &str) {
        let Some(peer) = self.peers[slot].take() else { return };
        self.last_close_ns = clock::now_ns();
        self.outcome.lived_us.record_span_ns(peer.started_ns, self.last_close_ns);
        *self.outcome.closed.entry(peer.status.unwrap_or_else(|| how.to_owned())).or_default() += 1;
        sockets::reset(peer.socket);
    }

    fn dribble(&mut self, byte: &[u8]) {
        for peer in self.peers.iter().flatten() {
            // A peer that was closed meanwhile is noticed by its event.
            let _ = send(&peer.socket, byte, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

impl Quieted {
    pub fn lines(&self) -> Vec<String> {
        let gone = self.all_gone_s.map_or("never".to_owned(), |seconds| format!("after {seconds:.2} s"));
        vec![
            format!("sockets      {}, still open {}, all gone {gone}", self.sockets, self.still_open),
            format!("closed       {:?}", self.closed),
            format!("failed       {:?}", self.failed),
            report::distribution_line("lived", "µs", &self.lived_us),
        ]
    }
}
