//! A gateway without sockets: real buckets, rooms, merge windows and fan-out threads over connections that exist in memory.
//! For benches and tests of a million connections in one process, which no open-files limit here allows. There is no acceptor,
//! no bucket task and no backplane: nothing is ever read, and a write always fits.
//! Invariant: what a connection has received is what the walks wrote to it, counted by the writer alone.

use std::io::{self, IoSlice};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use rustix::io::Errno;
use tidegate_protocol::records::{InterestKind, Lane};

use crate::bucket::{Bucket, of_user};
use crate::clock::{Clock, Millis};
use crate::config::{DeflateConfig, MergeConfig};
use crate::connection::membership::leave_all;
use crate::counters::Totals;
use crate::deliver::fanout::{Fanout, Shape};
use crate::deliver::merge::compressor::Compressor;
use crate::deliver::merge::{Merger, Terms};
use crate::key::ConnectionKey;
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;
use crate::session::Platform;
use crate::topic::target::{Private, Target};
use crate::writer::Writer;

/// Changes of interest kept, though no logic node asks for them.
const INTEREST_LOG: usize = 1_024;
/// As a gateway's defaults.
const FANOUT_BYTES: usize = 64 << 20;
const PENDING_BYTES: usize = 256 << 10;
const ROOMS_MAX: usize = 4_000_000;

/// What stands for a socket: the number of its connection, counted from 1.
#[derive(Debug)]
pub struct MemorySocket(NonZeroU32);

/// What each connection has received.
#[derive(Debug)]
struct Received {
    frames: AtomicU32,
    bytes: AtomicU64,
}

/// Takes every write whole.
#[derive(Clone, Debug)]
pub struct MemoryWriter(Arc<[Received]>);

impl MemoryWriter {
    fn receive(&self, number: usize, frames: u32, bytes: usize) {
        let received = &self.0[number];
        received.frames.fetch_add(frames, Ordering::Relaxed);
        received.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Writer<MemorySocket> for MemoryWriter {
    fn write(&self, socket: &MemorySocket, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let bytes = parts.iter().map(|p| p.len()).sum();
        self.receive(socket.0.get() as usize - 1, u32::try_from(parts.len()).unwrap_or(u32::MAX), bytes);
        Ok(bytes)
    }

    fn finish(&self, _: &MemorySocket) {}
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its bucket and slot.
    pub key: ConnectionKey,
    /// Number of the connection, from 0.
    pub number: u32,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    /// Every connection.
    All,
    /// The members of a room.
    Room(&'a str),
    /// The connections of a user.
    User(&'a str),
}

/// The parts of a gateway over connections in memory.
#[derive(Debug)]
pub struct MemoryGateway {
    /// The connections.
    pub buckets: Arc<[Bucket<MemorySocket>]>,
    /// The rooms.
    pub rooms: Rooms,
    /// The tide.
    pub merger: Merger<MemorySocket>,
    /// The threads that write.
    pub fanout: Arc<Fanout<MemorySocket>>,
    /// Rare events.
    pub totals: Arc<Totals>,
    interest: Interest,
    clock: Clock,
    received: MemoryWriter,
    opened: AtomicUsize,
    threads: Vec<JoinHandle<()>>,
}

impl MemoryGateway {
    /// Room for `connections_max` connections over the life of this gateway, in `buckets` buckets.
    ///
    /// # Errors
    /// The system's, when a thread or an epoll set cannot be had.
    #[expect(clippy::cast_possible_truncation, reason = "buckets are numbered in 16 bits everywhere")]
    pub fn start(connections_max: usize, buckets: usize, threads: usize, merge: &MergeConfig) -> io::Result<Self> {
        let received = (0..connections_max).map(|_| Received { frames: AtomicU32::new(0), bytes: AtomicU64::new(0) });
        let received = MemoryWriter(received.collect());
        let buckets: Arc<[Bucket<MemorySocket>]> =
            (0..buckets).map(|i| Bucket::new(i as u16)).collect::<io::Result<Vec<_>>>()?.into();
        let (clock, totals, writer) = (Clock::start(), Arc::new(Totals::default()), received.clone());
        let shape = Shape { threads, bytes_max: FANOUT_BYTES, pending_bytes_max: PENDING_BYTES, clock };
        let (fanout, threads) = Fanout::start(Arc::clone(&buckets), &shape, move || writer.clone())?;
        let compressor = Compressor::new(&DeflateConfig { level: 0, ..DeflateConfig::default() });
        let merger =
            Merger::new(merge, compressor, "memory", Arc::clone(&buckets), Arc::clone(&fanout), Arc::clone(&totals));
        Ok(Self {
            rooms: Rooms::new(buckets.len(), ROOMS_MAX, "memory-"),
            interest: Interest::new(INTEREST_LOG),
            opened: AtomicUsize::new(0),
            buckets,
            merger,
            fanout,
            totals,
            clock,
            received,
            threads,
        })
    }

    /// The gateway's time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Opens a connection; none when there have been as many as it has room for.
    #[expect(clippy::cast_possible_truncation, reason = "connections_max and the number of buckets are far below 2^32")]
    pub fn open(&self, user: Option<&Arc<str>>) -> Option<Place> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        if number >= self.received.0.len() {
            return None;
        }
        let index = match user {
            Some(user) => of_user(user, self.buckets.len()),
            None => (number % self.buckets.len()) as u16,
        };
        let socket = MemorySocket(NonZeroU32::MIN.saturating_add(number as u32));
        let bucket = &self.buckets[usize::from(index)];
        let mut table = bucket.table.write();
        let key = table.insert(socket, Platform::default(), self.clock.moment());
        bucket.count_in();
        if let Some(user) = user {
            table.enter_user(key.slot, Arc::clone(user), |name| self.interest.announce(InterestKind::User, name, true));
        }
        Some(Place { key: bucket.at(key), number: number as u32 })
    }

    /// Puts a connection into a room; false when it has gone, is in it, or there are too many rooms.
    pub fn join(&self, place: Place, room: &str) -> bool {
        let bucket = &self.buckets[usize::from(place.key.bucket)];
        let mut table = bucket.table.write();
        if table.find(place.key.at).is_none()
            || self.rooms.id(room).is_some_and(|id| table.is_in(place.key.at.slot, id))
        {
            return false;
        }
        let Some(entered) = self.rooms.enter(room, &self.interest) else { return false };
        table.join(place.key.at.slot, &entered.room, bucket.index, || entered.room.gather().seq)
    }

    /// Takes a connection out of a room; false when it was not in it.
    pub fn leave(&self, place: Place, room: &str) -> bool {
        let bucket = &self.buckets[usize::from(place.key.bucket)];
        let mut table = bucket.table.write();
        if table.find(place.key.at).is_none() {
            return false;
        }
        let Some(room) = self.rooms.id(room).and_then(|id| table.leave(place.key.at.slot, id, bucket.index)) else {
            return false;
        };
        self.rooms.exit(&room, &self.interest);
        true
    }

    /// Ends a connection; false when it has gone already.
    pub fn close(&self, place: Place) -> bool {
        let bucket = &self.buckets[usize::from(place.key.bucket)];
        let mut table = bucket.table.write();
        if table.find(place.key.at).is_none() {
            return false;
        }
        leave_all(&self.rooms, &self.interest, &mut table, place.key);
        table.remove(place.key.at.slot);
        bucket.count_out();
        true
    }

    /// Pushes messages; false when nobody can be meant.
    pub fn push(&self, to: To<'_>, messages: &[Bytes], lane: Lane, now: Millis) -> bool {
        let Some(target) = self.target(to) else { return false };
        self.merger.push(&target, messages, &Terms::plain(lane), now);
        true
    }

    /// The target, when it has members.
    #[must_use]
    pub fn target(&self, to: To<'_>) -> Option<Target> {
        match to {
            To::All => Some(self.merger.all.clone()),
            To::Room(room) => self.rooms.find(room).map(Target::from),
            To::User(user) => {
                let table = self.buckets[usize::from(of_user(user, self.buckets.len()))].table.read();
                let key = Arc::clone(table.users.get_key_value(user)?.0);
                drop(table);
                Some(self.merger.private(Private::User(key)))
            }
        }
    }

    /// Waits until everything flushed has been written.
    pub fn settle(&self) {
        while !self.fanout.is_quiet() {
            std::thread::yield_now();
        }
    }

    /// Counts a frame for a connection as its writer would: the floor that a delivery is compared with.
    pub fn receive(&self, number: u32, bytes: usize) {
        self.received.receive(number as usize, 1, bytes);
    }

    /// Frames and bytes that connection `number` has received.
    #[must_use]
    pub fn received(&self, number: u32) -> (u32, u64) {
        let received = &self.received.0[number as usize];
        (received.frames.load(Ordering::Relaxed), received.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for MemoryGateway {
    fn drop(&mut self) {
        self.fanout.stop();
        for thread in self.threads.drain(..) {
            // A fan-out thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(connections: usize) -> MemoryGateway {
        MemoryGateway::start(connections, 8, 2, &MergeConfig::default()).expect("threads")
    }

    fn message() -> [Bytes; 1] {
        [Bytes::from_static(b"\"tide\"")]
    }

    #[test]
    fn each_target_reaches_its_members_and_no_one_else() {
        let gateway = gateway(3);
        let ann: Arc<str> = "ann".into();
        let [a, b, c] = [Some(&ann), None, None].map(|user| gateway.open(user).expect("room"));
        assert!(gateway.join(b, "r") && !gateway.join(b, "r"));

        assert!(gateway.push(To::All, &message(), Lane::Urgent, gateway.now()));
        assert!(gateway.push(To::Room("r"), &message(), Lane::Urgent, gateway.now()));
        assert!(gateway.push(To::User("ann"), &message(), Lane::Urgent, gateway.now()));
        assert!(!gateway.push(To::Room("empty"), &message(), Lane::Urgent, gateway.now()));
        gateway.settle();

        assert_eq!([a, b, c].map(|place| gateway.received(place.number).0), [2, 2, 1]);
        assert_eq!(gateway.open(None), None, "as many as it has room for");
    }

    #[test]
    fn who_has_left_or_ended_gets_nothing() {
        let gateway = gateway(2);
        let [a, b] = [(); 2].map(|()| gateway.open(None).expect("room"));
        assert!(gateway.join(a, "r") && gateway.join(b, "r"));

        assert!(gateway.leave(a, "r") && !gateway.leave(a, "r"));
        assert!(gateway.close(b) && !gateway.close(b));
        assert!(!gateway.push(To::Room("r"), &message(), Lane::Urgent, gateway.now()), "the room has ended");
        gateway.push(To::All, &message(), Lane::Urgent, gateway.now());
        gateway.settle();

        assert_eq!([a, b].map(|place| gateway.received(place.number).0), [1, 0]);
    }
}
