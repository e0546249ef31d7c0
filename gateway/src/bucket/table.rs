//! The connections of one bucket: a dense slab, with the bucket's own rooms → members and user → slots indexes.
//! Plain data behind the bucket's `RwLock`; nothing here touches a socket but to own it.
//! Invariants: `hot` and `cold` have one length; a vacant slot has no fd and is in `free`; members and a user's slots are
//! in order and live; a connection is in a room's members exactly when the room is in its list.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hashbrown::HashMap;
use smallvec::SmallVec;
use tidegate_protocol::handshake::Deflate;

use super::expiry::{End, Expiries};
use super::pending::Pending;
use super::slots::SlotSet;
use crate::clock::{Coarse, Millis, Moment};
use crate::key::{ConnectionKey, SlotKey};
use crate::locks::{Mutex, rank};
use crate::session::{Act, HeldClaims, Open, Platform};
use crate::topic::batch::Narrow;
use crate::topic::encoding::Encoding;
use crate::topic::room::Room;

/// What the flush needs of a connection, packed: two fit a cache line. `S` is its socket, or what stands for one.
#[derive(Debug)]
pub struct Hot<S = OwnedFd> {
    /// The socket; none in a vacant slot.
    pub fd: Option<S>,
    /// How often the slot has been used before.
    pub generation: u32,
    /// Last inbound byte; written by the bucket's task.
    pub seen: AtomicU32,
    /// Last write the kernel took; counts as life, because TCP_USER_TIMEOUT ends a peer that does not acknowledge it.
    pub wrote: AtomicU32,
    /// The act to write to the socket, and what waits for it.
    pub outbox: Mutex<Option<Box<Pending>>, { rank::OUTBOX }>,
}

const _: () = assert!(size_of::<Hot>() <= 32, "two connections to a cache line");

/// The rest of a connection.
#[derive(Debug, Default)]
pub struct Cold {
    /// The user, when named; shared with the index.
    pub user: Option<Arc<str>>,
    /// Numbers of its rooms, unsorted.
    pub rooms: SmallVec<[u32; 4]>,
    /// When it was opened; it may last longer than [`Millis`] can tell.
    pub opened: Moment,
    /// When the last ping was sent; 0: none yet.
    pub pinged: Coarse,
    /// The platform.
    pub platform: Platform,
    /// permessage-deflate, if it was negotiated.
    pub deflate: Option<Deflate>,
    /// What its token says beyond user and platform; none: it needed no token, and may do what all such may.
    pub claims: Option<Box<HeldClaims>>,
    /// The client's address, where the socket's peer is a proxy or this process itself.
    pub address: Option<Box<SocketAddr>>,
}

const _: () = assert!(size_of::<Cold>() <= 72, "part of every connection's budget");

impl Cold {
    /// Whether the connection may do that with the room, user or route of this name.
    #[must_use]
    pub fn may(&self, open: &Open, act: Act, name: &str) -> bool {
        let user = self.user.as_deref();
        self.claims.as_ref().map_or_else(|| open.allows(act, user, name), |claims| claims.grant.allows(act, user, name))
    }

    /// Whether a message that is narrowed so is for this connection, whose key is `key`.
    #[must_use]
    pub fn is_meant(&self, key: ConnectionKey, narrow: &Narrow) -> bool {
        let is_excepted = |user: &str| narrow.except_users.binary_search_by(|e| e.as_str().cmp(user)).is_ok();
        let has = |(name, value): &(String, String)| {
            self.claims.as_ref().is_some_and(|claims| claims.attributes.find(name) == Some(value.as_str()))
        };
        (!narrow.is_by_platform || narrow.platforms.iter().any(|platform| platform.id == self.platform))
            && narrow.except_connections.binary_search(&key).is_err()
            && !self.user.as_deref().is_some_and(is_excepted)
            && narrow.attributes.iter().all(has)
    }
}

/// The members of one room in this bucket.
#[derive(Debug)]
pub struct Members {
    /// The room.
    pub room: Arc<Room>,
    /// Their slots.
    pub slots: SlotSet,
    /// Number of the last message this bucket has been walked for; a join takes it as where the numbering stands.
    pub seq: AtomicU64,
}

/// The connections of one user; all are in this bucket.
#[derive(Debug, Default)]
pub struct UserEntry {
    /// Slots, sorted.
    pub slots: SmallVec<[u32; 2]>,
    /// Number of the last message for this user since its first connection here.
    pub seq: AtomicU64,
    /// Sets the lives of a numbering apart.
    pub life: u32,
    /// Interest version at which the user was announced to logic.
    pub announced: u64,
}

/// Departures remembered; a walk lets go of the lock for far fewer.
const RECENT_MAX: usize = 1_024;

/// A user's connections.
pub type UserSlots = SmallVec<[SlotKey; 2]>;

/// One bucket's connections.
#[derive(Debug)]
pub struct Table<S = OwnedFd> {
    /// By slot.
    pub hot: Vec<Hot<S>>,
    /// By slot.
    pub cold: Vec<Cold>,
    /// By room number.
    pub rooms: HashMap<u32, Members, ahash::RandomState>,
    /// By user.
    pub users: HashMap<Arc<str>, UserEntry, ahash::RandomState>,
    /// Who takes frames in other encodings than plain, by [`Encoding::OTHERS`].
    pub takers: [SlotSet; Encoding::OTHERS_COUNT],
    /// When tokens run out.
    pub expiries: Expiries,
    /// Counts removals, so that a walk that let go of the lock knows whether slots may have changed hands.
    pub removals: u64,
    /// Counts departures from rooms, for the same reason.
    pub departures: u64,
    /// The last departures, (number, slot, room), so that a walk can tell whom they concern.
    recent: VecDeque<(u64, u32, u32)>,
    free: Vec<u32>,
    lives: u32,
}

/// A connection taken out of the table.
#[derive(Debug)]
pub struct Removed<S = OwnedFd> {
    /// The socket; closed when dropped.
    pub fd: S,
    /// Its entry.
    pub cold: Cold,
    /// What had been waiting for it.
    pub pending: Option<Box<Pending>>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self {
            hot: Vec::new(),
            cold: Vec::new(),
            rooms: HashMap::default(),
            users: HashMap::default(),
            takers: Default::default(),
            expiries: Expiries::default(),
            removals: 0,
            departures: 0,
            recent: VecDeque::new(),
            free: Vec::new(),
            lives: 0,
        }
    }
}

impl<S> Table<S> {
    /// What the next [`Table::insert`] will give.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a process has far fewer than 2^32 files")]
    pub fn next_slot(&self) -> SlotKey {
        match self.free.last() {
            Some(&slot) => self.key(slot),
            None => SlotKey { slot: self.hot.len() as u32, generation: 0 },
        }
    }

    /// Whoever is in a slot now.
    #[must_use]
    pub fn key(&self, slot: u32) -> SlotKey {
        SlotKey { slot, generation: self.hot[slot as usize].generation }
    }

    /// Adds a connection, where [`Table::next_slot`] said. The user is put in the index by
    /// [`Table::enter_user`].
    pub fn insert(&mut self, fd: S, platform: Platform, opened: Moment) -> SlotKey {
        let cold = Cold { platform, opened, ..Cold::default() };
        #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
        let now = opened as Millis;
        if let Some(slot) = self.free.pop() {
            let hot = &mut self.hot[slot as usize];
            hot.fd = Some(fd);
            hot.seen = AtomicU32::new(now);
            hot.wrote = AtomicU32::new(now);
            self.cold[slot as usize] = cold;
            return SlotKey { slot, generation: hot.generation };
        }
        let key = self.next_slot();
        self.hot.push(Hot {
            fd: Some(fd),
            generation: key.generation,
            seen: AtomicU32::new(now),
            wrote: AtomicU32::new(now),
            outbox: Mutex::new(None),
        });
        self.cold.push(cold);
        key
    }

    /// A connection, if it still is here.
    #[must_use]
    pub fn find(&self, key: SlotKey) -> Option<&Hot<S>> {
        self.hot.get(key.slot as usize).filter(|h| h.generation == key.generation && h.fd.is_some())
    }

    /// Names the user of a connection. `announce` is called when it is the user's first here and gives the interest version.
    /// Returns the version a logic node must know before the user is told.
    pub fn enter_user(&mut self, slot: u32, user: Arc<str>, announce: impl FnOnce(&Arc<str>) -> u64) -> u64 {
        let lives = &mut self.lives;
        let (key, entry) = match self.users.get_key_value(&user) {
            Some((key, _)) => {
                let key = Arc::clone(key);
                (key, self.users.get_mut(&user))
            }
            None => {
                *lives += 1;
                let entry = UserEntry { announced: announce(&user), life: *lives, ..UserEntry::default() };
                self.users.insert(Arc::clone(&user), entry);
                (Arc::clone(&user), self.users.get_mut(&user))
            }
        };
        self.cold[slot as usize].user = Some(key);
        let Some(entry) = entry else { return 0 };
        if let Err(at) = entry.slots.binary_search(&slot) {
            entry.slots.insert(at, slot);
        }
        entry.announced
    }

    /// Notes when the token of a connection runs out, if it does; `live` is how many connections there are.
    pub fn note_expiry(&mut self, slot: u32, live: usize) {
        let key = self.key(slot);
        let (hot, cold) = (&self.hot, &self.cold);
        if let Some(at_s) = cold[slot as usize].claims.as_ref().map(|b| b.expires_s).filter(|at| *at != 0) {
            self.expiries.note(End { at_s, key }, live, |end| is_end(hot, cold, end));
        }
    }

    /// Takes those whose tokens have run out by then.
    pub fn take_expired(&mut self, now_s: u32) -> Vec<SlotKey> {
        let (hot, cold) = (&self.hot, &self.cold);
        self.expiries.take_due(now_s, |end| is_end(hot, cold, end))
    }

    /// Takes a connection out. Returns it with whether its user has left this gateway. The rooms must have been left.
    pub fn remove(&mut self, slot: u32) -> Option<(Removed<S>, bool)> {
        let hot = self.hot.get_mut(slot as usize)?;
        let fd = hot.fd.take()?;
        hot.generation = hot.generation.wrapping_add(1);
        let pending = hot.outbox.get_mut().take();
        let cold = std::mem::take(&mut self.cold[slot as usize]);
        for takers in &mut self.takers {
            takers.remove(slot);
        }
        debug_assert!(cold.rooms.is_empty(), "rooms are left before removal");
        self.free.push(slot);
        self.removals += 1;
        let mut is_user_gone = false;
        if let Some(user) = &cold.user
            && let Some(entry) = self.users.get_mut(user)
        {
            if let Ok(at) = entry.slots.binary_search(&slot) {
                entry.slots.remove(at);
            }
            if entry.slots.is_empty() {
                self.users.remove(user);
                is_user_gone = true;
            }
        }
        Some((Removed { fd, cold, pending }, is_user_gone))
    }

    /// The encoding in which a connection takes frames that exist in it.
    #[must_use]
    #[inline]
    pub fn encoding_of(&self, slot: u32) -> Encoding {
        let taken = Encoding::OTHERS.into_iter().zip(&self.takers).find(|(_, takers)| takers.contains(slot));
        taken.map_or(Encoding::Plain, |(encoding, _)| encoding)
    }

    /// Puts a connection into a room; false when it was in it already. `last` is where the room's numbering stands,
    /// asked only when the room is new to this bucket, after it has been marked.
    pub fn join(&mut self, slot: u32, room: &Arc<Room>, index: u16, last: impl FnOnce() -> u64) -> bool {
        let cold = &mut self.cold[slot as usize];
        if cold.rooms.contains(&room.id) {
            return false;
        }
        cold.rooms.push(room.id);
        if !self.rooms.contains_key(&room.id) {
            // Mark first, ask second: a batch flushed in between is then walked here and skipped by its number.
            room.mark(index, true);
            let seq = AtomicU64::new(last());
            self.rooms.insert(room.id, Members { room: Arc::clone(room), slots: SlotSet::default(), seq });
        }
        let Some(members) = self.rooms.get_mut(&room.id) else { return false };
        members.slots.insert(slot);
        if self.is_only_one_of_user(slot, room.id) {
            room.users.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Whether a connection has a user, none of whose other connections is in the room. All of them are in this bucket,
    /// so this is exact, and what it costs is what the user has open.
    fn is_only_one_of_user(&self, slot: u32, room_id: u32) -> bool {
        let Some(entry) = self.cold[slot as usize].user.as_ref().and_then(|user| self.users.get(user)) else {
            return false;
        };
        !entry.slots.iter().any(|&other| other != slot && self.is_in(other, room_id))
    }

    /// Takes a connection out of a room it leaves while it lives; gives the room if it was in it.
    pub fn leave(&mut self, slot: u32, room_id: u32, index: u16) -> Option<Arc<Room>> {
        let room = self.drop_member(slot, room_id, index)?;
        self.departures += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((self.departures, slot, room_id));
        Some(room)
    }

    /// Takes a connection out of a room because it ends; its generation tells walks as much.
    pub fn drop_member(&mut self, slot: u32, room_id: u32, index: u16) -> Option<Arc<Room>> {
        let cold = self.cold.get_mut(slot as usize)?;
        let at = cold.rooms.iter().position(|&r| r == room_id)?;
        cold.rooms.swap_remove(at);
        let was_last_of_user = self.is_only_one_of_user(slot, room_id);
        let members = self.rooms.get_mut(&room_id)?;
        members.slots.remove(slot);
        let room = Arc::clone(&members.room);
        if was_last_of_user {
            room.users.fetch_sub(1, Ordering::Relaxed);
        }
        if members.slots.is_empty() {
            room.mark(index, false);
            self.rooms.remove(&room_id);
        }
        Some(room)
    }

    /// Whether a connection has left a room since the departure of that number.
    #[must_use]
    pub fn has_left_since(&self, departure: u64, slot: u32, room_id: u32) -> bool {
        if self.recent.front().is_some_and(|oldest| oldest.0 > departure + 1) {
            // More have left than are remembered: who is no member now has left; for the others nothing better is known.
            return self.rooms.get(&room_id).is_none_or(|members| !members.slots.contains(slot));
        }
        self.recent.iter().rev().take_while(|r| r.0 > departure).any(|r| (r.1, r.2) == (slot, room_id))
    }

    /// Whether a connection is in the room of that number.
    #[must_use]
    pub fn is_in(&self, slot: u32, room_id: u32) -> bool {
        self.cold.get(slot as usize).is_some_and(|cold| cold.rooms.contains(&room_id))
    }

    /// Numbering of a user, and its connections.
    #[must_use]
    pub fn user_slots(&self, user: &str) -> Option<(&UserEntry, UserSlots)> {
        let entry = self.users.get(user)?;
        let slots = entry.slots.iter().map(|&slot| self.key(slot)).collect();
        Some((entry, slots))
    }

    /// Where a room's numbering stands for this bucket.
    #[must_use]
    pub fn room_seq(&self, room_id: u32) -> u64 {
        self.rooms.get(&room_id).map_or(0, |m| m.seq.load(Ordering::Acquire))
    }
}

/// Whether a noted end is still that of the connection's token.
fn is_end<S>(hot: &[Hot<S>], cold: &[Cold], End { at_s, key }: End) -> bool {
    let slot = key.slot as usize;
    let is_here = hot.get(slot).is_some_and(|h| h.generation == key.generation && h.fd.is_some());
    is_here && cold[slot].claims.as_ref().is_some_and(|b| b.expires_s == at_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Attributes, ClaimsPool, Grant, Platforms};

    fn key(slot: u32, generation: u32) -> ConnectionKey {
        ConnectionKey { bucket: 0, at: SlotKey { slot, generation } }
    }

    fn who(user: Option<&str>, platform: u8) -> Cold {
        Cold { user: user.map(Arc::from), platform: Platform(platform), ..Cold::default() }
    }

    #[test]
    fn narrowing_leaves_out_exactly_those_named() {
        let narrow = Narrow {
            platforms: vec![Platforms::default().of(Platform(1))],
            is_by_platform: true,
            except_connections: vec![key(3, 9)],
            except_users: vec!["ann".into()],
            ..Narrow::default()
        };

        assert!(who(Some("bob"), 1).is_meant(key(3, 8), &narrow));
        assert!(who(None, 1).is_meant(key(4, 9), &narrow));
        assert!(!who(Some("bob"), 1).is_meant(key(3, 9), &narrow), "excepted connection");
        assert!(!who(Some("ann"), 1).is_meant(key(3, 8), &narrow), "excepted user");
        assert!(!who(Some("bob"), 2).is_meant(key(3, 8), &narrow), "other platform");
    }

    #[test]
    fn platforms_nobody_has_admit_nobody() {
        let narrow = Narrow { is_by_platform: true, ..Narrow::default() };
        assert!(!who(None, 0).is_meant(key(0, 0), &narrow));
    }

    #[test]
    fn all_attributes_must_hold() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let narrow = |wanted| Narrow { attributes: pairs(wanted), ..Narrow::default() };
        let attributes = Attributes::of(&[("lang", "de"), ("tier", "pro")]).expect("two pairs");
        let claims = ClaimsPool::default().make(None, attributes, Grant::everything(), 0);
        let named = Cold { claims: Some(Box::new(claims)), ..Cold::default() };

        assert!(named.is_meant(key(0, 0), &narrow(&[("lang", "de"), ("tier", "pro")])));
        assert!(!named.is_meant(key(0, 0), &narrow(&[("lang", "de"), ("tier", "free")])));
        assert!(!named.is_meant(key(0, 0), &narrow(&[("age", "9")])));
        assert!(!Cold::default().is_meant(key(0, 0), &narrow(&[("lang", "de")])), "a connection without a token");
    }
}
