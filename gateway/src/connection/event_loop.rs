//! The event loop of one bucket: waits for its epoll set, reads what came into the thread's buffer, decodes it in place,
//! answers through `requests`, sends what had to wait, and sweeps for silence.
//! What is rare is kept by slot and not in the table (`rare`).
//! Invariants: only this task removes connections, so a slot it has found stays what it is until it acts; a connection
//! that was told to go is gone at its deadline at the latest.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::Deflate;
use tidegate_protocol::ws::{self, Deflater, Event, Inflater};

use super::host::Host;
use super::rare::RareStates;
use super::rate::Rates;
use super::sweep::{Quiet, ping_interval};
use crate::bucket::pending::Queued;
use crate::bucket::{Bucket, Command};
use crate::clock::{CALM_MS, Millis, since};
use crate::config::settings::RatesInForce;
use crate::counters::Delta;
use crate::key::SlotKey;
use crate::poll;
use crate::session::Identity;

/// The buffer every readable socket is read into.
const READ_BYTES: usize = 64 * 1024;
/// Most reads of one socket before its neighbours get a turn.
const READS_MAX: usize = 4;
/// Most events taken from epoll at once.
const EVENTS_MAX: usize = 256;
/// Flags after which nothing more will come.
const END: epoll::EventFlags = epoll::EventFlags::RDHUP.union(epoll::EventFlags::HUP);
/// Time between sweeps.
const SWEEP_MS: u32 = 500;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    /// Holds nothing from one message to the next, so a thread needs one for all its connections (docs/adr/0013).
    static INFLATER: RefCell<Inflater> = RefCell::default();
}

/// The state of a bucket's task.
pub struct EventLoop {
    pub(super) host: Arc<Host>,
    pub(super) index: usize,
    /// What few connections have at a time.
    pub(super) rare: RareStates,
    /// When this second began.
    pub(super) second: Millis,
    /// Sockets with more to read, or whose reading waits until their answers have left.
    again: Vec<(SlotKey, bool)>,
    /// What the sweep knows of the silent.
    pub(super) quiet: Quiet,
    /// When pings were last sent.
    pub(super) ping_turn: Millis,
    /// How much may be asked for.
    pub(super) rates: RatesInForce,
    /// How much each user says, on all its connections.
    pub(super) user_sends: Rates<Arc<str>>,
    /// A connection that has just said who it is in another dialect, and what it is told first.
    pub(super) renamed: Option<(Identity, bytes::Bytes)>,
    /// Compresses echoes, in conformance profiles only.
    pub(super) echoes: Option<Deflater>,
}

/// What reading a socket led to.
enum Read {
    /// All there was.
    Drained,
    /// There is more; others first.
    More,
    /// The connection is over.
    Over,
}

impl EventLoop {
    /// The task of bucket `index`.
    #[must_use]
    pub fn new(host: Arc<Host>, index: usize) -> Self {
        let rates = host.settings.rates();
        // Not all buckets at once; the first of them at its first sweep.
        let buckets = host.buckets.len();
        #[expect(clippy::cast_possible_truncation, reason = "at most the interval")]
        let ahead = (ping_interval(&host.rules.heartbeat) as usize * (buckets - index) / buckets) as u32;
        Self {
            ping_turn: host.clock().now().wrapping_sub(ahead),
            user_sends: Rates::new(rates.user_sends),
            rates,
            host,
            index,
            rare: RareStates::default(),
            second: 0,
            again: Vec::new(),
            quiet: Quiet::default(),
            renamed: None,
            echoes: None,
        }
    }

    pub(super) fn bucket(&self) -> &Bucket {
        &self.host.buckets[self.index]
    }

    /// Runs until the gateway stops.
    pub async fn run(mut self) {
        let host = Arc::clone(&self.host);
        let bucket = &host.buckets[self.index];
        let epoll = match poll::watch(&bucket.epoll) {
            Ok(epoll) => epoll,
            Err(error) => {
                tracing::error!(bucket = bucket.index, %error, "cannot watch the bucket's epoll set");
                return;
            }
        };
        // Half of the buckets each time, on beats at which others wake as well: a thread woken for one small sweep would cost
        // more than the sweep.
        #[expect(clippy::cast_possible_truncation, reason = "below SWEEP_MS / CALM_MS")]
        let phase = (self.index * (SWEEP_MS / CALM_MS) as usize / host.buckets.len()) as u32 * CALM_MS;
        let mut sweep = host.clock().beats(SWEEP_MS, phase);
        let stopped = host.lifecycle.stopped();
        tokio::pin!(stopped);
        let mut swept = host.clock().now();
        loop {
            let mut is_due = false;
            tokio::select! {
                biased;
                () = &mut stopped => return,
                guard = epoll.readable() => if let Ok(mut guard) = guard
                    && self.take_events()
                {
                    guard.clear_ready();
                },
                () = bucket.wake.notified() => self.run_commands(),
                _ = sweep.tick() => is_due = true,
            }
            // By time and not only by timer: a set that is never quiet must not keep the sweep from its turn.
            let now = host.clock().now();
            if is_due || since(now, swept) > SWEEP_MS {
                swept = now;
                self.sweep();
            }
            self.make_room_if_told();
            self.read_again();
            if !self.again.is_empty() {
                bucket.wake.notify_one();
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes one round of events; true when there were no more.
    fn take_events(&mut self) -> bool {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut events);
        if let Err(error) = epoll::wait(&self.bucket().epoll, spare, Some(&no_wait)) {
            if error != Errno::INTR {
                tracing::error!(bucket = self.index, %error, "epoll");
            }
            return error != Errno::INTR;
        }
        // Bytes that came with a handshake are handed over before its socket is watched: they come first.
        self.run_commands();
        for event in &events {
            let key = SlotKey::from_u64(event.data.u64());
            let flags = event.flags;
            if flags.intersects(epoll::EventFlags::ERR) {
                // Reset or timed out: nothing it sent can be answered any more, so it is not read either.
                self.remove(key);
                continue;
            }
            if flags.intersects(epoll::EventFlags::OUT) && !self.send_pending(key) {
                self.remove(key);
                continue;
            }
            // The end of the stream may come in one edge with the last bytes: then reading must go on until it is seen.
            let is_ending = flags.intersects(END);
            if is_ending || flags.intersects(epoll::EventFlags::IN) {
                self.read(key, is_ending);
            }
        }
        events.len() < EVENTS_MAX
    }

    /// Sends what waits for a connection; false when it is over.
    pub(super) fn send_pending(&mut self, key: SlotKey) -> bool {
        let bucket = &self.host.buckets[self.index];
        let table = bucket.table.read();
        let Some(hot) = table.find(key) else { return true };
        let has_stalled = match hot.outbox.lock().as_ref() {
            None => return true,
            Some(pending) => pending.is_stalled(),
        };
        if has_stalled && let Some(fd) = &hot.fd {
            self.quiet.note_stall(fd, key.slot, self.host.clock().now());
        }
        let mut d = Delta::default();
        let is_open = self.host.control().drain(hot, &mut d);
        bucket.counters.add(&d);
        let is_clear = hot.outbox.lock().is_none();
        drop(table);
        if is_clear {
            self.resume(key);
        }
        is_open
    }

    /// A peer whose answers have left is listened to again.
    fn resume(&mut self, key: SlotKey) {
        if let Some(is_ending) = self.rare.get_mut(key.slot).and_then(|rare| rare.paused.take()) {
            self.again.push((key, is_ending));
        }
    }

    /// Reads and handles what a socket has.
    fn read(&mut self, key: SlotKey, is_ending: bool) {
        let outcome = BUFFER.with_borrow_mut(|buffer| self.read_into(key, is_ending, buffer));
        match outcome {
            Read::Drained => {}
            Read::More => self.again.push((key, is_ending)),
            Read::Over => self.remove(key),
        }
    }

    fn read_into(&mut self, key: SlotKey, is_ending: bool, buffer: &mut [u8]) -> Read {
        for _ in 0..READS_MAX {
            let received = {
                let table = self.host.buckets[self.index].table.read();
                let Some(hot) = table.find(key) else { return Read::Drained };
                // While its answers do not fit, a peer is not listened to: that bounds what pings can cost.
                let waiting = hot.outbox.lock().as_ref().map_or(0, |p| p.bytes());
                if self.host.control().is_deaf(waiting) && !self.rare.is_closing(key.slot) {
                    *self.rare.of(key.slot).paused.get_or_insert(false) |= is_ending;
                    return Read::Drained;
                }
                let Some(fd) = &hot.fd else { return Read::Drained };
                let received = rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT);
                if let Ok((_, n)) = received
                    && n > 0
                {
                    hot.seen.store(self.host.clock().now(), Ordering::Relaxed);
                }
                received
            };
            match received {
                Ok((_, 0)) => return Read::Over,
                Ok((_, n)) => {
                    if !self.take_bytes(key, &mut buffer[..n]) {
                        return Read::Over;
                    }
                    if n < buffer.len() && !is_ending {
                        return Read::Drained;
                    }
                }
                Err(Errno::AGAIN) => return Read::Drained,
                Err(Errno::INTR) => {}
                Err(_) => return Read::Over,
            }
        }
        Read::More
    }

    /// Decodes bytes and acts on them; false when the connection is over.
    fn take_bytes(&mut self, key: SlotKey, bytes: &mut [u8]) -> bool {
        let is_closing = self.rare.is_closing(key.slot);
        let limits = ws::Limits {
            message_bytes: self.host.settings.message_bytes(),
            fragments: self.host.settings.fragments(),
            // Of a peer that was told to go only its Close matters; nothing it compresses is worth much work.
            inflate_ratio: if is_closing { 1 } else { self.host.rules.deflate.ratio_max },
        };
        let has_deflate = self.deflate_of(key).is_some();
        let (mut decoder, mut begun) = self.take_partial(key.slot);
        let mut has_peer_closed = false;
        let mut act = |event: Event<'_>| {
            if let Event::Close { code, .. } = &event {
                has_peer_closed = true;
                if !is_closing {
                    self.answer_close(key, *code);
                }
                return ControlFlow::Break(());
            }
            if matches!(event, Event::Text(_) | Event::Binary(_)) {
                // What is unfinished after this one has begun just now.
                begun = self.host.clock().now();
            }
            if is_closing || self.rare.is_closing(key.slot) {
                return ControlFlow::Continue(());
            }
            self.act(key, &event);
            if self.renamed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = if has_deflate {
            INFLATER.with_borrow_mut(|inflater| decoder.decode_some(bytes, &limits, Some(inflater), &mut act))
        } else {
            decoder.decode_some(bytes, &limits, None, &mut act)
        };
        match result {
            Err(violation) => {
                if is_closing {
                    // What follows a Close that was sent in the middle of a message cannot be told apart; it is not listened to.
                    return true;
                }
                self.close_for_violation(key, violation);
                true
            }
            Ok(used) => {
                if let Some((identity, first)) = self.renamed.take() {
                    self.rehouse(key, identity, &first, &bytes[used..]);
                    return true;
                }
                if has_peer_closed {
                    return !self.is_flushed(key);
                }
                if !decoder.is_idle() {
                    self.keep_partial(key.slot, decoder, begun);
                }
                true
            }
        }
    }

    /// What a connection has negotiated; asked only where anyone may.
    pub(super) fn deflate_of(&self, key: SlotKey) -> Option<Deflate> {
        if self.host.rules.deflate.level == 0 {
            return None;
        }
        let table = self.host.buckets[self.index].table.read();
        table.find(key).and_then(|_| table.cold[key.slot as usize].deflate)
    }

    fn act(&mut self, key: SlotKey, event: &Event<'_>) {
        match event {
            Event::Text(text) => self.text(key, text),
            Event::Binary(bytes) => self.binary(key, bytes),
            Event::Ping(payload) => {
                if self.is_flooding(key.slot) {
                    self.begin_close(key, CloseReason::Flood.code(), &CloseReason::Flood.text(None));
                    return;
                }
                let frame = ws::frame(ws::OpCode::Pong, payload);
                self.send_control(key, frame, true);
            }
            Event::Pong(_) => {
                if self.is_flooding(key.slot) {
                    self.begin_close(key, CloseReason::Flood.code(), &CloseReason::Flood.text(None));
                }
            }
            Event::Close { .. } => {}
        }
    }

    fn is_flooding(&mut self, slot: u32) -> bool {
        let count = &mut self.rare.of(slot).control_frames;
        *count += 1;
        *count > self.host.settings.control_per_s()
    }

    /// Sends a frame that must not be lost, or gives the connection up as slow.
    pub(super) fn send_control(&mut self, key: SlotKey, frame: bytes::Bytes, is_pong: bool) {
        let bucket = &self.host.buckets[self.index];
        let mut d = Delta::default();
        let queued = {
            let table = bucket.table.read();
            let Some(hot) = table.find(key) else { return };
            if is_pong {
                self.host.control().pong(hot, frame, &mut d)
            } else {
                self.host.control().control(hot, frame, &mut d)
            }
        };
        bucket.counters.add(&d);
        if queued == Queued::Close {
            self.host.totals.slow_closed.fetch_add(1, Ordering::Relaxed);
            self.cut(key, CloseReason::Slow);
        }
    }

    fn run_commands(&mut self) {
        for command in self.bucket().take_commands() {
            match command {
                Command::Close { key, code, text } => {
                    if self.host.buckets[self.index].table.read().find(key).is_some() {
                        self.begin_close(key, code, &text);
                    }
                }
                Command::Cut(key) => {
                    let is_here = self.host.buckets[self.index].table.read().find(key).is_some();
                    if is_here && !self.rare.is_closing(key.slot) {
                        self.host.totals.slow_closed.fetch_add(1, Ordering::Relaxed);
                        self.cut(key, CloseReason::Slow);
                    }
                }
                Command::Resume(key) => self.resume(key),
                Command::Early { key, mut bytes } => {
                    if !self.take_bytes(key, &mut bytes) {
                        self.remove(key);
                    }
                }
            }
        }
    }

    fn read_again(&mut self) {
        for (key, is_ending) in std::mem::take(&mut self.again) {
            self.read(key, is_ending);
        }
    }
}
