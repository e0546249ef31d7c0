//! The rooms of this gateway, by name: which exist, how many members they have over all buckets, and who comes and goes
//! where members are told (`presence`).
//! Who the members are is each bucket's own knowledge (`bucket::table`); the numbering is its topic's.
//! Invariant: a room is here exactly while it has members; its interest is announced and withdrawn under the same lock.

pub(crate) mod interest;
pub(crate) mod presence;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hashbrown::{HashMap, HashSet};
use tidegate_protocol::records::InterestKind;

use crate::locks::{Mutex, rank};
use crate::rooms::interest::Interest;
use crate::rooms::presence::Watched;
use crate::topic::Topic;
use crate::topic::room::Room;

/// Shards, so that joins in different buckets rarely meet.
pub const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Arc<Room>, ahash::RandomState>;
type Ids = HashSet<u32, ahash::RandomState>;

/// All rooms with members.
#[derive(Debug)]
pub struct Rooms {
    shards: Box<[Mutex<Shard, { rank::SHARD }>]>,
    hasher: ahash::RandomState,
    next_id: AtomicU32,
    /// Numbers of the rooms there are. Clients make rooms and leave them; after four billion of them numbers begin anew, and a
    /// room may have lived that long.
    ids: Box<[Mutex<Ids, { rank::IDS }>]>,
    count: AtomicUsize,
    max: usize,
    words: usize,
    epoch: Box<str>,
    /// Rooms whose members are told who comes and goes, and which of them have something to tell.
    pub watched: Watched,
}

/// A room just joined.
#[derive(Debug)]
pub struct Entered {
    /// The room.
    pub room: Arc<Room>,
    /// Interest version a logic node must know before the join is confirmed; 0 when it was known already.
    pub version: u64,
}

impl Rooms {
    /// No rooms yet. `epoch` is the gateway's, the beginning of every room's.
    #[must_use]
    pub fn new(buckets: usize, max: usize, epoch: &str) -> Self {
        Self::watching(buckets, max, epoch, Watched::default())
    }

    /// The same, with rooms whose members are told who comes and goes.
    #[must_use]
    pub fn watching(buckets: usize, max: usize, epoch: &str, watched: Watched) -> Self {
        Self {
            watched,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            next_id: AtomicU32::new(1),
            ids: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            max,
            words: buckets.div_ceil(64),
            epoch: epoch.into(),
        }
    }

    fn shard(&self, name: &str) -> &Mutex<Shard, { rank::SHARD }> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are kept")]
        let index = self.hasher.hash_one(name) as usize % SHARDS;
        &self.shards[index]
    }

    /// The room, when it has members.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Room>> {
        self.shard(name).lock().get(name).cloned()
    }

    /// The room's number, when it has members. What a connection knows of its rooms are numbers, so a name is looked up
    /// here, where much-used names stay in the caches, and not among the connection's own rooms.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<u32> {
        self.shard(name).lock().get(name).map(|room| room.id)
    }

    /// Counts one more member, making the room if need be; none when there are too many rooms.
    pub fn enter(&self, name: &str, interest: &Interest) -> Option<Entered> {
        let mut shard = self.shard(name).lock();
        if let Some(room) = shard.get(name) {
            room.members.fetch_add(1, Ordering::Relaxed);
            // Announced before, but perhaps not yet acknowledged.
            return Some(Entered { room: Arc::clone(room), version: room.announced });
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let id = self.number();
        let name: Arc<str> = name.into();
        let version = interest.announce(InterestKind::Room, &name, true);
        let room = Arc::new(Room {
            topic: Topic::default(),
            id,
            announced: version,
            name: Arc::clone(&name),
            epoch: format!("{}{id:x}", self.epoch).into(),
            buckets: (0..self.words).map(|_| AtomicU64::new(0)).collect(),
            members: AtomicU64::new(1),
            users: AtomicU64::new(0),
            changes: self.watched.is_watched(&name).then(Box::default),
        });
        shard.insert(name, Arc::clone(&room));
        Some(Entered { room, version })
    }

    /// A number that no room has.
    fn number(&self) -> u32 {
        loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            if id != 0 && self.ids_with(id).lock().insert(id) {
                return id;
            }
        }
    }

    fn ids_with(&self, id: u32) -> &Mutex<Ids, { rank::IDS }> {
        &self.ids[id as usize % SHARDS]
    }

    /// Counts one member less; the last one ends the room.
    pub fn exit(&self, room: &Arc<Room>, interest: &Interest) {
        let mut shard = self.shard(&room.name).lock();
        if room.members.fetch_sub(1, Ordering::Relaxed) == 1 {
            shard.remove(&*room.name);
            self.ids_with(room.id).lock().remove(&room.id);
            self.count.fetch_sub(1, Ordering::Relaxed);
            interest.announce(InterestKind::Room, &room.name, false);
        }
        // After the count: a tick in between would else tell an old one, and nothing would come to correct it. And before
        // the room can begin again: the end of its last life must not be told behind the beginning of the next.
        self.watched.note_left(room);
        drop(shard);
    }

    /// How many rooms there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Names of the rooms of one shard.
    #[must_use]
    pub fn names_in(&self, shard: usize) -> Vec<Arc<str>> {
        self.shards.get(shard).map_or_else(Vec::new, |s| s.lock().keys().cloned().collect())
    }

    /// Up to `limit` rooms by name, after `after` and beginning with `prefix`.
    #[must_use]
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<Arc<Room>> {
        let mut found: Vec<(Arc<str>, Arc<Room>)> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            found.extend(
                shard
                    .iter()
                    .filter(|(name, _)| name.starts_with(prefix) && &***name > after)
                    .map(|(name, room)| (Arc::clone(name), Arc::clone(room))),
            );
            // Keep the work bounded by what can be shown: only the first names of all shards matter.
            if found.len() > 4 * limit {
                found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                found.truncate(limit);
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.truncate(limit);
        found.into_iter().map(|(_, room)| room).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_lives_from_its_first_member_to_its_last() {
        let (rooms, interest) = (Rooms::new(64, 10, "e"), Interest::new(100));

        let first = rooms.enter("r", &interest).expect("room for one");
        let second = rooms.enter("r", &interest).expect("the same room");
        assert!(Arc::ptr_eq(&first.room, &second.room));
        rooms.exit(&first.room, &interest);
        assert!(rooms.find("r").is_some());
        rooms.exit(&first.room, &interest);

        assert!(rooms.find("r").is_none());
        assert_eq!((rooms.len(), interest.version()), (0, 2));
        let again = rooms.enter("r", &interest).expect("made anew");
        assert_ne!(again.room.epoch, first.room.epoch);
    }

    #[test]
    fn numbers_that_begin_anew_pass_over_rooms_that_still_live() {
        let (rooms, interest) = (Rooms::new(64, 10, "e"), Interest::new(100));
        let id_of = |name| rooms.enter(name, &interest).map(|entered| entered.room.id);
        let old = [id_of("a"), id_of("b")];
        let gone = rooms.enter("c", &interest).expect("room for a third");
        rooms.exit(&gone.room, &interest);
        rooms.next_id.store(u32::MAX, Ordering::Relaxed);

        let new = [id_of("d"), id_of("e"), id_of("f")];

        assert_eq!(old, [Some(1), Some(2)]);
        assert_eq!(new, [Some(u32::MAX), Some(3), Some(4)], "0 is none, 1 and 2 are taken, 3 is free again");
    }

    #[test]
    fn rooms_beyond_the_bound_are_refused() {
        let (rooms, interest) = (Rooms::new(64, 1, "e"), Interest::new(100));
        assert!(rooms.enter("a", &interest).is_some());
        assert!(rooms.enter("b", &interest).is_none());
        assert!(rooms.enter("a", &interest).is_some());
    }

    #[test]
    fn lists_are_sorted_and_go_on_after_the_cursor() {
        let (rooms, interest) = (Rooms::new(64, 1_000, "e"), Interest::new(10_000));
        for i in 0..300 {
            rooms.enter(&format!("r{i:03}"), &interest).expect("fits");
        }
        rooms.enter("other", &interest).expect("fits");
        let names = |rooms: Vec<Arc<Room>>| -> Vec<String> { rooms.iter().map(|room| room.name.to_string()).collect() };

        assert_eq!(names(rooms.list("r", "", 3)), ["r000", "r001", "r002"]);
        assert_eq!(names(rooms.list("r", "r002", 2)), ["r003", "r004"]);
        assert_eq!(names(rooms.list("r", "r298", 9)), ["r299"]);
    }
}
