//! The presence tick: every room with something to tell is taken off the list and its members are told, in one frame that is
//! encoded once and walked like any other.
//! Invariant: a room has at most one frame a tick.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_protocol::records::Lane;
use tidegate_protocol::{records, reply};

use crate::merge::control::{self, Control};
use crate::merge::topic::Topic;
use crate::node::Node;

/// Runs until the gateway stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut beats = node.clock.beats(node.config.presence.interval_ms, 0);
    loop {
        tokio::select! {
            () = node.stopped() => return,
            _ = beats.tick() => tell(&node),
        }
    }
}

fn tell(node: &Node) {
    for (topic, tally) in node.rooms.watched.take() {
        if tally.online > 0 {
            tell_members(node, &topic, &tally);
        }
    }
}

/// Who reads too slowly does without: the next frame says how many there are just the same.
fn tell_members(node: &Node, topic: &Arc<Topic>, tally: &records::Tally) {
    let frame = control::frame(&text(tally));
    let control = Control { frame: &frame, lane: Lane::Bulk, expires_at: 0, narrow: None, waiter: None };
    node.totals.presence_frames.fetch_add(1, Ordering::Relaxed);
    node.merger.control(topic, &control);
}

/// PRESENCE of this gateway's own members (rule P-3).
fn text(tally: &records::Tally) -> Vec<u8> {
    let mut json = Vec::with_capacity(128);
    let records::Tally { room, joined, left, online, users, sample } = tally;
    let (joined, left, online, users) = (*joined, *left, *online, *users);
    reply::presence(&mut json, &reply::Presence { room, joined, left, online, users, sample });
    json
}
