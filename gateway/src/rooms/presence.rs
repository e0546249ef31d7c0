//! Presence: members of chosen rooms are told who comes and goes, in one frame a tick and room however many come and go.
//! This file says which rooms those are and keeps the list of those with something to tell; the counts themselves lie
//! with the rooms (`topic::room`), where they cost nothing to keep.
//! Invariants: a room is on the list once; a room that has changed is on the list or its change is in the figures told last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_protocol::records;

use crate::config::PresenceConfig;
use crate::locks::{Mutex, rank};
use crate::session::matches;
use crate::topic::room::{Changes, Room};

/// Which rooms' members are told, and which rooms have something to tell.
#[derive(Debug, Default)]
pub struct Watched {
    patterns: Vec<String>,
    sample: usize,
    listed: Mutex<Vec<Arc<Room>>, { rank::LISTED }>,
    listed_max: usize,
    /// Rooms that found the list full: their members are told with the next change.
    pub skipped: AtomicU64,
}

impl Watched {
    /// As configured; `listed_max` bounds the rooms with something to tell at one tick.
    #[must_use]
    pub fn new(config: &PresenceConfig, listed_max: usize) -> Self {
        Self { patterns: config.rooms.clone(), sample: config.sample, listed_max, ..Self::default() }
    }

    /// Whether the members of a room of that name are told.
    #[must_use]
    pub fn is_watched(&self, room: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, None, room))
    }

    /// A connection has come.
    pub fn note_came(&self, room: &Arc<Room>, user: Option<&Arc<str>>) {
        self.note(room, |changes| {
            changes.joined += 1;
            changes.online += 1;
            if let Some(user) = user
                && changes.sample.len() < self.sample
                && !changes.sample.contains(user)
            {
                changes.sample.push(Arc::clone(user));
            }
        });
    }

    /// A connection has gone.
    pub fn note_left(&self, room: &Arc<Room>) {
        self.note(room, |changes| {
            changes.left += 1;
            changes.online = changes.online.saturating_sub(1);
        });
    }

    fn note(&self, room: &Arc<Room>, change: impl FnOnce(&mut Changes)) {
        let Some(changes) = &room.changes else { return };
        let mut changes = changes.lock();
        change(&mut changes);
        if changes.is_listed {
            return;
        }
        let mut listed = self.listed.lock();
        if listed.len() >= self.listed_max {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        listed.push(Arc::clone(room));
        changes.is_listed = true;
    }

    /// Takes the rooms that have something to tell, each with what it is.
    pub fn take(&self) -> Vec<(Arc<Room>, records::Tally)> {
        let listed = std::mem::take(&mut *self.listed.lock());
        listed.into_iter().filter_map(|room| self.take_one(&room).map(|changes| (room, changes))).collect()
    }

    /// What came, went and is here, of one moment: whoever comes or goes from now on puts the room back on the list.
    fn take_one(&self, room: &Room) -> Option<records::Tally> {
        let mut changes = room.changes.as_ref()?.lock();
        changes.is_listed = false;
        Some(records::Tally {
            room: room.name.to_string(),
            joined: std::mem::take(&mut changes.joined),
            left: std::mem::take(&mut changes.left),
            online: changes.online,
            users: room.users.load(Ordering::Relaxed),
            sample: std::mem::take(&mut changes.sample).iter().map(ToString::to_string).collect(),
            sample_max: u32::try_from(self.sample).unwrap_or(u32::MAX),
        })
    }

    /// The figures that were taken are on their way, as the item of this number: they are this gateway's word until the next.
    pub fn note_told(&self, room: &Room, told: &records::Tally, sequence: u64) {
        if let Some(changes) = &room.changes {
            changes.lock().told = records::ToldRoom { online: told.online, users: told.users, sequence };
        }
    }

    /// Rooms with something to tell at the coming tick.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.listed.lock().len()
    }
}

/// The counts of a room as its members were told last; none where they are not told.
pub(crate) fn told(room: &Room) -> Option<records::ToldRoom> {
    Some(room.changes.as_ref()?.lock().told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::Rooms;
    use crate::rooms::interest::Interest;

    fn rooms(patterns: &[&str], listed_max: usize) -> (Rooms, Interest) {
        let rooms = patterns.iter().map(ToString::to_string).collect();
        let config = PresenceConfig { rooms, sample: 2, ..PresenceConfig::default() };
        (Rooms::watching(64, 100, "e", Watched::new(&config, listed_max)), Interest::new(100))
    }

    /// The counts that a frame is made of belong together, however many come while it is made.
    #[test]
    fn what_came_and_went_is_of_one_moment_with_who_is_here() {
        let (rooms, interest) = rooms(&["*"], 10);
        let room = come(&rooms, &interest, "r", "ann");
        // In the room already, but not yet noted as come.
        rooms.enter("r", &interest).expect("room for one");

        let first = rooms.watched.take().remove(0).1;
        let before = told(&room);
        rooms.watched.note_told(&room, &first, 7);
        rooms.watched.note_came(&room, None);
        let second = rooms.watched.take().remove(0).1;

        assert_eq!((first.joined, first.online, second.joined, second.online), (1, 1, 1, 2));
        assert_eq!(before, Some(records::ToldRoom::default()), "nothing is told yet");
        assert_eq!(told(&room).map(|told| (told.online, told.sequence)), Some((1, 7)), "the second is not yet told");
    }

    fn come(rooms: &Rooms, interest: &Interest, room: &str, user: &str) -> Arc<Room> {
        let room = rooms.enter(room, interest).expect("room for one").room;
        rooms.watched.note_came(&room, Some(&user.into()));
        room
    }

    #[test]
    fn a_tick_tells_everything_since_the_last_one_once() {
        let (rooms, interest) = rooms(&["chat:*"], 10);
        let room = come(&rooms, &interest, "chat:1", "ann");
        come(&rooms, &interest, "chat:1", "ann");
        come(&rooms, &interest, "chat:1", "bob");
        come(&rooms, &interest, "chat:1", "eve");
        rooms.exit(&room, &interest);
        come(&rooms, &interest, "other", "ann");

        let told = rooms.watched.take();

        assert_eq!(told.len(), 1, "the other room is not watched");
        let changes = &told[0].1;
        assert_eq!((changes.joined, changes.left, changes.online), (4, 1, 3));
        assert_eq!(changes.sample, ["ann", "bob"]);
        assert!(rooms.watched.take().is_empty());
    }

    #[test]
    fn the_end_of_a_room_is_told_too() {
        let (rooms, interest) = rooms(&["*"], 10);
        let room = come(&rooms, &interest, "r", "ann");
        rooms.watched.take();

        rooms.exit(&room, &interest);

        let told = rooms.watched.take();
        assert_eq!((told[0].1.left, told[0].1.online), (1, 0));
    }

    #[test]
    fn a_full_list_is_counted_and_the_room_comes_with_its_next_change() {
        let (rooms, interest) = rooms(&["*"], 1);
        come(&rooms, &interest, "a", "ann");
        come(&rooms, &interest, "b", "ann");
        assert_eq!(rooms.watched.skipped.load(Ordering::Relaxed), 1);
        assert_eq!(rooms.watched.take().len(), 1);

        come(&rooms, &interest, "b", "bob");

        let told = rooms.watched.take();
        assert_eq!((told[0].1.room.as_str(), told[0].1.joined, told[0].1.online), ("b", 2, 2));
    }
}
