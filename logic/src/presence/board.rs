//! What gateways have told of their rooms' comings and goings, until the members of all gateways are told: adds up what came
//! and went, keeps each gateway's latest counts, and says which rooms are due. Pure: the time is an argument.
//! Invariants: a room is told at most once in `interval`, and so seldom that its members together are told at most
//! `members_per_s`; what was noted is told once.

use ahash::RandomState;
use hashbrown::HashMap;
use tidegate_protocol::records::Tally;
use tokio::time::{Duration, Instant};

use crate::fleet::GatewaySlot;

/// What one room has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Connections that came.
    pub joined: u64,
    /// Connections that went.
    pub left: u64,
    /// A few of the users who came.
    pub sample: Vec<String>,
    /// Most of them: as many as any gateway wants told.
    pub sample_max: usize,
    /// The latest word of each gateway that has spoken: connections, and different users among them.
    pub counts: Vec<(GatewaySlot, u64, u64)>,
}

impl News {
    /// Adds what came later.
    pub fn add(&mut self, later: Self) {
        self.joined += later.joined;
        self.left += later.left;
        self.sample_max = self.sample_max.max(later.sample_max);
        for name in later.sample {
            if self.sample.len() < self.sample_max && !self.sample.contains(&name) {
                self.sample.push(name);
            }
        }
        self.counts.retain(|(gateway, ..)| !later.counts.iter().any(|(later, ..)| later == gateway));
        self.counts.extend(later.counts);
    }
}

/// The rooms with something to tell, and those told lately.
#[derive(Debug)]
pub struct Board {
    rooms: HashMap<Box<str>, News, RandomState>,
    /// Rooms told lately: until when they are left in peace.
    told: HashMap<Box<str>, Instant, RandomState>,
    interval: Duration,
    members_per_s: u32,
    max: usize,
}

impl Board {
    /// Nothing to tell. At most `max` rooms wait to be told at once.
    #[must_use]
    pub fn new(interval: Duration, members_per_s: u32, max: usize) -> Self {
        Self { rooms: HashMap::default(), told: HashMap::default(), interval, members_per_s, max }
    }

    /// Notes what a gateway tells; false when too many rooms wait already.
    pub fn note(&mut self, gateway: GatewaySlot, tally: Tally) -> bool {
        if self.rooms.len() >= self.max && !self.rooms.contains_key(tally.room.as_str()) {
            return false;
        }
        let news = self.rooms.entry(tally.room.into()).or_default();
        // An older gateway does not say how many it wants told: no more than it names.
        let sample_max = if tally.sample_max == 0 { tally.sample.len() } else { tally.sample_max as usize };
        news.add(News {
            joined: tally.joined,
            left: tally.left,
            sample: tally.sample,
            sample_max,
            counts: vec![(gateway, tally.online, tally.users)],
        });
        true
    }

    /// Takes what has come of a room since it was taken, if anything has.
    pub fn take_late(&mut self, room: &str) -> Option<News> {
        self.rooms.remove(room)
    }

    /// Takes the rooms that are due.
    pub fn take(&mut self, now: Instant) -> Vec<(Box<str>, News)> {
        self.told.retain(|_, until| now < *until);
        let told = &self.told;
        let due: Vec<(Box<str>, News)> = self.rooms.extract_if(|room, _| !told.contains_key(room)).collect();
        for (room, news) in &due {
            self.told.insert(room.clone(), now + self.spacing(news));
        }
        due
    }

    /// How long a room is left in peace: a frame for a million members costs seconds of a core, one for ten nothing.
    fn spacing(&self, news: &News) -> Duration {
        let online: u64 = news.counts.iter().map(|(_, online, _)| online).sum();
        self.interval.max(Duration::from_millis(online.saturating_mul(1_000) / u64::from(self.members_per_s)))
    }

    /// Rooms that wait to be told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rooms.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::interest::GatewayIndex;

    const SECOND: Duration = Duration::from_secs(1);

    fn tally(room: &str, joined: u64, left: u64, online: u64, sample: &[&str]) -> Tally {
        let sample = sample.iter().map(ToString::to_string).collect();
        Tally { room: room.into(), joined, left, online, users: online, sample, sample_max: 8 }
    }

    fn at(i: usize) -> GatewaySlot {
        GatewaySlot { index: GatewayIndex::new(i).expect("small"), generation: 0 }
    }

    #[test]
    fn what_gateways_tell_adds_up_and_their_last_word_on_the_counts_stands() {
        let mut board = Board::new(SECOND, 5_000, 10);
        board.note(at(0), tally("r", 2, 0, 2, &["ann"]));
        board.note(at(1), tally("r", 1, 0, 1, &["bob", "ann"]));
        board.note(at(0), tally("r", 0, 1, 1, &[]));

        let mut told = board.take(Instant::now());

        let (room, news) = told.pop().expect("one room");
        assert_eq!((&*room, news.joined, news.left), ("r", 3, 1));
        assert_eq!(news.sample, ["ann", "bob"]);
        assert_eq!(news.counts.as_slice(), [(at(1), 1, 1), (at(0), 1, 1)]);
        assert_eq!((told.len(), board.waiting()), (0, 0));
    }

    #[test]
    fn a_sample_of_many_gateways_is_no_longer_than_that_of_one() {
        let mut board = Board::new(SECOND, 5_000, 10);
        for gateway in 0..5 {
            let names: Vec<String> = (0..5).map(|n| format!("u{gateway}{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            board.note(at(gateway), tally("r", 5, 0, 5, &names));
        }

        let told = board.take(Instant::now());

        assert_eq!((told[0].1.joined, told[0].1.sample.len()), (25, 8));
    }

    #[test]
    fn what_comes_while_others_are_asked_belongs_to_the_same_frame() {
        let mut board = Board::new(SECOND, 5_000, 10);
        board.note(at(0), tally("r", 2, 0, 2, &["ann"]));
        let (room, mut news) = board.take(Instant::now()).remove(0);
        // The other gateway was asked, and then told.
        news.counts.push((at(1), 0, 0));
        board.note(at(1), tally("r", 3, 1, 2, &["bob"]));

        news.add(board.take_late(&room).expect("it came"));

        assert_eq!((news.joined, news.left, news.sample), (5, 1, vec!["ann".to_owned(), "bob".into()]));
        assert_eq!(news.counts, [(at(0), 2, 2), (at(1), 2, 2)]);
        assert!(board.take(Instant::now() + SECOND).is_empty(), "told once");
    }

    #[test]
    fn a_room_is_told_once_an_interval_and_loses_nothing_meanwhile() {
        let mut board = Board::new(SECOND, 5_000, 10);
        let start = Instant::now();
        board.note(at(0), tally("r", 1, 0, 1, &[]));
        assert_eq!(board.take(start).len(), 1);
        board.note(at(0), tally("r", 1, 0, 2, &[]));
        assert!(board.take(start + SECOND / 2).is_empty());
        board.note(at(0), tally("r", 1, 0, 3, &[]));

        let told = board.take(start + SECOND);

        assert_eq!((told.len(), told[0].1.joined), (1, 2));
    }

    #[test]
    fn a_large_room_is_told_as_seldom_as_its_size_asks() {
        let mut board = Board::new(SECOND, 5_000, 10);
        let start = Instant::now();
        board.note(at(0), tally("large", 1, 0, 6_000, &[]));
        board.note(at(1), tally("large", 1, 0, 4_000, &[]));
        assert_eq!(board.take(start).len(), 1);
        board.note(at(0), tally("large", 1, 0, 6_001, &[]));

        assert!(board.take(start + SECOND * 2 - Duration::from_millis(1)).is_empty());
        assert_eq!(board.take(start + SECOND * 2).len(), 1);
    }

    #[test]
    fn too_many_rooms_are_refused() {
        let mut board = Board::new(SECOND, 5_000, 1);

        assert!(board.note(at(0), tally("a", 1, 0, 1, &[])));
        assert!(!board.note(at(0), tally("b", 1, 0, 1, &[])));
        assert!(board.note(at(1), tally("a", 1, 0, 1, &[])));
    }
}
