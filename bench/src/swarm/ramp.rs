//! Connecting: how many at a time, how fast, the TCP handshake, the upgrade request and its 101.
//! A file of its own because it is over before anything is measured. Frames after the 101 are `reading`'s.

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};

use super::plan::{ACCEPT, DEFLATE_ANSWER};
use super::worker::{State, Worker};
use crate::sockets;

/// Handshakes a thread has in flight: enough to keep both sides busy, far below any accept queue.
const IN_FLIGHT_MAX: usize = 128;
/// A handshake that takes longer has failed.
const HANDSHAKE_NS: u64 = 20_000_000_000;
/// Longest response head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const PROGRESS_NS: u64 = 200_000_000;

#[derive(Debug)]
pub(super) struct Ramp {
    count: usize,
    /// Clients dialled so far: slots below this are on their way.
    dialled: usize,
    /// Clients that may be dialled by now: all of them, unless the swarm is steered step by step.
    allowed: usize,
    /// Clients that are open or have failed.
    pub(super) settled: usize,
    /// Clients greeted and joined are no longer in flight; these are.
    pub(super) in_flight: usize,
    rate: Option<f64>,
    started_ns: Option<u64>,
    announced_ns: u64,
    over: bool,
}

impl Ramp {
    pub(super) fn new(count: usize, rate: Option<f64>) -> Self {
        let (dialled, settled, in_flight, announced_ns) = (0, 0, 0, 0);
        Self { count, dialled, allowed: count, settled, in_flight, rate, started_ns: None, announced_ns, over: false }
    }

    /// Goes on, or only now begins, until this many thousandths are dialled.
    pub(super) fn allow(&mut self, per_mille: u64) {
        self.allowed = (self.count as u64 * per_mille.min(1_000)).div_ceil(1_000) as usize;
        self.over = false;
    }

    /// How many clients may be dialled now.
    fn due(&mut self, now_ns: u64) -> usize {
        let started_ns = *self.started_ns.get_or_insert(now_ns);
        let left = self.allowed.saturating_sub(self.dialled).min(IN_FLIGHT_MAX.saturating_sub(self.in_flight));
        let Some(rate) = self.rate else { return left };
        let allowed = ((now_ns - started_ns) as f64 / 1e9 * rate) as usize + 1;
        left.min(allowed.saturating_sub(self.dialled))
    }

    /// `Some(true)` once, when all who may are settled; `Some(false)` now and then until then.
    pub(super) fn announcement(&mut self, now_ns: u64) -> Option<bool> {
        if self.over {
            return None;
        }
        if self.settled >= self.allowed {
            self.over = true;
            return Some(true);
        }
        let due = now_ns >= self.announced_ns + PROGRESS_NS;
        if due {
            self.announced_ns = now_ns;
        }
        due.then_some(false)
    }

    pub(super) fn elapsed_s(&self, now_ns: u64) -> f64 {
        self.started_ns.map_or(0.0, |started_ns| now_ns.saturating_sub(started_ns) as f64 / 1e9)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl Worker {
    pub(super) fn dial_due(&mut self) -> anyhow::Result<()> {
        if self.ramp.is_over() {
            return Ok(());
        }
        self.give_up_late();
        for _ in 0..self.ramp.due(self.now_ns) {
            let slot = self.ramp.dialled;
            self.ramp.dialled += 1;
            self.ramp.in_flight += 1;
            let dialled = sockets::dial(self.first + slot as u64, self.plan.target, self.plan.receive_bytes);
            let socket = match dialled {
                Ok(socket) => socket,
                Err(error) => {
                    self.fail(slot as u32, format!("connect: {error}"));
                    continue;
                }
            };
            if self.plan.abortive {
                sockets::abort_on_close(&socket)?;
            }
            let interest = epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(slot as u64), interest)?;
            self.sockets[slot] = Some(socket);
            self.states[slot] = State::Connecting;
            self.handshakes.insert(slot as u32, (self.now_ns, Vec::new()));
        }
        Ok(())
    }

    fn give_up_late(&mut self) {
        let now_ns = self.now_ns;
        let late = |(slot, (started_ns, _)): (&u32, &(u64, Vec<u8>))| {
            (now_ns.saturating_sub(*started_ns) > HANDSHAKE_NS).then_some(*slot)
        };
        let late: Vec<u32> = self.handshakes.iter().filter_map(late).collect();
        late.into_iter().for_each(|slot| self.fail(slot, "handshake timed out".to_owned()));
    }

    /// The TCP handshake is over: send the request, or note why there is none to send it to.
    pub(super) fn connected(&mut self, slot: u32) {
        let Some(socket) = &self.sockets[slot as usize] else { return };
        if let Ok(Err(error)) | Err(error) = sockopt::socket_error(socket) {
            return self.fail(slot, format!("connect: {error}"));
        }
        let request = self.plan.request(self.first + u64::from(slot));
        // A fresh socket's buffer takes a request whole; anything else is a failure worth seeing.
        match send(socket, &request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == request.len() => {}
            Ok(sent) => return self.fail(slot, format!("request cut after {sent} bytes")),
            Err(error) => return self.fail(slot, format!("request: {error}")),
        }
        self.states[slot as usize] = State::Upgrading;
        let data = epoll::EventData::new_u64(u64::from(slot));
        if let Err(error) = epoll::modify(&self.epoll, socket, data, super::reading::INTEREST) {
            self.fail(slot, format!("epoll: {error}"));
        }
    }

    /// Bytes of the response; gives those after its head once it is complete.
    pub(super) fn upgraded(&mut self, slot: u32, bytes: &[u8]) -> Option<Vec<u8>> {
        let (started_ns, response) = self.handshakes.get_mut(&slot)?;
        response.extend_from_slice(bytes);
        let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else {
            if response.len() > HEAD_BYTES_MAX {
                self.fail(slot, "response head too long".to_owned());
            }
            return None;
        };
        let (head, rest) = (&response[..end], response[end + 4..].to_vec());
        let accepted = head.windows(ACCEPT.len()).any(|window| window == ACCEPT);
        if !head.starts_with(b"HTTP/1.1 101") || !accepted {
            let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default());
            let why = format!("upgrade: {line}{}", if accepted { "" } else { " (no Sec-WebSocket-Accept)" });
            self.fail(slot, why);
            return None;
        }
        let text = String::from_utf8_lossy(head);
        if self.plan.deflate && !DEFLATE_ANSWER.iter().all(|word| text.contains(word)) {
            self.fail(slot, "permessage-deflate was not accepted".to_owned());
            return None;
        }
        self.tally.handshake_us.record_span_ns(*started_ns, self.now_ns);
        self.states[slot as usize] = State::Greeting;
        if let Some(opening) = self.plan.opening() {
            self.say(slot, &opening);
        }
        if self.plan.dialect.is_open_at_once() {
            self.opened(slot);
        }
        Some(rest)
    }

    /// Greeted: join rooms or be done.
    pub(super) fn greeted(&mut self, slot: u32) {
        match self.plan.join(self.first + u64::from(slot)) {
            None => self.opened(slot),
            Some(join) => {
                self.states[slot as usize] = State::Joining;
                self.say(slot, &join);
            }
        }
    }

    pub(super) fn opened(&mut self, slot: u32) {
        self.handshakes.remove(&slot);
        self.states[slot as usize] = State::Open;
        self.tally.open += 1;
        self.ramp.settled += 1;
        self.ramp.in_flight -= 1;
        if self.plan.is_stalled_from_start(self.first + u64::from(slot))
            && let Err(error) = self.stall(slot)
        {
            self.tally.odd(format!("stall: {error}"));
        }
    }

    /// A client that never got as far as being open.
    pub(super) fn fail(&mut self, slot: u32, why: String) {
        self.handshakes.remove(&slot);
        self.sockets[slot as usize].take().into_iter().for_each(sockets::reset);
        self.states[slot as usize] = State::Closed;
        self.tally.failed += 1;
        self.tally.odd(why);
        self.ramp.settled += 1;
        self.ramp.in_flight -= 1;
    }

    /// Sends a small frame; a server that cannot take it is worth a line in the report.
    pub(super) fn say(&mut self, slot: u32, frame: &[u8]) {
        let Some(socket) = &self.sockets[slot as usize] else { return };
        match send(socket, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == frame.len() => {}
            Ok(_) | Err(Errno::AGAIN) => self.tally.odd("server takes no bytes".to_owned()),
            Err(error) => self.tally.odd(format!("send: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spreads_the_dials_over_time() {
        let mut ramp = Ramp::new(1_000, Some(100.0));

        assert_eq!(ramp.due(0), 1);
        assert_eq!(ramp.due(500_000_000), 51);
    }

    #[test]
    fn handshakes_in_flight_are_bounded() {
        let mut ramp = Ramp::new(10_000, None);
        assert_eq!(ramp.due(0), IN_FLIGHT_MAX);

        ramp.in_flight = IN_FLIGHT_MAX;

        assert_eq!(ramp.due(0), 0);
    }

    #[test]
    fn a_steered_ramp_stops_at_each_step_and_says_so() {
        let mut ramp = Ramp::new(50, None);
        ramp.allow(0);
        assert_eq!((ramp.due(0), ramp.announcement(0)), (0, Some(true)));

        ramp.allow(100);

        assert_eq!(ramp.due(0), 5);
        (ramp.dialled, ramp.settled) = (5, 5);
        assert_eq!((ramp.due(0), ramp.announcement(PROGRESS_NS)), (0, Some(true)));
        ramp.allow(1_000);
        assert_eq!(ramp.due(0), 45);
    }

    #[test]
    fn the_end_of_the_ramp_is_announced_once() {
        let mut ramp = Ramp::new(1, None);
        assert_eq!(ramp.announcement(PROGRESS_NS), Some(false));

        ramp.settled = 1;

        assert_eq!(ramp.announcement(PROGRESS_NS), Some(true));
        assert_eq!(ramp.announcement(PROGRESS_NS * 9), None);
    }
}
