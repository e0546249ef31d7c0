//! One thread's clients: an epoll set, one shared read buffer, arrays. The loop, and obedience to commands.
//! Dialling is in `ramp`, reading in `reading`; what bytes mean in `assembly` and `ledger`.
//! Invariant: at most 64 bytes a client in arrays (const assertion below); a box only while a frame is unfinished.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use rustix::event::epoll;

use super::assembly::{Cache, Frame, Partial, Received};
use super::commands::{Command, Event};
use super::plan::{Plan, stalls};
use super::ramp::Ramp;
use super::tally::Tally;
use crate::ledger::{Expected, Ledger};
use crate::{clock, sockets};

/// Longest wait for sockets: commands are looked at in between.
const TURN: Duration = Duration::from_millis(10);
/// The same while nothing is under way: fifty idle processes that wake a hundred times a second cost 5 % of a core.
const IDLE_TURN: Duration = Duration::from_millis(50);
/// Between two looks at whether everything expected has come.
const LOOK_NS: u64 = 20_000_000;

/// The drawing of one client:
///
/// ```text
/// Waiting → Connecting → Upgrading → Greeting → (Joining →) Open ⇄ Stalled
///    any of the later ones → Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    /// For the TCP handshake.
    Connecting,
    /// For the 101.
    Upgrading,
    /// For HELLO.
    Greeting,
    /// For JOINED.
    Joining,
    Open,
    /// Open, and does not read.
    Stalled,
    Closed,
}

/// Per client in arrays: descriptor, state, flags, partial; the ledger adds 4 × publishers + 6 × rooms.
const CLIENT_BYTES: usize = size_of::<Option<OwnedFd>>() + size_of::<State>() + 1 + size_of::<Option<Box<Partial>>>();
const _: () = assert!(CLIENT_BYTES + 4 * 4 + 6 * 4 <= 64);

pub(super) const TIMED: u8 = 1;
/// Was told to stall at some time: judged apart.
pub(super) const HAS_STALLED: u8 = 2;
/// Has been told by GAP or close code that something is missing.
pub(super) const TOLD: u8 = 4;

pub(super) struct Worker {
    pub(super) plan: Arc<Plan>,
    /// Global number of the first client here.
    pub(super) first: u64,
    pub(super) epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Shared by all clients: a client that has nothing unfinished owns no buffer.
    pub(super) buffer: Vec<u8>,
    /// Scratch of one read; empty between reads.
    pub(super) received: Vec<Received>,
    pub(super) sockets: Vec<Option<OwnedFd>>,
    pub(super) states: Vec<State>,
    pub(super) flags: Vec<u8>,
    pub(super) partials: Vec<Option<Box<Partial>>>,
    /// Start of each handshake in flight, and its unfinished response head.
    pub(super) handshakes: HashMap<u32, (u64, Vec<u8>)>,
    pub(super) ramp: Ramp,
    pub(super) cache: Cache,
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
    /// The clock as of the last look.
    pub(super) now_ns: u64,
    inbox: Receiver<Command>,
    outbox: SyncSender<Event>,
    awaited: Option<Awaited>,
}

/// A report that waits for the last messages.
#[derive(Debug)]
struct Awaited {
    expected: Vec<Expected>,
    settle_ns: u64,
    messages: u64,
    changed_ns: u64,
    look_ns: u64,
    /// Messages and open clients when everybody was last asked, in vain: without a change the answer is the same.
    asked: Option<(u64, u64)>,
}

/// Which of the swarm's clients a worker has.
pub(super) struct Part {
    /// Global number of the first.
    pub(super) first: u64,
    pub(super) count: usize,
    /// Connects a second; `None`: as fast as it goes.
    pub(super) connect_rate: Option<f64>,
}

/// By which a worker is steered.
pub(super) struct Wires {
    pub(super) inbox: Receiver<Command>,
    pub(super) outbox: SyncSender<Event>,
}

impl Worker {
    pub(super) fn new(plan: Arc<Plan>, part: &Part, wires: Wires) -> anyhow::Result<Self> {
        let Part { first, count, connect_rate } = *part;
        let Wires { inbox, outbox } = wires;
        let mut ledger = Ledger::new(count, plan.publishers, plan.rooms.len(), plan.from_zero);
        let mut ramp = Ramp::new(count, connect_rate);
        if plan.paused {
            ramp.allow(0);
        }
        let mut flags = vec![0; count];
        for (slot, flags) in flags.iter_mut().enumerate() {
            let index = first + slot as u64;
            ledger.enrol(slot as u32, plan.rooms(index).iter().map(String::as_str));
            *flags = if plan.is_sampled(index) { TIMED } else { 0 };
        }
        Ok(Self {
            first,
            epoll: sockets::epoll_set()?,
            events: Vec::with_capacity(sockets::EVENTS),
            buffer: vec![0; sockets::READ_BYTES],
            received: Vec::new(),
            sockets: (0..count).map(|_| None).collect(),
            states: vec![State::Waiting; count],
            flags,
            partials: (0..count).map(|_| None).collect(),
            handshakes: HashMap::new(),
            ramp,
            cache: Cache::new(plan.dialect, plan.deflate),
            ledger,
            tally: Tally { connections: count as u64, ..Tally::default() },
            now_ns: clock::now_ns(),
            inbox,
            outbox,
            awaited: None,
            plan,
        })
    }

    /// Runs until told to stop or until nobody steers any more.
    pub(super) fn run(mut self) {
        if let Err(error) = self.turns() {
            // Nobody to tell means nobody who waits.
            let _ = self.outbox.send(Event::Failed { error: format!("{error:#}") });
        }
        self.sockets.drain(..).flatten().for_each(sockets::reset);
    }

    fn turns(&mut self) -> anyhow::Result<()> {
        loop {
            self.dial_due()?;
            self.announce();
            match self.inbox.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                Ok(command) => self.obey(command)?,
                Err(TryRecvError::Empty) => {}
            }
            let mut events = std::mem::take(&mut self.events);
            let idle = self.ramp.is_over() && self.awaited.is_none();
            sockets::wait(&self.epoll, &mut events, if idle { IDLE_TURN } else { TURN })?;
            self.now_ns = clock::now_ns();
            for (position, event) in events.iter().enumerate() {
                // A look at the clock costs 21 ns, a read over 1 µs: at most 16 reads share one.
                if position % 16 == 15 {
                    self.now_ns = clock::now_ns();
                }
                let (flags, slot) = (event.flags, event.data.u64() as u32);
                self.ready(slot, flags);
            }
            self.events = events;
            self.tally.note_second(self.now_ns);
            if self.cache.has_forgotten() {
                let forgotten = self.cache.forgotten();
                self.note_arrivals(&forgotten);
            }
            self.report_when_due();
        }
    }

    /// Tells how the ramp goes: several times a second, and once that it is over.
    fn announce(&mut self) {
        match self.ramp.announcement(self.now_ns) {
            None => {}
            Some(false) => {
                let open = self.tally.open;
                // Progress is a courtesy: a full channel may drop it.
                let _ = self.outbox.try_send(Event::Progress { open });
            }
            Some(true) => {
                self.tally.ramp_s = self.ramp.elapsed_s(self.now_ns);
                let _ = self.outbox.send(Event::Ready(Box::new(self.tally.clone())));
            }
        }
    }

    fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Reset => {
                self.cache.clear();
                self.tally.reset();
            }
            Command::Stall { every } => {
                for slot in 0..self.states.len() as u32 {
                    if stalls(self.first + u64::from(slot), every) && self.states[slot as usize] == State::Open {
                        self.stall(slot)?;
                    }
                }
            }
            Command::Resume => self.resume()?,
            Command::Dial { per_mille } => {
                self.ramp.allow(per_mille);
                return Ok(());
            }
            Command::Report { expected, settle_ms } => {
                let (messages, changed_ns) = (self.tally.messages, self.now_ns);
                let settle_ns = settle_ms * 1_000_000;
                self.awaited = Some(Awaited { expected, settle_ns, messages, changed_ns, look_ns: 0, asked: None });
                return Ok(());
            }
            Command::Stop => return Ok(()),
        }
        let _ = self.outbox.send(Event::Done);
        Ok(())
    }

    pub(super) fn stall(&mut self, slot: u32) -> anyhow::Result<()> {
        if let Some(socket) = &self.sockets[slot as usize] {
            epoll::delete(&self.epoll, socket)?;
        }
        self.states[slot as usize] = State::Stalled;
        self.flags[slot as usize] |= HAS_STALLED;
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        for slot in 0..self.states.len() {
            if self.states[slot] == State::Stalled
                && let Some(socket) = &self.sockets[slot]
            {
                self.states[slot] = State::Open;
                // Adding reports what is readable already, edge-triggered or not.
                epoll::add(&self.epoll, socket, epoll::EventData::new_u64(slot as u64), super::reading::INTEREST)?;
            }
        }
        Ok(())
    }

    fn report_when_due(&mut self) {
        let Some(awaited) = &mut self.awaited else { return };
        if self.now_ns < awaited.look_ns {
            return;
        }
        awaited.look_ns = self.now_ns + LOOK_NS;
        if awaited.messages != self.tally.messages {
            // While messages come not everything is there; asking 19,000 clients fifty times a second would slow them.
            (awaited.messages, awaited.changed_ns) = (self.tally.messages, self.now_ns);
            return;
        }
        let settled = self.now_ns - awaited.changed_ns >= awaited.settle_ns;
        let now = Some((self.tally.messages, self.tally.open));
        if !settled && awaited.asked == now {
            return;
        }
        awaited.asked = now;
        let expected = std::mem::take(&mut awaited.expected);
        if settled || self.has_all(&expected) {
            self.awaited = None;
            self.report(&expected);
        } else if let Some(awaited) = &mut self.awaited {
            awaited.expected = expected;
        }
    }

    fn has_all(&self, expected: &[Expected]) -> bool {
        // Stalled clients that read again are waited for as long as something comes.
        let reads = |slot: &usize| self.states[*slot] == State::Open && self.flags[*slot] & HAS_STALLED == 0;
        let stalled_reads = |slot: usize| self.flags[slot] & HAS_STALLED != 0 && self.states[slot] == State::Open;
        !expected.is_empty()
            && !(0..self.states.len()).any(stalled_reads)
            && (0..self.states.len()).filter(reads).all(|slot| {
                let expected = self.expectations(slot, expected);
                self.ledger.has_all(slot as u32, &expected)
            })
    }

    fn expectations<'e>(&self, slot: usize, expected: &'e [Expected]) -> Vec<(&'e Expected, bool)> {
        let index = self.first + slot as u64;
        expected.iter().map(|expected| (expected, self.plan.is_member(index, &expected.to))).collect()
    }

    fn report(&mut self, expected: &[Expected]) {
        let forgotten = self.cache.clear();
        self.note_arrivals(&forgotten);
        let mut tally = self.tally.clone();
        for slot in 0..self.states.len() {
            let has_stalled = self.flags[slot] & HAS_STALLED != 0;
            let standing = if has_stalled { &mut tally.stalled } else { &mut tally.standing };
            let expected = self.expectations(slot, expected);
            self.ledger.judge(slot as u32, self.first + slot as u64, &expected, standing);
            tally.stalled_told += u64::from(has_stalled && self.flags[slot] & TOLD != 0);
        }
        tally.reached = self.ledger.reached();
        let _ = self.outbox.send(Event::Report(Box::new(tally)));
    }

    fn note_arrivals(&mut self, frames: &[Rc<Frame>]) {
        frames.iter().for_each(|frame| self.tally.arrival(frame));
    }
}
