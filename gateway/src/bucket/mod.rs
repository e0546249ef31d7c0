//! A bucket: a shard of the connections, the unit of everything. One `RwLock`ed [`table`], one epoll set, one task that
//! drives it (`connection`), one inbox of batches that the fan-out threads walk ([`walk`]). No task, timer, channel or idle
//! buffer per connection. Writers of the table: the task (remove, join, leave) and the acceptors (insert); readers: walks,
//! lookups, stats.

pub(crate) mod control;
pub mod expiry;
pub mod inbox;
pub mod outbox;
pub mod pending;
pub mod slots;
pub mod table;
pub mod walk;

#[cfg(test)]
mod closing_tests;
#[cfg(test)]
mod deflated_tests;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam::utils::CachePadded;
use hashbrown::HashSet;
use rustix::event::epoll;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::Deflate;
use tokio::sync::Notify;

use self::inbox::Inbox;
use self::table::Table;
use crate::counters::BucketCounters;
use crate::key::{ConnectionKey, SlotKey};
use crate::locks::{Mutex, RwLock, rank};
use crate::topic::encoding::Encoding;

/// What others ask of a bucket's task.
#[derive(Debug)]
pub enum Command {
    /// Close a connection with a code and a reason's text.
    Close {
        /// Which.
        key: SlotKey,
        /// Close code.
        code: u16,
        /// Reason's text.
        text: Box<str>,
    },
    /// End a connection whose pending has no room even for what was lost.
    Cut(SlotKey),
    /// What waited for a connection has left by another hand: listen to it again if it was not listened to.
    Resume(SlotKey),
    /// Bytes that came with the handshake and belong to the first frames.
    Early {
        /// Which.
        key: SlotKey,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// What waits for a bucket's task. At most one [`Command::Close`] a connection, however often it is asked for: the first counts.
#[derive(Debug, Default)]
struct Commands {
    list: Vec<Command>,
    /// Whom a `Close` in the list is for.
    closing: HashSet<SlotKey, ahash::RandomState>,
}

/// A shard of the connections.
#[derive(Debug)]
pub struct Bucket<S = OwnedFd> {
    /// Its number.
    pub index: u16,
    /// The connections.
    pub table: RwLock<Table<S>, { rank::TABLE }>,
    /// Batches to be walked.
    pub inbox: Inbox,
    /// What the walks and the task have counted.
    pub counters: CachePadded<BucketCounters>,
    pub(crate) epoll: OwnedFd,
    live: AtomicUsize,
    /// Of them, those that take frames compressed for everyone; agrees with the table's set.
    takers: [AtomicUsize; Encoding::OTHERS_COUNT],
    /// What others ask of the task and it has not looked at.
    commands: Mutex<Commands, { rank::COMMANDS }>,
    pub(crate) wake: Notify,
}

impl<S> Bucket<S> {
    /// An empty bucket.
    ///
    /// # Errors
    /// The system's, when there is no epoll set to be had.
    pub fn new(index: u16) -> std::io::Result<Self> {
        Ok(Self {
            index,
            table: RwLock::default(),
            inbox: Inbox::default(),
            counters: CachePadded::default(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            live: AtomicUsize::new(0),
            takers: Default::default(),
            commands: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// One of its connections, as the whole gateway knows it.
    #[must_use]
    pub fn at(&self, key: SlotKey) -> ConnectionKey {
        ConnectionKey { bucket: self.index, at: key }
    }

    /// Live connections.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Watches a connection's socket. Edge-triggered both ways and for good: no further call per event.
    ///
    /// # Errors
    /// The system's, when the set cannot grow.
    pub fn watch(&self, fd: impl AsFd, key: SlotKey) -> rustix::io::Result<()> {
        let data = epoll::EventData::new_u64(key.to_u64());
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, fd, data, flags)
    }

    /// Lets go of a connection's socket, which another bucket is to watch.
    pub(crate) fn unwatch(&self, fd: impl AsFd) {
        // It is in the set as long as its connection is in the table.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Counts a connection in; the acceptor calls it once the connection is in the table.
    pub fn count_in(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_out(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Live connections that take an encoding other than plain; without any, nothing is made in it for this bucket.
    #[must_use]
    pub fn takers(&self, encoding: Encoding) -> usize {
        encoding.index().map_or(0, |i| self.takers[i].load(Ordering::Relaxed))
    }

    fn admit(&self, table: &mut Table<S>, slot: u32, encoding: Encoding) {
        if let Some(i) = encoding.index() {
            table.takers[i].insert(slot);
            self.takers[i].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn dismiss(&self, encoding: Encoding) {
        if let Some(i) = encoding.index() {
            self.takers[i].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes what a connection that has just entered the table negotiated.
    pub fn admit_deflate(&self, table: &mut Table<S>, slot: u32, deflate: Deflate) {
        table.cold[slot as usize].deflate = Some(deflate);
        if deflate.takes_shared_frames() {
            self.admit(table, slot, Encoding::Deflated);
        }
    }

    /// The same backwards, for a connection that is out of the table.
    pub(crate) fn dismiss_deflate(&self, deflate: Option<Deflate>) {
        if deflate.is_some_and(Deflate::takes_shared_frames) {
            self.dismiss(Encoding::Deflated);
        }
    }

    /// Asks the task for something.
    pub fn command(&self, command: Command) {
        let mut commands = self.commands.lock();
        if let Command::Close { key, .. } = command
            && !commands.closing.insert(key)
        {
            return;
        }
        commands.list.push(command);
        drop(commands);
        self.wake.notify_one();
    }

    /// Gives the task a turn.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes what was asked for, in order.
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        let mut commands = self.commands.lock();
        if !commands.closing.is_empty() {
            commands.closing = HashSet::default();
        }
        std::mem::take(&mut commands.list)
    }

    /// Asks the task to close a connection.
    pub fn close(&self, key: SlotKey, reason: CloseReason, retry_after_ms: Option<u32>) {
        let text = reason.text(retry_after_ms).into();
        self.command(Command::Close { key, code: reason.code(), text });
    }
}

/// A frame for one connection, framed already.
pub(crate) fn text_frame(json: &[u8]) -> Bytes {
    tidegate_protocol::ws::frame(tidegate_protocol::ws::OpCode::Text, json)
}

/// The bucket that holds all connections of a user.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below the number of buckets, 16 bits")]
pub fn of_user(user: &str, buckets: usize) -> u16 {
    static HASHER: OnceLock<ahash::RandomState> = OnceLock::new();
    (HASHER.get_or_init(ahash::RandomState::new).hash_one(user) % buckets as u64) as u16
}
