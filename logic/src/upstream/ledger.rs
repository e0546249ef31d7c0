//! How much a sink holds, against its bounds: messages waiting, of those the ones not yet on the disk, and dead letters; of each
//! what is one user's, so that nobody fills it for all. Only numbers; whoever moves a message books it here first.
//! Invariants: no booking passes its bound; `waiting_of` has nobody who has nothing.

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::graves::{Grave, Graves};
use super::spool::{Amount, Found, Stored};
use crate::config::{DeadFull, SinkConfig};

/// Bytes that may wait for the disk: a few commits' worth, so that a stalled disk refuses instead of filling memory.
pub const UNWRITTEN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The books of a sink.
#[derive(Debug)]
pub struct Ledger {
    spool_bytes: u64,
    dead_bytes: u64,
    dead_user_bytes: u64,
    dead_full: DeadFull,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    books: Books,
    /// Bytes waiting, by shard.
    waiting_of: HashMap<u32, u64, RandomState>,
    graves: Graves,
}

/// What is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Accepted and not delivered.
    pub waiting: Amount,
    /// Bytes of those that are not on the disk yet.
    pub unwritten: u64,
    /// Given up.
    pub dead: Amount,
}

/// Whether a message may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is booked.
    Taken,
    /// There is no room for anyone.
    Full,
    /// There is room, but its user has too much of it.
    UserFull,
}

/// Whether a message may become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Burial {
    /// It is booked; these make room: those of the same user, then the oldest of all.
    Booked {
        /// Of the same user, whose letters had reached their bound.
        of_user: Vec<Grave>,
        /// The oldest of all.
        oldest: Vec<Grave>,
    },
    /// It is larger than all the room there is, and booked as gone.
    TooLarge,
    /// There is no room, and none is made.
    Hold,
}

impl Amount {
    fn gain(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn lose(&mut self, other: Self) {
        debug_assert!(self.messages >= other.messages && self.bytes >= other.bytes, "{self:?} - {other:?}");
        self.messages = self.messages.saturating_sub(other.messages);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

const fn one(bytes: u64) -> Amount {
    Amount { messages: 1, bytes }
}

impl Inner {
    fn comes(&mut self, shard: u32, bytes: u64) {
        self.books.waiting.gain(bytes);
        *self.waiting_of.entry(shard).or_default() += bytes;
    }

    fn goes(&mut self, shard: u32, bytes: u64) {
        self.books.waiting.lose(one(bytes));
        if let Some(left) = self.waiting_of.get_mut(&shard) {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.waiting_of.remove(&shard);
            }
        }
    }

    fn buried(&mut self, grave: Grave) {
        self.books.dead.gain(grave.bytes);
        self.graves.add(grave);
    }

    /// Takes out letters, as `next` names them, until there is room.
    fn make_room(&mut self, next: impl Fn(&mut Self) -> Option<Grave>) -> Vec<Grave> {
        std::iter::from_fn(|| {
            let grave = next(self)?;
            self.books.dead.lose(one(grave.bytes));
            Some(grave)
        })
        .collect()
    }
}

impl Ledger {
    /// Opens the books with what was found.
    #[must_use]
    pub fn new(config: &SinkConfig, found: &Found) -> Self {
        let mut graves = Graves::default();
        found.graves.iter().for_each(|grave| graves.add(*grave));
        let books = Books { waiting: found.waiting, unwritten: 0, dead: found.dead };
        let waiting_of = found.waiting_of.iter().map(|(shard, bytes)| (*shard, *bytes)).collect();
        Self {
            spool_bytes: config.spool_bytes,
            dead_bytes: config.dead_bytes,
            dead_user_bytes: config.dead_user_bytes,
            dead_full: config.dead_full,
            inner: Mutex::new(Inner { books, waiting_of, graves }),
        }
    }

    /// What is held now.
    #[must_use]
    pub fn books(&self) -> Books {
        self.inner.lock().books
    }

    /// A new message, if there is room. A user may have as much waiting as is then still free: one alone gets half of the
    /// spool, and the more fill it the less each, so there is always some left for those who have nothing in it.
    #[must_use]
    pub fn admit(&self, shard: u32, bytes: u64) -> Admission {
        let mut inner = self.inner.lock();
        let taken = inner.books.waiting.bytes + bytes;
        if taken > self.spool_bytes || inner.books.unwritten + bytes > UNWRITTEN_BYTES_MAX {
            return Admission::Full;
        }
        let held = inner.waiting_of.get(&shard).copied().unwrap_or(0);
        if held > 0 && held + bytes > self.spool_bytes - taken {
            return Admission::UserFull;
        }
        inner.comes(shard, bytes);
        inner.books.unwritten += bytes;
        Admission::Taken
    }

    /// An admitted message is on the disk.
    pub fn written(&self, bytes: u64) {
        let books = &mut self.inner.lock().books;
        books.unwritten = books.unwritten.saturating_sub(bytes);
    }

    /// An admitted message could not be written.
    pub fn withdraw(&self, shard: u32, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.books.unwritten = inner.books.unwritten.saturating_sub(bytes);
        inner.goes(shard, bytes);
    }

    /// The sink has them.
    pub fn delivered(&self, messages: &[Stored]) {
        let mut inner = self.inner.lock();
        messages.iter().for_each(|message| inner.goes(message.shard, message.weight()));
    }

    /// A message cannot be read any more, nor whose it was: its user's share is smaller until the next start.
    pub fn lost(&self, bytes: u64) {
        self.inner.lock().books.waiting.lose(one(bytes));
    }

    /// A message becomes a dead letter.
    #[must_use]
    pub fn bury(&self, grave: Grave) -> Burial {
        let mut inner = self.inner.lock();
        let Grave { shard, bytes, .. } = grave;
        let hold = self.dead_full == DeadFull::Hold;
        if hold && inner.books.dead.bytes + bytes > self.dead_bytes {
            return Burial::Hold;
        }
        if bytes > self.dead_bytes {
            inner.goes(shard, bytes);
            return Burial::TooLarge;
        }
        let (user_bytes, dead_bytes) = (self.dead_user_bytes, self.dead_bytes);
        let of_user = inner.make_room(|inner| {
            let is_over = !hold && inner.graves.bytes_of(shard) + bytes > user_bytes;
            is_over.then(|| inner.graves.pop_of(shard)).flatten()
        });
        let oldest = inner.make_room(|inner| {
            let is_over = inner.books.dead.bytes + bytes > dead_bytes;
            is_over.then(|| inner.graves.pop()).flatten()
        });
        inner.goes(shard, bytes);
        inner.buried(grave);
        Burial::Booked { of_user, oldest }
    }

    /// What [`Ledger::bury`] booked did not happen.
    pub fn unbury(&self, grave: Grave, made_room: &[Grave]) {
        let mut inner = self.inner.lock();
        if inner.graves.remove(grave.number, grave.shard) {
            inner.books.dead.lose(one(grave.bytes));
        }
        inner.comes(grave.shard, grave.bytes);
        made_room.iter().for_each(|grave| inner.buried(*grave));
    }

    /// A dead letter becomes a message again, if it is still there and there is room.
    #[must_use]
    pub fn revive(&self, grave: Grave) -> bool {
        let mut inner = self.inner.lock();
        if inner.books.waiting.bytes + grave.bytes > self.spool_bytes || !inner.graves.remove(grave.number, grave.shard)
        {
            return false;
        }
        inner.books.dead.lose(one(grave.bytes));
        inner.comes(grave.shard, grave.bytes);
        true
    }

    /// What [`Ledger::revive`] booked did not happen.
    pub fn unrevive(&self, grave: Grave) {
        let mut inner = self.inner.lock();
        inner.goes(grave.shard, grave.bytes);
        inner.buried(grave);
    }

    /// A dead letter is gone, unless it made room before.
    pub fn forget(&self, grave: Grave) {
        let mut inner = self.inner.lock();
        if inner.graves.remove(grave.number, grave.shard) {
            inner.books.dead.lose(one(grave.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(spool_bytes: u64, dead_bytes: u64, dead_user_bytes: u64, dead_full: DeadFull) -> Ledger {
        let config = SinkConfig { spool_bytes, dead_bytes, dead_user_bytes, dead_full, ..SinkConfig::default() };
        Ledger::new(&config, &Found::default())
    }

    fn takes(ledger: &Ledger, shard: u32, bytes: u64) -> bool {
        ledger.admit(shard, bytes) == Admission::Taken
    }

    fn grave(number: u64, shard: u32, bytes: u64) -> Grave {
        Grave { number, shard, bytes }
    }

    #[test]
    fn the_spool_takes_messages_up_to_its_bytes_and_again_when_some_are_delivered() {
        let ledger = ledger(100, 0, 0, DeadFull::Evict);
        assert!(takes(&ledger, 1, 60) && takes(&ledger, 2, 40));
        assert_eq!(ledger.admit(3, 1), Admission::Full);

        ledger.withdraw(1, 60);

        assert!(takes(&ledger, 3, 60) && !takes(&ledger, 4, 1));
    }

    #[test]
    fn one_user_gets_half_of_the_spool_and_many_leave_room_for_one_more() {
        let ledger = ledger(1_000, 0, 0, DeadFull::Evict);
        let fill = |shard| (0..1_000).take_while(|_| takes(&ledger, shard, 10)).count();

        assert_eq!(fill(1), 50);
        assert_eq!(ledger.admit(1, 10), Admission::UserFull);
        assert!([fill(2), fill(3), fill(4)] >= [25, 12, 6]);
        assert!(takes(&ledger, 5, 10), "who has nothing waiting gets through");
        ledger.withdraw(1, 10);
        assert_eq!(
            ledger.admit(1, 10),
            Admission::UserFull,
            "who has had their share does not get it back before others"
        );
    }

    #[test]
    fn what_waits_for_the_disk_has_a_bound_of_its_own() {
        let ledger = ledger(u64::MAX / 2, 0, 0, DeadFull::Evict);
        assert!(takes(&ledger, 1, UNWRITTEN_BYTES_MAX) && !takes(&ledger, 2, 1));

        ledger.written(UNWRITTEN_BYTES_MAX);

        assert!(takes(&ledger, 2, 1));
        ledger.withdraw(2, 1);
        assert_eq!(ledger.books().waiting, one(UNWRITTEN_BYTES_MAX));
    }

    #[test]
    fn told_to_hold_dead_letters_beyond_their_bytes_stay_in_the_spool() {
        let ledger = ledger(200, 50, 10, DeadFull::Hold);
        assert!(takes(&ledger, 1, 40) && takes(&ledger, 1, 40));

        assert_eq!(ledger.bury(grave(1, 1, 40)), Burial::Booked { of_user: vec![], oldest: vec![] });
        assert_eq!(ledger.bury(grave(2, 1, 40)), Burial::Hold);

        let books = ledger.books();
        assert_eq!((books.waiting, books.dead), (one(40), one(40)));
        assert!(takes(&ledger, 2, 160) && !ledger.revive(grave(1, 1, 40)), "the spool is full");
        ledger.forget(grave(1, 1, 40));
        assert_eq!(ledger.books().dead, Amount::default());
    }

    #[test]
    fn a_user_with_too_many_dead_letters_loses_their_oldest_and_else_the_oldest_of_all_goes() {
        let ledger = ledger(10_000, 100, 40, DeadFull::Evict);
        for (number, shard) in [(1, 1), (2, 2), (3, 2)] {
            assert!(takes(&ledger, shard, 20));
            let booked = ledger.bury(grave(number, shard, 20));
            assert_eq!(booked, Burial::Booked { of_user: vec![], oldest: vec![] });
        }

        assert!(takes(&ledger, 2, 30) && takes(&ledger, 3, 40));
        let user = Burial::Booked { of_user: vec![grave(2, 2, 20), grave(3, 2, 20)], oldest: vec![] };
        assert_eq!(ledger.bury(grave(4, 2, 30)), user);
        let _before = ledger.bury(grave(5, 3, 40));
        assert!(takes(&ledger, 4, 20) && takes(&ledger, 4, 101));
        let all = Burial::Booked { of_user: vec![], oldest: vec![grave(1, 1, 20)] };
        assert_eq!(ledger.bury(grave(6, 4, 20)), all);
        assert_eq!(ledger.bury(grave(7, 4, 101)), Burial::TooLarge);

        assert_eq!(ledger.books().dead, Amount { messages: 3, bytes: 90 });
        ledger.unbury(grave(6, 4, 20), &[grave(1, 1, 20)]);
        assert_eq!((ledger.books().dead, ledger.books().waiting), (Amount { messages: 3, bytes: 90 }, one(20)));
        ledger.forget(grave(6, 4, 20));
        assert_eq!(ledger.books().dead.bytes, 90, "what is gone is not counted twice");
        assert!(ledger.revive(grave(1, 1, 20)) && !ledger.revive(grave(1, 1, 20)));
    }
}
