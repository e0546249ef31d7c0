//! Reading: what a ready socket means in each state, and what each received frame does to tally and ledger.
//! Hot path from `ready` to `text`: one recv, one comparison, a few additions; nothing is allocated for a known frame.
//! Edge-triggered: a short read has emptied the socket (epoll(7), question 9), so most events cost one recv.

use std::rc::Rc;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::assembly::{Frame, Received};
use super::worker::{HAS_STALLED, State, TIMED, TOLD, Worker};
use crate::dialect::content::Content;
use crate::dialect::head;

pub(super) const INTEREST: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

impl Worker {
    pub(super) fn ready(&mut self, slot: u32, flags: EventFlags) {
        match self.states[slot as usize] {
            State::Connecting => self.connected(slot),
            State::Upgrading | State::Greeting | State::Joining | State::Open => self.read(slot, flags),
            // An event that was taken in the same turn as the change of state.
            State::Waiting | State::Stalled | State::Closed => {}
        }
    }

    fn read(&mut self, slot: u32, flags: EventFlags) {
        let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(socket) = &self.sockets[slot as usize]
            && self.states[slot as usize] != State::Stalled
        {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.ended(slot, "eof"),
                Ok((bytes, _)) => {
                    self.tally.reads += 1;
                    self.take(slot, &buffer[..bytes]);
                    if bytes < buffer.len() && !ending {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => self.ended(slot, "reset"),
                Err(error) => self.ended(slot, &error.to_string()),
            }
        }
        self.buffer = buffer;
    }

    fn take(&mut self, slot: u32, bytes: &[u8]) {
        if self.states[slot as usize] == State::Upgrading {
            if let Some(rest) = self.upgraded(slot, bytes) {
                self.feed(slot, &rest);
            }
        } else {
            self.feed(slot, bytes);
        }
    }

    fn feed(&mut self, slot: u32, bytes: &[u8]) {
        let mut received = std::mem::take(&mut self.received);
        let fed = self.cache.feed(&mut self.partials[slot as usize], bytes, &mut received);
        self.tally.bytes += bytes.len() as u64;
        for received in received.drain(..) {
            match received {
                Received::Text(frame) => self.text(slot, &frame),
                Received::Ping(payload) => {
                    self.tally.pings += 1;
                    let mut pong = Vec::new();
                    head::write_masked(&mut pong, head::PONG, &payload);
                    self.say(slot, &pong);
                }
                Received::Pong => {}
                Received::Close { code, reason } => {
                    if code >= 3_000 || !reason.is_empty() {
                        self.flags[slot as usize] |= TOLD;
                    }
                    self.ended(slot, &code.to_string());
                }
            }
        }
        self.received = received;
        if let Err(fault) = fed {
            self.tally.odd(format!("protocol: {fault}"));
            self.ended(slot, "protocol");
        }
    }

    fn text(&mut self, slot: u32, frame: &Rc<Frame>) {
        match &frame.content {
            Content::Push(push) => {
                frame.arrived(self.now_ns);
                let messages = u64::from(push.messages());
                self.tally.messages += messages;
                self.tally.frames += 1;
                self.tally.per_frame.record(messages);
                self.ledger.push(slot, push);
                if push.probes {
                    self.say(slot, &self.plan.pong());
                }
                let flags = self.flags[slot as usize];
                if flags & (TIMED | HAS_STALLED) == TIMED {
                    for intended_ns in &push.intended_ns {
                        self.tally.latency_us.record_span_ns(*intended_ns, self.now_ns);
                    }
                }
            }
            Content::Gap(gap) => {
                let count = self.tally.gaps.entry(gap.reason.to_string()).or_default();
                count.frames += 1;
                count.messages += gap.messages();
                self.flags[slot as usize] |= TOLD;
                self.ledger.gap(slot, gap);
            }
            Content::Probe => self.say(slot, &self.plan.pong()),
            Content::Aside => {}
            Content::Hello(_) if self.states[slot as usize] == State::Greeting => self.greeted(slot),
            Content::Joined(refused) if self.states[slot as usize] == State::Joining => {
                refused.iter().for_each(|room| self.tally.odd(format!("not let into {room}")));
                self.opened(slot);
            }
            Content::Hello(_) | Content::Joined(_) => self.tally.odd("greeted twice".to_owned()),
            Content::Goaway(..) => self.tally.odd("got GOAWAY".to_owned()),
            Content::Other(kind) => self.tally.odd(format!("got {kind}")),
            Content::Invalid(why) => self.tally.odd(format!("invalid message: {why}")),
        }
    }

    fn ended(&mut self, slot: u32, how: &str) {
        match self.states[slot as usize] {
            State::Open | State::Stalled => {
                let stalled = self.flags[slot as usize] & HAS_STALLED != 0;
                let closed = if stalled { &mut self.tally.closed_stalled } else { &mut self.tally.closed };
                *closed.entry(how.to_owned()).or_default() += 1;
                self.tally.open -= 1;
                self.sockets[slot as usize] = None;
                self.states[slot as usize] = State::Closed;
            }
            State::Closed => {}
            _ => self.fail(slot, format!("ended before it was open: {how}")),
        }
    }
}
