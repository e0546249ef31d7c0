//! Joining and leaving, whoever asks for it: a client (`requests`) or the business (admin `commands`). One place, so that
//! limits, blocks, counts and what the client hears are the same for both.
//! All of it happens under the table's write lock, so that no walk comes between a change and its reply (rule R-4).
//! Invariant: a connection is in a room's members here, counted in the registry and in the room's list together or not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidegate_protocol::limits;
use tidegate_protocol::reply::{JoinedRoom, RoomError};

use crate::bucket::control::ControlWriter;
use crate::bucket::pending::Queued;
use crate::bucket::table::Table;
use crate::bucket::{Bucket, Command};
use crate::config::settings::Settings;
use crate::connection::report::Reporter;
use crate::counters::{Delta, DropReason};
use crate::key::ConnectionKey;
use crate::rooms::Rooms;
use crate::rooms::interest::{Held, Interest};
use crate::session::{Access, Act};
use crate::uplink::events::Happened;

/// One room's outcome of a JOIN.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is in, and was before if not `is_new`.
    In { is_new: bool, online: u64, epoch: Box<str>, seq: u64 },
    /// It is not.
    Refused { code: &'static str, message: &'static str },
}

impl Joined {
    /// As JOINED tells it.
    pub fn part<'a>(&'a self, room: &'a str) -> JoinedRoom<'a> {
        match self {
            Self::In { online, epoch, seq, .. } => JoinedRoom::Joined { room, online: *online, epoch, seq: *seq },
            Self::Refused { code, message } => JoinedRoom::Refused { room, error: RoomError { code, message } },
        }
    }
}

/// What is not granted and what is blocked look the same: neither is the client's to explore.
const FORBIDDEN: Joined = Joined::Refused { code: "forbidden", message: "this connection may not join that room" };

/// Who is in which room.
#[derive(Debug)]
pub(crate) struct Membership {
    pub buckets: Arc<[Bucket]>,
    pub rooms: Arc<Rooms>,
    pub interest: Arc<Interest>,
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub reporter: Arc<Reporter>,
    pub control: ControlWriter,
}

impl Membership {
    /// Puts a connection into a room that it asks for itself, if it may join it.
    pub fn request(&self, table: &mut Table, key: ConnectionKey, room: &str, version: &mut u64) -> Joined {
        let is_in = || self.rooms.id(room).is_some_and(|id| table.is_in(key.at.slot, id));
        if limits::is_valid_name(room)
            && !table.cold[key.at.slot as usize].may(&self.access.open, Act::Join, room)
            && !is_in()
        {
            return FORBIDDEN;
        }
        self.enter(table, key, room, version)
    }

    /// Puts a connection into a room, whatever it was granted. `version` is raised to what logic must know before it may be told.
    pub fn enter(&self, table: &mut Table, key: ConnectionKey, room: &str, version: &mut u64) -> Joined {
        if !limits::is_valid_name(room) {
            let message = "a room name is 1 to 128 bytes of UTF-8 without control characters";
            return Joined::Refused { code: "invalid", message };
        }
        if let Some(room_id) = self.rooms.id(room).filter(|&id| table.is_in(key.at.slot, id)) {
            return standing(table, room_id, false);
        }
        let user = table.cold[key.at.slot as usize].user.clone();
        if user.as_ref().is_some_and(|user| self.access.blocklist.is_blocked_from(user, room)) {
            return FORBIDDEN;
        }
        if table.cold[key.at.slot as usize].rooms.len() >= self.settings.rooms() {
            return Joined::Refused { code: "limit", message: "this connection is in as many rooms as HELLO allows" };
        }
        let Some(entered) = self.rooms.enter(room, &self.interest) else {
            return Joined::Refused { code: "limit", message: "this gateway holds as many rooms as it may" };
        };
        *version = (*version).max(entered.version);
        table.join(key.at.slot, &entered.room, key.bucket, || entered.room.gather().seq);
        self.rooms.watched.note_came(&entered.room, user.as_ref());
        self.reporter.tell(table, key, Happened::Joined(room));
        standing(table, entered.room.id, true)
    }

    /// Tells a connection that it is in, once logic knows: until then the frame waits in its outbox (rule R-4).
    pub fn confirm(&self, table: &Table, key: ConnectionKey, frame: Bytes, version: u64, d: &mut Delta) -> Queued {
        let Some(hot) = table.find(key.at) else { return Queued::Dropped(DropReason::Closed) };
        if self.interest.hold(version, key, self.control.clock.now()) {
            self.control.hold(hot, frame, version, d)
        } else {
            self.control.control(hot, frame, d)
        }
    }

    /// Takes a connection out of a room while it lives; false when it was not in it.
    pub fn leave(&self, table: &mut Table, key: ConnectionKey, room: &str) -> bool {
        let Some(room) = self.rooms.id(room).and_then(|room_id| table.leave(key.at.slot, room_id, key.bucket)) else {
            return false;
        };
        self.rooms.exit(&room, &self.interest);
        true
    }

    /// Takes a connection out of all its rooms, because it ends.
    pub fn leave_all(&self, table: &mut Table, key: ConnectionKey) {
        leave_all(&self.rooms, &self.interest, table, key);
    }

    /// Lets go of replies that waited for logic to know.
    pub fn release(&self, held: &[Held]) {
        for h in held {
            let ConnectionKey { bucket, at } = h.connection;
            let bucket = &self.buckets[usize::from(bucket)];
            let table = bucket.table.read();
            let Some(hot) = table.find(at) else { continue };
            let mut d = Delta::default();
            let waited = self.control.release(hot, h.version, &mut d);
            bucket.counters.add(&d);
            if self.control.is_deaf(waited) {
                // Its task may have stopped listening to it; no event will tell that the way is clear.
                bucket.command(Command::Resume(at));
            }
        }
    }
}

fn standing(table: &Table, room_id: u32, is_new: bool) -> Joined {
    let room = table.rooms.get(&room_id).map(|members| &members.room);
    Joined::In {
        is_new,
        online: room.map_or(0, |r| r.members.load(Ordering::Relaxed)),
        epoch: room.map_or_else(|| "".into(), |r| r.epoch.clone()),
        seq: table.room_seq(room_id),
    }
}

/// Takes a connection out of all its rooms.
pub(crate) fn leave_all<S>(rooms: &Rooms, interest: &Interest, table: &mut Table<S>, key: ConnectionKey) {
    let slot = key.at.slot;
    for room_id in std::mem::take(&mut table.cold[slot as usize].rooms) {
        table.cold[slot as usize].rooms.push(room_id);
        if let Some(room) = table.drop_member(slot, room_id, key.bucket) {
            rooms.exit(&room, interest);
        }
    }
}
