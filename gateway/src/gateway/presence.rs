//! The presence tick: every room with something to tell is taken off the list. A logic node that is linked adds up over all
//! gateways and has the members told; without one the gateway tells its own, in a frame encoded once and walked like any.
//! Invariant: a room is told or sent up at most once a tick.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_protocol::records::{Lane, Sender, item::What};
use tidegate_protocol::{records, reply};

use crate::clock::Clock;
use crate::counters::Totals;
use crate::deliver::merge::{Merger, Terms, ready};
use crate::lifecycle::Lifecycle;
use crate::rooms::Rooms;
use crate::topic::room::Room;
use crate::topic::target::Target;
use crate::uplink::{Addressee, Said, Uplink, Whose};

/// What the tick tells of, and to whom.
pub(crate) struct PresenceTick {
    pub rooms: Arc<Rooms>,
    pub uplink: Arc<Uplink>,
    pub merger: Arc<Merger>,
    pub totals: Arc<Totals>,
    pub lifecycle: Arc<Lifecycle>,
    pub clock: Clock,
    pub interval_ms: u32,
}

impl PresenceTick {
    /// Runs until the gateway stops.
    pub async fn run(self) {
        let mut beats = self.clock.beats(self.interval_ms, 0);
        loop {
            tokio::select! {
                () = self.lifecycle.stopped() => return,
                _ = beats.tick() => self.tell(),
            }
        }
    }

    fn tell(&self) {
        let is_linked = self.uplink.nodes() > 0;
        for (room, tally) in self.rooms.watched.take() {
            let sequence = if is_linked { self.send_up(&tally) } else { None };
            if sequence.is_none() && tally.online > 0 {
                self.tell_members(&room, &tally);
            }
            // After it is said: whoever asks in between gets the figures from before, and then those that are on their way.
            self.rooms.watched.note_told(&room, &tally, sequence.unwrap_or(0));
        }
    }

    /// A room's members may be at several gateways: the logic node that the room belongs to adds up and has all of them told.
    /// Gives its number; none when the way up is full.
    fn send_up(&self, tally: &records::Tally) -> Option<u64> {
        let whom = Addressee::Name(tally.room.as_bytes());
        let (from, what) = (Sender::default(), What::Tally(tally.clone()));
        self.uplink.say(Said { whom, from, what, whose: Whose::Nobody }, self.clock.now()).ok()
    }

    /// Who reads too slowly does without: the next frame says how many there are just the same.
    fn tell_members(&self, room: &Arc<Room>, tally: &records::Tally) {
        let frame = ready::frame(&text(tally));
        self.totals.presence_frames.fetch_add(1, Ordering::Relaxed);
        self.merger.send_ready(&Target::from(Arc::clone(room)), &frame, &Terms::plain(Lane::Bulk));
    }
}

/// PRESENCE of this gateway's own members (rule P-3).
fn text(tally: &records::Tally) -> Vec<u8> {
    let mut json = Vec::with_capacity(128);
    let records::Tally { room, joined, left, online, users, sample, .. } = tally;
    let (joined, left, online, users) = (*joined, *left, *online, *users);
    reply::presence(&mut json, &reply::Presence { room, joined, left, online, users, sample });
    json
}
