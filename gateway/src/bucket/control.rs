//! What tasks say to single connections: control frames, replies, greetings, the last word. Each goes out at once, or waits behind what
//! waits already, within the connection's bound.
//! A file of its own because it knows the clock, the bound and the socket, which [`outbox`] is told.

use std::io::IoSlice;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;

use super::outbox;
use super::pending::{Pending, Queued};
use super::table::Hot;
use super::{Bucket, Command};
use crate::clock::Clock;
use crate::counters::{Delta, DropReason};
use crate::key::SlotKey;
use crate::writer::{KernelWriter, Writer};

/// Writes to single connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlWriter {
    /// The gateway's clock.
    pub clock: Clock,
    /// Most bytes that may wait for one connection.
    pub pending_bytes_max: usize,
}

impl ControlWriter {
    /// Sends a frame at once, or queues it behind what waits.
    pub fn control(self, hot: &Hot, frame: Bytes, d: &mut Delta) -> Queued {
        self.send(hot, frame, Pending::push_control, d)
    }

    /// The same for a pong, of which only the latest is kept.
    pub fn pong(self, hot: &Hot, frame: Bytes, d: &mut Delta) -> Queued {
        self.send(hot, frame, Pending::push_pong, d)
    }

    fn send(
        self,
        hot: &Hot,
        frame: Bytes,
        behind: fn(&mut Pending, Bytes, usize, u32, &mut Delta) -> Queued,
        d: &mut Delta,
    ) -> Queued {
        let Some(fd) = &hot.fd else { return Queued::Dropped(DropReason::Closed) };
        let now = self.clock.now();
        let mut outbox = hot.outbox.lock();
        if let Some(pending) = outbox.as_mut().filter(|p| !p.is_empty()) {
            return behind(pending, frame, self.pending_bytes_max, now, d);
        }
        d.writes += 1;
        match KernelWriter.write(fd, &[IoSlice::new(&frame)]) {
            Ok(n) => {
                d.bytes += n as u64;
                hot.wrote.store(now, Ordering::Relaxed);
                if n < frame.len() {
                    let mut pending = Box::new(Pending::new(now));
                    pending.push_control_rest(frame, n, now, d);
                    pending.set_stalled();
                    d.stalls += 1;
                    *outbox = Some(pending);
                }
                Queued::Waits
            }
            Err(Errno::AGAIN) => {
                let mut pending = Box::new(Pending::new(now));
                let queued = pending.push_control(frame, self.pending_bytes_max, now, d);
                pending.set_stalled();
                d.stalls += 1;
                *outbox = Some(pending);
                queued
            }
            Err(_) => Queued::Dropped(DropReason::Closed),
        }
    }

    /// Keeps a frame until logic has acknowledged `version` ([`Pending::hold`]).
    pub fn hold(self, hot: &Hot, frame: Bytes, version: u64, d: &mut Delta) -> Queued {
        let now = self.clock.now();
        let mut outbox = hot.outbox.lock();
        let pending = outbox.get_or_insert_with(|| Box::new(Pending::new(now)));
        pending.hold(version);
        pending.push_control(frame, self.pending_bytes_max, now, d)
    }

    /// Lets go of what waited for `version`, as far as the peer lets; gives the bytes that waited.
    pub fn release(self, hot: &Hot, version: u64, d: &mut Delta) -> usize {
        let now = self.clock.now();
        let mut waited = 0;
        if let Some(pending) = hot.outbox.lock().as_mut() {
            waited = pending.bytes();
            pending.release(version, now);
        }
        // A connection that is over is found by its bucket's task.
        let _ = outbox::drain(&KernelWriter, hot, now, d);
        waited
    }

    /// Writes the first bytes of a connection, before anyone else can.
    pub fn greet(self, hot: &Hot, greeting: &[u8], d: &mut Delta) {
        let Some(fd) = &hot.fd else { return };
        let taken = KernelWriter.write(fd, &[IoSlice::new(greeting)]).unwrap_or(0);
        if taken < greeting.len() {
            let now = self.clock.now();
            let mut pending = Box::new(Pending::new(now));
            pending.push_control_rest(Bytes::copy_from_slice(greeting), taken, now, d);
            *hot.outbox.lock() = Some(pending);
        }
    }

    /// Sends the last frame of a connection. `is_hopeless`: what waits before it is dropped.
    pub fn last(self, hot: &Hot, frame: Bytes, is_hopeless: bool, d: &mut Delta) {
        let send = if is_hopeless { outbox::send_instead } else { outbox::send_last };
        send(&KernelWriter, hot, frame, self.clock.now(), d);
    }

    /// Sends what waits for a connection; false when it is over.
    pub fn drain(self, hot: &Hot, d: &mut Delta) -> bool {
        outbox::drain(&KernelWriter, hot, self.clock.now(), d)
    }

    /// Sends a frame to a connection of a bucket, if it is still there; one that has no room for it is ended.
    pub fn tell(self, bucket: &Bucket, key: SlotKey, frame: Bytes) {
        let mut d = Delta::default();
        let queued = {
            let table = bucket.table.read();
            let Some(hot) = table.find(key) else { return };
            self.control(hot, frame, &mut d)
        };
        bucket.counters.add(&d);
        if queued == Queued::Close {
            bucket.command(Command::Cut(key));
        }
    }

    /// Whether so many bytes wait for a connection that it is not listened to until some have left: that bounds what its
    /// requests can cost.
    pub fn is_deaf(self, waiting: usize) -> bool {
        waiting > self.pending_bytes_max / 2
    }
}
