//! Whose message is tried next while a lane's first fails and the sink takes nothing else. Order is a user's and not a lane's,
//! so the first message of each other user of the lane may go before its turn.
//! Invariant: what is found is its user's first in the lane, since all before it was looked at and is of users known by then.

use std::collections::HashSet;

use super::spool::frame::Stored;
use super::spool::{self, Spool, SpoolError};

/// Users tried in vain before the search begins anew.
const KNOWN_MAX: usize = 1_024;

/// Messages, and bytes of them, that are looked through at a time; the next time goes on behind them.
const LOOK_MAX: (usize, usize) = (4_096, 4 * 1024 * 1024);

/// How far a lane has looked behind its first message.
#[derive(Debug, Default)]
pub struct Search {
    /// The first message.
    head: u64,
    /// Number of the last that was looked at.
    looked: u64,
    /// Whose have failed.
    known: HashSet<u32>,
}

impl Search {
    /// A lane's first message has failed; another one than before begins the search anew.
    pub fn behind(&mut self, head: &Stored) {
        if self.head != head.number || self.known.len() >= KNOWN_MAX {
            *self = Self { head: head.number, looked: head.number, known: HashSet::from([head.shard]) };
        }
    }

    /// The first message of a user who is not known, if there is one as far as it looks. Blocking.
    ///
    /// # Errors
    /// What the disk says.
    pub fn next(&mut self, spool: &Spool, lane: u16) -> Result<Option<Stored>, SpoolError> {
        let (mut found, mut is_end, mut seen, mut size) = (None, true, 0, 0);
        let (known, looked) = (&self.known, &mut self.looked);
        spool.each(lane, *looked, |number, value| {
            found = spool::message(number, value).filter(|message| !known.contains(&message.shard));
            if found.is_none() {
                *looked = number;
            }
            (seen, size) = (seen + 1, size + value.len());
            is_end = found.is_none() && seen < LOOK_MAX.0 && size < LOOK_MAX.1;
            !is_end
        })?;
        if is_end && self.known.len() > 1 {
            // Those who failed may not do so for ever: the next failure begins anew.
            self.head = 0;
        }
        Ok(found)
    }

    /// What was found has failed, too.
    pub fn failed(&mut self, message: &Stored) {
        self.known.insert(message.shard);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::spool::Change;
    use super::*;

    fn stored(number: u64, shard: u32) -> Stored {
        Stored { number, shard, taken_ms: 0, line: Bytes::from_static(b"{}") }
    }

    /// Users 1, 2 and 3 in one lane.
    fn spool(folder: &tempfile::TempDir) -> Spool {
        let (spool, _) = Spool::open(&folder.path().join("a.redb"), 1).expect("opens");
        let shards = [1, 1, 2, 1, 2, 3, 2, 3];
        let puts: Vec<Change> = (1..).zip(shards).map(|(number, shard)| Change::Put(stored(number, shard))).collect();
        spool.commit(&puts, 9).expect("commits");
        spool
    }

    #[test]
    fn each_other_users_first_is_found_in_turn_and_then_again() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let (spool, mut search) = (spool(&folder), Search::default());
        let mut found = Vec::new();
        for _ in 0..6 {
            search.behind(&stored(1, 1));
            let next = search.next(&spool, 0).expect("reads");
            next.iter().for_each(|message| search.failed(message));
            found.push(next.map(|message| message.number));
        }

        assert_eq!(found, [Some(3), Some(6), None, Some(3), Some(6), None]);
    }

    #[test]
    fn a_user_whose_message_was_taken_goes_on_in_order() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let (spool, mut search) = (spool(&folder), Search::default());
        let mut found = Vec::new();
        search.behind(&stored(1, 1));
        while let Some(message) = search.next(&spool, 0).expect("reads") {
            spool.commit(&[Change::Take { lane: 0, number: message.number }], 9).expect("commits");
            found.push(message.number);
        }

        assert_eq!(found, [3, 5, 6, 7, 8]);
        let left = spool.read(0, 0, 10, 1_000).expect("reads").messages;
        assert_eq!(left.iter().map(|message| message.number).collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn a_user_with_many_messages_is_looked_through_in_parts() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let (spool, _) = Spool::open(&folder.path().join("a.redb"), 1).expect("opens");
        let last = 2 * LOOK_MAX.0 as u64 + 1;
        let puts: Vec<Change> =
            (1..=last).map(|number| Change::Put(stored(number, u32::from(number == last)))).collect();
        spool.commit(&puts, last + 1).expect("commits");
        let mut search = Search::default();
        search.behind(&stored(1, 0));

        let found = [(); 3].map(|()| search.next(&spool, 0).expect("reads").map(|message| message.number));

        assert_eq!(found, [None, Some(last), Some(last)]);
    }

    #[test]
    fn many_users_in_vain_are_forgotten_at_the_bound() {
        let mut search = Search::default();
        for shard in 0..10_000 {
            search.behind(&stored(1, 1));
            search.failed(&stored(2, shard));
            assert!(search.known.len() <= KNOWN_MAX);
        }
    }
}
