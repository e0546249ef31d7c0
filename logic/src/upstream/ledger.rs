//! How much a sink holds, against its bounds: messages waiting, of those the ones not yet on the disk, and dead letters.
//! Only numbers; whoever moves a message books it here first. Invariant: no booking passes its bound.

use parking_lot::Mutex;

use super::spool::{Amount, Stored};

/// Bytes that may wait for the disk: a few commits' worth, so that a stalled disk refuses instead of filling memory.
pub const UNWRITTEN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The books of a sink.
#[derive(Debug)]
pub struct Ledger {
    spool_bytes: u64,
    dead_bytes: u64,
    books: Mutex<Books>,
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

/// Of some messages.
#[must_use]
pub fn amount(messages: &[Stored]) -> Amount {
    Amount { messages: messages.len() as u64, bytes: messages.iter().map(Stored::weight).sum() }
}

const fn one(bytes: u64) -> Amount {
    Amount { messages: 1, bytes }
}

impl Ledger {
    /// Opens the books with what was found.
    #[must_use]
    pub fn new(spool_bytes: u64, dead_bytes: u64, waiting: Amount, dead: Amount) -> Self {
        Self { spool_bytes, dead_bytes, books: Mutex::new(Books { waiting, unwritten: 0, dead }) }
    }

    /// What is held now.
    #[must_use]
    pub fn books(&self) -> Books {
        *self.books.lock()
    }

    /// A new message, if there is room.
    #[must_use]
    pub fn admit(&self, bytes: u64) -> bool {
        let mut books = self.books.lock();
        if books.waiting.bytes + bytes > self.spool_bytes || books.unwritten + bytes > UNWRITTEN_BYTES_MAX {
            return false;
        }
        books.waiting.gain(bytes);
        books.unwritten += bytes;
        true
    }

    /// An admitted message is on the disk.
    pub fn written(&self, bytes: u64) {
        let mut books = self.books.lock();
        books.unwritten = books.unwritten.saturating_sub(bytes);
    }

    /// An admitted message could not be written.
    pub fn withdraw(&self, bytes: u64) {
        let mut books = self.books.lock();
        books.unwritten = books.unwritten.saturating_sub(bytes);
        books.waiting.lose(one(bytes));
    }

    /// The sink has them.
    pub fn delivered(&self, amount: Amount) {
        self.books.lock().waiting.lose(amount);
    }

    /// A message becomes a dead letter, if there is room.
    #[must_use]
    pub fn bury(&self, bytes: u64) -> bool {
        let mut books = self.books.lock();
        if books.dead.bytes + bytes > self.dead_bytes {
            return false;
        }
        books.dead.gain(bytes);
        books.waiting.lose(one(bytes));
        true
    }

    /// A dead letter becomes a message again, if there is room.
    #[must_use]
    pub fn revive(&self, bytes: u64) -> bool {
        let mut books = self.books.lock();
        if books.waiting.bytes + bytes > self.spool_bytes {
            return false;
        }
        books.waiting.gain(bytes);
        books.dead.lose(one(bytes));
        true
    }

    /// What [`Ledger::bury`] or [`Ledger::revive`] booked did not happen.
    pub fn undo(&self, bytes: u64, was_buried: bool) {
        let mut books = self.books.lock();
        if was_buried {
            books.dead.lose(one(bytes));
            books.waiting.gain(bytes);
        } else {
            books.waiting.lose(one(bytes));
            books.dead.gain(bytes);
        }
    }

    /// A dead letter is gone.
    pub fn forget(&self, bytes: u64) {
        self.books.lock().dead.lose(one(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(spool: u64, dead: u64) -> Ledger {
        Ledger::new(spool, dead, Amount::default(), Amount::default())
    }

    #[test]
    fn the_spool_takes_messages_up_to_its_bytes_and_again_when_some_are_delivered() {
        let ledger = ledger(100, 0);
        assert!(ledger.admit(60) && ledger.admit(40) && !ledger.admit(1));

        ledger.delivered(one(60));

        assert!(ledger.admit(60) && !ledger.admit(1));
    }

    #[test]
    fn what_waits_for_the_disk_has_a_bound_of_its_own() {
        let ledger = ledger(u64::MAX / 2, 0);
        assert!(ledger.admit(UNWRITTEN_BYTES_MAX) && !ledger.admit(1));

        ledger.written(UNWRITTEN_BYTES_MAX);

        assert!(ledger.admit(1));
        ledger.withdraw(1);
        assert_eq!(ledger.books().waiting, one(UNWRITTEN_BYTES_MAX));
    }

    #[test]
    fn dead_letters_beyond_their_bytes_stay_in_the_spool() {
        let ledger = ledger(100, 50);
        assert!(ledger.admit(40) && ledger.admit(40));

        assert!(ledger.bury(40) && !ledger.bury(40));

        let books = ledger.books();
        assert_eq!((books.waiting, books.dead), (one(40), one(40)));
        assert!(ledger.admit(60) && !ledger.revive(40), "the spool is full");
        ledger.forget(40);
        assert_eq!(ledger.books().dead, Amount::default());
    }
}
