//! Handshakes as fast as both sides can: connect, upgrade, read the 101, end by RST, again.
//! A file of its own because nothing is kept: no frames, no ledger. Measures issue point "handshakes".
//! What it costs the client is taken from the server on the same machine, so a handshake is seven system calls and no
//! more: socket, connect, send, recv, setsockopt, close, and one wait for many. Over loopback a connect that is "in
//! progress" has been accepted by the time it returns, so the request goes out at once; answers come nearly in the order
//! of the requests, so waiting for the oldest wakes for all, and no epoll set is told of anything.
//! Invariant: a handshake counts when its whole response head is there and the accept value in it is right.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
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
/// Longest wait for the oldest before the next one is looked at: a lost SYN must not hold up the others.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// Longest response head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// One handshake in flight.
struct Flight {
    socket: OwnedFd,
    started_ns: u64,
    requested: bool,
    /// What came of a response head that came in pieces.
    response: Vec<u8>,
}

/// What a look at a flight found.
enum Look {
    /// The whole 101 is there and right.
    Done,
    /// Nothing to do until the socket is ready for this.
    Wait(PollFlags),
}

struct Churn<'p> {
    plan: &'p Plan,
    /// The request of every client, when all say the same.
    request: Option<Vec<u8>>,
    flights: VecDeque<Flight>,
    next_index: u64,
    started_ns: u64,
    buffer: Vec<u8>,
    outcome: Churned,
}

/// Keeps `concurrency` handshakes in flight, shared by `threads` threads, for so long.
pub fn run(plan: &Plan, duration: Duration, concurrency: usize, threads: u64) -> anyhow::Result<Churned> {
    let cpu_ns = clock::process_cpu_ns();
    let started_ns = clock::now_ns();
    let end_ns = started_ns + duration.as_nanos() as u64;
    let bar = report::progress(duration.as_secs(), "handshakes");
    let share = concurrency.div_ceil(threads.max(1) as usize).max(1);
    let outcomes: Vec<anyhow::Result<Churned>> = std::thread::scope(|scope| {
        let churn = || Churn::new(plan, started_ns).run(share, end_ns, &bar);
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(churn)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a churn panics only with the whole harness")).collect()
    });
    bar.finish_and_clear();
    let mut outcome = Churned::default();
    for other in outcomes {
        outcome.add(&other?);
    }
    outcome.seconds = (clock::now_ns() - started_ns) as f64 / 1e9;
    outcome.per_second = outcome.handshakes as f64 / outcome.seconds;
    // The last second is cut short.
    outcome.by_second.truncate(outcome.seconds as usize);
    outcome.cpu_s = (clock::process_cpu_ns() - cpu_ns) as f64 / 1e9;
    Ok(outcome)
}

impl<'p> Churn<'p> {
    fn new(plan: &'p Plan, started_ns: u64) -> Self {
        Self {
            plan,
            request: plan.user.is_none().then(|| plan.request(0)),
            flights: VecDeque::new(),
            next_index: 0,
            started_ns,
            buffer: vec![0; HEAD_BYTES_MAX],
            outcome: Churned::default(),
        }
    }

    fn run(mut self, concurrency: usize, end_ns: u64, bar: &indicatif::ProgressBar) -> anyhow::Result<Churned> {
        let mut now_ns = self.started_ns;
        while now_ns < end_ns {
            for _ in self.flights.len()..concurrency {
                self.launch(now_ns);
            }
            self.look_at_oldest()?;
            now_ns = clock::now_ns();
            if self.outcome.handshakes.is_multiple_of(1_024) {
                bar.set_position((now_ns - self.started_ns) / 1_000_000_000);
            }
        }
        self.flights.drain(..).for_each(|flight| sockets::reset(flight.socket));
        Ok(self.outcome)
    }

    /// Dials, and sends the request if the other side has taken the connection already.
    fn launch(&mut self, now_ns: u64) {
        self.next_index += 1;
        let socket = match sockets::dial_once(self.plan.target) {
            Ok(socket) => socket,
            Err(error) => return self.fail(format!("connect: {error}")),
        };
        let mut flight = Flight { socket, started_ns: now_ns, requested: false, response: Vec::new() };
        match flight.ask(self.plan, self.request.as_deref(), self.next_index) {
            Ok(()) => self.flights.push_back(flight),
            Err(why) => self.fail(why),
        }
    }

    /// Ends the oldest flight if its answer is there, else waits for it a little.
    fn look_at_oldest(&mut self) -> anyhow::Result<()> {
        let Some(mut flight) = self.flights.pop_front() else { return Ok(()) };
        let mut has_waited = false;
        loop {
            match flight.look(self.plan, self.request.as_deref(), self.next_index, &mut self.buffer) {
                Ok(Look::Done) => {
                    self.count(flight.started_ns);
                    sockets::reset(flight.socket);
                    return Ok(());
                }
                Ok(Look::Wait(_)) if clock::now_ns().saturating_sub(flight.started_ns) > TIMEOUT_NS => {
                    self.fail("timed out".to_owned());
                    sockets::reset(flight.socket);
                    return Ok(());
                }
                Ok(Look::Wait(_)) if has_waited => {
                    self.flights.push_back(flight);
                    return Ok(());
                }
                Ok(Look::Wait(event)) => match poll(&mut [PollFd::new(&flight.socket, event)], Some(&WAIT)) {
                    Ok(_) | Err(Errno::INTR) => has_waited = true,
                    Err(error) => return Err(error.into()),
                },
                Err(why) => {
                    self.fail(why);
                    sockets::reset(flight.socket);
                    return Ok(());
                }
            }
        }
    }

    fn count(&mut self, started_ns: u64) {
        let now_ns = clock::now_ns();
        self.outcome.handshakes += 1;
        self.outcome.handshake_us.record_span_ns(started_ns, now_ns);
        let second = ((now_ns - self.started_ns) / 1_000_000_000) as usize;
        self.outcome.by_second.resize(self.outcome.by_second.len().max(second + 1), 0);
        self.outcome.by_second[second] += 1;
    }

    fn fail(&mut self, why: String) {
        *self.outcome.failed.entry(why).or_default() += 1;
    }
}

impl Flight {
    /// Sends the request; a connection that is not there yet is asked again later.
    fn ask(&mut self, plan: &Plan, request: Option<&[u8]>, index: u64) -> Result<(), String> {
        let own = if request.is_none() { plan.request(index) } else { Vec::new() };
        let request = request.unwrap_or(&own);
        match send(&self.socket, request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == request.len() => self.requested = true,
            Ok(_) => return Err("request cut".to_owned()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(format!("connect or request: {error}")),
        }
        Ok(())
    }

    /// Goes as far as it can.
    fn look(&mut self, plan: &Plan, request: Option<&[u8]>, index: u64, buffer: &mut [u8]) -> Result<Look, String> {
        if !self.requested {
            self.ask(plan, request, index)?;
            if !self.requested {
                return Ok(Look::Wait(PollFlags::OUT));
            }
        }
        loop {
            let bytes = match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err("ended before the 101".to_owned()),
                Ok((bytes, _)) => bytes,
                Err(Errno::AGAIN) => return Ok(Look::Wait(PollFlags::IN)),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(format!("receive: {error}")),
            };
            if self.response.is_empty() && is_accepted(&buffer[..bytes])? {
                return Ok(Look::Done);
            }
            self.response.extend_from_slice(&buffer[..bytes]);
            if is_accepted(&self.response)? {
                return Ok(Look::Done);
            }
            if self.response.len() > HEAD_BYTES_MAX {
                return Err("a response head over 8 KiB".to_owned());
            }
        }
    }
}

/// Whether a whole response head is there; what it says instead of 101 with the right accept value is an error.
fn is_accepted(response: &[u8]) -> Result<bool, String> {
    let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let head = &response[..end];
    if head.starts_with(b"HTTP/1.1 101") && head.windows(ACCEPT.len()).any(|window| window == ACCEPT) {
        return Ok(true);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(String::from_utf8_lossy(line).into_owned())
}

impl Churned {
    /// Adds what another thread did in the same time.
    fn add(&mut self, other: &Self) {
        self.handshakes += other.handshakes;
        self.by_second.resize(self.by_second.len().max(other.by_second.len()), 0);
        self.by_second.iter_mut().zip(&other.by_second).for_each(|(sum, n)| *sum += n);
        other.failed.iter().for_each(|(why, n)| *self.failed.entry(why.clone()).or_default() += n);
        self.handshake_us.merge(&other.handshake_us);
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_counts_only_with_the_whole_head_and_the_right_accept_value() {
        let right = [&b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: "[..], ACCEPT, b"\r\n\r\n"].concat();
        let wrong = String::from_utf8(right.clone()).expect("ASCII").replace("s3pP", "S3pP");

        assert_eq!(is_accepted(&right), Ok(true));
        assert_eq!(is_accepted(&right[..right.len() - 1]), Ok(false));
        assert_eq!(is_accepted(wrong.as_bytes()), Err("HTTP/1.1 101 Switching Protocols".to_owned()));
        assert_eq!(is_accepted(b"HTTP/1.1 503 Busy\r\n\r\n"), Err("HTTP/1.1 503 Busy".to_owned()));
    }
}
