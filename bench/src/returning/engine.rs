//! One thread's returning clients: an epoll set, a queue of dials by time, and each client's way from one connection to the
//! next. Orders are looked at between turns. When to dial is `policy`'s, what a frame means `assembly`'s, what should have
//! come `witness`'s. Invariant: a client is dialling, connected or in the queue of dials, and never two of these.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::policy::{Policy, close_after_ms, retry_after_ms};
use super::witness::{Rules, Witness};
use super::{Options, Order, Standing, TENTH_NS};
use crate::dialect::content::Content;
use crate::dialect::head;
use crate::swarm::assembly::{Cache, Partial, Received};
use crate::swarm::plan::{ACCEPT, Plan};
use crate::{clock, sockets};

/// Dials between two looks at the sockets: so that requests follow their connects while others are dialled.
const DIALS_A_TURN: usize = 128;
/// A handshake that takes longer has failed.
const HANDSHAKE_NS: u64 = 20_000_000_000;
const TURN: Duration = Duration::from_millis(5);
/// Longest response head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Where a client stands:
///
/// ```text
/// Away → Connecting → Upgrading → Open → Away
///   ▲────────┴───────────┘ refused or failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until its dial is due.
    Away,
    Connecting,
    /// For the 101 and HELLO.
    Upgrading,
    Open,
}

#[derive(Debug)]
struct Client {
    socket: Option<OwnedFd>,
    state: State,
    gateway: usize,
    /// Number of the dial or departure that is meant; older entries of the queue are void.
    turn: u32,
    policy: Policy,
    /// Response head so far.
    response: Vec<u8>,
    partial: Option<Box<Partial>>,
    witness: Witness,
    /// Since when it has had no connection; 0 before the first.
    lost_ns: u64,
    dialled_ns: u64,
}

#[derive(Debug)]
struct Gateway {
    target: SocketAddrV4,
    /// All clients are anonymous, so the request is the same for all.
    request: Vec<u8>,
    is_live: bool,
}

pub(super) struct Engine {
    clients: Vec<Client>,
    gateways: Vec<Gateway>,
    first: u64,
    heed_every: u64,
    rules: Rules,
    epoll: OwnedFd,
    cache: Cache,
    /// (when, client, turn): dials of those who are away, departures of those who heed GOAWAY.
    due: BinaryHeap<Reverse<(u64, u32, u32)>>,
    standing: Standing,
    now_ns: u64,
    random: u64,
}

impl Engine {
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let gateway = |url: &String| {
            let plan = Plan::new(url, options.connections)?;
            Ok(Gateway { target: plan.target, request: plan.request(0), is_live: true })
        };
        let gateways = options.gateway.iter().map(gateway).collect::<anyhow::Result<Vec<_>>>()?;
        let now_ns = clock::now_ns();
        let client = || Client {
            socket: None,
            state: State::Away,
            gateway: 0,
            turn: 0,
            policy: Policy::default(),
            response: Vec::new(),
            partial: None,
            witness: Witness::default(),
            lost_ns: 0,
            dialled_ns: 0,
        };
        let period_ns = 1e9 / options.ramp_rate;
        let due = (0..options.connections as u32).map(|i| Reverse((now_ns + (f64::from(i) * period_ns) as u64, i, 0)));
        Ok(Self {
            clients: (0..options.connections).map(|_| client()).collect(),
            due: due.collect(),
            standing: Standing { opened: vec![Default::default(); gateways.len()], ..Standing::default() },
            gateways,
            first: options.first,
            heed_every: options.heed_every.max(1),
            rules: options.rules(),
            epoll: sockets::epoll_set()?,
            cache: Cache::default(),
            now_ns,
            random: now_ns | 1,
        })
    }

    /// Runs until nobody gives orders any more.
    pub(super) fn run(
        &mut self,
        orders: &Receiver<Order>,
        mut answer: impl FnMut(&Standing) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(sockets::EVENTS);
        let mut buffer = vec![0; sockets::READ_BYTES];
        let mut looked_ns = self.now_ns;
        loop {
            match orders.try_recv() {
                Ok(order) => {
                    self.obey(&order);
                    answer(&self.standing)?;
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {}
            }
            self.now_ns = clock::now_ns();
            let is_behind = self.do_what_is_due()?;
            sockets::wait(&self.epoll, &mut events, if is_behind { Duration::ZERO } else { TURN })?;
            for event in &events {
                self.now_ns = clock::now_ns();
                self.ready(event.data.u64() as u32, &mut buffer);
            }
            // Only the counts of frames matter here.
            self.cache.forgotten();
            if self.now_ns - looked_ns > HANDSHAKE_NS / 10 {
                looked_ns = self.now_ns;
                self.give_up_late();
            }
        }
    }

    fn obey(&mut self, order: &Order) {
        self.now_ns = clock::now_ns();
        match order {
            Order::Live { gateways } => {
                for (gateway, is_live) in self.gateways.iter_mut().zip(gateways) {
                    gateway.is_live = *is_live;
                }
            }
            Order::Drop => {
                self.standing.dropped_ns = self.now_ns;
                for index in 0..self.clients.len() as u32 {
                    if self.clients[index as usize].state != State::Away {
                        self.lose(index, "dropped");
                    }
                }
            }
            Order::Report { published } => {
                let open = self.clients.iter().filter(|client| client.state == State::Open);
                self.standing.behind = open.filter(|client| !client.witness.has_all(*published)).count() as u64;
            }
        }
    }

    /// Dials and departures whose time has come; `true` when there are more than one turn takes.
    fn do_what_is_due(&mut self) -> anyhow::Result<bool> {
        for _ in 0..DIALS_A_TURN {
            let Some(Reverse((at_ns, index, turn))) = self.due.peek().copied() else { return Ok(false) };
            if at_ns > self.now_ns {
                return Ok(false);
            }
            self.due.pop();
            let client = &self.clients[index as usize];
            if client.turn != turn {
                continue;
            }
            if client.state == State::Away {
                self.dial(index)?;
            } else {
                self.judge_end(index);
                self.clients[index as usize].policy.told(0.0);
                self.lose(index, "heeded GOAWAY");
            }
        }
        Ok(true)
    }

    fn dial(&mut self, index: u32) -> anyhow::Result<()> {
        let live: Vec<usize> = (0..self.gateways.len()).filter(|g| self.gateways[*g].is_live).collect();
        let chosen = (self.chance() * live.len() as f64) as usize;
        let gateway = live.get(chosen).copied().unwrap_or(0);
        let socket = match sockets::dial(self.first + u64::from(index), self.gateways[gateway].target, None) {
            Ok(socket) => socket,
            Err(error) => {
                self.fail(index, format!("connect: {error}"));
                return Ok(());
            }
        };
        let interest = epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(u64::from(index)), interest)?;
        let client = &mut self.clients[index as usize];
        (client.socket, client.state, client.gateway) = (Some(socket), State::Connecting, gateway);
        (client.dialled_ns, client.partial) = (self.now_ns, None);
        client.response.clear();
        Ok(())
    }

    fn ready(&mut self, index: u32, buffer: &mut [u8]) {
        if self.clients[index as usize].state == State::Connecting && !self.connected(index) {
            return;
        }
        while let Some(socket) = &self.clients[index as usize].socket {
            match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.ended(index, "eof"),
                Ok((bytes, _)) => self.take(index, &buffer[..bytes]),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => self.ended(index, "reset"),
                Err(error) => self.ended(index, &error.to_string()),
            }
        }
    }

    fn connected(&mut self, index: u32) -> bool {
        let client = &mut self.clients[index as usize];
        let Some(socket) = &client.socket else { return false };
        if let Ok(Err(error)) | Err(error) = sockopt::socket_error(socket) {
            self.fail(index, format!("connect: {error}"));
            return false;
        }
        // A server that has refused already may have hung up; then its answer is there to be read.
        let _ = send(socket, &self.gateways[client.gateway].request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        client.state = State::Upgrading;
        let data = epoll::EventData::new_u64(u64::from(index));
        let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::modify(&self.epoll, socket, data, interest).is_ok()
    }

    fn take(&mut self, index: u32, bytes: &[u8]) {
        let client = &mut self.clients[index as usize];
        if client.state == State::Open || client.response.ends_with(b"\r\n\r\n") {
            return self.feed(index, bytes);
        }
        client.response.extend_from_slice(bytes);
        let Some(end) = client.response.windows(4).position(|window| window == b"\r\n\r\n") else {
            if client.response.len() > HEAD_BYTES_MAX {
                self.fail(index, "response head too long".to_owned());
            }
            return;
        };
        let rest = client.response.split_off(end + 4);
        let head = String::from_utf8_lossy(&client.response).into_owned();
        if head.starts_with("HTTP/1.1 101") && client.response.windows(ACCEPT.len()).any(|window| window == ACCEPT) {
            self.feed(index, &rest);
        } else if head.starts_with("HTTP/1.1 503") {
            let after_ms = retry_after_ms(&head);
            let told = after_ms.map_or("no Retry-After".to_owned(), |ms| format!("{} s", ms / 1_000.0));
            *self.standing.refused.entry(told).or_default() += 1;
            after_ms.into_iter().for_each(|ms| self.clients[index as usize].policy.told(ms));
            self.leave(index);
        } else {
            self.fail(index, head.lines().next().unwrap_or_default().to_owned());
        }
    }

    fn feed(&mut self, index: u32, bytes: &[u8]) {
        let mut received = Vec::new();
        let fed = self.cache.feed(&mut self.clients[index as usize].partial, bytes, &mut received);
        for received in received {
            match received {
                Received::Text(frame) => self.text(index, &frame.content),
                Received::Ping(payload) => self.say(index, head::PONG, &payload),
                Received::Pong => {}
                Received::Close { code, reason } => {
                    close_after_ms(&reason).into_iter().for_each(|ms| self.clients[index as usize].policy.told(ms));
                    self.say(index, head::CLOSE, &code.to_be_bytes());
                    self.ended(index, &code.to_string());
                }
            }
        }
        if let Err(fault) = fed {
            self.ended(index, fault);
        }
    }

    fn text(&mut self, index: u32, content: &Content) {
        let client = &mut self.clients[index as usize];
        let faults = &mut self.standing.faults;
        match content {
            Content::Push(push) => self.standing.messages += client.witness.push(push, self.rules, faults),
            Content::Hello(advice) if client.state == State::Upgrading => {
                client.policy.greeted(*advice);
                client.state = State::Open;
                client.turn += 1;
                client.witness = Witness::of(self.now_ns);
                if client.lost_ns > 0 {
                    self.standing.away_us.record_span_ns(client.lost_ns, self.now_ns);
                }
                self.standing.open += 1;
                self.standing.opened_ns = self.now_ns;
                *self.standing.opened[client.gateway].entry(self.now_ns / TENTH_NS).or_default() += 1;
            }
            Content::Goaway(from_ms, to_ms) if u64::from(index).is_multiple_of(self.heed_every) => {
                let turn = client.turn;
                let after_ms = *from_ms as f64 + (*to_ms - *from_ms) as f64 * self.chance();
                self.due.push(Reverse((self.now_ns + (after_ms * 1e6) as u64, index, turn)));
            }
            Content::Goaway(..) => {}
            Content::Gap(gap) => {
                faults.gaps += gap.messages();
                faults.example(|| format!("a gap: {gap:?}"));
            }
            other => *self.standing.ended.entry(format!("odd: {other:?}")).or_default() += 1,
        }
    }

    /// Sends a small frame; a peer that is gone needs none.
    fn say(&self, index: u32, opcode: u8, payload: &[u8]) {
        let Some(socket) = &self.clients[index as usize].socket else { return };
        let mut frame = Vec::new();
        head::write_masked(&mut frame, opcode, payload);
        let _ = send(socket, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// The server's end of a connection or of an attempt.
    fn ended(&mut self, index: u32, how: &str) {
        if self.clients[index as usize].state == State::Open {
            // Messages on their way to a gateway that is killed die with it; a planned close comes after them.
            if how.parse::<u16>().is_ok() {
                self.judge_end(index);
            }
            self.lose(index, how);
        } else {
            self.fail(index, format!("before the 101: {how}"));
        }
    }

    fn judge_end(&mut self, index: u32) {
        self.clients[index as usize].witness.ended(self.now_ns, self.rules, &mut self.standing.faults);
    }

    /// A connection is over, or was about to be one.
    fn lose(&mut self, index: u32, how: &str) {
        let client = &mut self.clients[index as usize];
        if client.state == State::Open {
            self.standing.open -= 1;
            client.lost_ns = self.now_ns;
        }
        *self.standing.ended.entry(how.to_owned()).or_default() += 1;
        self.leave(index);
    }

    /// An attempt came to nothing.
    fn fail(&mut self, index: u32, why: String) {
        *self.standing.failed.entry(why).or_default() += 1;
        self.leave(index);
    }

    /// Ends what there is by RST and waits as the policy says.
    fn leave(&mut self, index: u32) {
        let chance = self.chance();
        let client = &mut self.clients[index as usize];
        client.socket.take().into_iter().for_each(sockets::reset);
        client.state = State::Away;
        client.turn += 1;
        let due_ns = clock::now_ns() + (client.policy.delay_ms(chance) * 1e6) as u64;
        self.due.push(Reverse((due_ns, index, client.turn)));
    }

    fn give_up_late(&mut self) {
        for index in 0..self.clients.len() as u32 {
            let client = &self.clients[index as usize];
            let is_pending = matches!(client.state, State::Connecting | State::Upgrading);
            if is_pending && self.now_ns.saturating_sub(client.dialled_ns) > HANDSHAKE_NS {
                self.fail(index, "handshake timed out".to_owned());
            }
        }
    }

    /// A number between 0 and 1 (xorshift64: enough to spread clients).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}
