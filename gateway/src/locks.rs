//! The order in which locks of the gateway are taken. A lock that is part of it has its rank in its type; a thread that holds one of
//! a rank takes only locks of higher ranks. Debug builds, and so all tests, stop where that is broken; a release build has no trace of it.
//! Locks that are taken alone, or as the last one, are not part of it: they are `parking_lot`'s own.
//! What is held over an `.await`, as the last batch of a logic node is (`backplane::links`), stands outside: nothing here is held then.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// The ranks: what is taken first comes first.
pub mod rank {
    /// One flush at a time.
    pub const FLUSH: u8 = 10;
    /// Topics of users and connections.
    pub const PRIVATE: u8 = 20;
    /// What has gathered for a user or a connection; under it the connections are looked up.
    pub const GATHER_PRIVATE: u8 = 30;
    /// One bucket's table.
    pub const TABLE: u8 = 40;
    /// A shard of the rooms.
    pub const SHARD: u8 = 50;
    /// Numbers of rooms.
    pub const IDS: u8 = 60;
    /// What has gathered for a room or everyone; asked for under the table when a room is joined.
    pub const GATHER_SHARED: u8 = 70;
    /// Targets whose windows are open.
    pub const WHEEL: u8 = 80;
    /// Who came and went in a room.
    pub const CHANGES: u8 = 90;
    /// Rooms with something to tell.
    pub const LISTED: u8 = 100;
    /// What logic must know.
    pub const INTEREST: u8 = 110;
    /// What clients have said.
    pub const QUEUES: u8 = 120;
    /// The right to write to a connection. A walk holds those of one bucket, in the order of their slots.
    pub const OUTBOX: u8 = 130;
    /// Commands for a bucket's task.
    pub const COMMANDS: u8 = 140;
    /// What compresses frames.
    pub const COMPRESSOR: u8 = 150;
    /// Batches for a bucket.
    pub const INBOX: u8 = 160;
}

/// That this thread holds a lock of a rank.
#[derive(Debug)]
struct Held {
    #[cfg(debug_assertions)]
    rank: u8,
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;

    use super::{Held, rank};

    thread_local! {
        /// Ranks of the locks that this thread holds, in the order in which it took them.
        static HELD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    impl Held {
        pub(super) fn new(rank: u8) -> Self {
            // A thread that is ending has no list any more, and takes no lock it could wait for.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                let top = held.iter().copied().max().unwrap_or(0);
                let is_in_order = rank > top || (rank == top && rank == rank::OUTBOX);
                assert!(is_in_order, "a lock of rank {rank} is taken under one of rank {top} (gateway/src/locks.rs)");
                held.push(rank);
            });
            Self { rank }
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|rank| *rank == self.rank) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
impl Held {
    #[inline]
    fn new(_rank: u8) -> Self {
        Self {}
    }
}

/// Access to what a lock guards, for as long as it lives.
#[derive(Debug)]
pub struct Guard<G> {
    guard: G,
    _held: Held,
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// Access of one.
pub type MutexGuard<'a, T> = Guard<parking_lot::MutexGuard<'a, T>>;
/// Access of one among several that only read.
pub type ReadGuard<'a, T> = Guard<parking_lot::RwLockReadGuard<'a, T>>;
/// Access of one that changes.
pub type WriteGuard<'a, T> = Guard<parking_lot::RwLockWriteGuard<'a, T>>;

impl<T> ReadGuard<'_, T> {
    /// Lets those who wait to write have their turn, if there are any.
    pub fn bump(&mut self) {
        parking_lot::RwLockReadGuard::bump(&mut self.guard);
    }
}

/// A mutex of a rank.
#[derive(Default)]
pub struct Mutex<T, const RANK: u8>(parking_lot::Mutex<T>);

impl<T, const RANK: u8> Mutex<T, RANK> {
    /// Guards a value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Waits for it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let _held = Held::new(RANK);
        Guard { guard: self.0.lock(), _held }
    }

    /// What nobody else can reach needs no lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T: fmt::Debug, const RANK: u8> fmt::Debug for Mutex<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mutex whose rank depends on what it belongs to, which whoever locks it knows.
#[derive(Debug, Default)]
pub struct RankedByOwner<T>(parking_lot::Mutex<T>);

impl<T> RankedByOwner<T> {
    /// Waits for it.
    #[inline]
    pub fn lock(&self, rank: u8) -> MutexGuard<'_, T> {
        let _held = Held::new(rank);
        Guard { guard: self.0.lock(), _held }
    }
}

/// A lock of a rank that several may read under.
#[derive(Default)]
pub struct RwLock<T, const RANK: u8>(parking_lot::RwLock<T>);

impl<T, const RANK: u8> RwLock<T, RANK> {
    /// Waits until nobody changes it.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let _held = Held::new(RANK);
        Guard { guard: self.0.read(), _held }
    }

    /// Waits for it.
    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let _held = Held::new(RANK);
        Guard { guard: self.0.write(), _held }
    }
}

impl<T: fmt::Debug, const RANK: u8> fmt::Debug for RwLock<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_costs_no_byte() {
        assert_eq!(size_of::<Mutex<u64, { rank::WHEEL }>>(), size_of::<parking_lot::Mutex<u64>>());
    }

    #[test]
    fn locks_are_let_go_in_any_order() {
        let (table, outboxes) =
            (RwLock::<u8, { rank::TABLE }>::default(), [0, 1].map(Mutex::<u8, { rank::OUTBOX }>::new));
        let table = table.read();
        let [first, second] = [&outboxes[0], &outboxes[1]].map(Mutex::lock);
        drop((table, first));
        drop(second);

        drop(Mutex::<u8, { rank::FLUSH }>::default().lock());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a lock of rank 40 is taken under one of rank 80")]
    fn the_wrong_order_is_found_by_whoever_takes_it() {
        let (table, wheel) = (RwLock::<u8, { rank::TABLE }>::default(), Mutex::<u8, { rank::WHEEL }>::default());
        let _wheel = wheel.lock();
        let _table = table.read();
    }
}
