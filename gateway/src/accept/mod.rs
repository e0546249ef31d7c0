//! Where connections come in. One task a core accepts from the one listener, reads request heads, refuses or admits, and hands
//! the socket to its bucket. A pending handshake costs its socket and the bytes of an unfinished head; there is no task, timer
//! or HTTP library object for it (docs/adr/0003). The checks are `protocol::handshake`'s.
//! Invariants: every pending handshake has a deadline and is gone by then; pending handshakes of all acceptors stay within
//! their bounds, as `permits` keeps them; a refusal costs no allocation that outlives it; the kernel's accept queue is kept
//! from filling.

pub(crate) mod admission;
mod awaiting_hook;
pub(crate) mod backlog;
pub(crate) mod before_logic;
pub(crate) mod capacity;
mod deadlines;
pub(crate) mod front;
mod handshake;
mod hook;
pub(crate) mod listener;
mod permits;
pub(crate) mod proxy_header;
pub(crate) mod tls;
mod unauthenticated;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use tidegate_protocol::handshake::Refusal;
use tidegate_protocol::ws::Inflater;
use tokio::sync::mpsc;

use self::awaiting_hook::AwaitingHook;
use self::deadlines::{Awaited, Deadlines};
use self::front::Front;
use self::tls::Arrival;
use self::unauthenticated::Unauthenticated;
use crate::accept::admission::RETRY_AFTER_MAX_S;
use crate::clock::{CALM_MS, Millis, since};
use crate::key::PendingKey;
use crate::poll;
use proxy_header::Stranger;

/// Connections taken from the kernel before those who are parked get a turn: at first, and while more wait than one turn takes.
/// An accept costs a sixth of a handshake, so in a storm the kernel's queue is emptied faster than requests are served.
const ACCEPTS: u32 = 64;
const ACCEPTS_MAX: u32 = 512;
/// Pause when the rate is used up and those who wait may wait.
const DRY_MS: u64 = 2;
const EVENTS_MAX: usize = 256;
/// Data of the listener's own events.
const LISTENER: u64 = u64::MAX;
/// What is read and thrown away before a refused stranger is hung up on: at most so many reads of so many bytes.
const DISCARDS_MAX: usize = 4;
const DISCARD_BYTES: usize = 4 * 1024;
/// Advice to those who are refused for lack of room.
const RETRY_AFTER_S: u32 = 2;
/// Time between looks at the deadlines.
const DEADLINES_MS: u32 = 100;
/// Pause when the system has no files or memory for another connection.
const EXHAUSTED_MS: u64 = 50;
/// Clients past their TLS handshake that wait for an acceptor's turn; beyond it their tasks wait.
const ARRIVALS_MAX: usize = 256;

/// A socket that is no connection yet.
#[derive(Debug)]
struct PendingHandshake {
    fd: OwnedFd,
    stage: Stage,
    number: u32,
}

/// What is awaited of a client.
#[derive(Debug)]
enum Stage {
    /// The rest of its request head; and its address, as [`Stranger`] has it.
    Head(Vec<u8>, Option<SocketAddr>),
    /// Its AUTH; it has had its 101.
    Unauthenticated(Box<Unauthenticated>),
    /// The connect hook's word.
    AwaitingHook(Box<AwaitingHook>),
}

/// One accepting task.
pub struct Acceptor {
    /// Its place among the acceptors, and its mailbox's.
    index: u16,
    front: Arc<Front>,
    listener: Arc<OwnedFd>,
    epoll: OwnedFd,
    pending: Vec<Option<PendingHandshake>>,
    free: Vec<u32>,
    deadlines: Deadlines,
    /// Inflates their first messages, once anyone compresses one.
    inflater: Option<Box<Inflater>>,
    arrivals: u32,
    response: Vec<u8>,
    buffer: Vec<u8>,
    discard: Box<[u8; DISCARD_BYTES]>,
    is_listening: bool,
    /// Connections to take in the next turn.
    accepts: u32,
    /// Where clients come from when TLS ends in this process, and the way there.
    shaken: mpsc::Receiver<Arrival>,
    door: mpsc::Sender<Arrival>,
    /// What the refused are told, by seconds to wait less one; made once.
    overloaded: Box<[Vec<u8>]>,
}

impl Acceptor {
    /// An acceptor on a shared listener.
    ///
    /// # Errors
    /// The system's, when there is no epoll set to be had.
    pub fn new(front: Arc<Front>, listener: Arc<OwnedFd>, index: u16) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Level-triggered and exclusive: one acceptor wakes for a connection, and wakes again while more wait.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&epoll, &*listener, epoll::EventData::new_u64(LISTENER), flags)?;
        let (door, shaken) = mpsc::channel(ARRIVALS_MAX);
        Ok(Self {
            index,
            front,
            shaken,
            door,
            listener,
            epoll,
            pending: Vec::new(),
            free: Vec::new(),
            deadlines: Deadlines::default(),
            inflater: None,
            arrivals: 0,
            response: Vec::with_capacity(1024),
            buffer: vec![0; 16 * 1024],
            discard: Box::new([0; DISCARD_BYTES]),
            is_listening: true,
            accepts: ACCEPTS,
            overloaded: (1..=RETRY_AFTER_MAX_S).map(overloaded).collect(),
        })
    }

    /// Runs until the gateway stops.
    pub async fn run(mut self) {
        let front = Arc::clone(&self.front);
        self.wait_for_logic(&front).await;
        let set = match poll::watch(&self.epoll) {
            Ok(set) => set,
            Err(error) => {
                tracing::error!(%error, "cannot watch the acceptor's epoll set");
                return;
            }
        };
        let mut deadlines = front.clock.beats(DEADLINES_MS / 2, 0);
        let mut calm = front.clock.beats(CALM_MS, 0);
        let stopped = front.lifecycle.stopped();
        tokio::pin!(stopped);
        let mut looked = front.clock.now();
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                guard = set.readable() => if let Ok(mut guard) = guard {
                    match self.take_events(&front) {
                        Turn::Idle => guard.clear_ready(),
                        Turn::Busy => tokio::task::yield_now().await,
                        Turn::Dry => tokio::time::sleep(std::time::Duration::from_millis(DRY_MS)).await,
                        Turn::Exhausted => {
                            // No file for the next connection: leave the others in the kernel's queue for a moment.
                            tokio::time::sleep(std::time::Duration::from_millis(EXHAUSTED_MS)).await;
                        }
                    }
                },
                Some(arrival) = self.shaken.recv() => self.greet(&front, arrival),
                () = front.capacity.mailboxes[usize::from(self.index)].arrived.notified() => self.take_answers(&front),
                _ = deadlines.tick(), if !self.deadlines.is_empty() => {}
                _ = calm.tick() => {}
            }
            self.make_room_if_told(&front);
            // By time and not by timer: a flood of strangers must not keep the deadlines from their turn.
            let now = front.clock.now();
            if since(now, looked) >= DEADLINES_MS {
                looked = now;
                self.expire(&front);
                self.expire_unauthenticated(&front);
            }
            if self.is_listening && !front.lifecycle.is_accepting() {
                let _ = epoll::delete(&self.epoll, &*self.listener);
                // Strangers now get "connection refused" from the kernel, also those whom nobody has taken from it yet.
                let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Read);
                self.is_listening = false;
            }
        }
    }

    fn take_events(&mut self, front: &Front) -> Turn {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&no_wait)).is_err() {
            return Turn::Busy;
        }
        let mut turn = if events.len() == EVENTS_MAX { Turn::Busy } else { Turn::Idle };
        for event in &events {
            let data = event.data.u64();
            if data == LISTENER {
                match self.accept(front) {
                    Turn::Idle => {}
                    other => turn = other,
                }
            } else {
                let PendingKey { slot, number } = PendingKey::from_u64(data);
                match self.pending[slot as usize].as_ref().filter(|it| it.number == number).map(|it| &it.stage) {
                    Some(Stage::Head(..)) => self.read(front, slot),
                    Some(Stage::Unauthenticated(_)) => self.hear(front, slot),
                    // Watched for its end only.
                    Some(Stage::AwaitingHook(_)) => drop(self.unpark(front, slot)),
                    None => {}
                }
            }
        }
        turn
    }

    fn accept(&mut self, front: &Front) -> Turn {
        let wanted = self.accepts;
        let granted = front.capacity.admission.lock().take(wanted, front.clock.now());
        let (taken, turn) = self.accept_up_to(granted, front, Self::welcome);
        if taken < granted {
            front.capacity.admission.lock().give_back(granted - taken);
        }
        match turn {
            Turn::Busy if granted < wanted => self.hold_back(front),
            Turn::Busy => {
                self.accepts = (wanted * 2).min(ACCEPTS_MAX);
                Turn::Busy
            }
            other => {
                self.accepts = ACCEPTS;
                other
            }
        }
    }

    /// The rate is used up: most who wait may wait where they are, the rest is refused, so that the queue never fills.
    fn hold_back(&mut self, front: &Front) -> Turn {
        let Some(_turn) = front.capacity.backlog.turn() else { return Turn::Dry };
        let excess = front.capacity.admission.lock().excess(front.capacity.backlog.look());
        match self.accept_up_to(excess.min(ACCEPTS_MAX), front, Self::turn_away) {
            (_, Turn::Busy) => Turn::Dry,
            (_, other) => other,
        }
    }

    /// Takes connections from the kernel; gives how many, and `Busy` when there may be more.
    fn accept_up_to(
        &mut self,
        most: u32,
        front: &Front,
        mut then: impl FnMut(&mut Self, &Front, OwnedFd),
    ) -> (u32, Turn) {
        let mut taken = 0;
        while taken < most {
            match rustix::net::accept_with(&*self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => {
                    taken += 1;
                    front.totals.accepted.fetch_add(1, Ordering::Relaxed);
                    then(self, front, fd);
                }
                Err(Errno::AGAIN) => return (taken, Turn::Idle),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Another acceptor has shut the listener they share.
                Err(Errno::INVAL) if !front.lifecycle.is_accepting() => return (taken, Turn::Idle),
                Err(error) => {
                    front.totals.accept_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "cannot accept");
                    return (taken, Turn::Exhausted);
                }
            }
        }
        (taken, Turn::Busy)
    }

    /// Refuses a stranger unheard: nothing is parsed, made or kept.
    fn turn_away(&mut self, front: &Front, fd: OwnedFd) {
        let retry_after_s = front.capacity.admission.lock().refuse();
        front.totals.turned_away.fetch_add(1, Ordering::Relaxed);
        let is_early = front.awaits_logic();
        let refusal =
            if is_early { Refusal::NotReady { retry_after_s } } else { Refusal::Overloaded { retry_after_s } };
        front.totals.refuse(refusal);
        if front.tls.is_some() {
            // Nothing can be said before the TLS handshake.
            return;
        }
        if is_early {
            self.response.clear();
            refusal.response(&mut self.response);
            return hang_up(&fd, &self.response, &mut self.discard);
        }
        hang_up(&fd, &self.overloaded[retry_after_s as usize - 1], &mut self.discard);
    }

    /// Takes a new socket in: at once, or after its TLS handshake.
    fn welcome(&mut self, front: &Front, fd: OwnedFd) {
        if front.tls.is_some() {
            return tls::welcome(&self.front, fd, &self.door);
        }
        let deadline = front.clock.now().wrapping_add(front.rules.handshake.deadline_ms);
        self.look_at(front, Stranger { fd, address: None }, deadline);
    }

    /// Takes in those whose TLS handshake is over.
    fn greet(&mut self, front: &Front, first: Arrival) {
        self.look_at(front, first.stranger, first.deadline);
        for _ in 1..ACCEPTS {
            let Ok(next) = self.shaken.try_recv() else { return };
            self.look_at(front, next.stranger, next.deadline);
        }
    }

    /// Looks at a new client; most have sent their request by then or soon will.
    fn look_at(&mut self, front: &Front, stranger: Stranger, deadline: Millis) {
        if !front.lifecycle.is_accepting() {
            return self.refuse(front, &stranger.fd, Refusal::Draining { retry_after_s: RETRY_AFTER_S });
        }
        if front.awaits_logic() {
            let retry_after_s = front.capacity.admission.lock().refuse();
            return self.refuse(front, &stranger.fd, Refusal::NotReady { retry_after_s });
        }
        // Pending handshakes count too: their files are as real.
        if front.capacity.sockets() >= front.capacity.population.connections_max {
            return self.refuse(front, &stranger.fd, Refusal::TooManyConnections { retry_after_s: RETRY_AFTER_S });
        }
        match rustix::net::recv(&stranger.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {}
            Ok((_, n)) => {
                let head = std::mem::take(&mut self.buffer);
                if let Some(stranger) = self.consider(front, stranger, &head[..n], false) {
                    self.park(front, stranger, head[..n].to_vec(), deadline);
                }
                self.buffer = head;
            }
            Err(Errno::AGAIN) => self.park(front, stranger, Vec::new(), deadline),
            Err(_) => {}
        }
    }

    /// Parks a client whose head is unfinished.
    fn park(&mut self, front: &Front, stranger: Stranger, head: Vec<u8>, deadline: Millis) {
        if !self.take_permit(front) {
            let retry_after_s = front.capacity.admission.lock().refuse();
            return self.refuse(front, &stranger.fd, Refusal::Overloaded { retry_after_s });
        }
        let key = self.free_slot();
        if self.watch(&stranger.fd, key).is_err() {
            self.free.push(key.slot);
            front.capacity.handshakes.let_go(usize::from(self.index), 1);
            return;
        }
        self.deadlines.add(Awaited::Head, deadline, key);
        let Stranger { fd, address } = stranger;
        self.pending[key.slot as usize] =
            Some(PendingHandshake { fd, stage: Stage::Head(head, address), number: key.number });
    }

    /// A free slot, and a number for who gets it.
    fn free_slot(&mut self) -> PendingKey {
        self.arrivals = self.arrivals.wrapping_add(1) & 0x7fff_ffff;
        #[expect(clippy::cast_possible_truncation, reason = "bounded by handshake.in_flight and auth.unnamed_max")]
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            (self.pending.len() - 1) as u32
        });
        PendingKey { slot, number: self.arrivals }
    }

    fn watch(&self, fd: &OwnedFd, key: PendingKey) -> rustix::io::Result<()> {
        let data = epoll::EventData::new_u64(key.to_u64());
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN | epoll::EventFlags::RDHUP)
    }

    fn unpark(&mut self, front: &Front, slot: u32) -> Option<PendingHandshake> {
        let handshake = self.pending[slot as usize].take()?;
        self.free.push(slot);
        front.capacity.handshakes.let_go(usize::from(self.index), 1);
        Some(handshake)
    }

    fn read(&mut self, front: &Front, slot: u32) {
        let Some(PendingHandshake { fd, stage: Stage::Head(head, address), .. }) = &mut self.pending[slot as usize]
        else {
            return;
        };
        match rustix::net::recv(&*fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, n)) if n > 0 => {
                head.extend_from_slice(&self.buffer[..n]);
                let (head, address) = (std::mem::take(head), *address);
                let Some(PendingHandshake { fd, number, .. }) = self.unpark(front, slot) else { return };
                // The socket goes to a bucket's set or is closed; if its head is still unfinished it is parked anew below.
                if let Some(Stranger { fd, address }) = self.consider(front, Stranger { fd, address }, &head, true) {
                    self.repark(front, slot, PendingHandshake { fd, stage: Stage::Head(head, address), number });
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                self.unpark(front, slot);
            }
        }
    }

    /// Puts a client back where it was; its deadline still stands.
    fn repark(&mut self, front: &Front, slot: u32, handshake: PendingHandshake) {
        self.free.pop();
        // It was given back a moment ago.
        let _ = front.capacity.handshakes.hold(usize::from(self.index), 1, usize::MAX);
        self.pending[slot as usize] = Some(handshake);
    }

    /// Says no and why, as far as the peer's window lets, and hangs up.
    fn refuse(&mut self, front: &Front, fd: &OwnedFd, refusal: Refusal) {
        self.refuse_head(front, fd, &[], refusal);
    }

    /// The same to a request of which `head` has come.
    fn refuse_head(&mut self, front: &Front, fd: &OwnedFd, head: &[u8], refusal: Refusal) {
        front.totals.refuse(refusal);
        self.response.clear();
        refusal.response_to(head, &mut self.response);
        hang_up(fd, &self.response, &mut self.discard);
    }

    fn expire(&mut self, front: &Front) {
        let now = front.clock.now();
        while let Some(slot) = self.next_due(Awaited::Head, now) {
            if let Some(handshake) = self.unpark(front, slot) {
                let head = if let Stage::Head(head, _) = &handshake.stage { &head[..] } else { &[] };
                self.refuse_head(front, &handshake.fd, head, Refusal::HandshakeTimeout);
            }
        }
        while let Some(slot) = self.next_due(Awaited::Hook, now) {
            if let Some(PendingHandshake { fd, stage: Stage::AwaitingHook(waiting), .. }) = self.unpark(front, slot) {
                let late = Refusal::HookUnavailable { retry_after_s: RETRY_AFTER_S };
                self.turn_down(front, &fd, &waiting, late);
            }
        }
    }
}

/// The last words to a stranger.
fn hang_up(fd: &OwnedFd, response: &[u8], discard: &mut [u8; DISCARD_BYTES]) {
    // Unread bytes would turn the close into a reset that may overtake the answer. What a stranger sends beyond this
    // is its own loss.
    for _ in 0..DISCARDS_MAX {
        match rustix::net::recv(fd, &mut discard[..], RecvFlags::DONTWAIT) {
            Ok((_, n)) if n == DISCARD_BYTES => {}
            _ => break,
        }
    }
    let _ = rustix::net::send(fd, response, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}

fn overloaded(retry_after_s: u32) -> Vec<u8> {
    let mut response = Vec::new();
    Refusal::Overloaded { retry_after_s }.response(&mut response);
    response
}

/// What a turn of the loop found.
enum Turn {
    /// Nothing more.
    Idle,
    /// There may be more.
    Busy,
    /// There are more, and the rate is used up.
    Dry,
    /// The system is out of files or memory.
    Exhausted,
}
