//! Handshakes as fast as both sides can: connect, upgrade, read the 101, end by RST, again.
//! A file of its own because nothing is kept: no frames, no ledger. Measures issue point "handshakes".

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use serde::{Deserialize, Serialize};

use super::plan::{ACCEPT, Plan};
use crate::distribution::Distribution;
use crate::{clock, report, sockets};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Churned {
    pub handshakes: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Handshakes in each full second: sustained means the slowest of them.
    pub by_second: Vec<u64>,
    pub failed: BTreeMap<String, u64>,
    pub handshake_us: Distribution,
    /// CPU of this client.
    pub cpu_s: f64,
}

/// A handshake that takes longer has failed.
const TIMEOUT_NS: u64 = 5_000_000_000;

struct Seat {
    socket: OwnedFd,
    started_ns: u64,
    requested: bool,
    response: Vec<u8>,
}

struct Churn<'p> {
    plan: &'p Plan,
    epoll: OwnedFd,
    seats: Vec<Option<Seat>>,
    next_index: u64,
    started_ns: u64,
    outcome: Churned,
}

pub fn run(plan: &Plan, duration: Duration, concurrency: usize) -> anyhow::Result<Churned> {
    let cpu_ns = clock::process_cpu_ns();
    let started_ns = clock::now_ns();
    let seats = (0..concurrency.max(1)).map(|_| None).collect();
    let (epoll, outcome) = (sockets::epoll_set()?, Churned::default());
    let mut churn = Churn { plan, epoll, seats, next_index: 0, started_ns, outcome };
    let end_ns = started_ns + duration.as_nanos() as u64;
    let mut events = Vec::with_capacity(sockets::EVENTS);
    let mut buffer = vec![0; sockets::READ_BYTES];
    let bar = report::progress(duration.as_secs(), "handshakes");
    loop {
        let now_ns = clock::now_ns();
        if now_ns >= end_ns {
            break;
        }
        bar.set_position((now_ns - started_ns) / 1_000_000_000);
        churn.fill_seats(now_ns)?;
        sockets::wait(&churn.epoll, &mut events, Duration::from_millis(100))?;
        for event in &events {
            churn.ready(event.data.u64() as usize, &mut buffer);
        }
    }
    bar.finish_and_clear();
    let mut outcome = churn.outcome;
    outcome.seconds = (clock::now_ns() - started_ns) as f64 / 1e9;
    outcome.per_second = outcome.handshakes as f64 / outcome.seconds;
    // The last second is cut short.
    outcome.by_second.truncate(outcome.seconds as usize);
    outcome.cpu_s = (clock::process_cpu_ns() - cpu_ns) as f64 / 1e9;
    Ok(outcome)
}

impl Churn<'_> {
    fn fill_seats(&mut self, now_ns: u64) -> anyhow::Result<()> {
        for seat in 0..self.seats.len() {
            if self.seats[seat].as_ref().is_some_and(|seat| now_ns.saturating_sub(seat.started_ns) > TIMEOUT_NS) {
                self.fail(seat, "timed out".to_owned());
            }
            if self.seats[seat].is_none() {
                self.next_index += 1;
                let socket = match sockets::dial(self.next_index, self.plan.target, None) {
                    Ok(socket) => socket,
                    Err(error) => {
                        self.fail(seat, format!("connect: {error}"));
                        continue;
                    }
                };
                let interest = epoll::EventFlags::OUT | epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(seat as u64), interest)?;
                let started_ns = clock::now_ns();
                self.seats[seat] = Some(Seat { socket, started_ns, requested: false, response: Vec::new() });
            }
        }
        Ok(())
    }

    fn ready(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(seat) = &mut self.seats[index] else { return };
        match seat.step(self.plan, self.next_index, buffer) {
            Ok(false) => {}
            Ok(true) => {
                let now_ns = clock::now_ns();
                self.outcome.handshakes += 1;
                self.outcome.handshake_us.record_span_ns(seat.started_ns, now_ns);
                let second = ((now_ns - self.started_ns) / 1_000_000_000) as usize;
                self.outcome.by_second.resize(self.outcome.by_second.len().max(second + 1), 0);
                self.outcome.by_second[second] += 1;
                self.seats[index].take().into_iter().for_each(|seat| sockets::reset(seat.socket));
            }
            Err(why) => self.fail(index, why),
        }
    }

    fn fail(&mut self, seat: usize, why: String) {
        *self.outcome.failed.entry(why).or_default() += 1;
        self.seats[seat].take().into_iter().for_each(|seat| sockets::reset(seat.socket));
    }
}

impl Seat {
    /// Goes as far as it can; `true` when the 101 is there.
    fn step(&mut self, plan: &Plan, index: u64, buffer: &mut [u8]) -> Result<bool, String> {
        if !self.requested {
            if let Ok(Err(error)) | Err(error) = sockopt::socket_error(&self.socket) {
                return Err(format!("connect: {error}"));
            }
            let request = plan.request(index);
            match send(&self.socket, &request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) if sent == request.len() => self.requested = true,
                Ok(_) => return Err("request cut".to_owned()),
                Err(error) => return Err(format!("request: {error}")),
            }
        }
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err("ended before the 101".to_owned()),
                Ok((bytes, _)) => self.response.extend_from_slice(&buffer[..bytes]),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(format!("receive: {error}")),
            }
            if let Some(end) = self.response.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = &self.response[..end];
                if head.starts_with(b"HTTP/1.1 101") && head.windows(ACCEPT.len()).any(|window| window == ACCEPT) {
                    return Ok(true);
                }
                let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(String::from_utf8_lossy(line).into_owned());
            }
        }
    }
}

impl Churned {
    /// Handshakes in the slowest full second.
    pub fn sustained(&self) -> f64 {
        self.by_second.iter().min().map_or(self.per_second, |slowest| *slowest as f64)
    }

    pub fn lines(&self) -> Vec<String> {
        let client_us = self.cpu_s * 1e6 / self.handshakes.max(1) as f64;
        vec![
            format!("handshakes   {} in {:.1} s", self.handshakes, self.seconds),
            format!("rate         {:.0}/s, slowest second {:.0}/s", self.per_second, self.sustained()),
            report::distribution_line("handshake", "µs", &self.handshake_us),
            format!("client       {:.1} s CPU, {client_us:.1} µs a handshake", self.cpu_s),
            format!("failed       {:?}", self.failed),
        ]
    }
}
